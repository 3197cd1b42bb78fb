//! The functions of a row that was found: charged before they run, and refused if one call alone would take long.

use std::ffi::c_int;
use std::slice;

use rusqlite::ffi;

use crate::sql::charges;
use crate::sql::fulltext::LOOKS_PER_STEP;
use crate::sql::fulltext::REFUSED;
use crate::sql::fulltext::sqlite;
use crate::sql::fulltext::sqlite::Function;

/// Matches looked at by `snippet()` that take about as long as one instruction.
const SNIPPET_LOOKS_PER_STEP: u64 = 4;
/// Bytes copied that take about as long as one instruction.
const COPIED_PER_STEP: u64 = 512;
/// Phrases from which on their places are counted before they are listed, which takes each time as many looks.
const PHRASES_COUNTED_MIN: u64 = 4;
/// What one call of `snippet()` or `highlight()` may take, in VM instructions: about a second, in which nothing
/// stops it.
const CALL_STEPS_MAX: u64 = 20_000_000;
/// Copies of what there is so far that a match takes, at most.
const COPIES_PER_MATCH: u64 = 3;
/// Words of a snippet, at most.
const SNIPPET_WORDS_MAX: u64 = 64;

#[unsafe(export_name = "fts5SnippetFunction")]
unsafe extern "C" fn snippet(
    api: *const ffi::Fts5ExtensionApi,
    row: *mut ffi::Fts5Context,
    call: *mut ffi::sqlite3_context,
    n: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite calls it for a row, with `n` valid values.
    unsafe {
        run_charged(sqlite::debros_snippet, api, row, call, n, values, |row| {
            // Each match is looked at for the snippet that begins with it, and for that of its sentence.
            let looks = row.matches.saturating_mul(row.matches).saturating_mul(2);
            let copies = row.matches.min(SNIPPET_WORDS_MAX).saturating_mul(COPIES_PER_MATCH);
            let bytes = copies.saturating_mul(copies).saturating_mul(row.mark_bytes());
            (looks / SNIPPET_LOOKS_PER_STEP).saturating_add(bytes / COPIED_PER_STEP)
        });
    }
}

#[unsafe(export_name = "fts5HighlightFunction")]
unsafe extern "C" fn highlight(
    api: *const ffi::Fts5ExtensionApi,
    row: *mut ffi::Fts5Context,
    call: *mut ffi::sqlite3_context,
    n: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite calls it for a row, with `n` valid values.
    unsafe {
        run_charged(sqlite::debros_highlight, api, row, call, n, values, |row| {
            let marks = row.matches.saturating_mul(row.mark_bytes());
            // What there is so far, each time: half of all of it.
            let copied = row.text_bytes().saturating_add(marks) / 2;
            copied.saturating_mul(row.matches * COPIES_PER_MATCH) / COPIED_PER_STEP
        });
    }
}

#[unsafe(export_name = "fts5Bm25Function")]
unsafe extern "C" fn bm25(
    api: *const ffi::Fts5ExtensionApi,
    row: *mut ffi::Fts5Context,
    call: *mut ffi::sqlite3_context,
    n: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite calls it for a row, with `n` valid values.
    unsafe {
        run_charged(sqlite::debros_bm25, api, row, call, n, values, |row| {
            row.matches / LOOKS_PER_STEP
        });
    }
}

/// A row that was found, with what a function of it is asked.
struct Found<'a> {
    api: &'a ffi::Fts5ExtensionApi,
    row: *mut ffi::Fts5Context,
    values: &'a [*mut ffi::sqlite3_value],
    /// Places of all phrases.
    matches: u64,
}

impl Found<'_> {
    /// Bytes of the marks that the function puts around a match.
    fn mark_bytes(&self) -> u64 {
        let bytes = |at: usize| {
            // SAFETY: the value is valid; the length is that of its text, asked for after it.
            self.values.get(at).map_or(0, |it| unsafe {
                ffi::sqlite3_value_text(*it);
                u64::try_from(ffi::sqlite3_value_bytes(*it)).unwrap_or(0)
            })
        };
        bytes(1).saturating_add(bytes(2))
    }

    /// Bytes of the column that the function is asked for.
    fn text_bytes(&self) -> u64 {
        let (Some(column), Some(text)) = (self.values.first(), self.api.xColumnText) else {
            return 0;
        };
        let (mut found, mut length) = (std::ptr::null(), 0);
        // SAFETY: the row is at hand, the value is valid, and both places are. A column that is not there
        // gives an error, and no text.
        unsafe {
            let column = ffi::sqlite3_value_int(*column);
            text(self.row, column, &raw mut found, &raw mut length);
        }
        u64::try_from(length).unwrap_or(0)
    }
}

/// Places of all phrases in the row at hand, counted without listing them.
///
/// # Safety
/// `row` is one that was found for so many `phrases`.
unsafe fn count_places(
    api: &ffi::Fts5ExtensionApi,
    row: *mut ffi::Fts5Context,
    phrases: u64,
) -> u64 {
    let (Some(first), Some(next)) = (api.xPhraseFirst, api.xPhraseNext) else { return 0 };
    let mut n = 0;
    for phrase in 0..c_int::try_from(phrases).unwrap_or(0) {
        let mut place = ffi::Fts5PhraseIter { a: std::ptr::null(), b: std::ptr::null() };
        let (mut column, mut offset) = (-1, 0);
        // SAFETY: the caller's promise. Behind the last place, the column is negative.
        unsafe {
            if first(row, phrase, &raw mut place, &raw mut column, &raw mut offset)
                != ffi::SQLITE_OK
            {
                continue;
            }
            while column >= 0 {
                n += 1;
                next(row, &raw mut place, &raw mut column, &raw mut offset);
            }
        }
    }
    n
}

/// Run `function`, for which is charged what `steps` says, and how long it takes to find the matches.
///
/// # Safety
/// As SQLite calls such a function.
unsafe fn run_charged(
    function: Function,
    api: *const ffi::Fts5ExtensionApi,
    row: *mut ffi::Fts5Context,
    call: *mut ffi::sqlite3_context,
    n: c_int,
    values: *mut *mut ffi::sqlite3_value,
    steps: impl FnOnce(&Found<'_>) -> u64,
) {
    // SAFETY: the caller's promise. The functions of SQLite are there in every version of it.
    unsafe {
        let api_of_row = &*api;
        let n_values = usize::try_from(n).unwrap_or(0);
        let arguments = if n_values > 0 { slice::from_raw_parts(values, n_values) } else { &[] };
        let (mut n_matches, mut phrases) = (0, 0);
        if let Some(count) = api_of_row.xPhraseCount {
            phrases = u64::try_from(count(row)).unwrap_or(0);
        }
        // To list the matches, each is looked for among those that all phrases have left.
        let listing = match phrases {
            ..PHRASES_COUNTED_MIN => 0,
            _ => count_places(api_of_row, row, phrases).saturating_mul(phrases) / LOOKS_PER_STEP,
        };
        if listing <= CALL_STEPS_MAX
            && let Some(count) = api_of_row.xInstCount
        {
            count(row, &raw mut n_matches);
        }
        let matches = u64::try_from(n_matches).unwrap_or(0);
        let found = Found { api: api_of_row, row, values: arguments, matches };
        let steps = steps(&found).saturating_add(listing);
        if steps > CALL_STEPS_MAX {
            let message = format!("{REFUSED} finds too much in one row for such a function");
            let length = c_int::try_from(message.len()).unwrap_or(0);
            ffi::sqlite3_result_error(call, message.as_ptr().cast(), length);
        } else if charges::charge_function(steps) {
            ffi::sqlite3_result_error_code(call, ffi::SQLITE_INTERRUPT);
        } else {
            function(api, row, call, n, values);
        }
    }
}
