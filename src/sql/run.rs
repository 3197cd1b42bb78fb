//! Running one command: its statements in order, all or none, within its limits.
//!
//! Limits are counted, and equal on every replica (R12): VM steps by the progress handler, rows and bytes
//! of results as they are encoded, temporary bytes by the VFS, the length of values by SQLite.

use crate::limits;
use crate::sql::apply::Applied;
use crate::sql::apply::Entry;
use crate::sql::cache::Cached;
use crate::sql::cache::Nature;
use crate::sql::charges;
use crate::sql::connection;
use crate::sql::connection::EngineError;
use crate::sql::context;
use crate::sql::context::Trouble;
use crate::sql::context::Verb;
use crate::sql::database::Database;
use crate::sql::database::Share;
use crate::sql::database::hash_of;
use crate::sql::database::no_room_to_read;
use crate::sql::fault::Fault;
use crate::sql::memory;
use crate::sql::nested;
use crate::sql::requests;
use crate::sql::rows::counts;
use crate::sql::rows::no_rows;
use crate::sql::rows::run_one;
use crate::sql::running::Halt;
use crate::sql::running::Running;
use crate::sql::running::Setting;
use crate::sql::running::check_allowed;
use crate::sql::running::check_arguments;
use crate::sql::running::check_inline;
use crate::sql::running::halt;
use crate::sql::running::in_memory;
use crate::sql::running::is_given_up;
use crate::sql::running::out_of_steps;
use crate::sql::running::stop_if_failed;
use crate::sql::running::too_late;
use crate::sql::schema::Shape;
use crate::sql::spooled;
use crate::sql::spooled::Room;
use crate::sql::statement;
use crate::sql::storage::End;
use crate::sql::text;
use crate::wire::command::Command;
use crate::wire::command::Kind;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::statements::Arguments;
use crate::wire::command::statements::Statement;
use crate::wire::rows::Outcome;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementError;
use crate::wire::rows::StatementResult;

/// VM instructions from which on a statement counts as long: about a millisecond.
const LONG_STEPS: u64 = 10_000;
/// What each statement of a command counts for, beside what it does: about what it costs to begin and end it.
const STATEMENT_STEPS: u64 = 16;
/// How often in a row a statement that was long is not even tried where there is little time.
const LONG_FOR: u32 = 64;
/// How many times the limit of steps may tick by for a statement on virtual tables, whose own statements
/// tick too, more or less often (R14). The limit itself is checked at the end, against what was counted ([`nested`]).
const VIRTUAL_TICKS: u64 = 4;

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
            Kind::Execute | Kind::Storage => {
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
            length: u32::MAX,
            share,
            limits: command.stamp.limits,
            n_statements: command.n_statements,
            steps_left: command.stamp.limits.steps,
            bytes_left: requests::result_bytes(command),
            has_savepoint: false,
            has_run: false,
            has_written: false,
        };
        let ended = match command.kind {
            Kind::Storage => self.run_key(command, &running),
            _ => self.run_statements(command, &mut running),
        };
        #[cfg(test)]
        if setting != Setting::Read
            && let Some(index) = context::command_at_work()
        {
            let used = command.stamp.limits.steps - running.steps_left;
            crate::sql::testing::note_steps(&self.path, index, used);
        }
        spooled::shrink(&mut self.scratch);
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

    /// Run a command that is about a key of the key-value storage.
    fn run_key(
        &mut self,
        command: &Command<'_>,
        running: &Running,
    ) -> Result<Vec<StatementResult>, Halt> {
        let may_write = running.setting != Setting::Read;
        let ran = self.run_storage(command, may_write, running.share);
        stop_if_failed()?;
        ran.map(|it| vec![it]).map_err(|end| match end {
            End::Decode(error) if may_write => {
                Halt::Fault(Fault::Stop(format!("decode a command: {error}")))
            }
            End::Decode(error) => Halt::Error(StatementError::new(error.to_string())),
            End::Refused(error) => Halt::Error(error),
            End::Long => Halt::Long,
            End::Sql(error) => halt(error, running),
        })
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
        running.begin_preparing();
        self.cache.forget_if_longer(rest, running.value_bytes(), self.shape.row_bytes);
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
        if cached.preparing > allowance.steps || allowance.steps == 0 {
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
        let length = running.bound_values(cached, rest, self.shape)?;
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
        cached.ran_with = cached.ran_with.max(length);
        let has_virtual_tables = has_virtual_tables(self.shape, cached, rest);
        let ticks = if has_virtual_tables { VIRTUAL_TICKS } else { 1 };
        let budget = running.budget();
        running.begin_statement(budget, ticks, self.handle);
        context::begin_running(cached.verb);
        self.handle.limit_length(length);
        self.has_changed_schema |= nature == Nature::Schema;
        let (share, may_be_larger) = (running.share, running.may_be_larger());
        let mut room = Room::new(&mut self.scratch, self.spill.as_deref_mut());
        // What only reads has its time, and no other limit.
        let counts_nested = has_virtual_tables && running.setting != Setting::Read;
        let (handle, outer) = (self.handle, cached.prepared.raw());
        let mut run = || run_one(cached, mode, arguments, &mut room, running);
        let ran = in_memory(length, share, may_be_larger, || {
            if counts_nested { nested::charged(handle, outer, run) } else { run() }
        });
        self.handle.limit_length(u32::MAX);
        let n_steps = u64::try_from(cached.prepared.steps()).unwrap_or(u64::MAX);
        let is_long = n_steps > LONG_STEPS || matches!(ran, Err(Halt::Long));
        if is_long {
            cached.long_for = LONG_FOR;
        }
        let mut used = charges::charged_steps();
        if running.setting != Setting::Read {
            used = used.saturating_add(n_steps).saturating_add(STATEMENT_STEPS);
        }
        #[cfg(test)]
        charges::USED.set(used);
        let is_over = counts_nested && used > budget;
        let rows = check_ran(ran, is_over, running)?;
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
        // What it counts for must not stop a DROP that is the last of its command: what comes behind it has none left.
        let steps = checked.map_err(Halt::ErrorAfter)?;
        running.steps_left = running.steps_left.saturating_sub(steps);
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

/// What a statement gave that ran, if it may stay; it `is_over` if it took too many steps, a part of which others took.
fn check_ran(
    ran: Result<Option<Rows>, Halt>,
    is_over: bool,
    running: &Running,
) -> Result<Option<Rows>, Halt> {
    let rows = match ran {
        Ok(rows) => rows,
        // Where it was stopped, if it was, and what it met before, differs between replicas; not that it is over.
        Err(halt) if is_over && !matches!(halt, Halt::Fault(_) | Halt::Long) => None,
        Err(halt) => return Err(halt),
    };
    stop_if_failed()?;
    if is_given_up(running) {
        return Err(Halt::Long);
    }
    if is_over {
        return Err(Halt::ErrorAfter(out_of_steps(running)));
    }
    if context::is_rowid_spent() {
        // SQLite would choose the next rowid at random, differently on every replica.
        let message = "rowid 9223372036854775807 is reserved";
        return Err(Halt::ErrorAfter(StatementError::new(message)));
    }
    Ok(rows)
}

/// Whether a part of what `cached`, the first statement of `sql`, does may be done by virtual tables.
fn has_virtual_tables(shape: Shape, cached: &Cached, sql: &str) -> bool {
    // One that changes the schema may name them without being seen to.
    let may_name_them = cached.nature == Nature::Schema && !text::makes_table_or_index(sql);
    shape.virtual_tables > 0 && (cached.seen.virtual_tables > 0 || may_name_them)
}

/// Whether so few pages are given back that it takes a moment only.
fn is_quick_vacuum(command: &Command<'_>) -> bool {
    command.vacuum_pages().is_ok_and(|it| it <= limits::VACUUM_PAGES)
}

#[cfg(test)]
mod tests;
