//! The databases of one core, as its driver runs them: what is open, what waits for the helper thread.
//!
//! ```text
//! absent ──Job::Open──► opening ──► open ──wal large──► checkpointing ──► parked ──► open
//!                                    └──Effect::Evict──► closing ──► absent
//! ```
//!
//! While a database is not open, what is to be done with it waits in order. Applying and reading run on
//! the core; everything that may take long is a [`Job`].

use std::collections::VecDeque;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tracing::error;

use crate::catalog;
use crate::disk::fail_stop;
use crate::disk::guard::guarded;
use crate::disk::helper::Done;
use crate::disk::helper::Helper;
use crate::disk::helper::Job;
use crate::disk::stops::Stops;
use crate::shard::event::Event;
use crate::shard::event::Token;
use crate::sql::Applied;
use crate::sql::Ask;
use crate::sql::Database;
use crate::sql::Entry;
use crate::sql::Fault;
use crate::sql::Rest;
use crate::types::DatabaseId;
use crate::types::Floor;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::wire::rows::StatementError;

/// Bytes of a `-wal` at which it is checkpointed.
const WAL_BYTES_MAX: u64 = 8 << 20;

/// How often in a row a database may be found locked (R21).
const BUSY_MAX: u32 = 10;

/// Anybody may ask for the sizes, and asking every database takes a while.
const SIZES_AGE_MAX: Duration = Duration::from_secs(1);

/// What waits for a database.
#[derive(Debug)]
enum Work {
    Apply(Batch),
    Read(Token, Bytes),
}

/// Commands of one `Apply`, and how far they are.
#[derive(Debug)]
struct Batch {
    entries: Vec<Entry>,
    applied: Vec<Applied>,
    /// How often in a row the lock was not to be had.
    n_busy: u32,
}

#[derive(Debug)]
enum Slot {
    /// The helper thread has it, or is about to.
    Away(Vec<Work>),
    /// It is here.
    Open { database: Box<Database>, is_checkpointing: bool },
    /// It is here, but must not be written to.
    Parked { database: Box<Database>, work: Vec<Work> },
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
    /// What found its database locked.
    busy: Vec<(DatabaseId, Batch)>,
    helper: Helper,
    /// Where it is written at what the process had to stop.
    stops: Stops,
    /// Bytes of each database file that was ever open here.
    bytes: FxHashMap<DatabaseId, u64>,
    /// When the open ones were asked last.
    sized_at: Option<Instant>,
}

/// The directory of a partition's databases. The generation changes with a snapshot that is received.
pub(super) fn partition_dir(database_dir: &Path, partition: PartitionId) -> PathBuf {
    database_dir.join("partitions").join(partition.to_string()).join("1")
}

impl Databases {
    pub(super) fn new(
        dir: PathBuf,
        floors: FxHashMap<DatabaseId, LogIndex>,
        bytes: FxHashMap<DatabaseId, u64>,
        present_max: usize,
        helper: Helper,
    ) -> Self {
        Self {
            stops: Stops::of(&dir),
            dir,
            slots: FxHashMap::default(),
            floors,
            reads: Vec::new(),
            to_open: VecDeque::new(),
            n_present: 0,
            present_max,
            busy: Vec::new(),
            helper,
            bytes,
            sized_at: None,
        }
    }

    fn path(&self, id: DatabaseId) -> PathBuf {
        partition_dir(&self.dir, id.partition).join(format!("{}.db", id.incarnation))
    }

    /// A database that boot has opened already.
    pub(super) fn insert(&mut self, id: DatabaseId, database: Database) {
        let slot = Slot::Open { database: Box::new(database), is_checkpointing: false };
        self.slots.insert(id, slot);
        self.n_present += 1;
    }

    /// Bytes of all databases, at most a second old. Those that are not open have the size they had.
    pub(super) fn bytes(&mut self, now: Instant) -> u64 {
        if self.sized_at.is_none_or(|at| now.since(at) >= SIZES_AGE_MAX) {
            self.sized_at = Some(now);
            for (id, slot) in &mut self.slots {
                if let Slot::Open { database, .. } | Slot::Parked { database, .. } = slot
                    && let Ok(bytes) = database.size_bytes()
                {
                    self.bytes.insert(*id, bytes);
                }
            }
        }
        self.bytes.values().sum()
    }

    /// A database that was damaged in an earlier life.
    pub(super) fn fence(&mut self, id: DatabaseId) {
        self.slots.insert(id, Slot::Fenced);
    }

    /// Run committed commands, now or when the database is here.
    pub(super) fn apply(
        &mut self,
        id: DatabaseId,
        commands: Vec<(LogIndex, Bytes)>,
        events: &mut Vec<Event>,
    ) {
        let entries = commands.into_iter().map(|(index, command)| Entry { index, command });
        let batch = Batch { entries: entries.collect(), applied: Vec::new(), n_busy: 0 };
        self.work(id, Work::Apply(batch), events);
    }

    /// Read, at the end of this turn or when the database is here.
    pub(super) fn read(
        &mut self,
        id: DatabaseId,
        token: Token,
        command: Bytes,
        events: &mut Vec<Event>,
    ) {
        let is_here = matches!(self.slots.get(&id), Some(Slot::Open { .. } | Slot::Parked { .. }));
        if !is_here {
            return self.work(id, Work::Read(token, command), events);
        }
        match self.reads.iter_mut().find(|(it, _)| *it == id) {
            Some((_, reads)) => reads.push((token, command)),
            None => self.reads.push((id, vec![(token, command)])),
        }
    }

    /// Whether reads wait for [`Self::run_reads`].
    pub(super) fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Run the reads of this turn.
    pub(super) fn run_reads(
        &mut self,
        expired: &mut dyn FnMut(Ask) -> bool,
        events: &mut Vec<Event>,
    ) {
        for (id, reads) in std::mem::take(&mut self.reads) {
            match self.slots.get_mut(&id) {
                Some(Slot::Open { database, .. } | Slot::Parked { database, .. }) => {
                    let (tokens, commands): (Vec<_>, Vec<_>) = reads.into_iter().unzip();
                    match guarded(&self.stops, id, || database.read(&commands, expired)) {
                        Ok(outcomes) => {
                            let answers = tokens.into_iter().zip(outcomes);
                            events.extend(answers.map(|(token, outcome)| Event::ReadFinished {
                                database: id,
                                token,
                                outcome,
                            }));
                        }
                        Err(fault) => {
                            self.on_fault(id, fault, events);
                            for token in tokens {
                                refuse(id, Work::Read(token, Bytes::new()), events);
                            }
                        }
                    }
                }
                // It left in this very turn.
                _ => {
                    for (token, command) in reads {
                        self.work(id, Work::Read(token, command), events);
                    }
                }
            }
        }
    }

    fn work(&mut self, id: DatabaseId, work: Work, events: &mut Vec<Event>) {
        match self.slots.get_mut(&id) {
            Some(Slot::Open { .. }) => match work {
                Work::Apply(batch) => self.apply_now(id, batch, events),
                Work::Read(token, command) => self.reads.push((id, vec![(token, command)])),
            },
            Some(Slot::Parked { work: waiting, .. } | Slot::Away(waiting)) => waiting.push(work),
            Some(Slot::Fenced) => refuse(id, work, events),
            None => {
                self.slots.insert(id, Slot::Away(vec![work]));
                self.to_open.push_back(id);
                self.open_next();
            }
        }
    }

    /// Open what waits, as long as not too many are open; closing one makes room for the next.
    fn open_next(&mut self) {
        while self.n_present < self.present_max
            && let Some(id) = self.to_open.pop_front()
        {
            self.n_present += 1;
            let floor = self.floors.get(&id).copied().unwrap_or_default();
            let is_engine = id.incarnation == Incarnation::ENGINE;
            let schema = if is_engine { catalog::ENGINE_SCHEMA } else { "" };
            self.helper.give(Job::Open { database: id, path: self.path(id), floor, schema });
        }
    }

    fn apply_now(&mut self, id: DatabaseId, mut batch: Batch, events: &mut Vec<Event>) {
        let Some(Slot::Open { database, .. }) = self.slots.get_mut(&id) else { return };
        let n_done = batch.applied.len();
        let ran = guarded(&self.stops, id, || database.apply(&batch.entries[n_done..]));
        match ran {
            Err(fault) => self.on_fault(id, fault, events),
            Ok(ran) => {
                batch.applied.extend(ran.applied);
                match ran.rest {
                    Rest::Busy => self.try_again(id, batch),
                    Rest::None | Rest::Long => {
                        let (applied, size) = (batch.applied, ran.size);
                        events.push(Event::Applied { database: id, applied, size });
                        self.checkpoint_if_due(id);
                    }
                }
            }
        }
    }

    /// The lock was not to be had; nothing of the rest has run (R21).
    fn try_again(&mut self, id: DatabaseId, mut batch: Batch) {
        batch.n_busy += 1;
        if batch.n_busy >= BUSY_MAX {
            fail_stop("apply a command", &"the database stays locked");
        }
        self.busy.push((id, batch));
    }

    /// Whether something waits for the next turn.
    pub(super) fn has_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Try again what found its database locked in an earlier turn.
    pub(super) fn retry_busy(&mut self, events: &mut Vec<Event>) {
        for (id, batch) in std::mem::take(&mut self.busy) {
            self.work(id, Work::Apply(batch), events);
        }
    }

    fn checkpoint_if_due(&mut self, id: DatabaseId) {
        let path = self.path(id);
        let Some(Slot::Open { database, is_checkpointing }) = self.slots.get_mut(&id) else {
            return;
        };
        if !*is_checkpointing && database.wal_bytes() > WAL_BYTES_MAX {
            *is_checkpointing = true;
            self.helper.give(Job::Checkpoint { database: id, path });
        }
    }

    /// The file is damaged, which concerns its namespace only; or the machine is, which ends the process.
    fn on_fault(&mut self, id: DatabaseId, fault: Fault, events: &mut Vec<Event>) {
        match fault {
            Fault::Fence(cause) if id.incarnation == Incarnation::ENGINE => {
                fail_stop("use a partition's own database", &cause);
            }
            Fault::Fence(cause) => {
                error!(
                    partition = id.partition.0,
                    incarnation = id.incarnation.0,
                    cause,
                    "database is damaged; it is fenced"
                );
                self.slots.insert(id, Slot::Fenced);
                self.n_present -= 1;
                self.open_next();
                events.push(Event::Fenced { database: id });
            }
            Fault::Stop(cause) => fail_stop("use a database", &cause),
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

    /// Give a database to the helper thread to be closed; `work` waits until it is back.
    fn close(&mut self, id: DatabaseId, open: Box<Database>, work: Vec<Work>) {
        self.slots.insert(id, Slot::Away(work));
        self.helper.give(Job::Evict { database: id, path: self.path(id), open });
    }

    /// Close a database that has nothing to do.
    pub(super) fn evict(&mut self, id: DatabaseId, events: &mut Vec<Event>) {
        match self.slots.remove(&id) {
            Some(Slot::Open { database, .. }) => self.close(id, database, Vec::new()),
            Some(Slot::Parked { database, work }) => self.close(id, database, work),
            other => {
                self.slots.extend(other.map(|it| (id, it)));
                events.push(Event::Evicted { database: id });
            }
        }
    }

    /// The helper thread is done with something.
    pub(super) fn on_done(&mut self, done: Done, events: &mut Vec<Event>) {
        match done {
            Done::Synced => events.push(Event::Synced),
            Done::ManifestsWritten => events.push(Event::ManifestsWritten),
            Done::Opened { database: id, result } => {
                let Some(Slot::Away(waiting)) = self.slots.remove(&id) else {
                    unreachable!("a database is opened while it is away");
                };
                match result {
                    Ok(database) => {
                        self.slots.insert(id, Slot::Open { database, is_checkpointing: false });
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
                        self.slots.insert(id, Slot::Fenced);
                        self.n_present -= 1;
                        self.open_next();
                        events.push(Event::Fenced { database: id });
                    }
                }
                self.resume(id, waiting, events);
            }
            Done::Checkpointed { database: id } => {
                // It may have been evicted meanwhile, which checkpoints as well.
                match self.slots.remove(&id) {
                    Some(Slot::Open { database, .. }) => {
                        self.slots.insert(id, Slot::Parked { database, work: Vec::new() });
                        let path = self.path(id);
                        self.helper.give(Job::FinishCheckpoint { database: id, path });
                    }
                    other => self.slots.extend(other.map(|it| (id, it))),
                }
            }
            Done::CheckpointFinished { database: id } => match self.slots.remove(&id) {
                Some(Slot::Parked { database, work }) => {
                    self.slots.insert(id, Slot::Open { database, is_checkpointing: false });
                    self.resume(id, work, events);
                }
                other => self.slots.extend(other.map(|it| (id, it))),
            },
            Done::Evicted { database: id } => {
                let Some(Slot::Away(waiting)) = self.slots.remove(&id) else {
                    unreachable!("a database is closed while it is away");
                };
                self.n_present -= 1;
                self.open_next();
                events.push(Event::Evicted { database: id });
                self.resume(id, waiting, events);
            }
        }
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
