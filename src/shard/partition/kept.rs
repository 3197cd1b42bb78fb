//! What a partition's log keeps, and for whom: records of it, and when they may be forgotten (R24).

use crate::raft;
use crate::raft::Role;
use crate::shard::event::Effect;
use crate::shard::partition::Partition;
use crate::shard::partition::Step;
use crate::shard::queue::Queue;
use crate::types::DatabaseId;
use crate::types::Floor;
use crate::types::HardState;
use crate::types::Incarnation;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::types::Timestamp;
use crate::wal::record;
use crate::wal::record::EntryId;
use crate::wal::record::Record;
use crate::wire::command::Command;

impl Partition {
    pub(super) fn records(
        &mut self,
        hard_state: Option<HardState>,
        entries: Vec<raft::Entry>,
    ) -> Vec<Record> {
        let partition = self.id;
        let hard_state = hard_state.map(|hard_state| Record::HardState { partition, hard_state });
        let entries = entries.into_iter().map(|entry| {
            let stamp = Command::decode(&entry.payload).map_or(Timestamp(0), |it| it.stamp.time);
            self.stamp = self.stamp.max(stamp);
            Record::Entry(record_of(partition, entry, stamp))
        });
        // Entries first: a commit index never points behind them.
        let mut records: Vec<_> = entries.collect();
        records.extend(hard_state);
        records
    }

    /// The last entry that no database needs any more, and no follower that can be reached (R24).
    pub(in crate::shard) fn compactable(&self) -> LogIndex {
        let needed = self.queues.values().filter_map(Queue::needs_from).min();
        let free = needed.map_or_else(|| self.replica.handed_out(), LogIndex::previous);
        // A follower does not know what the others have: its leader's followers may need ours as well,
        // but then its own log is what they get.
        match self.replica.role() {
            Role::Leader => free.min(self.replica.matched_by_all()),
            Role::Follower | Role::Candidate => free.min(self.replica.committed()),
        }
    }

    /// The durable index of each database, for the manifest.
    pub(in crate::shard) fn floors(&self) -> Vec<(Incarnation, Floor)> {
        self.queues.iter().map(|(id, queue)| (*id, queue.floor())).collect()
    }

    /// Keep the log no longer for databases that are fenced, if it is longer than `bytes_max` (R38). For
    /// how many.
    pub(in crate::shard) fn let_go(&mut self, step: &mut Step<'_>, bytes_max: usize) -> u64 {
        let (bytes, mut n) = (self.replica.bytes(), 0);
        if bytes <= bytes_max {
            return n;
        }
        for (incarnation, queue) in &mut self.queues {
            if queue.let_go() {
                let database = DatabaseId { partition: self.id, incarnation: *incarnation };
                step.out.push(Effect::LetGo { database, bytes });
                n += 1;
            }
        }
        n
    }

    /// Forget the log up to `index`.
    pub(in crate::shard) fn compact(&mut self, step: &mut Step<'_>, index: LogIndex) {
        if index < self.replica.first() {
            return;
        }
        let term = self.replica.compact(index);
        step.ticket.0 += 1;
        let entry = EntryId { index, term };
        let records = vec![Record::Compacted { partition: self.id, entry }];
        step.out.push(Effect::Persist { ticket: *step.ticket, records });
    }

    /// Write the kept entries up to `last` again, so that the segments they stand in can go (R3).
    pub(in crate::shard) fn rewrite(&mut self, step: &mut Step<'_>, last: LogIndex) {
        let mut records = Vec::new();
        let mut index = self.replica.first();
        while index <= last {
            let Some(entry) = self.replica.entry(index) else { break };
            let stamp = Command::decode(&entry.payload).map_or(Timestamp(0), |it| it.stamp.time);
            records.push(Record::Rewritten(record_of(self.id, entry, stamp)));
            index = index.next();
        }
        if !records.is_empty() {
            step.ticket.0 += 1;
            step.out.push(Effect::Persist { ticket: *step.ticket, records });
        }
    }
}

fn record_of(partition: PartitionId, entry: raft::Entry, stamp: Timestamp) -> record::Entry {
    record::Entry {
        partition,
        term: entry.term,
        index: entry.index,
        kind: match entry.kind {
            raft::EntryKind::Command => 0,
            raft::EntryKind::Change => 1,
        },
        stamp,
        payload: entry.payload,
    }
}
