//! SIGINT and SIGTERM: blocked in every thread, waited for by the main thread.

use std::io;

/// The signals that end a node.
fn ending() -> libc::sigset_t {
    // SAFETY: `sigset_t` is plain memory, and sigemptyset makes it a valid set before it is used.
    #[expect(unsafe_code, reason = "no crate here handles signals")]
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        set
    }
}

/// Keep the signals from ending the process; threads that are started afterwards inherit it.
pub(super) fn block() {
    let set = ending();
    // SAFETY: `set` is a valid set, and the old one is not asked for.
    #[expect(unsafe_code, reason = "no crate here handles signals")]
    let result =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    assert_eq!(result, 0, "the set is valid");
}

/// Wait until one arrives.
pub(super) fn wait() -> io::Result<i32> {
    let set = ending();
    let mut signal = 0;
    // SAFETY: both pointers are to live values of the right type.
    #[expect(unsafe_code, reason = "no crate here handles signals")]
    let result = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    if result == 0 { Ok(signal) } else { Err(io::Error::from_raw_os_error(result)) }
}
