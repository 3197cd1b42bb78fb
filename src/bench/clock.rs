//! Where time enters: the monotonic clock of the machine that measures.

use std::time::Instant;

/// This moment.
#[expect(clippy::disallowed_methods, reason = "measuring is what this module is for")]
pub(super) fn now() -> Instant {
    Instant::now()
}
