//! The server on a real executor, over real sockets.

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future;
use http::Response;
use http::StatusCode;
use http::request::Parts;

use crate::http::Moved;
use crate::http::Options;
use crate::http::Refusal;
use crate::http::Sender;
use crate::http::ServedBy;
use crate::http::Server;
use crate::http::Service;
use crate::http::activity::Timeouts;
use crate::http::body::Content;
use crate::http::body::Pieces;
use crate::http::places::Places;
use crate::http::shutdown::Shutdown;
use crate::http::sleep::now;
use crate::http::testing::Client;
use crate::http::testing::Running;
use crate::http::testing::on_executor;
use crate::limits;
use crate::types::ShardId;

/// What hyper says to a head that it cannot read.
const BARE_REFUSAL: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
    date: Mon, 23 Nov 2026 00:00:00 GMT\r\n\r\n";

/// Echoes bodies; `/panic` panics, `/wait` waits for the gate.
#[derive(Default)]
struct Echo {
    gate: Rc<Gate>,
    /// Connections handed over after `/elsewhere`, and to which core.
    moved: Rc<RefCell<Vec<(ShardId, Moved)>>>,
    /// Pieces of `/endless` so far.
    n_made: Rc<Cell<u32>>,
}

/// Pieces that say how many are left, each asked for twice before it is there.
#[derive(Debug)]
struct Countdown {
    left: u32,
    breaks_at: Option<u32>,
    /// What each says instead.
    says: Option<&'static str>,
    is_there: bool,
    n_made: Rc<Cell<u32>>,
}

impl Countdown {
    fn new(left: u32, breaks_at: Option<u32>) -> Self {
        Self { left, breaks_at, says: None, is_there: false, n_made: Rc::default() }
    }
}

impl Pieces for Countdown {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.is_there = !self.is_there;
        if self.is_there {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.breaks_at == Some(self.left) {
            return Poll::Ready(Some(Err(io::Error::other("broken"))));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.n_made.set(self.n_made.get() + 1);
        if let Some(text) = self.says {
            return Poll::Ready(Some(Ok(text.into())));
        }
        let text = format!("{:>1$}\n", self.left, if self.left > 1_000 { 9_999 } else { 2 });
        Poll::Ready(Some(Ok(text.into())))
    }
}

#[derive(Default)]
struct Gate {
    is_open: Cell<bool>,
    n_waiting: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
}

impl Gate {
    fn open(&self) {
        self.is_open.set(true);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    async fn pass(&self) {
        self.n_waiting.set(self.n_waiting.get() + 1);
        future::poll_fn(|cx| {
            self.wakers.borrow_mut().push(cx.waker().clone());
            if self.is_open.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Service for Echo {
    async fn call(&self, head: Parts, body: Bytes) -> Response<Content> {
        match head.uri.path() {
            "/panic" => panic!("one bad request"),
            "/wait" => self.gate.pass().await,
            "/elsewhere" => {
                let mut reply = Response::new(Content::Whole(body));
                reply.extensions_mut().insert(ServedBy::Core(ShardId(7)));
                return reply;
            }
            "/large" => return Response::new(Bytes::from(vec![b'x'; 24 << 20]).into()),
            "/pieces" => return Response::new(Content::Pieces(Box::new(Countdown::new(20, None)))),
            "/refusals" => {
                let countdown = Countdown { says: Some(BARE_REFUSAL), ..Countdown::new(9, None) };
                return Response::new(Content::Pieces(Box::new(countdown)));
            }
            "/broken" => {
                return Response::new(Content::Pieces(Box::new(Countdown::new(20, Some(7)))));
            }
            "/endless" => {
                let mut endless = Countdown::new(u32::MAX, None);
                endless.n_made = Rc::clone(&self.n_made);
                let mut reply = Response::new(Content::Pieces(Box::new(endless)));
                reply.extensions_mut().insert(ServedBy::Core(ShardId(7)));
                return reply;
            }
            _ => {}
        }
        Response::new(body.into())
    }

    fn admit(&self, head: &Parts) -> Result<Sender, Response<Bytes>> {
        let is_secret = head.uri.path() == "/secret";
        if is_secret {
            Err(Response::new(Bytes::from_static(b"who are you")))
        } else {
            Ok(Sender(1))
        }
    }

    fn refuse(&self, _: &Parts, refusal: Refusal) -> Response<Bytes> {
        let status = match refusal {
            Refusal::HeadBroken | Refusal::BodyMalformed => StatusCode::BAD_REQUEST,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Refusal::Overloaded | Refusal::TooManyConnections | Refusal::BodyBroken => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        let mut reply = Response::new(Bytes::from(refusal.to_string()));
        *reply.status_mut() = status;
        reply
    }

    fn hand_over(&self, core: ShardId, connection: Moved) {
        self.moved.borrow_mut().push((core, connection));
    }
}

/// Small bounds; patience for everything that a test does not time.
fn options() -> Options {
    let long = Duration::from_mins(1);
    Options {
        places: Places::new(8),
        n_cores: 1,
        header_bytes_max: 16 << 10,
        body_bytes_max: 1 << 20,
        held_bytes_max: 4 << 20,
        timeouts: Timeouts { head: long, body: long, write: long, idle: long, linger: long },
        drain_timeout: long,
        interrupts: false,
    }
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Client {
    /// Requests that another core serves.
    async fn ask_elsewhere(&mut self, n: usize) {
        for _ in 0..n {
            self.send(post("/elsewhere", "x")).await;
            assert_eq!(self.brief().await, "200 x");
        }
    }
}

/// Let other tasks run until something holds.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        future::yield_now().await;
    }
}

#[test]
fn a_body_comes_in_pieces_and_the_connection_goes_on() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let mut client = server.connect().await;
        client.send(post("/pieces", "") + &post("/", "next")).await;
        let text = client.until("next").await;
        assert!(text.contains("transfer-encoding: chunked"), "{text}");
        let chunks: Vec<_> = (0..20).rev().map(|it| format!("3\r\n{it:>2}\n\r\n")).collect();
        let chunks = chunks.concat();
        assert!(text.contains(&(chunks + "0\r\n\r\nHTTP/1.1 200 OK")), "{text}");
    });
}

#[test]
fn an_old_client_gets_pieces_until_the_end_of_the_connection() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let lines: Vec<_> = (0..20).rev().map(|it| format!("{it:>2}\n")).collect();
        let lines = lines.concat();
        for (head, is_chunked) in [
            ("GET /pieces HTTP/1.0\r\n\r\n", false),
            ("GET /pieces HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", true),
        ] {
            let mut client = server.connect().await;
            client.send(head).await;
            let text = client.read_to_end().await;
            assert_eq!(text.contains("chunked"), is_chunked, "{text}");
            assert_eq!(text.ends_with(&lines), !is_chunked, "{text}");
            assert_eq!(text.ends_with("\r\n0\r\n\r\n"), is_chunked, "{text}");
        }
        // What is only asked about has no body, and the connection goes on.
        let mut client = server.connect().await;
        client.send("HEAD /pieces HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &post("/", "on")).await;
        let text = client.until("on").await;
        assert!(!text.contains("19"), "{text}");
    });
}

#[test]
fn a_body_that_reads_like_a_refusal_is_a_body() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let mut client = server.connect().await;
        // Its pieces are written as they are, each by itself.
        client.send("GET /refusals HTTP/1.0\r\n\r\n").await;
        let text = client.read_to_end().await;
        assert_eq!(text.matches(BARE_REFUSAL).count(), 9, "{text}");
        let mut client = server.connect().await;
        let large = BARE_REFUSAL.repeat(6_000);
        let requests = [BARE_REFUSAL, &large, BARE_REFUSAL].map(|it| post("/", it));
        client.send(requests.concat() + "nonsense\r\n\r\n").await;
        for want in [BARE_REFUSAL, &large, BARE_REFUSAL] {
            let (status, _, body) = client.reply().await.unwrap();
            assert!(status == 200 && body == want, "{status}, {} bytes", body.len());
        }
        assert_eq!(client.brief().await.get(..4), Some("400 "));
        assert_eq!(client.brief().await, "closed");
    });
}

#[test]
fn a_body_that_breaks_looks_broken() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let mut client = server.connect().await;
        client.send(post("/broken", "")).await;
        let text = client.read_to_end().await;
        assert!(text.contains("200 OK") && text.contains(" 7\n"), "{text}");
        assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    });
}

#[test]
fn a_reply_that_is_cut_off_is_not_taken_for_a_whole_one() {
    on_executor(async {
        let mut options = options();
        options.timeouts.write = Duration::from_millis(200);
        let server = Running::start(options, Echo::default());
        for (path, is_cut_off) in [("/pieces", false), ("/broken", true), ("/endless", true)] {
            let mut client = server.connect().await;
            client.send(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
            if path == "/endless" {
                until(|| server.counters().timeouts == 1).await;
            }
            assert_eq!(client.is_reset().await, is_cut_off, "{path}");
        }
    });
}

#[test]
fn pieces_are_made_as_they_are_taken_and_a_slow_client_is_left() {
    on_executor(async {
        let mut options = options();
        options.timeouts.write = Duration::from_millis(200);
        options.timeouts.idle = Duration::from_millis(20);
        let echo = Echo::default();
        let (n_made, moved) = (Rc::clone(&echo.n_made), Rc::clone(&echo.moved));
        let server = Running::start(options, echo);
        let mut client = server.connect().await;
        client.send(post("/endless", "")).await;
        until(|| n_made.get() > 0).await;
        let began = now();
        until(|| server.counters().timeouts == 1).await;
        assert!(now() - began > Duration::from_millis(100), "it was taken for idle");
        // What the sockets hold, some megabytes, and hyper's buffer.
        assert!(n_made.get() < 3_000, "{} pieces were made for nobody", n_made.get());
        assert!(moved.borrow().is_empty(), "a reply was on its way");
        assert!(client.read_to_end().await.contains("200 OK"));
    });
}

#[test]
fn a_connection_goes_on_at_the_core_that_serves_it() {
    on_executor(async {
        let first = Echo::default();
        let moved = Rc::clone(&first.moved);
        let first = Running::start(options(), first);
        let second = Running::start(options(), Echo::default());
        let mut client = first.connect().await;
        client.ask_elsewhere(3).await;
        assert!(moved.borrow().is_empty());
        // The next request has begun when this one is answered: what was read of it goes along.
        let next = post("/", "second");
        let (begun, rest) = next.split_at(20);
        client.send(post("/elsewhere", "first") + begun).await;
        assert_eq!(client.brief().await, "200 first");
        until(|| !moved.borrow().is_empty()).await;
        let (core, connection) = moved.borrow_mut().pop().unwrap();
        assert_eq!(core, ShardId(7));
        second.take_over(connection);
        client.send(rest).await;
        assert_eq!(client.brief().await, "200 second");
        client.send(post("/", "third")).await;
        assert_eq!(client.brief().await, "200 third");
        assert_eq!((first.counters().requests, second.counters().requests), (4, 2));
    });
}

#[test]
fn a_connection_stays_while_the_core_that_serves_it_is_crowded() {
    on_executor(async {
        let echo = Echo::default();
        let moved = Rc::clone(&echo.moved);
        let options = Options { n_cores: 2, places: Places::new(1_000), ..options() };
        let server = Running::start(options, echo);
        server.on_neighbour(ShardId(7), 100);
        let mut client = server.connect().await;
        client.ask_elsewhere(9).await;
        assert!(moved.borrow().is_empty());
        server.on_neighbour(ShardId(7), 5);
        client.ask_elsewhere(1).await;
        until(|| !moved.borrow().is_empty()).await;
    });
}

#[test]
fn a_connection_carries_many_requests() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let mut client = server.connect().await;
        for body in ["one", "", "three"] {
            client.send(post("/", body)).await;
            assert_eq!(client.brief().await, format!("200 {body}").trim_end());
        }
        assert_eq!((server.counters().accepted, server.counters().requests), (1, 3));
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let mut client = server.connect().await;
        let bodies: Vec<String> = (0..100).map(|it| it.to_string()).collect();
        client.send(bodies.iter().map(|it| post("/", it)).collect::<String>()).await;
        for body in &bodies {
            assert_eq!(client.brief().await, format!("200 {body}"));
        }
    });
}

#[test]
fn a_body_in_many_pieces_arrives_whole() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let mut client = server.connect().await;
        let body = "0123456789".repeat(50_000);
        client.send(post("/", &body)).await;
        assert_eq!(client.brief().await, format!("200 {body}"));
        client
            .send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        client.send("2\r\nde\r\n0\r\n\r\n").await;
        assert_eq!(client.brief().await, "200 abcde");
    });
}

#[test]
fn a_panic_ends_only_its_connection() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let (mut bad, mut good) = (server.connect().await, server.connect().await);
        good.send(post("/", "before")).await;
        assert_eq!(good.brief().await, "200 before");
        bad.send(post("/panic", "")).await;
        assert_eq!(bad.brief().await, "closed");
        good.send(post("/", "after")).await;
        assert_eq!(good.brief().await, "200 after");
        assert_eq!((server.counters().panics, server.counters().open), (1, 1));
    });
}

#[test]
fn an_oversized_body_is_answered_before_and_while_it_is_sent() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let refusal = "413 request body is too large";
        let mut client = server.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4000000\r\n\r\n").await;
        assert!(client.try_send(&vec![b'x'; 4_000_000]).await, "the rest is read");
        assert_eq!(client.brief().await, refusal);
        assert_eq!(client.brief().await, "closed");
        let mut client = server.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        for _ in 0..40 {
            client.try_send(chunk.as_bytes()).await;
        }
        assert_eq!(client.brief().await, refusal);
        assert_eq!(server.counters().refused, 2);
    });
}

#[test]
fn bodies_in_flight_are_bounded_together() {
    on_executor(async {
        let options = Options { held_bytes_max: 300_000, ..options() };
        let server = Running::start(options, Echo::default());
        let body = "x".repeat(200_000);
        let (mut first, mut second) = (server.connect().await, server.connect().await);
        let whole = post("/", &body);
        first.send(&whole[..150_000]).await;
        until(|| server.counters().open == 2).await;
        second.send(post("/", &"x".repeat(600_000))).await;
        assert_eq!(second.brief().await, "503 overloaded");
        first.send(&whole[150_000..]).await;
        assert_eq!(first.brief().await, format!("200 {body}"));
    });
}

#[test]
fn whoever_is_not_admitted_is_answered_before_the_body_is_read() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let mut client = server.connect().await;
        client.send("GET /secret HTTP/1.1\r\nHost: t\r\n\r\n").await;
        assert_eq!(client.brief().await, "200 who are you");
        client.send(post("/", "x")).await;
        assert_eq!(client.brief().await, "200 x", "without a body nothing is left over");
        client.send("POST /secret HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf").await;
        let (_, head, body) = client.reply().await.expect("an answer");
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(body, "who are you");
        client.close_write().await;
        assert_eq!(client.brief().await, "closed");
        assert_eq!((server.counters().requests, server.counters().refused), (3, 2));
    });
}

#[test]
fn a_connection_that_moves_takes_its_place_along() {
    on_executor(async {
        let places = Places::new(1);
        let with_places = || Options { places: places.clone(), ..options() };
        let first = Echo::default();
        let moved = Rc::clone(&first.moved);
        let first = Running::start(with_places(), first);
        let second = Running::start(with_places(), Echo::default());
        let mut client = first.connect().await;
        client.ask_elsewhere(4).await;
        until(|| !moved.borrow().is_empty()).await;
        assert!(places.take().is_none(), "it keeps its place on the way");
        let (_, connection) = moved.borrow_mut().pop().unwrap();
        second.take_over(connection);
        client.send(post("/", "y")).await;
        assert_eq!(client.brief().await, "200 y");
        assert_eq!((first.counters().open, second.counters().open), (0, 1));
        drop(client);
        until(|| second.counters().open == 0).await;
        assert!(places.take().is_some());
    });
}

#[test]
fn a_head_has_a_hundred_fields_at_most() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        for (n, want) in [(99, "200"), (100, "431 request header fields are too large")] {
            let mut client = server.connect().await;
            let fields = "X: y\r\n".repeat(n);
            client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{fields}\r\n")).await;
            assert_eq!(client.brief().await, want, "{n} fields beside the host");
        }
    });
}

#[test]
fn heads_that_could_mean_two_things_are_refused_with_a_word() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        let chunked = "0\r\n\r\n";
        let heads = [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            // These hyper finds.
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "what is this\r\n\r\n",
        ];
        for (n, head) in (1..).zip(heads) {
            let mut client = server.connect().await;
            client.send(format!("{head}{chunked}{}", post("/", "smuggled"))).await;
            assert_eq!(client.brief().await, "400 malformed request head", "{head}");
            client.close_write().await;
            assert_eq!(client.brief().await, "closed", "{head}");
            assert_eq!((server.counters().refused, server.counters().requests), (n, n), "{head}");
        }
        let mut client = server.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}x\r\n{}", post("/", "smuggled"))).await;
        assert_eq!(client.brief().await, "400 malformed request body");
        client.close_write().await;
        assert_eq!(client.brief().await, "closed");
        let mut client = server.connect().await;
        // A malformed one behind a good one is answered in its turn.
        client.send(post("/", "good") + "bad\r\n\r\n").await;
        assert_eq!(client.brief().await, "200 good");
        let (_, head, body) = client.reply().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: close"), "{head}");
        assert_eq!(body, "malformed request head");
    });
}

#[test]
fn an_oversized_head_is_refused() {
    on_executor(async {
        let server = Running::start(options(), Echo::default());
        for size in [20_000, 100_000] {
            let want = "431 request header fields are too large";
            let mut client = server.connect().await;
            let head = format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(size));
            client.try_send(head.as_bytes()).await;
            assert_eq!(client.brief().await, want, "{size}");
            assert_eq!(client.brief().await, "closed", "{size}");
        }
    });
}

#[test]
fn silent_slow_and_idle_connections_are_closed() {
    on_executor(async {
        let mut options = options();
        options.timeouts.head = Duration::from_millis(80);
        options.timeouts.idle = Duration::from_millis(80);
        let server = Running::start(options, Echo::default());
        let start = now();
        let (mut silent, mut slow) = (server.connect().await, server.connect().await);
        let (mut idle, mut late) = (server.connect().await, server.connect().await);
        slow.send("GET / HTTP/1.1\r\nHos").await;
        idle.send(post("/", "x")).await;
        assert_eq!(idle.brief().await, "200 x");
        late.send(post("/", "x") + "P").await;
        assert_eq!(late.brief().await, "200 x");
        late.send("OST").await;
        for client in [&mut silent, &mut slow, &mut idle, &mut late] {
            assert_eq!(client.brief().await, "closed");
        }
        assert!(now() - start >= Duration::from_millis(80));
        assert_eq!(server.counters().timeouts, 4);
    });
}

#[test]
fn a_slow_body_is_answered_with_a_timeout() {
    on_executor(async {
        let mut options = options();
        options.timeouts.body = Duration::from_millis(80);
        let server = Running::start(options, Echo::default());
        let mut client = server.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf").await;
        assert_eq!(client.brief().await, "408 request body did not arrive in time");
        client.close_write().await;
        assert_eq!(client.brief().await, "closed");
    });
}

#[test]
fn a_reader_that_does_not_read_is_closed() {
    on_executor(async {
        let mut options = options();
        options.timeouts.write = Duration::from_millis(80);
        let server = Running::start(options, Echo::default());
        let mut client = server.connect().await;
        client.send("GET /large HTTP/1.1\r\nHost: t\r\n\r\n").await;
        until(|| server.counters().timeouts == 1).await;
        until(|| server.counters().open == 0).await;
        assert_eq!(client.brief().await, "closed");
    });
}

#[test]
fn a_peer_that_closed_its_side_still_gets_its_reply() {
    on_executor(async {
        let echo = Echo::default();
        let gate = Rc::clone(&echo.gate);
        let server = Running::start(options(), echo);
        let mut client = server.connect().await;
        client.send(post("/wait", "x")).await;
        client.close_write().await;
        until(|| gate.n_waiting.get() == 1).await;
        // By the time this one has been served, the server has seen the end of the other.
        let mut other = server.connect().await;
        for _ in 0..2 {
            other.send(post("/", "y")).await;
            assert_eq!(other.brief().await, "200 y");
        }
        gate.open();
        assert_eq!(client.brief().await, "200 x");
        assert_eq!(client.brief().await, "closed");
    });
}

#[test]
fn a_connection_beyond_the_limit_is_told_so_and_closed() {
    on_executor(async {
        let places = Places::new(2);
        let with_places = || Options { places: places.clone(), ..options() };
        let server = Running::start(with_places(), Echo::default());
        let other = Running::start(with_places(), Echo::default());
        let (mut first, mut second) = (server.connect().await, other.connect().await);
        first.send(post("/", "first")).await;
        assert_eq!(first.brief().await, "200 first");
        second.send(post("/", "second")).await;
        assert_eq!(second.brief().await, "200 second", "all servers share the places");
        let mut third = server.connect().await;
        third.send(post("/", "third")).await;
        assert_eq!(third.brief().await, "503 too many connections");
        assert_eq!(third.brief().await, "closed");
        until(|| server.counters().open == 1).await;
        assert_eq!((server.counters().accepted, server.counters().turned_away), (2, 1));
        drop(second);
        until(|| other.counters().open == 0).await;
        let mut fourth = server.connect().await;
        fourth.send(post("/", "fourth")).await;
        assert_eq!(fourth.brief().await, "200 fourth");
        first.send(post("/", "first")).await;
        assert_eq!(first.brief().await, "200 first");
    });
}

#[test]
fn far_too_many_connections_are_closed_at_once() {
    on_executor(async {
        let server =
            Running::start(Options { places: Places::new(1), ..options() }, Echo::default());
        let mut first = server.connect().await;
        first.send(post("/", "first")).await;
        assert_eq!(first.brief().await, "200 first");
        let mut silent = Vec::new();
        for _ in 0..limits::CONNECTIONS_REFUSED_MAX {
            silent.push(server.connect().await);
        }
        until(|| server.counters().turned_away == limits::CONNECTIONS_REFUSED_MAX as u64).await;
        let mut late = server.connect().await;
        assert_eq!(late.brief().await, "closed");
        assert_eq!(server.counters().open, 1);
        let mut last = silent.pop().unwrap();
        last.send(post("/", "last")).await;
        assert_eq!(last.brief().await, "503 too many connections");
    });
}

#[test]
fn no_more_are_told_that_there_is_no_place_if_all_come_at_once() {
    on_executor(async {
        let places = Places::new(1);
        let seat = places.take();
        let server = Running::start(Options { places, ..options() }, Echo::default());
        // Nothing is accepted meanwhile: these calls block.
        let n_late = 20;
        let connect = |_| {
            let client = std::net::TcpStream::connect(server.address).expect("the kernel accepts");
            client.set_nonblocking(true).expect("it may be");
            client
        };
        let clients: Vec<_> = (0..limits::CONNECTIONS_REFUSED_MAX + n_late).map(connect).collect();
        until(|| server.counters().turned_away == clients.len() as u64).await;
        let is_closed = |it: &&std::net::TcpStream| matches!(it.peek(&mut [0]), Ok(0));
        until(|| clients.iter().filter(is_closed).count() == n_late).await;
        drop(seat);
    });
}

#[test]
fn a_shutdown_lets_requests_finish_and_ends_idle_connections() {
    on_executor(async {
        let echo = Echo::default();
        let gate = Rc::clone(&echo.gate);
        let server = Running::start(options(), echo);
        let (mut busy, mut idle) = (server.connect().await, server.connect().await);
        idle.send(post("/", "x")).await;
        assert_eq!(idle.brief().await, "200 x");
        busy.send(post("/wait", "work")).await;
        until(|| gate.n_waiting.get() == 1).await;
        server.shutdown.begin();
        assert_eq!(idle.brief().await, "closed");
        gate.open();
        assert_eq!(busy.brief().await, "200 work");
        assert_eq!(busy.brief().await, "closed");
        let refused = glommio::net::TcpStream::connect(server.address).await;
        assert!(refused.is_err(), "nobody listens");
        assert_eq!(server.ended().await.open, 0);
    });
}

#[test]
fn a_shutdown_does_not_wait_for_ever() {
    on_executor(async {
        let echo = Echo::default();
        let gate = Rc::clone(&echo.gate);
        let options = Options { drain_timeout: Duration::from_millis(20), ..options() };
        let server = Running::start(options, echo);
        let mut stuck = server.connect().await;
        stuck.send(post("/wait", "")).await;
        until(|| gate.n_waiting.get() == 1).await;
        server.shutdown.begin();
        assert_eq!(server.ended().await.open, 0);
        assert_eq!(stuck.brief().await, "closed");
    });
}

#[test]
fn a_server_whose_ring_takes_no_more_says_so_at_once() {
    on_executor(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Rc::new(Server::new(Options::default(), Echo::default()).unwrap());
        let serving = glommio::spawn_local({
            let (server, shutdown) = (Rc::clone(&server), Shutdown::new());
            async move { server.serve(listener, shutdown).await }
        });
        let connect = async || Client::connect(address).await;
        let mut first = connect().await;
        first.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(first.brief().await, "200 ok");
        // The first stays, and nothing happens there.
        server.shared.poller.jam();
        let _second = connect().await;
        assert!(serving.await.is_err());
        drop(first);
    });
}
