//! Texts of SQL, and what is to be seen in them.

use proptest::prelude::*;

use super::*;

#[test]
fn first_words_tell_what_a_statement_is() {
    for (sql, want) in [
        ("ANALYZE", Verb::Analyze),
        (" \u{feff};; -- SELECT\n/* x */ analyze t", Verb::Analyze),
        ("EXPLAIN analyze", Verb::Analyze),
        ("explain query plan PRAGMA x", Verb::Pragma),
        ("CREATE TABLE t(a)", Verb::CreateTable),
        ("create/**/table t(a)", Verb::CreateTable),
        ("CREATE UNIQUE INDEX i ON t(a)", Verb::Schema),
        ("ALTER TABLE t RENAME TO u", Verb::Schema),
        ("DROP TABLE t", Verb::Schema),
        ("REINDEX", Verb::Schema),
        ("VACUUM INTO 'x'", Verb::Vacuum),
        ("SELECT 'ANALYZE'", Verb::Other),
        ("DROPX", Verb::Other),
        ("\"DROP\" x", Verb::Other),
        ("WITH analyze AS (SELECT 1) SELECT 1", Verb::Other),
        ("/* unfinished", Verb::Other),
        ("", Verb::Other),
    ] {
        assert_eq!(verb(sql), want, "{sql:?}");
    }
}

#[test]
fn the_schema_table_is_replaced_by_the_view_of_it() {
    assert!(authorizer::SCHEMA_TABLES.iter().all(|it| it.len() == authorizer::VIEW.len()));
    for (sql, want) in [
        ("SELECT a FROM t", "SELECT a FROM t"),
        ("SELECT * FROM sqlite_master", "SELECT * FROM __debros_view"),
        (
            "SELECT SQLITE_Schema.name FROM ü.x, sqlite_schema",
            "SELECT __debros_view.name FROM ü.x, __debros_view",
        ),
        ("FROM main . \"sqlite_master\" x", "FROM temp . \"__debros_view\" x"),
        ("FROM [Main]./**/[sqlite_schema]", "FROM [temp]./**/[__debros_view]"),
        ("FROM xmain.sqlite_master", "FROM xmain.__debros_view"),
        (
            "= 'sqlite_master' -- sqlite_master\n/* sqlite_master",
            "= 'sqlite_master' -- sqlite_master\n/* sqlite_master",
        ),
        ("'it''s sqlite_master' = sqlite_master", "'it''s sqlite_master' = __debros_view"),
        (
            "xsqlite_master, sqlite_masterx, 'open sqlite_master",
            "xsqlite_master, sqlite_masterx, 'open sqlite_master",
        ),
        (
            "SELECT \"sqlite_master\".a FROM `sqlite_master`",
            "SELECT \"__debros_view\".a FROM `__debros_view`",
        ),
        (
            "SELECT \"sqlite_master\" AS [sqlite_master], t.`sqlite_schema` FROM t",
            "SELECT \"sqlite_master\" AS [sqlite_master], t.`sqlite_schema` FROM t",
        ),
        ("INSERT INTO t VALUES (\"sqlite_master\")", "INSERT INTO t VALUES (\"sqlite_master\")"),
        ("SELECT \"é", "SELECT \"é"),
        ("FROM \"sqlite_master", "FROM \"sqlite_master"),
        ("[", "["),
        ("\"", "\""),
        ("``", "``"),
    ] {
        assert_eq!(with_visible_schema(sql), want, "{sql:?}");
    }
}

#[test]
fn long_steps_are_suspected_by_words() {
    for (sql, want) in [
        ("INSERT INTO t VALUES (?, ?)", false),
        ("SELECT count, counts(1) FROM t", false),
        ("SELECT Count ( * ) FROM t", true),
        ("DELETE FROM t", true),
        ("DELETE FROM t WHERE a = ?", false),
        ("WITH x AS (SELECT 1 WHERE 1) DELETE FROM t", true),
        ("DELETE FROM t WHERE a IN (SELECT 1 WHERE 1) RETURNING a", false),
        ("DELETE FROM t; SELECT 1 WHERE 1", true),
        ("DELETE FROM t -- WHERE\n", true),
        ("SELECT 'DELETE', \"count\"", false),
        ("SELECT count/**/(*) FROM t", true),
        ("SELECT \"count\"(*), [count](*)", true),
        ("DELETE/* */FROM t", true),
        ("SELECT $a(x), :b(y), @c(z)", true),
        ("SELECT $a, :b, @c, (1)", false),
        ("SELECT * FROM \"json_each\"(?)", true),
        ("SELECT * FROM json_each(?)", true),
        ("SELECT * FROM pragma_table_info('t')", true),
        ("CREATE TRIGGER x AFTER DELETE ON t BEGIN DELETE FROM u; END", true),
        ("CREATE TRIGGER x AFTER DELETE ON t BEGIN INSERT INTO u VALUES (1); END", false),
    ] {
        assert_eq!(may_have_long_step(sql), want, "{sql:?}");
    }
}

#[test]
fn a_long_script_is_cut_where_its_first_statement_ends() {
    let rest = "SELECT 1;".repeat(1_000);
    for (first, is_cut) in [
        ("INSERT INTO t VALUES (';', \";\", [;]) -- ;\n/* ; */;", true),
        (" ;; -- x\nSELECT 1;", true),
        ("CREATE TABLE t(a);", true),
        ("CREATE TRIGGER t AFTER INSERT ON u BEGIN SELECT 1; END;", false),
        ("/* x */ create temp trigger t BEGIN SELECT 1; END;", false),
        ("SELECT 'unfinished", true),
    ] {
        let sql = format!("{first}{rest}");
        let want = if first.contains("unfinished") || !is_cut { sql.len() } else { first.len() };
        assert_eq!(first_statement(&sql).len(), want, "{first}");
    }
    assert_eq!(first_statement("SELECT 1; SELECT 2"), "SELECT 1; SELECT 2");
}

#[test]
fn texts_that_join_much_are_not_simple() {
    let joined = format!("SELECT 1 FROM t {}", "NATURAL JOIN t ".repeat(20));
    let nested = format!("SELECT {}1{}", "(".repeat(40), ")".repeat(40));
    let long = format!("SELECT '{}'", "x".repeat(5_000));
    for sql in [&joined, &nested, &long] {
        assert!(!is_simple(sql), "{sql}");
    }
    assert!(is_simple("SELECT a FROM t JOIN u USING (b) WHERE c IN (SELECT 1)"));
}

#[test]
fn blanks_comments_and_semicolons_are_nothing() {
    for (sql, want) in [
        ("", true),
        (" ;\n", true),
        ("-- a", true),
        ("/* a */ ;", true),
        ("/* a", true),
        ("x", false),
        ("/* a */ -- b\n1", false),
    ] {
        assert_eq!(is_blank(sql), want, "{sql:?}");
    }
}

#[test]
fn what_a_change_of_the_schema_does_is_told_by_its_tokens() {
    for (sql, selects, drops) in [
        ("CREATE TABLE t(a)", false, false),
        ("; create/**/table if not exists main . \"AS\" (a)", false, false),
        ("CREATE TABLE IF(a)", false, false),
        ("CREATE TABLE \"(\" AS SELECT 1", true, false),
        ("CREATE TABLE IF NOT EXISTS t AS SELECT (1)", true, false),
        ("CREATE TABLE main.t AS SELECT (1)", true, false),
        ("CREATE VIEW v(a) AS SELECT 1", false, false),
        ("ALTER TABLE t DROP COLUMN a", false, true),
        (";alter table \"main\".[t] drop a", false, true),
        ("ALTER TABLE t ADD \"DROP\"", false, false),
        ("ALTER TABLE t RENAME COLUMN a TO \"drop\"", false, false),
        ("DROP TABLE t", false, false),
        ("", false, false),
    ] {
        assert_eq!((makes_table_by_select(sql), drops_column(sql)), (selects, drops), "{sql:?}");
    }
}

#[test]
fn what_cannot_grow_is_told_by_first_words() {
    for (sql, shrinks, drops) in [
        ("DELETE FROM t", true, false),
        ("delete from t where a = 'INSERT'; DROP TABLE t;;", true, false),
        ("DROP TABLE t -- ; INSERT", true, true),
        ("/* x */ ; \n SELECT 1; VALUES (2); EXPLAIN INSERT INTO t VALUES (1)", true, true),
        ("-- nothing", true, true),
        ("", true, true),
        ("DELETE FROM t; INSERT INTO t VALUES (1)", false, false),
        ("SELECT ';'';'; UPDATE t SET a = 1", false, false),
        ("SELECT \"a;\", [b;], `c;`; DROP INDEX i", true, true),
        ("CREATE TRIGGER g AFTER DELETE ON t BEGIN DELETE FROM u; END", false, false),
        ("WITH a AS (SELECT 1) DELETE FROM t", false, false),
        ("REPLACE INTO t VALUES (1)", false, false),
        ("PRAGMA user_version = 1", false, false),
        ("DELETED", false, false),
        ("'DELETE'", false, false),
        ("(SELECT 1)", false, false),
        // SQLite reads a parameter called $a(') where a string seems to begin.
        ("SELECT $a('); INSERT INTO t VALUES (1); --')", false, false),
        ("SELECT @a('); INSERT INTO t VALUES (1); --')", false, false),
        ("SELECT $a::b('); INSERT INTO t VALUES (1); --')", false, false),
        ("DELETE FROM t WHERE a = $a AND b = :b AND c IN (?1, @c)", true, false),
    ] {
        assert_eq!((only_shrinks(sql), only_drops(sql)), (shrinks, drops), "{sql:?}");
    }
}

fn check_any(sql: &str) {
    verb(sql);
    only_shrinks(sql);
    is_blank(sql);
    is_simple(sql);
    first_statement(&sql.repeat(1 + SIMPLE_SIZE_MAX / sql.len().max(1)));
    may_have_long_step(sql);
    makes_table_by_select(sql);
    makes_table_or_index(sql);
    drops_column(sql);
    mentions(sql, authorizer::VIEWS_PREFIX);
    assert_eq!(with_visible_schema(sql).len(), sql.len(), "positions stay: {sql:?}");
}

proptest! {
    #[test]
    fn no_text_does_harm(sql: String) {
        check_any(&sql);
    }

    #[test]
    fn no_text_of_tokens_does_harm(
        pieces in proptest::collection::vec(proptest::sample::select(&[
            "\"", "`", "[", "]", "'", "--", "/*", "*/", "\n", ";", ".", "é", "\u{feff}", "\u{1f980}", "\0",
            "main", "sqlite_master", "SQLITE_SCHEMA", "__debros_vi", "FROM", "EXPLAIN", "QUERY", "CREATE", " ",
        ][..]), 0..12),
    ) {
        check_any(&pieces.concat());
    }
}

#[test]
fn blobs_are_found_wherever_they_are_written() {
    for (sql, bytes) in [
        ("", 0),
        ("SELECT 'x', xy, X''", 0),
        ("SELECT x'00ff'", 2),
        ("SELECT X'00', x'0011223344'; SELECT x'00'", 5),
        ("SELECT 'it''s', x'00ff'", 2),
        ("SELECT 'x', ' 00'", 0),
        ("SELECT x'0011", 0),
        // What is none may look like one.
        ("SELECT \"x'00'\"", 1),
    ] {
        assert_eq!(longest_blob(sql), bytes, "{sql}");
    }
}
