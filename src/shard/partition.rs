//! One partition on this shard: its replica, the requests that wait for its log, and its databases.
//!
//! Life of a write: [`Partition::propose`] → `Persist` → [`Partition::on_persisted`] → committed →
//! [`Partition::on_committed`] → `Apply` → [`Partition::on_applied`] → `Reply`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use crate::catalog;
use crate::limits;
use crate::raft;
use crate::raft::Output;
use crate::raft::Replica;
use crate::raft::Role;
use crate::shard::event::Answer;
use crate::shard::event::Effect;
use crate::shard::event::Ticket;
use crate::shard::event::Token;
use crate::shard::queue::EarlyRead;
use crate::shard::queue::Queue;
use crate::shard::queue::Source;
use crate::shard::request::SubmitError;
use crate::shard::room;
use crate::shard::room::Room;
use crate::sql::Applied;
use crate::types::DatabaseId;
use crate::types::DatabaseSize;
use crate::types::Dice;
use crate::types::Floor;
use crate::types::HardState;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::types::ReplicaId;
use crate::types::Term;
use crate::types::Timestamp;
use crate::wal::record;
use crate::wal::record::EntryId;
use crate::wal::record::Record;
use crate::wire::command::Command;
use crate::wire::command::CommandLimits;
use crate::wire::command::Draft;
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

/// A request whose command is in the log.
#[derive(Debug)]
struct Waiting {
    /// None once the client was told that nobody knows: what it asked for is under way all the same, and
    /// counts against the bound.
    token: Option<Token>,
    term: Term,
    deadline: Instant,
    bytes: usize,
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
    /// Requests by the index of their command.
    waiting: BTreeMap<LogIndex, Waiting>,
    waiting_bytes: usize,
    /// Requests up to here have been answered too late to wait any longer.
    late_until: LogIndex,
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
    /// Readies that are being written.
    unpersisted: VecDeque<(Ticket, u64)>,
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
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            late_until: LogIndex(0),
            term_start: LogIndex(0),
            queues: incarnations.iter().map(queue).collect(),
            n_open: 0,
            touched: BTreeSet::new(),
            stamp: boot.stamp,
            unpersisted: VecDeque::new(),
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

    /// Append a command to the log; `token` waits for its result. Only on a leader.
    pub(super) fn propose(
        &mut self,
        step: &mut Step<'_>,
        incarnation: Incarnation,
        draft: Draft,
        token: Option<Token>,
    ) -> Result<(), SubmitError> {
        let bytes = draft.size();
        let is_full = self.waiting.len() >= limits::PROPOSALS_IN_FLIGHT_MAX
            || self.waiting_bytes + bytes > limits::PROPOSAL_BYTES_IN_FLIGHT_MAX;
        if is_full {
            return Err(SubmitError::Overloaded);
        }
        if self.is_fenced(incarnation) {
            return Err(SubmitError::Fenced);
        }
        if self.queues.get(&incarnation).is_some_and(|it| it.is_strained) {
            return Err(SubmitError::Overloaded);
        }
        let is_engine = incarnation == Incarnation::ENGINE;
        let size = self.queues.get(&incarnation).and_then(|it| it.size);
        // What the engine keeps for itself counts against nobody's quota.
        let quota = if is_engine { u64::MAX } else { step.limits.database_bytes };
        let database_bytes = room::admit(&draft, step.room, size, quota, step.limits.value_bytes)?;
        let mut stamp = self.stamp(step, incarnation);
        stamp.limits.database_bytes = database_bytes;
        let Ok((index, term)) = self.replica.propose(draft.seal(&stamp)) else {
            return Err(SubmitError::NoLeader);
        };
        if let Some(token) = token {
            self.late_until = self.late_until.min(index.previous());
            let deadline = step.now.after(limits::REQUEST_DEADLINE);
            self.waiting_bytes += bytes;
            let waiting = Waiting { token: Some(token), term, deadline, bytes };
            let before = self.waiting.insert(index, waiting);
            self.answer_overwritten(step, before);
        }
        Ok(())
    }

    /// Time never goes backwards in a partition, and equal stamps are fine (R17).
    fn stamp(&mut self, step: &mut Step<'_>, incarnation: Incarnation) -> Stamp {
        self.stamp = self.stamp.max(step.wall);
        Stamp { incarnation, time: self.stamp, seed: step.dice.roll(), limits: *step.limits }
    }

    /// The position that the next proposal will have.
    pub(super) fn next_index(&self) -> LogIndex {
        self.replica.last().next()
    }

    /// Read at level `weak`: this replica leads by its own belief.
    pub(super) fn read(
        &mut self,
        step: &mut Step<'_>,
        token: Token,
        at: Incarnation,
        draft: Draft,
    ) {
        let stamp = self.stamp(step, at);
        let database = self.database(at);
        let Some(queue) = self.queues.get_mut(&at) else {
            return step.reply(token, Err(SubmitError::NoLeader));
        };
        if queue.is_fenced {
            return step.reply(token, Err(SubmitError::Fenced));
        }
        queue.used_at = step.now;
        let command = draft.seal(&stamp);
        if queue.first_outstanding().is_some_and(|it| it <= self.term_start) {
            // Others may have acknowledged what is not applied here yet.
            if queue.early_reads.len() >= limits::PARKED_MAX {
                return step.reply(token, Err(SubmitError::Overloaded));
            }
            let deadline = step.now.after(limits::REQUEST_DEADLINE);
            self.early_until = self.early_until.or(Some(deadline));
            return queue.early_reads.push(EarlyRead { token, command, deadline });
        }
        self.n_open += usize::from(!queue.is_open);
        queue.is_open = true;
        queue.n_reads += 1;
        step.out.push(Effect::Read { token, database, command });
    }

    /// Reads that came early, once what they must see is applied.
    fn give_out_early_reads(&mut self, step: &mut Step<'_>, incarnation: Incarnation) {
        let database = self.database(incarnation);
        let Some(queue) = self.queues.get_mut(&incarnation) else { return };
        if queue.first_outstanding().is_some_and(|it| it <= self.term_start) {
            return;
        }
        for EarlyRead { token, command, .. } in std::mem::take(&mut queue.early_reads) {
            self.n_open += usize::from(!queue.is_open);
            queue.is_open = true;
            queue.n_reads += 1;
            step.out.push(Effect::Read { token, database, command });
        }
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
        let mut number = None;
        while let Some((_, it)) = self.unpersisted.pop_front_if(|(first, _)| *first <= ticket) {
            number = Some(it);
        }
        if let Some(number) = number {
            let mut outputs = std::mem::take(&mut self.outputs);
            self.replica.on_persisted(number, &mut outputs);
            self.outputs = outputs;
            self.drain(step);
        }
    }

    /// When [`Self::on_timeout`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let waiting = self.patient().next().map(|(_, it)| it.deadline);
        let clock = (!self.replica.is_alone()).then(|| match self.replica.role() {
            Role::Leader => self.tick_at,
            Role::Follower | Role::Candidate => self.tick_at.min(self.election_at),
        });
        waiting.into_iter().chain(clock).chain(self.early_until).min()
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

    /// Whoever has waited too long is told that nobody knows (R19).
    fn answer_late(&mut self, step: &mut Step<'_>) {
        // Indexes rise with time, so the first that is not late ends the search.
        loop {
            let first = self.patient().next().filter(|(_, it)| it.deadline <= step.now);
            let Some(index) = first.map(|(index, _)| *index) else { break };
            self.late_until = index;
            let late = self.waiting.get_mut(&self.late_until).and_then(|it| it.token.take());
            if let Some(token) = late {
                step.reply(token, Err(SubmitError::OutcomeUnknown));
            }
        }
    }

    /// Reads that have waited too long for what they must see were not done.
    fn answer_late_reads(&mut self, step: &mut Step<'_>) {
        if self.early_until.is_none_or(|at| step.now < at) {
            return;
        }
        self.early_until = None;
        for queue in self.queues.values_mut() {
            let n_late = queue.early_reads.partition_point(|it| it.deadline <= step.now);
            for late in queue.early_reads.drain(..n_late) {
                step.out.push(Effect::Reply {
                    token: late.token,
                    result: Err(SubmitError::Overloaded),
                });
            }
            let next = queue.early_reads.first().map(|it| it.deadline);
            self.early_until = self.early_until.into_iter().chain(next).min();
        }
    }

    /// Requests whose clients still wait, oldest first.
    fn patient(&self) -> impl Iterator<Item = (&LogIndex, &Waiting)> {
        self.waiting.range((Bound::Excluded(self.late_until), Bound::Unbounded))
    }

    /// Do what the replica wants, and give its databases what it committed.
    pub(super) fn drain(&mut self, step: &mut Step<'_>) {
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
                self.unpersisted.push_back((ticket, number));
                let records = self.records(hard_state, entries);
                step.out.push(Effect::Persist { ticket, records });
            }
            Output::Committed(entry) => self.on_committed(step, entry),
        }
    }

    fn records(&mut self, hard_state: Option<HardState>, entries: Vec<raft::Entry>) -> Vec<Record> {
        let partition = self.id;
        let hard_state = hard_state.map(|hard_state| Record::HardState { partition, hard_state });
        let entries = entries.into_iter().map(|entry| {
            let stamp = Command::decode(&entry.payload).map_or(Timestamp(0), |it| it.stamp.time);
            self.stamp = self.stamp.max(stamp);
            Record::Entry(record_of(partition, entry, stamp))
        });
        // Entries first: a commit index never points behind them.
        let mut records: Vec<_> = entries.collect();
        records.extend(hard_state);
        records
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
        let is_overwritten = self.waiting.get(&entry.index).is_some_and(|it| it.term != entry.term);
        if is_overwritten {
            self.answer(step, entry.index, Err(SubmitError::NoLeader));
        }
    }

    /// The same leader index was proposed twice: the first proposal was overwritten, but what replaced it
    /// is not committed, so that nothing is proven yet.
    fn answer_overwritten(&mut self, step: &mut Step<'_>, before: Option<Waiting>) {
        if let Some(before) = before {
            self.waiting_bytes -= before.bytes;
            if let Some(token) = before.token {
                step.reply(token, Err(SubmitError::OutcomeUnknown));
            }
        }
    }

    fn answer(
        &mut self,
        step: &mut Step<'_>,
        index: LogIndex,
        result: Result<Answer, SubmitError>,
    ) {
        if let Some(waiting) = self.waiting.remove(&index) {
            self.waiting_bytes -= waiting.bytes;
            if let Some(token) = waiting.token {
                step.reply(token, result);
            }
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

    /// If many pages of a database are free, or were: propose to give some back, one command at a time; in the
    /// end have its file made smaller. Whether something was proposed.
    pub(super) fn give_pages_back(
        &mut self,
        step: &mut Step<'_>,
        incarnation: Incarnation,
    ) -> bool {
        let (leads, database) = (self.leads(), self.database(incarnation));
        // Clients come first.
        let is_busy = self.waiting.len() > limits::PROPOSALS_IN_FLIGHT_MAX / 2
            || self.waiting_bytes > limits::PROPOSAL_BYTES_IN_FLIGHT_MAX / 2;
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
        let index = self.replica.last().next();
        let proposed = self.propose(step, incarnation, Draft::vacuum(n_pages), None).is_ok();
        if proposed && let Some(queue) = self.queues.get_mut(&incarnation) {
            queue.give_back_at(index);
        }
        proposed
    }

    /// The database is damaged. What was proposed for it may or may not count elsewhere (R38).
    pub(super) fn on_fenced(&mut self, step: &mut Step<'_>, incarnation: Incarnation) {
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

    /// The last entry that no database needs any more, and no follower that can be reached (R24).
    pub(super) fn compactable(&self) -> LogIndex {
        let needed = self.queues.values().filter_map(Queue::needs_from).min();
        let free = needed.map_or_else(|| self.replica.handed_out(), LogIndex::previous);
        // A follower does not know what the others have: its leader's followers may need ours as well,
        // but then its own log is what they get.
        match self.replica.role() {
            Role::Leader => free.min(self.replica.matched_by_all()),
            Role::Follower | Role::Candidate => free.min(self.replica.committed()),
        }
    }

    /// The durable index of each database, for the manifest.
    pub(super) fn floors(&self) -> Vec<(Incarnation, Floor)> {
        self.queues.iter().map(|(id, queue)| (*id, queue.floor())).collect()
    }

    /// Keep the log no longer for databases that are fenced, if it is longer than `bytes_max` (R38).
    pub(super) fn let_go(&mut self, step: &mut Step<'_>, bytes_max: usize) {
        let bytes = self.replica.bytes();
        if bytes <= bytes_max {
            return;
        }
        for (incarnation, queue) in &mut self.queues {
            if queue.let_go() {
                let database = DatabaseId { partition: self.id, incarnation: *incarnation };
                step.out.push(Effect::LetGo { database, bytes });
            }
        }
    }

    /// Forget the log up to `index`.
    pub(super) fn compact(&mut self, step: &mut Step<'_>, index: LogIndex) {
        if index < self.replica.first() {
            return;
        }
        let term = self.replica.compact(index);
        step.ticket.0 += 1;
        let entry = EntryId { index, term };
        let records = vec![Record::Compacted { partition: self.id, entry }];
        step.out.push(Effect::Persist { ticket: *step.ticket, records });
    }

    /// Write the kept entries up to `last` again, so that the segments they stand in can go (R3).
    pub(super) fn rewrite(&mut self, step: &mut Step<'_>, last: LogIndex) {
        let mut records = Vec::new();
        let mut index = self.replica.first();
        while index <= last {
            let Some(entry) = self.replica.entry(index) else { break };
            let stamp = Command::decode(&entry.payload).map_or(Timestamp(0), |it| it.stamp.time);
            records.push(Record::Rewritten(record_of(self.id, entry, stamp)));
            index = index.next();
        }
        if !records.is_empty() {
            step.ticket.0 += 1;
            step.out.push(Effect::Persist { ticket: *step.ticket, records });
        }
    }

    /// Requests that wait for their command, and the bytes of those.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting_bytes)
    }

    /// Nobody will be answered any more: the node stops.
    pub(super) fn n_waiting(&self) -> usize {
        self.patient().count()
    }
}

fn record_of(partition: PartitionId, entry: raft::Entry, stamp: Timestamp) -> record::Entry {
    record::Entry {
        partition,
        term: entry.term,
        index: entry.index,
        kind: match entry.kind {
            raft::EntryKind::Command => 0,
            raft::EntryKind::Change => 1,
        },
        stamp,
        payload: entry.payload,
    }
}

fn election_time(now: Instant, dice: &mut Dice) -> Instant {
    let (min, max) = (limits::ELECTION_TIMEOUT_MIN, limits::ELECTION_TIMEOUT_MAX);
    let spread = max.saturating_sub(min).as_micros();
    let spread = u64::try_from(spread).expect("a short time");
    now.after(min + Duration::from_micros(dice.below(spread)))
}
