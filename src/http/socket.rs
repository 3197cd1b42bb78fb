//! A connected socket of a core.
//!
//! Reading and writing are plain system calls, which never wait; the [`Poller`] says when to try again.

use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

use socket2::SockRef;

use crate::http::Sender;
use crate::http::poller::Interest;
use crate::http::poller::Key;
use crate::http::poller::Poller;

/// Never wait, and let nobody be killed by a signal.
const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// A connected socket, at home on one core.
pub struct Socket {
    /// None only in [`Self::into_std`].
    stream: Option<TcpStream>,
    poller: Poller,
    key: Key,
    interest: Rc<Interest>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Socket").field(&self.stream).finish()
    }
}

impl Socket {
    /// Take over a connected socket.
    pub fn new(stream: TcpStream, poller: &Poller) -> io::Result<Self> {
        let (key, interest) = poller.watch(stream.as_raw_fd())?;
        Ok(Self { stream: Some(stream), poller: poller.clone(), key, interest })
    }

    /// The socket, for another core. What was not read yet, is for whoever reads next.
    pub fn into_std(mut self) -> TcpStream {
        self.stream.take().expect("it is taken once")
    }

    /// Have it stand in line with what else this sender has, when there is something to read.
    pub(super) fn belong_to(&self, sender: Option<Sender>) {
        self.interest.belong_to(sender);
    }

    /// Read what there is, as far as it fits. The number of bytes at the beginning of `buffer` that are initialized
    /// now; zero is the end.
    pub fn poll_read(
        &self,
        cx: &Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        self.interest.check()?;
        while self.interest.is_readable() {
            match self.plain().recv_with_flags(buffer, FLAGS) {
                Ok(n) => {
                    if n < buffer.len() {
                        self.interest.on_drained();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.interest.on_nothing();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.interest.wait_to_read(cx);
        Poll::Pending
    }

    /// Write as much as the socket takes. The number of bytes.
    pub fn poll_write(&self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.interest.check()?;
        loop {
            let sent = match slices {
                [only] => self.plain().send_with_flags(only, FLAGS),
                _ => self.plain().send_vectored_with_flags(slices, FLAGS),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.interest.wait_to_write(cx);
                    let (socket, poller) = (self.as_raw_fd(), &self.poller);
                    poller.watch_to_write(socket, self.key, &self.interest)?;
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Say that nothing more will be written.
    pub fn end(&self) -> io::Result<()> {
        self.plain().shutdown(Shutdown::Write)
    }

    fn plain(&self) -> SockRef<'_> {
        SockRef::from(self.stream.as_ref().expect("it is taken at the end"))
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_ref().expect("it is taken at the end").as_raw_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.poller.forget(self.key, &self.interest);
    }
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::task::Wake;
    use std::task::Waker;
    use std::time::Duration;

    use futures_lite::future::or;

    use super::*;
    use crate::http::testing::on_executor;

    /// A socket, and its peer, which waits a bounded time.
    fn pair(poller: &Poller) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        peer.set_nodelay(true).unwrap();
        (Socket::new(listener.accept().unwrap().0, poller).unwrap(), peer)
    }

    /// With events passed on.
    fn with_poller<T>(poller: &Poller, test: impl Future<Output = T>) -> T {
        let poller = poller.clone();
        on_executor(or(async move { panic!("{}", poller.run().await) }, test))
    }

    async fn read(socket: &Socket, room: usize) -> io::Result<usize> {
        let mut buffer = vec![MaybeUninit::uninit(); room];
        future::poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await
    }

    async fn write(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        future::poll_fn(|cx| socket.poll_write(cx, &[IoSlice::new(bytes)])).await
    }

    /// Write until it fails.
    async fn fill(socket: &Socket, bytes: &[u8]) -> bool {
        while write(socket, bytes).await.is_ok() {}
        true
    }

    /// Whether a read ends while the executor goes round a few times.
    async fn is_ready_soon(socket: &Socket) -> bool {
        let soon = async {
            for _ in 0..100 {
                glommio::executor().yield_task_queue_now().await;
            }
            false
        };
        or(async { read(socket, 1).await.is_ok() }, soon).await
    }

    /// Notes whom it wakes, and in which order.
    struct Woken(usize, flume::Sender<usize>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.1.send(self.0).unwrap();
        }
    }

    #[test]
    fn reads_what_comes_whenever_it_comes() {
        let poller = Poller::new(false).unwrap();
        let (socket, mut peer) = pair(&poller);
        with_poller(&poller, async {
            for size in [1, 100, 7_000] {
                assert!(!is_ready_soon(&socket).await, "nothing was written");
                peer.write_all(&vec![b'x'; size]).unwrap();
                let mut left = size;
                while left > 0 {
                    left -= read(&socket, 64).await.unwrap();
                }
            }
        });
    }

    #[test]
    fn an_end_that_comes_with_the_last_bytes_is_seen() {
        let poller = Poller::new(false).unwrap();
        let (socket, mut peer) = pair(&poller);
        peer.write_all(b"all").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        with_poller(&poller, async {
            // Both events are one by now, and the read is shorter than its room.
            assert_eq!(read(&socket, 64).await.unwrap(), 3);
            assert_eq!(read(&socket, 64).await.unwrap(), 0);
            assert_eq!(read(&socket, 64).await.unwrap(), 0, "it stays the end");
            assert_eq!(write(&socket, b"still listens").await.unwrap(), 13);
        });
        let (socket, peer) = pair(&poller);
        with_poller(&poller, async {
            assert!(!is_ready_soon(&socket).await);
            drop(peer);
            assert_eq!(read(&socket, 64).await.unwrap(), 0);
        });
    }

    #[test]
    fn a_write_goes_on_when_the_peer_reads() {
        let poller = Poller::new(false).unwrap();
        let (socket, mut peer) = pair(&poller);
        let size = 32 << 20;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = vec![0; 64 << 10];
                let mut left = size;
                while left > 0 {
                    left -= peer.read(&mut buffer).unwrap();
                }
            });
            with_poller(&poller, async {
                let bytes = vec![b'x'; size];
                let mut left = &*bytes;
                while !left.is_empty() {
                    let n = write(&socket, left).await.unwrap();
                    left = &left[n..];
                }
            });
        });
    }

    #[test]
    fn what_is_dropped_is_closed_and_what_is_given_away_is_not() {
        let poller = Poller::new(false).unwrap();
        let (socket, mut peer) = pair(&poller);
        let blocked = vec![b'x'; 8 << 20];
        with_poller(&poller, async {
            // Waits for both.
            assert!(!is_ready_soon(&socket).await);
            let full = async {
                glommio::executor().yield_task_queue_now().await;
                false
            };
            assert!(!or(async { fill(&socket, &blocked).await }, full).await);
            let mut other = socket.into_std();
            peer.write_all(b"for the other").unwrap();
            let mut bytes = [0; 13];
            other.read_exact(&mut bytes).unwrap();
            drop(other);
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).unwrap();
            let (socket, mut peer) = pair(&poller);
            drop(socket);
            assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "closed at once");
        });
    }

    #[test]
    fn nobody_hears_what_was_meant_for_who_was_there_before() {
        let poller = Poller::new(false).unwrap();
        let (socket, mut peer) = pair(&poller);
        let key = socket.key;
        // The event is on its way, but nobody passes it on yet.
        peer.write_all(b"early").unwrap();
        drop(socket);
        let (socket, _peer) = pair(&poller);
        assert_eq!(key.index(), socket.key.index(), "the place is used again");
        with_poller(&poller, async {
            assert!(!is_ready_soon(&socket).await);
            assert!(!socket.interest.is_readable());
        });
    }

    #[test]
    fn whoever_is_closed_while_something_comes_is_closed_all_the_same() {
        // The peers write from another processor, so that events are on their way, and not there yet.
        let poller = Poller::new(false).unwrap();
        with_poller(&poller, async {
            let (peers, to_peers) = std::sync::mpsc::sync_channel::<TcpStream>(1);
            std::thread::scope(|scope| {
                let teller = scope.spawn(move || {
                    for mut peer in to_peers {
                        // It may be closed by now.
                        let _ = peer.write_all(b"late");
                        let mut rest = Vec::new();
                        match peer.read_to_end(&mut rest) {
                            Ok(_) => {}
                            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                            Err(error) => panic!("nobody closed it: {error}"),
                        }
                    }
                });
                for round in 0..2_000_u32 {
                    let (socket, peer) = pair(&poller);
                    peers.send(peer).unwrap();
                    for _ in 0..round % 50 * 20 {
                        std::hint::spin_loop();
                    }
                    match round % 3 {
                        0 => drop(socket.into_std()),
                        _ => drop(socket),
                    }
                }
                drop(peers);
                teller.join().unwrap();
            });
        });
    }

    #[test]
    fn a_peer_that_has_said_all_and_does_not_read_costs_nothing() {
        let poller = Poller::new(false).unwrap();
        let (socket, mut peer) = pair(&poller);
        let (other, mut other_peer) = pair(&poller);
        peer.shutdown(Shutdown::Write).unwrap();
        with_poller(&poller, async {
            assert_eq!(read(&socket, 64).await.unwrap(), 0);
            let bytes = vec![b'x'; 16 << 20];
            let (note, woken) = flume::unbounded();
            let waker = Waker::from(Arc::new(Woken(0, note)));
            let fill = || {
                let cx = Context::from_waker(&waker);
                while socket.poll_write(&cx, &[IoSlice::new(&bytes)]).is_ready() {}
            };
            fill();
            let mut n_wakes = 0;
            for _ in 0..100 {
                // What comes for another passes by the same way.
                other_peer.write_all(b"x").unwrap();
                assert_eq!(read(&other, 64).await.unwrap(), 1);
                if woken.try_recv().is_ok() {
                    n_wakes += 1;
                    fill();
                }
            }
            assert!(n_wakes < 10, "{n_wakes}");
            // And when it reads, there is room.
            peer.set_nonblocking(true).unwrap();
            let mut taken = vec![0; 1 << 20];
            while peer.read(&mut taken).is_ok() {}
            assert!(write(&socket, &bytes).await.unwrap() > 0);
        });
    }

    #[test]
    fn one_senders_many_do_not_keep_anothers_waiting() {
        let poller = Poller::new(false).unwrap();
        let pairs: Vec<_> = (0..201).map(|_| pair(&poller)).collect();
        let (note, woken) = flume::unbounded();
        let mut buffer = [MaybeUninit::uninit(); 8];
        for (nth, (socket, _)) in pairs.iter().enumerate() {
            socket.belong_to(Some(Sender(u32::from(nth == 200))));
            let waker = Waker::from(Arc::new(Woken(nth, note.clone())));
            assert!(socket.poll_read(&Context::from_waker(&waker), &mut buffer).is_pending());
        }
        for (_, peer) in &pairs {
            let mut peer = peer;
            peer.write_all(b"x").unwrap();
        }
        with_poller(&poller, async {
            while woken.len() < pairs.len() {
                glommio::executor().yield_task_queue_now().await;
            }
        });
        let order: Vec<_> = woken.try_iter().collect();
        assert_eq!(order.iter().position(|it| *it == 200), Some(1), "{order:?}");
        let others: Vec<_> = order.iter().filter(|it| **it != 200).copied().collect();
        assert!(others.is_sorted(), "{others:?}");
    }

    #[test]
    fn without_its_ring_a_socket_fails_and_can_be_dropped() {
        let poller = Poller::new(false).unwrap();
        let (socket, _peer) = pair(&poller);
        with_poller(&poller, async {
            assert!(!is_ready_soon(&socket).await);
        });
        poller.fail_all();
        on_executor(async {
            let error = read(&socket, 1).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let _ = Socket::new(stream, &poller).unwrap_err();
        });
        drop(socket);
    }

    #[test]
    fn more_events_than_there_is_room_for() {
        let poller = Poller::with_room(16, false).unwrap();
        let pairs = (0..100).map(|_| pair(&poller)).collect::<Vec<_>>();
        with_poller(&poller, async {
            for (socket, _) in &pairs {
                assert!(!is_ready_soon(socket).await);
            }
            for round in 1..=3 {
                for (_, peer) in &pairs {
                    let mut peer = peer;
                    peer.write_all(&vec![b'x'; round]).unwrap();
                }
                for (socket, _) in &pairs {
                    let mut left = round;
                    while left > 0 {
                        left -= read(socket, 64).await.unwrap();
                    }
                }
            }
        });
    }
}
