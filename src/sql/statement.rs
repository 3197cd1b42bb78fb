//! Prepared statements and the connection behind them, on SQLite's C interface.
//!
//! The one place where values go in and rows come out. Nothing is copied on the way in: arguments are
//! bound as pointers into the command's bytes, and unbound before [`Prepared::run`] returns. Rows go
//! straight into the result's buffer.
#![expect(unsafe_code, reason = "SQLite's C interface, below 2 µs per statement")]
// JUSTIFICATION: rusqlite's own statements cost about 3 µs more for an insert of five columns (a cache
// keyed by a copied text, a boxed trait object per argument, a checked borrow per call), which would
// more than double the cost of applying it.

use std::cell::Cell;
use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;
use std::ptr::NonNull;

use bytes::BytesMut;
use rusqlite::Connection;
use rusqlite::ffi;

use crate::sql::charges;
use crate::sql::context;
use crate::sql::database::Ask;
use crate::sql::fault::SqlError;
use crate::sql::preparing;
use crate::wire::command::Value;
use crate::wire::rows::Column;

/// A borrowed connection: the calls that need no statement. Valid while the [`Connection`] lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle(NonNull<ffi::sqlite3>);

// SAFETY: SQLite is built thread-safe; a connection may move between threads as long as one at a time
// uses it, which its owner's `&mut` sees to.
unsafe impl Send for Handle {}

impl Handle {
    /// The handle of `connection`, which must outlive it.
    pub(super) fn new(connection: &Connection) -> Self {
        // SAFETY: the handle is used only for calls that leave the connection open.
        let raw = unsafe { connection.handle() };
        Self(NonNull::new(raw).expect("an open connection has a handle"))
    }

    /// Whether no transaction is open.
    pub(super) fn is_autocommit(self) -> bool {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_get_autocommit(self.0.as_ptr()) != 0 }
    }

    /// Rows that the last `INSERT`, `UPDATE` or `DELETE` changed.
    pub(super) fn changes(self) -> u64 {
        // SAFETY: the connection is open.
        let n = unsafe { ffi::sqlite3_changes64(self.0.as_ptr()) };
        u64::try_from(n).unwrap_or_default()
    }

    /// Rows changed since the connection was opened.
    pub(super) fn total_changes(self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_total_changes64(self.0.as_ptr()) }
    }

    /// The rowid of the last insert, as `last_insert_rowid()` answers it.
    pub(super) fn last_insert_rowid(self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.0.as_ptr()) }
    }

    /// Forget the rowid of the last insert.
    pub(super) fn reset_last_insert_rowid(self) {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.0.as_ptr(), 0) }
    }

    /// Bound the bytes of a value, and of a row.
    pub(super) fn limit_length(self, bytes: u32) {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_limit(self.0.as_ptr(), ffi::SQLITE_LIMIT_LENGTH, bytes) };
    }

    /// Bytes a value may have now.
    pub(super) fn length_max(self) -> usize {
        // SAFETY: the connection is open; a negative limit only asks.
        let n = unsafe { ffi::sqlite3_limit(self.0.as_ptr(), ffi::SQLITE_LIMIT_LENGTH, -1) };
        usize::try_from(n).expect("a size")
    }

    /// Stop the statement that runs, at its next loop.
    pub(super) fn interrupt(self) {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_interrupt(self.0.as_ptr()) };
    }

    /// Keep little memory for small allocations.
    pub(super) fn shrink_lookaside(self) {
        // SAFETY: the connection is open and has not allocated from the default lookaside for longer than
        // a call; SQLite refuses otherwise, which costs memory only.
        unsafe {
            ffi::sqlite3_db_config(
                self.0.as_ptr(),
                ffi::SQLITE_DBCONFIG_LOOKASIDE,
                ptr::null_mut::<c_void>(),
                256 as c_int,
                48 as c_int,
            );
        }
    }

    /// Run all of the `PASSIVE` checkpoint that is possible. Returns the frames of the log, and how many
    /// of them are in the database now.
    pub(super) fn checkpoint(self) -> Result<(u32, u32), SqlError> {
        let (mut log, mut done) = (0, 0);
        // SAFETY: the connection is open; the name and the two places are valid during the call.
        let code = unsafe {
            ffi::sqlite3_wal_checkpoint_v2(
                self.0.as_ptr(),
                c"main".as_ptr(),
                ffi::SQLITE_CHECKPOINT_PASSIVE,
                &raw mut log,
                &raw mut done,
            )
        };
        let frames = |it: c_int| u32::try_from(it).unwrap_or_default();
        if code == ffi::SQLITE_OK { Ok((frames(log), frames(done))) } else { Err(self.error(code)) }
    }

    /// Call `charges::tick` every [`charges::STEPS_PER_TICK`] instructions, and stop where it says so.
    pub(super) fn count_steps(self) {
        self.on_progress(on_tick);
    }

    /// Run `f`; every [`charges::STEPS_PER_TICK`] instructions meanwhile, ask `enough` whether to give it
    /// up, and, if it is `counted`, call [`charges::tick`].
    pub(super) fn with_watch<T>(
        self,
        is_counted: bool,
        mut enough: &mut dyn FnMut(Ask) -> bool,
        f: impl FnOnce() -> T,
    ) -> T {
        struct Restore(Handle);
        impl Drop for Restore {
            fn drop(&mut self) {
                WATCH.set(None);
                self.0.count_steps();
            }
        }
        assert!(WATCH.get().is_none(), "a command runs by itself");
        let _restore = Restore(self);
        // Whoever is asked lives until after `_restore` has forgotten it, also on a panic.
        WATCH.set(Some(NonNull::from(&mut enough).cast()));
        self.on_progress(if is_counted { on_counted_tick } else { on_uncounted_tick });
        f()
    }

    fn on_progress(self, handler: unsafe extern "C" fn(*mut c_void) -> c_int) {
        let n = c_int::try_from(charges::STEPS_PER_TICK).expect("a small number");
        // SAFETY: the connection is open; the handlers take no argument.
        unsafe {
            ffi::sqlite3_progress_handler(self.0.as_ptr(), n, Some(handler), ptr::null_mut());
        }
    }

    /// Watch for rows that change: they cost, and may get the largest rowid.
    pub(super) fn watch_rowids(self) {
        // SAFETY: the connection is open; the hook takes no argument.
        unsafe { ffi::sqlite3_update_hook(self.0.as_ptr(), Some(on_update), ptr::null_mut()) };
    }

    /// The connection, for calls that are not made here; it stays open.
    pub(super) fn raw(self) -> *mut ffi::sqlite3 {
        self.0.as_ptr()
    }

    /// What SQLite says about the call that just returned `code`.
    pub(super) fn error(self, code: c_int) -> SqlError {
        // SAFETY: the connection is open; the text is valid until the next call on it.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.0.as_ptr())) };
        SqlError { code, message: message.to_string_lossy().into_owned() }
    }
}

thread_local! {
    /// Who is asked meanwhile whether that is enough: see [`Handle::with_watch`].
    static WATCH: Cell<Option<NonNull<c_void>>> = const { Cell::new(None) };
}

/// Do something as a part of the statement that runs on `connection`, with values of up to so many `bytes`, or as long
/// as those of the statement. Nothing that a tenant wrote must run meanwhile.
///
/// # Safety
/// The connection is open, and stays so.
pub(super) unsafe fn with_long_values<T>(
    connection: *mut ffi::sqlite3,
    bytes: c_int,
    work: impl FnOnce() -> T,
) -> T {
    struct Restore(*mut ffi::sqlite3, c_int);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the promise of whoever called.
            unsafe { ffi::sqlite3_limit(self.0, ffi::SQLITE_LIMIT_LENGTH, self.1) };
        }
    }
    // SAFETY: the caller's promise; a negative limit only asks.
    let before = unsafe { ffi::sqlite3_limit(connection, ffi::SQLITE_LIMIT_LENGTH, -1) };
    if before >= bytes {
        return work();
    }
    let _restore = Restore(connection, before);
    // SAFETY: the caller's promise.
    unsafe { ffi::sqlite3_limit(connection, ffi::SQLITE_LIMIT_LENGTH, bytes) };
    work()
}

/// Bind a piece of an index, however long it is. Where SQLite does so it takes no notice of a refusal: NULL would be
/// stored in its place, or looked for. So it is refused where the statement runs, of which notice is taken. What
/// `sqlite3_bind_value` binds comes here as well: blobs of a statement's, which are no longer than its values anyway.
#[unsafe(export_name = "debros_bind_blob")]
pub(super) unsafe extern "C" fn bind_blob(
    statement: *mut ffi::sqlite3_stmt,
    at: c_int,
    bytes: *const c_void,
    n: c_int,
    free: Option<unsafe extern "C" fn(*mut c_void)>,
) -> c_int {
    // SAFETY: SQLite passes what it would pass to its own function, whose statement has an open connection. It answers
    // for none itself.
    unsafe {
        if statement.is_null() {
            return ffi::sqlite3_bind_blob(statement, at, bytes, n, free);
        }
        let connection = ffi::sqlite3_db_handle(statement);
        let before = ffi::sqlite3_limit(connection, ffi::SQLITE_LIMIT_LENGTH, c_int::MAX);
        let code = ffi::sqlite3_bind_blob(statement, at, bytes, n, free);
        ffi::sqlite3_limit(connection, ffi::SQLITE_LIMIT_LENGTH, before);
        code
    }
}

/// Ask whoever runs the command on this thread whether to give it up, if there is somebody.
pub(super) fn is_enough() -> bool {
    let Some(watch) = WATCH.get() else { return false };
    // SAFETY: `with_watch` set it, and keeps it alive while it is set. Asking runs no statement, so that it is
    // not asked while it is being asked.
    let enough = unsafe { watch.cast::<&mut dyn FnMut(Ask) -> bool>().as_mut() };
    let is_enough = enough(Ask::Tick);
    if is_enough {
        charges::set_given_up();
    }
    is_enough
}

unsafe extern "C" fn on_tick(_: *mut c_void) -> c_int {
    c_int::from(preparing::note_tick() || charges::tick())
}

unsafe extern "C" fn on_counted_tick(_: *mut c_void) -> c_int {
    // The limit first: what it decides must not depend on who else would stop here.
    c_int::from(preparing::note_tick() || charges::tick() || is_enough_to_run())
}

unsafe extern "C" fn on_uncounted_tick(_: *mut c_void) -> c_int {
    c_int::from(preparing::note_tick() || is_enough_to_run())
}

/// Only the statement itself is given up here. What the engine does for it cannot be wrong; and what reads the
/// schema must come to its end, or SQLite would believe to have its statistics, having read a part of them.
pub(super) fn is_enough_to_run() -> bool {
    !context::is_engine() && context::is_running() && is_enough()
}

unsafe extern "C" fn on_update(
    _: *mut c_void,
    _operation: c_int,
    _database: *const c_char,
    table: *const c_char,
    rowid: i64,
) {
    // SAFETY: SQLite passes the name of the table.
    context::charge_row(unsafe { CStr::from_ptr(table) });
    if rowid == i64::MAX {
        context::set_rowid_spent();
    }
}

/// A prepared statement, finalized when dropped. Must be dropped before its connection.
#[derive(Debug)]
pub(super) struct Prepared {
    raw: NonNull<ffi::sqlite3_stmt>,
    handle: Handle,
}

impl Prepared {
    /// Prepare the first statement of `sql`. Returns it, if there is more than blanks and comments, and
    /// the position of what follows it.
    pub(super) fn new(handle: Handle, sql: &str) -> Result<(Option<Self>, usize), SqlError> {
        let text = sql.as_ptr().cast::<c_char>();
        let length = c_int::try_from(sql.len()).expect("SQL texts are bounded");
        let (mut raw, mut tail) = (ptr::null_mut(), ptr::null());
        let flags = ffi::SQLITE_PREPARE_PERSISTENT;
        // SAFETY: the connection is open, the text is readable for `length` bytes during the call.
        let code = unsafe {
            ffi::sqlite3_prepare_v3(
                handle.0.as_ptr(),
                text,
                length,
                flags,
                &raw mut raw,
                &raw mut tail,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(handle.error(code));
        }
        let end = tail.addr() - text.addr();
        assert!(end <= sql.len(), "the rest of a text lies in it");
        Ok((NonNull::new(raw).map(|raw| Self { raw, handle }), end))
    }

    /// The statement, for calls that are not made here; it stays this one's.
    pub(super) fn raw(&self) -> *mut ffi::sqlite3_stmt {
        self.raw.as_ptr()
    }

    /// Whether no transaction is open on its connection.
    pub(super) fn is_autocommit(&self) -> bool {
        self.handle.is_autocommit()
    }

    /// Number of values it wants.
    pub(super) fn n_parameters(&self) -> usize {
        // SAFETY: the statement is not finalized.
        let n = unsafe { ffi::sqlite3_bind_parameter_count(self.raw()) };
        usize::try_from(n).expect("a count")
    }

    /// Number of columns of its rows; zero if it returns none.
    pub(super) fn n_columns(&self) -> usize {
        // SAFETY: the statement is not finalized.
        let n = unsafe { ffi::sqlite3_column_count(self.raw()) };
        usize::try_from(n).expect("a count")
    }

    /// Whether it leaves the database as it is. What is only explained is not run.
    pub(super) fn is_readonly(&self) -> bool {
        // SAFETY: the statement is not finalized.
        self.is_explain() || unsafe { ffi::sqlite3_stmt_readonly(self.raw()) != 0 }
    }

    /// Whether it only tells what another would do.
    pub(super) fn is_explain(&self) -> bool {
        // SAFETY: the statement is not finalized.
        unsafe { ffi::sqlite3_stmt_isexplain(self.raw()) != 0 }
    }

    /// Whether it only lists the instructions of another.
    pub(super) fn is_program_listing(&self) -> bool {
        // SAFETY: the statement is not finalized.
        unsafe { ffi::sqlite3_stmt_isexplain(self.raw()) == 1 }
    }

    /// Show `f` the name of each instruction of its program, triggers included (`EXPLAIN`).
    pub(super) fn for_each_opcode(&mut self, mut f: impl FnMut(&str)) -> Result<(), SqlError> {
        self.explain(1)?;
        let listed = self.run(std::iter::empty(), |row| {
            if let Ok(Value::Text(opcode)) = row.value(1) {
                f(opcode);
            }
            Ok::<_, SqlError>(())
        });
        self.explain(0)?;
        // Switching may have prepared it again.
        self.take_repreparations();
        listed
    }

    fn explain(&mut self, mode: c_int) -> Result<(), SqlError> {
        // SAFETY: the statement is not finalized, and not running.
        let code = unsafe { ffi::sqlite3_stmt_explain(self.raw(), mode) };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.handle.error(code)) }
    }

    /// Bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.status(ffi::SQLITE_STMTSTATUS_MEMUSED)
    }

    /// How often SQLite prepared it again by itself, since this was last asked.
    pub(super) fn take_repreparations(&self) -> usize {
        // SAFETY: the statement is not finalized.
        let n =
            unsafe { ffi::sqlite3_stmt_status(self.raw(), ffi::SQLITE_STMTSTATUS_REPREPARE, 1) };
        usize::try_from(n).unwrap_or_default()
    }

    /// VM instructions of the last run.
    pub(super) fn steps(&self) -> usize {
        self.status(ffi::SQLITE_STMTSTATUS_VM_STEP)
    }

    fn status(&self, what: c_int) -> usize {
        // SAFETY: the statement is not finalized.
        let n = unsafe { ffi::sqlite3_stmt_status(self.raw(), what, 0) };
        usize::try_from(n).unwrap_or_default()
    }

    /// Names and declared types of its columns.
    pub(super) fn columns(&self) -> Vec<Column> {
        let count = c_int::try_from(self.n_columns()).expect("a count");
        let text = |it: *const c_char| {
            // SAFETY: SQLite returns null or a C string that is valid until the next call for this column.
            (!it.is_null()).then(|| unsafe { CStr::from_ptr(it) }.to_string_lossy().into_owned())
        };
        (0..count)
            .map(|at| {
                // SAFETY: the statement is not finalized, and has this column.
                let (name, declared) = unsafe {
                    (
                        ffi::sqlite3_column_name(self.raw(), at),
                        ffi::sqlite3_column_decltype(self.raw(), at),
                    )
                };
                Column {
                    name: text(name).unwrap_or_default(),
                    declared_type: text(declared).map(|it| it.to_ascii_lowercase()),
                }
            })
            .collect()
    }

    /// Bind `arguments`, run to the end, and show each row to `on_row`, which may stop it by an error.
    pub(super) fn run<'a, E: From<SqlError>>(
        &mut self,
        arguments: impl Iterator<Item = Value<'a>>,
        mut on_row: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        /// Leaves the statement ready for the next run, with no pointer into the arguments left.
        struct Rest<'a>(&'a Prepared);
        impl Drop for Rest<'_> {
            fn drop(&mut self) {
                // SAFETY: the statement is not finalized. The code repeats that of the last step.
                unsafe {
                    ffi::sqlite3_reset(self.0.raw());
                    ffi::sqlite3_clear_bindings(self.0.raw());
                }
            }
        }
        // The count of instructions starts at nought, or a cached and a fresh statement would reach the
        // progress handler at different points (R12).
        // SAFETY: the statement is not finalized.
        unsafe { ffi::sqlite3_stmt_status(self.raw(), ffi::SQLITE_STMTSTATUS_VM_STEP, 1) };
        let rest = Rest(self);
        for (at, value) in (1..).zip(arguments) {
            rest.0.bind(at, value)?;
        }
        loop {
            // SAFETY: the statement is not finalized, and its arguments live for `'a`.
            match unsafe { ffi::sqlite3_step(rest.0.raw()) } {
                ffi::SQLITE_ROW => on_row(&Row(rest.0))?,
                ffi::SQLITE_DONE => return Ok(()),
                code => return Err(rest.0.handle.error(code).into()),
            }
        }
    }

    /// The first number of the first row, for statements without arguments that are run all the time: half the
    /// cost of [`Self::run`].
    pub(super) fn number(&mut self) -> Result<i64, SqlError> {
        // SAFETY: the statement is not finalized. A row is there when its column is read; the code of the
        // reset repeats that of the step.
        unsafe {
            let code = ffi::sqlite3_step(self.raw());
            let number = match code {
                ffi::SQLITE_ROW => Ok(ffi::sqlite3_column_int64(self.raw(), 0)),
                ffi::SQLITE_DONE => Ok(0),
                code => Err(self.handle.error(code)),
            };
            ffi::sqlite3_reset(self.raw());
            number
        }
    }

    fn bind(&self, at: c_int, value: Value<'_>) -> Result<(), SqlError> {
        let size = |it: &[u8]| u64::try_from(it.len()).expect("a size");
        let utf8 = u8::try_from(ffi::SQLITE_UTF8).expect("a small number");
        // SAFETY: the statement is not finalized. Text and blobs are bound in place (no destructor, which
        // SQLite calls static); `run` unbinds them before they go.
        let code = unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(self.raw(), at),
                Value::Integer(it) => ffi::sqlite3_bind_int64(self.raw(), at, it),
                Value::Real(it) => ffi::sqlite3_bind_double(self.raw(), at, it),
                Value::Text(it) => {
                    let text = it.as_ptr().cast();
                    ffi::sqlite3_bind_text64(self.raw(), at, text, size(it.as_bytes()), None, utf8)
                }
                Value::Blob(it) => {
                    let blob = it.as_ptr().cast();
                    ffi::sqlite3_bind_blob64(self.raw(), at, blob, size(it), None)
                }
            }
        };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.handle.error(code)) }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: finalized once; its connection is still open. The code repeats that of the last step.
        unsafe { ffi::sqlite3_finalize(self.raw()) };
    }
}

// SAFETY: as for the handle: a statement is used by whoever uses its connection.
unsafe impl Send for Prepared {}

/// The row that a running statement stands on.
#[derive(Debug)]
pub(super) struct Row<'a>(&'a Prepared);

impl Row<'_> {
    /// Number of its values.
    pub(super) fn n_columns(&self) -> usize {
        self.0.n_columns()
    }

    /// Append the first `n` values to `out`. Text that is not UTF-8 gets replacement characters.
    pub(super) fn encode(&self, n: usize, out: &mut BytesMut) {
        let encoded = self.encode_each(n, |value| {
            value.encode(out);
            Ok::<_, SqlError>(())
        });
        encoded.expect("nothing stops it");
    }

    /// Give the first `n` values to `encode`, which may stop there by an error: where values share their memory, a row
    /// is far larger encoded than it is here. Text that is not UTF-8 has got replacement characters.
    pub(super) fn encode_each<E>(
        &self,
        n: usize,
        mut encode: impl FnMut(Value<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for at in 0..c_int::try_from(n).expect("a count") {
            match self.value(at) {
                Ok(value) => encode(value)?,
                Err(text) => encode(Value::Text(&String::from_utf8_lossy(text)))?,
            }
        }
        Ok(())
    }

    /// The value of column `at`, or the bytes of a text that is not UTF-8.
    pub(super) fn value(&self, at: c_int) -> Result<Value<'_>, &[u8]> {
        let raw = self.0.raw();
        // SAFETY: the statement stands on a row. A column out of range reads as NULL.
        Ok(match unsafe { ffi::sqlite3_column_type(raw, at) } {
            // SAFETY: as above.
            ffi::SQLITE_INTEGER => Value::Integer(unsafe { ffi::sqlite3_column_int64(raw, at) }),
            // SAFETY: as above.
            ffi::SQLITE_FLOAT => Value::Real(unsafe { ffi::sqlite3_column_double(raw, at) }),
            ffi::SQLITE_TEXT => {
                // SAFETY: as above; the type does not change by asking for text.
                let bytes = self.bytes(at, unsafe { ffi::sqlite3_column_text(raw, at) });
                return str::from_utf8(bytes).map(Value::Text).map_err(|_| bytes);
            }
            ffi::SQLITE_BLOB => {
                // SAFETY: as above.
                Value::Blob(self.bytes(at, unsafe { ffi::sqlite3_column_blob(raw, at) }.cast()))
            }
            _ => Value::Null,
        })
    }

    fn bytes(&self, at: c_int, from: *const u8) -> &[u8] {
        // SAFETY: the statement stands on a row.
        let length = unsafe { ffi::sqlite3_column_bytes(self.0.raw(), at) };
        let length = usize::try_from(length).expect("a size");
        if from.is_null() || length == 0 {
            return &[];
        }
        // SAFETY: SQLite keeps the value in place until the statement steps on, which needs `on_row`, that
        // borrows this row, to return.
        unsafe { std::slice::from_raw_parts(from, length) }
    }
}
