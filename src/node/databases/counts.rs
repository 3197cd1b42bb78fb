//! What the databases of a core have done so far, and how they are.

use std::time::Duration;

use crate::node::databases::Databases;
use crate::node::databases::Slot;
use crate::sql::Applied;

/// Where something ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Side {
    /// On the core.
    Core,
    /// On a thread for what takes long.
    Thread,
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::node) struct Counts {
    /// Commands applied on the core, and on threads.
    pub(in crate::node) applied_here: u64,
    pub(in crate::node) applied_on_threads: u64,
    /// Time that applying took on the core.
    pub(in crate::node) apply_time: Duration,
    /// Batches of commands given to a thread, with what was tried on the core among them.
    pub(in crate::node) batches_to_threads: u64,
    /// Reads answered on the core, and given to a thread.
    pub(in crate::node) reads_here: u64,
    pub(in crate::node) reads_to_threads: u64,
    /// Checkpoints begun.
    pub(in crate::node) checkpoints: u64,
}

impl Counts {
    /// Commands have been applied.
    pub(super) fn on_applied(&mut self, applied: &[Applied], side: Side) {
        let n = applied.iter().filter(|it| !matches!(it, Applied::Skipped)).count() as u64;
        match side {
            Side::Core => self.applied_here += n,
            Side::Thread => self.applied_on_threads += n,
        }
    }
}

/// How the databases are now.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::node) struct Present {
    /// What has been done so far.
    pub(in crate::node) counts: Counts,
    /// Open, or on their way.
    pub(in crate::node) n_open: usize,
    pub(in crate::node) n_fenced: usize,
    /// Bytes of the longest `-wal`.
    pub(in crate::node) wal_bytes_max: u64,
    /// Bytes of all databases.
    pub(in crate::node) bytes: u64,
    /// Reads on threads, and reads that wait for one.
    pub(in crate::node) long_reads: usize,
    pub(in crate::node) long_reads_waiting: usize,
    /// Batches of commands on threads.
    pub(in crate::node) long_batches: usize,
}

impl Databases {
    /// How they are. Looks at each that is open.
    pub(in crate::node) fn present(&mut self) -> Present {
        let now = self.clock.now();
        let mut present = Present {
            counts: self.counts,
            n_open: self.n_present,
            n_fenced: self.n_fenced,
            bytes: self.bytes(now),
            ..Present::default()
        };
        (present.long_reads, present.long_reads_waiting) = self.long_reads.load();
        for slot in self.slots.values() {
            if let Slot::Open(open) = slot {
                match &open.here {
                    Some(it) => present.wal_bytes_max = present.wal_bytes_max.max(it.wal_bytes()),
                    None => present.long_batches += 1,
                }
            }
        }
        present
    }
}
