//! Namespaces that were written once, and are idle: what each of them keeps is bounded.

use std::fmt::Write;
use std::fs;
use std::time::Instant;

use serde_json::json;

use crate::bad_http::n_files;
use crate::process::Node;
use crate::process::cpu_ms;
use crate::process::status_kb;
use crate::process::wait_until;

/// Namespaces, several times as many as databases may be open.
const N: usize = 300;
/// Namespaces whose first writes are timed: at the beginning, and when all others are there.
const N_MORE: usize = 20;
/// Processor time by which the later ones may differ, beside a factor: databases are opened and closed meanwhile.
const CPU_BESIDE_MS_MAX: u64 = 300;
/// Databases that may be open.
const N_OPEN: usize = 32;
/// Memory that a namespace may keep when its database is not open.
const EACH_KB_MAX: u64 = 16;
/// And beside that: databases that are open, buffers of the log.
const BESIDE_KB_MAX: u64 = 24 << 10;

#[test]
fn idle_namespaces_cost_little() {
    let mut keys = String::from("k1:default,k2:other");
    for nth in 0..N + N_MORE {
        write!(keys, ",i{nth}:n{nth}").expect("a String takes all");
    }
    let config = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("limits:\n  open_databases: {N_OPEN}\n");
    fs::write(config.path(), text).expect("it takes the text");
    let path = config.path().to_str().expect("UTF-8");
    let node = Node::start_keyed(2, &["--config", path], &keys);
    let write = |nth: usize| {
        let client = node.client().with_key(&format!("i{nth}"));
        client.exec("CREATE TABLE t(v)", &json!([]));
        client.exec("INSERT INTO t VALUES (?)", &json!([nth]));
    };
    node.client().exec("CREATE TABLE t(v)", &json!([]));
    let (files, memory) = (n_files(node.pid())[1], status_kb(node.pid(), "VmRSS"));
    let cpu = cpu_ms(node.pid());
    (0..N_MORE).for_each(write);
    let cpu_first = cpu_ms(node.pid()) - cpu;
    (N_MORE..N).for_each(write);
    let is_database = |it: &fs::DirEntry| {
        fs::read_link(it.path()).is_ok_and(|it| it.extension().is_some_and(|it| it == "db"))
    };
    let n_databases = || {
        let entries = fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("the process runs");
        entries.filter(|it| it.as_ref().is_ok_and(is_database)).count()
    };
    // The engine's own are open too, and one more per core while it changes places with another.
    wait_until("most are closed", || (n_databases() <= N_OPEN + 16).then_some(()));
    let (after, databases) = (status_kb(node.pid(), "VmRSS"), n_databases());
    println!(
        "{N} namespaces: {memory} kB became {after} kB; {databases} databases, {files} files before, {} now",
        n_files(node.pid())[1]
    );
    let bound = memory + BESIDE_KB_MAX + N as u64 * EACH_KB_MAX;
    assert!(after < bound, "{memory} kB became {after} kB, may be {bound} kB");
    // A database that is open has its `-wal` and `-shm` beside.
    assert!(
        n_files(node.pid())[1] <= files + 4 * (N_OPEN + 16),
        "{} files",
        n_files(node.pid())[1]
    );
    let (cpu, began) = (cpu_ms(node.pid()), Instant::now());
    (N..N + N_MORE).for_each(write);
    let (cpu_last, took) = (cpu_ms(node.pid()) - cpu, began.elapsed());
    println!(
        "the first {N_MORE} took {cpu_first} ms of a processor; {N_MORE} more: {cpu_last} ms, {took:?}"
    );
    // Not by the clock: how long the disk takes is not the node's affair.
    let bound = cpu_first * 2 + CPU_BESIDE_MS_MAX;
    assert!(cpu_last < bound, "{N_MORE} took {cpu_first} ms of a processor, then {cpu_last} ms");
    for nth in [0, N / 2, N, N + N_MORE - 1] {
        let client = node.client().with_key(&format!("i{nth}"));
        assert_eq!(client.rows("SELECT v FROM t"), json!([[nth]]));
    }
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}
