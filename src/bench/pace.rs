//! When requests should be sent: each as soon as the one before is answered, or at a rate.
//!
//! At a rate, a request that is late because all clients still wait for replies counts its time from when it
//! should have been sent. So a server that stalls is charged for all that would have come meanwhile.

use std::time::Duration;
use std::time::Instant;

/// The moments at which one thread should send.
#[derive(Debug)]
pub(super) enum Pace {
    /// Whenever a client is free.
    Closed,
    /// At these moments, whether or not a client is free.
    Open {
        /// The first one.
        from: Instant,
        /// Seconds between two.
        interval: f64,
        /// Those that were taken.
        n_taken: u64,
    },
}

impl Pace {
    /// `rate` per second from `from` on, or as clients get free.
    pub(super) fn new(rate: Option<f64>, from: Instant) -> Self {
        match rate {
            None => Self::Closed,
            Some(rate) => Self::Open { from, interval: 1.0 / rate, n_taken: 0 },
        }
    }

    /// The moment from which the next request counts, if it is due at `now` and was due before `until`.
    pub(super) fn take(&mut self, now: Instant, until: Instant) -> Option<Instant> {
        let due = self.next(now);
        if due > now || due >= until {
            return None;
        }
        if let Self::Open { n_taken, .. } = self {
            *n_taken += 1;
        }
        Some(due)
    }

    /// When the next request is due; `now` or earlier if it already is.
    pub(super) fn next(&self, now: Instant) -> Instant {
        match self {
            Self::Closed => now,
            #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
            Self::Open { from, interval, n_taken } => {
                *from + Duration::from_secs_f64(*n_taken as f64 * interval)
            }
        }
    }

    /// How many were due before `until` and never taken.
    pub(super) fn n_missed(&mut self, until: Instant) -> u64 {
        let mut n = 0;
        while matches!(self, Self::Open { .. }) && self.take(until, until).is_some() {
            n += 1;
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::clock;

    #[test]
    fn a_stall_is_charged_to_all_requests_that_were_due_meanwhile() {
        let from = clock::now();
        let at = |ms| from + Duration::from_millis(ms);
        let until = at(1_000);
        let mut pace = Pace::new(Some(100.0), from);
        assert_eq!(pace.take(at(0), until), Some(at(0)));
        assert_eq!(pace.take(at(5), until), None);
        assert_eq!(pace.next(at(5)), at(10));
        // Nothing was sent up to 35 ms: three are due, each from its own moment on.
        let due: Vec<_> = std::iter::from_fn(|| pace.take(at(35), until)).collect();
        assert_eq!(due, [at(10), at(20), at(30)]);
        let rest = std::iter::from_fn(|| pace.take(at(995), until)).count();
        assert_eq!(rest, 96);
        assert_eq!(pace.take(at(2_000), until), None);
    }

    #[test]
    fn what_was_never_sent_is_counted() {
        let from = clock::now();
        let until = from + Duration::from_secs(1);
        let mut pace = Pace::new(Some(50.0), from);
        for _ in 0..20 {
            pace.take(until, until);
        }
        assert_eq!(pace.n_missed(until), 30);
        assert_eq!(Pace::new(None, from).n_missed(until), 0);
    }

    #[test]
    fn a_closed_loop_is_always_due() {
        let from = clock::now();
        let until = from + Duration::from_secs(1);
        let mut pace = Pace::new(None, from);
        for ms in [0, 3, 3] {
            let now = from + Duration::from_millis(ms);
            assert_eq!(pace.take(now, until), Some(now));
        }
        assert_eq!(pace.take(until, until), None);
    }
}
