//! A node as a child process, in a directory of its own, that never outlives its test.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::client::Client;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Keys that every node of the tests knows.
pub(crate) const KEYS: &str = "k1:default,k2:other";

/// A directory and the node that runs on it.
pub(crate) struct Node {
    dir: TempDir,
    pub(crate) port: u16,
    pub(crate) metrics_port: u16,
    shards: u16,
    extra: Vec<String>,
    keys: String,
    /// Whether the data directory is named relative to the working directory, as people do.
    is_relative: bool,
    child: Option<Child>,
}

impl Node {
    /// Start a node on an empty directory.
    pub(crate) fn start(shards: u16) -> Self {
        Self::start_with(shards, &[])
    }

    /// Start a node with more flags.
    pub(crate) fn start_with(shards: u16, extra: &[&str]) -> Self {
        Self::start_keyed(shards, extra, KEYS)
    }

    /// Start a node that knows these keys.
    pub(crate) fn start_keyed(shards: u16, extra: &[&str], keys: &str) -> Self {
        let mut node = Self::new_keyed(shards, extra, keys);
        node.restart();
        node
    }

    /// One that knows these keys, and is not started yet.
    pub(crate) fn new_keyed(shards: u16, extra: &[&str], keys: &str) -> Self {
        let [port, metrics_port] = free_ports();
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            port,
            metrics_port,
            shards,
            extra: extra.iter().map(|it| (*it).to_owned()).collect(),
            keys: keys.to_owned(),
            is_relative: false,
            child: None,
        }
    }

    /// Name the data directory by a relative path from the next start on.
    pub(crate) fn go_relative(&mut self) {
        self.is_relative = true;
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Start it (again) on the same directory and port, and wait until it answers.
    pub(crate) fn restart(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    /// Start it without waiting for anything.
    pub(crate) fn launch(&mut self) {
        let mut command = self.command();
        self.child = Some(command.spawn().expect("the executable starts"));
    }

    /// How many shards it has from the next start on.
    pub(crate) fn change_shards(&mut self, shards: u16) {
        self.shards = shards;
    }

    /// Start it where it cannot run; its exit code, if it was not killed, and all it has said.
    pub(crate) fn try_start(&mut self) -> (Option<i32>, String) {
        let mut child = self.command().spawn().expect("the executable starts");
        let ended = wait_until("it has given up", || child.try_wait().expect("it can be asked"));
        (ended.code(), self.log())
    }

    fn command(&self) -> Command {
        assert!(self.child.is_none(), "it runs");
        let [http, raft, p2p] = free_ports();
        let mut command = binary();
        command
            .arg("node")
            .arg("--data")
            .arg(if self.is_relative { PathBuf::from("./data") } else { self.data_dir() })
            .current_dir(self.dir.path())
            .args(["--gateway-addr", &format!("127.0.0.1:{}", self.port)])
            .args(["--metrics-addr", &format!("127.0.0.1:{}", self.metrics_port)])
            .args(["--shards", &self.shards.to_string()])
            .args(["--rqlite-http-port", &http.to_string()])
            .args(["--rqlite-raft-port", &raft.to_string()])
            .args(["--p2p-port", &p2p.to_string()])
            .args(&self.extra)
            .env("GATEWAY_API_KEYS", &self.keys)
            .stdout(self.log_file())
            .stderr(self.log_file());
        command
    }

    fn log_file(&self) -> Stdio {
        let path = self.dir.path().join("log");
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true).open(path).expect("a log file").into()
    }

    fn wait_until_ready(&mut self) {
        wait_until("the node answers", || {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                panic!("the node ended with {status}:\n{}", self.log());
            }
            let client = Client::try_connect(self.port)?;
            client.get("/health").is_ok_and(|reply| reply.status == 200).then_some(())
        });
    }

    /// Everything it has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn client(&self) -> Client {
        Client::try_connect(self.port).expect("the node listens")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("the child can be killed");
        child.wait().expect("the child ends");
    }

    /// SIGTERM; how it ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill runs").success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        wait_until("the node has stopped", || child.try_wait().expect("the child can be asked"))
    }

    /// Lines of the log that a person should not have to see.
    pub(crate) fn alarms(&self) -> Vec<String> {
        // How fast the machine is says nothing of the node.
        let is_alarm = |it: &&str| {
            it.contains("ERROR") || (it.contains("WARN") && !it.contains("slow statement"))
        };
        self.log().lines().filter(is_alarm).map(ToOwned::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Best effort: the test has its verdict already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let kept = self.log();
            let tail: Vec<_> = kept.lines().rev().take(30).collect();
            for line in tail.iter().rev() {
                println!("node: {line}");
            }
        }
    }
}

/// Ask again and again, with short pauses, until there is an answer; give up after [`PATIENCE`].
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The executable that was built for these tests.
pub(crate) fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_debros"))
}

/// A port that nobody listens on right now.
pub(crate) fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

/// Several of them, none twice.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|it| it.local_addr().expect("an address").port())
}

/// Run the executable to its end, which is soon; status code, standard output, standard error.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the executable starts");
    let stdout = read_all(child.stdout.take().expect("it is piped"));
    let stderr = read_all(child.stderr.take().expect("it is piped"));
    let deadline = Instant::now() + PATIENCE * 2;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let text = |it: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&it.join().expect("its output can be read")).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let status = status.unwrap_or_else(|| panic!("it did not end: {stdout}{stderr}"));
    (status.code(), stdout, stderr)
}

/// What comes until the other end is closed.
fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// The value of a `kB` line of `/proc/<pid>/status`.
pub(crate) fn status_kb(pid: u32, key: &str) -> u64 {
    let file = std::fs::File::open(Path::new("/proc").join(pid.to_string()).join("status"));
    let lines = BufReader::new(file.expect("the process runs")).lines();
    let value = lines.map_while(Result::ok).find_map(|line| {
        let rest = line.strip_prefix(key)?.strip_prefix(':')?;
        rest.trim().trim_end_matches("kB").trim().parse().ok()
    });
    value.expect("the kernel tells")
}

/// Processor time of a process since it began, in milliseconds, in steps of 10.
pub(crate) fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // Its name, which may hold anything, is in parentheses; the times are the fields 14 and 15.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let times = fields.split(' ').skip(11).take(2);
    let hundredths: u64 = times.map(|it| it.parse::<u64>().expect("a number")).sum();
    hundredths * 10
}
