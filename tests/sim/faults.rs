//! A sick machine at every call: `EIO`, `ENOSPC`, `ENOMEM`, a lock that is held. What comes back is the class
//! of R15 or the right result, never a wrong one; a healthy database is never called damaged; and after a new
//! start it goes on as if nothing had been.
//!
//! A script runs once undisturbed, to know its outcomes, its contents and how many calls it makes. Then it
//! runs again and again, each time with another call failing. `SIM_FAULTS=all` lets every call fail in turn
//! instead of a sample; `SIM_FAULTS=<n>` only the n-th, of every kind.

use std::env;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use debros::sql::Applied;
use debros::sql::Brake;
use debros::sql::Checkpointer;
use debros::sql::Database;
use debros::sql::Entry;
use debros::sql::Fault;
use debros::sql::OpenError;
use debros::sql::Reader;
use debros::sql::Rest;
use debros::sql::Role;
use debros::sql::sync_wal;
use debros::types::Dice;
use debros::types::LogIndex;
use debros::wire::command::CommandLimits;
use debros::wire::command::Mode;
use debros::wire::command::Results;
use debros::wire::command::draft::Draft;
use debros::wire::rows::Outcome;

use crate::databases;
use crate::databases::LIMITS;
use crate::memory;
use crate::vfs;
use crate::vfs::Lasts;
use crate::vfs::Sickness;

const PATH: &str = "/simulated/1.db";
/// How often in a row a database may be found locked (R21).
const BUSY_MAX: u32 = 10;
/// Calls that fail, of each kind, unless all are asked for.
const N_SAMPLES: u64 = 90;

/// What the script applies, in order; a text between two `|` is a statement of its own in one command.
const COMMANDS: &[&str] = &[
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c DEFAULT CURRENT_TIMESTAMP, d DEFAULT (random()))",
    "CREATE TABLE log(what, n)",
    "INSERT INTO t(b) VALUES (1), (2), (3)",
    "INSERT INTO t(b) VALUES (2)",
    "INSERT OR ROLLBACK INTO t(b) VALUES (9), (1)",
    "INSERT INTO t(b) VALUES (4) RETURNING a, b, c, d",
    "CREATE TRIGGER t_log AFTER INSERT ON t BEGIN
        INSERT INTO log VALUES (new.b, total_changes());
        SELECT RAISE(ROLLBACK, 'rolled back') WHERE new.b = 17;
        SELECT RAISE(FAIL, 'failed') WHERE new.b = 18; END",
    "INSERT INTO t(b) VALUES (16), (17)",
    "INSERT INTO t(b) VALUES (19), (18)",
    "INSERT INTO t(b) VALUES (20)|UPDATE t SET c = hex(randomblob(400))|INSERT INTO log SELECT b, d FROM t",
    "INSERT INTO t(b) VALUES (21)|UPDATE t SET c = 'x'|INSERT INTO t(b) VALUES (20)",
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 120)
        INSERT INTO t(b, c) SELECT 1000 + x, hex(randomblob(300)) FROM n",
    "CREATE INDEX t_c ON t(c)",
    "ANALYZE",
    "ANALYZE; INSERT INTO t(b) VALUES (1)",
    "CREATE TABLE copy AS SELECT b, c FROM t WHERE b > 1040",
    "UPDATE t SET c = hex(randomblob(700)) WHERE b > 1000|SELECT count(*) FROM t",
    "UPDATE t SET c = hex(randomblob(700)), b = CASE b WHEN 1090 THEN 1 ELSE b END WHERE b > 1000",
    "DELETE FROM t WHERE b BETWEEN 1010 AND 1080",
    "INSERT INTO log SELECT 'sorted', count(*) FROM (SELECT b FROM copy, (SELECT 1 UNION ALL SELECT 2)
        ORDER BY c || hex(zeroblob(18000)))",
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) INSERT INTO log SELECT x, x FROM n",
    "CREATE VIRTUAL TABLE search USING fts5(body)",
    "INSERT INTO search(rowid, body) SELECT a, 'word' || b || ' other ' || (b % 7) FROM t",
    "INSERT INTO search(rowid, body) VALUES (1, 'again')",
    "DELETE FROM search WHERE search MATCH 'word3'",
    "ALTER TABLE copy ADD COLUMN e DEFAULT 5",
    "INSERT INTO search(search) VALUES ('optimize')",
    "DROP TABLE copy",
    "INSERT INTO log(what) VALUES (zeroblob(300000))",
    "PRAGMA user_version = 7",
    "INSERT INTO t(b) VALUES (5000) RETURNING d",
    "SELECT nothing",
    "DELETE FROM log WHERE what > 0",
    "INSERT INTO t(b) SELECT b + 10000 FROM t",
];

/// One thing that a node does to a database.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Create it, unless it is there.
    Create,
    Open,
    /// Apply so many commands in one batch.
    Apply(u64),
    Sync,
    Checkpoint,
    Touch,
    Read,
    /// Read on a connection of its own.
    ReadAside,
    Rest,
    Close,
}

const SCRIPT: &[Step] = &[
    Step::Create,
    Step::Open,
    Step::Apply(3),
    Step::Apply(5),
    Step::Read,
    Step::ReadAside,
    Step::Sync,
    Step::Apply(1),
    Step::Apply(4),
    Step::Checkpoint,
    Step::Touch,
    Step::Rest,
    Step::Apply(4),
    Step::Read,
    Step::Sync,
    Step::Close,
    Step::Open,
    Step::Apply(6),
    Step::Checkpoint,
    Step::Apply(5),
    Step::Touch,
    Step::ReadAside,
    Step::Read,
    Step::Rest,
    Step::Apply(2),
    Step::Rest,
    Step::Apply(1),
    Step::Sync,
    Step::Checkpoint,
    Step::Close,
    Step::Open,
    Step::Apply(3),
    Step::Read,
    Step::Close,
];

fn entry(index: u64) -> Entry {
    let at = usize::try_from(index - 1).expect("a small number");
    let sql = COMMANDS[at];
    let is_bounded = sql.contains("FROM n) INSERT") || sql.contains("zeroblob(300000)");
    let limits = CommandLimits {
        steps: if is_bounded { 20_000 } else { LIMITS.steps },
        database_bytes: if is_bounded { 400_000 } else { LIMITS.database_bytes },
        // The sorter needs more than this holds of the last rows.
        temp_bytes: 8 << 20,
        ..LIMITS
    };
    let mut draft = Draft::new(Results::Each, sql.len());
    for part in sql.split('|') {
        draft.statement(Mode::Exec, part).expect("short");
    }
    Entry { index: LogIndex(index), command: databases::seal(draft, index, limits) }
}

fn entries(range: Range<u64>) -> Vec<Entry> {
    range.map(entry).collect()
}

fn query() -> Bytes {
    let sql = "SELECT * FROM t ORDER BY b; ";
    databases::command(Mode::Query, 1, sql)
}

/// What an undisturbed database gives: after each command, and to each [`Step::Read`] by applied index.
struct Twin {
    outcomes: Vec<Outcome>,
    contents: Vec<u64>,
    reads: Vec<Outcome>,
}

impl Twin {
    fn new() -> Self {
        vfs::reset();
        let path = Path::new(PATH);
        Database::create(path, vfs::vfs(), "").expect("it can be created");
        let mut database = databases::open(path, Role::Tenant);
        let mut twin = Self { outcomes: Vec::new(), contents: Vec::new(), reads: Vec::new() };
        twin.look(&mut database);
        for index in 1..=COMMANDS.len() as u64 {
            let batch = database.apply(&[entry(index)]).expect("applied");
            match batch.applied.into_iter().next() {
                Some(Applied::Done(outcome)) => twin.outcomes.push(outcome),
                other => panic!("{index}: {other:?}"),
            }
            twin.look(&mut database);
        }
        let n_failed = twin.outcomes.iter().filter(|it| it.is_err()).count();
        assert_eq!(n_failed, 11, "{:?}", twin.outcomes);
        twin
    }

    fn look(&mut self, database: &mut Database) {
        self.contents.push(database.content_hash().expect("hashed"));
        let read = database.read(&[query()], &mut |_| false).expect("read").remove(0);
        self.reads.push(read);
    }

    fn content(&self, index: LogIndex) -> u64 {
        self.contents[usize::try_from(index.0).expect("small")]
    }
}

/// Why a node does not get to the end of the script.
#[derive(Debug)]
enum Halt {
    /// The process stops, as R15 and R21 want it.
    Stop,
}

/// A node that runs the script.
struct Run<'a> {
    twin: &'a Twin,
    what: String,
    sickness: Option<Sickness>,
    database: Option<Database>,
    checkpointer: Option<Checkpointer>,
    is_created: bool,
    /// The last command whose outcome was told.
    told: u64,
    /// What is on disk for certain.
    floor: u64,
}

impl<'a> Run<'a> {
    fn new(twin: &'a Twin, what: String, sickness: Option<Sickness>) -> Self {
        Self {
            twin,
            what,
            sickness,
            database: None,
            checkpointer: None,
            is_created: false,
            told: 0,
            floor: 0,
        }
    }

    /// The machine's fault stops the process. A healthy file is never called damaged.
    fn fault(&self, fault: Fault) -> Halt {
        match fault {
            Fault::Stop(_) => {
                assert!(has_failed(), "{}: nothing failed, and yet: {fault}", self.what);
                Halt::Stop
            }
            // The node waits until there is room. Here it is like an end: it starts anew with room.
            Fault::NoRoom(_) => {
                assert_eq!(self.sickness, Some(Sickness::Full), "{}: {fault}", self.what);
                Halt::Stop
            }
            Fault::Fence(cause) => panic!("{}: fenced: {cause}", self.what),
        }
    }

    fn open_error(&self, error: OpenError) -> Halt {
        match error {
            OpenError::Fault(fault) => self.fault(fault),
            // The node stops; another one may have the lock.
            OpenError::Busy if self.sickness == Some(Sickness::Busy) => Halt::Stop,
            error => panic!("{}: {error}", self.what),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Halt> {
        let path = Path::new(PATH);
        match step {
            Step::Create => {
                if !vfs::files_under(path).contains(&path.to_owned()) {
                    assert!(!self.is_created, "{}: it is gone", self.what);
                    let created = Database::create(path, vfs::vfs(), "");
                    created.map_err(|it| self.open_error(it))?;
                }
                self.is_created = true;
            }
            Step::Open => {
                let opened = Database::open(path, vfs::vfs(), Role::Tenant);
                self.database = Some(opened.map_err(|it| self.open_error(it))?);
            }
            Step::Apply(n) => self.apply(n)?,
            Step::Sync => {
                let applied = self.database.as_ref().map_or(0, |it| it.applied().0);
                sync_wal(path, vfs::vfs()).map_err(|it| self.fault(it))?;
                self.floor = applied;
            }
            Step::Checkpoint => {
                if self.checkpointer.is_none() {
                    // Another time, then.
                    self.checkpointer = Checkpointer::open(path, vfs::vfs()).ok();
                }
                if let Some(it) = &mut self.checkpointer {
                    let done = it.checkpoint();
                    done.map_err(|it| self.fault(it))?;
                }
            }
            Step::Touch => {
                if let Some(it) = &mut self.checkpointer {
                    let touched = it.touch();
                    touched.map_err(|it| self.fault(it))?;
                }
            }
            Step::Read => {
                let database = self.database.as_mut().expect("it is open");
                let applied = database.applied();
                let read = database.read(&[query()], &mut |_| false);
                let got = read.map_err(|it| self.fault(it))?.remove(0);
                self.check_read(applied, &got);
            }
            Step::ReadAside => {
                let reader = Reader::open(path, vfs::vfs(), Role::Tenant);
                let mut reader = match reader {
                    // As the node: the client is told that it is busy.
                    Err(OpenError::Busy) if self.sickness == Some(Sickness::Busy) => return Ok(()),
                    opened => opened.map_err(|it| self.open_error(it))?,
                };
                let read = reader.read(&query(), &Brake::new(), &mut || false, None);
                let got = read.map_err(|it| self.fault(it))?.outcome;
                self.check_read(LogIndex(self.told), &got);
            }
            Step::Rest => self.database.as_mut().expect("it is open").rest(),
            Step::Close => {
                self.checkpointer = None;
                self.database = None;
            }
        }
        Ok(())
    }

    fn check_read(&self, applied: LogIndex, got: &Outcome) {
        let want = &self.twin.reads[usize::try_from(applied.0).expect("small")];
        let code = got.as_ref().err().and_then(|it| it.code);
        let is_refused = match self.sickness {
            Some(Sickness::Busy) => code == Some("busy"),
            Some(Sickness::Full) => code == Some("disk_reserve"),
            _ => false,
        };
        assert!(is_refused || got == want, "{}: read {got:?}, not {want:?}", self.what);
    }

    fn apply(&mut self, n: u64) -> Result<(), Halt> {
        let last = self.told + n;
        let mut n_busy = 0;
        while self.told < last {
            let database = self.database.as_mut().expect("it is open");
            let batch = database.apply(&entries(self.told + 1..last + 1));
            let batch = batch.map_err(|it| self.fault(it))?;
            for applied in batch.applied {
                let want = &self.twin.outcomes[usize::try_from(self.told).expect("small")];
                self.told += 1;
                match applied {
                    Applied::Done(got) => assert_eq!(got, *want, "{}: {}", self.what, self.told),
                    other => panic!("{}: {}: {other:?}", self.what, self.told),
                }
            }
            let has_failed = has_failed();
            match batch.rest {
                Rest::None => assert_eq!(self.told, last, "{}: some have not run", self.what),
                _ if n_busy == BUSY_MAX => return Err(Halt::Stop),
                rest => assert!(has_failed, "{}: {rest:?}, and nothing failed", self.what),
            }
            n_busy += 1;
        }
        let database = self.database.as_mut().expect("it is open");
        assert_eq!(database.applied().0, self.told, "{}", self.what);
        Ok(())
    }

    /// The process ends, and perhaps the power, too. A new one goes on on a machine that is well.
    fn start_anew(mut self, dice: &mut Dice) {
        memory::refuse(None);
        vfs::stop();
        self.checkpointer = None;
        self.database = None;
        vfs::heal();
        vfs::fail(None);
        let is_power_lost = dice.below(2) == 0;
        let mut least = self.told;
        if is_power_lost {
            vfs::crash(dice);
            least = self.floor;
        }
        self.what = format!("{}, power lost: {is_power_lost}", self.what);
        let path = Path::new(PATH);
        self.sickness = None;
        self.step(Step::Create).expect("created");
        databases::check_integrity(path, &self.what);
        self.step(Step::Open).expect("opened");
        let database = self.database.as_mut().expect("it is open");
        let applied = database.applied();
        assert!(least <= applied.0, "{}: {least} was there, {applied} is", self.what);
        let content = database.content_hash().expect("hashed");
        assert_eq!(content, self.twin.content(applied), "{}: other content", self.what);
        self.told = applied.0;
        self.apply(COMMANDS.len() as u64 - applied.0).expect("applied");
        let database = self.database.as_mut().expect("it is open");
        let content = database.content_hash().expect("hashed");
        let want = self.twin.content(LogIndex(COMMANDS.len() as u64));
        assert_eq!(content, want, "{}: other content in the end", self.what);
    }
}

/// Whether the machine has failed in any way.
fn has_failed() -> bool {
    vfs::failed().is_some() || memory::has_failed()
}

/// Run the script with the `n`-th call that `sickness` can befall failing. Whether the process stopped.
fn check(twin: &Twin, n: u64, sickness: Sickness, lasts: Lasts) -> bool {
    let what = format!("SIM_FAULTS={n}, {sickness:?} {lasts:?}");
    vfs::reset();
    vfs::fail(Some((n, sickness, lasts)));
    let mut run = Run::new(twin, what, Some(sickness));
    let halted = SCRIPT.iter().find_map(|step| run.step(*step).err());
    run.start_anew(&mut Dice::new(n));
    matches!(halted, Some(Halt::Stop))
}

/// How many calls of the whole script can fail so.
fn count(twin: &Twin, sickness: Sickness) -> u64 {
    vfs::reset();
    vfs::fail(Some((u64::MAX, sickness, Lasts::Once)));
    let mut run = Run::new(twin, "nothing fails".to_owned(), None);
    for step in SCRIPT {
        run.step(*step).expect("nothing fails");
    }
    assert_eq!(run.told, COMMANDS.len() as u64, "the script applies everything");
    let n = vfs::n_calls();
    run.start_anew(&mut Dice::new(0));
    n
}

/// The same with the `n`-th piece of memory refused.
fn check_memory(twin: &Twin, n: u64, lasts: Lasts) -> bool {
    vfs::reset();
    vfs::fail(None);
    memory::refuse(Some((n, lasts)));
    let mut run = Run::new(twin, format!("SIM_FAULTS={n}, memory {lasts:?}"), None);
    let halted = SCRIPT.iter().find_map(|step| run.step(*step).err());
    run.start_anew(&mut Dice::new(n));
    matches!(halted, Some(Halt::Stop))
}

/// How many pieces of memory the whole script asks for.
fn count_memory(twin: &Twin) -> u64 {
    vfs::reset();
    memory::refuse(Some((u64::MAX, Lasts::Once)));
    let mut run = Run::new(twin, "nothing fails".to_owned(), None);
    for step in SCRIPT {
        run.step(*step).expect("nothing fails");
    }
    let n = memory::n_calls();
    run.start_anew(&mut Dice::new(0));
    n
}

/// Let calls fail, a sample of them or all. How many runs there were, and how many ended with a stop.
fn sweep(sickness: Sickness, lasts: Lasts) -> (u64, u64) {
    let twin = Twin::new();
    let n_calls = count(&twin, sickness);
    sweep_all(&format!("{sickness:?} {lasts:?}"), n_calls, |n| check(&twin, n, sickness, lasts))
}

#[expect(clippy::print_stdout, reason = "how many calls failed is for whoever runs all of them")]
fn sweep_all(what: &str, n_calls: u64, check: impl Fn(u64) -> bool) -> (u64, u64) {
    let wish = env::var("SIM_FAULTS").ok();
    let (first, stride) = match wish.as_deref() {
        None => (1 + n_calls % 7, (n_calls / N_SAMPLES).max(1)),
        Some("all") => (1, 1),
        Some(number) => (number.parse().expect("a number"), u64::MAX),
    };
    let mut dice = Dice::new(n_calls);
    let (mut n_runs, mut n_stops) = (0, 0);
    let mut n = first;
    while n <= n_calls {
        n_runs += 1;
        n_stops += u64::from(check(n));
        // Uneven strides, or what comes at regular intervals would be missed.
        let step =
            if stride <= 1 || stride == u64::MAX { stride } else { 1 + dice.below(2 * stride - 1) };
        n = n.saturating_add(step);
    }
    println!("{what}: {n_runs} of {n_calls} failed, {n_stops} stopped the process");
    (n_runs, n_stops)
}

/// Set for the child of the next test: `once` or `for good`.
const MEMORY_CHILD: &str = "SIM_MEMORY_CHILD";

#[test]
fn child_that_lacks_memory() {
    let Ok(lasts) = env::var(MEMORY_CHILD) else { return };
    let lasts = if lasts == "once" { Lasts::Once } else { Lasts::FromThenOn };
    memory::install();
    let twin = Twin::new();
    let n_calls = count_memory(&twin);
    let what = format!("memory {lasts:?}");
    sweep_all(&what, n_calls, |n| check_memory(&twin, n, lasts));
}

#[expect(clippy::print_stdout, reason = "what the child says is for a human")]
fn without_memory(lasts: &str) {
    let child = std::process::Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "faults::child_that_lacks_memory", "--nocapture"])
        .env(MEMORY_CHILD, lasts)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&child.stdout);
    println!("{said}");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("stopped the process"), "it has done nothing");
}

#[test]
fn fault_memory_refused_once_stops_the_process_or_does_not_matter() {
    without_memory("once");
}

#[test]
fn fault_memory_refused_for_good_stops_the_process() {
    without_memory("for good");
}

/// Another connection that touches the database after the schema has changed loads it anew. SQLite tells nobody
/// if it cannot read the statistics then, and has undone the transaction: half of a touch would be committed,
/// and the applied index be gone.
#[test]
fn fault_at_any_call_of_a_touch_after_the_schema_changed_loses_nothing() {
    let mut n = 1;
    while is_touch_whole(n) {
        n += 1;
    }
    assert!(n > 10, "a touch makes more calls than {n}");
}

/// The `n`-th call of a touch fails, then the power goes. Whether there was such a call.
fn is_touch_whole(n: u64) -> bool {
    let path = Path::new(PATH);
    let mut has_failed = false;
    // Where the power goes decides what there is.
    for seed in 0..12 {
        vfs::reset();
        Database::create(path, vfs::vfs(), "").expect("it can be created");
        let mut database = databases::open(path, Role::Tenant);
        // With statistics, and then something that is new to the other connection.
        database.apply(&entries(1..15)).expect("applied");
        let mut checkpointer = Checkpointer::open(path, vfs::vfs()).expect("connected");
        checkpointer.checkpoint().expect("checkpointed");
        database.apply(&entries(15..17)).expect("applied");
        vfs::fail(Some((n, Sickness::Io, Lasts::Once)));
        let touched = checkpointer.touch();
        has_failed = vfs::failed().is_some();
        assert!(matches!(touched, Ok(true) | Err(Fault::Stop(_))), "call {n}: {touched:?}");
        assert!(has_failed || touched.is_ok(), "call {n}: {touched:?}");
        vfs::stop();
        drop((checkpointer, database));
        vfs::crash(&mut Dice::new(seed));
        let database = databases::open(path, Role::Tenant);
        let applied = database.applied();
        assert!(LogIndex(14) <= applied, "call {n} of a touch failed, seed {seed}: {applied}");
    }
    has_failed
}

#[test]
fn fault_eio_once_stops_the_process_or_does_not_matter() {
    let (n_runs, n_stops) = sweep(Sickness::Io, Lasts::Once);
    assert!(n_stops * 2 > n_runs, "{n_stops} of {n_runs}");
}

#[test]
fn fault_eio_for_good_stops_the_process() {
    let (n_runs, n_stops) = sweep(Sickness::Io, Lasts::FromThenOn);
    assert!(n_stops * 10 > n_runs * 9, "{n_stops} of {n_runs}");
}

#[test]
fn fault_enospc_once_is_never_a_wrong_result() {
    sweep(Sickness::Full, Lasts::Once);
}

#[test]
fn fault_enospc_for_good_is_never_a_wrong_result() {
    sweep(Sickness::Full, Lasts::FromThenOn);
}

#[test]
fn fault_enomem_once_stops_the_process_or_does_not_matter() {
    sweep(Sickness::Memory, Lasts::Once);
}

#[test]
fn fault_enomem_for_good_stops_the_process() {
    sweep(Sickness::Memory, Lasts::FromThenOn);
}

#[test]
fn fault_a_lock_held_once_is_waited_for() {
    sweep(Sickness::Busy, Lasts::Once);
}

#[test]
fn fault_a_lock_held_for_good_is_never_a_wrong_result() {
    sweep(Sickness::Busy, Lasts::FromThenOn);
}
