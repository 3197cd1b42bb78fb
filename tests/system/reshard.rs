//! The same data directory with more shards, and with fewer.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::client::Client;
use crate::fence::databases;
use crate::process::Node;
use crate::process::wait_until;

const KEYS: [&str; 4] = ["k1", "k2", "k3", "k4"];
const ALL: &str = "k1:default,k2:other,k3:third,k4:fourth";
/// Enough that writing it anew takes a while.
const TEXT_SIZE: usize = 100_000;
const N_TEXTS: usize = 60;

/// Numbers of shards that this machine has processors for.
fn steps() -> Vec<u16> {
    let cores = std::thread::available_parallelism().map_or(1, |it| it.get());
    [1, 2, 4, 1, 2, 1].into_iter().filter(|it| usize::from(*it) <= cores).collect()
}

/// A row for each of four namespaces; all rows so far are there.
fn write_and_check(node: &Node, round: usize) {
    for key in KEYS {
        let client = node.client().with_key(key);
        client.exec("INSERT INTO t (n) VALUES (?)", &json!([round]));
        let all: Vec<_> = (0..=round).map(|it| json!([it])).collect();
        assert_eq!(client.rows("SELECT n FROM t ORDER BY n"), json!(all), "{key}");
    }
}

fn create_tables(node: &Node) {
    for key in KEYS {
        node.client().with_key(key).exec("CREATE TABLE t (n INTEGER, v TEXT)", &json!([]));
    }
}

/// The folders of logs that there are, and `CURRENT`.
fn names(wal: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(wal).expect("a folder of logs");
    let names = entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

/// The generation that counts, and how many shards it belongs to.
fn current(wal: &Path) -> (String, u16) {
    let text = std::fs::read_to_string(wal.join("CURRENT")).expect("CURRENT");
    let generation = text.lines().nth(1).expect("it names one").to_owned();
    let n_shards = names(&wal.join(&generation)).len();
    (generation, u16::try_from(n_shards).expect("few"))
}

#[test]
fn a_node_goes_on_with_another_number_of_shards() {
    let steps = steps();
    let mut node = Node::start_keyed(steps[0], &[], ALL);
    create_tables(&node);
    for (round, n_shards) in steps.iter().enumerate() {
        if round > 0 {
            // Stopped or killed: it makes no difference.
            if round % 2 == 0 {
                node.kill();
            } else {
                assert!(node.stop().success());
            }
            node.change_shards(*n_shards);
            node.restart();
        }
        write_and_check(&node, round);
        let n_changes = node.log().matches("wrote the logs anew").count();
        assert_eq!(n_changes, changes(&steps[..=round]));
    }
    let generation = 1 + changes(&steps);
    assert_eq!(names(&node.data_dir().join("wal")), [generation.to_string(), "CURRENT".to_owned()]);
    assert_eq!(node.alarms(), Vec::<String>::new());
}

fn changes(steps: &[u16]) -> usize {
    steps.windows(2).filter(|it| it[0] != it[1]).count()
}

#[test]
fn kill_9_while_the_logs_are_written_anew_loses_nothing() {
    let mut node = Node::start_keyed(1, &[], ALL);
    create_tables(&node);
    let text = "x".repeat(TEXT_SIZE);
    for n in 0..N_TEXTS {
        let client = node.client().with_key(KEYS[n % KEYS.len()]);
        client.exec("INSERT INTO t (v) VALUES (?)", &json!([text]));
    }
    node.kill();
    let wal = node.data_dir().join("wal");
    let n_most = *steps().iter().max().expect("there are some");
    let (mut n_cut_short, mut n_switched) = (0, 0);
    for round in 0..if n_most == 1 { 0 } else { 12 } {
        let before = names(&wal);
        let found = current(&wal).1;
        node.change_shards(if found == 1 { n_most } else { 1 });
        node.launch();
        if round % 3 == 2 {
            let is_new = || (current(&wal).1 != found).then_some(());
            wait_until("it has switched", is_new);
        } else {
            wait_until("it has begun", || (names(&wal) != before).then_some(()));
        }
        node.kill();
        let folders = names(&wal).iter().filter(|it| it.parse::<u64>().is_ok()).count();
        n_cut_short += usize::from(folders > 1);
        n_switched += usize::from(current(&wal).1 != found);
    }
    println!("{n_cut_short} cut short, {n_switched} switched");
    assert!(n_most == 1 || n_cut_short > 0, "no kill came in between");
    node.restart();
    for (at, key) in KEYS.into_iter().enumerate() {
        let wanted = (0..N_TEXTS).filter(|it| it % KEYS.len() == at).count();
        let found = node.client().with_key(key).rows("SELECT count(*), sum(length(v)) FROM t");
        assert_eq!(found, json!([[wanted, wanted * TEXT_SIZE]]), "{key}");
    }
    let folders = names(&wal);
    assert_eq!(folders, [current(&wal).0, "CURRENT".to_owned()], "what was cut short is removed");
    write_and_check_after(&node);
}

fn write_and_check_after(node: &Node) {
    for key in KEYS {
        let client = node.client().with_key(key);
        client.exec("INSERT INTO t (n) VALUES (7)", &json!([]));
        assert_eq!(client.rows("SELECT count(*) FROM t WHERE n = 7"), json!([[1]]));
    }
}

#[test]
fn a_fenced_namespace_stays_fenced_with_another_number_of_shards() {
    let mut node = Node::start_keyed(1, &[], ALL);
    create_tables(&node);
    write_and_check(&node, 0);
    assert!(node.stop().success());
    let files = databases(&node);
    std::fs::write(&files[1], vec![0x5a; 4096 * 4]).expect("it can be damaged");
    let _ = std::fs::remove_file(files[1].with_extension("db-wal"));
    let n_most = *steps().iter().max().expect("there are some");
    for n_shards in [1, n_most, 1] {
        node.change_shards(n_shards);
        node.restart();
        let read = json!({ "sql": "SELECT n FROM t" });
        let (status, error) = node.client().with_key("k2").refused("/v1/rqlite/query", &read);
        assert_eq!((status, error.contains("fenced")), (503, true), "{n_shards} shards: {error}");
        for key in ["k1", "k3", "k4"] {
            assert_eq!(node.client().with_key(key).rows("SELECT n FROM t"), json!([[0]]));
        }
        node.kill();
    }
}

/// How it is refused to start.
fn refused(node: &mut Node) -> String {
    let before = node.log().len();
    let (code, said) = node.try_start();
    assert_eq!(code, Some(1), "{said}");
    said[before..].to_owned()
}

#[test]
fn what_is_refused_after_the_logs_were_written_anew_can_still_be_mended() {
    let n_most = *steps().iter().max().expect("there are some");
    if n_most == 1 {
        return;
    }
    let mut node = Node::start_keyed(1, &[], ALL);
    create_tables(&node);
    write_and_check(&node, 0);
    assert!(node.stop().success());
    let wal = node.data_dir().join("wal");
    // What the logs say nothing of: only the start that reads them all finds out.
    let manifest = node.data_dir().join("partitions/1/1/manifest");
    let whole = std::fs::read(&manifest).ok();
    std::fs::write(&manifest, "debros manifest 1\ncrc32c 00000000\n").expect("it can be damaged");
    for (round, n_shards) in [n_most, n_most, 1, n_most, 1].into_iter().enumerate() {
        node.change_shards(n_shards);
        let said = refused(&mut node);
        assert!(said.contains("the manifest in") && said.contains("is unusable"), "{said}");
        assert_eq!(current(&wal).1, n_shards, "round {round}: they were written anew");
        // Those before are there until what these say is accepted.
        assert!(names(&wal).contains(&"1".to_owned()), "{:?}", names(&wal));
        assert!(names(&wal).len() <= 4, "each leaves one more: {:?}", names(&wal));
    }
    match whole {
        Some(bytes) => std::fs::write(&manifest, bytes),
        None => std::fs::remove_file(&manifest),
    }
    .expect("it can be mended");
    node.restart();
    write_and_check(&node, 1);
    assert_eq!(names(&wal), [current(&wal).0, "CURRENT".to_owned()], "nothing else is left");
    for n_shards in [1, n_most] {
        node.kill();
        node.change_shards(n_shards);
        node.restart();
        for key in KEYS {
            let rows = node.client().with_key(key).rows("SELECT n FROM t ORDER BY n");
            assert_eq!(rows, json!([[0], [1]]), "{key}");
        }
    }
}

/// Whatever has acknowledged something before it was killed must start again, with any number of shards: the logs
/// of all others were there before the first door opened.
#[test]
fn kill_9_at_the_first_reply_of_a_new_node_leaves_one_that_starts() {
    let n_most = *steps().iter().max().expect("there are some");
    for n_shards in [n_most, 1, n_most] {
        // The last partition is not on the first core.
        let config = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(config.path(), "database: {shard_count: 5}\n").expect("it takes the text");
        let path = config.path().to_str().expect("UTF-8");
        let mut node = Node::new_keyed(n_most, &["--config", path], ALL);
        node.launch();
        let port = node.port;
        let is_over = AtomicBool::new(false);
        let told: Vec<_> = std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            let is_over = &is_over;
            for key in KEYS {
                let tell = tell.clone();
                scope.spawn(move || {
                    let create = json!({ "sql": "CREATE TABLE t (n INTEGER)" });
                    let is_created = wait_until("it is created, or the node is gone", || {
                        if is_over.load(Ordering::Relaxed) {
                            return Some(false);
                        }
                        let reply = Client::try_connect(port)?
                            .with_key(key)
                            .post("/v1/rqlite/exec", &create);
                        (reply.ok()?.status == 200).then_some(true)
                    });
                    if is_created {
                        tell.send(key).expect("somebody listens");
                    }
                });
            }
            drop(tell);
            let first = told.recv().expect("somebody is told");
            node.kill();
            is_over.store(true, Ordering::Relaxed);
            std::iter::once(first).chain(told).collect()
        });
        assert!(!told.is_empty(), "nothing was acknowledged");
        for n_shards in [n_shards, n_most] {
            node.change_shards(n_shards);
            node.restart();
            for key in &told {
                let rows = node.client().with_key(key).rows("SELECT count(*) FROM t");
                assert_eq!(rows, json!([[0]]), "{key}");
            }
            node.kill();
        }
    }
}
