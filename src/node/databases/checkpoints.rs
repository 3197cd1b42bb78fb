//! When the `-wal` of a database goes into its file, and what happens if it does not (R21, R23).
//!
//! ```text
//! kept ──longer than its bound──► passed ──begins anew──► kept
//!                                   └──no reader in the way, or too late──► strained ──begins anew──► kept
//! ```
//!
//! Passed, the reader in the way is stopped, and neither commands nor more long reads begin. Nobody is told:
//! it takes as long as the copying. Strained, writes are refused, and the others go on, long reads that begin then
//! among them; once nothing but such a read can be in the way, it is as if passed again, with writes refused.

use tracing::info;
use tracing::warn;

use crate::disk::helper::Job;
use crate::disk::helper::Moved;
use crate::limits;
use crate::node::databases::Databases;
use crate::node::databases::Slot;
use crate::node::databases::open::Bound;
use crate::node::databases::open::Checkpoint;
use crate::node::databases::retries::Pain;
use crate::shard::event::Event;
use crate::sql::Fault;
use crate::types::DatabaseId;
use crate::types::Instant;

impl Databases {
    /// Begin a checkpoint, whatever the size of the `-wal`. Closing a database checkpoints it as well, as far as
    /// readers and the disk let it.
    pub(in crate::node) fn checkpoint(&mut self, id: DatabaseId) {
        let path = self.path(id);
        // One that is under way covers what was applied before its second pass.
        if let Some(Slot::Open(open)) = self.slots.get_mut(&id)
            && open.checkpoint == Checkpoint::Idle
        {
            let bounds = self.wal_bounds;
            let wal_bytes = open.wal_bytes();
            open.checkpoint = Checkpoint::Running;
            open.checkpoint_at = wal_bytes + bounds.due;
            open.wait_at = (wal_bytes + bounds.wait).min(bounds.max);
            open.in_the_way = self.long_reads.oldest(id);
            open.has_reader_left = false;
            let is_urgent = open.waits_for_bound();
            self.counts.checkpoints += 1;
            self.helper.give(Job::Checkpoint { database: id, path, is_urgent });
        }
    }

    /// Begin a checkpoint if the `-wal` has grown by its bound since the last. At the last bound of all, commands wait
    /// for it, and the reader that is in its way is stopped.
    pub(super) fn checkpoint_if_due(&mut self, id: DatabaseId) {
        let bounds = self.wal_bounds;
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else { return };
        let Some(database) = &open.here else { return };
        let wal_bytes = database.wal_bytes();
        // It has begun anew.
        let has_begun_anew = wal_bytes < bounds.due;
        if has_begun_anew {
            open.checkpoint_at = bounds.due;
        }
        let is_due = match open.bound {
            Bound::Kept => wal_bytes > open.checkpoint_at,
            Bound::Passed { .. } => true,
            // Else it is tried again in its time, not whenever one of those that were taken before is applied.
            Bound::Strained => has_begun_anew || wal_bytes > open.checkpoint_at,
        };
        if has_begun_anew && open.bound == Bound::Kept && !self.retries.is_empty() {
            self.on_begun_anew(id);
        }
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else { return };
        if wal_bytes > bounds.max && open.bound == Bound::Kept {
            let is_idle = open.checkpoint == Checkpoint::Idle;
            self.counts.wal_waits += 1;
            info!(
                partition = id.partition.0,
                incarnation = id.incarnation.0,
                wal_bytes,
                "write-ahead log is at its bound; commands wait"
            );
            self.wait_for_bound(id);
            // One that is under way may turn out complete.
            if is_idle {
                self.long_reads.stop_oldest(id);
            }
            return self.checkpoint(id);
        }
        if is_due {
            self.checkpoint(id);
        }
    }

    /// Neither commands nor more long reads begin for a moment.
    fn wait_for_bound(&mut self, id: DatabaseId) {
        if let Some(Slot::Open(open)) = self.slots.get_mut(&id) {
            let until = self.clock.now().after(limits::WAL_WAIT_MAX);
            open.bound = Bound::Passed { until };
            self.bound_waits.retain(|(_, it)| *it != id);
            self.bound_waits.push_back((until, id));
        }
    }

    /// A read on a thread has ended. If it was in the way of a checkpoint, and no other is, that need not wait any
    /// longer. Where some always are, each end of one would be a checkpoint for nothing, unless no more begin.
    pub(super) fn on_reader_gone(&mut self, id: DatabaseId) {
        let is_read = self.long_reads.oldest(id).is_some();
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else { return };
        if open.checkpoint != Checkpoint::Idle {
            open.has_reader_left = true;
            return;
        }
        let is_gone = open.in_the_way.is_some_and(|it| !self.long_reads.is_active(it));
        let is_worth_it = !is_read || open.waits_for_bound();
        if is_gone && is_worth_it && open.wal_bytes() >= self.wal_bounds.due {
            self.retries.hope(id);
            self.checkpoint(id);
        }
    }

    /// The first pass has ended, unless the database was closed meanwhile, which checkpoints as well.
    pub(super) fn on_first_pass(&mut self, id: DatabaseId) {
        if let Some(Slot::Open(open)) = self.slots.get_mut(&id)
            && open.checkpoint == Checkpoint::Running
        {
            open.checkpoint = Checkpoint::Due;
            self.finish_checkpoint_if_due(id);
        }
    }

    /// The second pass of a checkpoint, once commands can wait for it.
    pub(super) fn finish_checkpoint_if_due(&mut self, id: DatabaseId) {
        let path = self.path(id);
        if let Some(Slot::Open(open)) = self.slots.get_mut(&id)
            && open.checkpoint == Checkpoint::Due
            && open.here.is_some()
        {
            open.checkpoint = Checkpoint::Finishing;
            let due = self.wal_bounds.due;
            self.helper.give(Job::FinishCheckpoint { database: id, path, due });
        }
    }

    /// The second pass has ended.
    pub(super) fn on_checkpointed(
        &mut self,
        id: DatabaseId,
        moved: Moved,
        wal_bytes: Option<u64>,
        events: &mut Vec<Event>,
    ) {
        let bounds = self.wal_bounds;
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else { return };
        if open.checkpoint != Checkpoint::Finishing {
            return;
        }
        open.checkpoint = Checkpoint::Idle;
        if let Moved::Damaged(cause) = moved {
            return self.on_fault(id, Fault::Fence(cause), events);
        }
        let is_complete = moved == Moved::All;
        // If nothing was committed to what is moved, the next commit begins it anew. At the bound that must be certain.
        let is_kept = open.bound == Bound::Kept;
        let wal_bytes = wal_bytes.or_else(|| (is_complete && is_kept).then_some(0));
        if let (Some(database), Some(bytes)) = (&open.here, wal_bytes) {
            database.learn_wal_bytes(bytes);
        }
        if open.wal_bytes() < bounds.due {
            open.checkpoint_at = bounds.due;
            open.in_the_way = None;
            open.bound = Bound::Kept;
            if std::mem::take(&mut open.is_refusing) {
                events.push(Event::Strained { database: id, is_strained: false });
            }
            self.on_begun_anew(id);
            self.start_long_reads();
        } else {
            self.on_incomplete(id, &moved, events);
        }
        self.resume_batch(id, events);
    }

    /// A checkpoint has ended, and the `-wal` has not begun anew.
    fn on_incomplete(&mut self, id: DatabaseId, moved: &Moved, events: &mut Vec<Event>) {
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else { return };
        let is_complete = *moved == Moved::All;
        // Whether it was the one that was there first, or came later: it may have been in the way.
        let is_gone = std::mem::take(&mut open.has_reader_left);
        open.in_the_way = self.long_reads.oldest(id);
        let is_blocked = open.in_the_way.is_some();
        if is_gone {
            self.retries.hope(id);
        }
        match open.bound {
            // It lacked room, somebody else's reader is there, or one of ours has just left. What it gives back may be
            // what writes wait for.
            Bound::Kept if !is_blocked && (is_gone || !is_complete || self.retries.has(id)) => {
                self.checkpoint_later(id, Pain::Room, moved);
            }
            Bound::Kept => {}
            Bound::Passed { .. } if is_gone => self.checkpoint(id),
            // Its end begins the next.
            Bound::Passed { .. } if is_blocked => self.long_reads.stop_oldest(id),
            // It must have been reads on the core, which are short.
            Bound::Passed { .. } if is_complete => {
                self.checkpoint_later(id, Pain::Waiting, moved);
            }
            // What was to blame is gone: only reads that have begun since can keep it from beginning anew.
            Bound::Strained if is_complete && is_blocked => {
                self.wait_for_bound(id);
                self.long_reads.stop_oldest(id);
            }
            // The disk is full, or the reader is not ours.
            Bound::Passed { .. } | Bound::Strained => {
                self.strain(id, reason_of(moved), events);
            }
        }
    }

    /// Commands have waited for long enough.
    pub(super) fn on_bound_wait(&mut self, id: DatabaseId, at: Instant, events: &mut Vec<Event>) {
        if let Some(Slot::Open(open)) = self.slots.get(&id)
            && open.bound == (Bound::Passed { until: at })
        {
            self.strain(id, "it takes long", events);
            self.resume_batch(id, events);
        }
    }

    /// The `-wal` stays too long: refuse writes until it is not, which is tried now and then.
    fn strain(&mut self, id: DatabaseId, reason: &'static str, events: &mut Vec<Event>) {
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else { return };
        self.retries.later(id, self.clock.now(), Pain::Refused);
        self.retries.note_told(id);
        if !std::mem::replace(&mut open.is_refusing, true) {
            self.counts.wal_refusals += 1;
            warn!(
                partition = id.partition.0,
                incarnation = id.incarnation.0,
                wal_bytes = open.wal_bytes(),
                reason,
                "write-ahead log stays at its bound; writes are refused"
            );
            events.push(Event::Strained { database: id, is_strained: true });
        }
        if std::mem::replace(&mut open.bound, Bound::Strained) != Bound::Strained {
            // Those that were there at the bound; the ones that begin from now on are not to blame.
            self.long_reads.stop_of(id);
            self.start_long_reads();
        }
    }

    /// Try once more what was tried a while ago, if it is not in vain.
    pub(super) fn checkpoint_again(&mut self, id: DatabaseId) {
        let reader = self.long_reads.oldest(id);
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else { return };
        let is_kept = open.bound == Bound::Kept;
        if is_kept && reader.is_some() {
            // Its end begins the next.
            open.in_the_way = reader;
        } else if is_kept && open.wal_bytes() < self.wal_bounds.due {
            self.on_begun_anew(id);
        } else {
            self.checkpoint(id);
        }
    }

    /// A checkpoint was in vain: another, in a while.
    fn checkpoint_later(&mut self, id: DatabaseId, pain: Pain, moved: &Moved) {
        let now = self.clock.now();
        if let Some(lasts) = self.retries.later(id, now, pain) {
            let reason = reason_of(moved);
            let wal_bytes = match self.slots.get(&id) {
                Some(Slot::Open(open)) => open.wal_bytes(),
                _ => 0,
            };
            warn!(
                partition = id.partition.0,
                incarnation = id.incarnation.0,
                wal_bytes,
                reason,
                seconds = lasts.as_secs_f64(),
                "write-ahead log cannot begin anew; tried again until it can"
            );
        }
    }

    /// The `-wal` is short again.
    fn on_begun_anew(&mut self, id: DatabaseId) {
        if let Some(lasted) = self.retries.end(id, self.clock.now()) {
            info!(
                partition = id.partition.0,
                incarnation = id.incarnation.0,
                seconds = lasted.as_secs_f64(),
                "write-ahead log has begun anew"
            );
        }
    }

    /// The database is closed, which checkpoints as far as it can: the next try is when it is open again.
    pub(super) fn forget_retry(&mut self, id: DatabaseId) {
        if let Some(lasted) = self.retries.end(id, self.clock.now()) {
            info!(
                partition = id.partition.0,
                incarnation = id.incarnation.0,
                seconds = lasted.as_secs_f64(),
                "database is closed while its write-ahead log could not begin anew"
            );
        }
    }
}

/// Why a `-wal` has not begun anew, as the log has it.
fn reason_of(moved: &Moved) -> &'static str {
    match moved {
        Moved::All | Moved::Blocked => "it is being read",
        Moved::NoRoom => "no room on the disk",
        Moved::Damaged(_) => "damage",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use rustc_hash::FxHashMap;
    use tempfile::TempDir;

    use super::*;
    use crate::disk::helper::Done;
    use crate::disk::helper::Helper;
    use crate::disk::spool::Bounds;
    use crate::disk::spool::Spools;
    use crate::disk::stops::Stops;
    use crate::disk::workers::Times;
    use crate::disk::workers::Workers;
    use crate::node::clock::Clock;
    use crate::node::databases::Batch;
    use crate::node::databases::NoRoom;
    use crate::node::databases::Threads;
    use crate::node::databases::open::WalBounds;
    use crate::node::databases::path_in;
    use crate::shard::event::Token;
    use crate::sql::Entry;
    use crate::sql::testing::command;
    use crate::sql::testing::stamp;
    use crate::types::Incarnation;
    use crate::types::LogIndex;
    use crate::types::PartitionId;
    use crate::wire::command::Mode;

    const ID: DatabaseId = DatabaseId { partition: PartitionId(1), incarnation: Incarnation(1) };
    const BOUNDS: WalBounds = WalBounds { due: 64 << 10, wait: 128 << 10, max: 512 << 10 };
    const ENDLESS: &str = "WITH RECURSIVE n(x) AS (SELECT a FROM t UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";

    const INSERT: &str = "INSERT INTO t(b) VALUES (zeroblob(16000))";
    /// A reader has begun at last when so much is written.
    const WRITES_MAX: u64 = 20_000;

    /// A core's databases, and what its loop would do for them.
    struct Core {
        databases: Databases,
        done: flume::Receiver<Done>,
        events: Vec<Event>,
        index: u64,
        clock: Clock,
        folder: TempDir,
    }

    impl Core {
        /// A database with a table.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = path_in(folder.path(), ID);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let (report, done) = flume::unbounded();
            let report = move |it| drop(report.send(it));
            let times = Times { statement: Duration::from_secs(100), slow_statement: None };
            let (stops, clock) = (Stops::of(folder.path()), Clock::start());
            let bounds = Bounds { files: 9, bytes: 1 << 30, unwritten: 1 << 30, reserve: 0 };
            let spools = Spools::start(folder.path().to_owned(), bounds);
            let helper = Helper::start(report.clone());
            let workers = Workers::start(&stops, times, spools, move || clock.now(), report);
            let threads = Threads { helper, workers };
            let (floors, bytes) = (FxHashMap::default(), FxHashMap::default());
            let dir = folder.path().to_owned();
            let mut databases = Databases::new(dir, floors, bytes, 9, times, clock, threads);
            databases.wal_bounds = BOUNDS;
            let mut core = Self { databases, done, events: Vec::new(), index: 0, clock, folder };
            core.write("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
            core.until("it is open", |it| it.n_applied() == 1);
            core.write("INSERT INTO t VALUES (1, 7)");
            core
        }

        fn write(&mut self, sql: &str) {
            self.index += 1;
            let command = command(Mode::Exec, sql, &[], &stamp(1));
            self.databases.apply(ID, vec![(LogIndex(self.index), command)], &mut self.events);
        }

        fn read(&mut self, token: u64, sql: &str) {
            let command: Bytes = command(Mode::Query, sql, &[], &stamp(1));
            self.databases.read(ID, Token(token), command, &mut self.events);
            self.databases.run_reads(&mut self.events);
        }

        /// Write, one command after the other, until the last has to wait at the bound.
        fn fill_to_the_bound(&mut self) {
            while !self.open().waits_for_bound() {
                assert!(self.index < WRITES_MAX, "the bound is never met");
                self.write(INSERT);
                self.until("it is applied, or has to wait", |it| {
                    it.n_applied() == it.index || it.open().waits_for_bound()
                });
            }
            self.write(INSERT);
            assert_eq!(self.n_applied(), self.index - 1);
        }

        fn n_applied(&self) -> u64 {
            let n = self.events.iter().map(|it| match it {
                Event::Applied { applied, .. } => applied.len() as u64,
                _ => 0,
            });
            n.sum()
        }

        fn strains(&self) -> Vec<bool> {
            let strains = self.events.iter().filter_map(|it| match it {
                Event::Strained { is_strained, .. } => Some(*is_strained),
                _ => None,
            });
            strains.collect()
        }

        fn answers(&self) -> Vec<(u64, String)> {
            let answers = self.events.iter().filter_map(|it| match it {
                Event::ReadFinished { token, outcome: Err(error), .. } => {
                    Some((token.0, format!("{error:?}")))
                }
                Event::ReadFinished { token, .. } => Some((token.0, String::new())),
                _ => None,
            });
            answers.collect()
        }

        fn open_mut(&mut self) -> &mut crate::node::databases::Open {
            let Some(Slot::Open(open)) = self.databases.slots.get_mut(&ID) else { unreachable!() };
            open
        }

        /// At the bound, with the second pass of a checkpoint under way.
        fn finishing_at_the_bound() -> Self {
            let mut core = Self::new();
            core.until("all is applied", |it| it.n_applied() == it.index);
            core.databases.wait_for_bound(ID);
            let open = core.open_mut();
            open.here.as_ref().unwrap().learn_wal_bytes(BOUNDS.max + 1);
            open.checkpoint = Checkpoint::Finishing;
            core
        }

        /// Write past what nobody keeps from beginning anew, to where no checkpoint is under way.
        fn pin(&mut self) {
            while self.open().wal_bytes() < BOUNDS.due + 2 * BOUNDS.wait {
                assert!(self.index < WRITES_MAX, "the -wal does not grow");
                self.write(INSERT);
                self.until("it is applied", |it| it.n_applied() == it.index);
            }
            self.until("no checkpoint", |it| it.open().checkpoint == Checkpoint::Idle);
        }

        fn open(&self) -> &crate::node::databases::Open {
            let Some(Slot::Open(open)) = self.databases.slots.get(&ID) else { unreachable!() };
            open
        }

        /// Take in what the threads have done, until that.
        fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
            while !is_so(self) {
                let done = self.done.recv_timeout(Duration::from_secs(20));
                let done = done.unwrap_or_else(|_| panic!("never: {what}"));
                self.databases.on_done(done, &mut self.events);
                while self.databases.has_work() {
                    self.databases.go_on(&mut self.events);
                    self.databases.run_reads(&mut self.events);
                }
            }
        }

        /// So much later.
        fn after(&mut self, time: Duration) {
            self.databases.next_timeout();
            let now = self.clock.now().after(time);
            self.databases.on_timeout(now, &mut self.events);
        }
    }

    #[test]
    fn at_the_bound_commands_wait_for_the_reader_to_go_and_nobody_is_refused() {
        let mut core = Core::new();
        core.read(1, ENDLESS);
        core.fill_to_the_bound();
        core.read(2, ENDLESS);
        assert_eq!(core.databases.long_reads.load().1, 1, "a read began at the bound");
        core.until("all is applied", |it| it.n_applied() == it.index);
        assert!(core.open().wal_bytes() < BOUNDS.due, "{:?}", core.open());
        assert_eq!(core.databases.long_reads.load(), (1, 0));
        assert_eq!(core.answers().len(), 1);
        assert!(core.answers()[0].1.contains("busy"), "{:?}", core.answers());
        assert!(core.strains().is_empty());
        assert_eq!(core.open().bound, Bound::Kept);
    }

    #[test]
    fn what_nobody_here_can_end_is_not_waited_for_and_ends_by_itself() {
        let mut core = Core::new();
        let foreign = rusqlite::Connection::open(path_in(core.folder.path(), ID)).unwrap();
        foreign.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        core.fill_to_the_bound();
        core.until("writes are refused", |it| it.strains() == [true]);
        core.until("what was taken is applied", |it| it.n_applied() == it.index);
        core.read(1, "SELECT count(*) FROM t");
        assert_eq!(core.answers(), [(1, String::new())]);
        core.until("a checkpoint was tried", |it| it.open().checkpoint == Checkpoint::Idle);
        core.after(limits::ROOM_RETRY);
        assert_eq!(core.open().checkpoint, Checkpoint::Running);
        core.write(INSERT);
        assert!(core.open().batch.is_none(), "a command waits for what does not end");
        core.until("it is applied", |it| it.n_applied() == it.index);
        core.read(2, ENDLESS);
        for _ in 0..20 {
            core.until("a checkpoint was tried", |it| it.open().checkpoint == Checkpoint::Idle);
            let n = core.databases.counts.checkpoints;
            core.after(limits::CHECKPOINT_RETRY_REFUSING_MAX);
            assert_eq!(core.databases.counts.checkpoints, n + 1);
        }
        assert_eq!(core.strains(), [true]);
        assert_eq!(core.answers().len(), 1, "a read is stopped that is not in the way");
        core.until("a checkpoint was tried", |it| it.open().checkpoint == Checkpoint::Idle);
        foreign.execute_batch("COMMIT").unwrap();
        core.after(limits::CHECKPOINT_RETRY_REFUSING_MAX);
        core.until("writes are taken again", |it| it.strains() == [true, false]);
        assert!(core.open().wal_bytes() < BOUNDS.due, "{:?}", core.open());
        let counts = core.databases.counts;
        assert_eq!((counts.wal_waits, counts.wal_refusals), (1, 1));
    }

    #[test]
    fn a_reader_that_came_and_went_may_have_been_in_the_way() {
        let mut core = Core::finishing_at_the_bound();
        core.databases.on_reader_gone(ID);
        core.databases.on_checkpointed(ID, Moved::NoRoom, None, &mut core.events);
        assert_eq!(core.open().checkpoint, Checkpoint::Running);
        core.until("the -wal begins anew", |it| it.open().bound == Bound::Kept);
        assert!(core.strains().is_empty());
    }

    #[test]
    fn that_a_log_has_begun_anew_is_not_guessed_at_the_bound() {
        let mut core = Core::finishing_at_the_bound();
        core.databases.on_checkpointed(ID, Moved::All, None, &mut core.events);
        assert!(core.open().wal_bytes() > BOUNDS.due, "{:?}", core.open());
        assert!(core.open().waits_for_bound());
        core.after(limits::ROOM_RETRY);
        core.until("the -wal begins anew", |it| it.open().bound == Bound::Kept);
        assert!(core.strains().is_empty());
    }

    #[test]
    fn a_checkpoint_that_found_no_room_is_tried_again_without_a_write() {
        let mut core = Core::new();
        core.databases.wal_bounds.max = u64::MAX;
        core.read(1, ENDLESS);
        core.pin();
        // It was tried in vain for long.
        for _ in 0..9 {
            core.databases.checkpoint_later(ID, Pain::Room, &Moved::NoRoom);
            core.databases.retries.take_due(Instant::START.after(Duration::from_hours(9)));
        }
        core.databases.long_reads.stop_oldest(ID);
        core.until("it has ended", |it| it.answers().len() == 1);
        // Its end begins one; this is what a full disk makes of it.
        core.until("its second pass", |it| it.open().checkpoint != Checkpoint::Running);
        core.open_mut().checkpoint = Checkpoint::Finishing;
        let wal_bytes = core.open().wal_bytes();
        core.databases.on_checkpointed(ID, Moved::NoRoom, None, &mut core.events);
        assert_eq!(core.open().checkpoint, Checkpoint::Idle);
        core.open().here.as_ref().unwrap().learn_wal_bytes(wal_bytes);
        let n = core.databases.counts.checkpoints;
        core.after(limits::ROOM_RETRY);
        assert_eq!(core.databases.counts.checkpoints, n + 1);
        core.until("the -wal begins anew", |it| it.open().wal_bytes() < BOUNDS.due);
    }

    #[test]
    fn somebody_elses_reader_is_looked_after_less_and_less_often() {
        let mut core = Core::new();
        core.databases.wal_bounds.max = u64::MAX;
        let foreign = rusqlite::Connection::open(path_in(core.folder.path(), ID)).unwrap();
        foreign.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        core.pin();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let n = core.databases.counts.checkpoints;
            let before = core.clock.now();
            core.databases.checkpoint_later(ID, Pain::Room, &Moved::Blocked);
            let next = core.databases.next_timeout().unwrap();
            pauses.push(next.since(before) >= limits::CHECKPOINT_RETRY_MAX);
            core.databases.on_timeout(next, &mut core.events);
            assert_eq!(core.databases.counts.checkpoints, n + 1);
            core.until("it was tried", |it| it.open().checkpoint == Checkpoint::Idle);
            core.databases.retries.take_due(next.after(limits::CHECKPOINT_RETRY_MAX * 2));
        }
        assert!(!pauses[0] && pauses[7], "{pauses:?}");
        assert_eq!(core.databases.present().checkpoints_overdue, 1);
        assert!(core.strains().is_empty());
        core.databases.checkpoint_later(ID, Pain::Room, &Moved::Blocked);
        foreign.execute_batch("COMMIT").unwrap();
        core.after(limits::CHECKPOINT_RETRY_MAX);
        core.until("the -wal begins anew", |it| it.open().wal_bytes() < BOUNDS.due);
        assert!(core.databases.retries.is_empty());
    }

    #[test]
    fn committed_commands_wait_for_room_and_not_for_checkpoints() {
        let mut core = Core::new();
        core.until("all is applied", |it| it.n_applied() == it.index);
        let now = core.clock.now();
        for n in 2..1_000 {
            let other = DatabaseId { incarnation: Incarnation(n), ..ID };
            core.databases.retries.later(other, now, Pain::Refused);
        }
        core.index += 1;
        let command = command(Mode::Exec, INSERT, &[], &stamp(1));
        let entries = vec![Entry { index: LogIndex(core.index), command }];
        core.databases.no_room.push(NoRoom::Apply(ID, Batch { entries }));
        core.after(limits::ROOM_RETRY);
        assert!(core.databases.no_room.is_empty());
        core.until("it is applied", |it| it.n_applied() == it.index);
    }

    #[test]
    fn damage_that_a_checkpoint_finds_fences_the_database() {
        let mut core = Core::new();
        core.until("all is applied", |it| it.n_applied() == it.index);
        core.databases.checkpoint_later(ID, Pain::Room, &Moved::Blocked);
        core.open_mut().checkpoint = Checkpoint::Finishing;
        let damaged = Moved::Damaged("it is".to_owned());
        core.databases.on_checkpointed(ID, damaged, None, &mut core.events);
        let is_fence = |it: &Event| matches!(it, Event::Fenced { database } if *database == ID);
        assert_eq!(core.events.iter().filter(|it| is_fence(it)).count(), 1);
        assert_eq!(core.databases.n_fenced(), 1);
        assert!(core.databases.retries.is_empty(), "it is tried no more");
    }

    #[test]
    fn what_begins_anew_by_itself_or_is_closed_is_tried_no_more() {
        let mut core = Core::new();
        core.until("all is applied", |it| it.n_applied() == it.index);
        core.databases.checkpoint_later(ID, Pain::Room, &Moved::NoRoom);
        core.write(INSERT);
        core.until("it is applied", |it| it.n_applied() == it.index);
        assert!(core.databases.retries.is_empty(), "it is short");
        core.databases.checkpoint_later(ID, Pain::Room, &Moved::NoRoom);
        core.databases.evict(ID, &mut core.events);
        assert!(core.databases.retries.is_empty(), "it is closed");
    }

    #[test]
    fn no_checkpoint_is_begun_where_another_reader_is_in_the_way() {
        let mut core = Core::new();
        core.databases.wal_bounds.max = u64::MAX;
        core.read(1, ENDLESS);
        core.read(2, ENDLESS);
        core.pin();
        let n = core.databases.counts.checkpoints;
        core.databases.long_reads.stop_oldest(ID);
        core.until("one has ended", |it| it.answers().len() == 1);
        core.after(limits::ROOM_RETRY);
        assert_eq!(core.databases.counts.checkpoints, n);
        core.databases.long_reads.stop_oldest(ID);
        core.until("the -wal begins anew", |it| it.open().wal_bytes() < BOUNDS.due);
    }

    #[test]
    fn nobody_waits_at_the_bound_for_longer_than_a_moment() {
        let mut core = Core::new();
        core.read(1, ENDLESS);
        core.fill_to_the_bound();
        let until = core.databases.bound_waits[0].0;
        core.databases.on_timeout(Instant::START, &mut core.events);
        assert!(core.strains().is_empty());
        assert!(core.databases.next_timeout().unwrap() <= until);
        core.databases.on_timeout(until, &mut core.events);
        assert_eq!(core.strains(), [true]);
        core.until("writes are taken again", |it| it.strains() == [true, false]);
        core.until("what was taken is applied", |it| it.n_applied() == it.index);
    }

    #[test]
    fn the_end_of_a_reader_is_enough_for_a_checkpoint() {
        let mut core = Core::new();
        core.databases.wal_bounds.max = u64::MAX;
        core.read(1, ENDLESS);
        core.pin();
        assert!(core.answers().is_empty());
        core.databases.long_reads.stop_all();
        core.until("the -wal begins anew", |it| it.open().wal_bytes() < BOUNDS.due);
        assert_eq!(core.answers().len(), 1);
    }
}
