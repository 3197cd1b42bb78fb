//! Files for the results of reads that are too large for memory (decision 0015).
//!
//! A thread that reads puts them there while it reads, at full speed; the core that accepted the request sends them
//! from there, as fast as the client takes them. A file has no name, so that none survives its process, and it stays in
//! the system's memory if it is gone soon: then nothing of it is ever written.
//!
//! What all of a shard's take is bounded by [`limits::SPOOLS_MAX`] and [`limits::SPOOLED_BYTES_MAX`], and of both a database
//! may have as much as is left to the others: one alone a half, the next a half of what is left then, and when all of
//! them ask all the time, `k` have one part in `k + 1` each. They stay away from the reserve of the disk, farther
//! than what writes does: reads alone never stop anybody's writes. Whoever would pass a bound is told, before
//! anything is sent. The account is shared by the threads that read and the cores that send: plain counters, so that
//! no core waits for a thread.
//!
//! While they are few, nothing of them is written unless the system wants to. Beyond
//! [`limits::SPOOLED_BYTES_UNWRITTEN`] the thread that reads has its own written back at the pace of the disk ([`Pace`]).
//!
//! To close a file gives back all its pages, milliseconds of work: that has a thread of its own, too.

#![expect(unsafe_code, reason = "only a system call says whether a read would wait")]

use std::collections::BTreeMap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use tracing::warn;

use crate::disk::free_bytes;
use crate::disk::lacks_room;
use crate::disk::priority;
use crate::limits;
use crate::sql::Pace;
use crate::types::DatabaseId;
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
    /// Bytes in them from which on they are written back at once.
    pub unwritten: u64,
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

/// What the files of a shard, or of one database, take.
#[derive(Debug, Default)]
struct Account {
    files: AtomicUsize,
    bytes: AtomicU64,
}

/// All accounts of a shard.
#[derive(Debug, Default)]
#[expect(clippy::disallowed_types, reason = "threads that read find theirs; no core asks")]
struct Books {
    all: Account,
    opened: AtomicU64,
    /// Those of databases that have files.
    own: std::sync::Mutex<BTreeMap<DatabaseId, Weak<Account>>>,
}

impl Books {
    /// The account of `database`.
    fn of(&self, database: DatabaseId) -> Arc<Account> {
        let mut own = self.own.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(account) = own.get(&database).and_then(Weak::upgrade) {
            return account;
        }
        own.retain(|_, it| it.strong_count() > 0);
        let account = Arc::default();
        own.insert(database, Arc::downgrade(&account));
        account
    }
}

/// Whether a database may have `own` of a bound, of which all had `taken` before.
fn leaves_as_much(own: u64, taken: u64, bound: u64) -> bool {
    own <= bound.saturating_sub(taken)
}

/// The files of one shard, and the way to open another.
#[derive(Clone, Debug)]
pub struct Spools {
    dir: PathBuf,
    bounds: Bounds,
    books: Arc<Books>,
    close: flume::Sender<Closing>,
}

/// A file that nobody needs any more, and its bytes.
#[derive(Debug)]
struct Closing {
    file: File,
    bytes: u64,
    own: Arc<Account>,
}

impl Spools {
    /// Files in `dir`, which lies on the disk of the databases, within `bounds`.
    #[expect(clippy::disallowed_methods, reason = "closing a large file takes long")]
    pub fn start(dir: PathBuf, bounds: Bounds) -> Self {
        // Bounded by the bytes of the files.
        let (close, closing) = flume::unbounded::<Closing>();
        let books = Arc::<Books>::default();
        let account = Arc::clone(&books);
        // It ends with the last file, and the last handle to these.
        thread::spawn(move || {
            priority::give_way();
            for Closing { file, bytes, own } in closing {
                drop(file);
                own.bytes.fetch_sub(bytes, Ordering::Relaxed);
                account.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        });
        Self { dir, bounds, books, close }
    }

    /// What they take.
    pub fn taken(&self) -> Taken {
        Taken {
            files: self.books.all.files.load(Ordering::Relaxed),
            bytes: self.books.all.bytes.load(Ordering::Relaxed),
            opened: self.books.opened.load(Ordering::Relaxed),
        }
    }

    /// Room for the results of one command on `database`; a file is opened when something is put there.
    pub fn spill(&self, database: DatabaseId) -> Box<dyn Spill> {
        Box::new(self.writer(database))
    }

    fn writer(&self, database: DatabaseId) -> Writer {
        let (spools, pace) = (self.clone(), Pace::default());
        Writer { spools, database, open: None, size: 0, looked_at: 0, pace }
    }

    fn open(&self, database: DatabaseId) -> Result<Arc<OpenSpool>, StatementError> {
        let own = self.books.of(database);
        let all = &self.books.all;
        let n_own = own.files.fetch_add(1, Ordering::Relaxed) + 1;
        let n_all = all.files.fetch_add(1, Ordering::Relaxed);
        let may = leaves_as_much(n_own as u64, n_all as u64, self.bounds.files as u64);
        let file = if may { unnamed(&self.dir).map_err(|it| failed(&it)) } else { Err(full()) };
        match file {
            Ok(file) => {
                self.books.opened.fetch_add(1, Ordering::Relaxed);
                let (books, close) = (Arc::clone(&self.books), self.close.clone());
                let bytes = AtomicU64::new(0);
                Ok(Arc::new(OpenSpool { file: Some(file), bytes, books, own, close }))
            }
            Err(error) => {
                all.files.fetch_sub(1, Ordering::Relaxed);
                own.files.fetch_sub(1, Ordering::Relaxed);
                Err(error)
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

/// Failures so far. Whoever asks again and again would fill the log: each time they are twice as many, one is told.
static N_FAILED: AtomicU64 = AtomicU64::new(0);

/// What the client is told if there is no file to put its result into. Nothing that must last is in these, so the
/// process goes on.
fn failed(error: &io::Error) -> StatementError {
    if lacks_room(error) {
        return no_room();
    }
    let n = N_FAILED.fetch_add(1, Ordering::Relaxed) + 1;
    if n.is_power_of_two() {
        warn!(%error, n, "failed to put a large result into a file");
    }
    StatementError::coded("overloaded", "there is no room for a result this large now")
}

/// Puts the results of one command into a file.
#[derive(Debug)]
struct Writer {
    spools: Spools,
    database: DatabaseId,
    open: Option<Arc<OpenSpool>>,
    size: u64,
    /// How large it was when the disk was last asked for room.
    looked_at: u64,
    pace: Pace,
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
            None => self.open.insert(self.spools.open(self.database)?),
        };
        let n_all = open.grow(n, self.spools.bounds.bytes)?;
        open.file().write_all_at(bytes, self.size).map_err(|it| failed(&it))?;
        let start = self.size;
        if n_all > self.spools.bounds.unwritten {
            let at = i64::try_from(start).expect("a position in a file");
            let number = open.file().as_raw_fd();
            self.pace.on_write(number, at, n).map_err(|it| failed(&it))?;
        }
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
    books: Arc<Books>,
    /// Of its database.
    own: Arc<Account>,
    close: flume::Sender<Closing>,
}

impl OpenSpool {
    fn file(&self) -> &File {
        self.file.as_ref().expect("it is there until this is dropped")
    }

    /// Take `n` bytes more, of the `bound` that all may take; how many all have then.
    fn grow(&self, n: u64, bound: u64) -> Result<u64, StatementError> {
        let (own, all) = (&self.own.bytes, &self.books.all.bytes);
        let n_own = own.fetch_add(n, Ordering::Relaxed) + n;
        let n_all = all.fetch_add(n, Ordering::Relaxed);
        if !leaves_as_much(n_own, n_all, bound) {
            all.fetch_sub(n, Ordering::Relaxed);
            own.fetch_sub(n, Ordering::Relaxed);
            return Err(full());
        }
        self.bytes.fetch_add(n, Ordering::Relaxed);
        Ok(n_all + n)
    }
}

impl Drop for OpenSpool {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Others may open one at once; what this takes of the disk is there until it is closed.
            self.books.all.files.fetch_sub(1, Ordering::Relaxed);
            self.own.files.fetch_sub(1, Ordering::Relaxed);
            let (bytes, own) = (self.bytes.load(Ordering::Relaxed), Arc::clone(&self.own));
            let closing = Closing { file, bytes, own };
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
    use crate::types::Incarnation;
    use crate::types::PartitionId;

    fn start(dir: &Path, files: usize, bytes: u64, reserve: u64) -> Spools {
        let unwritten = limits::SPOOLED_BYTES_UNWRITTEN;
        Spools::start(dir.to_owned(), Bounds { files, bytes, unwritten, reserve })
    }

    fn database(n: u64) -> DatabaseId {
        DatabaseId { partition: PartitionId(1), incarnation: Incarnation(n) }
    }

    /// Until the thread that closes has caught up.
    #[expect(clippy::disallowed_methods, reason = "a test gives up by the real clock")]
    fn taken_when(spools: &Spools, is_it: impl Fn(Taken) -> bool) -> Taken {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let taken = spools.taken();
            if is_it(taken) {
                return taken;
            }
            assert!(std::time::Instant::now() < deadline, "{taken:?}");
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_put_is_read_and_its_file_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let spools = start(directory.path(), 4, 1 << 20, 0);
        let mut spill = spools.spill(database(1));
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
        let taken = taken_when(&spools, |it| it.files == 0 && it.bytes == 0);
        assert_eq!(taken, Taken { files: 0, bytes: 0, opened: 1 });
    }

    #[test]
    fn a_bound_is_told_and_what_is_closed_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let spools = start(directory.path(), 2, 100, 0);
        let [mut one, mut two, mut three] = [1, 2, 3].map(|it| spools.spill(database(it)));
        one.put(&[1; 40]).unwrap();
        two.put(&[2; 40]).unwrap();
        assert_eq!(three.put(&[3]).unwrap_err().code, Some("overloaded"));
        assert_eq!(two.put(&[2; 1]).unwrap_err().code, Some("overloaded"));
        assert_eq!(spools.taken(), Taken { files: 2, bytes: 80, opened: 2 });
        drop(one);
        assert_eq!(spools.taken().files, 1, "at once");
        taken_when(&spools, |it| it.bytes == 40);
        three.put(&[3; 40]).unwrap();
    }

    #[test]
    fn a_database_leaves_as_much_to_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let spools = start(directory.path(), 64, 64_000, 0);
        // Each opens as many as it may, and puts as much there as it may.
        let fill = |n| {
            let mut own = Vec::new();
            loop {
                let mut spill = spools.spill(database(n));
                if spill.put(&[7; 100]).is_err() {
                    break;
                }
                own.push(spill);
            }
            let n_files = own.len();
            let n_bytes = std::iter::from_fn(|| own.first_mut()?.put(&[7; 100]).ok()).count();
            (own, (n_files, n_files + n_bytes))
        };
        let (one, taken) = fill(1);
        assert_eq!(taken, (32, 320));
        let (two, taken) = fill(2);
        assert_eq!(taken, (16, 160));
        assert_eq!(fill(1).1, (0, 0), "the first has more than its share");
        drop((one, two));
        taken_when(&spools, |it| it == Taken { files: 0, bytes: 0, ..it });
        assert_eq!(fill(2).1, (32, 320));
    }

    #[test]
    fn what_is_much_goes_to_the_disk_piece_by_piece() {
        let directory = tempfile::tempdir().unwrap();
        crate::sql::pace_writes(|error| panic!("{error}"));
        for (unwritten, want) in [(u64::MAX, 0..0), (9 << 20, (13 << 20)..(17 << 20))] {
            let bounds = Bounds { files: 4, bytes: 1 << 30, unwritten, reserve: 0 };
            let spools = Spools::start(directory.path().to_owned(), bounds);
            let mut writer = spools.writer(database(1));
            for _ in 0..18 {
                writer.put(&vec![7; 1 << 20]).unwrap();
            }
            assert_eq!(writer.pace.on_its_way(), want);
        }
    }

    #[test]
    fn the_reserve_of_the_disk_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let spools = start(directory.path(), 2, u64::MAX, u64::MAX);
        let error = spools.spill(database(1)).put(b"x").unwrap_err();
        assert_eq!(error.code, Some("disk_reserve"));
        assert_eq!(spools.taken(), Taken::default());
    }

    #[test]
    fn where_there_is_no_directory_the_client_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let spools = start(&directory.path().join("none"), 2, u64::MAX, 0);
        assert_eq!(spools.spill(database(1)).put(b"x").unwrap_err().code, Some("overloaded"));
        assert_eq!(spools.taken(), Taken::default());
        // A disk that is full says so.
        let full = failed(&io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(full.code, Some("disk_reserve"));
    }
}
