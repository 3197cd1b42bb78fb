//! What crossing each limit of the configuration gets: a status, a code that stays, and a number on the page of metrics.

use std::io::Write;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::client::Client;
use crate::client::Reply;
use crate::metrics::Page;
use crate::process::Node;
use crate::process::wait_until;

fn start(shards: u16, limits: &str) -> Node {
    let mut config = tempfile::NamedTempFile::new().expect("a file");
    write!(config, "limits:\n{limits}").expect("it takes the text");
    Node::start_with(shards, &["--config", config.path().to_str().expect("UTF-8")])
}

fn refused(reply: &Reply) -> (u16, String) {
    let code = reply.json()["code"].as_str().unwrap_or_default().to_owned();
    assert!(reply.json()["error"].is_string(), "{reply:?}");
    (reply.status, code)
}

/// Rows counted from one, and something about each.
fn rows(n: u64, what: &str) -> String {
    format!(
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {n}) SELECT {what} FROM c"
    )
}

#[test]
fn each_limit_of_a_request_has_its_status_its_code_and_its_count() {
    let node = start(
        2,
        "  body_bytes: 40000\n  header_bytes: 8192\n  result_rows: 10\n  result_bytes: 4000\n  \
         statement_ms: 3000\n  statement_steps: 100000\n  value_bytes: 32768\n  temp_bytes: 200000\n",
    );
    node.client().exec("CREATE TABLE t (v)", &json!([]));
    let (query, exec) = ("/v1/rqlite/query", "/v1/rqlite/exec");
    let sorted =
        format!("SELECT count(*) FROM ({} ORDER BY 1)", rows(100_000, "x * 7919 % 100003, hex(x)"));
    for (limit, path, sql, status) in [
        ("body_bytes", exec, format!("SELECT '{}'", "x".repeat(40_000)), 413),
        ("result_rows", query, rows(11, "x"), 400),
        ("result_bytes", query, rows(8, "hex(zeroblob(450))"), 400),
        ("statement_ms", query, rows(1_000_000_000, "count(*)"), 400),
        ("statement_steps", exec, format!("INSERT INTO t {}", rows(1_000_000, "x")), 400),
        ("value_bytes", query, "SELECT zeroblob(32769)".to_owned(), 400),
        ("temp_bytes", query, sorted, 400),
    ] {
        let reply = node.client().post(path, &json!({ "sql": sql })).expect("an answer");
        assert_eq!(refused(&reply), (status, limit.to_owned()), "{sql:.80}: {reply:?}");
    }
    let put = node.client().request("PUT", "/v1/storage?key=k", &"x".repeat(32_769));
    assert_eq!(refused(&put.expect("an answer")), (400, "value_bytes".to_owned()));
    let field = |size: usize| format!("X: {}\r\n", "x".repeat(size));
    let head = node.client().request_with(&field(9_000), "GET", "/v1/rqlite/schema", "");
    assert_eq!(refused(&head.expect("an answer")), (431, "header_bytes".to_owned()));
    // One that is far too long is not even read to its end, and told the same.
    let head = node.client().request_with(&field(30_000), "GET", "/v1/rqlite/schema", "");
    assert_eq!(refused(&head.expect("an answer")), (431, "header_bytes".to_owned()));
    // What stays within them passes.
    let sql = rows(10, "x");
    assert_eq!(node.client().rows(&sql).as_array().map(Vec::len), Some(10));

    let page = Page::read_anew(&node);
    for (limit, n) in [
        ("body_bytes", 1.0),
        ("header_bytes", 2.0),
        ("result_rows", 1.0),
        ("result_bytes", 1.0),
        ("statement_ms", 1.0),
        ("statement_steps", 1.0),
        ("value_bytes", 2.0),
        ("temp_bytes", 1.0),
        ("requests_per_second", 0.0),
        ("connections", 0.0),
        ("database_bytes", 0.0),
        ("disk_reserve", 0.0),
    ] {
        let label = format!("limit=\"{limit}\"");
        let counted = page.sum("limit_refusals_total", &[&label]);
        assert!((counted - n).abs() < 0.5, "{limit}: {counted} instead of {n}");
    }
    for of in ["writes", "mailbox", "long_reads", "bodies"] {
        assert!(page.sum("share_refusals_total", &[&format!("of=\"{of}\"")]) < 0.5);
    }
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn a_full_database_is_507_and_counted() {
    let node = start(1, "  database_bytes: 1048576\n");
    let client = node.client();
    client.exec("CREATE TABLE t (v)", &json!([]));
    let insert = json!({ "sql": "INSERT INTO t VALUES (zeroblob(100000))" });
    let full = (0..20).find_map(|_| {
        let reply = client.post("/v1/rqlite/exec", &insert).expect("an answer");
        (reply.status != 200).then_some(reply)
    });
    let full = full.expect("two megabytes do not fit into one");
    assert_eq!(refused(&full), (507, "database_bytes".to_owned()));
    let counted = Page::read_anew(&node).sum("limit_refusals_total", &["limit=\"database_bytes\""]);
    assert!((counted - 1.0).abs() < 0.5, "{counted}");
}

#[test]
fn connections_beyond_the_limit_are_told_so_wherever_they_arrive() {
    let node = start(2, "  connections: 6\n");
    // Those that asked whether it is up may not be gone yet.
    let open: Vec<Client> = wait_until("six have a place", || {
        let all: Vec<_> = (0..6).filter_map(|_| Client::try_connect(node.port)).collect();
        let is_served = |it: &Client| it.get("/health").is_ok_and(|reply| reply.status == 200);
        (all.len() == 6 && all.iter().all(is_served)).then_some(all)
    });
    let before = Page::read_anew(&node);
    for _ in 0..5 {
        let reply = node.client().get("/health").expect("an answer");
        assert_eq!(refused(&reply), (503, "connections".to_owned()));
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.header("connection"), Some("close"));
    }
    for client in &open {
        assert_eq!(client.get("/health").expect("an answer").status, 200);
    }
    let after = Page::read_anew(&node);
    let rose = |name: &str, with: &[&str]| after.sum(name, with) - before.sum(name, with);
    assert!((rose("connections_turned_away_total", &[]) - 5.0).abs() < 0.5);
    assert!((rose("limit_refusals_total", &["limit=\"connections\""]) - 5.0).abs() < 0.5);
    assert!((after.sum("connections", &[]) - 6.0).abs() < 0.5);
    assert!((after.sum("connections_max", &[]) - 6.0).abs() < 0.5);
    drop(open);
    wait_until("there is a place again", || {
        let reply = Client::try_connect(node.port)?.get("/health").ok()?;
        (reply.status == 200).then_some(())
    });
}

/// Clients of one key on all cores of a node: together they get a second's worth, and then as much as the rate gives.
#[test]
fn requests_per_second_hold_for_the_whole_node() {
    const RATE: u32 = 40;
    const WANTED: u32 = 120;
    let node = start(2, &format!("  requests_per_second: {RATE}\n"));
    let body = json!({ "sql": "SELECT 1" });
    let ask = |client: &Client| client.post("/v1/rqlite/query", &body).expect("an answer");
    let (passed, refusals) = (AtomicU32::new(0), AtomicU32::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let client = node.client();
                while passed.load(Ordering::Relaxed) < WANTED {
                    let reply = ask(&client);
                    if reply.status == 200 {
                        passed.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert_eq!(refused(&reply), (429, "too_many_requests".to_owned()));
                        assert_eq!(reply.header("retry-after"), Some("1"));
                        refusals.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let took = began.elapsed();
    let passed = passed.load(Ordering::Relaxed);
    let least = Duration::from_secs(u64::from(passed - RATE)) / RATE;
    println!("{passed} passed in {took:?}, {refusals:?} did not");
    assert!(took >= least, "{passed} requests passed in {took:?}");
    assert!(took < least + Duration::from_secs(2), "{passed} requests took {took:?}");
    // The other key has a bucket of its own.
    let client = node.client().with_key("k2");
    for _ in 0..RATE / 2 {
        assert_eq!(ask(&client).status, 200);
    }
    let refusals = refusals.load(Ordering::Relaxed);
    let page = Page::read_anew(&node);
    let counted = page.sum("limit_refusals_total", &["limit=\"requests_per_second\""]);
    let counted: Value = json!(counted);
    assert_eq!(counted.as_f64().map(|it| it.round()), json!(refusals).as_f64());
    // Within the second that it was told to wait, one passes again.
    let client = node.client();
    let refused_at =
        wait_until("it is refused", || (ask(&client).status == 429).then(Instant::now));
    wait_until("it passes", || (ask(&client).status == 200).then_some(()));
    assert!(refused_at.elapsed() <= Duration::from_secs(1), "{:?}", refused_at.elapsed());
}
