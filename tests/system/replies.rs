//! Results that are too large for memory: what is sent of them, and what they cost.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::client::Client;
use crate::client::Reply;
use crate::process::Node;
use crate::process::PATIENCE;
use crate::process::status_kb;
use crate::process::wait_until;

/// Rows of the table, of which each takes about a kilobyte of a result: nearly all that one may have.
const ROWS: usize = 28_000;
/// Rows of a page that is sent at once.
const PAGE: usize = 200;
const ALL: &str = "SELECT n, t, b, r FROM big ORDER BY id";
/// Clients that read slowly.
const SLOW_CLIENTS: usize = 64;
/// How much of the node's memory they may take together, in kB. Each holds a window of its result (up to 256 KiB), the
/// text of a piece, and what hyper has of it; their results have 1.8 GiB, and the text of those twice that.
const SLOW_CLIENTS_KB: u64 = 96 << 10;

/// A node with the table.
fn node_with_big(shards: u16) -> Node {
    let node = Node::start(shards);
    let client = node.client();
    client.exec(
        "CREATE TABLE big (id INTEGER PRIMARY KEY, n INTEGER, t TEXT, b BLOB, r REAL)",
        &json!([]),
    );
    let series =
        format!("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS})");
    let insert = format!(
        "{series} INSERT INTO big SELECT n, n, printf('<%0700d \"ü\u{2028}>', n), unhex(printf('%0500x', n)), n / 3.0 FROM s"
    );
    client.exec(&insert, &json!([]));
    client.exec("UPDATE big SET n = 9223372036854775807 WHERE id = 28000", &json!([]));
    client.exec("UPDATE big SET n = -9223372036854775808 WHERE id = 1", &json!([]));
    node
}

fn query(client: &Client, sql: &str) -> Reply {
    let reply = client.post("/v1/rqlite/query", &json!({ "sql": sql })).expect("an answer");
    assert_eq!(reply.status, 200, "{}", &reply.body[..reply.body.len().min(300)]);
    reply
}

/// The text of the two lists of a table's reply.
fn lists(body: &str) -> (&str, &str) {
    let (_, rest) = body.split_once("\"items\":[").expect("items");
    let (items, rest) = rest.split_once("],\"rows\":[").expect("rows");
    (items, rest.strip_suffix("]}\n").expect("the end of the reply"))
}

/// The value of a metric, summed over the shards.
fn metric(node: &Node, name: &str) -> u64 {
    let client = Client::try_connect(node.metrics_port).expect("the node listens");
    let page = client.get("/metrics").expect("a page").body;
    let start = format!("debros_{name}{{");
    let values = page.lines().filter(|it| it.starts_with(&start));
    let value = |it: &str| it.rsplit(' ').next().and_then(|it| it.parse().ok());
    let values: Vec<u64> = values.map(|it| value(it).expect("a number")).collect();
    assert!(!values.is_empty(), "no {name} in {page}");
    values.into_iter().sum()
}

/// Whether no file with a result is left.
fn are_closed(node: &Node) -> bool {
    metric(node, "spools") == 0 && metric(node, "spooled_bytes") == 0
}

/// Files that have no name and lie where temporary ones do.
fn unnamed_files(node: &Node) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("it runs");
    let names = files.flatten().filter_map(|it| std::fs::read_link(it.path()).ok());
    let names = names.map(|it| it.to_string_lossy().into_owned());
    names.filter(|it| it.contains("sqlite-tmp") && it.ends_with("(deleted)")).count()
}

/// Ask for everything, and take the first bytes of the reply.
fn begin_to_read(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let body = json!({ "sql": ALL }).to_string();
    let head =
        "POST /v1/rqlite/query HTTP/1.1\r\nHost: x\r\nX-API-Key: k1\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("the node reads");
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("a reply");
    assert_eq!(&start, b"HTTP/1.1 200");
    stream
}

fn largest_wal(dir: &Path) -> u64 {
    let mut largest = 0;
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            largest = largest.max(largest_wal(&path));
        } else if path.to_string_lossy().ends_with("-wal") {
            largest = largest.max(entry.metadata().map_or(0, |it| it.len()));
        }
    }
    largest
}

#[test]
fn a_large_result_is_what_its_rows_are() {
    let node = node_with_big(2);
    let client = node.client();
    let began = Instant::now();
    let reply = query(&client, ALL);
    let took = began.elapsed();
    println!("{} bytes of JSON in {took:?}", reply.body.len());
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert!(metric(&node, "spools_total") >= 1);
    let start = format!("{{\"columns\":[\"n\",\"t\",\"b\",\"r\"],\"count\":{ROWS},\"items\":[");
    assert!(reply.body.starts_with(&start), "{}", &reply.body[..100]);
    let (mut items, mut rows) = (Vec::new(), Vec::new());
    let spools = metric(&node, "spools_total");
    for page in 0..ROWS.div_ceil(PAGE) {
        let small = query(&client, &format!("{ALL} LIMIT {PAGE} OFFSET {}", page * PAGE));
        assert!(small.header("content-length").is_some());
        let (some_items, some_rows) = lists(&small.body);
        items.push(some_items.to_owned());
        rows.push(some_rows.to_owned());
    }
    assert_eq!(metric(&node, "spools_total"), spools, "pages are sent at once");
    let (all_items, all_rows) = lists(&reply.body);
    assert!(all_items == items.join(","), "the items differ");
    assert!(all_rows == rows.join(","), "the rows differ");
    assert!(all_rows.starts_with("[-9223372036854775808,"));
    assert!(all_rows.contains("[9223372036854775807,"));
    // However it is asked for.
    let find = json!({ "table": "big", "options": { "select": ["n", "t", "b", "r"], "order_by": ["id"] } });
    let find = client.post("/v1/rqlite/find", &find).expect("an answer");
    assert_eq!(find.status, 200, "{}", &find.body[..find.body.len().min(200)]);
    assert!(lists(&find.body).1 == all_rows, "find gives others");
    let ops = json!([{ "kind": "query", "sql": "SELECT 1 AS x" }, { "kind": "query", "sql": ALL }]);
    let body = json!({ "ops": ops, "return_results": true });
    let results = client.post("/v1/rqlite/transaction", &body).expect("an answer");
    let want = format!("{{\"results\":[[{{\"x\":1}}],[{all_items}]],\"status\":\"ok\"}}\n");
    assert!(results.body == want, "a transaction gives others");
    // What writes has its rows in memory; they are sent in pieces all the same.
    let update =
        json!({ "sql": "UPDATE big SET r = r WHERE id BETWEEN 2 AND 2001 RETURNING n, t, b, r" });
    let update = client.post("/v1/rqlite/exec", &update).expect("an answer");
    assert_eq!(update.header("transfer-encoding"), Some("chunked"));
    let returned: Value = update.json();
    assert_eq!(returned["rows_affected"], 2_000);
    let some = query(&client, "SELECT n, t, b, r FROM big WHERE id BETWEEN 2 AND 2001 ORDER BY id");
    assert_eq!(returned["rows"], some.json()["rows"]);
    wait_until("the files are closed", || are_closed(&node).then_some(()));
    assert_eq!(metric(&node, "spooled_bytes"), 0);
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn a_value_larger_than_a_piece_comes_back() {
    let node = Node::start(2);
    let client = node.client();
    client.exec("CREATE TABLE t (a, b)", &json!([]));
    let text = "<ü\"\u{2028}".repeat(200_000);
    client.exec("INSERT INTO t VALUES (?, zeroblob(2000001))", &json!([text]));
    let row = query(&client, "SELECT b, a, 7 FROM t").json()["rows"][0].take();
    assert!(row[1] == text, "the text is another");
    let blob = row[0].as_str().expect("base64");
    assert_eq!(blob.len(), 2_000_001_usize.div_ceil(3) * 4);
    assert_eq!(row[2], 7);
    let one = client.post("/v1/rqlite/find-one", &json!({ "table": "t" })).expect("an answer");
    assert!(one.json()["a"] == text, "the text is another");
    let value = "v\u{0}".repeat(1_000_000);
    let put = client.request("POST", "/v1/storage/put?key=k", &value).expect("an answer");
    assert_eq!(put.status, 201, "{}", put.body);
    for _ in 0..2 {
        let got = client.get("/v1/storage/get?key=k").expect("an answer");
        assert_eq!(got.header("content-length"), Some("2000000"));
        assert!(got.body == value, "the value is another");
    }
    assert!(metric(&node, "spools_total") >= 2);
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn limits_are_told_before_anything_is_sent() {
    let node = node_with_big(2);
    let client = node.client();
    let series = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 100001)";
    let rows = json!({ "sql": format!("{series} SELECT n, 'a row of some length' AS a FROM s") });
    let (status, error) = client.refused("/v1/rqlite/query", &rows);
    assert_eq!((status, error.contains("too many rows")), (400, true), "{error}");
    let bytes = json!({ "sql": "SELECT a.*, b.t AS u FROM big a, big b WHERE b.id = 5" });
    let (status, error) = client.refused("/v1/rqlite/query", &bytes);
    assert_eq!((status, error.contains("too large")), (400, true), "{error}");
    wait_until("the files are closed", || are_closed(&node).then_some(()));
    assert!(metric(&node, "spools_total") >= 2, "both went to a file");
    let old = node.client();
    let body = json!({ "sql": ALL }).to_string();
    let head = "POST /v1/rqlite/query HTTP/1.0\r\nX-API-Key: k1\r\n";
    old.send(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).expect("it listens");
    let text = old.read_to_end().expect("a reply");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200") && !head.contains("chunked"), "{head}");
    assert!(body == query(&client, ALL).body, "an old client gets something else");
}

#[test]
fn slow_clients_cost_no_memory_and_hold_up_nobody() {
    let node = node_with_big(2);
    let other = node.client().with_key("k2");
    other.exec("CREATE TABLE t (v TEXT)", &json!([]));
    // What one costs for the first time, others do not cost again.
    drop(query(&node.client(), ALL));
    drop(begin_to_read(node.port));
    wait_until("the files are closed", || are_closed(&node).then_some(()));
    assert_eq!(unnamed_files(&node), 0);
    let resident = status_kb(node.pid(), "VmRSS");
    let mut slow = Vec::new();
    while slow.len() < SLOW_CLIENTS {
        let wave = std::thread::scope(|scope| {
            let wave: Vec<_> = (0..8).map(|_| scope.spawn(|| begin_to_read(node.port))).collect();
            wave.into_iter().map(|it| it.join().expect("a reply")).collect::<Vec<_>>()
        });
        slow.extend(wave);
    }
    let grown = status_kb(node.pid(), "VmRSS").saturating_sub(resident);
    println!("{SLOW_CLIENTS} slow clients: {grown} kB more than {resident} kB");
    assert_eq!(metric(&node, "spools"), SLOW_CLIENTS as u64);
    assert_eq!(unnamed_files(&node), SLOW_CLIENTS);
    assert!(metric(&node, "spooled_bytes") > SLOW_CLIENTS as u64 * 25_000_000);
    assert!(grown < SLOW_CLIENTS_KB, "{grown} kB");
    // Others go on, this namespace included, and no `-wal` is held.
    let client = node.client();
    client.exec("CREATE TABLE more (v TEXT)", &json!([]));
    let text = "x".repeat(100_000);
    for _ in 0..400 {
        client.exec("INSERT INTO more VALUES (?)", &json!([text]));
    }
    other.exec("INSERT INTO t VALUES ('y')", &json!([]));
    assert_eq!(other.rows("SELECT v FROM t"), json!([["y"]]));
    assert_eq!(client.rows("SELECT count(*) FROM more"), json!([[400]]));
    let wal = largest_wal(&node.data_dir().join("partitions"));
    println!("largest -wal: {} MiB, of 38 written", wal >> 20);
    assert!(wal < 24 << 20, "a -wal has grown to {wal} bytes");
    assert_eq!(metric(&node, "spools"), SLOW_CLIENTS as u64, "they still wait");
    // Some read on, to the end; the rest go away.
    for mut stream in slow.drain(..4) {
        let mut body = Vec::new();
        stream.read_to_end(&mut body).expect("the rest of a reply");
        assert!(body.ends_with(b"\n\r\n0\r\n\r\n"), "a reply is incomplete");
        assert!(body.len() > ROWS * 2_000);
    }
    drop(slow);
    wait_until("the files are closed", || {
        (are_closed(&node) && unnamed_files(&node) == 0).then_some(())
    });
    assert_eq!(metric(&node, "spooled_bytes"), 0);
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}
