//! How a node ends when it cannot start, and that several get along on one machine.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use crate::process::Node;
use crate::process::binary;
use crate::process::free_port;
use crate::process::run;

#[test]
fn each_refusal_has_its_own_code_and_sentence() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = format!("127.0.0.1:{}", listener.local_addr().expect("an address").port());
    let free = format!("127.0.0.1:{}", free_port());
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let in_file = file.join("data");
    let in_file = in_file.to_str().expect("UTF-8");
    for (name, args, code, text) in [
        ("unknown flag", vec!["node", "--bogus"], 2, "bogus"),
        (
            "too many shards",
            vec!["node", "--data", data, "--shards", "1000", "--gateway-addr", &free],
            70,
            "runtime.shards",
        ),
        (
            "port in use",
            vec!["node", "--data", data, "--shards", "1", "--gateway-addr", &taken],
            76,
            "cannot listen on",
        ),
        (
            "metrics port in use",
            vec!["node", "--data", data, "--gateway-addr", &free, "--metrics-addr", &taken],
            76,
            "cannot listen on",
        ),
        (
            "unusable directory",
            vec!["node", "--data", in_file, "--gateway-addr", &free],
            73,
            "data_dir",
        ),
    ] {
        let (got, _, stderr) = run(binary().args(args));
        assert_eq!(got, Some(code), "{name}: {stderr}");
        assert!(stderr.contains(text), "{name}: {stderr}");
    }
}

#[test]
fn a_data_directory_may_be_named_by_a_relative_path() {
    let mut node = Node::start(2);
    node.client().exec("CREATE TABLE t (v INT)", &serde_json::json!([]));
    assert!(node.stop().success());
    node.go_relative();
    node.restart();
    node.client().exec("INSERT INTO t VALUES (1)", &serde_json::json!([]));
    assert!(node.stop().success());
}

#[test]
fn a_directory_belongs_to_one_process() {
    let node = Node::start(1);
    let free = format!("127.0.0.1:{}", free_port());
    let data = node.data_dir();
    let mut second = binary();
    second.arg("node").arg("--data").arg(&data).args([
        "--shards",
        "1",
        "--gateway-addr",
        &free,
        "--metrics-addr=",
    ]);
    let (code, _, stderr) = run(&mut second);
    assert_eq!(code, Some(75), "{stderr}");
    assert!(stderr.contains("in use by another process"), "{stderr}");
    assert_eq!(node.client().get("/health").expect("an answer").status, 200);
}

#[test]
fn nodes_on_one_machine_do_not_get_into_each_others_way() {
    let nodes: Vec<_> = (0..3).map(|_| Node::start(1)).collect();
    for (at, node) in nodes.iter().enumerate() {
        let client = node.client();
        client.exec("CREATE TABLE t (v INT)", &serde_json::json!([]));
        client.exec("INSERT INTO t VALUES (?)", &serde_json::json!([at]));
    }
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!(node.client().rows("SELECT v FROM t"), serde_json::json!([[at]]));
    }
}

#[test]
fn another_number_of_partitions_is_refused() {
    let mut node = Node::start(1);
    assert!(node.stop().success());
    let data = node.data_dir();
    let free = format!("127.0.0.1:{}", free_port());
    let mut config = tempfile::NamedTempFile::new().expect("a file");
    config.write_all(b"database:\n  shard_count: 4\n").expect("it takes the text");
    let mut changed = binary();
    changed.arg("node").arg("--data").arg(&data).args([
        "--shards",
        "1",
        "--gateway-addr",
        &free,
        "--metrics-addr=",
    ]);
    let (code, _, stderr) = run(changed.arg("--config").arg(config.path()));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("shard_count"), "{stderr}");
}

#[test]
fn limits_of_the_process_that_are_too_low_are_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let executable = binary();
    let executable = executable.get_program();
    for (limit, text) in [("-n 40", "too few files"), ("-l 100", "too little memory may be locked")]
    {
        let free = format!("127.0.0.1:{}", free_port());
        let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
        let mut limited = Command::new("bash");
        limited.args(["-c", &script]).arg(executable).arg("node").arg("--data").arg(&data);
        limited.args(["--shards", "1", "--gateway-addr", &free, "--metrics-addr="]);
        let (code, _, stderr) = run(&mut limited);
        assert_eq!(code, Some(71), "{limit}: {stderr}");
        assert!(stderr.contains(text), "{limit}: {stderr}");
    }
}
