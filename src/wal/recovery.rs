//! Reading a log after a start: what it says, or that it is damaged.
//!
//! Segments form a chain: each header names where its predecessor ended. The chain is followed back from
//! the newest whole header to the oldest segment that was needed, then replayed forward.
//!
//! Verdicts (R1). A batch that is not whole (checksum, salt, sequence number) is
//! - *corruption*, if it lies before an end that a later header names, or a later batch calls it durable:
//!   somebody may have been told it was on disk;
//! - a *torn tail* otherwise: nothing after it counts, and it never happened.
//!
//! A damaged header was never durable, or nothing was ever written behind it, unless a batch with the
//! salt of that segment lies there. Damage to the last batch of all cannot be told from a torn
//! write by any scheme that only has the log; an idle seal makes that batch an empty one.
//!
//! What was read may still be in a cache only: the [`Log`](crate::wal::log::Log) made from a [`Tail`]
//! first syncs it, names and all, opens a new segment whose header names the end found here, and is ready after that.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use crate::types::HardState;
use crate::types::PartitionId;
use crate::types::ReplicaId;
use crate::types::ShardId;
use crate::types::Timestamp;
use crate::wal::format;
use crate::wal::format::BATCH_HEAD_SIZE;
use crate::wal::format::BLOCK;
use crate::wal::format::BatchHead;
use crate::wal::format::End;
use crate::wal::format::SegmentHeader;
use crate::wal::known::Known;
use crate::wal::ledger::Ledger;
use crate::wal::ledger::Place;
use crate::wal::record::ConfState;
use crate::wal::record::Entry;
use crate::wal::record::EntryId;
use crate::wal::record::Generation;
use crate::wal::record::Record;
use crate::wal::record::SegmentId;
use crate::wal::segments::Segment;
use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;

/// Where segments are read from.
pub trait SegmentSource {
    /// All segments, with their sizes in bytes, in any order.
    fn segments(&mut self) -> io::Result<Vec<(SegmentId, u64)>>;
    /// `size` bytes of a segment from `offset` on; they lie within it.
    fn read(&mut self, segment: SegmentId, offset: u64, size: usize) -> io::Result<Bytes>;
}

/// Why a log cannot be used. All are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// What was called durable is not there. The replicas of this shard have lost part of their memory:
    /// they must not go on as they are, but be removed and added anew.
    #[error("log segment {:016x} is corrupt at byte {offset}: {why}", segment.0)]
    Corrupt {
        /// Which segment.
        segment: SegmentId,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// Written by a newer program.
    #[error(
        "log segment {:016x} has format version {version}, this program reads up to {}: start the newer program",
        segment.0,
        format::VERSION
    )]
    Version {
        /// Which segment.
        segment: SegmentId,
        /// Its version.
        version: u8,
    },
    /// The log of another shard, or of a node with another number of them: the folders of a generation are
    /// not those that it was written with (R4).
    #[error(
        "log was written by shard {} of {n_found}, and lies where shard {} of {n_wanted} has its own: restore \
         the folders of all {n_found} shards",
        found.0,
        wanted.0
    )]
    Shards {
        /// The shard in the log.
        found: ShardId,
        /// The number of shards in the log.
        n_found: u16,
        /// The shard that reads it.
        wanted: ShardId,
        /// The number of shards that it has folders for.
        n_wanted: u16,
    },
    /// The disk does not give its bytes.
    #[error("cannot read log segment {:016x}", segment.0)]
    Read {
        /// Which segment; zero if they cannot be listed.
        segment: SegmentId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What a log says.
#[derive(Debug)]
pub struct Recovered {
    /// Each partition it knows.
    pub partitions: BTreeMap<PartitionId, RecoveredPartition>,
    /// Where it ends.
    pub end: End,
    /// Whether bytes of a batch that never became durable were found at the end, and dropped.
    pub is_torn: bool,
    /// For the [`Log`](crate::wal::log::Log) that goes on.
    pub tail: Tail,
}

/// One partition, as of the end of the log. Zeros where the log says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredPartition {
    /// The directory that counts.
    pub generation: Generation,
    /// The replica that lives here.
    pub replica: ReplicaId,
    /// Its term, vote and commit index.
    pub hard_state: HardState,
    /// The configuration applied last.
    pub conf_state: ConfState,
    /// The entry before the first of `entries`.
    pub compacted: EntryId,
    /// All entries kept, one per index. Those of one batch share one allocation.
    pub entries: Vec<Entry>,
    /// The highest time stamp of any entry so far.
    pub last_stamp: Timestamp,
    /// Replica ids that must never speak again.
    pub tombstones: Vec<ReplicaId>,
}

impl RecoveredPartition {
    /// Whether anybody has written to it: an entry that a new leader appends carries nothing and no time.
    pub fn is_used(&self) -> bool {
        self.last_stamp > Timestamp(0) || self.entries.iter().any(|it| !it.payload.is_empty())
    }
}

/// What a log needs in order to go on behind another. The default is behind nothing.
#[derive(Debug, Default)]
pub struct Tail {
    pub(super) ledgers: BTreeMap<PartitionId, Ledger>,
    /// The segments replayed, oldest first.
    pub(super) segments: Vec<Segment>,
    /// Segments older than any needed.
    pub(super) leftovers: Vec<SegmentId>,
    /// Segments never opened, newer than any replayed.
    pub(super) spares: Vec<Segment>,
    pub(super) end: End,
    /// The key of the log's salts, if it has one.
    pub(super) key: Option<u64>,
}

/// Read the log of `shard` on a node with `n_shards`.
pub fn recover(
    source: &mut impl SegmentSource,
    shard: ShardId,
    n_shards: u16,
) -> Result<Recovered, RecoveryError> {
    let listed = source.segments();
    let mut listed =
        listed.map_err(|source| RecoveryError::Read { segment: SegmentId(0), source })?;
    listed.sort_unstable();
    let listed: Vec<_> = listed.into_iter().map(|(id, size)| Segment { id, size }).collect();
    let mut headers = BTreeMap::new();
    for segment in &listed {
        if let Some(header) = read_header(source, *segment)? {
            headers.insert(segment.id, (header, *segment));
        }
    }
    let Some((newest, _)) = headers.values().next_back() else {
        return begin(source, listed);
    };
    if (newest.shard, newest.n_shards) != (shard, n_shards) {
        let (found, n_found) = (newest.shard, newest.n_shards);
        return Err(RecoveryError::Shards { found, n_found, wanted: shard, n_wanted: n_shards });
    }
    let newest_id = newest.segment;
    let chain = chain(&headers);
    let start = chain[0].1.id;
    let spares: Vec<_> = listed.iter().copied().filter(|it| it.id > newest_id).collect();
    let leftovers = listed.iter().map(|it| it.id).filter(|it| *it < start).collect();

    let mut replay = Replay::new(&chain[0].0);
    for (at, (header, segment)) in chain.iter().enumerate() {
        let end = chain.get(at + 1).map(|(next, _)| next.predecessor);
        replay.read_segment(source, header, *segment, end)?;
    }
    let key = newest.key;
    for spare in &spares {
        if has_batch(source, *spare, Some(format::salt(key, spare.id)))? {
            return Err(corrupt(spare.id, 0, "its header is damaged, and batches lie behind it"));
        }
    }
    if start > replay.oldest {
        return Err(corrupt(replay.oldest, 0, "it is missing, or its header is damaged"));
    }
    let segments = chain.iter().map(|(_, it)| *it).collect();
    replay.finish(segments, leftovers, spares, key)
}

/// No segment has a whole header: either nothing was ever durable, or all is lost.
fn begin(
    source: &mut impl SegmentSource,
    spares: Vec<Segment>,
) -> Result<Recovered, RecoveryError> {
    for spare in &spares {
        if spare.id > SegmentId::FIRST || has_batch(source, *spare, None)? {
            return Err(corrupt(spare.id, 0, "its header is damaged, as are all others"));
        }
    }
    let (partitions, is_torn) = (BTreeMap::new(), false);
    let tail = Tail { spares, ..Tail::default() };
    Ok(Recovered { partitions, end: tail.end, is_torn, tail })
}

/// The header of a segment that was opened under its present id, if it is whole.
fn read_header(
    source: &mut impl SegmentSource,
    segment: Segment,
) -> Result<Option<SegmentHeader>, RecoveryError> {
    let size = usize::try_from(segment.size).unwrap_or(usize::MAX);
    let first = read(source, segment.id, 0, size.min(BLOCK))?;
    let bytes = match SegmentHeader::claimed_size(&first) {
        None => return Ok(None),
        Some(claimed) if claimed > size => return Ok(None),
        Some(claimed) if claimed > first.len() => read(source, segment.id, 0, claimed)?,
        Some(_) => first,
    };
    match SegmentHeader::decode(&bytes) {
        None => Ok(None),
        Some(Ok(header)) => Ok(Some(header).filter(|it| it.segment == segment.id)),
        Some(Err(DecodeError::Version(version))) => {
            Err(RecoveryError::Version { segment: segment.id, version })
        }
        Some(Err(error)) => Err(corrupt(segment.id, 0, &error.to_string())),
    }
}

/// From the oldest segment that is needed, so far as headers tell, to the newest; never empty.
fn chain(headers: &BTreeMap<SegmentId, (SegmentHeader, Segment)>) -> Vec<(SegmentHeader, Segment)> {
    let mut chain = VecDeque::new();
    let mut next = headers.values().next_back();
    let oldest = next.map_or(SegmentId(0), |(newest, _)| newest.oldest);
    while let Some((header, segment)) = next {
        chain.push_front((header.clone(), *segment));
        // Ids fall, whatever a header says, so this ends.
        let before = header.predecessor.segment;
        let goes_on = oldest < segment.id && before < segment.id;
        next = headers.get(&before).filter(|_| goes_on);
    }
    chain.into()
}

/// Whether a whole batch lies anywhere in the segment, with that salt if one is given.
fn has_batch(
    source: &mut impl SegmentSource,
    segment: Segment,
    salt: Option<u64>,
) -> Result<bool, RecoveryError> {
    let bytes = read_all(source, segment)?;
    let mut batches = batches_from(&bytes, 0);
    Ok(batches.any(|it| salt.is_none_or(|salt| it.salt == salt)))
}

/// Every whole batch at a block at or behind `offset`.
fn batches_from(bytes: &[u8], offset: usize) -> impl Iterator<Item = BatchHead> {
    let blocks = (offset..bytes.len()).step_by(BLOCK);
    blocks.filter_map(|at| BatchHead::decode(&bytes[at..]))
}

fn read_all(source: &mut impl SegmentSource, segment: Segment) -> Result<Bytes, RecoveryError> {
    let size = usize::try_from(segment.size)
        .map_err(|_| corrupt(segment.id, 0, "it is larger than memory"))?;
    read(source, segment.id, 0, size)
}

fn read(
    source: &mut impl SegmentSource,
    segment: SegmentId,
    offset: u64,
    size: usize,
) -> Result<Bytes, RecoveryError> {
    let bytes = source.read(segment, offset, size);
    let bytes = bytes.map_err(|source| RecoveryError::Read { segment, source })?;
    if bytes.len() < size {
        let source = io::ErrorKind::UnexpectedEof.into();
        return Err(RecoveryError::Read { segment, source });
    }
    Ok(bytes)
}

fn corrupt(segment: SegmentId, offset: usize, why: &str) -> RecoveryError {
    RecoveryError::Corrupt { segment, offset: offset as u64, why: why.to_owned() }
}

/// The state of a log while it is read.
struct Replay {
    partitions: BTreeMap<PartitionId, Partition>,
    key: u64,
    end: End,
    oldest: SegmentId,
    is_torn: bool,
}

/// A ledger, and the entries whose places it keeps, but for the missing ones.
#[derive(Default)]
struct Partition {
    ledger: Ledger,
    entries: Known<Entry>,
}

impl Replay {
    /// Begin with what the first segment's table says.
    fn new(first: &SegmentHeader) -> Self {
        let partition = |(id, meta): &(PartitionId, _)| {
            let ledger = Ledger::from_table(Clone::clone(meta));
            (*id, Partition { ledger, entries: Known::default() })
        };
        Self {
            partitions: first.table.iter().map(partition).collect(),
            key: first.key,
            end: first.predecessor,
            oldest: first.oldest,
            is_torn: false,
        }
    }

    /// Apply a segment's batches, up to `end` if its successor names one.
    fn read_segment(
        &mut self,
        source: &mut impl SegmentSource,
        header: &SegmentHeader,
        segment: Segment,
        end: Option<End>,
    ) -> Result<(), RecoveryError> {
        let id = segment.id;
        self.check_header(header)?;
        let bytes = read_all(source, segment)?;
        let mut offset = header.size_padded();
        let salt = format::salt(header.key, id);
        let mut expected = header.lsn_first;
        self.end = End { segment: id, offset: offset as u64, lsn: header.predecessor.lsn };
        self.oldest = self.oldest.max(header.oldest);
        while end.is_none_or(|it| (offset as u64) < it.offset) {
            let rest = bytes.get(offset..).unwrap_or_default();
            let batch = BatchHead::decode(rest).filter(|it| it.salt == salt && it.lsn == expected);
            let Some(batch) = batch else {
                if end.is_some() {
                    return Err(corrupt(id, offset, "a batch is damaged that was durable"));
                }
                let covers = |it: &BatchHead| {
                    it.salt == salt && it.lsn >= expected && it.durable >= expected
                };
                if batches_from(&bytes, offset + BLOCK).any(|it| covers(&it)) {
                    let why = "a batch is damaged, and a later one says that it was durable";
                    return Err(corrupt(id, offset, why));
                }
                self.is_torn = rest.iter().take(BATCH_HEAD_SIZE).any(|it| *it != 0);
                return Ok(());
            };
            self.apply_batch(id, offset, &rest[..batch.size])?;
            self.oldest = self.oldest.max(batch.oldest);
            offset += format::padded(batch.size);
            self.end = End { segment: id, offset: offset as u64, lsn: batch.lsn };
            expected = batch.lsn.next();
        }
        if end.is_some_and(|it| it != self.end) {
            return Err(corrupt(id, offset, "it does not end where its successor says"));
        }
        Ok(())
    }

    /// A header repeats what the segments before it say; a difference would be a bug of the writer.
    fn check_header(&self, header: &SegmentHeader) -> Result<(), RecoveryError> {
        let replayed = self.partitions.iter().map(|(id, it)| (*id, it.ledger.meta()));
        let table = header.table.iter().map(|(id, it)| (*id, it));
        let is_next = header.key == self.key && header.predecessor == self.end;
        if !is_next || header.lsn_first <= header.predecessor.lsn {
            return Err(corrupt(header.segment, 0, "its header contradicts its predecessor"));
        }
        if !replayed.eq(table) {
            return Err(corrupt(header.segment, 0, "its table contradicts its predecessor"));
        }
        Ok(())
    }

    fn apply_batch(
        &mut self,
        segment: SegmentId,
        offset: usize,
        batch: &[u8],
    ) -> Result<(), RecoveryError> {
        // A copy, so that a few kept entries do not hold a whole segment in memory.
        let bytes = Bytes::copy_from_slice(batch);
        let mut reader = Reader::new(&bytes[BATCH_HEAD_SIZE..]);
        while !reader.is_empty() {
            let before = reader.rest().len();
            let record = Record::decode(&bytes, &mut reader)
                .map_err(|error| corrupt(segment, offset, &error.to_string()))?;
            let size = u32::try_from(before - reader.rest().len()).expect("a batch is below 4 GiB");
            let partition = self.partitions.entry(record.partition()).or_default();
            partition
                .apply(record, size, Place::Segment(segment))
                .map_err(|why| corrupt(segment, offset, why))?;
        }
        Ok(())
    }

    fn finish(
        self,
        segments: Vec<Segment>,
        leftovers: Vec<SegmentId>,
        spares: Vec<Segment>,
        key: u64,
    ) -> Result<Recovered, RecoveryError> {
        let mut ledgers = BTreeMap::new();
        let mut partitions = BTreeMap::new();
        for (id, partition) in self.partitions {
            let Partition { mut ledger, entries } = partition;
            if !ledger.is_whole() {
                let why = format!("entries of partition {id} are missing that it says are kept");
                return Err(corrupt(self.oldest, 0, &why));
            }
            ledger.on_recovered();
            let entries = entries.into_values();
            let meta = ledger.meta();
            let recovered = RecoveredPartition {
                generation: meta.generation,
                replica: meta.replica,
                hard_state: meta.hard_state,
                conf_state: (*meta.conf_state).clone(),
                compacted: meta.compacted,
                entries,
                last_stamp: meta.stamp,
                tombstones: meta.tombstones.iter().copied().collect(),
            };
            partitions.insert(id, recovered);
            ledgers.insert(id, ledger);
        }
        let (end, key) = (self.end, Some(key));
        let tail = Tail { ledgers, segments, leftovers, spares, end, key };
        Ok(Recovered { partitions, end, is_torn: self.is_torn, tail })
    }
}

impl Partition {
    fn apply(&mut self, record: Record, size: u32, place: Place) -> Result<(), &'static str> {
        self.ledger.apply(&record, size, place)?;
        match record {
            Record::Entry(entry) => self.entries.push(entry.index, entry),
            Record::Rewritten(entry) => {
                if self.ledger.keeps(entry.index) {
                    self.entries.set(entry.index, entry);
                }
            }
            // The rest only removes: all entries, or the first.
            _ if self.ledger.is_empty() => self.entries.clear(),
            _ => {
                let first = self.ledger.meta().compacted.index.next();
                self.entries.remove_before(first);
            }
        }
        debug_assert_eq!(self.entries.len(), self.ledger.n_known());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::types::LogIndex;
    use crate::types::Term;
    use crate::wal::ledger::Meta;
    use crate::wal::record::Lsn;

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
            (
                "covered by the last",
                Some(2),
                Err("corrupt at byte 8192: a batch is damaged, and a"),
            ),
            ("covered by both", Some(1), Err("corrupt at byte 4096: a batch is damaged, and a")),
            (
                "the only header",
                Some(0),
                Err("corrupt at byte 0: its header is damaged, as are all"),
            ),
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
                (0..3, Record::Entry(it)) => {
                    Record::Entry(Entry { partition, term: id.term, ..it })
                }
                (3, Record::Entry(it)) => {
                    Record::Rewritten(Entry { partition, term: id.term, ..it })
                }
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
}
