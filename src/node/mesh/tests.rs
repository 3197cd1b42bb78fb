//! Whose answers are handed out first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Wake;

use super::*;
use crate::types::Incarnation;

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn database(n: u64) -> Who {
    Who::Database(DatabaseId { partition: PartitionId(1), incarnation: Incarnation(n) })
}

type Asked<'a> = Pin<Box<dyn Future<Output = Result<Back, SubmitError>> + 'a>>;

/// A request of `who` that waits for its answer, and whether it has been woken.
fn ask<'a>(mesh: &'a Mesh, who: Who) -> (Asked<'a>, Arc<Flag>) {
    let mut asked: Asked<'a> = Box::pin(mesh.ask(mesh.me, who, |token| Mail::AskStatus { token }));
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    assert!(asked.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    (asked, flag)
}

#[test]
fn a_quiet_database_has_its_answer_before_the_rest_of_a_busy_one() {
    let (mailbox, _letters) = flume::unbounded();
    let clock = Clock::start();
    let mesh = Mesh::new(ShardId(0), vec![mailbox], Catalog::default(), 1, clock, None);
    let n_woken = |all: &[(Asked<'_>, Arc<Flag>)]| {
        all.iter().filter(|(_, it)| it.0.load(Ordering::Relaxed)).count()
    };
    let answer_all = |from: u64, to: u64| {
        (from..to).for_each(|it| mesh.reply(Token(it), Back::Status(Status::default())));
    };
    // Alone, it has all of them at once.
    let alone: Vec<_> = (0..500).map(|_| ask(&mesh, database(1))).collect();
    answer_all(0, 500);
    assert!(mesh.has_answers());
    mesh.wake_some();
    assert_eq!(n_woken(&alone), 500);
    assert!(!mesh.has_answers());
    drop(alone);
    // Among others, each has its turn.
    let busy: Vec<_> = (0..500).map(|_| ask(&mesh, database(1))).collect();
    let quiet = vec![ask(&mesh, database(2))];
    answer_all(500, 1_001);
    mesh.is_awake.set(false);
    mesh.wake_some();
    assert_eq!((n_woken(&busy), n_woken(&quiet)), (WOKEN_AT_ONCE - 1, 1));
    assert!(mesh.is_awake.get() && mesh.has_answers(), "another turn follows");
    mesh.wake_some();
    assert_eq!(n_woken(&busy), 500, "it is alone again");
    assert!(!mesh.has_answers());
}
