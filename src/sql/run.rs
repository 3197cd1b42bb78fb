//! Running one command: its statements in order, all or none, within its limits.
//!
//! Limits are counted, and equal on every replica (R12): VM steps by the progress handler, rows and bytes
//! of results as they are encoded, temporary bytes by the VFS, the length of values by SQLite.

use std::sync::Arc;

use bytes::Bytes;
use bytes::BytesMut;
use rusqlite::ffi;

use crate::limits;
use crate::sql::apply::Applied;
use crate::sql::apply::Entry;
use crate::sql::authorizer;
use crate::sql::cache;
use crate::sql::cache::Cached;
use crate::sql::cache::Nature;
use crate::sql::cache::Shape;
use crate::sql::connection;
use crate::sql::connection::EngineError;
use crate::sql::connection::EngineStatements;
use crate::sql::context;
use crate::sql::context::Cost;
use crate::sql::context::Memory;
use crate::sql::context::Trouble;
use crate::sql::context::Verb;
use crate::sql::database::Database;
use crate::sql::database::RANDOM_NAMES;
use crate::sql::database::Share;
use crate::sql::database::hash_of;
use crate::sql::database::no_room_to_read;
use crate::sql::fault::Class;
use crate::sql::fault::Fault;
use crate::sql::fault::SqlError;
use crate::sql::fault::classify;
use crate::sql::memory;
use crate::sql::preparing::Allowance;
use crate::sql::requests;
use crate::sql::statement;
use crate::sql::statement::Handle;
use crate::sql::statement::Row;
use crate::sql::text;
use crate::types::DatabaseSize;
use crate::wire::command::Arguments;
use crate::wire::command::Command;
use crate::wire::command::CommandLimits;
use crate::wire::command::Kind;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::Statement;
use crate::wire::command::Value;
use crate::wire::rows::Outcome;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementError;
use crate::wire::rows::StatementResult;

/// Up to here the result's buffer is copied to its exact size; a larger one is handed over as it is.
const COPIED_MAX: usize = 64 << 10;
/// Bytes of a value, or a row, that a statement may touch where there is little time: some functions take
/// time in proportion to it, between two calls of the progress handler.
const INLINE_VALUE_MAX: u32 = 32 << 10;
/// The same for a statement with JSON.
const INLINE_JSON_MAX: u32 = 1 << 10;
/// What functions may do where there is little time, in VM instructions: about a millisecond's worth.
const INLINE_WORK_MAX: u64 = 20_000;
/// Pages read and written by a statement where there is little time: two milliseconds' worth, while they are in
/// the memory of the machine.
const INLINE_PAGES_MAX: u32 = 512;
/// Pages of a database that any single step gets through within a millisecond.
const SMALL_PAGES_MAX: u32 = 256;
/// VM instructions from which on a statement counts as long: about a millisecond.
const LONG_STEPS: u64 = 10_000;
/// How much of its limit of steps a statement has for values of a length: an instruction may take time in
/// proportion to a value, and steps do not count bytes.
struct Tier {
    /// Bytes of a value that it may touch.
    value_bytes: u32,
    /// The part of the limit that it has.
    share: u64,
    /// But at least so many steps, if the limit has them: enough to pass over all such values that a
    /// gibibyte holds.
    steps_min: u64,
}

/// A command begins in the first; one that touches a longer value is undone, and begins again in the next. With
/// 200 million steps and the slowest linear function (`hex`: 3 ms for a mebibyte) each ends within minutes,
/// not days.
const TIERS: [Tier; 3] = [
    Tier { value_bytes: 32 << 10, share: 1, steps_min: 0 },
    Tier { value_bytes: 256 << 10, share: 128, steps_min: 500_000 },
    Tier { value_bytes: u32::MAX, share: 4_096, steps_min: 50_000 },
];
/// What each statement of a command counts for, beside what it does: about what it costs to begin and end it.
const STATEMENT_STEPS: u64 = 16;
/// How often in a row a statement that was long is not even tried where there is little time.
const LONG_FOR: u32 = 64;
/// Bytes of memory that running a statement may take, beside its result and its longest values.
const RUNNING_MEMORY_MAX: u64 = 64 << 20;
/// Values of the greatest length that there may be at once. (JSON takes twenty times its text.)
const VALUES_IN_MEMORY_MAX: u64 = 32;
/// Bytes that a row of the schema may have, whatever the limit of values: a text, and two names from it.
const SCHEMA_ROW_MAX: u32 = 4 << 20;
/// Bytes that a change of the schema may add to a row of it, beside what its own text has, twice.
const SCHEMA_ROW_ADDED_MAX: usize = 4 << 10;
/// How many times the limit of steps may tick by for a statement on virtual tables, whose own statements
/// tick too, more or less often (R14). The limit itself is checked at the end.
const VIRTUAL_TICKS: u64 = 16;

/// What surrounds a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// A transaction with other commands.
    Shared,
    /// A transaction of its own; whoever began it rolls it back if the command fails.
    Alone,
    /// A transaction that only reads.
    Read,
}

/// How running a command ended.
#[derive(Debug)]
pub(super) enum Run {
    /// Its effects stand; or it failed, and (but for [`Setting::Alone`]) has none.
    Done(Outcome),
    /// It did not need to run: what was kept of earlier requests says what it gives (R18).
    Decided(Applied),
    /// It has not run: it needs a transaction of its own.
    Alone,
    /// The transaction is to be rolled back, or has been; the command needs one of its own.
    Undone,
    /// It touches a value that is too long for the steps it has; see [`TIERS`]. Alone only.
    Larger,
    /// It takes, or may take, longer than its caller gives it (R13). If a part of it has run, the
    /// transaction is to be rolled back, or has been.
    Long {
        /// A part of it has run.
        has_run: bool,
    },
}

/// Why a command stops before its end.
enum Halt {
    /// It failed.
    Error(StatementError),
    /// It failed after it had an effect that does not undo itself.
    ErrorAfter(StatementError),
    /// It needs a transaction of its own.
    Alone,
    /// As above, and its effects so far are to be undone.
    Undo,
    /// It needs more time than there is.
    Long,
    /// It touches a value longer than it may, so far.
    Larger,
    /// The database or the machine is sick.
    Fault(Fault),
}

/// Why the rows of a statement stop coming.
enum RowsEnd {
    Sql(SqlError),
    Limit(StatementError),
}

impl From<SqlError> for RowsEnd {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

/// A command that runs.
struct Running {
    setting: Setting,
    /// Index into [`TIERS`].
    tier: usize,
    /// As many times as a row of the schema is longer than the values of the tier, steps are fewer.
    schema_share: u64,
    share: Share,
    limits: CommandLimits,
    /// Whether it is a statement with nothing behind it, which needs no savepoint.
    n_statements: u32,
    /// VM instructions it may still take.
    steps_left: u64,
    /// Bytes of results it may still give.
    bytes_left: u64,
    has_savepoint: bool,
    has_run: bool,
    has_written: bool,
}

impl Running {
    /// Steps that a statement of its tier may take.
    fn steps_max(&self) -> u64 {
        let (tier, limit) = (&TIERS[self.tier], self.limits.steps);
        (limit / tier.share).max(tier.steps_min).min(limit) / self.schema_share
    }

    /// Steps that the next statement may take.
    fn budget(&self) -> u64 {
        match self.setting {
            Setting::Read => self.steps_left,
            Setting::Shared | Setting::Alone => self.steps_left.min(self.steps_max()),
        }
    }

    /// What preparing the next statement may take.
    fn allowance(&self) -> Allowance {
        let memory = match self.share {
            Share::Inline => cache::PREPARING_MEMORY_INLINE_MAX,
            Share::Whole => cache::PREPARING_MEMORY_MAX,
        };
        let steps = match self.setting {
            // It has the time that it has.
            Setting::Read => u64::MAX,
            Setting::Shared | Setting::Alone => self.steps_left,
        };
        Allowance { memory, steps }
    }

    /// How long the values of `cached`, the first statement of `sql`, may be in a schema of this shape; sets what
    /// that means for its steps.
    fn bound_values(&mut self, cached: &Cached, sql: &str, shape: Shape) -> u32 {
        let is_tiered = self.setting != Setting::Read && is_tiered(cached, sql);
        let length = length_max(cached, self, is_tiered, schema_row_max(shape, sql, self));
        self.schema_share = 1;
        if cached.nature == Nature::Schema && is_tiered {
            self.schema_share = u64::from(length.div_ceil(TIERS[self.tier].value_bytes));
        }
        length
    }

    /// A statement begins that may take `steps`, as which so many times as much may tick by, on the connection behind
    /// `handle`.
    fn begin_statement(&self, steps: u64, ticks: u64, handle: Handle) {
        context::begin_statement(steps.saturating_mul(ticks), self.limits.temp_bytes);
        context::bound_charges(steps);
        if self.share == Share::Inline {
            context::bound_work(INLINE_WORK_MAX, INLINE_PAGES_MAX, handle);
        }
        if self.setting == Setting::Read {
            context::search_freely();
        }
    }

    /// Whether a value that is too long now would not be where more is allowed.
    fn may_be_larger(&self) -> bool {
        let is_bound = TIERS[self.tier].value_bytes < self.limits.value_bytes;
        self.setting != Setting::Read && self.share == Share::Whole && is_bound
    }
}

impl Database {
    /// Run the command of `entry`. A command that creates or drops the database has no effect inside it.
    pub(super) fn run_entry(
        &mut self,
        entry: &Entry,
        setting: Setting,
        share: Share,
    ) -> Result<Run, Fault> {
        context::begin_command(entry.index);
        // Written by this program and checked by the log: if it cannot be read, this program is too old.
        let command = Command::decode(&entry.command)
            .map_err(|error| Fault::Stop(format!("decode a command: {error}")))?;
        match command.kind {
            Kind::Execute => {
                let ran = self.run_once(&command, setting, share)?;
                // Something that SQLite can do without was not written, and perhaps it is not the same
                // without: how full this disk is decides nothing (R12).
                if context::trouble() == Trouble::NoRoom {
                    return Err(Fault::NoRoom("run a command".to_owned()));
                }
                Ok(ran)
            }
            Kind::Create | Kind::Drop => Ok(Run::Done(Ok(Vec::new()))),
            Kind::Vacuum if share == Share::Inline && !is_quick_vacuum(&command) => {
                Ok(Run::Long { has_run: false })
            }
            Kind::Vacuum if setting == Setting::Shared => Ok(Run::Alone),
            Kind::Vacuum => self.vacuum(&command),
        }
    }

    /// Give free pages back to the file system (R16). Moves pages, never rows: what the database holds stays
    /// the same, and so does the order of its trees.
    fn vacuum(&mut self, command: &Command<'_>) -> Result<Run, Fault> {
        let n_pages = command
            .vacuum_pages()
            .map_err(|error| Fault::Stop(format!("decode a command: {error}")))?;
        context::begin(&command.stamp, self.handle.total_changes());
        context::unbounded();
        connection::vacuum(self.handle, n_pages)?;
        Ok(Run::Done(Ok(Vec::new())))
    }

    /// Run a command that executes statements.
    pub(super) fn run(
        &mut self,
        command: &Command<'_>,
        setting: Setting,
        share: Share,
    ) -> Result<Run, Fault> {
        let changes_before = self.handle.total_changes();
        context::begin(&command.stamp, changes_before);
        context::know(&self.tables);
        if setting != Setting::Read {
            self.bound_size(&command.stamp.limits)?;
        }
        self.handle.reset_last_insert_rowid();
        self.has_changed_schema = false;
        let mut running = Running {
            setting,
            tier: self.tier,
            schema_share: 1,
            share,
            limits: command.stamp.limits,
            n_statements: command.n_statements,
            steps_left: command.stamp.limits.steps,
            bytes_left: requests::result_bytes(command),
            has_savepoint: false,
            has_run: false,
            has_written: false,
        };
        let ended = self.run_statements(command, &mut running);
        let ended = ended.and_then(|results| match self.check_kept(command, setting, &results) {
            Ok(Ok(())) => Ok(results),
            Ok(Err(error)) => Err(Halt::ErrorAfter(error)),
            Err(fault) => Err(Halt::Fault(fault)),
        });
        context::unbounded();
        let (error, has_effect) = match ended {
            Ok(results) => {
                if running.has_savepoint {
                    self.engine.release()?;
                }
                return Ok(Run::Done(Ok(results)));
            }
            Err(Halt::Fault(fault)) => return Err(fault),
            Err(Halt::Alone) if !running.has_run => return Ok(Run::Alone),
            Err(Halt::Larger) if setting == Setting::Alone => return Ok(Run::Larger),
            Err(Halt::Alone | Halt::Undo | Halt::Larger) => return Ok(Run::Undone),
            Err(Halt::Long) => return Ok(Run::Long { has_run: running.has_run }),
            Err(Halt::Error(error)) => (error, self.handle.total_changes() != changes_before),
            Err(Halt::ErrorAfter(error)) => (error, true),
        };
        match setting {
            Setting::Shared if self.handle.is_autocommit() => return Ok(Run::Undone),
            Setting::Shared if running.has_savepoint => self.engine.undo()?,
            // OR FAIL and RAISE(FAIL) keep what the statement did before.
            Setting::Shared if has_effect => return Ok(Run::Undone),
            Setting::Shared | Setting::Alone | Setting::Read => {}
        }
        Ok(Run::Done(Err(error)))
    }

    fn run_statements(
        &mut self,
        command: &Command<'_>,
        running: &mut Running,
    ) -> Result<Vec<StatementResult>, Halt> {
        let mut results = Vec::with_capacity(match command.results {
            Results::Last => 1,
            Results::Each => usize::try_from(command.n_statements).unwrap_or_default().min(64),
        });
        for statement in command.statements() {
            let statement = statement.map_err(|error| match running.setting {
                Setting::Read => Halt::Error(StatementError::new(error.to_string())),
                _ => Halt::Fault(Fault::Stop(format!("decode a command: {error}"))),
            })?;
            let result = self.run_text(statement, running)?;
            if command.results == Results::Last {
                results.clear();
            }
            results.push(result);
        }
        Ok(results)
    }

    /// Run all statements of one text. The result is that of the last.
    fn run_text(
        &mut self,
        statement: Statement<'_>,
        running: &mut Running,
    ) -> Result<StatementResult, Halt> {
        let Statement { mode, sql, mut arguments } = statement;
        if sql.trim_ascii().is_empty() {
            return Err(Halt::Error(StatementError::new("no SQL statement")));
        }
        // That of a text without a statement, but for comments.
        let mut result = match mode {
            Mode::Exec => counts(None),
            Mode::Query => StatementResult::Rows(no_rows()),
        };
        let mut rest = sql;
        loop {
            let first = text::first_statement(rest);
            let has_more = !text::is_blank(&rest[first.len()..]);
            let ran = self.run_first(first, has_more, mode, &mut arguments, running)?;
            let tail = match ran {
                Some((its_result, tail)) => {
                    result = its_result;
                    tail
                }
                None => None,
            };
            match tail {
                Some(end) => rest = &rest[end..],
                None if has_more => rest = &rest[first.len()..],
                None => return Ok(result),
            }
        }
    }

    /// Run the first statement of a text, behind which there may be more than `rest` shows; give its result, and
    /// where `rest` goes on. None: there is no statement, but for comments.
    fn run_first(
        &mut self,
        rest: &str,
        has_more: bool,
        mode: Mode,
        arguments: &mut Arguments<'_>,
        running: &mut Running,
    ) -> Result<Option<(StatementResult, Option<usize>)>, Halt> {
        self.before_preparing(rest, running)?;
        let allowance = running.allowance();
        let cached = match self.cache.get(self.handle, rest, self.shape, allowance) {
            Err(error) if running.share == Share::Inline && error.message == memory::TOO_MUCH => {
                return Err(Halt::Long);
            }
            Ok(Some(cached)) => cached,
            Ok(None) => return Ok(None),
            Err(error) => return Err(halt(error, running)),
        };
        stop_if_failed()?;
        if cached.preparing > allowance.steps {
            return Err(Halt::Error(out_of_steps(running)));
        }
        if running.setting != Setting::Read {
            // Whether it was at hand or not: on another replica it may not be.
            running.steps_left -= cached.preparing;
        }
        let tail = cached.tail;
        let nature = cached.nature;
        check_allowed(cached, mode, running.setting)?;
        if running.share == Share::Inline {
            check_inline(cached, self.size, &mut self.engine)?;
        }
        if nature == Nature::Schema && running.setting == Setting::Shared {
            return Err(Halt::Alone);
        }
        check_arguments(cached.n_parameters, arguments.len())?;
        // What a trigger changed before it failed is not always counted, so that one is not waited for.
        let is_one =
            running.n_statements == 1 && tail.is_none() && !has_more && !cached.seen.triggers;
        if running.setting == Setting::Shared && !running.has_savepoint && !is_one {
            self.engine.savepoint().map_err(Halt::Fault)?;
            running.has_savepoint = true;
        }
        let asks_changes = cached.seen.changes || self.shape.changes;
        if asks_changes && !running.has_written && running.setting != Setting::Read {
            self.engine.reset_changes().map_err(Halt::Fault)?;
        }
        running.has_run = true;
        let length = running.bound_values(cached, rest, self.shape);
        // One that changes the schema may name them without being seen to.
        let has_virtual_tables = self.shape.virtual_tables > 0
            && (cached.seen.virtual_tables > 0 || nature == Nature::Schema);
        let ticks = if has_virtual_tables { VIRTUAL_TICKS } else { 1 };
        let budget = running.budget();
        running.begin_statement(budget, ticks, self.handle);
        context::begin_running(cached.verb);
        self.handle.limit_length(length);
        self.has_changed_schema |= nature == Nature::Schema;
        let (share, may_be_larger) = (running.share, running.may_be_larger());
        let run = || run_one(cached, mode, arguments, &mut self.scratch, running);
        let ran = in_memory(length, share, may_be_larger, run);
        self.handle.limit_length(u32::MAX);
        let n_steps = u64::try_from(cached.prepared.steps()).unwrap_or(u64::MAX);
        let is_long = n_steps > LONG_STEPS || matches!(ran, Err(Halt::Long));
        if is_long {
            cached.long_for = LONG_FOR;
        }
        let rows = ran?;
        stop_if_failed()?;
        if is_given_up(running) {
            return Err(Halt::Long);
        }
        if context::is_rowid_spent() {
            // SQLite would choose the next rowid at random, differently on every replica.
            let message = "rowid 9223372036854775807 is reserved";
            return Err(Halt::ErrorAfter(StatementError::new(message)));
        }
        let mut used = context::charged_steps();
        if running.setting != Setting::Read {
            used = used.saturating_add(n_steps).saturating_add(STATEMENT_STEPS);
            if has_virtual_tables && used > budget {
                return Err(Halt::ErrorAfter(out_of_steps(running)));
            }
        }
        running.steps_left = running.steps_left.saturating_sub(used);
        if cached.prepared.take_repreparations() > 0 && running.setting != Setting::Alone {
            // It was prepared again behind our back: some steps were counted twice, or (on a connection
            // that only reads) it is not any more what it was taken for.
            self.cache.clear();
            return Err(Halt::Undo);
        }
        if running.setting == Setting::Read && running.share == Share::Whole {
            let is_quick = !is_long && !cached.has_long_step;
            self.learned = is_quick.then(|| hash_of(rest));
        }
        let result = self.result(mode, nature, rows);
        running.has_written |= nature == Nature::Write;
        if nature == Nature::Schema {
            self.cache.clear();
            self.quick.clear();
            context::unbounded();
            self.after_schema(rest, running)?;
        }
        Ok(Some((result, tail)))
    }

    /// Look at what a change of the schema left behind.
    fn after_schema(&mut self, sql: &str, running: &mut Running) -> Result<(), Halt> {
        let checked = self.check_schema(sql).map_err(Halt::Fault)?;
        if is_given_up(running) {
            return Err(Halt::Long);
        }
        let n_steps = checked.map_err(Halt::ErrorAfter)?;
        running.steps_left = running.steps_left.saturating_sub(n_steps);
        Ok(())
    }

    /// See that the first statement of `rest` can be prepared now, and that it is the same as at any other time.
    fn before_preparing(&mut self, rest: &str, running: &Running) -> Result<(), Halt> {
        // Preparing must not depend on what ran before: on another replica it may not be necessary.
        context::unbounded();
        let on_schema =
            matches!(text::verb(rest), Verb::CreateTable | Verb::Schema | Verb::Analyze);
        // One on the schema leaves the connection to read it anew, which takes time in proportion to it.
        let may_be_long = on_schema || !self.is_quick_to_prepare(rest);
        if running.share == Share::Inline && may_be_long {
            return Err(Halt::Long);
        }
        self.has_stale_schema |= on_schema;
        if self.shape.statistics && running.setting != Setting::Read {
            self.cache.forget_if_timed(rest);
        }
        // Many short ones may take long without a tick.
        if running.share == Share::Whole && running.has_run && statement::is_enough() {
            return Err(match running.setting {
                Setting::Read => Halt::Error(too_late()),
                Setting::Shared | Setting::Alone => Halt::Long,
            });
        }
        if running.setting == Setting::Read && running.share == Share::Whole {
            self.read_schema(rest)?;
        }
        Ok(())
    }

    /// Before `sql` is prepared: another connection may have changed the schema. It is read here, where nothing stops
    /// it, or SQLite would believe to have its statistics, having read a part of them.
    fn read_schema(&mut self, sql: &str) -> Result<(), Halt> {
        if self.cache.has(sql) {
            return Ok(());
        }
        match self.engine.settle() {
            Ok(_) => Ok(()),
            Err(EngineError::Busy) => {
                Err(Halt::Error(StatementError::coded("busy", "database is busy")))
            }
            Err(EngineError::Fault(Fault::NoRoom(_))) => Err(Halt::Error(no_room_to_read())),
            Err(error) => Err(Halt::Fault(connection::fault_of(error, "read the schema"))),
        }
    }

    /// What a statement gave that just ran.
    fn result(&self, mode: Mode, nature: Nature, rows: Option<Rows>) -> StatementResult {
        match (mode, rows) {
            (Mode::Query, rows) => StatementResult::Rows(rows.unwrap_or_else(no_rows)),
            (Mode::Exec, _) if nature != Nature::Write => counts(None),
            (Mode::Exec, returned) => StatementResult::Counts {
                rows_affected: self.handle.changes(),
                last_insert_id: self.handle.last_insert_rowid(),
                returned,
            },
        }
    }
}

fn check_arguments(want: usize, got: usize) -> Result<(), Halt> {
    if want <= got {
        return Ok(());
    }
    let message = format!("not enough args to execute query: want {want} got {got}");
    Err(Halt::Error(StatementError::new(message)))
}

/// Whether a statement may run in `setting`, and show what it shows.
fn check_allowed(cached: &Cached, mode: Mode, setting: Setting) -> Result<(), Halt> {
    let (is_query, is_read) = (mode == Mode::Query, setting == Setting::Read);
    let message = if cached.nature != Nature::Read && (is_query || is_read) {
        "attempt to change database via query operation"
    } else if is_read {
        return Ok(());
    // What a command shows is kept, if its request has a key, and must be equal on all replicas.
    } else if cached.has_random_names && (is_query || cached.nature == Nature::Write) {
        RANDOM_NAMES
    } else if cached.prepared.is_program_listing() && is_query {
        // It tells how often this connection has read the schema, and where in memory things lie.
        "EXPLAIN is for reads only; EXPLAIN QUERY PLAN may be used here"
    } else {
        return Ok(());
    };
    Err(Halt::Error(StatementError::new(message)))
}

/// Whether a statement may be tried on a core, where the database had `size` before the transaction.
fn check_inline(
    cached: &mut Cached,
    size: DatabaseSize,
    engine: &mut EngineStatements,
) -> Result<(), Halt> {
    let is_small =
        !cached.has_long_step || (is_small(size) && is_small(engine.size().map_err(Halt::Fault)?));
    if cached.may_run_inline(is_small) { Ok(()) } else { Err(Halt::Long) }
}

/// Whether a step in proportion to a database of this size is short.
fn is_small(size: DatabaseSize) -> bool {
    (1..=SMALL_PAGES_MAX).contains(&size.pages)
}

/// Whether so few pages are given back that it takes a moment only.
fn is_quick_vacuum(command: &Command<'_>) -> bool {
    command.vacuum_pages().is_ok_and(|it| it <= limits::VACUUM_PAGES)
}

/// Whether how long the values of a statement are decides how many steps it has. Not for those that look at each
/// row once, and can make nothing of it that is longer.
fn is_tiered(cached: &Cached, sql: &str) -> bool {
    cached.nature != Nature::Schema || (cached.verb != Verb::Analyze && !text::drops_column(sql))
}

/// Bytes of a row that `sql` may leave in a schema of this shape.
fn schema_row_max(shape: Shape, sql: &str, running: &Running) -> u32 {
    // A new name may stand many times in one text.
    if text::is_alter(sql) && !running.may_be_larger() {
        return SCHEMA_ROW_MAX;
    }
    let bytes = shape.row_bytes.saturating_add(2 * sql.len() + SCHEMA_ROW_ADDED_MAX);
    u32::try_from(bytes).unwrap_or(u32::MAX).min(SCHEMA_ROW_MAX)
}

/// Bytes that a value, or a row, of a statement may have, which may leave a row of the schema of `schema_row`
/// bytes.
fn length_max(cached: &Cached, running: &Running, is_tiered: bool, schema_row: u32) -> u32 {
    let limit = running.limits.value_bytes;
    let tier = TIERS[running.tier].value_bytes;
    match (cached.nature, running.share) {
        // Rows of the schema hold texts, which have a bound of their own. Whatever reads the schema
        // (preparing a statement, for one) must not fail for a smaller one.
        (Nature::Schema, _) if is_tiered => limit.min(tier).max(schema_row),
        (Nature::Schema, _) => limit.max(SCHEMA_ROW_MAX),
        (_, Share::Inline) if cached.seen.cost == Cost::Ordinary => limit.min(INLINE_VALUE_MAX),
        (_, Share::Inline) => limit.min(INLINE_JSON_MAX),
        (_, Share::Whole) if running.setting == Setting::Read => limit,
        (_, Share::Whole) => limit.min(tier),
    }
}

/// Run a statement whose values have at most `length` bytes, in the memory that there is for it.
fn in_memory<T>(
    length: u32,
    share: Share,
    may_be_larger: bool,
    run: impl FnOnce() -> Result<T, Halt>,
) -> Result<T, Halt> {
    let values = VALUES_IN_MEMORY_MAX.saturating_mul(u64::from(length));
    let (ran, Memory { is_out, .. }) =
        memory::with_bound(RUNNING_MEMORY_MAX.saturating_add(values), run);
    if context::trouble() == Trouble::Failed
        && let Err(Halt::Fault(fault)) = ran
    {
        return Err(Halt::Fault(fault));
    }
    // Where its values may be longer, it may have more.
    if is_out && share == Share::Inline {
        return Err(Halt::Long);
    }
    if is_out && may_be_larger {
        return Err(Halt::Larger);
    }
    if is_out {
        // SQLite goes on after some failures to allocate, which another replica may not have.
        let error = StatementError::coded("statement_memory", memory::TOO_MUCH);
        return Err(Halt::ErrorAfter(error));
    }
    ran
}

/// Run one statement; give its rows, if it has any that matter.
fn run_one(
    cached: &mut Cached,
    mode: Mode,
    arguments: &mut Arguments<'_>,
    scratch: &mut BytesMut,
    running: &mut Running,
) -> Result<Option<Rows>, Halt> {
    scratch.clear();
    let bytes_max = usize::try_from(running.bytes_left).unwrap_or(usize::MAX);
    let rows_max = usize::try_from(running.limits.result_rows).unwrap_or(usize::MAX);
    let arguments = arguments.by_ref().take(cached.n_parameters);
    // A statement run for its effect gives rows only if it has an effect.
    let wanted = mode == Mode::Query || cached.nature == Nature::Write;
    let columns = cached.columns.as_ref().filter(|_| wanted);
    let n_columns = columns.map_or(0, |it| it.len());
    // JSON repeats the names in each row.
    let names = columns.map_or(0, |it| it.iter().map(|it| it.name.len() + 4).sum::<usize>());
    let lists_tables = cached.seen.table_list;
    let mut count: usize = 0;
    let ran = cached.prepared.run(arguments, |row: &Row<'_>| {
        if n_columns == 0 || (lists_tables && is_hidden(row)) {
            return Ok(());
        }
        count += 1;
        row.encode(n_columns, scratch);
        if count > rows_max {
            let message = format!("result has too many rows: at most {rows_max}");
            return Err(RowsEnd::Limit(StatementError::coded("result_rows", message)));
        }
        if scratch.len().saturating_add(count.saturating_mul(names)) > bytes_max {
            let message = format!("result is too large: at most {bytes_max} bytes");
            return Err(RowsEnd::Limit(StatementError::coded("result_bytes", message)));
        }
        Ok(())
    });
    match ran {
        Ok(()) => {}
        Err(RowsEnd::Sql(error)) => return Err(halt(error, running)),
        // A statement that writes has done so by its first row.
        Err(RowsEnd::Limit(error)) if cached.nature == Nature::Read => {
            return Err(Halt::Error(error));
        }
        Err(RowsEnd::Limit(error)) => return Err(Halt::ErrorAfter(error)),
    }
    let Some(columns) = columns else {
        return Ok(None);
    };
    let size = scratch.len() + count * names;
    running.bytes_left -= u64::try_from(size).expect("a size");
    let values = match scratch.len() {
        ..=COPIED_MAX => Bytes::copy_from_slice(scratch),
        _ => scratch.split().freeze(),
    };
    Ok(Some(Rows { columns: Arc::clone(columns), count, values }))
}

/// Whether a row of `PRAGMA table_list` is the engine's.
fn is_hidden(row: &Row<'_>) -> bool {
    let is_temporary = matches!(row.value(0), Ok(Value::Text("temp")));
    is_temporary
        || matches!(row.value(1), Ok(Value::Text(name)) if authorizer::is_engine_name(name))
}

fn counts(returned: Option<Rows>) -> StatementResult {
    StatementResult::Counts { rows_affected: 0, last_insert_id: 0, returned }
}

fn no_rows() -> Rows {
    Rows { columns: [].into(), count: 0, values: Bytes::new() }
}

fn too_late() -> StatementError {
    StatementError::coded("statement_ms", "statement took too long")
}

fn out_of_steps(running: &Running) -> StatementError {
    let n_max = running.steps_max();
    let message = match running.tier {
        0 => format!("statement takes too many steps: at most {n_max}"),
        _ => format!("statement takes too many steps for values this long: at most {n_max}"),
    };
    StatementError::coded("statement_steps", message)
}

/// Whether the statement that just ran, or was stopped, was given up by whoever runs it. A read that has all
/// the time there is has used it up instead.
fn is_given_up(running: &Running) -> bool {
    let may_go_on = running.setting != Setting::Read || running.share == Share::Inline;
    may_go_on && context::is_given_up()
}

/// SQLite passes over some failed system calls, such as those that read the statistics. What it gives then is
/// not what it would give on a machine that is well, and the call may have undone the transaction, so that what
/// follows would be committed by itself.
fn stop_if_failed() -> Result<(), Halt> {
    if context::trouble() == Trouble::Failed {
        let cause = "a system call failed, and the statement went on".to_owned();
        return Err(Halt::Fault(Fault::Stop(cause)));
    }
    Ok(())
}

/// What an error of SQLite means for the command.
fn halt(error: SqlError, running: &Running) -> Halt {
    let is_large = error.code & 0xff == ffi::SQLITE_TOOBIG;
    if context::trouble() == Trouble::None {
        if is_given_up(running) || (is_large && running.share == Share::Inline) {
            return Halt::Long;
        }
        if is_large && running.may_be_larger() {
            return Halt::Larger;
        }
    }
    if error.code == ffi::SQLITE_NOMEM && error.message == memory::TOO_MUCH {
        return Halt::Error(StatementError::coded("statement_memory", error.message));
    }
    match classify(error.code, context::trouble()) {
        Class::Statement => Halt::Error(statement_error(error, running)),
        Class::Busy if running.setting == Setting::Read => {
            Halt::Error(StatementError::coded("busy", error.message))
        }
        Class::NoRoom if running.setting == Setting::Read => Halt::Error(no_room_to_read()),
        // Expected at the beginning of a transaction only.
        Class::Busy | Class::Stop | Class::Fence | Class::NoRoom => {
            Halt::Fault(error.into_fault("run a statement"))
        }
    }
}

fn statement_error(error: SqlError, running: &Running) -> StatementError {
    match error.code & 0xff {
        ffi::SQLITE_INTERRUPT if running.setting == Setting::Read => too_late(),
        ffi::SQLITE_INTERRUPT => out_of_steps(running),
        ffi::SQLITE_TOOBIG => StatementError::coded("value_bytes", error.message),
        ffi::SQLITE_FULL if context::is_out_of_temp() => StatementError::coded(
            "temp_bytes",
            format!(
                "statement needs too much room to work: at most {} bytes",
                running.limits.temp_bytes
            ),
        ),
        ffi::SQLITE_FULL => StatementError::coded("database_bytes", error.message),
        ffi::SQLITE_AUTH => StatementError::coded("not_authorized", error.message),
        _ => StatementError::new(error.message),
    }
}

#[cfg(test)]
mod tests;
