//! What the command that runs on this thread tells SQLite, and what SQLite's callbacks tell back.
//!
//! SQLite calls out (for the time, for randomness, for permission, for progress) on the thread that
//! called it, so the answers lie in a thread-local: no callback owns state, and a [`super::Database`] may
//! be opened on one thread and used on another. Everything here is overwritten before it is read: by
//! [`begin`] for a command, by [`begin_statement`] for each of its statements.

use std::cell::Cell;
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use rustc_hash::FxHashSet;

use crate::sql::charges;
use crate::sql::preparing::Text;
use crate::types::Dice;
use crate::types::LogIndex;
use crate::types::Timestamp;
use crate::wire::command::Stamp;

/// What a row that changes takes, and each of its entries in an index, in VM instructions: a page may have
/// to be read, and another be written to make room for it.
const STEPS_PER_ENTRY: u64 = 32;

/// What preparing a pragma takes that is read as a table, and what a column of one takes that it tells of.
const STEPS_PER_PRAGMA: u64 = 256;
const STEPS_PER_COLUMN: u64 = 16;

/// What of the tables decides what a statement costs.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// How many indexes each has; those that have none are left out.
    pub(super) indexes: FxHashMap<Vec<u8>, u64>,
    /// The virtual ones, in lower case.
    pub(super) virtuals: FxHashSet<String>,
    /// Columns of the widest table or view, or some more.
    pub(super) width: u64,
    /// The texts of views and triggers, by their name.
    pub(super) texts: FxHashMap<String, Text>,
}

impl Tables {
    /// There is one with `width` columns.
    pub(super) fn widen(&mut self, width: u64) {
        self.width = self.width.max(width);
    }
}

/// The first word of a statement, as far as it decides what the statement may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// `ANALYZE`.
    Analyze,
    /// `CREATE TABLE`.
    CreateTable,
    /// Any other statement that changes the schema, and `REINDEX`.
    Schema,
    /// `PRAGMA`.
    Pragma,
    /// `VACUUM`.
    Vacuum,
    /// Anything else.
    Other,
}

/// What the authorizer saw while a statement was prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "what a statement names, each by itself")]
pub(super) struct Seen {
    /// The statement calls `changes()`.
    pub(super) changes: bool,
    /// The statement asks for the time.
    pub(super) time: bool,
    /// The statement is `PRAGMA table_list`.
    pub(super) table_list: bool,
    /// A trigger of the statement writes.
    pub(super) triggers: bool,
    /// How often the statement names a virtual table.
    pub(super) virtual_tables: u32,
    /// The most that one of its functions may cost.
    pub(super) cost: Cost,
}

/// What calling a function costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cost {
    /// Little, or in proportion to the bytes of its arguments.
    #[default]
    Ordinary,
    /// A good deal more for each byte: JSON is read, and written again.
    Json,
}

/// What the system calls of a command have met: the worst of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// Nothing.
    None,
    /// The disk is full.
    NoRoom,
    /// One has failed.
    Failed,
}

struct Context {
    time: Cell<Timestamp>,
    dice: Cell<Dice>,
    changes_before: Cell<i64>,
    engine: Cell<bool>,
    running: Cell<bool>,
    verb: Cell<Verb>,
    seen: Cell<Seen>,
    tables: RefCell<Option<Arc<Tables>>>,
    trouble: Cell<Trouble>,
    rowid_spent: Cell<bool>,
    /// Whoever runs here has time.
    has_time: Cell<bool>,
    /// The log index of the command at work; zero is none.
    index: Cell<LogIndex>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            time: Cell::new(Timestamp(0)),
            dice: Cell::new(Dice::new(0)),
            changes_before: Cell::new(0),
            engine: Cell::new(false),
            running: Cell::new(false),
            verb: Cell::new(Verb::Other),
            seen: Cell::new(Seen {
                changes: false,
                time: false,
                table_list: false,
                triggers: false,
                virtual_tables: 0,
                cost: Cost::Ordinary,
            }),
            tables: RefCell::new(None),
            trouble: Cell::new(Trouble::None),
            rowid_spent: Cell::new(false),
            has_time: Cell::new(false),
            index: Cell::new(LogIndex(0)),
        }
    };
}

/// The command at `index` of the log begins on this thread.
pub(super) fn begin_command(index: LogIndex) {
    CONTEXT.with(|it| it.index.set(index));
}

/// No command of the log is at work on this thread.
pub fn forget_command() {
    begin_command(LogIndex(0));
}

/// Where in the log the command stands that began last on this thread, if any has since
/// [`forget_command`]. For whoever must say at what the process stopped.
pub fn command_at_work() -> Option<LogIndex> {
    let index = CONTEXT.with(|it| it.index.get());
    (index > LogIndex(0)).then_some(index)
}

/// A command begins: its time, its seed; nothing has failed yet.
pub(super) fn begin(stamp: &Stamp, changes_before: i64) {
    CONTEXT.with(|it| {
        it.time.set(stamp.time);
        it.dice.set(Dice::new(stamp.seed));
        it.changes_before.set(changes_before);
        it.trouble.set(Trouble::None);
        charges::begin_command();
    });
}

/// A statement begins: it may take `steps` VM instructions and write `temp_bytes` of temporary files.
pub(super) fn begin_statement(steps: u64, temp_bytes: u64) {
    charges::begin_statement(steps, temp_bytes);
    CONTEXT.with(|it| it.rowid_spent.set(false));
}

/// What the engine does for itself is not bounded.
pub(super) fn unbounded() {
    begin_statement(u64::MAX, u64::MAX);
}

/// No command runs; what the engine does for itself is not bounded and has not failed yet.
pub(super) fn idle() {
    unbounded();
    CONTEXT.with(|it| it.trouble.set(Trouble::None));
}

/// Commands begin on this thread, which `has_time`, or is a core.
pub(super) fn set_has_time(has_time: bool) {
    CONTEXT.with(|it| it.has_time.set(has_time));
}

/// Whether this thread has time.
pub(super) fn has_time() -> bool {
    CONTEXT.with(|it| it.has_time.get())
}

/// The command's time.
pub(super) fn time() -> Timestamp {
    CONTEXT.with(|it| it.time.get())
}

/// The command's next 64 random bits.
pub(super) fn roll() -> u64 {
    CONTEXT.with(|it| {
        let mut dice = it.dice.get();
        let rolled = dice.roll();
        it.dice.set(dice);
        rolled
    })
}

/// What `sqlite3_total_changes64` said when the command began.
pub(super) fn changes_before() -> i64 {
    CONTEXT.with(|it| it.changes_before.get())
}

/// Run `f` as the engine: the authorizer lets it pass.
pub(super) fn as_engine<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.with(|it| it.engine.set(self.0));
        }
    }
    let _restore = Restore(CONTEXT.with(|it| it.engine.replace(true)));
    f()
}

/// Whether the engine itself runs.
pub(super) fn is_engine() -> bool {
    CONTEXT.with(|it| it.engine.get())
}

/// A statement that starts with `verb` is about to be prepared.
pub(super) fn begin_preparing(verb: Verb) {
    CONTEXT.with(|it| {
        it.running.set(false);
        it.verb.set(verb);
        it.seen.set(Seen::default());
    });
}

/// A statement that starts with `verb` is about to run. What is prepared now is part of it: a virtual table
/// asks for something, or SQLite prepares the statement again.
pub(super) fn begin_running(verb: Verb) {
    CONTEXT.with(|it| {
        it.running.set(true);
        it.verb.set(verb);
    });
}

/// These are the tables of the database whose command runs.
pub(super) fn know(tables: &Arc<Tables>) {
    CONTEXT.with(|it| it.tables.replace(Some(Arc::clone(tables))));
}

/// Forget them.
pub(super) fn forget() {
    CONTEXT.with(|it| it.tables.replace(None));
}

/// The statement that is prepared names `table`.
pub(super) fn note_table(table: &str) {
    let is_virtual = |it: &Arc<Tables>| {
        !it.virtuals.is_empty() && it.virtuals.contains(&table.to_ascii_lowercase())
    };
    if CONTEXT.with(|it| it.tables.borrow().as_ref().is_some_and(is_virtual)) {
        note(|it| it.virtual_tables += 1);
    }
}

/// Columns of the widest table.
pub(super) fn width() -> u64 {
    CONTEXT.with(|it| it.tables.borrow().as_ref().map_or(0, |it| it.width))
}

/// What a pragma takes that is read as a table, before it gives a row, in VM instructions.
pub(super) fn steps_of_pragma() -> u64 {
    // It ends with an error where it asks for the columns of a view that has none.
    STEPS_PER_PRAGMA + width() * STEPS_PER_COLUMN
}

/// The text of the view or trigger called `name`.
pub(super) fn text_of(name: &str) -> Text {
    CONTEXT.with(|it| {
        let tables = it.tables.borrow();
        tables.as_ref().and_then(|it| it.texts.get(name).copied()).unwrap_or_default()
    })
}

/// A row of `table` has changed: charged for what its pages take.
pub(super) fn charge_row(table: &CStr) {
    let n_indexes = CONTEXT.with(|it| {
        let tables = it.tables.borrow();
        tables.as_ref().and_then(|it| it.indexes.get(table.to_bytes()).copied()).unwrap_or_default()
    });
    // If that is too much, the next tick stops the statement.
    charges::charge_steps(STEPS_PER_ENTRY * (1 + n_indexes));
}

/// Whether a statement runs, not is prepared.
pub(super) fn is_running() -> bool {
    CONTEXT.with(|it| it.running.get())
}

/// How the statement at hand starts.
pub(super) fn verb() -> Verb {
    CONTEXT.with(|it| it.verb.get())
}

/// The authorizer notes what it saw.
pub(super) fn note(f: impl FnOnce(&mut Seen)) {
    CONTEXT.with(|it| {
        let mut seen = it.seen.get();
        f(&mut seen);
        it.seen.set(seen);
    });
}

/// What the authorizer has seen since [`begin_preparing`].
pub(super) fn seen() -> Seen {
    CONTEXT.with(|it| it.seen.get())
}

/// A system call failed, or found no room on the disk: what follows is not the statement's fault.
pub(super) fn set_trouble(trouble: Trouble) {
    CONTEXT.with(|it| it.trouble.set(it.trouble.get().max(trouble)));
}

/// What system calls have met since the command began.
pub(super) fn trouble() -> Trouble {
    CONTEXT.with(|it| it.trouble.get())
}

/// A row got the largest rowid there is: SQLite would choose the next one at random.
pub(super) fn set_rowid_spent() {
    CONTEXT.with(|it| it.rowid_spent.set(true));
}

/// Whether [`set_rowid_spent`] was called since the statement began.
pub(super) fn is_rowid_spent() -> bool {
    CONTEXT.with(|it| it.rowid_spent.get())
}
