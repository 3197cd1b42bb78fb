//! Logs and databases of some size: restart, compaction, checkpoints, closing and opening.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::metrics::Page;
use crate::process::Node;
use crate::process::PATIENCE;
use crate::process::status_kb;

/// Requests that are on their way at once, so that filling a log does not take a round trip each.
const PIPELINE: usize = 32;

/// Clients that write at the same time.
const CLIENTS: usize = 32;

/// Write `n` rows, each by a command of its own; the text says how large each is.
pub(crate) fn fill(node: &Node, n: usize, text: &str) {
    let port = node.port;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| fill_alone(port, n / CLIENTS, text));
        }
    });
}

fn fill_alone(port: u16, n: usize, text: &str) {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    for chunk in (0..n).collect::<Vec<_>>().chunks(PIPELINE) {
        let mut requests = String::new();
        for _ in chunk {
            let body = json!({ "sql": "INSERT INTO t (v) VALUES (?)", "args": [text] }).to_string();
            let head = "POST /v1/rqlite/exec HTTP/1.1\r\nHost: x\r\nX-API-Key: k1\r\n";
            let length = body.len();
            requests.extend([head, &format!("Content-Length: {length}\r\n\r\n{body}")]);
        }
        (&stream).write_all(requests.as_bytes()).expect("the node reads");
        for _ in chunk {
            assert_eq!(read_status(&mut reader), 200);
        }
    }
}

fn read_status(reader: &mut BufReader<TcpStream>) -> u16 {
    let mut status = 0;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a reply");
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest[..3].parse().expect("a status");
        }
        if let Some(rest) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = rest.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    status
}

fn config(limits: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    write!(file, "limits:\n{limits}").expect("it takes the text");
    file
}

#[test]
fn a_node_with_a_hundred_thousand_entries_in_its_log_starts_within_a_second() {
    let config = config("  log_bytes: 1073741824\n");
    let path = config.path().to_str().expect("UTF-8");
    let mut node = Node::start_with(1, &["--config", path]);
    node.client().exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", &json!([]));
    fill(&node, 100_000, "a row of ordinary size, as in most logs");
    node.kill();
    let began = Instant::now();
    node.restart();
    let rows = node.client().rows("SELECT count(*) FROM t");
    let took = began.elapsed();
    assert_eq!(rows, json!([[100_000]]));
    assert!(took < Duration::from_secs(1), "the first answer took {took:?}");
    println!("restart with 100 000 entries: first answer after {took:?}");
}

#[test]
fn the_log_is_compacted_and_the_database_checkpointed_under_load() {
    let config = config("  log_bytes: 1048576\n");
    let path = config.path().to_str().expect("UTF-8");
    let mut node = Node::start_with(2, &["--config", path]);
    node.client().exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", &json!([]));
    let text = "x".repeat(4_000);
    fill(&node, 12_000, &text);
    let wal = largest(&node.data_dir().join("partitions"), "-wal");
    println!("largest -wal: {} MiB", wal >> 20);
    assert!(wal < 24 << 20, "a -wal has grown to {wal} bytes");
    let floor = highest_floor(&node.data_dir().join("partitions"));
    println!("highest floor of a namespace: {floor}");
    assert!(floor > 1, "nothing was compacted");
    assert!(Page::read_anew(&node).sum("compactions_total", &[]) > 0.5);
    let log = total(&node.data_dir().join("wal"));
    assert!(log < 400 << 20, "the log has grown to {log} bytes");
    node.kill();
    node.restart();
    assert_eq!(
        node.client().rows("SELECT count(*), sum(length(v)) FROM t"),
        json!([[12_000, 48_000_000]])
    );
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn databases_are_closed_and_opened_again() {
    let config = config("  open_databases: 20\n");
    let path = config.path().to_str().expect("UTF-8");
    let keys: Vec<_> = (0..60).map(|it| format!("key{it}:space{it}")).collect();
    let keys: &'static str = keys.join(",").leak();
    let mut node = Node::start_keyed(2, &["--config", path], keys);
    let names: Vec<&'static str> = (0..60).map(|it| &*format!("key{it}").leak()).collect();
    for name in &names {
        let client = node.client().with_key(name);
        client.exec("CREATE TABLE t (v TEXT)", &json!([]));
        client.exec("INSERT INTO t VALUES (?)", &json!([name]));
    }
    for round in 0..2 {
        for name in &names {
            let rows = node.client().with_key(name).rows("SELECT v FROM t");
            assert_eq!(rows, json!([[name]]), "round {round}");
        }
        // 60 databases with a -wal each would be 120 files beside the engine's own.
        let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("it runs").count();
        println!("{open} files are open");
        assert!(open < 200, "{open} files are open");
        let closed = Page::read_anew(&node).sum("evictions_total", &[]);
        assert!(closed > 20.0, "{closed} databases were closed");
        node.kill();
        node.restart();
    }
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn an_idle_node_is_small() {
    let node = Node::start(2);
    node.client().exec("CREATE TABLE t (v TEXT)", &json!([]));
    let resident = status_kb(node.pid(), "VmRSS");
    assert!(resident < 40 << 10, "{resident} kB are resident");
    println!("idle node: {resident} kB resident");
}

fn files(dir: &std::path::Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        if let Ok(entries) = std::fs::read_dir(&path) {
            pending.extend(entries.flatten().map(|it| it.path()));
        } else {
            let size = std::fs::metadata(&path).map_or(0, |it| it.len());
            found.push((path, size));
        }
    }
    found
}

fn largest(dir: &std::path::Path, suffix: &str) -> u64 {
    let is_it = |(path, _): &&(std::path::PathBuf, u64)| path.to_string_lossy().ends_with(suffix);
    files(dir).iter().filter(is_it).map(|(_, size)| *size).max().unwrap_or(0)
}

/// How far the namespaces' databases are written down to be durable, in the manifests under `dir`, which
/// have a line `<incarnation> <floor>` for each; 0 is the engine's own.
fn highest_floor(dir: &std::path::Path) -> u64 {
    let mut floors: Vec<u64> = Vec::new();
    for (path, _) in files(dir) {
        if path.file_name().is_some_and(|it| it == "manifest") {
            let text = std::fs::read_to_string(&path).expect("a manifest is text");
            let of_namespaces = text.lines().filter(|it| !it.starts_with("0 "));
            floors.extend(of_namespaces.filter_map(|it| it.split(' ').nth(1)?.parse::<u64>().ok()));
        }
    }
    floors.into_iter().max().unwrap_or(0)
}

fn total(dir: &std::path::Path) -> u64 {
    files(dir).iter().map(|(_, size)| *size).sum()
}
