//! What the log knows of one partition: its state, which entries are kept, and which segment holds each.
//!
//! Staging and recovery apply the same records through [`Ledger::apply`], so a replayed log cannot mean
//! something else than it meant when it was written. Entry payloads are not kept here.
//!
//! Invariants
//! - Runs cover the kept entries, those behind `compacted` up to `last`, in order and without overlap;
//!   neighbours lie in different places.
//! - A slot per kept entry, but for those that recovery has not seen yet.

use std::collections::VecDeque;
use std::ops::Range;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::types::HardState;
use crate::types::LogIndex;
use crate::types::ReplicaId;
use crate::types::Term;
use crate::wal::known::Known;
use crate::wal::meta::Meta;
use crate::wal::record::Entry;
use crate::wal::record::EntryId;
use crate::wal::record::Lsn;
use crate::wal::record::Record;
use crate::wal::record::SegmentId;

/// Where entries lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a batch that has no place on disk yet.
    Batch(Lsn),
    /// In a segment.
    Segment(SegmentId),
    /// Not seen by recovery so far: in a segment that is gone. A later record must bring them.
    Missing,
}

/// One kept entry.
#[derive(Clone, Copy, Debug)]
struct Slot {
    term: Term,
    /// Bytes of its record.
    size: u32,
}

/// Consecutive entries that lie in one place, up to where the next run begins.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: LogIndex,
    place: Place,
    bytes: u64,
}

/// State and entry accounting of one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    meta: Meta,
    slots: Known<Slot>,
    runs: VecDeque<Run>,
}

impl Ledger {
    /// As a segment's table says: its entries must all come from records that follow. It costs the same
    /// whatever the table says.
    pub(super) fn from_table(meta: Meta) -> Self {
        let run = Run { first: meta.compacted.index.next(), place: Place::Missing, bytes: 0 };
        let mut ledger = Self { meta, ..Self::default() };
        if !ledger.is_empty() {
            ledger.runs.push_back(run);
        }
        ledger
    }

    /// What is known beside the entries.
    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Whether the entry at `index` is kept.
    pub(super) fn keeps(&self, index: LogIndex) -> bool {
        self.meta.compacted.index < index && index <= self.meta.last.index
    }

    /// Whether no entry is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.meta.last.index == self.meta.compacted.index
    }

    /// How many of the kept entries recovery has seen.
    pub(super) fn n_known(&self) -> usize {
        self.slots.len()
    }

    /// Whether recovery has seen all of them.
    pub(super) fn is_whole(&self) -> bool {
        self.n_known() as u64 == self.meta.last.index.0 - self.meta.compacted.index.0
    }

    /// Recovery is over, and has seen all kept entries.
    pub(super) fn on_recovered(&mut self) {
        assert!(self.is_whole(), "entries are missing");
        self.slots.close_ranks();
    }

    /// Bytes of kept entries.
    pub(super) fn live_bytes(&self) -> u64 {
        self.runs.iter().map(|it| it.bytes).sum()
    }

    /// The term of a kept entry.
    pub(super) fn term(&self, index: LogIndex) -> Option<Term> {
        self.slots.get(index).map(|it| it.term)
    }

    /// The oldest segment that holds an entry still kept.
    pub(super) fn oldest(&self) -> Option<SegmentId> {
        let segment = |it: &Run| match it.place {
            Place::Segment(id) => Some(id),
            Place::Batch(_) | Place::Missing => None,
        };
        self.runs.iter().filter_map(segment).min()
    }

    /// The entries kept in `segment`, with their bytes.
    pub(super) fn kept_in(
        &self,
        segment: SegmentId,
    ) -> impl Iterator<Item = (RangeInclusive<LogIndex>, u64)> {
        self.runs.iter().enumerate().filter(move |(_, it)| it.place == Place::Segment(segment)).map(
            |(at, it)| {
                let next = self
                    .runs
                    .get(at + 1)
                    .map_or_else(|| self.meta.last.index.next(), |it| it.first);
                (it.first..=next.previous(), it.bytes)
            },
        )
    }

    /// The batch has been given a segment.
    pub(super) fn on_placed(&mut self, batch: Lsn, segment: SegmentId) {
        let (from, to) = (Place::Batch(batch), Place::Segment(segment));
        if !self.runs.iter().any(|it| it.place == from) {
            return;
        }
        let runs = std::mem::take(&mut self.runs);
        for mut run in runs {
            if run.place == from {
                run.place = to;
            }
            match self.runs.back_mut() {
                Some(last) if last.place == run.place => last.bytes += run.bytes,
                _ => self.runs.push_back(run),
            }
        }
    }

    /// Take in a record of `size` bytes that lies in `place`. The error says what is impossible about it.
    pub(super) fn apply(
        &mut self,
        record: &Record,
        size: u32,
        place: Place,
    ) -> Result<(), &'static str> {
        match record {
            Record::Entry(entry) => return self.append(entry, size, place),
            Record::Rewritten(entry) => return self.rewrite(entry, size, place),
            Record::Compacted { entry, .. } => return self.compact(*entry),
            Record::Restored { entry, .. } => self.restart(*entry),
            Record::HardState { hard_state, .. } => self.meta.hard_state = *hard_state,
            Record::ConfState { conf_state, .. } => {
                self.meta.conf_state = Arc::new(conf_state.clone());
            }
            Record::Generation { generation, replica, .. } => {
                if self.meta.replica != *replica {
                    self.end_life();
                }
                self.meta.generation = *generation;
                self.meta.replica = *replica;
            }
            Record::Tombstone { replica, .. } => {
                Arc::make_mut(&mut self.meta.tombstones).insert(*replica);
                if self.meta.replica == *replica {
                    self.end_life();
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, entry: &Entry, size: u32, place: Place) -> Result<(), &'static str> {
        if entry.index <= self.meta.compacted.index {
            return Err("an entry lies below what was compacted");
        }
        if entry.index > self.meta.last.index.next() {
            return Err("an entry leaves a gap before it");
        }
        self.truncate(entry.index);
        if self.term_before(entry.index).is_some_and(|it| entry.term < it) {
            return Err("an entry has a lower term than the one before it");
        }
        self.slots.push(entry.index, Slot { term: entry.term, size });
        match self.runs.back_mut() {
            Some(run) if run.place == place => run.bytes += u64::from(size),
            _ => {
                let bytes = u64::from(size);
                self.runs.push_back(Run { first: entry.index, place, bytes });
            }
        }
        self.meta.last = EntryId { index: entry.index, term: entry.term };
        self.meta.stamp = self.meta.stamp.max(entry.stamp);
        Ok(())
    }

    /// The term of the entry before `index`, which may have been compacted last; `None` if it is missing.
    fn term_before(&self, index: LogIndex) -> Option<Term> {
        let before = index.previous();
        let is_kept = before > self.meta.compacted.index;
        if is_kept { self.term(before) } else { Some(self.meta.compacted.term) }
    }

    /// Forget the entries from `index` on.
    fn truncate(&mut self, index: LogIndex) {
        let mut end = self.meta.last.index.next();
        while let Some(run) = self.runs.back().filter(|it| index <= it.first) {
            end = run.first;
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut().filter(|_| index < end) {
            run.bytes -= bytes_of(&self.slots, index..end);
        }
        self.slots.truncate(index);
    }

    fn rewrite(&mut self, entry: &Entry, size: u32, place: Place) -> Result<(), &'static str> {
        if !self.keeps(entry.index) {
            return Ok(()); // compacted or cut off meanwhile; a rewritten entry never extends the log
        }
        let run = self.runs.partition_point(|it| it.first <= entry.index) - 1;
        if let Some(old) = self.slots.set(entry.index, Slot { term: entry.term, size }) {
            if old.term != entry.term {
                return Err("a rewritten entry has another term than the one it stands for");
            }
            self.runs[run].bytes -= u64::from(old.size);
        }
        self.meta.stamp = self.meta.stamp.max(entry.stamp);
        self.move_one(run, entry.index, Run { first: entry.index, place, bytes: size.into() });
        Ok(())
    }

    /// Cut `index` out of the run at `run` and let `moved` stand there.
    fn move_one(&mut self, run: usize, index: LogIndex, moved: Run) {
        let old = self.runs[run];
        let next =
            self.runs.get(run + 1).map_or_else(|| self.meta.last.index.next(), |it| it.first);
        let behind = index.next();
        // The bytes of a split run are counted again; rewriting goes front to back, so the front is short.
        let bytes_before = bytes_of(&self.slots, old.first..index);
        self.runs.remove(run);
        let mut at = run;
        if old.first < index {
            self.runs.insert(at, Run { bytes: bytes_before, ..old });
            at += 1;
        }
        self.runs.insert(at, moved);
        if behind < next {
            let bytes = old.bytes - bytes_before;
            self.runs.insert(at + 1, Run { first: behind, bytes, ..old });
        }
        self.merge_with_next(at);
        if at > 0 {
            self.merge_with_next(at - 1);
        }
    }

    fn merge_with_next(&mut self, at: usize) {
        if let (Some(one), Some(other)) = (self.runs.get(at), self.runs.get(at + 1))
            && one.place == other.place
        {
            let bytes = other.bytes;
            self.runs.remove(at + 1);
            self.runs[at].bytes += bytes;
        }
    }

    fn compact(&mut self, to: EntryId) -> Result<(), &'static str> {
        if to.index <= self.meta.compacted.index {
            return Ok(());
        }
        if !self.keeps(to.index) {
            return Err("entries are compacted that the log never had");
        }
        if self.term(to.index).is_some_and(|it| it != to.term) {
            return Err("an entry is compacted under another term than its own");
        }
        let first = to.index.next();
        let next = |runs: &VecDeque<Run>| runs.get(1).map(|it| it.first);
        while next(&self.runs).is_some_and(|it| it <= first) {
            self.runs.pop_front();
        }
        if self.meta.last.index == to.index {
            self.meta.last.term = to.term;
            self.runs.clear();
        }
        if let Some(run) = self.runs.front_mut().filter(|it| it.first < first) {
            run.bytes -= bytes_of(&self.slots, run.first..first);
            run.first = first;
        }
        self.slots.remove_before(first);
        self.meta.compacted = to;
        Ok(())
    }

    fn restart(&mut self, behind: EntryId) {
        self.slots.clear();
        self.runs.clear();
        self.meta.compacted = behind;
        self.meta.last = behind;
    }

    /// Another replica will live here, or none: what the old one knew must not speak for it.
    fn end_life(&mut self) {
        self.restart(EntryId::default());
        self.meta.replica = ReplicaId(0);
        self.meta.hard_state = HardState::default();
        self.meta.conf_state = Arc::default();
    }

    /// What must always hold; too slow for every record, so tests call it.
    #[cfg(test)]
    fn assert_invariants(&self) {
        let compacted = self.meta.compacted.index;
        assert_eq!(self.runs.is_empty(), self.meta.last.index == compacted);
        let mut n_known = 0;
        let mut expected = compacted.next();
        for (at, run) in self.runs.iter().enumerate() {
            assert_eq!(run.first, expected, "run {at} of {:?}", self.runs);
            let next = self.runs.get(at + 1);
            let end = next.map_or_else(|| self.meta.last.index.next(), |it| it.first);
            assert!(run.first < end, "run {at} is empty");
            assert!(next.is_none_or(|it| it.place != run.place), "run {at} goes on");
            let n_slots = self.slots.range(run.first..end).count();
            let is_missing = run.place == Place::Missing;
            assert_eq!(n_slots as u64, if is_missing { 0 } else { end.0 - run.first.0 });
            assert_eq!(run.bytes, bytes_of(&self.slots, run.first..end));
            n_known += n_slots;
            expected = end;
        }
        assert_eq!(self.slots.len(), n_known);
    }
}

/// Bytes of the records in a range, so far as they are known.
fn bytes_of(slots: &Known<Slot>, range: Range<LogIndex>) -> u64 {
    slots.range(range).map(|it| u64::from(it.size)).sum()
}

#[cfg(test)]
mod tests;
