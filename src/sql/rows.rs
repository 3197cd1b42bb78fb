//! The rows that one statement gives, encoded as they come, within the limits of its command.

use std::sync::Arc;

use bytes::Bytes;

use crate::sql::authorizer;
use crate::sql::cache::Cached;
use crate::sql::cache::Nature;
use crate::sql::fault::SqlError;
use crate::sql::running::Halt;
use crate::sql::running::Running;
use crate::sql::running::halt;
use crate::sql::spooled::Room;
use crate::sql::statement::Row;
use crate::wire::command::Mode;
use crate::wire::command::Value;
use crate::wire::command::statements::Arguments;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementError;
use crate::wire::rows::StatementResult;

/// Why the rows of a statement stop coming.
pub(super) enum RowsEnd {
    Sql(SqlError),
    Limit(StatementError),
    /// Too large for where it runs.
    Large,
}

impl From<SqlError> for RowsEnd {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

/// Run one statement; give its rows, if it has any that matter.
pub(super) fn run_one(
    cached: &mut Cached,
    mode: Mode,
    arguments: &mut Arguments<'_>,
    room: &mut Room<'_>,
    running: &mut Running,
) -> Result<Option<Rows>, Halt> {
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
    // Of the results before this one, names included.
    let before = running.limits.result_bytes.saturating_sub(running.bytes_left);
    room.begin(running.setting, running.share, before);
    let mut count: usize = 0;
    let ran = cached.prepared.run(arguments, |row: &Row<'_>| {
        if n_columns == 0 || (lists_tables && is_hidden(row)) {
            return Ok(());
        }
        count += 1;
        if count > rows_max {
            let message = format!("result has too many rows: at most {rows_max}");
            return Err(RowsEnd::Limit(StatementError::coded("result_rows", message)));
        }
        let names = count.saturating_mul(names);
        row.encode_each(n_columns, |value| {
            let size = room.size().saturating_add(names).saturating_add(value.size());
            if size > bytes_max {
                return Err(RowsEnd::Limit(too_large(bytes_max)));
            }
            room.put(value, size)
        })?;
        room.on_row(room.size().saturating_add(names))
    });
    match ran {
        Ok(()) => {}
        Err(RowsEnd::Sql(error)) => return Err(halt(error, running)),
        // A statement that writes has done so by its first row.
        Err(RowsEnd::Limit(error)) if cached.nature == Nature::Read => {
            return Err(Halt::Error(error));
        }
        Err(RowsEnd::Limit(error)) => return Err(Halt::ErrorAfter(error)),
        Err(RowsEnd::Large) => return Err(Halt::Long),
    }
    let Some(columns) = columns else {
        return Ok(None);
    };
    // Without a row they stand in front of none.
    let size = room.size().saturating_add(count.max(1).saturating_mul(names));
    if size > bytes_max {
        let error = too_large(bytes_max);
        return Err(match cached.nature {
            Nature::Read => Halt::Error(error),
            _ => Halt::ErrorAfter(error),
        });
    }
    running.bytes_left -= u64::try_from(size).expect("a size");
    let values = room.end().map_err(Halt::Error)?;
    Ok(Some(Rows { columns: Arc::clone(columns), count, values }))
}

fn too_large(bytes_max: usize) -> StatementError {
    StatementError::coded("result_bytes", format!("result is too large: at most {bytes_max} bytes"))
}

/// Whether a row of `PRAGMA table_list` is the engine's.
fn is_hidden(row: &Row<'_>) -> bool {
    let is_temporary = matches!(row.value(0), Ok(Value::Text("temp")));
    is_temporary
        || matches!(row.value(1), Ok(Value::Text(name)) if authorizer::is_engine_name(name))
}

/// What a statement gave that gave no rows, and changed none.
pub(super) fn counts(returned: Option<Rows>) -> StatementResult {
    StatementResult::Counts { rows_affected: 0, last_insert_id: 0, returned }
}

/// What a query gave that has no columns.
pub(super) fn no_rows() -> Rows {
    Rows { columns: [].into(), count: 0, values: Bytes::new().into() }
}
