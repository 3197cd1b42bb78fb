//! `LIKE` and `GLOB` as SQLite has them, but charged for what they compare, also in the middle of a value (R12).
//!
//! SQLite's own call no progress handler: a pattern of `%` and many letters takes milliseconds for each value
//! of 32 KiB, wherever it stands: in a statement, a constraint, an index on an expression. These count the
//! characters that they look at, which follow from the pattern and the text alone, and stop where that is
//! too many.
//!
//! A function of one's own loses the mark by which SQLite knows that `LIKE 'ab%'` may use an index, and no call
//! of its interface gives it back. So each function sets it itself, in SQLite's description of it, when it
//! is called the first time, by [`register`]; what it finds there is checked, and a test looks at the plans.

#![expect(
    unsafe_code,
    reason = "values are looked at where SQLite has them, and one of its flags is set"
)]

use std::ffi::CStr;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;

use rusqlite::ffi;

use crate::sql::charges;
use crate::sql::fault::SqlError;
use crate::sql::like::search::Answer;
use crate::sql::like::search::LOOKS_PER_STEP;
use crate::sql::like::search::Search;
use crate::sql::like::search::byte;
use crate::sql::like::search::read;
use crate::sql::like::search::skip;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;

mod search;
#[cfg(test)]
mod tests;

/// SQLite's flags of a function: it may use an index; it heeds case.
const FLAG_LIKE: u32 = 0x4;
const FLAG_CASE: u32 = 0x8;

/// What has a meaning in a pattern. The first three are read by SQLite as well: they must stay what they are
/// there.
#[repr(C)]
struct Wildcards {
    /// Any number of characters.
    all: u8,
    /// One character.
    one: u8,
    /// Begins a set of characters; zero: there are none.
    set: u8,
    /// Upper and lower case are the same.
    is_folded: bool,
}

static LIKE: Wildcards = Wildcards { all: b'%', one: b'_', set: 0, is_folded: true };
static GLOB: Wildcards = Wildcards { all: b'*', one: b'?', set: b'[', is_folded: false };

/// The functions, their number of arguments, their wildcards, and a call.
const FUNCTIONS: [(&CStr, c_int, &Wildcards, &str); 3] = [
    (c"like", 2, &LIKE, "SELECT like('', '')"),
    (c"like", 3, &LIKE, "SELECT like('', '', 'x')"),
    (c"glob", 2, &GLOB, "SELECT glob('', '')"),
];

/// How SQLite describes a function, as far as that matters here.
#[repr(C)]
struct Description {
    n_arguments: i16,
    flags: u32,
    user_data: *mut c_void,
    next: *mut c_void,
    call: Option<Function>,
}

/// How SQLite describes a call, as far as that matters here.
#[repr(C)]
struct Call {
    result: *mut c_void,
    function: *mut Description,
}

type Function =
    unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Register them on a connection.
pub(super) fn register(handle: Handle) -> Result<(), SqlError> {
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_INNOCUOUS | ffi::SQLITE_DETERMINISTIC;
    for (name, n, wildcards, sql) in FUNCTIONS {
        let data: *const Wildcards = ptr::from_ref(wildcards);
        // SAFETY: the connection is open, the name is a C string, and the argument lives for ever; it is
        // only read.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                handle.raw(),
                name.as_ptr(),
                n,
                flags,
                data.cast_mut().cast(),
                Some(mark),
                None,
                None,
                None,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(handle.error(code));
        }
        let (prepared, _) = Prepared::new(handle, sql)?;
        prepared.expect("not blank").run(std::iter::empty(), |_| Ok::<_, SqlError>(()))?;
    }
    Ok(())
}

/// What a function is before its first call: marks it as one that may use an index, and becomes [`call`].
unsafe extern "C" fn mark(
    context: *mut ffi::sqlite3_context,
    n: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes the function's context, whose second word points to the description, as the program
    // that is linked with this one has them. (It comes with its source, and is of one version.) What is found
    // there is compared with what was registered before anything is changed. Nobody else uses the connection.
    // JUSTIFICATION: without the mark a search by a prefix reads the whole table: seconds instead of
    // microseconds.
    unsafe {
        let data = ffi::sqlite3_user_data(context);
        let function = &mut *(*context.cast::<Call>()).function;
        let of_sqlite = 0x3 | ffi::SQLITE_DETERMINISTIC.cast_unsigned();
        let is_expected = i32::from(function.n_arguments) == n
            && function.user_data == data
            && function.call.map(|it| it as usize) == Some(mark as *const () as usize)
            && function.flags & of_sqlite
                == (ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC).cast_unsigned();
        if !is_expected {
            ffi::sqlite3_result_error(context, c"not the SQLite this was built with".as_ptr(), -1);
            return;
        }
        let is_folded = (*data.cast::<Wildcards>()).is_folded;
        function.flags |= if is_folded { FLAG_LIKE } else { FLAG_LIKE | FLAG_CASE };
        function.call = Some(call);
    }
}

unsafe extern "C" fn call(
    context: *mut ffi::sqlite3_context,
    n: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes the function's context and `n` valid values; the wildcards are those registered.
    // What is read of a value stays in place until the call is over: each is read as text once.
    unsafe {
        let arguments = std::slice::from_raw_parts(arguments, usize::try_from(n).unwrap_or(0));
        let wildcards = &*ffi::sqlite3_user_data(context).cast::<Wildcards>();
        let connection = ffi::sqlite3_context_db_handle(context);
        let limit = ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH;
        if ffi::sqlite3_value_bytes(arguments[0]) > ffi::sqlite3_limit(connection, limit, -1) {
            let message = c"LIKE or GLOB pattern too complex";
            ffi::sqlite3_result_error(context, message.as_ptr(), -1);
            return;
        }
        let (mut all, mut one) = (u32::from(wildcards.all), u32::from(wildcards.one));
        let mut other = u32::from(wildcards.set);
        if let Some(escape) = arguments.get(2) {
            let Some(escape) = text(*escape) else { return };
            let (character, _) = read(escape, 0);
            if character == 0 || byte(escape, skip(escape, 0)) != 0 {
                let message = c"ESCAPE expression must be a single character";
                ffi::sqlite3_result_error(context, message.as_ptr(), -1);
                return;
            }
            other = character;
            // It takes the meaning of what it is.
            all = if all == character { 0 } else { all };
            one = if one == character { 0 } else { one };
        }
        let (Some(pattern), Some(text)) = (text(arguments[0]), text(arguments[1])) else { return };
        let mut search = Search {
            pattern,
            text,
            all,
            one,
            other,
            has_sets: wildcards.set != 0,
            is_folded: wildcards.is_folded,
            n_looks: 0,
            charge: |n| charges::charge_search(n) || ffi::sqlite3_is_interrupted(connection) != 0,
        };
        let answer = search.compare(0, 0);
        let is_out = charges::charge_search(u64::from(search.n_looks / LOOKS_PER_STEP));
        match answer {
            Ok(answer) if !is_out => {
                ffi::sqlite3_result_int(context, c_int::from(answer == Answer::Match));
            }
            _ => ffi::sqlite3_result_error_code(context, ffi::SQLITE_INTERRUPT),
        }
    }
}

/// A value as text, which may hold anything; none if it is NULL.
///
/// # Safety
/// `value` is valid, and is not read as anything else for as long as the text is used.
unsafe fn text<'a>(value: *mut ffi::sqlite3_value) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise. The length is that of the text, asked for after it.
    unsafe {
        let text = ffi::sqlite3_value_text(value);
        let length = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
        (!text.is_null()).then(|| std::slice::from_raw_parts(text, length))
    }
}
