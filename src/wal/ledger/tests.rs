//! Records applied, held against what must come of them and against a plain map.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::types::PartitionId;
use crate::types::Timestamp;
use crate::wal::record::Generation;

const P: PartitionId = PartitionId(1);

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        partition: P,
        term: Term(term),
        index: LogIndex(index),
        kind: 0,
        stamp: Timestamp(0),
        payload: Bytes::new(),
    }
}

fn id(index: u64, term: u64) -> EntryId {
    EntryId { index: LogIndex(index), term: Term(term) }
}

fn at(segment: u64) -> Place {
    Place::Segment(SegmentId(segment))
}

#[test]
fn an_entry_cuts_off_what_was_behind_it() {
    let mut ledger = Ledger::default();
    for index in 1..=4 {
        ledger.apply(&Record::Entry(entry(index, 1)), 10, at(1)).unwrap();
    }
    ledger.apply(&Record::Entry(entry(3, 2)), 10, at(2)).unwrap();
    assert_eq!(ledger.meta().last, id(3, 2));
    assert_eq!(ledger.live_bytes(), 30);
    assert_eq!(ledger.term(LogIndex(2)), Some(Term(1)));
    assert_eq!(ledger.term(LogIndex(4)), None);
}

#[test]
fn what_cannot_be_is_refused() {
    for (name, record, want) in [
        ("gap", Record::Entry(entry(4, 1)), "gap"),
        ("below", Record::Entry(entry(1, 1)), "below"),
        ("term", Record::Entry(entry(3, 0)), "lower term"),
        ("rewritten", Record::Rewritten(entry(2, 9)), "another term"),
        ("compacted", Record::Compacted { partition: P, entry: id(3, 1) }, "never had"),
        ("compacted term", Record::Compacted { partition: P, entry: id(2, 9) }, "another term"),
    ] {
        let mut ledger = Ledger::default();
        ledger.apply(&Record::Restored { partition: P, entry: id(1, 1) }, 0, at(1)).unwrap();
        ledger.apply(&Record::Entry(entry(2, 1)), 10, at(1)).unwrap();
        let why = ledger.apply(&record, 10, at(1)).unwrap_err();
        assert!(why.contains(want), "{name}: {why}");
    }
}

#[test]
fn a_rewritten_entry_neither_extends_nor_cuts_off() {
    let mut ledger = Ledger::default();
    for index in 1..=3 {
        ledger.apply(&Record::Entry(entry(index, 1)), 10, at(1)).unwrap();
    }
    ledger.apply(&Record::Rewritten(entry(4, 1)), 10, at(2)).unwrap();
    ledger.apply(&Record::Rewritten(entry(2, 1)), 10, at(2)).unwrap();
    assert_eq!(ledger.meta().last, id(3, 1));
    assert_eq!(ledger.oldest(), Some(SegmentId(1)));
    ledger.apply(&Record::Rewritten(entry(1, 1)), 10, at(2)).unwrap();
    ledger.apply(&Record::Rewritten(entry(3, 1)), 10, at(2)).unwrap();
    assert_eq!(ledger.oldest(), Some(SegmentId(2)));
    ledger.assert_invariants();
}

#[test]
fn another_replica_id_inherits_no_vote() {
    let mut ledger = Ledger::default();
    let (generation, one, two) = (Generation(1), ReplicaId(1), ReplicaId(2));
    let hard_state = HardState { term: Term(5), vote: ReplicaId(3), commit: LogIndex(9) };
    for record in [
        Record::Generation { partition: P, generation, replica: one },
        Record::HardState { partition: P, hard_state },
        Record::Entry(entry(1, 5)),
        Record::Generation { partition: P, generation: Generation(2), replica: one },
    ] {
        ledger.apply(&record, 10, at(1)).unwrap();
    }
    assert_eq!(ledger.meta().hard_state, hard_state, "another directory is the same life");
    let record = Record::Generation { partition: P, generation: Generation(3), replica: two };
    ledger.apply(&record, 10, at(1)).unwrap();
    assert_eq!(ledger.meta().hard_state, HardState::default());
    assert_eq!((ledger.meta().last, ledger.oldest()), (EntryId::default(), None));
}

proptest! {
    #[test]
    fn places_and_sizes_are_those_of_a_plain_map(
        steps in prop::collection::vec((0..5_u8, any::<u8>(), 1..100_u32), 0..120),
    ) {
        let mut ledger = Ledger::default();
        let mut model: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
        let mut compacted = 0;
        for (n, (what, pick, size)) in (1..).zip(steps) {
            let last = compacted + model.len() as u64;
            let some = compacted + 1 + u64::from(pick) % (last - compacted + 1);
            match what {
                0 | 1 => {
                    let index = if what == 0 { last + 1 } else { some };
                    let segment = n / 8;
                    ledger.apply(&Record::Entry(entry(index, 1)), size, at(segment)).unwrap();
                    model.split_off(&index);
                    model.insert(index, (segment, size));
                }
                2 | 3 => {
                    let segment = n / 8;
                    ledger.apply(&Record::Rewritten(entry(some, 1)), size, at(segment)).unwrap();
                    if let Some(it) = model.get_mut(&some) {
                        *it = (segment, size);
                    }
                }
                _ if some <= last => {
                    let record = Record::Compacted { partition: P, entry: id(some, 1) };
                    ledger.apply(&record, 0, at(n)).unwrap();
                    model = model.split_off(&(some + 1));
                    compacted = some;
                }
                _ => {}
            }
            ledger.assert_invariants();
            let bytes = model.values().map(|(_, size)| u64::from(*size)).sum::<u64>();
            prop_assert_eq!(ledger.live_bytes(), bytes);
            let oldest = model.values().map(|(segment, _)| SegmentId(*segment)).min();
            prop_assert_eq!(ledger.oldest(), oldest);
        }
    }
}
