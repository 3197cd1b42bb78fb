//! The pieces of an index, as they are stored and read again: longer than a value of a statement may be.
//!
//! FTS3 keeps all rows with a word in one piece, and FTS5 in pages whose size a tenant sets. Neither is a value of the
//! tenant's. So where SQLite writes one, or reads one as a value, it may be as long as it is, and nowhere else: what
//! surrounds that (`xUpdate`, a search) also runs what a tenant wrote, such as a view that rows are taken from, or a
//! function that they are compressed by. What is called here runs nothing but statements of SQLite's own on tables
//! that nothing of the tenant's hangs on ([`super::shadows`]). `fts4aux` reads in the same way from any name that it is
//! given, which may be that of a view: there values are no longer than the statement's, and a piece that is longer is
//! refused.
//!
//! Pieces that are bound elsewhere are short (a word, the size of a row, a node of an R-tree); see
//! `statement::bind_blob` for what becomes of one that is too long all the same.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;

use crate::sql::fulltext::sqlite;
use crate::sql::fulltext::sqlite::Index;
use crate::sql::fulltext::sqlite::Table3;
use crate::sql::statement;

/// Bytes of a piece of FTS5: a page (64 KiB at most) and the end of a word (32 KiB), or what 2000 segments are.
const PIECE_MAX5: c_int = 256 << 10;
/// Bytes of one of FTS3 and FTS4: as many as there is memory for.
const PIECE_MAX3: c_int = c_int::MAX;

#[unsafe(export_name = "fts5DataWrite")]
unsafe extern "C" fn write5(index: *mut Index, id: i64, bytes: *const u8, n: c_int) {
    // SAFETY: SQLite passes what its own function wants; the connection of a table outlives it.
    unsafe {
        let connection = (*(*index).config).connection;
        statement::with_long_values(connection, PIECE_MAX5, || {
            sqlite::debros_write5(index, id, bytes, n);
        });
    }
}

#[unsafe(export_name = "fts3WriteSegment")]
unsafe extern "C" fn write3(table: *mut Table3, id: i64, bytes: *mut c_char, n: c_int) -> c_int {
    // SAFETY: SQLite passes what its own function wants; the connection of a table outlives it.
    unsafe {
        let connection = (*table).connection;
        statement::with_long_values(connection, PIECE_MAX3, || {
            sqlite::debros_write3(table, id, bytes, n)
        })
    }
}

#[unsafe(export_name = "fts3WriteSegdir")]
unsafe extern "C" fn root3(
    table: *mut Table3,
    level: i64,
    segment: c_int,
    first: i64,
    last_leaf: i64,
    last: i64,
    leaf_bytes: i64,
    bytes: *mut c_char,
    n: c_int,
) -> c_int {
    // SAFETY: SQLite passes what its own function wants; the connection of a table outlives it.
    unsafe {
        let connection = (*table).connection;
        statement::with_long_values(connection, PIECE_MAX3, || {
            sqlite::debros_root3(
                table, level, segment, first, last_leaf, last, leaf_bytes, bytes, n,
            )
        })
    }
}

#[unsafe(export_name = "fts3TruncateSegment")]
unsafe extern "C" fn truncate3(
    table: *mut Table3,
    level: i64,
    segment: c_int,
    word: *const c_char,
    length: c_int,
) -> c_int {
    // SAFETY: SQLite passes what its own function wants; the connection of a table outlives it.
    unsafe {
        let connection = (*table).connection;
        statement::with_long_values(connection, PIECE_MAX3, || {
            sqlite::debros_truncate3(table, level, segment, word, length)
        })
    }
}

#[unsafe(export_name = "fts3IncrmergeLoad")]
unsafe extern "C" fn load3(
    table: *mut Table3,
    level: i64,
    segment: c_int,
    word: *const c_char,
    length: c_int,
    writer: *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes what its own function wants; the connection of a table outlives it.
    unsafe {
        let connection = (*table).connection;
        statement::with_long_values(connection, PIECE_MAX3, || {
            sqlite::debros_load3(table, level, segment, word, length, writer)
        })
    }
}

#[unsafe(export_name = "fts3SegReaderCursor")]
unsafe extern "C" fn segments3(
    table: *mut Table3,
    language: c_int,
    index: c_int,
    level: c_int,
    word: *const c_char,
    length: c_int,
    is_prefix: c_int,
    is_scan: c_int,
    reader: *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes what its own function wants; the connection of a table outlives it.
    unsafe {
        let read = || {
            sqlite::debros_segments3(
                table, language, index, level, word, length, is_prefix, is_scan, reader,
            )
        };
        if !(*table).is_table() {
            return read();
        }
        statement::with_long_values((*table).connection, PIECE_MAX3, read)
    }
}

#[unsafe(export_name = "fts3IncrmergeCsr")]
unsafe extern "C" fn merge3(
    table: *mut Table3,
    level: i64,
    segments: c_int,
    reader: *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes what its own function wants; the connection of a table outlives it.
    unsafe {
        let connection = (*table).connection;
        statement::with_long_values(connection, PIECE_MAX3, || {
            sqlite::debros_merge3(table, level, segments, reader)
        })
    }
}

#[unsafe(export_name = "fts3RepackSegdirLevel")]
unsafe extern "C" fn repack3(table: *mut Table3, level: i64) -> c_int {
    // SAFETY: SQLite passes what its own function wants; the connection of a table outlives it.
    unsafe {
        let connection = (*table).connection;
        statement::with_long_values(connection, PIECE_MAX3, || sqlite::debros_repack3(table, level))
    }
}

#[unsafe(export_name = "fts3PromoteSegments")]
unsafe extern "C" fn promote3(table: *mut Table3, level: i64, bytes: i64) -> c_int {
    // SAFETY: SQLite passes what its own function wants; the connection of a table outlives it.
    unsafe {
        let connection = (*table).connection;
        statement::with_long_values(connection, PIECE_MAX3, || {
            sqlite::debros_promote3(table, level, bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::statement;
    use crate::sql::testing::Fixture;
    use crate::sql::testing::LIMITS;
    use crate::sql::testing::command;
    use crate::sql::testing::print;
    use crate::sql::testing::stamp;
    use crate::wire::command::CommandLimits;
    use crate::wire::command::Mode;
    use crate::wire::command::Stamp;

    /// The outcome of `sql` as one command with many steps, and values of up to so many bytes.
    fn run(fixture: &mut Fixture, sql: &str, value_bytes: u32) -> String {
        let limits = CommandLimits { steps: 200_000_000, value_bytes, ..LIMITS };
        let stamp = Stamp { limits, ..stamp(fixture.next) };
        print(&fixture.apply([command(Mode::Exec, sql, &[], &stamp)])[0])
    }

    /// The texts of `n` rows, as a SELECT.
    fn texts(n: u32, text: &str) -> String {
        format!(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {n})
             SELECT {text} FROM c"
        )
    }

    #[test]
    fn what_only_reads_may_write_long_pieces_too() {
        let words = texts(20_000, "'w' || x || ' w' || (x * 7919 % 65536)");
        for (kind, select) in [
            ("fts5(b)", "SELECT count(*) FROM v WHERE term = 'w9'"),
            ("fts5(b, tokendata = 1)", "SELECT count(*) FROM f WHERE f MATCH 'w9'"),
        ] {
            let mut fixture = Fixture::new();
            fixture.must(&format!("CREATE VIRTUAL TABLE f USING {kind}"));
            fixture.must("CREATE VIRTUAL TABLE v USING fts5vocab(f, row)");
            fixture.must("INSERT INTO f(f, rank) VALUES ('pgsz', 65536)");
            let sql = format!("INSERT INTO f {words}; INSERT INTO f VALUES ('w9'); {select}");
            let ran = run(&mut fixture, &sql, 1 << 20);
            assert!(!ran.starts_with("error"), "{kind}: {ran}");
            fixture.must("INSERT INTO f(f) VALUES ('integrity-check')");
            let found = fixture.query("SELECT count(*) AS n FROM f WHERE f MATCH 'w9'");
            assert_ne!(found, "[n](0)", "{kind}");
            let pages = "SELECT count(*) AS n FROM f_data WHERE length(block) > 32768";
            assert_ne!(fixture.query(pages), "[n](0)", "{kind}: no page is longer than a value");
        }
    }

    #[test]
    fn what_a_tenant_wrote_has_its_own_bound_while_an_index_is_written() {
        let long = ["hex(zeroblob(20000000))", "randomblob(999999999)", "zeroblob(50000000)"];
        for value in long {
            let mut fixture = Fixture::new();
            fixture.must(&format!("CREATE VIEW w AS SELECT 1 AS id, 1 AS rowid, {value} AS b"));
            fixture.must("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
            fixture
                .must("CREATE VIRTUAL TABLE f USING fts5(b, content = 'w', content_rowid = 'id')");
            fixture.must("CREATE VIRTUAL TABLE g USING fts4(b, content='w')");
            for sql in [
                "INSERT INTO f(f) VALUES ('rebuild')",
                "DELETE FROM f WHERE rowid = 1",
                "UPDATE f SET b = 'x' WHERE rowid = 1",
                "INSERT INTO g(g) VALUES ('rebuild')",
                "DELETE FROM g WHERE docid = 1",
            ] {
                let ran = run(&mut fixture, sql, 1 << 20);
                assert!(ran.starts_with("error value_bytes"), "{value}: {sql}: {ran}");
            }
        }
        let mut fixture = Fixture::new();
        // The engine makes such a table ready to be used without a look at its content.
        fixture.must(
            "CREATE VIEW endless AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
            SELECT x AS rowid, 'b' AS b FROM c",
        );
        fixture.must("CREATE VIRTUAL TABLE e4 USING fts4(b, content='endless')");
        fixture.must("CREATE VIRTUAL TABLE e5 USING fts5(b, content='endless')");
        let ran = fixture.exec(&["INSERT INTO e4(e4) VALUES ('rebuild')"]).remove(0);
        assert!(ran.starts_with("error statement_steps"), "{ran}");
        fixture.must("CREATE VIRTUAL TABLE z USING fts4(b, compress=zeroblob, uncompress=length)");
        let ran = run(&mut fixture, "INSERT INTO z(b) VALUES ('900000000')", 1 << 20);
        assert!(ran.starts_with("error value_bytes"), "{ran}");
    }

    #[test]
    fn content_may_be_elsewhere() {
        for (kind, select) in [
            ("fts5(b, content = 't', content_rowid = 'id')", "t"),
            ("fts5(b, content = 'w', content_rowid = 'id', prefix = '2 3')", "w"),
            ("fts5(b, content = 'n', content_rowid = 'id')", "n"),
            ("fts5(b, content = '')", "t"),
            ("fts4(b, content=\"t\", prefix=\"1,2\")", "t"),
            ("fts4(b, content=\"w\")", "w"),
        ] {
            let mut fixture = Fixture::new();
            fixture.must("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
            fixture.must("CREATE INDEX t_b ON t(upper(b))");
            fixture.must("CREATE TABLE child(t REFERENCES t(id))");
            fixture.must("CREATE TABLE n(id INTEGER PRIMARY KEY, a, b AS (a))");
            fixture.must("CREATE VIEW w AS SELECT id, id AS rowid, b FROM t");
            for table in ["t(b)", "n(a)"] {
                let sql = format!("INSERT INTO {table} {}", texts(20_000, "'the fox ' || x"));
                assert!(run(&mut fixture, &sql, 1 << 20).starts_with("20000"));
            }
            fixture.must(&format!("CREATE VIRTUAL TABLE f USING {kind}"));
            let build = if kind.contains("''") {
                format!("INSERT INTO f(rowid, b) SELECT id, b FROM {select}")
            } else {
                "INSERT INTO f(f) VALUES ('rebuild')".to_owned()
            };
            for sql in [build.as_str(), "INSERT INTO f(f) VALUES ('optimize')"] {
                let ran = run(&mut fixture, sql, 1 << 20);
                assert!(!ran.starts_with("error"), "{kind}: {sql}: {ran}");
                for (word, n) in [("the", 20_000), ("77", 1), ("fo*", 20_000)] {
                    let sql = format!("SELECT count(*) AS n FROM f WHERE f MATCH '{word}'");
                    assert_eq!(fixture.query(&sql), format!("[n]({n})"), "{kind}: {word}");
                }
            }
            let merge = if kind.starts_with("fts5") {
                "INSERT INTO f(f, rank) VALUES ('merge', 16)"
            } else {
                "INSERT INTO f(f) VALUES ('merge=16,2')"
            };
            let ran = run(&mut fixture, merge, 1 << 20);
            assert!(!ran.starts_with("error"), "{kind}: {ran}");
        }
    }

    #[test]
    fn an_index_of_one_word_is_read_whole() {
        for kind in ["fts3(b)", "fts4(b)"] {
            let mut fixture = Fixture::new();
            fixture.must(&format!("CREATE VIRTUAL TABLE f USING {kind}"));
            for _ in 0..3 {
                let sql = format!("INSERT INTO f {}", texts(20_000, "'the'"));
                let ran = run(&mut fixture, &sql, 32 << 10);
                assert!(ran.starts_with("20000 rows"), "{kind}: {ran}");
            }
            let longest = "SELECT max(length(root)) > 50000 AS n FROM f_segdir";
            assert_eq!(fixture.query(longest), "[n](1)", "{kind}");
            let merge = match kind {
                "fts4(b)" => "INSERT INTO f(f) VALUES ('merge=100,2')",
                _ => "INSERT INTO f(f) VALUES ('optimize')",
            };
            let again = "INSERT INTO f(f) VALUES ('optimize')";
            for sql in [merge, again, "DELETE FROM f WHERE docid = 7"] {
                let ran = run(&mut fixture, sql, 32 << 10);
                assert!(!ran.starts_with("error"), "{kind}: {sql}: {ran}");
            }
            let limits = CommandLimits { value_bytes: 32 << 10, ..LIMITS };
            let stamp = Stamp { limits, ..stamp(1) };
            let sql = "SELECT count(*) AS n FROM f WHERE f MATCH 'the'";
            let read = command(Mode::Query, sql, &[], &stamp);
            let read = fixture.database.read(&[read], &mut |_| false).unwrap();
            assert_eq!(print(&read[0]), "[n](59999)", "{kind}");
        }
    }

    #[test]
    fn what_goes_by_the_name_of_an_index_has_the_bound_of_any_statement() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(b)");
        fixture.must(
            "CREATE VIEW h_segdir AS SELECT 0 AS level, 0 AS idx, 0 AS start_block,
            0 AS leaves_end_block, 0 AS end_block, length(hex(zeroblob(10000000))) AS root",
        );
        fixture.must("CREATE VIRTUAL TABLE a USING fts4aux(h)");
        let ran = run(&mut fixture, "INSERT INTO t SELECT term FROM a", 1 << 20);
        assert!(ran.starts_with("error value_bytes"), "{ran}");
        // A table's own words can be listed, and a piece of its index that is too long is not left out.
        fixture.must("CREATE VIRTUAL TABLE f USING fts4(b)");
        fixture.must("CREATE VIRTUAL TABLE words USING fts4aux(f)");
        fixture.must("INSERT INTO f VALUES ('the fox')");
        let words = "INSERT INTO t SELECT term FROM words WHERE col = '*'";
        assert!(run(&mut fixture, words, 1 << 20).starts_with("2 rows"));
        let ran = run(&mut fixture, &format!("INSERT INTO f {}", texts(20_000, "'the'")), 1 << 20);
        assert!(ran.starts_with("20000 rows"), "{ran}");
        let ran = run(&mut fixture, words, 32 << 10);
        assert!(ran.starts_with("error value_bytes"), "{ran}");
        assert!(run(&mut fixture, words, 1 << 20).starts_with("2 rows"));
    }

    #[test]
    fn no_statement_is_refused_as_sqlite_refuses_it() {
        let none = std::ptr::null_mut();
        // SAFETY: SQLite's own takes none as well, and answers.
        let code = unsafe { statement::bind_blob(none, 1, none.cast(), 0, None) };
        assert_eq!(code, rusqlite::ffi::SQLITE_MISUSE);
    }

    /// Smaller than any that a node may be configured with.
    #[test]
    fn a_piece_that_is_too_long_is_refused_not_left_out() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)");
        let ran = run(&mut fixture, "INSERT INTO r VALUES (1, 2, 3)", 500);
        assert!(ran.starts_with("error value_bytes"), "{ran}");
        assert_eq!(fixture.query("SELECT rtreecheck('r') AS r"), "[r]('ok')");
        fixture.must("INSERT INTO r VALUES (1, 2, 3)");
        assert_eq!(fixture.query("SELECT id FROM r WHERE x0 > 1"), "[id](1)");

        fixture.must("CREATE VIRTUAL TABLE f USING fts5(b)");
        let word = "x".repeat(1024);
        fixture.must(&format!("INSERT INTO f VALUES ('{word}')"));
        fixture.must(&format!("INSERT INTO f {}", texts(2_000, "'y' || x")));
        for (value_bytes, want) in [(1024, "error value_bytes"), (2048, "[n](1)")] {
            let limits = CommandLimits { value_bytes, ..LIMITS };
            let stamp = Stamp { limits, ..stamp(1) };
            let sql = format!("SELECT count(*) AS n FROM f WHERE f MATCH '{word}'");
            let read = command(Mode::Query, &sql, &[], &stamp);
            let read = fixture.database.read(&[read], &mut |_| false).unwrap();
            assert!(print(&read[0]).starts_with(want), "{value_bytes}: {}", print(&read[0]));
        }
    }
}
