//! Applying a batch of commands: how they are cut into transactions, without its ever showing (R14).
//!
//! Many commands share one transaction, and the applied index is written once for them. A command of one
//! statement needs no mark of its own: a statement that fails undoes itself. A command of several gets a
//! SAVEPOINT.
//!
//! Some things undo the whole transaction, whatever marks there are: `OR ROLLBACK`, `RAISE(ROLLBACK)`, a
//! statement stopped in the middle, a failed COMMIT; others are only known to be wrong when they are done.
//! One path serves all of them: roll back, run the commands before the offender again in a transaction of
//! their own, then the offender alone, where to undo it is to roll back. A change of the schema is run
//! alone from the start.

use bytes::Bytes;

use crate::sql::connection;
use crate::sql::connection::EngineError;
use crate::sql::context;
use crate::sql::database::Ask;
use crate::sql::database::Database;
use crate::sql::database::Share;
use crate::sql::fault::Fault;
use crate::sql::run::Run;
use crate::sql::running::Setting;
use crate::types::DatabaseSize;
use crate::types::LogIndex;
use crate::wire::rows::Outcome;
use crate::wire::rows::StatementError;

/// A committed entry of the log that concerns one database.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the log.
    pub index: LogIndex,
    /// The command, encoded.
    pub command: Bytes,
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// The database had it already.
    Skipped,
    /// It was applied, now.
    Done(Outcome),
    /// It was applied, now, and had no effect: a command with the same idempotency key gave this (R18).
    Replayed(Outcome),
}

/// Why the rest of a batch has not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There is none.
    None,
    /// Another connection held the lock: to be handed in again (R21).
    Busy,
    /// It takes, or may take, longer than its caller gives it: to be handed in where there is time (R13).
    Long,
    /// The disk is full. Nothing of it was decided: to be handed in again when there may be room (R35).
    NoRoom,
    /// Its caller had had enough before it began: to be handed in again.
    Later,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// What became of the entries, in order.
    pub applied: Vec<Applied>,
    /// Why the entries for which `applied` has no element have not run.
    pub rest: Rest,
    /// How large the database is now.
    pub size: DatabaseSize,
}

/// How much may run.
struct Pace<'a> {
    share: Share,
    enough: &'a mut dyn FnMut(Ask) -> bool,
}

/// What became of a command in a transaction of its own.
enum Alone {
    Done(Applied),
    /// It has no effect, and is not recorded.
    Left(Rest),
    /// As above; it is to run again where its values may be longer.
    Larger,
}

/// Why a transaction could not be committed.
enum NotCommitted {
    /// The database or the machine is sick.
    Fault(Fault),
    /// A statement made it fail.
    Statement(StatementError),
}

impl Database {
    /// Apply `entries`, whose indexes rise. Those up to [`Self::applied`] are skipped. What is returned as
    /// done has been committed, though not synced. After an error the database is to be dropped.
    pub fn apply(&mut self, entries: &[Entry]) -> Result<Batch, Fault> {
        self.apply_within(entries, Share::Whole, &mut |_| false)
    }

    /// Apply `entries` as far as `share` and `enough` let them run; see [`Self::apply`]. What was given up
    /// has no effect.
    pub fn apply_within(
        &mut self,
        entries: &[Entry],
        share: Share,
        enough: &mut dyn FnMut(Ask) -> bool,
    ) -> Result<Batch, Fault> {
        let rises = entries.is_sorted_by(|a, b| a.index < b.index);
        assert!(rises, "entries come in the order of the log");
        context::idle();
        context::set_has_time(share == Share::Whole);
        let n_skipped = entries.partition_point(|it| it.index <= self.applied);
        let mut applied = vec![Applied::Skipped; n_skipped];
        applied.reserve(entries.len() - n_skipped);
        let mut pace = Pace { share, enough };
        let rest = match self.apply_new(&entries[n_skipped..], &mut pace, &mut applied) {
            Err(Fault::NoRoom(_)) => {
                self.recover_from_no_room(share)?;
                Rest::NoRoom
            }
            rest => rest?,
        };
        if share == Share::Whole && rest != Rest::NoRoom {
            // Here, where there is time.
            self.freshen_if_possible()?;
        }
        Ok(Batch { applied, rest, size: self.size })
    }

    /// The disk was full in the middle of a transaction. Nothing of it counts, and why that is so:
    /// - A result is given only for what has been committed, so none was given.
    /// - SQLite's commit is the header of the wal-index, written last, in memory. Frames that reached the
    ///   `-wal` before are behind the end that it names; the next transaction overwrites them.
    /// - After a crash the `-wal` may turn out to end with a whole transaction all the same: its last frame was
    ///   written, and only the wal-index had no room for it. It then holds what its commands do, and their
    ///   index, and replay skips them.
    /// - No result followed from the disk: a command during which a write found no room is never committed,
    ///   whatever became of its statements ([`Self::run_entry`]).
    ///
    /// The connection begins anew, so that nothing depends on what SQLite remembers of an error: now if there is
    /// time, for opening one reads the schema; or before it is used again, if that needs room as well.
    fn recover_from_no_room(&mut self, share: Share) -> Result<(), Fault> {
        context::idle();
        self.roll_back_if_open()?;
        self.is_worn = true;
        match share {
            Share::Inline => Ok(()),
            Share::Whole => self.renew_if_worn().map(|_| ()),
        }
    }

    /// Whether the connection may write.
    fn renew_if_worn(&mut self) -> Result<bool, Fault> {
        if self.is_worn {
            context::idle();
            match self.reconnect() {
                Ok(()) => {}
                Err(Fault::NoRoom(_)) => return Ok(false),
                Err(fault) => return Err(fault),
            }
        }
        Ok(true)
    }

    fn apply_new(
        &mut self,
        mut entries: &[Entry],
        pace: &mut Pace<'_>,
        out: &mut Vec<Applied>,
    ) -> Result<Rest, Fault> {
        if entries.is_empty() {
            return Ok(Rest::None);
        }
        if self.is_worn && pace.share == Share::Inline {
            return Ok(Rest::Long);
        }
        if !self.renew_if_worn()? {
            return Ok(Rest::NoRoom);
        }
        let mut must_be_alone = vec![false; entries.len()];
        // Outcomes of the transaction at hand: those of `entries[start..at]`.
        let mut staged: Vec<Applied> = Vec::with_capacity(entries.len());
        let (mut start, mut at) = (0, 0);
        let mut rest = Rest::None;
        while start < entries.len() {
            let next = entries.get(at);
            let has_virtual_tables = self.shape.virtual_tables > 0;
            let is_alone = next.is_some() && (must_be_alone[at] || has_virtual_tables);
            if next.is_none() || (is_alone && !staged.is_empty()) {
                match self.commit(entries[at - 1].index) {
                    Ok(()) => {
                        out.append(&mut staged);
                        start = at;
                    }
                    Err(NotCommitted::Fault(fault)) => return Err(fault),
                    Err(NotCommitted::Statement(_)) => {
                        // One of them is to blame; alone it will have the error to itself.
                        self.roll_back_if_open()?;
                        must_be_alone[start..at].fill(true);
                        staged.clear();
                        at = start;
                    }
                }
                continue;
            }
            let left = if (pace.enough)(Ask::Begin) {
                Some(Rest::Later)
            } else if is_alone && has_virtual_tables && pace.share == Share::Inline {
                Some(Rest::Long)
            } else {
                None
            };
            if let Some(left) = left {
                (entries, rest) = (&entries[..at], left);
                continue;
            }
            let entry = &entries[at];
            if is_alone {
                match self.apply_in_tiers(entry, pace)? {
                    Alone::Done(applied) => out.push(applied),
                    Alone::Left(rest) => return Ok(rest),
                    Alone::Larger => unreachable!("the last tier has no bound of its own"),
                }
                at += 1;
                start = at;
                continue;
            }
            if staged.is_empty() {
                match self.engine.begin() {
                    Ok(()) => {}
                    Err(EngineError::Busy) => return Ok(Rest::Busy),
                    Err(error) => return Err(connection::fault_of(error, "begin")),
                }
            }
            match self.run_watched(entry, Setting::Shared, pace)? {
                Run::Done(outcome) => {
                    staged.push(Applied::Done(outcome));
                    at += 1;
                }
                Run::Decided(applied) => {
                    staged.push(applied);
                    at += 1;
                }
                Run::Alone => {
                    must_be_alone[at] = true;
                    if staged.is_empty() {
                        self.engine.rollback()?;
                    }
                }
                Run::Larger => unreachable!("only alone a command gets that far"),
                Run::Undone => {
                    self.roll_back_if_open()?;
                    must_be_alone[at] = true;
                    staged.clear();
                    at = start;
                }
                Run::Long { has_run } => {
                    if has_run || staged.is_empty() {
                        // Those before it go where it goes: running them here once more takes as long.
                        self.roll_back_if_open()?;
                        staged.clear();
                        at = start;
                    }
                    (entries, rest) = (&entries[..at], Rest::Long);
                }
            }
        }
        Ok(rest)
    }

    fn run_watched(
        &mut self,
        entry: &Entry,
        setting: Setting,
        pace: &mut Pace<'_>,
    ) -> Result<Run, Fault> {
        let (handle, share) = (self.handle, pace.share);
        if self.has_stale_schema && share == Share::Inline {
            return Ok(Run::Long { has_run: false });
        }
        self.freshen()?;
        handle.with_watch(true, pace.enough, || self.run_entry(entry, setting, share))
    }

    /// Apply one command in a transaction of its own; again with longer values, while it meets some.
    fn apply_in_tiers(&mut self, entry: &Entry, pace: &mut Pace<'_>) -> Result<Alone, Fault> {
        loop {
            let ended = self.apply_alone(entry, pace);
            if !matches!(ended, Ok(Alone::Larger)) {
                self.tier = 0;
                return ended;
            }
            self.tier += 1;
        }
    }

    fn apply_alone(&mut self, entry: &Entry, pace: &mut Pace<'_>) -> Result<Alone, Fault> {
        match self.engine.begin() {
            Ok(()) => {}
            Err(EngineError::Busy) => return Ok(Alone::Left(Rest::Busy)),
            Err(error) => return Err(connection::fault_of(error, "begin")),
        }
        let outcome = match self.run_watched(entry, Setting::Alone, pace)? {
            Run::Done(outcome) => outcome,
            Run::Decided(applied) => {
                self.commit_alone(entry.index)?;
                return Ok(Alone::Done(applied));
            }
            Run::Long { .. } => {
                self.undo_alone()?;
                return Ok(Alone::Left(Rest::Long));
            }
            Run::Larger => {
                // A new connection, if one was needed, begins with the first tier.
                let tier = self.tier;
                self.undo_alone()?;
                self.tier = tier;
                return Ok(Alone::Larger);
            }
            Run::Alone | Run::Undone => unreachable!("alone, a command is done or fails"),
        };
        let error = match outcome {
            Ok(results) => match self.commit(entry.index) {
                Ok(()) => {
                    self.has_stale_schema |= self.has_changed_schema;
                    return Ok(Alone::Done(Applied::Done(Ok(results))));
                }
                Err(NotCommitted::Fault(fault)) => return Err(fault),
                Err(NotCommitted::Statement(error)) => error,
            },
            Err(error) => error,
        };
        self.undo_alone()?;
        // That it failed is a result, and applying it again would only repeat it.
        match self.engine.begin() {
            Ok(()) => {}
            Err(EngineError::Busy) => return Ok(Alone::Left(Rest::Busy)),
            Err(error) => return Err(connection::fault_of(error, "begin")),
        }
        let outcome = Err(error);
        self.keep_entry(entry, &outcome)?;
        self.commit_alone(entry.index)?;
        Ok(Alone::Done(Applied::Done(outcome)))
    }

    /// Commit a transaction in which no statement of a tenant has an effect.
    fn commit_alone(&mut self, index: LogIndex) -> Result<(), Fault> {
        self.commit(index).map_err(|error| match error {
            NotCommitted::Fault(fault) => fault,
            NotCommitted::Statement(error) => Fault::Stop(format!("record a command: {error}")),
        })
    }

    /// Undo a command that has its transaction to itself.
    fn undo_alone(&mut self) -> Result<(), Fault> {
        self.roll_back_if_open()?;
        if self.has_changed_schema {
            self.reconnect()
        } else if self.shape.virtual_tables > 0 {
            // What they remember of their settings outlives a rollback, too.
            self.forget_schema()
        } else {
            Ok(())
        }
    }

    /// Commit what ran since the transaction began, with the fact that all up to `index` is applied.
    fn commit(&mut self, index: LogIndex) -> Result<(), NotCommitted> {
        let mut size = self.size;
        let committed = self.engine.record(index).and_then(|()| {
            // What virtual tables write at the end counts from the next time on.
            size = self.engine.size().map_err(EngineError::Fault)?;
            self.engine.commit()
        });
        match committed {
            Ok(()) => {
                self.applied = index;
                self.size = size;
                Ok(())
            }
            Err(EngineError::Statement(error)) => {
                Err(NotCommitted::Statement(StatementError::new(error.message)))
            }
            Err(error) => Err(NotCommitted::Fault(connection::fault_of(error, "commit"))),
        }
    }

    fn roll_back_if_open(&mut self) -> Result<(), Fault> {
        self.engine.rollback_if_open(self.handle)
    }
}

#[cfg(test)]
mod tests;
