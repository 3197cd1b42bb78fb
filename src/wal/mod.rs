//! The write-ahead log of one shard: format, recovery verdicts, segment accounting.

pub mod record;
