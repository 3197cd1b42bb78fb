//! A file system of SQLite in memory, with a live and a durable image, for power cuts.
//!
//! A file is the bytes a reader sees now (live), the bytes that are on the medium for certain (durable), and
//! the writes between them. Syncing a file makes its bytes durable; its name only if it is a log and the same
//! handle created it, which is when SQLite on a real system syncs the folder. [`crash`] loses what was not synced, piece by piece: each 512-byte sector of each write may have
//! reached the medium or not, in any combination, and so may each new length; a name that was not synced
//! may be gone. Often, a first part of the writes has arrived in order.
//!
//! Any call may be made to fail ([`fail`]): the n-th, once or from then on, as a machine that has no disk, no
//! room, no memory, or another process at the lock. [`stop`] is the end of a process: nothing reaches a file
//! any more, however tidily its connections are closed.
//!
//! One world per thread: files are found by their path, so tests in different threads never meet. Shared
//! memory is the heap. Locks are counted per file, as the operating system would between processes.

#![expect(unsafe_code, reason = "a file system of SQLite is a table of C functions")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ffi::OsStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::ptr;
use std::sync::Once;

use debros::sql::Vfs;
use debros::types::Dice;
use rusqlite::ffi;

const SECTOR: usize = 512;
const NAME: &CStr = c"simulated";

/// One file.
#[derive(Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What was done to `live` since `durable`, in order.
    pending: Vec<Change>,
    /// Whether the name survives a crash.
    is_name_durable: bool,
    /// The name was taken away; the crash may bring it back.
    is_deleted: bool,
    /// Pages of shared memory, and the locks on it: shared holders, or -1 for an exclusive one.
    shared: Vec<Box<[u64]>>,
    shared_locks: [i32; 8],
    /// Holders of a SHARED lock, and the level of the one of them that holds more; zero if none does.
    readers: u32,
    writer: c_int,
    n_open: u32,
}

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { size: usize },
}

/// A call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Delete,
    Access,
    Rename,
    Read,
    Write,
    Truncate,
    Sync,
    FileSize,
    Lock,
    CheckReservedLock,
    ShmMap,
    ShmLock,
}

/// What is wrong with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sickness {
    /// `EIO`, whatever is called.
    Io,
    /// `ENOSPC`, where something gets larger.
    Full,
    /// `ENOMEM`, where the system's own file system would need some.
    Memory,
    /// Somebody else holds the lock.
    Busy,
}

/// Whether a failure is over as soon as it has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    Once,
    FromThenOn,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Those from this one on, counted from one.
    from: u64,
    sickness: Sickness,
    lasts: Lasts,
}

/// All files, and what goes wrong with them.
#[derive(Default)]
struct World {
    files: BTreeMap<Vec<u8>, File>,
    n_anonymous: u64,
    /// Syncs done, for tests that count them.
    n_syncs: u64,
    /// Calls so far that could have failed.
    n_calls: u64,
    plan: Option<Plan>,
    /// The first call that did fail, since that was asked for.
    failed: Option<Call>,
}

impl Sickness {
    /// What SQLite's own file system answers then; none where this cannot happen.
    fn code(self, call: Call) -> Option<c_int> {
        match self {
            Self::Io => Some(match call {
                Call::Open => ffi::SQLITE_CANTOPEN,
                Call::Delete => ffi::SQLITE_IOERR_DELETE,
                Call::Access => ffi::SQLITE_IOERR_ACCESS,
                Call::Rename => ffi::SQLITE_IOERR,
                Call::Read => ffi::SQLITE_IOERR_READ,
                Call::Write => ffi::SQLITE_IOERR_WRITE,
                Call::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
                Call::Sync => ffi::SQLITE_IOERR_FSYNC,
                Call::FileSize => ffi::SQLITE_IOERR_FSTAT,
                Call::Lock => ffi::SQLITE_IOERR_LOCK,
                Call::CheckReservedLock => ffi::SQLITE_IOERR_CHECKRESERVEDLOCK,
                Call::ShmMap => ffi::SQLITE_IOERR_SHMMAP,
                Call::ShmLock => ffi::SQLITE_IOERR_SHMLOCK,
            }),
            Self::Full => match call {
                Call::Open => Some(ffi::SQLITE_CANTOPEN),
                Call::Rename => Some(ffi::SQLITE_IOERR),
                Call::Write => Some(ffi::SQLITE_FULL),
                Call::Sync => Some(ffi::SQLITE_IOERR_FSYNC),
                Call::ShmMap => Some(ffi::SQLITE_IOERR_SHMSIZE),
                _ => None,
            },
            Self::Memory => match call {
                Call::Open => Some(ffi::SQLITE_NOMEM),
                Call::Read | Call::Write | Call::Lock | Call::FileSize | Call::ShmMap => {
                    Some(ffi::SQLITE_IOERR_NOMEM)
                }
                _ => None,
            },
            Self::Busy => match call {
                Call::Lock | Call::ShmLock => Some(ffi::SQLITE_BUSY),
                _ => None,
            },
        }
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn with_world<T>(f: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(f)
}

/// The simulated file system, under the product's own shim.
pub(crate) fn vfs() -> Vfs {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
    Vfs::over(NAME, rename, exists).expect("it is registered")
}

/// Forget all files.
pub(crate) fn reset() {
    with_world(|it| *it = World::default());
}

/// The power goes, and comes back. All connections must be gone by now.
pub(crate) fn crash(dice: &mut Dice) {
    heal();
    crash_under(Path::new(""), dice);
}

/// The same for one machine of several: the files below `folder`.
pub(crate) fn crash_under(folder: &Path, dice: &mut Dice) {
    with_world(|world| {
        world.files.retain(|name, file| {
            if !name.starts_with(key(folder)) {
                return true;
            }
            assert_eq!(file.n_open, 0, "a process does not survive the power");
            let keeps_name = match (file.is_name_durable, file.is_deleted) {
                (true, false) => true,
                (false, true) => false,
                (true, true) | (false, false) => dice.below(2) == 0,
            };
            let mut bytes = std::mem::take(&mut file.durable);
            // The medium may have kept up for a while.
            let n_pending = u64::try_from(file.pending.len()).expect("a count");
            let n_whole = dice.below(n_pending + 1) * dice.below(2);
            for (n, change) in (0..).zip(file.pending.drain(..)) {
                if n < n_whole {
                    change.apply(&mut bytes);
                } else {
                    change.reach_in_part(&mut bytes, dice);
                }
            }
            *file = File {
                live: bytes.clone(),
                durable: bytes,
                is_name_durable: keeps_name,
                ..File::default()
            };
            keeps_name
        });
    });
}

/// The names of all files below `folder`, in order.
pub(crate) fn files_under(folder: &Path) -> Vec<PathBuf> {
    let path = |name: &Vec<u8>| PathBuf::from(OsStr::from_bytes(name));
    with_world(|world| {
        let there = world.files.iter().filter(|(_, file)| !file.is_deleted);
        there.map(|(name, _)| path(name)).filter(|it| it.starts_with(folder)).collect()
    })
}

/// Count calls anew; and if a sickness is named, let the `n`-th that it can befall fail, counted from one, or
/// all from there on; until [`heal`].
pub(crate) fn fail(plan: Option<(u64, Sickness, Lasts)>) {
    with_world(|world| {
        world.n_calls = 0;
        world.failed = None;
        world.plan = plan.map(|(from, sickness, lasts)| Plan { from, sickness, lasts });
    });
}

/// The machine is well again.
pub(crate) fn heal() {
    with_world(|it| it.plan = None);
}

/// The process has ended: nothing that its connections still do reaches a file.
pub(crate) fn stop() {
    let plan = Plan { from: 0, sickness: Sickness::Io, lasts: Lasts::FromThenOn };
    with_world(|it| it.plan = Some(plan));
}

/// How many calls there were since [`fail`] that could have failed so.
pub(crate) fn n_calls() -> u64 {
    with_world(|it| it.n_calls)
}

/// The first call that failed since [`fail`].
pub(crate) fn failed() -> Option<Call> {
    with_world(|it| it.failed)
}

/// How many files were synced so far.
pub(crate) fn n_syncs() -> u64 {
    with_world(|it| it.n_syncs)
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes: written } => {
                let end = at + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(written);
            }
            Self::Truncate { size } => bytes.truncate(*size),
        }
    }

    /// What of this reached the medium is anybody's guess.
    fn reach_in_part(&self, bytes: &mut Vec<u8>, dice: &mut Dice) {
        // Whole, not at all, or torn.
        match dice.below(3) {
            0 => {}
            1 => self.apply(bytes),
            _ => match self {
                Self::Write { at, bytes: written } => {
                    let mut from = 0;
                    while from < written.len() {
                        let place = at + from;
                        let length = (SECTOR - place % SECTOR).min(written.len() - from);
                        if dice.below(2) == 0 {
                            let part = written[from..from + length].to_vec();
                            Self::Write { at: place, bytes: part }.apply(bytes);
                        }
                        from += length;
                    }
                }
                Self::Truncate { .. } => {}
            },
        }
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.live);
        self.pending.clear();
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if failure(Call::Rename).is_some() {
        return Err(io::ErrorKind::Other.into());
    }
    with_world(|world| {
        let mut file = world.files.remove(key(from)).ok_or(io::ErrorKind::NotFound)?;
        assert!(file.pending.is_empty(), "what is renamed must have been synced");
        file.is_name_durable = true;
        world.files.insert(key(to).to_owned(), file);
        Ok(())
    })
}

fn exists(path: &Path) -> io::Result<bool> {
    if failure(Call::Access).is_some() {
        return Err(io::ErrorKind::Other.into());
    }
    Ok(with_world(|world| world.files.get(key(path)).is_some_and(|it| !it.is_deleted)))
}

fn key(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A file as SQLite sees it.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    /// A boxed key of `World::files`.
    name: *mut Vec<u8>,
    level: c_int,
    is_temporary: bool,
    /// It is a log, and this handle created it.
    has_created_log: bool,
    /// Locks of shared memory held: bits of shared ones, bits of exclusive ones.
    shared: u8,
    exclusive: u8,
}

fn register() {
    let vfs = ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: c_int::try_from(size_of::<Handle>()).expect("a few words"),
        mxPathname: 512,
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(x_open),
        xDelete: Some(x_delete),
        xAccess: Some(x_access),
        xFullPathname: Some(x_full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(x_randomness),
        xSleep: Some(x_sleep),
        xCurrentTime: None,
        xGetLastError: None,
        xCurrentTimeInt64: None,
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    };
    // SAFETY: SQLite initialises itself in this call; the VFS lives for ever.
    let code = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) };
    assert_eq!(code, ffi::SQLITE_OK);
}

/// # Safety
/// `name` is a C string.
unsafe fn bytes_of(name: *const c_char) -> Vec<u8> {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }.to_bytes().to_owned()
}

unsafe extern "C" fn x_open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    if let Some(code) = failure(Call::Open) {
        // SQLite closes what has methods, whatever the answer.
        // SAFETY: SQLite passes room for a `Handle`.
        unsafe { (*file).pMethods = ptr::null() };
        return code;
    }
    // SAFETY: SQLite passes room for a `Handle`, and a C string or null.
    unsafe {
        let handle = file.cast::<Handle>();
        (*handle).base.pMethods = ptr::null();
        let is_temporary = name.is_null();
        let key = with_world(|world| {
            let key = if is_temporary {
                world.n_anonymous += 1;
                format!("anonymous {}", world.n_anonymous).into_bytes()
            } else {
                bytes_of(name)
            };
            let may_create = is_temporary || flags & ffi::SQLITE_OPEN_CREATE != 0;
            let is_there = world.files.get(&key).is_some_and(|it| !it.is_deleted);
            if !is_there && !may_create {
                return None;
            }
            let is_new = !is_there;
            let file = world.files.entry(key.clone()).or_default();
            if file.is_deleted {
                // The old one is still there for a crash to find; the new one takes its place for good.
                *file = File::default();
            }
            file.n_open += 1;
            Some((key, is_new))
        });
        let Some((key, is_new)) = key else {
            return ffi::SQLITE_CANTOPEN;
        };
        *handle = Handle {
            base: ffi::sqlite3_file { pMethods: &raw const METHODS },
            name: Box::into_raw(Box::new(key)),
            level: 0,
            is_temporary,
            has_created_log: is_new
                && flags & (ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL) != 0,
            shared: 0,
            exclusive: 0,
        };
        if !out_flags.is_null() {
            *out_flags = flags;
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn x_delete(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_folder: c_int,
) -> c_int {
    if let Some(code) = failure(Call::Delete) {
        return code;
    }
    // SAFETY: SQLite passes a C string.
    let key = unsafe { bytes_of(name) };
    with_world(|world| match world.files.get_mut(&key) {
        Some(file) if !file.is_deleted => {
            assert_eq!(file.n_open, 0, "SQLite closes before it deletes");
            if sync_folder != 0 || !file.is_name_durable {
                world.files.remove(&key);
            } else {
                file.is_deleted = true;
            }
            ffi::SQLITE_OK
        }
        _ => ffi::SQLITE_IOERR_DELETE_NOENT,
    })
}

unsafe extern "C" fn x_access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    if let Some(code) = failure(Call::Access) {
        return code;
    }
    // SAFETY: SQLite passes a C string and a place for the answer.
    unsafe {
        let key = bytes_of(name);
        // As the operating system's: an empty file does not count for SQLite's question about journals.
        let is_there = with_world(|world| world.files.get(&key).is_some_and(|it| !it.is_deleted));
        *out = c_int::from(is_there);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    n_out: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a C string and room for `n_out` bytes.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > usize::try_from(n_out).unwrap_or_default() {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_randomness(_: *mut ffi::sqlite3_vfs, n: c_int, out: *mut c_char) -> c_int {
    // Replays must be equal. Whatever depends on this would differ between replicas anyway.
    // SAFETY: SQLite passes room for `n` bytes.
    unsafe { ptr::write_bytes(out, 7, usize::try_from(n).unwrap_or_default()) };
    n
}

unsafe extern "C" fn x_sleep(_: *mut ffi::sqlite3_vfs, us: c_int) -> c_int {
    us
}

/// Run `f` on the handle and its file.
///
/// # Safety
/// `file` is an open [`Handle`], not used by anybody else during the call.
unsafe fn with<T>(file: *mut ffi::sqlite3_file, f: impl FnOnce(&mut Handle, &mut File) -> T) -> T {
    // SAFETY: the caller's promise; the name is a box that lives as long as the handle.
    let (handle, name) = unsafe {
        let handle = &mut *file.cast::<Handle>();
        let name = &*handle.name;
        (handle, name)
    };
    with_world(|world| {
        let file = world.files.get_mut(name).expect("an open file is there");
        f(handle, file)
    })
}

/// One call more; what it fails with, if it is to fail.
fn failure(call: Call) -> Option<c_int> {
    with_world(|world| {
        let sickness = world.plan.map_or(Sickness::Io, |it| it.sickness);
        let code = sickness.code(call)?;
        world.n_calls += 1;
        let plan = world.plan?;
        let fails = match plan.lasts {
            Lasts::Once => world.n_calls == plan.from,
            Lasts::FromThenOn => world.n_calls >= plan.from,
        };
        if !fails {
            return None;
        }
        world.failed = world.failed.or(Some(call));
        // The product looks there, too, to tell a full disk from a broken one.
        let number = if sickness == Sickness::Full { libc::ENOSPC } else { libc::EIO };
        // SAFETY: the thread's own, which is always there.
        unsafe { *libc::__errno_location() = number };
        Some(code)
    })
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file, once.
    unsafe {
        x_unlock(file, 0);
        let is_temporary = with(file, |handle, file| {
            file.n_open -= 1;
            handle.is_temporary
        });
        let name = Box::from_raw((*file.cast::<Handle>()).name);
        if is_temporary {
            with_world(|it| it.files.remove(&*name));
        }
        (*file).pMethods = ptr::null();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    n: c_int,
    at: i64,
) -> c_int {
    if let Some(code) = failure(Call::Read) {
        return code;
    }
    // SAFETY: SQLite reads from an open file, into room for `n` bytes.
    unsafe {
        let out = std::slice::from_raw_parts_mut(out.cast::<u8>(), usize::try_from(n).unwrap_or(0));
        with(file, |_, file| {
            let at = usize::try_from(at).expect("a position").min(file.live.len());
            let there = &file.live[at..file.live.len().min(at + out.len())];
            out[..there.len()].copy_from_slice(there);
            out[there.len()..].fill(0);
            if there.len() == out.len() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
        })
    }
}

unsafe extern "C" fn x_write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    n: c_int,
    at: i64,
) -> c_int {
    if let Some(code) = failure(Call::Write) {
        return code;
    }
    // SAFETY: SQLite writes to an open file, from `n` readable bytes.
    unsafe {
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(n).unwrap_or(0));
        let at = usize::try_from(at).expect("a position");
        with(file, |_, file| file.change(Change::Write { at, bytes: bytes.to_vec() }));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    if let Some(code) = failure(Call::Truncate) {
        return code;
    }
    let size = usize::try_from(size).expect("a size");
    // SAFETY: SQLite passes an open file.
    unsafe { with(file, |_, file| file.change(Change::Truncate { size })) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    if let Some(code) = failure(Call::Sync) {
        return code;
    }
    // SAFETY: SQLite passes an open file.
    unsafe {
        with(file, |handle, file| {
            file.sync();
            file.is_name_durable |= handle.has_created_log;
        });
    }
    with_world(|it| it.n_syncs += 1);
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    if let Some(code) = failure(Call::FileSize) {
        return code;
    }
    // SAFETY: SQLite passes an open file and a place for the answer.
    unsafe { *out = with(file, |_, file| i64::try_from(file.live.len()).expect("a size")) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    if let Some(code) = failure(Call::Lock) {
        return code;
    }
    // SAFETY: SQLite passes an open file.
    unsafe {
        with(file, |handle, file| {
            if handle.level >= level {
                return ffi::SQLITE_OK;
            }
            let is_free = match level {
                ffi::SQLITE_LOCK_SHARED => file.writer < ffi::SQLITE_LOCK_EXCLUSIVE,
                ffi::SQLITE_LOCK_RESERVED => file.writer == 0,
                _ => {
                    let others = file.readers - u32::from(handle.level >= ffi::SQLITE_LOCK_SHARED);
                    let others_reserve =
                        file.writer > 0 && handle.level < ffi::SQLITE_LOCK_RESERVED;
                    others == 0 && !others_reserve
                }
            };
            if !is_free {
                return ffi::SQLITE_BUSY;
            }
            if handle.level == 0 {
                file.readers += 1;
            }
            if level >= ffi::SQLITE_LOCK_RESERVED {
                file.writer = level;
            }
            handle.level = level;
            ffi::SQLITE_OK
        })
    }
}

unsafe extern "C" fn x_unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    unsafe {
        with(file, |handle, file| {
            // SQLite unlocks to SHARED or to nothing.
            if handle.level >= ffi::SQLITE_LOCK_RESERVED && level < ffi::SQLITE_LOCK_RESERVED {
                file.writer = 0;
            }
            if handle.level > 0 && level == 0 {
                file.readers -= 1;
            }
            handle.level = handle.level.min(level);
        });
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    if let Some(code) = failure(Call::CheckReservedLock) {
        return code;
    }
    // SAFETY: SQLite passes an open file and a place for the answer.
    unsafe { *out = with(file, |_, file| c_int::from(file.writer > 0)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_file_control(
    _: *mut ffi::sqlite3_file,
    _op: c_int,
    _argument: *mut c_void,
) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn x_sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    c_int::try_from(SECTOR).expect("a small number")
}

unsafe extern "C" fn x_device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // No promise at all.
    0
}

unsafe extern "C" fn x_shm_map(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    if let Some(code) = failure(Call::ShmMap) {
        return code;
    }
    let page = usize::try_from(page).expect("a page");
    let words = usize::try_from(size).expect("a size") / size_of::<u64>();
    // SAFETY: SQLite passes an open file and a place for the answer. Pages never move: they are boxes.
    unsafe {
        *out = with(file, |_, file| {
            if file.shared.len() <= page && extend == 0 {
                return ptr::null_mut();
            }
            while file.shared.len() <= page {
                file.shared.push(vec![0; words].into_boxed_slice());
            }
            file.shared[page].as_mut_ptr().cast()
        });
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    n: c_int,
    flags: c_int,
) -> c_int {
    if flags & ffi::SQLITE_SHM_UNLOCK == 0
        && let Some(code) = failure(Call::ShmLock)
    {
        return code;
    }
    // SAFETY: SQLite passes an open file.
    unsafe {
        with(file, |handle, file| {
            let range = offset..offset + n;
            let bits = range.clone().fold(0_u8, |bits, it| bits | 1 << it);
            let locks: Vec<usize> = range.map(|it| usize::try_from(it).expect("a lock")).collect();
            if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
                for at in locks {
                    let bit = 1_u8 << at;
                    if handle.exclusive & bit != 0 {
                        file.shared_locks[at] = 0;
                    } else if handle.shared & bit != 0 {
                        file.shared_locks[at] -= 1;
                    }
                }
                handle.exclusive &= !bits;
                handle.shared &= !bits;
            } else if flags & ffi::SQLITE_SHM_SHARED != 0 {
                if handle.shared & bits == 0 {
                    if locks.iter().any(|at| file.shared_locks[*at] < 0) {
                        return ffi::SQLITE_BUSY;
                    }
                    for at in locks {
                        file.shared_locks[at] += 1;
                    }
                    handle.shared |= bits;
                }
            } else {
                if locks.iter().any(|at| file.shared_locks[*at] != 0) {
                    return ffi::SQLITE_BUSY;
                }
                for at in locks {
                    file.shared_locks[at] = -1;
                }
                handle.exclusive |= bits;
            }
            ffi::SQLITE_OK
        })
    }
}

unsafe extern "C" fn x_shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn x_shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    unsafe {
        x_shm_lock(file, 0, 8, ffi::SQLITE_SHM_UNLOCK);
        with(file, |_, file| {
            // The last one out: what is shared is gone, as it is with the last process.
            if file.n_open <= 1 {
                file.shared.clear();
            }
        });
    }
    ffi::SQLITE_OK
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
