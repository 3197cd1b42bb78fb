//! The words of what is searched for, which are bounded, and of what is indexed, which are charged.

use std::cell::Cell;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;

use rusqlite::ffi;

use crate::limits;
use crate::sql::fulltext::rows;
use crate::sql::fulltext::sqlite;
use crate::sql::fulltext::sqlite::Next3;
use crate::sql::fulltext::sqlite::OnWord;
use crate::sql::fulltext::sqlite::Tokenize;

/// What a word of a text takes, in VM instructions.
const STEPS_PER_WORD: u64 = 4;

thread_local! {
    /// Words of the search that begins, so far.
    static WORDS: Cell<usize> = const { Cell::new(0) };
}

/// A search begins, of which no word is known yet.
pub(super) fn begin_search() {
    WORDS.set(0);
}

/// Whether the search that began last has more words than it may.
pub(super) fn are_too_many() -> bool {
    WORDS.get() > limits::MATCH_WORDS_MAX
}

/// Who is told of each word, while it is counted.
struct Counter {
    data: *mut c_void,
    on_word: OnWord,
}

/// Run `tokenize`; what is searched for may have so many words and no more, and those of a text are charged.
///
/// # Safety
/// As SQLite calls a tokenizer.
unsafe fn count_words(
    tokenize: Tokenize,
    tokenizer: *mut c_void,
    data: *mut c_void,
    flags: c_int,
    text: *const c_char,
    length: c_int,
    on_word: OnWord,
) -> c_int {
    // SAFETY: the caller's promise; the counter lives until the tokenizer is done.
    unsafe {
        let on_each = if flags & ffi::FTS5_TOKENIZE_QUERY == 0 { charge_word } else { count_word };
        let mut counter = Counter { data, on_word };
        tokenize(tokenizer, (&raw mut counter).cast(), flags, text, length, on_each)
    }
}

unsafe extern "C" fn count_word(
    data: *mut c_void,
    flags: c_int,
    word: *const c_char,
    length: c_int,
    from: c_int,
    to: c_int,
) -> c_int {
    let n_words = WORDS.get() + 1;
    WORDS.set(n_words);
    if n_words > limits::MATCH_WORDS_MAX {
        return ffi::SQLITE_ERROR;
    }
    // SAFETY: it is the counter that `count_words` passed on.
    unsafe {
        let counter = &*data.cast::<Counter>();
        (counter.on_word)(counter.data, flags, word, length, from, to)
    }
}

unsafe extern "C" fn charge_word(
    data: *mut c_void,
    flags: c_int,
    word: *const c_char,
    length: c_int,
    from: c_int,
    to: c_int,
) -> c_int {
    if rows::is_to_stop_in_text(STEPS_PER_WORD) {
        return ffi::SQLITE_INTERRUPT;
    }
    // SAFETY: it is the counter that `count_words` passed on.
    unsafe {
        let counter = &*data.cast::<Counter>();
        (counter.on_word)(counter.data, flags, word, length, from, to)
    }
}

#[unsafe(export_name = "fts5UnicodeTokenize")]
unsafe extern "C" fn tokens_unicode(
    tokenizer: *mut c_void,
    data: *mut c_void,
    flags: c_int,
    text: *const c_char,
    length: c_int,
    on_word: OnWord,
) -> c_int {
    // SAFETY: SQLite passes what its tokenizer wants.
    unsafe {
        count_words(sqlite::debros_tokens_unicode, tokenizer, data, flags, text, length, on_word)
    }
}

#[unsafe(export_name = "fts5AsciiTokenize")]
unsafe extern "C" fn tokens_ascii(
    tokenizer: *mut c_void,
    data: *mut c_void,
    flags: c_int,
    text: *const c_char,
    length: c_int,
    on_word: OnWord,
) -> c_int {
    // SAFETY: SQLite passes what its tokenizer wants.
    unsafe {
        count_words(sqlite::debros_tokens_ascii, tokenizer, data, flags, text, length, on_word)
    }
}

#[unsafe(export_name = "fts5TriTokenize")]
unsafe extern "C" fn tokens_trigram(
    tokenizer: *mut c_void,
    data: *mut c_void,
    flags: c_int,
    text: *const c_char,
    length: c_int,
    on_word: OnWord,
) -> c_int {
    // SAFETY: SQLite passes what its tokenizer wants.
    unsafe {
        count_words(sqlite::debros_tokens_trigram, tokenizer, data, flags, text, length, on_word)
    }
}

/// The next word for FTS3 and FTS4, charged.
///
/// # Safety
/// As SQLite calls a tokenizer.
unsafe fn next(
    next: Next3,
    cursor: *mut c_void,
    word: *mut *const c_char,
    length: *mut c_int,
    from: *mut c_int,
    to: *mut c_int,
    at: *mut c_int,
) -> c_int {
    if rows::is_to_stop_in_text(STEPS_PER_WORD) {
        return ffi::SQLITE_INTERRUPT;
    }
    // SAFETY: the caller's promise.
    unsafe { next(cursor, word, length, from, to, at) }
}

#[unsafe(export_name = "simpleNext")]
unsafe extern "C" fn simple3(
    cursor: *mut c_void,
    word: *mut *const c_char,
    length: *mut c_int,
    from: *mut c_int,
    to: *mut c_int,
    at: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes what its tokenizer wants.
    unsafe { next(sqlite::debros_simple3, cursor, word, length, from, to, at) }
}

#[unsafe(export_name = "porterNext")]
unsafe extern "C" fn porter3(
    cursor: *mut c_void,
    word: *mut *const c_char,
    length: *mut c_int,
    from: *mut c_int,
    to: *mut c_int,
    at: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes what its tokenizer wants.
    unsafe { next(sqlite::debros_porter3, cursor, word, length, from, to, at) }
}

#[unsafe(export_name = "unicodeNext")]
unsafe extern "C" fn word3(
    cursor: *mut c_void,
    word: *mut *const c_char,
    length: *mut c_int,
    from: *mut c_int,
    to: *mut c_int,
    at: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes what its tokenizer wants.
    unsafe { next(sqlite::debros_word3, cursor, word, length, from, to, at) }
}
