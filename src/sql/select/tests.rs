//! What is built, and what is refused.

use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::fallible_iterator::FallibleIterator;

use super::*;

/// A database with the tables that the pieces of these tests name.
fn connection() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    let schema =
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c TEXT); CREATE TABLE u(a, d, \"the end\")";
    connection.execute_batch(schema).unwrap();
    connection
}

/// The one statement that `sql` is, and that it reads.
fn must_read(connection: &Connection, sql: &str) {
    let mut batch = rusqlite::Batch::new(connection, sql);
    let statement = batch.next().unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert!(statement.is_some_and(|it| it.readonly()), "{sql} reads");
    assert!(matches!(batch.next(), Ok(None)), "{sql} is one statement");
}

/// What SQLite's parser says of `sql`, whatever its names mean.
fn is_well_formed(connection: &Connection, sql: &str) -> bool {
    let error = match connection.prepare(sql) {
        Ok(_) => return true,
        Err(error) => error.to_string(),
    };
    let is_syntax = ["syntax error", "incomplete input", "unrecognized token"];
    !is_syntax.iter().any(|it| error.contains(it))
}

fn expression(text: &str) -> Result<usize, Why> {
    let mut parser = Parser::new(text, Parameters::Allowed)?;
    parser.expression()?;
    parser.end()?;
    Ok(parser.n_parameters())
}

#[test]
fn statements_from_pieces() {
    let columns = ["a", "t.b AS the_b", "COUNT(*) AS n"];
    let mut select = Select::new(columns.into_iter(), "t", None).unwrap();
    select.join("left outer", "u x", Some("t.a = x.a")).unwrap();
    select.criterion("t.b", Test::Equal).unwrap();
    select.criterion("t.c", Test::Null).unwrap();
    select.criterion("lower(t.c)", Test::OneOf { n: 2, or_null: false }).unwrap();
    select.criterion("d", Test::OneOf { n: 1, or_null: true }).unwrap();
    select.criterion("d", Test::OneOf { n: 0, or_null: false }).unwrap();
    assert_eq!(select.condition(Conjunction::Or, "t.a > ? OR ? = 1"), Ok(2));
    assert_eq!(select.condition(Conjunction::Or, "d LIKE ?"), Ok(1));
    select.group_by(["t.a", "b HAVING COUNT(*) > 1"].into_iter()).unwrap();
    select.order_by(["n DESC", " b "].into_iter()).unwrap();
    let sql = select.finish(None, true);
    assert_eq!(
        sql,
        "SELECT a, t.b AS the_b, COUNT(*) AS n FROM t LEFT JOIN u x ON t.a = x.a \
         WHERE t.b = ? AND t.c IS NULL AND (lower(t.c)) IN (?, ?) AND (d IN (?) OR d IS NULL) \
         AND d IN () AND ((t.a > ? OR ? = 1) OR (d LIKE ?)) \
         GROUP BY t.a, b HAVING COUNT(*) > 1 ORDER BY n DESC, b LIMIT -1 OFFSET ?"
    );
    let of = |table: &str, alias: Option<&str>| Select::new([].into_iter(), table, alias);
    let mut select = of("t", Some("x")).unwrap();
    select.condition(Conjunction::Or, "a").unwrap();
    select.condition(Conjunction::And, "b").unwrap();
    assert_eq!(select.finish(Some(3), false), "SELECT * FROM t AS x WHERE (a) AND (b) LIMIT 3");
    assert_eq!(of("t", None).unwrap().finish(None, false), "SELECT * FROM t");
    assert!(of("t x", Some("y")).is_err(), "one other name is enough");
}

#[test]
fn a_long_text_is_refused_before_it_is_read() {
    let select = || Select::new([].into_iter(), "t", None).unwrap();
    // Were it read, it would be refused for what it is.
    let long = "a;".repeat(limits::SQL_SIZE_MAX / 2);
    let error = select().condition(Conjunction::And, &long).unwrap_err();
    assert_eq!(error.to_string(), "invalid where: SQL text is too long: at most 1000000 bytes");
    let list = Test::OneOf { n: usize::MAX / 2, or_null: false };
    assert_eq!(select().criterion("a", list).unwrap_err().why, Why::Size);
    let mut select = select();
    let half = format!("a = '{}'", "x".repeat(limits::SQL_SIZE_MAX / 2));
    assert_eq!(select.condition(Conjunction::And, &half), Ok(0));
    assert_eq!(select.condition(Conjunction::And, &half).unwrap_err().why, Why::Size);
    let blank = " ".repeat(2 * limits::SQL_SIZE_MAX);
    assert_eq!(select.condition(Conjunction::And, &format!("{blank}a{blank}")), Ok(0));
}

#[test]
#[should_panic(expected = "criteria come before conditions")]
fn clauses_come_in_their_order() {
    let mut select = Select::new([].into_iter(), "t", None).unwrap();
    select.condition(Conjunction::And, "a").unwrap();
    let _ = select.criterion("b", Test::Null);
}

#[test]
fn kinds_of_joins() {
    for (kind, on, want) in [
        ("", Some("1"), Some("JOIN u ON 1")),
        ("JOIN", Some("1"), Some("JOIN u ON 1")),
        ("inner", Some("1"), Some("INNER JOIN u ON 1")),
        ("Left", Some("1"), Some("LEFT JOIN u ON 1")),
        (" left  outer join ", Some("1"), Some("LEFT JOIN u ON 1")),
        ("RIGHT", Some("1"), Some("RIGHT JOIN u ON 1")),
        ("FULL OUTER", Some("1"), Some("FULL JOIN u ON 1")),
        ("cross", None, Some("CROSS JOIN u")),
        ("CROSS", Some("1"), Some("CROSS JOIN u ON 1")),
        ("LEFT", None, None),
        ("OUTER", Some("1"), None),
        ("INNER OUTER", Some("1"), None),
        ("NATURAL", Some("1"), None),
        ("LEFT JOIN x", Some("1"), None),
        ("JOIN x ON 1 JOIN", Some("1"), None),
    ] {
        let mut select = Select::new([].into_iter(), "t", None).unwrap();
        let joined = select.join(kind, "u", on).ok().map(|()| select.finish(None, false));
        if let Some(sql) = &joined {
            must_read(&connection(), sql);
        }
        assert_eq!(joined, want.map(|it| format!("SELECT * FROM t {it}")), "{kind}");
    }
}

/// Expressions that SQLite takes, and so do we.
const EXPRESSIONS: &[&str] = &[
    "a",
    "t.a",
    "main.t.a",
    "\"a\"",
    "[a] + `b`",
    "'it''s; -- no'",
    "x'00ff' || 1.5e3",
    "-a + +b - ~c",
    "a = 1 AND NOT b <> 2 OR c IS NOT NULL",
    "a IS NOT DISTINCT FROM b",
    "a ISNULL OR b NOTNULL OR c NOT NULL",
    "a BETWEEN 1 AND 2 AND b NOT BETWEEN 3 AND 4",
    "a BETWEEN b = 1 AND c",
    "a IN (1, 2, 3) AND b NOT IN (SELECT d FROM u) AND c IN ()",
    "c LIKE '%x!%' ESCAPE '!' AND c NOT GLOB 'a*'",
    "c LIKE 'a' || 'b' ESCAPE '!' = 1",
    "(a, b) = (1, 2)",
    "((((a))))",
    "CASE WHEN a = 1 THEN 'x' ELSE 'y' END",
    "CASE a WHEN 1 THEN 2 WHEN 3 THEN 4 END + 1",
    "CAST(a AS INTEGER) + CAST(b AS VARCHAR(10)) + CAST(c AS DECIMAL(10, -2))",
    "CAST(a AS DOUBLE PRECISION)",
    "EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
    "NOT EXISTS (SELECT * FROM u x LEFT JOIN u AS y ON x.a = y.a)",
    "(SELECT DISTINCT d FROM u GROUP BY d HAVING count(*) > 1 ORDER BY d DESC LIMIT 1 OFFSET 2) = a",
    "a IN (SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3)",
    "a = (SELECT max(x.n) FROM (SELECT u.*, d AS n FROM u) AS x CROSS JOIN u)",
    "b IN (SELECT value FROM json_each('[1]') j)",
    "coalesce(a, b, ?) = ? COLLATE NOCASE",
    "replace(c, 'a', 'b') = lower('X') AND date('now') > CURRENT_TIMESTAMP",
    "c ->> '$.a' = 1 AND c -> 'b' IS NULL",
    "a & 1 | 2 << 3 >> 4 % 5",
    "1 + NOT a = b",
    "- NOT a AND b",
    "like('a', b)",
    "\"the end\" = 'x'",
];

/// Expressions with an aggregate, or a window.
const AGGREGATES: &[&str] = &[
    "COUNT(*)",
    "count(DISTINCT a)",
    "sum(a) FILTER (WHERE b > 1)",
    "group_concat(c, ',' ORDER BY a DESC NULLS LAST)",
    "row_number() OVER (PARTITION BY b, c ORDER BY a DESC)",
    "sum(a) FILTER (WHERE b) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE TIES)",
    "sum(a) OVER (ORDER BY a GROUPS CURRENT ROW EXCLUDE CURRENT ROW)",
    "avg(a) OVER (ROWS UNBOUNDED PRECEDING EXCLUDE NO OTHERS) + 1",
    "max(a) OVER ()",
];

#[test]
fn expressions_in_their_places() {
    let connection = connection();
    for text in EXPRESSIONS {
        let parsed = expression(text);
        let build = || -> Result<String, SelectError> {
            let mut select = Select::new(["1"].into_iter(), "t", None)?;
            select.join("LEFT", "u", Some("t.a = u.a"))?;
            select.condition(Conjunction::And, text)?;
            Ok(select.finish(None, false))
        };
        assert!(parsed.is_ok(), "{text}: {parsed:?}");
        let sql = build().unwrap();
        assert!(is_well_formed(&connection, &sql), "{sql}");
    }
    for text in AGGREGATES {
        let select = Select::new([*text].into_iter(), "t", None).unwrap();
        must_read(&connection, &select.finish(None, false));
    }
    for column in [
        "*",
        "t.*",
        "a b",
        "a AS 'b'",
        "a AS first",
        "a key",
        "max(a) last",
        "DISTINCT a, b",
        "ALL a",
        "a AS \"x y\"",
    ] {
        let select = Select::new([column].into_iter(), "t", None).unwrap();
        must_read(&connection, &select.finish(None, false));
    }
    for table in [
        "groups",
        "plan",
        "action",
        "key",
        "query",
        "view",
        "row",
        "trigger",
        "database",
        "left",
        "with",
        "main.window w",
        "cast key",
    ] {
        let mut select = Select::new([].into_iter(), table, None).unwrap();
        select.join("LEFT", table, Some("1")).unwrap();
        select.criterion("a", Test::Equal).unwrap();
        let sql = select.finish(Some(1), true);
        assert!(is_well_formed(&connection, &sql), "{sql}");
    }
    for table in
        ["t", "main.t", "t x", "t AS x", "\"t\" AS [y]", "json_each('[1]') AS j", "(SELECT 1) s"]
    {
        let select = Select::new([].into_iter(), table, None).unwrap();
        must_read(&connection, &select.finish(None, false));
    }
    for order in ["a", "a DESC", "lower(c) COLLATE NOCASE ASC NULLS FIRST", "1, b DESC NULLS LAST"]
    {
        let mut select = Select::new([].into_iter(), "t", None).unwrap();
        select.order_by([order].into_iter()).unwrap();
        must_read(&connection, &select.finish(None, false));
    }
}

#[test]
fn what_is_no_expression() {
    for text in [
        "",
        "  ",
        "a;",
        "a; DROP TABLE t",
        "a -- b",
        "a /* b */",
        "/* a",
        "a) OR (1",
        "(a",
        "a)",
        "'a",
        "\"a",
        "[a",
        "a = ",
        "= a",
        "a b",
        "a, b",
        "a ORDER BY b",
        "a GROUP BY b",
        "a LIMIT 1",
        "a UNION SELECT 1",
        "1 FROM t",
        "SELECT 1",
        "(SELECT 1; SELECT 2)",
        "(SELECT 1",
        "(SELECT 1 INTO x)",
        "(DELETE FROM t)",
        "(VALUES (1))",
        "(WITH x AS (SELECT 1) SELECT * FROM x)",
        "(INSERT INTO t VALUES (1) RETURNING a)",
        "a AS b",
        "a DESC",
        "a BETWEEN 1",
        "a BETWEEN 1 OR 2 AND 3",
        "a LIKE",
        "a NOT 1",
        "a IS",
        "a ESCAPE 'x'",
        "a IN t",
        "a IN",
        "CASE END",
        "CASE a THEN b END",
        "CASE WHEN a THEN b",
        "CAST(a, b)",
        "CAST(a AS INTEGER(x))",
        "f(a",
        "count(*) OVER w",
        "count(*) OVER (w)",
        "count(*) FILTER (a)",
        "raise(ignore)",
        "a.b.c.d",
        "a..b",
        "t.*",
        "*",
        "?1",
        ":a",
        "@a",
        "$a",
        "a\0",
        "a\u{feff}",
        "window",
        "from",
        "1a",
        "a COLLATE",
        "a ! b",
        "{a}",
        "\\",
    ] {
        assert!(expression(text).is_err(), "{text:?}");
    }
    let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
    assert_eq!(expression(&deep), Err(Why::Depth));
    assert_eq!(expression(&"NOT ".repeat(100)), Err(Why::Depth));
    assert_eq!(expression(&format!("{}1", "a + ".repeat(500))), Ok(0), "a long chain is not deep");
}

#[test]
fn what_is_out_of_its_place() {
    let select = || Select::new([].into_iter(), "t", None).unwrap();
    for table in [
        "",
        "t;",
        "t, u",
        "t JOIN u",
        "t x y",
        "t WHERE 1",
        "t AS",
        "(t)",
        "t AS x WHERE",
        "'t'",
        "t NATURAL",
        "t LEFT",
        "SELECT",
        "t -- x",
        "t.u.v",
        "t INDEXED BY i",
        "t offset",
        "json_each('[1]') over",
        "(SELECT 1",
        "json_each(?)",
        "?",
    ] {
        assert!(Select::new([].into_iter(), table, None).is_err(), "table {table:?}");
        assert!(select().join("LEFT", table, Some("1")).is_err(), "table {table:?}");
    }
    for alias in ["", "a b", "a.b", "a, b", "from", "a)"] {
        assert!(Select::new([].into_iter(), "t", Some(alias)).is_err(), "alias {alias:?}");
    }
    for column in [
        "",
        "a FROM t",
        "a,",
        "a b c",
        "a DESC",
        "?",
        "a = ?",
        "* a",
        "a left",
        "max(a) over",
        "max(a) filter",
        "a end",
        "t.* x",
        "a AS from",
    ] {
        assert!(Select::new([column].into_iter(), "t", None).is_err(), "column {column:?}");
    }
    Select::new(["a", "DISTINCT b"].into_iter(), "t", None).unwrap_err();
    for key in ["", "a =", "a = 1 OR", "?", "a, b", "a)"] {
        assert!(select().criterion(key, Test::Equal).is_err(), "key {key:?}");
    }
    for on in ["a = ?", "a WHERE 1", "a JOIN u", "a ON b"] {
        assert!(select().join("LEFT", "u", Some(on)).is_err(), "on {on:?}");
    }
    for texts in
        [&["a HAVING 1", "b"][..], &["a HAVING"], &["a ORDER BY b"], &["HAVING 1"], &["?"], &[""]]
    {
        assert!(select().group_by(texts.iter().copied()).is_err(), "group by {texts:?}");
    }
    for order in ["", "a DESC ASC", "a LIMIT 1", "a DESC LIMIT 1", "a NULLS", "?", "a b"] {
        assert!(select().order_by([order].into_iter()).is_err(), "order by {order:?}");
    }
    let error = select().condition(Conjunction::And, "a ORDER BY 1").unwrap_err();
    assert_eq!(error.to_string(), "invalid where: unexpected \"ORDER\"");
    let error = select().condition(Conjunction::And, "a = (1").unwrap_err();
    assert_eq!(error.to_string(), "invalid where: incomplete");
}

const OPERATORS: &[&str] =
    &["=", "<>", "<", ">=", "AND", "OR", "+", "-", "*", "||", "IS", "IS NOT", "LIKE", "|", "->>"];

/// Expressions that mean something on `t`, with at most some question marks.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("a".to_owned()),
        Just("t.b".to_owned()),
        Just("\"c\"".to_owned()),
        Just("NULL".to_owned()),
        Just("?".to_owned()),
        any::<i32>().prop_map(|it| it.to_string()),
        "[a-z; '\"()-]{0,5}".prop_map(|it| format!("'{}'", it.replace('\'', "''"))),
    ];
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let operator = proptest::sample::select(OPERATORS);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            inner.clone().prop_map(|it| format!("({it})")),
            inner.clone().prop_map(|it| format!("NOT {it}")),
            inner.clone().prop_map(|it| format!("- ({it})")),
            inner.clone().prop_map(|it| format!("coalesce({it}, 1)")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) BETWEEN ({b}) AND 9")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) IN (1, {b})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("CASE WHEN {a} THEN {b} ELSE {c} END")),
        ]
    })
}

/// What an attack is made of.
const PIECES: &[&str] = &[
    "a",
    "t",
    ".",
    ",",
    "(",
    ")",
    "*",
    "=",
    "<",
    "-",
    "--",
    "/*",
    "*/",
    "'",
    "\"",
    "`",
    "[",
    "]",
    ";",
    "?",
    "1",
    "'x'",
    "x'00'",
    "AND",
    "OR",
    "NOT",
    "IS",
    "NULL",
    "IN",
    "BETWEEN",
    "LIKE",
    "ESCAPE",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST",
    "AS",
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "HAVING",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "UNION",
    "JOIN",
    "LEFT",
    "NATURAL",
    "ON",
    "USING",
    "DISTINCT",
    "ALL",
    "EXISTS",
    "COLLATE",
    "NOCASE",
    "OVER",
    "FILTER",
    "WINDOW",
    "PARTITION",
    "ROWS",
    "DESC",
    "NULLS",
    "FIRST",
    "WITH",
    "VALUES",
    "REPLACE",
    "RAISE",
    "INDEXED",
    "ISNULL",
    "NOTNULL",
    "count",
    "left",
    "key",
    "\u{feff}",
    "\0",
    "||",
    "->",
    "->>",
    "+",
    "ü",
    "\n",
    "e",
    "0x1",
];

proptest! {
    #[test]
    fn what_is_valid_is_one_statement_that_reads(
        text in expressions(),
        second in expressions(),
        limit in proptest::option::of(any::<i64>()),
        skips: bool,
    ) {
        let plain = |it: &String| it.replace('?', "1");
        let columns = [format!("{} AS x", plain(&text)), "t.*".to_owned()];
        let mut select = Select::new(columns.iter().map(|it| &**it), "t", None).unwrap();
        select.join("LEFT", "u AS v", Some(&plain(&second))).unwrap();
        select.criterion("d", Test::Equal).unwrap();
        let n = select.condition(Conjunction::And, &text).unwrap();
        prop_assert!(n <= text.matches('?').count());
        select.condition(Conjunction::Or, &second).unwrap();
        select.group_by([&*plain(&text)].into_iter()).unwrap();
        select.order_by([&*format!("{} DESC", plain(&second))].into_iter()).unwrap();
        let sql = select.finish(limit, skips);
        let connection = connection();
        prop_assert!(is_well_formed(&connection, &sql), "{}", sql);
        // With names that mean something, it is prepared as well.
        let mut select = Select::new([].into_iter(), "t", None).unwrap();
        select.condition(Conjunction::And, &text).unwrap();
        must_read(&connection, &select.finish(limit, skips));
    }

    #[test]
    fn what_is_taken_is_an_expression_for_sqlite_too(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 1..9),
        spaced: bool,
    ) {
        let text = pieces.join(if spaced { " " } else { "" });
        let connection = connection();
        if expression(&text).is_ok() {
            for sql in [
                format!("SELECT ({text})"),
                format!("SELECT {text} AS x, {text} FROM t"),
                format!("SELECT CASE WHEN {text} THEN {text} END"),
                format!("SELECT 1 FROM t JOIN u ON {text} LEFT JOIN u AS v ON {text} WHERE ({text}) AND 1"),
                format!("SELECT 1 FROM t GROUP BY {text} HAVING {text} ORDER BY {text} DESC, {text} LIMIT 1"),
            ] {
                prop_assert!(is_well_formed(&connection, &sql), "{}", sql);
            }
        }
        for (sql, built) in [
            (format!("SELECT {text} FROM t"), Select::new([&*text].into_iter(), "t", None)),
            (format!("SELECT * FROM {text} LEFT JOIN u ON 1"), {
                Select::new([].into_iter(), &text, None)
            }),
        ] {
            if built.is_ok() {
                prop_assert!(is_well_formed(&connection, &sql), "{}", sql);
            }
        }
        let mut select = Select::new([].into_iter(), "t", None).unwrap();
        if select.group_by([&*text].into_iter()).is_ok() && select.order_by([&*text].into_iter()).is_ok() {
            let sql = select.finish(Some(1), true);
            prop_assert!(is_well_formed(&connection, &sql), "{}", sql);
        }
    }

    #[test]
    fn no_text_does_harm(text: String) {
        let _ = expression(&text);
        let _ = Select::new([&*text].into_iter(), &text, Some(&text));
    }
}
