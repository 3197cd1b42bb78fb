//! Commands in batches of every cut, with failures and faults among them.

use expect_test::Expect;
use expect_test::expect;

use super::*;
use crate::sql::testing::Fixture;
use crate::sql::testing::print;

const SCHEMA: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c DEFAULT 7)";

/// Apply `texts` as one batch, then show the table.
fn check(texts: &[&str], expected: Expect) {
    let mut fixture = Fixture::new();
    fixture.must(SCHEMA);
    let mut printed = fixture.exec(texts);
    printed.push(fixture.query("SELECT a, b FROM t"));
    expected.assert_eq(&printed.join("\n"));
    // And each in a batch of its own: the same.
    let mut apart = Fixture::new();
    apart.must(SCHEMA);
    let mut one_by_one: Vec<_> = texts.iter().map(|it| apart.exec(&[it]).remove(0)).collect();
    one_by_one.push(apart.query("SELECT a, b FROM t"));
    assert_eq!(printed, one_by_one, "batches show");
    let hashes = [fixture, apart].map(|mut it| it.database.content_hash().unwrap());
    assert_eq!(hashes[0], hashes[1], "contents differ");
}

#[test]
fn counters_are_those_of_the_command() {
    check(
        &[
            "INSERT INTO t(b) VALUES (1), (2)",
            "SELECT changes()",
            "UPDATE t SET b = b + 10",
            "CREATE TABLE u(x)",
            "DELETE FROM t WHERE b > 100",
            "INSERT INTO t(b) SELECT changes() + last_insert_rowid() + total_changes() + 50",
            "INSERT INTO t(b) VALUES (3); INSERT INTO t(b) SELECT 100 * changes() + total_changes() + 60",
            "INSERT INTO t(b) VALUES (4) RETURNING a, b AS bee",
        ],
        expect![[r#"
            2 rows, id 2
            0 rows, id 0
            2 rows, id 0
            0 rows, id 0
            0 rows, id 0
            1 rows, id 3
            1 rows, id 5
            1 rows, id 6 returned [a,bee](6,4)
            [a,b](4,3)(6,4)(1,11)(2,12)(3,50)(5,161)"#]],
    );
}

#[test]
fn a_failing_command_leaves_its_neighbours_alone() {
    check(
        &[
            "INSERT INTO t(b) VALUES (1)",
            "INSERT INTO t(b) VALUES (2), (1)",
            "INSERT OR FAIL INTO t(b) VALUES (3), (1)",
            "INSERT INTO t(b) VALUES (4); INSERT INTO t(b) VALUES (1)",
            "INSERT OR ROLLBACK INTO t(b) VALUES (1)",
            "INSERT INTO t(b) VALUES (5); INSERT OR ROLLBACK INTO t(b) VALUES (1)",
            "INSERT INTO t(b) VALUES (6)",
            "SELEC 1",
            "INSERT INTO nowhere VALUES (1)",
            "INSERT INTO t(b) VALUES (7); SELECT nothing FROM t",
            "INSERT INTO t(b) VALUES (8)",
        ],
        expect![[r#"
            1 rows, id 1
            error: UNIQUE constraint failed: t.b
            error: UNIQUE constraint failed: t.b
            error: UNIQUE constraint failed: t.b
            error: UNIQUE constraint failed: t.b
            error: UNIQUE constraint failed: t.b
            1 rows, id 2
            error: near "SELEC": syntax error
            error: no such table: nowhere
            error: near "nothing": syntax error
            1 rows, id 3
            [a,b](1,1)(2,6)(3,8)"#]],
    );
}

#[test]
fn triggers_that_raise_undo_their_command_only() {
    check(
        &[
            "CREATE TRIGGER r BEFORE INSERT ON t WHEN new.b = 'roll' BEGIN SELECT RAISE(ROLLBACK, 'rolled'); END",
            "CREATE TRIGGER f AFTER INSERT ON t WHEN new.b = 'fail' BEGIN SELECT RAISE(FAIL, 'failed'); END",
            "INSERT INTO t(b) VALUES (1)",
            "INSERT INTO t(b) VALUES ('roll')",
            "INSERT INTO t(b) VALUES (2)",
            "INSERT INTO t(b) VALUES (3), ('fail')",
            "INSERT INTO t(b) VALUES (4)",
        ],
        expect![[r#"
            0 rows, id 0
            0 rows, id 0
            1 rows, id 1
            error: rolled
            1 rows, id 2
            error: failed
            1 rows, id 3
            [a,b](1,1)(2,2)(3,4)"#]],
    );
}

#[test]
fn a_change_of_the_schema_that_fails_leaves_nothing() {
    check(
        &[
            "INSERT INTO t(b) VALUES (1)",
            "CREATE TABLE u(x); INSERT INTO t(b) VALUES (1)",
            "CREATE TABLE u(y)",
            "INSERT INTO u VALUES (5)",
            "ANALYZE; INSERT INTO t(b) VALUES (1)",
            "ALTER TABLE t ADD COLUMN d; INSERT INTO t(b, d) SELECT 2, y FROM u",
            "DROP TABLE u",
        ],
        expect![[r#"
            1 rows, id 1
            error: UNIQUE constraint failed: t.b
            0 rows, id 0
            1 rows, id 1
            error: UNIQUE constraint failed: t.b
            1 rows, id 2
            0 rows, id 0
            [a,b](1,1)(2,2)"#]],
    );
}

/// Plans after `sql`, run and then read by, are those of a connection that was just opened.
fn check_plans(sql: &str) {
    let mut fixture = Fixture::new();
    for sql in [
        "CREATE TABLE few(a, b)",
        "CREATE TABLE many(a, b)",
        "CREATE INDEX few_a ON few(a)",
        "CREATE INDEX many_a ON many(a)",
        "INSERT INTO few VALUES (1, 1), (2, 2), (3, 3)",
        "INSERT INTO many SELECT x.a + 4 * y.a, 1 FROM few AS x, few AS y",
        "INSERT INTO many SELECT x.a, 1 FROM many AS x, many AS y",
        "ANALYZE",
    ] {
        fixture.must(sql);
    }
    let plan = "EXPLAIN QUERY PLAN SELECT * FROM many, few WHERE many.a = few.a";
    let before = fixture.query(plan);
    fixture.exec(&[sql]);
    fixture.query(sql);
    let kept = fixture.query(plan);
    fixture.database.reconnect().unwrap();
    assert_eq!(kept, fixture.query(plan), "plans differ after {sql}");
    assert_eq!(kept, before, "statistics are not heeded");
}

#[test]
fn plans_are_those_of_a_fresh_connection() {
    check_plans("CREATE INDEX x ON few(b); DROP INDEX x");
    check_plans("CREATE INDEX x ON few(b); SELECT nothing");
    check_plans("CREATE INDEX few_a ON few(b)");
    check_plans("EXPLAIN CREATE INDEX x ON few(b)");
    check_plans("EXPLAIN QUERY PLAN CREATE INDEX x ON few(b)");
}

#[test]
fn what_was_applied_is_skipped_also_after_reopening() {
    let mut fixture = Fixture::new();
    fixture.must(SCHEMA);
    let insert = |n| {
        let sql = format!("INSERT INTO t(b) VALUES ({n})");
        crate::sql::testing::command(
            crate::wire::command::Mode::Exec,
            &sql,
            &[],
            &crate::sql::testing::stamp(n),
        )
    };
    let entries = fixture.entries([insert(2), insert(3), insert(4)]);
    fixture.database.apply(&entries[..2]).unwrap();
    let path = fixture.database.path.clone();
    drop(fixture.database);
    let open = Database::open(&path, crate::sql::Vfs::system(), crate::sql::Role::Tenant);
    fixture.database = open.unwrap();
    assert_eq!(fixture.database.applied(), LogIndex(3));
    let batch = fixture.database.apply(&entries).unwrap();
    let printed: Vec<_> = batch
        .applied
        .iter()
        .map(|it| match it {
            Applied::Skipped => "skipped".to_owned(),
            Applied::Done(outcome) | Applied::Replayed(outcome) => print(outcome),
        })
        .collect();
    assert_eq!(printed, ["skipped", "skipped", "1 rows, id 3"]);
    assert_eq!(fixture.query("SELECT b FROM t"), "[b](2)(3)(4)");
}

#[test]
fn a_statement_that_fails_in_its_middle_leaves_nothing() {
    for sql in [
        "UPDATE t SET b = zeroblob(a * 400000)",
        "INSERT INTO t(b) SELECT zeroblob(a * 400000) FROM t",
        "UPDATE t SET b = abs(-9223372036854775807 - (a > 2))",
        "UPDATE t SET b = json_extract('{', '$') WHERE a > 2 OR a < 0",
        "DELETE FROM t WHERE a < 3 OR abs(-9223372036854775807 - (a > 2))",
    ] {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
        fixture.must("INSERT INTO t(a, b) VALUES (1, 'x'), (2, 'x'), (3, 'x')");
        let printed = fixture.exec(&[sql]).remove(0);
        assert!(printed.starts_with("error"), "{sql}: {printed}");
        assert_eq!(fixture.query("SELECT a, b FROM t"), "[a,b](1,'x')(2,'x')(3,'x')", "{sql}");
    }
}

#[test]
fn a_connection_that_met_a_full_disk_begins_anew_where_there_is_time() {
    let mut fixture = Fixture::new();
    fixture.must(SCHEMA);
    fixture.database.is_worn = true;
    let insert = "INSERT INTO t(b) VALUES (1)";
    let insert = crate::sql::testing::command(
        crate::wire::command::Mode::Exec,
        insert,
        &[],
        &crate::sql::testing::stamp(1),
    );
    let entries = fixture.entries([insert]);
    let inline = |fixture: &mut Fixture| {
        fixture.database.apply_within(&entries, Share::Inline, &mut |_| false).unwrap()
    };
    let batch = inline(&mut fixture);
    assert_eq!((batch.applied.len(), batch.rest), (0, Rest::Long));
    assert!(fixture.database.is_worn, "it was opened again where there is no time");
    let batch = fixture.database.apply(&entries).unwrap();
    assert_eq!((batch.applied.len(), batch.rest), (1, Rest::None));
    assert!(!fixture.database.is_worn);
    // What it has had it has had, there too.
    fixture.database.is_worn = true;
    let batch = inline(&mut fixture);
    assert_eq!((batch.applied, batch.rest), (vec![Applied::Skipped], Rest::None));
}

#[test]
fn a_connection_that_begins_anew_knows_how_long_the_log_is() {
    let mut fixture = Fixture::new();
    fixture.must(SCHEMA);
    fixture.must("INSERT INTO t(b) VALUES (1), (2), (3)");
    let bytes = fixture.database.wal_bytes();
    assert!(bytes > 0);
    fixture.database.reconnect().unwrap();
    assert_eq!(fixture.database.wal_bytes(), bytes);
    // A change of the schema that fails makes it begin anew, too.
    fixture.exec(&["CREATE TABLE u(x); INSERT INTO t(b) VALUES (1)"]);
    assert!(fixture.database.wal_bytes() >= bytes);
}

#[test]
fn a_constraint_sees_the_changes_of_its_own_command_only() {
    check(
        &[
            "CREATE TABLE k(x, CHECK(x IS NULL OR changes() <> 3))",
            "INSERT INTO t(b) VALUES (1), (2), (3)",
            "INSERT INTO k VALUES (1)",
            "INSERT INTO t(b) VALUES (4), (5), (6); INSERT INTO k VALUES (2)",
        ],
        expect![[r#"
            0 rows, id 0
            3 rows, id 3
            1 rows, id 1
            error: CHECK constraint failed: x IS NULL OR changes() <> 3
            [a,b](1,1)(2,2)(3,3)"#]],
    );
}
