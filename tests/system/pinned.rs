//! The disk is full while long reads keep a `-wal` from beginning anew: the two things that make room wait for
//! each other, and neither loses anything, stops the node, or needs a restart.

use std::sync::atomic::AtomicBool;
use std::thread;

use serde_json::json;

use crate::client::Client;
use crate::fence::databases;
use crate::fence::databases_in;
use crate::metrics::Page;
use crate::process::Node;
use crate::process::wait_until;
use crate::space::EndOfTest;
use crate::space::MIB;
use crate::space::SmallDisk;
use crate::space::Writer;
use crate::space::configured;
use crate::space::exec;
use crate::space::ids;
use crate::space::is_in_own_namespace;
use crate::space::refusal;
use crate::space::size_of;
use crate::space::write_until;

/// It reads from its table, and keeps what it saw.
const ENDLESS: &str =
    "WITH RECURSIVE n(x) AS (SELECT a FROM pin UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";

/// A read that never comes to its end, and how it ended all the same.
fn pin(node: &Node) -> (u16, String) {
    let reply = node.client().post("/v1/rqlite/query", &json!({ "sql": ENDLESS }));
    refusal(&reply.expect("the node lives"))
}

/// Wait until such a read is under way.
fn wait_for_pin(node: &Node) {
    wait_until("the read has begun", || {
        (Page::read(node).sum("long_reads", &[]) > 0.5).then_some(())
    });
}

fn count(node: &Node, name: &str) -> f64 {
    Page::read_anew(node).sum(name, &[])
}

/// Two namespaces on a small disk, whose log will not ask for more of it soon.
fn start(disk: &SmallDisk, reserve_mib: u64, limits: &str) -> Node {
    let node = disk.start_limited(reserve_mib, limits);
    for key in ["k1", "k2"] {
        let client = node.client().with_key(key);
        client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)", &json!([]));
        client.exec("CREATE TABLE big (a INTEGER PRIMARY KEY, v BLOB)", &json!([]));
        client.exec("INSERT INTO big VALUES (1, zeroblob(1000000))", &json!([]));
        client.exec("CREATE TABLE pin (a)", &json!([]));
        client.exec("INSERT INTO pin VALUES (1)", &json!([]));
    }
    node.client().exec("INSERT INTO pin VALUES (length(?))", &json!(["x".repeat(2 << 20)]));
    wait_until("the log has its next segment", || disk.has_whole_segment().then_some(()));
    node
}

/// Every row that was acknowledged is there, now and after the power is gone; and nobody was fenced.
fn check(node: &mut Node, writers: &[(&'static str, Writer)]) {
    for round in ["at once", "after kill -9"] {
        for (key, writer) in writers {
            let found = ids(&node.client().with_key(key));
            for id in &writer.acknowledged {
                assert!(found.binary_search(id).is_ok(), "{key} lost {id}, seen {round}");
            }
        }
        if round == "at once" {
            node.kill();
            node.restart();
        }
    }
    let alarms = node.alarms();
    let is_known = |it: &String| {
        it.contains("the disk is") || it.contains("no room") || it.contains("writes are refused")
    };
    assert!(alarms.iter().all(is_known), "{alarms:?}");
}

/// Write until that is refused; how.
fn until_refused(client: &Client, sql: &str) -> (u16, String) {
    wait_until("a write is refused", || {
        let reply = exec(client, sql);
        (reply.status != 200).then(|| refusal(&reply))
    })
}

#[test]
fn the_end_of_a_reader_gives_a_full_disk_its_room_back_and_writes_go_on() {
    if !is_in_own_namespace(
        "pinned::the_end_of_a_reader_gives_a_full_disk_its_room_back_and_writes_go_on",
    ) {
        return;
    }
    let disk = SmallDisk::mount(700);
    let mut node = start(&disk, 100, ", statement_ms: 8000");
    let client = node.client();
    let wal = databases_in(&disk.data_dir()).remove(0).with_extension("db-wal");
    disk.fill_up_to(190 * MIB);
    let is_done = AtomicBool::new(false);
    let writers = thread::scope(|scope| {
        let end = EndOfTest(&is_done);
        let (node, is_done) = (&node, &is_done);
        // The database stays as large as it is; what grows is the log that nobody may begin anew.
        let update = "UPDATE big SET v = randomblob(1000000)";
        // A machine may be too slow to fill it while one read lasts; then another.
        let reader = wait_until("a -wal is pinned for long enough", || {
            let reader = scope.spawn(|| pin(node));
            wait_for_pin(node);
            while !reader.is_finished() {
                let reply = exec(&client, update);
                if reply.status != 200 {
                    assert_eq!(refusal(&reply), (507, "disk_reserve".to_owned()));
                    return Some(reader);
                }
            }
            None
        });
        let writers =
            ["k1", "k2"].map(|key| (key, scope.spawn(move || write_until(node, is_done, key, 0))));
        let pinned = size_of(&wal);
        assert!(pinned > 70 * MIB, "{pinned}: nothing has pinned it");
        assert_eq!(client.rows("SELECT count(*) FROM big"), json!([[1]]), "reads go on");
        let other = node.client().with_key("k2");
        assert_eq!(refusal(&exec(&other, update)), (507, "disk_reserve".to_owned()));
        let ended = reader.join().expect("the reader is well");
        assert_eq!(ended, (400, "statement_ms".to_owned()));
        wait_until("writes are taken again", || {
            (exec(&client, update).status == 200).then_some(())
        });
        assert!(size_of(&wal) < pinned / 2, "it was not the -wal that gave room back");
        other.exec(update, &json!([]));
        drop(end);
        writers.map(|(key, it)| (key, it.join().expect("the writer is well")))
    });
    for (key, writer) in &writers {
        assert!(writer.n_refused > 0 && writer.others.is_empty(), "{key}: {:?}", writer.others);
    }
    check(&mut node, &writers);
}

#[test]
fn a_wal_at_its_bound_on_a_full_disk_waits_for_room_and_loses_nothing() {
    if !is_in_own_namespace(
        "pinned::a_wal_at_its_bound_on_a_full_disk_waits_for_room_and_loses_nothing",
    ) {
        return;
    }
    let disk = SmallDisk::mount(700);
    let mut node = start(&disk, 20, ", statement_ms: 25000, wal_bytes: 67108864");
    let client = node.client();
    let wal = databases_in(&disk.data_dir()).remove(0).with_extension("db-wal");
    // Room for a log at its bound, but not for what it holds to be moved from there.
    let filler = disk.fill_up_to(112 * MIB);
    let is_done = AtomicBool::new(false);
    let writers = thread::scope(|scope| {
        let end = EndOfTest(&is_done);
        let (node, is_done) = (&node, &is_done);
        let reader = scope.spawn(|| pin(node));
        wait_for_pin(node);
        let insert = "INSERT INTO big(v) VALUES (zeroblob(4000000))";
        wait_until("the -wal is long", || {
            assert_eq!(exec(&client, insert).status, 200, "there is room");
            (size_of(&wal) > 40 * MIB).then_some(())
        });
        let writers =
            ["k1", "k2"].map(|key| (key, scope.spawn(move || write_until(node, is_done, key, 0))));
        // At the bound the readers are stopped, and the checkpoint takes what the disk has left.
        until_refused(&client, insert);
        wait_until("the disk is full", || (disk.free() < MIB).then_some(()));
        let refused = || {
            let reply = exec(&client, insert);
            (reply.status == 507).then(|| refusal(&reply))
        };
        assert_eq!(wait_until("it is said why", refused), (507, "disk_reserve".to_owned()));
        assert!(size_of(&wal) > 60 * MIB, "{} bytes", size_of(&wal));
        let ended = reader.join().expect("the reader is well");
        assert_eq!(ended, (503, "busy".to_owned()));
        let n_tried = count(node, "checkpoints_total");
        wait_until("it is tried again in vain", || {
            assert_eq!(exec(&client, insert).status, 507, "there is no room yet");
            let rows = client.rows("SELECT count(*) FROM big WHERE a = 1");
            assert_eq!(rows, json!([[1]]), "reads go on");
            (Page::read(node).sum("checkpoints_total", &[]) >= n_tried + 3.0).then_some(())
        });
        assert!(count(node, "checkpoints_overdue") > 0.5);
        std::fs::remove_file(filler).expect("it can be removed");
        wait_until("writes are taken again", || {
            (exec(&client, insert).status == 200).then_some(())
        });
        wait_until("the -wal has begun anew", || {
            (count(node, "wal_max_bytes") < 32e6).then_some(())
        });
        node.client().with_key("k2").exec(insert, &json!([]));
        drop(end);
        writers.map(|(key, it)| (key, it.join().expect("the writer is well")))
    });
    assert!(node.log().contains("write-ahead log has begun anew"), "that it is over is told");
    check(&mut node, &writers);
}

/// The lines of its log that say so.
fn told(node: &Node, what: &str) -> usize {
    node.log().lines().filter(|it| it.contains(what)).count()
}

#[test]
fn a_foreign_reader_makes_writes_wait_and_no_longer_than_it_is_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = configured(&dir, "limits: {wal_bytes: 67108864}\n");
    let client = node.client();
    client.exec("CREATE TABLE t (a INTEGER PRIMARY KEY, v BLOB)", &json!([]));
    let file = databases(&node).remove(0);
    let foreign = rusqlite::Connection::open(file).expect("it can be opened");
    for round in 1..=2 {
        foreign.execute_batch("BEGIN; SELECT count(*) FROM t").expect("it can be read");
        wait_until("the -wal is long", || {
            client.exec("INSERT INTO t(v) VALUES (zeroblob(4000000))", &json!([]));
            (count(&node, "wal_max_bytes") > 20e6).then_some(())
        });
        wait_until("it is told", || {
            (told(&node, "write-ahead log cannot begin anew") == round).then_some(())
        });
        let insert = "INSERT INTO t(v) VALUES (zeroblob(4000000))";
        assert_eq!(until_refused(&client, insert), (503, "overloaded".to_owned()));
        wait_until("it is tried again", || {
            (count(&node, "checkpoints_overdue") > 0.5).then_some(())
        });
        let rows = client.rows("SELECT count(*) FROM t WHERE a = 1");
        assert_eq!(rows, json!([[1]]), "reads go on");
        foreign.execute_batch("COMMIT").expect("it has ended");
        wait_until("writes are taken again", || {
            (exec(&client, insert).status == 200).then_some(())
        });
        assert!(count(&node, "checkpoints_overdue") < 0.5);
        assert!(count(&node, "wal_max_bytes") < 20e6);
        assert_eq!(told(&node, "write-ahead log cannot begin anew"), round);
        assert_eq!(told(&node, "writes are refused"), round);
        assert_eq!(told(&node, "write-ahead log has begun anew"), round);
    }
}
