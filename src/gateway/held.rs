//! What the replies of a core hold in memory until they are sent, and the bounds on the sum of that (decision 0015).
//!
//! | of | counted | past the bound |
//! |---|---|---|
//! | reads | the text of a reply, from when it is written | refused: 503 `overloaded` |
//! | writes that may give much | what the largest result takes, from before they are proposed; then what it is | they wait for one another, before they are proposed; refused if what keeps them are replies that nobody takes |
//!
//! A write that happened is always answered: what it could give was set aside before. Of what is held and set aside, a
//! namespace may have as much as it leaves to the others: one alone a half of the bound. Who waits stands in the line of
//! its namespace ([`waiting`]), for [`limits::RETURNED_WAIT_MAX`] at most.
//!
//! Small replies are not counted: there are as many as connections. Nor are results in files, which have bounds of
//! their own (`disk::spool`).
//!
//! Invariants
//! - What writes hold and what is set aside for them stays below the bound together, with room for one of a namespace that
//!   has nothing, as long as one other has the rest.
//! - Who waits is woken by the end of a write, and as long as anybody waits there is one to come: with none under way the
//!   first of each line goes, or is refused. (That a reply has been sent, perhaps from another core, wakes nobody: it counts
//!   with the next end of a write.)

mod waiting;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;

use crate::gateway::held::waiting::Room;
use crate::gateway::held::waiting::Waiting;
use crate::http::body::Content;
use crate::http::body::Pieces;
use crate::http::sleep;
use crate::http::sleep::Sleep;
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
    /// The same of a request with a key, whose outcome is kept, and is smaller.
    pub(super) keyed: u64,
    /// A reply that is counted.
    pub(super) least: usize,
    /// How long somebody waits.
    pub(super) wait: Duration,
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
            keyed: text.min(writes / 2),
            least: limits::REPLY_COUNTED_SIZE,
            wait: limits::RETURNED_WAIT_MAX,
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
    /// Who waits for that.
    waiting: Waiting,
}

/// What a reply is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Read,
    Write,
}

impl Holdings {
    pub(super) fn new(bounds: Bounds) -> Rc<Self> {
        assert!(bounds.keyed <= bounds.result, "a part of it");
        assert!(bounds.result <= bounds.writes / 2, "one fits, if one other has the rest");
        Rc::new(Self {
            bounds,
            reads: Account::default(),
            writes: Account::default(),
            aside: Account::default(),
            waiting: Waiting::default(),
        })
    }

    /// Before `draft` is proposed for `namespace`: set aside what it may give. May wait for as long as others take, but
    /// not for longer than [`limits::RETURNED_WAIT_MAX`].
    pub(super) async fn reserve(
        self: &Rc<Self>,
        namespace: &Namespace,
        draft: &Draft,
    ) -> Result<Option<Reserved>, SubmitError> {
        if !may_give_much(draft) {
            return Ok(None);
        }
        let bytes = if draft.has_key() { self.bounds.keyed } else { self.bounds.result };
        let number = self.waiting.stand(namespace, bytes).ok_or(SubmitError::Overloaded)?;
        let place = Place { of: self, namespace, number };
        let mut deadline = Deadline::default();
        poll_fn(|cx| self.poll_reserve(cx, &place, &mut deadline)).await?;
        let hold = self.aside.hold(namespace, bytes);
        drop(place);
        Ok(Some(Reserved { hold: Some(hold), of: Rc::clone(self) }))
    }

    fn poll_reserve(
        &self,
        cx: &mut Context<'_>,
        place: &Place<'_>,
        deadline: &mut Deadline,
    ) -> Poll<Result<(), SubmitError>> {
        let Place { namespace, number, .. } = *place;
        match self.waiting.look(namespace, number, |it, bytes| self.room(it, bytes)) {
            Room::Enough => return Poll::Ready(Ok(())),
            Room::None => return Poll::Ready(Err(SubmitError::Overloaded)),
            Room::Later => {}
        }
        if deadline.has_passed(cx, self.bounds.wait, self.waiting.is_oldest(number)) {
            return Poll::Ready(Err(SubmitError::Overloaded));
        }
        self.waiting.wait(namespace, number, cx);
        Poll::Pending
    }

    /// What there is for `bytes` more that `namespace` gets back from a write.
    fn room(&self, namespace: &Namespace, bytes: u64) -> Room {
        if !self.writes.has_room(namespace, bytes, self.bounds.writes) {
            return Room::None;
        }
        let own = self.writes.own(namespace) + self.aside.own(namespace);
        let taken = self.writes.taken() + self.aside.taken();
        let is_enough = own + bytes <= self.bounds.writes.saturating_sub(taken);
        if is_enough { Room::Enough } else { Room::Later }
    }

    fn wake(&self) {
        self.waiting.wake(|it, bytes| self.room(it, bytes));
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
        self.of.waiting.leave(self.namespace, self.number);
        self.of.wake();
    }
}

/// Until when somebody waits. Of all who do, the one who came first has a timer: it is the first whose time is over.
#[derive(Default)]
struct Deadline {
    at: Option<Instant>,
    timer: Option<Sleep>,
}

impl Deadline {
    fn has_passed(&mut self, cx: &mut Context<'_>, wait: Duration, is_first: bool) -> bool {
        let at = *self.at.get_or_insert_with(|| sleep::now() + wait);
        if !is_first {
            return false;
        }
        Pin::new(self.timer.get_or_insert_with(|| Sleep::until(at))).poll(cx).is_ready()
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
mod tests;
