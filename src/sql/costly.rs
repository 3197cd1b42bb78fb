//! Functions that take time in proportion to the product of their arguments' lengths, and call no progress
//! handler meanwhile: charged for it before they run (R12).
//!
//! One call of `replace()` on two megabytes would otherwise hold a core for minutes. The functions
//! themselves stay SQLite's: each thread has a connection to nothing where they are called, so that all
//! their corner cases are the original's. `LIKE` and `GLOB` are elsewhere ([`crate::sql::like`]).

#![expect(unsafe_code, reason = "values pass between two connections without being looked at")]

use std::cell::RefCell;
use std::ffi::CStr;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;

use rusqlite::Connection;
use rusqlite::ffi;

use crate::sql::allocated;
use crate::sql::charges;
use crate::sql::fault::SqlError;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;

/// The functions, their number of arguments, and what calls SQLite's own.
const FUNCTIONS: [(&CStr, c_int, &str); 7] = [
    (c"instr", 2, "SELECT instr(?, ?)"),
    (c"replace", 3, "SELECT replace(?, ?, ?)"),
    (c"trim", 2, "SELECT trim(?, ?)"),
    (c"ltrim", 2, "SELECT ltrim(?, ?)"),
    (c"rtrim", 2, "SELECT rtrim(?, ?)"),
    (c"unhex", 2, "SELECT unhex(?, ?)"),
    (c"json_patch", 2, "SELECT json_patch(?, ?)"),
];
/// Where `json_patch` is, whose result is marked as JSON for the function around.
const JSON_PATCH: usize = 6;
const JSON_SUBTYPE: u32 = 74;
/// Products of lengths, in bytes, that take about as long as one instruction.
const PRODUCT_PER_STEP: u64 = 8;

/// A connection where the functions are SQLite's own.
struct Pristine {
    // In this order: statements are finalized before their connection is closed.
    statements: Vec<Prepared>,
    _connection: Connection,
}

thread_local! {
    static PRISTINE: RefCell<Option<Pristine>> = const { RefCell::new(None) };
}

impl Pristine {
    fn new() -> Result<Self, SqlError> {
        let connection = Connection::open_in_memory()?;
        let handle = Handle::new(&connection);
        let prepare = |(_, _, sql): &(_, _, &str)| {
            let (prepared, _) = Prepared::new(handle, sql)?;
            Ok::<_, SqlError>(prepared.expect("not blank"))
        };
        let statements = FUNCTIONS.iter().map(prepare).collect::<Result<_, _>>()?;
        Ok(Self { statements, _connection: connection })
    }
}

/// Register them on a connection.
pub(super) fn register(handle: Handle) -> Result<(), SqlError> {
    let flags = ffi::SQLITE_UTF8
        | ffi::SQLITE_INNOCUOUS
        | ffi::SQLITE_DETERMINISTIC
        | ffi::SQLITE_RESULT_SUBTYPE;
    for (at, (name, n, _)) in FUNCTIONS.iter().enumerate() {
        // SAFETY: the connection is open, the name is a C string, and the argument only a number.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                handle.raw(),
                name.as_ptr(),
                *n,
                flags,
                ptr::without_provenance_mut::<c_void>(at),
                Some(call),
                None,
                None,
                None,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(handle.error(code));
        }
    }
    Ok(())
}

unsafe extern "C" fn call(
    context: *mut ffi::sqlite3_context,
    n: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes the function's context and `n` valid values. The statement belongs to this
    // thread and is not running: none of these functions calls another.
    unsafe {
        let at = ffi::sqlite3_user_data(context).addr();
        let arguments = std::slice::from_raw_parts(arguments, usize::try_from(n).unwrap_or(0));
        let length = |it: *mut ffi::sqlite3_value| {
            // A number has a short text. (Asking for its length would turn it into one.)
            match ffi::sqlite3_value_type(it) {
                ffi::SQLITE_TEXT | ffi::SQLITE_BLOB => {
                    u64::try_from(ffi::sqlite3_value_bytes(it)).unwrap_or(0)
                }
                _ => 32,
            }
        };
        let product = length(arguments[0]).saturating_mul(length(arguments[1]));
        if charges::charge_function(product / PRODUCT_PER_STEP) {
            ffi::sqlite3_result_error_code(context, ffi::SQLITE_INTERRUPT);
            return;
        }
        PRISTINE.with_borrow_mut(|pristine| {
            if pristine.is_none() {
                // Not at the cost of the statement that happens to be the first.
                *pristine = allocated::without_bound(Pristine::new).ok();
            }
            let Some(pristine) = pristine else {
                ffi::sqlite3_result_error_nomem(context);
                return;
            };
            let statement = pristine.statements[at].raw();
            // No value is longer there than it may be here.
            let limit = ffi::SQLITE_LIMIT_LENGTH;
            let length = ffi::sqlite3_limit(ffi::sqlite3_context_db_handle(context), limit, -1);
            ffi::sqlite3_limit(ffi::sqlite3_db_handle(statement), limit, length);
            let mut code = ffi::SQLITE_OK;
            for (place, value) in (1..).zip(arguments) {
                if code == ffi::SQLITE_OK {
                    code = ffi::sqlite3_bind_value(statement, place, *value);
                }
            }
            if code == ffi::SQLITE_OK {
                code = ffi::sqlite3_step(statement);
            }
            if code == ffi::SQLITE_ROW {
                ffi::sqlite3_result_value(context, ffi::sqlite3_column_value(statement, 0));
                if at == JSON_PATCH {
                    ffi::sqlite3_result_subtype(context, JSON_SUBTYPE);
                }
            } else {
                let handle = ffi::sqlite3_db_handle(statement);
                ffi::sqlite3_result_error(context, ffi::sqlite3_errmsg(handle), -1);
                if code & 0xff != ffi::SQLITE_ERROR {
                    ffi::sqlite3_result_error_code(context, code);
                }
            }
            ffi::sqlite3_reset(statement);
            ffi::sqlite3_clear_bindings(statement);
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::testing::Fixture;
    use crate::sql::testing::LIMITS;
    use crate::sql::testing::command;
    use crate::sql::testing::print;
    use crate::sql::testing::stamp;
    use crate::wire::command::CommandLimits;
    use crate::wire::command::Mode;
    use crate::wire::command::Stamp;

    #[test]
    fn they_answer_as_sqlites_own() {
        let plain = rusqlite::Connection::open_in_memory().unwrap();
        let mut fixture = Fixture::new();
        for expression in [
            "instr('haystack', 'st')",
            "instr(x'0102ff', x'ff')",
            "instr(12345, 34)",
            "instr(NULL, 'x')",
            "replace('aXbX', 'X', 'yy')",
            "replace(1.5, '.', ',')",
            "replace('a', '', 'b')",
            "replace('a', NULL, 'b')",
            "trim('xxaxx', 'x')",
            "trim('  a ')",
            "ltrim('äöa', 'öä')",
            "rtrim(x'6120', ' ')",
            "quote(unhex('61-62', '-'))",
            "unhex('6')",
            "json_patch('{\"a\":1,\"b\":2}', '{\"a\":9,\"b\":null}')",
            "json_object('x', json_patch('{\"a\":1}', '{\"c\":3}'))",
            "hex(replace(CAST(x'61ff62' AS TEXT), 'b', 'c'))",
            "json_patch('{', '{}')",
            "typeof(trim(NULL, 'x'))",
        ] {
            let sql = format!("SELECT coalesce(CAST(({expression}) AS TEXT), 'null') AS v");
            let want = plain.query_row(&sql, [], |row| row.get::<_, String>(0));
            let want = match want {
                Ok(want) => format!("[v]('{want}')"),
                Err(rusqlite::Error::SqliteFailure(_, Some(message))) => {
                    format!("error: {message}")
                }
                Err(error) => panic!("{expression}: {error}"),
            };
            assert_eq!(fixture.query(&sql), want, "{expression}");
        }
    }

    #[test]
    fn what_would_take_minutes_is_refused_at_once() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(a)");
        for call in [
            "instr(x, y || 'b')",
            "replace(x, y || 'b', '')",
            "rtrim(x, y)",
            "unhex(x, y)",
            "json_patch(x, y)",
        ] {
            let from =
                "(SELECT printf('%.*c', 900000, 'a') AS x, printf('%.*c', 400000, 'a') AS y)";
            let write = format!("INSERT INTO t SELECT {call} FROM {from}");
            let read = format!("SELECT {call} FROM {from}");
            let stamp = Stamp { limits: CommandLimits { steps: 1_000_000, ..LIMITS }, ..stamp(1) };
            let commands = [
                command(Mode::Exec, "INSERT INTO t VALUES (replace('x', 'x', 'y'))", &[], &stamp),
                command(Mode::Exec, &write, &[], &stamp),
            ];
            let printed: Vec<_> = fixture.apply(commands).iter().map(print).collect();
            assert!(printed[0].starts_with("1 rows"), "{printed:?}");
            assert!(printed[1].starts_with("error statement_steps"), "{call}: {printed:?}");
            let read = command(Mode::Query, &read, &[], &stamp);
            let printed = print(&fixture.database.read(&[read], &mut |_| false).unwrap()[0]);
            assert!(printed.starts_with("error statement_"), "{call}: {printed}");
        }
        let huge = "SELECT replace(hex(zeroblob(10000)), '0', hex(zeroblob(100000)))";
        assert_eq!(fixture.query(huge), "error value_bytes: string or blob too big");
        assert_eq!(
            fixture.query("SELECT count(*), min(a), max(a) FROM t"),
            "[count(*),min(a),max(a)](5,'y','y')"
        );
    }
}
