//! What could differ between two replicas, one way at a time (R20): each was tried as somebody would who wants
//! them to differ. The generated scripts (`scripts`) look for what nobody thought of.

use std::fmt::Write;

use bytes::Bytes;
use expect_test::expect_file;

use crate::sql::Database;
use crate::sql::Role;
use crate::sql::Vfs;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::RequestKey;
use crate::wire::command::Results;
use crate::wire::command::Stamp;
use crate::wire::command::draft::Draft;

/// What happens to a replica beside its commands.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// Each command is a batch, on a connection that stays.
    Kept,
    /// Each command is a batch, on a connection of its own.
    Reopened,
    /// All are one batch.
    Together,
}

/// Apply `commands`, and read by `reads` before each; what they gave, and the hash of what is there then.
fn live(life: Life, commands: &[Bytes], reads: &[&str]) -> (Vec<String>, u64) {
    let mut fixture = Fixture::new();
    let mut printed = Vec::new();
    let n = match life {
        Life::Kept | Life::Reopened => 1,
        Life::Together => commands.len(),
    };
    for batch in commands.chunks(n) {
        for read in reads {
            fixture.query(read);
        }
        printed.extend(fixture.apply(batch.iter().cloned()).iter().map(print));
        if matches!(life, Life::Reopened) {
            let path = fixture.database.path.clone();
            fixture.database = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
        }
    }
    (printed, fixture.database.content_hash().unwrap())
}

/// All replicas give the same and hold the same, whatever their lives. Returns what they gave.
fn check_commands(commands: &[Bytes], reads: &[&str]) -> Vec<String> {
    let (want, want_hash) = live(Life::Reopened, commands, &[]);
    for life in [Life::Kept, Life::Together] {
        for reads in [&[], reads] {
            let (got, got_hash) = live(life, commands, reads);
            assert_eq!(got, want, "{life:?}, {} reads", reads.len());
            assert_eq!(got_hash, want_hash, "contents differ: {life:?}, {} reads", reads.len());
        }
    }
    want
}

/// The same for texts, each a command.
fn check(texts: &[&str], reads: &[&str]) -> Vec<String> {
    let commands = (1..).zip(texts).map(|(n, sql)| command(Mode::Exec, sql, &[], &stamp(n)));
    check_commands(&commands.collect::<Vec<_>>(), reads)
}

fn limited(n: u64, sql: &str, limits: CommandLimits) -> Bytes {
    command(Mode::Exec, sql, &[], &Stamp { limits, ..stamp(n) })
}

/// A request with a key, whose outcome is kept in the database: what it gives must be equal to the byte.
fn keyed(n: u64, sql: &str) -> Bytes {
    let mut draft = Draft::new(Results::Each, 0);
    draft.statement(Mode::Query, sql).unwrap();
    draft.key(RequestKey::new(format!("key {n}").as_bytes(), [7; 16]).unwrap()).unwrap();
    draft.seal(&stamp(n))
}

/// A table whose rows can be found by two indexes; which one is taken decides the order of the rows.
const TWO_WAYS: [&str; 4] = [
    "CREATE TABLE p(id INTEGER PRIMARY KEY, a, at)",
    "CREATE INDEX p_a ON p(a)",
    "CREATE INDEX p_at ON p(at)",
    "CREATE TABLE log(x)",
];

#[test]
fn plans_that_follow_the_time_follow_that_of_the_command() {
    // With statistics SQLite evaluates `now` when it prepares a statement, to guess how many rows there are.
    let mut texts = TWO_WAYS.to_vec();
    texts.push(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000)
         INSERT INTO p(a, at) SELECT x * 7919 % 4, datetime('now', (1000 - x / 2) || ' seconds') FROM n",
    );
    texts.push("ANALYZE");
    let choose = "INSERT INTO log SELECT group_concat(id) FROM
        (SELECT id FROM p WHERE a = 3 AND at < datetime('now') LIMIT 5)";
    texts.push(choose);
    let mut commands: Vec<_> =
        (1..).zip(texts).map(|(n, sql)| command(Mode::Exec, sql, &[], &stamp(n))).collect();
    for n in [10, 100, 500, 1_000, 2_000] {
        commands.push(command(Mode::Exec, choose, &[], &stamp(n)));
    }
    check_commands(&commands, &[]);
}

#[test]
fn functions_that_are_refused_are_refused_everywhere() {
    for call in [
        "sqlite_version()",
        "sqlite_source_id()",
        "fts5_source_id()",
        "sqlite_compileoption_get(1)",
        "sqlite_compileoption_used('THREADSAFE')",
        "fts5_locale('en', 'x')",
    ] {
        let quoted = format!("\"{}", call.replacen('(', "\"(", 1));
        for call in [call, &quoted] {
            for texts in [
                vec![
                    format!("CREATE TABLE u(a, b DEFAULT ({call}))"),
                    "INSERT INTO u(a) VALUES (1)".into(),
                ],
                vec![
                    format!("ALTER TABLE t ADD COLUMN b DEFAULT ({call})"),
                    "INSERT INTO t(a) VALUES (2)".into(),
                ],
                vec![
                    format!("CREATE TABLE u(a, b AS ({call}))"),
                    "INSERT INTO u(a) VALUES (1)".into(),
                    "INSERT INTO t SELECT b FROM u".into(),
                ],
                vec![
                    format!("ALTER TABLE t ADD COLUMN b AS ({call})"),
                    "INSERT INTO t(a) VALUES (3)".into(),
                    "INSERT INTO t(a) SELECT b FROM t".into(),
                ],
                vec![
                    format!("CREATE TABLE u(a, CHECK (a <> {call}))"),
                    "INSERT INTO u(a) VALUES (1)".into(),
                ],
                vec![
                    format!("ALTER TABLE t ADD COLUMN b CHECK (b <> {call})"),
                    "INSERT INTO t(b) VALUES (1)".into(),
                ],
                vec![
                    format!("CREATE INDEX i ON t(a) WHERE a <> {call}"),
                    "INSERT INTO t(a) VALUES (1)".into(),
                ],
                vec![
                    format!("CREATE INDEX i ON t(a || {call})"),
                    "INSERT INTO t(a) VALUES (1)".into(),
                ],
                vec![
                    format!("CREATE VIEW v AS SELECT {call} AS b"),
                    "INSERT INTO t SELECT b FROM v".into(),
                ],
                vec![
                    format!(
                        "CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET a = {call}; END"
                    ),
                    "INSERT INTO t(a) VALUES (1)".into(),
                ],
            ] {
                let mut fixture = Fixture::new();
                fixture.must("CREATE TABLE t(a)");
                let texts: Vec<_> = texts.iter().map(String::as_str).collect();
                let printed = fixture.exec(&texts);
                let is_refused = printed.iter().any(|it| it.starts_with("error"));
                assert!(is_refused, "{texts:?}: {printed:?}");
            }
        }
    }
}

#[test]
fn names_that_sqlite_makes_up_reach_nobody() {
    let commands = [
        keyed(1, "SELECT * FROM (SELECT 1 a, 1 a, 1 a, 1 a, 1 a, 1 a)"),
        keyed(2, "WITH x AS (SELECT 1 b, 2 b, 3 b, 4 b, 5 b, 6 b, 7 b) SELECT * FROM x"),
    ];
    let printed = check_commands(&commands, &[]);
    assert!(printed.iter().all(|it| it.starts_with("error: duplicate column")), "{printed:?}");
}

#[test]
fn what_explains_a_statement_is_not_kept() {
    let commands = [
        command(Mode::Exec, "CREATE TABLE t(a)", &[], &stamp(1)),
        command(Mode::Exec, "CREATE VIRTUAL TABLE f USING fts5(a)", &[], &stamp(2)),
        keyed(3, "EXPLAIN SELECT * FROM t"),
        keyed(4, "EXPLAIN SELECT * FROM f"),
        keyed(5, "EXPLAIN INSERT INTO t VALUES (1)"),
        keyed(6, "EXPLAIN QUERY PLAN SELECT * FROM t, f"),
    ];
    let printed = check_commands(&commands, &["SELECT * FROM t", "CREATE INDEX refused ON t(a)"]);
    assert!(printed[2..5].iter().all(|it| it.starts_with("error")), "{printed:?}");
    assert!(printed[5].contains("SCAN"), "{printed:?}");
}

#[test]
fn statistics_that_a_virtual_table_has_read_do_not_last() {
    let texts = [
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, a INTEGER)",
        "CREATE INDEX p_a ON p(a)",
        "CREATE TABLE log(x)",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 40)
         INSERT INTO r SELECT 41 - x, x, x + 5 FROM n",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000)
         INSERT INTO p(a) SELECT x * 7919 % 50 FROM n",
        "ANALYZE; INSERT INTO log SELECT group_concat(id || '/' || i) FROM
            (SELECT p.id AS id, r.id AS i FROM r JOIN p ON p.a = r.id WHERE r.x0 < 30 LIMIT 5)",
        "INSERT INTO log SELECT group_concat(id || '/' || i) FROM
            (SELECT p.id AS id, r.id AS i FROM r JOIN p ON p.a = r.id WHERE r.x0 < 30 LIMIT 5)",
    ];
    check(&texts, &["SELECT count(*) FROM r, p WHERE p.id = r.id"]);
}

#[test]
fn room_that_one_command_used_to_undo_is_not_charged_to_the_next() {
    let small = CommandLimits { temp_bytes: 10_000, ..LIMITS };
    let commands = [
        command(Mode::Exec, "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)", &[], &stamp(1)),
        command(
            Mode::Exec,
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000)
             INSERT INTO t(b) SELECT x FROM n",
            &[],
            &stamp(2),
        ),
        command(Mode::Exec, "UPDATE t SET b = -b", &[], &stamp(3)),
        limited(4, "UPDATE t SET b = -b WHERE a < 2000", small),
        limited(5, "UPDATE t SET b = -b WHERE a < 4", small),
    ];
    check_commands(&commands, &[]);
}

#[test]
fn no_table_has_the_largest_rowid() {
    let texts = [
        "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
        "CREATE TABLE u(a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
        "CREATE TABLE plain(b)",
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
        "CREATE VIRTUAL TABLE f USING fts5(b)",
        "CREATE VIRTUAL TABLE c USING fts5(b, content='', contentless_delete=1)",
        "CREATE VIRTUAL TABLE f4 USING fts4(b)",
        "INSERT INTO sqlite_sequence(rowid, name, seq) VALUES (9223372036854775807, 'none', 1)",
        "INSERT INTO t(b) VALUES ('x')",
        "INSERT INTO sqlite_sequence(rowid, name, seq) SELECT 9223372036854775807, 'none', 1",
        "UPDATE sqlite_sequence SET rowid = 9223372036854775807",
        "INSERT INTO u(b) VALUES ('x')",
        "INSERT INTO plain(rowid, b) VALUES (9223372036854775807, 'x')",
        "INSERT INTO plain VALUES ('y')",
        "REPLACE INTO plain(rowid, b) VALUES (9223372036854775807, 'x'); INSERT INTO plain VALUES ('y')",
        "UPDATE plain SET rowid = 9223372036854775807",
        "INSERT INTO plain VALUES ('z')",
        "INSERT INTO r VALUES (9223372036854775807, 1, 2)",
        "INSERT INTO r VALUES (NULL, 1, 2)",
        "INSERT INTO f(rowid, b) VALUES (9223372036854775807, 'x')",
        "INSERT INTO f VALUES ('y')",
        "INSERT INTO c(rowid, b) VALUES (9223372036854775807, 'x')",
        "INSERT INTO c(b) VALUES ('y')",
        "INSERT INTO f4(docid, b) VALUES (9223372036854775807, 'x')",
        "INSERT INTO f4 VALUES ('y')",
    ];
    let printed = check(&texts, &[]);
    let n_refused = printed.iter().filter(|it| it.contains("is reserved")).count();
    assert_eq!(n_refused, 10, "{printed:?}");
}

#[test]
fn where_pages_lie_is_the_same() {
    let mut texts = vec!["CREATE TABLE log(name, at)".to_owned()];
    for n in 0..12 {
        texts.push(format!("CREATE TABLE t{n}(a UNIQUE, b)"));
        texts.push(format!(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300)
             INSERT INTO t{n} SELECT x, hex(zeroblob(x * 9)) FROM n"
        ));
        texts.push(format!("DELETE FROM t{n} WHERE a % 3 > 0"));
        texts.push(format!("DROP TABLE IF EXISTS t{}", n * 7 % 5));
        texts.push(format!("INSERT OR ROLLBACK INTO t{n} SELECT a FROM t{n}"));
        texts.push("INSERT INTO log SELECT name, rootpage FROM sqlite_master".to_owned());
    }
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    check(&texts, &["SELECT count(*) FROM log"]);
}

#[test]
fn tables_and_indexes_come_in_the_same_order() {
    let mut texts = vec!["CREATE TABLE log(x)".to_owned()];
    for n in 0..60 {
        texts.push(format!("CREATE TABLE t{n}(a UNIQUE ON CONFLICT REPLACE, b UNIQUE, c)"));
        texts.push(format!(
            "CREATE UNIQUE INDEX t{n}_c ON t{n}(c); CREATE INDEX t{n}_cb ON t{n}(c, b)"
        ));
        texts.push(format!("INSERT INTO t{n} VALUES (1, 2, 3), (4, 5, 6)"));
    }
    for n in (0..60).filter(|it| it % 3 > 0) {
        texts.push(format!("DROP TABLE t{n}"));
    }
    texts.push("DROP INDEX t0_c; CREATE TABLE t99(a UNIQUE); INSERT INTO t99 VALUES (1); CREATE UNIQUE INDEX t0_c ON t0(c); ANALYZE".into());
    texts.push("INSERT INTO log SELECT rowid || tbl || coalesce(idx, '') FROM sqlite_stat1".into());
    texts.push("INSERT INTO t0 VALUES (7, 5, 3)".into());
    texts.push("ALTER TABLE t3 RENAME TO t1; ANALYZE; INSERT INTO t1 VALUES (1, 5, 6)".into());
    texts.push("INSERT INTO log SELECT rowid || tbl || coalesce(idx, '') FROM sqlite_stat1".into());
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let mut commands: Vec<_> =
        (1..).zip(texts).map(|(n, sql)| command(Mode::Exec, sql, &[], &stamp(n))).collect();
    commands.push(keyed(900, "PRAGMA table_list"));
    commands.push(keyed(901, "PRAGMA index_list(t0)"));
    commands.push(keyed(902, "PRAGMA collation_list"));
    check_commands(&commands, &["SELECT * FROM t0, log"]);
}

#[test]
fn every_connection_is_set_as_the_others() {
    let texts = [
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        "CREATE TABLE child(t REFERENCES t(a) ON DELETE CASCADE)",
        // An index on a string, which a column of that name would corrupt.
        "CREATE INDEX i ON t(\"no such column\")",
        "CREATE TABLE u(a CHECK (a <> \"no such column\"))",
        "INSERT INTO t(b) SELECT \"a string\"",
        "INSERT INTO child VALUES (1), (99)",
        "DELETE FROM t",
        "INSERT INTO t(b) SELECT count(*) FROM child",
        "CREATE TRIGGER again AFTER INSERT ON t WHEN new.b < 9 BEGIN INSERT INTO t(b) VALUES (new.b + 1); END",
        "INSERT INTO t(b) VALUES (1)",
        "INSERT INTO t(b) SELECT 100 + count(*) FROM t RETURNING b",
    ];
    let printed = check(&texts, &["PRAGMA foreign_keys"]);
    let is_refused: Vec<_> = printed[..5].iter().map(|it| it.starts_with("error")).collect();
    assert_eq!(is_refused, [false, false, true, true, false], "{printed:?}");
    // Both children are still there, and a trigger does not fire itself.
    assert_eq!(printed[10], "1 rows, id 4 returned [b](103)");
}

/// Set in the process that [`the_time_zone_of_the_machine_does_not_show`] starts.
const CHILD: &str = "DEBROS_TEST_TIME_ZONE";

#[test]
fn the_time_zone_of_the_machine_does_not_show() {
    // tidy: allow(std::env) a process of another time zone is needed
    if std::env::var_os(CHILD).is_none() {
        // tidy: allow(std::env) as above
        let myself = std::env::current_exe().unwrap();
        // tidy: allow(std::process) as above
        let output = std::process::Command::new(myself)
            .args(["--exact", "sql::determinism::the_time_zone_of_the_machine_does_not_show"])
            .env("TZ", "XYZ-9")
            .env(CHILD, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    }
    let mut fixture = Fixture::new();
    for (time, want) in [
        ("datetime('2026-01-01 12:00', 'localtime')", "2026-01-01 12:00:00"),
        ("datetime('2026-07-01 12:00', 'utc')", "2026-07-01 12:00:00"),
        ("datetime(0, 'unixepoch', 'localtime')", "1970-01-01 00:00:00"),
        ("datetime('1800-01-01', 'localtime')", "1800-01-01 00:00:00"),
    ] {
        assert_eq!(
            fixture.query(&format!("SELECT {time} AS t")),
            format!("[t]('{want}')"),
            "{time}"
        );
    }
}

/// All that this build of SQLite can be asked, so that a new release shows what it adds: each function was looked
/// at whether it gives the same everywhere, each module and pragma is on a list of the authorizer or refused.
#[test]
fn what_sqlite_offers_is_what_was_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.db");
    Database::create(&path, Vfs::system(), "").unwrap();
    let mut database = Database::open(&path, Vfs::system(), Role::Engine).unwrap();
    let mut printed = String::new();
    for (title, sql) in [
        (
            "compile options",
            "SELECT compile_options FROM pragma_compile_options WHERE compile_options NOT LIKE 'COMPILER=%' ORDER BY 1",
        ),
        // One that is not deterministic is marked.
        (
            "functions",
            "SELECT DISTINCT name || '/' || narg || iif(flags & 0x800, '', ' varies') FROM pragma_function_list ORDER BY 1",
        ),
        ("modules", "SELECT name FROM pragma_module_list ORDER BY 1"),
        ("pragmas", "SELECT name FROM pragma_pragma_list ORDER BY 1"),
        ("collations", "SELECT name FROM pragma_collation_list ORDER BY 1"),
    ] {
        let read = command(Mode::Query, sql, &[], &stamp(1));
        let rows = print(&database.read(&[read], &mut |_| false).unwrap()[0]);
        writeln!(printed, "{title}").unwrap();
        for row in rows.split("('").skip(1) {
            writeln!(printed, "    {}", row.trim_end_matches("')")).unwrap();
        }
    }
    expect_file!["../../tests/data/sql/build.txt"].assert_eq(&printed);
}
