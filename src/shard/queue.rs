//! One database as its shard sees it: the commands that wait to be applied to it, and how much of what was
//! applied is known to be on disk.
//!
//! ```text
//! handed out ──► outstanding ──► in flight (one Apply) ──► applied ──► durable (Synced)
//! ```
//!
//! Invariants
//! - At most one `Apply` is in flight; commands leave in log order.
//! - `dirty_since` is the lowest command applied, or skipped at replay, that no sync covers (R24): the log
//!   keeps everything from there on.
//! - A fenced database gets nothing, but the log keeps what it may lack, from `held_from` on, until that is
//!   let go (R38).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::shard::event::Token;
use crate::types::DatabaseSize;
use crate::types::Floor;
use crate::types::Instant;
use crate::types::LogIndex;

/// Where a command's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In the partition's log, at its index. The log keeps what is outstanding.
    Log,
    /// Derived from the log entry, the same way on every replica.
    Derived(Bytes),
}

/// A read that waits until its database has applied what it must see.
#[derive(Debug)]
pub(super) struct EarlyRead {
    pub(super) token: Token,
    pub(super) command: Bytes,
    pub(super) deadline: Instant,
}

/// A database's way from handed out to durable.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what is known of a database, each by itself")]
pub(super) struct Queue {
    outstanding: VecDeque<(LogIndex, Source)>,
    in_flight: usize,
    /// The last command that was applied or skipped.
    applied: LogIndex,
    /// The sync that last ended covers everything up to here.
    durable: LogIndex,
    dirty_since: Option<LogIndex>,
    /// Of a fenced one: the lowest command that it may lack and the log still has.
    held_from: Option<LogIndex>,
    /// Of a fenced one: the log may have forgotten commands behind `durable`.
    has_let_go: bool,
    /// A sync is under way: what it covers, and the first command that it does not.
    sync: Option<(LogIndex, Option<LogIndex>)>,
    /// Whether the shell has it open, as far as we know.
    pub(super) is_open: bool,
    /// Being closed: nothing is given out.
    pub(super) is_evicting: bool,
    /// Its `-wal` is too long: it takes no writes for a while (R23).
    pub(super) is_strained: bool,
    /// Damaged: nothing is applied and nothing read (R38).
    pub(super) is_fenced: bool,
    /// Reads given out and not answered.
    pub(super) n_reads: usize,
    /// Reads that wait until what was committed before this replica led is applied.
    pub(super) early_reads: Vec<EarlyRead>,
    /// When it was last needed.
    pub(super) used_at: Instant,
    /// How large it was when it was last written to; not known before the first time.
    pub(super) size: Option<DatabaseSize>,
    /// Pages that it has lost, and its file may still have.
    lost_pages: u32,
    /// Where the command that gives pages back was proposed, if one is under way.
    giving_back_at: Option<LogIndex>,
}

impl Queue {
    /// A database whose floor, from the manifest, is `durable`.
    pub(super) fn new(durable: LogIndex, now: Instant) -> Self {
        Self {
            outstanding: VecDeque::new(),
            in_flight: 0,
            applied: durable,
            durable,
            dirty_since: None,
            held_from: None,
            has_let_go: false,
            sync: None,
            is_open: false,
            is_evicting: false,
            is_strained: false,
            is_fenced: false,
            n_reads: 0,
            early_reads: Vec::new(),
            used_at: now,
            size: None,
            lost_pages: 0,
            giving_back_at: None,
        }
    }

    /// The same, and what else the manifest says of it.
    pub(super) fn recovered(floor: Floor, now: Instant) -> Self {
        Self {
            is_fenced: floor.is_fenced,
            has_let_go: floor.is_fenced && !floor.is_log_kept,
            ..Self::new(floor.index, now)
        }
    }

    /// What the manifest is to say of it.
    pub(super) fn floor(&self) -> Floor {
        Floor {
            index: self.durable(),
            is_fenced: self.is_fenced,
            is_log_kept: self.is_fenced && !self.has_let_go,
        }
    }

    /// A committed command is for this database, which is fenced: the log keeps it, if it can.
    pub(super) fn hold(&mut self, index: LogIndex) {
        assert!(self.is_fenced, "a healthy database gets its commands");
        if !self.has_let_go && self.durable < index {
            self.held_from = self.held_from.or(Some(index));
        }
    }

    /// The log has kept too much for this fenced database. Whether there was something to let go.
    pub(super) fn let_go(&mut self) -> bool {
        let is_held = self.is_fenced && self.held_from.is_some();
        if is_held {
            self.held_from = None;
            self.has_let_go = true;
        }
        is_held
    }

    /// A committed command is for this database.
    pub(super) fn push(&mut self, index: LogIndex, source: Source) {
        if let Some((last, _)) = self.outstanding.back() {
            assert!(*last < index, "commands are handed out in log order");
        }
        self.dirty_since = self.dirty_since.or(Some(index));
        if let Some((_, after)) = &mut self.sync {
            *after = after.or(Some(index));
        }
        self.outstanding.push_back((index, source));
    }

    /// The commands of the next `Apply`, at most `n_max`; none while one is in flight.
    pub(super) fn take(&mut self, n_max: usize) -> impl Iterator<Item = (LogIndex, &Source)> {
        let n = if self.in_flight > 0 || self.is_evicting || self.is_fenced {
            0
        } else {
            self.outstanding.len().min(n_max)
        };
        self.in_flight += n;
        self.outstanding.iter().take(n).map(|(index, source)| (*index, source))
    }

    /// The first `n` commands of the `Apply` in flight ran, and left the database at `size`. Their indexes.
    pub(super) fn on_applied(&mut self, n: usize, size: DatabaseSize) -> Vec<LogIndex> {
        assert!(n <= self.in_flight, "applied what was not given out");
        self.in_flight -= n;
        let before = self.size.map_or(0, |it| it.pages);
        self.lost_pages = self.lost_pages.saturating_add(before.saturating_sub(size.pages));
        self.size = Some(size);
        let done: Vec<_> = self.outstanding.drain(..n).map(|(index, _)| index).collect();
        if let Some(last) = done.last() {
            assert!(self.applied < *last || self.durable >= *last, "applied backwards");
            self.applied = self.applied.max(*last);
        }
        // Whatever stood at that index: nothing of it is to come any more.
        self.giving_back_at.take_if(|it| *it <= self.applied);
        done
    }

    /// A command that gives pages back was proposed at `index`.
    pub(super) fn give_back_at(&mut self, index: LogIndex) {
        assert!(self.giving_back_at.is_none(), "one at a time");
        self.giving_back_at = Some(index);
    }

    /// Whether such a command is under way.
    pub(super) fn is_giving_back(&self) -> bool {
        self.giving_back_at.is_some()
    }

    /// Whether it has become smaller since this was last asked.
    pub(super) fn take_has_shrunk(&mut self) -> bool {
        std::mem::take(&mut self.lost_pages) > 0
    }

    /// It is damaged: nothing of it is open or worth a sync. The indexes of what will not be applied.
    pub(super) fn fence(&mut self) -> Vec<LogIndex> {
        self.held_from = self.held_from.or(self.dirty_since);
        self.is_fenced = true;
        self.is_open = false;
        self.in_flight = 0;
        self.dirty_since = None;
        self.sync = None;
        self.outstanding.drain(..).map(|(index, _)| index).collect()
    }

    /// The lowest command that is not applied yet.
    pub(super) fn first_outstanding(&self) -> Option<LogIndex> {
        self.outstanding.front().map(|(index, _)| *index)
    }

    /// Whether nothing is under way, so that the shell may close it.
    pub(super) fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
            && self.n_reads == 0
            && self.early_reads.is_empty()
            && self.sync.is_none()
    }

    /// Whether everything applied is known to be on disk.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty_since.is_none()
    }

    /// A sync begins. Whether it is needed: it covers what was applied before it, not what comes during it.
    pub(super) fn begin_sync(&mut self) -> bool {
        if self.dirty_since.is_none() || !self.is_open || self.is_fenced {
            return false;
        }
        let after = self.outstanding.front().map(|(index, _)| *index);
        self.sync = Some((self.applied, after));
        true
    }

    /// The sync ended.
    pub(super) fn end_sync(&mut self) {
        if let Some((covered, after)) = self.sync.take() {
            self.durable = self.durable.max(covered);
            self.dirty_since = after;
        }
    }

    /// Everything up to here is on disk.
    pub(super) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The first command that the log must keep for this database.
    pub(super) fn needs_from(&self) -> Option<LogIndex> {
        self.dirty_since.or(self.held_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(queue: &mut Queue, n_max: usize) -> Vec<u64> {
        queue.take(n_max).map(|(index, _)| index.0).collect()
    }

    #[test]
    fn one_apply_is_in_flight() {
        let mut queue = Queue::new(LogIndex(0), Instant::START);
        for index in [3, 5, 8] {
            queue.push(LogIndex(index), Source::Log);
        }
        assert_eq!(taken(&mut queue, 2), [3, 5]);
        assert!(taken(&mut queue, 2).is_empty());
        assert_eq!(queue.on_applied(1, DatabaseSize::default()), [LogIndex(3)]);
        assert!(taken(&mut queue, 2).is_empty(), "the second is still under way");
        assert_eq!(queue.on_applied(1, DatabaseSize::default()), [LogIndex(5)]);
        assert_eq!(taken(&mut queue, 2), [8]);
    }

    #[test]
    fn a_fenced_database_holds_the_log_until_it_is_let_go() {
        let mut queue = Queue::new(LogIndex(4), Instant::START);
        for index in [3, 5, 8] {
            queue.push(LogIndex(index), Source::Log);
        }
        taken(&mut queue, 2);
        assert_eq!(queue.fence(), [LogIndex(3), LogIndex(5), LogIndex(8)]);
        queue.hold(LogIndex(9));
        assert_eq!(queue.needs_from(), Some(LogIndex(3)));
        assert!(queue.fence().is_empty());
        let floor = queue.floor();
        assert_eq!(floor, Floor { index: LogIndex(4), is_fenced: true, is_log_kept: true });
        // After a restart what it has on disk needs not be held.
        let mut queue = Queue::recovered(floor, Instant::START);
        assert_eq!(queue.needs_from(), None);
        for index in [3, 5, 8] {
            queue.hold(LogIndex(index));
        }
        assert_eq!((queue.needs_from(), queue.floor()), (Some(LogIndex(5)), floor));
        assert!(queue.let_go());
        queue.hold(LogIndex(10));
        assert!(!queue.let_go());
        let floor = Floor { is_log_kept: false, ..floor };
        assert_eq!((queue.needs_from(), queue.floor()), (None, floor));
        assert_eq!(Queue::recovered(floor, Instant::START).floor(), floor);
    }

    #[test]
    fn pages_are_given_back_by_one_command_at_a_time() {
        let mut queue = Queue::new(LogIndex(0), Instant::START);
        for index in [3, 5, 8] {
            queue.push(LogIndex(index), Source::Log);
        }
        let size = |pages| DatabaseSize { pages, free_pages: 0 };
        queue.give_back_at(LogIndex(5));
        taken(&mut queue, 1);
        queue.on_applied(1, size(100));
        assert!(queue.is_giving_back() && !queue.take_has_shrunk());
        taken(&mut queue, 1);
        queue.on_applied(1, size(90));
        assert!(!queue.is_giving_back());
        taken(&mut queue, 1);
        queue.on_applied(1, size(95));
        assert!(queue.take_has_shrunk(), "it grew since, but the file may be larger still");
        assert!(!queue.take_has_shrunk());
    }

    #[test]
    fn a_sync_covers_what_was_applied_before_it_began() {
        let mut queue = Queue::new(LogIndex(0), Instant::START);
        queue.is_open = true;
        for index in [3, 5, 8] {
            queue.push(LogIndex(index), Source::Log);
        }
        assert_eq!(taken(&mut queue, 2), [3, 5]);
        queue.on_applied(2, DatabaseSize::default());
        assert!(queue.begin_sync());
        assert_eq!(taken(&mut queue, 2), [8]);
        queue.on_applied(1, DatabaseSize::default());
        queue.push(LogIndex(9), Source::Log);
        queue.end_sync();
        assert_eq!((queue.durable(), queue.needs_from()), (LogIndex(5), Some(LogIndex(8))));
        assert!(queue.begin_sync());
        queue.end_sync();
        assert_eq!((queue.durable(), queue.needs_from()), (LogIndex(8), Some(LogIndex(9))));
    }
}
