//! Bodies: a request's is collected whole within bounds, a reply's is whole to begin with.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

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

/// A reply's body: one piece.
#[derive(Debug)]
pub struct Whole(Bytes);

impl Whole {
    /// A body of these bytes.
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
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
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Refusal::BodyBroken)),
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
    use super::*;

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
