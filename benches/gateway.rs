//! What the gateway adds to a request: a body into a draft, rows into a reply, a key into a namespace.
//!
//! Target: a one-row read is encoded in well under 2 µs, a key is found in under 1 µs.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use debros::auth::key::Keys;
use debros::gateway::body;
use debros::gateway::rows::Blobs;
use debros::gateway::rows::Table;
use debros::types::Namespace;
use debros::wire::command::Mode;
use debros::wire::command::Value;
use debros::wire::rows::Column;
use debros::wire::rows::Rows;

fn decode(criterion: &mut Criterion) {
    let insert = br#"{"sql":"INSERT INTO users(id, name, email, score) VALUES (?, ?, ?, ?)","args":[123456,"Ada Lovelace","ada@example.org",99.5]}"#;
    criterion.bench_function("decode an insert", |it| {
        it.iter(|| body::statement(black_box(insert), Mode::Exec));
    });
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
    Rows { columns: columns.into(), count: n, values: values.freeze() }
}

fn encode(criterion: &mut Criterion) {
    for n in [1, 100] {
        let rows = rows(n);
        criterion.bench_function(&format!("encode {n} rows"), |it| {
            it.iter(|| {
                let table = Table::new(black_box(&rows), Blobs::Text);
                let mut out = Vec::with_capacity(table.size_hint());
                table.put_columns(&mut out);
                table.put_items(&mut out);
                table.put_rows(&mut out);
                out
            });
        });
    }
}

fn authenticate(criterion: &mut Criterion) {
    let namespace = Namespace::new("default").expect("a name");
    let texts: Vec<String> = (0..1_000).map(|it| format!("ak_{it:024}:default")).collect();
    let pairs = texts.iter().map(|it| (it.as_str(), &namespace));
    let keys = Keys::new(pairs, [9; 16]).expect("all different");
    criterion.bench_function("find a key among 1000", |it| {
        it.iter(|| keys.find(black_box(texts[500].as_bytes())).is_some());
    });
}

criterion_group!(benches, decode, encode, authenticate);
criterion_main!(benches);
