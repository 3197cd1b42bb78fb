//! A glommio socket, as hyper wants it.
//!
//! Reads go through a buffer that all connections of a core share and are copied from there: hyper's
//! own buffer is uninitialized memory, which glommio's `poll_read` must not see, and clearing all of it
//! for each read costs more than copying the few hundred bytes that arrive.

use std::cell::RefCell;
use std::io;
use std::os::fd::FromRawFd;
use std::os::fd::IntoRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use futures_lite::AsyncRead;
use futures_lite::AsyncWrite;
use glommio::net::TcpStream;
use hyper::rt::ReadBufCursor;

use crate::http::activity::Activity;

/// Bytes of one read at most.
pub const SCRATCH_SIZE: usize = 64 << 10;

/// Where the reads of one core land first. Borrowed within a poll only.
pub type Scratch = Rc<RefCell<Box<[u8]>>>;

/// The buffer for one core's connections.
pub fn scratch() -> Scratch {
    Rc::new(RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice()))
}

/// A stream hyper can read and write, which notes when everything is on its way.
#[derive(Debug)]
pub struct HyperStream {
    stream: TcpStream,
    /// What another core had read of it already.
    ahead: Bytes,
    scratch: Scratch,
    activity: Rc<Activity>,
}

impl HyperStream {
    /// Wrap a connected stream.
    pub fn new(stream: TcpStream, ahead: Bytes, scratch: Scratch, activity: Rc<Activity>) -> Self {
        Self { stream, ahead, scratch, activity }
    }

    /// The socket, for another core. Nothing may be under way on it.
    pub fn into_socket(self) -> std::net::TcpStream {
        let number = self.stream.into_raw_fd();
        // SAFETY: the runtime gave the number away in the line above; nobody else has it.
        #[expect(unsafe_code, reason = "glommio gives a socket by its number only")]
        unsafe {
            std::net::TcpStream::from_raw_fd(number)
        }
    }

    /// Say that nothing more will be written.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }

    /// Read once and forget it. The number of bytes; zero is the end.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, &mut self.scratch.borrow_mut())
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
        let mut scratch = this.scratch.borrow_mut();
        let room = cursor.remaining().min(scratch.len());
        let n = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut scratch[..room]))?;
        if n > 0 {
            this.activity.on_read();
        }
        cursor.put_slice(&scratch[..n]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for HyperStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        this.activity.on_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_close(cx)
    }
}
