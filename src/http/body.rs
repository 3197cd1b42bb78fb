//! Bodies: a request's is collected whole within bounds, a reply's is whole to begin with.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::future;
use std::io;
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
use crate::http::activity::Activity;

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

/// Bytes of gathered bodies that one core holds at the moment.
#[derive(Debug)]
pub struct Held {
    bytes: Rc<Cell<usize>>,
    own: usize,
}

impl Held {
    /// Nothing yet, on the account `bytes`.
    pub fn new(bytes: &Rc<Cell<usize>>) -> Self {
        Self { bytes: Rc::clone(bytes), own: 0 }
    }

    /// Hold `n` bytes more, unless that makes more than `limit` on the account.
    fn add(&mut self, n: usize, limit: usize) -> Result<(), Refusal> {
        let after = self.bytes.get() + n;
        if after > limit {
            return Err(Refusal::Overloaded);
        }
        self.bytes.set(after);
        self.own += n;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bytes.set(self.bytes.get() - self.own);
    }
}

/// Bounds of collecting.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of one body.
    pub body: usize,
    /// Bytes of all gathered bodies of the core.
    pub held: usize,
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
        held.add(bytes.len(), bounds.held)?;
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
    use super::*;

    #[test]
    fn what_is_held_is_given_back() {
        let account = Rc::new(Cell::new(0));
        let mut a = Held::new(&account);
        assert_eq!(a.add(60, 100), Ok(()));
        let mut b = Held::new(&account);
        assert_eq!(b.add(60, 100), Err(Refusal::Overloaded));
        drop(a);
        assert_eq!(b.add(60, 100), Ok(()));
        drop(b);
        assert_eq!(account.get(), 0);
    }
}
