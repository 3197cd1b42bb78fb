//! `/v1/rqlite/…`: each path, what the node is asked, and what comes back.

use super::*;

#[test]
fn query() {
    check(
        vec![two_rows()],
        "POST /v1/rqlite/query\n{\"sql\":\"SELECT ?\",\"args\":[1]}",
        &expect![[r#"
            read one: Last Query "SELECT ?" [Integer(1)]
            200 {"columns":["name","id"],"count":2,"items":[{"id":1,"name":"a"},{"id":null,"name":"b\u003c"}],"rows":[["a",1],["b\u003c",null]]}"#]],
    );
    check(
        vec![StatementResult::Rows(rows(&["a"], &[]))],
        "POST /v1/rqlite/query\n{\"sql\":\"x\"}",
        &expect![[r#"
            read one: Last Query "x" []
            200 {"columns":["a"],"count":0,"items":[],"rows":[]}"#]],
    );
    check(
        vec![],
        "POST /v1/rqlite/query\n{\"sql\":\"-- nothing\"}",
        &expect![[r#"
            read one: Last Query "-- nothing" []
            200 {"columns":[],"count":0,"items":[],"rows":[]}"#]],
    );
    check(
        vec![StatementResult::Rows(rows(&["a"], &[Value::Blob(b"x")]))],
        "POST /v1/rqlite/query?blobs=object\n{\"sql\":\"x\"}",
        &expect![[r#"
            read one: Last Query "x" []
            200 {"columns":["a"],"count":1,"items":[{"a":{"base64":"eA=="}}],"rows":[[{"base64":"eA=="}]]}"#]],
    );
    check(
        vec![],
        "POST /v1/rqlite/query\n{\"sql\":\"\"}",
        &expect![[r#"400 {"error":"invalid body: {sql, args?}"}"#]],
    );
}

#[test]
fn find_and_select() {
    check(
        vec![two_rows()],
        "POST /v1/rqlite/find\n{\"table\":\"t\",\"criteria\":{\"id\":[1,null]}}",
        &expect![[r#"
            read one: Last Query "SELECT * FROM t WHERE (id IN (?) OR id IS NULL)" [Integer(1)]
            200 {"columns":["name","id"],"count":2,"items":[{"id":1,"name":"a"},{"id":null,"name":"b\u003c"}],"rows":[["a",1],["b\u003c",null]]}"#]],
    );
    let one = "{\"table\":\"t\",\"criteria\":{\"id\":1}}";
    check(
        vec![two_rows()],
        &format!("POST /v1/rqlite/find-one\n{one}"),
        &expect![[r#"
            read one: Last Query "SELECT * FROM t WHERE id = ? LIMIT 1" [Integer(1)]
            200 {"id":1,"name":"a"}"#]],
    );
    check(
        vec![StatementResult::Rows(rows(&["a"], &[]))],
        &format!("POST /v1/rqlite/find-one\n{one}"),
        &expect![[r#"
            read one: Last Query "SELECT * FROM t WHERE id = ? LIMIT 1" [Integer(1)]
            404 {"error":"not found"}"#]],
    );
    check(
        vec![StatementResult::Rows(rows(&["a"], &[]))],
        &format!("POST /v1/rqlite/find-one?envelope=items\n{one}"),
        &expect![[r#"
            read one: Last Query "SELECT * FROM t WHERE id = ? LIMIT 1" [Integer(1)]
            200 {"columns":["a"],"count":0,"items":[],"rows":[]}"#]],
    );
    check(
        vec![StatementResult::Rows(rows(&["n"], &[Value::Integer(3)]))],
        "POST /v1/rqlite/select?envelope=items\n{\"table\":\"t\",\"select\":[\"COUNT(*) AS n\"],\"one\":true}",
        &expect![[r#"
            read one: Last Query "SELECT COUNT(*) AS n FROM t LIMIT 1" []
            200 {"columns":["n"],"count":1,"items":[{"n":3}],"rows":[[3]]}"#]],
    );
    check(
        vec![],
        "POST /v1/rqlite/find\n{\"criteria\":{}}",
        &expect![[r#"400 {"error":"invalid body: {table, criteria, options?}"}"#]],
    );
    check(
        vec![],
        "POST /v1/rqlite/select\n{\"table\":\"t\",\"limit\":1.5}",
        &expect![[
            r#"400 {"error":"invalid body: {table, select?, where?, joins?, order_by?, group_by?, limit?, offset?, one?}"}"#
        ]],
    );
    check(
        vec![],
        "POST /v1/rqlite/select\n{\"table\":\"t\",\"order_by\":[\"a; DELETE FROM t\"]}",
        &expect![[r#"400 {"error":"invalid order_by: unexpected \"; DELETE FROM t\""}"#]],
    );
}

#[test]
fn exec() {
    check(
        vec![counts(2, 7)],
        "POST /v1/rqlite/exec\n{\"sql\":\"INSERT\",\"args\":[\"a\",null]}",
        &expect![[r#"
            write one: Last Exec "INSERT" [Text("a"), Null]
            200 {"execution_state":"ok","last_insert_id":7,"rows_affected":2}"#]],
    );
    check(
        vec![StatementResult::Counts {
            rows_affected: 1,
            last_insert_id: 3,
            returned: Some(rows(&["id"], &[Value::Integer(3)])),
        }],
        "POST /v1/rqlite/exec\n{\"sql\":\"INSERT … RETURNING id\"}",
        &expect![[r#"
            write one: Last Exec "INSERT … RETURNING id" []
            200 {"columns":["id"],"count":1,"execution_state":"ok","items":[{"id":3}],"last_insert_id":3,"rows":[[3]],"rows_affected":1}"#]],
    );
    check(
        vec![],
        "POST /v1/rqlite/exec\n{\"sql\":\"x\",\"args\":[[]]}",
        &expect![[
            r#"400 {"error":"argument 1: bind a string, a number, a boolean, null or {\"base64\":\"…\"}"}"#
        ]],
    );
}

#[test]
fn transaction() {
    let ops =
        r#"{"ops":[{"kind":"exec","sql":"a"},{"kind":"query","sql":"b"}],"return_results":true}"#;
    check(
        vec![counts(1, 2), two_rows()],
        &format!("POST /v1/rqlite/transaction\n{ops}"),
        &expect![[r#"
            write one: Each Exec "a" []; Query "b" []
            200 {"results":[{"last_insert_id":2,"rows_affected":1},[{"id":1,"name":"a"},{"id":null,"name":"b\u003c"}]],"status":"ok"}"#]],
    );
    check(
        vec![StatementResult::Rows(rows(&["a"], &[]))],
        "POST /v1/rqlite/transaction\n{\"ops\":[{\"kind\":\"query\",\"sql\":\"b\"}],\"return_results\":true}",
        &expect![[r#"
            read one: Each Query "b" []
            200 {"results":[[]],"status":"ok"}"#]],
    );
    check(
        vec![counts(1, 2), counts(1, 3)],
        "POST /v1/rqlite/transaction\n{\"statements\":[\"a\",\"b\"]}",
        &expect![[r#"
            write one: Each Exec "a" []; Exec "b" []
            200 {"status":"ok"}"#]],
    );
    check(
        vec![],
        "POST /v1/rqlite/transaction\n{\"ops\":[{\"kind\":\"<x>\",\"sql\":\"b\"}]}",
        &expect![[r#"400 {"error":"invalid op kind: \u003cx\u003e"}"#]],
    );
    check(
        vec![],
        "POST /v1/rqlite/transaction\n{\"ops\":[{\"kind\":\"exec\",\"sql\":\" \"}]}",
        &expect![[r#"400 {"error":"invalid body: {ops:[{kind,sql,args?}], return_results?}"}"#]],
    );
}

#[test]
fn schema_and_tables() {
    check(
        vec![StatementResult::Rows(rows(
            &["name", "type", "sql"],
            &[Value::Text("t"), Value::Text("table"), Value::Text("CREATE TABLE t(a)")],
        ))],
        "GET /v1/rqlite/schema",
        &expect![[r#"
            read one: Last Query "SELECT name, type, sql FROM sqlite_master WHERE type IN ('table','view') AND name NOT LIKE 'sqlite_%' ORDER BY name" []
            200 {"count":1,"objects":[{"name":"t","sql":"CREATE TABLE t(a)","type":"table"}],"tables":[{"name":"t","sql":"CREATE TABLE t(a)","type":"table"}]}"#]],
    );
    check(
        vec![counts(0, 0)],
        "POST /v1/rqlite/create-table\n{\"schema\":\"CREATE TABLE t(a)\"}",
        &expect![[r#"
            write one: Last Exec "CREATE TABLE t(a)" []
            201 {"status":"ok"}"#]],
    );
    check(
        vec![counts(0, 0)],
        "POST /v1/rqlite/drop-table\n{\"table\":\" t_1 \"}",
        &expect![[r#"
            write one: Last Exec "DROP TABLE IF EXISTS \"t_1\"" []
            200 {"status":"ok"}"#]],
    );
    for table in ["1t", "t\\\"x", "t-1", "ä", "a b"] {
        check(
            vec![],
            &format!("POST /v1/rqlite/drop-table\n{{\"table\":\"{table}\"}}"),
            &expect![[r#"400 {"error":"invalid table identifier"}"#]],
        );
    }
    check(
        vec![],
        "POST /v1/rqlite/drop-table\n{}",
        &expect![[r#"400 {"error":"invalid body: {table}"}"#]],
    );
    check(
        vec![],
        "POST /v1/rqlite/create-table\nx",
        &expect![[r#"400 {"error":"invalid body: {schema}"}"#]],
    );
}

#[test]
fn declared_types_shape_values() {
    let values = [Value::Integer(1), Value::Integer(1_761_300_000)];
    let result = rows(&["a:boolean", "b:timestamp"], &values);
    check(
        vec![StatementResult::Rows(result)],
        "POST /v1/rqlite/query\n{\"sql\":\"x\"}",
        &expect![[r#"
            read one: Last Query "x" []
            200 {"columns":["a","b"],"count":1,"items":[{"a":true,"b":"2025-10-24T10:00:00Z"}],"rows":[[true,"2025-10-24T10:00:00Z"]]}"#]],
    );
}
