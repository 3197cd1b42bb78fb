//! `find`, `find-one` and `select`, against a running node.

use serde_json::Value;
use serde_json::json;

use crate::client::Client;
use crate::process::Node;

fn fill(client: &Client) {
    for sql in [
        "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, age INTEGER, avatar BLOB)",
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER, total REAL, note TEXT)",
        "INSERT INTO users VALUES (1, 'a@x', 30, x'00ff'), (2, 'b@x', NULL, NULL), (3, 'c@x', 50, x'')",
        "INSERT INTO orders VALUES (1, 1, 9.5, 'o''n'), (2, 1, 20, NULL), (3, 2, 1.25, 'x'), (9, 7, 0, 'lost')",
    ] {
        client.exec(sql, &json!([]));
    }
}

/// The rows that a body gives, as arrays.
fn rows(client: &Client, path: &str, body: &Value) -> Value {
    let reply = client.post(&format!("/v1/rqlite/{path}"), body).expect("an answer");
    assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
    let mut reply = reply.json();
    assert_eq!(reply["count"], json!(reply["items"].as_array().expect("a list").len()));
    reply["rows"].take()
}

#[test]
fn find_and_select_give_what_was_asked_for() {
    let node = Node::start(2);
    let client = node.client();
    fill(&client);
    for (path, body, want) in [
        (
            "find",
            json!({ "table": "users", "criteria": { "age": null }, "select": ["id"] }),
            json!([[2]]),
        ),
        (
            "find",
            json!({ "table": "users", "criteria": { "id": [1, 3] }, "options": { "select": ["email"], "order_by": ["id DESC"] } }),
            json!([["c@x"], ["a@x"]]),
        ),
        (
            "find",
            json!({ "table": "users", "criteria": { "age": [30, null] }, "options": { "select": ["id"], "order_by": ["id"] } }),
            json!([[1], [2]]),
        ),
        ("find", json!({ "table": "users", "criteria": { "id": [] } }), json!([])),
        (
            "find",
            json!({ "table": "users", "criteria": { "avatar": { "base64": "AP8=" } }, "select": ["id"] }),
            json!([[1]]),
        ),
        (
            "find",
            json!({ "table": "orders AS o", "criteria": { "u.email": "a@x" }, "options": {
            "select": ["u.email AS user_email", "o.total"], "order_by": ["o.total DESC"], "limit": 1, "offset": 1,
            "joins": [{ "kind": "INNER", "table": "users u", "on": "u.id = o.user_id" }] } }),
            json!([["a@x", 9.5]]),
        ),
        (
            "select",
            json!({ "table": "users", "alias": "u", "select": ["u.id", "COUNT(o.id) AS n"],
            "joins": [{ "kind": "left", "table": "orders o", "on": "o.user_id = u.id" }],
            "group_by": ["u.id HAVING COUNT(o.id) < 2"], "order_by": ["n DESC", "u.id"] }),
            json!([[2, 1], [3, 0]]),
        ),
        (
            "select",
            json!({ "table": "users u", "select": ["u.id", "o.id AS oid"], "order_by": ["oid", "u.id"],
            "joins": [{ "kind": "FULL", "table": "orders o", "on": "o.user_id = u.id" }] }),
            json!([[3, null], [1, 1], [1, 2], [2, 3], [null, 9]]),
        ),
        (
            "select",
            json!({ "table": "users u", "select": ["o.id"], "order_by": ["o.id"],
            "joins": [{ "kind": "RIGHT", "table": "orders o", "on": "o.user_id = u.id" }], "where": [{ "expr": "u.id IS NULL" }] }),
            json!([[9]]),
        ),
        (
            "select",
            json!({ "table": "users", "select": ["COUNT(*) AS n"], "joins": [{ "kind": "CROSS", "table": "orders" }] }),
            json!([[12]]),
        ),
        (
            "select",
            json!({ "table": "orders", "select": ["id"], "order_by": ["id"], "where": [
            { "expr": "total > ?", "args": [5] }, { "conj": "OR", "expr": "note = ? OR note LIKE ?", "args": ["x", "l%"] } ] }),
            json!([[1], [2], [3], [9]]),
        ),
        (
            "select",
            json!({ "table": "orders", "select": ["id"], "where": [{ "expr": "note = ?", "args": ["o'n"] }] }),
            json!([[1]]),
        ),
        (
            "select",
            json!({ "table": "orders", "select": ["id"], "order_by": ["id"], "offset": 2 }),
            json!([[3], [9]]),
        ),
    ] {
        assert_eq!(rows(&client, path, &body), want, "{path} {body}");
    }
    let post = |path: &str, body: &Value| {
        let reply = client.post(path, body).expect("an answer");
        (reply.status, reply.json())
    };
    let by_id = |id: i64| json!({ "table": "orders", "criteria": { "id": id } });
    let row = json!({ "id": 1, "user_id": 1, "total": 9.5, "note": "o'n" });
    let not_found = json!({ "error": "not found" });
    assert_eq!(post("/v1/rqlite/find-one", &by_id(1)), (200, row.clone()));
    assert_eq!(post("/v1/rqlite/find-one", &by_id(77)), (404, not_found));
    let (status, mut list) = post("/v1/rqlite/find-one?envelope=items", &by_id(1));
    assert_eq!((status, list["items"].take(), &list["count"]), (200, json!([row]), &json!(1)));
    let count =
        json!({ "table": "orders", "select": ["COUNT(*) AS count"], "one": true, "limit": 1 });
    assert_eq!(post("/v1/rqlite/select", &count), (200, json!({ "count": 4 })));
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn what_does_not_belong_is_refused_and_does_nothing() {
    let node = Node::start(1);
    let client = node.client();
    fill(&client);
    for (path, body, want) in [
        ("find", json!({ "criteria": {} }), "invalid body: {table, criteria, options?}"),
        (
            "find-one",
            json!({ "table": "users", "limit": "1" }),
            "invalid body: {table, criteria, options?}",
        ),
        (
            "find",
            json!({ "table": "users; DELETE FROM users" }),
            "invalid table: unexpected \"; DELETE FROM users\"",
        ),
        (
            "find",
            json!({ "table": "users", "criteria": { "1=1) UNION SELECT (id": 1 } }),
            "invalid criteria: unexpected \")\"",
        ),
        (
            "find",
            json!({ "table": "users", "criteria": { "id": { "gt": 1 } } }),
            "argument 1: bind a string, a number, a boolean, null or {\"base64\":\"…\"}",
        ),
        ("find", json!({ "table": "nowhere" }), "no such table: nowhere"),
        (
            "select",
            json!({ "table": "users", "order_by": ["id LIMIT 1"] }),
            "invalid order_by: unexpected \"LIMIT\"",
        ),
        (
            "select",
            json!({ "table": "users", "where": [{ "expr": "id = ?" }] }),
            "not enough args to execute query: want 1 got 0",
        ),
        (
            "select",
            json!({ "table": "users", "where": [{ "expr": "id = 1 -- ?", "args": [1] }] }),
            "invalid where: unexpected \"-- ?\"",
        ),
        ("select", json!({ "table": "users", "select": ["absent"] }), "no such column: absent"),
        ("select", json!({ "table": "__debros_meta" }), "access to __debros_meta.id is prohibited"),
    ] {
        let (status, error) = client.refused(&format!("/v1/rqlite/{path}"), &body);
        assert_eq!((status, &*error), (400, want), "{path} {body}");
    }
    assert_eq!(client.rows("SELECT count(*) FROM users"), json!([[3]]));
    assert_eq!(client.get("/v1/rqlite/find").expect("an answer").status, 405);
}

#[test]
fn integers_and_blobs_are_exact_everywhere() {
    let node = Node::start(1);
    let client = node.client();
    client.exec("CREATE TABLE t (i INTEGER, b BLOB)", &json!([]));
    let large = [i64::MAX, i64::MIN, (1 << 53) + 1];
    for it in large {
        client.exec("INSERT INTO t VALUES (?, ?)", &json!([it, { "base64": "AAH+/w==" }]));
        let by = json!({ "table": "t", "criteria": { "i": it, "b": { "base64": "AAH+/w==" } } });
        let one = client.post("/v1/rqlite/find-one", &by).expect("an answer").json();
        assert_eq!(one, json!({ "i": it, "b": "AAH+/w==" }));
        let wanted = json!({ "table": "t", "where": [{ "expr": "i = ?", "args": [it] }] });
        assert_eq!(rows(&client, "select", &wanted), json!([[it, "AAH+/w=="]]));
        let query = json!({ "sql": "SELECT * FROM t WHERE i = ?", "args": [it] });
        assert_eq!(rows(&client, "query", &query), json!([[it, "AAH+/w=="]]));
        let ops = json!({ "return_results": true, "ops": [
            { "kind": "query", "sql": "SELECT ? AS i, b FROM t WHERE i = ?", "args": [it, it] },
            { "kind": "exec", "sql": "INSERT INTO t (i) SELECT 1 WHERE 0" } ] });
        let reply = client.post("/v1/rqlite/transaction?blobs=object", &ops).expect("an answer");
        let want = json!([{ "i": it, "b": { "base64": "AAH+/w==" } }]);
        assert_eq!(reply.json()["results"][0], want);
        let returned =
            json!({ "sql": "UPDATE t SET i = i WHERE i = ? RETURNING i, b", "args": [it] });
        assert_eq!(rows(&client, "exec", &returned), json!([[it, "AAH+/w=="]]));
    }
    let id = json!({ "sql": "INSERT INTO k VALUES (?)", "args": [i64::MAX - 1] });
    client.exec("CREATE TABLE k (id INTEGER PRIMARY KEY)", &json!([]));
    let reply = client.post("/v1/rqlite/exec", &id).expect("an answer").json();
    assert_eq!(reply["last_insert_id"], json!(i64::MAX - 1));
    let all = json!({ "table": "t", "options": { "order_by": ["i"], "select": ["i"] } });
    let mut sorted = large;
    sorted.sort_unstable();
    assert_eq!(rows(&client, "find", &all), json!(sorted.map(|it| [it])));
    let object = client.post("/v1/rqlite/find?blobs=object", &json!({ "table": "t", "limit": 1 }));
    assert_eq!(object.expect("an answer").json()["items"][0]["b"], json!({ "base64": "AAH+/w==" }));
}
