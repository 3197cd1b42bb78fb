//! The SQL routes, against a running node.

use serde_json::Value;
use serde_json::json;

use crate::process::Node;
use crate::process::wait_until;

#[test]
fn a_transaction_sees_its_own_writes_and_is_all_or_nothing() {
    let node = Node::start(2);
    let client = node.client();
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE)", &json!([]));
    let ops = json!({ "return_results": true, "ops": [
        { "kind": "exec", "sql": "INSERT INTO t (v) VALUES (?)", "args": ["a"] },
        { "kind": "query", "sql": "SELECT last_insert_rowid() AS id, count(*) AS n FROM t" },
        { "kind": "exec", "sql": "INSERT INTO t (v) VALUES ('b')" },
    ] });
    let reply = client.post("/v1/rqlite/transaction", &ops).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.body);
    let results = reply.json()["results"].take();
    assert_eq!(results[1], json!([{ "id": 1, "n": 1 }]), "{results}");
    let ops = json!({ "statements": [
        "INSERT INTO t (v) VALUES ('c')",
        "INSERT INTO t (v) VALUES ('a')",
    ] });
    let (status, error) = client.refused("/v1/rqlite/transaction", &ops);
    assert_eq!((status, &*error), (400, "UNIQUE constraint failed: t.v"));
    assert_eq!(client.rows("SELECT v FROM t ORDER BY id"), json!([["a"], ["b"]]));
}

#[test]
fn values_come_back_as_they_went_in() {
    let node = Node::start(1);
    let client = node.client();
    client.exec("CREATE TABLE t (i INTEGER, r REAL, s TEXT, b BLOB, n, d DATETIME)", &json!([]));
    let args = json!([i64::MIN, 0.1, "grüße \u{2028} <&>", { "base64": "AAH/" }, null, 0]);
    client.exec("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", &args);
    let want = json!([[i64::MIN, 0.1, "grüße \u{2028} <&>", "AAH/", null, "1970-01-01T00:00:00Z"]]);
    assert_eq!(client.rows("SELECT * FROM t"), want);
}

#[test]
fn namespaces_do_not_see_each_other_nor_the_engine() {
    let node = Node::start(2);
    let (one, other) = (node.client(), node.client().with_key("k2"));
    one.exec("CREATE TABLE secret (v TEXT)", &json!([]));
    one.exec("INSERT INTO secret VALUES ('mine')", &json!([]));
    let read = |sql: &str| json!({ "sql": sql });
    let (status, error) = other.refused("/v1/rqlite/query", &read("SELECT * FROM secret"));
    assert_eq!((status, &*error), (400, "no such table: secret"));
    for sql in ["SELECT * FROM __debros_meta", "SELECT * FROM main.__debros_meta"] {
        let (status, _) = one.refused("/v1/rqlite/query", &read(sql));
        assert_eq!(status, 400, "{sql}");
    }
    let dir = node.data_dir();
    for sql in [
        "ATTACH DATABASE '/etc/passwd' AS a".to_owned(),
        format!("ATTACH DATABASE '{}/partitions/0/1/0.db' AS a", dir.display()),
        "DELETE FROM __debros_meta".to_owned(),
        "DROP TABLE __debros_meta".to_owned(),
        "PRAGMA writable_schema = ON".to_owned(),
        "VACUUM INTO '/tmp/x.db'".to_owned(),
        "BEGIN".to_owned(),
        "CREATE TEMP TABLE x (y)".to_owned(),
    ] {
        let (status, error) = one.refused("/v1/rqlite/exec", &json!({ "sql": sql }));
        assert_eq!(status, 400, "{sql}: {error}");
    }
    let names = one.rows("SELECT name FROM sqlite_master");
    assert_eq!(names, json!([["secret"]]));
    let names = other.rows("SELECT count(*) FROM sqlite_master");
    assert_eq!(names, json!([[0]]));
}

#[test]
fn errors_say_whose_move_it_is() {
    let node = Node::start(1);
    let client = node.client();
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY)", &json!([]));
    client.exec("INSERT INTO t VALUES (1)", &json!([]));
    for (path, body, want) in [
        ("exec", json!({ "sql": "INSERT INTO t VALUES (1)" }), "UNIQUE constraint failed: t.id"),
        ("exec", json!({ "sql": "FOO" }), "near \"FOO\": syntax error"),
        ("exec", json!({ "sql": "  " }), "invalid body: {sql, args?}"),
        ("query", json!({ "sql": "SELECT * FROM x" }), "no such table: x"),
        ("drop-table", json!({ "table": "a b" }), "invalid table identifier"),
        ("transaction", json!({}), "invalid body: {ops:[{kind,sql,args?}], return_results?}"),
    ] {
        let (status, error) = client.refused(&format!("/v1/rqlite/{path}"), &body);
        assert_eq!((status, &*error), (400, want), "{path} {body}");
    }
    let (status, error) =
        client.refused("/v1/rqlite/query", &json!({ "sql": "INSERT INTO t VALUES (2)" }));
    assert_eq!(status, 400);
    assert!(error.contains("attempt to change database via query operation"), "{error}");
    let reply = client.get("/v1/rqlite/exec").expect("an answer");
    assert_eq!(reply.status, 405);
    assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"));
    for (key, want) in [("", "missing API key"), ("wrong", "invalid API key")] {
        let stranger = node.client().with_key(key);
        let (status, error) = stranger.refused("/v1/rqlite/query", &json!({ "sql": "SELECT 1" }));
        assert_eq!((status, &*error), (401, want));
    }
    assert_eq!(client.get("/health").expect("an answer").status, 200);
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn a_large_result_and_many_connections_are_served() {
    let node = Node::start(2);
    let client = node.client();
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", &json!([]));
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
                INSERT INTO t SELECT i, printf('%064d', i) FROM n";
    assert_eq!(client.exec(fill, &json!([]))["rows_affected"], json!(5000));
    let rows = client.rows("SELECT * FROM t");
    assert_eq!(rows.as_array().map(Vec::len), Some(5000));
    let clients: Vec<_> = (0..100).map(|_| node.client()).collect();
    for (at, client) in clients.iter().enumerate() {
        let rows = client.rows(&format!("SELECT id FROM t WHERE id = {}", at + 1));
        assert_eq!(rows, json!([[at + 1]]));
    }
    // Sizes may be a second old.
    wait_until("the size of the database is told", || {
        let status = client.get("/v1/status").expect("an answer").json();
        assert_eq!(status["network"]["peer_count"], Value::from(0));
        let size = status["network"]["database_size"].as_u64().unwrap_or(0);
        (size > 100_000).then_some(())
    });
}

#[test]
fn a_text_that_ends_in_the_middle_harms_nobody() {
    let mut node = Node::start(1);
    let client = node.client();
    client.exec("CREATE TABLE t (v TEXT)", &json!([]));
    for sql in ["SELECT \"é", "INSERT INTO t VALUES (\"é", "SELECT [é", "SELECT `é", "SELECT 'é"]
    {
        for route in ["exec", "query"] {
            let route = format!("/v1/rqlite/{route}");
            let (status, error) = client.refused(&route, &json!({ "sql": sql }));
            assert_eq!(status, 400, "{route} {sql}: {error}");
        }
    }
    client.exec("INSERT INTO t VALUES ('ü')", &json!([]));
    node.kill();
    node.restart();
    assert_eq!(node.client().rows("SELECT v FROM t"), json!([["ü"]]));
}
