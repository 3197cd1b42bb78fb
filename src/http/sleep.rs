//! The one timer of the program's shells, and the clock behind it.
//!
//! [`Sleep`] registers with the runtime once, however often it is polled: a glommio `Timer` would leak
//! an entry at each poll. A pending timer is not free, though: glommio looks at every one of them at
//! each turn of its loop. Use one for a shard, a listener or a link, not one per connection or request;
//! the connections of a [`Server`](crate::http::Server) share a single one.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use futures_lite::future;
use glommio::timer::Timer;

/// The runtime counts whole milliseconds and may wake a little early; so near to the end a poll
/// registers again rather than trust the entry that may just have fired.
const WHEEL_STEP: Duration = Duration::from_millis(2);

/// The monotonic clock, for shells.
#[expect(
    clippy::disallowed_methods,
    reason = "shells read the clock here and hand it to the cores"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock in milliseconds since 1970, for texts that people read.
#[expect(clippy::disallowed_methods, reason = "no decision depends on it")]
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |it| i64::try_from(it.as_millis()).unwrap_or(i64::MAX))
}

/// Resolves at its deadline.
#[derive(Debug)]
pub struct Sleep {
    deadline: Instant,
    armed: Option<(Timer, Waker)>,
}

impl Sleep {
    /// Resolve `delay` from now.
    pub fn new(delay: Duration) -> Self {
        Self::until(now() + delay)
    }

    /// Resolve at `deadline`.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline, armed: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.deadline.saturating_duration_since(now());
        if left.is_zero() {
            self.armed = None;
            return Poll::Ready(());
        }
        let is_armed = self.armed.as_ref().is_some_and(|(_, it)| it.will_wake(cx.waker()));
        if is_armed && left > WHEEL_STEP {
            return Poll::Pending;
        }
        // The old entry leaves the wheel before the new one enters.
        self.armed = None;
        #[expect(clippy::disallowed_methods, reason = "polled once per registration, and dropped")]
        let mut timer = Timer::new(left);
        if Pin::new(&mut timer).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.armed = Some((timer, cx.waker().clone()));
        Poll::Pending
    }
}

/// What `work` gives, or nothing if that takes longer than `limit`; the work is dropped then.
pub async fn within<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    let timeout = async {
        Sleep::new(limit).await;
        None
    };
    future::or(async { Some(work.await) }, timeout).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::testing::on_executor;

    #[test]
    fn a_sleep_ends_at_its_deadline_and_not_before() {
        on_executor(async {
            let start = now();
            Sleep::new(Duration::from_millis(20)).await;
            assert!(now() - start >= Duration::from_millis(20));
        });
    }

    #[test]
    fn polling_again_leaves_no_entries_behind() {
        struct Woken;
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {}
        }
        on_executor(async {
            let woken = Arc::new(Woken);
            let waker = Waker::from(Arc::clone(&woken));
            let mut cx = Context::from_waker(&waker);
            let mut sleep = Sleep::new(Duration::from_mins(1));
            for _ in 0..1_000 {
                assert!(Pin::new(&mut sleep).poll(&mut cx).is_pending());
            }
            // Ours, the waker's, the sleep's and the runtime's: each entry holds one.
            assert_eq!(Arc::strong_count(&woken), 4);
        });
    }

    #[test]
    fn work_that_takes_too_long_is_given_up() {
        on_executor(async {
            let limit = Duration::from_millis(5);
            assert_eq!(within(limit, future::pending::<()>()).await, None);
            assert_eq!(within(limit, async { 7 }).await, Some(7));
        });
    }
}
