//! Which segments a log has: in use, retired, prepared, asked for, to be removed.
//!
//! ```text
//! asked for ─► prepared ─► in use ─► retired ─► asked for again, under a new id
//!                                       └─────► removed
//! ```
//!
//! Ids of segments in use, prepared and asked for only grow.

use std::collections::VecDeque;

use crate::wal::log::LogIo;
use crate::wal::record::SegmentId;

/// A segment and its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) size: u64,
}

/// All segments of a log.
#[derive(Debug)]
pub(super) struct Segments {
    /// Those that hold something needed, oldest first. The last one is the current one, once the log has
    /// opened one.
    used: VecDeque<Segment>,
    removals: VecDeque<SegmentId>,
    /// No longer needed; kept for the next segment.
    retired: Option<Segment>,
    prepared: Option<Segment>,
    /// Asked for, not yet prepared.
    asked: Option<Segment>,
    /// The id of the newest segment there is or was.
    newest: SegmentId,
}

impl Segments {
    /// As recovery found them: in use, older ones, and newer ones never opened, of which the first is
    /// taken for prepared if it has `size_min` bytes.
    pub(super) fn new(
        used: Vec<Segment>,
        leftovers: Vec<SegmentId>,
        spares: &[Segment],
        size_min: u64,
    ) -> Self {
        let prepared = spares.first().copied().filter(|it| it.size >= size_min);
        let rest = &spares[usize::from(prepared.is_some())..];
        let mut removals = VecDeque::from(leftovers);
        removals.extend(rest.iter().map(|it| it.id));
        let newest = used.iter().chain(spares).map(|it| it.id).max().unwrap_or_default();
        let newest = prepared.map_or(newest, |it| it.id);
        Self { used: used.into(), removals, retired: None, prepared, asked: None, newest }
    }

    /// Whether one lies ready to be used again.
    pub(super) fn has_retired(&self) -> bool {
        self.retired.is_some()
    }

    /// Those in use, oldest first.
    pub(super) fn used(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.used.iter().copied()
    }

    /// Bytes of all that are on disk for good.
    pub(super) fn disk_bytes(&self) -> u64 {
        let spare = [self.retired, self.prepared];
        self.used.iter().chain(spare.iter().flatten()).map(|it| it.size).sum()
    }

    /// One that is to be removed.
    pub(super) fn next_removal(&mut self) -> Option<LogIo<'static>> {
        self.removals.pop_front().map(|segment| LogIo::Remove { segment })
    }

    /// Ask for a segment of `size` bytes, unless one at least as large is there or asked for.
    pub(super) fn ask(&mut self, size: u64) -> Option<LogIo<'static>> {
        let has = |it: Option<Segment>| it.is_some_and(|it| it.size >= size);
        if has(self.prepared) || has(self.asked) {
            return None;
        }
        // One that is too small is replaced under its id.
        let is_replaced = self.prepared.is_some() || self.asked.is_some();
        let segment = if is_replaced { self.newest } else { self.newest.next() };
        self.newest = segment;
        self.prepared = None;
        self.asked = Some(Segment { id: segment, size });
        let recycled = self.retired.take_if(|it| it.size == size).map(|it| it.id);
        Some(LogIo::Prepare { segment, size, recycled })
    }

    /// What was asked for is there.
    pub(super) fn on_prepared(&mut self, it: Segment) {
        // One that was asked for again, larger, is about to be replaced.
        if self.asked.take_if(|asked| *asked == it).is_some() {
            self.prepared = Some(it);
        }
    }

    /// Take the prepared one, if it has `size_min` bytes.
    pub(super) fn take_prepared(&mut self, size_min: u64) -> Option<Segment> {
        self.prepared.take_if(|it| it.size >= size_min)
    }

    /// Its header is durable: it is the current one.
    pub(super) fn on_opened(&mut self, segment: Segment) {
        self.used.push_back(segment);
    }

    /// Let go of the segments before `oldest`; one of `size_kept` bytes is kept for the next use.
    pub(super) fn release(&mut self, oldest: SegmentId, size_kept: u64) {
        while let Some(segment) = self.used.pop_front_if(|it| it.id < oldest) {
            if self.retired.is_none() && segment.size == size_kept {
                self.retired = Some(segment);
            } else {
                self.removals.push_back(segment.id);
            }
        }
        let front = self.used.front().expect("the current segment is never released");
        assert!(oldest <= front.id, "a released segment is needed again");
    }
}
