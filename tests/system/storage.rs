//! Keys and values, against a running node.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::client::Client;
use crate::client::Reply;
use crate::process::Node;
use crate::process::wait_until;

fn ask(client: &Client, method: &str, rest: &str, body: &str) -> Reply {
    client.request(method, &format!("/v1/storage{rest}"), body).expect("an answer")
}

/// Status and JSON.
fn told(client: &Client, method: &str, rest: &str, body: &str) -> (u16, Value) {
    let reply = ask(client, method, rest, body);
    (reply.status, reply.json())
}

#[test]
fn values_are_kept_over_a_restart_until_they_expire() {
    let mut node = Node::start(2);
    let client = node.client();
    let put = told(&client, "POST", "/put?key=a%2Fb", "some \"bytes\"");
    assert_eq!(put, (201, json!({ "key": "a/b", "size": 12, "status": "ok" })));
    let reply = ask(&client, "GET", "/get?key=a/b", "");
    assert_eq!((reply.status, &*reply.body), (200, "some \"bytes\""));
    assert_eq!(reply.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(ask(&client, "PUT", "/put?key=long&ttl=24h", "x").status, 201);
    // The node reckons with whole milliseconds of a clock that people and programs set; this one is neither.
    let at_least = Duration::from_millis(2_900);
    let start = Instant::now();
    assert_eq!(ask(&client, "PUT", "?key=short&ttl=3s", "x").status, 201);
    let early = ask(&client, "GET", "?key=short", "");
    if start.elapsed() < at_least {
        assert_eq!((early.status, &*early.body), (200, "x"));
    }
    node.kill();
    node.restart();
    let client = node.client();
    wait_until("it expires", || {
        let reply = ask(&client, "GET", "/get?key=short", "");
        let may_have_expired = start.elapsed() >= at_least;
        assert!(reply.status == 200 || may_have_expired, "too early: {reply:?}");
        (reply.status == 404).then_some(())
    });
    assert_eq!(
        told(&client, "GET", "/get?key=short", ""),
        (404, json!({ "code": "key_not_found", "error": "key not found: short" }))
    );
    assert_eq!(told(&client, "GET", "/exists?key=short", ""), (200, json!({ "exists": false })));
    assert_eq!(told(&client, "GET", "/exists?key=long", ""), (200, json!({ "exists": true })));
    assert_eq!(ask(&client, "GET", "?key=a/b", "").body, "some \"bytes\"");
    let deleted = json!({ "key": "long", "status": "ok" });
    assert_eq!(told(&client, "POST", "/delete", "{\"key\":\"long\"}"), (200, deleted.clone()));
    assert_eq!(ask(&client, "POST", "/delete", "{\"key\":\"long\"}").status, 404);
    assert_eq!(ask(&client, "DELETE", "/delete?key=a/b", "").status, 200);
    assert_eq!(told(&client, "GET", "/list", ""), (200, json!({ "keys": [], "next": null })));
    assert_eq!(client.rows("SELECT count(*) FROM sqlite_master"), json!([[0]]));
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

#[test]
fn bytes_are_bytes_however_many() {
    let node = Node::start(1);
    let client = node.client();
    for size in [0, 1, 255, 40_000, 4 << 20] {
        // All that a text may hold, the end of a line of a head included.
        let value: String = ('\0'..='\u{7f}').cycle().take(size).collect();
        let path = format!("/put?key=k{size}");
        let reply = ask(&client, "POST", &path, &value);
        assert_eq!(reply.status, 201, "{size}: {}", reply.body);
        let reply = ask(&client, "GET", &format!("/get?key=k{size}"), "");
        assert_eq!(reply.status, 200, "{size}");
        assert!(reply.body == value, "{size} bytes came back as {}", reply.body.len());
    }
    let (status, error) = told(&client, "POST", "/put?key=k", &"x".repeat((4 << 20) + 1));
    assert_eq!((status, &error["code"]), (400, &json!("value_bytes")));
    let reply = ask(&client, "POST", "/put?key=k", &"x".repeat(11 << 20));
    assert_eq!(reply.status, 413);
}

#[test]
fn a_value_may_read_like_a_reply() {
    let node = Node::start(1);
    let client = node.client();
    let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
        date: Mon, 23 Nov 2026 00:00:00 GMT\r\n\r\n";
    let values = [head.to_owned(), format!("{head}x"), head.repeat((4 << 20) / head.len())];
    for (nth, value) in values.iter().enumerate() {
        let put = ask(&client, "PUT", &format!("/put?key=v{nth}"), value);
        assert_eq!(put.status, 201, "{}", put.body);
    }
    let is_right = |nth: usize, reply: &Reply| {
        let n = reply.body.len();
        assert!(reply.status == 200 && reply.body == values[nth], "{nth}: {n} bytes");
    };
    for nth in [0, 1, 2, 0] {
        is_right(nth, &ask(&client, "GET", &format!("/get?key=v{nth}"), ""));
    }
    // All at once, and then something that is no request.
    let get = |nth| {
        let path = format!("/v1/storage/get?key=v{nth}");
        format!("GET {path} HTTP/1.1\r\nHost: t\r\nX-API-Key: k1\r\n\r\n")
    };
    for nth in [0, 1, 2] {
        let client = node.client();
        client.send(&(get(nth) + &get(0) + "nonsense\r\n\r\n")).expect("it is read");
        let mut text = client.read_to_end().expect("replies");
        let refusal = text.rfind("HTTP/1.1 400 ").expect("a refusal");
        let error = text.split_off(refusal);
        assert!(error.contains("\"error\""), "{error}");
        assert!(text.ends_with(&values[0]), "{nth}: the last");
        let first = text.split_once("\r\n\r\n").expect("a head").1;
        assert!(first.starts_with(&values[nth]), "{nth}: the first");
    }
}

#[test]
fn lists_page_through_keys_and_take_wildcards_for_what_they_are() {
    let node = Node::start(1);
    let client = node.client();
    for key in ["a%25", "a_", "ab", "b", "%C3%BC"] {
        assert_eq!(ask(&client, "POST", &format!("/put?key={key}"), "x").status, 201);
    }
    for n in 0..105 {
        assert_eq!(ask(&client, "POST", &format!("/put?key=n/{n:03}"), "x").status, 201);
    }
    for (rest, want) in [
        ("?prefix=a", json!({ "keys": ["a%", "a_", "ab"], "next": null })),
        ("?prefix=a%25", json!({ "keys": ["a%"], "next": null })),
        ("?prefix=a_", json!({ "keys": ["a_"], "next": null })),
        ("?limit=2", json!({ "keys": ["a%", "a_"], "next": "a_" })),
        ("?limit=2&after=a_", json!({ "keys": ["ab", "b"], "next": "b" })),
        ("?prefix=%C3%BC&limit=1", json!({ "keys": ["ü"], "next": null })),
        ("?prefix=n/&after=n/103", json!({ "keys": ["n/104"], "next": null })),
    ] {
        assert_eq!(told(&client, "GET", &format!("/list{rest}"), ""), (200, want), "{rest}");
    }
    let (_, first) = told(&client, "GET", "/list?prefix=n/", "");
    assert_eq!(first["keys"].as_array().map(Vec::len), Some(100));
    assert_eq!(first["next"], json!("n/099"));
    for rest in ["/list?limit=0", "/list?limit=1001", "/get", "/get?key=", "/put?key=a&ttl=5"] {
        let method = if rest.starts_with("/put") { "POST" } else { "GET" };
        assert_eq!(ask(&client, method, rest, "").status, 400, "{rest}");
    }
    assert_eq!(ask(&client, "DELETE", "/get?key=a", "").status, 405);
    assert_eq!(ask(&client, "GET", "/put?key=a", "").status, 405);
    assert_eq!(ask(&client, "GET", "/status/x", "").status, 404);
}

#[test]
fn keys_belong_to_their_namespace_and_requests_are_done_once() {
    let node = Node::start(2);
    let (one, other) = (node.client(), node.client().with_key("k2"));
    assert_eq!(ask(&one, "POST", "/put?key=a", "mine").status, 201);
    assert_eq!(ask(&other, "GET", "/get?key=a", "").status, 404);
    let (status, error) = told(&one, "GET", "/get?key=a&namespace=another", "");
    assert_eq!((status, &error["error"]), (403, &json!("namespace mismatch")));
    assert_eq!(ask(&node.client().with_key(""), "GET", "/get?key=a", "").status, 401);
    let send_as = |method, rest, body| {
        let header = "Idempotency-Key: storage-1\r\n";
        let path = format!("/v1/storage{rest}");
        let reply = one.request_with(header, method, &path, body).expect("an answer");
        (reply.status, reply.header("Idempotency-Replayed").is_some())
    };
    assert_eq!(send_as("DELETE", "/delete?key=a", ""), (200, false));
    assert_eq!(ask(&one, "POST", "/put?key=a", "again").status, 201);
    assert_eq!(send_as("DELETE", "/delete?key=a", ""), (200, true));
    assert_eq!(ask(&one, "GET", "/get?key=a", "").body, "again");
    assert_eq!(send_as("PUT", "/put?key=a", "third").0, 422);
}
