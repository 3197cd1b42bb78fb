//! A whole log written at once: the log of a shard that has just come to be (R4).
//!
//! It looks like one that a [`Log`](crate::wal::log::Log) has written and sealed: the first segment's table
//! says all that is known of each partition but for its entries, these follow in batches, and an empty batch
//! at the end calls the last one durable. Its segments end with their last batch; whoever goes on behind them
//! opens one of its own.
//!
//! Cost: a copy of each entry, a checksum and a sequential write; one batch is held in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::limits;
use crate::types::PartitionId;
use crate::types::ShardId;
use crate::wal::format;
use crate::wal::format::BATCH_HEAD_SIZE;
use crate::wal::format::BatchHead;
use crate::wal::format::End;
use crate::wal::format::SegmentHeader;
use crate::wal::ledger::Ledger;
use crate::wal::ledger::Place;
use crate::wal::meta::Meta;
use crate::wal::record::Record;
use crate::wal::record::SegmentId;
use crate::wal::recovery::RecoveredPartition;

/// Bytes of records after which a batch is written; one of an entry that is larger holds just that.
const BATCH_SIZE: u64 = 1 << 20;

/// How a whole log is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Whose log.
    pub shard: ShardId,
    /// How many shards the node has.
    pub n_shards: u16,
    /// Bytes after which a segment is ended.
    pub segment_size: u64,
    /// What its salts come from; must not be guessable.
    pub key: u64,
}

impl Layout {
    /// As the product runs.
    pub fn new(shard: ShardId, n_shards: u16, key: u64) -> Self {
        Self { shard, n_shards, segment_size: limits::LOG_SEGMENT_SIZE, key }
    }
}

/// Why a log is not written.
#[derive(Debug, thiserror::Error)]
pub enum WholeError {
    /// The disk said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What should be written cannot follow what was.
    #[error("partition {partition}: {why}")]
    Impossible {
        /// Of which partition.
        partition: PartitionId,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Write a log that holds `partitions`. `append` is given the bytes of each segment in order, whole blocks
/// at a time; nothing is synced.
pub fn write<'a>(
    layout: Layout,
    partitions: impl Iterator<Item = (PartitionId, &'a RecoveredPartition)> + Clone,
    append: impl FnMut(SegmentId, &[u8]) -> io::Result<()>,
) -> Result<(), WholeError> {
    let ledgers = partitions.clone().map(|(id, it)| (id, Ledger::from_table(without_entries(it))));
    let ledgers = ledgers.collect();
    let mut writer = Writer { layout, ledgers, append, end: End::default(), batch: Vec::new() };
    writer.open_segment()?;
    for (partition, recovered) in partitions {
        for entry in &recovered.entries {
            writer.push(partition, &Record::Entry(entry.clone()))?;
        }
    }
    writer.finish()
}

/// About how many bytes the log of one partition takes.
pub fn size_of(partition: &RecoveredPartition) -> u64 {
    let head = format::BLOCK as u64;
    let entry_size = |payload: usize| (payload + 64) as u64;
    let entries = partition.entries.iter().map(|it| entry_size(it.payload.len())).sum::<u64>();
    // A batch is padded to whole blocks.
    head + entries + entries / 64
}

/// All that is known of a partition whose log begins and ends where it was compacted last.
pub(super) fn without_entries(it: &RecoveredPartition) -> Meta {
    Meta {
        generation: it.generation,
        replica: it.replica,
        hard_state: it.hard_state,
        conf_state: Arc::new(it.conf_state.clone()),
        compacted: it.compacted,
        last: it.compacted,
        stamp: it.last_stamp,
        tombstones: Arc::new(it.tombstones.iter().copied().collect()),
    }
}

struct Writer<A> {
    layout: Layout,
    ledgers: BTreeMap<PartitionId, Ledger>,
    append: A,
    /// Where the log ends so far.
    end: End,
    /// The batch that fills; empty before its first record.
    batch: Vec<u8>,
}

impl<A: FnMut(SegmentId, &[u8]) -> io::Result<()>> Writer<A> {
    fn push(&mut self, partition: PartitionId, record: &Record) -> Result<(), WholeError> {
        if self.batch.is_empty() {
            BatchHead::reserve(&mut self.batch);
        }
        let start = self.batch.len();
        record.encode(&mut self.batch);
        let size = u32::try_from(self.batch.len() - start).expect("a record fits a batch");
        let place = Place::Segment(self.end.segment);
        let ledger = self.ledgers.get_mut(&partition).expect("all were there at the beginning");
        let applied = ledger.apply(record, size, place);
        applied.map_err(|why| WholeError::Impossible { partition, why })?;
        if self.batch.len() as u64 >= self.layout.segment_size.min(BATCH_SIZE) {
            self.write_batch()?;
            if self.end.offset >= self.layout.segment_size {
                self.open_segment()?;
            }
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), WholeError> {
        let segment = self.end.segment;
        let head = BatchHead {
            size: self.batch.len(),
            salt: format::salt(self.layout.key, segment),
            lsn: self.end.lsn.next(),
            durable: self.end.lsn, // nobody reads it before that is so
            oldest: SegmentId::FIRST,
        };
        head.seal(&mut self.batch);
        (self.append)(segment, &self.batch)?;
        let offset = self.end.offset + self.batch.len() as u64;
        self.end = End { segment, offset, lsn: head.lsn };
        self.batch.clear();
        Ok(())
    }

    fn open_segment(&mut self) -> Result<(), WholeError> {
        let segment = self.end.segment.next();
        let header = SegmentHeader {
            segment,
            key: self.layout.key,
            lsn_first: self.end.lsn.next(),
            oldest: SegmentId::FIRST,
            predecessor: self.end,
            shard: self.layout.shard,
            n_shards: self.layout.n_shards,
            table: self.ledgers.iter().map(|(id, it)| (*id, it.meta().clone())).collect(),
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        (self.append)(segment, &bytes)?;
        self.end = End { segment, offset: bytes.len() as u64, lsn: self.end.lsn };
        Ok(())
    }

    /// Write what is left, and a batch that calls it durable.
    fn finish(mut self) -> Result<(), WholeError> {
        if self.batch.len() > BATCH_HEAD_SIZE {
            self.write_batch()?;
        }
        BatchHead::reserve(&mut self.batch);
        self.write_batch()
    }
}
