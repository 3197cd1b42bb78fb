//! What is counted, who waits, and who is refused.

use std::pin::pin;
use std::task::Waker;

use super::*;
use crate::http::testing::on_executor;
use crate::wire::command::RequestKey;
use crate::wire::command::Results;

const BOUNDS: Bounds = Bounds {
    reads: 1_000,
    writes: 1_900,
    result: 400,
    keyed: 100,
    least: 10,
    wait: Duration::from_millis(30),
};

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

fn draft(sql: &str) -> Draft {
    let mut draft = Draft::new(Results::Last, 0);
    draft.statement(Mode::Exec, sql).unwrap();
    draft
}

fn text(size: usize) -> Content {
    Content::Whole(vec![b'x'; size].into())
}

fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(it) => Some(it),
        Poll::Pending => None,
    }
}

#[test]
fn replies_to_reads_are_refused_past_their_sum_and_leave_as_much_to_others() {
    let holdings = Holdings::new(BOUNDS);
    let keep = |name, size| holdings.keep(text(size), 0, To::Read, &namespace(name));
    let first = keep("a", 500).unwrap();
    assert_eq!(keep("a", 10).unwrap_err(), SubmitError::Overloaded);
    let second = keep("b", 250).unwrap();
    keep("a", 9).unwrap(); // too small to be counted
    drop(first);
    let third = keep("a", 300).unwrap();
    assert_eq!(holdings.reads.taken(), 550);
    drop((second, third));
    assert_eq!(holdings.reads.taken(), 0);
}

#[test]
fn what_is_left_of_a_text_counts_until_the_last_of_it_is_sent() {
    let holdings = Holdings::new(BOUNDS);
    let kept = holdings.keep(text(100), 0, To::Read, &namespace("a")).unwrap();
    let Content::Whole(mut bytes) = kept else { unreachable!() };
    drop(bytes.split_to(60));
    assert_eq!(holdings.reads.taken(), 100);
    drop(bytes);
    assert_eq!(holdings.reads.taken(), 0);
}

#[test]
fn writes_that_may_give_rows_wait_for_one_another_and_are_answered_whatever_they_give() {
    // There is a timer for who waits.
    on_executor(async {
        let bounds = Bounds { wait: Duration::from_mins(1), ..BOUNDS };
        let holdings = Holdings::new(bounds);
        let (a, insert) = (namespace("a"), draft("INSERT INTO t VALUES (1) RETURNING a"));
        let first = now(holdings.reserve(&a, &insert)).unwrap().unwrap();
        let second = now(holdings.reserve(&a, &insert)).unwrap().unwrap();
        assert!(first.is_some() && second.is_some());
        let silent = draft("INSERT INTO t VALUES (1)");
        assert!(now(holdings.reserve(&a, &silent)).unwrap().unwrap().is_none());
        // Two are under way, which is what one may have; who gives up its place leaves it to the next.
        let cx = &mut Context::from_waker(Waker::noop());
        let mut third = Box::pin(holdings.reserve(&a, &insert));
        let mut fourth = Box::pin(holdings.reserve(&a, &insert));
        assert!(third.as_mut().poll(cx).is_pending());
        assert!(fourth.as_mut().poll(cx).is_pending());
        // Another's does not stand behind them.
        let b = namespace("b");
        let other = now(holdings.reserve(&b, &insert)).unwrap().unwrap();
        assert!(other.is_some());
        drop(other);
        let kept = holdings.keep(text(500), 0, To::Write, &a).unwrap();
        drop(first);
        // In line, and not before it is its turn.
        assert!(fourth.as_mut().poll(cx).is_pending());
        drop(third);
        assert!(fourth.as_mut().poll(cx).is_pending(), "500 held, 400 set aside");
        drop(second);
        assert!(fourth.as_mut().poll(cx).is_ready());
        // A reply that nobody takes is not waited for.
        let more = holdings.keep(text(400), 0, To::Write, &a).unwrap();
        assert_eq!(
            now(holdings.reserve(&a, &insert)).unwrap().unwrap_err(),
            SubmitError::Overloaded
        );
        drop((kept, more));
        assert!(now(holdings.reserve(&a, &insert)).unwrap().unwrap().is_some());
        assert_eq!((holdings.aside.taken(), holdings.writes.taken()), (0, 0));
        assert!(holdings.waiting.is_empty());
    });
}

#[test]
fn who_waits_does_so_for_a_while_and_one_with_a_key_needs_less_room() {
    on_executor(async {
        let holdings = Holdings::new(BOUNDS);
        let (a, insert) = (namespace("a"), draft("INSERT INTO t VALUES (1) RETURNING a"));
        let first = holdings.reserve(&a, &insert).await.unwrap();
        let second = holdings.reserve(&a, &insert).await.unwrap();
        // The rest stand in one line, and the second of them is not forgotten when the first has gone.
        let began = sleep::now();
        let third = glommio::spawn_local({
            let (holdings, a) = (Rc::clone(&holdings), a.clone());
            async move {
                let insert = draft("INSERT INTO t VALUES (1) RETURNING a");
                holdings.reserve(&a, &insert).await.map(drop)
            }
        });
        let fourth = holdings.reserve(&a, &insert).await.map(drop);
        assert_eq!(fourth, Err(SubmitError::Overloaded));
        assert_eq!(third.await, Err(SubmitError::Overloaded));
        assert!(sleep::now() - began >= BOUNDS.wait);
        let mut keyed = draft("INSERT INTO t VALUES (1) RETURNING a");
        keyed.key(RequestKey::new(b"once", [0; 16]).unwrap()).unwrap();
        assert!(holdings.reserve(&a, &keyed).await.unwrap().is_some());
        drop((first, second));
        assert!(holdings.reserve(&a, &insert).await.unwrap().is_some());
        assert!(holdings.waiting.is_empty());
    });
}

#[test]
fn who_may_give_rows_is_told_from_the_words() {
    for (sql, want) in [
        ("INSERT INTO t VALUES (1)", false),
        ("  update t set a = 1", false),
        ("insert into t values (1) Returning *", true),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", true),
        ("SELECT 1", true),
        ("DELETE FROM t; SELECT 1", true),
        ("-- \nDELETE FROM t", true),
        ("CREATE TABLE t (a)", false),
        ("DELETE FROM t; ", false),
    ] {
        assert_eq!(may_give_much(&draft(sql)), want, "{sql}");
    }
}

#[test]
fn the_largest_result_fits_whatever_the_configuration_says() {
    for result_bytes in [0, 32 << 20, u64::MAX] {
        let bounds = Bounds::new(result_bytes);
        assert!(bounds.result <= bounds.writes / 2 && bounds.result >= 3 << 20);
    }
}
