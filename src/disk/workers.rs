//! Threads of one shard for statements that take long (R13): some apply, with the database's own
//! connection, which is theirs meanwhile; some read, each with a connection that only reads.
//!
//! The core goes on, and so do the other namespaces; the one concerned waits. What comes of a task goes
//! back as a [`Done`]. A command is undone, and not recorded, when the node stops: it is in the log.
//!
//! The threads give way to the cores ([`priority`]).

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::fail_stop;
use crate::disk::guard::guarded;
use crate::disk::helper::Done;
use crate::disk::lanes::Lanes;
use crate::disk::lanes::Turn;
use crate::disk::priority;
use crate::disk::spool::Spools;
use crate::disk::stops::Stops;
use crate::disk::stopwatch::Stopwatch;
use crate::limits;
use crate::shard::event::Token;
use crate::sql::Ask;
use crate::sql::Brake;
use crate::sql::Database;
use crate::sql::Entry;
use crate::sql::Fault;
use crate::sql::LongRead;
use crate::sql::OpenError;
use crate::sql::Reader;
use crate::sql::Rest;
use crate::sql::Role;
use crate::sql::Share;
use crate::sql::Vfs;
use crate::types::DatabaseId;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::wire::rows::StatementError;

/// Commands to apply, and the connection to do it with.
#[derive(Debug)]
pub struct ApplyTask {
    /// Where.
    pub database: DatabaseId,
    /// The one connection that writes.
    pub open: Box<Database>,
    /// What to apply, in order.
    pub entries: Vec<Entry>,
}

/// A command to read by.
#[derive(Debug)]
pub struct ReadTask {
    /// Where.
    pub database: DatabaseId,
    /// The file.
    pub path: PathBuf,
    /// Whose.
    pub token: Token,
    /// What to run.
    pub command: Bytes,
    /// A connection, if one is at hand.
    pub reader: Option<Box<Reader>>,
    /// Stops it.
    pub brake: Arc<Brake>,
}

/// How long statements take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A read at most.
    pub statement: Duration,
    /// One that is slow; none if none is.
    pub slow_statement: Option<Duration>,
}

/// The way to a shard's threads. They end when this is dropped, and what runs is given up.
#[derive(Debug)]
pub struct Workers {
    apply: Arc<Lanes<ApplyTask>>,
    read: flume::Sender<ReadTask>,
    is_stopping: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
    spools: Spools,
}

impl Workers {
    /// Start the threads; `report` is called on them. At what the process
    /// has to stop goes to `stops`, large results to `spools`.
    pub fn start(
        stops: &Stops,
        times: Times,
        spools: Spools,
        now: impl Fn() -> Instant + Clone + Send + 'static,
        report: impl Fn(Done) + Clone + Send + 'static,
    ) -> Self {
        // Bounded by what asks: a database has one batch under way, and the reads are counted by the core.
        let apply = Arc::new(Lanes::<ApplyTask>::new(limits::SQL_THREADS));
        let (read, to_read) = flume::unbounded::<ReadTask>();
        let is_stopping = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..limits::SQL_THREADS {
            let (lanes, stop, report) =
                (Arc::clone(&apply), Arc::clone(&is_stopping), report.clone());
            let (now, stops) = (now.clone(), stops.clone());
            threads.push(spawn(move || {
                while let Some((task, turn)) = lanes.take(&now) {
                    let watch = Stopwatch::new(times.slow_statement);
                    if let Some(done) = apply_whole(task, turn, &stops, &stop, watch, &now) {
                        report(done);
                    }
                }
            }));
        }
        for _ in 0..limits::READER_THREADS {
            let (todo, stop, report) = (to_read.clone(), Arc::clone(&is_stopping), report.clone());
            let (now, stops, spools) = (now.clone(), stops.clone(), spools.clone());
            let read = move |task: ReadTask| {
                let began = now();
                let is_late =
                    || stop.load(Ordering::Relaxed) || now().since(began) > times.statement;
                let mut watch = Stopwatch::new(times.slow_statement);
                watch.on_begin(began);
                let command = task.command.clone();
                let mut done = read_whole(task, &stops, &spools, is_late);
                let ended = now();
                watch.on_end(ended);
                if let Done::Read { result: Ok(read), slow, .. } = &mut done {
                    *slow = watch.slow_reads(&[command], |_| Some(&read.outcome));
                }
                // Few steps do not make it quick: preparing it may have taken long.
                let was_long = ended.since(began) > limits::INLINE_COMMAND_TIME;
                if was_long && let Done::Read { result: Ok(read), .. } = &mut done {
                    read.learned = None;
                }
                done
            };
            threads.push(spawn(move || todo.into_iter().for_each(|task| report(read(task)))));
        }
        Self { apply, read, is_stopping, threads, spools }
    }

    /// Where large results are.
    pub fn spools(&self) -> &Spools {
        &self.spools
    }

    /// Have commands applied; [`Done::Ran`] brings the connection back.
    pub fn apply(&self, task: ApplyTask) {
        self.apply.push(task);
    }

    /// How many commands were given up on their threads so far, because others waited.
    pub fn n_given_up(&self) -> u64 {
        self.apply.n_given_up()
    }

    /// Have a command read by; [`Done::Read`] brings the connection back.
    pub fn read(&self, task: ReadTask) {
        self.read.send(task).expect("the threads live as long as their handle");
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.apply.close();
        (self.read, _) = flume::bounded(0);
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Start a thread that performs tasks until there are no more.
#[expect(clippy::disallowed_methods, reason = "these are the threads for what takes long")]
fn spawn(perform: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        priority::give_way();
        crate::sql::pace_writes(|error| fail_stop("write a database back", error));
        if catch_unwind(AssertUnwindSafe(perform)).is_err() {
            // The panic hook has said what and where. Somebody waits for this task for ever.
            std::process::abort();
        }
    })
}

/// Apply commands; none if they gave way to others, and wait for their turn now.
fn apply_whole(
    task: ApplyTask,
    mut turn: Turn<'_, ApplyTask>,
    stops: &Stops,
    is_stopping: &AtomicBool,
    mut watch: Stopwatch,
    now: &impl Fn() -> Instant,
) -> Option<Done> {
    let ApplyTask { database, mut open, entries } = task;
    let mut gives_way = false;
    let mut enough = |ask| {
        gives_way = match ask {
            Ask::Begin => {
                if watch.is_wanted() {
                    watch.on_begin(now());
                }
                turn.must_stop(now)
            }
            Ask::Tick => turn.must_give_way(now),
        };
        gives_way || is_stopping.load(Ordering::Relaxed)
    };
    let apply = || open.apply_within(&entries, Share::Whole, &mut enough);
    let result = guarded(stops, database, apply);
    if gives_way
        && let Ok(batch) = &result
        && batch.applied.is_empty()
        && matches!(batch.rest, Rest::Long | Rest::Later)
    {
        turn.wait_for_place(ApplyTask { database, open, entries });
        return None;
    }
    // What is left of them is handed in again.
    drop(turn);
    if watch.is_wanted() {
        watch.on_end(now());
    }
    let slow = match &result {
        Ok(batch) => watch.slow_applies(&entries, &batch.applied),
        Err(_) => Vec::new(),
    };
    Some(Done::Ran { database, open, entries, result, slow })
}

fn read_whole(
    task: ReadTask,
    stops: &Stops,
    spools: &Spools,
    mut is_late: impl FnMut() -> bool,
) -> Done {
    let ReadTask { database, path, token, command, reader, brake } = task;
    let reader = reader.map_or_else(|| open(database, &path), Ok);
    let (reader, result) = match reader {
        Ok(mut reader) => {
            let read = || reader.read(&command, &brake, &mut is_late, Some(spools.spill(database)));
            let result = guarded(stops, database, read);
            let is_fit = result.as_ref().is_ok_and(|it| it.is_fit);
            (is_fit.then_some(reader), result)
        }
        Err(result) => (None, result),
    };
    Done::Read { database, token, reader, result, slow: Vec::new() }
}

/// Connect, or give the outcome of the read.
fn open(
    database: DatabaseId,
    path: &std::path::Path,
) -> Result<Box<Reader>, Result<LongRead, Fault>> {
    let role =
        if database.incarnation == Incarnation::ENGINE { Role::Engine } else { Role::Tenant };
    Reader::open(path, Vfs::system(), role).map(Box::new).map_err(|error| match error {
        OpenError::Busy => {
            let outcome = Err(StatementError::coded("busy", "database is busy"));
            Ok(LongRead { outcome, learned: None, is_fit: false })
        }
        OpenError::Fault(Fault::NoRoom(_)) => {
            let outcome = Err(StatementError::coded("disk_reserve", "the disk is full"));
            Ok(LongRead { outcome, learned: None, is_fit: false })
        }
        OpenError::Fault(fault) => Err(fault),
        error @ (OpenError::Missing | OpenError::Exists) => Err(Fault::Fence(error.to_string())),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tempfile::TempDir;

    use super::*;
    use crate::sql::testing::command;
    use crate::sql::testing::stamp;
    use crate::types::LogIndex;
    use crate::types::PartitionId;
    use crate::wire::command::Mode;

    const SHORT: &str = "INSERT INTO t VALUES (1)";
    const LONG: &str =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000)
        INSERT INTO t SELECT max(x) FROM n";

    /// Commands for a database of their own with a table.
    fn task(folder: &TempDir, number: u64, commands: &[&str]) -> ApplyTask {
        let path = folder.path().join(format!("{number}.db"));
        Database::create(&path, Vfs::system(), "").unwrap();
        let mut open = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
        let entry = |(index, sql): (u64, &&str)| Entry {
            index: LogIndex(index),
            command: command(Mode::Exec, sql, &[], &stamp(index)),
        };
        open.apply(&[entry((1, &"CREATE TABLE t(a)"))]).unwrap();
        let database = DatabaseId { partition: PartitionId(1), incarnation: Incarnation(number) };
        ApplyTask {
            database,
            open: Box::new(open),
            entries: (2..).zip(commands).map(entry).collect(),
        }
    }

    #[test]
    fn a_batch_of_short_commands_keeps_what_it_did_and_one_that_is_long_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (stops, is_stopping) = (Stops::of(folder.path()), AtomicBool::new(false));
        // Each look at the clock is the tenth of what a command may take.
        let clock = Cell::new(Instant::START);
        let now = || {
            clock.set(clock.get().after(limits::GIVE_WAY_TIME / 10));
            clock.get()
        };
        let apply =
            |task, turn| apply_whole(task, turn, &stops, &is_stopping, Stopwatch::new(None), &now);
        let lanes = Lanes::new(limits::SQL_THREADS_VERY_LONG + 1);
        for number in 1..=limits::SQL_THREADS_VERY_LONG as u64 {
            lanes.push(task(&folder, number, &[LONG]));
        }
        let mut kept = Vec::new();
        for _ in 0..limits::SQL_THREADS_VERY_LONG {
            kept.push(lanes.take(now).unwrap());
        }
        lanes.push(task(&folder, 10, &[SHORT; 40]));
        lanes.push(task(&folder, 11, &[SHORT]));
        for (_, turn) in &mut kept {
            assert!(!turn.must_stop(now));
            while !turn.is_very_long() {
                assert!(!turn.must_give_way(now));
            }
        }
        let (short, turn) = lanes.take(now).unwrap();
        let Some(Done::Ran { entries, result: Ok(batch), open, .. }) = apply(short, turn) else {
            panic!("a part of it has been done");
        };
        assert!((5..30).contains(&batch.applied.len()), "{}", batch.applied.len());
        assert_eq!((entries.len(), batch.rest), (40, Rest::Later));
        assert_eq!(open.applied(), LogIndex(1 + batch.applied.len() as u64));
        // A long one begins anew where there is a place; until then another has its thread.
        lanes.push(task(&folder, 12, &[SHORT, LONG]));
        drop(lanes.take(now).unwrap());
        let (long, turn) = lanes.take(now).unwrap();
        lanes.push(task(&folder, 13, &[SHORT]));
        assert!(apply(long, turn).is_none(), "it has given way");
        assert_eq!(lanes.n_given_up(), 1);
        assert_eq!(lanes.take(now).unwrap().0.database.incarnation, Incarnation(13));
        drop(kept.pop());
        let (long, turn) = lanes.take(now).unwrap();
        lanes.push(task(&folder, 14, &[SHORT]));
        let Some(Done::Ran { database, result: Ok(batch), .. }) = apply(long, turn) else {
            panic!("it has a place");
        };
        assert_eq!((database.incarnation, batch.applied.len()), (Incarnation(12), 2));
        assert_eq!(batch.rest, Rest::None);
    }
}
