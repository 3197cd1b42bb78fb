//! The rows that a search looks at: each is charged, and whoever runs the statement may stop it there.

use std::cell::Cell;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;
use std::slice;

use rusqlite::ffi;

use crate::sql::charges;
use crate::sql::fulltext::LOOKS_PER_STEP;
use crate::sql::fulltext::sqlite;
use crate::sql::fulltext::sqlite::Cursor;
use crate::sql::fulltext::sqlite::Cursor3;
use crate::sql::fulltext::sqlite::Expression;
use crate::sql::fulltext::sqlite::Index;
use crate::sql::fulltext::sqlite::Near;
use crate::sql::fulltext::sqlite::Node;
use crate::sql::fulltext::sqlite::Phrase;
use crate::sql::fulltext::sqlite::Places;
use crate::sql::fulltext::sqlite::Table3;
use crate::sql::fulltext::sqlite::Term;
use crate::sql::statement;

/// How many looks at a position `NEAR` takes as long for as others take for one: it begins anew at each. By what
/// was measured for 9 and for 17 phrases on rows of 1 MiB.
const LOOKS_OF_NEAR: u64 = 5;

/// What a row takes in FTS3 and FTS4, for each part of what is searched for, in VM instructions.
const STEPS_PER_ROW3: u64 = 4;

thread_local! {
    /// A search looks for its first row: the one that it is at may not have been charged.
    static IS_FIRST: Cell<bool> = const { Cell::new(false) };
    /// The node and the row of it that were charged last, in that.
    static LAST: Cell<(*const Node, i64)> = const { Cell::new((ptr::null(), 0)) };
    /// Steps charged since somebody was asked whether that is enough.
    static UNASKED: Cell<u64> = const { Cell::new(0) };
}

#[cfg(test)]
thread_local! {
    /// Rows that were charged.
    pub(super) static CHARGED: Cell<u64> = const { Cell::new(0) };
}

/// Run `f`, which looks for the first row of a search.
pub(super) fn find_first<T>(f: impl FnOnce() -> T) -> T {
    IS_FIRST.set(true);
    LAST.set((ptr::null(), 0));
    let found = f();
    IS_FIRST.set(false);
    found
}

/// Charge for the row that a search begins with. Whether it is to stop.
///
/// # Safety
/// `cursor` is one of FTS5.
pub(super) unsafe fn charge_first(cursor: *const Cursor) -> bool {
    // SAFETY: the caller's promise: a search has an expression, or none; that has as many phrases as it says, each
    // of them in a node.
    unsafe {
        let Some(expression) = (*cursor).expression.as_ref() else { return false };
        let n_phrases = usize::try_from(expression.n_phrases).unwrap_or(0);
        if n_phrases == 0 {
            return false;
        }
        let (mut looked, mut last) = (0_u64, ptr::null());
        for phrase in slice::from_raw_parts(expression.phrases, n_phrases) {
            let Some(node) = (**phrase).node.as_ref() else { continue };
            // Those of one `NEAR` follow each other.
            if !ptr::eq(node.near, last) {
                looked = looked.saturating_add(looks(node.near));
                last = node.near;
            }
        }
        is_to_stop(expression, looked)
    }
}

/// The next row where phrases may be: charges for what was looked at in it.
#[unsafe(export_name = "fts5ExprNodeNext_STRING")]
unsafe extern "C" fn next5(
    expression: *mut Expression,
    node: *mut Node,
    has_from: c_int,
    from: i64,
) -> c_int {
    // SAFETY: SQLite passes a valid expression and node of phrases. Where a row was found, each phrase has its
    // terms, and each of those its places, as the program that is linked with this one has them. (It comes with
    // its source, and is of one version.)
    // JUSTIFICATION: without it a search that looks at many rows and finds none takes as long as it likes.
    unsafe {
        let is_uncharged = IS_FIRST.get() && LAST.get() != (node.cast_const(), (*node).rowid);
        if is_uncharged && is_to_stop(expression, looks((*node).near)) {
            return stop(node);
        }
        let code = sqlite::debros_next5(expression, node, has_from, from);
        LAST.set((node, (*node).rowid));
        charge_found(expression, node, code)
    }
}

/// The next row where a word is.
#[unsafe(export_name = "fts5ExprNodeNext_TERM")]
unsafe extern "C" fn term5(
    expression: *mut Expression,
    node: *mut Node,
    has_from: c_int,
    from: i64,
) -> c_int {
    // SAFETY: as for phrases.
    unsafe {
        let code = sqlite::debros_term5(expression, node, has_from, from);
        charge_found(expression, node, code)
    }
}

/// Charge for the row that `node` is at, if it is at one.
///
/// # Safety
/// The expression and the node are SQLite's.
unsafe fn charge_found(expression: *const Expression, node: *mut Node, code: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if code == ffi::SQLITE_OK
            && (*node).is_end == 0
            && is_to_stop(expression, looks((*node).near))
        {
            return stop(node);
        }
        code
    }
}

/// Stop the search at `node`.
///
/// # Safety
/// The node is SQLite's.
unsafe fn stop(node: *mut Node) -> c_int {
    // SAFETY: the caller's promise. The callers go on for as long as there is no match, and look at the code then.
    unsafe { (*node).is_no_match = 0 };
    ffi::SQLITE_INTERRUPT
}

/// A word that begins as one searched for does, in one row.
#[unsafe(export_name = "prefixIterSetupCb")]
unsafe extern "C" fn prefix5(
    index: *mut Index,
    lists: *mut c_void,
    places: *mut Places,
    word: *const u8,
    length: c_int,
) {
    // SAFETY: SQLite passes what its own function wants: among it the index, and the places of the word. It stops
    // where the index has an error.
    unsafe {
        sqlite::debros_prefix5(index, lists, places, word, length);
        let looks = u64::try_from((*places).n_data).unwrap_or(0);
        if (*index).code == ffi::SQLITE_OK && is_to_stop_on((*(*index).config).connection, looks) {
            (*index).code = ffi::SQLITE_INTERRUPT;
        }
    }
}

/// The next row of a search of FTS3 or FTS4, or of a part of it.
#[unsafe(export_name = "fts3EvalNextRow")]
unsafe extern "C" fn row3(cursor: *mut Cursor3, expression: *mut c_void, code: *mut c_int) {
    // SAFETY: SQLite passes what its own function wants, among it a code, which stops what goes on if it is an error.
    unsafe {
        if *code != ffi::SQLITE_OK {
            return;
        }
        let table = (*cursor).base.pVtab.cast::<Table3>();
        if is_to_stop_after(STEPS_PER_ROW3) || is_interrupted((*table).connection) {
            *code = ffi::SQLITE_INTERRUPT;
            return;
        }
        sqlite::debros_row3(cursor, expression, code);
    }
}

/// Charge for so many `looks` at a row. Whether to stop there.
///
/// # Safety
/// The expression is SQLite's.
unsafe fn is_to_stop(expression: *const Expression, looks: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { is_to_stop_on((*(*expression).config).connection, looks) }
}

/// The same, on a connection.
///
/// # Safety
/// The connection is open.
unsafe fn is_to_stop_on(connection: *mut ffi::sqlite3, looks: u64) -> bool {
    #[cfg(test)]
    CHARGED.set(CHARGED.get() + 1);
    let steps = 1 + looks / LOOKS_PER_STEP;
    // SAFETY: the caller's promise.
    is_to_stop_after(steps) || unsafe { is_interrupted(connection) }
}

/// Whether somebody wants what runs on a connection to stop.
///
/// # Safety
/// The connection is open.
unsafe fn is_interrupted(connection: *mut ffi::sqlite3) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ffi::sqlite3_is_interrupted(connection) != 0 }
}

/// Charge so many `steps`. Whether that is too many, or whoever runs the statement has had enough.
fn is_to_stop_after(steps: u64) -> bool {
    // The limit first: what it decides must not depend on who else would stop here.
    charges::charge_search(steps) || is_enough_after(steps)
}

/// The same for what is in proportion to how long a value is.
pub(super) fn is_to_stop_in_text(steps: u64) -> bool {
    charges::charge_length(steps) || is_enough_after(steps)
}

/// Whether whoever runs the statement has had enough, who is asked now and then.
fn is_enough_after(steps: u64) -> bool {
    let unasked = UNASKED.get().saturating_add(steps);
    let is_due = unasked >= charges::STEPS_PER_TICK;
    UNASKED.set(if is_due { 0 } else { unasked });
    is_due && statement::is_enough_to_run()
}

/// Positions that were looked at to find out whether phrases are near each other.
///
/// # Safety
/// `near` is SQLite's.
unsafe fn looks(near: *const Near) -> u64 {
    let count = |it: c_int| u64::try_from(it).unwrap_or(0);
    let length = |it: c_int| usize::try_from(it).unwrap_or(0);
    // SAFETY: the caller's promise: behind the description stand as many phrases, and terms, as it says. Places that
    // are not looked at yet are none.
    unsafe {
        if near.is_null() {
            return 0;
        }
        let phrases = (&raw const (*near).phrases).cast::<*const Phrase>();
        let phrases = slice::from_raw_parts(phrases, length((*near).n_phrases));
        let (mut of_phrases, mut of_first) = (0_u64, 0_u64);
        for phrase in phrases {
            let terms = (&raw const (**phrase).terms).cast::<Term>();
            let terms = slice::from_raw_parts(terms, length((**phrase).n_terms));
            let of_term = |it: &Term| it.places.as_ref().map_or(0, |it| count(it.n_data));
            of_phrases = of_phrases.saturating_add(terms.iter().map(of_term).sum());
            of_first = of_first.saturating_add(terms.first().map_or(0, of_term));
        }
        let n_phrases = count((*near).n_phrases);
        let of_near = match n_phrases {
            ..=1 => 0,
            _ => of_first.saturating_mul(n_phrases).saturating_mul(LOOKS_OF_NEAR),
        };
        of_phrases.saturating_add(of_near)
    }
}
