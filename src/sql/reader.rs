//! A second connection to a database, which only reads: for statements that take long (R13).
//!
//! It sees what was committed when a read begins, whatever the writing connection does meanwhile. Opened,
//! used and dropped on threads that have time; the core only keeps it in between.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rusqlite::InterruptHandle;
use rusqlite::OpenFlags;

use crate::sql::connection::Role;
use crate::sql::database::Ask;
use crate::sql::database::Database;
use crate::sql::database::OpenError;
use crate::sql::fault::Fault;
use crate::sql::vfs::Vfs;
use crate::wire::rows::Outcome;
use crate::wire::rows::StatementError;
use crate::wire::spool::Spill;

/// A connection that only reads.
#[derive(Debug)]
pub struct Reader(Database);

/// What a long read gave.
#[derive(Debug)]
pub struct LongRead {
    /// Its outcome.
    pub outcome: Outcome,
    /// It was not long after all: what [`Database::learn`] wants to know of it.
    pub learned: Option<u64>,
    /// The connection may be used again. One that was stopped may have read a part of the
    /// schema's statistics only, and plans badly.
    pub is_fit: bool,
}

impl Reader {
    /// Connect to the database at `path`, which another connection has open for writing.
    pub fn open(path: &Path, vfs: Vfs, role: Role) -> Result<Self, OpenError> {
        Database::connect(path, vfs, role, OpenFlags::SQLITE_OPEN_READ_ONLY).map(Self)
    }

    /// Run one command, until `is_late` says so, or `brake` is pulled. What of its results is too much for memory goes
    /// to `spill`; without one it stays there.
    pub fn read(
        &mut self,
        command: &Bytes,
        brake: &Brake,
        is_late: &mut dyn FnMut() -> bool,
        spill: Option<Box<dyn Spill>>,
    ) -> Result<LongRead, Fault> {
        // What nothing counts (`count(*)` of a large table) can be stopped only like this.
        let _ = brake.handle.set(self.0.interrupt_handle());
        self.0.learned = None;
        if let Some(why) = brake.pulled() {
            let outcome = Err(why.told().unwrap_or_else(|| {
                StatementError::coded("busy", "read was stopped before it began")
            }));
            return Ok(LongRead { outcome, learned: None, is_fit: true });
        }
        let mut was_late = false;
        let mut enough = |ask| {
            was_late |= ask == Ask::Tick && is_late();
            was_late || (ask == Ask::Tick && brake.pulled().is_some())
        };
        self.0.spill = spill;
        let ran = self.0.read(std::slice::from_ref(command), &mut enough);
        self.0.spill = None;
        let ran = ran?;
        let mut outcome = ran.into_iter().next().expect("one command has one outcome");
        if outcome.is_err()
            && let Some(error) = brake.pulled().and_then(Why::told)
        {
            outcome = Err(error);
        }
        let is_fit = brake.pulled().is_none() && !was_late;
        Ok(LongRead { outcome, learned: self.0.learned.take(), is_fit })
    }
}

/// Why a read is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has had the time that statements have.
    Late,
    /// The log of its database cannot start anew because of it, and is too long (R23).
    Log,
    /// The node ends.
    End,
    /// Its database is damaged.
    Fence,
}

impl Why {
    /// What the client of a read that was stopped is told; none if that is what the statement says itself.
    fn told(self) -> Option<StatementError> {
        let (code, message) = match self {
            Self::Late => return None,
            Self::Log => {
                ("busy", "read was stopped: the log of its database grew too long meanwhile")
            }
            Self::End => ("busy", "read was stopped: the node is shutting down"),
            Self::Fence => ("fenced", "namespace is fenced: its database is damaged"),
        };
        Some(StatementError::coded(code, message))
    }
}

/// Stops one read, from any thread.
#[derive(Default)]
pub struct Brake {
    handle: OnceLock<InterruptHandle>,
    /// Zero, or one more than the [`Why`].
    why: AtomicU8,
}

impl fmt::Debug for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brake").field("why", &self.why).finish_non_exhaustive()
    }
}

impl Brake {
    /// One that nobody has pulled.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Stop the read; the first reason counts.
    pub fn pull(&self, why: Why) {
        let code = match why {
            Why::Late => 1,
            Why::Log => 2,
            Why::End => 3,
            Why::Fence => 4,
        };
        // It only has to arrive at some time.
        let _ = self.why.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed);
        if let Some(handle) = self.handle.get() {
            handle.interrupt();
        }
    }

    fn pulled(&self) -> Option<Why> {
        match self.why.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Why::Late),
            2 => Some(Why::Log),
            3 => Some(Why::End),
            _ => Some(Why::Fence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::testing::Fixture;
    use crate::sql::testing::command;
    use crate::sql::testing::print;
    use crate::sql::testing::stamp;
    use crate::wire::command::Mode;

    #[test]
    fn a_read_that_is_stopped_says_why() {
        let fixture = Fixture::new();
        let path = fixture.folder.path().join("1.db");
        let mut reader = Reader::open(&path, Vfs::system(), Role::Tenant).unwrap();
        let endless =
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c";
        let command = command(Mode::Query, endless, &[], &stamp(1));
        for (why, want) in [
            (Why::Late, "error statement_ms: statement took too long"),
            (
                Why::Log,
                "error busy: read was stopped: the log of its database grew too long meanwhile",
            ),
            (Why::End, "error busy: read was stopped: the node is shutting down"),
            (Why::Fence, "error fenced: namespace is fenced: its database is damaged"),
        ] {
            let brake = Brake::new();
            let mut pull = || {
                brake.pull(why);
                false
            };
            let read = reader.read(&command, &brake, &mut pull, None).unwrap();
            assert_eq!((print(&read.outcome), read.is_fit), (want.to_owned(), false));
        }
        let mut late = || true;
        let read = reader.read(&command, &Brake::new(), &mut late, None).unwrap();
        assert_eq!(print(&read.outcome), "error statement_ms: statement took too long");
    }
}
