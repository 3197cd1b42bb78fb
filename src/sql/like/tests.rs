//! `LIKE` and `GLOB` compared with SQLite's own, and what would take an hour.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::*;
use crate::sql::Read;
use crate::sql::Share;
use crate::sql::context;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::types::Dice;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::Stamp;

const PATTERN_MAX: i32 = 60;

/// A connection with SQLite's functions, and one with those here.
fn both() -> [Connection; 2] {
    let connections = [(); 2].map(|()| Connection::open_in_memory().unwrap());
    register(Handle::new(&connections[1])).unwrap();
    for it in &connections {
        let limit = rusqlite::limits::Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH;
        it.set_limit(limit, PATTERN_MAX).unwrap();
    }
    connections
}

fn ask(connection: &Connection, sql: &str, arguments: &[Value]) -> Result<Option<i64>, String> {
    let mut statement = connection.prepare(sql).unwrap();
    statement
        .query_row(rusqlite::params_from_iter(arguments), |row| row.get(0))
        .map_err(|it| it.to_string())
}

const CALLS: [&str; 4] = [
    "SELECT CAST(?1 AS TEXT) LIKE CAST(?2 AS TEXT)",
    "SELECT CAST(?1 AS TEXT) LIKE CAST(?2 AS TEXT) ESCAPE CAST(?3 AS TEXT)",
    "SELECT CAST(?1 AS TEXT) GLOB CAST(?2 AS TEXT)",
    "SELECT ?1 LIKE ?2 ESCAPE ?3",
];

/// Ask both, in all ways; how many said yes, no, and that it cannot be done.
fn check(connections: &[Connection; 2], arguments: &[Value; 3]) -> [usize; 3] {
    let mut counts = [0; 3];
    for sql in CALLS {
        let n = if sql.contains("ESCAPE") { 3 } else { 2 };
        let [want, got] = connections.each_ref().map(|it| ask(it, sql, &arguments[..n]));
        assert_eq!(want, got, "{sql}: {arguments:?}");
        match got {
            Ok(Some(1)) => counts[0] += 1,
            Ok(Some(_)) => counts[1] += 1,
            Ok(None) => {}
            Err(_) => counts[2] += 1,
        }
    }
    counts
}

#[test]
fn they_answer_as_sqlites_own_whatever_they_are_asked() {
    const PIECES: [&[u8]; 34] = [
        b"a",
        b"A",
        b"b",
        b"B",
        b"k",
        b"z",
        b"@",
        b"`",
        b"0",
        b" ",
        b"%",
        b"%",
        b"_",
        b"*",
        b"*",
        b"?",
        b"[",
        b"[",
        b"]",
        b"]",
        b"^",
        b"-",
        b"\\",
        b"\0",
        "é".as_bytes(),
        "É".as_bytes(),
        "\u{212a}".as_bytes(),
        "\u{1f980}".as_bytes(),
        b"\x80",
        b"\xc3",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x81\xbf\xbf\xbf",
        b"\xef\xbf\xbe",
    ];
    const WILD: [&[u8]; 10] = [
        b"%",
        b"_",
        b"*",
        b"?",
        b"[a-z]",
        b"[^A-Z]",
        b"[]a-]",
        b"[^]-]",
        b"[\xc3\xa9-\xff]",
        b"%_%",
    ];
    let connections = both();
    let mut dice = Dice::new(7);
    let mut up_to = |n: usize| usize::try_from(dice.roll() % u64::try_from(n).unwrap()).unwrap();
    let mut counts = [0; 3];
    for _ in 0..40_000 {
        // Of few different pieces, so that much matches.
        let mut alphabet = Vec::new();
        for _ in 0..=up_to(6) {
            alphabet.push(PIECES[up_to(PIECES.len())]);
        }
        // The pattern is half of the text's pieces, half wildcards.
        let text: Vec<_> = (0..up_to(12)).map(|_| alphabet[up_to(alphabet.len())]).collect();
        let mut pattern = Vec::new();
        for piece in &text {
            match up_to(6) {
                0 => pattern.extend_from_slice(alphabet[up_to(alphabet.len())]),
                1 => pattern.extend_from_slice(WILD[up_to(WILD.len())]),
                2 if up_to(3) == 0 => {}
                _ => pattern.extend_from_slice(piece),
            }
        }
        let escape = alphabet[up_to(alphabet.len())].repeat(1 + up_to(8) / 7);
        let arguments = [text.concat(), pattern, escape].map(Value::Blob);
        for (sum, n) in counts.iter_mut().zip(check(&connections, &arguments)) {
            *sum += n;
        }
    }
    assert!(counts.iter().all(|it| *it > 10_000), "{counts:?}");
}

#[test]
fn every_kind_of_value_is_asked_as_sqlite_would() {
    let connections = both();
    let values = [
        Value::Null,
        Value::Integer(12),
        Value::Real(1.5),
        Value::Text("1%".to_owned()),
        Value::Text("12".to_owned()),
        Value::Text("%".to_owned()),
        Value::Text("_".to_owned()),
        Value::Text(String::new()),
        Value::Blob(b"1_".to_vec()),
        Value::Blob(Vec::new()),
        Value::Text("%".repeat(60)),
        Value::Text("x".repeat(61)),
        Value::Text("é".repeat(31)),
        Value::Blob([b'1'; 61].to_vec()),
    ];
    let mut counts = [0; 3];
    for a in &values {
        for b in &values {
            for c in &values {
                let arguments = [a.clone(), b.clone(), c.clone()];
                for (sum, n) in counts.iter_mut().zip(check(&connections, &arguments)) {
                    *sum += n;
                }
            }
        }
    }
    assert!(counts.iter().all(|it| *it > 100), "{counts:?}");
    for sql in ["SELECT like('a')", "SELECT glob(1, 2, 3)", "SELECT 'a' LIKE zeroblob(3)"] {
        let [want, got] = connections.each_ref().map(|it| {
            it.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|it| it.to_string())
        });
        assert_eq!(want, got, "{sql}");
    }
}

#[test]
fn a_search_by_a_prefix_uses_an_index() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a TEXT COLLATE NOCASE, b TEXT)");
    fixture.must("CREATE INDEX t_a ON t(a)");
    fixture.must("CREATE INDEX t_b ON t(b)");
    let plain = Connection::open_in_memory().unwrap();
    plain
        .execute_batch(
            "CREATE TABLE t(a TEXT COLLATE NOCASE, b TEXT);
             CREATE INDEX t_a ON t(a); CREATE INDEX t_b ON t(b);",
        )
        .unwrap();
    for (condition, is_search) in [
        ("a LIKE 'abc%'", true),
        ("a LIKE 'ab!%c%' ESCAPE '!'", true),
        ("b GLOB 'abc*'", true),
        ("b LIKE 'abc%'", false),
        ("a GLOB 'abc*'", false),
        ("a LIKE '%abc'", false),
        ("a LIKE b", false),
    ] {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM t WHERE {condition}");
        let want: String = plain.query_row(&sql, [], |row| row.get(3)).unwrap();
        let got = fixture.query(&sql);
        assert!(got.contains(&want), "{condition}: {got}, not {want}");
        assert_eq!(got.contains("SEARCH"), is_search, "{condition}: {got}");
    }
}

#[test]
fn what_would_take_an_hour_is_refused_wherever_it_stands() {
    // Each looks at most of 100 characters for each of the value's.
    let text = "replace(hex(zeroblob(15000)), '0', 'a')";
    let like = format!("LIKE '%{}b%'", "a".repeat(99));
    let glob = format!("GLOB '*{}b*'", "[a-c]".repeat(20));
    let broken = format!("LIKE '%{}b'", "a_".repeat(40));
    let loop_ = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
    let mut schemas = vec![format!(
        "CREATE TABLE t(a); {loop_} INSERT INTO t SELECT x FROM c WHERE x || {text} {glob}"
    )];
    for part in [
        format!("a CHECK({text} {like} IS NOT 1)"),
        format!("a, b AS (a || {text} {glob}) STORED"),
        format!("a CHECK(a || CAST(x'61C08080808080' AS TEXT) || {text} {broken} IS NOT 1)"),
    ] {
        schemas.push(format!("CREATE TABLE t({part}); {loop_} INSERT INTO t(a) SELECT x FROM c"));
    }
    for part in [format!("(a || {text} {like})"), format!("(a) WHERE a || {text} {like}")] {
        schemas.push(format!(
            "CREATE TABLE t(a); CREATE INDEX i ON t{part}; {loop_} INSERT INTO t SELECT x FROM c"
        ));
    }
    for sql in schemas {
        let mut fixture = Fixture::new();
        let stamp = Stamp { limits: CommandLimits { steps: 1_000_000, ..LIMITS }, ..stamp(1) };
        let command = command(Mode::Exec, &sql, &[], &stamp);
        let printed = print(&fixture.apply([command])[0]);
        assert!(printed.starts_with("error statement_steps"), "{sql}: {printed}");
    }
}

#[test]
fn what_is_charged_is_bounded_also_where_more_may_tick_by() {
    context::begin_statement(16_000, u64::MAX);
    charges::bound_charges(1_000);
    assert!(!charges::charge_search(1_000));
    assert!(charges::charge_search(1));
    context::unbounded();
}

#[test]
fn where_there_is_little_time_it_is_given_up_in_the_middle_of_a_value() {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a, b)");
    fixture.must("INSERT INTO t SELECT replace(hex(zeroblob(15000)), '0', 'a'), 'a text'");
    let slow = format!("a LIKE '%{}b%'", "a".repeat(99));
    let read = |fixture: &mut Fixture, condition: &str, share| {
        let sql = format!("SELECT b FROM t WHERE {condition}");
        let read = command(Mode::Query, &sql, &[], &stamp(1));
        fixture.database.read_within(&[read], share, &mut |_| false).unwrap().remove(0)
    };
    assert_eq!(read(&mut fixture, &slow, Share::Inline), Read::Long);
    let Read::Done(quick) = read(&mut fixture, "a LIKE '%b%' OR b LIKE 'A%'", Share::Inline) else {
        panic!("this is quick");
    };
    assert_eq!(print(&quick), "[b]('a text')");
    // With the time that it takes, a read may search as much as it likes.
    let whole = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20)
        SELECT count(*) FROM c, t WHERE a || x ";
    let whole = format!("{whole} {}", slow.strip_prefix("a ").unwrap());
    let stamp = Stamp { limits: CommandLimits { steps: 100_000, ..LIMITS }, ..stamp(1) };
    let read = command(Mode::Query, &whole, &[], &stamp);
    let outcome = fixture.database.read(&[read], &mut |_| false).unwrap().remove(0);
    assert_eq!(print(&outcome), "[count(*)](0)");
}
