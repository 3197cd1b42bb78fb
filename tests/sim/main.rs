//! Whole clusters in one thread, replayed from a seed.

mod vfs;
mod databases;
