//! Memory that SQLite takes for one statement, and the bound of it.
//!
//! Nothing in SQLite bounds how far an expression grows while a statement is prepared: a kilobyte of text
//! whose subqueries each name the column of the next one twice takes gigabytes. Nor how many values of the
//! greatest length are there at once. So the allocator is asked through here, on the thread that runs a
//! statement, and says no where that would be too much; SQLite gives the statement up.
//!
//! What is counted is what SQLite asks for, not what the machine has: the same statement on the same schema
//! asks for the same, but for what its connection has at hand already, some hundred kilobytes.

#![expect(unsafe_code, reason = "SQLite's allocator is a table of C functions")]

use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use rusqlite::ffi;

use crate::sql::allocated;
use crate::sql::allocated::Memory;
use crate::sql::context;

/// What is said of a statement that asks for more than it may have.
pub(super) const TOO_MUCH: &str = "statement needs too much memory";

/// Bytes from which on what a statement had is given back to the system at once. The C library would keep
/// it for its thread.
const GIVEN_BACK_MIN: i64 = 8 << 20;

/// SQLite's own functions.
struct Below {
    malloc: unsafe extern "C" fn(c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    realloc: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    size: unsafe extern "C" fn(*mut c_void) -> c_int,
}

/// A statement had much memory, of which the C library still has what it freed.
static IS_DUE: AtomicBool = AtomicBool::new(false);

static BELOW: OnceLock<Below> = OnceLock::new();

/// Have SQLite ask here. To be called once, before SQLite is used; later, nothing is bounded.
pub(super) fn configure() {
    // SAFETY: a table of nothing is valid, and SQLite fills it. Too late, it refuses, which is looked at.
    let mut methods = unsafe {
        let mut methods: ffi::sqlite3_mem_methods = std::mem::zeroed();
        if ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, &raw mut methods) != ffi::SQLITE_OK {
            return;
        }
        methods
    };
    let (Some(malloc), Some(free), Some(realloc), Some(size)) =
        (methods.xMalloc, methods.xFree, methods.xRealloc, methods.xSize)
    else {
        return;
    };
    if BELOW.set(Below { malloc, free, realloc, size }).is_err() {
        return;
    }
    methods.xMalloc = Some(x_malloc);
    methods.xFree = Some(x_free);
    methods.xRealloc = Some(x_realloc);
    // SAFETY: the table is that of SQLite with three functions replaced, and is copied.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw mut methods) };
}

/// Run `f`, during which SQLite may take `bytes`. What comes next to `f`'s answer: how it went.
pub(super) fn with_bound<T>(bytes: u64, f: impl FnOnce() -> T) -> (T, Memory) {
    let (answer, memory) = allocated::with_bound(bytes, f);
    if memory.is_out || memory.peak > GIVEN_BACK_MIN {
        IS_DUE.store(true, Ordering::Relaxed);
    }
    if context::has_time() {
        give_back_if_due();
    }
    (answer, memory)
}

/// Give back what statements had, if one had much and there was no time then: it takes milliseconds.
pub fn give_back_if_due() {
    if IS_DUE.load(Ordering::Relaxed) && IS_DUE.swap(false, Ordering::Relaxed) {
        give_back();
    }
}

#[cfg(target_env = "gnu")]
fn give_back() {
    #[cfg(test)]
    tests::N_GIVEN_BACK.set(tests::N_GIVEN_BACK.get() + 1);
    // SAFETY: takes nothing, and nothing that is in use.
    unsafe { libc::malloc_trim(0) }; // tidy: allow(libc) SQLite's memory comes from there
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}

fn below() -> &'static Below {
    BELOW.get().expect("these functions are known to SQLite only after it is set")
}

unsafe extern "C" fn x_malloc(n: c_int) -> *mut c_void {
    if allocated::charge(i64::from(n)) {
        return ptr::null_mut();
    }
    // SAFETY: passed on as it came.
    unsafe { (below().malloc)(n) }
}

unsafe extern "C" fn x_free(at: *mut c_void) {
    // SAFETY: passed on as it came; what is freed has a size.
    unsafe {
        if !at.is_null() && allocated::is_bounded() {
            allocated::charge(-i64::from((below().size)(at)));
        }
        (below().free)(at);
    }
}

unsafe extern "C" fn x_realloc(at: *mut c_void, n: c_int) -> *mut c_void {
    // SAFETY: passed on as it came; what is made longer has a size.
    unsafe {
        if allocated::is_bounded() {
            let before = if at.is_null() { 0 } else { (below().size)(at) };
            if allocated::charge(i64::from(n) - i64::from(before)) {
                return ptr::null_mut();
            }
        }
        (below().realloc)(at, n)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rusqlite::ffi;

    use super::with_bound;
    use crate::sql::Vfs;
    use crate::sql::context;
    use crate::sql::testing::Fixture;

    thread_local! {
        /// How often memory was given back on this thread.
        pub(super) static N_GIVEN_BACK: Cell<u32> = const { Cell::new(0) };
    }

    const TOO_MUCH: &str = "error statement_memory: statement needs too much memory";

    #[test]
    fn texts_that_grow_while_they_are_prepared_are_refused() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(a)");
        let mut nested = "SELECT a AS x FROM t".to_owned();
        for _ in 0..40 {
            nested = format!("SELECT x + x AS x FROM ({nested})");
        }
        let aliased = format!(
            "SELECT a{} AS x FROM t WHERE {}",
            "+1".repeat(900),
            vec!["x"; 900].join(" OR ") + &format!(" OR ({})", vec!["x"; 900].join(" OR ")),
        );
        for sql in [&nested, &aliased, &format!("INSERT INTO t {nested}")] {
            let printed = fixture.exec(&[sql]).remove(0);
            assert!(printed.starts_with(TOO_MUCH), "{}: {printed}", &sql[..60]);
        }
        for sql in [&nested, &aliased] {
            let printed = fixture.query(sql);
            assert!(printed.starts_with(TOO_MUCH), "{}: {printed}", &sql[..60]);
        }
        // Nor may a view hold one.
        let printed = fixture.exec(&[&format!("CREATE VIEW v AS {}", &nested)]).remove(0);
        assert!(printed.starts_with("error schema_views"), "{printed}");
        fixture.must("INSERT INTO t VALUES (1)");
        assert_eq!(fixture.query("SELECT a FROM t"), "[a](1)");
    }

    #[test]
    fn many_long_values_at_once_are_refused() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(a UNIQUE)");
        let values = vec!["hex(zeroblob(500000 + a))"; 1_000].join(",");
        let sql = format!("INSERT INTO t SELECT length(max({values})) FROM (SELECT 1 AS a)");
        let printed = fixture.exec(&["INSERT INTO t VALUES (5)", &sql, "INSERT INTO t VALUES (6)"]);
        assert!(printed[1].starts_with(TOO_MUCH), "{}", printed[1]);
        assert_eq!(fixture.query("SELECT a FROM t"), "[a](5)(6)");
        let sql = format!("SELECT {values} FROM t");
        assert!(fixture.query(&sql).starts_with(TOO_MUCH));
        assert_eq!(fixture.query("SELECT a FROM t"), "[a](5)(6)");
    }

    #[test]
    fn a_core_leaves_it_to_others_to_give_memory_back() {
        Vfs::system();
        let take_much = || {
            // SAFETY: what is taken is given back.
            let take = || unsafe { ffi::sqlite3_free(ffi::sqlite3_malloc(16 << 20)) };
            with_bound(64 << 20, take)
        };
        context::set_has_time(false);
        take_much();
        assert_eq!(N_GIVEN_BACK.get(), 0, "a core gave memory back");
        context::set_has_time(true);
        // Another thread may come first.
        let gave_back = (0..100).any(|_| {
            take_much();
            N_GIVEN_BACK.get() > 0
        });
        assert!(gave_back);
    }
}
