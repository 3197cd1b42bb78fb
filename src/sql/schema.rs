//! What a schema holds, as far as it decides what statements cost and which may stay.

use std::fmt::Write;
use std::sync::Arc;

use crate::limits;
use crate::sql::authorizer;
use crate::sql::authorizer::ENGINE_PREFIX;
use crate::sql::context;
use crate::sql::context::Tables;
use crate::sql::fault::Class;
use crate::sql::fault::SqlError;
use crate::sql::fault::classify;
use crate::sql::preparing::Text;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;
use crate::sql::text;
use crate::sql::views;
use crate::sql::views::Views;
use crate::wire::command::Value;
use crate::wire::rows::StatementError;

/// Triggers up to which preparing a statement is quick.
const TRIGGERS_QUICK_MAX: u32 = 16;
/// Bytes of a row of the schema beside its names and its text: more than a type, a page and a header take.
const ROW_BYTES_BESIDE: usize = 64;

/// What of a schema makes preparing and running a statement longer than its text says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "what is known of a schema, each by itself")]
pub(super) struct Shape {
    /// All that a tenant created, indexes of constraints included.
    pub(super) objects: usize,
    /// Bytes of the texts of all that.
    pub(super) size: usize,
    /// Virtual tables, which write at COMMIT.
    pub(super) virtual_tables: u32,
    /// Views, whose text is part of every statement that names them.
    pub(super) views: u32,
    /// Triggers, as the views.
    pub(super) triggers: u32,
    /// A view or trigger is not simple, so that preparing what names it may take long.
    pub(super) is_complex: bool,
    /// There are statistics.
    pub(super) statistics: bool,
    /// A text of the schema may call `changes()`. (SQLite asks for permission where it is used by a statement, but
    /// not for a constraint.)
    pub(super) changes: bool,
    /// Bytes of the longest row of the schema, or a few more.
    pub(super) row_bytes: usize,
    /// Bytes of the longest blob that is written in one of its texts, or more.
    pub(super) blob_bytes: usize,
    /// There are virtual tables, or one of the views and triggers may add an instruction that takes time in
    /// proportion to a table.
    pub(super) has_long_steps: bool,
}

impl Shape {
    /// Whether preparing a short statement is quick.
    pub(super) fn is_quick(self) -> bool {
        self.virtual_tables == 0
            && self.views == 0
            && !self.is_complex
            && self.triggers <= TRIGGERS_QUICK_MAX
    }
}

/// Whether a schema has grown beyond its bounds. One that is beyond them may shrink.
pub(super) fn outgrown(before: Shape, now: Shape) -> Option<StatementError> {
    let message = if now.objects > before.objects.max(limits::SCHEMA_OBJECTS_MAX) {
        let n_max = limits::SCHEMA_OBJECTS_MAX;
        format!("schema has too many tables, indexes, views and triggers: at most {n_max}")
    } else if now.size > before.size.max(limits::SCHEMA_SIZE_MAX) {
        let n_max = limits::SCHEMA_SIZE_MAX;
        format!("texts of the schema are too long: at most {n_max} bytes")
    } else {
        return None;
    };
    Some(StatementError::coded("schema_objects", message))
}

/// What is said of columns whose names SQLite makes up by chance.
pub(super) const RANDOM_NAMES: &str =
    "duplicate column name: name the columns of the result apart with AS";

/// Columns that a table may have.
const COLUMNS_MAX: u64 = 2_000;
const VIRTUAL_TABLES: &str = "
    SELECT name FROM main.sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'";

/// Have at hand what SQLite would else read when a statement first needs it, which would then count for more
/// ([`preparing`](crate::sql::preparing)): virtual tables, and the columns of views. Gives what was found out about
/// views; what they count for, where they are to be `counted`.
///
/// An R-tree reads when it begins how many rows it has, by the statistics: one that begins after `ANALYZE` in the
/// same command would be planned otherwise. FTS5 tables read their settings: one that has not done so writes
/// another version of them than one that has, when its index is built anew.
pub(super) fn load(
    handle: Handle,
    shape: Shape,
    tables: &Arc<Tables>,
    counted: bool,
) -> Result<Views, SqlError> {
    context::know(tables);
    context::as_engine(|| {
        // The view that tenants read the schema by.
        if_usable(texts(
            handle,
            &format!("SELECT name FROM temp.{} LIMIT 0", authorizer::VIEW),
            None,
        ))?;
        if shape.virtual_tables > 0 {
            for name in texts(handle, VIRTUAL_TABLES, None)? {
                let name = quoted(&name);
                for sql in [
                    format!("SELECT 1 FROM main.{name} LIMIT 0"),
                    // Whole, so that it is never taken for a text; `{name}('a')` would run through all of the content,
                    // which may be a view of the tenant's, without an end.
                    format!("SELECT 1 FROM main.{name} WHERE main.{name}.{name} MATCH 'a' LIMIT 1"),
                ] {
                    // It may be none that can be searched, or that can be used at all.
                    if_usable(texts(handle, &sql, None))?;
                }
            }
        }
        if shape.views > 0 { views::load(handle, counted) } else { Ok(Views::default()) }
    })
}

/// None where the schema is to blame.
pub(super) fn if_usable<T>(looked: Result<T, SqlError>) -> Result<Option<T>, SqlError> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if classify(error.code, context::trouble()) == Class::Statement => Ok(None),
        Err(error) => Err(error),
    }
}

/// `name` as SQL has it, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The texts that `sql` gives, whose argument is `argument`.
pub(super) fn texts(
    handle: Handle,
    sql: &str,
    argument: Option<&str>,
) -> Result<Vec<String>, SqlError> {
    let mut found = Vec::new();
    context::as_engine(|| {
        let (prepared, _) = Prepared::new(handle, sql)?;
        let argument = argument.map(Value::Text).into_iter();
        prepared.expect("not blank").run(argument, |row| {
            match row.value(0) {
                Ok(Value::Text(it)) => found.push(it.to_owned()),
                Ok(_) => {}
                Err(bytes) => found.push(String::from_utf8_lossy(bytes).into_owned()),
            }
            Ok::<_, SqlError>(())
        })
    })?;
    Ok(found)
}

/// What is in the schema.
pub(super) fn shape(handle: Handle) -> Result<Shape, SqlError> {
    let sql = "SELECT type, sql, name, tbl_name FROM main.sqlite_master";
    let mut shape = Shape::default();
    context::as_engine(|| {
        let (prepared, _) = Prepared::new(handle, sql)?;
        prepared.expect("not blank").run(std::iter::empty(), |row| {
            let sql = match row.value(1) {
                Ok(Value::Text(it)) => it,
                _ => "",
            };
            let bytes = |at| match row.value(at) {
                Ok(Value::Text(it)) => it.len(),
                Ok(_) => 0,
                Err(it) => it.len(),
            };
            let row_bytes = bytes(1) + bytes(2) + bytes(3) + ROW_BYTES_BESIDE;
            shape.row_bytes = shape.row_bytes.max(row_bytes);
            shape.blob_bytes = shape.blob_bytes.max(text::longest_blob(sql));
            shape.changes |= sql.to_ascii_lowercase().contains("changes");
            let is_engines = |at| match row.value(at) {
                Ok(Value::Text(name)) => authorizer::is_engine_name(name),
                _ => false,
            };
            // Which of those there are depends on when the database was opened by which program.
            if !is_engines(2) && !is_engines(3) {
                shape.objects += 1;
                shape.size += sql.len();
            }
            shape.statistics |= row.value(2) == Ok(Value::Text("sqlite_stat4"));
            match row.value(0) {
                Ok(Value::Text("view")) => {
                    shape.views += 1;
                    shape.has_long_steps |= text::may_have_long_step(sql);
                }
                Ok(Value::Text("trigger")) => {
                    shape.triggers += 1;
                    shape.has_long_steps |= text::may_have_long_step(sql);
                    shape.is_complex |= !text::is_simple(sql) || Text::of(sql).is_natural();
                }
                _ if text::is_virtual_table(sql) => {
                    shape.virtual_tables += 1;
                    shape.has_long_steps = true;
                }
                _ => {}
            }
            Ok::<_, SqlError>(())
        })
    })?;
    Ok(shape)
}

/// What the tables are.
pub(super) fn tables(handle: Handle) -> Result<Tables, SqlError> {
    let mut tables = Tables::default();
    let with_index = "SELECT tbl_name FROM main.sqlite_master WHERE type = 'index'";
    for table in texts(handle, with_index, None)? {
        *tables.indexes.entry(table.into_bytes()).or_default() += 1;
    }
    let is_virtual = "SELECT name FROM main.sqlite_master
        WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'";
    for table in texts(handle, is_virtual, None)? {
        tables.virtuals.insert(table.to_ascii_lowercase());
    }
    let sql = "SELECT sql FROM main.sqlite_master WHERE type = 'table'";
    for sql in texts(handle, sql, None)? {
        // One for each column but the first; and some.
        let n_commas = memchr::memchr_iter(b',', sql.as_bytes()).count();
        let width = u64::try_from(n_commas + 1).unwrap_or(u64::MAX);
        tables.width = tables.width.max(width.min(COLUMNS_MAX));
    }
    let with_text = "SELECT name, sql FROM main.sqlite_master WHERE type IN ('view', 'trigger')";
    context::as_engine(|| {
        let (prepared, _) = Prepared::new(handle, with_text)?;
        prepared.expect("not blank").run(std::iter::empty(), |row| {
            if let (Ok(Value::Text(name)), Ok(Value::Text(sql))) = (row.value(0), row.value(1)) {
                let text = tables.texts.entry(name.to_owned()).or_default();
                *text = text.and(Text::of(sql));
            }
            Ok::<_, SqlError>(())
        })
    })?;
    Ok(tables)
}

/// The rows of the schema that belong to the engine, in order.
pub(super) fn engine_schema(handle: Handle) -> Result<String, SqlError> {
    let sql = "SELECT type, name, tbl_name, sql FROM main.sqlite_master ORDER BY rowid";
    let mut found = String::new();
    context::as_engine(|| {
        let (prepared, _) = Prepared::new(handle, sql)?;
        prepared.expect("not blank").run(std::iter::empty(), |row| {
            let row = [0, 1, 2, 3].map(|at| row.value(at));
            let row = format!("{row:?}");
            if row.to_ascii_lowercase().contains(ENGINE_PREFIX) {
                writeln!(found, "{row}").expect("writing to a string");
            }
            Ok::<_, SqlError>(())
        })
    })?;
    Ok(found)
}

/// The one integer that `sql` gives.
pub(super) fn number(handle: Handle, sql: &str) -> Result<i64, SqlError> {
    let mut found = 0;
    context::as_engine(|| {
        let (prepared, _) = Prepared::new(handle, sql)?;
        prepared.expect("not blank").run(std::iter::empty(), |row| {
            if let Ok(Value::Integer(it)) = row.value(0) {
                found = it;
            }
            Ok::<_, SqlError>(())
        })
    })?;
    Ok(found)
}

/// Whether one of `columns` has a name that SQLite made up by chance. To one that is taken it appends `:1`, to
/// the next ones `:2` to `:4`, and to more of them a random number.
pub(super) fn is_any_random<'a>(columns: impl Iterator<Item = &'a str>) -> bool {
    let parts: Vec<_> = columns.filter_map(|it| it.rsplit_once(':')).collect();
    let has = |name: &str, n: &str| {
        parts.iter().any(|(other, it)| *it == n && other.eq_ignore_ascii_case(name))
    };
    parts.iter().any(|(name, n)| {
        let is_number = !n.is_empty() && n.bytes().all(|it| it.is_ascii_digit());
        let others = ["1", "2", "3", "4"];
        is_number && !others.contains(n) && others.iter().all(|it| has(name, it))
    })
}
