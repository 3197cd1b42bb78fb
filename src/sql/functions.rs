//! SQL functions of our own: where SQLite's would differ between replicas or leak between commands.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;

use crate::sql::context;
use crate::sql::statement::Handle;

/// Register them. `handle` is that of `connection`.
pub(super) fn register(connection: &Connection, handle: Handle) -> rusqlite::Result<()> {
    // Innocuous: column defaults, triggers and views may call them.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
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
