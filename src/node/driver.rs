//! One core's loop: gather events, step the state machine, do what it wants, in order.
//!
//! A turn takes everything that has come in, steps it, and hands over the effects before the next turn.
//! Handing over is submitting: the log writer, the helper thread and other cores report back with events.
//! Applying and reading run here as far as they are short. A panic in the state machine ends the process: a core that broke its own
//! promise answers nobody.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::time::Duration;

use tracing::error;
use tracing::warn;

use crate::disk::fail_stop;
use crate::disk::log::LogWriter;
use crate::gateway::stamps::Stamps;
use crate::limits;
use crate::node::clock::Clock;
use crate::node::databases::Databases;
use crate::node::mail::Back;
use crate::node::mail::Mail;
use crate::node::mesh::Mesh;
use crate::node::metrics::CoreCounts;
use crate::node::slow::SlowLog;
use crate::node::timer::Timer;
use crate::node::turns;
use crate::node::turns::Turns;
use crate::observe::histogram::Histogram;
use crate::shard::Shard;
use crate::shard::event::Effect;
use crate::shard::event::Event;
use crate::shard::event::Ticket;
use crate::shard::request::Status;
use crate::types::Instant;
use crate::wal::record::Lsn;

/// Rounds of events that follow from one another in a turn, before other tasks get their share.
const ROUNDS_MAX: usize = 8;
/// How often the state machine is told the time of day.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// One core's state machine and the world around it.
pub(super) struct Driver {
    shard: Shard,
    databases: Databases,
    mesh: Rc<Mesh>,
    log: LogWriter,
    clock: Clock,
    timer: Timer,
    turns: Turns,
    /// The time of the requests that this loop answers.
    stamps: Rc<Stamps>,
    slow_log: SlowLog,
    /// Batches of the log that are being written, and the last ticket in each.
    unpersisted: VecDeque<(Lsn, Ticket)>,
    told_time_at: Instant,
    events: Vec<Event>,
    effects: Vec<Effect>,
}

impl Driver {
    pub(super) fn new(
        shard: Shard,
        databases: Databases,
        mesh: Rc<Mesh>,
        log: LogWriter,
        clock: Clock,
        stamps: Rc<Stamps>,
    ) -> Self {
        let timer = Timer::new(Rc::clone(&mesh));
        Self {
            shard,
            databases,
            mesh,
            log,
            clock,
            timer,
            turns: Turns::new(),
            stamps,
            slow_log: SlowLog::default(),
            unpersisted: VecDeque::new(),
            told_time_at: clock.now(),
            events: vec![Event::Start],
            effects: Vec::new(),
        }
    }

    /// Whether all that came in has been answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.events.is_empty() && self.shard.is_quiet() && !self.mesh.has_answers()
    }

    /// Tell the state machine what the log has on disk.
    fn look_at_log(&mut self) {
        let durable = self.log.durable();
        let mut last = None;
        while let Some((_, ticket)) = self.unpersisted.pop_front_if(|(lsn, _)| *lsn <= durable) {
            last = Some(ticket);
        }
        self.events.extend(last.map(|ticket| Event::Persisted { ticket }));
    }

    /// The log, once the loop has ended, and how long the turns took.
    pub(super) fn into_parts(self) -> (LogWriter, Turns) {
        (self.log, self.turns)
    }

    /// What this core has counted, but for its server and its gateway.
    pub(super) fn counts(&self) -> CoreCounts {
        let micros = |it: &hdrhistogram::Histogram<u64>, first| Histogram::of(it, first);
        let (batch_records, write_us, written_bytes) = self.log.with_stats(|it| {
            let records = micros(&it.batch_records, 0);
            (records, micros(&it.write_us, 4), it.written_bytes)
        });
        CoreCounts {
            status: self.status(),
            load: self.shard.load(),
            databases: self.databases.present(),
            turn_us: micros(&self.turns.wall_us, 0).with_sum_of(self.turns.wall),
            turn_cpu_us: micros(&self.turns.cpu_us, 0).with_sum_of(self.turns.cpu),
            batch_records,
            write_us,
            written_bytes,
            log_live_bytes: self.log.live_bytes(),
            log_disk_bytes: self.log.disk_bytes(),
        }
    }

    fn status(&self) -> Status {
        let mut status = self.shard.status();
        status.database_bytes = self.databases.bytes();
        status.n_fenced = u32::try_from(self.databases.n_fenced()).unwrap_or(u32::MAX);
        status.is_log_stuck = self.log.lacks_room();
        status.is_stopping = self.mesh.is_draining();
        status
    }

    /// One piece of mail for this core.
    pub(super) fn on_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Event(event) => self.events.push(event),
            Mail::Reply { token, back } => self.mesh.on_reply(token, back),
            Mail::AskStatus { token } => {
                let status = self.status();
                self.mesh.reply(token, Back::Status(status));
            }
            Mail::AskPass { token, key } => {
                let result = self.mesh.pass_here(key);
                self.mesh.reply(token, Back::Pass(result));
            }
            Mail::Catalog(row) => self.mesh.catalog.borrow_mut().fold(row),
            Mail::Done(done) => self.databases.on_done(done, &mut self.events),
            Mail::Connection(_)
            | Mail::Connections { .. }
            | Mail::AskMetrics { .. }
            | Mail::Drain
            | Mail::Exit => {
                unreachable!("these are for the core's main task")
            }
        }
    }

    /// One turn: everything that waits, and what follows from it.
    pub(super) fn turn(&mut self) {
        let (began, cpu_before) = (self.clock.now(), turns::cpu_time());
        self.stamps.on_turn();
        self.take_turn(began);
        let cpu = turns::cpu_time().saturating_sub(cpu_before);
        let ended = self.clock.now();
        self.turns.record(ended.since(began), cpu);
        self.stamps.on_answers(self.clock.moment(ended));
    }

    fn take_turn(&mut self, now: Instant) {
        if now.since(self.told_time_at) >= CLOCK_INTERVAL {
            self.told_time_at = now;
            self.events.insert(0, Event::Clock { wall: Clock::wall() });
        }
        self.look_at_log();
        self.databases.go_on(&mut self.events);
        self.databases.on_timeout(now, &mut self.events);
        for _ in 0..ROUNDS_MAX {
            self.mesh.take_inbox(&mut self.events);
            if self.events.is_empty() && !self.databases.has_reads() {
                break;
            }
            if self.clock.now().since(now) > limits::TURN_TIME {
                break;
            }
            self.round(now);
        }
        // Last: what the disk and the others have brought may be what somebody waits for.
        let now = self.clock.now();
        if self.events.is_empty() && self.shard.next_timeout().is_some_and(|at| at <= now) {
            self.events.push(Event::Timeout);
            self.round(now);
        }
        if !self.events.is_empty() || self.databases.has_work() {
            self.mesh.wake();
        }
        if self.databases.has_slow() {
            self.tell_slow(now);
        }
        self.mesh.wake_some();
        self.mesh.flush();
        let timeouts = [self.shard.next_timeout(), self.databases.next_timeout()];
        self.timer.arm(timeouts.into_iter().flatten().min(), now);
    }

    /// Log what took long.
    fn tell_slow(&mut self, now: Instant) {
        let catalog = self.mesh.catalog.borrow();
        for (id, side, slow) in self.databases.take_slow() {
            self.slow_log.tell(now, &catalog, id, side, &slow);
        }
    }

    fn round(&mut self, now: Instant) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.step(now, event);
        }
        self.step(now, Event::TurnEnd);
        self.events = events;
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
        self.databases.run_reads(&mut self.events);
        self.rewrite_what_lags();
    }

    fn step(&mut self, now: Instant, event: Event) {
        let (shard, effects) = (&mut self.shard, &mut self.effects);
        let step = AssertUnwindSafe(|| shard.step(now, event, effects));
        if catch_unwind(step).is_err() {
            // The panic hook has said what and where.
            std::process::abort();
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            // One replica: there is nobody to tell.
            Effect::Send { .. } => {}
            Effect::Persist { ticket, records } => {
                let lsn = self.log.stage(&records);
                match self.unpersisted.back_mut() {
                    Some((last, it)) if *last == lsn => *it = ticket,
                    _ => self.unpersisted.push_back((lsn, ticket)),
                }
            }
            Effect::Apply { database, commands } => {
                self.databases.apply(database, commands, &mut self.events);
            }
            Effect::Read { token, database, command } => {
                self.databases.read(database, token, command, &mut self.events);
            }
            Effect::Reply { token, result } => self.mesh.reply(token, Back::Answer(result)),
            Effect::Ask { namespace, database } => self.mesh.create_database(database, namespace),
            Effect::CatalogChanged { row } => {
                self.mesh.post_to_others(|| Mail::Catalog(row.clone()));
                self.mesh.catalog.borrow_mut().fold(row);
            }
            Effect::Sync { databases } => self.databases.sync(&databases),
            Effect::WriteManifests { floors } => self.databases.write_manifests(floors),
            Effect::LetGo { database, bytes } => warn!(
                partition = database.partition.0,
                incarnation = database.incarnation.0,
                bytes,
                "the log no longer keeps what a fenced database lacks: limits.fence_log_bytes"
            ),
            Effect::Checkpoint { database } => self.databases.checkpoint(database),
            Effect::Evict { database } => self.databases.evict(database, &mut self.events),
            Effect::Stop { reason } => fail_stop("go on", &reason),
        }
    }

    /// Entries that pin an old segment are written again, so that the segment can be used again (R3).
    fn rewrite_what_lags(&mut self) {
        for (partition, lagging) in self.log.lagging() {
            self.events.push(Event::Lagging { partition, last: *lagging.end() });
        }
    }
}

/// The loop. Ends when `until` says so at the end of a turn.
pub(super) async fn run(driver: Rc<RefCell<Driver>>, mesh: Rc<Mesh>, until: impl Fn() -> bool) {
    while !until() {
        mesh.asleep().await;
        // Whatever else can run now may have something for this turn.
        futures_lite::future::yield_now().await;
        driver.borrow_mut().turn();
    }
    if !driver.borrow().is_quiet() {
        error!("stopped while requests were waiting");
    }
}
