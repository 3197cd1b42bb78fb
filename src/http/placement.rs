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

use crate::http::ServedBy;
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

    /// A request was served, by this core if nobody else is named.
    pub(super) fn on_served(&self, by: Option<ServedBy>) {
        let streak = match (by, self.streak.get()) {
            (None, _) => None,
            (Some(ServedBy::Nobody), before) => before,
            (Some(ServedBy::Core(core)), Some((same, n))) if same == core => {
                Some((core, n.saturating_add(1)))
            }
            (Some(ServedBy::Core(core)), _) => Some((core, 1)),
        };
        self.streak.set(streak);
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
    others: RefCell<FxHashMap<ShardId, u64>>,
    /// What the others were told of this core.
    told: Cell<u64>,
    /// Connections it has taken over since. Those who gave them count them as long as they hear nothing, also when they
    /// have ended.
    n_taken: Cell<u64>,
}

impl Crowd {
    /// Nobody has any. There are `n_cores`.
    pub(super) fn new(n_cores: usize) -> Self {
        let (told, n_taken) = (Cell::new(0), Cell::new(0));
        Self { n_cores: n_cores as u64, others: RefCell::default(), told, n_taken }
    }

    /// Another core says how many it has.
    pub(super) fn on_told(&self, core: ShardId, n_open: u64) {
        self.others.borrow_mut().insert(core, n_open);
    }

    /// This core takes over a connection of another.
    pub(super) fn on_taken_over(&self) {
        self.n_taken.set(self.n_taken.get() + 1);
    }

    /// Whether the others should be told that this core has `n_open` now; if so, they are taken to have been.
    pub(super) fn should_tell(&self, n_open: u64) -> bool {
        let told = self.told.get();
        let change = n_open.abs_diff(told).max(self.n_taken.get());
        let is_news = change >= CHANGE_MIN.max(told / 8);
        if is_news {
            self.told.set(n_open);
            self.n_taken.set(0);
        }
        is_news
    }

    /// Take a place at `core` for one of the `n_open` connections here, if it may have one more.
    pub(super) fn take_place(&self, core: ShardId, n_open: u64) -> bool {
        let mut others = self.others.borrow_mut();
        let n_all = n_open + others.values().sum::<u64>();
        let there = others.entry(core).or_default();
        let may = n_all * 3 / (self.n_cores * 2) + SLACK;
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
        let serve =
            |core, n| (0..n).for_each(|_| habit.on_served(Some(ServedBy::Core(ShardId(core)))));
        serve(1, 3);
        assert_eq!(habit.better_place(), None);
        serve(2, 3);
        habit.on_served(None);
        serve(2, 3);
        assert_eq!(habit.better_place(), None, "not in a row");
        habit.on_served(Some(ServedBy::Nobody));
        serve(2, 1);
        assert_eq!(habit.better_place(), Some(ShardId(2)));
        for (n_moves, needed) in [(1, 8), (3, 32), (10, 4096), (u32::MAX, 4096)] {
            let habit = Habit::of_moved(n_moves);
            for n in 0..needed {
                assert_eq!(habit.better_place(), None, "after {n_moves} moves and {n} requests");
                habit.on_served(Some(ServedBy::Core(HERE)));
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
            let crowds: Vec<_> = (0..n_cores).map(|_| Crowd::new(n_cores)).collect();
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
                open[at] += 1;
                tell(&open);
            }
            let n_all: u64 = open.iter().sum();
            for _ in 0..2_000 {
                let from = below(n_cores);
                let to = below(2) % n_cores;
                let core = ShardId(u16::try_from(to).unwrap());
                if from != to && open[from] > 0 && crowds[from].take_place(core, open[from]) {
                    open[from] -= 1;
                    open[to] += 1;
                    crowds[to].on_taken_over();
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

    /// As many connections end at the core that all want to be at as move there, so that its number stays.
    #[test]
    fn connections_move_on_while_others_end() {
        let crowds = [Crowd::new(2), Crowd::new(2)];
        for n in [40_u64, 400] {
            let mut open = [n, n];
            let tell = |open: &[u64; 2]| {
                for (from, to) in [(0, 1), (1, 0)] {
                    if crowds[from].should_tell(open[from]) {
                        let core = ShardId(u16::try_from(from).unwrap());
                        crowds[to].on_told(core, open[from]);
                    }
                }
            };
            tell(&open);
            let mut n_moved = 0;
            for _ in 0..2_000 {
                if crowds[0].take_place(ShardId(1), open[0]) {
                    n_moved += 1;
                    open[0] -= 1;
                    crowds[1].on_taken_over();
                    open[1] += 1;
                    tell(&open);
                    open[1] -= 1;
                    open[0] += 1;
                    tell(&open);
                }
            }
            assert_eq!(n_moved, 2_000, "with {n} at each");
        }
    }

    #[test]
    fn others_hear_of_changes_that_matter() {
        let crowd = Crowd::new(2);
        let told: Vec<_> = (0..100).filter(|n| crowd.should_tell(*n)).collect();
        assert_eq!(told[..8], [4, 8, 12, 16, 20, 24, 28, 32]);
        assert!(told.len() < 20, "{told:?}");
        assert!(crowd.should_tell(0));
        assert!(!crowd.should_tell(3));
    }
}
