//! How much of a reply was sent, when it is over: nobody knows before how long one is that is made meanwhile.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;

use crate::gateway::stats::Stats;
use crate::http::body::Content;
use crate::http::body::Pieces;
use crate::types::Namespace;

/// Have the pieces of a reply, if it has some, counted for `namespace`.
pub(super) fn count_pieces(
    content: &mut Content,
    stats: &Rc<RefCell<Stats>>,
    namespace: &Namespace,
) {
    if let Content::Pieces(_) = content
        && let Content::Pieces(pieces) = std::mem::replace(content, Content::Whole(Bytes::new()))
    {
        let (stats, namespace) = (Rc::clone(stats), namespace.clone());
        *content = Content::Pieces(Box::new(Counted { pieces, stats, namespace, sent: 0 }));
    }
}

/// Pieces, and the bytes of them so far.
#[derive(Debug)]
struct Counted {
    pieces: Box<dyn Pieces>,
    stats: Rc<RefCell<Stats>>,
    namespace: Namespace,
    sent: u64,
}

impl Pieces for Counted {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let piece = ready!(self.pieces.poll_piece(cx));
        if let Some(Ok(bytes)) = &piece {
            self.sent += bytes.len() as u64;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.stats.borrow_mut().count_sent(&self.namespace, self.sent);
    }
}
