//! What the statement that runs on this thread has taken of what it may: instructions, its own and those that others
//! are worth, bytes of temporary files, and, on a core, time.
//!
//! A thread-local, as [`super::context`] is one: SQLite's callbacks charge here. Overwritten by [`begin_statement`].

use std::cell::Cell;

use crate::sql::statement::Handle;

/// VM instructions between two calls of the progress handler.
pub(super) const STEPS_PER_TICK: u64 = 250;

struct Charges {
    /// Calls of the progress handler that are left.
    ticks_left: Cell<u64>,
    /// Steps that were charged and are not yet a tick.
    steps_charged: Cell<u64>,
    charged: Cell<u64>,
    charged_max: Cell<u64>,
    /// Steps that may be charged where there is little time.
    work_left: Cell<u64>,
    searches_count: Cell<bool>,
    length_share: Cell<u64>,
    /// Steps of lengths that are not yet one that counts.
    length_rest: Cell<u64>,
    pages_left: Cell<u32>,
    runs_on: Cell<Option<Handle>>,
    temp_left: Cell<u64>,
    given_up: Cell<bool>,
}

thread_local! {
    static CHARGES: Charges = const {
        Charges {
            ticks_left: Cell::new(u64::MAX),
            steps_charged: Cell::new(0),
            charged: Cell::new(0),
            charged_max: Cell::new(u64::MAX),
            work_left: Cell::new(u64::MAX),
            searches_count: Cell::new(true),
            length_share: Cell::new(1),
            length_rest: Cell::new(0),
            pages_left: Cell::new(u32::MAX),
            runs_on: Cell::new(None),
            temp_left: Cell::new(u64::MAX),
            given_up: Cell::new(false),
        }
    };
}

#[cfg(test)]
thread_local! {
    /// Calls of the progress handler since the statement began, and what the last one came to in the end.
    pub(super) static TICKS: Cell<u64> = const { Cell::new(0) };
    pub(super) static USED: Cell<u64> = const { Cell::new(0) };
}

/// A command begins: nobody has given it up yet.
pub(super) fn begin_command() {
    CHARGES.with(|it| it.given_up.set(false));
}

/// A statement begins: it may take `steps` VM instructions and write `temp_bytes` of temporary files.
pub(super) fn begin_statement(steps: u64, temp_bytes: u64) {
    CHARGES.with(|it| {
        it.ticks_left.set(steps / STEPS_PER_TICK);
        it.steps_charged.set(0);
        it.charged.set(0);
        it.charged_max.set(u64::MAX);
        it.work_left.set(u64::MAX);
        it.searches_count.set(true);
        it.length_share.set(1);
        it.length_rest.set(0);
        it.runs_on.set(None);
        it.temp_left.set(temp_bytes);
    });
}

/// The statement that begins, on the connection behind `handle`, may have functions do as much as `work`
/// instructions would, and read and write so many `pages`: between two ticks nothing looks at the clock. More,
/// and it is given up (R13). To be called after [`begin_statement`].
pub(super) fn bound_work(work: u64, pages: u32, handle: Handle) {
    CHARGES.with(|it| {
        it.work_left.set(work);
        it.pages_left.set(pages);
        it.runs_on.set(Some(handle));
    });
}

/// A page is read or written. A statement that has had too many is stopped where it next can be: an
/// instruction may take a page for each few kilobytes of a value that it deletes.
pub(super) fn charge_page() {
    CHARGES.with(|it| {
        let Some(handle) = it.runs_on.get() else {
            return;
        };
        let left = it.pages_left.get();
        it.pages_left.set(left.saturating_sub(1));
        if left == 0 {
            it.given_up.set(true);
            handle.interrupt();
        }
    });
}

/// The statement that begins may be charged so many steps, however many of its own it may take. To be called
/// after [`begin_statement`].
pub(super) fn bound_charges(steps: u64) {
    CHARGES.with(|it| it.charged_max.set(steps));
}

/// The statement that begins has other bounds than steps: [`charge_search`] does not count.
pub(super) fn search_freely() {
    CHARGES.with(|it| it.searches_count.set(false));
}

/// The statement that begins has only one step of so many, because its values may be long. What takes time in proportion
/// to how long they are ([`charge_length`]) counts for as much less. To be called after [`begin_statement`].
pub(super) fn share_lengths(share: u64) {
    CHARGES.with(|it| it.length_share.set(share.max(1)));
}

/// The progress handler: another [`STEPS_PER_TICK`] instructions have run. Whether that was too many.
pub(super) fn tick() -> bool {
    #[cfg(test)]
    TICKS.set(TICKS.get() + 1);
    CHARGES.with(|it| {
        let left = it.ticks_left.get();
        it.ticks_left.set(left.saturating_sub(1));
        // What was charged counts at the end as well.
        left == 0 || it.charged.get() > it.charged_max.get()
    })
}

/// Whoever runs the command has no more time for it (R13).
pub(super) fn set_given_up() {
    CHARGES.with(|it| it.given_up.set(true));
}

/// Whether [`set_given_up`] was called since the command began.
pub(super) fn is_given_up() -> bool {
    CHARGES.with(|it| it.given_up.get())
}

/// A function takes as long as `n` instructions. Whether that is too many, or longer than there is time for.
pub(super) fn charge_function(n: u64) -> bool {
    is_too_much_work(n) || charge_steps(n)
}

/// The same for `LIKE` and `GLOB`, which a statement that only reads may do for as long as it has time.
pub(super) fn charge_search(n: u64) -> bool {
    is_too_much_work(n) || (CHARGES.with(|it| it.searches_count.get()) && charge_steps(n))
}

/// The same for what takes time in proportion to how long a value is.
pub(super) fn charge_length(n: u64) -> bool {
    let counted = CHARGES.with(|it| {
        let (share, n) = (it.length_share.get(), n.saturating_add(it.length_rest.get()));
        it.length_rest.set(n % share);
        n / share
    });
    is_too_much_work(n) || (CHARGES.with(|it| it.searches_count.get()) && charge_steps(counted))
}

fn is_too_much_work(n: u64) -> bool {
    CHARGES.with(|it| {
        let left = it.work_left.get();
        it.work_left.set(left.saturating_sub(n));
        if left < n {
            it.given_up.set(true);
        }
        left < n
    })
}

/// Something takes as long as `n` instructions. Whether that is too many.
pub(super) fn charge_steps(n: u64) -> bool {
    CHARGES.with(|it| {
        let charged = it.steps_charged.get().saturating_add(n);
        it.steps_charged.set(charged % STEPS_PER_TICK);
        let total = it.charged.get().saturating_add(n);
        it.charged.set(total);
        let (ticks, left) = (charged / STEPS_PER_TICK, it.ticks_left.get());
        it.ticks_left.set(left.saturating_sub(ticks));
        left < ticks || total > it.charged_max.get()
    })
}

/// The instructions that functions were charged since the statement began.
pub(super) fn charged_steps() -> u64 {
    CHARGES.with(|it| it.charged.get())
}

/// Charge `n` bytes written to a temporary file. Whether that was too many.
pub(super) fn charge_temp(n: u64) -> bool {
    CHARGES.with(|it| {
        let left = it.temp_left.get();
        it.temp_left.set(left.saturating_sub(n));
        left < n
    })
}

/// Whether the statement was stopped by [`charge_temp`].
pub(super) fn is_out_of_temp() -> bool {
    CHARGES.with(|it| it.temp_left.get() == 0)
}
