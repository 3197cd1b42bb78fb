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

type Filter = unsafe extern "C" fn(
    *mut ffi::sqlite3_vtab_cursor,
    c_int,
    *const c_char,
    c_int,
    *mut *mut ffi::sqlite3_value,
) -> c_int;

type Next = unsafe extern "C" fn(*mut Expression, *mut Node, c_int, i64) -> c_int;

type Prefix = unsafe extern "C" fn(*mut Index, *mut c_void, *mut Places, *const u8, c_int);

pub(super) type Write5 = unsafe extern "C" fn(*mut Index, i64, *const u8, c_int);

pub(super) type Write3 = unsafe extern "C" fn(*mut Table3, i64, *mut c_char, c_int) -> c_int;

type Root3 =
    unsafe extern "C" fn(*mut Table3, i64, c_int, i64, i64, i64, i64, *mut c_char, c_int) -> c_int;

type Truncate3 = unsafe extern "C" fn(*mut Table3, i64, c_int, *const c_char, c_int) -> c_int;

type Load3 =
    unsafe extern "C" fn(*mut Table3, i64, c_int, *const c_char, c_int, *mut c_void) -> c_int;

type Segments3 = unsafe extern "C" fn(
    *mut Table3,
    c_int,
    c_int,
    c_int,
    *const c_char,
    c_int,
    c_int,
    c_int,
    *mut c_void,
) -> c_int;

type Create3 = unsafe extern "C" fn(c_int, *const *const c_char, *mut *mut c_void) -> c_int;

type Create5 =
    unsafe extern "C" fn(*mut c_void, *mut *const c_char, c_int, *mut *mut c_void) -> c_int;

type Merge3 = unsafe extern "C" fn(*mut Table3, i64, c_int, *mut c_void) -> c_int;

pub(super) type Next3 = unsafe extern "C" fn(
    *mut c_void,
    *mut *const c_char,
    *mut c_int,
    *mut c_int,
    *mut c_int,
    *mut c_int,
) -> c_int;

type Row3 = unsafe extern "C" fn(*mut Cursor3, *mut c_void, *mut c_int);

type Repack3 = unsafe extern "C" fn(*mut Table3, i64) -> c_int;

type Promote3 = unsafe extern "C" fn(*mut Table3, i64, i64) -> c_int;

/// All that an SQLite has that is built as it must be. Nothing else keeps a linker from leaving out what is called
/// here, if SQLite itself calls its own: then nothing would be bounded, and nobody be told.
#[expect(clippy::type_complexity, reason = "nobody reads it")]
#[used]
static BUILT_AS_IT_MUST_BE: (
    [Filter; 2],
    [Next; 2],
    Prefix,
    (Write5, Write3, Root3, Truncate3, Load3, Segments3),
    (Merge3, Repack3, Promote3),
    Create3,
    Create5,
    [Tokenize; 3],
    [Next3; 3],
    Row3,
    [Function; 3],
) = (
    [debros_filter3, debros_filter5],
    [debros_next5, debros_term5],
    debros_prefix5,
    (debros_write5, debros_write3, debros_root3, debros_truncate3, debros_load3, debros_segments3),
    (debros_merge3, debros_repack3, debros_promote3),
    debros_unicode3,
    debros_unicode5,
    [debros_tokens_unicode, debros_tokens_ascii, debros_tokens_trigram],
    [debros_simple3, debros_porter3, debros_word3],
    debros_row3,
    [debros_highlight, debros_snippet, debros_bm25],
);

/// What is known of a table, as SQLite has it, as far as that matters here.
#[repr(C)]
pub(super) struct Config {
    pub(super) connection: *mut ffi::sqlite3,
}

/// A table of FTS3 or FTS4.
#[repr(C)]
pub(super) struct Table3 {
    base: ffi::sqlite3_vtab,
    pub(super) connection: *mut ffi::sqlite3,
}

impl Table3 {
    /// Whether SQLite knows it as a table that was made or opened, so that the tables are there that belong to it, and
    /// nothing else goes by their names. The one of `fts4aux` is nothing but a name.
    pub(super) fn is_table(&self) -> bool {
        !self.base.pModule.is_null()
    }
}

/// A search in one.
#[repr(C)]
pub(super) struct Cursor3 {
    pub(super) base: ffi::sqlite3_vtab_cursor,
}

/// The index of a table.
#[repr(C)]
pub(super) struct Index {
    pub(super) config: *const Config,
    table: *const c_char,
    n_work_unit: c_int,
    hash: *const c_void,
    n_pending: c_int,
    rowid: i64,
    is_delete: c_int,
    n_contentless_deletes: c_int,
    n_pending_rows: c_int,
    /// What went wrong, if something did.
    pub(super) code: c_int,
}

/// One search.
#[repr(C)]
pub(super) struct Cursor {
    base: ffi::sqlite3_vtab_cursor,
    next: *const c_void,
    column_sizes: *const c_int,
    id: i64,
    plan: c_int,
    is_descending: c_int,
    rowid_first: i64,
    rowid_last: i64,
    statement: *const c_void,
    pub(super) expression: *const Expression,
}

/// What is searched for.
#[repr(C)]
pub(super) struct Expression {
    index: *const Index,
    pub(super) config: *const Config,
    root: *const Node,
    is_descending: c_int,
    pub(super) n_phrases: c_int,
    pub(super) phrases: *const *const Phrase,
}

/// A part of an expression, as SQLite has it, as far as that matters here.
#[repr(C)]
pub(super) struct Node {
    kind: c_int,
    pub(super) is_end: c_int,
    /// A row was found that does not match: the caller goes on to the next, whatever is returned.
    pub(super) is_no_match: c_int,
    height: c_int,
    next: *const c_void,
    pub(super) rowid: i64,
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
    pub(super) node: *const Node,
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
        expression: *mut Expression,
        node: *mut Node,
        has_from: c_int,
        from: i64,
    ) -> c_int;
    pub(super) fn debros_term5(
        expression: *mut Expression,
        node: *mut Node,
        has_from: c_int,
        from: i64,
    ) -> c_int;
    pub(super) fn debros_prefix5(
        index: *mut Index,
        lists: *mut c_void,
        places: *mut Places,
        word: *const u8,
        length: c_int,
    );
    pub(super) fn debros_write5(index: *mut Index, id: i64, bytes: *const u8, n: c_int);
    pub(super) fn debros_write3(table: *mut Table3, id: i64, bytes: *mut c_char, n: c_int)
    -> c_int;
    pub(super) fn debros_root3(
        table: *mut Table3,
        level: i64,
        segment: c_int,
        first: i64,
        last_leaf: i64,
        last: i64,
        leaf_bytes: i64,
        bytes: *mut c_char,
        n: c_int,
    ) -> c_int;
    pub(super) fn debros_truncate3(
        table: *mut Table3,
        level: i64,
        segment: c_int,
        word: *const c_char,
        length: c_int,
    ) -> c_int;
    pub(super) fn debros_load3(
        table: *mut Table3,
        level: i64,
        segment: c_int,
        word: *const c_char,
        length: c_int,
        writer: *mut c_void,
    ) -> c_int;
    pub(super) fn debros_segments3(
        table: *mut Table3,
        language: c_int,
        index: c_int,
        level: c_int,
        word: *const c_char,
        length: c_int,
        is_prefix: c_int,
        is_scan: c_int,
        reader: *mut c_void,
    ) -> c_int;
    pub(super) fn debros_merge3(
        table: *mut Table3,
        level: i64,
        segments: c_int,
        reader: *mut c_void,
    ) -> c_int;
    pub(super) fn debros_repack3(table: *mut Table3, level: i64) -> c_int;
    pub(super) fn debros_promote3(table: *mut Table3, level: i64, bytes: i64) -> c_int;
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
    pub(super) fn debros_simple3(
        cursor: *mut c_void,
        word: *mut *const c_char,
        length: *mut c_int,
        from: *mut c_int,
        to: *mut c_int,
        at: *mut c_int,
    ) -> c_int;
    pub(super) fn debros_porter3(
        cursor: *mut c_void,
        word: *mut *const c_char,
        length: *mut c_int,
        from: *mut c_int,
        to: *mut c_int,
        at: *mut c_int,
    ) -> c_int;
    pub(super) fn debros_word3(
        cursor: *mut c_void,
        word: *mut *const c_char,
        length: *mut c_int,
        from: *mut c_int,
        to: *mut c_int,
        at: *mut c_int,
    ) -> c_int;
    pub(super) fn debros_row3(cursor: *mut Cursor3, expression: *mut c_void, code: *mut c_int);
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
