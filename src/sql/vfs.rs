//! A shim over one of SQLite's file systems: answers the time from the command, and tells a failing
//! machine from a failing statement.
//!
//! All calls are passed on to the file system below, whatever it is: the operating system's, or the
//! simulator's in memory. Five things are added:
//! - `xCurrentTime` and `xCurrentTimeInt64` answer the time stamp of the command that runs, so `now`
//!   is the same on every replica;
//! - a call that failed below sets the fault flag (R15), or a flag of its own if there was no room (R35);
//! - bytes written to temporary files are counted, and refused past the statement's limit (R12);
//! - pages are counted while a statement runs where there is little time (R13);
//! - what threads that have time write goes to the disk piece by piece (`pace`).
//!
//! Local time is UTC, whatever the machine says.
//!
//! A file of the shim is [`ShimFile`] with the file of the file system below behind it.

#![expect(unsafe_code, reason = "a file system of SQLite is a table of C functions")]

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::ptr::NonNull;
use std::sync::Once;

use rusqlite::ffi;

use crate::sql::allocated;
use crate::sql::charges;
use crate::sql::context;
use crate::sql::context::Trouble;
use crate::sql::fault::Fault;
use crate::sql::memory;
use crate::sql::pace;
use crate::sql::pace::Pace;

/// Julian day of 1970-01-01T00:00:00Z, in milliseconds.
const UNIX_EPOCH_JULIAN_MS: i64 = 210_866_760_000_000;

/// Moves a file within its folder and makes that durable.
pub type Rename = fn(from: &Path, to: &Path) -> io::Result<()>;

/// Whether there is a file. An error if that cannot be told.
pub type Exists = fn(path: &Path) -> io::Result<bool>;

/// Where databases lie: a registered shim.
#[derive(Clone, Copy, Debug)]
pub struct Vfs {
    name: &'static CStr,
    shim: NonNull<ffi::sqlite3_vfs>,
    rename: Rename,
    exists: Exists,
}

// SAFETY: a registered VFS lives for ever and is never written again; SQLite's VFS methods may be called
// from any thread.
unsafe impl Send for Vfs {}
// SAFETY: as above.
unsafe impl Sync for Vfs {}

/// The VFS as SQLite sees it, and the one below.
#[repr(C)]
struct Shim {
    vfs: ffi::sqlite3_vfs,
    below: *mut ffi::sqlite3_vfs,
}

/// A file as SQLite sees it. The file below follows in memory.
#[repr(C)]
struct ShimFile {
    base: ffi::sqlite3_file,
    below: *mut ffi::sqlite3_file,
    is_temporary: bool,
    /// A database or its log.
    is_lasting: bool,
    pace: Pace,
}

impl Vfs {
    /// The operating system's files.
    pub fn system() -> Self {
        static ONCE: Once = Once::new();
        // tidy: allow(std::fs) a look at a name
        let exists = |path: &Path| std::fs::exists(path);
        let vfs = Self::over(c"unix", rename, exists).expect("SQLite was built for unix");
        // SAFETY: a registered VFS is readable for ever; what it lies over, too.
        ONCE.call_once(|| unsafe {
            let unix = below(vfs.shim.as_ptr());
            pace::watch(NonNull::new(unix).expect("it lies over one"));
        });
        vfs
    }

    /// The registered file system `below`; none if there is no such one. `rename` and `exists` are what it
    /// lacks.
    pub fn over(below: &CStr, rename: Rename, exists: Exists) -> Option<Self> {
        let mut name = b"debros-".to_vec();
        name.extend_from_slice(below.to_bytes());
        let name = CString::new(name).expect("made of a C string");
        configure();
        // SAFETY: both names are C strings; the call initialises SQLite itself.
        let (known, below) = unsafe {
            (ffi::sqlite3_vfs_find(name.as_ptr()), ffi::sqlite3_vfs_find(below.as_ptr()))
        };
        let below = NonNull::new(below)?;
        let shim = NonNull::new(known).unwrap_or_else(|| register(name, below));
        // SAFETY: registered by `register`, with a name that lives for ever.
        let name = unsafe { CStr::from_ptr(shim.as_ref().zName) };
        Some(Self { name, shim, rename, exists })
    }

    /// What SQLite knows it by.
    pub(super) fn name(&self) -> &'static CStr {
        self.name
    }

    /// Move a file, durably.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Fault> {
        (self.rename)(from, to).map_err(|error| Fault::Stop(format!("rename a file: {error}")))
    }

    /// Whether there is a file at `path`. SQLite's own answer takes one that it cannot look at for none, and
    /// what is none may be created, or fenced, or need no sync.
    pub(super) fn exists(&self, path: &Path) -> Result<bool, Fault> {
        (self.exists)(path).map_err(|error| Fault::Stop(format!("look for a file: {error}")))
    }

    /// Delete the file at `path`, if there is one.
    pub(super) fn delete(&self, path: &Path) -> Result<(), Fault> {
        let name = c_name(path);
        // SAFETY: the shim is registered and has all methods; `name` is a C string.
        let code = unsafe {
            let delete = self.shim.as_ref().xDelete.expect("every VFS has xDelete");
            delete(self.shim.as_ptr(), name.as_ptr(), 1)
        };
        match code {
            ffi::SQLITE_OK | ffi::SQLITE_IOERR_DELETE_NOENT => Ok(()),
            code => Err(io_fault("delete a file", code)),
        }
    }

    /// Sync the file at `path`, a write-ahead log or a database that nobody has open: what was written to it
    /// before the call is durable after it. No such file: nothing was written.
    pub(super) fn sync_file(&self, path: &Path) -> Result<(), Fault> {
        if !self.exists(path)? {
            return Ok(());
        }
        let name = c_name(path);
        // SAFETY: the shim is registered and has all methods.
        let (size, open) = unsafe { (self.shim.as_ref().szOsFile, self.shim.as_ref().xOpen) };
        let words = usize::try_from(size).expect("a size").div_ceil(size_of::<u64>());
        let mut room = vec![0_u64; words];
        let file: *mut ffi::sqlite3_file = room.as_mut_ptr().cast();
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_WAL;
        // SAFETY: `room` is zeroed, aligned and as large as the VFS asks for; it outlives the file, which
        // is closed below. The name of a log carries no URI parameters, which only a main file would need.
        unsafe {
            let open = open.expect("every VFS has xOpen");
            let code = open(self.shim.as_ptr(), name.as_ptr(), file, flags, ptr::null_mut());
            if code != ffi::SQLITE_OK {
                return Err(io_fault("open a file to sync it", code));
            }
            let synced = x_sync(file, ffi::SQLITE_SYNC_NORMAL);
            let closed = x_close(file);
            match (synced, closed) {
                (ffi::SQLITE_OK, ffi::SQLITE_OK) => Ok(()),
                (ffi::SQLITE_OK, code) | (code, _) => Err(io_fault("sync a file", code)),
            }
        }
    }
}

fn io_fault(during: &str, code: c_int) -> Fault {
    Fault::Stop(format!("{during}: SQLite code {code}"))
}

/// A path as SQLite takes it.
pub(super) fn c_name(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("paths of databases hold no zero byte")
}

/// Rename, then sync the folder.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?; // tidy: allow(std::fs) SQLite cannot rename; runs on the helper thread
    let folder =
        to.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // tidy: allow(std::fs) a folder, whose closing drops no lock of SQLite
    std::fs::File::open(folder)?.sync_all()
}

/// Settings of the process, before SQLite is used first.
fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        memory::configure();
        // Without this each cache starts with room for twenty pages, also that of the temporary schema,
        // which holds one: 90 KiB per open database.
        // SAFETY: the arguments are those of this setting. Too late, it is refused, which costs memory only.
        unsafe {
            ffi::sqlite3_config(
                ffi::SQLITE_CONFIG_PAGECACHE,
                ptr::null_mut::<c_void>(),
                0 as c_int,
                0 as c_int,
            );
        }
        // The setting of a machine must not show, nor its table of leap seconds.
        // SAFETY: the arguments are those of this control: "call this instead".
        unsafe {
            let of_process = ffi::SQLITE_TESTCTRL_LOCALTIME_FAULT;
            let local_time: unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int = local_time;
            ffi::sqlite3_test_control(of_process, 2 as c_int, local_time);
        }
    });
}

/// What SQLite calls to turn seconds since 1970 into a local date: UTC.
unsafe extern "C" fn local_time(seconds: *const c_void, out: *mut c_void) -> c_int {
    // SAFETY: SQLite passes a `time_t` and a `tm`.
    // tidy: allow(libc) SQLite speaks its types
    let done = unsafe { libc::gmtime_r(seconds.cast(), out.cast()) };
    c_int::from(done.is_null())
}

fn register(name: CString, below: NonNull<ffi::sqlite3_vfs>) -> NonNull<ffi::sqlite3_vfs> {
    // SAFETY: a registered VFS is readable for ever.
    let mut vfs = unsafe { *below.as_ref() };
    let own = c_int::try_from(size_of::<ShimFile>()).expect("a few words");
    vfs.szOsFile += own;
    vfs.zName = name.into_raw();
    vfs.pNext = ptr::null_mut();
    vfs.xOpen = Some(x_open);
    vfs.xDelete = Some(x_delete);
    vfs.xAccess = Some(x_access);
    vfs.xFullPathname = Some(x_full_pathname);
    vfs.xCurrentTime = Some(x_current_time);
    vfs.xCurrentTimeInt64 = Some(x_current_time_int64);
    let shim = Box::leak(Box::new(Shim { vfs, below: below.as_ptr() }));
    let shim: *mut ffi::sqlite3_vfs = ptr::from_mut(shim).cast();
    // SAFETY: the shim lives for ever and all its methods are set; two threads that both come here
    // register two equal shims, either of which serves.
    let code = unsafe { ffi::sqlite3_vfs_register(shim, 0) };
    assert_eq!(code, ffi::SQLITE_OK, "registering a VFS only links a list");
    NonNull::new(shim).expect("made of a reference")
}

/// Pass a return code on, and note if it means that a system call failed.
fn watch(code: c_int) -> c_int {
    let failed = match code & 0xff {
        ffi::SQLITE_IOERR => {
            !matches!(code, ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_DELETE_NOENT)
        }
        ffi::SQLITE_FULL | ffi::SQLITE_CANTOPEN | ffi::SQLITE_NOMEM | ffi::SQLITE_PERM => true,
        _ => false,
    };
    // Memory that the statement may not have is no trouble of the machine.
    let is_refused =
        matches!(code, ffi::SQLITE_NOMEM | ffi::SQLITE_IOERR_NOMEM) && allocated::is_out();
    if failed && !is_refused {
        context::set_trouble(Trouble::Failed);
    }
    code
}

/// The same for a call that takes room on the disk: that there is none is another matter. A sync never comes
/// here: one that fails, for whatever reason, has failed for good (R8).
fn watch_room(code: c_int) -> c_int {
    let is_full = || {
        let kind = io::Error::last_os_error().kind();
        matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    };
    let lacks_room = match code {
        // What the file system below makes of ENOSPC.
        ffi::SQLITE_FULL => true,
        ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_CANTOPEN => is_full(),
        _ => false,
    };
    if lacks_room {
        context::set_trouble(Trouble::NoRoom);
        return code;
    }
    watch(code)
}

/// The same for a call that reads a page, as good as always.
fn watch_page(code: c_int) -> c_int {
    charges::charge_page();
    watch(code)
}

/// The VFS below.
///
/// # Safety
/// `vfs` is a [`Shim`].
unsafe fn below(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
    // SAFETY: the caller's promise; the VFS is the shim's first field.
    unsafe { (*vfs.cast::<Shim>()).below }
}

/// The file below, and its methods.
///
/// # Safety
/// `file` is an open [`ShimFile`].
unsafe fn file_below<'a>(
    file: *mut ffi::sqlite3_file,
) -> (*mut ffi::sqlite3_file, &'a ffi::sqlite3_io_methods) {
    // SAFETY: the caller's promise; an open file has methods, which are static.
    unsafe {
        let below = (*file.cast::<ShimFile>()).below;
        (below, &*(*below).pMethods)
    }
}

unsafe extern "C" fn x_open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands in `szOsFile` bytes for the file: room for ours and for the one below, whose
    // alignment is kept because the size of ours is a multiple of eight.
    unsafe {
        const { assert!(size_of::<ShimFile>().is_multiple_of(8)) };
        let shim = file.cast::<ShimFile>();
        let under: *mut ffi::sqlite3_file = shim.add(1).cast();
        (*under).pMethods = ptr::null();
        (*shim).base.pMethods = ptr::null();
        (*shim).below = under;
        // What a statement needs in order to be undone is not charged: whether it is in memory or in a file
        // depends on what else is in the transaction. It is never more than the pages of the database.
        let is_temporary = name.is_null() || flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0;
        (*shim).is_temporary = is_temporary && flags & ffi::SQLITE_OPEN_SUBJOURNAL == 0;
        (*shim).is_lasting = flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) != 0;
        (&raw mut (*shim).pace).write(Pace::default());
        let below = below(vfs);
        let open = (*below).xOpen.expect("every VFS has xOpen");
        let code = open(below, name, under, flags, out_flags);
        if !(*under).pMethods.is_null() {
            (*shim).base.pMethods = match (*(*under).pMethods).iVersion {
                1 => &raw const METHODS_1,
                2 => &raw const METHODS_2,
                _ => &raw const METHODS_3,
            };
        }
        watch_room(code)
    }
}

unsafe extern "C" fn x_delete(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_dir: c_int,
) -> c_int {
    // SAFETY: passed on as it came, to the VFS below.
    unsafe {
        let below = below(vfs);
        watch((*below).xDelete.expect("every VFS has xDelete")(below, name, sync_dir))
    }
}

unsafe extern "C" fn x_access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: passed on as it came, to the VFS below.
    unsafe {
        let below = below(vfs);
        watch((*below).xAccess.expect("every VFS has xAccess")(below, name, flags, out))
    }
}

unsafe extern "C" fn x_full_pathname(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    n_out: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: passed on as it came, to the VFS below.
    unsafe {
        let below = below(vfs);
        watch((*below).xFullPathname.expect("every VFS has xFullPathname")(below, name, n_out, out))
    }
}

unsafe extern "C" fn x_current_time_int64(
    _vfs: *mut ffi::sqlite3_vfs,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes a valid place for the answer.
    unsafe { *out = UNIX_EPOCH_JULIAN_MS.saturating_add(context::time().0) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_current_time(_vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    let ms = UNIX_EPOCH_JULIAN_MS.saturating_add(context::time().0);
    #[expect(clippy::cast_precision_loss, reason = "days as a double is what this method answers")]
    let days = ms as f64 / 86_400_000.0;
    // SAFETY: SQLite passes a valid place for the answer.
    unsafe { *out = days };
    ffi::SQLITE_OK
}

/// A method that only passes its call on and watches the answer.
macro_rules! pass_on {
    ($name:ident, $method:ident $(, $argument:ident: $type:ty)*) => {
        pass_on!($name, $method, watch $(, $argument: $type)*);
    };
    ($name:ident, $method:ident, $watch:ident $(, $argument:ident: $type:ty)*) => {
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $type)*) -> c_int {
            // SAFETY: SQLite calls this with an open file of ours; arguments go on as they came. A method
            // of a version is called only if the file below has that version.
            unsafe {
                let (below, methods) = file_below(file);
                $watch(methods.$method.expect("methods of its version")(below $(, $argument)*))
            }
        }
    };
}

pass_on!(x_read, xRead, watch_page, out: *mut c_void, n: c_int, at: i64);
pass_on!(x_truncate, xTruncate, size: i64);
pass_on!(x_sync, xSync, flags: c_int);
pass_on!(x_file_size, xFileSize, out: *mut i64);
pass_on!(x_lock, xLock, level: c_int);
pass_on!(x_unlock, xUnlock, level: c_int);
pass_on!(x_check_reserved_lock, xCheckReservedLock, out: *mut c_int);
pass_on!(x_file_control, xFileControl, op: c_int, argument: *mut c_void);
pass_on!(x_shm_map, xShmMap, watch_room, page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void);
pass_on!(x_shm_lock, xShmLock, offset: c_int, n: c_int, flags: c_int);
pass_on!(x_shm_unmap, xShmUnmap, delete: c_int);
pass_on!(x_fetch, xFetch, at: i64, n: c_int, out: *mut *mut c_void);
pass_on!(x_unfetch, xUnfetch, at: i64, page: *mut c_void);

unsafe extern "C" fn x_sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite calls this with an open file of ours. The answer is a size, not a code.
    unsafe {
        let (below, methods) = file_below(file);
        methods.xSectorSize.map_or(4_096, |it| it(below))
    }
}

unsafe extern "C" fn x_device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite calls this with an open file of ours. The answer is a set of flags, not a code.
    unsafe {
        let (below, methods) = file_below(file);
        methods.xDeviceCharacteristics.map_or(0, |it| it(below))
    }
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file of ours, once.
    unsafe {
        let (below, methods) = file_below(file);
        let code = methods.xClose.expect("every file has xClose")(below);
        (*file).pMethods = ptr::null();
        watch(code)
    }
}

unsafe extern "C" fn x_write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    n: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite writes to an open file of ours; arguments go on as they came.
    unsafe {
        let shim = file.cast::<ShimFile>();
        let n_bytes = u64::try_from(n).expect("a size is not negative");
        if (*shim).is_temporary && charges::charge_temp(n_bytes) {
            // Not watched: the statement's fault, equal on every replica.
            return ffi::SQLITE_FULL;
        }
        let (below, methods) = file_below(file);
        charges::charge_page();
        let code = methods.xWrite.expect("every file has xWrite")(below, from, n, at);
        if code == ffi::SQLITE_OK && (*shim).is_lasting {
            (*shim).pace.on_written(at, n_bytes);
        }
        watch_room(code)
    }
}

unsafe extern "C" fn x_shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: SQLite calls this with an open file of ours that has version 2.
    unsafe {
        let (below, methods) = file_below(file);
        methods.xShmBarrier.expect("methods of its version")(below);
    }
}

static METHODS_3: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
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
    xFetch: Some(x_fetch),
    xUnfetch: Some(x_unfetch),
};
static METHODS_2: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods { iVersion: 2, ..METHODS_3 };
static METHODS_1: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods { iVersion: 1, ..METHODS_3 };
