//! One connection: its task, its requests, its end.

use std::future;
use std::future::Future;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::FutureExt;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::Version;
use http::header;
use http::request::Parts;
use http_body::Body;
use hyper::body::Incoming;
use socket2::SockRef;
use tracing::Level;

use crate::http::Moved;
use crate::http::Refusal;
use crate::http::Service;
use crate::http::Shared;
use crate::http::activity::Activity;
use crate::http::activity::Phase;
use crate::http::activity::Place;
use crate::http::body;
use crate::http::body::Content;
use crate::http::body::Held;
use crate::http::body::Outgoing;
use crate::http::places::Seat;
use crate::http::sleep::now;
use crate::http::socket::Socket;
use crate::http::stream::HyperStream;
use crate::types::ShardId;

/// Bytes of an unwanted body that are read after the reply: enough for the peer to notice the reply.
const LINGER_BYTES_MAX: usize = 32 << 20;
/// Reads of it in one turn: others want the core too.
const LINGER_READS_MAX: usize = 16;

/// Serve one connection until it ends. Its panic ends this connection and nothing else.
pub(super) async fn serve<S: Service>(
    socket: Socket,
    ahead: Bytes,
    place: Place,
    seat: Result<Seat, Unseated<S>>,
    shared: Rc<Shared<S>>,
) {
    let (seat, unseated) = match seat {
        Ok(seat) => (Some(seat), None),
        Err(unseated) => (None, Some(unseated)),
    };
    let work = drive(socket, ahead, Rc::clone(&place.activity), seat, Rc::clone(&shared));
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        shared.counters.panics.add(1);
        tracing::error!("a connection panicked");
    }
    drop((place, unseated));
    shared.tell_open();
}

/// A connection without a place, counted from when it is accepted until it ends.
pub(super) struct Unseated<S>(Rc<Shared<S>>);

impl<S> Unseated<S> {
    pub(super) fn new(shared: Rc<Shared<S>>) -> Self {
        shared.n_unseated.set(shared.n_unseated.get() + 1);
        Self(shared)
    }
}

impl<S> Drop for Unseated<S> {
    fn drop(&mut self) {
        self.0.n_unseated.set(self.0.n_unseated.get() - 1);
    }
}

/// Why a connection ended.
enum End {
    /// Served as HTTP has it, or broken by the peer.
    Served(hyper::Result<()>),
    /// Idle, or slow.
    Overdue,
    /// It goes on at another core.
    Moved(ShardId),
    /// The server is about to end.
    Aborted,
}

async fn drive<S: Service>(
    socket: Socket,
    ahead: Bytes,
    activity: Rc<Activity>,
    seat: Option<Seat>,
    shared: Rc<Shared<S>>,
) {
    let number = socket.as_raw_fd();
    let io = HyperStream::new(socket, ahead, Rc::clone(&activity));
    let is_seated = seat.is_some();
    let requests =
        Requests { shared: Rc::clone(&shared), activity: Rc::clone(&activity), is_seated };
    let mut connection = shared.protocol.serve_connection(io, requests);
    let mut is_draining = false;
    let end = future::poll_fn(|cx| {
        activity.listen(cx);
        if shared.is_aborted.get() {
            return Poll::Ready(End::Aborted);
        }
        if shared.is_draining.get() && !is_draining {
            is_draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        let served = connection.poll_without_shutdown(cx).map(End::Served);
        // A body that is overdue is answered; a head or a reply is not worth waiting for.
        let is_waiting = matches!(activity.phase(), Phase::Head | Phase::Write | Phase::Idle);
        if served.is_pending() && is_waiting && activity.is_overdue() {
            return Poll::Ready(End::Overdue);
        }
        if served.is_pending()
            && !is_draining
            && let Some(core) = activity.better_place()
            && shared.crowd.take_place(core, shared.activities.n_open() as u64)
        {
            return Poll::Ready(End::Moved(core));
        }
        served
    })
    .await;
    let is_cut_off = activity.is_in_pieces() && !matches!(end, End::Served(Ok(())) | End::Moved(_));
    if is_cut_off {
        // The connection, which owns it, is still there.
        reset_at_close(number);
    }
    match end {
        End::Served(Ok(())) if !activity.leaves_unread() => {}
        End::Served(result) => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection failed");
            }
            if is_cut_off {
                // To linger would end it properly first.
                return;
            }
            let mut io = connection.into_parts().io;
            if let Some(refusal) = io.take_refusal() {
                say(refusal, &mut io, &activity, &shared).await;
            }
            linger(io, &activity, &shared).await;
        }
        End::Overdue => {
            shared.counters.timeouts.add(1);
            tracing::debug!("a connection was idle or slow");
        }
        End::Moved(core) => {
            let parts = connection.into_parts();
            let (socket, unread) = parts.io.into_socket();
            let mut ahead = parts.read_buf;
            if !unread.is_empty() {
                ahead = [ahead, unread].concat().into();
            }
            shared.counters.handed_over.add(1);
            let seat = seat.expect("who is refused has no better place");
            let n_moves = activity.n_moves().saturating_add(1);
            shared.service.hand_over(core, Moved { socket, ahead, n_moves, seat });
        }
        End::Aborted => {}
    }
}

/// Have this socket, which must be open, end without a word when it is closed: its reply is cut off. One that only the
/// end of the connection delimits (HTTP/1.0) would look complete otherwise.
fn reset_at_close(socket: RawFd) {
    // SAFETY: it is open, says the caller, and is not kept.
    #[expect(unsafe_code, reason = "the stream that owns it is lent to hyper")]
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    // A socket that has failed by itself is not taken for one that ended well.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// Word a refusal that hyper would have sent without a word. Left unfinished if the peer takes too long.
async fn say<S: Service>(
    refusal: Refusal,
    io: &mut HyperStream,
    activity: &Activity,
    shared: &Shared<S>,
) {
    activity.enter(Phase::Write);
    shared.counters.requests.add(1);
    shared.counters.refused.add(1);
    let (head, ()) = Request::new(()).into_parts();
    let bytes = written(&shared.service.refuse(&head, refusal));
    let mut left = &*bytes;
    future::poll_fn(|cx| {
        while !left.is_empty() && !activity.is_overdue() && !shared.is_aborted.get() {
            match io.poll_write_plain(cx, left) {
                Poll::Ready(Ok(n)) if n > 0 => left = &left[n..],
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// The last reply of a connection, as it is sent.
fn written(reply: &Response<Bytes>) -> Vec<u8> {
    let (status, body) = (reply.status(), reply.body());
    let mut out = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in reply.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let length = body.len();
    out.extend_from_slice(
        format!("connection: close\r\ncontent-length: {length}\r\n\r\n").as_bytes(),
    );
    out.extend_from_slice(body);
    out
}

/// Closing a socket with unread bytes makes the kernel drop the reply too, so read on for a while.
async fn linger<S>(mut io: HyperStream, activity: &Activity, shared: &Shared<S>) {
    activity.enter(Phase::Linger);
    let mut left = LINGER_BYTES_MAX;
    if io.end().is_err() {
        return;
    }
    future::poll_fn(|cx| {
        if activity.is_overdue() || shared.is_aborted.get() {
            return Poll::Ready(());
        }
        for _ in 0..LINGER_READS_MAX {
            match io.poll_discard(cx) {
                Poll::Ready(Ok(n)) if n > 0 && n < left => left -= n,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The requests of one connection, for hyper.
struct Requests<S> {
    shared: Rc<Shared<S>>,
    activity: Rc<Activity>,
    is_seated: bool,
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response<Outgoing>;
    type Error = Dropped;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.enter(Phase::Body);
        let (shared, activity) = (Rc::clone(&self.shared), Rc::clone(&self.activity));
        let is_seated = self.is_seated;
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let logged = tracing::enabled!(Level::DEBUG)
                .then(|| (head.method.clone(), head.uri.path().to_owned(), now()));
            let reply = if is_seated {
                answer(head, body, &shared, &activity).await?
            } else {
                let refusal = Refusal::TooManyConnections;
                refuse(shared.service.refuse(&head, refusal), &shared, &activity)
            };
            activity.on_served(reply.extensions().get().copied());
            activity.enter(Phase::Write);
            shared.counters.requests.add(1);
            if let Some((method, path, start)) = logged {
                let (status, bytes) = (reply.status().as_u16(), reply.body().size());
                let duration = now() - start;
                tracing::debug!(%method, path, status, ?bytes, ?duration, "request");
            }
            Ok(reply.map(|content| Outgoing::new(content, &activity)))
        })
    }
}

/// The peer went away within a request; there is nobody to answer.
#[derive(Debug, thiserror::Error)]
#[error("peer closed within a request")]
struct Dropped;

async fn answer<S: Service>(
    head: Parts,
    body: Incoming,
    shared: &Shared<S>,
    activity: &Activity,
) -> Result<Response<Content>, Dropped> {
    if !is_clear(&head) {
        return Ok(refuse(shared.service.refuse(&head, Refusal::HeadBroken), shared, activity));
    }
    if head_size(&head) > shared.options.header_bytes_max {
        return Ok(refuse(shared.service.refuse(&head, Refusal::HeadTooLarge), shared, activity));
    }
    let sender = match shared.service.admit(&head) {
        Ok(sender) => sender,
        Err(reply) if body.is_end_stream() => {
            shared.counters.refused.add(1);
            return Ok(reply.map(Content::Whole));
        }
        Err(reply) => return Ok(refuse(reply, shared, activity)),
    };
    activity.on_sender(sender);
    let mut account = Held::new(&shared.held, sender);
    match body::collect(body, shared.bounds(), activity, &mut account).await {
        Ok(body) => {
            activity.enter(Phase::Handler);
            Ok(shared.service.call(head, body).await)
        }
        Err(Refusal::BodyBroken) => Err(Dropped),
        Err(refusal) => Ok(refuse(shared.service.refuse(&head, refusal), shared, activity)),
    }
}

/// Whether nobody could understand a head in another way (RFC 9112, 3.2 and 6.1): it names one host, its body is
/// encoded in chunks if at all, and it does not ask for a tunnel. That its lengths are clear, hyper sees to.
fn is_clear(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let is_host_clear = match (hosts.next(), hosts.next()) {
        (Some(_), None) => true,
        (None, _) => head.version < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    };
    let mut encodings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_body_clear = match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(it), None) => it.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    is_host_clear && is_body_clear && head.method != Method::CONNECT
}

/// The last reply of a connection: what is left of the body is nobody's request.
fn refuse<S>(
    mut reply: Response<Bytes>,
    shared: &Shared<S>,
    activity: &Activity,
) -> Response<Content> {
    shared.counters.refused.add(1);
    activity.leave_unread();
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply.map(Content::Whole)
}

/// Bytes of a request head, near enough.
fn head_size(head: &Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |it| it.as_str().len());
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    target + fields.sum::<usize>()
}
