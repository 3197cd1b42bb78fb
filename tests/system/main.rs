//! The real executable, as users run it: processes, sockets, files, signals.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests of processes have threads and clocks, and say what they saw"
)]

mod bad_http;
mod bench;
mod client;
mod crash;
mod exits;
mod fence;
mod find;
mod hostile;
mod idempotency;
mod idle;
mod large;
mod limits;
mod metrics;
mod placement;
mod process;
mod replies;
mod repair;
mod reshard;
mod slow_http;
mod space;
mod sql;
mod storage;
mod threads;
mod walkthrough;
