//! What the replies of a core hold in memory until they are sent, and the bounds on the sum of that (decision 0015).
//!
//! | of | counted | past the bound |
//! |---|---|---|
//! | reads | the text of a reply, from when it is written | refused: 503 `overloaded` |
//! | writes that may give much | what the largest result takes, from before they are proposed; then what it is | they wait for one another, before they are proposed; refused if what keeps them are replies that nobody takes |
//!
//! A write that happened is always answered: what it could give was set aside before. Of what is held and set aside, a
//! namespace may have as much as it leaves to the others: one alone a half of the bound. Who waits stands in the line of
//! its namespace.
//!
//! Small replies are not counted: there are as many as connections. Nor are results in files, which have bounds of
//! their own (`disk::spool`).
//!
//! Invariants
//! - What writes hold and what is set aside for them stays below the bound together, with room for one at least.
//! - Who waits is woken by the end of a write, and as long as anybody waits there is one to come: with none under way the
//!   first of each line goes, or is refused.

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

/// Results without rows that a reply may have and not be counted: the text of one has some fifty bytes.
const RESULTS_SMALL_MAX: u32 = 256;
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

    fn own(&self, namespace: &Namespace) -> u64 {
        self.own.borrow().get(namespace).map_or(0, |it| it.load(Ordering::Relaxed))
    }

    /// Whether `namespace` may hold `bytes` more of `bound` and leave as much.
    fn has_room(&self, namespace: &Namespace, bytes: u64, bound: u64) -> bool {
        self.own(namespace) + bytes <= bound.saturating_sub(self.taken())
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
    aside: Account,
    /// Who waits for that, by namespace: by number, the first to come first. No line is empty.
    waiting: RefCell<BTreeMap<Namespace, Line>>,
    n_waiting: Cell<usize>,
    next: Cell<u64>,
}

type Line = VecDeque<(u64, Option<Waker>)>;

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
            aside: Account::default(),
            waiting: RefCell::default(),
            n_waiting: Cell::default(),
            next: Cell::default(),
        })
    }

    /// Before `draft` is proposed for `namespace`: set aside what it may give. May wait for as long as others take.
    pub(super) async fn reserve(
        self: &Rc<Self>,
        namespace: &Namespace,
        draft: &Draft,
    ) -> Result<Option<Reserved>, SubmitError> {
        if !may_give_much(draft) {
            return Ok(None);
        }
        let place = self.stand(namespace)?;
        poll_fn(|cx| self.poll_reserve(cx, &place)).await?;
        let hold = self.aside.hold(namespace, self.bounds.result);
        drop(place);
        Ok(Some(Reserved { hold: Some(hold), of: Rc::clone(self) }))
    }

    /// A place at the end of the line.
    fn stand<'a>(&'a self, namespace: &'a Namespace) -> Result<Place<'a>, SubmitError> {
        if self.n_waiting.get() >= limits::PARKED_MAX {
            return Err(SubmitError::Overloaded);
        }
        let number = self.next.get();
        self.next.set(number + 1);
        self.n_waiting.set(self.n_waiting.get() + 1);
        self.waiting.borrow_mut().entry(namespace.clone()).or_default().push_back((number, None));
        Ok(Place { of: self, namespace, number })
    }

    fn poll_reserve(&self, cx: &Context<'_>, place: &Place<'_>) -> Poll<Result<(), SubmitError>> {
        let Bounds { writes, result, .. } = self.bounds;
        let Place { namespace, number, .. } = *place;
        if !self.writes.has_room(namespace, result, writes) {
            return Poll::Ready(Err(SubmitError::Overloaded));
        }
        let mut waiting = self.waiting.borrow_mut();
        let line = waiting.get_mut(namespace).expect("who waits stands in a line");
        let is_first = line.front().is_some_and(|(it, _)| *it == number);
        let own = self.writes.own(namespace) + self.aside.own(namespace);
        let left = writes.saturating_sub(self.writes.taken() + self.aside.taken());
        if is_first && own + result <= left {
            return Poll::Ready(Ok(()));
        }
        let own = line.iter_mut().find(|(it, _)| *it == number).expect("who waits has a place");
        own.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Wake the first of each line.
    fn wake(&self) {
        for line in self.waiting.borrow().values() {
            if let Some((_, Some(waker))) = line.front() {
                waker.wake_by_ref();
            }
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
    namespace: &'a Namespace,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.of.waiting.borrow_mut();
        if let Some(line) = waiting.get_mut(self.namespace) {
            line.retain(|(it, _)| *it != self.number);
            if line.is_empty() {
                waiting.remove(self.namespace);
            }
        }
        drop(waiting);
        self.of.n_waiting.set(self.of.n_waiting.get() - 1);
        self.of.wake();
    }
}

/// Set aside for a write, until its reply is on the account.
#[derive(Debug)]
pub(super) struct Reserved {
    /// None only while it is dropped.
    hold: Option<Hold>,
    of: Rc<Holdings>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        drop(self.hold.take());
        self.of.wake();
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

/// Whether a write may give more than a few bytes for each statement, or has many that all are answered. Told from its
/// words; it is wrong about few, and only by saying yes.
fn may_give_much(draft: &Draft) -> bool {
    if draft.n_results() > RESULTS_SMALL_MAX {
        return true;
    }
    // Most are the same text, again and again.
    let mut last = "";
    draft.statements().flatten().any(|it| {
        let is_known = std::mem::replace(&mut last, it.sql) == it.sql;
        it.mode == Mode::Query || (!is_known && gives_rows(it.sql))
    })
}

fn gives_rows(sql: &str) -> bool {
    const SILENT: [&str; 7] = ["INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER"];
    let word = sql.trim_start().split(|it: char| !it.is_ascii_alphabetic()).next();
    let is_silent = word.is_some_and(|it| SILENT.iter().any(|own| own.eq_ignore_ascii_case(it)));
    !is_silent
        || sql.trim_end().trim_end_matches(';').contains(';')
        || has_word(sql.as_bytes(), b"RETURNING")
}

/// Whether `word`, which is in capitals, stands in `text` in whatever case.
fn has_word(text: &[u8], word: &[u8]) -> bool {
    let first = word[0];
    memchr::memchr2_iter(first, first.to_ascii_lowercase(), text)
        .any(|at| text.get(at..at + word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;
    use crate::wire::command::Results;

    const BOUNDS: Bounds = Bounds { reads: 1_000, writes: 1_900, result: 400, least: 10 };

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
        assert!(holdings.waiting.borrow().is_empty() && holdings.n_waiting.get() == 0);
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
}
