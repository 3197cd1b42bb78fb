//! The chain of segments applied, one batch after another, from the oldest that is needed.
//!
//! Here batches are judged (see the verdicts above), headers are held against what was read before them, and
//! entries find their places. A table only says which entries there must be: they come from records.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::types::PartitionId;
use crate::wal::format;
use crate::wal::format::BATCH_HEAD_SIZE;
use crate::wal::format::BLOCK;
use crate::wal::format::BatchHead;
use crate::wal::format::End;
use crate::wal::format::SegmentHeader;
use crate::wal::known::Known;
use crate::wal::ledger::Ledger;
use crate::wal::ledger::Place;
use crate::wal::record::Entry;
use crate::wal::record::Record;
use crate::wal::record::SegmentId;
use crate::wal::recovery::Recovered;
use crate::wal::recovery::RecoveredPartition;
use crate::wal::recovery::RecoveryError;
use crate::wal::recovery::SegmentSource;
use crate::wal::recovery::Tail;
use crate::wal::recovery::batches_from;
use crate::wal::recovery::corrupt;
use crate::wal::recovery::read_all;
use crate::wal::segments::Segment;
use crate::wire::bytes::Reader;

/// The state of a log while it is read.
pub(super) struct Replay {
    partitions: BTreeMap<PartitionId, Partition>,
    key: u64,
    end: End,
    /// The oldest segment that is needed, so far as it was read.
    pub(super) oldest: SegmentId,
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
    pub(super) fn new(first: &SegmentHeader) -> Self {
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
    pub(super) fn read_segment(
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
                let covers = |it: BatchHead| it.lsn >= expected && it.durable >= expected;
                if batches_from(&bytes, offset + BLOCK, Some(salt)).any(covers) {
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

    pub(super) fn finish(
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
