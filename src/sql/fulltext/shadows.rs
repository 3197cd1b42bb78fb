//! The tables in which a virtual table keeps what it has: nothing of a tenant's may hang on them.
//!
//! SQLite writes them from inside the virtual table: where values may be longer than the statement's ([`super::stored`]),
//! and at `COMMIT`, where the engine runs, which may do anything and has no bounds. A trigger there would run with all
//! that; so would an action of a foreign key that refers to such a table, and an index on an expression.
//!
//! SQLite itself lets nobody change such a table or put a trigger on it (`SQLITE_DBCONFIG_DEFENSIVE`). What it allows:
//! indexes, foreign keys, and that FTS3 finds its table `_stat` there, whoever made it and whatever it is.

use crate::sql::fault::SqlError;
use crate::sql::schema;
use crate::sql::statement::Handle;
use crate::wire::rows::StatementError;

/// What hangs on such a table. The table `_stat` is one as soon as there is an FTS3 table to which it belongs.
const HANGING: &str = "
    WITH shadow(name) AS (
        SELECT lower(name) FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'
    ), stat(name) AS (
        SELECT substr(name, 1, length(name) - 6) || 'stat' FROM shadow
        WHERE substr(name, -7) = '_segdir'
    ), own(name) AS (SELECT name FROM shadow UNION SELECT name FROM stat)
    SELECT name FROM main.sqlite_master
    WHERE lower(tbl_name) IN own AND (type = 'trigger' OR (type = 'index' AND sql IS NOT NULL))
    UNION ALL
    SELECT name FROM main.sqlite_master
    WHERE lower(name) IN stat AND substr(sql, -36) <> '(id INTEGER PRIMARY KEY, value BLOB)'
    UNION ALL
    SELECT m.name FROM main.sqlite_master AS m, pragma_foreign_key_list(m.name) AS k
    WHERE m.type = 'table' AND lower(k.\"table\") IN own
    LIMIT 1";

/// Why the schema must not stay as it is.
pub(in crate::sql) fn check(handle: Handle) -> Result<Option<StatementError>, SqlError> {
    let hanging = schema::texts(handle, HANGING, None)?;
    Ok(hanging.first().map(|name| {
        let message = format!("{name} may not depend on a table that belongs to a virtual table");
        StatementError::new(message)
    }))
}

#[cfg(test)]
mod tests {
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
