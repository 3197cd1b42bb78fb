//! A core's signal to stop: raised once, seen by everybody who waits.

use std::cell::Cell;
use std::cell::RefCell;
use std::future;
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;
use std::task::Waker;

/// Shared by everything on one core that has to end in order.
#[derive(Debug, Default)]
pub struct Shutdown {
    begun: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Shutdown {
    /// A signal that is not raised yet.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Raise it. Raising it again changes nothing.
    pub fn begin(&self) {
        self.begun.set(true);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether it is raised.
    pub fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Resolves once it is raised. Wait in few, long-lived tasks: each is remembered until then.
    pub fn wait(&self) -> impl Future<Output = ()> {
        future::poll_fn(|cx| {
            if self.begun.get() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|it| it.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::FutureExt;
    use futures_lite::future::block_on;
    use futures_lite::future::poll_once;

    use super::*;

    #[test]
    fn everybody_who_waits_sees_it() {
        block_on(async {
            let shutdown = Shutdown::new();
            let mut first = shutdown.wait().boxed_local();
            assert_eq!(poll_once(&mut first).await, None);
            shutdown.begin();
            first.await;
            shutdown.wait().await;
        });
    }
}
