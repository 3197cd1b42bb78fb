//! When the log may forget (R24): sync the databases, write down how far they are, then compact.
//!
//! ```text
//! idle ──log is large──► syncing ──Synced──► writing manifests ──ManifestsWritten──► idle, compacted
//!                                                    └──ManifestsNotWritten──► idle, for a moment
//! ```
//!
//! What a sync covers is sampled before it begins, and what must be kept is computed before the manifests
//! are written: both err on the side of keeping.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::limits;
use crate::shard::event::Effect;
use crate::shard::event::Ticket;
use crate::shard::partition::Partition;
use crate::shard::partition::Step;
use crate::types::DatabaseId;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::types::PartitionId;

/// The partitions of the shard.
type Partitions = BTreeMap<PartitionId, Partition>;

/// How far a round has come.
#[derive(Debug)]
enum Phase {
    Idle,
    Syncing(Vec<DatabaseId>),
    /// What may be forgotten once the manifests are on disk.
    WritingManifests(Vec<(PartitionId, LogIndex)>),
}

/// The compaction of one shard's log.
#[derive(Debug)]
pub(super) struct Compaction {
    phase: Phase,
    /// Bytes of kept log at which a round starts.
    bytes_max: usize,
    /// Bytes at which the next round starts; more than `bytes_max` after one that freed little.
    start_at: usize,
    /// Bytes of kept log of a partition at which nothing is held for fenced databases any more.
    fence_bytes_max: usize,
    /// Partitions whose manifest is to say that a database is fenced.
    fenced: BTreeSet<PartitionId>,
    /// Those of which the manifest that is being written says it.
    noting: BTreeSet<PartitionId>,
    /// The last ticket that the round before saw.
    ticket: Ticket,
    /// No round starts before: the last one found no room on the disk.
    not_before: Instant,
    /// Rounds that ended.
    n_rounds: u64,
    /// Databases that nothing is held for any more.
    n_let_go: u64,
}

/// Bytes on disk of the smallest batch. A lone writer's entries lie in a batch each, and take far more there
/// than in memory.
const BATCH_SIZE_MIN: usize = 4096;
/// The log may take this many times `limits.log_bytes` on disk, so that rounds stay rare.
const DISK_RATIO: usize = 4;

impl Compaction {
    pub(super) fn new(bytes_max: usize, fence_bytes_max: usize) -> Self {
        Self {
            phase: Phase::Idle,
            bytes_max,
            start_at: bytes_max,
            fence_bytes_max,
            fenced: BTreeSet::new(),
            noting: BTreeSet::new(),
            ticket: Ticket(0),
            not_before: Instant::START,
            n_rounds: 0,
            n_let_go: 0,
        }
    }

    /// Rounds that ended, so far.
    pub(super) fn n_rounds(&self) -> u64 {
        self.n_rounds
    }

    /// How often what was held for a fenced database was let go.
    pub(super) fn n_let_go(&self) -> u64 {
        self.n_let_go
    }

    /// Whether a round is under way.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Whether the log has grown past its bound, so that [`Self::start`] is due.
    pub(super) fn is_due(&self, partitions: &Partitions, ticket: Ticket, now: Instant) -> bool {
        let n_batches = usize::try_from(ticket.0 - self.ticket.0).unwrap_or(usize::MAX);
        let on_disk = n_batches.saturating_mul(BATCH_SIZE_MIN);
        let is_long = on_disk >= self.bytes_max.saturating_mul(DISK_RATIO);
        let may_start = self.is_idle() && self.not_before <= now;
        let is_wanted = is_long || !self.fenced.is_empty();
        may_start && (is_wanted || bytes(partitions) >= self.start_at)
    }

    /// When a round is to be tried again by itself.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let is_wanted = self.is_idle() && !self.fenced.is_empty();
        is_wanted.then_some(self.not_before)
    }

    /// A database of this partition is fenced: a round writes that down, so that whoever repairs it knows.
    pub(super) fn note_fence(&mut self, partition: PartitionId) {
        self.fenced.insert(partition);
    }

    /// Begin a round: sync every database that is dirty.
    pub(super) fn start(&mut self, step: &mut Step<'_>, partitions: &mut Partitions) {
        assert!(self.is_idle(), "one round at a time");
        self.ticket = *step.ticket;
        let mut databases = Vec::new();
        for (id, partition) in partitions {
            for (incarnation, queue) in &mut partition.queues {
                if queue.begin_sync() {
                    databases.push(DatabaseId { partition: *id, incarnation: *incarnation });
                }
            }
        }
        self.phase = Phase::Syncing(databases.clone());
        step.out.push(Effect::Sync { databases });
    }

    /// The syncs are done: write down how far each database is.
    pub(super) fn on_synced(&mut self, step: &mut Step<'_>, partitions: &mut Partitions) {
        let Phase::Syncing(databases) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            panic!("a sync ended that was not asked for");
        };
        for database in databases {
            let partition = partitions.get_mut(&database.partition);
            let queue = partition.and_then(|it| it.queues.get_mut(&database.incarnation));
            queue.expect("databases do not go away").end_sync();
        }
        self.noting = std::mem::take(&mut self.fenced);
        let mut forget = Vec::new();
        let mut floors = Vec::new();
        for (id, partition) in partitions {
            self.n_let_go += partition.let_go(step, self.fence_bytes_max);
            let index = partition.compactable();
            let may_forget = partition.replica.first() <= index;
            if may_forget {
                forget.push((*id, index));
            }
            if self.noting.contains(id) || may_forget {
                floors.push((*id, partition.floors()));
            }
        }
        self.phase = Phase::WritingManifests(forget);
        step.out.push(Effect::WriteManifests { floors });
    }

    /// The manifests found no room: nothing is forgotten, and a later round tries again.
    pub(super) fn on_manifests_not_written(&mut self, step: &mut Step<'_>) {
        assert!(matches!(self.phase, Phase::WritingManifests(_)), "nobody asked for manifests");
        self.phase = Phase::Idle;
        self.fenced.append(&mut self.noting);
        self.not_before = step.now.after(limits::ROOM_RETRY);
    }

    /// The manifests are on disk: forget.
    pub(super) fn on_manifests_written(
        &mut self,
        step: &mut Step<'_>,
        partitions: &mut Partitions,
    ) {
        let Phase::WritingManifests(forget) = std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            panic!("manifests were written that nobody asked for");
        };
        self.n_rounds += 1;
        for (id, index) in forget {
            partitions.get_mut(&id).expect("partitions stay").compact(step, index);
        }
        // A round that freed little is not repeated at once. What is held for fenced databases may be much
        // more than the others need.
        let bytes = bytes(partitions);
        self.start_at = self.bytes_max.max(bytes + bytes.min(self.bytes_max));
    }
}

fn bytes(partitions: &Partitions) -> usize {
    partitions.values().map(|it| it.replica.bytes()).sum()
}
