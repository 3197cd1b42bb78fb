//! HTTP/1.1 on glommio: hyper, with limits and deadlines, one [`Server`] per core.
//!
//! A server accepts on its own listening socket (the kernel spreads connections over the sockets of all
//! cores), collects each request's body within bounds, and asks its [`Service`] for the reply. Nothing
//! it does waits for another core.
//!
//! What a peer may cost: one of the node's [`Places`], a head and a body of bounded size, and bounded
//! time for sending each and for taking the reply. A panic ends the connection it happened in.
//! What could be taken for one request here and for another by a proxy in front is refused: a head that
//! names no host or two, a body encoded in a way that is not understood. So is a head that is no HTTP, has
//! more than a hundred fields or is twice as long as it may be; those hyper finds, and the service words.
//! Deliberately absent: TLS, HTTP/2, and any knowledge of what the requests mean.
//!
//! Start reading at [`Server::serve`].

pub mod activity;
pub mod body;
mod connection;
mod placement;
pub mod poller;
pub mod places;
pub mod shutdown;
pub mod sleep;
pub mod socket;
mod stream;

use std::cell::Cell;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::FromRawFd;
use std::os::fd::IntoRawFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future;
use http::Response;
use http::request::Parts;
use hyper::server::conn::http1;

use crate::http::activity::Activities;
use crate::http::activity::Timeouts;
use crate::http::body::Bounds;
use crate::http::body::Content;
use crate::http::connection::Unseated;
use crate::http::placement::Crowd;
use crate::http::places::Places;
use crate::http::places::Seat;
use crate::http::poller::Poller;
use crate::http::shutdown::Shutdown;
use crate::http::sleep::Sleep;
use crate::http::sleep::within;
use crate::http::socket::Socket;
use crate::http::stream::READ_SIZE_MAX;
use crate::limits;
use crate::shard::fair::Amount;
use crate::shard::fair::Fair;
use crate::types::ShardId;

/// Wait after the process ran out of file descriptors or memory: accepting again at once would spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(75);

/// What answers requests.
pub trait Service: 'static {
    /// The reply to a request whose body is complete.
    fn call(&self, head: Parts, body: Bytes) -> impl Future<Output = Response<Content>>;

    /// Look at a request before its body is read, so that only those who may ask cost memory for one; a
    /// reply instead if it is refused. Says who sent it, for bodies that are gathered share a bound.
    #[expect(clippy::result_large_err, reason = "a refusal is sent as it is")]
    fn admit(&self, head: &Parts) -> Result<Sender, Response<Bytes>> {
        let _ = head;
        Ok(Sender::default())
    }

    /// The reply to a request with this head that the server refused; the head is an empty one if it could not
    /// be read.
    fn refuse(&self, head: &Parts, refusal: Refusal) -> Response<Bytes>;

    /// Give a connection to the core that a reply named with [`ServedBy`]; its server goes on with
    /// [`Server::take_over`]. Without it the connection is closed, so name no core.
    fn hand_over(&self, core: ShardId, connection: Moved) {
        drop((core, connection));
    }

    /// Tell the other cores how many connections this one has; their servers are told with
    /// [`Server::on_neighbour`].
    fn tell_open(&self, n_open: u64) {
        let _ = n_open;
    }
}

/// Who sends a request, as the service counts them; nothing else is known of it here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sender(pub u32);

/// In the extensions of a reply, also of an error: who served the request. Without it, this core did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServedBy {
    /// No core in particular: it was refused before, or needs none.
    #[default]
    Nobody,
    /// Another core, which might serve the connection itself.
    Core(ShardId),
}

/// A connection on its way to another core.
#[derive(Debug)]
pub struct Moved {
    socket: TcpStream,
    /// What was read of its next request.
    ahead: Bytes,
    /// How often it has moved, this time included.
    n_moves: u32,
    /// Its place among all of the node.
    seat: Seat,
}

/// Why a request never reached the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The head is no HTTP, or could be understood in two ways (400).
    #[error("malformed request head")]
    HeadBroken,
    /// The head has more bytes or fields than it may (431).
    #[error("request header fields are too large")]
    HeadTooLarge,
    /// The body has more bytes than it may (413).
    #[error("request body is too large")]
    BodyTooLarge,
    /// The body is not in chunks as it should be (400).
    #[error("malformed request body")]
    BodyMalformed,
    /// The body did not arrive in time (408).
    #[error("request body did not arrive in time")]
    BodyTimeout,
    /// The bodies being received take all the memory set aside for them (503).
    #[error("overloaded")]
    Overloaded,
    /// The connection is one too many (503).
    #[error("too many connections")]
    TooManyConnections,
    /// The peer went away; never answered.
    #[error("request body is broken")]
    BodyBroken,
}

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// For connections of all servers that are given the same. What comes by a further one is refused.
    pub places: Places,
    /// Cores with such a server, this one included.
    pub n_cores: usize,
    /// Bytes of a request head.
    pub header_bytes_max: usize,
    /// Bytes of a request body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are gathered from several reads at once, for one sender alone.
    pub held_bytes_max: usize,
    /// Time for each phase of a connection.
    pub timeouts: Timeouts,
    /// Time for connections to finish once the server stops.
    pub drain_timeout: Duration,
    /// The core looks for events without entering the kernel: have them interrupt it.
    pub interrupts: bool,
}

impl Default for Options {
    fn default() -> Self {
        let size = |it: u64| usize::try_from(it).expect("limits fit the address space");
        Self {
            places: Places::new(size(limits::CONNECTIONS)),
            n_cores: 1,
            header_bytes_max: size(limits::HEADER_BYTES.0),
            body_bytes_max: size(limits::BODY_BYTES.0),
            held_bytes_max: limits::BODIES_HELD_BYTES_MAX,
            timeouts: Timeouts {
                head: Duration::from_secs(10),
                body: Duration::from_mins(1),
                write: Duration::from_mins(2),
                idle: Duration::from_mins(1),
                linger: Duration::from_secs(2),
            },
            drain_timeout: Duration::from_secs(10),
            interrupts: false,
        }
    }
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections open now.
    pub open: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Failures to accept.
    pub accept_errors: u64,
    /// Requests answered, refused ones included.
    pub requests: u64,
    /// Requests refused before their bodies were read.
    pub refused: u64,
    /// Connections closed because they were idle or slow.
    pub timeouts: u64,
    /// Connections that ended in a panic.
    pub panics: u64,
    /// Connections given to another core.
    pub handed_over: u64,
    /// Connections that found no place: one reply told them so, or they were closed at once.
    pub turned_away: u64,
    /// Bodies refused because their sender had its share of what is gathered.
    pub unfair: u64,
}

#[derive(Debug, Default)]
struct Count(Cell<u64>);

impl Count {
    fn add(&self, n: u64) {
        self.0.set(self.0.get() + n);
    }
}

#[derive(Debug, Default)]
struct Counts {
    accepted: Count,
    accept_errors: Count,
    requests: Count,
    refused: Count,
    timeouts: Count,
    panics: Count,
    handed_over: Count,
    turned_away: Count,
}

/// One core's HTTP server.
#[derive(Debug)]
pub struct Server<S> {
    shared: Rc<Shared<S>>,
}

/// What the connections of a server have in common.
#[derive(Debug)]
struct Shared<S> {
    service: S,
    options: Options,
    protocol: http1::Builder,
    poller: Poller,
    activities: Rc<Activities>,
    crowd: Crowd,
    /// Bytes of bodies being gathered, by who sends them.
    held: Rc<RefCell<Fair<Sender>>>,
    /// Open connections without a place.
    n_unseated: Cell<usize>,
    is_draining: Cell<bool>,
    is_aborted: Cell<bool>,
    counters: Counts,
}

impl<S> Shared<S> {
    fn bounds(&self) -> Bounds {
        Bounds { body: self.options.body_bytes_max }
    }
}

impl<S: Service> Shared<S> {
    /// The number of connections has changed.
    fn tell_open(&self) {
        let n_open = self.activities.n_open() as u64;
        if self.crowd.should_tell(n_open) {
            self.service.tell_open(n_open);
        }
    }
}

impl<S: Service> Server<S> {
    /// A server that answers with `service`, on the core that this runs on. Fails if the kernel has no ring for
    /// its sockets.
    pub fn new(options: Options, service: S) -> io::Result<Self> {
        let poller = Poller::new(options.interrupts)?;
        let mut protocol = http1::Builder::new();
        // A head somewhat too long is answered with an error by the service; hyper answers a longer one
        // with a bare 431. Its own timer would cost an entry per request, see `activity`.
        let head_max = options.header_bytes_max.saturating_mul(2).max(SIZE_BUFFER_MIN);
        protocol.max_header_size(head_max).max_buf_size(head_max.max(READ_SIZE_MAX));
        // `max_headers` stays at 100: any other number has hyper allocate for each request (12 % more CPU).
        protocol.header_read_timeout(None);
        // A peer that has said all it will may still listen, and what it asked for may be under way.
        protocol.half_close(true);
        let held = Fair::new(Amount { n: usize::MAX, bytes: options.held_bytes_max });
        let crowd = Crowd::new(options.n_cores);
        let shared = Shared {
            service,
            options,
            crowd,
            protocol,
            poller,
            activities: Rc::default(),
            held: Rc::new(RefCell::new(held)),
            n_unseated: Cell::new(0),
            is_draining: Cell::new(false),
            is_aborted: Cell::new(false),
            counters: Counts::default(),
        };
        Ok(Self { shared: Rc::new(shared) })
    }

    /// Its bounds.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        let counts = &self.shared.counters;
        Counters {
            open: (self.shared.activities.n_open() - self.shared.n_unseated.get()) as u64,
            accepted: counts.accepted.0.get(),
            accept_errors: counts.accept_errors.0.get(),
            requests: counts.requests.0.get(),
            refused: counts.refused.0.get(),
            timeouts: counts.timeouts.0.get(),
            panics: counts.panics.0.get(),
            handed_over: counts.handed_over.0.get(),
            turned_away: counts.turned_away.0.get(),
            unfair: self.shared.held.borrow().n_refused(),
        }
    }

    /// Accept and serve until `shutdown` begins; then stop accepting, let requests finish, and return
    /// once all connections have ended, or were ended because they took too long. An error if the sockets cannot be
    /// watched any more.
    ///
    /// Dropping this future ends all connections.
    pub async fn serve(&self, listener: TcpListener, shutdown: Rc<Shutdown>) -> io::Result<()> {
        let shared = &self.shared;
        let _abort = AbortOnDrop(shared);
        // Both are cancelled when dropped.
        let _ticks = glommio::spawn_local(tick(Rc::clone(shared)));
        let poller = shared.poller.clone();
        let events = glommio::spawn_local(async move { poller.run().await });
        let serve = async {
            self.serve_until(listener, &shutdown).await;
            Ok(())
        };
        future::or(serve, async { Err(events.await) }).await
    }

    async fn serve_until(&self, listener: TcpListener, shutdown: &Shutdown) {
        let shared = &self.shared;
        let stop = async {
            shutdown.wait().await;
            None
        };
        let accept = async {
            self.accept(adopt(listener)).await;
            Some(())
        };
        future::or(stop, accept).await;
        shared.is_draining.set(true);
        shared.activities.wake_all();
        let drained = within(shared.options.drain_timeout, shared.activities.wait_for(0)).await;
        if drained.is_none() {
            tracing::warn!(open = shared.activities.n_open(), "connections did not finish in time");
        }
        shared.is_aborted.set(true);
        shared.activities.wake_all();
        shared.activities.wait_for(0).await;
    }

    /// Go on with a connection that another core has handed over, with its place.
    pub fn take_over(&self, connection: Moved) {
        self.shared.crowd.on_taken_over();
        self.spawn(connection.socket, connection.ahead, connection.n_moves, Ok(connection.seat));
    }

    /// Another core's server has this many connections open.
    pub fn on_neighbour(&self, core: ShardId, n_open: u64) {
        self.shared.crowd.on_told(core, n_open);
    }

    async fn accept(&self, listener: glommio::net::TcpListener) {
        let shared = &self.shared;
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    shared.counters.accepted.add(1);
                    self.seat(into_std(stream));
                }
                Err(error) => {
                    shared.counters.accept_errors.add(1);
                    let error = io::Error::from(error);
                    let is_peers = matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::Interrupted
                    );
                    if !is_peers {
                        tracing::warn!(%error, "failed to accept a connection");
                        Sleep::new(ACCEPT_BACK_OFF).await;
                    }
                }
            }
            glommio::yield_if_needed().await;
        }
    }

    /// Serve a new connection; without a place for it, say so, if not too many are being told already.
    fn seat(&self, stream: TcpStream) {
        let shared = &self.shared;
        let seat = shared.options.places.take();
        if seat.is_none() {
            shared.counters.turned_away.add(1);
            tracing::debug!("no place for a connection");
            if shared.n_unseated.get() >= limits::CONNECTIONS_REFUSED_MAX {
                return;
            }
        }
        // Counted here: any number may be accepted before the first of them is served.
        let seat = seat.ok_or_else(|| Unseated::new(Rc::clone(shared)));
        self.spawn(stream, Bytes::new(), 0, seat);
    }

    fn spawn(
        &self,
        stream: TcpStream,
        ahead: Bytes,
        n_moves: u32,
        seat: Result<Seat, Unseated<S>>,
    ) {
        let shared = &self.shared;
        if let Err(error) = stream.set_nodelay(true) {
            // The peer is gone already; reading will say so.
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        let socket = match Socket::new(stream, &shared.poller) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(%error, "failed to watch a connection"),
        };
        let place = shared.activities.open(n_moves);
        shared.tell_open();
        let served = connection::serve(socket, ahead, place, seat, Rc::clone(shared));
        glommio::spawn_local(served).detach();
    }
}

/// The smallest buffer hyper accepts.
const SIZE_BUFFER_MIN: usize = 8 << 10;

struct AbortOnDrop<'a, S>(&'a Shared<S>);

impl<S> Drop for AbortOnDrop<'_, S> {
    fn drop(&mut self) {
        self.0.is_aborted.set(true);
        self.0.activities.wake_all();
    }
}

async fn tick<S>(shared: Rc<Shared<S>>) {
    let timeouts = shared.options.timeouts;
    loop {
        Sleep::new(timeouts.tick()).await;
        shared.activities.tick(&timeouts);
    }
}

/// Take an accepted socket from this core's runtime.
#[expect(unsafe_code, reason = "glommio gives a socket by its number only")]
fn into_std(stream: glommio::net::TcpStream) -> TcpStream {
    // SAFETY: the runtime gave the number away in this line; nobody else has it.
    unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) }
}

/// Hand a listening socket to this core's runtime.
#[expect(unsafe_code, reason = "glommio takes a socket by its number only")]
fn adopt(listener: TcpListener) -> glommio::net::TcpListener {
    // SAFETY: the number was owned by `listener` until this line, and nobody else knows it.
    unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
