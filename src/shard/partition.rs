//! One partition on this shard: its replica, the requests that wait for its log, and its databases.
//!
//! Life of a write: [`Partition::propose`] → `Persist` → [`Partition::on_persisted`] → committed →
//! [`Partition::on_committed`] → `Apply` → [`Partition::on_applied`] → `Reply`.

mod kept;
mod proposals;
mod reads;
mod window;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::catalog;
use crate::limits;
use crate::raft;
use crate::raft::Output;
use crate::raft::Replica;
use crate::raft::Role;
use crate::shard::backlog::Backlog;
use crate::shard::event::Answer;
use crate::shard::event::Effect;
use crate::shard::event::Ticket;
use crate::shard::event::Token;
use crate::shard::fair::Amount;
use crate::shard::fair::Fair;
use crate::shard::inflight::InFlight;
use crate::shard::partition::proposals::Pending;
use crate::shard::partition::window::Window;
use crate::shard::queue::Queue;
use crate::shard::queue::Source;
use crate::shard::request::SubmitError;
use crate::shard::room::Room;
use crate::sql::Applied;
use crate::types::DatabaseId;
use crate::types::DatabaseSize;
use crate::types::Dice;
use crate::types::Floor;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::types::ReplicaId;
use crate::types::Timestamp;
use crate::wire::command::Command;
use crate::wire::command::CommandLimits;
use crate::wire::command::Kind;
use crate::wire::command::Stamp;
use crate::wire::rows::Outcome;

/// What a partition starts from.
#[derive(Debug)]
pub struct PartitionBoot {
    /// Which.
    pub id: PartitionId,
    /// Its replica here.
    pub replica: ReplicaId,
    /// What the log kept.
    pub recovered: raft::Recovered,
    /// The newest time stamp in the log (R17).
    pub stamp: Timestamp,
    /// What its engine database says it has or had.
    pub incarnations: Vec<Incarnation>,
    /// The durable index of each database, from the manifest.
    pub floors: BTreeMap<Incarnation, Floor>,
}

/// All that is told to everybody in a step.
pub(super) struct Step<'a> {
    pub(super) now: Instant,
    pub(super) wall: Timestamp,
    pub(super) room: Room,
    pub(super) limits: &'a CommandLimits,
    pub(super) dice: &'a mut Dice,
    pub(super) ticket: &'a mut Ticket,
    pub(super) out: &'a mut Vec<Effect>,
}

impl Step<'_> {
    pub(super) fn reply(&mut self, token: Token, result: Result<Answer, SubmitError>) {
        self.out.push(Effect::Reply { token, result });
    }
}

/// A replica and everything that hangs on it.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) id: PartitionId,
    pub(super) replica: Replica,
    /// Requests that are taken and not decided.
    in_flight: InFlight,
    /// Those of them whose commands wait for a place in the log.
    backlog: Backlog<Pending>,
    /// When the first of those has waited too long, or before.
    backlog_until: Option<Instant>,
    /// What is proposed and not on disk.
    window: Window,
    /// Every database it has or had. A command for another has no effect (R11).
    pub(super) queues: BTreeMap<Incarnation, Queue>,
    /// How many of them are open.
    pub(super) n_open: usize,
    /// Queues that got commands in this step.
    touched: BTreeSet<Incarnation>,
    /// The newest time stamp in the log, committed or not.
    stamp: Timestamp,
    /// Where the newest term began: a leader has applied what others acknowledged once it has applied up to
    /// here.
    term_start: LogIndex,
    /// When the first of the reads that came early has waited too long.
    early_until: Option<Instant>,
    election_at: Instant,
    tick_at: Instant,
    /// Kept for its capacity only.
    outputs: Vec<Output>,
}

impl Partition {
    pub(super) fn new(boot: PartitionBoot, now: Instant, dice: &mut Dice) -> Self {
        let replica = Replica::new(boot.replica, boot.recovered);
        let mut incarnations: BTreeSet<_> = boot.incarnations.into_iter().collect();
        incarnations.insert(Incarnation::ENGINE);
        let queue = |it: &Incarnation| {
            let floor = boot.floors.get(it).copied().unwrap_or_default();
            (*it, Queue::recovered(floor, now))
        };
        Self {
            id: boot.id,
            replica,
            in_flight: InFlight::new(),
            backlog: Backlog::new(),
            backlog_until: None,
            window: Window::default(),
            term_start: LogIndex(0),
            queues: incarnations.iter().map(queue).collect(),
            n_open: 0,
            touched: BTreeSet::new(),
            stamp: boot.stamp,
            early_until: None,
            election_at: election_time(now, dice),
            tick_at: now.after(limits::TICK),
            outputs: Vec::new(),
        }
    }

    /// Whether requests may be sent here.
    pub(super) fn leads(&self) -> bool {
        // Before an entry of its own term is committed, a leader may not know all that is.
        self.replica.role() == Role::Leader && self.replica.has_committed_in_term()
    }

    /// Whether it knows who leads; one that has just begun to lead does not answer yet, and does not count.
    pub(super) fn has_leader(&self) -> bool {
        self.leads() || (self.replica.role() != Role::Leader && self.replica.knows_leader())
    }

    fn database(&self, incarnation: Incarnation) -> DatabaseId {
        DatabaseId { partition: self.id, incarnation }
    }

    /// Whether a database is damaged, so that nothing can be asked of it.
    pub(super) fn is_fenced(&self, incarnation: Incarnation) -> bool {
        self.queues.get(&incarnation).is_some_and(|it| it.is_fenced)
    }

    /// Another replica spoke.
    pub(super) fn on_message(&mut self, step: &mut Step<'_>, message: raft::Message) {
        if self.replica.step(message) {
            self.election_at = election_time(step.now, step.dice);
        }
        self.drain(step);
    }

    /// Everything up to the ticket is on disk.
    pub(super) fn on_persisted(&mut self, step: &mut Step<'_>, ticket: Ticket) {
        if let Some(number) = self.window.on_persisted(ticket) {
            let mut outputs = std::mem::take(&mut self.outputs);
            self.replica.on_persisted(number, &mut outputs);
            self.outputs = outputs;
            self.drain(step);
        }
    }

    /// When [`Self::on_timeout`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let waiting = self.in_flight.next_deadline().into_iter().chain(self.backlog_until);
        let clock = (!self.replica.is_alone()).then(|| match self.replica.role() {
            Role::Leader => self.tick_at,
            Role::Follower | Role::Candidate => self.tick_at.min(self.election_at),
        });
        waiting.chain(clock).chain(self.early_until).min()
    }

    pub(super) fn on_timeout(&mut self, step: &mut Step<'_>) {
        self.answer_late(step);
        self.answer_late_reads(step);
        if self.replica.is_alone() {
            return self.drain(step);
        }
        if self.tick_at <= step.now {
            self.tick_at = step.now.after(limits::TICK);
            self.replica.tick();
        }
        if self.election_at <= step.now {
            self.election_at = election_time(step.now, step.dice);
            if self.replica.role() != Role::Leader {
                self.replica.campaign();
            }
        }
        self.drain(step);
    }

    /// Do what the replica wants, and give its databases what it committed.
    pub(super) fn drain(&mut self, step: &mut Step<'_>) {
        self.append_backlog(step);
        let mut outputs = std::mem::take(&mut self.outputs);
        // At most one attempt to lead: another would not go better (R9).
        for attempt in 0..2 {
            self.replica.drain(&mut outputs);
            for output in outputs.drain(..) {
                self.perform(step, output);
            }
            // A single voter asks itself to lead once it handed out what it knows to be committed (R9).
            let may_lead = attempt == 0
                && self.replica.is_alone()
                && self.replica.role() != Role::Leader
                && self.replica.is_persisted();
            if !may_lead {
                break;
            }
            self.replica.campaign();
        }
        self.outputs = outputs;
        self.dispatch_touched(step);
    }

    fn perform(&mut self, step: &mut Step<'_>, output: Output) {
        match output {
            Output::Send(message) => {
                step.out.push(Effect::Send { partition: self.id, message });
            }
            Output::Persist { number, hard_state, entries } => {
                step.ticket.0 += 1;
                let ticket = *step.ticket;
                let bytes = entries.iter().map(|it| it.payload.len()).sum();
                self.window.on_ready(ticket, number, Amount { n: entries.len(), bytes });
                let records = self.records(hard_state, entries);
                step.out.push(Effect::Persist { ticket, records });
            }
            Output::Committed(entry) => self.on_committed(step, entry),
        }
    }

    fn on_committed(&mut self, step: &mut Step<'_>, entry: raft::Entry) {
        if entry.kind == raft::EntryKind::Change {
            let reason = format!(
                "partition {} changes its members at log index {}: this version cannot",
                self.id, entry.index
            );
            return step.out.push(Effect::Stop { reason });
        }
        self.answer_if_overwritten(step, &entry);
        if entry.payload.is_empty() {
            // A new leader's first.
            self.term_start = entry.index;
            return;
        }
        let command = match Command::decode(&entry.payload) {
            Ok(command) => command,
            Err(error) => {
                let reason = format!(
                    "partition {} cannot read its command at log index {}: {error}",
                    self.id, entry.index
                );
                return step.out.push(Effect::Stop { reason });
            }
        };
        let incarnation = command.stamp.incarnation;
        if command.kind == Kind::Create {
            let new = || Queue::new(LogIndex(0), step.now);
            self.queues.entry(incarnation).or_insert_with(new);
            // At replay, too: that the engine database knows it does not mean that its disk does (R24).
            self.register(entry.index, &command);
        }
        match self.queues.get_mut(&incarnation) {
            Some(queue) if !queue.is_fenced => {
                queue.push(entry.index, Source::Log);
                self.touched.insert(incarnation);
            }
            Some(queue) => {
                queue.hold(entry.index);
                self.answer(step, entry.index, Err(SubmitError::OutcomeUnknown));
            }
            // Absent: no effect, and so it says.
            None => self.answer(step, entry.index, Err(SubmitError::NoLeader)),
        }
    }

    /// The engine database remembers each incarnation, derived from the same entry.
    fn register(&mut self, index: LogIndex, command: &Command<'_>) {
        let name = command.name().unwrap_or_default();
        let stamp = Stamp { incarnation: Incarnation::ENGINE, ..command.stamp };
        let derived = catalog::register(command.stamp.incarnation, name).seal(&stamp);
        let engine = self.queues.get_mut(&Incarnation::ENGINE).expect("there is always an engine");
        engine.push(index, Source::Derived(derived));
        self.touched.insert(Incarnation::ENGINE);
    }

    /// An entry of another term is committed where a request's command stood: it did not happen (R19).
    fn answer_if_overwritten(&mut self, step: &mut Step<'_>, entry: &raft::Entry) {
        if self.in_flight.is_overwritten(entry.index, entry.term) {
            self.answer(step, entry.index, Err(SubmitError::NoLeader));
        }
    }

    fn answer(
        &mut self,
        step: &mut Step<'_>,
        index: LogIndex,
        result: Result<Answer, SubmitError>,
    ) {
        if let Some(token) = self.in_flight.take(index) {
            step.reply(token, result);
        }
    }

    fn dispatch_touched(&mut self, step: &mut Step<'_>) {
        while let Some(incarnation) = self.touched.pop_first() {
            self.dispatch(step, incarnation);
        }
    }

    /// Give a database what waits for it, if nothing is in flight.
    pub(super) fn dispatch(&mut self, step: &mut Step<'_>, incarnation: Incarnation) {
        let database = self.database(incarnation);
        let Some(queue) = self.queues.get_mut(&incarnation) else { return };
        let bytes_of = |index, source: &Source| -> Bytes {
            match source {
                Source::Derived(bytes) => bytes.clone(),
                Source::Log => {
                    self.replica.entry(index).expect("the log keeps what is outstanding").payload
                }
            }
        };
        let taken = queue.take(limits::APPLY_BATCH_MAX);
        let commands: Vec<_> = taken.map(|(at, source)| (at, bytes_of(at, source))).collect();
        if !commands.is_empty() {
            self.n_open += usize::from(!queue.is_open);
            queue.is_open = true;
            queue.used_at = step.now;
            step.out.push(Effect::Apply { database, commands });
        }
    }

    /// A batch ran. Returns the outcomes of the engine's commands, for the catalog.
    pub(super) fn on_applied(
        &mut self,
        step: &mut Step<'_>,
        incarnation: Incarnation,
        applied: Vec<Applied>,
        size: DatabaseSize,
    ) -> Vec<Outcome> {
        let queue = self.queues.get_mut(&incarnation).expect("what was applied to is known");
        let indexes = queue.on_applied(applied.len(), size);
        let mut of_engine = Vec::new();
        for (index, applied) in indexes.into_iter().zip(applied) {
            let result = match applied {
                // The database had it before this life began, and nobody waits for it.
                Applied::Skipped => Err(SubmitError::OutcomeUnknown),
                Applied::Done(outcome) if incarnation == Incarnation::ENGINE => {
                    of_engine.push(outcome);
                    continue;
                }
                Applied::Done(outcome) => {
                    outcome.map(Answer::Results).map_err(SubmitError::Statement)
                }
                Applied::Replayed(outcome) => {
                    outcome.map(Answer::Replayed).map_err(SubmitError::Replayed)
                }
            };
            self.answer(step, index, result);
        }
        self.dispatch(step, incarnation);
        self.give_out_early_reads(step, incarnation);
        of_engine
    }

    /// The database is damaged. What was proposed for it may or may not count elsewhere (R38).
    pub(super) fn on_fenced(&mut self, step: &mut Step<'_>, incarnation: Incarnation) {
        self.refuse_backlog(step, incarnation);
        if let Some(queue) = self.queues.get_mut(&incarnation) {
            self.n_open -= usize::from(queue.is_open);
            for read in std::mem::take(&mut queue.early_reads) {
                step.reply(read.token, Err(SubmitError::Fenced));
            }
            for index in queue.fence() {
                self.answer(step, index, Err(SubmitError::OutcomeUnknown));
            }
        }
    }

    /// Who uses how much of what may be under way.
    pub(super) fn shares(&self) -> &Fair<Incarnation> {
        self.in_flight.shares()
    }

    /// Requests that wait for their turn.
    pub(super) fn n_backlog(&self) -> usize {
        self.backlog.len()
    }

    /// How many still wait for an answer.
    pub(super) fn n_waiting(&self) -> usize {
        self.in_flight.n_patient() + self.backlog.len()
    }
}

fn election_time(now: Instant, dice: &mut Dice) -> Instant {
    let (min, max) = (limits::ELECTION_TIMEOUT_MIN, limits::ELECTION_TIMEOUT_MAX);
    let spread = max.saturating_sub(min).as_micros();
    let spread = u64::try_from(spread).expect("a short time");
    now.after(min + Duration::from_micros(dice.below(spread)))
}
