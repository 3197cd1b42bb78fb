//! What virtual tables do counts, and the same wherever it is done.

use crate::sql::charges;
use crate::sql::charges::STEPS_PER_TICK;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::sql::testing::steps_of;
use crate::sql::testing::watch_steps;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::Stamp;
use crate::wire::command::Value;

const SETUP: &[&str] = &[
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)",
    "CREATE TABLE sink(a, b, c)",
    "CREATE VIRTUAL TABLE f USING fts5(a, b)",
    "CREATE VIRTUAL TABLE small USING fts5(a, prefix='1 2')",
    "INSERT INTO small(small, rank) VALUES ('pgsz', 32)",
    "INSERT INTO small(small, rank) VALUES ('automerge', 0)",
    "CREATE VIRTUAL TABLE ext USING fts5(a, b, content='t', content_rowid='id')",
    "CREATE VIEW v AS SELECT id, a || ' and' AS a, b FROM t WHERE (SELECT count(*) FROM t) > 0",
    "CREATE VIRTUAL TABLE seen USING fts5(a, b, content='v', content_rowid='id')",
    "CREATE VIRTUAL TABLE none USING fts5(a, content='')",
    "CREATE VIRTUAL TABLE bare USING fts5(a, columnsize=0, detail=none)",
    "CREATE VIRTUAL TABLE words USING fts5vocab('f', 'row')",
    "CREATE VIRTUAL TABLE places USING fts5vocab('f', 'instance')",
    "CREATE VIRTUAL TABLE h USING fts4(a, b)",
    "CREATE VIEW rows AS SELECT id AS rowid, a, b FROM v",
    "CREATE VIRTUAL TABLE hv USING fts4(a, b, content='rows')",
    "CREATE VIRTUAL TABLE ht USING fts4(a, b, content='t')",
    "CREATE VIRTUAL TABLE hw USING fts4aux('h')",
    "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, +name)",
    "INSERT INTO t WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 400)
     SELECT i, 'word' || (i % 37) || ' common ' || 'w' || i, 'other' || (i % 11) || ' common' FROM n",
    "INSERT INTO f(rowid, a, b) SELECT id, a, b FROM t",
    "INSERT INTO small(rowid, a) SELECT id, a FROM t WHERE id < 100",
    "INSERT INTO small(rowid, a) SELECT id, a FROM t WHERE id BETWEEN 100 AND 200",
    "INSERT INTO none(rowid, a) SELECT id, a FROM t",
    "INSERT INTO bare(rowid, a) SELECT id, a FROM t",
    "INSERT INTO h(docid, a, b) SELECT id, a, b FROM t",
    "INSERT INTO r SELECT id, id, id + 3, a FROM t",
    "INSERT INTO ext(ext) VALUES ('rebuild')",
    "INSERT INTO seen(seen) VALUES ('rebuild')",
    "INSERT INTO hv(hv) VALUES ('rebuild')",
    "INSERT INTO ht(ht) VALUES ('rebuild')",
];

const WORK: &[&str] = &[
    "INSERT INTO f(a, b) VALUES ('one two', 'three')",
    "INSERT INTO f(rowid, a, b) SELECT id + 1000, a, b FROM t",
    "INSERT INTO small(rowid, a) SELECT id, a FROM t WHERE id > 200",
    "UPDATE f SET a = 'other' WHERE rowid < 50",
    "UPDATE f SET a = 'other' WHERE f MATCH 'common'",
    "DELETE FROM f WHERE f MATCH 'word3'",
    "DELETE FROM f",
    "DELETE FROM small WHERE rowid % 2",
    "INSERT INTO small(small) VALUES ('optimize')",
    "INSERT INTO small(small, rank) VALUES ('merge', 500)",
    "INSERT INTO f(f) VALUES ('integrity-check')",
    "INSERT INTO ext(ext, rank) VALUES ('integrity-check', 1)",
    "INSERT INTO small(small) VALUES ('integrity-check')",
    "INSERT INTO none(none) VALUES ('integrity-check')",
    "INSERT INTO bare(bare) VALUES ('integrity-check')",
    "INSERT INTO sink SELECT rowid, 1, 2 FROM small WHERE small MATCH 'nosuch*'",
    "INSERT INTO sink SELECT t.id, small.rowid, 1 FROM t JOIN small ON small MATCH 'nosuch' || t.id",
    "INSERT INTO sink SELECT t.id, f.rowid, 1 FROM t JOIN f ON f MATCH 'nosuch' || t.id",
    "INSERT INTO sink SELECT t.id, h.docid, 1 FROM t JOIN h ON h MATCH 'nosuch' || t.id",
    "INSERT INTO sink SELECT t.id, f.rowid, 1 FROM t JOIN f ON f.rowid = t.id",
    "INSERT INTO sink SELECT t.id, f.a, 1 FROM t JOIN f ON f.rowid = t.id",
    "INSERT INTO sink SELECT t.id, h.a, 1 FROM t JOIN h ON h.docid = t.id",
    "INSERT INTO sink SELECT t.id, r.name, 1 FROM t JOIN r ON r.id = t.id",
    "INSERT INTO sink SELECT name, type, pk FROM pragma_table_info('t'), t",
    "INSERT INTO sink SELECT value, key, type FROM t, json_each('[1,2,3]')",
    "INSERT INTO f(f) VALUES ('rebuild')",
    "INSERT INTO ext(ext) VALUES ('rebuild')",
    "INSERT INTO seen(seen) VALUES ('rebuild')",
    "INSERT INTO ext(ext) VALUES ('delete-all')",
    "INSERT INTO ext(ext, rowid, a, b) VALUES ('delete', 3, 'word3 common w3', 'other3 common')",
    "INSERT INTO sink SELECT rowid, a, b FROM f WHERE f MATCH 'common'",
    "INSERT INTO sink SELECT rowid, 1, 2 FROM f WHERE f MATCH 'common'",
    "INSERT INTO sink SELECT rowid, a, b FROM f ORDER BY rowid DESC",
    "INSERT INTO sink SELECT rowid, a, b FROM f WHERE rowid BETWEEN 20 AND 90",
    "INSERT INTO sink SELECT rowid, a, bm25(f) FROM f WHERE f MATCH 'common' ORDER BY rank",
    "INSERT INTO sink SELECT rowid, a, rank FROM f WHERE f MATCH 'w*' ORDER BY rank LIMIT 3",
    "INSERT INTO sink SELECT rowid, snippet(f, 0, '<', '>', '', 5), highlight(f, 1, '<', '>') FROM f WHERE f MATCH 'common'",
    "INSERT INTO sink SELECT rowid, a, 1 FROM small WHERE small MATCH 'w*'",
    "INSERT INTO sink SELECT t.id, small.rowid, 1 FROM t JOIN small ON small MATCH 'w' || t.id",
    "INSERT INTO sink SELECT rowid, a, b FROM ext WHERE ext MATCH 'common'",
    "INSERT INTO sink SELECT rowid, a, b FROM seen WHERE seen MATCH 'common'",
    "INSERT INTO sink SELECT rowid, a, b FROM seen",
    "INSERT INTO sink SELECT rowid, a, b FROM seen WHERE rowid = 7",
    "INSERT INTO sink SELECT rowid, 1, 2 FROM none WHERE none MATCH 'common'",
    "INSERT INTO sink SELECT rowid, a, bm25(bare) FROM bare WHERE bare MATCH 'common' ORDER BY rank",
    "INSERT INTO sink SELECT * FROM words",
    "INSERT INTO sink SELECT term, doc, col FROM places WHERE term = 'common'",
    "INSERT INTO h(a, b) VALUES ('one two', 'three')",
    "INSERT INTO h(docid, a, b) SELECT id + 1000, a, b FROM t",
    "INSERT INTO h(docid, a, b) SELECT id + 1000, a, b FROM t ORDER BY id DESC",
    "CREATE TABLE more(a); INSERT INTO seen(seen) VALUES ('rebuild')",
    "CREATE TABLE more(a); INSERT INTO hv(hv) VALUES ('rebuild')",
    "CREATE TABLE more(a); UPDATE f SET a = 'other' WHERE f MATCH 'common'",
    "CREATE TABLE more(a); DELETE FROM r WHERE x0 > 100",
    "UPDATE f SET a = 'other' WHERE rowid < 9; ANALYZE; UPDATE f SET a = 'third' WHERE rowid < 9",
    "INSERT INTO h(a) VALUES ('x'); ALTER TABLE t ADD COLUMN more; UPDATE h SET a = 'other' WHERE docid < 9",
    "UPDATE h SET a = 'other' WHERE h MATCH 'common'",
    "DELETE FROM h WHERE docid % 2",
    "DELETE FROM h",
    "INSERT INTO h(h) VALUES ('rebuild')",
    "INSERT INTO h(h) VALUES ('optimize')",
    "INSERT INTO h(h) VALUES ('integrity-check')",
    "INSERT INTO hv(hv) VALUES ('rebuild')",
    "INSERT INTO ht(ht) VALUES ('rebuild')",
    "INSERT INTO sink SELECT docid, a, b FROM h WHERE h MATCH 'common'",
    "INSERT INTO sink SELECT docid, snippet(h), offsets(h) FROM h WHERE h MATCH 'w*'",
    "INSERT INTO sink SELECT docid, a, b FROM hv WHERE hv MATCH 'common'",
    "INSERT INTO sink SELECT docid, a, b FROM hv",
    "INSERT INTO sink SELECT term, documents, occurrences FROM hw WHERE col = '*'",
    "INSERT INTO r SELECT id + 1000, id, id, b FROM t",
    "UPDATE r SET x0 = x0 - 1, name = 'n'",
    "DELETE FROM r WHERE x0 > 100",
    "INSERT INTO sink SELECT id, x0, name FROM r WHERE x1 BETWEEN 30 AND 300",
    "CREATE VIRTUAL TABLE g USING fts5(a)",
    "CREATE VIRTUAL TABLE g USING fts4(a)",
    "CREATE VIRTUAL TABLE g USING rtree(id, x0, x1)",
    "DROP TABLE f",
    "DROP TABLE h",
    "ALTER TABLE f RENAME TO g",
    "ALTER TABLE h RENAME TO g",
    "ALTER TABLE r RENAME TO g",
];

fn prepared() -> Fixture {
    let mut fixture = Fixture::new();
    for sql in SETUP {
        fixture.must(sql);
    }
    fixture
}

/// What `sql` counts for, and how often it ticks.
fn cost(fixture: &mut Fixture, sql: &str) -> (u64, u64) {
    charges::TICKS.set(0);
    charges::USED.set(0);
    fixture.must(sql);
    (charges::USED.get(), charges::TICKS.get())
}

#[test]
fn what_virtual_tables_do_counts_the_same_on_any_connection() {
    for sql in WORK {
        let mut warm = prepared();
        let mut cold = prepared();
        cold.database.reconnect().unwrap();
        let (of_warm, ticks) = cost(&mut warm, sql);
        let (of_cold, cold_ticks) = cost(&mut cold, sql);
        assert_eq!(of_warm, of_cold, "{sql}");
        // Making and dropping tables reads the schema, which is all that is not counted.
        for ticks in [ticks, cold_ticks] {
            let is_one = !sql.contains(';');
            assert!(
                !is_one || ticks * STEPS_PER_TICK < 2 * of_warm + 3_000,
                "{sql}: {ticks} {of_warm}"
            );
        }
    }
}

#[test]
fn rows_that_come_from_a_view_count() {
    let mut fixture = prepared();
    fixture.must(
        "CREATE VIEW slow AS SELECT id, (
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000 + id * 0)
             SELECT max(i) FROM n) AS a FROM t",
    );
    fixture.must("CREATE VIRTUAL TABLE s USING fts5(a, content='slow', content_rowid='id')");
    for (steps, want) in [(4_000_000, "error statement_steps"), (16_000_000, "400 rows")] {
        for sql in ["INSERT INTO sink SELECT 1, 2, a FROM s", "INSERT INTO s(s) VALUES ('rebuild')"]
        {
            let limits = CommandLimits { steps, ..LIMITS };
            let stamp = Stamp { limits, ..stamp(fixture.next) };
            charges::TICKS.set(0);
            let printed = print(&fixture.apply([command(Mode::Exec, sql, &[], &stamp)])[0]);
            let want = if sql.ends_with("')") { want.replace("400", "1") } else { want.to_owned() };
            assert!(printed.starts_with(&want), "{steps}, {sql}: {printed}");
            let ticked = charges::TICKS.get() * STEPS_PER_TICK;
            assert!(ticked < steps / 10 * 11, "{ticked}: {sql}");
        }
    }
}

#[test]
fn long_texts_are_indexed() {
    let mut fixture = Fixture::new();
    for sql in [
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "CREATE VIRTUAL TABLE g USING fts5(a, tokenize='trigram')",
        "CREATE VIRTUAL TABLE h USING fts4(a)",
    ] {
        fixture.must(sql);
    }
    // Half a mebibyte of words that are all different, and three of one word.
    let different: Vec<_> = (0..70_000).map(|it| format!("w{it}")).collect();
    let different = different.join(" ");
    let alike = "word ".repeat(600_000);
    for text in [&different, &alike] {
        for table in ["f", "g", "h"] {
            let sql = format!("INSERT INTO {table}(a) VALUES (?)");
            let limits = CommandLimits { steps: 200_000_000, value_bytes: 8 << 20, ..LIMITS };
            let stamp = Stamp { limits, ..stamp(fixture.next) };
            let text = [Value::Text(text)];
            let printed = print(&fixture.apply([command(Mode::Exec, &sql, &text, &stamp)])[0]);
            assert!(printed.starts_with("1 rows"), "{sql}: {printed}");
        }
    }
}

#[test]
fn whoever_is_over_is_told_so_whatever_else_it_met() {
    let mut fixture = prepared();
    fixture.must("CREATE TABLE once(x UNIQUE)");
    fixture.must(
        "CREATE VIEW slow AS SELECT id, (
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000 + id * 0)
             SELECT max(i) FROM n) AS a FROM t",
    );
    fixture.must("CREATE VIRTUAL TABLE s USING fts5(a, content='slow', content_rowid='id')");
    for (steps, want) in [(20_000, "error statement_steps"), (200_000, "error: UNIQUE")] {
        let sql = "INSERT INTO once SELECT a FROM s WHERE rowid < 3";
        let stamp = Stamp { limits: CommandLimits { steps, ..LIMITS }, ..stamp(fixture.next) };
        let printed = print(&fixture.apply([command(Mode::Exec, sql, &[], &stamp)])[0]);
        assert!(printed.starts_with(want), "{steps}: {printed}");
    }
}

#[test]
fn a_nested_statement_may_be_longer_than_a_value() {
    let mut fixture = Fixture::new();
    let columns: Vec<_> = (0..1_900).map(|it| format!("column_number_{it:06}")).collect();
    let columns = columns.join(", ");
    fixture.must(&format!("CREATE TABLE wide(id INTEGER PRIMARY KEY, {columns})"));
    fixture.must("CREATE TABLE sink(a)");
    fixture.must("INSERT INTO wide(id) VALUES (1)");
    fixture.must(&format!(
        "CREATE VIRTUAL TABLE w USING fts5({columns}, content='wide', content_rowid='id')"
    ));
    fixture.must("INSERT INTO w(w) VALUES ('rebuild')");
    fixture.must("INSERT INTO sink SELECT column_number_000003 FROM w WHERE rowid = 1");
}

#[test]
fn a_pragma_that_is_read_as_a_table_counts_for_what_it_prepares() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE sink(a)");
    let columns: Vec<_> = (0..1_000).map(|it| format!("c{it}")).collect();
    fixture.must(&format!("CREATE TABLE wide({})", columns.join(",")));
    let asks = |table: &str| {
        format!(
            "INSERT INTO sink WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             SELECT (SELECT name FROM pragma_table_info('{table}' || substr(i, 1, 0)) LIMIT 1) FROM n"
        )
    };
    let printed = fixture.exec(&[&asks("wide")]).remove(0);
    assert!(printed.starts_with("error statement_steps"), "{printed}");
    // One that asks for the columns of a view that has none ends there.
    fixture.must("CREATE VIEW broken AS SELECT a, b FROM (SELECT 1 AS a)");
    let printed = fixture.exec(&[&asks("broken")]).remove(0);
    assert!(printed.starts_with("error: no such column"), "{printed}");
}

#[test]
fn what_is_prepared_counts_the_same_for_the_first_time_and_later() {
    let items = vec!["t.a"; 300].join(" + ");
    for table in
        ["sqlite_master", "json_each('[1]')", "pragma_table_info('t')", "json_tree('[1]')", "f"]
    {
        let sql = format!("INSERT INTO sink(a) SELECT {items} FROM t, {table} LIMIT 1");
        let count = |is_cold: bool| {
            let mut fixture = prepared();
            fixture.must(&sql);
            fixture.must("INSERT INTO sink(a) SELECT name FROM sqlite_master, json_each('[1]'), json_tree('[1]')");
            if is_cold {
                fixture.database.reconnect().unwrap();
            }
            let path = fixture.folder.path().join("1.db");
            watch_steps(&path);
            // Not as it was, so that it is prepared anew.
            fixture.must(&format!("{sql} OFFSET 0"));
            steps_of(&path)
        };
        let (warm, cold) = (count(false), count(true));
        assert_eq!(warm, cold, "{sql}");
        assert!(warm.values().all(|it| *it > 1_000), "{warm:?}");
    }
}
