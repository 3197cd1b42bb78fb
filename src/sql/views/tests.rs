//! Views that work and that do not: their bounds, and what each connection knows of them.

use std::path::Path;

use proptest::prelude::*;

use super::BROKEN_STEPS_MAX;
use super::Views;
use super::WORKING_STEPS_MAX;
use crate::sql::Database;
use crate::sql::Role;
use crate::sql::Vfs;
use crate::sql::context;
use crate::sql::schema;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::Stamp;
use crate::wire::command::draft::Draft;

/// Do what an older program let tenants do.
fn as_of_old(fixture: &mut Fixture, texts: impl IntoIterator<Item = String>) {
    let handle = fixture.database.handle;
    context::as_engine(|| {
        schema::number(handle, "BEGIN").unwrap();
        for sql in texts {
            schema::number(handle, &sql).unwrap();
        }
        schema::number(handle, "COMMIT").unwrap();
    });
    fixture.database.reconnect().unwrap();
}

/// What a connection finds out that is opened now.
fn fresh(folder: &Path) -> Views {
    Database::open(&folder.join("1.db"), Vfs::system(), Role::Tenant).unwrap().views
}

fn refused(fixture: &mut Fixture, sql: &str) -> String {
    let printed = fixture.exec(&[sql]).remove(0);
    assert!(printed.starts_with("error schema_views"), "{sql}: {printed}");
    printed
}

fn with_wide_table() -> Fixture {
    let mut fixture = Fixture::new();
    let columns: Vec<_> = (0..1_000).map(|it| format!("c{it}")).collect();
    fixture.must(&format!("CREATE TABLE w({})", columns.join(",")));
    fixture
}

/// A view that takes SQLite 10 ms to find it broken, and asks for no permission.
fn worst(name: &str) -> String {
    let joined: Vec<_> = (0..16).map(|it| format!("w AS w{it}")).collect();
    format!("CREATE VIEW {name} AS SELECT * FROM {} UNION ALL SELECT 1", joined.join(", "))
}

fn each(statements: &[String], steps: u64) -> bytes::Bytes {
    let stamp = Stamp { limits: CommandLimits { steps, ..LIMITS }, ..stamp(1) };
    let mut draft = Draft::new(Results::Last, 0);
    for sql in statements {
        draft.statement(Mode::Exec, sql).unwrap();
    }
    draft.seal(&stamp)
}

#[test]
fn broken_views_are_bounded_in_all() {
    let mut fixture = with_wide_table();
    let n = (0..500).take_while(|n| {
        let printed = fixture.exec(&[&worst(&format!("v{n}"))]).remove(0);
        let is_refused = printed.starts_with("error schema_views: view ");
        assert!(is_refused || !printed.starts_with("error"), "{printed}");
        !is_refused
    });
    let n = n.count();
    assert!((2..40).contains(&n), "{n} were let in");
    let views = &fixture.database.views;
    assert_eq!(views.working, 0);
    assert!(views.broken <= BROKEN_STEPS_MAX, "{views:?}");
    assert_eq!(*views, fresh(fixture.folder.path()));
    // What works, and what breaks nothing, is another matter.
    fixture.must("CREATE VIEW works AS SELECT c1 FROM w");
    fixture.must("CREATE TABLE other(a)");
    let printed = refused(&mut fixture, &worst("more"));
    assert!(printed.contains("view more ") && printed.contains("drop them first"), "{printed}");
}

#[test]
fn the_table_of_two_thousand_views_may_be_dropped_and_made_again() {
    let mut fixture = Fixture::new();
    let columns: Vec<_> = (0..30).map(|it| format!("c{it}")).collect();
    let table = format!("CREATE TABLE t({})", columns.join(","));
    fixture.must(&table);
    fixture.must("CREATE TABLE u(id, name, kind)");
    let view = |n| {
        format!(
            "CREATE VIEW v{n} AS
            SELECT a.c1, a.c2, count(*) AS n, sum(a.c3 * a.c4) AS total, coalesce(a.c5, 'none') AS c5,
                CASE WHEN a.c6 = 'k' THEN a.c7 ELSE a.c8 END AS kind, max(a.c9, a.c10, 1) AS most,
                u.name, lower(u.kind) AS lower_kind, date(a.c11, 'unixepoch') AS day
            FROM t AS a JOIN u ON u.id = a.c12 LEFT JOIN u AS other ON other.id = a.c13
            WHERE a.c14 > 100 AND a.c15 IS NULL AND u.kind IN ('x', 'y', 'z') AND a.c16 = other.name
            GROUP BY a.c1, a.c2 HAVING count(*) > 1 ORDER BY total DESC, a.c1 LIMIT 100 OFFSET {n}"
        )
    };
    as_of_old(&mut fixture, (0..2_000).map(view));
    let before = fixture.database.views.clone();
    assert_eq!(before.broken, 0);
    fixture.must("DROP TABLE t");
    let broken = fixture.database.views.broken;
    assert!(fixture.database.views.working == 0 && broken > 0, "{broken}");
    fixture.must("DROP VIEW v7");
    assert!(fixture.database.views.broken < broken);
    fixture.must(&table);
    fixture.must(&view(7));
    assert_eq!(fixture.database.views, before);
    assert_eq!(before, fresh(fixture.folder.path()));
}

#[test]
fn what_an_older_program_let_in_may_shrink_and_not_grow() {
    let mut fixture = with_wide_table();
    as_of_old(&mut fixture, (0..30).map(|it| worst(&format!("v{it}"))));
    let before = fixture.database.views.clone();
    assert!(before.broken > BROKEN_STEPS_MAX, "{before:?}");
    fixture.must("CREATE TABLE other(a)");
    assert_eq!(fixture.database.views, before);
    refused(&mut fixture, "CREATE VIEW more AS SELECT nosuch FROM w");
    fixture.must("DROP VIEW v3");
    let shrunk = fixture.database.views.clone();
    assert!(BROKEN_STEPS_MAX < shrunk.broken && shrunk.broken < before.broken);
    // What has gone may not come back.
    refused(&mut fixture, &worst("v3"));
    assert_eq!(fixture.database.views, shrunk);
    assert_eq!(shrunk, fresh(fixture.folder.path()));
    fixture.must("DROP VIEW v29");
    fixture.must("CREATE VIEW works AS SELECT c1 FROM w");
}

#[test]
fn many_changes_beside_broken_views_end_by_their_steps() {
    let mut fixture = with_wide_table();
    for n in 0..3 {
        fixture.must(&worst(&format!("v{n}")));
    }
    let steps = fixture.database.views.steps();
    let create: Vec<_> = (0..100).map(|it| format!("CREATE TABLE c{it}(a)")).collect();
    let printed = print(&fixture.apply([each(&create, 4 * steps)])[0]);
    assert!(printed.starts_with("error statement_steps"), "{printed}");
    assert_eq!(print(&fixture.apply([each(&create[..3], 4 * steps)])[0]), "0 rows, id 0");
    // The last of its command may take what it takes; nothing comes behind it.
    let drop = ["DROP VIEW v0".to_owned(), "DROP VIEW v1".to_owned()];
    let printed = print(&fixture.apply([each(&drop, 5_000)])[0]);
    assert!(printed.starts_with("error statement_steps"), "{printed}");
    assert_eq!(print(&fixture.apply([each(&drop[..1], 5_000)])[0]), "0 rows, id 0");
}

#[test]
fn a_view_that_needs_too_much_memory_stays_out_and_holds_up_nothing_else() {
    let mut nested = "SELECT a AS x FROM t".to_owned();
    for _ in 0..40 {
        nested = format!("SELECT x + x AS x FROM ({nested})");
    }
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a)");
    refused(&mut fixture, &format!("CREATE VIEW v AS {nested}"));
    as_of_old(&mut fixture, [format!("CREATE VIEW v AS {nested}")]);
    assert!(fixture.database.views.needing.contains("v"));
    assert_eq!(fixture.database.views, fresh(fixture.folder.path()));
    fixture.must("CREATE TABLE other(a)");
    fixture.must("DROP TABLE other");
    refused(&mut fixture, &format!("CREATE VIEW u AS {nested}"));
    fixture.must("DROP VIEW v");
    refused(&mut fixture, &format!("CREATE VIEW v AS {nested}"));
}

#[test]
fn views_that_work_have_a_bound_of_their_own() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a)");
    let list = vec!["a"; 40_000].join(",");
    let view = |n: usize| format!("CREATE VIEW v{n} AS SELECT 1 IN ({list}) FROM t");
    as_of_old(&mut fixture, (0..6).map(view));
    let before = fixture.database.views.clone();
    assert!(before.working > WORKING_STEPS_MAX && before.broken == 0, "{before:?}");
    refused(
        &mut fixture,
        "CREATE VIEW more AS SELECT max(a, 1, 2, 3), a + a FROM t WHERE 1 IN (a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a)",
    );
    fixture.must("CREATE TABLE other(a)");
    fixture.must("DROP VIEW v0");
    refused(&mut fixture, &view(0));
    assert_eq!(fixture.database.views, fresh(fixture.folder.path()));
}

#[test]
fn a_connection_that_is_kept_knows_what_a_new_one_finds() {
    let mut fixture = Fixture::new();
    for sql in [
        "CREATE TABLE t(a, b)",
        "CREATE VIEW works AS SELECT a, b FROM t",
        "CREATE VIEW \"of works\" AS SELECT x.a FROM works AS x JOIN \"WORKS\" AS y",
        "CREATE VIEW broken AS SELECT nosuch FROM \"of works\"",
        "CREATE VIEW of_broken AS SELECT a FROM works, broken, [Broken]",
        "CREATE VIEW late AS SELECT * FROM later",
        "CREATE VIEW one AS SELECT * FROM two",
        "CREATE VIEW two AS SELECT * FROM one",
        "CREATE TABLE later(a, b, c)",
        "DROP VIEW two",
        "ALTER TABLE t ADD COLUMN c",
        "DROP TABLE t",
        "CREATE TABLE two(a)",
        "DROP TABLE later",
    ] {
        fixture.must(sql);
        assert_eq!(fixture.database.views, fresh(fixture.folder.path()), "{sql}");
    }
    assert!(fixture.database.views.broken > 0);
}

#[test]
fn views_that_bring_too_many_tables_to_a_join_are_bounded() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a)");
    fixture.must("CREATE VIEW v0 AS SELECT a FROM t");
    // Each takes three times as long as the one before, from the seventh on in order to end in an error.
    let n = (0..20).take_while(|n| {
        let sql = format!("CREATE VIEW v{} AS SELECT x.a FROM v{n} AS x, v{n} AS y", n + 1);
        let printed = fixture.exec(&[&sql]).remove(0);
        assert!(!printed.starts_with("error") || printed.contains("schema_views"), "{printed}");
        !printed.starts_with("error")
    });
    let n = n.count();
    assert!((7..14).contains(&n), "{n} were let in");
}

/// One change of a small schema, which may fail.
fn change() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d", "e"]);
    let view = (name(), name(), name(), 0..5).prop_map(|(new, one, other, kind)| {
        let query = match kind {
            0 => format!("SELECT * FROM {one}"),
            1 => format!("SELECT x.x, y.y FROM {one} AS x JOIN \"{other}\" AS y"),
            2 => format!("SELECT x, (SELECT y FROM {other}) AS y FROM {one} GROUP BY x"),
            3 => format!("WITH q AS (SELECT * FROM {one}) SELECT q.x, 1 AS y FROM q, {other}"),
            _ => "SELECT 1 AS x, 2 AS y".to_owned(),
        };
        format!("CREATE VIEW {new} AS {query}")
    });
    prop_oneof![
        4 => view,
        2 => name().prop_map(|it| format!("CREATE TABLE {it}(x, y)")),
        2 => name().prop_map(|it| format!("DROP VIEW {it}")),
        1 => name().prop_map(|it| format!("DROP TABLE {it}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_changes_both_connections_know_the_same(changes in prop::collection::vec(change(), 1..25)) {
        let mut fixture = Fixture::new();
        for sql in &changes {
            fixture.exec(&[sql]);
            prop_assert_eq!(&fixture.database.views, &fresh(fixture.folder.path()), "{:?}", changes);
        }
    }
}
