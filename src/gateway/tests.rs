//! Requests in, replies out, with a node that answers as told.

mod sql;
mod storage;
mod idempotency;
mod pages;
mod server;
mod held;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use expect_test::Expect;
use expect_test::expect;
use http::Request as HttpRequest;

use super::*;
use crate::auth::key::KeyId;
use crate::auth::rate::TooMany;
use crate::gateway::body::tests::seal;
use crate::gateway::pieces::tests::collect;
use crate::gateway::rows::tests::rows;
use crate::http::sleep;
use crate::http::testing::Running;
use crate::http::testing::on_executor;
use crate::shard::request::Reply;
use crate::shard::request::Request;
use crate::shard::request::Status;
use crate::shard::request::SubmitError;
use crate::types::ShardId;
use crate::wire::command::Command;
use crate::wire::command::Value;
use crate::wire::command::draft::Draft;
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
    let bytes = seal(draft);
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
