//! Full-text search in front of SQLite's own: what is searched for is bounded, and what takes more than its time is
//! charged for (R12).
//!
//! SQLite looks for a match in one instruction, in which no progress handler is called. Most of it takes time in
//! proportion to what it reads. Some does not:
//! - `NEAR` looks at the places of each phrase once for each phrase, and a phrase once for each word; so what is
//!   searched for has bounds ([`limits::MATCH_SIZE_MAX`] and its neighbours), which people do not come near, and
//!   each row that is looked at is charged, the first as well, which SQLite finds before the search has begun;
//! - a prefix is looked for in all of its words before the first row is: each is charged;
//! - `snippet()` looks at each match once for each match, and `highlight()` copies the text for each match:
//!   charged before they run, and refused if one of them alone would take long;
//! - the words of a text that is indexed, or checked, are charged, each ([`words`]);
//! - a tokenizer takes the square of the characters that are to be its exceptions: they have a bound.
//!
//! Whoever runs the statement is asked meanwhile whether it has had enough, as between two instructions.
//!
//! What is read of an index, and what statements do that are run within a search, is charged by [`super::nested`].
//! Not charged for: rows that have one word of a phrase and not another. They take time in proportion to what is read,
//! and no more.
//!
//! SQLite is built so that it calls the functions here, which call its own (`.cargo/config.toml`).

#![expect(
    unsafe_code,
    reason = "SQLite's own functions are called, and some of what they find is looked at"
)]

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::slice;

use rusqlite::ffi;

use crate::limits;
use crate::sql::charges;
use crate::sql::fulltext::pieces::Grammar;
use crate::sql::fulltext::pieces::Pieces;
use crate::sql::fulltext::pieces::TOO_MANY_WORDS;
use crate::sql::fulltext::pieces::refused;

mod functions;
mod pieces;
mod rows;
mod shadows;
mod sqlite;
mod stored;
mod words;
#[cfg(test)]
mod tests;

pub(super) use pieces::REFUSED;
pub(super) use shadows::check as check_hanging;
pub(super) use shadows::hanging;

/// Positions looked at that take about as long as one instruction.
const LOOKS_PER_STEP: u64 = 16;
/// What finding a phrase takes, beside its matches, in VM instructions.
const STEPS_PER_PHRASE: u64 = 32;

/// The natural logarithm, for `bm25()`: that of the C library need not be the same on two machines (R20).
#[unsafe(export_name = "debros_log")]
extern "C" fn log(x: f64) -> f64 {
    libm::log(x)
}

/// Charge for a search for what `value` says, in the grammar of its table. The code of SQLite with which it is refused, and its message.
///
/// # Safety
/// `value` is valid.
unsafe fn check_search(
    value: *mut ffi::sqlite3_value,
    grammar: Grammar,
) -> Result<(), (c_int, String)> {
    // SAFETY: the caller's promise; the length is that of the text, asked for after it.
    let pieces = unsafe {
        if !matches!(ffi::sqlite3_value_type(value), ffi::SQLITE_TEXT | ffi::SQLITE_BLOB) {
            return Ok(());
        }
        let text = ffi::sqlite3_value_text(value);
        if text.is_null() {
            return Ok(());
        }
        let length = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
        Pieces::of(slice::from_raw_parts(text, length), grammar)
    };
    if let Some(refused) = pieces.refused() {
        return Err((ffi::SQLITE_ERROR, refused));
    }
    let phrases = u64::try_from(pieces.phrases).unwrap_or(u64::MAX);
    if charges::charge_search(phrases.saturating_mul(STEPS_PER_PHRASE)) {
        return Err((ffi::SQLITE_INTERRUPT, String::new()));
    }
    Ok(())
}

/// Leave `message` where SQLite looks for one.
///
/// # Safety
/// `cursor` is valid.
unsafe fn tell(cursor: *mut ffi::sqlite3_vtab_cursor, message: &str) {
    let Ok(length) = c_int::try_from(message.len()) else { return };
    // SAFETY: the caller's promise. SQLite frees the message, which is its own copy.
    unsafe {
        let table = &mut *(*cursor).pVtab;
        ffi::sqlite3_free(table.zErrMsg.cast());
        table.zErrMsg = ffi::sqlite3_mprintf(c"%.*s".as_ptr(), length, message.as_ptr());
    }
}

#[unsafe(export_name = "fts5FilterMethod")]
unsafe extern "C" fn filter5(
    cursor: *mut ffi::sqlite3_vtab_cursor,
    plan: c_int,
    text: *const c_char,
    n: c_int,
    values: *mut *mut ffi::sqlite3_value,
) -> c_int {
    // SAFETY: SQLite passes a valid cursor, `n` valid values, and a text that has, for each of them, a letter
    // and some digits.
    unsafe {
        if n > 0 {
            let values = slice::from_raw_parts(values, usize::try_from(n).unwrap_or(0));
            let kinds = CStr::from_ptr(text).to_bytes().iter().filter(|it| !it.is_ascii_digit());
            for (kind, value) in kinds.zip(values) {
                let grammar = match kind {
                    b'M' => Grammar::Fts5,
                    b'L' | b'G' => Grammar::Pattern,
                    _ => continue,
                };
                if let Err((code, message)) = check_search(*value, grammar) {
                    tell(cursor, &message);
                    return code;
                }
            }
        }
        words::begin_search();
        let code = rows::find_first(|| sqlite::debros_filter5(cursor, plan, text, n, values));
        if code == ffi::SQLITE_OK && rows::charge_first(cursor.cast()) {
            return ffi::SQLITE_INTERRUPT;
        }
        if code != ffi::SQLITE_OK && words::are_too_many() {
            tell(cursor, &refused(TOO_MANY_WORDS, limits::MATCH_WORDS_MAX));
        }
        code
    }
}

#[unsafe(export_name = "fts3FilterMethod")]
unsafe extern "C" fn filter3(
    cursor: *mut ffi::sqlite3_vtab_cursor,
    plan: c_int,
    text: *const c_char,
    n: c_int,
    values: *mut *mut ffi::sqlite3_value,
) -> c_int {
    /// Plans from here on have what is searched for as their first value.
    const FULL_TEXT: c_int = 2;
    // SAFETY: SQLite passes a valid cursor and `n` valid values.
    unsafe {
        if n > 0
            && plan & 0xffff >= FULL_TEXT
            && let Err((code, message)) = check_search(*values, Grammar::Fts3)
        {
            tell(cursor, &message);
            return code;
        }
        sqlite::debros_filter3(cursor, plan, text, n, values)
    }
}

#[unsafe(export_name = "unicodeCreate")]
unsafe extern "C" fn unicode3(
    n: c_int,
    arguments: *const *const c_char,
    made: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes `n` texts, and a place.
    unsafe {
        if is_too_long(n, arguments) {
            return ffi::SQLITE_ERROR;
        }
        sqlite::debros_unicode3(n, arguments, made)
    }
}

#[unsafe(export_name = "fts5UnicodeCreate")]
unsafe extern "C" fn unicode5(
    data: *mut c_void,
    arguments: *mut *const c_char,
    n: c_int,
    made: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes `n` texts, and a place.
    unsafe {
        if is_too_long(n, arguments) {
            return ffi::SQLITE_ERROR;
        }
        sqlite::debros_unicode5(data, arguments, n, made)
    }
}

/// Whether a tokenizer has more arguments than it may.
///
/// # Safety
/// There are `n` texts at `arguments`.
unsafe fn is_too_long(n: c_int, arguments: *const *const c_char) -> bool {
    let n = usize::try_from(n).unwrap_or(0);
    // SAFETY: the caller's promise.
    let bytes = (0..n).map(|at| unsafe { CStr::from_ptr(*arguments.add(at)).count_bytes() });
    bytes.sum::<usize>() > limits::TOKENIZER_SIZE_MAX
}
