//! The memory that the statement at hand has and may have, counted on its thread: what [`crate::sql::memory`] asks.

use std::cell::Cell;

struct Count {
    now: Cell<i64>,
    max: Cell<i64>,
    peak: Cell<i64>,
    is_out: Cell<bool>,
}

thread_local! {
    static COUNT: Count = const {
        Count {
            now: Cell::new(0),
            max: Cell::new(i64::MAX),
            peak: Cell::new(0),
            is_out: Cell::new(false),
        }
    };
}

/// How a statement dealt with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// It asked for more than it may have.
    pub(super) is_out: bool,
    /// The most that it had at once, in bytes.
    pub(super) peak: i64,
}

/// Run `f`, whose memory is not counted.
pub(super) fn without_bound<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(i64);
    impl Drop for Restore {
        fn drop(&mut self) {
            COUNT.with(|it| it.max.set(self.0));
        }
    }
    let _restore = Restore(COUNT.with(|it| it.max.replace(i64::MAX)));
    f()
}

/// Run `f`; meanwhile SQLite may take `bytes` of memory on this thread.
pub(super) fn with_bound<T>(bytes: u64, f: impl FnOnce() -> T) -> (T, Memory) {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            COUNT.with(|it| it.max.set(i64::MAX));
        }
    }
    COUNT.with(|it| {
        it.now.set(0);
        it.max.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        it.peak.set(0);
        it.is_out.set(false);
    });
    let restore = Restore;
    let answer = f();
    drop(restore);
    let memory = COUNT.with(|it| Memory { is_out: it.is_out.get(), peak: it.peak.get() });
    (answer, memory)
}

/// Whether the statement was refused memory.
pub(super) fn is_out() -> bool {
    COUNT.with(|it| it.is_out.get())
}

/// Whether memory is counted on this thread.
pub(super) fn is_bounded() -> bool {
    // A thread that ends frees what it has left after this is gone.
    COUNT.try_with(|it| it.max.get() != i64::MAX).unwrap_or(false)
}

/// SQLite takes `n` bytes, or gives some back. Whether it must not.
pub(super) fn charge(n: i64) -> bool {
    let count = |it: &Count| {
        if it.max.get() == i64::MAX {
            return false;
        }
        let memory = it.now.get() + n;
        let is_out = n > 0 && memory > it.max.get();
        if is_out {
            it.is_out.set(true);
        } else {
            it.now.set(memory);
            it.peak.set(it.peak.get().max(memory));
        }
        is_out
    };
    COUNT.try_with(count).unwrap_or(false)
}
