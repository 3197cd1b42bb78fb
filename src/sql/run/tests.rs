//! What running commands gives, and what it refuses.

use expect_test::Expect;
use expect_test::expect;

use super::*;
use crate::sql::Ask;
use crate::sql::Rest;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Stamp;
use crate::wire::command::Value;
use crate::wire::command::draft::Draft;

fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a INTEGER PRIMARY KEY, b VARCHAR(10), c BOOLEAN, d)");
    fixture.must("INSERT INTO t VALUES (1, 'one', 1, NULL), (2, 'two', 0, x'00ff')");
    fixture
}

fn check_reads(texts: &[&str], arguments: &[Value<'_>], expected: Expect) {
    let mut fixture = fixture();
    let read = |sql: &&str| {
        let command = command(Mode::Query, sql, arguments, &stamp(1));
        print(&fixture.database.read(&[command], &mut |_| false).unwrap()[0])
    };
    expected.assert_eq(&texts.iter().map(read).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_text_may_hold_several_statements_or_none() {
    check_reads(
        &[
            "SELECT 1; SELECT 2, 3 ; -- the end",
            "SELECT ?; SELECT ?, ?",
            "SELECT ?, ?, ?, ?",
            "SELECT ?3",
            "SELECT ?; SELECT ?, ?, ?",
            "SELECT :a, $b, @a",
            "/* nothing */ ; ;",
            " \n",
            "SELECT 1\0; SELECT 2",
            "SELECT 1; SELEC",
        ],
        &[Value::Integer(i64::MIN), Value::Text("ü"), Value::Blob(&[1])],
        expect![[r#"
            [2,3](2,3)
            [?,?]('ü',[01])
            error: not enough args to execute query: want 4 got 3
            [?3]([01])
            error: not enough args to execute query: want 3 got 2
            [:a,$b,@a](-9223372036854775808,'ü',[01])
            []
            error: no SQL statement
            error: unrecognized token: "\0"
            error: near "SELEC": syntax error"#]],
    );
}

#[test]
fn a_query_must_not_write() {
    check_reads(
        &[
            "INSERT INTO t(a) VALUES (9)",
            "INSERT INTO t(a) VALUES (9) RETURNING a",
            "SELECT 1; DELETE FROM t",
            "CREATE TABLE IF NOT EXISTS t(a)",
            "DROP TABLE t",
            "PRAGMA user_version = 3",
            "ANALYZE",
            "EXPLAIN QUERY PLAN DELETE FROM t",
            "SELECT count(*) FROM t",
        ],
        &[],
        expect![[r#"
            error: attempt to change database via query operation
            error: attempt to change database via query operation
            error: attempt to change database via query operation
            error: attempt to change database via query operation
            error: attempt to change database via query operation
            error: attempt to change database via query operation
            error: attempt to change database via query operation
            [id,parent,notused,detail]
            [count(*)](2)"#]],
    );
    // In a command that writes as well.
    let mut fixture = fixture();
    let sql = "UPDATE t SET c = 1 RETURNING a";
    let outcome = fixture.apply([command(Mode::Query, sql, &[], &stamp(1))]).remove(0);
    assert_eq!(print(&outcome), "error: attempt to change database via query operation");
}

#[test]
fn a_transaction_has_a_result_for_each_statement_and_sees_its_own_writes() {
    let mut fixture = fixture();
    let mut draft = Draft::new(Results::Each, 0);
    draft.statement(Mode::Exec, "INSERT INTO t(b) VALUES (?)").unwrap();
    draft.bind(Value::Text("three")).unwrap();
    draft.statement(Mode::Query, "SELECT last_insert_rowid() AS id, b FROM t WHERE a = 3").unwrap();
    draft.statement(Mode::Exec, "SELECT 1").unwrap();
    draft.statement(Mode::Exec, "UPDATE t SET c = 1 WHERE a > 1 RETURNING a").unwrap();
    let outcome = fixture.apply([draft.seal(&stamp(1))]).remove(0);
    assert_eq!(
        print(&outcome),
        "1 rows, id 3; [id,b](3,'three'); 0 rows, id 0; 2 rows, id 3 returned [a](2)(3)"
    );
}

#[test]
fn columns_carry_their_declared_type_and_values_are_exact() {
    let mut fixture = fixture();
    let query = |fixture: &mut Fixture, sql: &str| {
        let command = command(Mode::Query, sql, &[], &stamp(1));
        match fixture
            .database
            .read(&[command], &mut |_| false)
            .unwrap()
            .remove(0)
            .unwrap()
            .remove(0)
        {
            StatementResult::Rows(rows) => rows,
            StatementResult::Counts { .. } => panic!("a query gives rows"),
        }
    };
    let rows = query(&mut fixture, "SELECT *, a + 1 AS e FROM t WHERE a = 2");
    let types: Vec<_> = rows.columns.iter().map(|it| it.declared_type.as_deref()).collect();
    // A column without a type has none, as an expression.
    assert_eq!(types, [Some("integer"), Some("varchar(10)"), Some("boolean"), None, None]);
    let values: Vec<_> = rows.values().collect();
    assert_eq!(
        values,
        [
            Value::Integer(2),
            Value::Text("two"),
            Value::Integer(0),
            Value::Blob(&[0, 255]),
            Value::Integer(3)
        ]
    );
    let sql = "SELECT 9223372036854775807, 0.1, CAST(x'61ff62' AS TEXT), '', x''";
    let rows = query(&mut fixture, sql);
    let values: Vec<_> = rows.values().collect();
    assert_eq!(
        values,
        [
            Value::Integer(i64::MAX),
            Value::Real(0.1),
            Value::Text("a\u{fffd}b"),
            Value::Text(""),
            Value::Blob(&[])
        ]
    );
    // After a change of the schema the columns are the new ones.
    fixture.must("ALTER TABLE t ADD COLUMN f DATE");
    let rows = query(&mut fixture, "SELECT *, a + 1 AS e FROM t WHERE a = 2");
    assert_eq!(rows.columns.len(), 6);
    assert_eq!(rows.columns[4].declared_type.as_deref(), Some("date"));
}

/// Run `sql` under `limits`, as a write; then the same as a read.
fn check_limit(sql: &str, limits: CommandLimits, expected: Expect) {
    let mut fixture = fixture();
    let stamp = Stamp { limits, ..stamp(1) };
    let before = "INSERT INTO t(a) VALUES (50)";
    let commands = [
        command(Mode::Exec, before, &[], &self::stamp(2)),
        command(Mode::Exec, sql, &[], &stamp),
        command(Mode::Query, sql, &[], &stamp),
    ];
    let printed: Vec<_> = fixture.apply(commands).iter().map(print).collect();
    let count = fixture.query("SELECT count(*), max(a) FROM t");
    assert_eq!(count, "[count(*),max(a)](3,50)", "it had an effect");
    expected.assert_eq(&printed[1..].join("\n"));
}

#[test]
fn what_a_command_costs_is_bounded() {
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
    let select = format!("{endless} SELECT sum(x) FROM c");
    check_limit(
        &select,
        CommandLimits { steps: 50_000, ..LIMITS },
        expect![[r#"
        error statement_steps: statement takes too many steps: at most 50000
        error statement_steps: statement takes too many steps: at most 50000"#]],
    );
    let insert = format!("{endless} INSERT INTO t(b) SELECT x FROM c");
    check_limit(
        &insert,
        CommandLimits { steps: 50_000, ..LIMITS },
        expect![[r#"
        error statement_steps: statement takes too many steps: at most 50000
        error: attempt to change database via query operation"#]],
    );
    let rows = "INSERT INTO t(b) VALUES (1), (2), (3) RETURNING a";
    check_limit(
        rows,
        CommandLimits { result_rows: 2, ..LIMITS },
        expect![[r#"
        error result_rows: result has too many rows: at most 2
        error: attempt to change database via query operation"#]],
    );
    check_limit(
        rows,
        CommandLimits { result_bytes: 20, ..LIMITS },
        expect![[r#"
        error result_bytes: result is too large: at most 20 bytes
        error: attempt to change database via query operation"#]],
    );
    // The names of the columns stand in each row.
    let name = "n".repeat(100);
    check_limit(
        &format!("INSERT INTO t(b) VALUES (1), (2), (3), (4) RETURNING a AS {name}"),
        CommandLimits { result_bytes: 400, ..LIMITS },
        expect![[r#"
        error result_bytes: result is too large: at most 400 bytes
        error: attempt to change database via query operation"#]],
    );
    let value = "INSERT INTO t(b) VALUES (zeroblob(2000))";
    check_limit(
        value,
        CommandLimits { value_bytes: 1_000, ..LIMITS },
        expect![[r#"
        error value_bytes: string or blob too big
        error: attempt to change database via query operation"#]],
    );
    check_limit(
        "SELECT hex(randomblob(800)), randomblob(1000000000)",
        CommandLimits { value_bytes: 1_000, ..LIMITS },
        expect![[r#"
            error value_bytes: string or blob too big
            error value_bytes: string or blob too big"#]],
    );
    let growth = "INSERT INTO t(b) VALUES (zeroblob(900000))";
    check_limit(
        growth,
        CommandLimits { database_bytes: 200_000, ..LIMITS },
        expect![[r#"
        error database_bytes: database or disk is full
        error: attempt to change database via query operation"#]],
    );
    let sort = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000)
        SELECT count(*) FROM (SELECT x, zeroblob(400) AS y FROM c ORDER BY random(), y LIMIT 30000 OFFSET 1)";
    check_limit(
        sort,
        CommandLimits { temp_bytes: 1 << 20, ..LIMITS },
        expect![[r#"
        error temp_bytes: statement needs too much room to work: at most 1048576 bytes
        error temp_bytes: statement needs too much room to work: at most 1048576 bytes"#]],
    );
}

#[test]
fn the_statements_of_a_command_share_its_steps() {
    let mut fixture = fixture();
    let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000)
        SELECT sum(x) FROM c";
    let mut run = |n: usize, sql: &str| {
        let stamp = Stamp { limits: CommandLimits { steps: 100_000, ..LIMITS }, ..stamp(1) };
        let mut draft = Draft::new(Results::Last, 0);
        for _ in 0..n {
            draft.statement(Mode::Exec, sql).unwrap();
        }
        print(&fixture.apply([draft.seal(&stamp)])[0])
    };
    assert_eq!(run(2, sql), "0 rows, id 0");
    let too_many = "error statement_steps: statement takes too many steps: at most 100000";
    assert_eq!(run(30, sql), too_many);
    // In one text, too; and what functions are charged counts.
    assert_eq!(run(1, &format!("{sql};").repeat(30)), too_many);
    let costly = "SELECT instr(hex(zeroblob(300)), hex(zeroblob(300)))";
    assert_eq!(run(1, costly), "0 rows, id 0");
    assert_eq!(run(30, costly), too_many);
}

#[test]
fn a_trigger_that_fails_halfway_leaves_nothing() {
    let mut fixture = Fixture::new();
    for sql in [
        "CREATE TABLE t(a)",
        "CREATE TABLE u(x UNIQUE)",
        "CREATE TABLE w(x)",
        "INSERT INTO w VALUES (1), (1)",
        "CREATE TRIGGER g BEFORE INSERT ON t BEGIN INSERT OR FAIL INTO u SELECT x FROM w; END",
    ] {
        fixture.must(sql);
    }
    let printed = fixture.exec(&["SELECT 1", "INSERT INTO t VALUES (5)", "SELECT 1"]);
    assert_eq!(printed[1], "error: UNIQUE constraint failed: u.x");
    assert_eq!(fixture.query("SELECT count(*) FROM u"), "[count(*)](0)");
}

#[test]
fn texts_that_grow_in_the_schema_are_no_damage() {
    let mut fixture = Fixture::new();
    let long = |with: &str, n: usize| with.repeat(n);
    let checks = "CHECK (a) ".repeat(7);
    let texts = [
        format!("CREATE TABLE c AS SELECT 1 AS [{}]", long("\"", 600_000)),
        format!("CREATE TABLE d AS SELECT 1 AS [{}]", long("'", 900_000)),
        format!("CREATE TABLE e(a {checks})"),
        // Above and below what a row of the schema may have.
        format!("ALTER TABLE e RENAME COLUMN a TO b{}", long("x", 600_000)),
        format!("ALTER TABLE e RENAME COLUMN a TO b{}", long("x", 515_000)),
    ];
    let mut failed = Vec::new();
    for (n, sql) in (0..).zip(&texts) {
        let printed = fixture.exec(&[sql]).remove(0);
        failed.extend(printed.starts_with("error").then_some(n));
    }
    assert_eq!(failed, [3]);
    fixture.database.reconnect().unwrap();
    fixture.must("INSERT INTO c VALUES (1)");
    fixture.must("INSERT INTO e VALUES (1)");
}

#[test]
fn a_cached_and_a_fresh_statement_are_counted_alike() {
    let mut fixture = fixture();
    let mut run = |n: u64, forget: bool| {
        if forget {
            fixture.database.rest();
        }
        let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ?)
            SELECT sum(x) FROM c";
        let stamp = Stamp { limits: CommandLimits { steps: 5_000, ..LIMITS }, ..stamp(1) };
        let n = Value::Integer(i64::try_from(n).unwrap());
        fixture.apply([command(Mode::Query, sql, &[n], &stamp)]).remove(0).is_ok()
    };
    let most = (1..2_000).take_while(|n| run(*n, true)).last().unwrap();
    assert!((100..1_000).contains(&most), "{most} rounds fit");
    for _ in 0..50 {
        assert!(run(most, false), "a cached statement was counted with its earlier runs");
    }
}

#[test]
fn a_read_that_takes_too_long_is_given_up_and_the_next_is_not() {
    let mut fixture = fixture();
    let endless =
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c";
    let commands = [endless, "SELECT 1"].map(|sql| command(Mode::Query, sql, &[], &stamp(1)));
    let (mut begun, mut asked) = (0, 0);
    let outcomes = fixture.database.read(&commands, &mut |ask| {
        match ask {
            Ask::Begin => begun += 1,
            Ask::Tick => asked += 1,
        }
        asked > 3
    });
    let printed: Vec<_> = outcomes.unwrap().iter().map(print).collect();
    assert_eq!(printed, ["error statement_ms: statement took too long", "[1](1)"]);
    assert_eq!((begun, asked), (2, 4));
    assert_eq!(fixture.must("INSERT INTO t(b) VALUES (1)"), "1 rows, id 3");
}

#[test]
fn time_and_randomness_are_the_commands() {
    let mut fixture = fixture();
    let sql = "SELECT datetime('now'), CURRENT_TIMESTAMP, unixepoch('subsec'), strftime('%H', 'now', 'localtime') = strftime('%H', 'now'), random(), hex(randomblob(3))";
    let once = fixture.query(sql);
    let printed = expect![
        "[datetime('now'),CURRENT_TIMESTAMP,unixepoch('subsec'),strftime('%H', 'now', 'localtime') = strftime('%H', 'now'),random(),hex(randomblob(3))]('2025-10-24 10:00:03','2025-10-24 10:00:03',1761300003.0,1,2092789425003139053,'89A981')"
    ];
    printed.assert_eq(&once);
    assert_eq!(fixture.query(sql), once, "the same stamp gives the same answer");
}

#[test]
fn long_values_are_worked_on_but_not_for_ever() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    for (sql, want) in [
        (
            "INSERT INTO t(b) VALUES (zeroblob(900000)), (hex(zeroblob(100000))), ('x')",
            "3 rows, id 3",
        ),
        ("UPDATE t SET b = substr(b, 2) || 'é'", "3 rows, id 0"),
        ("INSERT INTO t(b) SELECT b FROM t; DELETE FROM t WHERE length(b) = 1", "2 rows, id 6"),
        (
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000000)
             INSERT INTO t(b) SELECT max(length(hex(zeroblob(200000 + x % 2)))) FROM c",
            "error statement_steps: statement takes too many steps for values this long: at most 50000",
        ),
        (
            "INSERT INTO t(b) VALUES (zeroblob(2000000))",
            "error value_bytes: string or blob too big",
        ),
    ] {
        assert_eq!(fixture.exec(&[sql]).remove(0), want, "{sql}");
    }
    assert_eq!(fixture.query("SELECT count(*) FROM t"), "[count(*)](4)");
}

#[test]
fn a_table_that_grew_within_its_transaction_is_not_small() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a)");
    let fill = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 70)
        INSERT INTO t SELECT zeroblob(20000) FROM n";
    let insert = command(Mode::Exec, fill, &[], &stamp(1));
    let count = command(Mode::Exec, "DELETE FROM t", &[], &stamp(2));
    // Few enough for a core.
    let entries = fixture.entries([count.clone()]);
    let batch = fixture.database.apply_within(&entries, Share::Inline, &mut |_| false).unwrap();
    assert_eq!((batch.applied.len(), batch.rest), (1, Rest::None));
    let entries = fixture.entries([insert, count.clone()]);
    let batch = fixture.database.apply_within(&entries, Share::Inline, &mut |_| false).unwrap();
    assert_eq!((batch.applied.len(), batch.rest), (1, Rest::Long), "{batch:?}");
    // In one command as well.
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a)");
    let both = command(Mode::Exec, &format!("{fill}; DELETE FROM t"), &[], &stamp(1));
    let entries = fixture.entries([both]);
    let batch = fixture.database.apply_within(&entries, Share::Inline, &mut |_| false).unwrap();
    assert_eq!((batch.applied.len(), batch.rest), (0, Rest::Long), "{batch:?}");
}

#[test]
fn names_that_sqlite_makes_up_by_chance_do_not_get_into_what_is_replicated() {
    let six = "SELECT 1 AS a, 2 AS a, 3 AS a, 4 AS a, 5 AS a, 6 AS a";
    // SQLite itself gives different ones to the same statement.
    let names = || {
        let plain = rusqlite::Connection::open_in_memory().unwrap();
        plain.execute_batch(&format!("CREATE TABLE t AS {six}")).unwrap();
        let sql = "SELECT group_concat(name) FROM pragma_table_info('t')";
        plain.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    assert_ne!(names(), names());
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a, \"a:4\", \"a:77\", \"12:30\")");
    fixture.must("INSERT INTO t VALUES (1, 2, 3, 4)");
    fixture.must("CREATE TABLE verses(\"1:1\", \"1:2\", \"1:3\", \"1:4\", \"1:5\")");
    let refused = "error: duplicate column name: name the columns of the result apart with AS";
    for (sql, is_refused) in [
        (format!("CREATE TABLE u AS {six}"), true),
        (format!("CREATE VIEW v AS SELECT * FROM ({six})"), true),
        (
            "CREATE VIEW w AS SELECT * FROM late AS b, late AS c, late AS d, late AS e, late AS f, late AS g"
                .to_owned(),
            false,
        ),
        ("CREATE TABLE late(a)".to_owned(), true),
        (
            format!("CREATE TABLE five AS SELECT * FROM ({})", six.rsplit_once(',').unwrap().0),
            false,
        ),
        ("CREATE TABLE named(\"a:77\", b)".to_owned(), false),
        ("CREATE TABLE copied AS SELECT * FROM t".to_owned(), false),
        ("DROP TABLE copied".to_owned(), false),
        ("CREATE TABLE copied AS SELECT \"12:30\", \"a:77\" FROM t".to_owned(), false),
        (format!("INSERT INTO t(a) SELECT count(*) FROM ({six})"), false),
    ] {
        let printed = fixture.exec(&[&sql]).remove(0);
        assert_eq!(printed == refused, is_refused, "{sql}: {printed}");
    }
    // A result of a command that writes, which is kept if its request has a key.
    for (sql, is_refused) in [
        (format!("SELECT * FROM ({six})"), true),
        (format!("SELECT x.* FROM t JOIN (SELECT * FROM ({six})) AS x"), true),
        (six.to_owned(), false),
        ("SELECT \"12:30\", \"a:77\" FROM t".to_owned(), false),
    ] {
        let query = || command(Mode::Query, &sql, &[], &stamp(1));
        let printed = print(&fixture.apply([query()])[0]);
        assert_eq!(printed == refused, is_refused, "{sql}: {printed}");
        // One that only reads is nobody else's.
        let read = print(&fixture.database.read(&[query()], &mut |_| false).unwrap()[0]);
        assert!(!read.starts_with("error"), "{sql}: {read}");
    }
}

#[test]
fn a_change_of_the_schema_works_on_long_values_but_not_for_ever() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE many(a)");
    fixture.must(
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 30000)
         INSERT INTO many SELECT x FROM c",
    );
    let long =
        "error statement_steps: statement takes too many steps for values this long: at most";
    for (sql, n_max) in [
        ("CREATE INDEX i ON many(length(hex(zeroblob(200000 + a))))", 50_000),
        ("CREATE INDEX i ON many(a) WHERE hex(zeroblob(200000 + a)) > a", 50_000),
        ("CREATE INDEX i ON many(length(hex(zeroblob(40000 + a % 10))))", 500_000),
        (
            "CREATE TABLE t AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
             SELECT max(length(hex(zeroblob(200000 + x)))) FROM c",
            50_000,
        ),
        ("ALTER TABLE many ADD COLUMN b CHECK(length(hex(zeroblob(200000 + a))) > 9)", 50_000),
    ] {
        // What makes so few rows pass is not that they are few.
        let printed = fixture.exec(&[sql]).remove(0);
        if n_max == 500_000 {
            assert_eq!(printed, "0 rows, id 0", "{sql}");
        } else {
            assert_eq!(printed, format!("{long} {n_max}"), "{sql}");
        }
    }
    // Statements on virtual tables may tick by more often; this is none.
    fixture.must("CREATE VIRTUAL TABLE f USING fts5(a)");
    for (sql, is_done) in [
        ("CREATE TABLE t AS SELECT count(*) FROM many AS x, many AS y LIMIT 1", false),
        ("CREATE TABLE t AS SELECT x.a + y.a AS s FROM many AS x, many AS y LIMIT 10", true),
        ("CREATE UNIQUE INDEX u ON many(a)", true),
    ] {
        let mut ticks = 0;
        let mut count = |_| {
            ticks += 1;
            false
        };
        let entries = fixture.entries([command(Mode::Exec, sql, &[], &stamp(1))]);
        let batch = fixture.database.apply_within(&entries, Share::Whole, &mut count).unwrap();
        let applied = batch.applied;
        assert_eq!(matches!(applied[..], [Applied::Done(Ok(_))]), is_done, "{sql}");
        assert!(ticks < LIMITS.steps / charges::STEPS_PER_TICK * 2, "{sql}: {ticks} ticks");
    }
    fixture.must("DROP TABLE f; DROP INDEX u");
    // Where the schema itself has a long row, what reads it must; then there are fewer steps.
    fixture.must("DROP INDEX i");
    fixture.must(&format!("CREATE TABLE wordy(a /* {} */)", "x".repeat(100_000)));
    for sql in [
        "CREATE TABLE u(a, b)",
        "INSERT INTO u VALUES (zeroblob(900000), 1), (hex(zeroblob(20000)), 2), ('short', 3)",
        "CREATE TABLE v AS SELECT * FROM u",
        "CREATE INDEX v_a ON v(a)",
        "REINDEX v",
        "ALTER TABLE v ADD COLUMN c NOT NULL DEFAULT 'x' CHECK(c <> a)",
        "ALTER TABLE v DROP COLUMN b",
        "ALTER TABLE wordy RENAME COLUMN a TO a_longer_name",
        "ALTER TABLE wordy RENAME TO wordier",
        "CREATE VIEW w AS SELECT a_longer_name FROM wordier",
        "ANALYZE",
        "DROP TABLE wordier",
    ] {
        fixture.must(sql);
    }
    assert_eq!(
        fixture.query("SELECT count(*), sum(length(a)) FROM v"),
        "[count(*),sum(length(a))](3,940005)"
    );
    let too_long = "CREATE TABLE x AS SELECT zeroblob(2000000) AS a";
    assert_eq!(fixture.exec(&[too_long]).remove(0), "error value_bytes: string or blob too big");
}

#[test]
fn rows_of_many_pages_are_deleted_where_there_is_time() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    for n in 0..8 {
        // The second time they lie here and there.
        if n == 4 {
            fixture.must("DELETE FROM t WHERE a > 0");
        }
        fixture.must(
            "INSERT INTO t(b) VALUES (1), (zeroblob(900000)), (zeroblob(900000)), (zeroblob(900000)),
             (zeroblob(900000)), (zeroblob(900000)), (zeroblob(900000)), (zeroblob(900000))",
        );
    }
    let mut apply = |sql: &str, share| {
        let entries = fixture.entries([command(Mode::Exec, sql, &[], &stamp(1))]);
        let batch = fixture.database.apply_within(&entries, share, &mut |_| false).unwrap();
        fixture.next -= u64::from(batch.rest != Rest::None);
        batch.rest
    };
    for sql in [
        "DELETE FROM t WHERE a > 3",
        "UPDATE t SET b = a WHERE a > 3",
        "REPLACE INTO t SELECT a, a FROM t",
    ] {
        // All of them within so few instructions that nothing looks at the clock.
        assert_eq!(apply(sql, Share::Inline), Rest::Long, "{sql}");
    }
    for sql in ["DELETE FROM t WHERE a = 3", "UPDATE t SET b = a WHERE a < 2"] {
        assert_eq!(apply(sql, Share::Inline), Rest::None, "{sql}");
    }
    assert_eq!(apply("DELETE FROM t WHERE a > 3", Share::Whole), Rest::None);
    assert_eq!(fixture.query("SELECT a, length(b) FROM t"), "[a,length(b)](1,1)(2,900000)");
}

#[test]
fn a_row_whose_values_share_their_memory_stops_at_the_limit() {
    let mut fixture = fixture();
    // SQLite has the text once; the row would have two thousand.
    let columns = vec!["?1"; 2_000].join(",");
    let text = "x".repeat(4 << 20);
    let limits = CommandLimits { result_bytes: 32 << 20, value_bytes: 8 << 20, ..LIMITS };
    let stamp = Stamp { limits, ..stamp(1) };
    let command = command(Mode::Query, &format!("SELECT {columns}"), &[Value::Text(&text)], &stamp);
    let read = fixture.database.read(&[command], &mut |_| false).unwrap();
    let want = "error result_bytes: result is too large: at most 33554432 bytes";
    assert_eq!(print(&read[0]), want);
    assert_eq!(fixture.database.scratch.capacity(), 0, "its memory is given back");
}

#[test]
fn names_count_once_without_rows() {
    let name = "n".repeat(200);
    let sql = format!("SELECT 1 AS {name} WHERE false");
    let mut fixture = fixture();
    for (result_bytes, is_small) in [(204, true), (203, false)] {
        let stamp = Stamp { limits: CommandLimits { result_bytes, ..LIMITS }, ..stamp(1) };
        let command = command(Mode::Query, &sql, &[], &stamp);
        let read = fixture.database.read(&[command], &mut |_| false).unwrap();
        assert_eq!(read[0].is_ok(), is_small, "{result_bytes}: {read:?}");
    }
}
