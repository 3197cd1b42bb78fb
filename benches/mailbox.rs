//! What it costs a request to be served by another core: the way there and back through mailboxes.
//!
//! Run with `cargo bench --bench mailbox`. Two pinned executors and a mailbox each, as a node has them: a letter
//! carries all that one turn of a core's loop has for the other. An iteration is a letter there and its answer back,
//! so the time is that of a round trip, and the throughput that of the requests in it. Both cores sleep while they
//! wait, which is what a node that has little to do pays; with more in a letter it is shared.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use glommio::LocalExecutorBuilder;
use glommio::Placement;

/// As much as a request has on its way: where to answer, and what.
type Letter = Vec<[u64; 16]>;

/// How long `n` letters of `size` requests took, each sent when the one before was answered.
#[expect(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
fn round_trips(n: u64, size: usize) -> Duration {
    let (there, arrived) = flume::unbounded::<Letter>();
    let (back, returned) = flume::unbounded::<Letter>();
    let builder = |nth: usize| {
        let n_processors = thread::available_parallelism().map_or(1, |it| it.get());
        LocalExecutorBuilder::new(Placement::Fixed(nth % n_processors)).io_memory(64 << 10)
    };
    let other = builder(1).spawn(move || async move {
        while let Ok(letter) = arrived.recv_async().await {
            back.send(letter).expect("somebody waits for it");
        }
    });
    let one = builder(0).spawn(move || async move {
        let mut letter: Letter = vec![[7; 16]; size];
        let started = Instant::now();
        for _ in 0..n {
            there.send(letter).expect("somebody reads it");
            letter = returned.recv_async().await.expect("it is answered");
        }
        started.elapsed()
    });
    let took = one.expect("io_uring is usable").join().expect("it ends well");
    other.expect("io_uring is usable").join().expect("it ends well");
    took
}

fn mailbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for size in [1, 64] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(format!("round trip of requests x{size}"), |bencher| {
            bencher.iter_custom(|n| round_trips(n, size));
        });
    }
    group.finish();
}

criterion_group!(benches, mailbox);
criterion_main!(benches);
