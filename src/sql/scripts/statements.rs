//! The statements that generated scripts are made of: something of everything that SQLite can do to a
//! database, and of everything that can go wrong on the way.

use bytes::Bytes;

use crate::sql::scripts::long;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::stamp;
use crate::types::Dice;
use crate::types::Timestamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::RequestKey;
use crate::wire::command::Results;
use crate::wire::command::Stamp;
use crate::wire::command::Value;
use crate::wire::command::draft::Draft;

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
    // Columns that are computed, indexes on part of a table and on expressions.
    "CREATE TABLE g(id INTEGER PRIMARY KEY, b INT, j TEXT, c AS (b * 2) STORED, d AS (b || '-' || c))",
    "CREATE INDEX g_part ON g(b) WHERE b > 100",
    "CREATE INDEX g_expression ON g(b % 7, d)",
    "CREATE UNIQUE INDEX g_json ON g(json_extract(j, '$.k')) WHERE json_valid(j)",
    "CREATE TABLE strict(i INT, r REAL, t TEXT UNIQUE ON CONFLICT REPLACE, b BLOB, n ANY NOT NULL ON CONFLICT IGNORE) STRICT",
    // A view that is written through, and triggers that fire each other.
    "CREATE VIEW v AS SELECT a, b, e FROM t WHERE e > 5",
    "CREATE TRIGGER v_insert INSTEAD OF INSERT ON v BEGIN
        INSERT INTO t(b, e) VALUES (new.b, new.e + 6) ON CONFLICT(b) DO UPDATE SET e = excluded.e + 20; END",
    "CREATE TRIGGER v_delete INSTEAD OF DELETE ON v BEGIN
        UPDATE OR IGNORE t SET b = b + 1000 WHERE a = old.a; INSERT INTO log VALUES ('v', old.a, changes()); END",
    "CREATE TABLE ping(n)",
    "CREATE TABLE pong(n)",
    "CREATE TRIGGER ping_pong AFTER INSERT ON ping WHEN new.n > 0 BEGIN
        INSERT INTO pong VALUES (new.n - 1); END",
    "CREATE TRIGGER pong_ping AFTER INSERT ON pong WHEN new.n > 0 BEGIN
        INSERT INTO ping VALUES (new.n - 1); DELETE FROM pong WHERE n < new.n - 8; END",
    // Several ways to the same rows: which one is taken follows the statistics, and decides their order.
    "CREATE TABLE plan(id INTEGER PRIMARY KEY, a, b, c)",
    "CREATE INDEX plan_a ON plan(a)",
    "CREATE INDEX plan_b ON plan(b)",
    "CREATE INDEX plan_ca ON plan(c, a)",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, t REFERENCES t(a) DEFERRABLE INITIALLY DEFERRED, note)",
];

const SEARCH_SCHEMA: &[&str] = &[
    "CREATE VIRTUAL TABLE search USING fts5(body, tokenize = 'porter')",
    "CREATE TRIGGER t_search AFTER INSERT ON t BEGIN
        INSERT INTO search(rowid, body) VALUES (new.a, new.b || ' word' || new.e); END",
    "CREATE VIRTUAL TABLE old_search USING fts4(body, note)",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1, +label)",
    "CREATE VIRTUAL TABLE words USING fts5vocab(search, row)",
];

/// A statement, or a few.
fn statement(dice: &mut Dice) -> String {
    let n = dice.below(40);
    let m = dice.below(400);
    let x = n % 4;
    match dice.below(93) {
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
        22 => format!("CREATE TABLE IF NOT EXISTS x{x} (a, b DEFAULT (random()))"),
        23 => format!("DROP TABLE IF EXISTS x{x}"),
        24 => format!("INSERT INTO x{x}(a) SELECT b FROM t ORDER BY a LIMIT {n}"),
        25 => format!("CREATE INDEX IF NOT EXISTS x{x}_a ON x{x}(a)"),
        26 => format!("ALTER TABLE x{x} ADD COLUMN c{m} DEFAULT {n}"),
        27 => format!("CREATE TABLE x{x} AS SELECT a, a, a, a, a, a FROM t LIMIT {n}"),
        28 => format!("CREATE TABLE IF NOT EXISTS x{x} AS SELECT b AS a, random() AS b, CURRENT_DATE AS today FROM t"),
        29..31 if n < 20 => "ANALYZE".into(),
        30 => format!("ANALYZE; INSERT INTO s(x) VALUES (13), ({n})"),
        31 => format!("INSERT INTO t(a, b) VALUES (9223372036854775807, {m})"),
        32 => "SELECT * FROM nowhere".into(),
        33 => format!("SELECT a, b, random() FROM t WHERE e > {n}"),
        34 => "PRAGMA user_version = 5; SELEC".into(),
        35 => format!("INSERT INTO log(what) VALUES (zeroblob({}))", 30 * n * n),
        36 => format!("INSERT INTO log SELECT 'rows', count(*), group_concat(b ORDER BY random()) FROM t WHERE e < {n}"),
        37 => format!("UPDATE s SET x = x + 1 WHERE id > {n} RETURNING id, x"),
        38 => format!("DELETE FROM x{x}"),
        39 => format!("INSERT INTO half VALUES ({n})"),
        40 => format!("DELETE FROM once WHERE x % 3 = {}", n % 3),
        41 => format!("SELECT count(*) FROM log, log WHERE 'a' || {m} LIKE '%b'"),
        42..44 => format!("INSERT INTO g(b, j) VALUES ({m}, json_object('k', {m} % 90, 'at', datetime('now')))"),
        44 => format!("INSERT OR REPLACE INTO g(b, j) SELECT b + {n}, json_set(j, '$.k', {m}) FROM g WHERE b % 7 = {} AND d > '2' LIMIT 5", n % 7),
        45 => format!("UPDATE g SET b = b + 1 WHERE b > 100 AND b % 7 = {} RETURNING c, d", n % 7),
        46 => format!("DELETE FROM g WHERE json_extract(j, '$.k') = {n} OR c = {m}"),
        47 => format!("INSERT INTO strict VALUES ({m}, {n}.5, 't' || {n}, x'{:02x}00', random())", m % 256),
        48 => format!("INSERT INTO strict VALUES ('{m}', '{n}', CAST(x'61ff{:02x}' AS TEXT), NULL, NULL), (1, 9e999, -0.0, x'', 'many'), ({m}, 'not', 1, 2, 3)", m % 256),
        49 => format!("INSERT INTO v(b, e) VALUES ({m}, {n}), ({n}, {m})"),
        50 => format!("DELETE FROM v WHERE a % 5 = {}", n % 5),
        51 => format!("UPDATE v SET b = 1 WHERE a = {n}"),
        52 => format!("INSERT INTO ping VALUES ({n})"),
        53 => "DELETE FROM ping WHERE n > 1; SELECT count(*), sum(n) FROM ping JOIN pong USING (n)".into(),
        54 => format!("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {m}) INSERT INTO plan(a, b, c) SELECT x % {}, random() % {}, x * x % {} FROM c", 1 + n, 1 + m, 1 + n * n),
        55 => format!("DELETE FROM plan WHERE id IN (SELECT id FROM plan WHERE a < {n} AND b < {m} AND c > 2 LIMIT 30)"),
        56 => format!("UPDATE plan SET c = c + {n}, a = abs(b) % 9 WHERE id IN (SELECT id FROM plan WHERE a = {} AND b > {} LIMIT 7)", n % 9, n % 5),
        57 => format!("INSERT INTO log SELECT 'order', {n}, group_concat(id) FROM (SELECT id FROM plan WHERE a = {} AND c = {} AND b < {m} LIMIT 9)", n % 9, n % 4),
        58 => format!("EXPLAIN QUERY PLAN SELECT * FROM plan JOIN t ON plan.b = t.b JOIN g ON g.b = plan.a WHERE plan.a = {n} AND c = {m} AND t.e > {n}"),
        59 => format!("ANALYZE plan; INSERT INTO plan(a, b, c) SELECT a, b, {n} FROM plan WHERE b = {} OR a = {n} OR c < 4 LIMIT 20", n % 7),
        60 => format!("UPDATE plan SET b = t.e FROM t WHERE t.a = plan.id AND t.e < {n} RETURNING id, b"),
        61 => "REINDEX".into(),
        62 => format!("REINDEX {}", ["plan_b", "g", "nowhere", "t"][usize::try_from(x).unwrap()]),
        63 => format!("ALTER TABLE x{x} RENAME TO x{}", (n / 4) % 4),
        64 => format!("ALTER TABLE x{x} RENAME COLUMN b TO b{}", n % 3),
        65 => format!("ALTER TABLE x{x} DROP COLUMN c{m}"),
        66 => format!("DROP INDEX IF EXISTS x{x}_a; CREATE UNIQUE INDEX x{x}_u ON x{x}(a) WHERE a IS NOT NULL"),
        67 => format!("CREATE TRIGGER IF NOT EXISTS x{x}_t AFTER DELETE ON x{x} BEGIN INSERT INTO log VALUES ('x', old.a, total_changes()); END"),
        68 => format!("DROP TRIGGER x{x}_t"),
        69 => format!("CREATE VIEW IF NOT EXISTS y{x} AS SELECT *, row_number() OVER (ORDER BY a) AS r FROM x{x}; SELECT * FROM y{x} LIMIT 3"),
        70 => format!("DROP VIEW IF EXISTS y{x}"),
        71 => format!("INSERT INTO log SELECT 'window', sum(e) OVER (ORDER BY a ROWS BETWEEN 2 PRECEDING AND CURRENT ROW), lag(b, 2) OVER w FROM t WINDOW w AS (PARTITION BY e % 3 ORDER BY d) LIMIT {n}"),
        72 => format!("INSERT INTO log SELECT key, atom, path FROM json_tree(json_object('a', json_array({n}, {m}, 'x'), 'b', json_group_array(0))) , t WHERE t.a < 4 GROUP BY fullkey"),
        73 => format!("WITH gone AS (SELECT a FROM t WHERE e % 11 = {}) DELETE FROM t WHERE a IN gone RETURNING a, b", n % 11),
        74 => format!("INSERT INTO t(a, b, e) SELECT {m}, b + 1, e FROM t WHERE a = {n} ON CONFLICT(a) DO UPDATE SET e = t.e + 1, c = excluded.c WHERE t.e < 30 ON CONFLICT(b) DO NOTHING"),
        75 => format!("UPDATE sqlite_sequence SET seq = seq + {n}; INSERT INTO s(x) VALUES ({m})"),
        76 => format!("DELETE FROM sqlite_sequence WHERE seq % 5 = {}; INSERT INTO s(x) VALUES ({m}) RETURNING id", n % 5),
        77 => "UPDATE sqlite_sequence SET seq = 9223372036854775807; INSERT INTO s(x) VALUES (1)".into(),
        78 => format!("INSERT INTO log(rowid, what) VALUES (9223372036854775806, 'far'); DELETE FROM log WHERE rowid = 9223372036854775806; INSERT INTO log VALUES ({n}, 1, 2)"),
        79 => "INSERT INTO log(rowid, what) VALUES (9223372036854775806, 'far'); INSERT INTO log VALUES (1, 2, 3), (4, 5, 6)".into(),
        80 => format!("UPDATE t SET a = 9223372036854775807 WHERE a = {n}"),
        // Each runs into a bound, in the middle of what it does.
        81 => "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 9000) INSERT INTO log SELECT 'sorted', x, y FROM (SELECT x, hex(randomblob(200)) AS y FROM c ORDER BY y) LIMIT 5".into(),
        82 => format!("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {}) INSERT INTO log SELECT 'full', x, zeroblob(9000) FROM c", n * 3),
        83 => format!("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {}) INSERT INTO t(b, e) SELECT {m} * 1000 + x, zeroblob(x * 300) FROM c", n * 4),
        84 => format!("UPDATE t SET e = zeroblob({n} * 900 * (a % 40)) WHERE a % 3 = 0"),
        85 => format!("INSERT INTO ping SELECT zeroblob(n * {m} * 7) FROM pong"),
        86 => format!("UPDATE log SET at = hex(what) || at WHERE rowid % 7 = {} RETURNING at", n % 7),
        87 => format!("INSERT INTO t(b, e) SELECT b + {m} * 500, e FROM t RETURNING a, b, c"),
        88 => format!("DELETE FROM log WHERE rowid % 3 = {}; DELETE FROM t WHERE a % 4 = {}; DELETE FROM plan WHERE id % 4 < 2", n % 3, n % 4),
        89 => format!("INSERT INTO child(t, note) VALUES ({m}, {n}); DELETE FROM t WHERE a = {m}"),
        90 => format!("INSERT INTO w SELECT 'r' || e, count(*), max(c) FROM t GROUP BY e HAVING count(*) > {} ON CONFLICT DO UPDATE SET v = v + 1", n % 3),
        91 => format!("REPLACE INTO w(k, v) SELECT k, v || '{n}' FROM w ORDER BY random() LIMIT 3"),
        _ => format!("SELECT t.b, s.x, w.k FROM t FULL JOIN s ON t.a = s.id LEFT JOIN w ON w.v = t.b WHERE coalesce(t.a, s.id) % 9 = {} ORDER BY 1, 2, 3", n % 9),
    }
}

/// A statement on a virtual table, or a few.
fn search_statement(dice: &mut Dice) -> String {
    let n = dice.below(40);
    let m = dice.below(400);
    match dice.below(24) {
        0..4 => {
            format!("INSERT INTO search(body) VALUES ('word{n} and {m} ' || hex(randomblob(3)))")
        }
        4 => format!("DELETE FROM search WHERE rowid % 11 = {}", n % 11),
        5 => format!("UPDATE search SET body = body || ' more{m}' WHERE search MATCH 'word{n}'"),
        6 => format!(
            "INSERT INTO log SELECT 'found', rowid, rank FROM search WHERE search MATCH 'word{n} OR and' ORDER BY rank LIMIT 5"
        ),
        7 => format!(
            "SELECT rowid, highlight(search, 0, '<', '>'), snippet(search, 0, '', '', '~', 3) FROM search('more* OR word{n}') ORDER BY bm25(search) LIMIT 4"
        ),
        8 => "INSERT INTO search(search) VALUES ('optimize')".into(),
        9 => format!("INSERT INTO search(search, rank) VALUES ('merge', {m})"),
        10 => "INSERT INTO search(search) VALUES ('rebuild')".into(),
        11 => format!("INSERT INTO search(search, rank) VALUES ('automerge', {})", n % 9),
        12 => format!("INSERT INTO search(search, rank) VALUES ('pgsz', {})", 64 + m),
        13 => "INSERT INTO search(search) VALUES ('integrity-check')".into(),
        14..16 => {
            format!("INSERT INTO old_search(body, note) VALUES ('word{n} and {m}', random())")
        }
        16 => format!("DELETE FROM old_search WHERE body MATCH 'word{n}'"),
        17 => "INSERT INTO old_search(old_search) VALUES ('optimize')".into(),
        18 => format!(
            "SELECT docid, snippet(old_search), hex(matchinfo(old_search)) FROM old_search WHERE old_search MATCH 'word{n} OR and' LIMIT 3"
        ),
        19 => format!(
            "INSERT OR REPLACE INTO boxes VALUES ({m}, {n}, {n} + 5.5, {m}, {m} + 1, 'box' || random())"
        ),
        20 => format!("DELETE FROM boxes WHERE x0 > {n} AND y1 < {m}"),
        21 => format!("SELECT id, label FROM boxes WHERE x1 >= {n} AND y0 <= {m}"),
        22 => format!(
            "UPDATE boxes SET x1 = x1 + {n} WHERE id % 7 = {}; UPDATE boxes SET x0 = 1000 WHERE id = {m}",
            n % 7
        ),
        _ => format!(
            "INSERT INTO log SELECT term, doc, cnt FROM words WHERE term > 'word{n}' LIMIT 4"
        ),
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

/// What a script is about, beside what all are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// Virtual tables, where each command has a transaction of its own.
    pub(super) search: bool,
    /// Long values.
    pub(super) long: bool,
}

impl About {
    fn schema(self) -> Vec<String> {
        let mut schema: Vec<_> = SCHEMA.iter().map(|it| (*it).to_owned()).collect();
        if self.search {
            schema.extend(SEARCH_SCHEMA.iter().map(|it| (*it).to_owned()));
        }
        if self.long {
            schema.extend(long::schema(self.search));
        }
        schema
    }

    fn limits(self, dice: &mut Dice) -> CommandLimits {
        if self.long && dice.below(4) > 0 { long::limits(dice) } else { limits(dice) }
    }

    fn statement(self, dice: &mut Dice) -> String {
        if self.long && dice.below(2) == 0 {
            let is_search = self.search && dice.below(3) == 0;
            return if is_search { long::search_statement(dice) } else { long::statement(dice) };
        }
        let is_search = self.search && dice.below(3) == 0;
        if is_search { search_statement(dice) } else { statement(dice) }
    }
}

/// The commands of a script, and the limits they run under.
pub(super) fn script(dice: &mut Dice, length: u64, about: About) -> Vec<Bytes> {
    let schema = about.schema();
    let schema = (1..).zip(&schema).map(|(n, sql)| command(Mode::Exec, sql, &[], &stamp(n)));
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
        let stamp = Stamp { time, limits: about.limits(dice), ..stamp(n) };
        if dice.below(30) == 0 {
            let n_pages = 1 + u32::try_from(dice.below(40)).unwrap();
            commands.push(Draft::vacuum(n_pages).seal(&stamp));
            continue;
        }
        let is_transaction = dice.below(5) == 0;
        let mut draft = Draft::new(if is_transaction { Results::Each } else { Results::Last }, 0);
        let mut asked = Vec::new();
        for _ in 0..if is_transaction { 1 + dice.below(4) } else { 1 } {
            let sql = about.statement(dice);
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

/// Tight in most commands, tighter in some, and in a few wide enough to sort what memory does not hold.
fn limits(dice: &mut Dice) -> CommandLimits {
    let tight = CommandLimits {
        steps: 60_000,
        result_rows: 60,
        result_bytes: 2_000,
        value_bytes: 30_000,
        database_bytes: 900_000,
        ..LIMITS
    };
    match dice.below(20) {
        0 => CommandLimits { steps: 1_000 * (1 + dice.below(9)), ..tight },
        1 => CommandLimits { database_bytes: 4_096 * dice.below(150), ..tight },
        2 => CommandLimits { value_bytes: 2_000, result_rows: 3, ..tight },
        3 => CommandLimits { steps: 1_000_000, temp_bytes: 3 << 20, ..tight },
        // Longer than what a command begins with.
        5..9 => CommandLimits { value_bytes: 60_000, ..tight },
        4 => CommandLimits { steps: 1_000_000, temp_bytes: 1_000_000, ..tight },
        _ => tight,
    }
}

/// Something to read between two batches, which changes nothing but what is kept in memory.
pub(super) fn reading(dice: &mut Dice) -> Bytes {
    let n = dice.below(40);
    let sql = match dice.below(7) {
        0 => format!("SELECT count(*), max(what) FROM log WHERE n > {n}"),
        1 => format!("SELECT * FROM t JOIN plan ON plan.b = t.b WHERE t.e > {n} LIMIT 20"),
        2 => format!("SELECT random(), changes(), total_changes(), last_insert_rowid(), {n}"),
        3 => "SELECT name FROM sqlite_master".into(),
        // Refused, but only after it was prepared.
        4 => "CREATE INDEX refused ON t(e, b)".into(),
        5 => "CREATE INDEX refused ON plan(c, b) WHERE a > 3".into(),
        // As in the scripts, so that the statement is at hand.
        _ => format!("SELECT a, b, random() FROM t WHERE e > {n}"),
    };
    command(Mode::Query, &sql, &[Value::Integer(7)], &stamp(50))
}
