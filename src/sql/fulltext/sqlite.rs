//! SQLite's own full-text search, as far as it is called or looked at here.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;

use rusqlite::ffi;

pub(super) type Function = unsafe extern "C" fn(
    *const ffi::Fts5ExtensionApi,
    *mut ffi::Fts5Context,
    *mut ffi::sqlite3_context,
    c_int,
    *mut *mut ffi::sqlite3_value,
);

pub(super) type OnWord =
    unsafe extern "C" fn(*mut c_void, c_int, *const c_char, c_int, c_int, c_int) -> c_int;

pub(super) type Tokenize =
    unsafe extern "C" fn(*mut c_void, *mut c_void, c_int, *const c_char, c_int, OnWord) -> c_int;

/// A part of an expression, as SQLite has it, as far as that matters here.
#[repr(C)]
pub(super) struct Node {
    kind: c_int,
    pub(super) is_end: c_int,
    is_no_match: c_int,
    height: c_int,
    next: *const c_void,
    rowid: i64,
    pub(super) near: *const Near,
}

/// Phrases that are to be near each other; or one phrase.
#[repr(C)]
pub(super) struct Near {
    distance: c_int,
    columns: *const c_void,
    pub(super) n_phrases: c_int,
    pub(super) phrases: [*const Phrase; 0],
}

/// Terms that follow each other.
#[repr(C)]
pub(super) struct Phrase {
    node: *const Node,
    positions: *const u8,
    n_positions: c_int,
    n_space: c_int,
    pub(super) n_terms: c_int,
    pub(super) terms: [Term; 0],
}

#[repr(C)]
pub(super) struct Term {
    is_prefix: u8,
    is_first: u8,
    text: *const c_char,
    n_query: c_int,
    n_full: c_int,
    pub(super) places: *const Places,
    synonym: *const Self,
}

/// Where a term is in the row at hand.
#[repr(C)]
pub(super) struct Places {
    rowid: i64,
    data: *const u8,
    pub(super) n_data: c_int,
    is_end: u8,
}

// SQLite's own, under the names that they are given where it is built.
unsafe extern "C" {
    pub(super) fn debros_filter3(
        cursor: *mut ffi::sqlite3_vtab_cursor,
        plan: c_int,
        text: *const c_char,
        n: c_int,
        values: *mut *mut ffi::sqlite3_value,
    ) -> c_int;
    pub(super) fn debros_filter5(
        cursor: *mut ffi::sqlite3_vtab_cursor,
        plan: c_int,
        text: *const c_char,
        n: c_int,
        values: *mut *mut ffi::sqlite3_value,
    ) -> c_int;
    pub(super) fn debros_next5(
        expression: *mut c_void,
        node: *mut Node,
        has_from: c_int,
        from: i64,
    ) -> c_int;
    pub(super) fn debros_unicode3(
        n: c_int,
        arguments: *const *const c_char,
        made: *mut *mut c_void,
    ) -> c_int;
    pub(super) fn debros_unicode5(
        data: *mut c_void,
        arguments: *mut *const c_char,
        n: c_int,
        made: *mut *mut c_void,
    ) -> c_int;
    pub(super) fn debros_tokens_unicode(
        tokenizer: *mut c_void,
        data: *mut c_void,
        flags: c_int,
        text: *const c_char,
        length: c_int,
        on_word: OnWord,
    ) -> c_int;
    pub(super) fn debros_tokens_ascii(
        tokenizer: *mut c_void,
        data: *mut c_void,
        flags: c_int,
        text: *const c_char,
        length: c_int,
        on_word: OnWord,
    ) -> c_int;
    pub(super) fn debros_tokens_trigram(
        tokenizer: *mut c_void,
        data: *mut c_void,
        flags: c_int,
        text: *const c_char,
        length: c_int,
        on_word: OnWord,
    ) -> c_int;
    pub(super) fn debros_highlight(
        api: *const ffi::Fts5ExtensionApi,
        row: *mut ffi::Fts5Context,
        call: *mut ffi::sqlite3_context,
        n: c_int,
        values: *mut *mut ffi::sqlite3_value,
    );
    pub(super) fn debros_snippet(
        api: *const ffi::Fts5ExtensionApi,
        row: *mut ffi::Fts5Context,
        call: *mut ffi::sqlite3_context,
        n: c_int,
        values: *mut *mut ffi::sqlite3_value,
    );
    pub(super) fn debros_bm25(
        api: *const ffi::Fts5ExtensionApi,
        row: *mut ffi::Fts5Context,
        call: *mut ffi::sqlite3_context,
        n: c_int,
        values: *mut *mut ffi::sqlite3_value,
    );
}
