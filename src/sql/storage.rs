//! Keys and values of a namespace, in a table of the engine's own in the tenant's database.
//!
//! ```text
//! __debros_kv
//!   id       SQLite's
//!   key      UTF-8, one row each; order is that of its bytes
//!   expires  unix ms from which on it is as if it were not there, or NULL
//!   value    a blob
//! ```
//!
//! Statements of tenants do not reach it; the quota counts it. A command is one of [`Storage`], applied like any
//! other, with the same savepoints, limits, keys of requests and errors.
//!
//! Time is the command's: what a put says of its time to live is counted from there, and a read compares with its
//! own stamp, which never runs behind that of a write before it. Rows that expired are gone for whoever asks, at once;
//! the room they take is given back by later writes, a bounded number with each ([`limits`]). So there may be at
//! most as many of them as were put, and they become fewer with every put that follows.
//!
//! Invariants
//! - What is decided follows from the table and the command alone, never from how much time there is.
//! - Nothing is written before it is known that what follows may be done here.
//!
//! Cost: a put is one look-up, one for what expired, and one row written.

use std::sync::Arc;

use bytes::Bytes;
use bytes::BytesMut;

use crate::limits;
use crate::sql::context;
use crate::sql::database::Database;
use crate::sql::database::Share;
use crate::sql::fault::SqlError;
use crate::sql::spooled;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;
use crate::sql::statement::Row;
use crate::types::Timestamp;
use crate::wire::bytes::DecodeError;
use crate::wire::command::Command;
use crate::wire::command::Stamp;
use crate::wire::command::Value;
use crate::wire::rows::Column;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementError;
use crate::wire::rows::StatementResult;
use crate::wire::storage::Storage;

/// Bytes of values that may be read, written or removed where there is little time.
const INLINE_SIZE_MAX: i64 = 32 << 10;

/// Keys that may be looked at where there is little time.
const INLINE_KEYS_MAX: i64 = 256;
/// Bytes of them: long ones lie on pages of their own.
const INLINE_KEYS_SIZE_MAX: usize = 64 << 10;

/// Why it is not done.
#[derive(Debug)]
pub(super) enum End {
    /// The command cannot be read.
    Decode(DecodeError),
    /// The client must change it.
    Refused(StatementError),
    /// It may take longer than there is time. Nothing has been written.
    Long,
    /// A statement failed.
    Sql(SqlError),
}

impl From<SqlError> for End {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

/// What a connection has prepared for keys and values; nothing before the first.
#[derive(Debug, Default)]
pub(super) struct Keys(Option<Box<Statements>>);

#[derive(Debug)]
struct Statements {
    find: Prepared,
    read: Prepared,
    expired: Prepared,
    drop: Prepared,
    insert: Prepared,
    update: Prepared,
    list: Prepared,
    value: Arc<[Column]>,
    keys: Arc<[Column]>,
}

/// A row, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    id: i64,
    size: i64,
    /// It has not expired.
    is_live: bool,
}

impl Database {
    /// Do what a command says that is about a key.
    pub(super) fn run_storage(
        &mut self,
        command: &Command<'_>,
        may_write: bool,
        share: Share,
    ) -> Result<StatementResult, End> {
        let storage = command.storage().map_err(End::Decode)?;
        if storage.writes() && !may_write {
            let message = "attempt to change database via query operation";
            return Err(End::Refused(StatementError::new(message)));
        }
        context::unbounded();
        let statements = self.keys.get(self.handle)?;
        let now = command.stamp.time;
        match storage {
            Storage::Put { key, ttl_ms, value } => {
                let size_max = command.stamp.limits.value_bytes;
                Storage::check_value(value.len(), size_max).map_err(End::Refused)?;
                let expires = (ttl_ms > 0).then(|| now.0.saturating_add_unsigned(ttl_ms));
                statements.put(key, value, expires, now, share)?;
                Ok(counts(1))
            }
            Storage::Delete { key } => Ok(counts(statements.delete(key, now, share)?)),
            Storage::Get { key } => {
                let size_max = command.stamp.limits.result_bytes;
                let mut rows = statements.read(key, now, size_max, share, &mut self.scratch)?;
                if let Some(spill) = &mut self.spill {
                    spooled::move_if_large(&mut rows, &mut **spill).map_err(End::Refused)?;
                }
                Ok(StatementResult::Rows(rows))
            }
            Storage::Exists { key } => {
                let is_there = statements.find(key, now)?.is_some_and(|it| it.is_live);
                let mut values = BytesMut::new();
                if is_there {
                    Value::Integer(1).encode(&mut values);
                }
                let columns = Arc::clone(&statements.value);
                let rows =
                    Rows { columns, count: usize::from(is_there), values: values.freeze().into() };
                Ok(StatementResult::Rows(rows))
            }
            Storage::List { prefix, after, n_max } => {
                let rows = statements.list(prefix, after, n_max, &command.stamp, share)?;
                Ok(StatementResult::Rows(rows))
            }
        }
    }
}

impl Keys {
    fn get(&mut self, handle: Handle) -> Result<&mut Statements, SqlError> {
        if self.0.is_none() {
            self.0 = Some(Box::new(Statements::new(handle)?));
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
        let columns = |names: &[&str]| {
            let column = |it: &&str| Column { name: (*it).to_owned(), declared_type: None };
            names.iter().map(column).collect()
        };
        context::as_engine(|| {
            Ok(Self {
                // The length of a value is in the head of its row: nothing else of it is read.
                find: prepare(
                    "SELECT id, length(value), expires FROM main.__debros_kv WHERE key = ?",
                )?,
                read: prepare("SELECT value FROM main.__debros_kv WHERE id = ?")?,
                expired: prepare(
                    "SELECT id, length(value) FROM main.__debros_kv WHERE expires <= ?
                     ORDER BY expires, id LIMIT ?",
                )?,
                drop: prepare("DELETE FROM main.__debros_kv WHERE id = ?")?,
                insert: prepare(
                    "INSERT INTO main.__debros_kv(key, expires, value) VALUES (?, ?, ?)",
                )?,
                update: prepare("UPDATE main.__debros_kv SET expires = ?, value = ? WHERE id = ?")?,
                // An index has all that it wants.
                list: prepare(
                    "SELECT key, expires FROM main.__debros_kv WHERE key >= ? ORDER BY key LIMIT ?",
                )?,
                value: columns(&["value"]),
                keys: columns(&["key", "is_rest"]),
            })
        })
    }

    fn find(&mut self, key: &str, now: Timestamp) -> Result<Option<Found>, SqlError> {
        let mut found = None;
        each(&mut self.find, &[Value::Text(key)], |row| {
            let is_live = is_live(row, 2, now);
            found = Some(Found { id: integer(row, 0), size: integer(row, 1), is_live });
            Ok::<_, SqlError>(())
        })?;
        Ok(found)
    }

    fn put(
        &mut self,
        key: &str,
        value: &[u8],
        expires: Option<i64>,
        now: Timestamp,
        share: Share,
    ) -> Result<(), End> {
        let before = self.find(key, now)?;
        let size = i64::try_from(value.len()).expect("commands are bounded");
        let kept = before.map(|it| it.id);
        let replaced = size.saturating_add(before.map_or(0, |it| it.size));
        self.sweep(limits::STORAGE_EXPIRED_PER_PUT, kept, replaced, now, share)?;
        let expires = expires.map_or(Value::Null, Value::Integer);
        let value = Value::Blob(value);
        match kept {
            Some(id) => run(&mut self.update, &[expires, value, Value::Integer(id)])?,
            None => run(&mut self.insert, &[Value::Text(key), expires, value])?,
        }
        Ok(())
    }

    /// How many there were: one or none.
    fn delete(&mut self, key: &str, now: Timestamp, share: Share) -> Result<u64, End> {
        let before = self.find(key, now)?;
        let (kept, size) = (before.map(|it| it.id), before.map_or(0, |it| it.size));
        self.sweep(limits::STORAGE_EXPIRED_PER_DELETE, kept, size, now, share)?;
        if let Some(it) = before {
            run(&mut self.drop, &[Value::Integer(it.id)])?;
        }
        Ok(u64::from(before.is_some_and(|it| it.is_live)))
    }

    /// Remove some of the rows that have expired, but not `kept`, if that and `size` bytes besides may be done
    /// in the time there is.
    fn sweep(
        &mut self,
        n_max: u32,
        kept: Option<i64>,
        size: i64,
        now: Timestamp,
        share: Share,
    ) -> Result<(), End> {
        let mut ids = Vec::new();
        let mut expired_bytes = 0_i64;
        let bounds = [Value::Integer(now.0), Value::Integer(i64::from(n_max))];
        each(&mut self.expired, &bounds, |row| {
            if expired_bytes < limits::STORAGE_EXPIRED_BYTES && kept != Some(integer(row, 0)) {
                ids.push(integer(row, 0));
                expired_bytes = expired_bytes.saturating_add(integer(row, 1));
            }
            Ok::<_, SqlError>(())
        })?;
        if share == Share::Inline && size.saturating_add(expired_bytes) > INLINE_SIZE_MAX {
            return Err(End::Long);
        }
        for id in ids {
            run(&mut self.drop, &[Value::Integer(id)])?;
        }
        Ok(())
    }

    fn read(
        &mut self,
        key: &str,
        now: Timestamp,
        size_max: u64,
        share: Share,
        scratch: &mut BytesMut,
    ) -> Result<Rows, End> {
        let columns = Arc::clone(&self.value);
        let Some(found) = self.find(key, now)?.filter(|it| it.is_live) else {
            return Ok(Rows { columns, count: 0, values: Bytes::new().into() });
        };
        if u64::try_from(found.size).is_ok_and(|it| it > size_max) {
            let message = format!("result is too large: at most {size_max} bytes");
            return Err(End::Refused(StatementError::coded("result_bytes", message)));
        }
        if share == Share::Inline && found.size > INLINE_SIZE_MAX {
            return Err(End::Long);
        }
        scratch.clear();
        each(&mut self.read, &[Value::Integer(found.id)], |row| {
            row.encode(1, scratch);
            Ok::<_, SqlError>(())
        })?;
        Ok(Rows { columns, count: 1, values: spooled::take(scratch).into() })
    }

    /// The keys, each with a nought; and behind them, with a one, the key to go on from, if there may be more. They
    /// end early where the limits of a result do.
    fn list(
        &mut self,
        prefix: &str,
        after: &str,
        n_max: u32,
        stamp: &Stamp,
        share: Share,
    ) -> Result<Rows, End> {
        /// Why the keys end before those in the table do.
        enum Stop {
            Failed(End),
            /// The rest begins otherwise.
            Done,
            /// There is more.
            Rest,
        }
        impl From<SqlError> for Stop {
            fn from(error: SqlError) -> Self {
                Self::Failed(End::Sql(error))
            }
        }
        let n_max = n_max.min(stamp.limits.result_rows);
        let size_max = stamp.limits.result_bytes;
        // What comes next behind a text is that text and a NUL.
        let first = if after < prefix { prefix.to_owned() } else { format!("{after}\0") };
        let first = if after.is_empty() { prefix.to_owned() } else { first };
        let n_looked_at_max = i64::from(n_max) + i64::from(limits::STORAGE_SKIPPED_MAX);
        let (mut count, mut n_looked_at, mut size_looked_at) = (0, 0, 0);
        let mut last = after.to_owned();
        let mut values = BytesMut::new();
        let bounds = [Value::Text(&first), Value::Integer(n_looked_at_max + 1)];
        let listed = each(&mut self.list, &bounds, |row| {
            let key = match row.value(0) {
                Ok(Value::Text(it)) if it.starts_with(prefix) => it,
                _ => return Err(Stop::Done),
            };
            let is_live = is_live(row, 1, stamp.time);
            let is_full = is_live && count == u64::from(n_max);
            if is_full || n_looked_at == n_looked_at_max {
                return Err(Stop::Rest);
            }
            n_looked_at += 1;
            size_looked_at += key.len();
            let is_long = n_looked_at > INLINE_KEYS_MAX || size_looked_at > INLINE_KEYS_SIZE_MAX;
            if share == Share::Inline && is_long {
                return Err(Stop::Failed(End::Long));
            }
            if is_live {
                let size_before = values.len();
                Value::Text(key).encode(&mut values);
                Value::Integer(0).encode(&mut values);
                if u64::try_from(values.len()).is_ok_and(|it| it > size_max) {
                    values.truncate(size_before);
                    return Err(if count == 0 {
                        let message = format!("result is too large: at most {size_max} bytes");
                        Stop::Failed(End::Refused(StatementError::coded("result_bytes", message)))
                    } else {
                        Stop::Rest
                    });
                }
                count += 1;
            }
            key.clone_into(&mut last);
            Ok(())
        });
        match listed {
            Ok(()) | Err(Stop::Done) => {}
            Err(Stop::Rest) => {
                count += 1;
                Value::Text(&last).encode(&mut values);
                Value::Integer(1).encode(&mut values);
            }
            Err(Stop::Failed(end)) => return Err(end),
        }
        let count = usize::try_from(count).expect("a short list");
        Ok(Rows { columns: Arc::clone(&self.keys), count, values: values.freeze().into() })
    }
}

fn is_live(row: &Row<'_>, at: i32, now: Timestamp) -> bool {
    match row.value(at) {
        Ok(Value::Integer(expires)) => expires > now.0,
        _ => true,
    }
}

/// A column that holds nothing else.
fn integer(row: &Row<'_>, at: i32) -> i64 {
    match row.value(at) {
        Ok(Value::Integer(it)) => it,
        _ => 0,
    }
}

fn counts(rows_affected: u64) -> StatementResult {
    StatementResult::Counts { rows_affected, last_insert_id: 0, returned: None }
}

fn run(prepared: &mut Prepared, values: &[Value<'_>]) -> Result<(), SqlError> {
    each(prepared, values, |_| Ok::<_, SqlError>(()))
}

fn each<E: From<SqlError>>(
    prepared: &mut Prepared,
    values: &[Value<'_>],
    on_row: impl FnMut(&Row<'_>) -> Result<(), E>,
) -> Result<(), E> {
    context::as_engine(|| prepared.run(values.iter().copied(), on_row))
}

#[cfg(test)]
mod tests;
