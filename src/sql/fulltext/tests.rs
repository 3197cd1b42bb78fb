//! Searches that people make, and those that would take minutes.

use super::log;
use super::rows::CHARGED;
use crate::limits;
use crate::sql::database::Ask;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::Stamp;
use crate::wire::command::Value;

/// A database with the table `f` of this kind, whose rows are `texts`.
fn with_rows(kind: &str, texts: &[&str]) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.must(&format!("CREATE VIRTUAL TABLE f USING {kind}"));
    for text in texts {
        let insert = "INSERT INTO f VALUES (?)";
        let insert = command(Mode::Exec, insert, &[Value::Text(text)], &stamp(1));
        assert!(print(&fixture.apply([insert])[0]).starts_with("1 rows"));
    }
    fixture
}

/// What `sql` gives as a read and as a write.
fn both(fixture: &mut Fixture, sql: &str) -> [String; 2] {
    fixture.must("CREATE TABLE IF NOT EXISTS t(a)");
    [fixture.query(sql), fixture.exec(&[&format!("INSERT INTO t {sql}")]).remove(0)]
}

fn repeated(word: &str, n: usize, between: &str) -> String {
    vec![word; n].join(between)
}

#[test]
fn what_people_search_for_is_found() {
    let text = "The quick brown fox, running, jumps over the lazy dog; größe 東京 tower";
    let mut fixture = with_rows("fts5(body, tokenize = 'porter unicode61')", &[text, "other"]);
    let most = format!("{}fox", "dog OR ".repeat(limits::MATCH_PHRASES_MAX - 1));
    let near = format!("NEAR({}, 10)", repeated("fox", limits::MATCH_NEAR_MAX, " "));
    for search in [
        "fox dog",
        "\"quick brown\" + fox",
        "run AND jump*",
        "body : lazy NOT cat",
        "NEAR(fox \"lazy dog\", 20)",
        "größe 東京",
        "^ the",
        &most,
        &near,
    ] {
        let sql = format!("SELECT rowid AS r FROM f('{search}') ORDER BY rank");
        let [read, write] = both(&mut fixture, &sql);
        assert_eq!(read, "[r](1)", "{search}");
        assert!(write.starts_with("1 rows"), "{search}: {write}");
    }
    let shown = "SELECT highlight(f, 0, '[', ']') AS h, snippet(f, 0, '<', '>', '..', 3) AS s
        FROM f('fox AND dog')";
    assert_eq!(
        fixture.query(shown),
        format!(
            "[h,s]('{}','..brown <fox>, running..')",
            text.replace("fox", "[fox]").replace("dog", "[dog]")
        )
    );
}

#[test]
fn pieces_of_an_index_may_be_longer_than_a_value() {
    for (kind, setting) in [
        ("fts4(body)", ""),
        ("fts5(body)", ""),
        ("fts5(body)", "INSERT INTO f(f, rank) VALUES ('pgsz', 65536)"),
    ] {
        let mut fixture = with_rows(kind, &[]);
        if !setting.is_empty() {
            fixture.must(setting);
        }
        let steps = Stamp { limits: CommandLimits { steps: 200_000_000, ..LIMITS }, ..stamp(1) };
        let many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000)
            INSERT INTO f(body) SELECT 'the fox ' || x FROM c";
        for sql in [many, "INSERT INTO f(f) VALUES ('optimize')"] {
            let ran = print(&fixture.apply([command(Mode::Exec, sql, &[], &steps)])[0]);
            assert!(ran.contains("rows"), "{kind}: {ran}");
            let found = fixture.query("SELECT count(*) AS n FROM f WHERE f MATCH 'the'");
            assert_eq!(found, "[n](20000)", "{kind} {setting}");
        }
        fixture.must("INSERT INTO f(f) VALUES ('integrity-check')");
    }
}

#[test]
fn what_would_take_minutes_is_refused_before_it_begins() {
    let long = "a ".repeat(10_000);
    let words = |n| format!("\"{}\"", repeated("a", n, " "));
    let texts = [
        format!("NEAR({}, 1000000)", repeated("a", limits::MATCH_NEAR_MAX + 1, " ")),
        repeated("a", limits::MATCH_PHRASES_MAX + 1, " OR "),
        words(limits::MATCH_WORDS_MAX + 1),
        repeated(&words(10), 13, " OR "),
        format!("a AND {}", "b".repeat(limits::MATCH_SIZE_MAX)),
    ];
    for kind in
        ["fts5(b)", "fts5(b, tokenize = 'ascii')", "fts5(b, tokenize = 'porter')", "fts4(b)"]
    {
        let mut fixture = with_rows(kind, &[&long]);
        for text in &texts {
            // Another grammar, which has another `NEAR`.
            if kind == "fts4(b)" && text.starts_with("NEAR") {
                continue;
            }
            for printed in both(&mut fixture, &format!("SELECT 1 FROM f WHERE f MATCH '{text}'")) {
                assert!(
                    printed.starts_with("error statement_match: full-text search is for "),
                    "{printed}"
                );
            }
        }
    }
    // Here a word is one to SQLite that is many to others.
    for (kind, search) in [
        ("fts5(b, tokenize = 'trigram')", format!("f MATCH '{}'", "a".repeat(400))),
        ("fts5(b, tokenize = 'trigram')", format!("b LIKE '%{}%'", "a".repeat(400))),
        (
            "fts5(b, tokenize = \"unicode61 separators 'x'\")",
            format!("f MATCH '{}'", "ax".repeat(200)),
        ),
    ] {
        let mut fixture = with_rows(kind, &[&long]);
        for printed in both(&mut fixture, &format!("SELECT 1 FROM f WHERE {search}")) {
            let want = "error statement_match: full-text search is for too many words: at most 128";
            assert_eq!(printed, want, "{search}");
        }
    }
}

#[test]
fn a_function_that_would_find_too_much_is_refused() {
    let mut fixture = with_rows("fts5(b)", &[&"a ".repeat(10_000), &"a b c d ".repeat(1_000)]);
    for (call, is_much) in [
        ("snippet(f, 0, '', '', '', 9)", true),
        ("highlight(f, 0, '', printf('%.*c', 100000, 'x'))", true),
        ("highlight(f, 0, '', '')", false),
        ("bm25(f)", false),
    ] {
        let sql = format!("SELECT 1 FROM f('a') WHERE rowid = 1 AND length({call}) > 0");
        for printed in both(&mut fixture, &sql) {
            assert_eq!(printed.starts_with("error statement_match"), is_much, "{call}: {printed}");
            assert_eq!(printed.starts_with("error"), is_much, "{call}: {printed}");
        }
    }
    // Many phrases, each of which is everywhere.
    let mut other = with_rows("fts5(b)", &[&"a ".repeat(100_000)]);
    for (n, is_much) in [(10, false), (limits::MATCH_PHRASES_MAX, true)] {
        let search = repeated("a", n, " OR ");
        for printed in both(&mut other, &format!("SELECT 1 FROM f('{search}') WHERE bm25(f) < 0")) {
            assert_eq!(printed.starts_with("error statement_match"), is_much, "{n}: {printed}");
            assert_eq!(printed.starts_with("error"), is_much, "{n}: {printed}");
        }
    }
    // Each by itself is not too much, but all of them are.
    let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000)
        INSERT INTO t SELECT snippet(f, 0, '', '', '', 9) FROM c, f('a') WHERE f.rowid = 2";
    let stamp = Stamp { limits: CommandLimits { steps: 5_000_000, ..LIMITS }, ..stamp(1) };
    let printed = print(&fixture.apply([command(Mode::Exec, sql, &[], &stamp)])[0]);
    assert!(printed.starts_with("error statement_steps"), "{printed}");
}

#[test]
fn rows_that_are_looked_at_are_charged_whether_they_match_or_not() {
    let text = "a b ".repeat(2_000);
    let mut fixture = with_rows("fts5(b)", &vec![text.as_str(); 100]);
    fixture.must("CREATE TABLE t(a)");
    for search in ["NEAR(a b \"b b\", 0)", "\"a b a b a b a a\""] {
        let sql = format!("INSERT INTO t SELECT 1 FROM f('{search}')");
        for (steps, is_done) in [(1_000_000, true), (20_000, false)] {
            let stamp = Stamp { limits: CommandLimits { steps, ..LIMITS }, ..stamp(1) };
            let printed = print(&fixture.apply([command(Mode::Exec, &sql, &[], &stamp)])[0]);
            let want = if is_done { "0 rows" } else { "error statement_steps" };
            assert!(printed.starts_with(want), "{search}, {steps} steps: {printed}");
        }
    }
}

/// The rows that are charged while `sql` runs with so many steps, and how it ends.
fn charged(fixture: &mut Fixture, sql: &str, steps: u64) -> (u64, String) {
    let stamp = Stamp { limits: CommandLimits { steps, ..LIMITS }, ..stamp(1) };
    CHARGED.set(0);
    let printed = print(&fixture.apply([command(Mode::Exec, sql, &[], &stamp)])[0]);
    (CHARGED.get(), printed)
}

#[test]
fn a_search_that_is_stopped_looks_at_no_more_rows() {
    let text = "a b ".repeat(2_000) + "c";
    let mut texts = vec![text.as_str(); 300];
    texts[0] = "a c";
    let mut fixture = with_rows("fts5(b)", &texts);
    fixture.must("CREATE TABLE t(a)");
    for search in ["NEAR(\"a c\" a, 0)", "\"a c\"", "\"a c\" OR \"c a\"", "\"a c\" AND a"] {
        let sql = format!("INSERT INTO t SELECT 1 FROM f('{search}')");
        let (all, printed) = charged(&mut fixture, &sql, 100_000_000);
        assert!(printed.starts_with("1 rows") && all >= 300, "{search}: {all}, {printed}");
        let (some, printed) = charged(&mut fixture, &sql, 10_000);
        assert!(printed.starts_with("error statement_steps"), "{search}: {printed}");
        assert!(some < 100, "{search}: {some} of {all} rows");
    }
}

#[test]
fn whoever_runs_a_search_may_stop_it() {
    let text = "a b ".repeat(2_000);
    let mut fixture = with_rows("fts5(b)", &vec![text.as_str(); 300]);
    for search in ["\"a a\"", "NEAR(a b \"b b\", 0)", "a* NOT b"] {
        let sql = format!("SELECT 1 FROM f('{search}')");
        let read = command(Mode::Query, &sql, &[], &stamp(1));
        CHARGED.set(0);
        let mut asked = 0;
        let outcomes = fixture.database.read(std::slice::from_ref(&read), &mut |ask| {
            asked += u64::from(ask == Ask::Tick);
            asked > 5
        });
        let printed = print(&outcomes.unwrap()[0]);
        assert_eq!(printed, "error statement_ms: statement took too long", "{search}");
        assert!(CHARGED.get() < 100, "{search}: {} rows", CHARGED.get());
    }
}

#[test]
fn the_first_row_is_charged_each_time_that_a_search_begins() {
    let text = "a b ".repeat(2_000);
    let mut fixture = with_rows("fts5(b)", &[&text]);
    fixture.must("CREATE TABLE t(a)");
    let c = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 500)";
    for search in ["\"a b a b a b a a\"", "\"a b\"", "NEAR(a \"b b\" \"a b\", 0)"] {
        for from in [
            format!("c CROSS JOIN f('{search}')"),
            format!("c WHERE (SELECT 1 FROM f('{search}') WHERE c.x > 0 LIMIT 1) = 1"),
        ] {
            let sql = format!("{c} INSERT INTO t SELECT 1 FROM {from}");
            for (steps, is_done) in [(10_000_000, true), (100_000, false)] {
                let (_, printed) = charged(&mut fixture, &sql, steps);
                let want = if is_done { "" } else { "error statement_steps" };
                assert!(printed.starts_with(want), "{from}, {steps} steps: {printed}");
                assert_eq!(printed.starts_with("error"), !is_done, "{from}: {printed}");
            }
        }
    }
}

#[test]
fn the_words_that_a_prefix_stands_for_are_charged() {
    let words: Vec<_> = (0..2_000).map(|it| format!("w{it}")).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut fixture = with_rows("fts5(b)", &words);
    fixture.must("CREATE TABLE t(a)");
    let sql = "INSERT INTO t SELECT 1 FROM f('w*') WHERE rowid = 1";
    let (n, printed) = charged(&mut fixture, sql, 1_000_000);
    assert!(printed.starts_with("1 rows") && n >= 2_000, "{n}, {printed}");
    let (n, printed) = charged(&mut fixture, sql, 1_000);
    assert!(printed.starts_with("error statement_steps"), "{printed}");
    assert!(n < 1_100, "{n}");
}

#[test]
fn a_tokenizer_has_few_exceptions() {
    let mut fixture = Fixture::new();
    for (kind, quote) in [
        ("fts5(b, tokenize = \"unicode61 tokenchars '", "'\")"),
        ("fts4(b, tokenize=unicode61 \"tokenchars=", "\")"),
    ] {
        fixture.must(&format!("CREATE VIRTUAL TABLE f USING {kind}☃☄{quote}"));
        fixture.must("DROP TABLE f");
        let many = "☃".repeat(limits::TOKENIZER_SIZE_MAX / 3 + 1);
        let printed = fixture.exec(&[&format!("CREATE VIRTUAL TABLE f USING {kind}{many}{quote}")]);
        assert!(printed[0].starts_with("error"), "{printed:?}");
    }
}

/// Another machine must come to the same, to the last bit.
#[test]
fn the_logarithm_is_the_one_that_it_always_was() {
    for (x, want) in [
        (1.0, 0),
        (2.0, 0x3fe6_2e42_fefa_39ef),
        (10.0, 0x4002_6bb1_bbb5_5516),
        (0.1, 0xc002_6bb1_bbb5_5515),
        (1.5, 0x3fd9_f323_ecbf_984c),
    ] {
        assert_eq!(log(x).to_bits(), want, "{x}");
    }
    let texts: Vec<_> = (0..7).map(|it| format!("word{it} other")).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let mut fixture = with_rows("fts5(b)", &texts);
    // ln(6.5 / 1.5) by a constant of both lengths.
    assert_eq!(fixture.query("SELECT bm25(f) AS b FROM f('word3')"), "[b](-1.466337068793427)");
}
