//! The helper thread of one shard: everything on SQLite's files that may take long.
//!
//! Opening, creating, syncing `-wal` files, checkpoints, closing, manifests (R21-R24). One job at a time, in
//! the order they were given; what comes of each goes back as a [`Done`]. A file that cannot be synced, or a
//! manifest that cannot be written, stops the process (R8): nobody could say what is on the disk.

use std::collections::hash_map;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustc_hash::FxHashMap;
use rustc_hash::FxHashSet;
use tracing::warn;

use crate::disk;
use crate::disk::fail_stop;
use crate::disk::manifest;
use crate::disk::stopwatch::Slow;
use crate::shard::event::Token;
use crate::sql::Batch;
use crate::sql::Checkpointer;
use crate::sql::Database;
use crate::sql::Entry;
use crate::sql::Fault;
use crate::sql::LongRead;
use crate::sql::OpenError;
use crate::sql::Reader;
use crate::sql::Role;
use crate::sql::Vfs;
use crate::types::DatabaseId;
use crate::types::Floor;
use crate::types::Incarnation;
use crate::types::LogIndex;

/// How often a `-wal` whose content is moved is tried to begin anew: twice at once, then after a pause each.
const RESTARTS_MAX: u32 = 4;
/// For a read on the core to end: commands wait meanwhile.
const RESTART_PAUSE: Duration = Duration::from_millis(3);
/// Free bytes below which a checkpoint that found no room is not tried again: each try writes all that it wrote before.
const ROOM_MIN: u64 = 1 << 20;

/// Something to do.
#[derive(Debug)]
pub enum Job {
    /// Open a database, or create it.
    Open {
        /// Which.
        database: DatabaseId,
        /// Where.
        path: PathBuf,
        /// What it must have: zero if it need not exist yet.
        floor: LogIndex,
        /// Tables that it is created with.
        schema: &'static str,
    },
    /// Sync the `-wal` files of these databases.
    Sync {
        /// Where they are.
        paths: Vec<PathBuf>,
    },
    /// Write these manifests.
    WriteManifests {
        /// Directory and floors of each.
        manifests: Vec<(PathBuf, Vec<(Incarnation, Floor)>)>,
    },
    /// Move what the `-wal` holds into the database, while its core goes on writing.
    Checkpoint {
        /// Which.
        database: DatabaseId,
        /// Where.
        path: PathBuf,
        /// Commands wait for it.
        is_urgent: bool,
    },
    /// The same once more, now that its core is not writing; the `-wal` starts again from its beginning.
    FinishCheckpoint {
        /// Which.
        database: DatabaseId,
        /// Where.
        path: PathBuf,
        /// Bytes of a `-wal` that has begun anew are fewer.
        due: u64,
    },
    /// Checkpoint and close.
    Evict {
        /// Which.
        database: DatabaseId,
        /// Where.
        path: PathBuf,
        /// The core's own connection.
        open: Box<Database>,
        /// Those that only read.
        readers: Vec<Reader>,
    },
    /// Close a connection that only reads.
    Close {
        /// Which.
        reader: Box<Reader>,
    },
}

/// What came of a job.
#[derive(Debug)]
pub enum Done {
    /// Of [`Job::Open`].
    Opened {
        /// Which.
        database: DatabaseId,
        /// The connection for the core, or why there is none.
        result: Result<Box<Database>, OpenFailure>,
    },
    /// Of [`Job::Sync`].
    Synced,
    /// Of [`Job::WriteManifests`].
    ManifestsWritten,
    /// Of the same: there was no room, and some manifests may be the old ones.
    ManifestsNotWritten,
    /// Of [`Job::Checkpoint`].
    Checkpointed {
        /// Which.
        database: DatabaseId,
    },
    /// Of [`Job::FinishCheckpoint`].
    CheckpointFinished {
        /// Which.
        database: DatabaseId,
        /// How far it came.
        moved: Moved,
        /// Bytes of the `-wal` now: few if it has begun anew, which a reader may have prevented. None: nothing
        /// was committed to it; if all of it is in the database, the next commit begins it anew, or a reader keeps
        /// it from that.
        wal_bytes: Option<u64>,
    },
    /// Commands ran on a thread ([`crate::disk::workers`]).
    Ran {
        /// Where.
        database: DatabaseId,
        /// The connection is the core's again.
        open: Box<Database>,
        /// What was to be applied.
        entries: Vec<Entry>,
        /// What became of it.
        result: Result<Batch, Fault>,
        /// What took long.
        slow: Vec<Slow>,
    },
    /// A command was read by on a thread.
    Read {
        /// Where.
        database: DatabaseId,
        /// Whose.
        token: Token,
        /// The connection, for the next; none if it is not to be used any more.
        reader: Option<Box<Reader>>,
        /// What it gave.
        result: Result<LongRead, Fault>,
        /// The command, if it took long.
        slow: Vec<Slow>,
    },
    /// Of [`Job::Evict`].
    Evicted {
        /// Which.
        database: DatabaseId,
    },
}

/// How much of a `-wal` is in its database after a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// All.
    All,
    /// Not all: somebody reads what was there before, or checkpoints as well.
    Blocked,
    /// Not all: there is no room on the disk.
    NoRoom,
    /// Nothing: the file is damaged, or gone.
    Damaged(String),
}

/// Why a database cannot be used. It is fenced (R38).
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    /// SQLite cannot open it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was on disk once, and is not any more.
    #[error("database file is missing")]
    Missing,
    /// It has forgotten what it had.
    #[error("database is at log index {applied}, but had {floor} on disk")]
    Behind {
        /// What it has.
        applied: LogIndex,
        /// What it had.
        floor: LogIndex,
    },
}

impl OpenFailure {
    /// Whether it is the file that is damaged, and not the machine.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Missing
            | Self::Behind { .. }
            | Self::Open(OpenError::Missing | OpenError::Fault(Fault::Fence(_))) => true,
            Self::Open(
                OpenError::Exists
                | OpenError::Busy
                | OpenError::Fault(Fault::Stop(_) | Fault::NoRoom(_)),
            ) => false,
        }
    }

    /// Whether there was no room on the disk, so that it may go better later.
    pub fn lacks_room(&self) -> bool {
        matches!(self, Self::Open(OpenError::Fault(Fault::NoRoom(_))))
    }
}

/// The way to a shard's helper thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Helper {
    jobs: flume::Sender<Job>,
    /// Somebody is kept from applying meanwhile.
    urgent: flume::Sender<Job>,
    /// One for each job of both kinds.
    tokens: flume::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Helper {
    /// Start the thread; `report` is called on it.
    #[expect(clippy::disallowed_methods, reason = "this is the helper thread")]
    pub fn start(report: impl Fn(Done) + Send + 'static) -> Self {
        // Bounded by what asks: one job per database and kind.
        let (jobs, todo) = flume::unbounded::<Job>();
        let (urgent, todo_first) = flume::unbounded::<Job>();
        let (tokens, given) = flume::unbounded::<()>();
        let thread = thread::spawn(move || {
            crate::sql::pace_writes(|error| fail_stop("write a database back", error));
            let mut worker = Worker {
                vfs: Vfs::system(),
                checkpointers: FxHashMap::default(),
                without_room: FxHashSet::default(),
            };
            for () in given {
                let job = todo_first.try_recv().or_else(|_| todo.try_recv());
                let job = job.expect("a token is given after its job");
                match catch_unwind(AssertUnwindSafe(|| worker.perform(job))) {
                    Ok(Some(done)) => report(done),
                    Ok(None) => {}
                    // The panic hook has said what and where. Somebody waits for this job for ever.
                    Err(_) => std::process::abort(),
                }
                // What a core had no time for.
                crate::sql::give_back_if_due();
            }
        });
        Self { jobs, urgent, tokens, thread: Some(thread) }
    }

    /// Give it something to do.
    pub fn give(&self, job: Job) {
        let is_urgent =
            matches!(job, Job::FinishCheckpoint { .. } | Job::Checkpoint { is_urgent: true, .. });
        let jobs = if is_urgent { &self.urgent } else { &self.jobs };
        // The thread outlives this handle.
        jobs.send(job).expect("the helper thread lives as long as its handle");
        self.tokens.send(()).expect("as above");
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let (closed, _) = flume::bounded(0);
        drop(std::mem::replace(&mut self.tokens, closed));
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// The thread's own state: a connection for each database that was ever checkpointed.
struct Worker {
    vfs: Vfs,
    checkpointers: FxHashMap<DatabaseId, Checkpointer>,
    /// Those whose last checkpoint found no room.
    without_room: FxHashSet<DatabaseId>,
}

impl Worker {
    fn perform(&mut self, job: Job) -> Option<Done> {
        Some(match job {
            Job::Open { database, path, floor, schema } => Done::Opened {
                database,
                result: open(database, &path, floor, schema, self.vfs).map(Box::new),
            },
            Job::Sync { paths } => {
                for path in paths {
                    if let Err(error) = crate::sql::sync_wal(&path, self.vfs) {
                        fail_stop(&format!("sync the wal of {}", path.display()), &error);
                    }
                }
                Done::Synced
            }
            Job::WriteManifests { manifests } => {
                for (dir, floors) in manifests {
                    match manifest::write(&dir, &floors) {
                        Ok(()) => {}
                        Err(error) if disk::lacks_room(&error) => {
                            return Some(Done::ManifestsNotWritten);
                        }
                        Err(error) => {
                            fail_stop(&format!("write the manifest in {}", dir.display()), &error);
                        }
                    }
                }
                Done::ManifestsWritten
            }
            Job::Checkpoint { database, path, is_urgent: _ } => {
                self.checkpoint(database, &path);
                Done::Checkpointed { database }
            }
            Job::FinishCheckpoint { database, path, due } => {
                #[expect(clippy::disallowed_methods, reason = "this is the helper thread")]
                let pause = || thread::sleep(RESTART_PAUSE);
                let (moved, wal_bytes) = self.finish_checkpoint(database, &path, due, pause);
                Done::CheckpointFinished { database, moved, wal_bytes }
            }
            Job::Evict { database, path, open, readers } => {
                drop(readers);
                // Nobody here reads it, so that this moves everything (R22). If it does not, for want of room or
                // because of a foreign reader, the rest stays in the `-wal`, which is synced, since only clean
                // databases are closed. To keep it open would keep others from being opened.
                if let Moved::Damaged(cause) = self.checkpoint(database, &path) {
                    // Whoever opens it next finds it, and fences it.
                    warn!(%cause, database = %path.display(), "a database is damaged, as closing it found");
                }
                self.checkpointers.remove(&database);
                self.without_room.remove(&database);
                drop(open);
                Done::Evicted { database }
            }
            Job::Close { reader } => {
                drop(reader);
                return None;
            }
        })
    }

    /// What a checkpoint cannot do now, for want of space or because of a reader, a later one does. A sick machine is
    /// another matter (R15).
    fn checkpoint(&mut self, database: DatabaseId, path: &Path) -> Moved {
        let is_full = || disk::free_bytes(path).is_ok_and(|it| it < ROOM_MIN);
        if self.without_room.remove(&database) && is_full() {
            self.without_room.insert(database);
            return Moved::NoRoom;
        }
        let moved = self.try_checkpoint(database, path);
        match moved {
            Moved::All | Moved::Blocked => {}
            Moved::NoRoom => {
                self.without_room.insert(database);
            }
            // Nothing more is done with it.
            Moved::Damaged(_) => {
                self.checkpointers.remove(&database);
            }
        }
        moved
    }

    fn try_checkpoint(&mut self, database: DatabaseId, path: &Path) -> Moved {
        let checkpointer = match self.checkpointers.entry(database) {
            hash_map::Entry::Occupied(it) => it.into_mut(),
            hash_map::Entry::Vacant(it) => match Checkpointer::open(path, self.vfs) {
                Ok(new) => it.insert(new),
                Err(OpenError::Busy) => return Moved::Blocked,
                Err(OpenError::Fault(fault)) => {
                    return moved_until(fault, "connect for a checkpoint");
                }
                Err(error @ (OpenError::Missing | OpenError::Exists)) => {
                    return Moved::Damaged(error.to_string());
                }
            },
        };
        match checkpointer.checkpoint() {
            Ok(Some(done)) if done.checkpointed >= done.log => Moved::All,
            Ok(_) => Moved::Blocked,
            Err(fault) => moved_until(fault, "checkpoint a database"),
        }
    }

    /// Move the rest, and have the `-wal` begin anew: fewer than `due` bytes. A read that lies across the very moment
    /// of that, if only for a few microseconds on the core, prevents it: then once more. What is left by then is
    /// the page of the first attempt, so that this counts as moved, even where that read keeps the page from it.
    /// How much is moved, and what [`Done::CheckpointFinished`] says of the `-wal`.
    fn finish_checkpoint(
        &mut self,
        database: DatabaseId,
        path: &Path,
        due: u64,
        mut pause: impl FnMut(),
    ) -> (Moved, Option<u64>) {
        let (mut is_complete, mut wal_bytes) = (false, None);
        for n_tries in 1..=RESTARTS_MAX {
            // What is not moved cannot begin anew, and would only grow by the attempt.
            match self.checkpoint(database, path) {
                Moved::All => {
                    is_complete = true;
                    wal_bytes = self.touch(database).or(wal_bytes);
                }
                damaged @ Moved::Damaged(_) => return (damaged, wal_bytes),
                rest @ (Moved::Blocked | Moved::NoRoom) if !is_complete => {
                    return (rest, wal_bytes);
                }
                Moved::Blocked | Moved::NoRoom => {}
            }
            if wal_bytes.is_none_or(|it| it < due) {
                break;
            }
            if (2..RESTARTS_MAX).contains(&n_tries) {
                pause();
            }
        }
        (Moved::All, wal_bytes)
    }

    /// The header and folder syncs of a `-wal` that begins anew happen here, not on the core (R21). Bytes of the
    /// `-wal` then, if anything could be committed.
    fn touch(&mut self, database: DatabaseId) -> Option<u64> {
        let checkpointer = self.checkpointers.get_mut(&database)?;
        match checkpointer.touch() {
            Ok(is_done) => is_done.then(|| checkpointer.wal_bytes()),
            Err(Fault::Stop(cause)) => fail_stop("touch a database", &cause),
            // The core finds out by itself, and fences it.
            Err(Fault::Fence(_) | Fault::NoRoom(_)) => None,
        }
    }
}

/// What a fault leaves of a checkpoint; a sick machine ends the process.
fn moved_until(fault: Fault, during: &str) -> Moved {
    match fault {
        Fault::Stop(cause) => fail_stop(during, &cause),
        Fault::Fence(cause) => Moved::Damaged(cause),
        Fault::NoRoom(_) => Moved::NoRoom,
    }
}

fn open(
    database: DatabaseId,
    path: &Path,
    floor: LogIndex,
    schema: &str,
    vfs: Vfs,
) -> Result<Database, OpenFailure> {
    // That the system cannot say does not mean that it is gone.
    let is_there = path.try_exists().map_err(|error| {
        OpenError::Fault(Fault::Stop(format!("look for {}: {error}", path.display())))
    })?;
    if !is_there {
        if floor > LogIndex(0) {
            return Err(OpenFailure::Missing);
        }
        Database::create(path, vfs, schema)?;
    }
    let role =
        if database.incarnation == Incarnation::ENGINE { Role::Engine } else { Role::Tenant };
    let open = Database::open(path, vfs, role)?;
    if open.applied() < floor {
        return Err(OpenFailure::Behind { applied: open.applied(), floor });
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::sql::testing::command;
    use crate::sql::testing::stamp;
    use crate::types::PartitionId;
    use crate::wire::command::Mode;

    const ID: DatabaseId = DatabaseId { partition: PartitionId(1), incarnation: Incarnation(1) };

    /// A database with rows in its `-wal` only.
    fn filled(folder: &TempDir) -> (PathBuf, Box<Database>) {
        let path = folder.path().join("1.db");
        Database::create(&path, Vfs::system(), "CREATE TABLE t(a)").unwrap();
        let mut open = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
        let insert = command(Mode::Exec, "INSERT INTO t VALUES (7), (8)", &[], &stamp(1));
        open.apply(&[Entry { index: LogIndex(5), command: insert }]).unwrap();
        (path, Box::new(open))
    }

    fn worker() -> Worker {
        Worker {
            vfs: Vfs::system(),
            checkpointers: FxHashMap::default(),
            without_room: FxHashSet::default(),
        }
    }

    /// A reader of the database as it is now.
    fn reader(path: &Path) -> rusqlite::Connection {
        let reader = rusqlite::Connection::open(path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        reader
    }

    fn evict(path: &Path, open: Box<Database>) {
        let mut worker = worker();
        let path = path.to_owned();
        let done = worker.perform(Job::Evict { database: ID, path, open, readers: Vec::new() });
        assert!(matches!(done, Some(Done::Evicted { .. })));
        assert!(worker.checkpointers.is_empty());
    }

    fn wal_of(path: &Path) -> PathBuf {
        path.with_extension("db-wal")
    }

    #[test]
    fn what_is_closed_is_whole_without_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let (path, open) = filled(&folder);
        evict(&path, open);
        std::fs::remove_file(wal_of(&path)).unwrap();
        let open = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
        assert_eq!(open.applied(), LogIndex(5));
    }

    #[test]
    fn a_foreign_reader_does_not_keep_it_open_and_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, open) = filled(&folder);
        // A process that is not ours would do the same.
        let foreign = reader(&path);
        let open = {
            let mut open = open;
            let insert = command(Mode::Exec, "INSERT INTO t VALUES (9)", &[], &stamp(2));
            open.apply(&[Entry { index: LogIndex(6), command: insert }]).unwrap();
            open
        };
        evict(&path, open);
        assert!(wal_of(&path).metadata().unwrap().len() > 0);
        foreign.execute_batch("COMMIT").unwrap();
        let open = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
        assert_eq!(open.applied(), LogIndex(6));
    }

    /// Bytes of one page in a `-wal`, and then some: what has begun anew is shorter.
    const DUE: u64 = 8_192;

    #[test]
    fn a_read_that_ends_in_a_moment_does_not_keep_a_log_from_beginning_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _open) = filled(&folder);
        let (reader, mut n_pauses) = (reader(&path), 0);
        let done = worker().finish_checkpoint(ID, &path, DUE, || {
            n_pauses += 1;
            reader.execute_batch("ROLLBACK").unwrap_or_default();
        });
        assert!(matches!(done, (Moved::All, Some(bytes)) if bytes < DUE), "{done:?}");
        assert_eq!(n_pauses, 1);
    }

    #[test]
    fn a_log_does_not_grow_by_what_keeps_it_from_beginning_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut open) = filled(&folder);
        let (mut worker, mut n_pauses) = (worker(), 0);
        let at_the_end = reader(&path);
        let bytes = wal_of(&path).metadata().unwrap().len();
        let (moved, wal_bytes) = worker.finish_checkpoint(ID, &path, DUE, || n_pauses += 1);
        let wal_bytes = wal_bytes.unwrap();
        assert!(moved == Moved::All && wal_bytes >= DUE, "its own page is counted: {wal_bytes}");
        assert_eq!(n_pauses, RESTARTS_MAX - 2);
        let grown = wal_of(&path).metadata().unwrap().len();
        assert!((bytes..bytes + DUE).contains(&grown), "{grown}, {bytes} before");
        let insert = command(Mode::Exec, "INSERT INTO t VALUES (9)", &[], &stamp(2));
        open.apply(&[Entry { index: LogIndex(6), command: insert }]).unwrap();
        let grown = wal_of(&path).metadata().unwrap().len();
        let done = worker.finish_checkpoint(ID, &path, DUE, || unreachable!("it cannot help"));
        assert_eq!(done, (Moved::Blocked, None));
        assert_eq!(wal_of(&path).metadata().unwrap().len(), grown);
        drop(at_the_end);
    }

    #[test]
    fn why_a_checkpoint_was_in_vain_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut open) = filled(&folder);
        let mut worker = worker();
        let reader = reader(&path);
        let insert = command(Mode::Exec, "INSERT INTO t VALUES (9)", &[], &stamp(2));
        open.apply(&[Entry { index: LogIndex(6), command: insert }]).unwrap();
        assert_eq!(worker.checkpoint(ID, &path), Moved::Blocked);
        assert!(worker.without_room.is_empty(), "a reader takes no room");
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(worker.checkpoint(ID, &path), Moved::All);
        let garbage = folder.path().join("2.db");
        std::fs::write(&garbage, [0x5a; 8_192]).unwrap();
        let other = DatabaseId { incarnation: Incarnation(2), ..ID };
        let (moved, wal_bytes) = worker.finish_checkpoint(other, &garbage, DUE, || ());
        assert!(matches!(moved, Moved::Damaged(_)) && wal_bytes.is_none(), "{moved:?}");
        assert_eq!(worker.checkpointers.len(), 1);
    }

    #[test]
    fn what_commands_wait_for_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _open) = filled(&folder);
        let (reports, done) = flume::bounded(0);
        let (ends, ended) = flume::unbounded();
        let helper = Helper::start(move |it| {
            ends.send(()).unwrap_or_default();
            reports.send(it).unwrap_or_default();
        });
        // Gone before the helper, which would wait for it if this fails.
        let done = done;
        let id = |n| DatabaseId { incarnation: Incarnation(n), ..ID };
        helper.give(Job::Sync { paths: Vec::new() });
        // From here on it is at nothing else until that is taken.
        ended.recv().unwrap();
        for (n, is_urgent) in [(1, false), (2, true)] {
            helper.give(Job::Checkpoint { database: id(n), path: path.clone(), is_urgent });
        }
        assert!(matches!(done.recv(), Ok(Done::Synced)));
        let next = || match done.recv() {
            Ok(Done::Checkpointed { database }) => database,
            other => panic!("{other:?}"),
        };
        assert_eq!([next(), next()], [id(2), id(1)]);
    }
}
