//! Requests that are sent again, in every way.

use bytes::Bytes;
use expect_test::Expect;
use expect_test::expect;

use super::*;
use crate::sql::Rest;
use crate::sql::Role;
use crate::sql::Vfs;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::types::LogIndex;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::Stamp;
use crate::wire::command::draft::Draft;

const SCHEMA: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)";
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// A transaction of `texts`, `at` milliseconds after the start, as the request `key`.
fn request_within(limits: CommandLimits, at: i64, key: &str, texts: &[&str]) -> Bytes {
    let mut draft = Draft::new(Results::Each, 0);
    for sql in texts {
        let mode = if sql.starts_with("SELECT") { Mode::Query } else { Mode::Exec };
        draft.statement(mode, sql).unwrap();
    }
    let mut hash = [0; 16];
    for (at, byte) in texts.concat().bytes().enumerate() {
        hash[at % 16] = (hash[at % 16] ^ byte).wrapping_mul(31);
    }
    draft.key(RequestKey::new(key.as_bytes(), hash).unwrap()).unwrap();
    draft.seal(&Stamp {
        limits,
        time: Timestamp(stamp(0).time.0 + at),
        ..stamp(at.cast_unsigned())
    })
}

fn request(at: i64, key: &str, texts: &[&str]) -> Bytes {
    request_within(LIMITS, at, key, texts)
}

fn apply(fixture: &mut Fixture, commands: &[Bytes]) -> Vec<String> {
    let entries = fixture.entries(commands.iter().cloned());
    let applied = fixture.database.apply(&entries).unwrap().applied;
    let show = |it: &Applied| match it {
        Applied::Done(outcome) => print(outcome),
        Applied::Replayed(outcome) => format!("again {}", print(outcome)),
        Applied::Skipped => panic!("a new entry was skipped"),
    };
    applied.iter().map(show).collect()
}

fn n_records(fixture: &mut Fixture) -> i64 {
    kept(fixture, "SELECT count(*) FROM __debros_requests")
}

/// A number that the engine sees.
fn kept(fixture: &mut Fixture, sql: &str) -> i64 {
    let (prepared, _) = context::as_engine(|| Prepared::new(fixture.database.handle, sql)).unwrap();
    let mut found = 0;
    each(&mut prepared.unwrap(), &[], |row| found = integer(row, 0)).unwrap();
    found
}

/// Apply the requests in one batch, and in another database one by one, which is closed after each.
fn check(commands: &[Bytes], expected: Expect) {
    let mut together = Fixture::new();
    together.must(SCHEMA);
    let mut printed = apply(&mut together, commands);
    printed.push(together.query("SELECT a, b FROM t"));
    expected.assert_eq(&printed.join("\n"));
    let mut apart = Fixture::new();
    apart.must(SCHEMA);
    let mut one_by_one = Vec::new();
    for command in commands {
        one_by_one.extend(apply(&mut apart, std::slice::from_ref(command)));
        let path = apart.database.path.clone();
        apart.database = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
    }
    one_by_one.push(apart.query("SELECT a, b FROM t"));
    assert_eq!(printed, one_by_one, "batches show");
    let hashes = [together, apart].map(|mut it| it.database.content_hash().unwrap());
    assert_eq!(hashes[0], hashes[1], "contents differ");
}

#[test]
fn a_request_runs_once_and_gives_the_same_again() {
    let insert = ["INSERT INTO t(b) VALUES (random()) RETURNING a", "SELECT count(*) FROM t"];
    check(
        &[
            request(0, "one", &insert),
            request(1, "one", &insert),
            request(2, "two", &insert),
            request(3, "one", &["INSERT INTO t(b) VALUES (5)"]),
            request(4, "one", &insert),
            request(5, "none", &["SELECT 1"]),
            request(6, "none", &["SELECT 1"]),
            request(7, "counters", &["SELECT changes(), last_insert_rowid(), total_changes()"]),
            request(8, "nul", &["SELECT a, b FROM t WHERE a > 5"]),
            request(9, "nul", &["SELECT a, b FROM t WHERE a > 5"]),
            request(10, "drop", &["DELETE FROM t WHERE a = 2", "UPDATE t SET b = 'x'"]),
            request(11, "drop", &["DELETE FROM t WHERE a = 2", "UPDATE t SET b = 'x'"]),
        ],
        expect![[r#"
            1 rows, id 1 returned [a](1); [count(*)](1)
            again 1 rows, id 1 returned [a](1); [count(*)](1)
            1 rows, id 2 returned [a](2); [count(*)](2)
            error idempotency_key_reused: idempotency key was used for another request
            again 1 rows, id 1 returned [a](1); [count(*)](1)
            [1](1)
            again [1](1)
            [changes(),last_insert_rowid(),total_changes()](0,0,0)
            [a,b]
            again [a,b]
            1 rows, id 0; 1 rows, id 0
            again 1 rows, id 0; 1 rows, id 0
            [a,b](1,'x')"#]],
    );
}

#[test]
fn errors_are_kept_whatever_they_undo() {
    let failing: [&[&str]; 7] = [
        &["INSERT INTO t(b) VALUES (1)"],
        &["INSERT INTO t(b) VALUES (2)", "INSERT INTO t(b) VALUES (1)"],
        &["INSERT OR ROLLBACK INTO t(b) VALUES (1)"],
        &["INSERT OR FAIL INTO t(b) VALUES (3), (1)"],
        &["SELEC"],
        &["CREATE TABLE u(a)", "INSERT INTO t(b) VALUES (1)"],
        &["INSERT INTO t(a) VALUES (9223372036854775807)"],
    ];
    let mut commands = vec![request(0, "first", &["INSERT INTO t(b) VALUES (1)"])];
    for (at, texts) in (1..).zip(failing) {
        commands.push(request(at, &format!("k{at}"), texts));
        commands.push(request(at, "between", &["INSERT INTO t(b) VALUES ('between')"]));
    }
    // What was in the way is gone, so that each would succeed now.
    commands.push(request(50, "last", &["DELETE FROM t"]));
    for (at, texts) in (1..).zip(failing) {
        commands.push(request(100 + at, &format!("k{at}"), texts));
    }
    check(
        &commands,
        expect![[r#"
            1 rows, id 1
            error: UNIQUE constraint failed: t.b
            1 rows, id 2
            error: UNIQUE constraint failed: t.b
            again 1 rows, id 2
            error: UNIQUE constraint failed: t.b
            again 1 rows, id 2
            error: UNIQUE constraint failed: t.b
            again 1 rows, id 2
            error: near "SELEC": syntax error
            again 1 rows, id 2
            error: UNIQUE constraint failed: t.b
            again 1 rows, id 2
            error: rowid 9223372036854775807 is reserved
            again 1 rows, id 2
            2 rows, id 0
            again error: UNIQUE constraint failed: t.b
            again error: UNIQUE constraint failed: t.b
            again error: UNIQUE constraint failed: t.b
            again error: UNIQUE constraint failed: t.b
            again error: near "SELEC": syntax error
            again error: UNIQUE constraint failed: t.b
            again error: rowid 9223372036854775807 is reserved
            [a,b]"#]],
    );
}

#[test]
fn a_day_later_a_key_is_free_again() {
    let insert = ["INSERT INTO t(b) VALUES (NULL)"];
    check(
        &[
            request(0, "k", &insert),
            request(24 * HOUR - 1, "k", &insert),
            request(24 * HOUR, "k", &["INSERT INTO t(a) VALUES (70)"]),
            request(24 * HOUR, "k", &insert),
            request(48 * HOUR - 1, "k", &["INSERT INTO t(a) VALUES (70)"]),
            request(48 * HOUR, "k", &insert),
            // A clock that was put back, on another leader perhaps, makes nothing older.
            request(-HOUR, "k", &insert),
        ],
        expect![[r#"
            1 rows, id 1
            again 1 rows, id 1
            1 rows, id 70
            error idempotency_key_reused: idempotency key was used for another request
            again 1 rows, id 70
            1 rows, id 71
            again 1 rows, id 71
            [a,b](1,NULL)(70,NULL)(71,NULL)"#]],
    );
}

#[test]
fn what_expired_leaves_with_the_requests_that_follow() {
    let mut fixture = Fixture::new();
    let select = |at, key: &str| request(at, key, &["SELECT 1"]);
    let many: Vec<_> = (0..10).map(|it| select(it, &format!("k{it}"))).collect();
    apply(&mut fixture, &many);
    assert_eq!(n_records(&mut fixture), 10);
    // The newest of the old ones is asked for again, while nine stand before it.
    let later = 30 * HOUR;
    let mut left = Vec::new();
    for it in 0..8 {
        apply(&mut fixture, &[select(later + it, if it == 0 { "k9" } else { "new" })]);
        apply(&mut fixture, &[select(later + it, &format!("later {it}"))]);
        left.push(n_records(&mut fixture));
    }
    assert_eq!(left, [8, 6, 5, 6, 7, 8, 9, 10]);
    assert_eq!(apply(&mut fixture, &[select(later + 9, "k9")]), ["again [1](1)"]);
}

/// A database that remembers `n` requests, one for each millisecond from the start on.
fn full(n: u64) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1.db");
    let start = stamp(0).time.0;
    let mut outcome = Vec::new();
    outcome::encode(&Ok(Vec::new()), &mut outcome);
    let schema = format!(
        "{SCHEMA}; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})
         INSERT INTO __debros_requests SELECT i, 'old ' || i, zeroblob(16), {start} + i - 1,
         x'{}' FROM n",
        outcome.iter().fold(String::new(), |hex, it| hex + &format!("{it:02x}"))
    );
    Database::create(&path, Vfs::system(), &schema).unwrap();
    let database = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
    Fixture { database, folder, next: 1 }
}

#[test]
fn a_full_memory_forgets_what_is_ten_minutes_old_or_says_when() {
    let max = limits::REQUESTS_KEPT_MAX;
    let insert = |at, key: &str| request(at, key, &["INSERT INTO t(b) VALUES (NULL)"]);
    let mut fixture = full(max - 1);
    let last = i64::try_from(max).unwrap();
    assert_eq!(apply(&mut fixture, &[insert(last, "fits")]), ["1 rows, id 1"]);
    for (at, want) in [
        (last, "590"),
        (10 * MINUTE - 1_001, "2"),
        (10 * MINUTE - 1_000, "1"),
        (10 * MINUTE - 1, "1"),
    ] {
        let entries = fixture.entries([insert(at, "too many")]);
        let applied = fixture.database.apply(&entries).unwrap().applied.remove(0);
        let Applied::Done(Err(error)) = applied else { panic!("{applied:?}") };
        assert_eq!(error.code, Some("idempotency_keys_full"));
        assert_eq!(error.retry_after_s.map(|it| it.to_string()).as_deref(), Some(want), "{at}");
    }
    let at = 10 * MINUTE;
    // Known ones are answered, and what has no key runs, all the while.
    assert_eq!(apply(&mut fixture, &[insert(at - 1, "fits")]), ["again 1 rows, id 1"]);
    fixture.must("INSERT INTO t(b) VALUES (NULL)");
    let both = [insert(at, "in time"), insert(at, "too early"), insert(at, "in time")];
    let got = apply(&mut fixture, &both);
    let refusal = "error idempotency_keys_full: too many requests with an idempotency key";
    assert_eq!(got, ["1 rows, id 3", refusal, "again 1 rows, id 3"]);
    assert_eq!(n_records(&mut fixture), last);
    assert_eq!(kept(&mut fixture, "SELECT min(seq) FROM __debros_requests"), 2);
    // The refusal was not kept.
    assert_eq!(apply(&mut fixture, &[insert(at + 1, "too early")]), ["1 rows, id 4"]);
    // A day later everything is old; two go with each, and one comes.
    assert_eq!(apply(&mut fixture, &[insert(40 * HOUR, "new")]), ["1 rows, id 5"]);
    assert_eq!(n_records(&mut fixture), last - 1);
}

#[test]
fn a_full_database_keeps_errors_and_small_outcomes_but_no_large_ones() {
    let limits = CommandLimits { database_bytes: 40 * PAGE_SIZE, ..LIMITS };
    let mut fixture = Fixture::new();
    apply(&mut fixture, &[request(0, "schema", &["CREATE TABLE f(x)"])]);
    let fill = |at, key: &str| {
        request_within(limits, at, key, &["INSERT INTO f VALUES (randomblob(3000))"])
    };
    let mut n = 0;
    let refusal = loop {
        n += 1;
        let printed = apply(&mut fixture, &[fill(n, &format!("fill {n}"))]).remove(0);
        if printed.starts_with("error") {
            break printed;
        }
        assert!(n < 60, "it never fills");
    };
    assert_eq!(refusal, "error database_bytes: database or disk is full");
    // Hundreds more, also in one transaction, whose pages have no room within the limit.
    let refused: Vec<_> = (0..300).map(|it| fill(100 + it, &format!("refused {it}"))).collect();
    for printed in apply(&mut fixture, &refused) {
        assert_eq!(printed, refusal);
    }
    let printed = apply(&mut fixture, &[fill(500, "refused 299")]);
    assert_eq!(printed, [format!("again {refusal}")]);
    let large = ["SELECT hex(zeroblob(9000)) AS x"];
    let large = |at| request_within(limits, at, "large", &large);
    let want = "error database_bytes: database is full: no room to keep the result of the request";
    assert_eq!(apply(&mut fixture, &[large(501), large(502)]), [want, &format!("again {want}")]);
    // The tenant's own statements are bounded as before.
    assert_eq!(apply(&mut fixture, &[fill(503, "again")]), [refusal]);
}

#[test]
fn results_that_cannot_be_kept_fail_and_leave_nothing() {
    let limits = CommandLimits { result_bytes: 32 << 20, value_bytes: 4 << 20, ..LIMITS };
    let many = "INSERT INTO t(b) SELECT randomblob(1000) FROM
        (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i FROM n)
        RETURNING b";
    // Nothing in them but the type of their column.
    let wide = format!("CREATE TABLE w(x {})", "long ".repeat(20_000));
    let texts: Vec<&str> = [&*wide].into_iter().chain(vec!["SELECT x FROM w"; 11]).collect();
    let mut fixture = Fixture::new();
    fixture.must(SCHEMA);
    let commands = [
        request_within(limits, 0, "fits", &[many]),
        request_within(limits, 1, "large", &[many, many]),
        request_within(limits, 2, "large", &[many, many]),
        request_within(limits, 3, "wide", &texts),
    ];
    let printed = apply(&mut fixture, &commands);
    assert!(printed[0].starts_with("900 rows"), "{}", printed[0]);
    assert!(printed[1].starts_with("error result_bytes: result is too large"), "{}", printed[1]);
    assert_eq!(printed[2], format!("again {}", printed[1]));
    assert!(printed[3].starts_with("error result_bytes: result is too large"), "{}", printed[3]);
    assert_eq!(fixture.query("SELECT count(*) FROM t"), "[count(*)](900)");
    assert_eq!(
        fixture.query("SELECT count(*) FROM sqlite_master WHERE name = 'w'"),
        "[count(*)](0)"
    );
    let size = "SELECT max(length(outcome)) FROM __debros_requests";
    let size = usize::try_from(kept(&mut fixture, size)).unwrap();
    assert!(size < limits::REQUEST_OUTCOME_SIZE_MAX, "{size}");
}

#[test]
fn a_large_outcome_is_read_and_dropped_where_there_is_time() {
    let limits = CommandLimits { value_bytes: 1 << 20, ..LIMITS };
    let large =
        |at, key: &str| request_within(limits, at, key, &["SELECT hex(zeroblob(40000)) AS x"]);
    let small = |at, key: &str| request_within(limits, at, key, &["SELECT 1"]);
    let mut fixture = Fixture::new();
    let first = [small(0, "small"), small(0, "warm"), large(0, "large")];
    apply(&mut fixture, &first);
    for (command, is_long) in [
        (small(1, "small"), false),
        (large(1, "large"), true),
        // Another request under its key needs nothing of it.
        (small(1, "large"), false),
        // The two oldest leave, the large one is behind them; then it is at the front.
        (small(25 * HOUR, "next"), false),
        (small(25 * HOUR, "last"), true),
    ] {
        let entries = fixture.entries([command]);
        let batch = fixture.database.apply_within(&entries, Share::Inline, &mut |_| false);
        let rest = batch.unwrap().rest;
        assert_eq!(rest, if is_long { Rest::Long } else { Rest::None }, "{entries:?}");
        let whole = fixture.database.apply(&entries).unwrap();
        assert_eq!(whole.rest, Rest::None);
    }
    assert_eq!(n_records(&mut fixture), 2);
}

#[test]
fn a_database_of_an_older_program_learns_to_remember() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1.db");
    let vfs = Vfs::system();
    let schema = "DROP TABLE __debros_requests; CREATE TABLE t(a INTEGER PRIMARY KEY, b)";
    Database::create(&path, vfs, schema).unwrap();
    let database = Database::open(&path, vfs, Role::Tenant).unwrap();
    let mut fixture = Fixture { database, folder, next: 1 };
    let insert = |at| request(at, "k", &["INSERT INTO t(b) VALUES (1)"]);
    assert_eq!(
        apply(&mut fixture, &[insert(0), insert(1)]),
        ["1 rows, id 1", "again 1 rows, id 1"]
    );
    fixture.must("CREATE TABLE u(a)");
    assert_eq!(fixture.query("SELECT name FROM sqlite_master"), "[name]('t')('u')");
    fixture.database = Database::open(&path, vfs, Role::Tenant).unwrap();
    assert_eq!(apply(&mut fixture, &[insert(2)]), ["again 1 rows, id 1"]);
    assert_eq!(fixture.database.applied(), LogIndex(4));
}

#[test]
fn tenants_neither_see_nor_touch_what_is_remembered() {
    let mut fixture = Fixture::new();
    apply(&mut fixture, &[request(0, "secret", &[SCHEMA])]);
    for sql in [
        "SELECT key FROM __debros_requests",
        "DELETE FROM main.__debros_requests",
        "DROP TABLE __debros_requests",
        "DROP INDEX __debros_requests_key",
        "CREATE INDEX i ON __debros_requests(at)",
        "PRAGMA table_info(__debros_requests)",
        "PRAGMA index_info(__debros_requests_key)",
        "REINDEX __debros_requests_key",
        "ANALYZE __debros_requests",
    ] {
        let printed = fixture.exec(&[sql]).remove(0);
        let is_silent = sql.starts_with("REINDEX") || sql.starts_with("ANALYZE");
        assert!(is_silent || printed.starts_with("error"), "{sql}: {printed}");
    }
    fixture.must("ANALYZE");
    let seen = fixture.query("SELECT count(*) FROM sqlite_stat1 WHERE tbl LIKE '%debros%'");
    assert_eq!(seen, "[count(*)](0)");
    assert_eq!(fixture.query("PRAGMA table_list").matches("debros").count(), 0);
    assert_eq!(
        fixture.query("SELECT name FROM sqlite_master WHERE name LIKE '%debros%'"),
        "[name]"
    );
    let again = apply(&mut fixture, &[request(1, "secret", &[SCHEMA])]);
    assert_eq!(again, ["again 0 rows, id 0"]);
}

#[test]
fn a_read_has_no_use_for_a_key() {
    let mut fixture = Fixture::new();
    let select = request(0, "k", &["SELECT 1"]);
    let outcomes = fixture.database.read(&[select.clone(), select], &mut |_| false).unwrap();
    assert_eq!(outcomes.iter().map(print).collect::<Vec<_>>(), ["[1](1)", "[1](1)"]);
    assert_eq!(n_records(&mut fixture), 0);
    assert!(fixture.database.requests.0.is_none(), "nothing was prepared");
}
