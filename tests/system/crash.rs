//! `kill -9` under load, and what must be there afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::client::Client;
use crate::process::Node;
use crate::process::PATIENCE;
use crate::process::wait_until;

const WRITERS: usize = 8;

/// What one writer knows about its transactions.
#[derive(Default)]
struct Written {
    acknowledged: Vec<u64>,
    sent: u64,
}

/// Each transaction writes two rows, so that half of one would be seen.
fn write_until_killed(
    port: u16,
    key: &'static str,
    writer: usize,
    first: u64,
    acknowledged: &AtomicU64,
) -> Written {
    let mut written = Written { acknowledged: Vec::new(), sent: first };
    let Some(client) = Client::try_connect(port) else { return written };
    let client = client.with_key(key);
    loop {
        let n = written.sent;
        written.sent += 1;
        let ops = json!({ "ops": [
            { "kind": "exec", "sql": "INSERT INTO t VALUES (?, ?, 'left')", "args": [writer, n] },
            { "kind": "exec", "sql": "INSERT INTO t VALUES (?, ?, 'right')", "args": [writer, n] },
        ] });
        match client.post("/v1/rqlite/transaction", &ops) {
            Ok(reply) if reply.status == 200 => {
                written.acknowledged.push(n);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(reply) => panic!("refused: {} {}", reply.status, reply.body),
            Err(_) => return written, // it was killed
        }
    }
}

#[test]
fn torture_kill_9_loses_nothing_acknowledged_and_halves_nothing() {
    let rounds = std::env::var("TORTURE_ROUNDS").ok().map_or(5, |it| it.parse().expect("a number"));
    let mut node = Node::start(2);
    let keys = ["k1", "k2"];
    for key in keys {
        let client = node.client().with_key(key);
        client.exec("CREATE TABLE t (writer INT, n INT, side TEXT)", &json!([]));
    }
    let mut acknowledged: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); WRITERS];
    let mut next = [0; WRITERS];
    let mut longest = Duration::ZERO;
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..rounds {
        let n_acknowledged = Arc::new(AtomicU64::new(0));
        let port = node.port;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (count, first) = (Arc::clone(&n_acknowledged), next[writer]);
                let key = keys[writer % 2];
                std::thread::spawn(move || write_until_killed(port, key, writer, first, &count))
            })
            .collect();
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let enough = 50 + dice % 3_000;
        wait_until("enough is acknowledged", || {
            (n_acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
        });
        node.kill();
        for (writer, thread) in writers.into_iter().enumerate() {
            let written = thread.join().expect("a writer");
            acknowledged[writer].extend(written.acknowledged);
            next[writer] = written.sent;
        }
        let began = Instant::now();
        node.restart();
        let took = began.elapsed();
        assert!(took < PATIENCE, "restart took {took:?}");
        longest = longest.max(took);
        check(&node, &keys, &acknowledged, round);
    }
    let total: usize = acknowledged.iter().map(BTreeSet::len).sum();
    assert!(total > 100, "only {total} transactions were acknowledged");
    println!(
        "{rounds} rounds, {total} acknowledged transactions, none lost, longest restart {longest:?}"
    );
}

fn check(node: &Node, keys: &[&'static str], acknowledged: &[BTreeSet<u64>], round: u32) {
    for (at, key) in keys.iter().enumerate() {
        let client = node.client().with_key(key);
        let halves = client
            .rows("SELECT writer, n, count(*) FROM t GROUP BY writer, n HAVING count(*) <> 2");
        assert_eq!(halves, json!([]), "round {round}: half applied, or twice");
        for (writer, want) in acknowledged.iter().enumerate().filter(|(it, _)| it % 2 == at) {
            let rows = client.rows(&format!("SELECT DISTINCT n FROM t WHERE writer = {writer}"));
            let found: BTreeSet<u64> = rows
                .as_array()
                .expect("rows")
                .iter()
                .map(|it| it[0].as_u64().expect("a number"))
                .collect();
            let lost: Vec<_> = want.difference(&found).collect();
            assert!(lost.is_empty(), "round {round}, writer {writer}: lost {lost:?}");
        }
    }
}

#[test]
fn a_clean_stop_answers_what_it_accepted_and_keeps_it() {
    let mut node = Node::start(2);
    let client = node.client();
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY)", &json!([]));
    let port = node.port;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        let client = Client::try_connect(port).expect("it listens");
        let mut n = 0_u64;
        while !flag.load(Ordering::Relaxed) {
            let body = json!({ "sql": "INSERT INTO t VALUES (?)", "args": [n] });
            match client.post("/v1/rqlite/exec", &body) {
                Ok(reply) if reply.status == 200 => n += 1,
                Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.body),
                Err(_) => break,
            }
        }
        n
    });
    wait_until("some rows are there", || {
        let rows = client.rows("SELECT count(*) FROM t");
        (rows[0][0].as_u64() >= Some(20)).then_some(())
    });
    drop(client);
    let status = node.stop();
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.join().expect("the writer");
    assert!(status.success(), "{status}: {}", node.log());
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
    node.restart();
    let rows = node.client().rows("SELECT count(*) FROM t");
    assert!(rows[0][0].as_u64() >= Some(acknowledged), "{rows} of {acknowledged}");
}
