//! Keys and values, as commands.

use std::fmt::Write;

use bytes::Bytes;
use expect_test::expect;

use super::*;
use crate::sql::Ask;
use crate::sql::Read;
use crate::sql::Rest;
use crate::sql::Role;
use crate::sql::Vfs;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::types::LogIndex;
use crate::wire::command::CommandLimits;
use crate::wire::command::RequestKey;
use crate::wire::command::Stamp;
use crate::wire::command::draft::Draft;

const SECOND: i64 = 1_000;

/// `at` milliseconds after the start.
fn at(ms: i64) -> Stamp {
    let stamp = stamp(1);
    Stamp { time: Timestamp(stamp.time.0 + ms), ..stamp }
}

fn command(ms: i64, what: &Storage<'_>) -> Bytes {
    Draft::storage(what).unwrap().seal(&at(ms))
}

fn put(ms: i64, key: &str, ttl_ms: u64, value: &[u8]) -> Bytes {
    command(ms, &Storage::Put { key, ttl_ms, value })
}

fn delete(ms: i64, key: &str) -> Bytes {
    command(ms, &Storage::Delete { key })
}

impl Fixture {
    fn write(&mut self, command: Bytes) -> String {
        print(&self.apply([command])[0])
    }

    fn ask(&mut self, ms: i64, what: &Storage<'_>) -> String {
        print(&self.database.read(&[command(ms, what)], &mut |_| false).unwrap()[0])
    }

    fn get(&mut self, ms: i64, key: &str) -> String {
        self.ask(ms, &Storage::Get { key })
    }

    fn list(&mut self, ms: i64, prefix: &str, after: &str, n_max: u32) -> String {
        let all = self.ask(ms, &Storage::List { prefix, after, n_max });
        all.strip_prefix("[key,is_rest]").unwrap().to_owned()
    }

    /// Rows of the table, expired or not.
    fn n_rows(&mut self) -> i64 {
        let sql = "SELECT count(*) FROM main.__debros_kv";
        let (prepared, _) =
            context::as_engine(|| Prepared::new(self.database.handle, sql)).unwrap();
        context::as_engine(|| prepared.unwrap().number()).unwrap()
    }
}

#[test]
fn values_are_set_read_and_removed() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.get(0, "a"), "[value]");
    assert_eq!(fixture.write(put(0, "a", 0, b"\0\xff")), "1 rows, id 0");
    assert_eq!(fixture.write(put(0, "a\0b", 0, b"")), "1 rows, id 0");
    assert_eq!(fixture.get(0, "a"), "[value]([00, ff])");
    assert_eq!(fixture.get(0, "a\0b"), "[value]([])");
    assert_eq!(fixture.get(0, "A"), "[value]");
    assert_eq!(fixture.write(put(1, "a", 0, b"again")), "1 rows, id 0");
    assert_eq!(fixture.get(1, "a"), "[value]([61, 67, 61, 69, 6e])");
    assert_eq!(fixture.ask(1, &Storage::Exists { key: "a" }), "[value](1)");
    assert_eq!(fixture.write(delete(2, "a")), "1 rows, id 0");
    assert_eq!(fixture.write(delete(2, "a")), "0 rows, id 0");
    assert_eq!(fixture.ask(2, &Storage::Exists { key: "a" }), "[value]");
    assert_eq!(fixture.n_rows(), 1);
}

#[test]
fn time_is_that_of_the_command() {
    let mut fixture = Fixture::new();
    fixture.write(put(0, "a", 10, b"x"));
    for (ms, want) in [(0, "[value]([78])"), (9, "[value]([78])"), (10, "[value]"), (11, "[value]")]
    {
        assert_eq!(fixture.get(ms, "a"), want, "{ms}");
    }
    assert_eq!(fixture.ask(10, &Storage::Exists { key: "a" }), "[value]");
    assert_eq!(fixture.list(9, "", "", 9), "('a',0)");
    assert_eq!(fixture.list(10, "", "", 9), "");
    // It is as if it were not there, also for whoever removes it.
    assert_eq!(fixture.write(delete(10, "a")), "0 rows, id 0");
    assert_eq!(fixture.n_rows(), 0);
    // The last put counts.
    fixture.write(put(20, "a", 10, b"x"));
    fixture.write(put(21, "a", 0, b"y"));
    assert_eq!(fixture.get(SECOND, "a"), "[value]([79])");
    fixture.write(put(SECOND, "a", u64::MAX, b"z"));
    assert_eq!(fixture.get(i64::MAX / 2, "a"), "[value]([7a])");
}

#[test]
fn what_expired_leaves_with_what_is_written() {
    let mut fixture = Fixture::new();
    for n in 0..100 {
        fixture.write(put(0, &format!("old{n}"), 10, b"x"));
    }
    fixture.write(put(0, "kept", 0, b"x"));
    assert_eq!(fixture.n_rows(), 101);
    fixture.write(put(10, "new", 0, b"x"));
    assert_eq!(fixture.n_rows(), 102 - 4);
    // One that expired and is put again is not lost.
    fixture.write(put(10, "old4", 0, b"x"));
    assert_eq!(fixture.get(20, "old4"), "[value]([78])");
    fixture.write(delete(20, "nothing"));
    fixture.write(delete(20, "nothing"));
    assert_eq!(fixture.n_rows(), 3);
    assert_eq!(fixture.list(20, "", "", 9), "('kept',0)('new',0)('old4',0)");
    // Large ones leave one by one.
    for n in 0..3 {
        fixture.write(put(20, &format!("large{n}"), 10, &vec![0; 1 << 20]));
    }
    fixture.write(delete(30, "nothing"));
    assert_eq!(fixture.n_rows(), 5);
}

#[test]
fn lists_are_cut_and_go_on() {
    let mut fixture = Fixture::new();
    for key in ["a", "a%", "a_", "ab", "abc", "b", "ü", "\u{10ffff}", "A"] {
        fixture.write(put(0, key, 0, b"x"));
    }
    for n in 0..3_000 {
        fixture.write(put(0, &format!("gone{n:04}"), 1, b"x"));
    }
    fixture.write(put(0, "gonf", 0, b"x"));
    let mut printed = String::new();
    for (prefix, after, n_max) in [
        ("", "", 3),
        ("", "a%", 2),
        ("a", "", 3),
        ("a", "a_", 3),
        ("a", "b", 3),
        ("b", "a", 3),
        ("a%", "", 3),
        ("ü", "", 1),
        ("\u{10ffff}", "", 1),
        ("", "ü", 1),
        ("x", "", 5),
        ("ab", "", 2),
        ("ab", "", 1),
        ("", "", 0),
        ("gone", "", 5),
        ("gon", "gone1999", 5),
    ] {
        let listed = fixture.list(5, prefix, after, n_max);
        writeln!(printed, "{prefix:?} behind {after:?}, {n_max}: {listed}").unwrap();
    }
    expect![[r#"
        "" behind "", 3: ('A',0)('a',0)('a%',0)('a%',1)
        "" behind "a%", 2: ('a_',0)('ab',0)('ab',1)
        "a" behind "", 3: ('a',0)('a%',0)('a_',0)('a_',1)
        "a" behind "a_", 3: ('ab',0)('abc',0)
        "a" behind "b", 3: 
        "b" behind "a", 3: ('b',0)
        "a%" behind "", 3: ('a%',0)
        "ü" behind "", 1: ('ü',0)
        "\u{10ffff}" behind "", 1: ('􏿿',0)
        "" behind "ü", 1: ('􏿿',0)
        "x" behind "", 5: 
        "ab" behind "", 2: ('ab',0)('abc',0)
        "ab" behind "", 1: ('ab',0)('ab',1)
        "" behind "", 0: ('',1)
        "gone" behind "", 5: ('gone1004',1)
        "gon" behind "gone1999", 5: ('gonf',0)
    "#]]
    .assert_eq(&printed);
    // From page to page nothing is missed.
    let (mut after, mut keys) = (String::new(), Vec::new());
    loop {
        let page = fixture.list(5, "", &after, 2);
        let rows = page.trim_matches(['(', ')']).split(")(");
        let rows: Vec<_> = rows.map(|it| it.rsplit_once(',').unwrap()).collect();
        let last = rows[rows.len() - 1];
        let listed = rows.iter().filter(|(_, is_rest)| *is_rest == "0");
        keys.extend(listed.map(|(key, _)| key.trim_matches('\'').to_owned()));
        if last.1 == "0" {
            break;
        }
        last.0.trim_matches('\'').clone_into(&mut after);
    }
    assert_eq!(keys.join(" "), "A a a% a_ ab abc b gonf ü \u{10ffff}");
}

#[test]
fn lists_end_where_results_must() {
    let mut fixture = Fixture::new();
    for key in ["a", "b", "c", "d"] {
        fixture.write(put(0, key, 0, b"x"));
    }
    let mut list = |limits: CommandLimits, after| {
        let what = Storage::List { prefix: "", after, n_max: 9 };
        let one = Draft::storage(&what).unwrap().seal(&Stamp { limits, ..at(0) });
        print(&fixture.database.read(&[one], &mut |_| false).unwrap()[0])
    };
    let two = CommandLimits { result_rows: 2, ..LIMITS };
    assert_eq!(list(two, ""), "[key,is_rest]('a',0)('b',0)('b',1)");
    assert_eq!(list(two, "b"), "[key,is_rest]('c',0)('d',0)");
    let mut row = BytesMut::new();
    Value::Text("a").encode(&mut row);
    Value::Integer(0).encode(&mut row);
    let size = |n: usize| u64::try_from(n * row.len()).unwrap();
    let little = CommandLimits { result_bytes: size(3), ..LIMITS };
    assert_eq!(list(little, ""), "[key,is_rest]('a',0)('b',0)('c',0)('c',1)");
    assert_eq!(list(little, "c"), "[key,is_rest]('d',0)");
    let none = CommandLimits { result_bytes: size(1) - 1, ..LIMITS };
    let want = format!("error result_bytes: result is too large: at most {} bytes", size(1) - 1);
    assert_eq!(list(none, ""), want);
}

#[test]
fn long_lists_wait_for_where_there_is_time() {
    let mut fixture = Fixture::new();
    for n in 0..300 {
        fixture.write(put(0, &format!("gone{n:03}"), 5, b"x"));
        fixture.write(put(0, &format!("kept{n:03}"), 0, b"x"));
    }
    for n in 0..100 {
        fixture.write(put(0, &format!("long{n:03}{}", "x".repeat(1_000)), 0, b"x"));
    }
    let mut is_long = |ms, prefix, n_max| {
        let one = command(ms, &Storage::List { prefix, after: "", n_max });
        let never = &mut |_: Ask| false;
        let read = fixture.database.read_within(&[one], Share::Inline, never).unwrap();
        read == [Read::Long]
    };
    assert!(!is_long(0, "kept", 255));
    assert!(is_long(0, "kept", 300));
    assert!(!is_long(0, "gone", 100));
    assert!(is_long(5, "gone", 100), "those that expired are looked at as well");
    assert!(!is_long(0, "long", 60));
    assert!(is_long(0, "long", 100));
}

#[test]
fn limits_are_those_of_the_command() {
    let mut fixture = Fixture::new();
    let within = |limits: CommandLimits, what: &Storage<'_>| {
        Draft::storage(what).unwrap().seal(&Stamp { limits, ..at(0) })
    };
    let value = vec![7; 100_000];
    let put = Storage::Put { key: "a", ttl_ms: 0, value: &value };
    let small = CommandLimits { value_bytes: 99_999, ..LIMITS };
    let full = CommandLimits { database_bytes: 80_000, ..LIMITS };
    assert_eq!(
        fixture.write(within(small, &put)),
        "error value_bytes: value is too large: at most 99999 bytes"
    );
    assert_eq!(fixture.write(within(full, &put)), "error database_bytes: database or disk is full");
    assert_eq!(fixture.n_rows(), 0);
    fixture.write(within(LIMITS, &put));
    let little = CommandLimits { result_bytes: 99_999, ..LIMITS };
    let get = within(little, &Storage::Get { key: "a" });
    let read = fixture.database.read(&[get], &mut |_| false).unwrap();
    assert_eq!(print(&read[0]), "error result_bytes: result is too large: at most 99999 bytes");
    let written = fixture.database.read(&[within(LIMITS, &put)], &mut |_| false).unwrap();
    assert_eq!(print(&written[0]), "error: attempt to change database via query operation");
}

#[test]
fn a_full_database_gets_back_what_it_had_before() {
    let mut fixture = Fixture::new();
    fixture.write(put(0, "a", 5, &vec![1; 60_000]));
    let hash = fixture.database.content_hash().unwrap();
    // Enough room for the statements before the one that fails.
    let limits = CommandLimits { database_bytes: 160_000, ..LIMITS };
    let what = Storage::Put { key: "b", ttl_ms: 0, value: &vec![2; 200_000] };
    let one = Draft::storage(&what).unwrap().seal(&Stamp { limits, ..at(10) });
    let outcomes = fixture.apply([put(10, "c", 0, b"x"), one, put(10, "d", 0, b"x")]);
    let printed: Vec<_> = outcomes.iter().map(print).collect();
    assert_eq!(printed[1], "error database_bytes: database or disk is full");
    assert_eq!(fixture.list(10, "", "", 9), "('c',0)('d',0)");
    assert_ne!(fixture.database.content_hash().unwrap(), hash);
}

#[test]
fn long_values_wait_for_where_there_is_time() {
    let mut fixture = Fixture::new();
    let large = vec![1; 100_000];
    let inline = |fixture: &mut Fixture, command: Bytes| {
        let entries = fixture.entries([command]);
        let never = &mut |_: Ask| false;
        let batch = fixture.database.apply_within(&entries, Share::Inline, never).unwrap();
        if batch.rest == Rest::Long {
            fixture.next -= 1;
        }
        batch.rest
    };
    assert_eq!(inline(&mut fixture, put(0, "a", 0, b"x")), Rest::None);
    assert_eq!(inline(&mut fixture, put(0, "a", 10, &large)), Rest::Long);
    fixture.write(put(0, "a", 10, &large));
    assert_eq!(inline(&mut fixture, put(1, "a", 10, b"x")), Rest::Long, "it replaces a long one");
    assert_eq!(inline(&mut fixture, delete(1, "a")), Rest::Long);
    assert_eq!(inline(&mut fixture, put(1, "b", 0, b"x")), Rest::None);
    assert_eq!(inline(&mut fixture, put(10, "c", 0, b"x")), Rest::Long, "a long one leaves");
    let get = command(1, &Storage::Get { key: "a" });
    let never = &mut |_: Ask| false;
    let read = fixture.database.read_within(&[get], Share::Inline, never).unwrap();
    assert_eq!(read, [Read::Long]);
}

#[test]
fn a_request_with_a_key_is_done_once() {
    let mut fixture = Fixture::new();
    let keyed = |ms, what: &Storage<'_>, key: &str| {
        let mut draft = Draft::storage(what).unwrap();
        draft.key(RequestKey::new(key.as_bytes(), [7; 16]).unwrap()).unwrap();
        draft.seal(&at(ms))
    };
    fixture.write(put(0, "a", 0, b"x"));
    let removed = keyed(1, &Storage::Delete { key: "a" }, "k");
    assert_eq!(fixture.write(removed.clone()), "1 rows, id 0");
    fixture.write(put(2, "a", 0, b"y"));
    assert_eq!(fixture.write(removed), "1 rows, id 0");
    assert_eq!(fixture.get(3, "a"), "[value]([79])", "it was not removed again");
}

#[test]
fn tenants_do_not_reach_it_and_are_not_disturbed() {
    let mut fixture = Fixture::new();
    fixture.write(put(0, "a", 0, b"x"));
    for sql in [
        "SELECT * FROM __debros_kv",
        "SELECT value FROM main.__debros_kv WHERE id = ?",
        "DELETE FROM __debros_kv",
        "INSERT INTO __debros_kv(key, value) VALUES ('b', x'00')",
        "DROP INDEX __debros_kv_key",
    ] {
        let printed = fixture.exec(&[sql]).remove(0);
        assert!(printed.starts_with("error"), "{sql}: {printed}");
    }
    assert_eq!(fixture.query("SELECT count(*) FROM sqlite_master"), "[count(*)](0)");
    // The statements that are kept go on after the schema has changed.
    fixture.must("CREATE TABLE t(a)");
    fixture.write(put(1, "b", 0, b"x"));
    fixture.must("DROP TABLE t");
    fixture.must("ANALYZE");
    assert_eq!(fixture.list(1, "", "", 9), "('a',0)('b',0)");
    fixture.must("CREATE VIRTUAL TABLE f USING fts5(a)");
    fixture.write(put(1, "c", 0, b"x"));
    assert_eq!(fixture.list(1, "", "", 9), "('a',0)('b',0)('c',0)");
    fixture.database.rest();
    assert_eq!(fixture.get(1, "c"), "[value]([78])");
}

#[test]
fn replicas_agree_however_commands_are_cut() {
    let mut dice = crate::types::Dice::new(7);
    let mut roll = |n: u64| dice.roll() % n;
    let mut commands = Vec::new();
    let mut ms = 0;
    for n in 0..400 {
        ms += i64::try_from(roll(20)).unwrap();
        let key = format!("k{}", roll(30));
        let size = if roll(10) == 0 { 60_000 } else { 40 };
        commands.push(match roll(5) {
            0 => delete(ms, &key),
            1 => put(ms, &key, 0, &vec![1; size]),
            2 if n % 50 == 2 => crate::sql::testing::command(
                crate::wire::command::Mode::Exec,
                &format!("CREATE TABLE t{n}(a)"),
                &[],
                &at(ms),
            ),
            _ => put(ms, &key, 1 + roll(100), &vec![2; size]),
        });
    }
    let mut hashes = Vec::new();
    for (cut, reopens) in [(400, false), (1, false), (7, true)] {
        let mut fixture = Fixture::new();
        for part in commands.chunks(cut) {
            let entries = fixture.entries(part.iter().cloned());
            let mut from = 0;
            // On the core as far as it goes, then with all the time there is.
            while from < entries.len() {
                let share = if cut == 7 { Share::Inline } else { Share::Whole };
                let batch =
                    fixture.database.apply_within(&entries[from..], share, &mut |_| false).unwrap();
                from += batch.applied.len();
                if batch.rest == Rest::Long {
                    let one = fixture.database.apply(&entries[from..=from]).unwrap();
                    from += one.applied.len();
                }
            }
            if reopens {
                let path = fixture.database.path.clone();
                fixture.database = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
            }
        }
        assert_eq!(fixture.database.applied(), LogIndex(400));
        hashes.push(fixture.database.content_hash().unwrap());
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[0], hashes[2]);
}

#[test]
fn a_database_of_an_older_program_gets_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1.db");
    Database::create(&path, Vfs::system(), "DROP TABLE __debros_kv").unwrap();
    let database = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
    let mut fixture = Fixture { database, folder, next: 1 };
    fixture.write(put(0, "a", 0, b"x"));
    fixture.must("CREATE TABLE t(a)");
    assert_eq!(fixture.get(1, "a"), "[value]([78])");
}

#[test]
fn an_export_has_the_keys_and_values() {
    let mut fixture = Fixture::new();
    fixture.write(put(0, "a", 0, b"\0\xff"));
    let path = fixture.database.path.clone();
    let to = fixture.folder.path().join("copy.db");
    drop(fixture.database);
    crate::sql::export(&path, &to, Vfs::system()).unwrap();
    let copy = rusqlite::Connection::open(&to).unwrap();
    let sql = "SELECT value FROM __debros_kv WHERE key = 'a' AND expires IS NULL";
    let value: Vec<u8> = copy.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(value, b"\0\xff");
}
