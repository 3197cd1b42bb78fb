//! `/v1/storage/…`: keys and values.

use super::*;

#[test]
fn keys_and_values() {
    let blob = StatementResult::Rows(rows(&["value"], &[Value::Blob(b"{x}")]));
    check(
        vec![blob],
        "GET /v1/storage/get?key=a&namespace=one",
        &expect![[r#"
            read one: Get { key: "a" }
            200 content-type: application/octet-stream {x}"#]],
    );
    check_with(
        Ok(Reply::Results(vec![counts(1, 0)])),
        "PUT /v1/storage?key=%3Ck%3E&ttl=1s X-API-Key: ak_1, Idempotency-Key: k\nvalue",
        &expect![[r#"
            write one: Put { key: "<k>", ttl_ms: 1000, value: [118, 97, 108, 117, 101] } as "k"
            201 {"key":"\u003ck\u003e","size":5,"status":"ok"}"#]],
    );
    check(
        vec![counts(0, 0)],
        "POST /v1/storage/delete\n{\"key\":\"a\"}",
        &expect![[r#"
            write one: Delete { key: "a" }
            404 {"code":"key_not_found","error":"key not found: a"}"#]],
    );
    let keys = [Value::Text("a"), Value::Integer(0), Value::Text("b"), Value::Integer(1)];
    check(
        vec![StatementResult::Rows(rows(&["key", "is_rest"], &keys))],
        "GET /v1/storage/list?limit=1",
        &expect![[r#"
            read one: List { prefix: "", after: "", n_max: 1 }
            200 {"keys":["a"],"next":"b"}"#]],
    );
    check(
        vec![],
        "GET /v1/storage/get?key=a&namespace=other",
        &expect![[r#"403 {"error":"namespace mismatch"}"#]],
    );
    check(vec![], "GET /v1/storage/get", &expect![[r#"400 {"error":"missing 'key'"}"#]]);
    check(
        vec![],
        "POST /v1/storage/get?key=a",
        &expect![[r#"405 {"error":"method not allowed"}"#]],
    );
}
