//! Running one command: its statements in order, all or none, within its limits.
//!
//! Limits are counted, and equal on every replica (R12): VM steps by the progress handler, rows and bytes
//! of results as they are encoded, temporary bytes by the VFS, the length of values by SQLite.

use std::sync::Arc;

use bytes::Bytes;
use bytes::BytesMut;
use rusqlite::ffi;

use crate::sql::apply::Entry;
use crate::sql::authorizer;
use crate::sql::cache::Cached;
use crate::sql::cache::Nature;
use crate::sql::context;
use crate::sql::database::Database;
use crate::sql::fault::Class;
use crate::sql::fault::Fault;
use crate::sql::fault::SqlError;
use crate::sql::fault::classify;
use crate::sql::statement::Row;
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
/// How many times the limit of steps may tick by for a database with virtual tables, whose own statements
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
    /// It has not run: it needs a transaction of its own.
    Alone,
    /// The transaction is to be rolled back, or has been; the command needs one of its own.
    Undone,
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
    limits: CommandLimits,
    /// Whether it is a statement with nothing behind it, which needs no savepoint.
    n_statements: u32,
    /// Bytes of results it may still give.
    bytes_left: u64,
    has_savepoint: bool,
    has_run: bool,
    has_written: bool,
}

impl Database {
    /// Run the command of `entry`. A command that creates or drops the database has no effect inside it.
    pub(super) fn run_entry(&mut self, entry: &Entry, setting: Setting) -> Result<Run, Fault> {
        // Written by this program and checked by the log: if it cannot be read, this program is too old.
        let command = Command::decode(&entry.command)
            .map_err(|error| Fault::Stop(format!("decode a command: {error}")))?;
        match command.kind {
            Kind::Execute => self.run(&command, setting),
            Kind::Create | Kind::Drop => Ok(Run::Done(Ok(Vec::new()))),
        }
    }

    /// Run a command that executes statements.
    pub(super) fn run(&mut self, command: &Command<'_>, setting: Setting) -> Result<Run, Fault> {
        let changes_before = self.handle.total_changes();
        context::begin(&command.stamp, changes_before);
        self.enforce(&command.stamp.limits, setting)?;
        self.handle.reset_last_insert_rowid();
        self.has_changed_schema = false;
        let mut running = Running {
            setting,
            limits: command.stamp.limits,
            n_statements: command.n_statements,
            bytes_left: command.stamp.limits.result_bytes,
            has_savepoint: false,
            has_run: false,
            has_written: false,
        };
        let ended = self.run_statements(command, &mut running);
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
            Err(Halt::Alone | Halt::Undo) => return Ok(Run::Undone),
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
            let cached = match self.cache.get(self.handle, rest) {
                Ok(Some(cached)) => cached,
                Ok(None) => return Ok(result),
                Err(error) => return Err(halt(error, running)),
            };
            let tail = cached.tail;
            let nature = cached.nature;
            let may_write = running.setting != Setting::Read && mode == Mode::Exec;
            if nature != Nature::Read && !may_write {
                let message = "attempt to change database via query operation";
                return Err(Halt::Error(StatementError::new(message)));
            }
            if nature == Nature::Schema && running.setting == Setting::Shared {
                return Err(Halt::Alone);
            }
            if cached.n_parameters > arguments.len() {
                let (want, got) = (cached.n_parameters, arguments.len());
                return Err(Halt::Error(StatementError::new(format!(
                    "not enough args to execute query: want {want} got {got}"
                ))));
            }
            let is_one = running.n_statements == 1 && tail.is_none();
            if running.setting == Setting::Shared && !running.has_savepoint && !is_one {
                self.engine.savepoint().map_err(Halt::Fault)?;
                running.has_savepoint = true;
            }
            if cached.asks_changes && !running.has_written && running.setting != Setting::Read {
                self.engine.reset_changes().map_err(Halt::Fault)?;
            }
            running.has_run = true;
            let ticks = if self.has_virtual_tables { VIRTUAL_TICKS } else { 1 };
            let steps = match running.setting {
                Setting::Read => u64::MAX,
                _ => running.limits.steps.saturating_mul(ticks),
            };
            context::begin_statement(steps, running.limits.temp_bytes);
            context::begin_running(cached.verb);
            let rows = run_one(cached, mode, &mut arguments, &mut self.scratch, running)?;
            if context::is_rowid_spent() {
                // SQLite would choose the next rowid at random, differently on every replica.
                let message = "rowid 9223372036854775807 is reserved";
                return Err(Halt::ErrorAfter(StatementError::new(message)));
            }
            if self.has_virtual_tables && running.setting != Setting::Read {
                let steps = u64::try_from(cached.prepared.steps()).unwrap_or(u64::MAX);
                if steps > running.limits.steps {
                    return Err(Halt::ErrorAfter(out_of_steps(running)));
                }
            }
            if cached.prepared.take_repreparations() > 0 && running.setting == Setting::Shared {
                // It was prepared again behind our back, and some steps were counted twice.
                self.cache.clear();
                return Err(Halt::Undo);
            }
            result = match (mode, rows) {
                (Mode::Query, rows) => StatementResult::Rows(rows.unwrap_or_else(no_rows)),
                (Mode::Exec, _) if nature != Nature::Write => counts(None),
                (Mode::Exec, returned) => StatementResult::Counts {
                    rows_affected: self.handle.changes(),
                    last_insert_id: self.handle.last_insert_rowid(),
                    returned,
                },
            };
            running.has_written |= nature == Nature::Write;
            if nature == Nature::Schema {
                self.has_changed_schema = true;
                self.cache.clear();
                self.check_schema().map_err(Halt::Fault)?.map_err(Halt::ErrorAfter)?;
            }
            match tail {
                Some(end) => rest = &rest[end..],
                None => return Ok(result),
            }
        }
    }
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
    let lists_tables = cached.lists_tables;
    let mut count = 0;
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
        if scratch.len() > bytes_max {
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
    running.bytes_left -= u64::try_from(scratch.len()).expect("a size");
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

fn out_of_steps(running: &Running) -> StatementError {
    let message = format!("statement takes too many steps: at most {}", running.limits.steps);
    StatementError::coded("statement_steps", message)
}

/// What an error of SQLite means for the command.
fn halt(error: SqlError, running: &Running) -> Halt {
    match classify(error.code, context::has_fault()) {
        Class::Statement => Halt::Error(statement_error(error, running)),
        Class::Busy if running.setting == Setting::Read => {
            Halt::Error(StatementError::coded("busy", error.message))
        }
        // Expected at the beginning of a transaction only.
        Class::Busy | Class::Stop | Class::Fence => {
            Halt::Fault(error.into_fault("run a statement"))
        }
    }
}

fn statement_error(error: SqlError, running: &Running) -> StatementError {
    match error.code & 0xff {
        ffi::SQLITE_INTERRUPT if running.setting == Setting::Read => {
            StatementError::coded("statement_ms", "statement took too long")
        }
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
