//! DeBros Network: one process per machine, one pinned executor per core, nothing shared between cores
//! but messages. `ARCHITECTURE.md` is the map; the modules stand in reading order, lowest layer first.
//! A module names lower layers only (`tests/tidy.rs` holds the table).

pub mod types;
pub mod limits;

pub mod config;
pub mod observe;
pub mod wire;

pub mod wal;
pub mod raft;
pub mod sql;
pub mod auth;
pub mod catalog;

pub mod shard;

pub mod disk;
pub mod http;

pub mod gateway;

pub mod node;

pub mod bench;

pub mod cli;
