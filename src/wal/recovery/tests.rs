//! Logs made by hand, whole and damaged.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::types::LogIndex;
use crate::types::Term;
use crate::wal::meta::Meta;
use crate::wal::record::Lsn;
use crate::wal::record::Record;

/// Segments in memory.
impl SegmentSource for BTreeMap<u64, Vec<u8>> {
    fn segments(&mut self) -> io::Result<Vec<(SegmentId, u64)>> {
        Ok(self.iter().map(|(id, bytes)| (SegmentId(*id), bytes.len() as u64)).collect())
    }

    fn read(&mut self, segment: SegmentId, offset: u64, size: usize) -> io::Result<Bytes> {
        let offset = usize::try_from(offset).unwrap();
        Ok(Bytes::copy_from_slice(&self[&segment.0][offset..offset + size]))
    }
}

const P: PartitionId = PartitionId(1);

fn header(segment: u64, predecessor: End, table: Vec<(PartitionId, Meta)>) -> SegmentHeader {
    SegmentHeader {
        segment: SegmentId(segment),
        key: 42,
        lsn_first: predecessor.lsn.next(),
        oldest: SegmentId(1),
        predecessor,
        shard: ShardId(0),
        n_shards: 1,
        table,
    }
}

fn batch(segment: u64, lsn: u64, durable: u64, records: &[Record]) -> Vec<u8> {
    let segment = SegmentId(segment);
    let (lsn, durable, oldest) = (Lsn(lsn), Lsn(durable), SegmentId(1));
    let salt = format::salt(42, segment);
    let mut bytes = Vec::new();
    BatchHead::reserve(&mut bytes);
    for record in records {
        record.encode(&mut bytes);
    }
    BatchHead { size: 0, salt, lsn, durable, oldest }.seal(&mut bytes);
    bytes
}

fn segment(header: &SegmentHeader, batches: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes.extend(batches.concat());
    bytes.resize(bytes.len() + 4 * BLOCK, 0);
    bytes
}

fn entry(index: u64) -> Record {
    let (term, stamp) = (Term(1), Timestamp(9));
    let payload = Bytes::from_static(b"payload");
    Record::Entry(Entry { partition: P, term, index: LogIndex(index), kind: 0, stamp, payload })
}

/// Three batches of one entry each; the last knows that the second is durable.
fn three_batches() -> Vec<u8> {
    let batches = [1, 2, 3].map(|it| batch(1, it, it - 1, &[entry(it)]));
    segment(&header(1, End::default(), Vec::new()), &batches)
}

fn recovered(source: &mut BTreeMap<u64, Vec<u8>>) -> Result<usize, String> {
    let recovered = recover(source, ShardId(0), 1).map_err(|it| it.to_string())?;
    Ok(recovered.partitions.get(&P).map_or(0, |it| it.entries.len()))
}

#[test]
fn a_bad_batch_is_judged_by_what_covers_it() {
    for (name, block, want) in [
        ("none", None, Ok(3)),
        ("the last", Some(3), Ok(2)),
        ("covered by the last", Some(2), Err("corrupt at byte 8192: a batch is damaged, and a")),
        ("covered by both", Some(1), Err("corrupt at byte 4096: a batch is damaged, and a")),
        ("the only header", Some(0), Err("corrupt at byte 0: its header is damaged, as are all")),
    ] {
        let mut bytes = three_batches();
        if let Some(block) = block {
            bytes[block * BLOCK + 20] ^= 1;
        }
        let found = recovered(&mut BTreeMap::from([(1, bytes)]));
        match want {
            Ok(_) => assert_eq!(found, want.map_err(str::to_owned), "{name}"),
            Err(why) => {
                assert!(found.clone().is_err_and(|it| it.contains(why)), "{name}: {found:?}");
            }
        }
    }
}

#[test]
fn what_lies_behind_the_end_a_successor_names_is_never_judged() {
    let end = End { segment: SegmentId(1), offset: 3 * BLOCK as u64, lsn: Lsn(2) };
    let one = three_batches(); // the third is a leftover of a crash
    let last = EntryId { index: LogIndex(2), term: Term(1) };
    let meta = Meta { last, stamp: Timestamp(9), ..Meta::default() };
    let next = batch(2, 3, 2, &[entry(3), entry(4)]);
    let two = segment(&header(2, end, vec![(P, meta.clone())]), std::slice::from_ref(&next));
    let mut source = BTreeMap::from([(1, one), (2, two)]);
    assert_eq!(recovered(&mut source), Ok(4));

    // Without its successor's header, the batches behind it tell that it was there.
    source.get_mut(&2).unwrap()[30] ^= 1;
    let why = recovered(&mut source).unwrap_err();
    assert!(why.contains("0002 is corrupt at byte 0: its header is damaged, and"), "{why}");

    // A successor whose table says something else is not believed.
    let meta = Meta { tombstones: Arc::new([ReplicaId(1)].into()), ..meta };
    source.insert(2, segment(&header(2, end, vec![(P, meta)]), &[next]));
    let why = recovered(&mut source).unwrap_err();
    assert!(why.contains("its table contradicts its predecessor"), "{why}");
}

#[test]
fn entries_of_a_segment_that_is_gone_must_come_from_somewhere() {
    let end = End { segment: SegmentId(1), offset: 8192, lsn: Lsn(5) };
    let last = EntryId { index: LogIndex(1), term: Term(1) };
    let meta = Meta { last, stamp: Timestamp(9), ..Meta::default() };
    let header = SegmentHeader { oldest: SegmentId(2), ..header(2, end, vec![(P, meta)]) };
    let Record::Entry(missing) = entry(1) else { unreachable!() };
    let rewritten = batch(2, 6, 5, &[Record::Rewritten(missing)]);
    let mut source = BTreeMap::from([(2, segment(&header, &[rewritten]))]);
    assert_eq!(recovered(&mut source), Ok(1));
    source.insert(2, segment(&header, &[]));
    let why = recovered(&mut source).unwrap_err();
    assert!(why.contains("entries of partition 1 are missing"), "{why}");
}

#[test]
fn what_a_table_claims_costs_nothing() {
    let claimed = LogIndex(1 << 26);
    let end = End { segment: SegmentId(1), offset: 8192, lsn: Lsn(5) };
    let last = EntryId { index: claimed, term: Term(1) };
    let meta = Meta { last, stamp: Timestamp(9), ..Meta::default() };
    let table = (0..500).map(|it| (PartitionId(it), meta.clone())).collect();
    let header = SegmentHeader { oldest: SegmentId(2), ..header(2, end, table) };
    let entry = |partition, index| {
        let Record::Entry(it) = entry(index) else { unreachable!() };
        Entry { partition: PartitionId(partition), ..it }
    };
    let records = |partition| {
        let n_left = LogIndex(claimed.0 - 2);
        let compacted = EntryId { index: n_left, term: Term(1) };
        [
            Record::Rewritten(entry(partition, 77)),
            Record::Rewritten(entry(partition, claimed.0 - 1)),
            Record::Compacted { partition: PartitionId(partition), entry: compacted },
            Record::Entry(entry(partition, claimed.0)),
        ]
    };
    let whole: Vec<_> = (0..500).flat_map(records).collect();
    let mut source = BTreeMap::from([(2, segment(&header, &[batch(2, 6, 5, &whole)]))]);
    assert_eq!(recovered(&mut source), Ok(2));

    let missing: Vec<_> = (0..500).flat_map(|it| records(it).into_iter().take(2)).collect();
    source.insert(2, segment(&header, &[batch(2, 6, 5, &missing)]));
    let why = recovered(&mut source).unwrap_err();
    assert!(why.contains("entries of partition 0 are missing"), "{why}");
}

#[test]
fn what_a_tenant_wrote_is_no_batch() {
    let mut bytes = three_batches();
    let salt = format::salt(42, SegmentId(1));
    let whole = |bytes: &[u8], salt| -> Vec<u64> {
        batches_from(bytes, 0, salt).map(|it| it.lsn.0).collect()
    };
    assert_eq!(whole(&bytes, Some(salt)), [1, 2, 3]);
    // A batch that is whole, but for a salt that nobody could guess.
    let guessed = batch(2, 4, 4, &[entry(4)]);
    bytes.splice(4 * BLOCK..5 * BLOCK, guessed);
    assert_eq!(whole(&bytes, Some(salt)), [1, 2, 3]);
    assert_eq!(whole(&bytes, None), [1, 2, 3, 4]);
    // It calls the damaged one durable, and is not believed.
    bytes[3 * BLOCK + 20] ^= 1;
    assert_eq!(recovered(&mut BTreeMap::from([(1, bytes)])), Ok(2));
}

#[test]
fn logs_of_others_are_refused_with_a_sentence() {
    let bytes = three_batches();
    let error = recover(&mut BTreeMap::from([(1, bytes.clone())]), ShardId(0), 4).unwrap_err();
    let want = "log was written by shard 0 of 1, and lies where shard 0 of 4 has its own: restore the \
                folders of all 1 shards";
    assert_eq!(error.to_string(), want);

    let mut newer = bytes;
    newer[12] = 2;
    let size = SegmentHeader::claimed_size(&newer).unwrap();
    let crc = crc32c::crc32c(&newer[8..size]);
    newer[4..8].copy_from_slice(&crc.to_le_bytes());
    let why = recovered(&mut BTreeMap::from([(1, newer)])).unwrap_err();
    assert!(why.contains("has format version 2, this program reads up to 1"), "{why}");
}

fn any_record() -> impl Strategy<Value = Record> {
    (0..8_u8, 0..2_u16, 0..9_u64, 0..4_u64).prop_map(|(tag, partition, index, term)| {
        let partition = PartitionId(partition);
        let id = EntryId { index: LogIndex(index), term: Term(term) };
        let replica = ReplicaId(term);
        match (tag, entry(index)) {
            (0..3, Record::Entry(it)) => Record::Entry(Entry { partition, term: id.term, ..it }),
            (3, Record::Entry(it)) => Record::Rewritten(Entry { partition, term: id.term, ..it }),
            (4, _) => Record::Compacted { partition, entry: id },
            (5, _) => Record::Restored { partition, entry: id },
            (6, _) => Record::Tombstone { partition, replica },
            _ => Record::Generation { partition, generation: Generation(index), replica },
        }
    })
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(
        segments in prop::collection::btree_map(any::<u64>(), any::<Vec<u8>>(), 0..3),
    ) {
        let _ = recovered(&mut segments.clone()); // any verdict will do
    }

    #[test]
    fn any_whole_frames_are_judged_without_a_panic(
        ids in prop::collection::vec(1..4_u64, 1..4),
        ends in prop::collection::vec((0..4_u64, 0..4_u64, 0..9_u64), 4),
        bounds in prop::collection::vec((any::<u64>(), 0..9_u64), 0..3),
        batches in prop::collection::vec(
            (0..9_u64, prop::collection::vec(any_record(), 0..6)), 0..6,
        ),
    ) {
        let mut source = BTreeMap::new();
        for (id, (before, blocks, lsn)) in ids.into_iter().zip(ends) {
            let offset = blocks * BLOCK as u64;
            let predecessor = End { segment: SegmentId(before), offset, lsn: Lsn(lsn) };
            let row = |(n, (compacted, kept)): (u16, &(u64, u64))| {
                let compacted = EntryId { index: LogIndex(*compacted >> 2), term: Term(1) };
                let last = EntryId { index: LogIndex(compacted.index.0 + kept), term: Term(1) };
                (PartitionId(n), Meta { compacted, last, ..Meta::default() })
            };
            let table = (0..).zip(&bounds).map(row).collect();
            let mut lsn = lsn;
            let batches = batches.iter().map(|(durable, records)| {
                lsn += 1;
                batch(id, lsn, *durable, records)
            });
            let batches: Vec<_> = batches.collect();
            source.insert(id, segment(&header(id, predecessor, table), &batches));
        }
        let _ = recovered(&mut source); // any verdict will do
    }
}
