//! What each connection of a core is doing, and since when: the deadlines of all connections with one
//! timer for all of them.
//!
//! ```text
//!          head complete                 reply ready        all written       first bytes
//!   Head ────────────────▶ Body ─▶ Handler ───────────▶ Write ───────────▶ Idle ───────────▶ Head …
//!                                                    Linger, at the end
//! ```
//!
//! Time is counted in ticks of the server's one timer. A connection notes the tick at which it entered
//! its phase; at each tick [`Activities::tick`] looks at all of them and wakes those that are overdue.
//! A deadline is thus kept to within a tick (an eighth of the shortest timeout), and a request costs no
//! timer and no look at the clock.

use std::cell::Cell;
use std::cell::RefCell;
use std::future;
use std::future::Future;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use crate::http::Sender;
use crate::http::ServedBy;
use crate::http::placement::Habit;
use crate::types::ShardId;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the first request, or reading a head.
    Head,
    /// Reading a body.
    Body,
    /// Waiting for the handler, which keeps its own deadline.
    Handler,
    /// Writing a reply.
    Write,
    /// Everything is answered.
    Idle,
    /// Closed for writing; reading on so that the peer gets to see the reply.
    Linger,
}

impl Phase {
    /// In the order of their declaration.
    const ALL: [Self; 6] =
        [Self::Head, Self::Body, Self::Handler, Self::Write, Self::Idle, Self::Linger];
}

/// How long each phase may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A request head, as a whole.
    pub head: Duration,
    /// A request body, as a whole.
    pub body: Duration,
    /// A reply, as a whole.
    pub write: Duration,
    /// From the end of a reply to the next request.
    pub idle: Duration,
    /// Reading on after the last reply.
    pub linger: Duration,
}

impl Timeouts {
    /// Time between two ticks.
    pub fn tick(&self) -> Duration {
        let shortest = self.head.min(self.body).min(self.write).min(self.idle).min(self.linger);
        (shortest / 8).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    /// Ticks after which `phase` is overdue; never early: the first tick may be a short one.
    fn ticks(&self, phase: Phase) -> u64 {
        let timeout = match phase {
            Phase::Head => self.head,
            Phase::Body => self.body,
            Phase::Write => self.write,
            Phase::Idle => self.idle,
            Phase::Linger => self.linger,
            Phase::Handler => return u64::MAX,
        };
        let ticks = timeout.as_nanos().div_ceil(self.tick().as_nanos()) + 1;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// One connection's state, shared by its task, its stream and its request.
#[derive(Debug)]
pub struct Activity {
    ticks: Rc<Cell<u64>>,
    phase: Cell<Phase>,
    since: Cell<u64>,
    overdue: Cell<bool>,
    leaves_unread: Cell<bool>,
    habit: Habit,
    /// Who sent its last request.
    sender: Cell<Option<Sender>>,
    /// The body of the reply is not at its end, however much of it is written.
    has_more: Cell<bool>,
    /// The reply that is being written is one that is made meanwhile.
    is_in_pieces: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Activity {
    /// Begin a phase, and its deadline.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.is_in_pieces.set(false);
        self.since.set(self.ticks.get());
        self.overdue.set(false);
    }

    /// Everything handed to the socket so far is written.
    pub fn on_flushed(&self) {
        if self.phase.get() == Phase::Write && !self.has_more.get() {
            self.enter(Phase::Idle);
        }
    }

    /// A reply with a body begins: not all of it is written when its head is.
    pub fn begin_body(&self) {
        self.has_more.set(true);
    }

    /// The same, of one that is made while it is sent.
    pub fn begin_pieces(&self) {
        self.has_more.set(true);
        self.is_in_pieces.set(true);
    }

    /// Whether the reply that is being written is such a one: where it ends, its end may look like that of a whole one.
    pub fn is_in_pieces(&self) -> bool {
        self.is_in_pieces.get() && self.phase.get() == Phase::Write
    }

    /// All of the body has been taken, or nobody wants it.
    pub fn end_body(&self) {
        self.has_more.set(false);
    }

    /// Bytes have come in.
    pub fn on_read(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// The connection will be closed although the peer may still be sending.
    pub fn leave_unread(&self) {
        self.leaves_unread.set(true);
    }

    /// Whether [`Self::leave_unread`] was called.
    pub fn leaves_unread(&self) -> bool {
        self.leaves_unread.get()
    }

    /// A request comes from this sender.
    pub fn on_sender(&self, sender: Sender) {
        self.sender.set(Some(sender));
    }

    /// Who sent the last request, if anybody has.
    pub fn sender(&self) -> Option<Sender> {
        self.sender.get()
    }

    /// A request was served, by this core if nobody else is named.
    pub fn on_served(&self, by: Option<ServedBy>) {
        self.habit.on_served(by);
    }

    /// How often the connection has moved from one core to another.
    pub fn n_moves(&self) -> u32 {
        self.habit.n_moves()
    }

    /// Which core should serve the connection from now on, if it may be moved: nothing is under way.
    pub fn better_place(&self) -> Option<ShardId> {
        self.habit.better_place().filter(|_| self.phase.get() == Phase::Idle)
    }

    /// What the connection is doing.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether it has been doing it for too long.
    pub fn is_overdue(&self) -> bool {
        self.overdue.get()
    }

    /// Wake this task from now on.
    pub fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// All connections of one server. Bounded by the server's limit of connections.
#[derive(Debug, Default)]
pub struct Activities {
    ticks: Rc<Cell<u64>>,
    open: RefCell<Vec<Option<Rc<Activity>>>>,
    free: RefCell<Vec<usize>>,
    n_open: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

/// A connection's place among all; leaves when dropped.
#[derive(Debug)]
pub struct Place {
    activities: Rc<Activities>,
    at: usize,
    /// The connection's state.
    pub activity: Rc<Activity>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let activities = &self.activities;
        activities.open.borrow_mut()[self.at] = None;
        activities.free.borrow_mut().push(self.at);
        activities.n_open.set(activities.n_open.get() - 1);
        for waker in activities.waiting.take() {
            waker.wake();
        }
    }
}

impl Activities {
    /// Add a connection, which begins with waiting for a request, and has moved this often.
    pub fn open(self: &Rc<Self>, n_moves: u32) -> Place {
        let activity = Rc::new(Activity {
            ticks: Rc::clone(&self.ticks),
            phase: Cell::new(Phase::Head),
            since: Cell::new(self.ticks.get()),
            overdue: Cell::new(false),
            leaves_unread: Cell::new(false),
            habit: Habit::of_moved(n_moves),
            sender: Cell::new(None),
            has_more: Cell::new(false),
            is_in_pieces: Cell::new(false),
            waker: RefCell::new(None),
        });
        let mut open = self.open.borrow_mut();
        let at = self.free.borrow_mut().pop().unwrap_or_else(|| {
            open.push(None);
            open.len() - 1
        });
        assert!(open[at].is_none(), "a free place is empty");
        open[at] = Some(Rc::clone(&activity));
        self.n_open.set(self.n_open.get() + 1);
        Place { activities: Rc::clone(self), at, activity }
    }

    /// Number of open connections.
    pub fn n_open(&self) -> usize {
        self.n_open.get()
    }

    /// Resolves once at most `n` connections are open.
    pub fn wait_for(&self, n: usize) -> impl Future<Output = ()> {
        future::poll_fn(move |cx| {
            if self.n_open.get() <= n {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|it| it.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// Let a tick pass.
    pub fn tick(&self, timeouts: &Timeouts) {
        let now = self.ticks.get() + 1;
        self.ticks.set(now);
        let limits = Phase::ALL.map(|phase| timeouts.ticks(phase));
        for activity in self.open.borrow().iter().flatten() {
            let limit = limits[activity.phase.get() as usize];
            if now - activity.since.get() >= limit && !activity.overdue.replace(true) {
                activity.wake();
            }
        }
    }

    /// Have every connection look around: the server's state has changed.
    pub fn wake_all(&self) {
        for activity in self.open.borrow().iter().flatten() {
            activity.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        head: Duration::from_secs(8),
        body: Duration::from_secs(16),
        write: Duration::from_secs(16),
        idle: Duration::from_secs(24),
        linger: Duration::from_secs(8),
    };

    #[test]
    fn a_phase_is_overdue_after_its_timeout_and_not_before() {
        let activities = Rc::new(Activities::default());
        let place = activities.open(0);
        for (phase, seconds) in
            [(Phase::Head, 8), (Phase::Body, 16), (Phase::Idle, 24), (Phase::Linger, 8)]
        {
            place.activity.enter(phase);
            for _ in 0..seconds {
                activities.tick(&TIMEOUTS);
                assert!(!place.activity.is_overdue(), "{phase:?} in time");
            }
            activities.tick(&TIMEOUTS);
            assert!(place.activity.is_overdue(), "{phase:?} overdue");
        }
    }

    #[test]
    fn a_handler_is_never_overdue_and_a_flush_ends_a_reply() {
        let activities = Rc::new(Activities::default());
        let place = activities.open(0);
        place.activity.enter(Phase::Handler);
        for _ in 0..100 {
            activities.tick(&TIMEOUTS);
        }
        place.activity.on_flushed();
        assert!(!place.activity.is_overdue());
        assert_eq!(place.activity.phase(), Phase::Handler);
        place.activity.enter(Phase::Write);
        place.activity.on_flushed();
        assert_eq!(place.activity.phase(), Phase::Idle);
        place.activity.enter(Phase::Write);
        place.activity.begin_pieces();
        place.activity.on_flushed();
        assert_eq!(place.activity.phase(), Phase::Write, "there is more to come");
        place.activity.end_body();
        place.activity.on_flushed();
        assert_eq!(place.activity.phase(), Phase::Idle);
        place.activity.on_read();
        assert_eq!(place.activity.phase(), Phase::Head);
    }

    #[test]
    fn places_are_used_again() {
        let activities = Rc::new(Activities::default());
        let (a, b) = (activities.open(0), activities.open(0));
        drop(a);
        let c = activities.open(0);
        assert_eq!((b.at, c.at, activities.n_open()), (1, 0, 2));
        assert_eq!(activities.open.borrow().len(), 2);
    }
}
