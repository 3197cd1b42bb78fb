//! What a tenant's statement may do: asked by SQLite once per action while it prepares a statement.
//!
//! Denied is what would reach outside the database, what cannot be equal on all replicas, and the
//! engine's own tables, whose names start with `__debros_`. Lists of what is allowed, not of what is
//! denied, wherever a new release of SQLite may add to them (pragmas, modules).
//!
//! The schema table itself is out of reach. A tenant's `sqlite_master` and `sqlite_schema` are a temporary
//! view, [`VIEW`], which leaves the engine's rows out; SQLite allows no view to be called so, and the name
//! is put in when a statement is prepared ([`crate::sql::text`]). Only from inside a second view behind it,
//! known by its name, may the real table be read. SQLite names a common table expression in the same way,
//! so a text that contains that name is refused before it is prepared.

use rusqlite::hooks::AuthAction;
use rusqlite::hooks::AuthContext;
use rusqlite::hooks::Authorization;

use crate::sql::charges;
use crate::sql::context;
use crate::sql::context::Cost;
use crate::sql::context::Verb;
use crate::sql::preparing;

/// How the names of the engine's tables start, whatever their case.
pub(super) const ENGINE_PREFIX: &str = "__debros_";
/// How the names of both views start. No text of a tenant contains it.
pub(super) const VIEWS_PREFIX: &str = "__debros_vi";
/// The view that stands for the schema table. As long as the names it replaces: positions in a text stay.
pub(super) const VIEW: &str = "__debros_view";
/// The view behind it, which alone may read the schema table.
const FILTER: &str = "__debros_visible";
/// The names of the schema table, the old one and the new one.
pub(super) const SCHEMA_TABLES: [&str; 2] = ["sqlite_master", "sqlite_schema"];

/// Run on a tenant's connection.
pub(super) const CREATE_VIEWS: &str = r"
    CREATE TEMP VIEW __debros_visible AS
    SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_master
    WHERE tbl_name NOT LIKE '\_\_debros\_%' ESCAPE '\' AND name NOT LIKE '\_\_debros\_%' ESCAPE '\';
    CREATE TEMP VIEW __debros_view AS SELECT * FROM temp.__debros_visible";

/// Pragmas that only tell, with an argument or without.
const PRAGMAS: [&str; 8] = [
    "collation_list",
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "table_info",
    "table_xinfo",
];
/// Pragmas that tell without an argument, and would change something with one.
const PRAGMAS_READ: [&str; 3] = ["encoding", "foreign_keys", "page_size"];
/// Pragmas that read or write a field of the database itself.
const PRAGMAS_STORED: [&str; 2] = ["application_id", "user_version"];
/// Virtual tables that keep all they have in the database.
const MODULES: [&str; 7] = ["fts3", "fts4", "fts4aux", "fts5", "fts5vocab", "rtree", "rtree_i32"];
/// Functions that ask the machine or the build, or reach outside.
const FUNCTIONS: [&str; 9] = [
    "fts3_tokenizer",
    "fts5_locale",
    "fts5_source_id",
    "load_extension",
    "sqlite_compileoption_get",
    "sqlite_compileoption_used",
    "sqlite_log",
    "sqlite_source_id",
    "sqlite_version",
];

/// Functions that may ask for the time.
const TIME: [&str; 10] = [
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "julianday",
    "strftime",
    "time",
    "timediff",
    "unixepoch",
];

/// Whether `name` is one of the engine's.
pub(super) fn is_engine_name(name: &str) -> bool {
    name.get(..ENGINE_PREFIX.len()).is_some_and(|it| it.eq_ignore_ascii_case(ENGINE_PREFIX))
}

/// SQLite asks.
pub(super) fn authorize(asked: AuthContext<'_>) -> Authorization {
    if preparing::note_question(asked.accessor) {
        return Authorization::Deny;
    }
    if context::is_engine() || is_allowed(asked) {
        return Authorization::Allow;
    }
    // ANALYZE and REINDEX of everything pass over what is not the tenant's.
    match asked.action {
        AuthAction::Analyze { .. } | AuthAction::Reindex { .. } => Authorization::Ignore,
        _ => Authorization::Deny,
    }
}

fn is_allowed(asked: AuthContext<'_>) -> bool {
    // `CREATE TABLE temp.x` counts as any other table.
    let is_temporary = asked.database_name.is_some_and(|it| it.eq_ignore_ascii_case("temp"));
    let writes = matches!(
        asked.action,
        AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Delete { .. }
    );
    if writes && asked.accessor.is_some() {
        context::note(|it| it.triggers = true);
    }
    if let AuthAction::Read { table_name, .. }
    | AuthAction::Insert { table_name }
    | AuthAction::Update { table_name, .. }
    | AuthAction::Delete { table_name } = asked.action
    {
        context::note_table(table_name);
    }
    match asked.action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Read { table_name, column_name } => {
            may_read(table_name, column_name, asked.accessor)
        }
        // ALTER TABLE looks for uses of the table among the temporary views.
        AuthAction::Update { table_name, .. } => {
            may_write(table_name) && (!is_temporary || context::verb() == Verb::Schema)
        }
        _ if is_temporary => false,
        AuthAction::Insert { table_name } | AuthAction::Delete { table_name } => {
            may_write(table_name)
        }
        AuthAction::CreateTable { table_name: name }
        | AuthAction::CreateView { view_name: name }
        | AuthAction::DropTable { table_name: name }
        | AuthAction::DropView { view_name: name }
        | AuthAction::DropVtable { table_name: name, .. }
        | AuthAction::AlterTable { table_name: name, .. } => !is_engine_name(name),
        AuthAction::CreateIndex { index_name: name, table_name }
        | AuthAction::DropIndex { index_name: name, table_name }
        | AuthAction::CreateTrigger { trigger_name: name, table_name }
        | AuthAction::DropTrigger { trigger_name: name, table_name } => {
            !is_engine_name(name) && !is_engine_name(table_name)
        }
        AuthAction::CreateVtable { table_name, module_name } => {
            !is_engine_name(table_name) && is_one_of(module_name, &MODULES)
        }
        // An index of a constraint is called `sqlite_autoindex_` and its table.
        AuthAction::Analyze { table_name: name } | AuthAction::Reindex { index_name: name } => {
            !mentions_engine(name)
        }
        AuthAction::Function { function_name } => {
            note_function(function_name);
            !is_one_of(function_name, &FUNCTIONS)
        }
        AuthAction::Pragma { pragma_name, pragma_value } => {
            charge_pragma(pragma_name);
            may_ask(pragma_name, pragma_value)
        }
        // ATTACH and DETACH, which VACUUM needs; transactions, which are the engine's; temporary objects,
        // which a replica would lose when it reopens the database; and what is not known.
        _ => false,
    }
}

/// What a function costs, and what it asks of the connection, is known by its name.
fn note_function(name: &str) {
    if name.eq_ignore_ascii_case("changes") {
        context::note(|it| it.changes = true);
    } else if is_one_of(name, &TIME) {
        context::note(|it| it.time = true);
    } else if name.get(..4).is_some_and(|it| it.eq_ignore_ascii_case("json")) {
        context::note(|it| it.cost = Cost::Json);
    }
}

/// A pragma that is read as a table is prepared anew for each row that asks for it, and most of what it does is done then.
/// What virtual tables and `ALTER TABLE` ask, they ask once, or more or less often.
fn charge_pragma(name: &str) {
    let is_table = context::is_running() && context::verb() != Verb::Pragma;
    if is_table && !is_one_of(name, &["data_version", "page_size", "quick_check"]) {
        charges::charge_steps(context::steps_of_pragma());
    }
}

fn may_read(table: &str, column: &str, accessor: Option<&str>) -> bool {
    if accessor == Some(FILTER) || table == VIEW || table == FILTER {
        return true;
    }
    if is_engine_name(table) || table.eq_ignore_ascii_case("dbstat") {
        return false;
    }
    let prefix = table.get(..7).filter(|it| it.eq_ignore_ascii_case("pragma_"));
    if prefix.is_some() {
        let pragma = &table[7..];
        // What FTS5 may ask, a table that it takes its content from may not.
        if pragma.eq_ignore_ascii_case("data_version") || !may_ask(pragma, None) {
            return false;
        }
    }
    let is_schema = is_one_of(table, &SCHEMA_TABLES)
        || is_one_of(table, &["sqlite_temp_master", "sqlite_temp_schema"]);
    // SQLite's own look at the schema that it is about to change. Only `CREATE TABLE` could show it to a
    // tenant, by a SELECT behind AS; what SQLite itself looks for there is the row to fill.
    !is_schema
        || match context::verb() {
            Verb::CreateTable => column.eq_ignore_ascii_case("rowid"),
            Verb::Schema | Verb::Analyze => true,
            Verb::Pragma | Verb::Vacuum | Verb::Other => false,
        }
}

fn may_write(table: &str) -> bool {
    if is_engine_name(table) {
        return false;
    }
    // A kept and a reopened connection would plan differently: SQLite reads them when it opens.
    let is_statistics = table.get(..11).is_some_and(|it| it.eq_ignore_ascii_case("sqlite_stat"));
    !is_statistics || matches!(context::verb(), Verb::Analyze | Verb::Schema)
}

fn may_ask(pragma: &str, value: Option<&str>) -> bool {
    if value.is_some_and(mentions_engine) {
        return false;
    }
    match pragma.to_ascii_lowercase().as_str() {
        "table_list" => {
            context::note(|it| it.table_list = true);
            // As a table, its rows could not be filtered.
            context::verb() == Verb::Pragma
        }
        // FTS5 asks whether its cache is stale.
        "data_version" => context::is_running() && context::verb() != Verb::Pragma,
        // ALTER TABLE asks whether the rows fit a new column's constraint.
        "quick_check" => context::verb() == Verb::Schema,
        pragma if is_one_of(pragma, &PRAGMAS_READ) => value.is_none(),
        pragma => is_one_of(pragma, &PRAGMAS) || is_one_of(pragma, &PRAGMAS_STORED),
    }
}

fn mentions_engine(text: &str) -> bool {
    text.to_ascii_lowercase().contains(ENGINE_PREFIX)
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|it| it.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests;
