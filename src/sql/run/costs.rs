//! What the worst commands take: measured by hand, with `cargo test --profile ci --lib -- --ignored --nocapture
//! sql::run::costs`; the table is in `docs/decisions/0012-memory-and-long-values.md`.

use crate::limits;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::Stamp;

/// Bytes of values touched that are measured, if each step touches one.
const BYTES: u64 = 500_000_000;

/// What is done with a value, again and again: its name, the expression, and the tables of one row that it is about.
fn expressions() -> Vec<(&'static str, String, &'static str)> {
    let nested = |begin: &str, end: &str| format!("{}v{}", begin.repeat(16), end.repeat(16));
    let summed = |it: &str, n| vec![it; n].join(" + ");
    vec![
        ("nothing", "x".to_owned(), "v"),
        ("quote", summed("length(quote(quote(quote(v))))", 4), "v"),
        ("upper", nested("upper(", ")"), "v"),
        ("hex", summed("length(hex(substr(v, x % 2)))", 8), "h"),
        ("length", summed("length(v)", 16), "v"),
        ("substr", nested("substr(", ", 2)"), "v"),
        ("printf", nested("printf('%s', ", ")"), "v"),
        ("concat", summed("length(v || x)", 8), "v"),
        ("compare", summed("(v = w)", 16), "v CROSS JOIN w"),
        ("number", summed("(n + x)", 16), "n"),
        ("json", summed("json_valid(j || substr(' ', x % 2))", 4), "j"),
        ("max", format!("max(v{})", ", w".repeat(98)), "v CROSS JOIN w"),
        ("dates", format!("datetime(x{})", ", '+1 day'".repeat(98)), "v"),
        ("printf %e", format!("printf('{}', x)", "%.0e".repeat(50)), "v"),
    ]
}

/// Seconds for which this thread had a processor.
fn now() -> f64 {
    // tidy: allow(std::fs) time is what is asked for
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: f64 = told.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}

/// Seconds of a processor that `sql` takes within `limits`, and what it gives.
fn seconds(sql: &str, limits: CommandLimits) -> (f64, String) {
    let mut fixture = Fixture::new();
    fixture.must("CREATE TABLE t(a)");
    let command = command(Mode::Exec, sql, &[], &Stamp { limits, ..stamp(1) });
    let begin = now();
    let printed = print(&fixture.apply([command])[0]);
    (now() - begin, printed)
}

#[test]
#[ignore = "takes minutes, and finds out a number"]
#[expect(clippy::cast_precision_loss, reason = "it is printed")]
fn what_a_command_takes_at_worst() {
    let lengths: [u64; 8] = [200, 800, 3_500, 14_000, 55_000, 220_000, 900_000, 3_500_000];
    for (name, expression, tables) in expressions() {
        for (tier, length) in (0..).zip(lengths) {
            // Steps that the tier has of the default limit, of which some are measured.
            let steps = limits::STATEMENT_STEPS >> (2 * tier);
            let measured = (BYTES / length).clamp(1_000, 1_000_000);
            let limits = CommandLimits { steps: measured, value_bytes: 4 << 20, ..LIMITS };
            let sql = format!(
                "INSERT INTO t WITH RECURSIVE
                     v(v) AS MATERIALIZED (SELECT printf('%.*c', {length}, 'a')),
                     w(w) AS MATERIALIZED (SELECT printf('%.*c', {length}, 'a')),
                     h(v) AS MATERIALIZED (SELECT printf('%.*c', {length} / 2, 'a')),
                     n(n) AS MATERIALIZED (SELECT printf('%.*c', {length}, '1')),
                     j(j) AS MATERIALIZED
                         (SELECT '[1' || replace(printf('%.*c', {length} / 2, '0'), '0', ',1') || ']'),
                     c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
                 SELECT sum(length({expression}) + x)
                 FROM c CROSS JOIN {tables}"
            );
            let (seconds, printed) = seconds(&sql, limits);
            let per_step = seconds * 1e9 / measured as f64;
            let whole = per_step * steps as f64 / 1e9;
            println!("{name:>9} {length:>8}: {per_step:9.0} ns, {whole:7.1} s, {printed}");
        }
    }
}
