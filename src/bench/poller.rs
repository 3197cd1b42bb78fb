//! epoll: which of many connections have something to read, or room to write.
//!
//! One system call tells for all of them, and waits with the precision of nanoseconds, which an open loop needs
//! (`epoll_pwait2`, Linux 5.11). It needs no `io_uring`, so a machine that only measures may lack it.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Connections that one wait tells of.
const EVENTS_MAX: usize = 256;

/// A set of connections, each known by a number.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    n_ready: usize,
}

impl Poller {
    /// An empty set.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        #[expect(unsafe_code, reason = "std has no epoll")]
        let number = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, and nobody else knows it.
        #[expect(unsafe_code, reason = "std has no epoll")]
        let epoll = unsafe { OwnedFd::from_raw_fd(number) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        Ok(Self { epoll, events, n_ready: 0 })
    }

    /// Watch a connection for what can be read; closing it ends that.
    pub(super) fn add(&self, stream: &TcpStream, number: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, stream, number, libc::EPOLLIN)
    }

    /// Watch a connection for room to write as well, or no longer.
    pub(super) fn watch_room(
        &self,
        stream: &TcpStream,
        number: usize,
        is_wanted: bool,
    ) -> io::Result<()> {
        let room = if is_wanted { libc::EPOLLOUT } else { 0 };
        self.control(libc::EPOLL_CTL_MOD, stream, number, libc::EPOLLIN | room)
    }

    fn control(
        &self,
        operation: i32,
        stream: &TcpStream,
        number: usize,
        events: i32,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: number as u64 };
        let (epoll, socket) = (self.epoll.as_raw_fd(), stream.as_raw_fd());
        // SAFETY: both descriptors are open, and the kernel copies the event.
        #[expect(unsafe_code, reason = "std has no epoll")]
        let result = unsafe { libc::epoll_ctl(epoll, operation, socket, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Wait until some are ready, or the time is over.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the kernel writes at most as many events as there is room for, and reads the time; no mask
        // is passed.
        #[expect(unsafe_code, reason = "std has no epoll, and libc no name for this call")]
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len(),
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        self.n_ready = usize::try_from(n).unwrap_or(0);
        let error = io::Error::last_os_error();
        if n < 0 && error.kind() != io::ErrorKind::Interrupted { Err(error) } else { Ok(()) }
    }

    /// How many the last wait told of.
    pub(super) fn n_ready(&self) -> usize {
        self.n_ready
    }

    /// The number of the `nth` of them.
    pub(super) fn ready(&self, nth: usize) -> usize {
        let event = self.events[nth];
        usize::try_from(event.u64).expect("it was a usize when it was added")
    }
}

/// Have this thread woken within a microsecond of the time it asked for; by default the kernel takes fifty.
pub(super) fn wake_precisely() {
    // SAFETY: no pointer is passed.
    #[expect(unsafe_code, reason = "std has no timer slack")]
    let result = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64) };
    debug_assert_eq!(result, 0, "the kernel knows timer slack");
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn it_tells_which_connection_has_something_to_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ours: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let theirs: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        let mut poller = Poller::new().unwrap();
        for (number, stream) in ours.iter().enumerate() {
            poller.add(stream, number).unwrap();
        }
        poller.wait(Duration::ZERO).unwrap();
        assert_eq!(poller.n_ready(), 0);
        (&theirs[1]).write_all(b"x").unwrap();
        poller.wait(Duration::from_secs(5)).unwrap();
        assert_eq!((poller.n_ready(), poller.ready(0)), (1, 1));
        (&ours[1]).read_exact(&mut [0]).unwrap();
        poller.watch_room(&ours[2], 2, true).unwrap();
        poller.wait(Duration::from_secs(5)).unwrap();
        assert_eq!((poller.n_ready(), poller.ready(0)), (1, 2));
        poller.watch_room(&ours[2], 2, false).unwrap();
        poller.wait(Duration::from_micros(200)).unwrap();
        assert_eq!(poller.n_ready(), 0);
    }
}
