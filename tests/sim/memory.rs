//! SQLite's memory, of which any piece may be refused. For a process of its own: SQLite has one allocator, and
//! takes it before anything else.

#![expect(unsafe_code, reason = "an allocator of SQLite is a table of C functions")]

use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rusqlite::ffi;

use crate::vfs::Lasts;

/// In front of each piece: its size, with the alignment of what follows.
const HEAD: usize = 16;

static N_CALLS: AtomicU64 = AtomicU64::new(0);
/// The first piece that is refused; zero if none is.
static FROM: AtomicU64 = AtomicU64::new(0);
static IS_FOR_GOOD: AtomicBool = AtomicBool::new(false);
static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// Have SQLite take its memory here. Nothing of SQLite may have been used.
pub(crate) fn install() {
    let methods = ffi::sqlite3_mem_methods {
        xMalloc: Some(x_malloc),
        xFree: Some(x_free),
        xRealloc: Some(x_realloc),
        xSize: Some(x_size),
        xRoundup: Some(x_roundup),
        xInit: Some(x_init),
        xShutdown: Some(x_shutdown),
        pAppData: ptr::null_mut(),
    };
    // SAFETY: SQLite copies the table; the argument is that of this setting.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods) };
    assert_eq!(code, ffi::SQLITE_OK, "SQLite is in use already");
}

/// Count anew; refuse the `n`-th piece, counted from one, or all from there on.
pub(crate) fn refuse(plan: Option<(u64, Lasts)>) {
    let (from, lasts) = plan.unwrap_or((0, Lasts::Once));
    N_CALLS.store(0, Ordering::Relaxed);
    HAS_FAILED.store(false, Ordering::Relaxed);
    IS_FOR_GOOD.store(lasts == Lasts::FromThenOn, Ordering::Relaxed);
    FROM.store(from, Ordering::Relaxed);
}

/// How many pieces were asked for since [`refuse`].
pub(crate) fn n_calls() -> u64 {
    N_CALLS.load(Ordering::Relaxed)
}

/// Whether one was refused since [`refuse`].
pub(crate) fn has_failed() -> bool {
    HAS_FAILED.load(Ordering::Relaxed)
}

fn fails() -> bool {
    let n = N_CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    let from = FROM.load(Ordering::Relaxed);
    let fails = from > 0 && (n == from || (n > from && IS_FOR_GOOD.load(Ordering::Relaxed)));
    if fails {
        HAS_FAILED.store(true, Ordering::Relaxed);
    }
    fails
}

unsafe extern "C" fn x_malloc(n: c_int) -> *mut c_void {
    if fails() {
        return ptr::null_mut();
    }
    // SAFETY: a new piece with room for the head.
    unsafe { with_head(libc::malloc(usize::try_from(n).unwrap_or(0) + HEAD), n) }
}

unsafe extern "C" fn x_realloc(piece: *mut c_void, n: c_int) -> *mut c_void {
    if fails() {
        return ptr::null_mut();
    }
    // SAFETY: SQLite passes a piece of ours.
    unsafe {
        let start = piece.byte_sub(HEAD);
        with_head(libc::realloc(start, usize::try_from(n).unwrap_or(0) + HEAD), n)
    }
}

/// # Safety
/// `start` is null, or has room for the head.
unsafe fn with_head(start: *mut c_void, n: c_int) -> *mut c_void {
    assert!(!start.is_null(), "this machine has memory");
    // SAFETY: the caller's promise; malloc aligns for any number.
    unsafe {
        start.cast::<c_int>().write(n);
        start.byte_add(HEAD)
    }
}

unsafe extern "C" fn x_free(piece: *mut c_void) {
    // SAFETY: SQLite passes a piece of ours, once.
    unsafe { libc::free(piece.byte_sub(HEAD)) };
}

unsafe extern "C" fn x_size(piece: *mut c_void) -> c_int {
    // SAFETY: SQLite passes a piece of ours.
    unsafe { piece.byte_sub(HEAD).cast::<c_int>().read() }
}

unsafe extern "C" fn x_roundup(n: c_int) -> c_int {
    (n + 7) & !7
}

unsafe extern "C" fn x_init(_: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_shutdown(_: *mut c_void) {}
