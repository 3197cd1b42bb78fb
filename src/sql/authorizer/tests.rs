//! Statements that mean harm, and those that look like it.

use std::fmt::Write;

use expect_test::expect;
use expect_test::expect_file;

use crate::sql::testing::Fixture;

/// A database with a table of each kind.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    for sql in [
        "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE)",
        "INSERT INTO t(b) VALUES ('x')",
        "CREATE VIRTUAL TABLE f USING fts5(body)",
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
        "INSERT INTO f VALUES ('hello world')",
        "ANALYZE",
    ] {
        fixture.must(sql);
    }
    fixture
}

#[test]
fn hostile_statements_are_refused() {
    let mut fixture = fixture();
    let before = fixture.database.content_hash().unwrap();
    let applied = fixture.next;
    let mut printed = String::new();
    for sql in HOSTILE {
        let outcome = fixture.exec(&[sql]).remove(0);
        writeln!(printed, "{sql}\n    {outcome}").unwrap();
        let read = fixture.query(sql);
        assert!(read.starts_with("error"), "{sql}: read {read}");
    }
    expect_file!["../../../tests/data/sql/hostile.txt"].assert_eq(&printed);
    // Applying sets the applied index, which the hash covers: wind it back.
    let mut fresh = self::fixture();
    assert_eq!(fresh.database.content_hash().unwrap(), before);
    let nothing = vec!["SELECT 1"; usize::try_from(fixture.next - applied).unwrap()];
    fresh.exec(&nothing);
    let hashes = [&mut fresh, &mut fixture].map(|it| it.database.content_hash().unwrap());
    assert_eq!(hashes[0], hashes[1], "a refused statement had an effect");
}

const HOSTILE: &[&str] = &[
    // Out of the database.
    "ATTACH DATABASE '/tmp/x.db' AS x",
    "DETACH DATABASE main",
    "VACUUM",
    "VACUUM INTO '/tmp/x.db'",
    "SELECT load_extension('x')",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA database_list",
    "CREATE VIRTUAL TABLE c USING csv(filename='/etc/passwd')",
    // Settings of the connection.
    "PRAGMA journal_mode = DELETE",
    "PRAGMA synchronous = OFF",
    "PRAGMA foreign_keys = ON",
    "PRAGMA writable_schema = ON",
    "PRAGMA main.writable_schema(1)",
    "PRAGMA query_only = 1",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA case_sensitive_like = 1",
    "PRAGMA incremental_vacuum(10)",
    "PRAGMA optimize",
    "PRAGMA data_version",
    "PRAGMA max_page_count = 10",
    "SELECT * FROM pragma_data_version",
    "CREATE VIRTUAL TABLE mine USING fts5(data_version, content='pragma_data_version'); SELECT * FROM mine",
    "CREATE VIRTUAL TABLE mine USING fts4(data_version, content='PRAGMA_data_version'); SELECT * FROM mine",
    "SELECT * FROM pragma_journal_mode",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_compile_options",
    // Transactions, which are the engine's.
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE command",
    "ROLLBACK TO command",
    "INSERT INTO t(b) VALUES ('y'); COMMIT",
    // What lives as long as a connection, or differs between builds.
    "CREATE TEMP TABLE x(a)",
    "CREATE TABLE temp.x(a)",
    "CREATE VIEW temp.x AS SELECT 1",
    "CREATE VIRTUAL TABLE temp.x USING fts5(a)",
    "CREATE INDEX temp.x ON t(a)",
    "CREATE TEMP VIEW x AS SELECT 1",
    "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE TRIGGER x INSTEAD OF INSERT ON __debros_view BEGIN SELECT 1; END",
    "SELECT sqlite_version()",
    "SELECT sqlite_source_id()",
    "SELECT sqlite_compileoption_get(1)",
    "SELECT fts5_source_id()",
    "SELECT * FROM dbstat",
    "SELECT count(*) FROM dbstat",
    "CREATE VIRTUAL TABLE d USING dbstat(main)",
    // The statistics that plans follow.
    "UPDATE sqlite_stat1 SET stat = '1'",
    "DELETE FROM sqlite_stat4",
    "INSERT INTO sqlite_stat1 VALUES ('t', 'i', '9 9')",
    // What a search index keeps.
    "DELETE FROM f_data",
    "INSERT INTO r_node VALUES (9, x'00')",
    // The schema table, and the engine's.
    "SELECT * FROM main.sqlite_master WHERE 0 UNION SELECT * FROM 'sqlite_master'",
    "SELECT sql FROM \"main\".'sqlite_schema'",
    "SELECT count(*) FROM main.'sqlite_schema'",
    "SELECT rootpage FROM 'sqlite_master'",
    "SELECT * FROM sqlite_temp_master",
    "SELECT * FROM temp.'sqlite_schema'",
    "SELECT * FROM __debros_view",
    "SELECT * FROM __DEBROS_VIEW",
    "WITH __debros_view AS (SELECT * FROM main.'sqlite_master') SELECT * FROM __debros_view",
    "WITH sqlite_master AS (SELECT * FROM main.'sqlite_master') SELECT * FROM sqlite_master",
    "WITH '__debros_view' AS (SELECT * FROM 'sqlite_master') SELECT * FROM '__debros_view'",
    "CREATE TABLE copy AS SELECT * FROM sqlite_master",
    "CREATE TABLE copy AS SELECT rowid, 1 AS one FROM (SELECT name FROM sqlite_schema)",
    "UPDATE sqlite_master SET sql = ''",
    "DELETE FROM sqlite_schema",
    "INSERT INTO sqlite_master VALUES (1, 2, 3, 4, 5)",
    "SELECT * FROM __debros_meta",
    "SELECT count(*) FROM __debros_meta",
    "SELECT 1 FROM main.\"__DEBROS_meta\"",
    "UPDATE __debros_meta SET applied = 0",
    "DELETE FROM __debros_meta",
    "INSERT INTO __debros_meta VALUES (1, 1)",
    "REPLACE INTO __debros_meta VALUES (0, 1)",
    "DROP TABLE __debros_meta",
    "DROP TABLE IF EXISTS main.__debros_meta",
    "ALTER TABLE __debros_meta ADD COLUMN x",
    "ALTER TABLE __debros_meta RENAME TO x",
    "ALTER TABLE __debros_meta RENAME COLUMN applied TO x",
    "ALTER TABLE __debros_meta DROP COLUMN applied",
    "CREATE INDEX x ON __debros_meta(applied)",
    "CREATE TRIGGER x AFTER UPDATE ON __debros_meta BEGIN SELECT 1; END",
    "CREATE TABLE __debros_mine(a)",
    "CREATE TABLE IF NOT EXISTS __debros_meta(a)",
    "CREATE VIEW __Debros_mine AS SELECT 1",
    "CREATE INDEX __debros_mine ON t(b)",
    "CREATE TRIGGER __debros_mine AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE __debros_mine USING fts5(a)",
    "CREATE VIRTUAL TABLE __debros USING fts5(a)",
    "ALTER TABLE t RENAME TO __debros_mine",
    "CREATE TABLE mine(a); ALTER TABLE mine RENAME TO __debros_mine",
    "CREATE VIEW mine AS SELECT * FROM __debros_meta; SELECT * FROM mine",
    "CREATE TRIGGER mine AFTER INSERT ON t BEGIN UPDATE __debros_meta SET applied = 0; END; INSERT INTO t(b) VALUES (9)",
    "CREATE VIRTUAL TABLE mine USING fts5(applied, content='__debros_meta'); SELECT * FROM mine",
    "CREATE VIEW mine AS SELECT * FROM sqlite_master; SELECT * FROM mine",
    "PRAGMA table_info(__debros_meta)",
    "PRAGMA table_xinfo('__debros_meta')",
    "PRAGMA main.index_list(\"__debros_meta\")",
    "PRAGMA foreign_key_list(__debros_meta)",
    "PRAGMA index_info(sqlite_autoindex___debros_meta_1)",
    "PRAGMA table_list(__debros_meta)",
    "SELECT * FROM pragma_table_info('__debros_meta')",
    "SELECT p.* FROM (SELECT '__debros' || '_meta' AS n) JOIN pragma_table_info(n) AS p",
    "SELECT * FROM pragma_table_list",
    "SELECT count(*) FROM main.pragma_table_list('t')",
    "DROP VIEW temp.__debros_view",
    "DROP VIEW sqlite_master",
    // Names of columns that SQLite makes up at random.
    "CREATE TABLE mine AS SELECT 1 a, 1 a, 1 a, 1 a, 1 a, 1 a",
    "CREATE VIEW mine AS SELECT 1 a, 1 a, 1 a, 1 a, 1 a, 1 a",
    "CREATE VIEW mine AS SELECT * FROM nowhere AS b, nowhere AS c, nowhere AS d, nowhere AS e, nowhere AS f, nowhere AS g; CREATE TABLE nowhere(a)",
    // Where the engine would run it.
    "CREATE TABLE h_stat(id INTEGER PRIMARY KEY, value BLOB); CREATE TRIGGER r AFTER INSERT ON h_stat BEGIN DELETE FROM t; END; CREATE VIRTUAL TABLE h USING fts3(b)",
    "CREATE TRIGGER r AFTER INSERT ON f_data BEGIN DELETE FROM t; END",
    "CREATE TABLE child(a REFERENCES f_data(id) ON DELETE CASCADE)",
    "CREATE INDEX i ON f_data(hex(id))",
    // Not one text.
    "",
    "  ",
];

#[test]
fn tenants_see_their_schema_and_nothing_of_the_engine() {
    let mut fixture = fixture();
    let mut printed = String::new();
    for sql in [
        "SELECT type, name, tbl_name FROM sqlite_master WHERE name NOT LIKE 'f!_%' ESCAPE '!'",
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
        "SELECT count(*) FROM sqlite_master AS m WHERE m.name LIKE '!_!_debros%' ESCAPE '!'",
        "SELECT count(*) FROM sqlite_stat1 WHERE tbl LIKE '!_!_debros%' ESCAPE '!'",
        "PRAGMA table_info(t)",
        "SELECT name FROM pragma_table_info('t')",
        "PRAGMA index_list(t)",
        "PRAGMA table_list(t)",
        "EXPLAIN QUERY PLAN SELECT * FROM t WHERE a = 1",
        "WITH x AS (SELECT b FROM t) SELECT * FROM x",
        "SELECT * FROM f WHERE f MATCH 'hello'",
        "SELECT seq FROM sqlite_sequence",
        "PRAGMA user_version",
        "-- nothing",
    ] {
        let outcome = fixture.query(sql);
        writeln!(printed, "{sql}\n    {outcome}").unwrap();
    }
    expect![[r#"
        SELECT type, name, tbl_name FROM sqlite_master WHERE name NOT LIKE 'f!_%' ESCAPE '!'
            [type,name,tbl_name]('table','t','t')('index','sqlite_autoindex_t_1','t')('table','sqlite_sequence','sqlite_sequence')('table','f','f')('table','r','r')('table','r_rowid','r_rowid')('table','r_node','r_node')('table','r_parent','r_parent')('table','sqlite_stat1','sqlite_stat1')('table','sqlite_stat4','sqlite_stat4')
        SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name
            [name]('f')('f_config')('f_content')('f_data')('f_docsize')('f_idx')('r')('r_node')('r_parent')('r_rowid')('t')
        SELECT count(*) FROM sqlite_master AS m WHERE m.name LIKE '!_!_debros%' ESCAPE '!'
            [count(*)](0)
        SELECT count(*) FROM sqlite_stat1 WHERE tbl LIKE '!_!_debros%' ESCAPE '!'
            [count(*)](0)
        PRAGMA table_info(t)
            [cid,name,type,notnull,dflt_value,pk](0,'a','INTEGER',0,NULL,1)(1,'b','',0,NULL,0)
        SELECT name FROM pragma_table_info('t')
            [name]('a')('b')
        PRAGMA index_list(t)
            [seq,name,unique,origin,partial](0,'sqlite_autoindex_t_1',1,'u',0)
        PRAGMA table_list(t)
            [schema,name,type,ncol,wr,strict]('main','t','table',2,0,0)
        EXPLAIN QUERY PLAN SELECT * FROM t WHERE a = 1
            [id,parent,notused,detail](2,0,33,'SEARCH t USING INTEGER PRIMARY KEY (rowid=?)')
        WITH x AS (SELECT b FROM t) SELECT * FROM x
            [b]('x')
        SELECT * FROM f WHERE f MATCH 'hello'
            [body]('hello world')
        SELECT seq FROM sqlite_sequence
            [seq](1)
        PRAGMA user_version
            [user_version](0)
        -- nothing
            []
    "#]].assert_eq(&printed);
    let tables = fixture.query("PRAGMA table_list");
    assert!(tables.contains("'t'"), "{tables}");
    assert!(!tables.contains("debros"), "{tables}");
}

#[test]
fn what_is_not_hostile_works() {
    let mut fixture = fixture();
    for sql in [
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE u RENAME COLUMN b TO c",
        "ALTER TABLE u ADD COLUMN d DEFAULT 'x' CHECK (d <> '')",
        "ALTER TABLE u DROP COLUMN d",
        "ALTER TABLE u ADD COLUMN d",
        "CREATE VIEW v AS SELECT a AS first FROM u",
        "CREATE TRIGGER g AFTER INSERT ON u BEGIN UPDATE u SET d = d || '!' WHERE a = new.a; END",
        "CREATE INDEX i ON u(d) WHERE d IS NOT NULL",
        "CREATE VIEW several AS SELECT 1 id, 2 id, 3 id, 4 id, 5 id, 6 AS \"12:30\"",
        "CREATE TABLE copy AS SELECT * FROM u",
        "CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID",
        "INSERT INTO w VALUES (1, 2) ON CONFLICT DO UPDATE SET v = 3",
        "CREATE VIRTUAL TABLE f4 USING fts4(body)",
        "INSERT INTO f4 VALUES ('some words')",
        "INSERT INTO f(f) VALUES ('optimize')",
        "CREATE VIRTUAL TABLE words USING fts5vocab(f, row)",
        "INSERT INTO r VALUES (1, 0.5, 1.5)",
        "ALTER TABLE f RENAME TO g",
        "CREATE VIEW broken AS SELECT * FROM nowhere",
        "DROP TABLE r",
        "REINDEX",
        "ANALYZE w",
        "DROP INDEX i",
        "DROP VIEW v",
        "DROP TABLE copy",
        "DROP TABLE g",
        "DELETE FROM sqlite_sequence",
        "PRAGMA user_version = 7",
        "EXPLAIN INSERT INTO u(d) VALUES (1)",
        "INSERT INTO w SELECT \"a string\", sum(1) OVER () FROM u",
    ] {
        fixture.must(sql);
    }
    assert_eq!(fixture.query("PRAGMA user_version"), "[user_version](7)");
}
