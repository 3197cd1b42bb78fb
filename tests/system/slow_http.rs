//! Clients that take their time: they are closed at the deadlines, while others are served.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::bad_http::OTHERS_WAIT_MAX;
use crate::bad_http::be_another;
use crate::bad_http::n_files;
use crate::bad_http::wait_for_files;
use crate::metrics::Page;
use crate::process::Node;
use crate::process::PATIENCE;
use crate::process::status_kb;
use crate::process::wait_until;

/// The shortest deadlines that leave room for a busy machine.
const CONFIG: &str = "gateway:
  header_timeout: 1s
  body_timeout: 1s
  reply_timeout: 1s
  idle_timeout: 1s
";
/// Of each kind.
const N_CLIENTS: usize = 75;
/// Between two bytes of a client: less than any deadline.
const DRIP: Duration = Duration::from_millis(20);
/// Clients that ask for much, and do not read it.
const N_DEAF: usize = 8;
/// Bytes that each asks for at once: more than the kernel holds for both sides.
const DEAF_SIZE: usize = 64 << 20;
/// Memory that they may leave resident: the allocator keeps for a while what their replies took, which is 4 MiB each,
/// read and written.
const GROWTH_KB_MAX: u64 = 96 << 10;

/// What is sent at once, and what is sent in drops without end.
const KINDS: [(&str, &[u8], &str); 4] = [
    ("says nothing", b"", ""),
    ("drips a head", b"GET /v1/version HTTP/1.1\r\nHost: t\r\n", ""),
    (
        "drips a body",
        b"POST /v1/rqlite/query HTTP/1.1\r\nHost: t\r\nX-API-Key: k1\r\nContent-Length: 9000000\r\n\r\n",
        "HTTP/1.1 408 ",
    ),
    (
        "drips an extension",
        b"POST /v1/rqlite/query HTTP/1.1\r\nHost: t\r\nX-API-Key: k1\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        "HTTP/1.1 408 ",
    ),
];

struct Slow {
    stream: TcpStream,
    kind: usize,
    began: Instant,
    heard: Vec<u8>,
    is_closed: bool,
}

impl Slow {
    fn begin(port: u16, kind: usize) -> Self {
        // Before the node can know of it: none may seem to be closed too early.
        let began = Instant::now();
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
        (&stream).write_all(KINDS[kind].1).expect("the node reads");
        stream.set_nonblocking(true).expect("a socket");
        Self { stream, kind, began, heard: Vec::new(), is_closed: false }
    }

    /// One more byte, and a look whether it was too much.
    fn go_on(&mut self) {
        if self.kind > 0 {
            // It may be closed already, which reading tells.
            let _ = (&self.stream).write(b"x");
        }
        let mut chunk = [0; 1024];
        match (&self.stream).read(&mut chunk) {
            Ok(n) if n > 0 => self.heard.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.is_closed = true,
        }
    }
}

#[test]
fn slow_clients_are_closed_at_their_deadlines_and_cost_nobody_else() {
    let mut config = tempfile::NamedTempFile::new().expect("a file");
    config.write_all(CONFIG.as_bytes()).expect("it takes the text");
    let node = Node::start_with(2, &["--config", config.path().to_str().expect("UTF-8")]);
    node.client().with_key("k2").exec("CREATE TABLE mine(a)", &json!([]));
    let value = "x".repeat(4 << 20);
    let reply = node.client().request("PUT", "/v1/storage/put?key=large", &value);
    assert_eq!(reply.expect("an answer").status, 201);
    wait_until("no client is left", || (n_connections(&node) == 0).then_some(()));
    let (files, memory) = (n_files(node.pid()), status_kb(node.pid(), "VmRSS"));

    let stop = AtomicBool::new(false);
    let mut took = std::thread::scope(|scope| {
        let another = scope.spawn(|| be_another(node.port, &stop));
        drip(node.port);
        be_deaf(&node);
        stop.store(true, Ordering::Relaxed);
        another.join().expect("others are served")
    });
    took.sort();
    let (median, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("another client: median {median:?}, p99 {p99:?}, {} answers", took.len());
    assert!(p99 < OTHERS_WAIT_MAX, "another client waited {p99:?}");
    Page::read_anew(&node).assert_short_turns();
    wait_for_files(node.pid(), files);
    let after = status_kb(node.pid(), "VmRSS");
    println!("resident before {memory} kB, after {after} kB");
    assert!(after < memory + GROWTH_KB_MAX, "{memory} kB became {after} kB");
    assert!(node.alarms().is_empty(), "{:?}", node.alarms());
}

/// Hundreds of clients that send a byte now and then, until the last is closed.
fn drip(port: u16) {
    let begin = |nth: usize| Slow::begin(port, nth % KINDS.len());
    let mut all: Vec<_> = (0..N_CLIENTS * KINDS.len()).map(begin).collect();
    let mut longest = Duration::ZERO;
    while !all.is_empty() {
        for slow in &mut all {
            slow.go_on();
            let (took, what) = (slow.began.elapsed(), KINDS[slow.kind].0);
            assert!(took < PATIENCE, "who {what} is still there after {took:?}");
            if slow.is_closed {
                assert!(took >= Duration::from_secs(1), "who {what} was closed after {took:?}");
                let heard = String::from_utf8_lossy(&slow.heard);
                let want = KINDS[slow.kind].2;
                let is_right =
                    if want.is_empty() { heard.is_empty() } else { heard.starts_with(want) };
                assert!(is_right, "who {what} heard {heard:?}");
                longest = longest.max(took);
            }
        }
        all.retain(|it| !it.is_closed);
        std::thread::sleep(DRIP);
    }
    println!("{} slow clients, the last closed after {longest:?}", N_CLIENTS * KINDS.len());
}

/// Clients that ask for much and read nothing, until the node has closed them all.
fn be_deaf(node: &Node) {
    let request = "GET /v1/storage/get?key=large HTTP/1.1\r\nHost: t\r\nX-API-Key: k1\r\n\r\n";
    let requests = request.repeat(DEAF_SIZE / (4 << 20));
    let deaf: Vec<_> = (0..N_DEAF)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", node.port)).expect("the node listens");
            (&stream).write_all(requests.as_bytes()).expect("the node reads");
            stream
        })
        .collect();
    let began = Instant::now();
    // One is the client that is served meanwhile.
    wait_until("the deaf are closed", || (n_connections(node) <= 1).then_some(()));
    println!("{} deaf clients closed after {:?}", deaf.len(), began.elapsed());
}

/// Connections to the gateway that the node has open now, as its metrics tell.
fn n_connections(node: &Node) -> usize {
    let mut stream = TcpStream::connect(("127.0.0.1", node.metrics_port)).expect("metrics");
    let request = b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("the node reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a page");
    let lines = page.lines().filter(|it| it.starts_with("debros_connections{"));
    let values: Vec<usize> = lines.filter_map(|it| it.rsplit_once(' ')?.1.parse().ok()).collect();
    assert!(!values.is_empty(), "the metrics tell");
    values.into_iter().sum()
}
