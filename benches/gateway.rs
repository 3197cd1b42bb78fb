//! What the gateway adds to a request: a body into a draft, rows into a reply, a key into a namespace, and all of it
//! from a head to a reply with a node that answers at once.
//!
//! Run with `cargo bench --bench gateway`. Target: a one-row read is encoded in well under 2 µs, a key is found in
//! under 1 µs.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use bytes::BytesMut;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use debros::auth::key::Keys;
use debros::gateway::Gateway;
use debros::gateway::GatewayOptions;
use debros::gateway::NodeInfo;
use debros::gateway::body;
use debros::gateway::rows::Blobs;
use debros::gateway::rows::Part;
use debros::gateway::rows::Table;
use debros::http::Service;
use debros::shard::request::Reply;
use debros::shard::request::Request;
use debros::shard::request::Submit;
use debros::shard::request::SubmitError;
use debros::types::Namespace;
use debros::types::Timestamp;
use debros::wire::command::Mode;
use debros::wire::command::Value;
use debros::wire::rows::Column;
use debros::wire::rows::Rows;
use debros::wire::rows::StatementResult;
use futures_lite::future;

const INSERT: &[u8] = br#"{"sql":"INSERT INTO users(id, name, email, score) VALUES (?, ?, ?, ?)","args":[123456,"Ada Lovelace","ada@example.org",99.5]}"#;

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(INSERT.len() as u64));
    group.bench_function("an insert", |it| {
        it.iter(|| body::statement(black_box(INSERT), Mode::Exec));
    });
    group.finish();
}

fn rows(n: usize) -> Rows {
    let column =
        |name: &str| Column { name: name.to_owned(), declared_type: Some("text".to_owned()) };
    let mut values = BytesMut::new();
    for id in 0..n {
        Value::Integer(i64::try_from(id).expect("few rows")).encode(&mut values);
        Value::Text("Ada Lovelace").encode(&mut values);
        Value::Text("ada@example.org").encode(&mut values);
        Value::Real(99.5).encode(&mut values);
    }
    let columns = ["id", "name", "email", "score"].map(column);
    Rows { columns: columns.into(), count: n, values: values.freeze().into() }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for n in [1, 100] {
        let rows = rows(n);
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(format!("{n} rows"), |it| {
            it.iter(|| {
                let table = Table::new(black_box(&rows), Blobs::Text);
                let mut out = Vec::with_capacity(table.size_hint());
                table.put_columns(&mut out);
                table.put(&mut out, Part::Items);
                table.put(&mut out, Part::Rows);
                out
            });
        });
    }
    group.finish();
}

fn authenticate(criterion: &mut Criterion) {
    let namespace = Namespace::new("default").expect("a name");
    let texts: Vec<String> = (0..1_000).map(|it| format!("ak_{it:024}:default")).collect();
    let pairs = texts.iter().map(|it| (it.as_str(), &namespace));
    let keys = Keys::new(pairs, [9; 16]).expect("all different");
    let mut group = criterion.benchmark_group("key");
    group.throughput(Throughput::Elements(1));
    group.bench_function("find among 1000", |it| {
        it.iter(|| keys.find(black_box(texts[500].as_bytes())).is_some());
    });
    group.finish();
}

/// A node that has done whatever it is asked.
struct Done;

impl Submit for Done {
    async fn submit(&self, _request: Request) -> Result<Reply, SubmitError> {
        let counts =
            StatementResult::Counts { rows_affected: 1, last_insert_id: 7, returned: None };
        Ok(Reply::Results(vec![counts]))
    }
}

#[expect(clippy::disallowed_methods, reason = "a node knows when it started")]
fn gateway() -> Gateway<Done> {
    let namespace = Namespace::new("default").expect("a name");
    let options = GatewayOptions {
        client_namespace: namespace.clone(),
        require_auth: true,
        keys: vec![("ak_1:default".to_owned(), namespace)],
        key_seed: [3; 16],
        result_bytes: 32 << 20,
        http: debros::http::Options::default(),
    };
    let info = NodeInfo {
        node_id: String::new(),
        version: String::new(),
        commit: String::new(),
        build_time: String::new(),
        started_at: Timestamp(0),
        started: Instant::now(),
    };
    Gateway::new(&options, info, Done).expect("the key is good")
}

/// Everything but HTTP itself and the node: credential, path, namespace, body, reply.
fn route(criterion: &mut Criterion) {
    let gateway = gateway();
    let mut group = criterion.benchmark_group("router");
    group.throughput(Throughput::Elements(1));
    for (name, path, body) in [
        ("an insert", "/v1/rqlite/exec", Bytes::from_static(INSERT)),
        ("a page", "/v1/version", Bytes::new()),
        ("a path that leads nowhere", "/v1/nowhere", Bytes::new()),
    ] {
        let request = http::Request::post(path).header("X-API-Key", "ak_1:default").body(());
        let (head, ()) = request.expect("a request").into_parts();
        group.bench_function(name, |it| {
            it.iter(|| future::block_on(gateway.call(black_box(head.clone()), body.clone())));
        });
    }
    group.finish();
}

criterion_group!(benches, decode, encode, authenticate, route);
criterion_main!(benches);
