//! Requests that have a key run once: what they gave is kept, and given again (R18).
//!
//! ```text
//! __debros_requests, in the tenant's own database
//!   seq      rises by one from record to record
//!   key      the client's; the newest record under it counts
//!   hash     of the request
//!   at       the command's time stamp, which never falls
//!   outcome  what it gave, also if it failed (wire::outcome)
//! ```
//!
//! All is decided by content and by the time stamps of commands, in the transaction of the command itself:
//! replicas agree, and neither a crash nor another leader runs a request twice.
//!
//! Invariants
//! - Records come at the back and leave at the front, so the first and the last `seq` tell their number.
//! - Nothing is written before the command has run: a decision leaves no trace if it is taken again.
//! - Keeping an outcome cannot fail. Large results of a database without room fail before, as statements do;
//!   small ones and errors are kept whatever the database's limit says.
//!
//! Cost: a look-up by key before, one or two rows written after. A database that never sees a key prepares
//! nothing for it. A record that expired leaves with the next requests, two with each.
//!
//! Start reading at [`Database::run_once`].

use std::time::Duration;

use crate::limits;
use crate::sql::apply::Applied;
use crate::sql::apply::Entry;
use crate::sql::connection::PAGE_SIZE;
use crate::sql::context;
use crate::sql::database::Database;
use crate::sql::database::Share;
use crate::sql::fault::Fault;
use crate::sql::fault::SqlError;
use crate::sql::run::Run;
use crate::sql::running::Setting;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;
use crate::sql::statement::Row;
use crate::types::Timestamp;
use crate::wire::bytes::DecodeError;
use crate::wire::command::Command;
use crate::wire::command::RequestKey;
use crate::wire::command::Value;
use crate::wire::outcome;
use crate::wire::rows::Outcome;
use crate::wire::rows::StatementError;
use crate::wire::rows::StatementResult;

/// Expired records that leave with each new one: more than one, so that they become fewer.
const EXPIRED_PER_REQUEST: usize = 2;
/// Bytes of an outcome that a page holds at least.
const PAGE_ROOM: usize = 4_000;
/// Pages that a record may take besides those of its outcome.
const PAGES_BESIDE: usize = 8;
/// Bytes of an outcome that may be read, or deleted, where there is little time: its pages may be on disk only.
const INLINE_SIZE_MAX: i64 = 64 << 10;

/// What a connection has prepared for requests with a key; nothing before the first.
#[derive(Debug, Default)]
pub(super) struct Requests(Option<Box<Statements>>);

#[derive(Debug)]
struct Statements {
    find: Prepared,
    outcome: Prepared,
    front: Prepared,
    drop: Prepared,
    keep: Prepared,
    unbound: Prepared,
    n_pages: Prepared,
    n_free: Prepared,
}

/// The newest record under a key.
#[derive(Clone, Copy, Debug)]
struct Record {
    seq: i64,
    at: i64,
    is_same: bool,
    size: i64,
}

/// The oldest record, and which is the newest.
#[derive(Clone, Copy, Debug)]
struct Front {
    seq: i64,
    at: i64,
    last: i64,
    /// Bytes of the largest outcome that may leave with one request.
    size: i64,
}

impl Front {
    fn n_records(self) -> u64 {
        u64::try_from(self.last.saturating_sub(self.seq)).unwrap_or_default().saturating_add(1)
    }
}

/// Bytes of results that a command may give.
pub(super) fn result_bytes(command: &Command<'_>) -> u64 {
    let kept_max = u64::try_from(limits::REQUEST_OUTCOME_SIZE_MAX).expect("a size");
    let limit = command.stamp.limits.result_bytes;
    if command.request.is_some() { limit.min(kept_max) } else { limit }
}

impl Database {
    /// Run a command, unless its request has run before.
    pub(super) fn run_once(
        &mut self,
        command: &Command<'_>,
        setting: Setting,
        share: Share,
    ) -> Result<Run, Fault> {
        let Some(request) = command.request else {
            return self.run(command, setting, share);
        };
        if let Some(decided) = self.decide(&request, command.stamp.time, share)? {
            return Ok(decided);
        }
        let run = self.run(command, setting, share)?;
        // Alone, a command that failed is rolled back first; see `keep_entry`.
        if let Run::Done(outcome) = &run
            && (setting == Setting::Shared || outcome.is_ok())
        {
            self.keep(&request, command.stamp.time, outcome)?;
        }
        Ok(run)
    }

    /// What becomes of a request that need not run, or not here. Writes nothing.
    fn decide(
        &mut self,
        request: &RequestKey<'_>,
        now: Timestamp,
        share: Share,
    ) -> Result<Option<Run>, Fault> {
        context::idle();
        let statements = self.requests.get(self.handle)?;
        if let Some(record) = statements.find(request)?
            && age(record.at, now) < millis(limits::REQUEST_KEPT)
        {
            return Ok(Some(if !record.is_same {
                Run::Decided(Applied::Done(Err(reused())))
            } else if share == Share::Inline && record.size > INLINE_SIZE_MAX {
                Run::Long { has_run: false }
            } else {
                Run::Decided(Applied::Replayed(statements.outcome(record.seq)?))
            }));
        }
        let Some(front) = statements.front()? else {
            return Ok(None);
        };
        let is_full = front.n_records() >= limits::REQUESTS_KEPT_MAX;
        let wait = millis(limits::REQUEST_KEPT_MIN).saturating_sub(age(front.at, now));
        if is_full && wait > 0 {
            return Ok(Some(Run::Decided(Applied::Done(Err(full(wait))))));
        }
        let may_go = is_full || age(front.at, now) >= millis(limits::REQUEST_KEPT);
        let is_long = share == Share::Inline && may_go && front.size > INLINE_SIZE_MAX;
        Ok(is_long.then_some(Run::Long { has_run: false }))
    }

    /// Whether results that a request just gave can be kept; if not, it fails.
    pub(super) fn check_kept(
        &mut self,
        command: &Command<'_>,
        setting: Setting,
        results: &[StatementResult],
    ) -> Result<Result<(), StatementError>, Fault> {
        if command.request.is_none() || setting == Setting::Read {
            return Ok(Ok(()));
        }
        let size = outcome::size_of_results(results);
        if size <= limits::REQUEST_OUTCOME_SIZE_SMALL {
            return Ok(Ok(()));
        }
        let size_max = limits::REQUEST_OUTCOME_SIZE_MAX;
        if size > size_max {
            let message = format!(
                "result is too large: at most {size_max} bytes for a request with an idempotency key"
            );
            return Ok(Err(StatementError::coded("result_bytes", message)));
        }
        context::unbounded();
        let statements = self.requests.get(self.handle)?;
        // Free pages do not count: it must not matter whether they have been given back yet.
        let n_used =
            number(&mut statements.n_pages)?.saturating_sub(number(&mut statements.n_free)?);
        let n_wanted = u64::try_from(size / PAGE_ROOM + PAGES_BESIDE).expect("a size");
        let n_max = command.stamp.limits.database_bytes / PAGE_SIZE;
        if n_used.saturating_add(n_wanted) > n_max {
            let message = "database is full: no room to keep the result of the request";
            return Ok(Err(StatementError::coded("database_bytes", message)));
        }
        Ok(Ok(()))
    }

    /// Keep what the command of `entry` gave, if its request has a key.
    pub(super) fn keep_entry(&mut self, entry: &Entry, outcome: &Outcome) -> Result<(), Fault> {
        let command = Command::decode(&entry.command).expect("it has been run");
        match command.request {
            Some(request) => self.keep(&request, command.stamp.time, outcome),
            None => Ok(()),
        }
    }

    /// Append a record, within the transaction that is open; the oldest may go.
    fn keep(
        &mut self,
        request: &RequestKey<'_>,
        now: Timestamp,
        outcome: &Outcome,
    ) -> Result<(), Fault> {
        context::unbounded();
        let statements = self.requests.get(self.handle)?;
        // Set again for the next command.
        self.page_limit = None;
        each(&mut statements.unbound, &[], |_| {})?;
        let mut front = statements.front()?;
        let mut n_dropped = 0;
        while let Some(it) = front {
            let is_expired = age(it.at, now) >= millis(limits::REQUEST_KEPT);
            let is_full = it.n_records() >= limits::REQUESTS_KEPT_MAX;
            if !is_full && (!is_expired || n_dropped >= EXPIRED_PER_REQUEST) {
                break;
            }
            each(&mut statements.drop, &[Value::Integer(it.seq)], |_| {})?;
            n_dropped += 1;
            front = statements.front()?;
        }
        let seq = front.map_or(0, |it| it.last).saturating_add(1);
        let mut encoded = Vec::new();
        outcome::encode(outcome, &mut encoded);
        let values = [
            Value::Integer(seq),
            Value::Text(request.key()),
            Value::Blob(request.hash()),
            Value::Integer(now.0),
            Value::Blob(&encoded),
        ];
        each(&mut statements.keep, &values, |_| {})
    }
}

impl Requests {
    fn get(&mut self, handle: Handle) -> Result<&mut Statements, Fault> {
        if self.0.is_none() {
            let prepared = Statements::new(handle);
            let prepared = prepared.map_err(|it| it.into_fault("prepare for requests"))?;
            self.0 = Some(Box::new(prepared));
        }
        Ok(self.0.as_mut().expect("prepared above"))
    }
}

impl Statements {
    fn new(handle: Handle) -> Result<Self, SqlError> {
        let prepare = |sql: &str| {
            let (prepared, _) = Prepared::new(handle, sql)?;
            Ok::<_, SqlError>(prepared.expect("the engine's statements are not blank"))
        };
        context::as_engine(|| {
            Ok(Self {
                // An older one may be there still, expired: it waits for its turn at the front.
                find: prepare(
                    "SELECT seq, at, hash, length(outcome) FROM main.__debros_requests
                     WHERE key = ? ORDER BY seq DESC LIMIT 1",
                )?,
                outcome: prepare("SELECT outcome FROM main.__debros_requests WHERE seq = ?")?,
                front: prepare(&format!(
                    "SELECT seq, at, (SELECT max(seq) FROM main.__debros_requests), length(outcome)
                     FROM main.__debros_requests ORDER BY seq LIMIT {EXPIRED_PER_REQUEST}"
                ))?,
                drop: prepare("DELETE FROM main.__debros_requests WHERE seq = ?")?,
                keep: prepare(
                    "INSERT INTO main.__debros_requests(seq, key, hash, at, outcome)
                     VALUES (?, ?, ?, ?, ?)",
                )?,
                unbound: prepare("PRAGMA main.max_page_count = 4294967294")?,
                n_pages: prepare("PRAGMA main.page_count")?,
                n_free: prepare("PRAGMA main.freelist_count")?,
            })
        })
    }

    fn find(&mut self, request: &RequestKey<'_>) -> Result<Option<Record>, Fault> {
        let mut found = None;
        each(&mut self.find, &[Value::Text(request.key())], |row| {
            found = Some(Record {
                seq: integer(row, 0),
                at: integer(row, 1),
                is_same: row.value(2) == Ok(Value::Blob(request.hash())),
                size: integer(row, 3),
            });
        })?;
        Ok(found)
    }

    fn outcome(&mut self, seq: i64) -> Result<Outcome, Fault> {
        let mut found = Err(DecodeError::Truncated);
        each(&mut self.outcome, &[Value::Integer(seq)], |row| {
            found = match row.value(0) {
                Ok(Value::Blob(it)) => outcome::decode(it),
                _ => Err(DecodeError::Malformed("it is no blob")),
            };
        })?;
        found.map_err(|error| match error {
            DecodeError::Version(_) => Fault::Stop(format!("read a kept outcome: {error}")),
            error => Fault::Fence(format!("a kept outcome is damaged: {error}")),
        })
    }

    fn front(&mut self) -> Result<Option<Front>, Fault> {
        let mut found: Option<Front> = None;
        each(&mut self.front, &[], |row| {
            let size = integer(row, 3);
            if let Some(front) = &mut found {
                front.size = front.size.max(size);
            } else {
                let (seq, at, last) = (integer(row, 0), integer(row, 1), integer(row, 2));
                found = Some(Front { seq, at, last, size });
            }
        })?;
        Ok(found)
    }
}

/// A column that holds nothing else.
fn integer(row: &Row<'_>, at: i32) -> i64 {
    match row.value(at) {
        Ok(Value::Integer(it)) => it,
        _ => 0,
    }
}

/// Run a statement of the engine, which cannot fail but by a fault.
fn each(
    prepared: &mut Prepared,
    values: &[Value<'_>],
    mut on_row: impl FnMut(&Row<'_>),
) -> Result<(), Fault> {
    let ran = context::as_engine(|| {
        prepared.run(values.iter().copied(), |row| {
            on_row(row);
            Ok::<(), SqlError>(())
        })
    });
    ran.map_err(|error| error.into_fault("remember a request"))
}

fn number(prepared: &mut Prepared) -> Result<u64, Fault> {
    let mut found = 0;
    each(prepared, &[], |row| {
        found = u64::try_from(integer(row, 0)).unwrap_or_default();
    })?;
    Ok(found)
}

/// Milliseconds since `at`.
fn age(at: i64, now: Timestamp) -> i64 {
    now.0.saturating_sub(at)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).expect("hours")
}

fn reused() -> StatementError {
    let message = "idempotency key was used for another request";
    StatementError::coded("idempotency_key_reused", message)
}

/// No record may go for another `wait` milliseconds.
fn full(wait: i64) -> StatementError {
    let seconds = u32::try_from(wait.saturating_add(999) / 1_000).unwrap_or(u32::MAX);
    let message = "too many requests with an idempotency key";
    StatementError {
        retry_after_s: Some(seconds),
        ..StatementError::coded("idempotency_keys_full", message)
    }
}

#[cfg(test)]
mod tests;
