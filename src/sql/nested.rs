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
use rustc_hash::FxHashMap;

use crate::sql::charges;
use crate::sql::statement::Handle;

/// How the texts of statements begin, or end, that are not counted: they are run more or less often, and ask whether
/// settings or the data have changed; or they change rows, and are charged for each.
const UNCOUNTED: [&[u8]; 5] =
    [b"SELECT k, v FROM ", b"SELECT value FROM ", b"INSERT ", b"REPLACE ", b"DELETE "];
const UNCOUNTED_ENDS: [&[u8]; 2] = [b".data_version", b".page_size"];

/// What reading a piece of an index takes, beside its bytes, in VM instructions; and bytes of it that take one.
const STEPS_PER_PIECE: u64 = 8;
const BYTES_PER_STEP: u64 = 32;
/// The pieces in which FTS5 keeps what it knows of the others: read more or less often. (Two nodes of an R-tree bear the same
/// numbers.)
const KNOWN_TO_FTS5: [i64; 2] = [1, 10];

/// What a statement does that is prepared and finds that the schema has changed: SQLite prepares it anew then, and it
/// begins again, of which nothing is told.
const STEPS_IN_VAIN: u32 = 2;

/// A statement of a virtual table's.
#[derive(Default)]
struct Nested {
    is_counted: bool,
    /// It has begun and not ended.
    is_running: bool,
    /// Its instructions that were charged for, and those of its runs before. They are counted from when it was first
    /// prepared on, and begin anew at 2^32.
    counted: u32,
    /// Those of this run, or, if it has ended, of that.
    of_run: u32,
    /// Those that were charged for, and should not have been.
    in_vain: u32,
}

thread_local! {
    static NESTED: RefCell<FxHashMap<*mut c_void, Nested>> = RefCell::default();
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
            NESTED.with_borrow_mut(FxHashMap::clear);
        }
    }
    OUTER.set(outer.cast());
    let _restore = Restore(handle);
    note_present(handle);
    let events = ffi::SQLITE_TRACE_STMT | ffi::SQLITE_TRACE_ROW | ffi::SQLITE_TRACE_PROFILE;
    trace(handle, events, Some(on_event));
    f()
}

type OnEvent = unsafe extern "C" fn(c_uint, *mut c_void, *mut c_void, *mut c_void) -> c_int;

fn trace(handle: Handle, events: c_uint, on_event: Option<OnEvent>) {
    // SAFETY: the connection is open; the function takes no argument of ours.
    unsafe { ffi::sqlite3_trace_v2(handle.raw(), events, on_event, ptr::null_mut()) };
}

/// Note how far the statements are that there are: one that SQLite prepares anew begins without a word.
fn note_present(handle: Handle) {
    NESTED.with_borrow_mut(|them| {
        // SAFETY: the connection is open, and these are its statements.
        unsafe {
            let mut raw = ffi::sqlite3_next_stmt(handle.raw(), ptr::null_mut());
            while !raw.is_null() {
                them.insert(raw.cast(), Nested::of(raw.cast()));
                raw = ffi::sqlite3_next_stmt(handle.raw(), raw);
            }
        }
    });
}

/// A statement begins, gives a row, or ends. (What else SQLite passes is a copy of its text, if there was room for one.)
unsafe extern "C" fn on_event(
    event: c_uint,
    _: *mut c_void,
    raw: *mut c_void,
    _: *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes a statement. One without a text reads a blob.
    if raw == OUTER.get() || unsafe { ffi::sqlite3_sql(raw.cast()) }.is_null() {
        return 0;
    }
    let charged = NESTED.with_borrow_mut(|them| {
        // SAFETY: as above.
        unsafe {
            // One that was prepared since then begins at nought, whether it is told of or not.
            let nested =
                them.entry(raw).or_insert_with(|| Nested { counted: 0, ..Nested::of(raw) });
            match event {
                ffi::SQLITE_TRACE_STMT => {
                    // If it runs already, a trigger of its begins.
                    if !nested.is_running {
                        *nested = Nested { is_running: true, ..Nested::of(raw) };
                    }
                    0
                }
                ffi::SQLITE_TRACE_ROW => nested.advance(steps(raw), true),
                _ => nested.advance(steps(raw), false),
            }
        }
    });
    // If that is too much, the next tick stops the statement that all this is part of.
    charges::charge_steps(charged.into());
    0
}

impl Nested {
    /// One that does not run.
    ///
    /// # Safety
    /// `raw` is a statement.
    unsafe fn of(raw: *mut c_void) -> Self {
        // SAFETY: the caller's promise; its text lives as long as it does.
        unsafe {
            let text = ffi::sqlite3_sql(raw.cast());
            let is_counted = !text.is_null() && is_counted(CStr::from_ptr(text).to_bytes());
            Self { is_counted, counted: steps(raw), ..Self::default() }
        }
    }

    /// It has done so many instructions by `now`, and runs or has ended. Those that are to be charged.
    fn advance(&mut self, now: u32, is_running: bool) -> u32 {
        let began = self.is_running;
        // Another that stands where one stood that is gone.
        let counted = if !began && now < self.counted { 0 } else { self.counted };
        let mut done = now.wrapping_sub(counted);
        if !began && self.of_run == STEPS_IN_VAIN {
            self.in_vain = STEPS_IN_VAIN;
        }
        let in_vain = self.in_vain.min(done);
        self.in_vain -= in_vain;
        done -= in_vain;
        self.of_run = if began { self.of_run.saturating_add(done) } else { done };
        (self.counted, self.is_running) = (now, is_running);
        if self.is_counted { done } else { 0 }
    }
}

fn is_counted(text: &[u8]) -> bool {
    !UNCOUNTED.iter().any(|it| text.starts_with(it))
        && !UNCOUNTED_ENDS.iter().any(|it| text.ends_with(it))
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

/// A piece of FTS5 or of an R-tree is read; the same for the next.
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
        if code == ffi::SQLITE_OK && !KNOWN_TO_FTS5.contains(&id) {
            charge_piece(*opened);
        }
        code
    }
}

#[unsafe(export_name = "debros_blob_reopen")]
unsafe extern "C" fn blob_reopen(blob: *mut ffi::sqlite3_blob, id: i64) -> c_int {
    // SAFETY: SQLite passes what it would pass to its own function.
    unsafe {
        let code = ffi::sqlite3_blob_reopen(blob, id);
        if code == ffi::SQLITE_OK && !KNOWN_TO_FTS5.contains(&id) {
            charge_piece(blob);
        }
        code
    }
}

/// A piece of FTS3 or FTS4 is read; the same for the next.
#[unsafe(export_name = "debros_blob_open3")]
unsafe extern "C" fn blob_open3(
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
            charge_piece(*opened);
        }
        code
    }
}

#[unsafe(export_name = "debros_blob_reopen3")]
unsafe extern "C" fn blob_reopen3(blob: *mut ffi::sqlite3_blob, id: i64) -> c_int {
    // SAFETY: SQLite passes what it would pass to its own function.
    unsafe {
        let code = ffi::sqlite3_blob_reopen(blob, id);
        if code == ffi::SQLITE_OK {
            charge_piece(blob);
        }
        code
    }
}

/// Charge for reading a piece; if that is too much, the next tick stops the statement.
///
/// # Safety
/// The blob is open.
unsafe fn charge_piece(blob: *mut ffi::sqlite3_blob) {
    // SAFETY: the caller's promise.
    let n_bytes = unsafe { ffi::sqlite3_blob_bytes(blob) };
    let n_bytes = u64::try_from(n_bytes).unwrap_or(0);
    charges::charge_search(STEPS_PER_PIECE);
    charges::charge_length(n_bytes / BYTES_PER_STEP);
}

#[cfg(test)]
mod tests;
