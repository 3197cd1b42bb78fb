//! What applying a command and answering a read cost, on the API that the shard uses.
//!
//! Run with `cargo bench --bench sql`. Each iteration is a whole batch; the throughput counts its commands. The database
//! lies in the temporary folder; nothing is synced, as in a running node between syncs.

use std::hint::black_box;

use bytes::Bytes;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use debros::sql::Database;
use debros::sql::Entry;
use debros::sql::Role;
use debros::sql::Vfs;
use debros::types::Incarnation;
use debros::types::LogIndex;
use debros::types::Timestamp;
use debros::wire::command::CommandLimits;
use debros::wire::command::Mode;
use debros::wire::command::Results;
use debros::wire::command::Stamp;
use debros::wire::command::Value;
use debros::wire::command::draft::Draft;

const STAMP: Stamp = Stamp {
    incarnation: Incarnation(1),
    time: Timestamp(1_761_300_000_000),
    seed: 7,
    limits: CommandLimits {
        steps: 200_000_000,
        temp_bytes: 256 << 20,
        database_bytes: 1 << 40,
        result_bytes: 32 << 20,
        result_rows: 100_000,
        value_bytes: 4 << 20,
    },
};

fn command(mode: Mode, sql: &str, arguments: &[Value<'_>]) -> Bytes {
    let mut draft = Draft::new(Results::Last, 128);
    draft.statement(mode, sql).expect("short");
    for value in arguments {
        draft.bind(*value).expect("few");
    }
    draft.seal(&STAMP)
}

fn insert(n: i64) -> Bytes {
    let sql = "INSERT INTO t(name, score, note, at) VALUES (?, ?, ?, ?)";
    let name = format!("name {n}");
    command(
        Mode::Exec,
        sql,
        &[
            Value::Text(&name),
            Value::Real(0.5),
            Value::Text("a note of a few words"),
            Value::Integer(n),
        ],
    )
}

fn sql(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("1.db");
    let schema =
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, score REAL, note TEXT, at INTEGER)";
    Database::create(&path, Vfs::system(), schema).expect("created");
    let mut database = Database::open(&path, Vfs::system(), Role::Tenant).expect("opened");
    let mut next = 1;
    let mut group = criterion.benchmark_group("sql");
    for size in [1_i64, 16, 64, 256] {
        let commands: Vec<Bytes> = (0..size).map(insert).collect();
        group.throughput(Throughput::Elements(size.unsigned_abs()));
        group.bench_function(format!("insert x{size}"), |bencher| {
            bencher.iter(|| {
                let entries: Vec<Entry> = commands
                    .iter()
                    .map(|command| {
                        next += 1;
                        Entry { index: LogIndex(next), command: command.clone() }
                    })
                    .collect();
                black_box(database.apply(&entries).expect("applied"));
            });
        });
    }
    for size in [1_i64, 64] {
        let reads: Vec<Bytes> = (0..size)
            .map(|n| {
                let sql = "SELECT id, name, score, note, at FROM t WHERE id = ?";
                command(Mode::Query, sql, &[Value::Integer(1 + n * 37)])
            })
            .collect();
        group.throughput(Throughput::Elements(size.unsigned_abs()));
        group.bench_function(format!("point select x{size}"), |bencher| {
            bencher.iter(|| black_box(database.read(&reads, &mut |_| false).expect("read")));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = sql
}
criterion_main!(benches);
