//! Values by log index, so far as they are known: the entries of a partition, or what is noted of each.
//!
//! A segment's table names entries that records behind it may bring, in any order, or never. What is not known
//! takes no memory and no time here, so that neither depends on what a table claims. A log that is being written
//! knows all of its entries: they lie in one row, and reaching one costs a subtraction.
//!
//! Invariant: what is in `early` lies before `first`, unless `row` is empty.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::Range;

use crate::types::LogIndex;

/// Values by index. The default knows none.
#[derive(Clone, Debug)]
pub(super) struct Known<T> {
    /// Those that came after later ones were named: alone, or with gaps between them.
    early: BTreeMap<LogIndex, T>,
    /// The index of the first in `row`.
    first: LogIndex,
    /// Those appended, without a gap.
    row: VecDeque<T>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { early: BTreeMap::new(), first: LogIndex(0), row: VecDeque::new() }
    }
}

impl<T> Known<T> {
    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.early.len() + self.row.len()
    }

    /// The value at `index`, if it is known.
    pub(super) fn get(&self, index: LogIndex) -> Option<&T> {
        match self.position(index) {
            Some(at) => self.row.get(at),
            None => self.early.get(&index),
        }
    }

    /// Those known in a range, in order.
    pub(super) fn range(&self, range: Range<LogIndex>) -> impl Iterator<Item = &T> {
        let at = |index| self.position(index).unwrap_or(0).min(self.row.len());
        let row = at(range.start)..at(range.end);
        self.early.range(range).map(|(_, it)| it).chain(self.row.range(row))
    }

    /// Put `value` at `index`, behind which nothing is known any more, and before which nothing is missing
    /// that was appended.
    pub(super) fn push(&mut self, index: LogIndex, value: T) {
        self.truncate(index);
        if self.row.is_empty() {
            self.first = index;
        }
        self.row.push_back(value);
        debug_assert_eq!(self.first.0 + self.row.len() as u64, index.next().0, "a gap was left");
    }

    /// Put `value` at `index`, which lies before something that was appended, or was named without being
    /// known. Returns what was known there.
    pub(super) fn set(&mut self, index: LogIndex, value: T) -> Option<T> {
        match self.position(index) {
            Some(at) => Some(std::mem::replace(&mut self.row[at], value)),
            None => self.early.insert(index, value),
        }
    }

    /// Forget what is at `index` and behind.
    pub(super) fn truncate(&mut self, index: LogIndex) {
        self.row.truncate(self.position(index).unwrap_or(0));
        while self.early.last_key_value().is_some_and(|(last, _)| index <= *last) {
            self.early.pop_last();
        }
    }

    /// Forget what is before `index`.
    pub(super) fn remove_before(&mut self, index: LogIndex) {
        if let Some(at) = self.position(index) {
            self.row.drain(..at.min(self.row.len()));
            self.first = index;
        }
        while self.early.first_key_value().is_some_and(|(first, _)| *first < index) {
            self.early.pop_first();
        }
    }

    /// Forget all.
    pub(super) fn clear(&mut self) {
        self.early.clear();
        self.row.clear();
    }

    /// Lay all in one row; for who has seen that none is missing between the first and the last.
    pub(super) fn close_ranks(&mut self) {
        let Some((first, _)) = self.early.first_key_value() else { return };
        self.first = *first;
        let mut all: VecDeque<T> = std::mem::take(&mut self.early).into_values().collect();
        all.append(&mut self.row);
        self.row = all;
    }

    /// All that are known, in order.
    pub(super) fn into_values(self) -> Vec<T> {
        self.early.into_values().chain(self.row).collect()
    }

    /// Where in the row `index` is, or would be; `None` before it, or if there is none.
    fn position(&self, index: LogIndex) -> Option<usize> {
        let at = index.0.checked_sub(self.first.0).filter(|_| !self.row.is_empty())?;
        Some(usize::try_from(at).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_known_is_that_of_a_plain_map(
            steps in prop::collection::vec((0..6_u8, 1..30_u64), 0..60),
        ) {
            let mut known = Known::default();
            let mut model = BTreeMap::new();
            let mut next = 20; // nineteen are named, and unknown
            for (n, (what, pick)) in steps.into_iter().enumerate() {
                let index = LogIndex(pick.min(next));
                match what {
                    0..=2 => {
                        let index = if what == 0 { index } else { LogIndex(next) };
                        known.push(index, n);
                        model.split_off(&index);
                        model.insert(index, n);
                        next = index.0 + 1;
                    }
                    3 if index.0 < next => {
                        prop_assert_eq!(known.set(index, n), model.insert(index, n));
                    }
                    4 => {
                        known.remove_before(index);
                        model = model.split_off(&index);
                    }
                    5 => {
                        known.truncate(index);
                        model.split_off(&index);
                        next = index.0;
                    }
                    _ => {}
                }
                for index in (0..70).map(LogIndex) {
                    prop_assert_eq!(known.get(index), model.get(&index));
                }
                let range = LogIndex(5)..LogIndex(25);
                prop_assert!(known.range(range.clone()).eq(model.range(range).map(|it| it.1)));
                prop_assert_eq!(known.len(), model.len());
            }
            prop_assert!(known.into_values().into_iter().eq(model.into_values()));
        }
    }

    #[test]
    fn closed_ranks_know_the_same() {
        let mut known = Known::default();
        for index in [2, 3, 1] {
            known.set(LogIndex(index), index);
        }
        known.push(LogIndex(4), 4);
        known.close_ranks();
        assert_eq!(known.row, [1, 2, 3, 4]);
        assert_eq!(known.get(LogIndex(3)), Some(&3));
        known.remove_before(LogIndex(4));
        assert_eq!(known.into_values(), [4]);
    }
}
