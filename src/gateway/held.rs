//! What the replies of a core hold in memory until they are sent, and the bounds on the sum of that (decision 0015).
//!
//! | of | counted | past the bound |
//! |---|---|---|
//! | reads | the text of a reply, from when it is written | refused: 503 `overloaded` |
//! | writes that may give rows | what the largest result takes, from before they are proposed; then what it is | they wait for one another, before they are proposed; refused if what keeps them are replies that nobody takes |
//!
//! A write that happened is always answered: what it could give was set aside before. Of what is held, a namespace may
//! have as much as it leaves to the others: one alone a half of the bound.
//!
//! Small replies are not counted: there are as many as connections. Nor are results in files, which have bounds of
//! their own (`disk::spool`).
//!
//! Invariants
//! - What writes hold and what is set aside for them stays below the bound together, with room for one at least.
//! - Who waits is woken by the end of a write, and as long as anybody waits there is one to come.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use bytes::Bytes;

use crate::http::body::Content;
use crate::http::body::Pieces;
use crate::limits;
use crate::shard::request::SubmitError;
use crate::types::Namespace;
use crate::wire::command::Mode;
use crate::wire::command::draft::Draft;
use crate::wire::rows::StatementResult;

/// Accounts with nothing on them that are kept before they are looked through.
const IDLE_MAX: usize = 64;

/// Bounds on what a core's replies hold, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// All replies to reads.
    pub(super) reads: u64,
    /// All results of writes, with what is set aside.
    pub(super) writes: u64,
    /// The result of one write, and its text.
    pub(super) result: u64,
    /// A reply that is counted.
    pub(super) least: usize,
}

impl Bounds {
    /// Where a command's results have `result_bytes` at most.
    pub(super) fn new(result_bytes: u64) -> Self {
        // A result that is not large is written at once: as objects and as arrays, with six bytes for one at worst.
        let text = (limits::RESULT_HELD_SIZE_MAX * 12) as u64;
        let writes = limits::RETURNED_BYTES_MAX;
        Self {
            reads: limits::REPLIES_HELD_BYTES_MAX,
            writes,
            result: result_bytes.max(text).min(writes / 2),
            least: limits::REPLY_COUNTED_SIZE,
        }
    }
}

/// Bytes that are held: of all, and of each namespace that holds some. The last owner of a reply gives them back,
/// wherever that is.
#[derive(Debug, Default)]
struct Account {
    all: Arc<AtomicU64>,
    own: RefCell<BTreeMap<Namespace, Arc<AtomicU64>>>,
}

impl Account {
    fn taken(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// Whether `namespace` may hold `bytes` more of `bound` and leave as much.
    fn has_room(&self, namespace: &Namespace, bytes: u64, bound: u64) -> bool {
        let own = self.own.borrow();
        let own = own.get(namespace).map_or(0, |it| it.load(Ordering::Relaxed));
        own + bytes <= bound.saturating_sub(self.taken())
    }

    fn hold(&self, namespace: &Namespace, bytes: u64) -> Hold {
        let mut accounts = self.own.borrow_mut();
        if accounts.len() > IDLE_MAX && !accounts.contains_key(namespace) {
            accounts.retain(|_, it| it.load(Ordering::Relaxed) > 0);
        }
        let own = Arc::clone(accounts.entry(namespace.clone()).or_default());
        let accounts = [Arc::clone(&self.all), own];
        for it in &accounts {
            it.fetch_add(bytes, Ordering::Relaxed);
        }
        Hold { accounts, bytes }
    }
}

/// Bytes of results that are in memory.
pub(super) fn size_of(results: &[StatementResult]) -> u64 {
    let rows = results.iter().filter_map(|it| match it {
        StatementResult::Rows(rows) => Some(rows),
        StatementResult::Counts { returned, .. } => returned.as_ref(),
    });
    rows.filter_map(|it| it.values.held()).map(|it| it.len() as u64).sum()
}

/// Bytes on two accounts, until this is dropped.
#[derive(Debug)]
struct Hold {
    accounts: [Arc<AtomicU64>; 2],
    bytes: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        for it in &self.accounts {
            it.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// What the replies of one core hold.
#[derive(Debug)]
pub(super) struct Holdings {
    bounds: Bounds,
    reads: Account,
    writes: Account,
    /// Set aside for writes that are under way.
    reserved: Cell<u64>,
    /// Who waits for that, by number, the first to come first.
    waiting: RefCell<VecDeque<(u64, Option<Waker>)>>,
    next: Cell<u64>,
}

/// What a reply is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Read,
    Write,
}

impl Holdings {
    pub(super) fn new(bounds: Bounds) -> Rc<Self> {
        assert!(bounds.result <= bounds.writes / 2, "one fits, whoever has the rest");
        Rc::new(Self {
            bounds,
            reads: Account::default(),
            writes: Account::default(),
            reserved: Cell::default(),
            waiting: RefCell::default(),
            next: Cell::default(),
        })
    }

    /// Before `draft` is proposed for `namespace`: set aside what it may give.
    pub(super) async fn reserve(
        self: &Rc<Self>,
        namespace: &Namespace,
        draft: &Draft,
    ) -> Result<Option<Reserved>, SubmitError> {
        if !may_give_rows(draft) {
            return Ok(None);
        }
        if self.waiting.borrow().len() >= limits::PARKED_MAX {
            return Err(SubmitError::Overloaded);
        }
        let number = self.next.get();
        self.next.set(number + 1);
        self.waiting.borrow_mut().push_back((number, None));
        let place = Place { of: self, number };
        poll_fn(|cx| place.of.poll_reserve(cx, number, namespace)).await?;
        drop(place);
        self.reserved.set(self.reserved.get() + self.bounds.result);
        self.wake_first();
        Ok(Some(Reserved(Rc::clone(self))))
    }

    fn poll_reserve(
        &self,
        cx: &Context<'_>,
        number: u64,
        namespace: &Namespace,
    ) -> Poll<Result<(), SubmitError>> {
        let Bounds { writes, result, .. } = self.bounds;
        if !self.writes.has_room(namespace, result, writes) {
            return Poll::Ready(Err(SubmitError::Overloaded));
        }
        let mut waiting = self.waiting.borrow_mut();
        let is_first = waiting.front().is_some_and(|(it, _)| *it == number);
        if is_first && self.writes.taken() + self.reserved.get() + result <= writes {
            return Poll::Ready(Ok(()));
        }
        let own = waiting.iter_mut().find(|(it, _)| *it == number).expect("who waits has a place");
        own.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn wake_first(&self) {
        if let Some((_, Some(waker))) = self.waiting.borrow().front() {
            waker.wake_by_ref();
        }
    }

    /// Count a reply with `held` bytes of results besides its text, until it is sent. One to a read is refused
    /// if there is no room for it.
    pub(super) fn keep(
        &self,
        content: Content,
        held: u64,
        to: To,
        namespace: &Namespace,
    ) -> Result<Content, SubmitError> {
        let size = content.size().map_or(held, |it| it as u64);
        if size < self.bounds.least as u64 {
            return Ok(content);
        }
        let account = match to {
            To::Read if !self.reads.has_room(namespace, size, self.bounds.reads) => {
                return Err(SubmitError::Overloaded);
            }
            To::Read => &self.reads,
            To::Write => &self.writes,
        };
        let kept = account.hold(namespace, size);
        Ok(match content {
            Content::Whole(text) => Content::Whole(Bytes::from_owner(Text { text, _hold: kept })),
            Content::Pieces(pieces) => Content::Pieces(Box::new(Counted { pieces, _hold: kept })),
        })
    }
}

/// A place in the line of those who wait; given up with the request.
struct Place<'a> {
    of: &'a Holdings,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.waiting.borrow_mut().retain(|(it, _)| *it != self.number);
        self.of.wake_first();
    }
}

/// Set aside for a write, until its reply is on the account.
#[derive(Debug)]
pub(super) struct Reserved(Rc<Holdings>);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.reserved.set(self.0.reserved.get() - self.0.bounds.result);
        self.0.wake_first();
    }
}

/// A text that is counted while anybody has it.
struct Text {
    text: Bytes,
    _hold: Hold,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// Pieces whose results are counted until the last is made.
#[derive(Debug)]
struct Counted {
    pieces: Box<dyn Pieces>,
    _hold: Hold,
}

impl Pieces for Counted {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Bytes>>> {
        self.pieces.poll_piece(cx)
    }
}

/// Whether a write may give rows back. Told from its words: it is wrong about few, and only by saying yes.
fn may_give_rows(draft: &Draft) -> bool {
    draft.statements().any(|it| it.is_ok_and(|it| it.mode == Mode::Query || gives_rows(it.sql)))
}

fn gives_rows(sql: &str) -> bool {
    const SILENT: [&str; 7] = ["INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER"];
    let word = sql.trim_start().split(|it: char| !it.is_ascii_alphabetic()).next();
    let is_silent = word.is_some_and(|it| SILENT.iter().any(|own| own.eq_ignore_ascii_case(it)));
    let returning = b"RETURNING";
    !is_silent
        || sql.contains(';')
        || sql.as_bytes().windows(returning.len()).any(|it| it.eq_ignore_ascii_case(returning))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;
    use crate::wire::command::Results;

    const BOUNDS: Bounds = Bounds { reads: 1_000, writes: 1_000, result: 400, least: 10 };

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
        let holdings = Holdings::new(BOUNDS);
        let (a, insert) = (namespace("a"), draft("INSERT INTO t VALUES (1) RETURNING a"));
        let first = now(holdings.reserve(&a, &insert)).unwrap().unwrap();
        let second = now(holdings.reserve(&a, &insert)).unwrap().unwrap();
        assert!(first.is_some() && second.is_some());
        let silent = draft("INSERT INTO t VALUES (1)");
        assert!(now(holdings.reserve(&a, &silent)).unwrap().unwrap().is_none());
        // Two are under way; who gives up its place leaves it to the next.
        let cx = &mut Context::from_waker(Waker::noop());
        let mut third = Box::pin(holdings.reserve(&a, &insert));
        let mut fourth = Box::pin(holdings.reserve(&a, &insert));
        assert!(third.as_mut().poll(cx).is_pending());
        assert!(fourth.as_mut().poll(cx).is_pending());
        let kept = holdings.keep(text(300), 0, To::Write, &a).unwrap();
        drop(first);
        // In line, and not before it is its turn.
        assert!(fourth.as_mut().poll(cx).is_pending());
        drop(third);
        assert!(fourth.as_mut().poll(cx).is_pending(), "300 held, 400 set aside");
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
        assert_eq!((holdings.reserved.get(), holdings.writes.taken()), (0, 0));
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
        ] {
            assert_eq!(may_give_rows(&draft(sql)), want, "{sql}");
        }
    }

    #[test]
    fn the_largest_result_fits_whatever_the_configuration_says() {
        for result_bytes in [0, 32 << 20, u64::MAX] {
            let bounds = Bounds::new(result_bytes);
            assert!(bounds.result <= bounds.writes / 2 && bounds.result >= 3 << 20);
        }
    }
}
