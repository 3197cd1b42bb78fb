//! What the worst commands take: measured by hand, with `cargo test --profile ci --lib -- --ignored --nocapture
//! sql::run::costs`; the table is in `docs/decisions/0012-statement-memory-and-long-values.md`.

use crate::limits;
use crate::sql::testing::Fixture;
use crate::sql::testing::LIMITS;
use crate::sql::testing::command;
use crate::sql::testing::print;
use crate::sql::testing::stamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::Stamp;

/// Steps that are measured, where there are more.
const STEPS: u64 = 1_000_000;

/// What is done with a value, again and again, and how often within one expression.
const EXPRESSIONS: [(&str, &str); 12] = [
    ("nothing", "v"),
    ("quote", "quote(quote(quote(quote(quote(quote(quote(quote(v))))))))"),
    ("upper", "upper(upper(upper(upper(upper(upper(upper(upper(v))))))))"),
    ("hex", "length(hex(substr(v, 1, length(v) / 2)))"),
    ("length", "length(v) + length(v) + length(v) + length(v) + length(v) + length(v)"),
    ("substr", "substr(substr(substr(substr(substr(substr(v, 2), 2), 2), 2), 2), 2)"),
    ("concat", "length(v || x) + length(v || x) + length(v || x) + length(v || x)"),
    ("=", "(v = w) + (v = w) + (v = w) + (v = w) + (v = w) + (v = w)"),
    ("number", "+(n + 1) + (n + 2) + (n + 3) + (n + 4) + (n + 5) + (n + 6)"),
    ("json", "json_set(json_set(json_set(j, '$[1]', 1), '$[2]', 2), '$[3]', 3)"),
    ("printf", "printf('%s', printf('%s', printf('%s', printf('%s', v))))"),
    ("max", "max(v, w, w, w, w, w, w, w, w, w, w, w, w, w, w, w, w, w, w, w)"),
];

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
fn what_a_command_takes_at_worst() {
    let lengths: [u64; 8] = [200, 800, 3_500, 14_000, 55_000, 220_000, 900_000, 3_500_000];
    for (name, expression) in EXPRESSIONS {
        for (tier, length) in (0..).zip(lengths) {
            // Steps that the tier has of the default limit, of which some are measured.
            let steps = limits::STATEMENT_STEPS >> (2 * tier);
            let measured = steps.min(STEPS);
            let limits = CommandLimits { steps: measured, value_bytes: 4 << 20, ..LIMITS };
            let sql = format!(
                "INSERT INTO t WITH RECURSIVE u(v, w, n, j) AS (SELECT printf('%.*c', {length}, 'a'),
                    printf('%.*c', {length}, 'a'), printf('%.*c', {length}, '1'),
                    '[1' || replace(printf('%.*c', {length} / 2, '0'), '0', ',1') || ']'),
                 c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
                 SELECT sum(length({expression}) + x) FROM u CROSS JOIN c"
            );
            let (seconds, printed) = seconds(&sql, limits);
            #[expect(clippy::cast_precision_loss, reason = "it is printed")]
            let whole = seconds * (steps as f64 / measured as f64);
            println!("{name:>8} {length:>8}: {whole:7.1} s, {printed}");
        }
    }
}
