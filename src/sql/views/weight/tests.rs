//! What a text comes to, beside another.

use super::Weights;

/// What the last of `views` comes to, each a name and what it selects, where tables have `width` columns.
fn weigh(width: u64, views: &[(&str, &str)]) -> u64 {
    let text = |(name, select): &(&str, &str)| {
        ((*name).to_owned(), format!("CREATE VIEW {name} AS {select}"))
    };
    let mut weights = Weights::new(views.iter().map(text), width);
    weights.of(views.last().unwrap().0)
}

/// How many times more it comes to with the one than with the other.
fn ratio(more: &str, less: &str) -> u64 {
    let of = |select| weigh(100, &[("v", select)]);
    of(more) / of(less)
}

#[test]
fn views_count_as_often_as_they_are_mentioned() {
    let base = ("base", &*format!("SELECT 1 IN ({})", vec!["a"; 1_000].join(",")));
    let one = weigh(10, &[base]);
    for (mentions, n) in [
        ("SELECT * FROM base", 1),
        ("SELECT * FROM \"base\", [Base], `BASE`", 3),
        ("SELECT * FROM main.base AS x JOIN 'base' AS y", 2),
        ("SELECT (SELECT a FROM base /* base */) -- base\n, base.a FROM base", 3),
        ("SELECT basement, \"ba\"\"se\"", 0),
    ] {
        let whole = weigh(10, &[base, ("v", mentions)]);
        assert_eq!(whole / one, n, "{mentions}");
    }
    let odd = "SELECT * FROM \"it\"\"s\", [it\"s], `it\"s`";
    let select = format!("SELECT 1 IN ({})", vec!["a"; 1_000].join(","));
    let views = [("it\"s".to_owned(), select), ("v".to_owned(), odd.to_owned())];
    let mut weights = Weights::new(views, 10);
    assert_eq!(weights.of("v") / weights.of("it\"s"), 3);
}

#[test]
fn views_that_double_come_to_as_much_and_never_to_less() {
    let views: Vec<_> = (0..100)
        .map(|n| (format!("v{n}"), format!("SELECT x.a FROM v{0} AS x, v{0} AS y", n - 1)))
        .collect();
    let mut weights = Weights::new(views, 10);
    let of_10 = weights.of("v10");
    assert!(weights.of("v20") / of_10 >= 1_000);
    assert_eq!(weights.of("v99"), u64::MAX);
}

#[test]
fn a_circle_ends() {
    let one = weigh(10, &[("v", "SELECT * FROM v, v")]);
    assert!(weigh(10, &[("u", "SELECT * FROM v, v"), ("v", "SELECT * FROM u, u")]) < 5 * one);
}

#[test]
fn what_has_a_name_in_a_text_counts_as_often_as_it_is_named() {
    let list = vec!["a"; 1_000].join(",");
    let ten = |name: &str| [name; 10].join(",");
    let plain = format!("SELECT a IN ({list}) FROM t");
    for select in [
        format!("SELECT a IN ({list}) AS x FROM t WHERE a IN ({})", ten("x")),
        format!("SELECT a IN ({list}) x FROM t GROUP BY a IN ({})", ten("\"X\"")),
        format!("SELECT 1, a IN ({list}) 'x', 2 FROM t ORDER BY a IN ({})", ten("[x]")),
        format!("SELECT a IN ({list}) AS x UNION SELECT 1 ORDER BY a IN ({})", ten("x")),
        format!("SELECT a IN ({list}) AS x FROM t WHERE (SELECT 1 IN ({}))", ten("x")),
        format!("WITH x AS (SELECT a IN ({list})) SELECT 1 FROM {}", ten("x")),
        format!(
            "WITH y AS (SELECT 1 FROM {}), x(a) AS NOT MATERIALIZED (SELECT a IN ({list})) SELECT 1 FROM y",
            ten("x")
        ),
        format!(
            "SELECT {} FROM t WINDOW x AS (PARTITION BY a IN ({list}))",
            ["sum(a) OVER x"; 10].join(",")
        ),
    ] {
        let ratio = ratio(&select, &plain);
        assert!((8..40).contains(&ratio), "{ratio}: {}", select.replace(&list, "…"));
    }
}

#[test]
fn results_of_one_name_inside_one_another_multiply() {
    let nested = |n: usize| {
        let (open, close) = ("(SELECT x + x AS x WHERE ".repeat(n), ")".repeat(n));
        format!("SELECT a AS x FROM t WHERE {open} x {close}")
    };
    assert!(ratio(&nested(16), &nested(8)) > 200);
    let nested = |n: usize| {
        let (open, close) = ("WITH x AS (".repeat(n), ") SELECT 1 FROM x, x".repeat(n));
        format!("{open} SELECT 1 {close}")
    };
    assert!(ratio(&nested(16), &nested(8)) > 200);
}

#[test]
fn columns_count_where_they_are_many() {
    for (select, at_least) in [
        ("SELECT * FROM w".to_owned(), 2_000),
        ("SELECT w.*, count(*), 2 * 3 FROM w, w AS x".to_owned(), 2 * 2_000),
        (format!("SELECT 1 FROM w, w AS x WHERE 1 IN ({})", vec!["y"; 100].join(",")), 20_000),
        (format!("SELECT * FROM w ORDER BY {}", vec!["1+y"; 100].join(",")), 250_000),
        (format!("SELECT {} FROM w", vec!["*"; 50].join(",")), 50 * 2_000 * 38),
    ] {
        let (narrow, wide) = (weigh(2, &[("v", &select)]), weigh(2_000, &[("v", &select)]));
        assert!(wide > narrow + at_least, "{narrow}, {wide}: {select}");
    }
    // SELECTs beside one another are each by themselves.
    let arms = vec!["SELECT 1 FROM w"; 100].join(" UNION ALL ");
    assert!(weigh(2_000, &[("v", &arms)]) < 100 * weigh(2_000, &[("v", "SELECT 1 FROM w")]));
}
