//! What replicas might write to a log, by the dice, and what the log then should say.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bytes::Bytes;
use debros::types::Dice;
use debros::types::HardState;
use debros::types::LogIndex;
use debros::types::PartitionId;
use debros::types::ReplicaId;
use debros::types::Term;
use debros::types::Timestamp;
use debros::wal::record::ConfState;
use debros::wal::record::Entry;
use debros::wal::record::EntryId;
use debros::wal::record::Generation;
use debros::wal::record::Record;
use debros::wal::recovery::RecoveredPartition;

/// Compacts so rarely that its entries hold old segments.
const LAZY: PartitionId = PartitionId(3);

/// What each partition should say: the dumb twin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model(pub(crate) BTreeMap<PartitionId, RecoveredPartition>);

impl Model {
    pub(crate) fn get(&mut self, id: PartitionId) -> &mut RecoveredPartition {
        self.0.entry(id).or_insert_with(|| RecoveredPartition {
            generation: Generation(0),
            replica: ReplicaId(0),
            hard_state: HardState::default(),
            conf_state: ConfState::default(),
            compacted: EntryId::default(),
            entries: Vec::new(),
            last_stamp: Timestamp(0),
            tombstones: Vec::new(),
        })
    }

    pub(crate) fn apply(&mut self, record: &Record) {
        let it = self.get(record.partition());
        let mut is_over = false;
        match record.clone() {
            Record::Entry(entry) => {
                it.entries.retain(|old| old.index < entry.index);
                it.last_stamp = it.last_stamp.max(entry.stamp);
                it.entries.push(entry);
            }
            Record::Rewritten(entry) => assert!(it.entries.contains(&entry)),
            Record::HardState { hard_state, .. } => it.hard_state = hard_state,
            Record::ConfState { conf_state, .. } => it.conf_state = conf_state,
            Record::Compacted { entry, .. } => {
                it.entries.retain(|old| old.index > entry.index);
                it.compacted = entry;
            }
            Record::Restored { entry, .. } => {
                it.entries.clear();
                it.compacted = entry;
            }
            Record::Generation { generation, replica, .. } => {
                is_over = it.replica != replica;
                it.generation = generation;
                it.replica = replica;
            }
            Record::Tombstone { replica, .. } => {
                let mut all: BTreeSet<_> = it.tombstones.iter().copied().collect();
                all.insert(replica);
                it.tombstones = all.into_iter().collect();
                is_over = it.replica == replica;
                if is_over {
                    it.replica = ReplicaId(0);
                }
            }
        }
        if is_over {
            it.entries.clear();
            it.compacted = EntryId::default();
            it.hard_state = HardState::default();
            it.conf_state = ConfState::default();
        }
    }
}

/// What is written next.
pub(crate) struct Next {
    /// Records that belong together.
    pub(crate) records: Vec<Record>,
    /// Whether they take the place of others.
    pub(crate) overwrites: bool,
}

/// What a replica of which the log says `it` might want on disk next.
pub(crate) fn next(
    dice: &mut Dice,
    partition: PartitionId,
    it: &RecoveredPartition,
    replica_last: &mut u64,
) -> Next {
    let last = it.entries.last();
    let last = last.map_or(it.compacted, |it| EntryId { index: it.index, term: it.term });
    if it.replica == ReplicaId(0) {
        *replica_last += 1;
        let (generation, replica) = (Generation(it.generation.0 + 1), ReplicaId(*replica_last));
        let entry = EntryId { index: LogIndex(1), term: Term(1) };
        let conf_state =
            ConfState { index: LogIndex(1), learners: vec![replica], ..ConfState::default() };
        let records = vec![
            Record::Generation { partition, generation, replica },
            Record::Restored { partition, entry },
            Record::ConfState { partition, conf_state },
        ];
        return Next { records, overwrites: false };
    }
    let mut overwrites = false;
    let records = match dice.below(40) {
        0..3 => {
            let (term, vote) = (Term(last.term.0 + 1), it.replica);
            let hard_state = HardState { term, vote, commit: last.index };
            vec![Record::HardState { partition, hard_state }]
        }
        3 => {
            let size = 1 + dice.below(3) * 90_000;
            let mut entry = entry_maker(dice, partition);
            vec![Record::Entry(entry(last.index.next(), last.term, size))]
        }
        4..6 if !it.entries.is_empty() => {
            // Another leader overwrites what was not committed.
            overwrites = true;
            let at = pick(dice, it.entries.len());
            let (index, term) = (it.entries[at].index, Term(last.term.0 + 1));
            let mut entry = entry_maker(dice, partition);
            vec![Record::Entry(entry(index, term, 100))]
        }
        6..12 if !it.entries.is_empty() && (partition != LAZY || dice.below(40) == 0) => {
            let at = pick(dice, it.entries.len());
            // Mostly nearly all: the log stays short.
            let at = at.max(pick(dice, it.entries.len()));
            let entry = EntryId { index: it.entries[at].index, term: it.entries[at].term };
            vec![Record::Compacted { partition, entry }]
        }
        12 => {
            let entry = EntryId { index: LogIndex(last.index.0 + dice.below(5)), term: last.term };
            let generation = Generation(it.generation.0 + 1);
            vec![
                Record::Restored { partition, entry },
                Record::Generation { partition, generation, replica: it.replica },
            ]
        }
        13 => {
            let mine = dice.below(4) == 0;
            let replica = if mine { it.replica } else { ReplicaId(1000 + dice.below(5)) };
            vec![Record::Tombstone { partition, replica }]
        }
        14 => {
            let voters = (0..dice.below(4)).map(ReplicaId).collect();
            let conf_state = ConfState { index: last.index, voters, ..ConfState::default() };
            vec![Record::ConfState { partition, conf_state }]
        }
        _ => {
            // A replica that is rarely written to keeps few entries.
            let n = if partition == LAZY { dice.below(2) } else { dice.below(6) };
            let size = dice.below(1500);
            let mut entry = entry_maker(dice, partition);
            let indexes = (last.index.0 + 1..).take(usize::try_from(n + 1).expect("small"));
            indexes.map(|it| Record::Entry(entry(LogIndex(it), last.term, size))).collect()
        }
    };
    Next { records, overwrites }
}

/// Writes to the logs of all partitions of a node, and keeps what they should say.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    dice: Dice,
    model: Model,
    replica_last: u64,
}

impl Author {
    pub(crate) fn new(dice: Dice) -> Self {
        Self { dice, model: Model::default(), replica_last: 0 }
    }

    /// Write something for a partition.
    pub(crate) fn write(&mut self, partition: PartitionId) -> Vec<Record> {
        let it = self.model.get(partition).clone();
        let records = next(&mut self.dice, partition, &it, &mut self.replica_last).records;
        for record in &records {
            self.model.apply(record);
        }
        records
    }

    /// Write entries of that many bytes for a partition.
    pub(crate) fn append(&mut self, partition: PartitionId, n: u64, size: u64) -> Vec<Record> {
        let it = self.model.get(partition).clone();
        let mut entry = entry_maker(&mut self.dice, partition);
        let indexes = it.compacted.index.0 + it.entries.len() as u64 + 1..;
        let indexes = indexes.take(usize::try_from(n).expect("small"));
        let entries = indexes.map(|at| Record::Entry(entry(LogIndex(at), it.compacted.term, size)));
        let records: Vec<_> = entries.collect();
        for record in &records {
            self.model.apply(record);
        }
        records
    }

    /// What the logs should say.
    pub(crate) fn wrote(&self) -> &BTreeMap<PartitionId, RecoveredPartition> {
        &self.model.0
    }
}

fn entry_maker(
    dice: &mut Dice,
    partition: PartitionId,
) -> impl FnMut(LogIndex, Term, u64) -> Entry {
    move |index, term, size| {
        let words = usize::try_from(size.div_ceil(8)).expect("small");
        let payload = Bytes::from(dice.roll().to_le_bytes().repeat(words));
        let stamp = Timestamp(i64::try_from(index.0).expect("small"));
        Entry { partition, term, index, kind: 0, stamp, payload }
    }
}

pub(crate) fn pick(dice: &mut Dice, bound: usize) -> usize {
    usize::try_from(dice.below(bound as u64)).expect("smaller than a usize")
}
