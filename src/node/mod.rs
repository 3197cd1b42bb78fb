//! The node: start-up, one driver per core, the mesh between cores, shutdown. Knows everyone, spawns
//! everything, decides nothing that a core could decide.
//!
//! ```text
//! main thread: preflight → recover logs and engine databases → start the cores → wait for a signal
//! a thread:    looks how much room the disk has
//! each core:   mailbox task · driver loop · log writer · HTTP server · (thread) helper
//! ```
//!
//! Start reading at [`run`].

mod boot;
mod clock;
mod core;
mod databases;
mod long_reads;
mod driver;
mod mail;
mod mesh;
mod metrics;
mod preflight;
mod process;
mod recover;
pub mod repair;
mod scrape;
mod settings;
mod signals;
mod slow;
mod space;
mod timer;
mod turns;

use std::io;
use std::path::PathBuf;

pub use crate::node::boot::run;

/// Why a node does not start. Each is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel or a policy keeps `io_uring` from us.
    #[error("io_uring cannot be used: {0}")]
    IoUring(String),
    /// More shards than processors.
    #[error(
        "runtime.shards is {wanted}, but this process may use {has} processors: lower runtime.shards"
    )]
    Cores {
        /// As configured.
        wanted: u16,
        /// As the kernel says.
        has: usize,
    },
    /// The rings need pinned memory.
    #[error(
        "too little memory may be locked: {has} bytes, {needs} are needed: raise `ulimit -l` \
         (systemd: LimitMEMLOCK) or lower runtime.io_memory_bytes"
    )]
    Memlock {
        /// The limit of the process.
        has: u64,
        /// What the configuration needs.
        needs: u64,
    },
    /// Databases, connections and logs are files.
    #[error(
        "too few files may be open: {has}, {needs} are needed: raise `ulimit -n` (systemd: LimitNOFILE)"
    )]
    OpenFiles {
        /// The limit of the process.
        has: u64,
        /// What the configuration needs at least.
        needs: u64,
    },
    /// It cannot be created, read or written.
    #[error("data directory {} cannot be used", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another node runs on it.
    #[error("data directory {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// Somebody listens there.
    #[error("cannot listen on {address}")]
    Port {
        /// Where.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// What the disk holds, or the configuration asks, does not fit: the operator must look.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}
