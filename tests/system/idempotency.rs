//! `Idempotency-Key`: whatever happens meanwhile, a request that is sent again is not done again.

use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;

use crate::client::Client;
use crate::client::Reply;
use crate::process::Node;
use crate::process::wait_until;

const EXEC: &str = "/v1/rqlite/exec";
const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)";

fn is_replayed(reply: &Reply) -> bool {
    reply.header("Idempotency-Replayed").is_some_and(|it| it == "true")
}

/// Status, whether it was replayed, and body.
fn send(client: &Client, key: &str, path: &str, body: &Value) -> (u16, bool, String) {
    let reply = client.post_as(key, path, body).expect("an answer");
    (reply.status, is_replayed(&reply), reply.body)
}

#[test]
fn of_many_at_once_one_is_done_and_all_are_answered_alike() {
    let node = Node::start(2);
    node.client().exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", &json!([]));
    let barrier = Arc::new(Barrier::new(64));
    let threads: Vec<_> = (0..64)
        .map(|_| {
            let (client, barrier) = (node.client(), Arc::clone(&barrier));
            std::thread::spawn(move || {
                barrier.wait();
                let insert = json!({ "sql": "INSERT INTO t (v) VALUES (random()) RETURNING v" });
                send(&client, "the one", EXEC, &insert)
            })
        })
        .collect();
    let replies: Vec<_> = threads.into_iter().map(|it| it.join().expect("a reply")).collect();
    let n_done = replies.iter().filter(|(_, is_replayed, _)| !is_replayed).count();
    assert_eq!(n_done, 1, "{replies:?}");
    let (_, _, body) = &replies[0];
    assert!(replies.iter().all(|it| it.0 == 200 && it.2 == *body), "{replies:?}");
    assert_eq!(node.client().rows("SELECT count(*) FROM t"), json!([[1]]));
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

/// Write rows, each under a key of its own, until the node is gone. How many were begun; the last of them
/// was not answered.
fn write_until_killed(client: &Client, writer: u64, acknowledged: &AtomicU64) -> u64 {
    for n in 0.. {
        match client.post_as(&format!("{writer} {n}"), EXEC, &row(writer, n)) {
            Ok(reply) => assert_eq!((reply.status, is_replayed(&reply)), (200, false)),
            Err(_) => return n + 1,
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("it is killed before")
}

fn row(writer: u64, n: u64) -> Value {
    json!({ "sql": "INSERT INTO t VALUES (?, ?)", "args": [writer, n] })
}

#[test]
fn what_was_under_way_when_the_node_was_killed_is_done_once() {
    const WRITERS: u64 = 8;
    let mut node = Node::start(2);
    node.client().exec("CREATE TABLE t (writer, n)", &json!([]));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, count) = (node.client(), Arc::clone(&acknowledged));
            std::thread::spawn(move || write_until_killed(&client, writer, &count))
        })
        .collect();
    wait_until("enough is acknowledged", || {
        (acknowledged.load(Ordering::Relaxed) >= 1_000).then_some(())
    });
    node.kill();
    let begun: Vec<u64> = writers.into_iter().map(|it| it.join().expect("a writer")).collect();
    node.restart();
    let client = node.client();
    for (writer, begun) in (0..).zip(&begun) {
        // All of them again: those that were answered, and the one of which nobody knows.
        for n in 0..*begun {
            let (status, replayed, body) =
                send(&client, &format!("{writer} {n}"), EXEC, &row(writer, n));
            assert_eq!(status, 200, "{body}");
            assert!(replayed || n + 1 == *begun, "{writer} {n} was acknowledged, and done again");
        }
    }
    let total: u64 = begun.iter().sum();
    let found = client.rows("SELECT count(*), count(DISTINCT writer || ' ' || n) FROM t");
    assert_eq!(found, json!([[total, total]]));
    assert_eq!(node.client().with_key("k2").rows("SELECT 1"), json!([[1]]));
}

#[test]
fn outcomes_of_all_kinds_are_kept_over_a_restart() {
    let mut node = Node::start(1);
    let transaction = json!({ "return_results": true, "ops": [
        { "kind": "exec", "sql": "INSERT INTO t (v) VALUES ('a')" },
        { "kind": "query", "sql": "SELECT id, v, x'00ff' AS b, 0.5 AS r, NULL AS n FROM t" },
    ] });
    let insert = json!({ "sql": "INSERT INTO t (v) VALUES ('a')" });
    let dropped = json!({ "table": "other" });
    let steps = [
        ("create", "/v1/rqlite/create-table", json!({ "schema": TABLE }), 201),
        ("transaction", "/v1/rqlite/transaction", transaction, 200),
        ("fails", EXEC, insert, 400),
        ("drop", "/v1/rqlite/drop-table", dropped, 200),
    ];
    let client = node.client();
    client.exec("CREATE TABLE other (a)", &json!([]));
    let mut first = Vec::new();
    for (key, path, body, want) in &steps {
        let (status, replayed, reply) = send(&client, key, path, body);
        assert_eq!((status, replayed), (*want, false), "{key}: {reply}");
        first.push(reply);
    }
    assert!(first[2].contains("UNIQUE constraint failed: t.v"), "{}", first[2]);
    // So that each of them would now do something else.
    client.exec("DROP TABLE t", &json!([]));
    client.exec("CREATE TABLE other (a)", &json!([]));
    for is_restarted in [false, true] {
        if is_restarted {
            node.kill();
            node.restart();
        }
        let client = node.client();
        for ((key, path, body, want), first) in steps.iter().zip(&first) {
            let (status, replayed, reply) = send(&client, key, path, body);
            assert_eq!((status, replayed, &reply), (*want, true, first), "{key}");
        }
        assert_eq!(client.rows("SELECT name FROM sqlite_master"), json!([["other"]]));
    }
}

#[test]
fn a_key_that_is_none_or_anothers_is_refused() {
    let node = Node::start(1);
    let client = node.client();
    client.exec("CREATE TABLE t (v)", &json!([]));
    let insert = |v: u32| json!({ "sql": "INSERT INTO t VALUES (?)", "args": [v] });
    assert_eq!(send(&client, "k", EXEC, &insert(1)).0, 200);
    let reply = client.post_as("k", EXEC, &insert(2)).expect("an answer");
    assert_eq!((reply.status, is_replayed(&reply)), (422, false));
    assert_eq!(reply.json()["code"], json!("idempotency_key_reused"));
    // Elsewhere the key is free, and in another namespace too.
    assert_eq!(send(&client, "k2", EXEC, &insert(2)).0, 200);
    let other = node.client().with_key("k2");
    let (status, replayed, _) = send(&other, "k", EXEC, &json!({ "sql": "CREATE TABLE t (v)" }));
    assert_eq!((status, replayed), (200, false));
    let long = "x".repeat(256);
    for key in ["", "tab\tinside", "grüße", &long, "a\r\nIdempotency-Key: a"] {
        let reply = client.post_as(key, EXEC, &insert(3)).expect("an answer");
        assert_eq!(reply.status, 400, "{key:?}: {}", reply.body);
        assert_eq!(reply.json()["code"], json!("idempotency_key"), "{key:?}");
    }
    // What is wrong before it is done is not remembered: the same key may be sent with what was meant.
    let (status, _, body) = send(&client, "typo", EXEC, &json!({ "sqll": "x" }));
    assert_eq!((status, body.contains("invalid body")), (400, true), "{body}");
    assert_eq!(send(&client, "typo", EXEC, &insert(4)).0, 200);
    // A read has no use for a key.
    let read = json!({ "ops": [{ "kind": "query", "sql": "SELECT count(*) FROM t" }] });
    for _ in 0..2 {
        let (status, replayed, _) = send(&client, "read", "/v1/rqlite/transaction", &read);
        assert_eq!((status, replayed), (200, false));
    }
    assert_eq!(client.rows("SELECT v FROM t"), json!([[1], [2], [4]]));
    assert_eq!(client.rows("SELECT name FROM sqlite_master"), json!([["t"]]));
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}
