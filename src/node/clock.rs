//! Where time enters: the cores' monotonic clock, and the time of day.

use std::time::Duration;
use std::time::SystemTime;

use crate::types::Instant;
use crate::types::Timestamp;

/// Counts from the moment the node started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: std::time::Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the driver is where time enters")]
    pub(super) fn start() -> Self {
        Self { started: std::time::Instant::now() }
    }

    pub(super) fn started(self) -> std::time::Instant {
        self.started
    }

    pub(super) fn now(self) -> Instant {
        Instant::from_start(self.started.elapsed())
    }

    /// A moment of this clock, as shells count time.
    pub(super) fn moment(self, at: Instant) -> std::time::Instant {
        self.started + at.since(Instant::START)
    }

    #[expect(clippy::disallowed_methods, reason = "the driver is where time enters")]
    pub(super) fn wall() -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.unwrap_or(Duration::ZERO).as_millis();
        Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}
