//! Files for the results of reads that are too large for memory (decision 0015).
//!
//! A thread that reads puts them there while it reads, at full speed; the core that accepted the request sends them
//! from there, as fast as the client takes them. A file has no name, so that none survives its process, and it stays in
//! the system's memory if it is gone soon: then nothing of it is ever written.
//!
//! What all of a shard's take is bounded by [`limits::SPOOLS_MAX`] and [`limits::SPOOLED_BYTES_MAX`], and they leave the
//! reserve of the disk alone. Whoever would pass a bound is told, before anything is sent. The account is
//! shared by the threads that read and the cores that send, which touch it with each piece of a large result.
//!
//! To close a file gives back all its pages, milliseconds of work: that has a thread of its own, too.

#![expect(unsafe_code, reason = "only a system call says whether a read would wait")]

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use tracing::warn;

use crate::disk::free_bytes;
use crate::disk::lacks_room;
use crate::disk::priority;
use crate::limits;
use crate::wire::rows::StatementError;
use crate::wire::spool::Spill;
use crate::wire::spool::Spool;

/// What a shard's files may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Open at once.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes that are to stay free on the disk.
    pub reserve: u64,
}

/// What a shard's files take, and have taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Open now.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// Opened so far.
    pub opened: u64,
}

#[derive(Debug, Default)]
struct Account {
    files: AtomicUsize,
    bytes: AtomicU64,
    opened: AtomicU64,
}

/// The files of one shard, and the way to open another.
#[derive(Clone, Debug)]
pub struct Spools {
    dir: PathBuf,
    bounds: Bounds,
    account: Arc<Account>,
    close: flume::Sender<Closing>,
}

/// A file that nobody needs any more, and its bytes.
#[derive(Debug)]
struct Closing {
    file: File,
    bytes: u64,
}

impl Spools {
    /// Files in `dir`, which lies on the disk of the databases, within `bounds`.
    #[expect(clippy::disallowed_methods, reason = "closing a large file takes long")]
    pub fn start(dir: PathBuf, bounds: Bounds) -> Self {
        // Bounded by the number of files.
        let (close, closing) = flume::unbounded::<Closing>();
        let account = Arc::new(Account::default());
        let books = Arc::clone(&account);
        // It ends with the last file, and the last handle to these.
        thread::spawn(move || {
            priority::give_way();
            for Closing { file, bytes } in closing {
                drop(file);
                books.bytes.fetch_sub(bytes, Ordering::Relaxed);
                books.files.fetch_sub(1, Ordering::Relaxed);
            }
        });
        Self { dir, bounds, account, close }
    }

    /// What they take.
    pub fn taken(&self) -> Taken {
        Taken {
            files: self.account.files.load(Ordering::Relaxed),
            bytes: self.account.bytes.load(Ordering::Relaxed),
            opened: self.account.opened.load(Ordering::Relaxed),
        }
    }

    /// Room for the results of one command; a file is opened when something is put there.
    pub fn spill(&self) -> Box<dyn Spill> {
        Box::new(Writer { spools: self.clone(), open: None, size: 0, looked_at: 0 })
    }

    fn open(&self) -> Result<Arc<OpenSpool>, StatementError> {
        if self.account.files.fetch_add(1, Ordering::Relaxed) >= self.bounds.files {
            self.account.files.fetch_sub(1, Ordering::Relaxed);
            return Err(full());
        }
        match unnamed(&self.dir) {
            Ok(file) => {
                self.account.opened.fetch_add(1, Ordering::Relaxed);
                let (account, close) = (Arc::clone(&self.account), self.close.clone());
                let bytes = AtomicU64::new(0);
                Ok(Arc::new(OpenSpool { file: Some(file), bytes, account, close }))
            }
            Err(error) => {
                self.account.files.fetch_sub(1, Ordering::Relaxed);
                Err(failed(&error))
            }
        }
    }

    /// The disk keeps its reserve if it gets `size` bytes more.
    fn check_reserve(&self, size: u64) -> Result<(), StatementError> {
        let free = free_bytes(&self.dir).map_err(|it| failed(&it))?;
        if free < self.bounds.reserve.saturating_add(size) { Err(no_room()) } else { Ok(()) }
    }
}

/// A file without a name in `dir`.
fn unnamed(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(dir) {
        // Some file systems cannot.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {}
        opened => return opened,
    }
    let path = dir.join(format!("spool-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let file = options.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn full() -> StatementError {
    StatementError::coded("overloaded", "too many large results are being sent")
}

fn no_room() -> StatementError {
    let message = "the disk is almost full: there is no room for a result this large";
    StatementError::coded("disk_reserve", message)
}

/// What the client is told if there is no file to put its result into. Nothing that must last is in these, so the
/// process goes on.
fn failed(error: &io::Error) -> StatementError {
    if lacks_room(error) {
        return no_room();
    }
    warn!(%error, "failed to put a large result into a file");
    StatementError::coded("overloaded", "there is no room for a result this large now")
}

/// Puts the results of one command into a file.
#[derive(Debug)]
struct Writer {
    spools: Spools,
    open: Option<Arc<OpenSpool>>,
    size: u64,
    /// How large it was when the disk was last asked for room.
    looked_at: u64,
}

impl Spill for Writer {
    fn put(&mut self, bytes: &[u8]) -> Result<u64, StatementError> {
        let n = bytes.len() as u64;
        if self.open.is_none() || self.size + n - self.looked_at > limits::SPOOL_LOOK_BYTES {
            self.spools.check_reserve(n.max(limits::SPOOL_LOOK_BYTES))?;
            self.looked_at = self.size;
        }
        let open = match &self.open {
            Some(open) => open,
            None => self.open.insert(self.spools.open()?),
        };
        open.grow(n, self.spools.bounds.bytes)?;
        open.file().write_all_at(bytes, self.size).map_err(|it| failed(&it))?;
        let start = self.size;
        self.size += n;
        Ok(start)
    }

    fn spool(&self) -> Arc<dyn Spool> {
        let open = self.open.as_ref().expect("something was put there");
        Arc::<OpenSpool>::clone(open)
    }
}

/// A file with results.
#[derive(Debug)]
struct OpenSpool {
    /// There until this is dropped.
    file: Option<File>,
    bytes: AtomicU64,
    account: Arc<Account>,
    close: flume::Sender<Closing>,
}

impl OpenSpool {
    fn file(&self) -> &File {
        self.file.as_ref().expect("it is there until this is dropped")
    }

    /// Take `n` bytes more, of the `limit` that all may take.
    fn grow(&self, n: u64, limit: u64) -> Result<(), StatementError> {
        if self.account.bytes.fetch_add(n, Ordering::Relaxed) + n > limit {
            self.account.bytes.fetch_sub(n, Ordering::Relaxed);
            return Err(full());
        }
        self.bytes.fetch_add(n, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for OpenSpool {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            let closing = Closing { file, bytes: self.bytes.load(Ordering::Relaxed) };
            // The thread lives as long as this end of the channel.
            let _ = self.close.send(closing);
        }
    }
}

impl Spool for OpenSpool {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file().read_exact_at(into, offset)
    }

    fn read_at_hand(&self, offset: u64, into: &mut [u8]) -> io::Result<bool> {
        let at = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let number = self.file().as_raw_fd();
        // SAFETY: the file is open, and the one part lies in `into`, which is borrowed for writing.
        let n = unsafe { libc::preadv2(number, &raw const part, 1, at, libc::RWF_NOWAIT) };
        // An error may only mean that it would wait, or that the file system cannot say: the read that may wait
        // finds out.
        Ok(usize::try_from(n) == Ok(into.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(dir: &Path, files: usize, bytes: u64, reserve: u64) -> Spools {
        Spools::start(dir.to_owned(), Bounds { files, bytes, reserve })
    }

    /// Until the thread that closes has caught up.
    fn taken_when(spools: &Spools, is_it: impl Fn(Taken) -> bool) -> Taken {
        loop {
            let taken = spools.taken();
            if is_it(taken) {
                return taken;
            }
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_put_is_read_and_its_file_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let spools = start(directory.path(), 4, 1 << 20, 0);
        let mut spill = spools.spill();
        assert_eq!(spools.taken(), Taken::default(), "nothing is opened before it is needed");
        assert_eq!(spill.put(b"0123456789"), Ok(0));
        assert_eq!(spill.put(b"abc"), Ok(10));
        let spool = spill.spool();
        drop(spill);
        assert_eq!(spools.taken(), Taken { files: 1, bytes: 13, opened: 1 });
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut bytes = [0; 5];
        spool.read(8, &mut bytes).unwrap();
        assert_eq!(&bytes, b"89abc");
        bytes = [0; 5];
        if spool.read_at_hand(8, &mut bytes).unwrap() {
            assert_eq!(&bytes, b"89abc");
        }
        assert!(!spool.read_at_hand(9, &mut bytes).unwrap(), "there are four");
        spool.read(9, &mut bytes).unwrap_err();
        drop(spool);
        let taken = taken_when(&spools, |it| it.files == 0);
        assert_eq!(taken, Taken { files: 0, bytes: 0, opened: 1 });
    }

    #[test]
    fn a_bound_is_told_and_what_is_closed_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let spools = start(directory.path(), 2, 100, 0);
        let (mut one, mut two, mut three) = (spools.spill(), spools.spill(), spools.spill());
        one.put(&[1; 40]).unwrap();
        two.put(&[2; 40]).unwrap();
        assert_eq!(three.put(&[3]).unwrap_err().code, Some("overloaded"));
        assert_eq!(two.put(&[2; 21]).unwrap_err().code, Some("overloaded"));
        two.put(&[2; 20]).unwrap();
        assert_eq!(spools.taken(), Taken { files: 2, bytes: 100, opened: 2 });
        drop(one);
        taken_when(&spools, |it| it.files == 1 && it.bytes == 60);
        three.put(&[3; 40]).unwrap();
    }

    #[test]
    fn the_reserve_of_the_disk_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let spools = start(directory.path(), 2, u64::MAX, u64::MAX);
        let error = spools.spill().put(b"x").unwrap_err();
        assert_eq!(error.code, Some("disk_reserve"));
        assert_eq!(spools.taken(), Taken::default());
    }

    #[test]
    fn where_there_is_no_directory_the_client_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let spools = start(&directory.path().join("none"), 2, u64::MAX, 0);
        assert_eq!(spools.spill().put(b"x").unwrap_err().code, Some("overloaded"));
        assert_eq!(spools.taken(), Taken::default());
        // A disk that is full says so.
        let full = failed(&io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(full.code, Some("disk_reserve"));
    }
}
