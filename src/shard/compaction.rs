//! When the log may forget (R24): sync the databases, write down how far they are, then compact.
//!
//! ```text
//! idle ──log is large──► syncing ──Synced──► writing manifests ──ManifestsWritten──► idle, compacted
//! ```
//!
//! What a sync covers is sampled before it begins, and what must be kept is computed before the manifests
//! are written: both err on the side of keeping.

use std::collections::BTreeMap;

use crate::shard::event::Effect;
use crate::shard::partition::Partition;
use crate::shard::partition::Step;
use crate::types::DatabaseId;
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
}

impl Compaction {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { phase: Phase::Idle, bytes_max, start_at: bytes_max }
    }

    /// Whether a round is under way.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Whether the log has grown past its bound, so that [`Self::start`] is due.
    pub(super) fn is_due(&self, partitions: &Partitions) -> bool {
        self.is_idle() && bytes(partitions) >= self.start_at
    }

    /// Begin a round: sync every database that is dirty.
    pub(super) fn start(&mut self, step: &mut Step<'_>, partitions: &mut Partitions) {
        assert!(self.is_idle(), "one round at a time");
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
        let mut forget = Vec::new();
        let mut floors = Vec::new();
        for (id, partition) in partitions {
            let index = partition.compactable();
            if partition.replica.first() <= index {
                forget.push((*id, index));
                floors.push((*id, partition.floors()));
            }
        }
        self.phase = Phase::WritingManifests(forget);
        step.out.push(Effect::WriteManifests { floors });
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
        for (id, index) in forget {
            partitions.get_mut(&id).expect("partitions stay").compact(step, index);
        }
        // A round that freed little is not repeated at once.
        self.start_at = self.bytes_max.max(bytes(partitions).saturating_mul(2));
    }
}

fn bytes(partitions: &Partitions) -> usize {
    partitions.values().map(|it| it.replica.bytes()).sum()
}
