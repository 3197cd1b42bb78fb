//! The requests of a partition that are under way: who waits for which command, and how the bound on all of them is
//! shared between namespaces.
//!
//! Invariants
//! - What is counted begins when a request is taken and ends when its command is decided, also if its client was told
//!   before that nobody knows.
//! - Whoever has not been told anything has its deadline among `deadlines`. They do not rise with the index: what has waited
//!   for its turn may have less time left than what stands before it.
//!
//! Cost: an entry of a map and one of a set per request, each entered once and removed once.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::limits;
use crate::shard::event::Token;
use crate::shard::fair::Amount;
use crate::shard::fair::Fair;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::types::Term;

/// A request whose command is in the log.
#[derive(Debug)]
struct Waiting {
    /// None once the client was told that nobody knows: what it asked for is under way all the same, and
    /// counts against the bound.
    token: Option<Token>,
    term: Term,
    deadline: Instant,
    database: Incarnation,
    bytes: usize,
}

/// All requests of a partition that are taken and not decided.
#[derive(Debug)]
pub(super) struct InFlight {
    /// By the index of their command.
    waiting: BTreeMap<LogIndex, Waiting>,
    /// Until when clients wait that have not been told anything, and for which command.
    deadlines: BTreeSet<(Instant, LogIndex)>,
    shares: Fair<Incarnation>,
}

impl InFlight {
    pub(super) fn new() -> Self {
        let bound = Amount {
            n: limits::PROPOSALS_IN_FLIGHT_MAX,
            bytes: limits::PROPOSAL_BYTES_IN_FLIGHT_MAX,
        };
        let shares = Fair::new(bound);
        Self { waiting: BTreeMap::new(), deadlines: BTreeSet::new(), shares }
    }

    /// Whether a command of that size may be taken for `database`.
    pub(super) fn may_take(&mut self, database: Incarnation, bytes: usize) -> bool {
        self.shares.may_take(database, bytes)
    }

    /// It is taken; [`Self::leave`] or [`Self::insert`] follows.
    pub(super) fn enter(&mut self, database: Incarnation, bytes: usize) {
        self.shares.add(database, Amount::one(bytes));
    }

    /// It is refused after all, before it had a place in the log.
    pub(super) fn leave(&mut self, database: Incarnation, bytes: usize) {
        self.shares.sub(database, Amount::one(bytes));
    }

    /// The command of a request that was taken stands at `index`. Who waited for another that stood there: it was
    /// overwritten, but what replaced it is not committed, so that nothing is proven yet.
    pub(super) fn insert(
        &mut self,
        (index, term): (LogIndex, Term),
        token: Token,
        deadline: Instant,
        (database, bytes): (Incarnation, usize),
    ) -> Option<Token> {
        let before = self.take(index);
        self.deadlines.insert((deadline, index));
        let waiting = Waiting { token: Some(token), term, deadline, database, bytes };
        self.waiting.insert(index, waiting);
        before
    }

    /// The command at `index` is decided. Whoever waits for it.
    pub(super) fn take(&mut self, index: LogIndex) -> Option<Token> {
        let waiting = self.waiting.remove(&index)?;
        self.leave(waiting.database, waiting.bytes);
        if waiting.token.is_some() {
            self.deadlines.remove(&(waiting.deadline, index));
        }
        waiting.token
    }

    /// Whether a request's command stood at `index` in another term than `term`.
    pub(super) fn is_overwritten(&self, index: LogIndex, term: Term) -> bool {
        self.waiting.get(&index).is_some_and(|it| it.term != term)
    }

    /// Somebody who has waited too long, and waits no longer.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<Token> {
        let (_, index) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        self.deadlines.pop_first();
        let late = self.waiting.get_mut(&index).expect("who has a deadline waits");
        late.token.take()
    }

    /// When [`Self::take_late`] has something to give.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// How many still wait for an answer.
    pub(super) fn n_patient(&self) -> usize {
        self.deadlines.len()
    }

    /// Who uses how much of the bound.
    pub(super) fn shares(&self) -> &Fair<Incarnation> {
        &self.shares
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: Incarnation = Incarnation(1);
    const TWO: Incarnation = Incarnation(2);

    fn at(seconds: u64) -> Instant {
        Instant::START.after(Duration::from_secs(seconds))
    }

    fn enter(flight: &mut InFlight, index: u64, seconds: u64, database: Incarnation) {
        flight.enter(database, 10);
        let place = (LogIndex(index), Term(1));
        assert_eq!(flight.insert(place, Token(index), at(seconds), (database, 10)), None);
    }

    #[test]
    fn what_was_answered_late_counts_until_it_is_decided() {
        let mut flight = InFlight::new();
        enter(&mut flight, 5, 1, ONE);
        enter(&mut flight, 6, 2, TWO);
        assert_eq!(flight.next_deadline(), Some(at(1)));
        assert_eq!(flight.take_late(at(1)), Some(Token(5)));
        assert_eq!(flight.take_late(at(1)), None);
        assert_eq!((flight.n_patient(), flight.shares().total().n), (1, 2));
        assert_eq!(flight.take(LogIndex(5)), None);
        assert_eq!(flight.shares().total(), Amount::one(10));
        assert_eq!(flight.take(LogIndex(6)), Some(Token(6)));
        assert_eq!(flight.shares().total(), Amount::default());
    }

    #[test]
    fn each_waits_until_its_own_deadline_whatever_stands_before_it() {
        let mut flight = InFlight::new();
        enter(&mut flight, 5, 9, ONE);
        enter(&mut flight, 6, 2, TWO);
        enter(&mut flight, 7, 4, TWO);
        assert_eq!(flight.next_deadline(), Some(at(2)));
        assert_eq!(flight.take_late(at(3)), Some(Token(6)));
        assert_eq!(flight.take_late(at(3)), None);
        assert_eq!(flight.take(LogIndex(7)), Some(Token(7)));
        assert_eq!(flight.next_deadline(), Some(at(9)), "who was answered has no deadline");
        assert_eq!(flight.take_late(at(9)), Some(Token(5)));
        assert_eq!((flight.n_patient(), flight.next_deadline()), (0, None));
        assert_eq!(flight.shares().total().n, 2);
    }

    #[test]
    fn who_waited_for_what_is_overwritten_is_told() {
        let mut flight = InFlight::new();
        enter(&mut flight, 5, 1, ONE);
        assert_eq!(flight.take_late(at(1)), Some(Token(5)));
        enter(&mut flight, 6, 2, ONE);
        assert!(flight.is_overwritten(LogIndex(6), Term(2)));
        assert!(!flight.is_overwritten(LogIndex(6), Term(1)));
        flight.enter(TWO, 10);
        let place = (LogIndex(5), Term(2));
        assert_eq!(flight.insert(place, Token(7), at(3), (TWO, 10)), None, "it was told before");
        assert_eq!(flight.n_patient(), 2, "the new one waits");
        flight.enter(TWO, 10);
        let place = (LogIndex(6), Term(2));
        assert_eq!(flight.insert(place, Token(8), at(3), (TWO, 10)), Some(Token(6)));
        assert_eq!(flight.shares().total().n, 2);
    }
}
