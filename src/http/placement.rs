//! Which connections move to the core that serves their requests, and when they stay.
//!
//! A request of a connection that was accepted by another core crosses twice. So a connection whose requests one other
//! core has served several times in a row moves there, between two requests. Two things hold it back: a core takes
//! no more connections than somewhat above the average, so that the cores share the work of HTTP even if one of them
//! serves everything; and with each move it takes longer until the next, so that a connection which changes its mind
//! does not wander.

use std::cell::Cell;
use std::cell::RefCell;

use rustc_hash::FxHashMap;

use crate::types::ShardId;

/// Requests in a row after which a connection that has never moved does.
const STREAK: u32 = 4;
/// Each move doubles the streak that the next one takes, this often.
const DOUBLINGS_MAX: u32 = 10;
/// Connections that a core may have beyond half as many again as the average.
const SLACK: u64 = 8;
/// What others are told of changes by less than this, and by less than an eighth: nothing.
const CHANGE_MIN: u64 = 4;

/// Where the requests of one connection were served.
#[derive(Debug, Default)]
pub(super) struct Habit {
    /// Another core, and how many in a row it served.
    streak: Cell<Option<(ShardId, u32)>>,
    n_moves: Cell<u32>,
}

impl Habit {
    /// That of a connection which has moved this often.
    pub(super) fn of_moved(n_moves: u32) -> Self {
        Self { streak: Cell::new(None), n_moves: Cell::new(n_moves) }
    }

    /// How often it has moved.
    pub(super) fn n_moves(&self) -> u32 {
        self.n_moves.get()
    }

    /// A request was served, by this core or another.
    pub(super) fn on_served(&self, elsewhere: Option<ShardId>) {
        let before = self.streak.get();
        self.streak.set(elsewhere.map(|core| match before {
            Some((same, n)) if same == core => (core, n.saturating_add(1)),
            _ => (core, 1),
        }));
    }

    /// The core that it had better be at.
    pub(super) fn better_place(&self) -> Option<ShardId> {
        let needed = STREAK << self.n_moves.get().min(DOUBLINGS_MAX);
        self.streak.get().filter(|(_, n)| *n >= needed).map(|(core, _)| core)
    }
}

/// How many connections each core has, as far as is known here.
#[derive(Debug)]
pub(super) struct Crowd {
    n_cores: u64,
    /// Connections that one core may have.
    max: u64,
    others: RefCell<FxHashMap<ShardId, u64>>,
    /// What the others were told of this core.
    told: Cell<u64>,
}

impl Crowd {
    /// Nobody has any. There are `n_cores`, which may have `max` each.
    pub(super) fn new(n_cores: usize, max: usize) -> Self {
        Self {
            n_cores: n_cores as u64,
            max: max as u64,
            others: RefCell::default(),
            told: Cell::new(0),
        }
    }

    /// Another core says how many it has.
    pub(super) fn on_told(&self, core: ShardId, n_open: u64) {
        self.others.borrow_mut().insert(core, n_open);
    }

    /// Whether the others should be told that this core has `n_open` now; if so, they are taken to have been.
    pub(super) fn should_tell(&self, n_open: u64) -> bool {
        let told = self.told.get();
        let is_news = n_open.abs_diff(told) >= CHANGE_MIN.max(told / 8);
        if is_news {
            self.told.set(n_open);
        }
        is_news
    }

    /// Take a place at `core` for one of the `n_open` connections here, if it may have one more.
    pub(super) fn take_place(&self, core: ShardId, n_open: u64) -> bool {
        let mut others = self.others.borrow_mut();
        let n_all = n_open + others.values().sum::<u64>();
        let there = others.entry(core).or_default();
        // What others have may be old news by an eighth.
        let may = (n_all * 3 / (self.n_cores * 2) + SLACK).min(self.max - self.max / 8);
        let has_room = *there < may;
        if has_room {
            // Until it says so itself.
            *there += 1;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Dice;

    const HERE: ShardId = ShardId(0);

    #[test]
    fn a_connection_moves_after_a_streak_and_ever_more_slowly() {
        let habit = Habit::default();
        let serve = |core, n| (0..n).for_each(|_| habit.on_served(Some(ShardId(core))));
        serve(1, 3);
        assert_eq!(habit.better_place(), None);
        serve(2, 3);
        habit.on_served(None);
        serve(2, 3);
        assert_eq!(habit.better_place(), None, "not in a row");
        serve(2, 1);
        assert_eq!(habit.better_place(), Some(ShardId(2)));
        for (n_moves, needed) in [(1, 8), (3, 32), (10, 4096), (u32::MAX, 4096)] {
            let habit = Habit::of_moved(n_moves);
            for n in 0..needed {
                assert_eq!(habit.better_place(), None, "after {n_moves} moves and {n} requests");
                habit.on_served(Some(HERE));
            }
            assert_eq!(habit.better_place(), Some(HERE), "after {n_moves} moves");
        }
    }

    /// Cores that hear of one another late; connections that all want to be at one of them, or two.
    #[test]
    fn no_core_is_crowded_beyond_its_bound() {
        let mut dice = Dice::new(7);
        let mut below = |n: usize| usize::try_from(dice.below(n as u64)).unwrap();
        for _ in 0..300 {
            let n_cores = 1 + below(8);
            let max = 64 + below(1_000);
            let crowds: Vec<_> = (0..n_cores).map(|_| Crowd::new(n_cores, max)).collect();
            let mut open = vec![0_u64; n_cores];
            let tell = |open: &[u64]| {
                for (from, n_open) in open.iter().enumerate() {
                    if crowds[from].should_tell(*n_open) {
                        let from_id = ShardId(u16::try_from(from).unwrap());
                        for (to, crowd) in crowds.iter().enumerate() {
                            if to != from {
                                crowd.on_told(from_id, *n_open);
                            }
                        }
                    }
                }
            };
            for _ in 0..below(400) {
                let at = below(n_cores);
                if open[at] < max as u64 {
                    open[at] += 1;
                    tell(&open);
                }
            }
            let n_all: u64 = open.iter().sum();
            for _ in 0..2_000 {
                let from = below(n_cores);
                let to = below(2) % n_cores;
                let core = ShardId(u16::try_from(to).unwrap());
                if from != to && open[from] > 0 && crowds[from].take_place(core, open[from]) {
                    open[from] -= 1;
                    open[to] += 1;
                    if below(4) == 0 {
                        tell(&open);
                    }
                }
            }
            // As it would be if all were known, and what eight cores may not know of one another.
            let bound = n_all * 3 / (2 * n_cores as u64) + SLACK;
            let unknown = n_cores as u64 * CHANGE_MIN + bound / 4;
            for n_open in &open {
                assert!(*n_open <= bound + unknown, "{open:?} of {n_all}, bound {bound}");
            }
        }
    }

    #[test]
    fn others_hear_of_changes_that_matter() {
        let crowd = Crowd::new(2, 1_000);
        let told: Vec<_> = (0..100).filter(|n| crowd.should_tell(*n)).collect();
        assert_eq!(told[..8], [4, 8, 12, 16, 20, 24, 28, 32]);
        assert!(told.len() < 20, "{told:?}");
        assert!(crowd.should_tell(0));
        assert!(!crowd.should_tell(3));
    }
}
