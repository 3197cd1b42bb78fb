//! How long the turns of a core's loop take: what everybody on that core waits for.
//!
//! Counted twice: by the clock on the wall, which is what others wait, and by the processor's time, which
//! does not depend on who else uses the machine.

#![expect(unsafe_code, reason = "the processor time of a thread is a system call")]

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest turn that is told apart from longer ones.
const TURN_MAX_US: u64 = 60_000_000;

/// Turns so far.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// Microseconds of each, by the clock.
    pub(super) wall_us: Histogram<u64>,
    /// Microseconds of each that this core worked.
    pub(super) cpu_us: Histogram<u64>,
    /// All of them together, which a sum of whole microseconds would make less.
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

impl Turns {
    pub(super) fn new() -> Self {
        // Two significant digits take 20 KiB.
        let histogram =
            || Histogram::new_with_bounds(1, TURN_MAX_US, 2).expect("the bounds are in order");
        Self {
            wall_us: histogram(),
            cpu_us: histogram(),
            wall: Duration::ZERO,
            cpu: Duration::ZERO,
        }
    }

    /// A turn has ended.
    pub(super) fn record(&mut self, wall: Duration, cpu: Duration) {
        self.wall += wall;
        self.cpu += cpu;
        for (histogram, took) in [(&mut self.wall_us, wall), (&mut self.cpu_us, cpu)] {
            histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// Processor time that this thread has had so far.
pub(super) fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is valid; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_turns_add_up() {
        let mut turns = Turns::new();
        for _ in 0..1_000 {
            turns.record(Duration::from_nanos(1_900), Duration::from_nanos(600));
        }
        assert_eq!(turns.wall, Duration::from_micros(1_900));
        assert_eq!(turns.cpu, Duration::from_micros(600));
        assert_eq!(turns.wall_us.len(), 1_000);
    }
}
