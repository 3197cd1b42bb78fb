//! Which sockets of a core can be read or written: one `io_uring` for all of them.
//!
//! The executor could wait for a socket as well, and does so for everything else. But it asks the kernel anew before
//! each read, and whenever something arrives has the kernel interrupt what the core is doing. Here the kernel is
//! asked once for each connection (`IORING_POLL_ADD_MULTI`, Linux 5.13) and keeps what it has to say until the core
//! enters it the next time (`IORING_SETUP_COOP_TASKRUN`, Linux 5.19): a fifth less of the processor for a small
//! request. The executor waits for the ring, and so learns of many sockets at once.
//!
//! Events tell of changes, not of how things are: see [`Interest`].

use std::cell::Cell;
use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Context;
use std::task::Waker;

use glommio::io::PollableFd;
use io_uring::IoUring;
use io_uring::cqueue;
use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fd;

/// Operations handed to the kernel at once; two are used.
const N_SUBMITTED: u32 = 8;
/// Events that the ring has room for; the kernel keeps what is more.
const N_EVENTS: u32 = 1_024;
/// How often the kernel is asked again to take an operation, when it has no memory for it or was interrupted.
const TRIES: usize = 16;

/// What a socket is watched for as long as it is open. That it failed the kernel always says.
const READ_EVENTS: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;
/// What it is watched for once, when it takes no more.
const WRITE_EVENTS: u32 = libc::POLLOUT as u32;
/// After one of these there is something to read for ever: the end, or what went wrong.
const END_EVENTS: u32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as u32;

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
    /// The ring has failed: nothing comes any more.
    is_broken: Cell<bool>,
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
/// makes none of its own if it came together with the last bytes; so it is remembered.
#[derive(Debug)]
pub(super) struct Interest {
    /// Something may have come since it was last read to its end.
    is_readable: Cell<bool>,
    has_ended: Cell<bool>,
    is_waiting_to_write: Cell<bool>,
    /// The kernel does not watch it.
    failed: RefCell<Option<io::Error>>,
    /// Stays when it has been woken: it is the same for all reads of a connection.
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

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
    /// A ring for the sockets of the core that this runs on.
    pub fn new() -> io::Result<Self> {
        Self::with_room(N_EVENTS)
    }

    /// One with room for so many events, at least as many as operations.
    pub(super) fn with_room(n_events: u32) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(n_events);
        // An older kernel knows how to do without.
        let ring = builder.clone().setup_coop_taskrun().build(N_SUBMITTED);
        let ring = ring.or_else(|_| builder.build(N_SUBMITTED))?;
        let shared = Shared {
            ring: RefCell::new(ring),
            slots: RefCell::default(),
            free: RefCell::default(),
            is_broken: Cell::new(false),
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
        self.shared.is_broken.set(true);
        for slot in &*self.shared.slots.borrow() {
            if let Some((_, interest)) = &slot.watched {
                interest.fail(broken());
            }
        }
        error
    }

    async fn pass_on(&self) -> io::Result<Infallible> {
        let ring = PollableFd::new(Ring(Rc::clone(&self.shared))).map_err(io::Error::from)?;
        let mut events = Vec::new();
        loop {
            self.shared.take_events(&mut events)?;
            ring.readable().await.map_err(io::Error::from)?;
        }
    }

    /// Watch a socket, which is open until [`Self::forget`] is called.
    pub(super) fn watch(&self, socket: RawFd) -> io::Result<(Key, Rc<Interest>)> {
        if self.shared.is_broken.get() {
            return Err(broken());
        }
        let interest = Rc::new(Interest {
            // Nobody has looked yet.
            is_readable: Cell::new(true),
            has_ended: Cell::new(false),
            is_waiting_to_write: Cell::new(false),
            failed: RefCell::default(),
            reader: RefCell::default(),
            writer: RefCell::default(),
        });
        let key = self.shared.place(socket, &interest);
        match self.shared.submit(&[watching(socket, key)]) {
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
        let number = key.number();
        let stop = |number| opcode::PollRemove::new(number).build().user_data(NOBODY);
        let stops = [stop(number), stop(number | TO_WRITE)];
        let n_stops = if interest.is_waiting_to_write.get() { 2 } else { 1 };
        if let Err(error) = self.shared.submit(&stops[..n_stops]) {
            tracing::warn!(%error, "a closed connection stays open to its peer");
        }
    }

    /// Tell `interest` once when the socket takes more.
    pub(super) fn watch_to_write(
        &self,
        socket: RawFd,
        key: Key,
        interest: &Interest,
    ) -> io::Result<()> {
        if interest.is_waiting_to_write.replace(true) {
            return Ok(());
        }
        let wait = opcode::PollAdd::new(Fd(socket), WRITE_EVENTS).build();
        self.shared.submit(&[wait.user_data(key.number() | TO_WRITE)])
    }
}

impl Interest {
    pub(super) fn is_readable(&self) -> bool {
        self.is_readable.get()
    }

    /// Nothing would be heard of it any more; told once.
    pub(super) fn check(&self) -> io::Result<()> {
        self.failed.borrow_mut().take().map_or(Ok(()), Err)
    }

    fn fail(&self, error: io::Error) {
        *self.failed.borrow_mut() = Some(error);
        self.wake_reader();
        self.wake_writer();
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
        if let Some(waker) = self.writer.borrow_mut().take() {
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

    /// Have the kernel take these, and what it did not take before.
    fn submit(&self, entries: &[Entry]) -> io::Result<()> {
        let mut ring = self.ring.borrow_mut();
        for entry in entries {
            // SAFETY: none of them names memory; the sockets are open.
            // JUSTIFICATION: the ring's crate cannot know.
            #[expect(unsafe_code, reason = "an operation could name memory")]
            let pushed = unsafe { ring.submission().push(entry) };
            pushed.map_err(io::Error::other)?;
        }
        submit_all(&mut ring)
    }

    /// Note all there is now, by way of `events`, which is empty; what comes meanwhile makes the ring readable.
    fn take_events(&self, events: &mut Vec<cqueue::Entry>) -> io::Result<()> {
        let mut ring = self.ring.borrow_mut();
        events.extend(ring.completion());
        if ring.submission().cq_overflow() {
            // Hands over what the kernel kept for want of room.
            submit_all(&mut ring)?;
        }
        // Who is woken may want the ring.
        drop(ring);
        for event in events.drain(..) {
            self.on_event(&event)?;
        }
        Ok(())
    }

    fn on_event(&self, event: &cqueue::Entry) -> io::Result<()> {
        let number = event.user_data();
        if number == NOBODY {
            return Ok(());
        }
        let key = Key::of(number);
        let Some((socket, interest)) = self.at(key) else { return Ok(()) };
        let Ok(events) = u32::try_from(event.result()) else {
            interest.fail(io::Error::from_raw_os_error(-event.result()));
            return Ok(());
        };
        if events & END_EVENTS != 0 {
            interest.has_ended.set(true);
        }
        if number & TO_WRITE != 0 {
            interest.is_waiting_to_write.set(false);
            interest.wake_writer();
            return Ok(());
        }
        if !cqueue::more(event.flags()) {
            self.submit(&[watching(socket, key)])?;
        }
        interest.is_readable.set(true);
        interest.wake_reader();
        if events & END_EVENTS != 0 {
            interest.wake_writer();
        }
        Ok(())
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

fn broken() -> io::Error {
    io::Error::other("the ring of sockets has failed")
}

fn watching(socket: RawFd, key: Key) -> Entry {
    let watch = opcode::PollAdd::new(Fd(socket), READ_EVENTS).multi(true);
    watch.build().user_data(key.number())
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
