//! Reads of one core that take long: those that wait for a thread, those that have one, and the connections
//! in between.
//!
//! ```text
//! given up on the core, or not tried there ──► waiting ──► on a thread ──► answered
//! ```
//!
//! A namespace has a few threads at once at most, so that one that asks for much leaves some to the others; of those that
//! wait, the one goes first whose namespace has fewest threads, then the one whose namespace had its turn
//! longest ago. Many may wait, but a namespace no more than its share of them ([`Fair`]).
//! A read that waits too long is refused, one that runs too long is stopped.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::workers::ReadTask;
use crate::limits;
use crate::shard::event::Event;
use crate::shard::event::Token;
use crate::shard::fair::Amount;
use crate::shard::fair::Fair;
use crate::sql::Brake;
use crate::sql::Reader;
use crate::sql::Why;
use crate::types::DatabaseId;
use crate::types::Instant;
use crate::wire::rows::StatementError;

/// How much later than its own clock says a read is stopped from outside: only what nothing counts.
const LATE_MARGIN: Duration = Duration::from_millis(100);

/// A read without a thread.
#[derive(Debug)]
struct Waiting {
    token: Token,
    command: Bytes,
    since: Instant,
    /// Rises with each.
    number: u64,
}

/// A read on a thread.
#[derive(Debug)]
struct Active {
    database: DatabaseId,
    token: Token,
    since: Instant,
    brake: Arc<Brake>,
}

/// All long reads of a core.
#[derive(Debug)]
pub(super) struct LongReads {
    /// A line for each database that has any, oldest first.
    waiting: BTreeMap<DatabaseId, VecDeque<Waiting>>,
    n_came: u64,
    /// Who has how much of what waits.
    shares: Fair<DatabaseId>,
    /// When namespaces last had a read begun, counted in reads. Kept while any read waits, also of a namespace that
    /// has none waiting: it will come back, and must not go before the others for that.
    turns: BTreeMap<DatabaseId, u64>,
    n_begun: u64,
    /// Oldest first.
    active: Vec<Active>,
    /// Oldest first.
    idle: VecDeque<(DatabaseId, Box<Reader>)>,
    statement_time: Duration,
}

impl LongReads {
    /// `statement_time` is what a read may take.
    pub(super) fn new(statement_time: Duration) -> Self {
        let bound = Amount {
            n: limits::LONG_READS_WAITING_MAX,
            bytes: limits::LONG_READ_BYTES_WAITING_MAX,
        };
        Self {
            waiting: BTreeMap::new(),
            n_came: 0,
            shares: Fair::new(bound),
            turns: BTreeMap::new(),
            n_begun: 0,
            active: Vec::new(),
            idle: VecDeque::new(),
            statement_time,
        }
    }

    /// A read is to run on a thread.
    pub(super) fn push(
        &mut self,
        now: Instant,
        database: DatabaseId,
        token: Token,
        command: Bytes,
        events: &mut Vec<Event>,
    ) {
        if !self.shares.may_take(database, command.len()) {
            return events.push(overloaded(database, token));
        }
        self.shares.add(database, Amount::one(command.len()));
        self.n_came += 1;
        let waiting = Waiting { token, command, since: now, number: self.n_came };
        self.waiting.entry(database).or_default().push_back(waiting);
    }

    /// The next read that may begin; `path_of` knows where databases are, `is_held` whether none may begin there now.
    pub(super) fn start(
        &mut self,
        now: Instant,
        path_of: impl Fn(DatabaseId) -> PathBuf,
        is_held: impl Fn(DatabaseId) -> bool,
    ) -> Option<ReadTask> {
        if self.active.len() >= limits::READER_THREADS {
            return None;
        }
        let next = self.waiting.iter().filter_map(|(database, line)| {
            let active = self.active.iter().filter(|active| active.database == *database);
            let n_active = active.count();
            let turn = self.turns.get(database).copied();
            let may = n_active < limits::READERS_OF_NAMESPACE_MAX && !is_held(*database);
            may.then_some((n_active, turn, line.front()?.number, *database))
        });
        let (_, _, _, database) = next.min()?;
        let Waiting { token, command, .. } = self.pop_if(database, |_| true)?;
        self.n_begun += 1;
        self.turns.insert(database, self.n_begun);
        if self.waiting.is_empty() {
            self.turns.clear();
        }
        let brake = Brake::new();
        self.active.push(Active { database, token, since: now, brake: Arc::clone(&brake) });
        let idle = self.idle.iter().rposition(|(it, _)| *it == database);
        let reader = idle.and_then(|at| self.idle.remove(at)).map(|(_, reader)| reader);
        Some(ReadTask { database, path: path_of(database), token, command, reader, brake })
    }

    /// The first that waits for a database, if it is so.
    fn pop_if(
        &mut self,
        database: DatabaseId,
        is_so: impl Fn(&Waiting) -> bool,
    ) -> Option<Waiting> {
        let line = self.waiting.get_mut(&database)?;
        let first = line.pop_front_if(|it| is_so(it))?;
        if line.is_empty() {
            self.waiting.remove(&database);
        }
        self.shares.sub(database, Amount::one(first.command.len()));
        Some(first)
    }

    /// A read has ended; its connection is for the next. Gives one that is too many.
    pub(super) fn on_read(
        &mut self,
        database: DatabaseId,
        token: Token,
        reader: Option<Box<Reader>>,
    ) -> Option<Box<Reader>> {
        self.active.retain(|it| it.token != token);
        self.idle.extend(reader.map(|it| (database, it)));
        let is_full = self.idle.len() > limits::READERS_IDLE_MAX;
        is_full.then(|| self.idle.pop_front()).flatten().map(|(_, reader)| reader)
    }

    /// The connections of a database that is to be closed; none of them has work.
    pub(super) fn take_idle(&mut self, database: DatabaseId) -> Vec<Reader> {
        let (gone, kept) = std::mem::take(&mut self.idle)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(it, _)| *it == database);
        self.idle = kept;
        gone.into_iter().map(|(_, reader)| *reader).collect()
    }

    /// A database is damaged: refuse what waits, stop what runs. Its connections are to be closed.
    pub(super) fn fence(&mut self, database: DatabaseId, events: &mut Vec<Event>) -> Vec<Reader> {
        while let Some(it) = self.pop_if(database, |_| true) {
            let error =
                StatementError::coded("fenced", "namespace is fenced: its database is damaged");
            let (token, outcome) = (it.token, Err(error));
            events.push(Event::ReadFinished { database, token, outcome });
        }
        for active in self.active.iter().filter(|it| it.database == database) {
            active.brake.pull(Why::Fence);
        }
        self.take_idle(database)
    }

    /// Stop everything: the node ends.
    pub(super) fn stop_all(&self) {
        for active in &self.active {
            active.brake.pull(Why::End);
        }
    }

    /// Stop the oldest read of a database whose log is too long (R23).
    pub(super) fn stop_oldest(&self, database: DatabaseId) {
        if let Some(oldest) = self.active.iter().find(|it| it.database == database) {
            oldest.brake.pull(Why::Log);
        }
    }

    /// Stop all reads of a database whose log has been too long for too long (R23).
    pub(super) fn stop_of(&self, database: DatabaseId) {
        for active in self.active.iter().filter(|it| it.database == database) {
            active.brake.pull(Why::Log);
        }
    }

    /// The oldest read of a database that has a thread.
    pub(super) fn oldest(&self, database: DatabaseId) -> Option<Token> {
        self.active.iter().find(|it| it.database == database).map(|it| it.token)
    }

    /// Whether a read has a thread.
    pub(super) fn is_active(&self, token: Token) -> bool {
        self.active.iter().any(|it| it.token == token)
    }

    /// How often a read was refused because its namespace had its share.
    pub(super) fn n_refused(&self) -> u64 {
        self.shares.n_refused()
    }

    /// How many run, and how many wait.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.active.len(), self.shares.total().n)
    }

    /// When [`Self::on_timeout`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let limit = self.statement_time + LATE_MARGIN;
        let active = self.active.first().map(|it| it.since.after(limit));
        let first = self.waiting.values().filter_map(VecDeque::front).map(|it| it.since).min();
        let waiting = first.map(|it| it.after(limits::REQUEST_DEADLINE));
        active.into_iter().chain(waiting).min()
    }

    /// Stop what runs too long, refuse what has waited too long.
    pub(super) fn on_timeout(&mut self, now: Instant, events: &mut Vec<Event>) {
        let limit = self.statement_time + LATE_MARGIN;
        for late in self.active.iter_mut().filter(|it| now.since(it.since) >= limit) {
            late.brake.pull(Why::Late);
            // Not asked for again in the same instant; what cannot be stopped here is stopped next time.
            late.since = now;
        }
        self.active.sort_by_key(|it| it.since);
        let is_late = |it: &Waiting| now.since(it.since) >= limits::REQUEST_DEADLINE;
        let databases: Vec<DatabaseId> = self.waiting.keys().copied().collect();
        for database in databases {
            while let Some(late) = self.pop_if(database, is_late) {
                events.push(overloaded(database, late.token));
            }
        }
    }
}

fn overloaded(database: DatabaseId, token: Token) -> Event {
    let error = StatementError::coded("overloaded", "too many long reads at once");
    Event::ReadFinished { database, token, outcome: Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Incarnation;
    use crate::types::PartitionId;

    fn database(n: u64) -> DatabaseId {
        DatabaseId { partition: PartitionId(1), incarnation: Incarnation(n) }
    }

    /// Push reads of these databases, whose tokens count from one; those refused.
    fn push(reads: &mut LongReads, of: &[u64]) -> Vec<Event> {
        let mut events = Vec::new();
        for (n, of) in (1..).zip(of) {
            let command = Bytes::from_static(b"read");
            reads.push(Instant::START, database(*of), Token(n), command, &mut events);
        }
        events
    }

    fn start(reads: &mut LongReads) -> Vec<u64> {
        let next =
            || reads.start(Instant::START, |_| PathBuf::new(), |_| false).map(|it| it.token.0);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_namespace_leaves_threads_to_the_others() {
        let mut reads = LongReads::new(Duration::from_secs(1));
        assert!(push(&mut reads, &[7, 7, 7, 7, 8, 7]).is_empty());
        assert_eq!(start(&mut reads), [1, 5, 2]);
        reads.on_read(database(7), Token(1), None);
        assert_eq!(start(&mut reads), [3]);
        assert_eq!(start(&mut reads), [0; 0]);
    }

    #[test]
    fn who_had_fewest_threads_and_whose_turn_is_longest_ago_goes_first() {
        let mut reads = LongReads::new(Duration::from_secs(1));
        // Two that want all there is, then three that want one or two each.
        push(&mut reads, &[1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
        assert_eq!(start(&mut reads), [1, 6, 2, 7]);
        let mut events = Vec::new();
        for (token, of) in [(20, 3), (21, 3), (22, 4), (23, 5)] {
            let command = Bytes::from_static(b"read");
            reads.push(Instant::START, database(of), Token(token), command, &mut events);
        }
        let mut order = Vec::new();
        let mut running = VecDeque::from([(1, 1), (2, 6), (1, 2), (2, 7)]);
        while let Some((of, token)) = running.pop_front() {
            reads.on_read(database(of), Token(token), None);
            for token in start(&mut reads) {
                let of = match token {
                    1..=5 => 1,
                    6..=10 => 2,
                    20 | 21 => 3,
                    other => other - 18,
                };
                order.push(token);
                running.push_back((of, token));
            }
        }
        assert_eq!(order, [20, 22, 23, 3, 8, 21, 4, 9, 5, 10]);
        assert!(events.is_empty() && reads.turns.is_empty());
    }

    /// Who sends a read when the one before is answered is often not among those that wait.
    #[test]
    fn who_sends_one_read_at_a_time_goes_before_nobody_for_it() {
        let mut reads = LongReads::new(Duration::from_secs(1));
        let mut refused = Vec::new();
        let mut push = |reads: &mut LongReads, of| {
            let command = Bytes::from_static(b"read");
            reads.push(Instant::START, database(of), Token(of), command, &mut refused);
        };
        // The first two have many that wait, the other six one at a time.
        for of in [[1; 100], [2; 100]].concat() {
            push(&mut reads, of);
        }
        (3..=8).for_each(|of| push(&mut reads, of));
        let mut running = VecDeque::new();
        let mut n_begun = [0_u32; 9];
        for _ in 0..200 {
            for of in start(&mut reads) {
                n_begun[usize::try_from(of).unwrap()] += 1;
                running.push_back(of);
            }
            let of = running.pop_front().unwrap();
            let at = reads.active.iter().position(|it| it.token == Token(of)).unwrap();
            reads.active.remove(at);
            if of > 2 {
                push(&mut reads, of);
            }
        }
        assert!(n_begun[1..].iter().all(|n| (20..=30).contains(n)), "{n_begun:?}");
        assert!(refused.is_empty());
    }

    #[test]
    fn one_that_asks_for_thousands_leaves_room_to_wait() {
        let mut reads = LongReads::new(Duration::from_mins(1));
        assert_eq!(push(&mut reads, &[7; 2_000]).len(), 2_000 - limits::LONG_READS_WAITING_MAX);
        assert!(push(&mut reads, &[8; limits::LONG_READS_WAITING_MAX / 2]).is_empty());
        assert_eq!(push(&mut reads, &[8]).len(), 1);
        assert_eq!(reads.n_refused(), 2_001 - limits::LONG_READS_WAITING_MAX as u64);
    }

    #[test]
    fn what_waits_too_long_or_is_too_much_is_refused() {
        let mut reads = LongReads::new(Duration::from_mins(1));
        let refused = push(&mut reads, &[7; limits::LONG_READS_WAITING_MAX + 1]);
        assert_eq!(refused.len(), 1);
        assert_eq!(start(&mut reads).len(), limits::READERS_OF_NAMESPACE_MAX);
        let late = Instant::START.after(limits::REQUEST_DEADLINE);
        assert_eq!(reads.next_timeout(), Some(late));
        let mut events = Vec::new();
        reads.on_timeout(late, &mut events);
        assert_eq!(events.len(), limits::LONG_READS_WAITING_MAX - limits::READERS_OF_NAMESPACE_MAX);
        assert_eq!(reads.shares.total(), Amount::default());
    }

    #[test]
    fn what_runs_too_long_is_stopped() {
        let mut reads = LongReads::new(Duration::from_secs(1));
        push(&mut reads, &[7]);
        let task = reads.start(Instant::START, |_| PathBuf::new(), |_| false).unwrap();
        let at = reads.next_timeout().unwrap();
        reads.on_timeout(at, &mut Vec::new());
        assert!(format!("{:?}", task.brake).contains("why: 1"), "{:?}", task.brake);
        // What did not hear it is told again, later.
        assert!(reads.next_timeout().unwrap() > at);
    }
}
