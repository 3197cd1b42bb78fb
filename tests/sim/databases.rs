//! Databases and power cuts: whatever was synced is there, and nothing is there by halves.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use debros::sql::Applied;
use debros::sql::Checkpointer;
use debros::sql::Database;
use debros::sql::Entry;
use debros::sql::Fault;
use debros::sql::OpenError;
use debros::sql::Rest;
use debros::sql::Role;
use debros::sql::sync_wal;
use debros::types::Dice;
use debros::types::Incarnation;
use debros::types::LogIndex;
use debros::types::Timestamp;
use debros::wire::command::CommandLimits;
use debros::wire::command::Mode;
use debros::wire::command::Results;
use debros::wire::command::Stamp;
use debros::wire::command::Value;
use debros::wire::command::draft::Draft;
use debros::wire::rows::StatementResult;

use crate::seeds::for_part_of_seeds;
use crate::vfs;
use crate::vfs::Lasts;
use crate::vfs::Sickness;

const PATH: &str = "/simulated/1.db";
const SCHEMA: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c); CREATE INDEX t_b ON t(b)";

/// What a command may cost here.
pub(crate) const LIMITS: CommandLimits = CommandLimits {
    steps: 1_000_000,
    temp_bytes: 1 << 24,
    database_bytes: 1 << 26,
    result_bytes: 1 << 20,
    result_rows: 1_000,
    value_bytes: 1 << 20,
};

/// The command at an index of the log.
pub(crate) fn command(mode: Mode, index: u64, sql: &str) -> Bytes {
    let mut draft = Draft::new(Results::Last, 64);
    draft.statement(mode, sql).expect("short");
    seal(draft, index, LIMITS)
}

/// The same from a draft, with limits of its own.
pub(crate) fn seal(draft: Draft, index: u64, limits: CommandLimits) -> Bytes {
    draft.seal(&Stamp {
        incarnation: Incarnation(1),
        time: Timestamp(1_761_300_000_000 + index.cast_signed()),
        seed: index,
        limits,
    })
}

/// The log of one seed: the command at an index is always the same.
fn entry(seed: u64, index: u64) -> Entry {
    let mut dice = Dice::new(seed ^ (index << 20));
    let n = dice.below(500);
    let sql = match dice.below(12) {
        0..4 => format!("INSERT INTO t(b, c) VALUES ({n}, randomblob({}))", 10 * n),
        4..6 => {
            format!("UPDATE t SET b = random(), c = CURRENT_TIMESTAMP WHERE a % 10 = {}", n % 10)
        }
        6 => format!("DELETE FROM t WHERE a % 20 = {}", n % 20),
        7 => format!("INSERT INTO t(b) SELECT b FROM t LIMIT {n}"),
        8 => format!("INSERT OR ROLLBACK INTO t(a, b) VALUES (1, 1), ({n}, 2)"),
        9 => format!("CREATE TABLE IF NOT EXISTS x{} AS SELECT * FROM t", n % 3),
        10 => format!("DROP TABLE IF EXISTS x{}", n % 3),
        _ => "SELECT nothing".to_owned(),
    };
    Entry { index: LogIndex(index), command: command(Mode::Exec, index, &sql) }
}

struct Replica {
    seed: u64,
    dice: Dice,
    database: Database,
    checkpointer: Checkpointer,
    /// The content that each index is known to have; equal whenever that index is reached again.
    contents: BTreeMap<LogIndex, u64>,
    /// What the log may be cut to: the applied index sampled before the last sync.
    floor: LogIndex,
}

/// Open a database that is there and well.
pub(crate) fn open(path: &Path, role: Role) -> Database {
    Database::open(path, vfs::vfs(), role).expect("open the database")
}

/// What SQLite itself says of a database that nobody has open.
pub(crate) fn check_integrity(path: &Path, what: &str) {
    let mut engine = open(path, Role::Engine);
    let query = command(Mode::Query, 0, "PRAGMA integrity_check");
    let outcome = engine.read(&[query], &mut |_| false).expect("check the integrity").remove(0);
    let verdict = match outcome.expect("a result").remove(0) {
        StatementResult::Rows(rows) => rows,
        StatementResult::Counts { .. } => panic!("a query gives rows"),
    };
    assert_eq!(verdict.values().next(), Some(Value::Text("ok")), "{what}: not intact");
}

fn checkpointer() -> Checkpointer {
    Checkpointer::open(Path::new(PATH), vfs::vfs()).expect("open the checkpointer")
}

impl Replica {
    fn new(seed: u64) -> Self {
        vfs::reset();
        Self::create(seed)
    }

    fn create(seed: u64) -> Self {
        Database::create(Path::new(PATH), vfs::vfs(), SCHEMA).expect("create the database");
        Self::of_what_is_there(seed)
    }

    fn of_what_is_there(seed: u64) -> Self {
        Self {
            seed,
            dice: Dice::new(seed),
            database: open(Path::new(PATH), Role::Tenant),
            checkpointer: checkpointer(),
            contents: BTreeMap::new(),
            floor: LogIndex(0),
        }
    }

    /// One thing that happens to a database.
    fn step(&mut self) -> Result<(), Fault> {
        match self.dice.below(10) {
            0..5 => self.apply()?,
            5 | 6 => self.sync()?,
            7 => {
                if let Some(done) = self.checkpointer.checkpoint()? {
                    assert!(done.checkpointed <= done.log);
                }
            }
            8 => {
                self.checkpointer.touch()?;
            }
            _ => {
                // Evicted and opened again, while the helper stays or goes as well.
                self.reopen()?;
                if self.dice.below(2) == 0
                    && let Ok(it) = Checkpointer::open(Path::new(PATH), vfs::vfs())
                {
                    self.checkpointer = it;
                }
            }
        }
        Ok(())
    }

    /// The same, and the power goes at some call of it, or soon after it.
    fn step_into_the_dark(&mut self) {
        let n = n_calls(&mut self.dice);
        vfs::fail(Some((n, Sickness::Io, Lasts::FromThenOn)));
        let seed = self.seed;
        if let Err(fault) = self.try_step() {
            assert!(matches!(fault, Fault::Stop(_)), "seed {seed}, call {n}: {fault}");
            assert!(vfs::failed().is_some(), "seed {seed}: nothing failed, and yet: {fault}");
        }
    }

    /// A step of any kind, of which nothing is expected.
    fn try_step(&mut self) -> Result<(), Fault> {
        match self.dice.below(8) {
            // All that happens when a database makes room, and comes back.
            0 => {
                self.checkpointer.checkpoint()?;
                self.reopen()
            }
            // A `-wal` that is whole in the file begins anew.
            1 => {
                self.checkpointer.checkpoint()?;
                self.checkpointer.checkpoint()?;
                self.checkpointer.touch()?;
                self.apply_some()
            }
            2 => self.sync(),
            _ => self.apply_some(),
        }
    }

    fn sync(&mut self) -> Result<(), Fault> {
        // Sampled first: what is committed during the sync does not count.
        let applied = self.database.applied();
        sync_wal(Path::new(PATH), vfs::vfs())?;
        self.floor = applied;
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), Fault> {
        let opened = Database::open(Path::new(PATH), vfs::vfs(), Role::Tenant);
        self.database = opened.map_err(|error| match error {
            OpenError::Fault(fault) => fault,
            error => panic!("seed {}: {error}", self.seed),
        })?;
        Ok(())
    }

    fn apply(&mut self) -> Result<(), Fault> {
        self.apply_some()?;
        self.check_content();
        Ok(())
    }

    fn apply_some(&mut self) -> Result<(), Fault> {
        let first = self.database.applied().next().0;
        let entries: Vec<Entry> =
            (first..=first + self.dice.below(8)).map(|it| entry(self.seed, it)).collect();
        let batch = self.database.apply(&entries)?;
        assert_eq!(batch.rest, Rest::None);
        assert!(batch.applied.iter().all(|it| matches!(it, Applied::Done(_))));
        Ok(())
    }

    fn check_content(&mut self) {
        let (applied, seed) = (self.database.applied(), self.seed);
        let hash = self.database.content_hash().expect("hash the content");
        let known = *self.contents.entry(applied).or_insert(hash);
        assert_eq!(known, hash, "seed {seed}: the content at {applied} differs from before");
    }

    /// Lose the power, come back, and look.
    fn lose_power(mut self) -> Self {
        vfs::stop();
        drop(self.checkpointer);
        drop(self.database);
        vfs::crash(&mut self.dice);
        let seed = self.seed;
        check_integrity(Path::new(PATH), &format!("seed {seed}"));
        let mut replica = Self {
            database: open(Path::new(PATH), Role::Tenant),
            checkpointer: checkpointer(),
            ..self
        };
        let (applied, floor) = (replica.database.applied(), replica.floor);
        assert!(applied >= floor, "seed {seed}: {floor} was durable, {applied} came back");
        replica.check_content();
        replica
    }
}

#[test]
fn what_was_synced_survives_a_power_cut_and_nothing_by_halves() {
    let mut n_lost = 0;
    for seed in 0..120 {
        let mut replica = Replica::new(seed);
        for _ in 0..4 {
            for _ in 0..replica.dice.below(30) {
                replica.step().expect("nothing fails here");
            }
            let before = replica.database.applied();
            replica = replica.lose_power();
            n_lost += u32::from(replica.database.applied() < before);
        }
    }
    // The simulated medium must forget something, or nothing was tested.
    assert!(n_lost > 50, "only {n_lost} crashes lost anything");
}

#[test]
fn a_failing_medium_stops_the_replica_a_full_one_does_not_and_neither_spoils_anything() {
    for seed in 1_000..1_040 {
        for code in [Sickness::Io, Sickness::Full] {
            let mut replica = Replica::new(seed);
            for _ in 0..replica.dice.below(15) {
                replica.step().expect("nothing fails yet");
            }
            vfs::fail(Some((1, code, Lasts::FromThenOn)));
            if code == Sickness::Full {
                let before = replica.database.applied();
                let batch = replica.database.apply(&[entry(seed, before.next().0)]);
                let batch = batch.expect("a full disk is no fault");
                assert_eq!((batch.rest, batch.applied.len()), (Rest::NoRoom, 0), "seed {seed}");
                assert_eq!(replica.database.applied(), before);
                if seed % 2 == 0 {
                    // There is room again.
                    vfs::heal();
                    replica.apply().expect("nothing fails");
                }
            } else {
                let fault = replica.apply().expect_err("the medium fails");
                assert!(matches!(fault, Fault::Stop(_)), "seed {seed}: {fault}");
            }
            replica.lose_power();
        }
    }
}

/// How many calls go well before the power goes: few or many.
fn n_calls(dice: &mut Dice) -> u64 {
    let magnitude = 1 + dice.below(9);
    1 + dice.below(1 << magnitude)
}

/// A database from its creation on, whose power goes in the middle of whatever is done to it.
fn live_through_power_cuts(seed: u64) -> bool {
    vfs::reset();
    let mut dice = Dice::new(seed ^ 0x0ff);
    let path = Path::new(PATH);
    vfs::fail(Some((n_calls(&mut dice), Sickness::Io, Lasts::FromThenOn)));
    let created = Database::create(path, vfs::vfs(), SCHEMA);
    vfs::stop();
    vfs::crash(&mut dice);
    let is_there = vfs::files_under(path).contains(&path.to_owned());
    match created {
        Ok(()) => assert!(is_there, "seed {seed}: it was created, and is gone"),
        Err(OpenError::Fault(Fault::Stop(_))) => {}
        Err(error) => panic!("seed {seed}: {error}"),
    }
    let mut replica = if is_there {
        check_integrity(path, &format!("seed {seed}"));
        Replica::of_what_is_there(seed)
    } else {
        Replica::create(seed)
    };
    let mut has_lost = false;
    for _ in 0..3 {
        for _ in 0..replica.dice.below(6) {
            replica.step().expect("nothing fails yet");
        }
        replica.step_into_the_dark();
        let before = replica.database.applied();
        replica = replica.lose_power();
        has_lost |= replica.database.applied() < before;
        // It goes on, also if nothing more is lost.
        replica.apply().expect("nothing fails");
    }
    has_lost
}

/// Seeds of one part of eight.
const PART: u64 = 250;

fn power_cuts(part: u64) {
    let mut n_lost = 0;
    for_part_of_seeds(part * PART..(part + 1) * PART, |seed| {
        n_lost += u64::from(live_through_power_cuts(seed));
    });
    let is_one = std::env::var_os("SIM_SEED").is_some();
    assert!(is_one || n_lost > PART / 4, "only {n_lost} of {PART} lost anything");
}

#[test]
fn power_may_go_at_any_call_part_1() {
    power_cuts(0);
}

#[test]
fn power_may_go_at_any_call_part_2() {
    power_cuts(1);
}

#[test]
fn power_may_go_at_any_call_part_3() {
    power_cuts(2);
}

#[test]
fn power_may_go_at_any_call_part_4() {
    power_cuts(3);
}

#[test]
fn power_may_go_at_any_call_part_5() {
    power_cuts(4);
}

#[test]
fn power_may_go_at_any_call_part_6() {
    power_cuts(5);
}

#[test]
fn power_may_go_at_any_call_part_7() {
    power_cuts(6);
}

#[test]
fn power_may_go_at_any_call_part_8() {
    power_cuts(7);
}

#[test]
fn opening_pays_for_the_syncs_that_applying_would() {
    let mut replica = Replica::new(1);
    let before = vfs::n_syncs();
    for _ in 0..20 {
        replica.apply().expect("applied");
    }
    assert_eq!(vfs::n_syncs(), before, "a commit waited for the disk");
    // A complete checkpoint makes the next writer start the log again, which syncs its header: the helper.
    replica.checkpointer.checkpoint().expect("checkpointed").expect("not busy");
    assert!(replica.checkpointer.touch().expect("touched"));
    let before = vfs::n_syncs();
    replica.apply().expect("applied");
    assert_eq!(vfs::n_syncs(), before, "a commit waited for the disk");
}
