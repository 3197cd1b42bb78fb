//! One database that is open: where its connection is, and how its `-wal` is doing (R21, R23).

use crate::limits;
use crate::node::databases::Batch;
use crate::shard::event::Token;
use crate::sql::Database;
use crate::types::Instant;

/// Bytes of a `-wal` at which something is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct WalBounds {
    /// A checkpoint is due, and again each time that it has grown by as much.
    pub(super) due: u64,
    /// It may grow by so much during a checkpoint before commands wait.
    pub(super) wait: u64,
    /// Its bound.
    pub(super) max: u64,
}

impl WalBounds {
    /// With this bound for all.
    pub(super) fn up_to(max: u64) -> Self {
        Self { due: limits::WAL_BYTES, wait: limits::WAL_BYTES_WAIT, max }
    }
}

/// A database that is open.
#[derive(Debug)]
pub(super) struct Open {
    /// Its connection; none while a thread has it.
    pub(super) here: Option<Box<Database>>,
    /// Bytes of its `-wal` when a thread took it.
    pub(super) wal_bytes_before: u64,
    /// What waits until commands may run again, or what the thread was given has run.
    pub(super) batch: Option<Batch>,
    /// How often in a row the lock was not to be had.
    pub(super) n_busy: u32,
    pub(super) checkpoint: Checkpoint,
    /// Bytes of the `-wal` at which the next checkpoint is due.
    pub(super) checkpoint_at: u64,
    /// Bytes of the `-wal` at which commands wait for the checkpoint that is under way.
    pub(super) wait_at: u64,
    /// The oldest read on a thread when the last checkpoint began, unless the `-wal` has begun anew since.
    pub(super) in_the_way: Option<Token>,
    /// A read on a thread has ended since the checkpoint began that is under way.
    pub(super) has_reader_left: bool,
    pub(super) bound: Bound,
    /// Writes are refused, until the `-wal` has begun anew.
    pub(super) is_refusing: bool,
}

/// How far a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checkpoint {
    Idle,
    /// The first pass: commands go on.
    Running,
    /// The first pass has ended while a thread had the connection.
    Due,
    /// The second: no commands meanwhile.
    Finishing,
}

/// Whether a `-wal` keeps its bound (R23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Kept,
    /// No: commands wait until it does again, for a moment.
    Passed {
        until: Instant,
    },
    /// Nor did that help: writes are refused, and those that were taken before go on.
    Strained,
}

impl Open {
    pub(super) fn new(database: Box<Database>, bounds: WalBounds) -> Self {
        Self {
            here: Some(database),
            wal_bytes_before: 0,
            batch: None,
            n_busy: 0,
            checkpoint: Checkpoint::Idle,
            checkpoint_at: bounds.due,
            wait_at: bounds.max,
            in_the_way: None,
            has_reader_left: false,
            bound: Bound::Kept,
            is_refusing: false,
        }
    }

    /// Whether commands may run: a connection is here, and nothing is waited for.
    pub(super) fn is_ready(&self) -> bool {
        if self.waits_for_bound() {
            return false;
        }
        match self.checkpoint {
            Checkpoint::Idle => self.here.is_some(),
            // Nothing is left to wait for where it is too long for good.
            Checkpoint::Running | Checkpoint::Due => {
                let may_grow =
                    |it: &Database| self.bound == Bound::Strained || it.wal_bytes() <= self.wait_at;
                self.here.as_deref().is_some_and(may_grow)
            }
            Checkpoint::Finishing => false,
        }
    }

    /// Whether the `-wal` is expected to keep its bound in a moment.
    pub(super) fn waits_for_bound(&self) -> bool {
        matches!(self.bound, Bound::Passed { .. })
    }

    /// Bytes of its `-wal`: as of the last commit here, while a thread has it.
    pub(super) fn wal_bytes(&self) -> u64 {
        self.here.as_ref().map_or(self.wal_bytes_before, |it| it.wal_bytes())
    }
}
