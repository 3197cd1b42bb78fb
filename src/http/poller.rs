//! Which sockets of a core can be read or written: one `io_uring` for all of them.
//!
//! The executor could wait for a socket as well, and does so for everything else. But it asks the kernel anew before
//! each read, and whenever something arrives has the kernel interrupt what the core is doing. Here the kernel is
//! asked once for each connection (`IORING_POLL_ADD_MULTI`, Linux 5.13) and keeps what it has to say until the core
//! enters it the next time (`IORING_SETUP_COOP_TASKRUN`, Linux 5.19): a fifth less of the processor for a small
//! request (decision 0018). The executor waits for the ring, and so learns of many sockets at once.
//!
//! Those who can read stand in a line for each sender; a few are woken at a time, one of each line in turn. So a
//! thousand connections of one do not keep another's waiting.
//!
//! Invariants
//! - A socket is open while it is watched, and is watched from one place.
//! - Events tell of changes, not of how things are: see [`Interest`].
//! - What the kernel did not take in the end makes the ring unusable, so that nothing is taken later for a socket that
//!   was closed.

use std::cell::Cell;
use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::future::Future as _;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use glommio::io::PollableFd;
use io_uring::IoUring;
use io_uring::cqueue;
use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::squeue::Flags;
use io_uring::types::Fd;

use crate::http::Sender;
use crate::shard::lines::Lines;

/// Operations handed to the kernel at once; two are used.
const N_SUBMITTED: u32 = 8;
/// Events that the ring has room for; the kernel keeps what is more. It also takes this for how many operations
/// there will be, each of which it must find to cancel it.
const N_EVENTS: u32 = 4_096;
/// Connections that are woken before it is seen who else can read.
const WOKEN_AT_ONCE: usize = 128;
/// The same where several senders wait: half a millisecond's worth.
const WOKEN_AT_ONCE_OF_MANY: usize = 32;
/// How often the kernel is asked again to take an operation, when it has no memory for it or was interrupted.
const TRIES: usize = 16;

/// What a socket is watched for as long as it is open. That it failed the kernel always says.
const READ_EVENTS: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;
/// What it is watched for from when it took no more.
const WRITE_EVENTS: u32 = libc::POLLOUT as u32;
/// After one of these there is something to read for ever: the end, or what went wrong.
const END_EVENTS: u32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as u32;

/// After one of these it is worth trying to write. Not after the end of what the peer sends, which comes by itself.
const WRITER_EVENTS: u32 = (libc::POLLOUT | libc::POLLHUP | libc::POLLERR) as u32;

/// Set in the number of an operation that waits to write.
const TO_WRITE: u64 = 1 << 63;
/// The number of an operation whose end matters to nobody.
const NOBODY: u64 = u64::MAX;

/// Tells the sockets of one core when they can go on.
#[derive(Clone)]
pub struct Poller {
    shared: Rc<Shared>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("n_slots", &self.shared.slots.borrow().len()).finish()
    }
}

struct Shared {
    ring: RefCell<IoUring>,
    slots: RefCell<Vec<Slot>>,
    /// Those of them that are not in use.
    free: RefCell<Vec<u32>>,
    /// Who can read, and was not woken yet.
    lines: RefCell<Lines<Option<Sender>, Rc<Interest>>>,
    /// The ring has failed: nothing comes any more.
    is_broken: Cell<bool>,
    /// Who passes events on, and waits for the next; or for that.
    runner: RefCell<Option<Waker>>,
}

/// A place for a socket. Its generation tells the events of one from those of who had the place before.
#[derive(Default)]
struct Slot {
    generation: u32,
    watched: Option<(RawFd, Rc<Interest>)>,
}

/// What is known of one socket, and who waits for it.
///
/// A read that gives less than was asked for has taken all there was: what comes then makes an event. Only the end
/// makes none of its own if it came together with the last bytes; so it is remembered. (A read also ends early at an
/// urgent byte, which nobody sends in HTTP: such a connection waits until it is overdue, or more comes.)
#[derive(Debug)]
pub(super) struct Interest {
    /// Something may have come since it was last read to its end.
    is_readable: Cell<bool>,
    has_ended: Cell<bool>,
    /// Whether it is watched for room to write, too.
    is_watched_to_write: Cell<bool>,
    /// Why the kernel does not watch it.
    failed: Cell<Option<Errno>>,
    /// Whose it is, as far as its last request said; and whether it stands in that line.
    sender: Cell<Option<Sender>>,
    is_in_line: Cell<bool>,
    /// Stays when it has been woken: it is the same for all reads of a connection.
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

/// A number of the kernel's for what is wrong.
type Errno = i32;

/// What a watched socket is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    #[cfg(test)]
    pub(super) fn index(self) -> u32 {
        self.index
    }

    fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn of(number: u64) -> Self {
        let (generation, index) = ((number & !TO_WRITE) >> 32, number & u64::from(u32::MAX));
        let half = |it| u32::try_from(it).expect("half of a number");
        Self { index: half(index), generation: half(generation) }
    }
}

impl Poller {
    /// A ring for the sockets of the core that this runs on. With `interrupts`, events are there at once even while the
    /// core does not enter the kernel; for one that spins.
    pub fn new(interrupts: bool) -> io::Result<Self> {
        Self::with_room(N_EVENTS, interrupts)
    }

    /// One with room for so many events, at least as many as operations.
    pub(super) fn with_room(n_events: u32, interrupts: bool) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(n_events);
        let plain = || builder.build(N_SUBMITTED);
        // An older kernel knows how to do without.
        let waiting =
            || builder.clone().setup_coop_taskrun().build(N_SUBMITTED).or_else(|_| plain());
        let ring = if interrupts { plain()? } else { waiting()? };
        // Operations that say nothing when they succeed, and all else that is used here.
        if !ring.params().is_feature_skip_cqe_on_success() {
            return Err(io::Error::other("watching sockets needs Linux 5.17 or newer"));
        }
        let shared = Shared {
            ring: RefCell::new(ring),
            slots: RefCell::default(),
            free: RefCell::default(),
            lines: RefCell::default(),
            is_broken: Cell::new(false),
            runner: RefCell::default(),
        };
        Ok(Self { shared: Rc::new(shared) })
    }

    /// Pass on what the kernel tells, for ever. Sockets learn nothing while this does not run; they fail once it
    /// has ended with an error.
    pub async fn run(&self) -> io::Error {
        let error = match self.pass_on().await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        self.fail_all();
        error
    }

    /// Nothing comes any more: tell everybody.
    pub(super) fn fail_all(&self) {
        self.shared.is_broken.set(true);
        // Each leaves its place when it is dropped.
        let watched = |it: &Slot| it.watched.as_ref().map(|(_, interest)| Rc::clone(interest));
        let all: Vec<_> = self.shared.slots.borrow().iter().filter_map(watched).collect();
        for interest in all {
            interest.fail(libc::EIO);
        }
    }

    async fn pass_on(&self) -> io::Result<Infallible> {
        let ring = PollableFd::new(Ring(Rc::clone(&self.shared))).map_err(io::Error::from)?;
        let mut events = Vec::new();
        loop {
            self.shared.take_events(&mut events)?;
            if self.shared.wake_some() {
                // They run before this does again.
                glommio::executor().yield_task_queue_now().await;
            } else {
                let mut readable = pin!(ring.readable());
                let waited = poll_fn(|cx| {
                    // What is broken makes no event.
                    if self.shared.is_broken.get() {
                        return Poll::Ready(Ok(()));
                    }
                    keep(&self.shared.runner, cx);
                    readable.as_mut().poll(cx)
                });
                waited.await.map_err(io::Error::from)?;
            }
        }
    }

    /// Leave the ring no room for an operation.
    #[cfg(test)]
    pub(super) fn jam(&self) {
        let mut ring = self.shared.ring.borrow_mut();
        for _ in 0..N_SUBMITTED {
            // SAFETY: an operation that does nothing names no memory.
            #[expect(unsafe_code, reason = "an operation could name memory")]
            let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
            pushed.expect("there is room for so many");
        }
    }

    /// Watch a socket, which is open until [`Self::forget`] is called.
    pub(super) fn watch(&self, socket: RawFd) -> io::Result<(Key, Rc<Interest>)> {
        let interest = Rc::new(Interest {
            // Nobody has looked yet.
            is_readable: Cell::new(true),
            has_ended: Cell::new(false),
            is_watched_to_write: Cell::new(false),
            failed: Cell::new(None),
            sender: Cell::new(None),
            is_in_line: Cell::new(false),
            reader: RefCell::default(),
            writer: RefCell::default(),
        });
        let key = self.shared.place(socket, &interest);
        match self.shared.submit(&[watching(socket, key.number(), READ_EVENTS)]) {
            Ok(()) => Ok((key, interest)),
            Err(error) => {
                self.shared.vacate(key);
                Err(error)
            }
        }
    }

    /// No longer watch a socket, which the kernel keeps open until it is told.
    pub(super) fn forget(&self, key: Key, interest: &Interest) {
        self.shared.vacate(key);
        // It may stand in a line for a while, and is not to keep its task.
        let wakers = (interest.reader.take(), interest.writer.take());
        drop(wakers);
        let number = key.number();
        // To remove the poll instead fails while an event is on its way, and leaves it there.
        let stop = |number| opcode::AsyncCancel::new(number).build();
        let stop = |number| stop(number).flags(Flags::SKIP_SUCCESS).user_data(NOBODY);
        let stops = [stop(number), stop(number | TO_WRITE)];
        let n_stops = if interest.is_watched_to_write.get() { 2 } else { 1 };
        // Without the ring there is nobody to keep it open.
        let _ = self.shared.submit(&stops[..n_stops]);
    }

    /// Tell `interest` when the socket takes more, from now on.
    pub(super) fn watch_to_write(
        &self,
        socket: RawFd,
        key: Key,
        interest: &Interest,
    ) -> io::Result<()> {
        if interest.is_watched_to_write.replace(true) {
            return Ok(());
        }
        self.shared.submit(&[watching(socket, key.number() | TO_WRITE, WRITE_EVENTS)])
    }
}

impl Interest {
    pub(super) fn is_readable(&self) -> bool {
        self.is_readable.get()
    }

    /// An error if nothing would be heard of it any more.
    pub(super) fn check(&self) -> io::Result<()> {
        self.failed.get().map_or(Ok(()), |it| Err(io::Error::from_raw_os_error(it)))
    }

    fn fail(&self, why: Errno) {
        self.failed.set(Some(why));
        self.wake_reader();
        self.wake_writer();
    }

    /// Whose line it stands in from now on.
    pub(super) fn belong_to(&self, sender: Option<Sender>) {
        self.sender.set(sender);
    }

    /// All there was has been read.
    pub(super) fn on_drained(&self) {
        self.is_readable.set(self.has_ended.get());
    }

    /// There was nothing, whatever an event said.
    pub(super) fn on_nothing(&self) {
        self.is_readable.set(false);
    }

    /// Wake this task when there may be something to read.
    pub(super) fn wait_to_read(&self, cx: &Context<'_>) {
        keep(&self.reader, cx);
    }

    /// Wake this task when the socket takes more.
    pub(super) fn wait_to_write(&self, cx: &Context<'_>) {
        keep(&self.writer, cx);
    }

    fn wake_reader(&self) {
        if let Some(waker) = &*self.reader.borrow() {
            waker.wake_by_ref();
        }
    }

    fn wake_writer(&self) {
        let waker = self.writer.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Shared {
    fn place(&self, socket: RawFd, interest: &Rc<Interest>) -> Key {
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot::default());
            u32::try_from(slots.len() - 1).expect("fewer sockets than that")
        });
        let slot = &mut slots[index as usize];
        slot.watched = Some((socket, Rc::clone(interest)));
        Key { index, generation: slot.generation }
    }

    fn vacate(&self, key: Key) {
        let slot = &mut self.slots.borrow_mut()[key.index as usize];
        slot.watched = None;
        // The highest bit says what is waited for.
        slot.generation = (slot.generation + 1) & (u32::MAX >> 1);
        self.free.borrow_mut().push(key.index);
    }

    /// Who is watched by that key, if it still is.
    fn at(&self, key: Key) -> Option<(RawFd, Rc<Interest>)> {
        let slots = self.slots.borrow();
        let slot = slots.get(key.index as usize).filter(|it| it.generation == key.generation)?;
        slot.watched.clone()
    }

    /// Have the kernel take these.
    fn submit(&self, entries: &[Entry]) -> io::Result<()> {
        if self.is_broken.get() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let mut ring = self.ring.borrow_mut();
        let pushed = entries.iter().try_for_each(|entry| {
            // SAFETY: none of them names memory, and the sockets are open: what is not taken here never is.
            // JUSTIFICATION: the ring's crate cannot know.
            #[expect(unsafe_code, reason = "an operation could name memory")]
            unsafe {
                ring.submission().push(entry)
            }
        });
        let submitted = pushed.map_err(io::Error::other).and_then(|()| submit_all(&mut ring));
        if submitted.is_err() {
            self.is_broken.set(true);
            let runner = self.runner.take();
            runner.into_iter().for_each(Waker::wake);
        }
        submitted
    }

    /// Note all there is now, by way of `events`, which is empty; what comes meanwhile makes the ring readable.
    fn take_events(&self, events: &mut Vec<cqueue::Entry>) -> io::Result<()> {
        let mut ring = self.ring.borrow_mut();
        events.extend(ring.completion());
        if ring.submission().cq_overflow() {
            // Hands over what the kernel kept for want of room.
            submit_all(&mut ring)?;
        }
        drop(ring);
        for event in events.drain(..) {
            self.on_event(&event)?;
        }
        if self.is_broken.get() {
            return Err(io::Error::other("the kernel takes no operation of a ring"));
        }
        Ok(())
    }

    fn on_event(&self, event: &cqueue::Entry) -> io::Result<()> {
        let number = event.user_data();
        if number == NOBODY {
            if event.result() < 0 && event.result() != -libc::ENOENT {
                tracing::warn!(
                    result = event.result(),
                    "a closed connection stays open to its peer"
                );
            }
            return Ok(());
        }
        let key = Key::of(number);
        let Some((socket, interest)) = self.at(key) else { return Ok(()) };
        let Ok(events) = u32::try_from(event.result()) else {
            interest.fail(-event.result());
            return Ok(());
        };
        if !cqueue::more(event.flags()) {
            let wanted = if number & TO_WRITE == 0 { READ_EVENTS } else { WRITE_EVENTS };
            self.submit(&[watching(socket, number, wanted)])?;
        }
        if events & END_EVENTS != 0 {
            interest.has_ended.set(true);
        }
        if events & WRITER_EVENTS != 0 {
            interest.wake_writer();
        }
        if number & TO_WRITE == 0 {
            interest.is_readable.set(true);
            if !interest.is_in_line.replace(true) {
                self.lines.borrow_mut().push(interest.sender.get(), interest);
            }
        }
        Ok(())
    }

    /// Wake some of those who can read. Whether there are more.
    fn wake_some(&self) -> bool {
        let is_crowded = self.lines.borrow().n_lines() > 1;
        for _ in 0..if is_crowded { WOKEN_AT_ONCE_OF_MANY } else { WOKEN_AT_ONCE } {
            let Some(interest) = self.lines.borrow_mut().pop() else { return false };
            interest.is_in_line.set(false);
            interest.wake_reader();
        }
        !self.lines.borrow().is_empty()
    }
}

fn submit_all(ring: &mut IoUring) -> io::Result<()> {
    for _ in 0..TRIES {
        match ring.submit() {
            Ok(_) if ring.submission().is_empty() => return Ok(()),
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                _ => return Err(error),
            },
        }
    }
    Err(io::Error::other("the kernel takes no operation of a ring"))
}

fn watching(socket: RawFd, number: u64, events: u32) -> Entry {
    opcode::PollAdd::new(Fd(socket), events).multi(true).build().user_data(number)
}

fn keep(place: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut place = place.borrow_mut();
    if !place.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

/// For the executor, which wants to know what it waits for.
struct Ring(Rc<Shared>);

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.0.ring.borrow().as_raw_fd()
    }
}
