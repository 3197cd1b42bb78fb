//! Lines of those who wait, one for each whom they belong to, served in turns.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Empty lines that are kept.
const SPARE_MAX: usize = 16;

/// Lines of `T`, by `K`. Bounded by who puts something there.
#[derive(Debug)]
pub struct Lines<K, T> {
    /// None of them is empty.
    waiting: FxHashMap<K, VecDeque<T>>,
    /// Each line once, the next first.
    turns: VecDeque<K>,
    /// Empty lines, for their memory.
    spare: Vec<VecDeque<T>>,
}

impl<K, T> Default for Lines<K, T> {
    fn default() -> Self {
        Self { waiting: FxHashMap::default(), turns: VecDeque::new(), spare: Vec::new() }
    }
}

impl<K: Copy + Eq + Hash, T> Lines<K, T> {
    /// Put `it` at the end of the line of `of`.
    pub fn push(&mut self, of: K, it: T) {
        let line = self.waiting.entry(of).or_insert_with(|| {
            self.turns.push_back(of);
            self.spare.pop().unwrap_or_default()
        });
        line.push_back(it);
    }

    /// The first of the line whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let of = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&of)?;
        let first = line.pop_front();
        if line.is_empty() {
            let empty = self.waiting.remove(&of);
            if self.spare.len() < SPARE_MAX {
                self.spare.extend(empty);
            }
        } else {
            self.turns.push_back(of);
        }
        first
    }

    /// How many lines there are.
    pub fn n_lines(&self) -> usize {
        self.turns.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_and_keeps_its_order() {
        let mut lines = Lines::default();
        for (of, it) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            lines.push(of, it);
        }
        let mut order = Vec::new();
        for _ in 0..3 {
            order.extend(lines.pop());
        }
        lines.push("c", 7);
        order.extend(std::iter::from_fn(|| lines.pop()));
        assert_eq!(order, [1, 4, 5, 2, 6, 7, 3]);
        assert!(lines.is_empty() && lines.waiting.is_empty());
    }
}
