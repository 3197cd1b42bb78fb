//! `debros bench` against real nodes: every scenario, and what it says of a server that loses rows or is not there.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::process::Node;
use crate::process::binary;
use crate::process::free_port;
use crate::process::run;
use crate::process::wait_until;

/// A short load without a look at the disk, with its results in `folder`.
fn bench(scenario: &str, port: u16, folder: &Path, more: &[&str]) -> Command {
    let mut command = binary();
    command.args(["bench", scenario, "--url", &format!("http://127.0.0.1:{port}")]);
    command.args(["--clients", "8", "--duration", "600ms", "--warmup", "100ms"]);
    command.args(["--table-rows", "1200", "--json", "result.json", "--plot", "result.svg"]);
    command.args(more).current_dir(folder);
    if !more.contains(&"--disk") {
        command.args(["--disk", ""]);
    }
    command
}

fn result(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("result.json")).expect("a result");
    serde_json::from_str(&text).expect("it is JSON")
}

/// Every tag is closed, in order, and every attribute is quoted.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert!(!text.replace("&amp;", "").replace("&lt;", "").contains('&'), "{text}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{svg}"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().expect("a name")),
        }
    }
    assert!(open.is_empty() && svg.starts_with("<svg "), "{open:?} in {svg}");
}

#[test]
fn every_scenario_measures_and_finds_its_rows() {
    let node = Node::start_keyed(2, &[], "k1:default,k2:other,k3:third");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("keys"), "k1\nk2\n\nk3\n").expect("a file");
    let key = ["--key", "k1"];
    for (scenario, more, n_rows_each, groups) in [
        ("insert", vec!["--disk", "."], 1, vec![vec!["insert"]]),
        ("insert", vec!["--rate", "500", "--threads", "2"], 1, vec![vec!["insert"]]),
        ("read", vec![], 1, vec![vec!["read"]]),
        ("mixed", vec!["--reads", "0.5"], 1, vec![vec!["mixed"]]),
        ("transaction", vec!["--rows", "100"], 100, vec![vec!["transaction"]]),
        ("namespaces", vec!["--keys-file", "keys", "--reads", "0.2"], 1, vec![vec!["namespaces"]]),
        (
            "noisy",
            vec!["--key", "k2", "--rate", "200", "--neighbours", "8"],
            1,
            vec![vec!["measured"], vec!["measured", "neighbour"]],
        ),
    ] {
        let more = if more.contains(&"--keys-file") { more } else { [&key[..], &more].concat() };
        let (code, stdout, stderr) = run(&mut bench(scenario, node.port, folder.path(), &more));
        assert_eq!(code, Some(0), "{scenario}: {stdout}{stderr}");
        assert!(stdout.contains("acknowledged, all there"), "{scenario}: {stdout}");
        let result = result(folder.path());
        let checked = &result["verification"];
        assert_eq!(checked["rows_lost"], json!(0), "{result}");
        let mut n_operations = 0;
        let phases = result["phases"].as_array().expect("phases");
        for (phase, names) in phases.iter().zip(&groups) {
            let seconds = phase["seconds"].as_f64().expect("seconds");
            assert!((0.59..0.8).contains(&seconds), "{result}");
            assert_eq!(phase["server"]["pid"], json!(node.pid()), "{result}");
            assert!(phase["server"]["cpu_us_per_operation"].as_f64() > Some(0.0), "{result}");
            for (group, name) in phase["groups"].as_array().expect("groups").iter().zip(names) {
                assert_eq!(group["name"], json!(name), "{result}");
                assert_eq!(group["errors"], json!({}), "{result}");
                assert_eq!(group["rows_per_operation"], json!(n_rows_each), "{result}");
                let n = group["operations"].as_u64().expect("a count");
                assert!(n > 0 && group["bytes_sent"].as_u64() > Some(n), "{result}");
                n_operations += n;
                let us = |it: &str| group["latency_us"][it].as_f64().expect("a latency");
                let rising = ["p50", "p90", "p99", "p99_9", "max"].map(us);
                assert!(rising[0] > 0.0 && rising.is_sorted(), "{result}");
            }
        }
        assert_eq!(phases.len(), groups.len(), "{result}");
        let n_acknowledged = checked["rows_acknowledged"].as_u64().expect("a count");
        if ["insert", "transaction", "noisy"].contains(&scenario) {
            assert!(n_acknowledged >= n_operations * n_rows_each, "{result}");
        }
        if more.contains(&"--rate") {
            let due = phases[0]["groups"][0]["operations"].as_u64().expect("a count");
            let rate = phases[0]["groups"][0]["rate_per_second"].as_f64().expect("a rate");
            #[expect(clippy::cast_precision_loss, reason = "hundreds")]
            let share = due as f64 / (0.6 * rate);
            assert!((0.9..=1.02).contains(&share), "{share} of what was due: {result}");
        }
        let disk = &result["disk"];
        assert_eq!(disk.is_null(), !more.contains(&"--disk"), "{result}");
        assert!(disk.is_null() || disk["p50_ratio"].as_f64() > Some(0.0), "{result}");
        let svg = std::fs::read_to_string(folder.path().join("result.svg")).expect("a plot");
        assert_well_formed(&svg);
    }
    for key in ["k1", "k2", "k3"] {
        let schema = node.client().with_key(key).get("/v1/rqlite/schema").expect("an answer");
        assert_eq!(schema.json()["count"], json!(0), "its tables are gone");
    }
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn a_lost_row_is_found_named_and_told() {
    let node = Node::start(1);
    let client = node.client();
    // A server that says it has every row, and keeps nine of ten.
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, client INT, body TEXT)", &json!([]));
    client.exec(
        "CREATE TRIGGER forget BEFORE INSERT ON t WHEN NEW.id % 10 = 0 BEGIN SELECT RAISE(IGNORE); END",
        &json!([]),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let args = ["--key", "k1", "--table", "t"];
    let (code, stdout, stderr) = run(&mut bench("insert", node.port, folder.path(), &args));
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stderr.contains("acknowledged rows are lost"), "{stderr}");
    assert!(stdout.contains("LOST") && stdout.contains("ids 10, 20, 30"), "{stdout}");
    let checked = result(folder.path())["verification"].take();
    let (n, n_lost) = (checked["rows_acknowledged"].as_u64(), checked["rows_lost"].as_u64());
    assert_eq!(n_lost, n.map(|it| it / 10), "{checked}");
    assert_eq!(checked["lost"][1], json!({ "key": 0, "id": 20 }));
    // A table that was there before stays, and is not taken for an empty one.
    assert_eq!(client.rows("SELECT count(*) FROM t")[0][0], checked["rows_found"]);
    let (code, _, stderr) = run(&mut bench("insert", node.port, folder.path(), &args));
    assert_eq!((code, &*stderr), (Some(1), "table t has rows already\n"));
}

#[test]
fn a_load_that_is_interrupted_still_reports_and_checks() {
    let node = Node::start(1);
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = binary();
    command.args(["bench", "insert", "--url", &format!("http://127.0.0.1:{}", node.port)]);
    command.args(["--key", "k1", "--clients", "2", "--duration", "1h", "--warmup", "0s"]);
    command.args(["--disk", "", "--table", "t", "--keep", "--json", "result.json"]);
    command.current_dir(folder.path()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let client = node.client();
    let count = json!({ "sql": "SELECT count(*) FROM t" });
    wait_until("there are rows", || {
        let reply = client.post("/v1/rqlite/query", &count).expect("an answer");
        let n = reply.json()["rows"][0][0].as_u64().unwrap_or(0);
        (n > 100).then_some(())
    });
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    let status = wait_until("it ends", || child.try_wait().expect("it can be asked"));
    assert_eq!(status.code(), Some(0));
    let mut stdout = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut stdout).expect("text");
    assert!(stdout.contains("ended early") && stdout.contains("all there"), "{stdout}");
    let result = result(folder.path());
    assert_eq!(result["is_interrupted"], json!(true));
    let n = client.rows("SELECT count(*) FROM t")[0][0].take();
    assert_eq!(n, result["verification"]["rows_found"], "the table was to be kept");
}

#[test]
fn what_cannot_be_measured_is_told_by_code_and_sentence() {
    let node = Node::start(1);
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = free_port();
    for (name, scenario, port, more, code, text) in [
        ("nobody listens", "insert", nobody, vec!["--key", "k1"], 68, "cannot reach"),
        ("an unknown key", "insert", node.port, vec!["--key", "k9"], 68, "401"),
        ("no such scenario", "dance", node.port, vec![], 2, "dance"),
        ("no such duration", "get", node.port, vec!["--duration", "5"], 2, "--duration"),
        ("too many reads", "mixed", node.port, vec!["--key", "k1", "--reads", "2"], 2, "--reads"),
        ("one key for two", "noisy", node.port, vec!["--key", "k1"], 2, "two keys"),
        ("no plain table", "insert", node.port, vec!["--table", "a b"], 2, "--table"),
        ("no place to write", "get", node.port, vec!["--json", "none/x"], 2, "cannot write none/x"),
        ("nothing but refusals", "get", node.port, vec![], 1, "no request was done"),
    ] {
        let mut command = bench(scenario, port, folder.path(), &[]);
        // The last of two values of a flag does not count, it is refused: so these go first.
        let repeated = more.iter().any(|it| ["--duration", "--json"].contains(it));
        if repeated {
            command = binary();
            command.args(["bench", scenario, "--url", &format!("http://127.0.0.1:{port}")]);
            command.current_dir(folder.path());
        }
        let (got, stdout, stderr) = run(command.args(&more));
        assert_eq!(got, Some(code), "{name}: {stdout}{stderr}");
        assert!(stderr.contains(text), "{name}: {stderr}");
    }
}

#[test]
fn the_floor_serves_and_is_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let mut floor = binary();
    floor.args(["bench", "hello", "--url", &url]);
    let mut floor = floor.spawn().expect("it starts");
    wait_until("the floor listens", || crate::client::Client::try_connect(port));
    let (code, stdout, stderr) = run(&mut bench("get", port, folder.path(), &[]));
    let kill = Command::new("kill").args(["-TERM", &floor.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    let status = wait_until("it ends", || floor.try_wait().expect("it can be asked"));
    assert_eq!(status.code(), Some(0));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let result = result(folder.path());
    assert!(result["phases"][0]["groups"][0]["operations"].as_u64() > Some(100), "{result}");
    assert_eq!(result["verification"], json!(null));
}
