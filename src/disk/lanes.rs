//! What waits for a shard's threads for long commands, and which command gives way to others (R13).
//!
//! ```text
//! fresh ──a thread──► running ──ends
//!                       │ a command has had 2 s, and somebody waits
//!                       ├──there is a place for one that is very long──► keeps its thread until the command ends
//!                       └──there is none──► given up ──► very long, waits for a place ──► runs until it ends
//! ```
//!
//! A command may take half an hour within its limits (decision 0012). A few of those, each of a namespace of its own,
//! would keep the threads from everybody else's long commands meanwhile. So the very long ones have a part of the threads
//! ([`limits::SQL_THREADS_VERY_LONG`]), first come, first served, and whoever waits for the other threads waits for at most
//! two times [`limits::GIVE_WAY_TIME`] for each round of those before it. What a command that is given up did so far is lost.
//! It is given up once, or twice if it came behind others that stay done. Which commands those are differs between
//! replicas, and shows nowhere else: one that was given up has not happened.
//!
//! A task is a batch of commands. Between two of them it gives way without losing anything, so that no long row of short
//! commands counts as very long, and none keeps a place for more than one long command.
//!
//! Invariants
//! - At most [`limits::SQL_THREADS_VERY_LONG`] tasks run that do not give way.
//! - Whoever waits as very long has a place before any that runs becomes very long.

#![expect(
    clippy::disallowed_types,
    reason = "threads that take long share what waits; cores only put it there"
)]

use std::collections::VecDeque;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::limits;
use crate::types::Instant;

/// What one thread has at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// It gives way after a while.
    Fresh,
    /// It runs until it ends.
    VeryLong,
}

#[derive(Debug)]
struct State<T> {
    fresh: VecDeque<T>,
    very_long: VecDeque<T>,
    /// Of those that run as fresh: number and beginning, oldest first.
    running: VecDeque<(u64, Instant)>,
    /// Those that run and are on their way out, so that a thread is free for one that waits.
    n_giving_way: usize,
    n_very_long: usize,
    /// Threads that have no task: they wait for one, or are about to take one.
    n_idle: usize,
    next: u64,
    is_closed: bool,
}

/// Tasks for a few threads.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    state: Mutex<State<T>>,
    came: Condvar,
    /// Tasks that a thread is wanted for, for whoever runs and has no time for the lock.
    n_wanting: AtomicUsize,
    n_given_up: AtomicU64,
}

impl<T> Lanes<T> {
    /// None yet, for so many threads, each of which takes one task after another.
    pub(super) fn new(n_threads: usize) -> Self {
        let state = State {
            fresh: VecDeque::new(),
            very_long: VecDeque::new(),
            running: VecDeque::new(),
            n_giving_way: 0,
            n_very_long: 0,
            n_idle: n_threads,
            next: 0,
            is_closed: false,
        };
        Self {
            state: Mutex::new(state),
            came: Condvar::new(),
            n_wanting: AtomicUsize::new(0),
            n_given_up: AtomicU64::new(0),
        }
    }

    /// A new task.
    pub(super) fn push(&self, task: T) {
        let mut state = self.state();
        state.fresh.push_back(task);
        self.note(&state);
        drop(state);
        self.came.notify_one();
    }

    /// No more tasks come, and those that wait are not begun.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.came.notify_all();
    }

    /// How many tasks were given up so far, for others.
    pub(super) fn n_given_up(&self) -> u64 {
        self.n_given_up.load(Ordering::Relaxed)
    }

    /// The next task for the calling thread, as soon as there is one; none if no more come. `now` is the time when it
    /// begins.
    pub(super) fn take(&self, now: impl Fn() -> Instant) -> Option<(T, Turn<'_, T>)> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                return None;
            }
            let (task, lane) = if state.has_place() && !state.very_long.is_empty() {
                (state.very_long.pop_front(), Lane::VeryLong)
            } else {
                (state.fresh.pop_front(), Lane::Fresh)
            };
            let Some(task) = task else {
                state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (number, began) = (state.next, now());
            state.next += 1;
            state.n_idle -= 1;
            match lane {
                Lane::Fresh => state.running.push_back((number, began)),
                Lane::VeryLong => state.n_very_long += 1,
            }
            self.note(&state);
            drop(state);
            let turn = Turn {
                of: self,
                lane,
                number,
                began,
                command_began: began,
                n_begun: 0,
                gives_way: false,
            };
            return Some((task, turn));
        }
    }

    /// What waits, or who runs, has changed.
    fn note(&self, state: &State<T>) {
        self.n_wanting.store(state.n_wanting(), Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Whoever panics with it ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Whether one more may run until it ends.
    fn has_place(&self) -> bool {
        self.n_places() > 0
    }

    /// How many more may.
    fn n_places(&self) -> usize {
        limits::SQL_THREADS_VERY_LONG.saturating_sub(self.n_very_long)
    }

    /// Tasks that a thread could begin if it were free, and for which none is or will be.
    fn n_wanting(&self) -> usize {
        let very_long = self.very_long.len().min(self.n_places());
        (self.fresh.len() + very_long).saturating_sub(self.n_giving_way + self.n_idle)
    }
}

/// A task that runs. Ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a, T> {
    of: &'a Lanes<T>,
    lane: Lane,
    number: u64,
    began: Instant,
    command_began: Instant,
    n_begun: u64,
    gives_way: bool,
}

impl<T> Turn<'_, T> {
    /// A command of the task begins. Whether it is to be left, with what is behind it, for others that wait.
    pub(super) fn must_stop(&mut self, now: impl Fn() -> Instant) -> bool {
        if self.gives_way {
            return true;
        }
        self.n_begun += 1;
        // A task has one at least, or it would come back as it was.
        let is_first = self.n_begun == 1;
        let before = std::mem::replace(&mut self.command_began, now());
        let since = match self.lane {
            Lane::Fresh => self.began,
            // A place is for one that is long, and for what comes before it.
            Lane::VeryLong => before,
        };
        if is_first || self.command_began.since(since) <= limits::GIVE_WAY_TIME {
            return false;
        }
        let mut state = self.of.state();
        let is_wanted = match self.lane {
            Lane::Fresh => state.n_wanting() > 0,
            Lane::VeryLong => !state.very_long.is_empty() || state.n_wanting() > 0,
        };
        if is_wanted {
            self.give_way(&mut state);
        }
        is_wanted
    }

    /// Whether the command at hand is to be given up, for others that wait: then it is, whoever asks again. Costs little
    /// while no thread is wanted.
    pub(super) fn must_give_way(&mut self, now: impl Fn() -> Instant) -> bool {
        if self.gives_way {
            return true;
        }
        if self.lane == Lane::VeryLong || self.of.n_wanting.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let now = now();
        now.since(self.command_began) > limits::GIVE_WAY_TIME && self.decide(now)
    }

    fn decide(&mut self, now: Instant) -> bool {
        let mut state = self.of.state();
        if state.n_wanting() == 0 {
            return false;
        }
        if state.has_place() && state.very_long.is_empty() {
            state.n_very_long += 1;
            state.running.retain(|(it, _)| *it != self.number);
            self.lane = Lane::VeryLong;
            self.of.note(&state);
            return false;
        }
        // Of those that have had their time, the one that loses least.
        if let Some(own) = state.running.iter_mut().find(|(it, _)| *it == self.number) {
            own.1 = self.command_began;
        }
        let has_had_it = |began: Instant| now.since(began) > limits::GIVE_WAY_TIME;
        let last = state.running.iter().rev().find(|(_, began)| has_had_it(*began));
        if last.is_none_or(|(it, _)| *it != self.number) {
            return false;
        }
        self.of.n_given_up.fetch_add(1, Ordering::Relaxed);
        self.give_way(&mut state);
        true
    }

    fn give_way(&mut self, state: &mut State<T>) {
        self.gives_way = true;
        state.n_giving_way += 1;
        if self.lane == Lane::Fresh {
            state.running.retain(|(it, _)| *it != self.number);
        }
        self.of.note(state);
    }

    /// Whether it has a place, and does not give way.
    #[cfg(test)]
    pub(super) fn is_very_long(&self) -> bool {
        self.lane == Lane::VeryLong
    }

    /// The task was given up, and nothing of it has happened: it waits for a place among the very long ones.
    pub(super) fn wait_for_place(self, task: T) {
        self.of.state().very_long.push_back(task);
        // The thread that comes back takes it, or somebody else does.
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let mut state = self.of.state();
        match self.lane {
            Lane::VeryLong => state.n_very_long -= 1,
            Lane::Fresh => state.running.retain(|(it, _)| *it != self.number),
        }
        state.n_giving_way -= usize::from(self.gives_way);
        state.n_idle += 1;
        self.of.note(&state);
        // Another thread may sleep that could begin one that waited for this place.
        if !state.very_long.is_empty() {
            self.of.came.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;
    use crate::types::Dice;

    /// As many as there are threads.
    const N: usize = limits::SQL_THREADS;
    const PLACES: usize = limits::SQL_THREADS_VERY_LONG;

    struct Threads<'a> {
        lanes: &'a Lanes<u64>,
        now: Cell<Instant>,
        running: Vec<(u64, Turn<'a, u64>)>,
    }

    impl<'a> Threads<'a> {
        fn new(lanes: &'a Lanes<u64>) -> Self {
            Self { lanes, now: Cell::new(Instant::START), running: Vec::new() }
        }

        fn pass(&self, time: Duration) {
            self.now.set(self.now.get().after(time));
        }

        /// Threads that are free take what there is.
        fn fill(&mut self) {
            while self.running.len() < N && self.has_next() {
                let taken = self.lanes.take(|| self.now.get()).unwrap();
                self.running.push(taken);
            }
        }

        fn has_next(&self) -> bool {
            let state = self.lanes.state();
            !state.fresh.is_empty() || (state.has_place() && !state.very_long.is_empty())
        }

        /// All that run are asked; who must, gives way. Returns who did.
        fn ask(&mut self) -> Vec<u64> {
            let mut gone = Vec::new();
            for (task, mut turn) in std::mem::take(&mut self.running) {
                if turn.must_give_way(|| self.now.get()) {
                    assert!(turn.must_give_way(|| self.now.get()), "once is for ever");
                    turn.wait_for_place(task);
                    gone.push(task);
                } else {
                    self.running.push((task, turn));
                }
            }
            gone
        }

        fn end(&mut self, task: u64) {
            self.running.retain(|(it, _)| *it != task);
        }

        fn tasks(&self) -> Vec<u64> {
            self.running.iter().map(|(it, _)| *it).collect()
        }
    }

    #[test]
    fn who_has_had_its_time_gives_way_if_somebody_waits_and_two_go_on() {
        let lanes = Lanes::new(N);
        let mut threads = Threads::new(&lanes);
        (0..4).for_each(|it| lanes.push(it));
        threads.fill();
        threads.pass(Duration::from_secs(1_000));
        assert!(threads.ask().is_empty(), "nobody waits");
        lanes.push(4);
        threads.fill();
        assert_eq!(threads.ask(), [3], "one is enough, the one that loses least");
        threads.fill();
        assert_eq!(threads.tasks(), [0, 1, 2, 4]);
        // It waits for a place, not for a thread.
        threads.end(4);
        threads.fill();
        assert_eq!(threads.tasks(), [0, 1, 2]);
        threads.end(0);
        threads.fill();
        assert_eq!(threads.tasks(), [1, 2, 3]);
        // That one is not given up again, nor the other that has a place; the third is, for all that it loses.
        threads.pass(Duration::from_secs(1_000));
        lanes.push(5);
        threads.fill();
        lanes.push(6);
        assert_eq!(threads.ask(), [2], "the youngest has not had its time");
        threads.fill();
        lanes.push(7);
        threads.pass(limits::GIVE_WAY_TIME * 2);
        assert_eq!(threads.ask(), [6]);
        assert_eq!(lanes.n_given_up(), 3);
    }

    #[test]
    fn nobody_gives_way_for_whom_a_thread_is_about_to_take() {
        let lanes = Lanes::new(N);
        let mut threads = Threads::new(&lanes);
        (0..4).for_each(|it| lanes.push(it));
        threads.fill();
        threads.pass(limits::GIVE_WAY_TIME * 2);
        (4..6).for_each(|it| lanes.push(it));
        assert_eq!(threads.ask(), [3]);
        assert_eq!(threads.ask(), [2]);
        threads.fill();
        assert_eq!(threads.tasks(), [0, 1, 4, 5]);
        threads.pass(limits::GIVE_WAY_TIME * 2);
        assert!(threads.ask().is_empty(), "two wait, but for no thread");
        // A place is free, and its thread not yet back.
        threads.end(0);
        assert!(threads.ask().is_empty(), "it takes one of them");
        threads.fill();
        assert_eq!(threads.tasks(), [1, 4, 5, 3]);
        assert!(threads.ask().is_empty(), "there is no place for the other");
    }

    #[test]
    fn whoever_comes_has_a_thread_within_the_time_of_those_before_and_nobody_is_given_up_twice() {
        for seed in 0..200 {
            let mut dice = Dice::new(seed);
            let lanes = Lanes::new(N);
            let mut threads = Threads::new(&lanes);
            // The first so many never end by themselves, until the end.
            let n_endless = 1 + dice.below(8);
            (0..n_endless).for_each(|it| lanes.push(it));
            let mut given_up = Vec::new();
            let tick = limits::GIVE_WAY_TIME / 4;
            for task in 100..160 {
                lanes.push(task);
                let mut n_ticks = 0;
                while !threads.tasks().contains(&task) {
                    threads.fill();
                    threads.pass(tick);
                    given_up.extend(threads.ask());
                    threads.fill();
                    n_ticks += 1;
                    assert!(n_ticks <= 5 * (1 + n_endless / 2), "seed {seed}: {task} waits");
                }
                let n_very_long = lanes.state().n_very_long;
                assert!(n_very_long <= PLACES && threads.running.len() <= N);
                if dice.below(5) > 0 {
                    threads.end(task);
                }
            }
            // In the end each ends, one at a time, and whoever waits has its turn.
            let mut ended = Vec::new();
            threads.fill();
            while let Some(task) = threads.tasks().first().copied() {
                ended.push(task);
                threads.end(task);
                threads.fill();
            }
            assert!((0..n_endless).all(|it| ended.contains(&it)), "seed {seed}");
            given_up.sort_unstable();
            assert!(given_up.windows(2).all(|it| it[0] < it[1]), "seed {seed}: {given_up:?}");
            let state = lanes.state();
            assert!(
                state.fresh.is_empty() && state.very_long.is_empty() && state.running.is_empty()
            );
            assert_eq!((state.n_very_long, state.n_giving_way), (0, 0));
            assert_eq!(lanes.n_wanting.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_long_row_of_short_commands_gives_way_between_two_and_is_never_very_long() {
        let lanes = Lanes::new(N);
        let now = Cell::new(Instant::START);
        let step = || {
            now.set(now.get().after(limits::GIVE_WAY_TIME / 3));
            now.get()
        };
        (0..=N as u64).for_each(|it| lanes.push(it));
        let mut turns: Vec<_> = (0..N).map(|_| lanes.take(|| now.get()).unwrap().1).collect();
        // Ticks of commands, each of which is short, whatever all of them take.
        let mut turn = turns.remove(0);
        let mut n = 0;
        while !turn.must_stop(step) {
            assert!(!turn.must_give_way(|| now.get()), "none has had its time");
            n += 1;
        }
        assert_eq!(n, 3, "the task has");
        assert!(turn.must_stop(|| now.get()));
        assert_eq!(lanes.state().n_giving_way, 1);
        drop(turn);
        // Its thread takes the one that waited. Nobody waits now: the others go on.
        let (task, _last) = lanes.take(|| now.get()).unwrap();
        assert_eq!(task, N as u64);
        assert!((0..9).all(|_| !turns[0].must_stop(step)));
        assert_eq!(lanes.n_given_up(), 0);
    }

    #[test]
    fn a_place_is_kept_for_one_long_command() {
        let lanes = Lanes::new(N);
        let now = Cell::new(Instant::START);
        (0..7).for_each(|it| lanes.push(it));
        let mut turns: Vec<_> = (0..N).map(|_| lanes.take(|| now.get()).unwrap()).collect();
        for (_, turn) in &mut turns {
            assert!(!turn.must_stop(|| now.get()), "the first begins");
        }
        now.set(now.get().after(limits::GIVE_WAY_TIME * 2));
        let gone = |turns: &mut Vec<(u64, Turn<'_, u64>)>| {
            let asked = turns
                .iter_mut()
                .filter_map(|(task, turn)| turn.must_give_way(|| now.get()).then_some(*task));
            asked.collect::<Vec<_>>()
        };
        // The first two have a place; the last, and then the one before, make room.
        assert_eq!(gone(&mut turns), [3]);
        assert_eq!(gone(&mut turns), [2, 3]);
        for (task, turn) in turns.split_off(2) {
            turn.wait_for_place(task);
        }
        assert_eq!(lanes.n_given_up(), 2);
        // When its command has ended, one with a place leaves it, and the first of the given up has it.
        let (_, mut turn) = turns.remove(0);
        assert!(turn.must_stop(|| now.get()));
        drop(turn);
        assert_eq!(lanes.take(|| now.get()).unwrap().0, 2);
    }

    #[test]
    fn threads_end_when_no_more_comes() {
        let lanes = Lanes::<u64>::new(N);
        std::thread::scope(|scope| {
            for _ in 0..N {
                scope.spawn(|| while lanes.take(|| Instant::START).is_some() {});
            }
            (0..1_000).for_each(|it| lanes.push(it));
            while !lanes.state().fresh.is_empty() {
                std::thread::yield_now();
            }
            lanes.close();
        });
    }
}
