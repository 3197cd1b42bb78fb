//! Bodies: a request's is collected whole within bounds; a reply's is whole to begin with, or made piece by piece while
//! it is sent, as fast as the peer takes it.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use bytes::BytesMut;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;

use crate::http::Refusal;
use crate::http::Sender;
use crate::http::activity::Activity;
use crate::shard::fair::Amount;
use crate::shard::fair::Fair;

/// Bytes reserved for a body before any of it has arrived: a length is only a promise.
const RESERVE_SIZE: usize = 64 << 10;

/// Pieces of a body that hyper is given until it is told to wait. It asks once more in the same turn, so that twice as
/// many are sent before other connections have theirs.
const PIECES_IN_A_ROW: u32 = 2;

/// What a reply has to say.
#[derive(Debug)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// As it is made. Its length is not known before its end.
    Pieces(Box<dyn Pieces>),
}

impl Content {
    /// Bytes, if they are known.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Whole(bytes) => Some(bytes.len()),
            Self::Pieces(_) => None,
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

/// Makes a body while it is sent.
pub trait Pieces: fmt::Debug {
    /// The next piece, which is not empty; none at the end. Asked when there is room for it. After an error the
    /// connection is closed, so that nobody takes what was sent for everything.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>>;
}

/// A reply's body, as hyper takes it.
#[derive(Debug)]
pub struct Outgoing {
    content: Content,
    activity: Rc<Activity>,
    n_in_a_row: u32,
}

impl Outgoing {
    /// A body for the connection with this state.
    pub fn new(content: Content, activity: &Rc<Activity>) -> Self {
        match &content {
            Content::Whole(bytes) if bytes.is_empty() => {}
            Content::Whole(_) => activity.begin_body(),
            Content::Pieces(_) => activity.begin_pieces(),
        }
        Self { content, activity: Rc::clone(activity), n_in_a_row: 0 }
    }

    fn end(&mut self) {
        // Nobody else's: the next reply of the connection may have begun.
        if !self.is_end_stream() {
            self.activity.end_body();
        }
        self.content = Content::Whole(Bytes::new());
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.end();
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let pieces = match &mut this.content {
            Content::Whole(bytes) => {
                if bytes.is_empty() {
                    return Poll::Ready(None);
                }
                let bytes = std::mem::take(bytes);
                this.activity.end_body();
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Content::Pieces(pieces) => pieces,
        };
        if this.n_in_a_row == PIECES_IN_A_ROW {
            this.n_in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = ready!(pieces.poll_piece(cx));
        this.n_in_a_row += 1;
        match piece {
            Some(Ok(_)) => {}
            // It is never at its end: the connection has to show that.
            Some(Err(_)) => this.content = Content::Whole(Bytes::new()),
            None => this.end(),
        }
        Poll::Ready(piece.map(|it| it.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Pieces(_) => SizeHint::default(),
        }
    }
}

/// Bytes of a gathered body, on the account of all that a core holds.
#[derive(Debug)]
pub struct Held {
    account: Rc<RefCell<Fair<Sender>>>,
    sender: Sender,
    own: Amount,
}

impl Held {
    /// Nothing yet, of a body of `sender`.
    pub fn new(account: &Rc<RefCell<Fair<Sender>>>, sender: Sender) -> Self {
        Self { account: Rc::clone(account), sender, own: Amount::default() }
    }

    /// Hold `n` bytes more, unless the sender has its share.
    fn add(&mut self, n: usize) -> Result<(), Refusal> {
        let mut account = self.account.borrow_mut();
        if !account.may_take(self.sender, n) {
            return Err(Refusal::Overloaded);
        }
        account.add(self.sender, Amount::one(n));
        self.own.add(Amount::one(n));
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.own.n > 0 {
            self.account.borrow_mut().sub(self.sender, self.own);
        }
    }
}

/// Bounds of collecting.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of one body.
    pub body: usize,
}

/// The whole body. One that came in one piece is passed on as it is; others are gathered, and counted
/// in `held` for as long as that lives.
pub async fn collect(
    mut body: Incoming,
    bounds: Bounds,
    activity: &Activity,
    held: &mut Held,
) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let promised = body.size_hint().lower();
    if promised > bounds.body as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let Some(first) = next(&mut body, activity).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > bounds.body {
        return Err(Refusal::BodyTooLarge);
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let reserve = usize::try_from(promised).unwrap_or(bounds.body).min(RESERVE_SIZE);
    let mut gathered = BytesMut::with_capacity(reserve.max(first.len()));
    let mut piece = Some(first);
    while let Some(bytes) = piece {
        if gathered.len() + bytes.len() > bounds.body {
            return Err(Refusal::BodyTooLarge);
        }
        held.add(bytes.len())?;
        gathered.extend_from_slice(&bytes);
        piece = next(&mut body, activity).await?;
    }
    Ok(gathered.freeze())
}

/// Why there is no more of a body: it is no HTTP, or its sender is gone.
fn why(error: &hyper::Error) -> Refusal {
    let cause = error.source().and_then(|it| it.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Refusal::BodyMalformed,
        _ => Refusal::BodyBroken,
    }
}

/// The next piece of data; none at the end. Trailers are dropped.
async fn next(body: &mut Incoming, activity: &Activity) -> Result<Option<Bytes>, Refusal> {
    future::poll_fn(|cx| {
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending if activity.is_overdue() => {
                    return Poll::Ready(Err(Refusal::BodyTimeout));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(why(&error))),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::http::activity::Activities;
    use crate::http::activity::Phase;

    #[test]
    fn a_reply_is_not_written_before_its_body_is_taken() {
        let place = Rc::<Activities>::default().open(0);
        let activity = &place.activity;
        let flushed = |content: &'static str, is_taken: bool| {
            activity.enter(Phase::Write);
            let content = Content::Whole(Bytes::from_static(content.as_bytes()));
            let mut body = Outgoing::new(content, activity);
            if is_taken {
                let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
                assert!(frame.is_ready());
            }
            activity.on_flushed();
            let phase = activity.phase();
            drop(body);
            activity.on_flushed();
            assert_eq!(activity.phase(), Phase::Idle, "nobody wants it");
            phase
        };
        assert_eq!(flushed("text", false), Phase::Write);
        assert_eq!(flushed("text", true), Phase::Idle);
        assert_eq!(flushed("", false), Phase::Idle, "there is none to take");
    }

    #[test]
    fn what_is_held_is_given_back() {
        let bound = Amount { n: usize::MAX, bytes: 100 };
        let account = Rc::new(RefCell::new(Fair::new(bound)));
        let mut a = Held::new(&account, Sender(1));
        assert_eq!(a.add(60), Ok(()));
        let mut b = Held::new(&account, Sender(1));
        assert_eq!(b.add(60), Err(Refusal::Overloaded));
        let mut other = Held::new(&account, Sender(2));
        assert_eq!(other.add(50), Ok(()), "another has its share");
        assert_eq!(other.add(1), Err(Refusal::Overloaded));
        drop((a, other));
        assert_eq!(b.add(60), Ok(()));
        drop(b);
        assert_eq!(account.borrow().total(), Amount::default());
    }
}
