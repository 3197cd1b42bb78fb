//! What a shard has on disk, on `io_uring` or on helper threads. It decides nothing: the cores do.
//!
//! [`boot`] reads logs before any core runs; [`log`] writes one on its core; [`segments`] prepares its
//! files beside it. [`helper`] does what takes long with databases, [`workers`] what takes long in them
//! ([`lanes`]: who waits for whom);
//! [`manifest`] says how far those are. [`guard`] puts on record, in [`stops`], at which command the process had
//! to stop.

pub mod boot;
pub mod log;
pub mod segments;
pub mod helper;
pub mod workers;
mod lanes;
pub mod spool;
pub mod stopwatch;
pub mod manifest;
pub mod priority;
pub mod stops;
pub mod durable;
pub mod guard;

use std::ffi::CString;
use std::fmt::Display;
use std::io;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tracing::error;

/// Whether a call failed because the disk, or what one may use of it, is full.
fn lacks_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The disk, or something that must not fail, has failed: say so and end the process at once (R8). What was
/// acknowledged is on disk; what was not may or may not be.
pub fn fail_stop(during: &str, cause: &dyn Display) -> ! {
    error!(%cause, "failed to {during}; the process stops");
    // The log may go to a file that is part of the trouble; nothing can be done if this fails, too.
    let _ = writeln!(io::stderr(), "debros: failed to {during}: {cause}: the process stops");
    std::process::abort()
}

/// Bytes that this process may still use on the disk of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    #[expect(unsafe_code, reason = "the standard library does not tell")]
    // SAFETY: the name is a C string; the place is large enough, and written if the call succeeds.
    let found = unsafe {
        if libc::statvfs(name.as_ptr(), found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
