//! How a command gets into the log of a partition that leads, and what becomes of it when it does not.
//!
//! A namespace that has more under way than its share is refused while the partition is crowded (`shard::fair`). What is
//! taken is proposed at once as long as the log keeps up (`window`); then it waits, and namespaces have their turn
//! one after the other (`shard::backlog`). So a command waits for the window, and for a turn of each other
//! namespace that waits too, however much they send.

use crate::limits;
use crate::raft::Role;
use crate::shard::event::Effect;
use crate::shard::event::Token;
use crate::shard::partition::Partition;
use crate::shard::partition::Step;
use crate::shard::request::SubmitError;
use crate::shard::room;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::types::Term;
use crate::wire::command::Kind;
use crate::wire::command::Stamp;
use crate::wire::command::draft::Draft;

/// A command that waits for its turn.
#[derive(Debug)]
pub(super) struct Pending {
    token: Token,
    draft: Draft,
    deadline: Instant,
    /// How large the database may become by it.
    database_bytes: u64,
}

impl Partition {
    /// Append a command to the log, now or when it is its turn; `token` waits for its result. Only on a leader.
    pub(in crate::shard) fn propose(
        &mut self,
        step: &mut Step<'_>,
        incarnation: Incarnation,
        draft: Draft,
        token: Token,
    ) -> Result<(), SubmitError> {
        let bytes = draft.size();
        if !self.in_flight.may_take(incarnation, bytes) {
            return Err(SubmitError::Overloaded);
        }
        let database_bytes = self.admit(step, incarnation, &draft)?;
        self.in_flight.enter(incarnation, bytes);
        let deadline = step.now.after(limits::REQUEST_DEADLINE);
        let pending = Pending { token, draft, deadline, database_bytes };
        // A command that makes a database has none behind it in its line, and few of them come.
        let may_wait = !matches!(pending.draft.kind(), Kind::Create);
        let must_wait = !self.backlog.is_empty() || !self.window.has_room();
        if may_wait && must_wait {
            self.backlog_until = self.backlog_until.or(Some(deadline));
            self.backlog.push(incarnation, bytes, pending);
            return Ok(());
        }
        self.append_pending(step, incarnation, pending)
    }

    /// Append a command of the node's own to the log, at once: nobody waits for its result, and it has no share,
    /// but is refused if the partition is full. Only on a leader.
    pub(in crate::shard) fn propose_own(
        &mut self,
        step: &mut Step<'_>,
        incarnation: Incarnation,
        draft: Draft,
    ) -> Result<(), SubmitError> {
        if self.in_flight.shares().is_full() {
            return Err(SubmitError::Overloaded);
        }
        let database_bytes = self.admit(step, incarnation, &draft)?;
        self.append(step, incarnation, draft, database_bytes).map(drop)
    }

    /// Whether the state of the database lets the command be taken; how large the database may become by it.
    fn admit(
        &self,
        step: &Step<'_>,
        incarnation: Incarnation,
        draft: &Draft,
    ) -> Result<u64, SubmitError> {
        if self.is_fenced(incarnation) {
            return Err(SubmitError::Fenced);
        }
        let is_engine = incarnation == Incarnation::ENGINE;
        let size = self.queues.get(&incarnation).and_then(|it| it.size);
        // What the engine keeps for itself counts against nobody's quota.
        let quota = if is_engine { u64::MAX } else { step.limits.database_bytes };
        // A disk without room is what may keep a `-wal` too long: then that is what its writers are told.
        let bytes = room::admit(draft, step.room, size, quota, step.limits.value_bytes)?;
        let is_strained = self.queues.get(&incarnation).is_some_and(|it| it.is_strained);
        if is_strained { Err(SubmitError::Overloaded) } else { Ok(bytes) }
    }

    /// Propose what waits for its turn, as far as the log keeps up. Refuse it all if the partition leads no more.
    pub(super) fn append_backlog(&mut self, step: &mut Step<'_>) {
        if self.backlog.is_empty() {
            return;
        }
        // Who has no time left is refused rather than executed for nobody.
        self.refuse_late_backlog(step);
        if self.replica.role() != Role::Leader {
            while let Some((incarnation, it)) = self.backlog.pop() {
                self.in_flight.leave(incarnation, it.draft.size());
                step.reply(it.token, Err(SubmitError::NoLeader));
            }
        }
        while self.window.has_room()
            && let Some((incarnation, pending)) = self.backlog.pop()
        {
            let token = pending.token;
            if let Err(error) = self.append_pending(step, incarnation, pending) {
                step.reply(token, Err(error));
            }
        }
        if self.backlog.is_empty() {
            self.backlog_until = None;
        }
    }

    /// Append the command of a request that was taken.
    fn append_pending(
        &mut self,
        step: &mut Step<'_>,
        incarnation: Incarnation,
        pending: Pending,
    ) -> Result<(), SubmitError> {
        let Pending { token, draft, deadline, database_bytes } = pending;
        let bytes = draft.size();
        let place = match self.append(step, incarnation, draft, database_bytes) {
            Ok(place) => place,
            Err(error) => {
                self.in_flight.leave(incarnation, bytes);
                return Err(error);
            }
        };
        let before = self.in_flight.insert(place, token, deadline, (incarnation, bytes));
        if let Some(before) = before {
            step.reply(before, Err(SubmitError::OutcomeUnknown));
        }
        Ok(())
    }

    /// Append a command to the log.
    fn append(
        &mut self,
        step: &mut Step<'_>,
        incarnation: Incarnation,
        draft: Draft,
        database_bytes: u64,
    ) -> Result<(LogIndex, Term), SubmitError> {
        let mut stamp = self.stamp(step, incarnation);
        stamp.limits.database_bytes = database_bytes;
        let bytes = draft.size();
        let place = self.replica.propose(draft.seal(&stamp)).map_err(|_| SubmitError::NoLeader)?;
        self.window.on_proposed(bytes);
        Ok(place)
    }

    /// Time never goes backwards in a partition, and equal stamps are fine (R17).
    pub(super) fn stamp(&mut self, step: &mut Step<'_>, incarnation: Incarnation) -> Stamp {
        self.stamp = self.stamp.max(step.wall);
        Stamp { incarnation, time: self.stamp, seed: step.dice.roll(), limits: *step.limits }
    }

    /// The position that the next of [`Self::propose_own`] will have.
    pub(in crate::shard) fn next_index(&self) -> LogIndex {
        self.replica.last().next()
    }

    /// Whoever has waited too long is told that nobody knows (R19), or that it was not executed if it never
    /// had its turn.
    pub(super) fn answer_late(&mut self, step: &mut Step<'_>) {
        while let Some(token) = self.in_flight.take_late(step.now) {
            step.reply(token, Err(SubmitError::OutcomeUnknown));
        }
        self.refuse_late_backlog(step);
    }

    fn refuse_late_backlog(&mut self, step: &mut Step<'_>) {
        if self.backlog_until.is_none_or(|at| step.now < at) {
            return;
        }
        let now = step.now;
        for (incarnation, it) in self.backlog.drop_late(|it| it.deadline <= now) {
            self.in_flight.leave(incarnation, it.draft.size());
            step.reply(it.token, Err(SubmitError::Overloaded));
        }
        self.backlog_until = self.backlog.heads().map(|it| it.deadline).min();
    }

    /// Refuse what waits for a database that is damaged.
    pub(super) fn refuse_backlog(&mut self, step: &mut Step<'_>, incarnation: Incarnation) {
        for it in self.backlog.take(incarnation) {
            self.in_flight.leave(incarnation, it.draft.size());
            step.reply(it.token, Err(SubmitError::Fenced));
        }
    }

    /// If many pages of a database are free, or were: propose to give some back, one command at a time; in the
    /// end have its file made smaller. Whether something was proposed.
    pub(in crate::shard) fn give_pages_back(
        &mut self,
        step: &mut Step<'_>,
        incarnation: Incarnation,
    ) -> bool {
        let (leads, database) = (self.leads(), self.database(incarnation));
        // Clients come first.
        let is_busy = self.in_flight.shares().is_crowded();
        let Some(queue) = self.queues.get_mut(&incarnation) else { return false };
        if incarnation == Incarnation::ENGINE || queue.is_fenced || queue.is_giving_back() {
            return false;
        }
        let n_pages = queue.size.and_then(room::pages_to_give_back);
        let Some(n_pages) = n_pages else {
            if queue.take_has_shrunk() {
                step.out.push(Effect::Checkpoint { database });
            }
            return false;
        };
        if !leads || is_busy {
            return false;
        }
        let index = self.next_index();
        let proposed = self.propose_own(step, incarnation, Draft::vacuum(n_pages)).is_ok();
        if proposed && let Some(queue) = self.queues.get_mut(&incarnation) {
            queue.give_back_at(index);
        }
        proposed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::raft;
    use crate::shard::event::Answer;
    use crate::shard::event::Ticket;
    use crate::shard::partition::PartitionBoot;
    use crate::shard::room::Room;
    use crate::sql::Applied;
    use crate::sql::testing::LIMITS;
    use crate::types::DatabaseSize;
    use crate::types::Dice;
    use crate::types::Floor;
    use crate::types::HardState;
    use crate::types::PartitionId;
    use crate::types::ReplicaId;
    use crate::types::Timestamp;
    use crate::wal::record::Record;
    use crate::wire::command::Command;
    use crate::wire::command::Mode;
    use crate::wire::command::Results;

    const NOISY: Incarnation = Incarnation(1);
    const QUIET: Incarnation = Incarnation(2);
    const THIRD: Incarnation = Incarnation(3);

    /// A partition that leads, with a log and databases that work when they are told to.
    struct Harness {
        partition: Partition,
        now: Instant,
        dice: Dice,
        ticket: Ticket,
        /// Whose commands the log was given, in order.
        logged: Vec<Incarnation>,
        tickets: Vec<Ticket>,
        applies: Vec<(Incarnation, usize)>,
        replies: BTreeMap<Token, Result<Answer, SubmitError>>,
        next_token: u64,
    }

    impl Harness {
        fn new() -> Self {
            let now = Instant::START;
            let mut dice = Dice::new(1);
            let boot = PartitionBoot {
                id: PartitionId(1),
                replica: ReplicaId(1),
                recovered: raft::Recovered {
                    hard_state: HardState {
                        term: Term(1),
                        vote: ReplicaId(0),
                        commit: LogIndex(1),
                    },
                    conf_state: raft::ConfState {
                        voters: vec![ReplicaId(1)],
                        ..raft::ConfState::default()
                    },
                    compacted: (LogIndex(1), Term(1)),
                    entries: Vec::new(),
                },
                stamp: Timestamp(0),
                incarnations: vec![NOISY, QUIET, THIRD],
                floors: BTreeMap::<_, Floor>::new(),
            };
            let partition = Partition::new(boot, now, &mut dice);
            let mut harness = Self {
                partition,
                now,
                dice,
                ticket: Ticket(0),
                logged: Vec::new(),
                tickets: Vec::new(),
                applies: Vec::new(),
                replies: BTreeMap::new(),
                next_token: 0,
            };
            harness.with(Partition::drain);
            harness.settle();
            assert!(harness.partition.leads());
            harness
        }

        fn with<T>(&mut self, act: impl FnOnce(&mut Partition, &mut Step<'_>) -> T) -> T {
            let mut out = Vec::new();
            let mut step = Step {
                now: self.now,
                wall: Timestamp(1),
                room: Room::Enough,
                limits: &LIMITS,
                dice: &mut self.dice,
                ticket: &mut self.ticket,
                out: &mut out,
            };
            let result = act(&mut self.partition, &mut step);
            for effect in out {
                match effect {
                    Effect::Persist { ticket, records } => {
                        self.tickets.push(ticket);
                        for record in records {
                            if let Record::Entry(it) = record
                                && let Ok(command) = Command::decode(&it.payload)
                            {
                                self.logged.push(command.stamp.incarnation);
                            }
                        }
                    }
                    Effect::Apply { database, commands } => {
                        self.applies.push((database.incarnation, commands.len()));
                    }
                    Effect::Reply { token, result } => {
                        assert!(self.replies.insert(token, result).is_none(), "answered twice");
                    }
                    other => panic!("{other:?}"),
                }
            }
            result
        }

        fn ask(&mut self, who: Incarnation, bytes: usize) -> Result<Token, SubmitError> {
            let token = Token(self.next_token);
            self.next_token += 1;
            let mut draft = Draft::new(Results::Each, 0);
            draft.statement(Mode::Exec, &format!("DELETE FROM t --{}", "x".repeat(bytes))).unwrap();
            self.with(|it, step| it.propose(step, who, draft, token)).map(|()| token)
        }

        /// Ask until one is refused; how many are taken.
        fn fill(&mut self, who: Incarnation, bytes: usize) -> usize {
            let mut n = 0;
            while self.ask(who, bytes).is_ok() {
                n += 1;
            }
            n
        }

        fn end_turn(&mut self) {
            self.with(Partition::drain);
        }

        /// The log has written what it was given.
        fn persist(&mut self) {
            for ticket in std::mem::take(&mut self.tickets) {
                self.with(|it, step| it.on_persisted(step, ticket));
            }
        }

        fn apply(&mut self) {
            for (who, n) in std::mem::take(&mut self.applies) {
                let applied = (0..n).map(|_| Applied::Done(Ok(Vec::new()))).collect();
                let size = DatabaseSize::default();
                self.with(|it, step| it.on_applied(step, who, applied, size));
            }
        }

        fn settle(&mut self) {
            while !(self.tickets.is_empty() && self.applies.is_empty()) {
                self.persist();
                self.apply();
                self.end_turn();
            }
        }
    }

    #[test]
    fn one_namespace_alone_waits_in_no_line_and_has_the_whole_bound() {
        let mut harness = Harness::new();
        for _ in 0..limits::UNPERSISTED_MAX {
            harness.ask(NOISY, 10).unwrap();
        }
        assert_eq!(harness.partition.n_backlog(), 0);
        let n = limits::UNPERSISTED_MAX + harness.fill(NOISY, 10);
        assert_eq!(n, limits::PROPOSALS_IN_FLIGHT_MAX);
        harness.end_turn();
        harness.settle();
        assert_eq!(harness.logged.len(), n);
        assert_eq!(harness.replies.len(), n);
        assert!(harness.replies.values().all(Result::is_ok));
        assert_eq!(harness.partition.n_waiting(), 0);
        assert_eq!(harness.partition.shares().total(), crate::shard::fair::Amount::default());
    }

    /// A quiet namespace is never refused, and waits for the window and a turn of each other one at most.
    #[test]
    fn a_quiet_namespace_does_not_wait_behind_thousands_of_others() {
        let turn = limits::TURN_BYTES / limits::COMMAND_COST;
        let mut harness = Harness::new();
        let mut worst = 0;
        for round in 0..40 {
            // Both others ask for all they can get, in each turn.
            harness.fill(NOISY, 100);
            harness.fill(THIRD, 100);
            let before = harness.logged.len();
            let quiet = harness.ask(QUIET, 100).expect("it has less than its share");
            harness.end_turn();
            let mut persists = 0;
            while !harness.logged[before..].contains(&QUIET) {
                harness.persist();
                persists += 1;
                assert!(persists < 3, "round {round}");
            }
            let found = harness.logged[before..].iter().position(|it| *it == QUIET).unwrap();
            worst = worst.max(found);
            harness.persist();
            harness.apply();
            assert_eq!(harness.replies[&quiet], Ok(Answer::Results(Vec::new())));
            harness.fill(NOISY, 100);
        }
        println!("at most {worst} commands of others came first");
        assert!(worst <= limits::UNPERSISTED_MAX + 2 * (turn + 1), "{worst}");
        assert!(
            harness.partition.shares().n_refused() > 40,
            "the others were refused now and then"
        );
        harness.settle();
        assert_eq!(harness.partition.n_waiting(), 0);
    }

    #[test]
    fn large_commands_fill_the_window_too() {
        let mut harness = Harness::new();
        let n = harness.fill(NOISY, 900_000);
        assert!((60..80).contains(&n), "{n} commands of 900 kB are under way");
        harness.ask(QUIET, 100).unwrap();
        harness.end_turn();
        assert!(harness.logged.len() < 6, "{} are in the log", harness.logged.len());
        harness.persist();
        let found = harness.logged.iter().position(|it| *it == QUIET).unwrap();
        assert!(found < 12, "{found} large commands came first");
    }

    #[test]
    fn what_never_had_its_turn_was_not_executed() {
        let mut harness = Harness::new();
        harness.fill(NOISY, 100);
        harness.end_turn();
        let logged = harness.logged.len();
        harness.now = harness.now.after(limits::REQUEST_DEADLINE);
        assert_eq!(harness.partition.next_timeout(), Some(harness.now));
        harness.with(Partition::on_timeout);
        let told = |it: SubmitError| {
            harness.replies.values().filter(|result| **result == Err(it.clone())).count()
        };
        assert_eq!(told(SubmitError::OutcomeUnknown), logged);
        assert_eq!(told(SubmitError::Overloaded), limits::PROPOSALS_IN_FLIGHT_MAX - logged);
        assert_eq!(harness.partition.n_waiting(), 0);
        assert_eq!(harness.partition.next_timeout(), None);
        harness.settle();
        assert_eq!(harness.partition.shares().total().n, 0);
        harness.now = harness.now.after(Duration::from_secs(1));
        harness.ask(NOISY, 1).unwrap();
    }

    /// The timer may come after what made room in the log.
    #[test]
    fn what_is_late_when_its_turn_comes_is_refused_and_not_proposed() {
        let mut harness = Harness::new();
        harness.fill(NOISY, 100);
        harness.end_turn();
        let logged = harness.logged.len();
        harness.now = harness.now.after(limits::REQUEST_DEADLINE);
        let fresh = harness.ask(QUIET, 100).unwrap();
        harness.persist();
        harness.end_turn();
        assert_eq!(harness.logged[logged..], [QUIET]);
        let overloaded = |it: &&Result<Answer, SubmitError>| **it == Err(SubmitError::Overloaded);
        let n_refused = harness.replies.values().filter(overloaded).count();
        assert_eq!(n_refused, limits::PROPOSALS_IN_FLIGHT_MAX - logged);
        harness.settle();
        assert_eq!(harness.replies[&fresh], Ok(Answer::Results(Vec::new())));
        assert_eq!(harness.partition.shares().total().n, 0);
    }

    #[test]
    fn only_what_makes_a_database_waits_for_no_turn() {
        let mut harness = Harness::new();
        harness.fill(NOISY, 100);
        let waiting = harness.partition.n_backlog();
        assert!(waiting > 1_000);
        for (token, kind, more) in [(90_000, Kind::Create, 0), (90_001, Kind::Drop, 1)] {
            let draft = Draft::lifecycle(kind, "quiet");
            let propose = |it: &mut Partition, step: &mut Step<'_>| {
                it.propose(step, QUIET, draft, Token(token))
            };
            harness.with(propose).unwrap();
            assert_eq!(harness.partition.n_backlog() - waiting, more, "{kind:?}");
        }
    }

    #[test]
    fn what_waits_is_refused_when_another_leads() {
        let mut harness = Harness::new();
        harness.fill(NOISY, 100);
        harness.end_turn();
        let (logged, waiting) = (harness.logged.len(), harness.partition.n_backlog());
        let used = harness.partition.shares().total().n;
        assert!(waiting > 1_000);
        let term = Term(harness.partition.replica.term().0 + 1);
        let message = raft::Message::of_leader(ReplicaId(2), ReplicaId(1), term);
        assert!(harness.partition.replica.step(message) && !harness.partition.leads());
        harness.with(Partition::append_backlog);
        assert_eq!((harness.logged.len(), harness.partition.n_backlog()), (logged, 0));
        let no_leader = |it: &&Result<Answer, SubmitError>| **it == Err(SubmitError::NoLeader);
        assert_eq!(harness.replies.values().filter(no_leader).count(), waiting);
        assert_eq!(harness.partition.shares().total().n, used - waiting);
        assert_eq!(harness.partition.backlog_until, None);
    }

    #[test]
    fn what_waits_for_a_damaged_database_is_refused() {
        let mut harness = Harness::new();
        harness.fill(NOISY, 100);
        let quiet = harness.ask(QUIET, 100).unwrap();
        harness.end_turn();
        let waiting = harness.partition.n_backlog() - 1;
        assert!(waiting > 1_000);
        harness.with(|it, step| it.on_fenced(step, NOISY));
        let fenced = |it: &&Result<Answer, SubmitError>| **it == Err(SubmitError::Fenced);
        assert_eq!(harness.replies.values().filter(fenced).count(), waiting);
        harness.settle();
        assert_eq!(harness.replies[&quiet], Ok(Answer::Results(Vec::new())));
        assert_eq!(harness.partition.shares().total().n, 0);
    }
}
