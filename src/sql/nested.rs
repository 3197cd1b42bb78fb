//! The statements that virtual tables run as a part of the one at hand: charged for, instruction by instruction (R12).
//!
//! A search reads the rows that it has found, and writes its index, by statements of its own. What these take is in no
//! proportion to the one instruction that had them run: the rows may come from a view. Their instructions make the
//! progress handler tick, but where in their count it does depends on what the connection had them do before (R14); so
//! the ticks only stop what is beyond its limit by far, and what decides is counted here.
//!
//! SQLite tells when a statement begins, gives a row, and ends (`sqlite3_trace_v2`). Pieces of an index are read without
//! one (`sqlite3_blob_open`), for which SQLite is built to come by here (`.cargo/config.toml`). Not counted is what
//! virtual tables ask when they have forgotten what they knew, which is soon answered.

#![expect(unsafe_code, reason = "SQLite's traces, and its reading of blobs")]

use std::cell::Cell;
use std::cell::RefCell;
use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_uint;
use std::ffi::c_void;
use std::ptr;

use rusqlite::ffi;

use crate::sql::charges;
use crate::sql::statement::Handle;

/// How the texts of statements begin that are not counted: they are run more or less often, and ask whether settings or
/// the data have changed; or they change rows, and are charged for each.
const UNCOUNTED: [&[u8]; 6] =
    [b"PRAGMA ", b"SELECT k, v FROM ", b"SELECT value FROM ", b"INSERT ", b"REPLACE ", b"DELETE "];

/// What reading a piece of an index takes, beside its bytes, in VM instructions; and bytes of it that take one.
const STEPS_PER_PIECE: u64 = 8;
const BYTES_PER_STEP: u64 = 32;
/// The pieces in which FTS5 keeps what it knows of the others: read more or less often.
const KNOWN_TO_FTS5: [i64; 2] = [1, 10];

/// A statement of a virtual table's that has begun and not ended.
struct Nested {
    raw: *mut c_void,
    /// Its instructions that were charged for, and those of its runs before. They are counted from when it was
    /// prepared on, and begin anew at 2^32.
    counted: u32,
}

thread_local! {
    static NESTED: RefCell<Vec<Nested>> = const { RefCell::new(Vec::new()) };
    /// The statement that all others are part of.
    static OUTER: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
}

/// Run `f`, which runs `outer` on the connection behind `handle`; charge for the statements that are part of it.
pub(super) fn charged<T>(
    handle: Handle,
    outer: *mut ffi::sqlite3_stmt,
    f: impl FnOnce() -> T,
) -> T {
    struct Restore(Handle);
    impl Drop for Restore {
        fn drop(&mut self) {
            trace(self.0, 0, None);
            OUTER.set(ptr::null_mut());
            NESTED.with_borrow_mut(Vec::clear);
        }
    }
    OUTER.set(outer.cast());
    let _restore = Restore(handle);
    let events = ffi::SQLITE_TRACE_STMT | ffi::SQLITE_TRACE_ROW | ffi::SQLITE_TRACE_PROFILE;
    trace(handle, events, Some(on_event));
    f()
}

type OnEvent = unsafe extern "C" fn(c_uint, *mut c_void, *mut c_void, *mut c_void) -> c_int;

fn trace(handle: Handle, events: c_uint, on_event: Option<OnEvent>) {
    // SAFETY: the connection is open; the function takes no argument of ours.
    unsafe { ffi::sqlite3_trace_v2(handle.raw(), events, on_event, ptr::null_mut()) };
}

/// A statement begins (`detail` is its text), gives a row, or ends.
unsafe extern "C" fn on_event(
    event: c_uint,
    _: *mut c_void,
    raw: *mut c_void,
    detail: *mut c_void,
) -> c_int {
    if raw == OUTER.get() {
        return 0;
    }
    // SAFETY: SQLite passes a statement, and with the first of these events a text.
    unsafe {
        match event {
            ffi::SQLITE_TRACE_STMT => {
                let text = CStr::from_ptr(detail.cast::<c_char>()).to_bytes();
                // In front of a statement within another stands a comment's mark. Another one means a trigger of its.
                let text = text.strip_prefix(b"-- ").unwrap_or(text);
                if !text.starts_with(b"--") {
                    begin(raw, text);
                }
            }
            ffi::SQLITE_TRACE_ROW => charge(raw, false),
            _ => charge(raw, true),
        }
    }
    0
}

/// # Safety
/// `raw` is a statement.
unsafe fn begin(raw: *mut c_void, text: &[u8]) {
    // SAFETY: the caller's promise.
    let counted = unsafe { steps(raw) };
    NESTED.with_borrow_mut(|them| {
        // One that begins again, having been prepared anew, or of which no end was told.
        them.retain(|it| it.raw != raw);
        if !UNCOUNTED.iter().any(|it| text.starts_with(it)) {
            them.push(Nested { raw, counted });
        }
    });
}

/// Charge for what a statement has done since; that may be forgotten if it `is_end`.
///
/// # Safety
/// `raw` is a statement.
unsafe fn charge(raw: *mut c_void, is_end: bool) {
    let charged = NESTED.with_borrow_mut(|them| {
        let at = them.iter().rposition(|it| it.raw == raw)?;
        // SAFETY: the caller's promise.
        let now = unsafe { steps(raw) };
        let charged = now.wrapping_sub(them[at].counted);
        if is_end {
            them.swap_remove(at);
        } else {
            them[at].counted = now;
        }
        Some(charged)
    });
    // If that is too much, the next tick stops the statement that all this is part of.
    charges::charge_steps(charged.unwrap_or(0).into());
}

/// Instructions of all runs of a statement. Those of the present one are counted when it gives a row, or ends.
///
/// # Safety
/// `raw` is a statement.
unsafe fn steps(raw: *mut c_void) -> u32 {
    // SAFETY: the caller's promise.
    let n = unsafe { ffi::sqlite3_stmt_status(raw.cast(), ffi::SQLITE_STMTSTATUS_VM_STEP, 0) };
    n.cast_unsigned()
}

#[unsafe(export_name = "debros_blob_open")]
unsafe extern "C" fn blob_open(
    connection: *mut ffi::sqlite3,
    schema: *const c_char,
    table: *const c_char,
    column: *const c_char,
    id: i64,
    flags: c_int,
    opened: *mut *mut ffi::sqlite3_blob,
) -> c_int {
    // SAFETY: SQLite passes what it would pass to its own function.
    unsafe {
        let code = ffi::sqlite3_blob_open(connection, schema, table, column, id, flags, opened);
        if code == ffi::SQLITE_OK {
            charge_piece(id, *opened);
        }
        code
    }
}

#[unsafe(export_name = "debros_blob_reopen")]
unsafe extern "C" fn blob_reopen(blob: *mut ffi::sqlite3_blob, id: i64) -> c_int {
    // SAFETY: SQLite passes what it would pass to its own function.
    unsafe {
        let code = ffi::sqlite3_blob_reopen(blob, id);
        if code == ffi::SQLITE_OK {
            charge_piece(id, blob);
        }
        code
    }
}

/// Charge for reading a piece; if that is too much, the next tick stops the statement.
///
/// # Safety
/// The blob is open.
unsafe fn charge_piece(id: i64, blob: *mut ffi::sqlite3_blob) {
    if KNOWN_TO_FTS5.contains(&id) {
        return;
    }
    // SAFETY: the caller's promise.
    let n_bytes = unsafe { ffi::sqlite3_blob_bytes(blob) };
    let n_bytes = u64::try_from(n_bytes).unwrap_or(0);
    charges::charge_search(STEPS_PER_PIECE);
    charges::charge_length(n_bytes / BYTES_PER_STEP);
}

#[cfg(test)]
mod tests {
    use crate::sql::charges;
    use crate::sql::charges::STEPS_PER_TICK;
    use crate::sql::testing::Fixture;
    use crate::sql::testing::LIMITS;
    use crate::sql::testing::command;
    use crate::sql::testing::print;
    use crate::sql::testing::stamp;
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
                assert!(ticks * STEPS_PER_TICK < 2 * of_warm + 3_000, "{sql}: {ticks} {of_warm}");
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
            for sql in
                ["INSERT INTO sink SELECT 1, 2, a FROM s", "INSERT INTO s(s) VALUES ('rebuild')"]
            {
                let limits = CommandLimits { steps, ..LIMITS };
                let stamp = Stamp { limits, ..stamp(fixture.next) };
                charges::TICKS.set(0);
                let printed = print(&fixture.apply([command(Mode::Exec, sql, &[], &stamp)])[0]);
                let want =
                    if sql.ends_with("')") { want.replace("400", "1") } else { want.to_owned() };
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
}
