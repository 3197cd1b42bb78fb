//! The databases of one core, as its driver runs them: what is open, what waits for the helper thread.
//!
//! ```text
//! absent ──Job::Open──► opening ──► open ──Effect::Evict──► closing ──► absent
//! open:  here ──a long command──► on a thread ──Done::Ran──► here
//!        idle ──wal large──► checkpointing ──► parked (nothing is applied) ──► idle
//!        wal at its bound ──► parked until a checkpoint has ended ──too late──► writes are refused
//! ```
//!
//! While a database is not open, what is to be done with it waits in order. Commands and reads are tried
//! on the core, where they may take a moment (R13); those that are long move to a thread. While its
//! connection is there, a database's commands wait, and its reads run on threads, too.

mod checkpoints;
pub(super) mod counts;
mod open;
mod opening;
mod retries;
mod work;

use std::collections::VecDeque;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tracing::error;

use crate::disk::fail_stop;
use crate::disk::helper::Done;
use crate::disk::helper::Helper;
use crate::disk::helper::Job;
use crate::disk::stops::Stops;
use crate::disk::stopwatch::Slow;
use crate::disk::workers::Times;
use crate::disk::workers::Workers;
use crate::limits;
use crate::node::clock::Clock;
use crate::node::databases::counts::Counts;
use crate::node::databases::counts::Side;
use crate::node::databases::counts::Sizes;
use crate::node::databases::open::Open;
use crate::node::databases::open::WalBounds;
use crate::node::databases::retries::Retries;
use crate::node::long_reads::LongReads;
use crate::shard::event::Event;
use crate::shard::event::Token;
use crate::sql::Database;
use crate::sql::Entry;
use crate::sql::Fault;
use crate::sql::LongRead;
use crate::types::DatabaseId;
use crate::types::Floor;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::wire::rows::StatementError;

/// How often in a row a database may be found locked (R21).
const BUSY_MAX: u32 = 10;

/// What waits for a database.
#[derive(Debug)]
enum Work {
    Apply(Batch),
    Read(Token, Bytes),
}

/// What is left of the commands of one `Apply`.
#[derive(Debug)]
struct Batch {
    entries: Vec<Entry>,
}

/// What waits for room on the disk (R35).
#[derive(Debug)]
enum NoRoom {
    /// Commands that were not applied.
    Apply(DatabaseId, Batch),
    /// A database that was not opened.
    Open(DatabaseId),
}

impl NoRoom {
    fn database(&self) -> DatabaseId {
        match self {
            Self::Apply(id, _) | Self::Open(id) => *id,
        }
    }
}

#[derive(Debug)]
enum Slot {
    /// The helper thread has it, or is about to.
    Away(Vec<Work>),
    /// It is open.
    Open(Open),
    /// Damaged.
    Fenced,
}

/// All databases of a core.
pub(super) struct Databases {
    dir: PathBuf,
    slots: FxHashMap<DatabaseId, Slot>,
    floors: FxHashMap<DatabaseId, LogIndex>,
    /// Reads of this turn, by database: they share a transaction.
    reads: Vec<(DatabaseId, Vec<(Token, Bytes)>)>,
    /// What waits to be opened, first come, first served.
    to_open: VecDeque<DatabaseId>,
    /// Open, or being opened or closed; and how many that may be.
    n_present: usize,
    present_max: usize,
    /// What found its database locked, or has had its share of this turn.
    again: Vec<(DatabaseId, Batch)>,
    /// Reads that this turn had no time for.
    later: Vec<(DatabaseId, Token, Bytes)>,
    /// What found no room on the disk, and when it is tried again.
    no_room: Vec<NoRoom>,
    retry_at: Option<Instant>,
    /// What could not begin a `-wal` anew.
    retries: Retries,
    long_reads: LongReads,
    wal_bounds: WalBounds,
    /// Databases whose commands wait until their `-wal` keeps its bound, and until when; soonest first. Each is there
    /// once at most, and leaves a moment after it was closed.
    bound_waits: VecDeque<(Instant, DatabaseId)>,
    clock: Clock,
    helper: Helper,
    workers: Workers,
    /// Where it is written at what the process had to stop.
    stops: Stops,
    /// As of each one's last commit, or as it was found.
    sizes: Sizes,
    n_fenced: usize,
    counts: Counts,
    /// How long a statement takes that is told of.
    slow_statement: Option<Duration>,
    /// What took as long, and has not been told yet.
    slow: Vec<(DatabaseId, Side, Slow)>,
}

/// The directory of a partition's databases. The generation changes with a snapshot that is received.
pub(super) fn partition_dir(database_dir: &Path, partition: PartitionId) -> PathBuf {
    database_dir.join("partitions").join(partition.to_string()).join("1")
}

fn path_in(database_dir: &Path, id: DatabaseId) -> PathBuf {
    partition_dir(database_dir, id.partition).join(format!("{}.db", id.incarnation))
}

impl Drop for Databases {
    fn drop(&mut self) {
        // What nothing counts would be waited for otherwise.
        self.long_reads.stop_all();
    }
}

/// The threads that work for a core's databases.
pub(super) struct Threads {
    pub(super) helper: Helper,
    pub(super) workers: Workers,
}

impl Databases {
    pub(super) fn new(
        dir: PathBuf,
        floors: FxHashMap<DatabaseId, LogIndex>,
        bytes: FxHashMap<DatabaseId, u64>,
        present_max: usize,
        times: Times,
        clock: Clock,
        threads: Threads,
    ) -> Self {
        let Threads { helper, workers } = threads;
        Self {
            stops: Stops::of(&dir),
            dir,
            slots: FxHashMap::default(),
            floors,
            reads: Vec::new(),
            to_open: VecDeque::new(),
            n_present: 0,
            present_max,
            again: Vec::new(),
            later: Vec::new(),
            no_room: Vec::new(),
            retry_at: None,
            retries: Retries::default(),
            long_reads: LongReads::new(times.statement),
            wal_bounds: WalBounds::up_to(limits::WAL_BYTES_MAX),
            bound_waits: VecDeque::new(),
            clock,
            helper,
            workers,
            sizes: Sizes::new(bytes),
            n_fenced: 0,
            counts: Counts::default(),
            slow_statement: times.slow_statement,
            slow: Vec::new(),
        }
    }

    /// Stop readers that keep a `-wal` from starting anew when it has so many bytes.
    pub(super) fn bound_wal(&mut self, bytes: u64) {
        self.wal_bounds = WalBounds::up_to(bytes);
    }

    fn path(&self, id: DatabaseId) -> PathBuf {
        path_in(&self.dir, id)
    }

    /// A database that boot has opened already.
    pub(super) fn insert(&mut self, id: DatabaseId, database: Database) {
        self.sizes.set(id, database.size().bytes());
        self.slots.insert(id, Slot::Open(Open::new(Box::new(database), self.wal_bounds)));
        self.n_present += 1;
    }

    /// Bytes of all databases, open or not.
    pub(super) fn bytes(&self) -> u64 {
        self.sizes.sum()
    }

    /// A database that was damaged in an earlier life.
    pub(super) fn fence(&mut self, id: DatabaseId) {
        self.slots.insert(id, Slot::Fenced);
        self.n_fenced += 1;
    }

    /// Databases that are damaged.
    pub(super) fn n_fenced(&self) -> usize {
        self.n_fenced
    }

    /// When [`Self::on_timeout`] has something to do.
    pub(super) fn next_timeout(&mut self) -> Option<Instant> {
        if !self.no_room.is_empty() && self.retry_at.is_none() {
            self.retry_at = Some(self.clock.now().after(limits::ROOM_RETRY));
        }
        let bound_wait = self.bound_waits.front().map(|(at, _)| *at);
        let retry = self.retries.next_timeout();
        let reads = self.long_reads.next_timeout();
        [reads, self.retry_at, retry, bound_wait].into_iter().flatten().min()
    }

    /// Stop reads that run too long, refuse those that have waited too long for a thread; try again what found
    /// no room, and checkpoints; refuse writes where the `-wal` has been too long for too long.
    pub(super) fn on_timeout(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.long_reads.next_timeout().is_some_and(|at| at <= now) {
            self.long_reads.on_timeout(now, events);
        }
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.retry_for_room(events);
        }
        for id in self.retries.take_due(now) {
            self.checkpoint_again(id);
        }
        while let Some((at, id)) = self.bound_waits.pop_front_if(|(at, _)| *at <= now) {
            self.on_bound_wait(id, at, events);
        }
    }

    /// The file is damaged, which concerns its namespace only; or the machine is, which ends the process.
    fn on_fault(&mut self, id: DatabaseId, fault: Fault, events: &mut Vec<Event>) {
        match fault {
            Fault::Fence(cause) if id.incarnation == Incarnation::ENGINE => {
                fail_stop("use a partition's own database", &cause);
            }
            // Another connection has found it before.
            Fault::Fence(_) if matches!(self.slots.get(&id), Some(Slot::Fenced)) => {}
            Fault::Fence(cause) => {
                error!(
                    partition = id.partition.0,
                    incarnation = id.incarnation.0,
                    cause,
                    "database is damaged; it is fenced"
                );
                self.fence(id);
                self.no_room.retain(|it| it.database() != id);
                self.retries.end(id, self.clock.now());
                for reader in self.long_reads.fence(id, events) {
                    self.helper.give(Job::Close { reader: Box::new(reader) });
                }
                self.leave();
                events.push(Event::Fenced { database: id });
            }
            // That there is no room is dealt with where it is met.
            Fault::Stop(cause) | Fault::NoRoom(cause) => fail_stop("use a database", &cause),
        }
    }

    /// Sync these; those that are not open have nothing to sync.
    pub(super) fn sync(&self, ids: &[DatabaseId]) {
        self.helper.give(Job::Sync { paths: ids.iter().map(|id| self.path(*id)).collect() });
    }

    /// Write the floors of each partition.
    pub(super) fn write_manifests(
        &mut self,
        floors: Vec<(PartitionId, Vec<(Incarnation, Floor)>)>,
    ) {
        for (partition, floors) in &floors {
            for (incarnation, floor) in floors {
                let id = DatabaseId { partition: *partition, incarnation: *incarnation };
                self.floors.insert(id, floor.index);
            }
        }
        let with_dir =
            floors.into_iter().map(|(id, floors)| (partition_dir(&self.dir, id), floors));
        self.helper.give(Job::WriteManifests { manifests: with_dir.collect() });
    }

    /// The helper thread is done with something.
    pub(super) fn on_done(&mut self, done: Done, events: &mut Vec<Event>) {
        match done {
            Done::Synced => events.push(Event::Synced),
            Done::ManifestsWritten => events.push(Event::ManifestsWritten),
            Done::ManifestsNotWritten => events.push(Event::ManifestsNotWritten),
            Done::Opened { database: id, result } => {
                let Some(Slot::Away(waiting)) = self.slots.remove(&id) else {
                    unreachable!("a database is opened while it is away");
                };
                match result {
                    Err(failure) if failure.lacks_room() => {
                        return self.open_later(id, waiting, events);
                    }
                    Ok(database) => {
                        self.sizes.set(id, database.size().bytes());
                        self.slots.insert(id, Slot::Open(Open::new(database, self.wal_bounds)));
                    }
                    // The engine's own database, or the machine: this process cannot go on (R15).
                    Err(failure)
                        if !failure.is_damage() || id.incarnation == Incarnation::ENGINE =>
                    {
                        fail_stop("open a database", &failure);
                    }
                    Err(failure) => {
                        error!(
                            partition = id.partition.0,
                            incarnation = id.incarnation.0,
                            error = &failure as &dyn std::error::Error,
                            "database cannot be used; it is fenced"
                        );
                        self.fence(id);
                        self.leave();
                        events.push(Event::Fenced { database: id });
                    }
                }
                self.resume(id, waiting, events);
            }
            // It may have been evicted meanwhile, which checkpoints as well.
            Done::Checkpointed { database: id } => {
                self.on_first_pass(id);
            }
            Done::CheckpointFinished { database: id, moved, wal_bytes } => {
                self.on_checkpointed(id, moved, wal_bytes, events);
            }
            Done::Ran { database: id, open: database, entries, result, slow } => {
                self.note_slow(id, Side::Thread, slow);
                let Some(Slot::Open(open)) = self.slots.get_mut(&id) else {
                    // Fenced by what a reader found meanwhile. A sick machine is another matter.
                    if let Err(Fault::Stop(cause)) = result {
                        fail_stop("use a database", &cause);
                    }
                    return;
                };
                open.here = Some(database);
                if let Ok(ran) = &result {
                    self.counts.on_applied(&ran.applied, Side::Thread);
                }
                self.on_applied(id, Batch { entries }, result, events);
                self.finish_checkpoint_if_due(id);
                self.resume_batch(id, events);
            }
            Done::Read { database: id, token, reader, result, slow } => {
                self.note_slow(id, Side::Thread, slow);
                if let Some(reader) = self.long_reads.on_read(id, token, reader) {
                    self.helper.give(Job::Close { reader });
                }
                match result {
                    Ok(LongRead { outcome, learned, .. }) => {
                        if let Some(text) = learned
                            && let Some(Slot::Open(Open { here: Some(database), .. })) =
                                self.slots.get_mut(&id)
                        {
                            database.learn(text);
                        }
                        events.push(Event::ReadFinished { database: id, token, outcome });
                        self.on_reader_gone(id);
                    }
                    Err(fault) => {
                        self.on_fault(id, fault, events);
                        refuse(id, Work::Read(token, Bytes::new()), events);
                    }
                }
                self.start_long_reads();
            }
            Done::Evicted { database: id } => {
                let Some(Slot::Away(waiting)) = self.slots.remove(&id) else {
                    unreachable!("a database is closed while it is away");
                };
                self.leave();
                events.push(Event::Evicted { database: id });
                self.resume(id, waiting, events);
            }
        }
    }

    fn note_slow(&mut self, id: DatabaseId, side: Side, slow: Vec<Slow>) {
        self.slow.extend(slow.into_iter().map(|it| (id, side, it)));
    }

    /// Whether something took long that has not been told yet.
    pub(super) fn has_slow(&self) -> bool {
        !self.slow.is_empty()
    }

    /// What took long since this was last asked.
    pub(super) fn take_slow(&mut self) -> Vec<(DatabaseId, Side, Slow)> {
        std::mem::take(&mut self.slow)
    }

    fn resume(&mut self, id: DatabaseId, work: Vec<Work>, events: &mut Vec<Event>) {
        for it in work {
            self.work(id, it, events);
        }
    }
}

fn refuse(id: DatabaseId, work: Work, events: &mut Vec<Event>) {
    match work {
        // The core has fenced the queue, or is about to.
        Work::Apply(_) => events.push(Event::Fenced { database: id }),
        Work::Read(token, _) => {
            let error =
                StatementError::coded("fenced", "namespace is fenced: its database is damaged");
            events.push(Event::ReadFinished { database: id, token, outcome: Err(error) });
        }
    }
}
