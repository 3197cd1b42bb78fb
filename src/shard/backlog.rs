//! Commands that wait for their place in the log, a line for each database: they leave in turn rather than in the
//! order in which they came, so that who sends thousands waits behind himself.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995): at each visit a line gains [`limits::TURN_BYTES`] of credit,
//! and whoever is first in it leaves if the credit covers what he costs. A command costs its bytes, and
//! [`limits::COMMAND_COST`] besides, since the smallest is work as well. A line alone needs no credit.
//!
//! So between two visits to a line, each other line lets go of commands for `TURN_BYTES` at most, or, once it has
//! saved for it, of one that is larger.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use crate::limits;
use crate::types::Incarnation;

/// One database's line.
#[derive(Debug)]
struct Line<T> {
    /// What waits, and what it costs.
    items: VecDeque<(T, usize)>,
    credit: usize,
}

/// All lines of a partition.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    lines: BTreeMap<Incarnation, Line<T>>,
    /// Whose turn it is; each line that has something stands here once.
    turns: VecDeque<Incarnation>,
    n: usize,
}

impl<T> Backlog<T> {
    pub(super) fn new() -> Self {
        Self { lines: BTreeMap::new(), turns: VecDeque::new(), n: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n == 0
    }

    pub(super) fn len(&self) -> usize {
        self.n
    }

    /// Stand at the end of the line of `database`.
    pub(super) fn push(&mut self, database: Incarnation, bytes: usize, item: T) {
        let new = || Line { items: VecDeque::new(), credit: limits::TURN_BYTES };
        let line = self.lines.entry(database).or_insert_with(new);
        if line.items.is_empty() {
            self.turns.push_back(database);
        }
        line.items.push_back((item, bytes + limits::COMMAND_COST));
        self.n += 1;
    }

    /// Whoever leaves next.
    pub(super) fn pop(&mut self) -> Option<(Incarnation, T)> {
        loop {
            let is_alone = self.turns.len() == 1;
            let database = *self.turns.front()?;
            let line = self.lines.get_mut(&database).expect("who has a turn has a line");
            let (_, cost) = line.items.front().expect("a line with a turn has something");
            if !is_alone && *cost > line.credit {
                line.credit += limits::TURN_BYTES;
                self.turns.rotate_left(1);
                continue;
            }
            line.credit = line.credit.saturating_sub(*cost);
            let (item, _) = line.items.pop_front().expect("it was there a moment ago");
            if line.items.is_empty() {
                self.lines.remove(&database);
                self.turns.pop_front();
            }
            self.n -= 1;
            return Some((database, item));
        }
    }

    /// All that waits for `database`; nothing does any more.
    pub(super) fn take(&mut self, database: Incarnation) -> Vec<T> {
        let Some(line) = self.lines.remove(&database) else { return Vec::new() };
        self.turns.retain(|it| *it != database);
        self.n -= line.items.len();
        line.items.into_iter().map(|(item, _)| item).collect()
    }

    /// Let those at the heads of the lines go for whom `is_late` holds, in the order of the lines.
    pub(super) fn drop_late(&mut self, is_late: impl Fn(&T) -> bool) -> Vec<(Incarnation, T)> {
        let mut late = Vec::new();
        for (database, line) in &mut self.lines {
            while let Some((item, _)) = line.items.pop_front_if(|(it, _)| is_late(it)) {
                late.push((*database, item));
            }
        }
        self.n -= late.len();
        self.lines.retain(|_, line| !line.items.is_empty());
        self.turns.retain(|it| self.lines.contains_key(it));
        late
    }

    /// The first of each line.
    pub(super) fn heads(&self) -> impl Iterator<Item = &T> {
        self.lines.values().filter_map(|it| it.items.front()).map(|(item, _)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISY: Incarnation = Incarnation(1);
    const QUIET: Incarnation = Incarnation(2);
    const THIRD: Incarnation = Incarnation(3);

    fn drain(backlog: &mut Backlog<u32>) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| backlog.pop()).map(|(database, item)| (database.0, item)).collect()
    }

    #[test]
    fn one_line_is_first_come_first_served() {
        let mut backlog = Backlog::new();
        for n in 0..5 {
            backlog.push(NOISY, 20 << 20, n);
        }
        assert_eq!(backlog.len(), 5);
        assert_eq!(drain(&mut backlog), [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]);
        assert!(backlog.is_empty() && backlog.lines.is_empty() && backlog.turns.is_empty());
    }

    #[test]
    fn who_comes_late_waits_for_a_turn_of_the_others_and_no_more() {
        let mut backlog = Backlog::new();
        for n in 0..8_000 {
            backlog.push(NOISY, 100, n);
            backlog.push(THIRD, 100, n);
        }
        backlog.push(QUIET, 100, 0);
        let at = drain(&mut backlog).iter().position(|it| it.0 == QUIET.0).unwrap();
        let turn = limits::TURN_BYTES / (100 + limits::COMMAND_COST);
        assert!(at <= 2 * (turn + 1), "{at} others were served first");
        assert!(at > 2, "a turn is more than one command");
    }

    #[test]
    fn large_commands_and_small_ones_have_the_same_bytes() {
        let mut backlog = Backlog::new();
        let (large, small) = (limits::TURN_BYTES * 3, 1_000);
        for n in 0..10 {
            backlog.push(NOISY, large, n);
        }
        for n in 0..10_000 {
            backlog.push(QUIET, small, n);
        }
        let mut served = [0; 3];
        for _ in 0..1_000 {
            let (database, _) = backlog.pop().unwrap();
            let bytes = if database == NOISY { large } else { small } + limits::COMMAND_COST;
            served[usize::try_from(database.0).unwrap()] += bytes;
        }
        let [_, noisy, quiet] = served;
        assert!(noisy.abs_diff(quiet) <= large + limits::TURN_BYTES, "{noisy} and {quiet}");
    }

    #[test]
    fn what_is_late_or_not_wanted_leaves_the_line() {
        let mut backlog = Backlog::new();
        for n in 0..4 {
            backlog.push(NOISY, 1, n);
            backlog.push(QUIET, 1, n + 2);
        }
        assert_eq!(backlog.heads().copied().collect::<Vec<_>>(), [0, 2]);
        let late = backlog.drop_late(|it| *it < 3);
        assert_eq!(late, [(NOISY, 0), (NOISY, 1), (NOISY, 2), (QUIET, 2)]);
        assert_eq!(backlog.take(QUIET), [3, 4, 5]);
        assert_eq!(drain(&mut backlog), [(1, 3)]);
        assert_eq!(backlog.take(QUIET), [0; 0]);
    }
}
