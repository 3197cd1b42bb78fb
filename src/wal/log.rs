//! The log being written: staged records become batches, batches become writes.
//!
//! ```text
//! stage ─► open batch ─► (write, sync) ─► durable
//!              │ does not fit
//!              ▼
//!          next segment: prepare ahead ─► (write header, sync) ─► current
//! ```
//!
//! The owner calls [`Log::next_io`] until it returns nothing, performs what it gets, and reports
//! [`Log::on_io_done`] and [`Log::on_prepared`]. A write is done when it has been synced. Nothing else
//! may be written while one is under way, so whatever is staged meanwhile, by all partitions, shares the
//! next sync.
//!
//! Invariants
//! - A segment's table and `oldest` describe what was handed out for writing before it, never what is
//!   merely staged: what they rely on is on disk when they are.
//! - The last block of a segment is used by an idle seal only, so there is always room for one.
//!
//! Cost per record: one copy into the open batch and a look-up of its partition. Per batch: one pass of
//! crc32c, and whatever copy the owner needs for alignment.

mod batch;
mod opening;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::limits;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::types::ShardId;
use crate::wal::format;
use crate::wal::format::BLOCK;
use crate::wal::format::BatchHead;
use crate::wal::format::End;
use crate::wal::ledger::Ledger;
use crate::wal::ledger::Place;
use crate::wal::log::batch::Batch;
use crate::wal::log::batch::Closed;
use crate::wal::meta::Meta;
use crate::wal::record::Lsn;
use crate::wal::record::Record;
use crate::wal::record::SegmentId;
use crate::wal::recovery::Tail;
use crate::wal::segments::Segment;
use crate::wal::segments::Segments;

/// A buffer that grew past this, in bytes, is given back when its batch is done.
const BUFFER_KEPT_MAX: usize = 4 << 20;

/// How a log is laid out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose log.
    pub shard: ShardId,
    /// How many shards the node has.
    pub n_shards: u16,
    /// Bytes of the first segment after each start. Whole blocks.
    pub segment_size_first: u64,
    /// Bytes of the later ones. Whole blocks.
    pub segment_size: u64,
    /// Bytes at which a batch takes no more records.
    pub batch_size_max: usize,
    /// How long the log is idle before an empty batch says that the last one is durable.
    pub seal_delay: Duration,
    /// What a new log's salts come from; must not be guessable. A log that goes on keeps its own.
    pub seed: u64,
}

impl Options {
    /// As the product runs.
    pub fn new(shard: ShardId, n_shards: u16, seed: u64) -> Self {
        Self {
            shard,
            n_shards,
            segment_size_first: limits::LOG_SEGMENT_SIZE_FIRST,
            segment_size: limits::LOG_SEGMENT_SIZE,
            batch_size_max: limits::LOG_BATCH_SIZE_MAX,
            seal_delay: limits::LOG_SEAL_DELAY,
            seed,
        }
    }
}

/// What the log wants done to its files.
#[derive(Debug, PartialEq, Eq)]
pub enum LogIo<'a> {
    /// Sync the directory, then report [`Log::on_io_done`]: segments that recovery saw may have names that
    /// are not on the medium.
    SyncNames,
    /// Sync a segment that recovery read, then report [`Log::on_io_done`].
    Sync {
        /// Which.
        segment: SegmentId,
    },
    /// Write and sync, then report [`Log::on_io_done`].
    Write {
        /// Where.
        segment: SegmentId,
        /// A multiple of [`BLOCK`].
        offset: u64,
        /// Whole blocks.
        bytes: &'a [u8],
        /// How many records they hold; a segment's header and an idle seal hold none.
        n_records: u32,
    },
    /// In the background: provide a segment of that size whose file, size and name survive a crash,
    /// replacing one of the same id; then report [`Log::on_prepared`].
    Prepare {
        /// The id it must have.
        segment: SegmentId,
        /// Its size in bytes, written before (zeros), so that no later write allocates.
        size: u64,
        /// A segment of the same size to rename, content and all, instead of writing a new one.
        recycled: Option<SegmentId>,
    },
    /// In the background, behind all that was asked before: remove a segment.
    Remove {
        /// Which.
        segment: SegmentId,
    },
}

/// What is being written.
#[derive(Debug)]
enum Flight {
    Sync,
    Header { segment: Segment },
    Batch { lsn: Lsn, oldest: SegmentId, size: u64, is_seal: bool },
}

/// The segment that batches go to.
#[derive(Clone, Copy, Debug)]
struct Current {
    segment: Segment,
    offset: u64,
}

/// One shard's log.
#[derive(Debug)]
pub struct Log {
    options: Options,
    key: u64,
    ledgers: BTreeMap<PartitionId, Ledger>,
    /// State as of the last batch handed out for writing.
    written: BTreeMap<PartitionId, Meta>,
    /// Waiting to be written, oldest first. The last one is open, and always there.
    batches: VecDeque<Batch>,
    flight: Option<Flight>,
    /// The bytes of what is being written; then spare.
    buffer: Vec<u8>,
    segments: Segments,
    current: Option<Current>,
    /// Where the log ends on disk, so far as it is durable.
    end: End,
    seal_at: Option<Instant>,
    /// Whether the names recovery saw must still be synced.
    syncs_names: bool,
    /// What recovery read and must be synced before anything is written.
    syncs: VecDeque<SegmentId>,
}

impl Log {
    /// Go on behind what recovery found; `Tail::default()` begins a new log. The log is in its first
    /// segment, and may be relied on, once [`Log::is_ready`].
    pub fn new(options: Options, tail: Tail) -> Self {
        assert!(
            options.segment_size_first.is_multiple_of(BLOCK as u64),
            "segments are whole blocks"
        );
        assert!(options.segment_size.is_multiple_of(BLOCK as u64), "segments are whole blocks");
        assert!(options.batch_size_max > format::BATCH_HEAD_SIZE, "a batch takes a record");
        // One number is skipped: a torn batch may have used it.
        let lsn = Lsn(tail.end.lsn.0 + 2);
        let syncs = tail.segments.iter().map(|it| it.id).collect();
        let size_min = options.segment_size_first;
        Self {
            key: tail.key.unwrap_or(options.seed),
            written: tail.ledgers.iter().map(|(id, it)| (*id, it.meta().clone())).collect(),
            ledgers: tail.ledgers,
            batches: VecDeque::from([Batch::new(lsn, Vec::new())]),
            flight: None,
            buffer: Vec::new(),
            syncs_names: true,
            syncs,
            segments: Segments::new(tail.segments, tail.leftovers, &tail.spares, size_min),
            current: None,
            end: tail.end,
            seal_at: None,
            options,
        }
    }

    /// Whether all that recovery read is known to be on the medium and the log has a segment of its own.
    /// Before that, nothing recovered may be acted on: a vote read back after `kill -9` could be
    /// forgotten again (R1).
    pub fn is_ready(&self) -> bool {
        self.current.is_some()
    }

    /// Append records to the open batch. They reach the disk together or not at all, and are durable
    /// when the returned batch is.
    ///
    /// # Panics
    /// If a record cannot follow what the log holds; that is a bug of the caller.
    pub fn stage(&mut self, records: &[Record]) -> Lsn {
        assert!(!records.is_empty(), "nothing to stage has no sequence number");
        if self.open().bytes.len() >= self.options.batch_size_max {
            self.close();
        }
        let batch = self.batches.back_mut().expect("one batch is always open");
        let place = Place::Batch(batch.lsn);
        for record in records {
            let partition = record.partition();
            let start = batch.bytes.len();
            record.encode(&mut batch.bytes);
            let size = u32::try_from(batch.bytes.len() - start).expect("a record fits a batch");
            let ledger = self.ledgers.entry(partition).or_default();
            if let Record::Rewritten(entry) = record {
                assert_eq!(
                    ledger.term(entry.index),
                    Some(entry.term),
                    "rewrote what the log lacks"
                );
            }
            if let Err(why) = ledger.apply(record, size, place) {
                panic!("staged for partition {partition}: {why}");
            }
            if batch.touched.last() != Some(&partition) && !batch.touched.contains(&partition) {
                batch.touched.push(partition);
            }
            batch.n_records += 1;
        }
        batch.lsn
    }

    /// What to do next; nothing while a write or sync is under way (but background work may be), or if
    /// there is nothing to do.
    pub fn next_io(&mut self, now: Instant) -> Option<LogIo<'_>> {
        if let Some(io) = self.next_background() {
            return Some(io);
        }
        if self.flight.is_some() {
            return None;
        }
        if std::mem::take(&mut self.syncs_names) {
            self.flight = Some(Flight::Sync);
            return Some(LogIo::SyncNames);
        }
        if let Some(segment) = self.syncs.pop_front() {
            self.flight = Some(Flight::Sync);
            return Some(LogIo::Sync { segment });
        }
        let Some(current) = self.current else {
            return self.open_segment();
        };
        let is_seal = self.front().n_records == 0;
        if is_seal && self.seal_at.is_none_or(|it| now < it) {
            return None;
        }
        if self.front_fits(current) { Some(self.write_batch(current)) } else { self.open_segment() }
    }

    /// The write or sync handed out last is on the medium. Returns the newest durable batch.
    pub fn on_io_done(&mut self, now: Instant) -> Lsn {
        match self.flight.take().expect("something was handed out") {
            Flight::Sync => {}
            Flight::Header { segment } => {
                let offset = self.buffer.len() as u64;
                self.segments.on_opened(segment);
                self.current = Some(Current { segment, offset });
                self.end = End { segment: segment.id, offset, lsn: self.end.lsn };
                self.seal_at = None; // the header names the predecessor's last batch
            }
            Flight::Batch { lsn, oldest, size, is_seal } => {
                let current = self.current.as_mut().expect("a batch goes to the current segment");
                current.offset += size;
                assert!(current.offset <= current.segment.size, "wrote behind the segment's end");
                self.end = End { segment: current.segment.id, offset: current.offset, lsn };
                self.seal_at = (!is_seal).then(|| now.after(self.options.seal_delay));
                self.segments.release(oldest, self.options.segment_size);
            }
        }
        if self.buffer.capacity() > BUFFER_KEPT_MAX {
            self.buffer = Vec::new();
        }
        self.durable()
    }

    /// The segment asked for last is ready, `size` bytes long.
    pub fn on_prepared(&mut self, segment: SegmentId, size: u64) {
        self.segments.on_prepared(Segment { id: segment, size });
    }

    /// Do not wait for the log to be idle: seal it behind what is staged.
    pub fn seal_now(&mut self) {
        self.options.seal_delay = Duration::ZERO;
        self.seal_at = self.seal_at.map(|_| Instant::START);
    }

    /// When to call [`Log::next_io`] again, if nothing else happens first.
    pub fn next_timeout(&self) -> Option<Instant> {
        let is_idle = self.flight.is_none() && self.front().n_records == 0;
        self.seal_at.filter(|_| is_idle)
    }

    /// The newest batch that survives a crash.
    pub fn durable(&self) -> Lsn {
        self.end.lsn
    }

    /// Whether nothing staged still waits for the disk. A pending idle seal does not count.
    pub fn is_flushed(&self) -> bool {
        self.flight.is_none() && self.front().n_records == 0
    }

    /// Bytes of entries that are not compacted.
    pub fn live_bytes(&self) -> u64 {
        self.ledgers.values().map(Ledger::live_bytes).sum()
    }

    /// Bytes of all segments, those in use and those kept for use.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.disk_bytes()
    }

    /// The few entries that alone keep the oldest segments. When they are staged again as
    /// [`Record::Rewritten`], those segments can go (R3). Empty if the log is short, or if too much in
    /// its oldest segments is needed for that to pay.
    pub fn lagging(&self) -> Vec<(PartitionId, RangeInclusive<LogIndex>)> {
        // The current segment and the one before it stay in any case: what is young may yet be compacted.
        let n_candidates = self.segments.used().len().saturating_sub(2);
        let mut found = Vec::new();
        let (mut live, mut size) = (0, 0);
        for segment in self.segments.used().take(n_candidates) {
            let kept = self.ledgers.iter().flat_map(|(partition, ledger)| {
                ledger.kept_in(segment.id).map(move |(range, bytes)| (*partition, range, bytes))
            });
            let kept: Vec<_> = kept.collect();
            live += kept.iter().map(|(.., bytes)| bytes).sum::<u64>();
            size += segment.size;
            if live > size / limits::LOG_REWRITE_RATIO {
                break;
            }
            found.extend(kept.into_iter().map(|(partition, range, _)| (partition, range)));
        }
        found
    }

    fn open(&self) -> &Batch {
        self.batches.back().expect("one batch is always open")
    }

    /// The batch to be written next; the open one, if no other waits.
    fn front(&self) -> &Batch {
        self.batches.front().expect("one batch is always open")
    }

    /// End the open batch and open another.
    fn close(&mut self) {
        let closed = self.state_now(self.end.segment);
        let batch = self.batches.back_mut().expect("one batch is always open");
        batch.closed = Some(closed);
        let lsn = batch.lsn.next();
        self.batches.push_back(Batch::new(lsn, Vec::new()));
    }

    /// State after the open batch. Entries without a place yet will lie in `segment` or later.
    fn state_now(&self, segment: SegmentId) -> Closed {
        let meta = |id: &PartitionId| (*id, self.ledgers[id].meta().clone());
        let metas = self.open().touched.iter().map(meta).collect();
        let oldest = self.ledgers.values().filter_map(Ledger::oldest).min();
        Closed { metas, oldest: oldest.map_or(segment, |it| it.min(segment)) }
    }

    fn front_fits(&self, current: Current) -> bool {
        let front = self.front();
        let reserved = if front.n_records == 0 { 0 } else { BLOCK };
        let end = current.offset + (format::padded(front.bytes.len()) + reserved) as u64;
        end <= current.segment.size
    }

    fn write_batch(&mut self, current: Current) -> LogIo<'_> {
        let segment = current.segment.id;
        if self.batches.len() == 1 {
            let state = self.state_now(segment);
            let batch = self.batches.back_mut().expect("one batch is always open");
            batch.closed = Some(state);
            let lsn = batch.lsn.next();
            let spare = std::mem::take(&mut self.buffer);
            self.batches.push_back(Batch::new(lsn, spare));
        }
        let mut batch = self.batches.pop_front().expect("one more than the open batch");
        let closed = batch.closed.take().expect("only the last batch is open");
        for (partition, meta) in closed.metas {
            self.written.insert(partition, meta);
        }
        for partition in &batch.touched {
            let ledger = self.ledgers.get_mut(partition).expect("ledgers stay");
            ledger.on_placed(batch.lsn, segment);
        }
        let oldest = closed.oldest.min(segment);
        let head = BatchHead {
            size: batch.bytes.len(),
            salt: format::salt(self.key, segment),
            lsn: batch.lsn,
            durable: self.end.lsn,
            oldest,
        };
        head.seal(&mut batch.bytes);
        self.buffer = batch.bytes;
        let (size, is_seal) = (self.buffer.len() as u64, batch.n_records == 0);
        self.flight = Some(Flight::Batch { lsn: batch.lsn, oldest, size, is_seal });
        let (offset, bytes) = (current.offset, &self.buffer[..]);
        LogIo::Write { segment, offset, bytes, n_records: batch.n_records }
    }
}

#[cfg(test)]
mod tests;
