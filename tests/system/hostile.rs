//! Statements that a tenant may send to do harm: each ends, soon and with an answer that says why; the node
//! lives on, in bounded memory, and a neighbour on the same core is served meanwhile.

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::client::Client;
use crate::metrics::Page;
use crate::process::Node;
use crate::process::PATIENCE;
use crate::process::status_kb;

/// Small enough that a statement which takes all that it may ends in a second or two.
const LIMITS: &str = "limits:
  statement_steps: 5000000
  statement_ms: 2000
  temp_bytes: 16777216
  value_bytes: 262144
  result_rows: 10000
  result_bytes: 4194304
  database_bytes: 67108864
";

/// What the hostile statements find.
const SCHEMA: &[&str] = &[
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
    "CREATE TABLE u(a, b, c, d)",
    "CREATE TABLE one(x)",
    "CREATE TABLE i3(a, b, c)",
    "CREATE INDEX i3_a ON i3(a)",
    "CREATE INDEX i3_b ON i3(b)",
    "CREATE INDEX i3_c ON i3(c)",
    "CREATE TABLE looped(x)",
    "CREATE TABLE numbered(id INTEGER PRIMARY KEY AUTOINCREMENT, x)",
    "CREATE TABLE big(x, y)",
    "CREATE VIRTUAL TABLE f USING fts5(body)",
    "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
    "CREATE TABLE docs(v)",
    "INSERT INTO numbered(x) VALUES (1)",
    "INSERT INTO one VALUES (1)",
    "INSERT INTO t VALUES (1, 1)",
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5000)
        INSERT INTO big SELECT x, hex(randomblob(100)) FROM c",
    "INSERT INTO f SELECT 'word' || x || ' w' || y FROM big LIMIT 2000",
    "INSERT INTO docs SELECT json_group_array(x) FROM big",
    "INSERT INTO docs SELECT hex(zeroblob(60000))",
    "CREATE VIRTUAL TABLE letters USING fts5(v)",
    "INSERT INTO letters SELECT replace(hex(zeroblob(60000)), '0', 'a ')",
    "CREATE VIRTUAL TABLE trigrams USING fts5(v, tokenize='trigram')",
    "INSERT INTO trigrams SELECT replace(hex(zeroblob(100000)), '0', 'a')",
    // Many rows, of which only the first is what it is searched for.
    "CREATE VIRTUAL TABLE far USING fts5(v)",
    "INSERT INTO far VALUES ('a c')",
    // Indexes of what a tenant wrote, and of pages that are longer than a value.
    "CREATE VIEW long AS SELECT 1 AS id, randomblob(999999999) AS b",
    "CREATE VIEW slow AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
        SELECT x AS id, x AS rowid, length(hex(zeroblob(20000000 + x))) AS b FROM c",
    "CREATE VIRTUAL TABLE of_long USING fts5(b, content='long', content_rowid='id')",
    "CREATE VIRTUAL TABLE of_slow USING fts5(b, content='slow', content_rowid='id')",
    "CREATE VIRTUAL TABLE of_slow4 USING fts4(b, content='slow')",
    "CREATE VIRTUAL TABLE zeros USING fts4(b, compress=zeroblob, uncompress=length)",
    "CREATE VIRTUAL TABLE paged USING fts5(b)",
    "INSERT INTO paged(paged, rank) VALUES ('pgsz', 65536)",
    "CREATE VIRTUAL TABLE paged_words USING fts5vocab(paged, row)",
    "INSERT INTO far SELECT replace(hex(zeroblob(500)), '00', 'a b ') || 'c' FROM big LIMIT 1000",
];

/// Most memory that the node may ever hold.
const MEMORY_KB_MAX: u64 = 320 << 10;
/// Longest that any statement may take: before it, the node would have to say that it does not know.
const STATEMENT_MAX: Duration = Duration::from_secs(14);

/// The statements of a list, with how each ends; see the head of `costly.txt`.
fn statements(list: &str) -> Vec<(&str, String)> {
    let wanted = list.lines().filter(|it| !it.is_empty() && !it.starts_with('#'));
    wanted
        .map(|line| {
            let (kind, sql) = line.split_once(' ').expect("a kind and a statement");
            (kind, expand(sql))
        })
        .collect()
}

/// Replace `<<n|text>>` by n times the text.
fn expand(mut sql: &str) -> String {
    let mut expanded = String::new();
    while let Some((before, rest)) = sql.split_once("<<") {
        let (times, rest) = rest.split_once('|').expect("a number of times");
        let (text, after) = rest.split_once(">>").expect("an end");
        expanded.push_str(before);
        expanded.push_str(&text.repeat(times.parse().expect("a number")));
        sql = after;
    }
    expanded + sql
}

/// Those that SQLite is never to run at all.
fn refused() -> impl Iterator<Item = (&'static str, String)> {
    let list = include_str!("../data/sql/hostile.txt");
    let statements = list.lines().filter(|it| !it.starts_with("    ") && !it.trim().is_empty());
    statements.map(|sql| ("error", sql.to_owned()))
}

/// Send one, and check how it ends; what is wrong with it.
fn check(
    node: &Node,
    kind: &str,
    sql: &str,
    took_longest: &mut (Duration, String),
) -> Option<String> {
    let shown: String = sql.chars().take(150).collect();
    for path in ["/v1/rqlite/exec", "/v1/rqlite/query"] {
        let began = Instant::now();
        let reply = node.client().post(path, &json!({ "sql": sql }));
        let took = began.elapsed();
        let reply = reply.unwrap_or_else(|error| panic!("{path} {shown}: {error}"));
        if took > STATEMENT_MAX {
            return Some(format!("{path} {shown}: took {took:?}"));
        }
        if took > took_longest.0 {
            *took_longest = (took, shown.clone());
        }
        let body: String = reply.body.chars().take(300).collect();
        let error = if reply.status == 200 { None } else { Some(reply.json()) };
        let code = error.as_ref().and_then(|it| it["code"].as_str());
        // 507 is the answer to a database that would grow too large.
        let is_clear = matches!(reply.status, 200 | 400 | 413 | 507)
            && error.as_ref().is_none_or(|it| !it["error"].as_str().unwrap_or("").is_empty());
        if !is_clear {
            return Some(format!("{path} {shown}: {} {body}", reply.status));
        }
        if path.ends_with("exec") {
            let limits = ["statement_", "temp_", "value_", "result_", "database_", "schema_"];
            let is_limit = code.is_some_and(|it| limits.iter().any(|limit| it.starts_with(limit)));
            let is_as_wanted = match kind {
                "ok" => reply.status == 200,
                "limit" => is_limit,
                "error" => reply.status == 400 && !is_limit,
                "any" => true,
                kind => panic!("no kind of ending: {kind}"),
            };
            if !is_as_wanted {
                return Some(format!("not {kind}: {shown}: {} {body}", reply.status));
            }
        }
    }
    None
}

/// Write and read as a neighbour does, until told to stop; how long each took.
fn be_a_neighbour(port: u16, stop: &AtomicBool) -> Vec<Duration> {
    let client = Client::try_connect(port).expect("it listens").with_key("k2");
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.exec("INSERT INTO mine (v) VALUES (?)", &json!(["a row of ordinary size"]));
        took.push(began.elapsed());
        let began = Instant::now();
        client.rows("SELECT v FROM mine WHERE id = 1");
        took.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    took
}

/// What the neighbour sees while `f` runs: median, the longest but one in a hundred, the longest.
fn beside_a_neighbour(node: &Node, f: impl FnOnce()) -> [Duration; 3] {
    let stop = AtomicBool::new(false);
    let mut took = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| be_a_neighbour(node.port, &stop));
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        stop.store(true, Ordering::Relaxed);
        let took = neighbour.join().expect("the neighbour");
        if let Err(panic) = ran {
            std::panic::resume_unwind(panic);
        }
        took
    });
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    [at(50), at(99), at(100)]
}

#[test]
fn hostile_statements_end_and_hurt_nobody_else() {
    let mut config = tempfile::NamedTempFile::new().expect("a file");
    config.write_all(LIMITS.as_bytes()).expect("it takes the text");
    let path = config.path().to_str().expect("UTF-8");
    let mut node = Node::start_with(1, &["--config", path]);
    let client = node.client();
    for sql in SCHEMA {
        client.exec(sql, &json!([]));
    }
    let neighbour = node.client().with_key("k2");
    neighbour.exec("CREATE TABLE mine (id INTEGER PRIMARY KEY, v TEXT)", &json!([]));
    let quiet = beside_a_neighbour(&node, || std::thread::sleep(Duration::from_secs(1)));

    let costly = statements(include_str!("../data/sql/costly.txt"));
    let all: Vec<_> = refused().chain(costly).collect();
    assert!(all.len() >= 160, "{} statements", all.len());
    let mut longest = (Duration::ZERO, String::new());
    let began = Instant::now();
    let mut wrong = Vec::new();
    let beside = beside_a_neighbour(&node, || {
        for (kind, sql) in &all {
            wrong.extend(check(&node, kind, sql, &mut longest));
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} statements in {:?}, longest {longest:?}", all.len(), began.elapsed());
    println!("a neighbour (median, p99, longest): quiet {quiet:?}, beside them {beside:?}");
    let memory = status_kb(node.pid(), "VmHWM");
    println!("most memory: {} MiB", memory >> 10);
    assert!(memory < MEMORY_KB_MAX, "{memory} kB were resident");
    // By the clock, loosely: the machines that run tests are shared, and the hostile statements' own threads take
    // the processors from the core. What a neighbour waits for on the core itself is counted in processor time.
    let bound = (quiet[1] * 10).max(Duration::from_millis(150));
    assert!(beside[1] < bound, "quiet {quiet:?}, beside hostile statements {beside:?}");
    Page::read(&node).assert_short_turns();

    let count = node.client().with_key("k2").rows("SELECT count(*) FROM mine");
    node.kill();
    let began = Instant::now();
    node.restart();
    assert_eq!(node.client().with_key("k2").rows("SELECT count(*) FROM mine"), count);
    let client = node.client();
    client.exec("INSERT INTO t(b) VALUES ('still here')", &json!([]));
    let rows = client.rows("SELECT count(*) FROM t WHERE b = 'still here'");
    assert_eq!(rows, json!([[1]]));
    let took = began.elapsed();
    println!("restart until both work: {took:?}");
    assert!(took < PATIENCE, "restart took {took:?}");
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}
