//! The server on a real executor, over real sockets.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
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
use crate::http::ServedBy;
use crate::http::Service;
use crate::http::activity::Timeouts;
use crate::http::sleep::now;
use crate::http::testing::Client;
use crate::http::testing::Running;
use crate::http::testing::on_executor;
use crate::types::ShardId;

/// Echoes bodies; `/panic` panics, `/wait` waits for the gate.
#[derive(Default)]
struct Echo {
    gate: Rc<Gate>,
    /// Connections handed over after `/elsewhere`, and to which core.
    moved: Rc<RefCell<Vec<(ShardId, Moved)>>>,
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
            if self.is_open.get() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

impl Service for Echo {
    async fn call(&self, head: Parts, body: Bytes) -> Response<Bytes> {
        match head.uri.path() {
            "/panic" => panic!("one bad request"),
            "/wait" => self.gate.pass().await,
            "/elsewhere" => {
                let mut reply = Response::new(body);
                reply.extensions_mut().insert(ServedBy(ShardId(7)));
                return reply;
            }
            "/large" => return Response::new(Bytes::from(vec![b'x'; 24 << 20])),
            _ => {}
        }
        Response::new(body)
    }

    fn admit(&self, head: &Parts) -> Result<(), Response<Bytes>> {
        let is_secret = head.uri.path() == "/secret";
        if is_secret { Err(Response::new(Bytes::from_static(b"who are you"))) } else { Ok(()) }
    }

    fn refuse(&self, _: &Parts, refusal: Refusal) -> Response<Bytes> {
        let status = match refusal {
            Refusal::HeadBroken | Refusal::BodyMalformed => StatusCode::BAD_REQUEST,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Refusal::Overloaded | Refusal::BodyBroken => StatusCode::SERVICE_UNAVAILABLE,
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
        connections_max: 8,
        n_cores: 1,
        header_bytes_max: 16 << 10,
        body_bytes_max: 1 << 20,
        held_bytes_max: 4 << 20,
        timeouts: Timeouts { head: long, body: long, write: long, idle: long, linger: long },
        drain_timeout: long,
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
        let options = Options { n_cores: 2, connections_max: 1_000, ..options() };
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
fn a_connection_of_another_core_finds_no_place_in_a_full_server() {
    on_executor(async {
        let first = Echo::default();
        let moved = Rc::clone(&first.moved);
        let first = Running::start(options(), first);
        let second = Running::start(Options { connections_max: 1, ..options() }, Echo::default());
        let mut own = second.connect().await;
        own.send(post("/", "own")).await;
        assert_eq!(own.brief().await, "200 own");
        let mut client = first.connect().await;
        client.ask_elsewhere(4).await;
        until(|| !moved.borrow().is_empty()).await;
        let (_, connection) = moved.borrow_mut().pop().unwrap();
        second.take_over(connection);
        assert_eq!(client.brief().await, "closed");
        assert_eq!(second.counters().open, 1);
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
fn connections_beyond_the_limit_wait_for_a_place() {
    on_executor(async {
        let server = Running::start(Options { connections_max: 1, ..options() }, Echo::default());
        let mut first = server.connect().await;
        let mut second = server.connect().await;
        second.send(post("/", "second")).await;
        first.send(post("/", "first")).await;
        assert_eq!(first.brief().await, "200 first");
        assert_eq!(server.counters().accepted, 1);
        drop(first);
        assert_eq!(second.brief().await, "200 second");
        assert_eq!(server.counters().accepted, 2);
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
