//! The tables in which a virtual table keeps what it has: nothing of a tenant's may hang on them.
//!
//! SQLite writes them from inside the virtual table: where values may be longer than the statement's ([`super::stored`]),
//! and at `COMMIT`, where the engine runs, which may do anything and has no bounds. A trigger there would run with all
//! that; so would an action of a foreign key that refers to such a table, and an index on an expression.
//!
//! SQLite itself lets nobody change such a table or put a trigger on it (`SQLITE_DBCONFIG_DEFENSIVE`). What it allows:
//! indexes, foreign keys, and that FTS3 finds its table `_stat` there, whoever made it and whatever it is.
//!
//! Which tables these are is told from their names. SQLite's own list (`PRAGMA table_list`) would prepare every view
//! that has not been, again and again if it cannot be, and nothing bounds that here.

use std::ffi::c_int;

use rustc_hash::FxHashSet;

use crate::sql::context;
use crate::sql::fault::SqlError;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;
use crate::sql::statement::Row;
use crate::sql::text;
use crate::wire::command::Value;
use crate::wire::rows::StatementError;

const SCHEMA: &str = "SELECT type, name, tbl_name, sql FROM main.sqlite_master ORDER BY rowid";
const REFERENCES: &str = "
    SELECT m.name, k.\"table\" FROM main.sqlite_master AS m, pragma_foreign_key_list(m.name) AS k
    WHERE m.type = 'table' ORDER BY m.rowid, k.id";

/// What the names of the tables of FTS3 and FTS4 end with; the last is there as soon as it is needed.
const OF_FTS3: &[&str] = &["content", "docsize", "segdir", "segments", STAT];
const OF_FTS5: &[&str] = &["config", "content", "data", "docsize", "idx"];
const OF_RTREE: &[&str] = &["node", "parent", "rowid"];
const STAT: &str = "stat";

/// What is in the schema, in its order.
struct Object {
    kind: String,
    name: String,
    /// The table that it belongs to.
    on: String,
    /// Empty for the index of a constraint.
    sql: String,
}

/// Names of what hangs on such a table, or stands in the place of one, in an order of the schema's.
pub(in crate::sql) fn hanging(handle: Handle) -> Result<Vec<String>, SqlError> {
    let mut objects = Vec::new();
    each(handle, SCHEMA, |row| {
        let [kind, name, on, sql] = [0, 1, 2, 3].map(|at| text_at(row, at));
        objects.push(Object { kind, name, on, sql });
    })?;
    let mut own = FxHashSet::default();
    let mut stats = FxHashSet::default();
    for table in objects.iter().filter(|it| it.kind == "table" && text::is_virtual_table(&it.sql)) {
        for suffix in suffixes(text::module(&table.sql)) {
            let name = format!("{}_{suffix}", table.name.to_ascii_lowercase());
            if suffix == STAT {
                stats.insert(name.clone());
            }
            own.insert(name);
        }
    }
    for view in objects.iter().filter(|it| it.kind == "view") {
        own.remove(&view.name.to_ascii_lowercase());
    }
    let mut found: Vec<_> = objects
        .iter()
        .filter(|it| match it.kind.as_str() {
            "trigger" => own.contains(&it.on.to_ascii_lowercase()),
            "index" => !it.sql.is_empty() && own.contains(&it.on.to_ascii_lowercase()),
            _ => stats.contains(&it.name.to_ascii_lowercase()) && !is_stat(it),
        })
        .map(|it| it.name.clone())
        .collect();
    each(handle, REFERENCES, |row| {
        if own.contains(&text_at(row, 1).to_ascii_lowercase()) {
            found.push(text_at(row, 0));
        }
    })?;
    Ok(found)
}

/// Why a schema must not stay in which `now` hangs, where `before` did: what an older program let in may go one by
/// one.
pub(in crate::sql) fn check(before: &[String], now: &[String]) -> Option<StatementError> {
    now.iter().find(|it| !before.contains(it)).map(|name| {
        let message = format!("{name} may not depend on a table that belongs to a virtual table");
        StatementError::new(message)
    })
}

/// What the names of the tables of a `module` end with. All there are, if it is not known.
fn suffixes(module: Option<&str>) -> impl Iterator<Item = &'static str> {
    let module = module.unwrap_or_default().to_ascii_lowercase();
    let of_it: &[&[_]] = match module.as_str() {
        "fts3" | "fts4" => &[OF_FTS3],
        "fts5" => &[OF_FTS5],
        "rtree" | "rtree_i32" => &[OF_RTREE],
        "fts3tokenize" | "fts4aux" | "fts5vocab" => &[],
        _ => &[OF_FTS3, OF_FTS5, OF_RTREE],
    };
    of_it.iter().copied().flatten().copied()
}

/// Whether a table `_stat` is as SQLite makes it: nothing runs when it is written. Its end alone does not tell: a
/// comment may be the end of a text.
fn is_stat(table: &Object) -> bool {
    let Some(rest) = table.sql.strip_prefix("CREATE TABLE ") else { return false };
    let quoted = |quote: char| {
        let doubled = table.name.replace(quote, &format!("{quote}{quote}"));
        format!("{quote}{doubled}{quote}")
    };
    [table.name.clone(), quoted('\''), quoted('"')].iter().any(|name| {
        rest.strip_prefix(name.as_str()) == Some("(id INTEGER PRIMARY KEY, value BLOB)")
    })
}

fn text_at(row: &Row<'_>, at: c_int) -> String {
    match row.value(at) {
        Ok(Value::Text(it)) => it.to_owned(),
        Ok(_) => String::new(),
        Err(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn each(handle: Handle, sql: &str, mut f: impl FnMut(&Row<'_>)) -> Result<(), SqlError> {
    context::as_engine(|| {
        let (prepared, _) = Prepared::new(handle, sql)?;
        prepared.expect("not blank").run(std::iter::empty(), |row| {
            f(row);
            Ok::<_, SqlError>(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::hanging;
    use crate::sql::context;
    use crate::sql::preparing;
    use crate::sql::preparing::Allowance;
    use crate::sql::schema;
    use crate::sql::testing::Fixture;

    /// How the last of `texts` ends, each a command of its own.
    fn check(texts: &[&str], want: &str) {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE u(a)");
        for text in &texts[..texts.len() - 1] {
            fixture.must(text);
        }
        let printed = fixture.exec(&texts[texts.len() - 1..]).remove(0);
        assert!(printed.starts_with(want), "{texts:?}: {printed}");
    }

    #[test]
    fn nothing_hangs_on_the_tables_of_a_virtual_table() {
        const FTS3: &str = "CREATE VIRTUAL TABLE h USING fts3(b)";
        const FTS5: &str = "CREATE VIRTUAL TABLE f USING fts5(b)";
        const STAT: &str = "CREATE TABLE h_stat(id INTEGER PRIMARY KEY, value BLOB)";
        const TRIGGER: &str =
            "CREATE TRIGGER r AFTER INSERT ON h_stat BEGIN INSERT INTO u VALUES (1); END";
        const CHILD: &str = "CREATE TABLE child(a REFERENCES f_data(id) ON DELETE CASCADE)";
        for texts in [
            &[STAT, TRIGGER, FTS3][..],
            &[STAT, TRIGGER, "CREATE VIRTUAL TABLE g USING fts3(b)", "ALTER TABLE g RENAME TO h"],
            &[STAT, "CREATE INDEX i ON h_stat(hex(value))", FTS3],
            &["CREATE TABLE h_stat(id INTEGER PRIMARY KEY, value CHECK (hex(value) > 'a'))", FTS3],
            &["CREATE VIEW h_stat AS SELECT 1 AS id, 2 AS value", FTS3],
            &["CREATE VIRTUAL TABLE h_stat USING fts5(id, value)", FTS3],
            &[
                "CREATE TABLE h_stat(id INTEGER PRIMARY KEY, value ANY CHECK (length(hex(zeroblob(400000000))) > 0)) STRICT --(id INTEGER PRIMARY KEY, value BLOB)",
                "CREATE VIRTUAL TABLE h USING fts4(b)",
            ],
            &[
                "CREATE VIRTUAL TABLE h_stat USING fts4(id INTEGER PRIMARY KEY, value BLOB)",
                "CREATE VIRTUAL TABLE h USING/* of */\"FTS4\"(b)",
            ],
            &[
                "CREATE VIEW h_stat AS SELECT 1 AS id, 2 AS value --(id INTEGER PRIMARY KEY, value BLOB)",
                "CREATE VIRTUAL TABLE main.[h] USING fts4(b)",
            ],
            &["CREATE TABLE child(a REFERENCES H_Stat(id))", FTS3],
            &[FTS3, "CREATE TABLE child(a REFERENCES h_segments(blockid) ON DELETE CASCADE)"],
            &[FTS3, "CREATE INDEX i ON h_segments(hex(zeroblob(20000000 + blockid)))"],
            &[FTS3, TRIGGER],
            &[FTS5, CHILD],
            &[CHILD, FTS5],
            &[CHILD, "CREATE VIRTUAL TABLE g USING fts5(b)", "ALTER TABLE g RENAME TO F"],
            &[FTS5, "CREATE TABLE c(a)", "ALTER TABLE c ADD COLUMN b REFERENCES f_docsize(id)"],
            &[FTS5, "CREATE INDEX i ON f_data(hex(block))"],
            &[FTS5, "CREATE TRIGGER r AFTER DELETE ON f_data BEGIN SELECT 1; END"],
            &[FTS5, "ALTER TABLE f_config ADD COLUMN a AS (hex(v))"],
            &[
                "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
                "CREATE TABLE child(a REFERENCES r_node(nodeno) ON DELETE CASCADE)",
            ],
        ] {
            check(texts, "error");
        }
    }

    #[test]
    fn names_that_only_look_alike_are_free() {
        for texts in [
            &[
                "CREATE TABLE user_stat(id INTEGER PRIMARY KEY, n CHECK (n > 0))",
                "CREATE INDEX i ON user_stat(abs(n))",
                "CREATE TABLE child(a REFERENCES user_stat(id))",
                "CREATE VIRTUAL TABLE user USING fts5(b)",
            ][..],
            &[
                "CREATE TABLE user_data(id INTEGER PRIMARY KEY, n)",
                "CREATE INDEX i ON user_data(n)",
                "CREATE VIRTUAL TABLE user USING fts4(b)",
                "ALTER TABLE user RENAME TO people",
                "INSERT INTO people VALUES ('x')",
            ],
            &[
                "CREATE TABLE h(a)",
                "CREATE INDEX user_stat ON h(a)",
                "CREATE TRIGGER other_stat AFTER INSERT ON h BEGIN DELETE FROM h; END",
                "CREATE VIEW third_content AS SELECT a FROM h",
                "CREATE TRIGGER r INSTEAD OF DELETE ON third_content BEGIN DELETE FROM h; END",
                "CREATE VIRTUAL TABLE user USING fts3(b)",
                "CREATE VIRTUAL TABLE other USING fts3(b)",
                "CREATE VIRTUAL TABLE third USING fts5(b, content = '')",
            ],
            &[
                "CREATE TABLE \"o'h\"\"_stat\"(id INTEGER PRIMARY KEY, value BLOB)",
                "CREATE TABLE user_stat(id INTEGER PRIMARY KEY, value BLOB)",
                "CREATE VIRTUAL TABLE \"o'h\"\"\" USING fts4(b)",
                "CREATE VIRTUAL TABLE user USING fts3(b)",
                "CREATE VIRTUAL TABLE \"it's\" USING fts4(b)",
                "ALTER TABLE \"it's\" RENAME TO \"isn't \"\"it\"\"\"",
                "CREATE TABLE h(a)",
            ],
            &[
                "CREATE VIRTUAL TABLE user USING fts3(b)",
                "CREATE TABLE other(a PRIMARY KEY REFERENCES u(a))",
                "INSERT INTO user(user) VALUES ('optimize')",
            ],
        ] {
            check(texts, "");
            let mut fixture = Fixture::new();
            for text in texts {
                fixture.must(text);
            }
        }
    }

    /// Do `sql` as an older program let tenants do it.
    fn as_of_old(fixture: &Fixture, sql: &str) {
        context::as_engine(|| schema::number(fixture.database.handle, sql)).unwrap();
    }

    /// A view whose columns take 200 bytes of memory for each of a million, and which ends like this.
    fn large(end: &str) -> String {
        let (ones, names) = (",1".repeat(2_000), ",a".repeat(400));
        format!("CREATE VIEW v AS SELECT 1 IN (1{ones}) AS a FROM t WHERE 1 IN (a{names}){end}")
    }

    #[test]
    fn no_view_is_prepared_in_order_to_tell() {
        // The latter is found to be broken when most of it is done.
        for end in ["", " GROUP BY nosuch"] {
            let mut fixture = Fixture::new();
            fixture.must("CREATE TABLE t(x)");
            fixture.must("CREATE VIRTUAL TABLE f USING fts5(b)");
            as_of_old(&fixture, &large(end));
            let handle = fixture.database.handle;
            let allowance = Allowance { memory: 16 << 20, steps: u64::MAX };
            let (found, effort) = preparing::measured("", allowance, || hanging(handle));
            assert_eq!(found.unwrap().unwrap(), Vec::<String>::new());
            assert!(!effort.needs_memory, "{end}: {effort:?}");
            // SQLite's own list does prepare it.
            let list = "SELECT name FROM pragma_table_list";
            let (_, effort) =
                preparing::measured("", allowance, || schema::texts(handle, list, None));
            assert!(effort.needs_memory, "{end}: {effort:?}");
        }
    }

    #[test]
    fn a_view_that_takes_too_much_is_refused_beside_a_virtual_table() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(x)");
        fixture.must("CREATE VIRTUAL TABLE f USING fts5(b)");
        let printed = fixture.exec(&[&large("")]).remove(0);
        assert!(printed.starts_with("error schema_views"), "{printed}");
        fixture.must("INSERT INTO f VALUES ('x')");
    }

    #[test]
    fn what_an_older_program_let_in_may_go_one_by_one() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE VIRTUAL TABLE f USING fts5(b)");
        fixture.must("INSERT INTO f VALUES ('x')");
        for n in 1..=2 {
            as_of_old(&fixture, &format!("CREATE INDEX i{n} ON f_data(hex(block))"));
        }
        fixture.database.reconnect().unwrap();
        let refused = |sql: &str, fixture: &mut Fixture| {
            let printed = fixture.exec(&[sql]).remove(0);
            assert!(printed.starts_with("error"), "{sql}: {printed}");
        };
        refused("CREATE INDEX i3 ON f_data(hex(id))", &mut fixture);
        fixture.must("CREATE TABLE other(a)");
        fixture.must("DROP INDEX i1");
        refused("CREATE INDEX i1 ON f_data(hex(block))", &mut fixture);
        refused("CREATE TABLE child(a REFERENCES f_data(id))", &mut fixture);
        fixture.must("CREATE TABLE another(a)");
        fixture.must("DROP INDEX i2");
        refused("CREATE INDEX i2 ON f_data(hex(block))", &mut fixture);
        fixture.must("INSERT INTO f VALUES ('y')");
    }

    #[test]
    fn nothing_of_a_tenants_runs_where_the_engine_commits() {
        // The tables are made in one command, before which nothing belongs to a virtual table.
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE u(a)");
        let printed = fixture.exec(&["
            CREATE TABLE child(a REFERENCES f_data(id) ON DELETE CASCADE);
            CREATE TRIGGER r AFTER DELETE ON child BEGIN INSERT INTO u VALUES (1); END;
            CREATE VIRTUAL TABLE f USING fts5(b);
            INSERT INTO child VALUES (10);
            INSERT INTO f VALUES ('x')"]);
        assert!(printed[0].starts_with("error"), "{printed:?}");
        // FTS3 makes a table in the middle of a statement, if it may.
        fixture.must("CREATE VIRTUAL TABLE h USING fts3(b)");
        for sql in [
            "INSERT INTO h(h) VALUES ('automerge=8')",
            "INSERT INTO h(h) VALUES ('merge=8,8')",
            "SELECT optimize(h) FROM h",
        ] {
            fixture.must("INSERT INTO h VALUES ('x')");
            let printed = fixture.exec(&[sql]).remove(0);
            assert!(printed.starts_with("error not_authorized"), "{sql}: {printed}");
        }
    }
}
