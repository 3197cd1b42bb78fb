//! Requests in, replies out, with a node that answers as told.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use expect_test::Expect;
use expect_test::expect;
use http::Request as HttpRequest;

use super::*;
use crate::auth::key::KeyId;
use crate::auth::rate::TooMany;
use crate::gateway::pieces::tests::collect;
use crate::gateway::rows::tests::rows;
use crate::http::sleep;
use crate::http::testing::Running;
use crate::http::testing::on_executor;
use crate::shard::request::Reply;
use crate::shard::request::Request;
use crate::shard::request::Status;
use crate::shard::request::SubmitError;
use crate::types::Incarnation;
use crate::types::ShardId;
use crate::wire::command::Command;
use crate::wire::command::CommandLimits;
use crate::wire::command::Draft;
use crate::wire::command::Stamp;
use crate::wire::command::Value;
use crate::wire::rows::StatementError;
use crate::wire::rows::StatementResult;

/// Answers every request alike, and remembers what it was asked.
struct Fake {
    answer: Result<Reply, SubmitError>,
    asked: Rc<RefCell<Vec<String>>>,
}

impl Submit for Fake {
    async fn submit(&self, request: Request) -> Result<Reply, SubmitError> {
        let asked = match request {
            Request::Read { namespace, draft } => format!("read {namespace}: {}", show(draft)),
            Request::Write { namespace, draft } => format!("write {namespace}: {}", show(draft)),
            Request::Status => "status".to_owned(),
        };
        self.asked.borrow_mut().push(asked);
        self.answer.clone()
    }

    fn pass(&self, _: KeyId, _: &Namespace) -> impl Future<Output = Result<(), SubmitError>> {
        let refused = match &self.answer {
            Err(error @ SubmitError::TooMany(_)) => Err(error.clone()),
            _ => Ok(()),
        };
        std::future::ready(refused)
    }

    fn elsewhere(&self, namespace: &Namespace) -> Option<ShardId> {
        (namespace.as_str() == "far").then_some(ShardId(3))
    }
}

fn show(draft: Draft) -> String {
    let limits = CommandLimits {
        steps: 0,
        temp_bytes: 0,
        database_bytes: 0,
        result_bytes: 0,
        result_rows: 0,
        value_bytes: 0,
    };
    let stamp = Stamp { incarnation: Incarnation(1), time: Timestamp(0), seed: 0, limits };
    let bytes = draft.seal(&stamp);
    let command = Command::decode(&bytes).unwrap();
    let statements = command.statements().map(|it| {
        let it = it.unwrap();
        format!("{:?} {:?} {:?}", it.mode, it.sql, it.arguments.collect::<Vec<_>>())
    });
    let key = command.request.map_or(String::new(), |it| format!(" as {:?}", it.key()));
    if command.kind == crate::wire::command::Kind::Storage {
        let storage = command.storage().unwrap();
        return format!("{storage:?}{key}");
    }
    format!("{:?} {}{key}", command.results, statements.collect::<Vec<_>>().join("; "))
}

fn options() -> GatewayOptions {
    let namespace = |it| Namespace::new(it).unwrap();
    GatewayOptions {
        client_namespace: namespace("default"),
        require_auth: true,
        keys: vec![("ak_1".to_owned(), namespace("one"))],
        key_seed: [3; 16],
        result_bytes: 1 << 20,
        http: crate::http::Options::default(),
    }
}

fn info() -> NodeInfo {
    NodeInfo {
        node_id: "12D3Koo".to_owned(),
        version: "1.0".to_owned(),
        commit: "abc".to_owned(),
        build_time: String::new(),
        started_at: Timestamp(1_761_300_000_000),
        started: sleep::now(),
    }
}

/// The reply in full.
async fn ask(
    options: &GatewayOptions,
    answer: Result<Reply, SubmitError>,
    request: &str,
) -> (Response<Bytes>, Vec<String>) {
    let asked = Rc::default();
    let node = Fake { answer, asked: Rc::clone(&asked) };
    let gateway = Gateway::new(options, info(), node).unwrap();
    let (head, body) = request.split_once('\n').unwrap_or((request, ""));
    let (method, rest) = head.split_once(' ').unwrap();
    let (target, headers) = rest.split_once(' ').unwrap_or((rest, ""));
    let mut builder = HttpRequest::builder().method(method).uri(target);
    for header in headers.split(", ").filter(|it| !it.is_empty()) {
        let (name, value) = header.split_once(": ").unwrap();
        builder = builder.header(name, value);
    }
    let (head, ()) = builder.body(()).unwrap().into_parts();
    let reply = gateway.call(head, Bytes::copy_from_slice(body.as_bytes())).await;
    assert_eq!(reply.headers()["access-control-allow-origin"], "*", "{request}");
    let (head, content) = reply.into_parts();
    let body = match content {
        Content::Whole(bytes) => bytes,
        Content::Pieces(pieces) => collect(pieces).await.unwrap().concat().into(),
    };
    (Response::from_parts(head, body), asked.take())
}

/// `METHOD target Name: value, Name: value`, then the body on the next line, against what the node was
/// asked and what came back.
fn check_with(answer: Result<Reply, SubmitError>, request: &str, want: &Expect) {
    let (reply, asked) = on_executor(ask(&options(), answer, request));
    let shown = reply.headers().iter().filter(|(name, value)| {
        !name.as_str().starts_with("access-control-") && *value != "application/json"
    });
    let shown = shown.map(|(name, it)| format!("{name}: {}", it.to_str().unwrap()));
    let body = String::from_utf8_lossy(reply.body()).into_owned();
    let words = [reply.status().as_u16().to_string()].into_iter().chain(shown).chain([body]);
    let words = words.collect::<Vec<_>>().join(" ");
    let got = asked.into_iter().chain([words]).collect::<Vec<_>>().join("\n");
    want.assert_eq(got.trim_end());
}

/// As the holder of a key, of a node that did what it was asked.
fn check(results: Vec<StatementResult>, request: &str, want: &Expect) {
    let (head, body) = request.split_once('\n').unwrap_or((request, ""));
    let request = format!("{head} X-API-Key: ak_1\n{body}");
    check_with(Ok(Reply::Results(results)), &request, want);
}

fn counts(rows_affected: u64, last_insert_id: i64) -> StatementResult {
    StatementResult::Counts { rows_affected, last_insert_id, returned: None }
}

fn two_rows() -> StatementResult {
    StatementResult::Rows(rows(
        &["name", "id"],
        &[Value::Text("a"), Value::Integer(1), Value::Text("b<"), Value::Null],
    ))
}

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
fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    for (millis, want) in [(1, "1"), (1_000, "1"), (1_001, "2")] {
        let answer = Err(SubmitError::TooMany(TooMany { wait: Duration::from_millis(millis) }));
        let (reply, asked) =
            on_executor(ask(&options(), answer, "POST /v1/rqlite/exec X-API-Key: ak_1\nnot JSON"));
        assert_eq!(reply.status(), 429);
        assert_eq!(reply.headers()["retry-after"], want);
        let body = b"{\"code\":\"too_many_requests\",\"error\":\"too many requests\"}\n";
        assert_eq!(&reply.body()[..], body);
        assert!(asked.is_empty(), "refused before anything is looked at");
    }
    // Pages are for everybody, and who may not ask is told that first.
    let too_many = || Err(SubmitError::TooMany(TooMany { wait: Duration::ZERO }));
    for (request, want) in [("GET /v1/version", 200), ("POST /v1/rqlite/exec", 401)] {
        let (reply, _) = on_executor(ask(&options(), too_many(), request));
        assert_eq!(reply.status(), want, "{request}");
    }
}

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
fn a_client_is_told_whose_move_it_is() {
    let statement = |code| {
        SubmitError::Statement(StatementError { code, ..StatementError::new("no such table: t") })
    };
    for (error, want) in [
        (statement(None), expect![[r#"400 {"error":"no such table: t"}"#]]),
        (statement(Some("x")), expect![[r#"400 {"code":"x","error":"no such table: t"}"#]]),
        (
            statement(Some("database_bytes")),
            expect![[r#"507 {"code":"database_bytes","error":"no such table: t"}"#]],
        ),
        (
            statement(Some("fenced")),
            expect![[r#"503 retry-after: 1 {"code":"fenced","error":"no such table: t"}"#]],
        ),
        (
            statement(Some("idempotency_key_reused")),
            expect![[r#"422 {"code":"idempotency_key_reused","error":"no such table: t"}"#]],
        ),
        (
            SubmitError::Statement(StatementError {
                retry_after_s: Some(590),
                ..StatementError::coded("idempotency_keys_full", "too many")
            }),
            expect![[
                r#"429 retry-after: 590 {"code":"idempotency_keys_full","error":"too many"}"#
            ]],
        ),
        (
            SubmitError::NoLeader,
            expect![[r#"503 retry-after: 1 {"code":"no_leader","error":"no leader"}"#]],
        ),
        (
            SubmitError::Overloaded,
            expect![[r#"503 retry-after: 1 {"code":"overloaded","error":"overloaded"}"#]],
        ),
        (
            SubmitError::ShuttingDown,
            expect![[r#"503 retry-after: 1 {"code":"shutting_down","error":"shutting down"}"#]],
        ),
        (
            SubmitError::Fenced,
            expect![[
                r#"503 retry-after: 1 {"code":"fenced","error":"namespace is fenced: its database is damaged"}"#
            ]],
        ),
        (
            SubmitError::DatabaseFull,
            expect![[r#"507 {"code":"database_bytes","error":"database is full"}"#]],
        ),
        (
            SubmitError::DiskReserve,
            expect![[r#"507 {"code":"disk_reserve","error":"disk is almost full"}"#]],
        ),
        (
            statement(Some("disk_reserve")),
            expect![[r#"507 {"code":"disk_reserve","error":"no such table: t"}"#]],
        ),
        (
            SubmitError::OutcomeUnknown,
            expect![[r#"409 {"code":"outcome_unknown","error":"outcome unknown"}"#]],
        ),
    ] {
        let request = "POST /v1/rqlite/exec X-API-Key: ak_1\n{\"sql\":\"x\"}";
        let (reply, _) = on_executor(ask(&options(), Err(error), request));
        let retry = reply
            .headers()
            .get("retry-after")
            .map_or(String::new(), |it| format!(" retry-after: {}", it.to_str().unwrap()));
        let body = String::from_utf8_lossy(reply.body());
        want.assert_eq(format!("{}{retry} {body}", reply.status().as_u16()).trim_end());
    }
}

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

#[test]
fn routing() {
    for (request, want) in [
        (
            "GET /v1/nowhere X-API-Key: ak_1",
            expect!["404 content-type: text/plain; charset=utf-8 404 page not found"],
        ),
        (
            "GET /v1/rqlite/nowhere X-API-Key: ak_1",
            expect!["404 content-type: text/plain; charset=utf-8 404 page not found"],
        ),
        (
            "GET /v1/nowhere",
            expect![[
                r#"401 www-authenticate: Bearer realm="gateway", charset="UTF-8" {"error":"missing API key"}"#
            ]],
        ),
        (
            "GET /health/",
            expect![[
                r#"401 www-authenticate: Bearer realm="gateway", charset="UTF-8" {"error":"missing API key"}"#
            ]],
        ),
        (
            "GET /v1/rqlite/schema X-API-Key: no",
            expect![[
                r#"401 www-authenticate: Bearer error="invalid_token" {"error":"invalid API key"}"#
            ]],
        ),
        (
            "GET /v1/rqlite/exec Authorization: Bearer ak_1",
            expect![[r#"405 {"error":"method not allowed"}"#]],
        ),
        (
            "POST /v1/rqlite/schema Authorization: Bearer ak_1",
            expect![[r#"405 {"error":"method not allowed"}"#]],
        ),
        (
            "HEAD /v1/rqlite/schema?api_key=ak_1:one",
            expect![[r#"405 {"error":"method not allowed"}"#]],
        ),
        (
            "GET /v1//rqlite/../rqlite/schema?api_key=ak_1",
            expect!["301 location: /v1/rqlite/schema?api_key=ak_1"],
        ),
        ("OPTIONS /anything", expect!["204"]),
        (
            "POST /v1/rqlite/%65xec X-API-Key: ak_1\n",
            expect![[r#"400 {"error":"invalid body: {sql, args?}"}"#]],
        ),
    ] {
        check_with(Ok(Reply::Results(vec![])), request, &want);
    }
}

#[test]
fn a_preflight_says_what_is_allowed() {
    let (reply, _) =
        on_executor(ask(&options(), Err(SubmitError::NoLeader), "OPTIONS /v1/rqlite/exec"));
    let headers: Vec<_> = reply
        .headers()
        .iter()
        .map(|(name, it)| format!("{name}: {}", it.to_str().unwrap()))
        .collect();
    expect![[r#"
        access-control-allow-origin: *
        access-control-allow-methods: GET, PUT, POST, DELETE, OPTIONS
        access-control-allow-headers: Content-Type, Authorization, X-API-Key, Idempotency-Key
        access-control-expose-headers: Retry-After, Idempotency-Replayed
        access-control-max-age: 600"#]]
    .assert_eq(&headers.join("\n"));
}

#[test]
fn without_required_keys_a_stranger_acts_in_the_clients_namespace() {
    let options = GatewayOptions { require_auth: false, ..options() };
    let answer = || Ok(Reply::Results(vec![counts(0, 0)]));
    let (reply, asked) =
        on_executor(ask(&options, answer(), "POST /v1/rqlite/exec\n{\"sql\":\"x\"}"));
    assert_eq!(
        (reply.status().as_u16(), &*asked),
        (200, &[r#"write default: Last Exec "x" []"#.to_owned()][..])
    );
    let (reply, asked) =
        on_executor(ask(&options, answer(), "POST /v1/rqlite/exec X-API-Key: no\n{\"sql\":\"x\"}"));
    assert_eq!((reply.status().as_u16(), asked.len()), (401, 0));
}

/// Replace what depends on the clock.
fn timeless(body: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(body).trim_end().to_owned();
    for key in ["\"uptime\":", "\"response_time\":", "\"last_updated\":"] {
        let mut from = 0;
        while let Some(at) = text[from..].find(key).map(|it| from + it + key.len()) {
            let end = at + text[at..].find([',', '}']).unwrap();
            let kind = if text[at..].starts_with('"') { "text" } else { "number" };
            text.replace_range(at..end, kind);
            from = at;
        }
    }
    text
}

#[test]
fn pages_about_the_node() {
    let status = Status {
        database_bytes: 4096,
        n_partitions: 17,
        n_leading: 17,
        n_namespaces: 2,
        ..Status::default()
    };
    for (path, answer, want) in [
        (
            "/health",
            Ok(Reply::Status(status)),
            expect![[
                r#"{"client":{"status":"healthy","checks":{"connection":"ok","database":"ok"},"last_updated":text,"response_time":number},"reasons":[],"server":{"started_at":"2025-10-24T10:00:00Z","status":"ok","uptime":text},"status":"ok"}"#
            ]],
        ),
        (
            "/v1/health",
            Err(SubmitError::Overloaded),
            expect![[
                r#"{"client":{"status":"unhealthy","checks":{"connection":"disconnected","database":"unknown"},"last_updated":text,"response_time":number},"reasons":[{"code":"no_answer","message":"the node does not answer in time"}],"server":{"started_at":"2025-10-24T10:00:00Z","status":"ok","uptime":text},"status":"degraded"}"#
            ]],
        ),
        (
            "/v1/status",
            Ok(Reply::Status(status)),
            expect![[
                r#"{"network":{"node_id":"12D3Koo","connected":true,"peer_count":0,"database_size":4096,"uptime":number},"server":{"started_at":"2025-10-24T10:00:00Z","uptime":text}}"#
            ]],
        ),
        (
            "/v1/version",
            Err(SubmitError::NoLeader),
            expect![[
                r#"{"build_time":"","commit":"abc","started_at":"2025-10-24T10:00:00Z","uptime":text,"version":"1.0"}"#
            ]],
        ),
    ] {
        let (reply, _) = on_executor(ask(&options(), answer, &format!("GET {path}")));
        assert_eq!(reply.status(), 200);
        want.assert_eq(&timeless(reply.body()));
    }
}

/// What the two pages about health say of a node that answers like this: `status`, `client.status`, the status
/// code of readiness, and the codes of the reasons of each.
fn health(answer: &Result<Reply, SubmitError>) -> String {
    let page = |path: &str| on_executor(ask(&options(), answer.clone(), &format!("GET {path}"))).0;
    let (health, ready) = (page("/v1/health"), page("/v1/health/ready"));
    assert_eq!(health.status(), 200, "somebody answers");
    let body = |reply: &Response<Bytes>| -> serde_json::Value {
        serde_json::from_slice(reply.body()).unwrap()
    };
    let codes = |body: &serde_json::Value| {
        let reasons = body["reasons"].as_array().unwrap().iter();
        reasons.map(|it| it["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let (health, code, ready) = (body(&health), ready.status().as_u16(), body(&ready));
    assert_eq!(ready["ready"], serde_json::Value::Bool(code == 200));
    let (status, client) = (health["status"].as_str(), health["client"]["status"].as_str());
    let (status, client) = (status.unwrap(), client.unwrap());
    format!("{status}/{client} [{}] {code} [{}]", codes(&health), codes(&ready))
}

#[test]
fn health_and_readiness_say_what_is_wrong() {
    let well = Status { n_partitions: 17, n_leading: 17, ..Status::default() };
    for (answer, want) in [
        (Ok(well), "ok/healthy [] 200 []"),
        (Ok(Status { n_fenced: 1, ..well }), "degraded/degraded [fenced] 200 []"),
        (Ok(Status { is_disk_low: true, ..well }), "degraded/degraded [disk_reserve] 200 []"),
        (Ok(Status { is_log_stuck: true, ..well }), "degraded/degraded [log_stuck] 200 []"),
        (Ok(Status { n_leading: 3, ..well }), "ok/healthy [] 200 []"),
        (Ok(Status { n_leaderless: 1, ..well }), "degraded/degraded [no_leader] 503 [no_leader]"),
        (Ok(Status::default()), "degraded/degraded [no_leader] 503 [no_leader]"),
        (Ok(Status { is_stopping: true, ..well }), "ok/healthy [] 503 [stopping]"),
        (
            Ok(Status { n_fenced: 2, n_leaderless: 17, is_stopping: true, ..well }),
            "degraded/degraded [no_leader fenced] 503 [stopping no_leader]",
        ),
        (Err(SubmitError::ShuttingDown), "degraded/unhealthy [stopping] 503 [stopping]"),
        (Err(SubmitError::Overloaded), "degraded/unhealthy [no_answer] 503 [no_answer]"),
    ] {
        assert_eq!(health(&answer.map(Reply::Status)), want);
    }
}

#[test]
fn over_a_socket() {
    on_executor(async {
        let node = Fake { answer: Ok(Reply::Results(vec![counts(1, 2)])), asked: Rc::default() };
        let options = options();
        let gateway = Gateway::new(&options, info(), node).unwrap();
        let server = Running::start(options.http, gateway);
        let mut client = server.connect().await;
        let body = r#"{"sql":"INSERT"}"#;
        let exec = |key: &str| {
            format!(
                "POST /v1/rqlite/exec HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        client.send(exec("ak_1") + &exec("ak_2")).await;
        let want = r#"200 {"execution_state":"ok","last_insert_id":2,"rows_affected":1}"#;
        assert_eq!(client.brief().await, want);
        assert_eq!(client.brief().await, r#"401 {"error":"invalid API key"}"#);
        client.send("HEAD /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await;
        assert!(client.reply().await.is_none(), "a head without a body, then the end");
        // None of these bodies ever comes: who may not send one is told so at once.
        let promise = "Host: t\r\nContent-Length: 99000000\r\n";
        for (head, want) in [
            (format!("POST / HTTP/1.1\r\nX-API-Key: ak_1\r\n{promise}"), 413),
            (format!("POST /v1/rqlite/exec HTTP/1.1\r\n{promise}"), 401),
            (format!("POST /v1/rqlite/exec HTTP/1.1\r\nX-API-Key: ak_2\r\n{promise}"), 401),
            (format!("POST /health HTTP/1.1\r\n{promise}"), 413),
            (format!("OPTIONS / HTTP/1.1\r\n{promise}"), 413),
            ("GET /health HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n".to_owned(), 413),
        ] {
            let mut client = server.connect().await;
            client.send(format!("{head}\r\n")).await;
            let (status, reply, _) = client.reply().await.expect("a reply");
            assert_eq!(status, want, "{head}");
            assert!(reply.contains("access-control-allow-origin: *"), "{reply}");
            assert!(reply.contains("connection: close"), "{reply}");
        }
    });
}

#[test]
fn what_the_server_refuses_is_answered_in_kind() {
    let node = Fake { answer: Err(SubmitError::NoLeader), asked: Rc::default() };
    let gateway = Gateway::new(&options(), info(), node).unwrap();
    let head = |method, path| {
        let request = http::Request::builder().method(method).uri(path).body(()).unwrap();
        request.into_parts().0
    };
    let reply = gateway.refuse(&head("POST", "/v1/rqlite/exec"), Refusal::BodyTooLarge);
    assert_eq!(reply.status(), 413);
    assert_eq!(reply.headers()["access-control-allow-origin"], "*");
    let body = b"{\"code\":\"body_bytes\",\"error\":\"request body is too large\"}\n";
    assert_eq!(&reply.body()[..], body);
    let reply = gateway.refuse(&head("GET", "/"), Refusal::HeadBroken);
    assert_eq!(reply.status(), 400);
    let want = b"{\"code\":\"malformed_head\",\"error\":\"malformed request head\"}\n";
    assert_eq!(&reply.body()[..], want);
    // It counts for the route that was asked for.
    for (method, path) in [("POST", "/v1/rqlite/exec"), ("PUT", "/nowhere"), ("OPTIONS", "/")] {
        gateway.refuse(&head(method, path), Refusal::BodyTimeout);
    }
    let snapshot = gateway.stats().borrow().snapshot();
    let got: Vec<_> = snapshot.routes.iter().map(|it| (it.route, &*it.statuses)).collect();
    let want = [
        ("/v1/rqlite/exec", &[(413, 1), (408, 1)][..]),
        ("other", &[(400, 1), (408, 1)]),
        ("preflight", &[(408, 1)]),
    ];
    assert_eq!(got, want);
    let limits: Vec<_> = snapshot.refusals.iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(limits, [&("body_bytes", 1)]);
}

/// Connections move to the core that serves them, also those of clients whose requests fail.
#[test]
fn a_reply_says_who_served_it_also_if_it_is_an_error() {
    let mut options = options();
    options.keys.push(("ak_far".to_owned(), Namespace::new("far").unwrap()));
    let query = "POST /v1/rqlite/query X-API-Key: ak_far\n{\"sql\":\"x\"}";
    let here = query.replace("ak_far", "ak_1");
    let done = Ok(Reply::Results(vec![two_rows()]));
    let missing = Err(StatementError::new("no such table: t").into());
    let too_many = Err(SubmitError::TooMany(TooMany { wait: Duration::from_secs(1) }));
    let far = Some(ServedBy::Core(ShardId(3)));
    let nobody = Some(ServedBy::Nobody);
    for (answer, request, want) in [
        (done.clone(), query, far),
        (missing.clone(), query, far),
        (done.clone(), "POST /v1/rqlite/query X-API-Key: ak_far\n{", far),
        (done.clone(), &here, None),
        (missing, &here, None),
        (too_many, query, nobody),
        (done.clone(), "POST /v1/rqlite/query\n{}", nobody),
        (done.clone(), "GET /v1/rqlite/query X-API-Key: ak_far", nobody),
        (done, "GET /nothing X-API-Key: ak_far", nobody),
    ] {
        let (reply, _) = on_executor(ask(&options, answer, request));
        assert_eq!(reply.extensions().get(), want.as_ref(), "{request}");
    }
}

#[test]
fn each_core_has_its_own_names() {
    let options = options();
    let node = Fake { answer: Err(SubmitError::NoLeader), asked: Rc::default() };
    let gateway = Gateway::new(&options, info(), node).unwrap();
    let own = gateway.policy.client_namespace.as_ref().unwrap();
    assert_eq!(own, &options.client_namespace);
    assert_ne!(own.as_str().as_ptr(), options.client_namespace.as_str().as_ptr());
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

#[test]
fn replies_that_nobody_takes_have_a_bound_and_what_was_written_is_answered_all_the_same() {
    on_executor(async {
        let text = "x".repeat(20_000);
        let large = StatementResult::Rows(rows(&["a"], &[Value::Text(&text)]));
        let asked = Rc::default();
        let answer = Ok(Reply::Results(vec![large]));
        let node = Fake { answer, asked: Rc::clone(&asked) };
        let mut gateway = Gateway::new(&options(), info(), node).unwrap();
        let bounds = held::Bounds { reads: 100_000, writes: 500_000, result: 200_000, least: 100 };
        gateway.held = Holdings::new(bounds);
        let ask = async |path: &str, sql: &str| {
            let builder = HttpRequest::builder().method("POST").uri(path);
            let (head, ()) = builder.header("X-API-Key", "ak_1").body(()).unwrap().into_parts();
            gateway.call(head, format!(r#"{{"sql":"{sql}"}}"#).into()).await
        };
        let read = || ask("/v1/rqlite/query", "SELECT a FROM t");
        let write = || ask("/v1/rqlite/exec", "DELETE FROM t RETURNING a");
        // The text has the value twice: one fits into the half that one namespace may have.
        let first = read().await;
        assert_eq!(first.status(), 200);
        let refused = read().await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        // Writes have a bound of their own, and know before they are proposed.
        let kept: Vec<_> = [write().await, write().await].into();
        assert!(kept.iter().all(|it| it.status() == 200));
        assert!(kept.iter().all(|it| it.body().size().is_some_and(|it| it > 40_000)));
        asked.take();
        let mut replies = kept;
        let refused = loop {
            let reply = write().await;
            if reply.status() != 200 {
                break reply;
            }
            replies.push(reply);
            assert!(replies.len() < 20, "there is a bound");
        };
        assert_eq!(refused.status(), 503);
        assert_eq!(asked.take().len(), replies.len() - 2, "what is refused was not proposed");
        // Taken or given up: there is room again.
        drop((first, replies));
        assert_eq!([read().await.status(), write().await.status()], [200, 200]);
        assert_eq!(ask("/v1/rqlite/exec", "DELETE FROM t").await.status(), 200);
    });
}
