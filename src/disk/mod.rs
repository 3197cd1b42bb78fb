//! What a shard has on disk, on `io_uring` or on helper threads. It decides nothing: the cores do.
//!
//! [`boot`] reads logs before any core runs; [`log`] writes one on its core; [`segments`] prepares its
//! files beside it.

pub mod boot;
pub mod log;
pub mod segments;
