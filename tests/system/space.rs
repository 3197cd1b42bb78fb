//! Space: free pages come back, quotas hold, and a disk that fills up stops neither the node nor reads.
//!
//! The disk is a tmpfs in a mount namespace of its own, in which the test starts itself again: it needs to be
//! run as root, or by somebody who may make user namespaces.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::client::Client;
use crate::client::Reply;
use crate::fence::databases;
use crate::process::Node;
use crate::process::wait_until;

pub(crate) const MIB: u64 = 1 << 20;

/// A node with this configuration.
pub(crate) fn configured(dir: &TempDir, text: &str) -> Node {
    let path = dir.path().join("node.yaml");
    std::fs::write(&path, text).expect("a configuration");
    Node::start_with(1, &["--config", path.to_str().expect("a path of text")])
}

pub(crate) fn exec(client: &Client, sql: &str) -> Reply {
    client.post("/v1/rqlite/exec", &json!({ "sql": sql })).expect("an answer")
}

/// Insert rows of 100 kB.
fn fill(client: &Client, rows: u64) -> Reply {
    exec(
        client,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO t(v) SELECT zeroblob(100000) FROM n"
        ),
    )
}

pub(crate) fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |it| it.len())
}

/// Stop the node, and have SQLite look at the file.
fn check_integrity(mut node: Node, file: &Path) {
    assert!(node.stop().success());
    let connection = rusqlite::Connection::open(file).expect("it can be opened");
    let verdict = connection.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0));
    assert_eq!(verdict.as_deref(), Ok("ok"));
}

/// Status and code of a refusal.
pub(crate) fn refusal(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_file_shrinks_by_itself_after_deletions_while_writes_are_served() {
    let node = Node::start(1);
    let client = node.client();
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)", &json!([]));
    client.exec("CREATE TABLE small (v TEXT)", &json!([]));
    for _ in 0..6 {
        let reply = fill(&client, 50);
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let file = databases(&node).remove(0);
    let wal = file.with_extension("db-wal");
    assert!(size_of(&file) + size_of(&wal) > 25 * MIB);
    client.exec("DELETE FROM t WHERE id % 20 <> 0", &json!([]));
    let n_written = AtomicU64::new(0);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = EndOfTest(&is_done);
        scope.spawn(|| {
            let client = node.client();
            while !is_done.load(Ordering::Relaxed) {
                client.exec("INSERT INTO small VALUES ('x')", &json!([]));
                n_written.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_until("the files are small", || {
            (size_of(&file) < 3 * MIB && size_of(&wal) < 9 * MIB).then_some(())
        });
    });
    let n_written = n_written.into_inner();
    assert!(n_written > 0, "nothing was written meanwhile");
    assert_eq!(client.rows("SELECT count(*) FROM small"), json!([[n_written]]));
    assert_eq!(client.rows("SELECT count(*), sum(length(v)) FROM t"), json!([[15, 1_500_000]]));
    assert_eq!(node.alarms(), Vec::<String>::new());
    check_integrity(node, &file);
}

#[test]
fn a_full_database_takes_deletions_and_then_writes_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = configured(&dir, "limits: {database_bytes: 20971520}\n");
    let client = node.client();
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)", &json!([]));
    let full = (0..100).map(|_| fill(&client, 10)).find(|it| it.status != 200);
    let full = full.expect("100 MB do not fit");
    assert_eq!(refusal(&full), (507, "database_bytes".to_owned()));
    // To the last page, so that not even the smallest fits.
    let small = (0..2_000).map(|_| exec(&client, "INSERT INTO t(v) VALUES (zeroblob(3500))"));
    let refused = small.into_iter().find(|it| it.status != 200).expect("it is full");
    assert_eq!(refusal(&refused), (507, "database_bytes".to_owned()));
    // A neighbour has a quota of its own.
    node.client().with_key("k2").exec("CREATE TABLE t (v)", &json!([]));
    client.exec("DELETE FROM t WHERE id % 2 = 0", &json!([]));
    assert_eq!(fill(&client, 10).status, 200);
    let file = databases(&node).remove(0);
    check_integrity(node, &file);
}

/// Run this test again, alone, where it can mount what it likes. Whether it is there already.
pub(crate) fn is_in_own_namespace(test: &str) -> bool {
    const INSIDE: &str = "DEBROS_TEST_IN_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    // SAFETY of the flags: -m alone takes root, -Ur makes one for whoever may.
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|it| it.stdout == b"0\n");
    let status = Command::new("unshare")
        .arg(if is_root { "-m" } else { "-Urm" })
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("`unshare` of util-linux runs");
    assert!(
        status.success(),
        "{test} failed in a mount namespace of its own; if that could not be made, run it as root or allow \
         user namespaces"
    );
    false
}

/// A small disk, and a node with its databases and logs there.
pub(crate) struct SmallDisk {
    dir: TempDir,
    mount: PathBuf,
}

impl SmallDisk {
    pub(crate) fn mount(mib: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mount = dir.path().join("disk");
        std::fs::create_dir(&mount).expect("a directory");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(&mount)
            .status();
        assert!(status.is_ok_and(|it| it.success()), "a tmpfs can be mounted here");
        Self { dir, mount }
    }

    pub(crate) fn start(&self, reserve_mib: u64) -> Node {
        self.start_limited(reserve_mib, "")
    }

    /// With more limits: each `name: value`, and a comma before it.
    pub(crate) fn start_limited(&self, reserve_mib: u64, limits: &str) -> Node {
        let data = self.data_dir();
        let text = format!(
            "database: {{data_dir: {}, shard_count: 2}}\nlimits: {{disk_reserve_bytes: {}{limits}}}\n",
            data.display(),
            reserve_mib * MIB
        );
        configured(&self.dir, &text)
    }

    /// Where databases and logs are.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Whether the log has a segment of full size.
    pub(crate) fn has_whole_segment(&self) -> bool {
        let files = std::fs::read_dir(self.mount.join("data/wal/1/0")).expect("a log");
        files.filter_map(Result::ok).any(|it| {
            it.path().extension().is_some_and(|it| it == "log") && size_of(&it.path()) == 64 * MIB
        })
    }

    /// Bytes that are free.
    pub(crate) fn free(&self) -> u64 {
        let output = Command::new("df").args(["-B1", "--output=avail"]).arg(&self.mount).output();
        let text = String::from_utf8(output.expect("`df` runs").stdout).expect("text");
        text.lines().nth(1).and_then(|it| it.trim().parse().ok()).expect("a number")
    }

    /// A file that leaves `bytes` free; zero takes all there is.
    pub(crate) fn fill_up_to(&self, bytes: u64) -> PathBuf {
        let path = self.mount.join("filler");
        let mut file = File::options().append(true).create(true).open(&path).expect("a file");
        let zeros = vec![0; 1 << 16];
        while self.free() > bytes {
            let n = self.free().saturating_sub(bytes).div_ceil(1 << 16).min(512);
            for _ in 0..n {
                if file.write_all(&zeros).is_err() {
                    return path;
                }
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Best effort: the namespace takes it along in any case.
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

/// Writes numbered rows until it is told to stop.
pub(crate) struct Writer {
    pub(crate) acknowledged: Vec<u64>,
    pub(crate) n_refused: u64,
    /// How requests ended that were neither done nor refused for want of room.
    pub(crate) others: Vec<String>,
}

/// Whatever happens to the test, its writers come to an end.
pub(crate) struct EndOfTest<'a>(pub(crate) &'a AtomicBool);

impl Drop for EndOfTest<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn write_until(
    node: &Node,
    is_done: &AtomicBool,
    key: &'static str,
    first: u64,
) -> Writer {
    let client = node.client().with_key(key);
    let mut writer = Writer { acknowledged: Vec::new(), n_refused: 0, others: Vec::new() };
    let sql = "INSERT INTO t(id, v) VALUES (?, zeroblob(20000))";
    for id in first.. {
        if is_done.load(Ordering::Relaxed) {
            break;
        }
        let reply = client.post("/v1/rqlite/exec", &json!({ "sql": sql, "args": [id] }));
        let reply = reply.expect("the node lives");
        match reply.status {
            200 => writer.acknowledged.push(id),
            507 => {
                assert_eq!(refusal(&reply).1, "disk_reserve");
                writer.n_refused += 1;
                thread::sleep(Duration::from_millis(2)); // not in order to wait: not to spin
            }
            _ => writer.others.push(reply.body),
        }
    }
    writer
}

pub(crate) fn ids(client: &Client) -> Vec<u64> {
    let rows = client.rows("SELECT id FROM t WHERE id >= 0 ORDER BY id");
    let number = |row: &Value| row[0].as_u64().expect("a number");
    rows.as_array().expect("rows").iter().map(number).collect()
}

#[test]
fn a_disk_that_fills_up_takes_deletions_only_and_resumes_by_itself() {
    if !is_in_own_namespace(
        "space::a_disk_that_fills_up_takes_deletions_only_and_resumes_by_itself",
    ) {
        return;
    }
    let disk = SmallDisk::mount(600);
    let node = disk.start(240);
    let client = node.client();
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)", &json!([]));
    client.exec("CREATE TABLE old (v BLOB)", &json!([]));
    client.exec("INSERT INTO old VALUES (zeroblob(1000000)), (zeroblob(1000000))", &json!([]));
    // The log takes what it needs for a while, so that the reserves are not passed by it.
    client.exec("INSERT INTO old VALUES (length(?))", &json!(["x".repeat(2 << 20)]));
    wait_until("the log has its next segment", || disk.has_whole_segment().then_some(()));
    let is_done = AtomicBool::new(false);
    let writer = thread::scope(|scope| {
        let end = EndOfTest(&is_done);
        let writer = scope.spawn(|| write_until(&node, &is_done, "k1", 0));
        // Between the reserves.
        let filler = disk.fill_up_to(200 * MIB);
        let other = wait_until("writes are refused", || {
            let reply = exec(&client, "INSERT INTO old VALUES (1)");
            (reply.status == 507).then_some(reply)
        });
        assert_eq!(refusal(&other), (507, "disk_reserve".to_owned()));
        assert_eq!(client.rows("SELECT count(*) FROM old WHERE length(v) = 1000000"), json!([[2]]));
        client.exec("DELETE FROM old WHERE rowid = 1", &json!([]));
        let newcomer = exec(&node.client().with_key("k2"), "CREATE TABLE t (v)");
        assert_eq!(refusal(&newcomer), (507, "disk_reserve".to_owned()), "no new namespaces");
        // Below both.
        disk.fill_up_to(60 * MIB);
        let delete = "DELETE FROM old WHERE rowid = 2";
        wait_until("deletions are refused", || (exec(&client, delete).status == 507).then_some(()));
        client.exec("DROP TABLE old", &json!([]));
        assert!(ids(&client).len() > 1, "reads go on");
        std::fs::remove_file(filler).expect("it can be removed");
        wait_until("writes are taken again", || {
            (exec(&client, "CREATE TABLE IF NOT EXISTS new (v)").status == 200).then_some(())
        });
        drop(end);
        writer.join().expect("the writer is well")
    });
    assert!(writer.n_refused > 0 && writer.others.is_empty(), "{:?}", writer.others);
    assert_eq!(ids(&client), writer.acknowledged);
    node.client().with_key("k2").exec("CREATE TABLE t (v)", &json!([]));
    let alarms = node.alarms();
    assert!(alarms.iter().all(|it| it.contains("the disk is")), "{alarms:?}");
    // The first may have been passed in one go.
    assert!((1..=2).contains(&alarms.len()), "each was told once: {alarms:?}");
    assert!(node.log().contains("the disk has room again"));
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_loses_nothing_and_stops_nobody() {
    if !is_in_own_namespace(
        "space::a_disk_that_is_full_to_the_last_byte_loses_nothing_and_stops_nobody",
    ) {
        return;
    }
    let disk = SmallDisk::mount(300);
    // No reserve: nothing keeps writers from the very end.
    let mut node = disk.start(0);
    let client = node.client();
    for key in ["k1", "k2"] {
        let client = node.client().with_key(key);
        client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)", &json!([]));
        client.exec("INSERT INTO t VALUES (-1, NULL)", &json!([]));
    }
    let pid = node.pid();
    let is_done = AtomicBool::new(false);
    let writers = thread::scope(|scope| {
        let node = &node;
        let is_done = &is_done;
        let end = EndOfTest(is_done);
        let writers = ["k1", "k1", "k2", "k2"]
            .into_iter()
            .zip((0..).step_by(1_000_000))
            .map(|(key, first)| (key, scope.spawn(move || write_until(node, is_done, key, first))));
        let writers: Vec<_> = writers.collect();
        for round in 0..3 {
            let filler = disk.fill_up_to(0);
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                let rows = client.rows("SELECT count(*) FROM t WHERE id = -1");
                assert_eq!(rows, json!([[1]]), "round {round}: reads go on");
                disk.fill_up_to(0);
            }
            std::fs::remove_file(filler).expect("it can be removed");
            wait_until("writes are taken again", || {
                (exec(&client, "CREATE TABLE IF NOT EXISTS new (v)").status == 200).then_some(())
            });
        }
        drop(end);
        writers
            .into_iter()
            .map(|(key, it)| (key, it.join().expect("the writer is well")))
            .collect::<Vec<_>>()
    });
    assert_eq!(node.pid(), pid);
    for round in ["at once", "after kill -9"] {
        for key in ["k1", "k2"] {
            let found = ids(&node.client().with_key(key));
            let own = writers.iter().filter(|(it, _)| *it == key).map(|(_, it)| it);
            for id in own.flat_map(|it| &it.acknowledged) {
                assert!(found.binary_search(id).is_ok(), "{key} lost {id}, seen {round}");
            }
        }
        if round == "at once" {
            node.kill();
            node.restart();
        }
    }
    let alarms = node.alarms();
    assert!(alarms.iter().all(|it| it.contains("no room")), "{alarms:?}");
}

#[test]
fn a_node_says_that_there_is_no_room_to_start() {
    if !is_in_own_namespace("space::a_node_says_that_there_is_no_room_to_start") {
        return;
    }
    let disk = SmallDisk::mount(60);
    let mut node = disk.start(0);
    node.client().exec("CREATE TABLE t (v)", &json!([]));
    node.kill();
    disk.fill_up_to(0);
    let (code, said) = node.try_start();
    assert_eq!(code, None, "it is aborted, as after any trouble with the log: {said}");
    assert!(said.contains("4194304 bytes for the first segment"), "{said}");
    std::fs::remove_file(disk.mount.join("filler")).expect("it can be removed");
    node.restart();
    assert_eq!(node.client().rows("SELECT count(*) FROM t"), json!([[0]]));
}

#[test]
fn a_disk_without_room_for_other_logs_leaves_the_old_ones() {
    if !is_in_own_namespace("space::a_disk_without_room_for_other_logs_leaves_the_old_ones")
        || thread::available_parallelism().is_ok_and(|it| it.get() < 2)
    {
        return;
    }
    let disk = SmallDisk::mount(300);
    let mut node = disk.start(0);
    node.client().exec("CREATE TABLE t (v)", &json!([]));
    let text = "x".repeat(1 << 20);
    for _ in 0..20 {
        node.client().exec("INSERT INTO t VALUES (?)", &json!([text]));
    }
    node.kill();
    disk.fill_up_to(10 * MIB);
    node.change_shards(2);
    let (code, said) = node.try_start();
    assert_eq!(code, Some(1), "{said}");
    let want = "belong to 1 shards, the configuration says 2, and the disk has no room";
    assert!(said.contains(want) && said.contains("or start with 1 shards"), "{said}");
    node.change_shards(1);
    node.restart();
    assert_eq!(node.client().rows("SELECT count(*) FROM t"), json!([[20]]));
    node.kill();
    std::fs::remove_file(disk.mount.join("filler")).expect("it can be removed");
    node.change_shards(2);
    node.restart();
    assert_eq!(node.client().rows("SELECT count(*) FROM t"), json!([[20]]));
}
