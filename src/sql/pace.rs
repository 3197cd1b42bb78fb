//! Write-back that begins while a long file is being written, and not with the sync at its end.
//!
//! A checkpoint copies up to hundreds of MiB into a database, a long command writes as much to a `-wal`, and all of it
//! would go to the disk at once, with a sync. A sync of the core's log that comes meanwhile waits behind it. So
//! threads that have time ([`pace_writes`]) have every [`PIECE_BYTES`] written at once, and wait for the piece before: at most
//! two are under way. Cores do not: what they write is little, and they wait for nothing.
//!
//! Nothing becomes durable by this; the syncs are where they were. But an error of the disk that is told here may be
//! told to no sync that comes later, through whatever descriptor, so that the process must not go on (R8).

use std::cell::Cell;
use std::ffi::c_int;
use std::ffi::c_void;
use std::io;
use std::mem;
use std::ops::Range;
use std::ptr::NonNull;

use rusqlite::ffi;

/// Bytes that are written together.
const PIECE_BYTES: u64 = 4 << 20;

/// Begin to write it.
const BEGIN: u32 = libc::SYNC_FILE_RANGE_WRITE; // tidy: allow(libc) the system's flags
/// Have it written.
const WHOLE: u32 = 7; // the one above, waiting before it and after it

/// Ends the process.
type Stop = fn(&io::Error) -> !;

thread_local! {
    /// What to do if the disk fails, on a thread that has time.
    static STOP: Cell<Option<Stop>> = const { Cell::new(None) };
    /// The descriptor that SQLite last wrote to on this thread.
    static WRITTEN: Cell<c_int> = const { Cell::new(-1) };
}

/// From now on, what this thread writes to databases and their logs is written back piece by piece. `stop` is called if
/// the disk fails at that.
pub fn pace_writes(stop: Stop) {
    STOP.set(Some(stop));
}

/// How far the write-back of a file is.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Bytes of the piece so far, and where they lie.
    bytes: u64,
    piece: Range<i64>,
    /// The piece before: on its way.
    before: Range<i64>,
}

impl Pace {
    /// The piece that was last begun to be written.
    #[cfg(test)]
    pub(crate) fn on_its_way(&self) -> Range<i64> {
        self.before.clone()
    }

    /// SQLite has written `n` bytes at `at`, on this thread.
    pub(super) fn on_written(&mut self, at: i64, n: u64) {
        let Some(stop) = STOP.get() else { return };
        if let Err(error) = self.on_write(WRITTEN.get(), at, n) {
            stop(&error);
        }
    }

    /// This thread has written `n` bytes at `at` to the file with this number. An error is the disk's.
    pub fn on_write(&mut self, file: c_int, at: i64, n: u64) -> io::Result<()> {
        if STOP.get().is_none() {
            return Ok(());
        }
        let end = at.saturating_add_unsigned(n);
        self.piece = if self.bytes == 0 {
            at..end
        } else {
            self.piece.start.min(at)..self.piece.end.max(end)
        };
        self.bytes += n;
        if self.bytes < PIECE_BYTES {
            return Ok(());
        }
        self.bytes = 0;
        let piece = mem::take(&mut self.piece);
        let before = mem::replace(&mut self.before, piece.clone());
        let done = write_back(file, &piece, BEGIN).and_then(|()| write_back(file, &before, WHOLE));
        match done {
            Err(error) if is_of_disk(&error) => Err(error),
            // Not every file can, and not every system lets us.
            Err(_) => {
                STOP.set(None);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Whether something that was written may be lost.
fn is_of_disk(error: &io::Error) -> bool {
    // tidy: allow(libc) the system's numbers
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT))
}

/// Write this range of a file back, as `flags` say.
fn write_back(file: c_int, range: &Range<i64>, flags: u32) -> io::Result<()> {
    if range.is_empty() || file < 0 {
        return Ok(());
    }
    let bytes = range.end - range.start;
    // JUSTIFICATION: the standard library syncs whole files only, 256 MiB at once: what this is there to avoid.
    #[expect(unsafe_code, reason = "the system's call is a C function")]
    // SAFETY: takes numbers only.
    // tidy: allow(libc) SQLite has no such call
    let code = unsafe { libc::sync_file_range(file, range.start, bytes, flags) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Have the operating system's VFS note which descriptor it writes to; nothing else changes.
pub(super) fn watch(unix: NonNull<ffi::sqlite3_vfs>) {
    let ours: unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> isize = on_pwrite;
    // JUSTIFICATION: SQLite tells its descriptors to nobody, and one of our own would cost the process its locks (R25).
    #[expect(unsafe_code, reason = "SQLite takes system calls as C functions")]
    // SAFETY: a registered VFS is readable for ever. SQLite casts the call back to what it is before it calls it.
    let code = unsafe {
        let set = unix.as_ref().xSetSystemCall.expect("the VFS for unix has it");
        let call = mem::transmute::<
            unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> isize,
            unsafe extern "C" fn(),
        >(ours);
        set(unix.as_ptr(), c"pwrite".as_ptr(), Some(call))
    };
    assert_eq!(code, ffi::SQLITE_OK, "SQLite has a call of that name");
}

/// What SQLite calls to write to a file.
// JUSTIFICATION: as above.
#[expect(unsafe_code, reason = "SQLite calls it")]
unsafe extern "C" fn on_pwrite(file: c_int, from: *const c_void, n: usize, at: i64) -> isize {
    WRITTEN.set(file);
    // SAFETY: passed on as it came.
    // tidy: allow(libc) what SQLite calls otherwise
    unsafe { libc::pwrite(file, from, n, at) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;

    use super::*;

    /// What the pace remembers after writes of this size, one after the other.
    fn after(writes: u64, size: u64) -> (u64, Range<i64>) {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("f")).unwrap();
        file.set_len(writes * size).unwrap();
        WRITTEN.set(file.as_raw_fd());
        let mut pace = Pace::default();
        for n in 0..writes {
            pace.on_written(i64::try_from(n * size).unwrap(), size);
        }
        (pace.bytes, pace.before)
    }

    #[test]
    fn a_piece_is_written_back_when_it_is_full_where_there_is_time() {
        let (page, piece) = (4_096, i64::try_from(PIECE_BYTES).unwrap());
        assert_eq!(after(2_000, page), (0, 0..0), "cores wait for nothing");
        pace_writes(|error| unreachable!("{error}"));
        let n = PIECE_BYTES / page;
        assert_eq!(after(n - 1, page), (PIECE_BYTES - page, 0..0));
        assert_eq!(after(n, page), (0, 0..piece));
        assert_eq!(after(3 * n + 1, page), (page, 2 * piece..3 * piece));
    }

    #[test]
    fn only_a_failure_of_the_disk_stops_the_process() {
        let (read, _write) = io::pipe().unwrap();
        let error = write_back(read.as_raw_fd(), &(0..4_096), BEGIN).unwrap_err();
        assert!(!is_of_disk(&error), "{error}");
        for (code, is_lost) in [(5, true), (28, true), (122, true), (1, false), (12, false)] {
            assert_eq!(is_of_disk(&io::Error::from_raw_os_error(code)), is_lost, "{code}");
        }
        pace_writes(|error| unreachable!("{error}"));
        WRITTEN.set(read.as_raw_fd());
        Pace::default().on_written(0, PIECE_BYTES);
        assert!(STOP.get().is_none(), "what cannot be done is tried again and again");
        assert_eq!(
            WHOLE,
            BEGIN | libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER
        );
    }
}
