//! A namespace that is fenced, and `debros repair`, its way back.

use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::fence::databases;
use crate::large::fill;
use crate::process::Node;
use crate::process::binary;
use crate::process::free_port;
use crate::process::run;

/// Enough rows of [`TEXT_SIZE`] that a log is compacted several times.
const N_ROWS: usize = 2_048;
const TEXT_SIZE: usize = 3_000;

/// One partition for all, so that a fenced database and a busy one share their log.
fn config(fence_log_bytes: u64) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let limits = format!("{{log_bytes: 1048576, fence_log_bytes: {fence_log_bytes}}}");
    writeln!(file, "database: {{shard_count: 1}}\nlimits: {limits}").expect("it takes the text");
    file
}

fn repair(node: &Node, extra: &[&str]) -> (Option<i32>, String, String) {
    run(binary().arg("repair").arg("--data").arg(node.data_dir()).args(extra))
}

/// The file of a database and its `-wal`.
fn files(database: &Path) -> [PathBuf; 2] {
    [database.to_owned(), database.with_extension("db-wal")]
}

/// A copy of a database that nobody has open.
struct Copy(Vec<(PathBuf, Vec<u8>)>);

impl Copy {
    fn of(database: &Path) -> Self {
        let there = files(database).into_iter().filter(|it| it.exists());
        Self(there.map(|it| (it.clone(), std::fs::read(it).expect("it can be read"))).collect())
    }

    fn put_back(&self, database: &Path) {
        remove(database);
        for (path, bytes) in &self.0 {
            std::fs::write(path, bytes).expect("it can be written");
        }
    }
}

fn remove(database: &Path) {
    for path in files(database).iter().chain([&database.with_extension("db-shm")]) {
        // It need not be there.
        let _ = std::fs::remove_file(path);
    }
}

fn damage(database: &Path) {
    remove(database);
    std::fs::write(database, vec![0x5a; 4096 * 4]).expect("it can be damaged");
}

/// A node whose namespace `other` has three rows, a copy of that, and two rows more; then its file is damaged,
/// the node fences it, and goes on. What it is left with: stopped, with a long log.
fn fenced_node(config: &Path) -> (Node, PathBuf, Copy) {
    let config = config.to_str().expect("UTF-8");
    let mut node = Node::start_with(1, &["--config", config]);
    node.client().exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", &json!([]));
    let insert = |node: &Node, n: u32| {
        let other = node.client().with_key("k2");
        other.exec("INSERT INTO t VALUES (?)", &json!([n]));
    };
    node.client().with_key("k2").exec("CREATE TABLE t (n INTEGER)", &json!([]));
    (1..=3).for_each(|n| insert(&node, n));
    assert!(node.stop().success());
    let database = databases(&node).pop().expect("the one created last");
    let copy = Copy::of(&database);
    node.restart();
    (4..=5).for_each(|n| insert(&node, n));
    assert!(node.stop().success());
    damage(&database);
    node.restart();
    assert_fenced(&node);
    fill(&node, N_ROWS, &"x".repeat(TEXT_SIZE));
    assert_fenced(&node);
    // What is known of it lasts.
    node.kill();
    node.restart();
    assert_fenced(&node);
    assert_eq!(node.client().rows("SELECT count(*) FROM t"), json!([[N_ROWS]]));
    assert!(node.stop().success());
    (node, database, copy)
}

fn assert_fenced(node: &Node) {
    let read = json!({ "sql": "SELECT n FROM t" });
    let (status, error) = node.client().with_key("k2").refused("/v1/rqlite/query", &read);
    assert_eq!(status, 503, "{error}");
    let write = json!({ "sql": "INSERT INTO t VALUES (99)" });
    let (status, error) = node.client().with_key("k2").refused("/v1/rqlite/exec", &write);
    assert_eq!(status, 503, "{error}");
    assert!(error.contains("fenced"), "{error}");
}

/// What a fenced namespace holds can be had as a plain file; that changes nothing.
fn check_export(node: &Node) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("other.sqlite");
    let file_name = file.to_str().expect("UTF-8");
    let (code, report, stderr) = repair(node, &["--namespace", "other", "--export", file_name]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(report.contains("2 commands in the log are not in it"), "{report}");
    let plain = rusqlite::Connection::open(&file).expect("it is a database");
    let sum: i64 = plain.query_row("SELECT sum(n) FROM t", [], |row| row.get(0)).expect("a sum");
    assert_eq!(sum, 6);
    let (code, _, stderr) = repair(node, &["--namespace", "other", "--export", file_name]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("there is a file already"), "{stderr}");
    let (code, _, stderr) = repair(node, &["--export", file_name]);
    assert_eq!(code, Some(1), "{stderr}");
    let (_, listed, _) = repair(node, &[]);
    assert!(listed.contains("intact, at log index "), "{listed}");
}

#[test]
fn repair_brings_back_all_that_was_acknowledged() {
    let config = config(64 << 20);
    let (mut node, database, copy) = fenced_node(config.path());
    let (code, listed, stderr) = repair(&node, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(listed.starts_with("namespace  other\n"), "{listed}");
    assert!(
        listed.contains("damaged: ") && listed.contains("all that there ever were"),
        "{listed}"
    );
    assert!(listed.contains(database.to_str().expect("UTF-8")), "{listed}");
    let (code, _, stderr) = repair(&node, &["--namespace", "other"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("put back a backup copy"), "{stderr}");
    let out = node.data_dir().join("out.sqlite");
    let export = ["--namespace", "other", "--export", out.to_str().expect("UTF-8")];
    let (code, _, stderr) = repair(&node, &export);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(".recover") && !out.exists(), "{stderr}");
    let (code, _, stderr) = repair(&node, &["--namespace", "default"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("not fenced"), "{stderr}");

    // Nothing is needed as long as the log has every command.
    remove(&database);
    let (_, listed, _) = repair(&node, &[]);
    assert!(listed.contains("state      missing: it can be made anew from the log"), "{listed}");

    copy.put_back(&database);
    let (_, listed, _) = repair(&node, &[]);
    assert!(listed.contains("intact, at log index "), "{listed}");
    check_export(&node);
    assert!(listed.contains("2 commands would be applied again, none is missing"), "{listed}");
    // A good file alone does not lift the fence.
    node.restart();
    assert_fenced(&node);
    assert!(node.stop().success());
    let (code, report, stderr) = repair(&node, &["--namespace", "other"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(report.contains("the fence is lifted"), "{report}");
    assert_eq!(repair(&node, &[]).1, "no namespace is fenced\n");

    for _ in 0..2 {
        node.restart();
        let other = node.client().with_key("k2");
        assert_eq!(other.rows("SELECT n FROM t ORDER BY n"), json!([[1], [2], [3], [4], [5]]));
        assert!(node.stop().success());
    }
    node.restart();
    node.client().with_key("k2").exec("INSERT INTO t VALUES (6)", &json!([]));
    assert_eq!(node.client().rows("SELECT count(*) FROM t"), json!([[N_ROWS]]));
}

#[test]
fn repair_makes_anew_what_the_log_has_from_the_beginning() {
    let config = config(64 << 20);
    let (mut node, database, _) = fenced_node(config.path());
    remove(&database);
    let (code, report, stderr) = repair(&node, &["--namespace", "other"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(report.contains("at log index 0"), "{report}");
    node.restart();
    let other = node.client().with_key("k2");
    assert_eq!(other.rows("SELECT n FROM t ORDER BY n"), json!([[1], [2], [3], [4], [5]]));
}

#[test]
fn repair_of_what_the_log_has_forgotten_is_a_loss_to_be_accepted() {
    let config = config(1 << 20);
    let (mut node, database, copy) = fenced_node(config.path());
    let warning = "the log no longer keeps what a fenced database lacks";
    assert!(node.log().contains(warning), "{:?}", node.alarms());
    copy.put_back(&database);
    let (_, listed, _) = repair(&node, &[]);
    assert!(listed.contains("are missing for ever"), "{listed}");
    let (code, _, stderr) = repair(&node, &["--namespace", "other"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("--accept-loss"), "{stderr}");
    let (code, report, stderr) = repair(&node, &["--namespace", "other", "--accept-loss"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(report.contains("commands are lost"), "{report}");
    node.restart();
    let other = node.client().with_key("k2");
    assert_eq!(other.rows("SELECT n FROM t ORDER BY n"), json!([[1], [2], [3]]));
    other.exec("INSERT INTO t VALUES (6)", &json!([]));
    assert_eq!(node.client().rows("SELECT count(*) FROM t"), json!([[N_ROWS]]));
}

/// The partition and the incarnation that a file belongs to.
fn id_of(database: &Path) -> (String, String) {
    let name = |it: &Path| it.file_stem().and_then(|it| it.to_str()).expect("a name").to_owned();
    let partition = database.ancestors().nth(2).expect("partitions/<id>/1/<incarnation>.db");
    (name(partition), name(database))
}

#[test]
fn repair_after_two_panics_at_one_command() {
    let mut node = Node::start(2);
    for key in ["k1", "k2"] {
        let client = node.client().with_key(key);
        client.exec("CREATE TABLE t (n INTEGER)", &json!([]));
        client.exec("INSERT INTO t VALUES (1)", &json!([]));
    }
    assert!(node.stop().success());
    let database = databases(&node).pop().expect("the one created last");
    let (partition, incarnation) = id_of(&database);
    let stops = node.data_dir().join("stops");
    let line = format!("panic {partition} {incarnation} 3 src/x.rs:1: a promise was broken\n");
    // Once may be chance; and a line that was cut short says nothing.
    std::fs::write(&stops, format!("debros stops 1\n{line}{}", &line[..9])).expect("written");
    node.restart();
    let other = node.client().with_key("k2");
    assert_eq!(other.rows("SELECT n FROM t"), json!([[1]]));
    assert!(node.stop().success());
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());

    std::fs::write(&stops, format!("debros stops 1\n{line}{line}")).expect("written");
    node.restart();
    assert_fenced(&node);
    node.client().exec("INSERT INTO t VALUES (2)", &json!([]));
    let told = node.alarms().iter().any(|it| it.contains("panicked twice") && it.contains("ERROR"));
    assert!(told, "{:?}", node.alarms());
    let (code, _, stderr) = repair(&node, &[]);
    assert_eq!(code, Some(75), "a node runs: {stderr}");
    assert!(node.stop().success());
    let (_, listed, _) = repair(&node, &[]);
    assert!(listed.contains("the process panicked at log index 3: src/x.rs:1"), "{listed}");
    let (code, _, stderr) = repair(&node, &["--namespace", "other"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stops.exists(), "its lines are forgotten");
    node.restart();
    let other = node.client().with_key("k2");
    assert_eq!(other.rows("SELECT n FROM t"), json!([[1]]));
    assert!(node.stop().success());

    // A partition's own database cannot be fenced.
    let line = format!("panic {partition} 0 3 src/x.rs:1: a promise was broken\n");
    std::fs::write(&stops, format!("debros stops 1\n{line}{line}")).expect("written");
    let mut start = binary();
    start.arg("node").arg("--data").arg(node.data_dir()).args(["--shards", "2", "--metrics-addr="]);
    start.args(["--gateway-addr", &format!("127.0.0.1:{}", free_port())]);
    let (code, _, stderr) = run(start.env("GATEWAY_API_KEYS", "k:a"));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("panicked twice at log index 3"), "{stderr}");
}

#[test]
fn repair_needs_a_data_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let repair = |dir: &Path| -> (Option<i32>, String, String) {
        let mut command: Command = binary();
        run(command.arg("repair").arg("--data").arg(dir))
    };
    let (code, _, stderr) = repair(dir.path());
    assert_eq!(code, Some(73), "{stderr}");
    let (code, _, stderr) = run(binary().arg("repair"));
    assert_eq!(code, Some(1), "{stderr}");
}
