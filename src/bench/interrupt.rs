//! Ctrl-C: the load ends early, and what it did is reported and checked. A second one ends the process.

use std::time::Duration;
use std::time::Instant;

use crate::bench::clock;

/// SIGINT and SIGTERM are kept back while this lives, in this thread and in those it starts.
#[derive(Debug)]
pub(super) struct Interrupt {
    signals: libc::sigset_t,
    before: libc::sigset_t,
}

impl Interrupt {
    /// Keep them back from now on.
    pub(super) fn keep_back() -> Self {
        // SAFETY: `sigset_t` is plain memory, and sigemptyset makes it a valid set before it is used; all pointers
        // are to live values.
        #[expect(unsafe_code, reason = "no crate here handles signals")]
        let (signals, before, result) = unsafe {
            let mut signals: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut signals);
            libc::sigaddset(&raw mut signals, libc::SIGINT);
            libc::sigaddset(&raw mut signals, libc::SIGTERM);
            let result =
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, &raw mut before);
            (signals, before, result)
        };
        assert_eq!(result, 0, "the set is valid");
        Self { signals, before }
    }

    /// Wait until a moment; whether a signal came first.
    pub(super) fn comes_before(&self, moment: Instant) -> bool {
        loop {
            let left = moment.saturating_duration_since(clock::now());
            if left == Duration::ZERO {
                return false;
            }
            let timeout = libc::timespec {
                tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            // SAFETY: the pointers are to live values, and nothing is to be told of the signal.
            #[expect(unsafe_code, reason = "no crate here handles signals")]
            let signal = unsafe {
                libc::sigtimedwait(
                    &raw const self.signals,
                    std::ptr::null_mut(),
                    &raw const timeout,
                )
            };
            if signal > 0 {
                return true;
            }
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask that the kernel told of; the present one is not asked for.
        #[expect(unsafe_code, reason = "no crate here handles signals")]
        let result = unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut())
        };
        debug_assert_eq!(result, 0, "the mask is valid");
    }
}
