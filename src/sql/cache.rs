//! Prepared statements by their text, least recently used first to go; bounded in number and bytes.
//!
//! What a statement is (may it write, what are its columns) is kept with it, and goes with it: after a
//! change of the schema everything is dropped, so that no statement is prepared again behind our back and
//! counted differently on another replica (R12).

use std::borrow::Cow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::sql::authorizer;
use crate::sql::context;
use crate::sql::context::Seen;
use crate::sql::context::Verb;
use crate::sql::fault::SqlError;
use crate::sql::memory;
use crate::sql::preparing;
use crate::sql::preparing::Allowance;
use crate::sql::schema::Shape;
use crate::sql::schema::is_any_random;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;
use crate::sql::text;
use crate::wire::rows::Column;

/// Bytes of memory that preparing a statement may take.
pub(super) const PREPARING_MEMORY_MAX: u64 = 64 << 20;
/// The same where there is little time: some milliseconds' worth.
pub(super) const PREPARING_MEMORY_INLINE_MAX: u64 = 1 << 20;
/// Statements kept per database.
const COUNT_MAX: usize = 128;
/// Bytes of texts and programs kept per database.
const BYTES_MAX: usize = 1 << 20;

/// Instructions that take time in proportion to a table, or to what a virtual table does, and call no
/// progress handler meanwhile (R13).
const LONG_STEPS: [&str; 6] = ["Clear", "Count", "Destroy", "IntegrityCk", "VFilter", "VUpdate"];

/// What a statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// It leaves the database as it is.
    Read,
    /// It changes rows.
    Write,
    /// It changes the schema or its statistics.
    Schema,
    /// It changes a field of the database.
    Pragma,
}

/// A statement and what is known about it.
#[derive(Debug)]
pub(super) struct Cached {
    /// The program.
    pub(super) prepared: Prepared,
    /// Where the text goes on after this statement; none if only blanks follow.
    pub(super) tail: Option<usize>,
    /// What it is.
    pub(super) nature: Nature,
    /// How it starts.
    pub(super) verb: Verb,
    /// Number of values it wants.
    pub(super) n_parameters: usize,
    /// The columns of its rows; none if it returns no rows.
    pub(super) columns: Option<Arc<[Column]>>,
    /// One of them has a name that SQLite made up by chance.
    pub(super) has_random_names: bool,
    /// What the authorizer saw of it.
    pub(super) seen: Seen,
    /// What preparing it counts for, in VM instructions.
    pub(super) preparing: u64,
    /// One of its instructions may take time in proportion to a table, and nothing counts it.
    pub(super) has_long_step: bool,
    /// How often more it is not tried where there is little time.
    pub(super) long_for: u32,
    /// Bytes of the longest blob that is written in its text, or more.
    pub(super) blob_bytes: usize,
    /// Bytes of the longest value that it was ever allowed while it ran; see [`Cache::forget_if_longer`].
    pub(super) ran_with: u32,
    text: Arc<str>,
    size: usize,
    used: u64,
}

impl Cached {
    /// Whether it may be tried where there is little time, in a database that `is_small`. One that was long
    /// is tried again now and then.
    pub(super) fn may_run_inline(&mut self, is_small: bool) -> bool {
        if self.nature == Nature::Schema || (self.has_long_step && !is_small) {
            return false;
        }
        let may = self.long_for == 0;
        self.long_for = self.long_for.saturating_sub(1);
        may
    }
}

/// The statements of one connection.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// Where in `statements` the one of a text is.
    places: FxHashMap<Arc<str>, usize>,
    statements: Vec<Cached>,
    bytes: usize,
    clock: u64,
}

impl Cache {
    /// Whether the first statement of `sql` is at hand.
    pub(super) fn has(&self, sql: &str) -> bool {
        self.places.contains_key(sql)
    }

    /// The first statement of `sql`, prepared now if it is not at hand; none if the text is blank. `shape`
    /// is that of the schema.
    pub(super) fn get(
        &mut self,
        handle: Handle,
        sql: &str,
        shape: Shape,
        allowance: Allowance,
    ) -> Result<Option<&mut Cached>, SqlError> {
        let place = match self.places.get(sql) {
            Some(place) => *place,
            None => match prepare(handle, sql, shape, allowance)? {
                Some(cached) => self.put(cached),
                None => return Ok(None),
            },
        };
        self.clock += 1;
        let cached = &mut self.statements[place];
        cached.used = self.clock;
        Ok(Some(cached))
    }

    /// Drop the statement of `sql` if it asks for the time. With statistics, SQLite asks for it when it prepares a
    /// statement, to guess how many rows are older: another plan, at another time.
    pub(super) fn forget_if_timed(&mut self, sql: &str) {
        if let Some(place) = self.places.get(sql).copied()
            && self.statements[place].seen.time
        {
            self.remove(place);
        }
    }

    /// Drop the statement of `sql` if it ran with values of more than `bytes`, and may hold a string of more, as it
    /// may where a row of the schema has `row_bytes`. SQLite looks how long a string of a text is when the statement
    /// first comes to it, and never again: it would pass now where it does not on another replica.
    pub(super) fn forget_if_longer(&mut self, sql: &str, bytes: u32, row_bytes: usize) {
        // The cheap question first: finding the text takes a look at all of it.
        if usize::try_from(bytes).is_ok_and(|it| sql.len().max(row_bytes) > it)
            && let Some(place) = self.places.get(sql).copied()
            && self.statements[place].ran_with > bytes
        {
            self.remove(place);
        }
    }

    fn remove(&mut self, place: usize) {
        let dropped = self.statements.swap_remove(place);
        self.places.remove(&dropped.text);
        self.bytes -= dropped.size;
        if let Some(moved) = self.statements.get(place) {
            self.places.insert(moved.text.clone(), place);
        }
    }

    /// Drop all statements.
    pub(super) fn clear(&mut self) {
        self.places = FxHashMap::default();
        self.statements = Vec::new();
        self.bytes = 0;
    }

    fn put(&mut self, cached: Cached) -> usize {
        while self.statements.len() >= COUNT_MAX || self.bytes + cached.size > BYTES_MAX {
            // One pass over a bounded table costs less than the preparation that made it necessary.
            let used = self.statements.iter().enumerate().min_by_key(|(_, it)| it.used);
            let Some((oldest, _)) = used else { break };
            self.remove(oldest);
        }
        let place = self.statements.len();
        self.bytes += cached.size;
        self.places.insert(cached.text.clone(), place);
        self.statements.push(cached);
        place
    }
}

fn prepare(
    handle: Handle,
    sql: &str,
    shape: Shape,
    allowance: Allowance,
) -> Result<Option<Cached>, SqlError> {
    if text::is_blank(sql) {
        return Ok(None);
    }
    let verb = text::verb(sql);
    if verb == Verb::Vacuum {
        return Err(denied());
    }
    if text::mentions(sql, authorizer::VIEWS_PREFIX) {
        return Err(denied());
    }
    if sql.contains('\0') {
        // SQLite would take it for the end, and what follows would never be looked at.
        return Err(error(rusqlite::ffi::SQLITE_ERROR, "unrecognized token: \"\\0\""));
    }
    context::begin_preparing(verb);
    let visible = match verb {
        Verb::Other => text::with_visible_schema(sql),
        // What is stored in the schema must stay as it is.
        _ => Cow::Borrowed(sql),
    };
    let prepare = || Prepared::new(handle, &visible);
    let (prepared, effort) = preparing::measured(&visible, allowance, prepare);
    // First: how far it came then is not the same everywhere.
    if effort.needs_memory {
        return Err(error(rusqlite::ffi::SQLITE_NOMEM, memory::TOO_MUCH));
    }
    let Some(prepared) = prepared.filter(|_| !effort.is_out) else {
        return Err(error(rusqlite::ffi::SQLITE_INTERRUPT, "interrupted"));
    };
    let (prepared, end) = prepared?;
    let Some(mut prepared) = prepared else {
        return Ok(None);
    };
    let seen = context::seen();
    let nature = match verb {
        _ if prepared.is_readonly() => Nature::Read,
        Verb::CreateTable | Verb::Schema | Verb::Analyze | Verb::Vacuum => Nature::Schema,
        Verb::Pragma => Nature::Pragma,
        Verb::Other => Nature::Write,
    };
    let mut has_long_step = shape.has_long_steps || text::may_have_long_step(sql);
    // Listing its instructions costs as much as preparing it. One that writes is not listed: listing counts
    // as a change of no rows, which `changes()` would show where the statement was not at hand.
    if has_long_step && nature == Nature::Read && !prepared.is_explain() {
        has_long_step = false;
        prepared.for_each_opcode(|it| has_long_step |= LONG_STEPS.contains(&it))?;
    }
    let columns = (prepared.n_columns() > 0).then(|| prepared.columns());
    let names = columns.iter().flatten().map(|it| it.name.as_str());
    Ok(Some(Cached {
        has_random_names: is_any_random(names),
        has_long_step,
        long_for: 0,
        blob_bytes: text::longest_blob(&sql[..end]),
        ran_with: 0,
        tail: (!text::is_blank(&sql[end..])).then_some(end),
        nature,
        verb,
        n_parameters: prepared.n_parameters(),
        columns: columns.map(Into::into),
        seen,
        preparing: effort.steps,
        text: sql.into(),
        size: sql.len() + prepared.memory(),
        used: 0,
        prepared,
    }))
}

fn denied() -> SqlError {
    error(rusqlite::ffi::SQLITE_AUTH, "not authorized")
}

fn error(code: i32, message: &str) -> SqlError {
    SqlError { code, message: message.to_owned() }
}
