//! What bodies become.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::types::Incarnation;
use crate::types::Timestamp;
use crate::wire::command::Command;
use crate::wire::command::CommandLimits;
use crate::wire::command::Stamp;

/// The command a draft becomes; all that a leader adds is nothing.
pub(in crate::gateway) fn seal(draft: Draft) -> Bytes {
    let limits = CommandLimits {
        steps: 0,
        temp_bytes: 0,
        database_bytes: 0,
        result_bytes: 0,
        result_rows: 0,
        value_bytes: 0,
    };
    let stamp = Stamp { incarnation: Incarnation(1), time: Timestamp(0), seed: 0, limits };
    draft.seal(&stamp)
}

/// A draft in a line: `Exec "sql" value, value; …`.
fn show(draft: Draft) -> String {
    let bytes = seal(draft);
    let command = Command::decode(&bytes).unwrap();
    let statements = command.statements().map(|it| {
        let it = it.unwrap();
        let arguments: Vec<_> = it.arguments.map(|it| format!("{it:?}")).collect();
        format!("{:?} {:?} {}", it.mode, it.sql, arguments.join(", ")).trim_end().to_owned()
    });
    statements.collect::<Vec<_>>().join("; ")
}

#[test]
fn bodies_of_one_statement() {
    for (body, want) in [
        (r#"{"sql":"x"}"#, r#"Exec "x""#),
        (r#"{"SQL":"x","Args":[1]}"#, r#"Exec "x" Integer(1)"#),
        (r#"{"args":[1,"a",null],"sql":"x"}"#, r#"Exec "x" Integer(1), Text("a"), Null"#),
        (r#" {"z":{"a":[1]},"sql":"x","args":null} trailing"#, r#"Exec "x""#),
        (r#"{"sql":"x","kind":"query"}"#, r#"Exec "x""#),
        (r#"{"sql":null,"sql":"x"}"#, r#"Exec "x""#),
        ("{\"sql\":\"\u{fc} \\u00fc \\n\"}", r#"Exec "ü ü \n""#),
        (
            r#"{"sql":"x","args":["a\"b",{"base64":"AP8="},{"base64":"AP8"}]}"#,
            r#"Exec "x" Text("a\"b"), Blob([0, 255]), Blob([0, 255])"#,
        ),
        (
            r#"{"sql":"x","args":[{"base64":""},true,false]}"#,
            r#"Exec "x" Blob([]), Integer(1), Integer(0)"#,
        ),
        ("", "invalid body"),
        ("null", "invalid body"),
        ("[]", "invalid body"),
        (r#""x""#, "invalid body"),
        ("{}", "invalid body"),
        (r#"{"sql":""}"#, "invalid body"),
        (r#"{"sql":" \n\t"}"#, "invalid body"),
        (r#"{"sql":1}"#, "invalid body"),
        (r#"{"sql":"x""#, "invalid body"),
        (r#"{"sql":"x","args":{}}"#, "invalid body"),
        (r#"{"sql":"x","args":"a"}"#, "invalid body"),
        (r#"{"sql":"x","sql":"y"}"#, "invalid body"),
        (r#"{"sql":"x","args":[1],"ARGS":[2]}"#, "invalid body"),
        (r#"{"sql":"x","args":[1,[2]]}"#, ARGUMENT_2),
        (r#"{"args":[1,{}],"sql":"x"}"#, ARGUMENT_2),
        (r#"{"sql":"x","args":[1,{"base64":"?"}]}"#, ARGUMENT_2),
        (r#"{"sql":"x","args":[1,{"base64":"AP8=","a":1}]}"#, ARGUMENT_2),
        (r#"{"sql":"x","args":[1,{"hex":"00"}]}"#, ARGUMENT_2),
    ] {
        let got = statement(body.as_bytes(), Mode::Exec).map_or_else(|it| it.to_string(), show);
        assert_eq!(got, want, "{body}");
    }
}

const ARGUMENT_1: &str =
    "argument 1: bind a string, a number, a boolean, null or {\"base64\":\"…\"}";
const ARGUMENT_2: &str =
    "argument 2: bind a string, a number, a boolean, null or {\"base64\":\"…\"}";

#[test]
fn numbers_are_exact() {
    for (number, want) in [
        ("9223372036854775807", "Integer(9223372036854775807)"),
        ("-9223372036854775808", "Integer(-9223372036854775808)"),
        ("9007199254740993", "Integer(9007199254740993)"),
        ("9223372036854775808", "Real(9.223372036854776e18)"),
        ("18446744073709551616", "Real(1.8446744073709552e19)"),
        ("3.0", "Integer(3)"),
        ("1e3", "Integer(1000)"),
        ("-0.0", "Integer(0)"),
        ("-9.223372036854775808e18", "Integer(-9223372036854775808)"),
        ("9.223372036854775808e18", "Real(9.223372036854776e18)"),
        ("0.1", "Real(0.1)"),
        ("1e300", "Real(1e300)"),
        // Rounding to the nearest float needs all of the digits.
        ("0.90071992547409931", "Real(0.9007199254740993)"),
        ("8.988465674311579e307", "Real(8.988465674311579e307)"),
        ("1e999", "invalid body"),
    ] {
        let body = format!(r#"{{"sql":"x","args":[{number}]}}"#);
        let got = statement(body.as_bytes(), Mode::Exec).map_or_else(|it| it.to_string(), show);
        assert_eq!(got.trim_start_matches(r#"Exec "x" "#), want, "{number}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_replaced() {
    let draft = statement(b"{\"sql\":\"x\",\"args\":[\"a\xffb\"]}", Mode::Query).unwrap();
    assert_eq!(show(draft), r#"Query "x" Text("a�b")"#);
}

#[test]
fn bodies_of_a_transaction() {
    for (body, want) in [
        (
            r#"{"ops":[{"kind":"exec","sql":"a","args":[1]},{"kind":" QUERY ","sql":"b"}]}"#,
            r#"writes Exec "a" Integer(1); Query "b""#,
        ),
        (
            r#"{"return_results":true,"ops":[{"args":[1,2],"sql":"a","kind":"query"},{"sql":"b","args":[],"kind":"query"}]}"#,
            r#"results Query "a" Integer(1), Integer(2); Query "b""#,
        ),
        (r#"{"statements":["a","b"],"ops":[]}"#, r#"writes Exec "a"; Exec "b""#),
        (
            r#"{"statements":["a"],"ops":[{"kind":"query","sql":"b"}],"stop_on_error":1}"#,
            r#"Query "b""#,
        ),
        (r#"{"ops":null,"statements":["a"],"return_results":null}"#, r#"writes Exec "a""#),
        (r#"{"ops":[{"kind":"drop","sql":"b"}]}"#, "invalid op kind: drop"),
        (r#"{"ops":[{"sql":"b"}]}"#, "invalid op kind:"),
        (r#"{"ops":[null]}"#, "invalid op kind:"),
        (r#"{"ops":[{"kind":"exec"}]}"#, "invalid body"),
        (r#"{"ops":[{"kind":"exec","sql":" "}]}"#, "invalid body"),
        (r#"{"ops":[{"kind":"exec","sql":"a","kind":"query"}]}"#, "invalid body"),
        (r#"{"ops":[{"kind":1,"sql":"a"}]}"#, "invalid body"),
        (r#"{"ops":["a"]}"#, "invalid body"),
        (r#"{"ops":{}}"#, "invalid body"),
        (r#"{"statements":[""]}"#, "invalid body"),
        (r#"{"statements":"a"}"#, "invalid body"),
        (r#"{"ops":[],"statements":[]}"#, "invalid body"),
        (r#"{"statements":["a"],"return_results":"yes"}"#, "invalid body"),
        ("null", "invalid body"),
    ] {
        let got = transaction(body.as_bytes()).map_or_else(
            |it| it.to_string(),
            |it| {
                let results = if it.return_results { "results " } else { "" };
                let writes = if it.writes { "writes " } else { "" };
                format!("{results}{writes}{}", show(it.draft))
            },
        );
        assert_eq!(got.trim_end(), want, "{body}");
    }
}

#[test]
fn one_field() {
    for (body, want) in [
        (r#"{"Table":"t"}"#, "t"),
        (r#"{"x":[],"table":" t "}"#, " t "),
        (r#"{"table":""}"#, "invalid body"),
        (r#"{"table":["t"]}"#, "invalid body"),
        ("null", "invalid body"),
        ("x", "invalid body"),
    ] {
        let got = field(body.as_bytes(), "table").unwrap_or_else(|it| it.to_string());
        assert_eq!(got, want, "{body}");
    }
}

#[test]
fn more_than_a_command_holds_is_refused() {
    let many = format!(r#"{{"sql":"x","args":[{}1]}}"#, "1,".repeat(32_766));
    assert_eq!(
        statement(many.as_bytes(), Mode::Exec).unwrap_err(),
        BodyError::Draft(DraftError::Arguments)
    );
    let early = format!(r#"{{"args":[{}1],"sql":"x"}}"#, "1,".repeat(32_766));
    assert_eq!(
        statement(early.as_bytes(), Mode::Exec).unwrap_err(),
        BodyError::Draft(DraftError::Arguments)
    );
    let deep = format!(r#"{{"sql":"x","args":[{}"#, "[".repeat(100_000));
    assert_eq!(statement(deep.as_bytes(), Mode::Exec).unwrap_err(), BodyError::Argument(1));
    let deep = format!(r#"{{"y":{}"#, "[".repeat(1_000_000));
    assert_eq!(statement(deep.as_bytes(), Mode::Exec).unwrap_err(), BodyError::Shape);
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = statement(&bytes, Mode::Exec);
        let _ = transaction(&bytes);
        let _ = field(&bytes, "schema");
    }

    #[test]
    fn decoding_almost_json_never_panics(
        pieces in proptest::collection::vec(proptest::sample::select(&[
            "{", "}", "[", "]", ",", ":", "\"", "null", "true", "1", "-0.5e3", "\"sql\":", "\"a\"",
            "\"args\":", "\"ops\":[{", "\"kind\":\"exec\"", "\"statements\":[", "\\u", "\\",
            "{\"base64\":\"AA\"}", " ", "é",
        ]), 0..30)
    ) {
        let body = pieces.concat();
        for draft in [
            statement(body.as_bytes(), Mode::Query).ok(),
            transaction(body.as_bytes()).ok().map(|it| it.draft),
        ].into_iter().flatten() {
            prop_assert!(!show(draft).is_empty());
        }
    }

    #[test]
    fn order_of_fields_does_not_matter(text in ".*", number in any::<i64>()) {
        let (text, sql) = (serde_json::to_string(&text).unwrap(), r#""INSERT""#);
        let arguments = format!("[{text},{number}]");
        let first = format!(r#"{{"sql":{sql},"args":{arguments}}}"#);
        let second = format!(r#"{{"args":{arguments},"sql":{sql}}}"#);
        prop_assert_eq!(
            show(statement(first.as_bytes(), Mode::Exec).unwrap()),
            show(statement(second.as_bytes(), Mode::Exec).unwrap())
        );
    }
}

fn shown(body: &str, form: select::Form) -> String {
    match select::selection(body.as_bytes(), form) {
        Ok(it) => format!("{}{}", if it.one { "one " } else { "" }, show(it.draft)),
        Err(error) => error.to_string(),
    }
}

#[test]
fn bodies_of_find() {
    const TOP: &str = r#"Query "SELECT * FROM t" "#;
    for (body, want) in [
        (r#"{"table":"t"}"#, TOP.trim_end()),
        (r#"{"Table":"t","criteria":null,"options":null,"select":null,"z":[{}]}"#, TOP.trim_end()),
        (r#"{"table":"orders o","criteria":{}}"#, r#"Query "SELECT * FROM orders o""#),
        (
            r#"{"criteria":{"a":1,"u.b":"x","c":null,"d":true,"e":{"base64":"AA=="}},"table":"t"}"#,
            r#"Query "SELECT * FROM t WHERE a = ? AND u.b = ? AND c IS NULL AND d = ? AND e = ?" Integer(1), Text("x"), Integer(1), Blob([0])"#,
        ),
        (
            r#"{"table":"t","criteria":{"a":[1,null,2.5],"b":[],"lower(c)":["x"]}}"#,
            r#"Query "SELECT * FROM t WHERE (a IN (?, ?) OR a IS NULL) AND b IN () AND (lower(c)) IN (?)" Integer(1), Real(2.5), Text("x")"#,
        ),
        (
            r#"{"table":"t","options":{"select":["a","b AS x"],"order_by":["a DESC"],"group_by":["a"],
                "joins":[{"kind":"left","table":"u","on":"t.a = u.a"}],"limit":10,"offset":20}}"#,
            r#"Query "SELECT a, b AS x FROM t LEFT JOIN u ON t.a = u.a GROUP BY a ORDER BY a DESC LIMIT 10 OFFSET ?" Integer(20)"#,
        ),
        // The nested options are used whole, if there is anything in them.
        (
            r#"{"table":"t","limit":5,"select":["a"],"options":{"limit":1}}"#,
            r#"Query "SELECT * FROM t LIMIT 1""#,
        ),
        (
            r#"{"table":"t","limit":5,"options":{"select":[],"order_by":null},"select":["a"]}"#,
            r#"Query "SELECT a FROM t LIMIT 5""#,
        ),
        (
            r#"{"table":"t","options":{"where":[{"expr":"a > ?","args":[1,2]},{"conj":"or","expr":"b = ?","args":[3]}]},"criteria":{"c":4}}"#,
            r#"Query "SELECT * FROM t WHERE c = ? AND ((a > ?) OR (b = ?))" Integer(4), Integer(1), Integer(3)"#,
        ),
        (
            r#"{"table":"t","limit":-1,"offset":-2}"#,
            r#"Query "SELECT * FROM t LIMIT -1 OFFSET ?" Integer(-2)"#,
        ),
        (r#"{"table":"t","offset":2}"#, r#"Query "SELECT * FROM t LIMIT -1 OFFSET ?" Integer(2)"#),
        (r#"{"table":"t","alias":"x","one":true}"#, TOP.trim_end()),
        ("", "invalid body"),
        ("null", "invalid body"),
        ("[]", "invalid body"),
        ("{}", "invalid body"),
        (r#"{"table":" "}"#, "invalid body"),
        (r#"{"table":1}"#, "invalid body"),
        (r#"{"table":"t","table":"u"}"#, "invalid body"),
        (r#"{"table":"t","limit":10.5}"#, "invalid body"),
        (r#"{"table":"t","limit":"10"}"#, "invalid body"),
        (r#"{"table":"t","offset":1e3}"#, "invalid body"),
        (r#"{"table":"t","limit":9223372036854775808}"#, "invalid body"),
        (r#"{"table":"t","select":"a"}"#, "invalid body"),
        (r#"{"table":"t","criteria":[]}"#, "invalid body"),
        (r#"{"table":"t","options":{"limit":1,"limit":2}}"#, "invalid body"),
        (r#"{"table":"t","joins":[{"kind":"x","kind":"y"}]}"#, "invalid body"),
        (r#"{"table":"t","criteria":{"a":{}}}"#, ARGUMENT_1),
        (r#"{"table":"t","criteria":{"b":1,"a":[1,[]]}}"#, ARGUMENT_2),
        (r#"{"table":"t","options":{"where":[{"expr":"a = ?","args":[1,{}]}]}}"#, ARGUMENT_2),
        (
            r#"{"table":"t","where":[{"expr":"a = ? AND b = ?","args":[1]}]}"#,
            "not enough args to execute query: want 2 got 1",
        ),
        (r#"{"table":"t; DROP TABLE t"}"#, r#"invalid table: unexpected "; DROP TABLE t""#),
        (
            r#"{"table":"t","criteria":{"a = 1 OR b":1}}"#,
            r#"Query "SELECT * FROM t WHERE (a = 1 OR b) = ?" Integer(1)"#,
        ),
        (r#"{"table":"t","criteria":{"a --":1}}"#, r#"invalid criteria: unexpected "--""#),
        (r#"{"table":"t","select":["a",null]}"#, "invalid select: it is blank"),
        (r#"{"table":"t","joins":[null]}"#, "invalid body"),
        (
            r#"{"table":"t","joins":[{"kind":"LEFT","table":"u"}]}"#,
            r#"invalid join: "on" is missing"#,
        ),
        (r#"{"table":"t","where":[{"args":[1]}]}"#, "invalid where: it is blank"),
    ] {
        assert_eq!(shown(body, select::Form::Find), want, "{body}");
    }
}

#[test]
fn bodies_of_select_and_of_one_row() {
    for (form, body, want) in [
        (
            select::Form::Select,
            r#"{"table":"t","alias":"x","criteria":{"a":1},"options":{"limit":1}}"#,
            r#"Query "SELECT * FROM t AS x""#,
        ),
        (
            select::Form::Select,
            r#"{"where":[{"conj":"OR","expr":"a IN (?, ?)","args":[1,"x"]},{"expr":"b IS NULL"},{"conj":" Or ","expr":"c"},{"conj":"xor","expr":"d"}],"table":"t"}"#,
            r#"Query "SELECT * FROM t WHERE (a IN (?, ?)) AND (b IS NULL) OR (c) AND (d)" Integer(1), Text("x")"#,
        ),
        (
            select::Form::Select,
            r#"{"table":"t","one":true}"#,
            r#"one Query "SELECT * FROM t LIMIT 1""#,
        ),
        (
            select::Form::Select,
            r#"{"table":"t","one":true,"limit":7}"#,
            r#"one Query "SELECT * FROM t LIMIT 1""#,
        ),
        (
            select::Form::Select,
            r#"{"table":"t","one":true,"limit":0}"#,
            r#"one Query "SELECT * FROM t LIMIT 0""#,
        ),
        (
            select::Form::Select,
            r#"{"table":"t","one":true,"limit":-1,"offset":3}"#,
            r#"one Query "SELECT * FROM t LIMIT 1 OFFSET ?" Integer(3)"#,
        ),
        (select::Form::Select, r#"{"table":"t","one":1}"#, "invalid body"),
        (
            select::Form::Select,
            r#"{"table":"t x","alias":"y"}"#,
            r#"invalid alias: unexpected "y""#,
        ),
        (
            select::Form::FindOne,
            r#"{"table":"t","criteria":{"id":7}}"#,
            r#"one Query "SELECT * FROM t WHERE id = ? LIMIT 1" Integer(7)"#,
        ),
    ] {
        assert_eq!(shown(body, form), want, "{body}");
    }
    let n = 32_766;
    let list = vec!["1"; n].join(",");
    let body = format!(r#"{{"table":"t","criteria":{{"a":[{list}]}}}}"#);
    select::selection(body.as_bytes(), select::Form::Find).unwrap();
    let body = format!(r#"{{"table":"t","criteria":{{"a":[{list},1]}}}}"#);
    let error = select::selection(body.as_bytes(), select::Form::Find).unwrap_err();
    assert_eq!(error, BodyError::Draft(DraftError::Arguments));
}

#[test]
fn pieces_are_counted_as_they_come() {
    let pieces = |piece: &str, n: usize| vec![piece; n].join(",");
    let refused = BodyError::Pieces.to_string();
    let max = limits::SELECT_PIECES_MAX;
    for (field, piece) in [
        ("select", "\"a\""),
        ("joins", r#"{"table":"u","on":"1"}"#),
        ("where", r#"{"expr":"a"}"#),
        ("group_by", "\"a\""),
        ("order_by", "\"a\""),
    ] {
        let body =
            |n| format!(r#"{{"table":"t","{field}":[{}],"criteria":{{}}}}"#, pieces(piece, n));
        select::selection(body(max).as_bytes(), select::Form::Find).unwrap();
        // The body ends there: what follows has not been looked at.
        let cut = body(max + 1).split_once("],").unwrap().0.to_owned();
        assert_eq!(shown(&cut, select::Form::Find), refused, "{field}");
        let nested = format!(r#"{{"table":"t","options":{}}}"#, body(max + 1));
        assert_eq!(shown(&nested, select::Form::Find), refused, "{field} in options");
    }
    let keys = |n: usize| (0..n).map(|it| format!(r#""c{it}":null"#)).collect::<Vec<_>>().join(",");
    let body = |n| format!(r#"{{"table":"t","criteria":{{{}}},"select":["a"]}}"#, keys(n));
    select::selection(body(max - 1).as_bytes(), select::Form::Find).unwrap();
    assert_eq!(shown(&body(max), select::Form::Find), refused, "all of them together");
    // Small values, too.
    let ones = pieces("1", limits::ARGUMENTS_MAX + 1);
    for body in [
        format!(r#"{{"table":"t","criteria":{{"a":[{ones}"#),
        format!(r#"{{"table":"t","where":[{{"expr":"a","args":[{ones}"#),
    ] {
        let want = DraftError::Arguments.to_string();
        assert_eq!(shown(&body, select::Form::Find), want, "{}", &body[..30]);
    }
}

#[test]
fn arguments_before_their_statement_are_counted_for_it_alone() {
    let ones = vec!["1"; limits::ARGUMENTS_MAX].join(",");
    let op = format!(r#"{{"args":[{ones}],"kind":"exec","sql":"x"}}"#);
    transaction(format!(r#"{{"ops":[{op},{op}]}}"#).as_bytes()).unwrap();
    let more = format!(r#"{{"args":[{ones},1],"kind":"exec","sql":"x"}}"#);
    let error = transaction(format!(r#"{{"ops":[{more}]}}"#).as_bytes()).unwrap_err();
    assert_eq!(error, DraftError::Arguments.into());
}

#[test]
fn statements_are_counted_as_they_come() {
    let texts = |n| format!("{{\"statements\":[{}", "\"a\",".repeat(n));
    let refusal = |body: String| transaction(body.as_bytes()).unwrap_err().to_string();
    // What follows is not looked at any more.
    assert_eq!(refusal(texts(limits::STATEMENTS_MAX + 1)), "too many statements: at most 10000");
    assert_eq!(refusal(texts(limits::STATEMENTS_MAX)), "invalid body");
    let fits = texts(limits::STATEMENTS_MAX - 1) + "\"a\"]}";
    assert_eq!(transaction(fits.as_bytes()).unwrap().draft.n_statements(), 10_000);
}
