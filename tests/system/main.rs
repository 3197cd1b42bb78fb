//! The real executable, as users run it: processes, sockets, files, signals.

mod client;
mod crash;
mod exits;
mod large;
mod process;
mod sql;
mod walkthrough;
