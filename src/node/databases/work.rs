//! Commands and reads on the databases of a core: here as far as they are short, else on a thread (R13).

use std::time::Duration;

use crate::disk::fail_stop;
use crate::disk::guard::guarded;
use crate::disk::stopwatch::Stopwatch;
use crate::disk::workers::ApplyTask;
use crate::limits;
use crate::node::clock::Clock;
use crate::node::databases::BUSY_MAX;
use crate::node::databases::Batch;
use crate::node::databases::Databases;
use crate::node::databases::NoRoom;
use crate::node::databases::Slot;
use crate::node::databases::Work;
use crate::node::databases::counts::Side;
use crate::node::databases::open::Open;
use crate::node::databases::path_in;
use crate::node::databases::refuse;
use crate::shard::event::Event;
use crate::shard::event::Token;
use crate::sql;
use crate::sql::Ask;
use crate::sql::Entry;
use crate::sql::Fault;
use crate::sql::Read;
use crate::sql::Rest;
use crate::sql::Share;
use crate::types::DatabaseId;
use crate::types::Instant;
use crate::types::LogIndex;
use bytes::Bytes;

/// What found no room on the disk and is tried again at once; the rest, a moment later.
const RETRIES_MAX: usize = 4;

/// What a core may take of one turn for one database, and for one command of it.
struct InlineShare {
    clock: Clock,
    batch_began: Option<Instant>,
    command_began: Instant,
    watch: Stopwatch,
}

impl InlineShare {
    fn new(clock: Clock, slow: Option<Duration>) -> Self {
        let watch = Stopwatch::new(slow);
        Self { clock, batch_began: None, command_began: Instant::START, watch }
    }

    /// Whether that is enough.
    fn ask(&mut self, ask: Ask) -> bool {
        let now = self.clock.now();
        match ask {
            Ask::Begin => {
                self.command_began = now;
                self.watch.on_begin(now);
                now.since(*self.batch_began.get_or_insert(now)) > limits::INLINE_BATCH_TIME
            }
            Ask::Tick => now.since(self.command_began) > limits::INLINE_COMMAND_TIME,
        }
    }

    /// The batch has ended. How long it took, from its first command on.
    fn end(&mut self) -> Duration {
        let now = self.clock.now();
        self.watch.on_end(now);
        self.batch_began.map_or(Duration::ZERO, |began| now.since(began))
    }
}

impl Databases {
    /// Run committed commands, now or when the database is here.
    pub(in crate::node) fn apply(
        &mut self,
        id: DatabaseId,
        commands: Vec<(LogIndex, Bytes)>,
        events: &mut Vec<Event>,
    ) {
        let entries = commands.into_iter().map(|(index, command)| Entry { index, command });
        let batch = Batch { entries: entries.collect() };
        self.work(id, Work::Apply(batch), events);
    }

    /// Read, at the end of this turn or when the database is here.
    pub(in crate::node) fn read(
        &mut self,
        id: DatabaseId,
        token: Token,
        command: Bytes,
        events: &mut Vec<Event>,
    ) {
        let is_here = matches!(self.slots.get(&id), Some(Slot::Open(Open { here: Some(_), .. })));
        if !is_here {
            return self.work(id, Work::Read(token, command), events);
        }
        self.read_here(id, token, command);
    }

    /// Gather the reads of a turn: those of a database share a transaction.
    fn read_here(&mut self, id: DatabaseId, token: Token, command: Bytes) {
        match self.reads.iter_mut().find(|(it, _)| *it == id) {
            Some((_, reads)) => reads.push((token, command)),
            None => self.reads.push((id, vec![(token, command)])),
        }
    }

    /// Whether reads wait for [`Self::run_reads`].
    pub(in crate::node) fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Run the reads of this turn, as far as they are short; those that are not go to a thread.
    pub(in crate::node) fn run_reads(&mut self, events: &mut Vec<Event>) {
        let clock = self.clock;
        for (id, reads) in std::mem::take(&mut self.reads) {
            let Some(Slot::Open(Open { here: Some(database), .. })) = self.slots.get_mut(&id)
            else {
                // It left in this very turn.
                for (token, command) in reads {
                    self.work(id, Work::Read(token, command), events);
                }
                continue;
            };
            let (tokens, commands): (Vec<_>, Vec<_>) = reads.into_iter().unzip();
            let mut share = InlineShare::new(clock, self.slow_statement);
            let ran = guarded(&self.stops, id, || {
                database.read_within(&commands, Share::Inline, &mut |it| share.ask(it))
            });
            if share.watch.is_wanted() {
                share.end();
            }
            match ran {
                Ok(ran) => {
                    let slow = share.watch.slow_reads(&commands, |nth| match ran.get(nth)? {
                        Read::Done(outcome) => Some(outcome),
                        Read::Later | Read::Long => None,
                    });
                    self.note_slow(id, Side::Core, slow);
                    for ((token, command), read) in tokens.into_iter().zip(commands).zip(ran) {
                        match read {
                            Read::Done(outcome) => {
                                self.counts.reads_here += 1;
                                events.push(Event::ReadFinished { database: id, token, outcome });
                            }
                            Read::Later => self.later.push((id, token, command)),
                            Read::Long => self.read_long(id, token, command, events),
                        }
                    }
                }
                Err(fault) => {
                    self.on_fault(id, fault, events);
                    for token in tokens {
                        refuse(id, Work::Read(token, Bytes::new()), events);
                    }
                }
            }
        }
    }

    pub(super) fn read_long(
        &mut self,
        id: DatabaseId,
        token: Token,
        command: Bytes,
        events: &mut Vec<Event>,
    ) {
        self.counts.reads_to_threads += 1;
        self.long_reads.push(self.clock.now(), id, token, command, events);
        self.start_long_reads();
    }

    pub(super) fn start_long_reads(&mut self) {
        let now = self.clock.now();
        let path_of = |id: DatabaseId| path_in(&self.dir, id);
        // One that begins now would keep the `-wal` from beginning anew.
        let is_held = |id: DatabaseId| matches!(self.slots.get(&id), Some(Slot::Open(it)) if it.waits_for_bound());
        while let Some(task) = self.long_reads.start(now, path_of, is_held) {
            self.workers.read(task);
        }
    }

    pub(super) fn work(&mut self, id: DatabaseId, work: Work, events: &mut Vec<Event>) {
        match self.slots.get_mut(&id) {
            Some(Slot::Open(open)) => match work {
                Work::Apply(batch) if open.is_ready() => {
                    self.apply_now(id, batch, events);
                }
                Work::Apply(batch) => {
                    assert!(open.batch.is_none(), "one batch of a database is under way");
                    open.batch = Some(batch);
                }
                Work::Read(token, command) if open.here.is_some() => {
                    self.read_here(id, token, command);
                }
                Work::Read(token, command) => self.read_long(id, token, command, events),
            },
            Some(Slot::Away(waiting)) => waiting.push(work),
            Some(Slot::Fenced) => refuse(id, work, events),
            None => {
                self.slots.insert(id, Slot::Away(vec![work]));
                self.to_open.push_back(id);
                self.open_next();
            }
        }
    }

    /// Run what is short of a batch; what is not goes to a thread, with the connection.
    pub(super) fn apply_now(&mut self, id: DatabaseId, batch: Batch, events: &mut Vec<Event>) {
        let Some(Slot::Open(Open { here: Some(database), .. })) = self.slots.get_mut(&id) else {
            unreachable!("a batch is applied where its database is");
        };
        let mut share = InlineShare::new(self.clock, self.slow_statement);
        let ran = guarded(&self.stops, id, || {
            database.apply_within(&batch.entries, Share::Inline, &mut |it| share.ask(it))
        });
        self.counts.apply_time += share.end();
        if let Ok(ran) = &ran {
            let slow = share.watch.slow_applies(&batch.entries, &ran.applied);
            self.note_slow(id, Side::Core, slow);
            self.counts.on_applied(&ran.applied, Side::Core);
        }
        self.on_applied(id, batch, ran, events);
    }

    /// A batch ran, here or on a thread, perhaps in part.
    pub(super) fn on_applied(
        &mut self,
        id: DatabaseId,
        mut batch: Batch,
        ran: Result<sql::Batch, Fault>,
        events: &mut Vec<Event>,
    ) {
        let sql::Batch { applied, rest, size } = match ran {
            Ok(it) => it,
            Err(fault) => return self.on_fault(id, fault, events),
        };
        self.sizes.set(id, size.bytes());
        if !applied.is_empty() {
            batch.entries.drain(..applied.len());
            if let Some(Slot::Open(open)) = self.slots.get_mut(&id) {
                open.n_busy = 0;
            }
            events.push(Event::Applied { database: id, applied, size });
        }
        match rest {
            Rest::None => {}
            Rest::Later => self.again.push((id, batch)),
            Rest::Busy => self.try_again(id, batch),
            Rest::NoRoom => self.no_room.push(NoRoom::Apply(id, batch)),
            Rest::Long => {
                let Some(Slot::Open(open)) = self.slots.get_mut(&id) else {
                    unreachable!("it was open a moment ago");
                };
                let database = open.here.take().expect("it was here a moment ago");
                open.wal_bytes_before = database.wal_bytes();
                let entries = batch.entries;
                self.counts.batches_to_threads += 1;
                self.workers.apply(ApplyTask { database: id, open: database, entries });
                return;
            }
        }
        self.checkpoint_if_due(id);
    }

    /// The lock was not to be had; nothing of the rest has run (R21).
    pub(super) fn try_again(&mut self, id: DatabaseId, batch: Batch) {
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else {
            unreachable!("it was open a moment ago");
        };
        open.n_busy += 1;
        if open.n_busy >= BUSY_MAX {
            fail_stop("apply a command", &"the database stays locked");
        }
        self.again.push((id, batch));
    }

    /// Whether something waits for the next turn.
    pub(in crate::node) fn has_work(&self) -> bool {
        !self.again.is_empty() || !self.later.is_empty() || !self.reads.is_empty()
    }

    /// Go on with what was left in an earlier turn.
    pub(in crate::node) fn go_on(&mut self, events: &mut Vec<Event>) {
        for (id, batch) in std::mem::take(&mut self.again) {
            self.work(id, Work::Apply(batch), events);
        }
        for (id, token, command) in std::mem::take(&mut self.later) {
            self.read(id, token, command, events);
        }
    }

    /// Try again what found no room on the disk a while ago.
    pub(super) fn retry_for_room(&mut self, events: &mut Vec<Event>) {
        // A few at a time: each that fails again costs its connection.
        let n = self.no_room.len().min(RETRIES_MAX);
        for it in self.no_room.drain(..n).collect::<Vec<_>>() {
            match it {
                NoRoom::Apply(id, batch) => self.work(id, Work::Apply(batch), events),
                NoRoom::Open(id) => self.open(id),
            }
        }
    }

    pub(super) fn resume_batch(&mut self, id: DatabaseId, events: &mut Vec<Event>) {
        if let Some(Slot::Open(open)) = self.slots.get_mut(&id)
            && open.is_ready()
            && let Some(batch) = open.batch.take()
        {
            self.work(id, Work::Apply(batch), events);
        }
    }
}
