//! What SQLite does without a word while it prepares a statement, counted (R12).
//!
//! It puts views, common table expressions, windows and names of results in as often as they are named, by copies;
//! compares each term to sort or group by with each result; looks for each name among the columns of each table; and
//! turns `*` into as many columns as there are. Of all that it asks nobody, and nothing at all while it works out the
//! columns of a view. How often each is done follows from the statement and the schema alone, once the columns of the
//! views that work are at hand ([`super::views`]).
//!
//! SQLite is built so that it calls the functions here, which call its own (`.cargo/config.toml`).

#![expect(unsafe_code, reason = "SQLite's own functions are called")]

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;

use crate::sql::preparing;

/// What copying a part of an expression takes, in VM instructions; comparing two; adding one to a list; looking for a
/// name among the columns of a table, and columns that one step is enough for.
const STEPS_PER_COPY: u64 = 10;
const STEPS_PER_COMPARISON: u64 = 1;
const STEPS_PER_RESULT: u64 = 16;
const STEPS_PER_NAME: u64 = 2;
const COLUMNS_PER_STEP: u64 = 16;

/// A table, as SQLite has it, as far as that matters here.
#[repr(C)]
struct Table {
    name: *const c_char,
    columns: *const c_void,
    indexes: *const c_void,
    affinities: *const c_char,
    checks: *const c_void,
    root: u32,
    n_references: u32,
    flags: u32,
    key: i16,
    n_columns: i16,
}

// SQLite's own, under the names that they are given where it is built.
unsafe extern "C" {
    fn debros_copy(
        connection: *mut c_void,
        expression: *const c_void,
        flags: c_int,
        room: *mut c_void,
    ) -> *mut c_void;
    fn debros_compare(
        parse: *const c_void,
        one: *const c_void,
        other: *const c_void,
        cursor: c_int,
    ) -> c_int;
    fn debros_append(parse: *mut c_void, list: *mut c_void, expression: *mut c_void)
    -> *mut c_void;
    fn debros_column(table: *mut Table, name: *const c_char) -> c_int;
    fn debros_eponymous(parse: *mut c_void, module: *mut c_void) -> c_int;
}

#[unsafe(export_name = "exprDup")]
unsafe extern "C" fn copy(
    connection: *mut c_void,
    expression: *const c_void,
    flags: c_int,
    room: *mut c_void,
) -> *mut c_void {
    preparing::note_silent(STEPS_PER_COPY);
    // SAFETY: SQLite passes what its own function wants.
    unsafe { debros_copy(connection, expression, flags, room) }
}

#[unsafe(export_name = "sqlite3ExprCompare")]
unsafe extern "C" fn compare(
    parse: *const c_void,
    one: *const c_void,
    other: *const c_void,
    cursor: c_int,
) -> c_int {
    preparing::note_silent(STEPS_PER_COMPARISON);
    // SAFETY: SQLite passes what its own function wants.
    unsafe { debros_compare(parse, one, other, cursor) }
}

#[unsafe(export_name = "sqlite3ExprListAppend")]
unsafe extern "C" fn append(
    parse: *mut c_void,
    list: *mut c_void,
    expression: *mut c_void,
) -> *mut c_void {
    preparing::note_silent(STEPS_PER_RESULT);
    // SAFETY: SQLite passes what its own function wants.
    unsafe { debros_append(parse, list, expression) }
}

#[unsafe(export_name = "sqlite3ColumnIndex")]
unsafe extern "C" fn column(table: *mut Table, name: *const c_char) -> c_int {
    // SAFETY: SQLite passes a table and a name. (It comes with its source, and is of one version.)
    unsafe {
        let n_columns = u64::try_from((*table).n_columns).unwrap_or(0);
        if preparing::note_silent(STEPS_PER_NAME + n_columns / COLUMNS_PER_STEP) {
            // It is refused anyway: no name is found any more, which ends it.
            return -1;
        }
        debros_column(table, name)
    }
}

/// A table that needs no `CREATE VIRTUAL TABLE` is named for the first time on this connection, which does not count:
/// on another it may not be the first time.
#[unsafe(export_name = "sqlite3VtabEponymousTableInit")]
unsafe extern "C" fn eponymous(parse: *mut c_void, module: *mut c_void) -> c_int {
    // SAFETY: SQLite passes what its own function wants.
    preparing::uncounted(|| unsafe { debros_eponymous(parse, module) })
}
