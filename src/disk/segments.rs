//! Log segments as files, and the thread that provides and removes them.
//!
//! Filling 64 MiB with zeros takes a tenth of a second and more: far too long for a core. One thread per
//! log does it, and everything else that changes names in the log's directory while the node runs, in
//! the order asked. A segment is written under a temporary name, synced, renamed, and the directory
//! synced, so that after a crash it has its size and its name, or does not exist.
//!
//! A full disk is no failure here: the log goes on in the segments it has, and what is missing is tried again
//! and again, until there is room or nobody wants it any more.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::task::Waker;
use std::thread;
use std::thread::JoinHandle;

use crate::disk;
use crate::limits;
use crate::wal::generations;
use crate::wal::record::SegmentId;

/// Bytes written between two syncs: a larger heap of unsynced bytes would make the log's own syncs wait.
pub(super) const SYNC_EVERY: usize = 4 << 20;
const CHUNK: usize = 1 << 20;

/// Where a segment lies.
pub fn path_of(directory: &Path, segment: SegmentId) -> PathBuf {
    directory.join(generations::segment_name(segment))
}

/// Make all names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Provide a segment, as `LogIo::Prepare` says; then wake somebody.
    Prepare {
        /// The id it must have.
        segment: SegmentId,
        /// Its size in bytes.
        size: u64,
        /// One to rename instead.
        recycled: Option<SegmentId>,
        /// Who waits for it.
        waker: Waker,
    },
    /// Remove a segment.
    Remove {
        /// Which.
        segment: SegmentId,
    },
}

/// What it says.
#[derive(Debug)]
pub enum Prepared {
    /// A segment is ready, with its size.
    Ready(SegmentId, u64),
    /// There is no room for one. It is tried again until there is.
    NoRoom(io::Error),
    /// The disk failed.
    Failed(io::Error),
}

/// The owner's end of a segment thread. Dropping it ends the thread, once all requests are done.
#[derive(Debug)]
pub struct Preparer {
    requests: mpsc::Sender<Request>,
    prepared: mpsc::Receiver<Prepared>,
}

impl Preparer {
    /// Start the thread for the log in `directory`. Call it before the executors start: a thread inherits
    /// the core its parent is pinned to. The handle is to be joined after the log is closed.
    pub fn start(directory: &Path) -> io::Result<(Self, JoinHandle<()>)> {
        let (requests, inbox) = mpsc::channel();
        let (outbox, prepared) = mpsc::channel();
        let directory = directory.to_owned();
        let work = move || Worker { directory, inbox, outbox, lacking: None }.run();
        let thread = thread::Builder::new().name("log-segments".to_owned()).spawn(work)?;
        Ok((Self { requests, prepared }, thread))
    }

    /// Ask for something; never waits. The queue is bounded by the log, which asks for one segment at a
    /// time and removes each once.
    pub fn ask(&self, request: Request) {
        // The thread ends after this end is dropped, or by a panic, after which nothing is prepared and
        // the log waits: its own abort is reported by `poll`.
        let _ = self.requests.send(request);
    }

    /// What is done since the last call, one at a time.
    pub fn poll(&self) -> Option<Prepared> {
        match self.prepared.try_recv() {
            Ok(it) => Some(it),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => {
                Some(Prepared::Failed(io::Error::other("the segment thread is gone")))
            }
        }
    }
}

/// A segment for which there was no room.
struct Lacking {
    segment: SegmentId,
    size: u64,
    waker: Waker,
}

/// The thread's own state.
struct Worker {
    directory: PathBuf,
    inbox: mpsc::Receiver<Request>,
    outbox: mpsc::Sender<Prepared>,
    lacking: Option<Lacking>,
}

impl Worker {
    /// Until the other end is dropped. What is lacking then, nobody wants.
    fn run(mut self) {
        loop {
            let request = match self.lacking {
                None => self.inbox.recv().map_err(RecvTimeoutError::from),
                Some(_) => self.inbox.recv_timeout(limits::ROOM_RETRY),
            };
            match request {
                // One that is asked for while another is lacking takes its place.
                Ok(Request::Prepare { segment, size, recycled, waker }) => {
                    self.prepare(Lacking { segment, size, waker }, recycled);
                }
                Ok(Request::Remove { segment }) => self.remove(segment),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(lacking) = self.lacking.take() {
                        self.prepare(lacking, None);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    fn prepare(&mut self, wanted: Lacking, recycled: Option<SegmentId>) {
        let Lacking { segment, size, waker } = wanted;
        self.lacking = None;
        let said = match prepare(&self.directory, segment, size, recycled) {
            Ok(()) => Prepared::Ready(segment, size),
            Err(error) if disk::lacks_room(&error) && recycled.is_none() => {
                self.lacking = Some(Lacking { segment, size, waker: waker.clone() });
                Prepared::NoRoom(error)
            }
            Err(error) => Prepared::Failed(error),
        };
        // Nobody listens any more if the log is closed.
        let _ = self.outbox.send(said);
        waker.wake();
    }

    fn remove(&self, segment: SegmentId) {
        // The name may come back after a crash, and does no harm: recovery knows it is not needed.
        if let Err(error) = fs::remove_file(path_of(&self.directory, segment)) {
            let _ = self.outbox.send(Prepared::Failed(error)); // as above
        }
    }
}

fn prepare(
    directory: &Path,
    segment: SegmentId,
    size: u64,
    recycled: Option<SegmentId>,
) -> io::Result<()> {
    let path = path_of(directory, segment);
    let source = if let Some(old) = recycled {
        path_of(directory, old)
    } else {
        // Filling the disk to find that out would take the room that others need.
        if disk::free_bytes(directory)? < size {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let temporary = path.with_extension("tmp");
        write_zeros(&temporary, size).inspect_err(|_| {
            // It holds nothing, and others may need what it takes.
            let _ = fs::remove_file(&temporary);
        })?;
        temporary
    };
    fs::rename(source, path)?;
    // It is not tried again (R8), whatever it says.
    sync_directory(directory).map_err(io::Error::other)
}

fn write_zeros(path: &Path, size: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let zeros = vec![0; CHUNK];
    let mut rest = size;
    let mut unsynced = 0;
    while rest > 0 {
        let n = usize::try_from(rest).map_or(CHUNK, |it| it.min(CHUNK));
        file.write_all(&zeros[..n])?;
        rest -= n as u64;
        unsynced += n;
        if unsynced >= SYNC_EVERY {
            file.sync_data()?;
            unsynced = 0;
        }
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_prepared_recycled_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (preparer, thread) = Preparer::start(directory.path()).unwrap();
        let (one, two) = (SegmentId(1), SegmentId(2));
        let size = 5 << 20;
        for (segment, recycled) in [(one, None), (two, Some(one))] {
            let waker = Waker::noop().clone();
            preparer.ask(Request::Prepare { segment, size, recycled, waker });
            let said = preparer.prepared.recv().unwrap();
            assert!(matches!(said, Prepared::Ready(it, n) if (it, n) == (segment, size)));
        }
        assert!(!path_of(directory.path(), one).exists());
        assert_eq!(fs::metadata(path_of(directory.path(), two)).unwrap().len(), size);
        preparer.ask(Request::Remove { segment: two });
        drop(preparer);
        thread.join().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
