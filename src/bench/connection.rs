//! One keep-alive connection that never blocks: a request out, its reply in.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use crate::bench::http;
use crate::bench::http::Reply;

/// How long connecting may take. It holds up the other clients of the thread, so it is short.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that a reply may have before its buffer grows.
const BUFFER_SIZE: usize = 4 << 10;

/// A connection to the server, with at most one request under way.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// The request, and how much of it has been written.
    out: Vec<u8>,
    n_written: usize,
    /// What came of the reply: the first `n_read` bytes.
    buffer: Vec<u8>,
    n_read: usize,
}

impl Connection {
    /// Connect, waiting for a moment.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, out: Vec::new(), n_written: 0, buffer: vec![0; BUFFER_SIZE], n_read: 0 })
    }

    /// The socket, to be watched.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Forget the reply before, and take the next request from `write`; then [`Self::flush`] it.
    pub(super) fn request(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.out.clear();
        self.n_written = 0;
        self.n_read = 0;
        write(&mut self.out);
        &self.out
    }

    /// Write what there is room for; whether that was all.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.n_written < self.out.len() {
            match self.stream.write(&self.out[self.n_written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.n_written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether a part of the request waits for room.
    pub(super) fn is_writing(&self) -> bool {
        self.n_written < self.out.len()
    }

    /// Read what there is; the reply, once it is whole.
    pub(super) fn receive(&mut self) -> io::Result<Option<Reply<'_>>> {
        if self.n_read == self.buffer.len() {
            self.buffer.resize(2 * self.n_read, 0);
        }
        match self.stream.read(&mut self.buffer[self.n_read..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.n_read += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error),
        }
        let invalid = |it| io::Error::new(io::ErrorKind::InvalidData, it);
        http::parse(&self.buffer[..self.n_read]).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_request_larger_than_the_socket_takes_is_written_in_parts_and_answered_in_parts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let size = 32 << 20;
        connection.request(|out| out.resize(size, b'x'));
        assert!(!connection.flush().unwrap());
        assert!(connection.is_writing());
        let mut got = 0;
        let mut scratch = vec![0; 1 << 20];
        while got < size {
            got += peer.read(&mut scratch).unwrap();
            connection.flush().unwrap();
        }
        assert!(!connection.is_writing());
        assert_eq!(connection.receive().unwrap(), None);
        let body = "y".repeat(3 * BUFFER_SIZE);
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        peer.write_all(reply.as_bytes()).unwrap();
        let whole = loop {
            if let Some(reply) = connection.receive().unwrap() {
                break reply.body.into_owned();
            }
        };
        assert_eq!(whole, body.as_bytes());
        drop(peer);
        connection.request(|_| {});
        let error = connection.receive().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
