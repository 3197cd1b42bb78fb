//! A command that runs: what its statements may take, where there is little time and where there is all of it, and
//! what an end of one of them means for it.

use rusqlite::ffi;

use crate::limits;
use crate::sql::allocated::Memory;
use crate::sql::cache;
use crate::sql::cache::Cached;
use crate::sql::cache::Nature;
use crate::sql::charges;
use crate::sql::connection::EngineStatements;
use crate::sql::context;
use crate::sql::context::Cost;
use crate::sql::context::Trouble;
use crate::sql::context::Verb;
use crate::sql::database::Share;
use crate::sql::database::no_room_to_read;
use crate::sql::fault::Class;
use crate::sql::fault::Fault;
use crate::sql::fault::SqlError;
use crate::sql::fault::classify;
use crate::sql::fulltext;
use crate::sql::memory;
use crate::sql::preparing::Allowance;
use crate::sql::schema::RANDOM_NAMES;
use crate::sql::schema::Shape;
use crate::sql::statement::Handle;
use crate::sql::text;
use crate::types::DatabaseSize;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::rows::StatementError;

/// Bytes of a value, or a row, that a statement may touch where there is little time: some functions take
/// time in proportion to it, between two calls of the progress handler.
const INLINE_VALUE_MAX: u32 = 32 << 10;
const _: () = assert!(INLINE_VALUE_MAX <= limits::VALUE_BYTES_MIN);
/// The same for a statement with JSON.
const INLINE_JSON_MAX: u32 = 1 << 10;
/// What functions may do where there is little time, in VM instructions: about a millisecond's worth.
const INLINE_WORK_MAX: u64 = 20_000;
/// Pages read and written by a statement where there is little time: two milliseconds' worth, while they are in
/// the memory of the machine.
const INLINE_PAGES_MAX: u32 = 512;
/// Pages of a database that any single step gets through within a millisecond.
const SMALL_PAGES_MAX: u32 = 256;
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
/// Bytes of memory that running a statement may take, beside its result and its longest values.
const RUNNING_MEMORY_MAX: u64 = 64 << 20;
/// Values of the greatest length that there may be at once. (JSON takes twenty times its text.)
const VALUES_IN_MEMORY_MAX: u64 = 32;
/// Bytes that a row of the schema may have, whatever the limit of values: a text, and two names from it.
const SCHEMA_ROW_MAX: u32 = 4 << 20;
/// Bytes that a change of the schema may add to a row of it, beside what its own text has, twice.
const SCHEMA_ROW_ADDED_MAX: usize = 4 << 10;

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

/// Why a command stops before its end.
pub(super) enum Halt {
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

/// A command that runs.
pub(super) struct Running {
    pub(super) setting: Setting,
    /// Index into [`TIERS`].
    pub(super) tier: usize,
    /// As many times as a row of the schema is longer than the values of the tier, steps are fewer.
    pub(super) schema_share: u64,
    /// Bytes of a value that the statement may touch.
    pub(super) length: u32,
    pub(super) share: Share,
    pub(super) limits: CommandLimits,
    /// Whether it is a statement with nothing behind it, which needs no savepoint.
    pub(super) n_statements: u32,
    /// VM instructions it may still take.
    pub(super) steps_left: u64,
    /// Bytes of results it may still give.
    pub(super) bytes_left: u64,
    pub(super) has_savepoint: bool,
    pub(super) has_run: bool,
    pub(super) has_written: bool,
}

impl Running {
    /// Steps that a statement of its tier may take.
    fn steps_max(&self) -> u64 {
        let (tier, limit) = (&TIERS[self.tier], self.limits.steps);
        (limit / tier.share).max(tier.steps_min).min(limit) / self.schema_share
    }

    /// Steps that the next statement may take.
    pub(super) fn budget(&self) -> u64 {
        match self.setting {
            Setting::Read => self.steps_left,
            Setting::Shared | Setting::Alone => self.steps_left.min(self.steps_max()),
        }
    }

    /// What preparing the next statement may take.
    pub(super) fn allowance(&self) -> Allowance {
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

    /// Nothing is known yet of the statement that comes next.
    pub(super) fn begin_preparing(&mut self) {
        self.schema_share = 1;
        self.length = u32::MAX;
    }

    /// Bytes of a value that a statement may touch in its tier, if it does not change the schema.
    pub(super) fn value_bytes(&self) -> u32 {
        match self.setting {
            Setting::Read if self.share == Share::Whole => self.limits.value_bytes,
            _ => self.limits.value_bytes.min(TIERS[self.tier].value_bytes),
        }
    }

    /// How long the values of `cached`, the first statement of `sql`, may be in a schema of this shape; sets what
    /// that means for its steps, and its messages.
    pub(super) fn bound_values(
        &mut self,
        cached: &Cached,
        sql: &str,
        shape: Shape,
    ) -> Result<u32, Halt> {
        let is_tiered = self.setting != Setting::Read && is_tiered(cached, sql);
        let mut length = length_max(cached, self, is_tiered, || schema_row_max(shape, sql, self));
        if cached.nature != Nature::Schema {
            length = self.room_for_blobs(length, cached.blob_bytes, shape.blob_bytes)?;
        }
        self.schema_share = 1;
        if is_tiered {
            self.schema_share = u64::from(length.div_ceil(TIERS[self.tier].value_bytes)).max(1);
        }
        self.length = length;
        Ok(length)
    }

    /// Whether the values of the statement are shorter than where there is time. So are messages then, which SQLite
    /// leaves out if they are longer than a value may be.
    fn has_short_values(&self) -> bool {
        self.length < self.value_bytes()
    }

    /// How long values may be if they may have `length`: SQLite takes a blob that is written in a text for NULL, without
    /// a word, if it is longer. The statement has one of `written` bytes, or none, and the schema one of `stored`,
    /// which the statement may come upon.
    fn room_for_blobs(&self, length: u32, written: usize, stored: usize) -> Result<u32, Halt> {
        let [written, stored] = [written, stored].map(|it| u32::try_from(it).unwrap_or(u32::MAX));
        if written.max(stored) <= length {
            return Ok(length);
        }
        if self.share == Share::Inline {
            return Err(Halt::Long);
        }
        if written <= length {
            return Ok(stored);
        }
        if self.may_be_larger() {
            return Err(Halt::Larger);
        }
        Err(Halt::Error(StatementError::coded("value_bytes", "string or blob too big")))
    }

    /// A statement begins that may take `steps`, as which so many times as much may tick by, on the connection behind
    /// `handle`.
    pub(super) fn begin_statement(&self, steps: u64, ticks: u64, handle: Handle) {
        context::begin_statement(steps.saturating_mul(ticks), self.limits.temp_bytes);
        charges::bound_charges(steps);
        charges::share_lengths(self.limits.steps / self.steps_max().max(1));
        if self.share == Share::Inline {
            charges::bound_work(INLINE_WORK_MAX, INLINE_PAGES_MAX, handle);
        }
        if self.setting == Setting::Read {
            charges::search_freely();
        }
    }

    /// Whether a value that is too long now would not be where more is allowed.
    pub(super) fn may_be_larger(&self) -> bool {
        let is_bound = TIERS[self.tier].value_bytes < self.limits.value_bytes;
        self.setting != Setting::Read && self.share == Share::Whole && is_bound
    }
}

pub(super) fn check_arguments(want: usize, got: usize) -> Result<(), Halt> {
    if want <= got {
        return Ok(());
    }
    let message = format!("not enough args to execute query: want {want} got {got}");
    Err(Halt::Error(StatementError::new(message)))
}

/// Whether a statement may run in `setting`, and show what it shows.
pub(super) fn check_allowed(cached: &Cached, mode: Mode, setting: Setting) -> Result<(), Halt> {
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
pub(super) fn check_inline(
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
fn length_max(
    cached: &Cached,
    running: &Running,
    is_tiered: bool,
    schema_row: impl FnOnce() -> u32,
) -> u32 {
    let limit = running.limits.value_bytes;
    let tier = TIERS[running.tier].value_bytes;
    match (cached.nature, running.share) {
        // Rows of the schema hold texts, which have a bound of their own. Whatever reads the schema
        // (preparing a statement, for one) must not fail for a smaller one.
        (Nature::Schema, _) if is_tiered => limit.min(tier).max(schema_row()),
        (Nature::Schema, _) => limit.max(SCHEMA_ROW_MAX),
        // What is only explained calls no function.
        (_, Share::Inline)
            if cached.seen.cost == Cost::Ordinary || cached.prepared.is_explain() =>
        {
            limit.min(INLINE_VALUE_MAX)
        }
        (_, Share::Inline) => limit.min(INLINE_JSON_MAX),
        (_, Share::Whole) if running.setting == Setting::Read => limit,
        (_, Share::Whole) => limit.min(tier),
    }
}

/// Run a statement whose values have at most `length` bytes, in the memory that there is for it.
pub(super) fn in_memory<T>(
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

pub(super) fn too_late() -> StatementError {
    StatementError::coded("statement_ms", "statement took too long")
}

pub(super) fn out_of_steps(running: &Running) -> StatementError {
    let n_max = running.steps_max();
    let message = match running.tier {
        0 => format!("statement takes too many steps: at most {n_max}"),
        _ => format!("statement takes too many steps for values this long: at most {n_max}"),
    };
    StatementError::coded("statement_steps", message)
}

/// Whether the statement that just ran, or was stopped, was given up by whoever runs it. A read that has all
/// the time there is has used it up instead.
pub(super) fn is_given_up(running: &Running) -> bool {
    let may_go_on = running.setting != Setting::Read || running.share == Share::Inline;
    may_go_on && charges::is_given_up()
}

/// SQLite passes over some failed system calls, such as those that read the statistics. What it gives then is
/// not what it would give on a machine that is well, and the call may have undone the transaction, so that what
/// follows would be committed by itself.
pub(super) fn stop_if_failed() -> Result<(), Halt> {
    if context::trouble() == Trouble::Failed {
        let cause = "a system call failed, and the statement went on".to_owned();
        return Err(Halt::Fault(Fault::Stop(cause)));
    }
    Ok(())
}

/// What an error of SQLite means for the command.
pub(super) fn halt(error: SqlError, running: &Running) -> Halt {
    let is_large = error.code & 0xff == ffi::SQLITE_TOOBIG;
    if context::trouble() == Trouble::None {
        if is_given_up(running) || (is_large && running.share == Share::Inline) {
            return Halt::Long;
        }
        // Its own words may have been too long here.
        if running.has_short_values() && error.has_no_words() {
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
        ffi::SQLITE_FULL if charges::is_out_of_temp() => StatementError::coded(
            "temp_bytes",
            format!(
                "statement needs too much room to work: at most {} bytes",
                running.limits.temp_bytes
            ),
        ),
        ffi::SQLITE_FULL => StatementError::coded("database_bytes", error.message),
        ffi::SQLITE_ERROR if error.message.starts_with(fulltext::REFUSED) => {
            StatementError::coded("statement_match", error.message)
        }
        ffi::SQLITE_AUTH => StatementError::coded("not_authorized", error.message),
        _ => StatementError::new(error.message),
    }
}
