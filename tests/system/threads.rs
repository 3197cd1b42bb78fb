//! Statements that take long: they run on threads, and nobody else on their core waits for them.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::client::Client;
use crate::metrics::Page;
use crate::process::Node;
use crate::process::wait_until;

/// Mebibytes of the large table; `TABLE_MIB=1024` for the real thing.
fn table_mib() -> u64 {
    std::env::var("TABLE_MIB").ok().and_then(|it| it.parse().ok()).unwrap_or(48)
}

/// A node with one shard and this configuration.
fn limited(text: &str) -> (Node, NamedTempFile) {
    let mut file = NamedTempFile::new().expect("a file");
    write!(file, "{text}").expect("it takes the text");
    let node = Node::start_with(1, &["--config", file.path().to_str().expect("UTF-8")]);
    (node, file)
}

fn exec(client: &Client, sql: &str) -> (u16, Value) {
    let reply = client.post("/v1/rqlite/exec", &json!({ "sql": sql })).expect("a reply");
    (reply.status, reply.json())
}

fn must(client: &Client, sql: &str) -> Value {
    let (status, json) = exec(client, sql);
    assert_eq!(status, 200, "{sql}: {json}");
    json
}

fn query(client: &Client, sql: &str) -> (u16, Value) {
    let reply = client.post("/v1/rqlite/query", &json!({ "sql": sql })).expect("a reply");
    (reply.status, reply.json())
}

/// Fill `table` with rows of about a kilobyte each.
fn fill(client: &Client, table: &str, mib: u64) {
    must(client, &format!("CREATE TABLE {table}(a INTEGER PRIMARY KEY, b INTEGER, c BLOB)"));
    for _ in 0..mib.div_ceil(16) {
        let rows = 16 * 1024;
        must(
            client,
            &format!(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {rows})
                 INSERT INTO {table}(b, c) SELECT x % 1000, randomblob(950) FROM n"
            ),
        );
    }
}

/// Write and read in a namespace of its own until `is_over` of so many; how long each took, sorted.
fn be_served(port: u16, is_over: impl Fn(usize) -> bool) -> Vec<Duration> {
    let client = Client::try_connect(port).expect("the node listens").with_key("k2");
    let mut took = Vec::new();
    let mut n = 0;
    while took.is_empty() || !is_over(took.len()) {
        let before = Instant::now();
        n += 1;
        let (path, body) = if n % 2 == 0 {
            ("/v1/rqlite/query", json!({ "sql": "SELECT b FROM t WHERE a = ?", "args": [n / 2] }))
        } else {
            ("/v1/rqlite/exec", json!({ "sql": "INSERT INTO t(b) VALUES (?)", "args": [n] }))
        };
        let reply = client.post(path, &body).expect("a reply");
        assert_eq!(reply.status, 200, "{}", reply.body);
        took.push(before.elapsed());
    }
    took.sort_unstable();
    took
}

fn quantile(sorted: &[Duration], q: usize) -> Duration {
    sorted[(sorted.len() * q / 1000).min(sorted.len() - 1)]
}

/// While `work` is done, how another namespace on the same core is served: median and 99th percentile.
fn meanwhile(port: u16, work: impl FnOnce()) -> (Duration, Duration) {
    let is_over = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| be_served(port, |_| is_over.load(Ordering::Relaxed)));
        work();
        is_over.store(true, Ordering::Relaxed);
        neighbour.join().expect("the neighbour is served")
    });
    median_and_tail(&took)
}

fn median_and_tail(sorted: &[Duration]) -> (Duration, Duration) {
    (quantile(sorted, 500), quantile(sorted, 990))
}

/// A number that the core tells when it stops.
fn told(log: &str, field: &str) -> u64 {
    let line = log.lines().rfind(|it| it.contains("core has stopped")).expect("the core tells");
    let line = plain(line);
    let (_, after) = line.split_once(&format!("{field}=")).expect("it tells this");
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// A line of the log without its colours.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |so_far, it| so_far + it.split_once('m').map_or("", |(_, after)| after))
}

#[test]
fn long_statements_hold_up_no_other_namespace() {
    let mib = table_mib();
    let (mut node, _limits) = limited(
        "limits:\n  statement_ms: 2000\n  statement_steps: 60000000\n  database_bytes: 4294967296\n",
    );
    let (tenant, other) = (node.client(), node.client().with_key("k2"));
    must(&other, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    fill(&tenant, "large", mib);
    fill(&tenant, "second", mib);
    let (quiet_p50, quiet_p99) = median_and_tail(&be_served(node.port, |n| n == 3_000));
    let port = node.port;
    let mut told_of = Vec::new();
    let mut run = |name: &str, work: &mut dyn FnMut(&Client)| {
        let client = Client::try_connect(port).expect("the node listens");
        let before = Instant::now();
        let (p50, p99) = meanwhile(port, || work(&client));
        told_of.push(format!("{name}: {:?}, meanwhile p50 {p50:?}, p99 {p99:?}", before.elapsed()));
    };
    run("count(*)", &mut |it| {
        assert_eq!(query(it, "SELECT count(*) FROM large").1["rows"][0][0], mib * 1024);
    });
    run("endless SELECT", &mut |it| {
        let endless =
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";
        let (status, json) = query(it, endless);
        assert_eq!((status, &json["code"]), (400, &json!("statement_ms")), "{json}");
    });
    run("endless INSERT", &mut |it| {
        let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) INSERT INTO large(b) SELECT x FROM n";
        let (status, json) = exec(it, endless);
        assert_eq!((status, &json["code"]), (400, &json!("statement_steps")), "{json}");
    });
    run("CREATE INDEX", &mut |it| drop(must(it, "CREATE INDEX large_b ON large(b)")));
    run("UPDATE", &mut |it| drop(must(it, "UPDATE large SET b = b + 1")));
    run("DELETE FROM", &mut |it| drop(must(it, "DELETE FROM large")));
    run("DROP TABLE", &mut |it| drop(must(it, "DROP TABLE second")));
    assert!(node.stop().success());
    let log = node.log();
    let cpu_max = told(&log, "turn_cpu_us_max");
    println!(
        "table of {mib} MiB; quiet p50 {quiet_p50:?}, p99 {quiet_p99:?}\n{}\nturns: p99 {} us, max {} us; CPU p99 {} us, max {cpu_max} us",
        told_of.join("\n"),
        told(&log, "turn_us_p99"),
        told(&log, "turn_us_max"),
        told(&log, "turn_cpu_us_p99"),
    );
    assert!(cpu_max < 10_000, "the core worked {cpu_max} us in one turn");
}

/// It reads from its table, and keeps what it saw.
const ENDLESS: &str =
    "WITH RECURSIVE n(x) AS (SELECT a FROM t UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";

/// Bytes of the largest file in `dir`, and below, whose name ends with `suffix`.
fn largest(dir: &Path, suffix: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(it) if it.is_dir() => largest(&entry.path(), suffix),
        Ok(it) if entry.file_name().to_string_lossy().ends_with(suffix) => it.len(),
        _ => 0,
    });
    sizes.max().unwrap_or(0)
}

#[test]
fn a_reader_does_not_keep_the_log_of_its_database_from_its_bound() {
    let (mut node, _limits) = limited("limits:\n  statement_ms: 25000\n  wal_bytes: 200000000\n");
    let client = node.client();
    must(&client, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)");
    must(&client, "INSERT INTO t VALUES (1, zeroblob(1000000))");
    let port = node.port;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let reader = Client::try_connect(port).expect("the node listens");
            query(&reader, ENDLESS)
        });
        let mut wal_max = 0;
        wait_until("the reader is stopped", || {
            // At the bound it waits, and is not refused.
            must(&client, "UPDATE t SET b = randomblob(1000000)");
            wal_max = wal_max.max(largest(&node.data_dir(), "-wal"));
            reader.is_finished().then_some(())
        });
        let (status, json) = reader.join().expect("a reply");
        assert_eq!((status, &json["code"]), (503, &json!("busy")), "{json}");
        assert!((150 << 20..250 << 20).contains(&wal_max), "{wal_max}");
    });
    // It starts anew, by itself.
    let wal_bytes = || largest(&node.data_dir(), "-wal");
    wait_until("the -wal starts anew", || (wal_bytes() < 16 << 20).then_some(()));
    let mut wal_max = 0;
    for _ in 0..60 {
        must(&client, "UPDATE t SET b = randomblob(1000000)");
        wal_max = wal_max.max(wal_bytes());
    }
    assert!(wal_max < 80 << 20, "{wal_max}");
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
    assert!(node.stop().success());
}

#[test]
fn the_end_of_a_reader_is_enough_for_the_log_of_its_database_to_start_anew() {
    let (node, _limits) = limited("limits:\n  statement_ms: 5000\n");
    let client = node.client();
    must(&client, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)");
    must(&client, "INSERT INTO t VALUES (1, zeroblob(1000000))");
    let wal_bytes = || largest(&node.data_dir(), "-wal");
    std::thread::scope(|scope| {
        let port = node.port;
        let reader = scope.spawn(move || {
            let reader = Client::try_connect(port).expect("the node listens");
            query(&reader, ENDLESS)
        });
        wait_until("the -wal is pinned", || {
            must(&client, "UPDATE t SET b = randomblob(1000000)");
            (wal_bytes() > 40 << 20).then_some(())
        });
        // Nobody writes any more.
        let (status, json) = reader.join().expect("a reply");
        assert_eq!((status, &json["code"]), (400, &json!("statement_ms")), "{json}");
    });
    wait_until("the -wal starts anew", || (wal_bytes() < 16 << 20).then_some(()));
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

/// Within its limit of steps it takes half an hour: each looks at all of a long value.
const HALF_AN_HOUR: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n),
    v(y) AS MATERIALIZED (SELECT hex(zeroblob(16000)))
    INSERT INTO t SELECT sum(length(quote(y || x))) FROM n, v";

/// Databases whose commands are on threads, or wait for one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
fn n_long(node: &Node) -> usize {
    Page::read_anew(node).sum("long_batches", &[]) as usize
}

#[test]
fn commands_that_take_half_an_hour_leave_threads_to_others() {
    let names: Vec<_> = (0..6).map(|it| format!("long{it}")).collect();
    let all = names.iter().map(String::as_str).chain(["other"]);
    let keys: Vec<_> = all.map(|it| format!("{it}:{it}")).collect();
    let mut node = Node::start_keyed(1, &[], &keys.join(","));
    let port = node.port;
    let client = |key: &str| Client::try_connect(port).expect("the node listens").with_key(key);
    let other = client("other");
    must(&other, "CREATE TABLE t(a)");
    // A change of the schema always takes a thread.
    let mut n = 0;
    let mut be_served = |other: &Client| {
        let before = Instant::now();
        n += 1;
        must(other, &format!("CREATE INDEX t_{n} ON t(a)"));
        before.elapsed()
    };
    let mut took: Vec<_> = std::thread::scope(|scope| {
        let long: Vec<_> = names
            .iter()
            .map(|name| {
                let client = client(name);
                must(&client, "CREATE TABLE t(a)");
                // Nobody waits for the answer for as long.
                scope.spawn(move || exec(&client, HALF_AN_HOUR).0)
            })
            .collect();
        wait_until("they want all the threads", || (n_long(&node) == names.len()).then_some(()));
        let took = (0..20).map(|_| be_served(&other)).collect();
        for it in long {
            assert_eq!(it.join().expect("a reply"), 409, "they have not been given up for good");
        }
        took
    });
    let given_up = Page::read_anew(&node).sum("long_batches_given_up_total", &[]);
    // Two go on, and so may one for which nobody waits.
    assert!((2.0..=4.0).contains(&given_up), "{given_up}");
    // They stand in the log, and begin anew with the node, which nobody else has to wait for.
    let before = Instant::now();
    assert!(node.stop().success());
    let stopped = before.elapsed();
    let before = Instant::now();
    node.restart();
    let started = before.elapsed();
    let other = node.client().with_key("other");
    took.extend((0..20).map(|_| be_served(&other)));
    println!("stopped in {stopped:?}, started in {started:?}, served in {took:?}");
    took.sort_unstable();
    assert!(*took.last().expect("some") < Duration::from_secs(12), "{took:?}");
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");
    assert_eq!(n_long(&node), names.len(), "none has ended");
    assert!(node.stop().success());
}
