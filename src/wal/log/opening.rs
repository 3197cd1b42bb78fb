//! The next segment of a log: when it is asked for, how large it must be, and how it opens.

use crate::wal::format;
use crate::wal::format::BLOCK;
use crate::wal::format::SegmentHeader;
use crate::wal::log::Flight;
use crate::wal::log::Log;
use crate::wal::log::LogIo;

impl Log {
    /// Write the header of the next segment, if one is prepared and large enough.
    pub(super) fn open_segment(&mut self) -> Option<LogIo<'_>> {
        let size_min = self.opening_size();
        let segment = self.segments.take_prepared(size_min)?;
        let oldest = self.segments.used().next().map_or(segment.id, |it| it.id);
        let header = SegmentHeader {
            segment: segment.id,
            key: self.key,
            lsn_first: self.front().lsn,
            oldest,
            predecessor: self.end,
            shard: self.options.shard,
            n_shards: self.options.n_shards,
            table: self.written.iter().map(|(id, it)| (*id, it.clone())).collect(),
        };
        header.encode(&mut self.buffer);
        self.flight = Some(Flight::Header { segment });
        let bytes = &self.buffer[..];
        Some(LogIo::Write { segment: segment.id, offset: 0, bytes, n_records: 0 })
    }

    /// Bytes the next segment must have: header, the batch that waits, and room for a seal.
    fn opening_size(&self) -> u64 {
        let mut table = Vec::new();
        self.written.iter().for_each(|(id, it)| it.encode(*id, &mut table));
        let header = format::padded(format::SEGMENT_HEAD_SIZE + table.len());
        (header + format::padded(self.front().bytes.len()) + BLOCK) as u64
    }

    pub(super) fn next_background(&mut self) -> Option<LogIo<'static>> {
        // What recovery found unneeded is so by a header that may not be synced yet: wait until it is.
        if self.current.is_some()
            && let Some(removal) = self.segments.next_removal()
        {
            return Some(removal);
        }
        self.segments.ask(self.size_wanted()?)
    }

    /// The size of segment that should be ready by now, if any.
    fn size_wanted(&self) -> Option<u64> {
        // A segment must not outlive, in a crash, the header it was to follow: first sync what was read.
        let is_synced = !self.syncs_names && self.syncs.is_empty();
        if !is_synced || matches!(self.flight, Some(Flight::Sync | Flight::Header { .. })) {
            return None;
        }
        let Some(current) = self.current else {
            return Some(self.options.segment_size_first.max(self.opening_size()));
        };
        if self.front_fits(current) {
            // Early, since a busy log fills a segment in the time it takes to write the next one with zeros;
            // but late enough for an old one to be free, which then needs no zeros.
            let is_first = current.segment.size < self.options.segment_size;
            let quarters = if is_first || self.segments.has_retired() { 1 } else { 3 };
            let is_time = current.offset >= current.segment.size / 4 * quarters;
            is_time.then_some(self.options.segment_size)
        } else {
            Some(self.options.segment_size.max(self.opening_size()))
        }
    }
}
