//! How a request finds the core that serves it, and the reply its way back.
//!
//! Every core has one mailbox, and an outbox for each other core that leaves in one piece at the end of a
//! turn. Cores share nothing else. A mailbox itself is unbounded, but what can be in it is not: requests are
//! counted by the core that sends them, at most [`limits::MESH_DEPTH_MAX`] unanswered ones per core it asks, which
//! databases share ([`Fair`]); replies and catalog changes answer those.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::task::Waker;

use rustc_hash::FxHashMap;

use crate::auth::key::KeyId;
use crate::auth::rate::Rates;
use crate::auth::rate::TooMany;
use crate::catalog::Catalog;
use crate::catalog::Row;
use crate::catalog::State;
use crate::limits;
use crate::node::clock::Clock;
use crate::node::mail::Back;
use crate::node::mail::Mail;
use crate::node::metrics::CoreMetrics;
use crate::shard::event::Answer;
use crate::shard::event::Event;
use crate::shard::event::Token;
use crate::shard::fair::Amount;
use crate::shard::fair::Fair;
use crate::shard::lines::Lines;
use crate::shard::request::Reply;
use crate::shard::request::Request;
use crate::shard::request::Status;
use crate::shard::request::Submit;
use crate::shard::request::SubmitError;
use crate::types::DatabaseId;
use crate::types::Namespace;
use crate::types::PartitionId;
use crate::types::ShardId;
use crate::wire::command::draft::Draft;

/// Where the answer of a waiting request goes.
enum Pending {
    /// A task on this core waits for it.
    Task { asked: ShardId, who: Who, back: Option<Back>, waker: Option<Waker> },
    /// It goes into this core's state machine, about that namespace.
    Creation { asked: ShardId, namespace: Namespace },
}

/// For whom a core is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    /// The node itself, or whoever wants a namespace to exist.
    Node,
    /// A key, whether it may ask.
    Key(KeyId),
    /// A database's clients.
    Database(DatabaseId),
}

/// One core's way to all the others.
pub(super) struct Mesh {
    me: ShardId,
    n_shards: u16,
    n_partitions: u16,
    clock: Clock,
    mailboxes: Vec<flume::Sender<Vec<Mail>>>,
    outboxes: RefCell<Vec<Vec<Mail>>>,
    /// Unanswered requests by the core they were sent to.
    asked: RefCell<Vec<Fair<Who>>>,
    /// Tasks that have their answer, and were not woken yet.
    answered: RefCell<Lines<Who, Waker>>,
    /// Requests per second of the keys whose namespaces are here, if there is a limit.
    rates: Option<RefCell<Rates>>,
    pending: RefCell<FxHashMap<Token, Pending>>,
    next_token: Cell<u64>,
    /// Events for this core's own state machine.
    inbox: RefCell<Vec<Event>>,
    /// The driver, while it sleeps.
    sleeper: RefCell<Option<Waker>>,
    is_awake: Cell<bool>,
    pub(super) catalog: RefCell<Catalog>,
    is_draining: Cell<bool>,
    is_stopping: Cell<bool>,
    /// Requests of clients that another core was asked, so far.
    n_crossed: Cell<u64>,
}

/// Tasks that are woken with their answers in one turn, where several databases' wait. A thousand replies of one would have a
/// quiet one behind them for many milliseconds.
const WOKEN_AT_ONCE: usize = 32;
/// Bits of a token below the core that gave it out.
const SEQUENCE_BITS: u32 = 48;

impl Mesh {
    pub(super) fn new(
        me: ShardId,
        mailboxes: Vec<flume::Sender<Vec<Mail>>>,
        catalog: Catalog,
        n_partitions: u16,
        clock: Clock,
        rates: Option<Rates>,
    ) -> Rc<Self> {
        let n = mailboxes.len();
        let depth = Amount { n: limits::MESH_DEPTH_MAX, bytes: usize::MAX };
        let n_shards = u16::try_from(n).expect("shards are counted in 16 bits");
        Rc::new(Self {
            me,
            n_shards,
            n_partitions,
            clock,
            mailboxes,
            outboxes: RefCell::new((0..n).map(|_| Vec::new()).collect()),
            asked: RefCell::new((0..n).map(|_| Fair::new(depth)).collect()),
            answered: RefCell::default(),
            rates: rates.map(RefCell::new),
            pending: RefCell::default(),
            next_token: Cell::new(u64::from(me.0) << SEQUENCE_BITS),
            inbox: RefCell::default(),
            sleeper: RefCell::default(),
            is_awake: Cell::new(false),
            catalog: RefCell::new(catalog),
            is_draining: Cell::new(false),
            is_stopping: Cell::new(false),
            n_crossed: Cell::new(0),
        })
    }

    /// This core.
    pub(super) fn me(&self) -> ShardId {
        self.me
    }

    /// Requests of this core's clients that another was asked, so far.
    pub(super) fn n_crossed(&self) -> u64 {
        self.n_crossed.get()
    }

    /// The node was told to stop; what has begun is finished.
    pub(super) fn drain(&self) {
        self.is_draining.set(true);
    }

    /// Whether it was.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// New requests are refused from now on.
    pub(super) fn stop(&self) {
        self.is_stopping.set(true);
    }

    /// Give the driver something to do.
    pub(super) fn push(&self, event: Event) {
        self.inbox.borrow_mut().push(event);
        self.wake();
    }

    /// What has come in since the last call.
    pub(super) fn take_inbox(&self, into: &mut Vec<Event>) {
        into.append(&mut self.inbox.borrow_mut());
    }

    /// Have the driver take a turn.
    pub(super) fn wake(&self) {
        self.is_awake.set(true);
        if let Some(waker) = self.sleeper.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Until somebody calls [`Self::wake`]. For the driver alone.
    pub(super) async fn asleep(&self) {
        std::future::poll_fn(|context| {
            if self.is_awake.replace(false) {
                return Poll::Ready(());
            }
            *self.sleeper.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Put mail into an outbox; it leaves with [`Self::flush`].
    pub(super) fn post(&self, to: ShardId, mail: Mail) {
        self.outboxes.borrow_mut()[usize::from(to.0)].push(mail);
    }

    /// Put a copy into every other core's outbox.
    pub(super) fn post_to_others(&self, mail: impl Fn() -> Mail) {
        for to in (0..self.n_shards).map(ShardId).filter(|it| *it != self.me) {
            self.post(to, mail());
        }
    }

    /// Send what the outboxes hold: one message per core, however much it is.
    pub(super) fn flush(&self) {
        for (to, outbox) in self.outboxes.borrow_mut().iter_mut().enumerate() {
            if !outbox.is_empty() {
                // A core that is gone has stopped for good, and its clients with it.
                let _ = self.mailboxes[to].send(std::mem::take(outbox));
            }
        }
    }

    /// An answer for `token`, which may be another core's.
    pub(super) fn reply(&self, token: Token, back: Back) {
        let from = u16::try_from(token.0 >> SEQUENCE_BITS).expect("16 bits are left");
        if from == self.me.0 {
            self.on_reply(token, back);
        } else {
            self.post(ShardId(from), Mail::Reply { token, back });
        }
    }

    /// An answer that this core waits for.
    pub(super) fn on_reply(&self, token: Token, back: Back) {
        let mut pending = self.pending.borrow_mut();
        match pending.get_mut(&token) {
            Some(Pending::Task { asked, who, back: slot, waker }) => {
                self.leave(*asked, *who);
                *slot = Some(back);
                match waker.take() {
                    Some(waker) => self.answered.borrow_mut().push(*who, waker),
                    // Its task is gone: the client closed the connection.
                    None => drop(pending.remove(&token)),
                }
            }
            Some(Pending::Creation { asked, .. }) => {
                self.leave(*asked, Who::Node);
                let Some(Pending::Creation { namespace, .. }) = pending.remove(&token) else {
                    return;
                };
                drop(pending);
                if let Back::Answer(result) = back {
                    self.push(Event::Answered { namespace, result });
                }
            }
            None => {}
        }
    }

    /// Wake the tasks that have their answer: some of each database's in turn, if there are several. Another turn of the
    /// driver follows for the rest, after what these have to do.
    pub(super) fn wake_some(&self) {
        let mut answered = self.answered.borrow_mut();
        let mut n_left = if answered.n_lines() > 1 { WOKEN_AT_ONCE } else { usize::MAX };
        while n_left > 0
            && let Some(waker) = answered.pop()
        {
            waker.wake();
            n_left -= 1;
        }
        if !answered.is_empty() {
            self.wake();
        }
    }

    /// Whether some task has its answer, and was not woken yet.
    pub(super) fn has_answers(&self) -> bool {
        !self.answered.borrow().is_empty()
    }

    /// The system partition wants a database created, wherever that is.
    pub(super) fn create_database(&self, database: DatabaseId, namespace: Namespace) {
        let to = database.partition.shard(self.n_shards);
        let token = self.token();
        self.enter(to, Who::Node);
        let pending = Pending::Creation { asked: to, namespace: namespace.clone() };
        self.pending.borrow_mut().insert(token, pending);
        self.send(to, Event::CreateDatabase { token, database, namespace });
    }

    fn enter(&self, to: ShardId, who: Who) {
        self.asked.borrow_mut()[usize::from(to.0)].add(who, Amount::one(0));
    }

    fn leave(&self, to: ShardId, who: Who) {
        self.asked.borrow_mut()[usize::from(to.0)].sub(who, Amount::one(0));
    }

    /// Requests refused because whoever sent them had its share of what may be unanswered.
    pub(super) fn n_unfair(&self) -> u64 {
        self.asked.borrow().iter().map(Fair::n_refused).sum()
    }

    /// Whether a request of a key may pass whose requests are counted here.
    pub(super) fn pass_here(&self, key: KeyId) -> Result<(), TooMany> {
        let Some(rates) = &self.rates else { return Ok(()) };
        rates.borrow_mut().pass(self.clock.now(), key)
    }

    fn token(&self) -> Token {
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        Token(token)
    }

    fn send(&self, to: ShardId, event: Event) {
        if to == self.me {
            self.push(event);
        } else {
            self.post(to, Mail::Event(event));
            self.wake(); // whose turn ends with a flush
        }
    }

    /// Ask a core, and wait for what comes back.
    async fn ask(
        &self,
        to: ShardId,
        who: Who,
        mail: impl FnOnce(Token) -> Mail,
    ) -> Result<Back, SubmitError> {
        if self.is_stopping.get() {
            return Err(SubmitError::ShuttingDown);
        }
        if !self.asked.borrow_mut()[usize::from(to.0)].may_take(who, 0) {
            return Err(SubmitError::Overloaded);
        }
        let token = self.token();
        self.enter(to, who);
        let pending = Pending::Task { asked: to, who, back: None, waker: None };
        self.pending.borrow_mut().insert(token, pending);
        match mail(token) {
            Mail::Event(event) => self.send(to, event),
            other => {
                self.post(to, other);
                self.wake();
            }
        }
        let waiting = Waiting { mesh: self, token };
        Ok(waiting.back().await)
    }

    async fn answer(
        &self,
        partition: PartitionId,
        who: Who,
        event: impl FnOnce(Token) -> Event,
    ) -> Result<Answer, SubmitError> {
        let to = partition.shard(self.n_shards);
        match self.ask(to, who, |token| Mail::Event(event(token))).await? {
            Back::Answer(result) => result,
            Back::Status(_) | Back::Pass(_) | Back::Metrics(_) => {
                unreachable!("a state machine gives answers")
            }
        }
    }

    /// Where a namespace's database is; it is created if there is none.
    async fn locate(&self, namespace: &Namespace) -> Result<DatabaseId, SubmitError> {
        let database =
            |row: &Row| DatabaseId { partition: row.partition, incarnation: row.incarnation };
        let known =
            self.catalog.borrow().get(namespace).filter(|it| it.state == State::Live).map(database);
        if let Some(database) = known {
            return Ok(database);
        }
        let namespace = namespace.clone();
        let create = |token| Event::CreateNamespace { token, namespace };
        match self.answer(PartitionId::SYSTEM, Who::Node, create).await? {
            Answer::Namespace(row) => {
                let found = database(&row);
                self.catalog.borrow_mut().fold(row);
                Ok(found)
            }
            Answer::Results(_) | Answer::Replayed(_) => {
                unreachable!("a creation gives a namespace")
            }
        }
    }

    async fn run(
        &self,
        namespace: &Namespace,
        event: impl FnOnce(Token, DatabaseId) -> Event,
    ) -> Result<Reply, SubmitError> {
        let database = self.locate(namespace).await?;
        if database.partition.shard(self.n_shards) != self.me {
            self.n_crossed.set(self.n_crossed.get() + 1);
        }
        let who = Who::Database(database);
        match self.answer(database.partition, who, |token| event(token, database)).await? {
            Answer::Results(results) => Ok(Reply::Results(results)),
            Answer::Replayed(results) => Ok(Reply::Replayed(results)),
            Answer::Namespace(_) => unreachable!("statements give results"),
        }
    }

    /// What every core has counted, by core. A core that does not answer is waited for.
    pub(super) async fn metrics(&self) -> Result<Vec<CoreMetrics>, SubmitError> {
        let mut all = Vec::new();
        for shard in (0..self.n_shards).map(ShardId) {
            let ask = |token| Mail::AskMetrics { token };
            if let Back::Metrics(part) = self.ask(shard, Who::Node, ask).await? {
                all.push(*part);
            }
        }
        Ok(all)
    }

    async fn status(&self) -> Result<Reply, SubmitError> {
        let mut sum = Status::default();
        for shard in (0..self.n_shards).map(ShardId) {
            let ask = |token| Mail::AskStatus { token };
            if let Back::Status(part) = self.ask(shard, Who::Node, ask).await? {
                sum.database_bytes += part.database_bytes;
                sum.n_partitions += part.n_partitions;
                sum.n_leading += part.n_leading;
                sum.n_leaderless += part.n_leaderless;
                sum.n_namespaces += part.n_namespaces;
                sum.n_fenced += part.n_fenced;
                sum.is_disk_low |= part.is_disk_low;
                sum.is_log_stuck |= part.is_log_stuck;
                sum.is_stopping |= part.is_stopping;
            }
        }
        Ok(Reply::Status(sum))
    }
}

impl Submit for Rc<Mesh> {
    async fn submit(&self, request: Request) -> Result<Reply, SubmitError> {
        match request {
            Request::Write { namespace, draft } => {
                let write = |token, database, draft: Draft| Event::Write { token, database, draft };
                self.run(&namespace, |token, database| write(token, database, draft)).await
            }
            Request::Read { namespace, draft } => {
                let read = |token, database, draft: Draft| Event::Read { token, database, draft };
                self.run(&namespace, |token, database| read(token, database, draft)).await
            }
            Request::Status => self.status().await,
        }
    }

    /// At the core that serves the namespace, so that the limit holds for the whole node.
    async fn pass(&self, key: KeyId, namespace: &Namespace) -> Result<(), SubmitError> {
        if self.rates.is_none() {
            return Ok(());
        }
        let to = namespace.home(self.n_partitions).shard(self.n_shards);
        if to == self.me {
            return Ok(self.pass_here(key)?);
        }
        match self.ask(to, Who::Key(key), |token| Mail::AskPass { token, key }).await? {
            Back::Pass(result) => Ok(result?),
            Back::Answer(_) | Back::Status(_) | Back::Metrics(_) => {
                unreachable!("whether a request may pass is what was asked")
            }
        }
    }

    fn elsewhere(&self, namespace: &Namespace) -> Option<ShardId> {
        let partition = self.catalog.borrow().get(namespace)?.partition;
        Some(partition.shard(self.n_shards)).filter(|it| *it != self.me)
    }
}

/// A task's claim to an answer. Dropped with the task; the answer then finds nobody.
struct Waiting<'a> {
    mesh: &'a Mesh,
    token: Token,
}

impl Waiting<'_> {
    async fn back(&self) -> Back {
        std::future::poll_fn(|context| {
            let mut pending = self.mesh.pending.borrow_mut();
            let Some(Pending::Task { back, waker, .. }) = pending.get_mut(&self.token) else {
                unreachable!("an answer is taken by the task that waits for it");
            };
            if let Some(back) = back.take() {
                pending.remove(&self.token);
                return Poll::Ready(back);
            }
            *waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut pending = self.mesh.pending.borrow_mut();
        if let Some(Pending::Task { back, waker, .. }) = pending.get_mut(&self.token) {
            match back {
                Some(_) => drop(pending.remove(&self.token)),
                // Not answered yet: the entry stays for the count, without anybody to wake.
                None => *waker = None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
