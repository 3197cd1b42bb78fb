//! What the log costs a command: its bytes, and its share of a write and an fdatasync.
//!
//! Run with `cargo bench --bench log`. The group commit is the node's own path, from staging through `io_uring` to
//! the report that a batch is durable, into a file on the disk of the target directory; each iteration is one batch.
//! Target: a batch costs what the bare disk takes (`debros bench` prints it) and a few microseconds.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use debros::disk::boot::LogDirectories;
use debros::disk::log::LogWriter;
use debros::disk::segments::Preparer;
use debros::types;
use debros::types::LogIndex;
use debros::types::PartitionId;
use debros::types::ShardId;
use debros::types::Term;
use debros::types::Timestamp;
use debros::wal::log::Options;
use debros::wal::record::Entry;
use debros::wal::record::EntryId;
use debros::wal::record::Record;
use glommio::LocalExecutorBuilder;
use glommio::Placement;
use glommio::channels::local_channel;

const SHARD: ShardId = ShardId(0);
const PARTITION: PartitionId = PartitionId(7);
const TERM: Term = Term(1);
/// Bytes of a command that inserts a row of four columns.
const PAYLOAD: usize = 160;
/// Batches after which the log forgets what it has, so that its segments are used again.
const COMPACTED_EVERY: u64 = 1_000;

fn entry(index: u64) -> Record {
    Record::Entry(Entry {
        partition: PARTITION,
        term: TERM,
        index: LogIndex(index),
        kind: 0,
        stamp: Timestamp(1_761_300_000_000),
        payload: Bytes::from_static(&[0x5a; PAYLOAD]),
    })
}

fn put(records: &[Record], out: &mut Vec<u8>) {
    for record in records {
        record.encode(out);
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log encode");
    for size in [1, 64] {
        let records: Vec<_> = (1..=size).map(entry).collect();
        let mut out = Vec::new();
        put(&records, &mut out);
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(format!("entries x{size}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                put(black_box(&records), &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

/// Write `n` batches of `size` entries, each when the one before is durable; how long that took.
#[expect(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
fn commit(folder: &Path, n: u64, size: u64) -> Duration {
    let logs = LogDirectories::open(folder, 1).expect("a directory for the log");
    let tail = logs.recover(SHARD).expect("an empty log").tail;
    let directory = logs.of(SHARD);
    let (preparer, thread) = Preparer::start(&directory).expect("a thread");
    let executor = LocalExecutorBuilder::new(Placement::Fixed(0)).io_memory(1 << 20);
    let task = executor.spawn(move || async move {
        let (sender, durable) = local_channel::new_unbounded();
        let on_durable = move |lsn| drop(sender.try_send(lsn));
        let started = Instant::now();
        let clock = move || types::Instant::from_start(started.elapsed());
        let options = Options::new(SHARD, 1, 42);
        let log =
            LogWriter::open(directory, options, tail, preparer, false, clock, on_durable).await;
        let mut last = 0;
        let started = Instant::now();
        for batch in 0..n {
            let records: Vec<_> = (last + 1..=last + size).map(entry).collect();
            let lsn = log.stage(&records);
            while durable.recv().await.expect("the log runs") < lsn {}
            last += size;
            if batch % COMPACTED_EVERY == COMPACTED_EVERY - 1 {
                let entry = EntryId { index: LogIndex(last), term: TERM };
                log.stage(&[Record::Compacted { partition: PARTITION, entry }]);
            }
        }
        let took = started.elapsed();
        log.close().await;
        took
    });
    let took = task.expect("io_uring is usable").join().expect("the executor ends well");
    thread.join().expect("the thread ends well");
    took
}

fn group_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group commit");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for size in [1, 64] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("commands x{size}"), |bencher| {
            bencher.iter_custom(|n| {
                let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
                commit(folder.expect("a folder").path(), n, size)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode, group_commit);
criterion_main!(benches);
