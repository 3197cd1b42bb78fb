//! Requests that have a key, so that they may be sent again.

use super::*;

#[test]
fn a_key_goes_with_what_writes() {
    let sql = r#"{"sql":"x"}"#;
    let check = |path: &str, headers: &str, body: &str, want: &Expect| {
        let request = format!("POST /v1/rqlite/{path} X-API-Key: ak_1, {headers}\n{body}");
        check_with(Ok(Reply::Replayed(vec![counts(1, 2)])), &request, want);
    };
    check(
        "exec",
        "Idempotency-Key: a key",
        sql,
        &expect![[r#"
            write one: Last Exec "x" [] as "a key"
            200 idempotency-replayed: true {"execution_state":"ok","last_insert_id":2,"rows_affected":1}"#]],
    );
    check(
        "transaction",
        "Idempotency-Key: k",
        r#"{"statements":["a"]}"#,
        &expect![[r#"
            write one: Each Exec "a" [] as "k"
            200 idempotency-replayed: true {"status":"ok"}"#]],
    );
    check(
        "create-table",
        "Idempotency-Key: k",
        r#"{"schema":"a"}"#,
        &expect![[r#"
            write one: Last Exec "a" [] as "k"
            201 idempotency-replayed: true {"status":"ok"}"#]],
    );
    check(
        "drop-table",
        "Idempotency-Key: k",
        r#"{"table":"a"}"#,
        &expect![[r#"
            write one: Last Exec "DROP TABLE IF EXISTS \"a\"" [] as "k"
            200 idempotency-replayed: true {"status":"ok"}"#]],
    );
    let read = r#"{"ops":[{"kind":"query","sql":"b"}]}"#;
    let reading = |path: &str, headers: &str, body: &str, want: &Expect| {
        let request = format!("POST /v1/rqlite/{path} X-API-Key: ak_1, {headers}\n{body}");
        check_with(Ok(Reply::Results(vec![two_rows()])), &request, want);
    };
    reading(
        "transaction",
        "Idempotency-Key: k",
        read,
        &expect![[r#"
            read one: Each Query "b" []
            200 {"status":"ok"}"#]],
    );
    let long = format!("Idempotency-Key: {}", "x".repeat(256));
    for headers in
        ["Idempotency-Key: ", "Idempotency-Key: ü", &long, "Idempotency-Key: a, Idempotency-Key: a"]
    {
        check(
            "exec",
            headers,
            sql,
            &expect![[
                r#"400 {"code":"idempotency_key","error":"invalid Idempotency-Key: one header with 1 to 255 printable ASCII characters"}"#
            ]],
        );
    }
    // What the body lacks is told before anything is remembered.
    check(
        "exec",
        "Idempotency-Key: k",
        "{}",
        &expect![[r#"400 {"error":"invalid body: {sql, args?}"}"#]],
    );
    let request = "POST /v1/rqlite/exec X-API-Key: ak_1, Idempotency-Key: k\n{\"sql\":\"x\"}";
    check_with(
        Err(SubmitError::Replayed(StatementError::coded("database_bytes", "full"))),
        request,
        &expect![[r#"
            write one: Last Exec "x" [] as "k"
            507 idempotency-replayed: true {"code":"database_bytes","error":"full"}"#]],
    );
}
