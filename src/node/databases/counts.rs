//! What the databases of a core have done so far, and how they are.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::disk::spool::Taken;
use crate::node::databases::Databases;
use crate::node::databases::Slot;
use crate::sql::Applied;
use crate::types::DatabaseId;

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
    /// How often commands had to wait because a `-wal` was at its bound; and how often that did not help.
    pub(in crate::node) wal_waits: u64,
    pub(in crate::node) wal_refusals: u64,
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

/// Bytes of each database that is known, and of all together.
#[derive(Clone, Debug, Default)]
pub(super) struct Sizes {
    bytes: FxHashMap<DatabaseId, u64>,
    sum: u64,
}

impl Sizes {
    /// What the disk holds at the start.
    pub(super) fn new(bytes: FxHashMap<DatabaseId, u64>) -> Self {
        let sum = bytes.values().sum();
        Self { bytes, sum }
    }

    /// A database has a size.
    pub(super) fn set(&mut self, id: DatabaseId, bytes: u64) {
        let before = self.bytes.insert(id, bytes).unwrap_or(0);
        self.sum = self.sum - before + bytes;
    }

    /// Bytes of all.
    pub(super) fn sum(&self) -> u64 {
        self.sum
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
    /// Databases whose `-wal` could not begin anew, which is tried again.
    pub(in crate::node) checkpoints_overdue: usize,
    /// Bytes of all databases.
    pub(in crate::node) bytes: u64,
    /// Reads on threads, and reads that wait for one.
    pub(in crate::node) long_reads: usize,
    pub(in crate::node) long_reads_waiting: usize,
    /// Reads refused because their namespace had its share of those that wait.
    pub(in crate::node) long_reads_refused: u64,
    /// Batches of commands on threads.
    pub(in crate::node) long_batches: usize,
    /// How often one was given up there, because others waited.
    pub(in crate::node) long_batches_given_up: u64,
    /// Files with large results.
    pub(in crate::node) spools: Taken,
}

impl Databases {
    /// How they are. Looks at each that is open, and asks SQLite nothing.
    pub(in crate::node) fn present(&self) -> Present {
        let mut present = Present {
            counts: self.counts,
            n_open: self.n_present,
            n_fenced: self.n_fenced,
            checkpoints_overdue: self.retries.len(),
            bytes: self.bytes(),
            spools: self.workers.spools().taken(),
            long_batches_given_up: self.workers.n_given_up(),
            ..Present::default()
        };
        (present.long_reads, present.long_reads_waiting) = self.long_reads.load();
        present.long_reads_refused = self.long_reads.n_refused();
        for slot in self.slots.values() {
            if let Slot::Open(open) = slot {
                present.wal_bytes_max = present.wal_bytes_max.max(open.wal_bytes());
                present.long_batches += usize::from(open.here.is_none());
            }
        }
        present
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Incarnation;
    use crate::types::PartitionId;

    #[test]
    fn the_sum_follows_every_size() {
        let id = |n| DatabaseId { partition: PartitionId(1), incarnation: Incarnation(n) };
        let mut sizes = Sizes::new([(id(1), 100), (id(2), 20)].into_iter().collect());
        assert_eq!(sizes.sum(), 120);
        for (n, bytes, want) in [(2, 50, 150), (3, 7, 157), (1, 0, 57), (3, 3, 53)] {
            sizes.set(id(n), bytes);
            assert_eq!(sizes.sum(), want, "{n} has {bytes}");
        }
    }
}
