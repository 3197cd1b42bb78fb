//! The write-ahead log of one shard: format, staging, segment accounting, recovery verdicts.
//!
//! One log per shard holds all its partitions. What replicas want on disk is staged as [`record`]s into
//! the open batch; while one batch is being written the next one fills, so one sync covers whatever was
//! staged meanwhile. The core decides every byte and offset; `disk::log` writes and syncs.
//!
//! Invariants
//! - A sequence number is reported durable only after the write of its batch was followed by a sync.
//! - One batch is in flight at a time, so only the last batch on disk can be torn.
//! - A segment leaves the log only after something durable says that nothing in it is needed.
//! - Damage to a batch that a later one calls durable refuses the start; it is never cut off (R1).
//!
//! Deliberately absent: files, clocks, and reading entries back. Replicas keep the entries they may need
//! in memory; after a start they come from [`recovery`].
//!
//! Start reading at [`log::Log`]; the bytes are in [`format`](mod@format) and [`record`]. [`generations`] is how
//! a node with another number of shards goes on with the logs that it has.

pub mod record;
pub mod format;
mod known;
pub mod meta;
pub mod ledger;
pub mod log;
mod segments;
pub mod recovery;
pub mod whole;
pub mod generations;
