//! A [`Socket`], as hyper wants it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use hyper::rt::ReadBufCursor;

use crate::http::Refusal;
use crate::http::activity::Activity;
use crate::http::activity::Phase;
use crate::http::socket::Socket;

/// Bytes of one read at most.
pub(super) const READ_SIZE_MAX: usize = 64 << 10;
/// Bytes that nobody wants, read at once.
const DISCARDED_SIZE: usize = 16 << 10;

/// A stream hyper can read and write, which notes when everything is on its way.
#[derive(Debug)]
pub(super) struct HyperStream {
    socket: Socket,
    /// What another core had read of it already.
    ahead: Bytes,
    activity: Rc<Activity>,
    /// What hyper wanted to answer to a head it could not read.
    refusal: Option<Refusal>,
}

impl HyperStream {
    /// Wrap a connected socket.
    pub(super) fn new(socket: Socket, ahead: Bytes, activity: Rc<Activity>) -> Self {
        Self { socket, ahead, activity, refusal: None }
    }

    /// The socket, for another core, and what was read ahead but by nobody here. Nothing may be under way on it.
    pub(super) fn into_socket(self) -> (std::net::TcpStream, Bytes) {
        (self.socket.into_std(), self.ahead)
    }

    /// Why hyper gave up on the peer, if it would have said so; it is for the caller to say now.
    pub(super) fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
    }

    /// Write, past hyper.
    pub(super) fn poll_write_plain(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_write(cx, &[io::IoSlice::new(bytes)])
    }

    /// Keep back what hyper says when it could not read a head: a status, and no word of what is wrong. It comes
    /// while no request is under way, and is the last that hyper writes.
    fn keeps_back(&mut self, bytes: &[u8]) -> bool {
        if !matches!(self.activity.phase(), Phase::Head | Phase::Idle) {
            return false;
        }
        self.refusal = refusal_in(bytes);
        self.refusal.is_some()
    }

    /// Say that nothing more will be written.
    pub(super) fn end(&self) -> io::Result<()> {
        self.socket.end()
    }

    /// Read once and forget it. The number of bytes; zero is the end.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.socket.poll_read(cx, &mut [MaybeUninit::uninit(); DISCARDED_SIZE])
    }
}

impl hyper::rt::Read for HyperStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let n = cursor.remaining().min(this.ahead.len());
            cursor.put_slice(&this.ahead.split_to(n));
            this.activity.on_read();
            return Poll::Ready(Ok(()));
        }
        this.socket.belong_to(this.activity.sender());
        let room = cursor.remaining().min(READ_SIZE_MAX);
        // SAFETY: nothing in it is made uninitialized.
        // JUSTIFICATION: hyper reads into memory that nobody has cleared, and clearing it costs more than a read.
        #[expect(unsafe_code, reason = "the memory is uninitialized")]
        let buffer = unsafe { &mut cursor.as_mut()[..room] };
        let n = ready!(this.socket.poll_read(cx, buffer))?;
        if n > 0 {
            this.activity.on_read();
        }
        // SAFETY: so many bytes at its beginning have been initialized.
        #[expect(unsafe_code, reason = "nobody else knows how many bytes there are")]
        unsafe {
            cursor.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for HyperStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.keeps_back(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        this.poll_write_plain(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let [only] = slices
            && this.keeps_back(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        this.socket.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.on_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}

/// What hyper wants to say, if these bytes are a refusal of its own: a head that says there is no body, and nothing
/// behind it.
fn refusal_in(bytes: &[u8]) -> Option<Refusal> {
    let text = str::from_utf8(bytes).ok()?;
    let head = text.strip_prefix("HTTP/1.1 ")?.strip_suffix("\r\n\r\n")?;
    let is_alone = !head.contains("\r\n\r\n") && head.contains("\r\ncontent-length: 0\r\n");
    match head.get(..3).filter(|_| is_alone)? {
        "400" => Some(Refusal::HeadBroken),
        "414" | "431" => Some(Refusal::HeadTooLarge),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::net::TcpStream;

    use futures_lite::future;
    use hyper::rt::Read;
    use hyper::rt::ReadBuf;

    use super::*;
    use crate::http::activity::Activities;
    use crate::http::poller::Poller;
    use crate::http::testing::on_executor;

    #[test]
    fn a_refusal_is_a_head_and_nothing_else() {
        let date = "date: Mon, 23 Nov 2026 00:00:00 GMT";
        let fields = format!("connection: close\r\ncontent-length: 0\r\n{date}\r\n\r\n");
        let refusal = |status: &str| format!("HTTP/1.1 {status}\r\n{fields}");
        let broken = refusal("400 Bad Request");
        for (text, want) in [
            (broken.clone(), Some(Refusal::HeadBroken)),
            (refusal("414 URI Too Long"), Some(Refusal::HeadTooLarge)),
            (refusal("431 Request Header Fields Too Large"), Some(Refusal::HeadTooLarge)),
            (refusal("200 OK"), None),
            (refusal("404 Not Found"), None),
            (format!("{broken}and more"), None),
            (format!("{broken}{broken}"), None),
            (broken[..broken.len() - 1].to_owned(), None),
            (format!(" {broken}"), None),
            ("HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(), None),
            ("HTTP/1.1 400 Bad Request".to_owned(), None),
            ("HTTP/1.1 ".to_owned(), None),
        ] {
            assert_eq!(refusal_in(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn what_was_read_ahead_moves_on_as_far_as_nobody_took_it() {
        on_executor(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = Socket::new(stream, &Poller::new(false).unwrap()).unwrap();
            let place = Rc::<Activities>::default().open(1);
            let activity = Rc::clone(&place.activity);
            let ahead = Bytes::from_static(b"taken left");
            let mut stream = HyperStream::new(socket, ahead, activity);
            let mut bytes = [0; 6];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read =
                |cx: &mut Context<'_>| Pin::new(&mut stream).poll_read(cx, buffer.unfilled());
            future::poll_fn(read).await.unwrap();
            assert_eq!(buffer.filled(), b"taken ");
            let (mut socket, ahead) = stream.into_socket();
            assert_eq!(ahead, b"left"[..]);
            socket.write_all(b"x").unwrap();
        });
    }
}
