//! The property that replication rests on: the same commands give the same outcomes and the same content,
//! however they are cut into batches, whenever they run, and whatever was reopened or forgotten meanwhile.

use bytes::Bytes;

use crate::sql::Applied;
use crate::sql::Database;
use crate::sql::Entry;
use crate::sql::Rest;
use crate::sql::Role;
use crate::sql::Vfs;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::types::Dice;
use crate::types::LogIndex;
use crate::types::Timestamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Draft;
use crate::wire::command::Mode;
use crate::wire::command::RequestKey;
use crate::wire::command::Results;
use crate::wire::command::Stamp;
use crate::wire::command::Value;

const SCHEMA: &[&str] = &[
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c DEFAULT CURRENT_TIMESTAMP, d DEFAULT (random()), e)",
    "CREATE TABLE w(k TEXT PRIMARY KEY, v, at DEFAULT (julianday('now'))) WITHOUT ROWID",
    "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, x CHECK (x <> 13))",
    "CREATE TABLE log(what, n, at)",
    "CREATE INDEX t_e ON t(e, d)",
    "CREATE TRIGGER t_log AFTER INSERT ON t BEGIN
        INSERT INTO log VALUES ('t', changes() + last_insert_rowid() + total_changes(), unixepoch('subsec'));
        SELECT RAISE(ROLLBACK, 'rolled back') WHERE new.e = 17;
        SELECT RAISE(FAIL, 'failed') WHERE new.e = 18;
        SELECT RAISE(ABORT, 'aborted') WHERE new.e = 19;
     END",
    "CREATE TABLE half(a)",
    "CREATE TABLE once(x UNIQUE)",
    "CREATE TRIGGER half_once BEFORE INSERT ON half BEGIN
        INSERT OR FAIL INTO once SELECT e FROM t WHERE e > 0 ORDER BY a DESC LIMIT new.a; END",
];

/// A statement, or a few.
fn statement(dice: &mut Dice) -> String {
    let n = dice.below(40);
    let m = dice.below(400);
    match dice.below(42) {
        0..6 => format!("INSERT INTO t(b, e) VALUES ({m}, {n})"),
        6 => format!("INSERT OR IGNORE INTO t(b, e) VALUES ({m}, {n}), ({n}, {m}) RETURNING a, c, d"),
        7 => format!("INSERT OR REPLACE INTO t(b, e) VALUES ({m}, random() % 20)"),
        8 => format!("INSERT OR FAIL INTO t(b, e) VALUES ({m}, 1), ({n}, 2), ({m}, 3)"),
        9 => format!("INSERT OR ROLLBACK INTO t(b) VALUES ({m}), ({n})"),
        10 => format!("UPDATE t SET e = random(), c = datetime('now', '+{n} days') WHERE a % 40 = {n}"),
        11 => format!("UPDATE OR ROLLBACK t SET b = {m} WHERE a = {n}"),
        12 => format!("DELETE FROM t WHERE a IN (SELECT a FROM t ORDER BY random() LIMIT 3) OR b = {m}"),
        13 => format!("INSERT INTO w(k, v) VALUES (hex(randomblob({n})), strftime('%f', 'now', 'localtime'))"),
        14 => format!("INSERT INTO w(k, v) VALUES ('k{n}', {m}) ON CONFLICT(k) DO UPDATE SET v = excluded.v, at = CURRENT_TIME RETURNING *"),
        15 => format!("INSERT INTO s(x) VALUES ({n}), ({m})"),
        16 => "INSERT INTO log SELECT 'counters', changes() + 1000 * total_changes(), last_insert_rowid()".into(),
        17 => format!("INSERT INTO s(x) VALUES ({m}); INSERT INTO log SELECT 'id', last_insert_rowid(), changes()"),
        18 => format!("INSERT INTO s(x) VALUES ({m}); INSERT INTO t(b) VALUES ({n}); INSERT INTO t(b) VALUES ({n})"),
        19 => format!("WITH RECURSIVE c(x) AS (SELECT {n} UNION ALL SELECT x + 1 FROM c WHERE x < {m}) INSERT INTO log SELECT 'c', x, random() FROM c"),
        20 => "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) INSERT INTO log SELECT 'endless', x, 0 FROM c".into(),
        21 => format!("DELETE FROM log WHERE n % 40 > {n}"),
        22 => format!("CREATE TABLE IF NOT EXISTS x{} (a, b DEFAULT (random()))", n % 4),
        23 => format!("DROP TABLE x{}", n % 4),
        24 => format!("INSERT INTO x{}(a) SELECT b FROM t ORDER BY a LIMIT {n}", n % 4),
        25 => format!("CREATE INDEX x{0}_a ON x{0}(a)", n % 4),
        26 => format!("ALTER TABLE x{} ADD COLUMN c{m} DEFAULT {n}", n % 4),
        27 => format!("CREATE TABLE x{} AS SELECT a, a, a, a, a, a FROM t LIMIT {n}", n % 4),
        28 => format!("CREATE TABLE x{} AS SELECT b, random() AS r, CURRENT_DATE AS today FROM t", n % 4),
        29 if n < 10 => "ANALYZE".into(),
        30 => format!("ANALYZE; INSERT INTO s(x) VALUES (13), ({n})"),
        31 => format!("INSERT INTO t(a, b) VALUES (9223372036854775807, {m})"),
        32 => "SELECT * FROM nowhere".into(),
        33 => format!("SELECT a, b, random() FROM t WHERE e > {n}"),
        34 => "PRAGMA user_version = 5; SELEC".into(),
        35 => format!("INSERT INTO log(what) VALUES (zeroblob({}))", 30 * n * n),
        36 => format!("INSERT INTO log SELECT 'rows', count(*), group_concat(b ORDER BY random()) FROM t WHERE e < {n}"),
        37 => format!("UPDATE s SET x = x + 1 WHERE id > {n} RETURNING id, x"),
        38 => format!("DELETE FROM x{}", n % 4),
        39 => format!("INSERT INTO half VALUES ({n})"),
        40 => format!("DELETE FROM once WHERE x % 3 = {}", n % 3),
        _ => format!("SELECT count(*) FROM log, log WHERE 'a' || {m} LIKE '%b'"),
    }
}

/// What was asked under each key, newest last.
type Keyed = Vec<(String, Vec<(Mode, String)>)>;

/// Decide whether a command is a request with a key: none, a new one, the same again, or another one under
/// a key that was used. Returns key and hash; `asked` becomes what is asked again.
fn keyed(
    dice: &mut Dice,
    asked: &mut Vec<(Mode, String)>,
    before: &mut Keyed,
) -> Option<(String, [u8; 16])> {
    let key = match dice.below(10) {
        0..5 => return None,
        5..7 => format!("key {}", dice.below(60)),
        _ => {
            let at = before.len().checked_sub(1 + usize::try_from(dice.below(20)).unwrap())?;
            asked.clone_from(&before[at].1);
            before[at].0.clone()
        }
    };
    before.push((key.clone(), asked.clone()));
    let mut hash = [0; 16];
    for (at, byte) in asked.iter().flat_map(|(_, sql)| sql.bytes()).enumerate() {
        hash[at % 16] = (hash[at % 16] ^ byte).wrapping_mul(31);
    }
    Some((key, hash))
}

/// The commands of a script, and the limits they run under.
fn script(dice: &mut Dice, length: u64, with_search: bool) -> Vec<Bytes> {
    let limits = CommandLimits {
        steps: 60_000,
        result_rows: 60,
        result_bytes: 2_000,
        value_bytes: 30_000,
        database_bytes: 600_000,
        ..LIMITS
    };
    let mut schema: Vec<&str> = SCHEMA.to_vec();
    if with_search {
        schema.push("CREATE VIRTUAL TABLE search USING fts5(body)");
        schema.push(
            "CREATE TRIGGER t_search AFTER INSERT ON t BEGIN
                INSERT INTO search(rowid, body) VALUES (new.a, new.b || ' word' || new.e); END",
        );
    }
    let schema = (1..).zip(schema).map(|(n, sql)| command(Mode::Exec, sql, &[], &stamp(n)));
    let mut commands: Vec<Bytes> = schema.collect();
    let (mut before, mut passed) = (Keyed::new(), 0);
    for n in 100..100 + length {
        // Long enough for keys to become old, now and then.
        passed += match dice.below(100) {
            0 => 25 * 3_600_000,
            1..4 => 11 * 60_000,
            _ => 0,
        };
        let time = Timestamp(stamp(n).time.0 + passed);
        let stamp = Stamp { time, limits, ..stamp(n) };
        let is_transaction = dice.below(5) == 0;
        let mut draft = Draft::new(if is_transaction { Results::Each } else { Results::Last }, 0);
        let n_statements = if is_transaction { 1 + dice.below(4) } else { 1 };
        let mut asked = Vec::new();
        for _ in 0..n_statements {
            let sql = statement(dice);
            let is_query = sql.starts_with("SELECT") && dice.below(2) == 0;
            asked.push((if is_query { Mode::Query } else { Mode::Exec }, sql));
        }
        let request = keyed(dice, &mut asked, &mut before);
        for (mode, sql) in &asked {
            draft.statement(*mode, sql).unwrap();
            draft.bind(Value::Integer(7)).unwrap();
        }
        if let Some((key, hash)) = &request {
            draft.key(RequestKey::new(key.as_bytes(), *hash).unwrap()).unwrap();
        }
        commands.push(draft.seal(&stamp));
    }
    commands
}

/// How a replica treats what it is given.
#[derive(Clone, Copy, Debug)]
struct Manner {
    batch_max: u64,
    /// Once in how many batches it is closed and opened again.
    reopen: u64,
    /// Once in how many batches it forgets what it keeps.
    rest: u64,
}

/// Apply `commands` in `manner`; what each gave, and the hash of what is there in the end.
fn replica(commands: &[Bytes], manner: Manner, dice: &mut Dice) -> (Vec<String>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1.db");
    Database::create(&path, Vfs::system(), "").unwrap();
    let open = || Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
    let mut database = open();
    let entries: Vec<Entry> = (1..)
        .zip(commands)
        .map(|(n, command)| Entry { index: LogIndex(n), command: command.clone() })
        .collect();
    let mut printed = Vec::new();
    let mut rest = &entries[..];
    while !rest.is_empty() {
        let size = usize::try_from(1 + dice.below(manner.batch_max)).unwrap().min(rest.len());
        let (batch, after) = rest.split_at(size);
        let applied = database.apply(batch).unwrap();
        assert_eq!(applied.rest, Rest::None);
        assert_eq!(applied.applied.len(), batch.len());
        for one in &applied.applied {
            match one {
                Applied::Done(outcome) => printed.push(print(outcome)),
                Applied::Replayed(outcome) => printed.push(format!("again {}", print(outcome))),
                Applied::Skipped => panic!("a new entry was skipped"),
            }
        }
        rest = after;
        if dice.below(manner.rest) == 0 {
            database.rest();
        }
        if dice.below(manner.reopen) == 0 {
            drop(database);
            database = open();
        }
    }
    (printed, database.content_hash().unwrap())
}

fn check(seed: u64, length: u64, with_search: bool) {
    let mut dice = Dice::new(seed);
    let commands = script(&mut dice, length, with_search);
    let never = u64::MAX;
    let one = Manner { batch_max: 1, reopen: 50, rest: 7 };
    let (want, want_hash) = replica(&commands, one, &mut dice);
    for manner in [
        Manner { batch_max: 64, reopen: never, rest: never },
        Manner { batch_max: 9, reopen: 20, rest: 5 },
    ] {
        let (got, got_hash) = replica(&commands, manner, &mut dice);
        for (n, (got, want)) in got.iter().zip(&want).enumerate() {
            let command = String::from_utf8_lossy(&commands[n]).replace('\0', "");
            assert_eq!(got, want, "seed {seed}, command {n} of {manner:?}: {command}");
        }
        assert_eq!(got_hash, want_hash, "seed {seed}: contents differ for {manner:?}");
    }
    // The scripts are worth something only if most of what they try happens.
    let failed = want.iter().filter(|it| it.starts_with("error")).count();
    assert!(failed * 2 < want.len(), "{failed} of {} commands failed", want.len());
    let n_of = |what: &str| want.iter().filter(|it| it.starts_with(what)).count();
    for what in ["again 1 rows", "again error", "error idempotency_key_reused"] {
        assert!(n_of(what) * 100 > want.len(), "{what}: {} of {}", n_of(what), want.len());
    }
}

#[test]
fn batches_times_and_reopening_never_show() {
    for seed in 0..12 {
        check(seed, 700, false);
    }
}

#[test]
fn nor_do_they_with_virtual_tables() {
    for seed in 100..103 {
        check(seed, 300, true);
    }
}
