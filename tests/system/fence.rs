//! A damaged or missing database concerns its namespace only, and never starts anew as if it were empty.

use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::process::Node;
use crate::process::binary;
use crate::process::free_port;
use crate::process::run;

/// The database files of tenants, by the time they were made.
pub(crate) fn databases(node: &Node) -> Vec<PathBuf> {
    databases_in(&node.data_dir())
}

/// The same, in the data directory of its databases.
pub(crate) fn databases_in(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for partition in std::fs::read_dir(data_dir.join("partitions")).expect("partitions") {
        let dir = partition.expect("an entry").path().join("1");
        for file in std::fs::read_dir(dir).expect("databases") {
            let path = file.expect("an entry").path();
            let is_database = path.extension().is_some_and(|it| it == "db");
            if is_database && path.file_name().is_some_and(|it| it != "0.db") {
                found.push(path);
            }
        }
    }
    let number = |it: &PathBuf| -> u64 {
        it.file_stem().and_then(|it| it.to_str()?.parse().ok()).expect("an incarnation")
    };
    found.sort_by_key(number);
    found
}

#[test]
fn a_damaged_database_fences_its_namespace_only_and_stays_fenced() {
    let mut node = Node::start(2);
    for key in ["k1", "k2"] {
        let client = node.client().with_key(key);
        client.exec("CREATE TABLE t (v TEXT)", &json!([]));
        client.exec("INSERT INTO t VALUES (?)", &json!([key]));
    }
    assert!(node.stop().success());
    let files = databases(&node);
    assert_eq!(files.len(), 2, "{files:?}");
    std::fs::write(&files[0], vec![0x5a; 4096 * 4]).expect("it can be damaged");
    let _ = std::fs::remove_file(files[0].with_extension("db-wal"));
    node.restart();
    for round in 0..2 {
        let write = json!({ "sql": "INSERT INTO t VALUES ('new')" });
        let (status, error) = node.client().refused("/v1/rqlite/exec", &write);
        assert!(status == 503 || status == 409, "round {round}: {status} {error}");
        let read = json!({ "sql": "SELECT * FROM t" });
        let (status, error) = node.client().refused("/v1/rqlite/query", &read);
        assert_eq!(status, 503, "round {round}: {error}");
        let other = node.client().with_key("k2");
        other.exec("INSERT INTO t VALUES ('more')", &json!([]));
        assert_eq!(other.rows("SELECT count(*) FROM t"), json!([[2 + round]]));
        node.kill();
        node.restart();
    }
}

#[test]
fn what_cannot_be_done_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let address = format!("127.0.0.1:{}", free_port());
    let node = |extra: &[&str], keys: &str| {
        let mut command = binary();
        command.arg("node").arg("--data").arg(&data).args(["--shards", "1", "--metrics-addr="]);
        command.args(["--gateway-addr", &address]).args(extra).env("GATEWAY_API_KEYS", keys);
        run(&mut command)
    };
    let (code, _, stderr) = node(&["--rqlite-join-address", "127.0.0.1:7001"], "k:a");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot join"), "{stderr}");
    let (code, _, stderr) = node(&[], "k:a:b,k:a");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("API keys"), "{stderr}");
}
