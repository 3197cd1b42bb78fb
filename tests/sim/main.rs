//! Whole clusters in one thread, replayed from a seed.

mod disk;
mod log;
