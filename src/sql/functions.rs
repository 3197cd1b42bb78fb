//! SQL functions of our own: where SQLite's would differ between replicas or leak between commands; and those that
//! nobody may call.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;

use crate::sql::context;
use crate::sql::statement::Handle;

/// Functions that ask the machine or the build, or reach outside, and their numbers of arguments. The authorizer
/// refuses them where a statement names them; SQLite does not ask it about the expressions of a column that
/// `ALTER TABLE` adds.
const REFUSED: [(&str, i32); 11] = [
    ("fts3_tokenizer", 1),
    ("fts3_tokenizer", 2),
    ("fts5_locale", 2),
    ("fts5_source_id", 0),
    ("load_extension", 1),
    ("load_extension", 2),
    ("sqlite_compileoption_get", 1),
    ("sqlite_compileoption_used", 1),
    ("sqlite_log", 2),
    ("sqlite_source_id", 0),
    ("sqlite_version", 0),
];

/// Register them. `handle` is that of `connection`.
pub(super) fn register(connection: &Connection, handle: Handle) -> rusqlite::Result<()> {
    // Innocuous: column defaults, triggers and views may call them.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    for (name, n_arguments) in REFUSED {
        connection.create_scalar_function(name, n_arguments, flags, move |_| {
            let message = format!("not authorized to use function: {name}");
            Err::<i64, _>(rusqlite::Error::UserFunctionError(message.into()))
        })?;
    }
    connection.create_scalar_function("random", 0, flags, |_| Ok(context::roll().cast_signed()))?;
    connection.create_scalar_function("randomblob", 1, flags, move |call| {
        // As SQLite's: any value counts as an integer, and there is at least one byte.
        let wanted = match call.get_raw(0) {
            ValueRef::Integer(it) => it,
            #[expect(clippy::cast_possible_truncation, reason = "saturates, as SQLite's cast does")]
            ValueRef::Real(it) => it as i64,
            ValueRef::Text(it) | ValueRef::Blob(it) => leading_integer(it),
            ValueRef::Null => 0,
        };
        let wanted = usize::try_from(wanted.max(1)).unwrap_or(usize::MAX);
        if wanted > handle.length_max() {
            return Err(too_big());
        }
        let mut bytes = Vec::with_capacity(wanted.next_multiple_of(8));
        while bytes.len() < wanted {
            bytes.extend_from_slice(&context::roll().to_le_bytes());
        }
        bytes.truncate(wanted);
        Ok(bytes)
    })?;
    #[cfg(test)]
    connection.create_scalar_function(
        "panic_in_a_test",
        0,
        flags,
        |_| -> rusqlite::Result<i64> { panic!("as the test wants it") },
    )?;
    // Since the command began: a connection counts for as long as it happens to be open.
    connection.create_scalar_function("total_changes", 0, flags, move |_| {
        Ok(handle.total_changes() - context::changes_before())
    })
}

fn too_big() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG),
        // With words of its own it would count as any other error.
        None,
    )
}

/// The integer that a text starts with, as `CAST(… AS INTEGER)` has it.
fn leading_integer(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let sign = usize::from(text.starts_with(b"+") || text.starts_with(b"-"));
    let digits = text[sign..].iter().take_while(|it| it.is_ascii_digit()).count();
    let text = str::from_utf8(&text[..sign + digits]).expect("a sign and digits");
    let saturated = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    if digits == 0 { 0 } else { text.parse().unwrap_or(saturated) }
}
