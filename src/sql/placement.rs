//! Where a statement runs, and whether it is at hand, must not show in what it gives: tried with what SQLite bounds by
//! the length of values, and with the last steps there are.

use bytes::Bytes;

use crate::sql::Applied;
use crate::sql::Database;
use crate::sql::Rest;
use crate::sql::Role;
use crate::sql::Share;
use crate::sql::Vfs;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::Stamp;

/// How a replica runs commands, each a batch.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// What is at hand is forgotten before each.
    is_fresh: bool,
    /// It is tried where there is little time.
    is_tried: bool,
}

const MANNERS: [Manner; 4] = [
    Manner { is_fresh: true, is_tried: false },
    Manner { is_fresh: true, is_tried: true },
    Manner { is_fresh: false, is_tried: false },
    Manner { is_fresh: false, is_tried: true },
];

/// What `commands` gave in `manner`, and the hash of what is there then; and how many ended where there is little time.
fn live(manner: Manner, commands: &[Bytes]) -> (Vec<String>, u64, usize) {
    let mut fixture = Fixture::new();
    let (mut printed, mut n_inline) = (Vec::new(), 0);
    for command in commands {
        if manner.is_fresh {
            let path = fixture.database.path.clone();
            fixture.database = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
        }
        let entries = fixture.entries([command.clone()]);
        let mut applied = Vec::new();
        if manner.is_tried {
            let never = &mut |_| false;
            let batch = fixture.database.apply_within(&entries, Share::Inline, never).unwrap();
            applied = batch.applied;
            n_inline += applied.len();
        }
        if applied.is_empty() {
            let batch = fixture.database.apply(&entries).unwrap();
            assert_eq!(batch.rest, Rest::None);
            applied = batch.applied;
        }
        for it in applied {
            match it {
                Applied::Done(outcome) => printed.push(print(&outcome)),
                other => panic!("{other:?}"),
            }
        }
    }
    (printed, fixture.database.content_hash().unwrap(), n_inline)
}

/// All manners give the same and leave the same. Returns what they gave, and how many commands ended where there is
/// little time when none were at hand.
fn check(commands: &[Bytes]) -> (Vec<String>, usize) {
    let (want, want_hash, _) = live(MANNERS[0], commands);
    let mut n_inline = 0;
    for manner in &MANNERS[1..] {
        let (got, got_hash, n) = live(*manner, commands);
        for (at, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(got, want, "command {at}, {manner:?}");
        }
        assert_eq!(got_hash, want_hash, "contents differ: {manner:?}");
        if manner.is_fresh {
            n_inline = n;
        }
    }
    (want, n_inline)
}

fn exec(n: u64, sql: &str, limits: CommandLimits) -> Bytes {
    command(Mode::Exec, sql, &[], &Stamp { limits, ..stamp(n) })
}

fn query(n: u64, sql: &str) -> Bytes {
    command(Mode::Query, sql, &[], &stamp(n))
}

/// The texts as commands that may not fail, then `tried`.
fn after(schema: &[&str], tried: &[Bytes]) -> Vec<Bytes> {
    let schema = (1..).zip(schema).map(|(n, sql)| exec(n, sql, LIMITS));
    schema.chain(tried.iter().cloned()).collect()
}

/// A statement with JSON has values of a kibibyte where there is little time, and so have its messages.
#[test]
fn messages_are_the_same_wherever_a_statement_with_json_fails() {
    let columns: Vec<_> = (0..20).map(|it| format!("{}{it}", "c".repeat(100))).collect();
    let wide = format!("CREATE TABLE wide({0}, UNIQUE ({0}))", columns.join(","));
    let row = vec!["1"; 20].join(",");
    let long = (0..200).map(|it| format!("a <> {it}")).collect::<Vec<_>>().join(" AND ");
    let schema = [
        wide,
        format!("INSERT INTO wide VALUES ({row})"),
        format!("CREATE TABLE checked(a CHECK ({long}))"),
        "CREATE TABLE t(a, b)".to_owned(),
        format!(
            "CREATE TRIGGER g BEFORE INSERT ON t WHEN new.a = 1 BEGIN SELECT RAISE(ABORT, '{}'); END",
            "m".repeat(2_000)
        ),
    ];
    let schema: Vec<_> = schema.iter().map(String::as_str).collect();
    let quotes = "'".repeat(1_600);
    for (sql, want) in [
        (
            format!("INSERT INTO wide SELECT {row} WHERE json_valid('1')"),
            "UNIQUE constraint failed: wide.c",
        ),
        (
            "INSERT INTO checked SELECT json_extract('[7]', '$[0]')".to_owned(),
            "CHECK constraint failed: a <> 0 AND",
        ),
        ("INSERT INTO t(a, b) SELECT 1, json('1')".to_owned(), "mmmm"),
        (format!("INSERT INTO t(a) SELECT json_extract('{{}}', '{quotes}')"), "bad JSON path: '"),
        (
            format!("INSERT INTO t(a) SELECT value FROM json_each('[1]', '{quotes}')"),
            "bad JSON path: '",
        ),
    ] {
        let commands = after(&schema, &[exec(90, &sql, LIMITS), exec(91, &sql, LIMITS)]);
        let (printed, _) = check(&commands);
        for printed in &printed[schema.len()..] {
            assert!(printed.starts_with(&format!("error: {want}")), "{printed}");
            assert!(printed.len() > 1_100, "{printed}");
        }
    }
}

/// The same messages, short enough, are those of where it was tried first.
#[test]
fn short_messages_need_no_other_place() {
    let schema = ["CREATE TABLE t(a UNIQUE, b CHECK (b <> 'no'))", "INSERT INTO t VALUES (1, 2)"];
    let tried = [
        exec(90, "INSERT INTO t SELECT 1, json('1')", LIMITS),
        exec(91, "INSERT INTO t SELECT 2, json_extract('[\"no\"]', '$[0]')", LIMITS),
        exec(92, "INSERT INTO t SELECT 3, json('nothing')", LIMITS),
    ];
    let (printed, n_inline) = check(&after(&schema, &tried));
    assert_eq!(n_inline, 4, "{printed:?}");
    assert_eq!(
        printed[2..],
        [
            "error: UNIQUE constraint failed: t.a",
            "error: CHECK constraint failed: b <> 'no'",
            "error: malformed JSON"
        ]
    );
}

#[test]
fn plans_are_told_in_full_wherever_they_are() {
    let name = "n".repeat(1_500);
    let sql = format!("EXPLAIN QUERY PLAN SELECT json(a) FROM t AS {name}");
    let (printed, _) = check(&after(&["CREATE TABLE t(a)"], &[query(90, &sql), query(91, &sql)]));
    assert!(printed[1].contains(&format!("SCAN {name}")), "{}", printed[1]);
}

/// SQLite takes a blob that is written in a text for NULL, without a word, if it is longer than a value may be.
#[test]
fn blobs_written_in_a_text_are_never_lost() {
    let blob = |bytes: usize| format!("x'{}'", "ab".repeat(bytes));
    let lengths = "SELECT typeof(a) || length(a) AS a FROM t ORDER BY rowid";
    // Of a statement, with JSON and without.
    for bytes in [900, 1_500, 33_000, 300_000] {
        for with in ["7", "json('1')"] {
            let sql = format!("INSERT INTO t SELECT {}, {with}", blob(bytes));
            let tried = [exec(90, &sql, LIMITS), exec(91, &sql, LIMITS), query(92, lengths)];
            let (printed, _) = check(&after(&["CREATE TABLE t(a, b)"], &tried));
            assert_eq!(printed[3], format!("[a]('blob{bytes}')('blob{bytes}')"), "{with}");
        }
    }
    // One that is longer than a value may be at all.
    let limits = CommandLimits { value_bytes: 60_000, ..LIMITS };
    for (bytes, want) in [(60_000, "1 rows"), (60_001, "error value_bytes: string or blob too big")]
    {
        let sql = format!("INSERT INTO t(a) SELECT length({})", blob(bytes));
        let tried = [exec(90, &sql, limits), exec(91, &sql, limits)];
        let (printed, _) = check(&after(&["CREATE TABLE t(a, b)"], &tried));
        assert!(printed[1].starts_with(want), "{}", printed[1]);
    }
    let mut fixture = Fixture::new();
    let read = format!("SELECT length({}) AS n", blob(300_000));
    assert_eq!(fixture.query(&read), "[n](300000)");
}

#[test]
fn blobs_written_in_the_schema_are_never_lost() {
    for bytes in [900, 1_500, 33_000, 300_000] {
        let blob = format!("x'{}'", "ab".repeat(bytes));
        let schema = [
            format!("CREATE TABLE t(a DEFAULT {blob}, b)"),
            "CREATE TABLE u(a, b)".to_owned(),
            format!("CREATE VIEW v AS SELECT {blob} AS a"),
            format!("CREATE TABLE c(a CHECK (length({blob}) = {bytes}), b)"),
            format!(
                "CREATE TRIGGER g AFTER INSERT ON u WHEN new.a = 'fire' BEGIN INSERT INTO t VALUES ({blob}, 2); END"
            ),
        ];
        let schema: Vec<_> = schema.iter().map(String::as_str).collect();
        for with in ["7", "json('1')"] {
            let tried = [
                exec(90, &format!("INSERT INTO t(b) SELECT {with}"), LIMITS),
                exec(91, &format!("INSERT INTO u SELECT 'fire', {with}"), LIMITS),
                exec(92, &format!("INSERT INTO t SELECT a, {with} FROM v"), LIMITS),
                exec(93, &format!("INSERT INTO c SELECT 'a', {with}"), LIMITS),
                query(94, "SELECT typeof(a) || length(a) AS a FROM t"),
            ];
            let (printed, _) = check(&after(&schema, &tried));
            let of_one = format!("('blob{bytes}')");
            assert_eq!(printed[9], format!("[a]{of_one}{of_one}{of_one}"), "{with}");
            assert!(printed[8].starts_with("1 rows"), "{}", printed[8]);
        }
        let mut fixture = Fixture::new();
        fixture.must(schema[2]);
        assert_eq!(fixture.query("SELECT length(a) AS n FROM v"), format!("[n]({bytes})"));
    }
}

/// SQLite looks how long a string of a text is when it first comes to it, and never again.
#[test]
fn a_statement_that_ran_with_longer_values_is_not_taken_for_one_that_has_not() {
    let long = "s".repeat(40_000);
    // The first run is quick, whatever its steps. The second takes too many for values as long as that.
    let sql = format!("SELECT count(*) AS n FROM n AS a, n AS b WHERE a.x + b.x <> '{long}'");
    let fill = |n: u32| {
        format!(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {n}) INSERT INTO n SELECT x FROM c"
        )
    };
    let tried = [
        exec(90, &fill(9), LIMITS),
        query(91, &sql),
        exec(92, &fill(700), LIMITS),
        query(93, &sql),
    ];
    let (printed, _) = check(&after(&["CREATE TABLE n(x)"], &tried));
    assert_eq!(printed[2], "[n](81)");
    assert!(printed[4].starts_with("error statement_steps"), "{}", printed[4]);
    // The same of a trigger; and where the limit is another than it was.
    let trigger = format!(
        "CREATE TRIGGER g AFTER INSERT ON t WHEN new.a <> '{long}' BEGIN DELETE FROM t WHERE a = 'x'; END"
    );
    let small = CommandLimits { value_bytes: 20_000, ..LIMITS };
    let tried = [
        exec(90, "INSERT INTO t VALUES (1)", LIMITS),
        exec(91, "INSERT INTO t VALUES (1)", small),
        exec(92, "INSERT INTO t VALUES (1)", LIMITS),
    ];
    let (printed, _) = check(&after(&["CREATE TABLE t(a)", &trigger], &tried));
    assert_eq!(printed[3], "error value_bytes: string or blob too big");
    assert!(printed[4].starts_with("1 rows"), "{}", printed[4]);
}

/// The last steps of what a command may take go into preparing a statement, or just do not.
#[test]
fn the_last_steps_end_a_command_in_the_same_way_everywhere() {
    let columns: Vec<_> = (0..40).map(|it| format!("c{it}")).collect();
    let columns = columns.join(",");
    let listed = vec!["1"; 40].join(",");
    let schema = [
        format!("CREATE TABLE w({columns})"),
        "CREATE TABLE t(a)".to_owned(),
        format!("INSERT INTO w VALUES ({listed})"),
        format!(
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE w SET ({columns}) = (SELECT * FROM w LIMIT 1); END"
        ),
    ];
    let mut schema: Vec<_> = schema.iter().map(String::as_str).collect();
    let with_view =
        "CREATE VIEW v AS SELECT w.* FROM w JOIN w AS x USING (c1, c2) JOIN w AS y USING (c1)";
    let mut n_inline_all = 0;
    for (is_viewed, sql) in [
        // Asks for many columns.
        (false, format!("INSERT INTO t SELECT c1 FROM w WHERE ({columns}) = ({columns})")),
        (false, "INSERT INTO t VALUES (1)".to_owned()),
        (false, "UPDATE w SET c1 = c2; INSERT INTO t VALUES (1)".to_owned()),
        (true, "INSERT INTO t SELECT c1 FROM v".to_owned()),
    ] {
        if is_viewed {
            schema.push(with_view);
        }
        let plenty = exec(80, &sql, LIMITS);
        let mut ends = Vec::new();
        let mut at = 0;
        let outcome = |steps: u64| {
            let limits = CommandLimits { steps, ..LIMITS };
            let tried = [plenty.clone(), exec(90, &sql, limits), exec(91, &sql, limits)];
            let (printed, n_inline) = check(&after(&schema, &tried));
            (printed[schema.len() + 1].clone(), n_inline)
        };
        while ends.last().is_none_or(|(_, it): &(u64, String)| it.starts_with("error")) {
            assert!(at < 200_000, "{sql} never ends well");
            let (printed, n_inline) = outcome(at);
            n_inline_all += n_inline;
            ends.push((at, printed));
            at = at * 2 + 50;
        }
        let (enough, _) = ends.pop().unwrap();
        let (mut low, mut high) = (ends.last().map_or(0, |it| it.0), enough);
        while high - low > 1 {
            let half = low.midpoint(high);
            if outcome(half).0.starts_with("error") { low = half } else { high = half }
        }
        for steps in low.saturating_sub(1)..=high {
            let (printed, _) = outcome(steps);
            let want = if steps < high { "error statement_steps: " } else { "1 rows" };
            assert!(printed.starts_with(want), "{sql}: {steps} steps: {printed}");
        }
    }
    assert!(n_inline_all > 0, "nothing ran where there is little time");
}
