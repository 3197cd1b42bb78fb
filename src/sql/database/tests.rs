//! Databases that are born, opened, filled to their bounds and closed.

use std::fs; // tidy: allow(std::fs) what lies on the disk is what is tested
use std::os::unix::fs::FileExt;

use super::*;
use crate::limits;
use crate::sql::Checkpointer;
use crate::sql::Rest;
use crate::sql::sync_wal;
use crate::sql::testing::Fixture;
use crate::sql::testing::command;
use crate::sql::testing::stamp;
use crate::wire::command::Kind;
use crate::wire::command::Mode;
use crate::wire::command::draft::Draft;

#[test]
fn what_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1.db");
    let vfs = Vfs::system();
    let open = || Database::open(&path, vfs, Role::Tenant).map(drop);
    assert_eq!(open(), Err(OpenError::Missing));
    Database::create(&path, vfs, "CREATE TABLE t(a)").unwrap();
    assert_eq!(Database::create(&path, vfs, ""), Err(OpenError::Exists));
    assert_eq!(open(), Ok(()));
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|it| it.contains("new"))
        .collect();
    assert_eq!(names, [""; 0], "left over");
    let garbage = folder.path().join("2.db");
    fs::write(&garbage, "not a database ".repeat(1_000)).unwrap();
    let error = Database::open(&garbage, vfs, Role::Tenant).unwrap_err();
    assert!(matches!(error, OpenError::Fault(Fault::Fence(_))), "{error}");
    let foreign = folder.path().join("3.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
    let error = Database::open(&foreign, vfs, Role::Tenant).unwrap_err();
    assert!(matches!(error, OpenError::Fault(Fault::Fence(_))), "{error}");
}

#[test]
fn what_cannot_be_looked_at_is_not_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1.db");
    // A loop: the system cannot say what is there.
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = Database::open(&path, Vfs::system(), Role::Tenant).unwrap_err();
    assert!(matches!(error, OpenError::Fault(Fault::Stop(_))), "{error}");
    std::os::unix::fs::symlink("1.db-wal", connection::beside(&path, "-wal")).unwrap();
    let fault = sync_wal(&path, Vfs::system()).unwrap_err();
    assert!(matches!(fault, Fault::Stop(_)), "{fault}");
}

#[test]
fn a_failed_attempt_to_create_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1.db");
    fs::write(connection::beside(&path, ".new"), "half a file").unwrap();
    fs::write(connection::beside(&path, "-wal"), "of another life").unwrap();
    let error = Database::create(&path, Vfs::system(), "CREATE TABEL t(a)").unwrap_err();
    assert!(matches!(error, OpenError::Fault(_)), "{error}");
    Database::create(&path, Vfs::system(), "CREATE TABLE t(a)").unwrap();
    Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
}

#[test]
fn damage_fences_the_database_and_nothing_else() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a)");
    fixture.must("INSERT INTO t VALUES (1)");
    let path = fixture.database.path.clone();
    let mut checkpointer = Checkpointer::open(&path, Vfs::system()).unwrap();
    checkpointer.checkpoint().unwrap().unwrap();
    // The page of the table, in the file, while nothing of it is in memory.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let root = fixture.query("SELECT rootpage FROM sqlite_master WHERE name = 't'");
    let root: u64 = root.trim_matches(|it: char| !it.is_ascii_digit()).parse().unwrap();
    file.write_all_at(&[0xff; 4_096], (root - 1) * PAGE_SIZE).unwrap();
    fixture.database.rest();
    // SQLite's cache is dropped when another connection has written.
    checkpointer.touch().unwrap();
    let insert = command(Mode::Exec, "INSERT INTO t VALUES (2)", &[], &stamp(9));
    let entries = fixture.entries([insert]);
    let fault = fixture.database.apply(&entries).unwrap_err();
    assert!(matches!(fault, Fault::Fence(_)), "{fault}");
}

#[test]
fn a_lock_held_by_another_is_told_and_the_batch_can_be_handed_in_again() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a)");
    let path = fixture.database.path.clone();
    let other = Connection::open(&path).unwrap();
    let insert = |n| command(Mode::Exec, "INSERT INTO t VALUES (2)", &[], &stamp(n));
    let entries = fixture.entries([insert(1), insert(2)]);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batch = fixture.database.apply(&entries).unwrap();
    assert_eq!(batch.rest, Rest::Busy);
    assert_eq!(batch.applied, []);
    assert_eq!(Database::open(&path, Vfs::system(), Role::Tenant).unwrap_err(), OpenError::Busy);
    other.execute_batch("COMMIT").unwrap();
    let batch = fixture.database.apply(&entries).unwrap();
    assert_eq!(batch.rest, Rest::None);
    assert_eq!(batch.applied.len(), 2);
}

#[test]
fn creating_and_dropping_are_applied_without_effect_inside() {
    let mut fixture = Fixture::new();
    let commands =
        [Kind::Create, Kind::Drop].map(|kind| Draft::lifecycle(kind, "tenant").seal(&stamp(1)));
    let outcomes = fixture.apply(commands);
    assert_eq!(outcomes, [Ok(vec![]), Ok(vec![])]);
    assert_eq!(fixture.database.applied(), LogIndex(2));
}

#[test]
fn a_schema_is_bounded_and_may_shrink() {
    let mut fixture = Fixture::new();
    // One less than there may be, most of them indexes of constraints.
    let n_max = limits::SCHEMA_OBJECTS_MAX;
    fixture.must("CREATE TABLE t(a)");
    for (n, n_columns) in [1_999, 1_999, 1_999, 1_999, 1_997].into_iter().enumerate() {
        let columns: Vec<_> = (0..n_columns).map(|it| format!("c{it} UNIQUE")).collect();
        fixture.must(&format!("CREATE TABLE t{n}({})", columns.join(",")));
    }
    assert_eq!(fixture.database.shape.objects, n_max - 1);
    let full = "error schema_objects: schema has too many tables, indexes, views and triggers: \
        at most 10000";
    // With its index it would be two.
    let printed = fixture.exec(&["CREATE TABLE u(a UNIQUE)", "CREATE VIEW v AS SELECT 1"]);
    assert_eq!(printed, [full, "0 rows, id 0"]);
    // A command that goes back to what there was is one that went too far.
    let printed = fixture.exec(&[
        "CREATE VIEW w AS SELECT 1; DROP VIEW v",
        "INSERT INTO t VALUES (1)",
        "ANALYZE",
        "DROP TABLE t; CREATE VIEW w AS SELECT 2",
        "ALTER TABLE t0 RENAME TO u0",
    ]);
    let is_refused: Vec<_> = printed.iter().map(|it| it.starts_with("error schema")).collect();
    assert_eq!(is_refused, [true, false, true, false, false], "{printed:?}");
    let path = fixture.database.path.clone();
    fixture.database = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
    assert_eq!(fixture.exec(&["CREATE VIEW x AS SELECT 1"]), [full]);
    assert_eq!(fixture.database.shape.objects, n_max);
}

#[test]
fn the_texts_of_a_schema_are_bounded() {
    let mut fixture = Fixture::new();
    let mut n = 0;
    let printed = loop {
        // Longer than a hundredth of the bound.
        let comment = "x".repeat(900_000);
        let printed =
            fixture.exec(&[&format!("CREATE VIEW v{n} AS SELECT 1 /* {comment} */")]).remove(0);
        if printed.starts_with("error") {
            break printed;
        }
        n += 1;
    };
    assert_eq!(
        printed,
        "error schema_objects: texts of the schema are too long: at most 16777216 bytes"
    );
    assert_eq!(n, limits::SCHEMA_SIZE_MAX / 900_030);
    fixture.must("DROP VIEW v3");
    fixture.must("CREATE VIEW small AS SELECT 1");
}

#[test]
fn the_engine_may_touch_what_is_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.db");
    let vfs = Vfs::system();
    Database::create(&path, vfs, "CREATE TABLE __debros_nodes(id INTEGER PRIMARY KEY)").unwrap();
    let mut database = Database::open(&path, vfs, Role::Engine).unwrap();
    let sql = "CREATE TABLE __debros_more(a); INSERT INTO __debros_nodes VALUES (7)";
    let entry = |index, sql| crate::sql::Entry {
        index: LogIndex(index),
        command: command(Mode::Exec, sql, &[], &stamp(1)),
    };
    let entries =
        [entry(5, sql), entry(9, "INSERT INTO __debros_more SELECT id FROM __debros_nodes")];
    let batch = database.apply(&entries).unwrap();
    let printed: Vec<_> = batch
        .applied
        .iter()
        .map(|it| match it {
            crate::sql::Applied::Done(outcome) | crate::sql::Applied::Replayed(outcome) => {
                crate::sql::testing::print(outcome)
            }
            crate::sql::Applied::Skipped => "skipped".to_owned(),
        })
        .collect();
    assert_eq!(printed, ["1 rows, id 7", "1 rows, id 1"]);
    assert_eq!(database.applied(), LogIndex(9));
    sync_wal(&path, vfs).unwrap();
}

#[test]
fn the_hash_covers_rowids_values_and_the_schema() {
    let hash = |texts: &[&str]| {
        let mut fixture = Fixture::new();
        fixture.exec(texts);
        fixture.database.content_hash().unwrap()
    };
    let base = ["CREATE TABLE t(a, b)", "INSERT INTO t(rowid, a) VALUES (1, 'x')"];
    assert_eq!(hash(&base), hash(&base));
    for other in [
        ["CREATE TABLE t(a, b)", "INSERT INTO t(rowid, a) VALUES (2, 'x')"],
        ["CREATE TABLE t(a, b)", "INSERT INTO t(rowid, a) VALUES (1, x'78')"],
        ["CREATE TABLE t(a,  b)", "INSERT INTO t(rowid, a) VALUES (1, 'x')"],
    ] {
        assert_ne!(hash(&base), hash(&other), "{other:?}");
    }
}
