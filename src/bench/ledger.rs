//! Which rows were sent into one namespace by one thread, and which of them were acknowledged.
//!
//! Threads take turns with ids, so that all insert at the end of the table: row `n` of a thread has the id
//! `first + n * stride`. An acknowledged row costs a bit.

use std::ops::Range;

/// The rows of one thread in one namespace.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    first: u64,
    stride: u64,
    /// Rows given out.
    n_given: u64,
    /// A bit for each, set if it was acknowledged.
    bits: Vec<u64>,
}

impl Ledger {
    /// No rows yet; the first one will have the id `first`, and `stride` threads share the ids.
    pub(super) fn new(first: u64, stride: u64) -> Self {
        assert!(first > 0, "ids begin with one");
        assert!(stride > 0, "somebody writes");
        Self { first, stride, n_given: 0, bits: Vec::new() }
    }

    /// The next `n` rows, which nobody has had before.
    pub(super) fn give(&mut self, n: u64) -> Range<u64> {
        let rows = self.n_given..self.n_given + n;
        self.n_given = rows.end;
        rows
    }

    /// The id of a row.
    pub(super) fn id(&self, row: u64) -> u64 {
        self.first + row * self.stride
    }

    /// The server has said that it has these.
    pub(super) fn acknowledge(&mut self, rows: Range<u64>) {
        assert!(rows.end <= self.n_given, "acknowledged what was never sent");
        let n_words = rows.end.div_ceil(64);
        if (self.bits.len() as u64) < n_words {
            self.bits.resize(index(n_words.next_power_of_two()), 0);
        }
        for row in rows {
            self.bits[index(row / 64)] |= 1 << (row % 64);
        }
    }

    /// Beyond the id of every row that was given out.
    pub(super) fn end(&self) -> u64 {
        if self.n_given == 0 { 1 } else { self.id(self.n_given - 1) + 1 }
    }

    /// The ids within a range that were given out, and whether each was acknowledged.
    pub(super) fn within(&self, ids: Range<u64>) -> impl Iterator<Item = (u64, bool)> {
        let row = |id: u64| id.saturating_sub(self.first).div_ceil(self.stride).min(self.n_given);
        (row(ids.start)..row(ids.end)).map(|row| (self.id(row), self.is_acknowledged(row)))
    }

    fn is_acknowledged(&self, row: u64) -> bool {
        self.bits.get(index(row / 64)).is_some_and(|it| it >> (row % 64) & 1 == 1)
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("it fits memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_turns_with_ids() {
        let mut first = Ledger::new(11, 2);
        let mut second = Ledger::new(12, 2);
        let ids = |it: &mut Ledger| it.give(3).map(|row| it.id(row)).collect::<Vec<_>>();
        assert_eq!(ids(&mut first), [11, 13, 15]);
        assert_eq!(ids(&mut second), [12, 14, 16]);
        assert_eq!(ids(&mut first), [17, 19, 21]);
        assert_eq!((first.end(), second.end()), (22, 17));
        assert_eq!(Ledger::new(5, 1).end(), 1);
    }

    #[test]
    fn it_remembers_what_was_acknowledged() {
        let mut ledger = Ledger::new(3, 2);
        let rows = ledger.give(200);
        assert_eq!(rows, 0..200);
        ledger.acknowledge(0..1);
        ledger.acknowledge(62..66);
        ledger.acknowledge(199..200);
        let acknowledged: Vec<u64> =
            ledger.within(0..1_000).filter_map(|(id, it)| it.then_some(id)).collect();
        assert_eq!(acknowledged, [3, 127, 129, 131, 133, 401]);
        assert_eq!(ledger.within(0..1_000).count(), 200);
        let some: Vec<_> = ledger.within(4..9).collect();
        assert_eq!(some, [(5, false), (7, false)]);
        assert_eq!(ledger.within(0..3).count() + ledger.within(402..500).count(), 0);
    }
}
