//! The time of requests, from readings of the clock that many share.
//!
//! To read the clock takes 50 ns on a busy machine, and requests come in bunches: those that come in between two
//! turns of their core's loop take the time of the first of them, those that a turn answers the time at
//! which it ended. What no turn answers, and what is large to write down, reads the clock itself.

use std::cell::Cell;
use std::time::Duration;
use std::time::Instant;

use crate::http::sleep;

/// Readings of one core's clock.
#[derive(Debug, Default)]
pub struct Stamps {
    /// When the first request since the last turn, or the last reply, began.
    began: Cell<Option<Instant>>,
    /// When the last turn ended, or mail from another core was read.
    turned: Cell<Option<Instant>>,
}

impl Stamps {
    /// A request begins.
    pub fn begin(&self) -> Instant {
        self.began.get().unwrap_or_else(|| {
            let now = sleep::now();
            self.began.set(Some(now));
            now
        })
    }

    /// A turn begins: what comes after it has another time.
    pub fn on_turn(&self) {
        self.began.set(None);
    }

    /// Whoever waited for this core's loop, or for another core, is answered now.
    pub fn on_answers(&self, now: Instant) {
        self.turned.set(Some(now));
    }

    /// How long a request took that began at `began`, and is replied to because of a turn, if `by_turn`.
    pub fn took(&self, began: Instant, by_turn: bool) -> Duration {
        self.began.set(None);
        let ended = self.turned.get().filter(|it| by_turn && *it >= began);
        ended.unwrap_or_else(sleep::now) - began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_between_two_turns_share_a_reading() {
        let stamps = Stamps::default();
        let first = stamps.begin();
        assert_eq!(stamps.begin(), first);
        stamps.on_turn();
        let ended = sleep::now() + Duration::from_secs(3);
        stamps.on_answers(ended);
        assert_eq!(stamps.took(first, true), ended - first);
        assert!(stamps.took(first, false) < Duration::from_secs(3), "it read the clock itself");
        assert!(stamps.begin() > first);
    }

    #[test]
    fn a_turn_that_ended_before_is_not_what_answered() {
        let stamps = Stamps::default();
        let began = sleep::now();
        stamps.on_answers(began);
        let later = began + Duration::from_nanos(1);
        while sleep::now() < later {}
        assert!(stamps.took(later, true) < Duration::from_secs(9), "it read the clock itself");
        assert_eq!(stamps.took(began, true), Duration::ZERO);
    }
}
