//! What SQLite's return codes mean for a replica: the statement's error, a sick machine, a sick file (R15).

use std::ffi::CStr;
use std::ffi::c_int;

use rusqlite::ffi;

use crate::sql::context;
use crate::sql::context::Trouble;

/// Why a replica cannot go on with this database. Never the fault of a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The machine is sick: stop the process. What was applied is not known to be complete.
    #[error("the machine failed: {0}")]
    Stop(String),
    /// The file is damaged or missing: fence this database's replica and fetch it again.
    #[error("the database is damaged: {0}")]
    Fence(String),
    /// The disk is full. Nothing has been decided: try again when there is room.
    #[error("the disk is full: {0}")]
    NoRoom(String),
}

/// What SQLite said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SqlError {
    /// The extended result code.
    pub(super) code: c_int,
    /// SQLite's own words.
    pub(super) message: String,
}

/// Whose fault a return code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The statement's: a result, the same on every replica.
    Statement,
    /// Nobody's: another connection held the lock for an instant (R21).
    Busy,
    /// The machine's.
    Stop,
    /// The file's.
    Fence,
    /// Nobody's: the disk is full (R35).
    NoRoom,
}

/// Whose fault the extended result code `code` is, given what system calls have met.
///
/// After a write that found no room, any error is taken for its consequence: what SQLite, or a virtual
/// table, makes of it on the way up is not always FULL. Nothing is decided by it, so the worst of a wrong
/// guess is that the command runs once more.
pub(super) fn classify(code: c_int, trouble: Trouble) -> Class {
    match trouble {
        Trouble::None => {}
        Trouble::NoRoom => return Class::NoRoom,
        Trouble::Failed => return Class::Stop,
    }
    match (code & 0xff, code) {
        (ffi::SQLITE_NOMEM | ffi::SQLITE_CANTOPEN | ffi::SQLITE_PROTOCOL, _)
        | (_, ffi::SQLITE_IOERR_NOMEM) => Class::Stop,
        (ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB, _) if code != ffi::SQLITE_CORRUPT_VTAB => {
            Class::Fence
        }
        (ffi::SQLITE_BUSY, _) => Class::Busy,
        // All that a statement can cause by itself, FULL, IOERR and LOCKED without the flag included.
        (
            ffi::SQLITE_ERROR
            | ffi::SQLITE_INTERNAL
            | ffi::SQLITE_PERM
            | ffi::SQLITE_ABORT
            | ffi::SQLITE_LOCKED
            | ffi::SQLITE_READONLY
            | ffi::SQLITE_INTERRUPT
            | ffi::SQLITE_IOERR
            | ffi::SQLITE_NOTFOUND
            | ffi::SQLITE_CORRUPT
            | ffi::SQLITE_FULL
            | ffi::SQLITE_EMPTY
            | ffi::SQLITE_SCHEMA
            | ffi::SQLITE_TOOBIG
            | ffi::SQLITE_CONSTRAINT
            | ffi::SQLITE_MISMATCH
            | ffi::SQLITE_MISUSE
            | ffi::SQLITE_NOLFS
            | ffi::SQLITE_AUTH
            | ffi::SQLITE_FORMAT
            | ffi::SQLITE_RANGE
            | ffi::SQLITE_NOTICE
            | ffi::SQLITE_WARNING,
            _,
        ) => Class::Statement,
        // No release of SQLite has others; one that does is not the build that was tested.
        _ => Class::Stop,
    }
}

impl SqlError {
    /// Whether its message says no more than its code, if anything.
    pub(super) fn has_no_words(&self) -> bool {
        // SAFETY: takes a number, and returns a constant text.
        #[expect(unsafe_code, reason = "SQLite has the words for its codes")]
        let of_code = unsafe { CStr::from_ptr(ffi::sqlite3_errstr(self.code)) };
        self.message.is_empty() || self.message.as_bytes() == of_code.to_bytes()
    }

    /// The fault behind an error of a statement that the engine runs for itself: it cannot be wrong, so
    /// what is not the file's fault is the machine's.
    pub(super) fn into_fault(self, during: &str) -> Fault {
        let cause = format!("{during}: {} (code {})", self.message, self.code);
        match classify(self.code, context::trouble()) {
            Class::Fence => Fault::Fence(cause),
            Class::NoRoom => Fault::NoRoom(cause),
            Class::Stop | Class::Busy | Class::Statement => Fault::Stop(cause),
        }
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error().map_or(ffi::SQLITE_ERROR, |it| it.extended_code);
        Self { code, message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_a_sick_machine_from_a_sick_file_and_a_sick_statement() {
        for (code, trouble, want) in [
            (ffi::SQLITE_CONSTRAINT_UNIQUE, Trouble::None, Class::Statement),
            (ffi::SQLITE_CONSTRAINT_UNIQUE, Trouble::Failed, Class::Stop),
            (ffi::SQLITE_FULL, Trouble::None, Class::Statement),
            (ffi::SQLITE_FULL, Trouble::Failed, Class::Stop),
            (ffi::SQLITE_FULL, Trouble::NoRoom, Class::NoRoom),
            (ffi::SQLITE_IOERR_SHMSIZE, Trouble::NoRoom, Class::NoRoom),
            (ffi::SQLITE_ERROR, Trouble::NoRoom, Class::NoRoom),
            (ffi::SQLITE_IOERR_READ, Trouble::None, Class::Statement),
            (ffi::SQLITE_IOERR_READ, Trouble::Failed, Class::Stop),
            (ffi::SQLITE_IOERR_NOMEM, Trouble::None, Class::Stop),
            (ffi::SQLITE_NOMEM, Trouble::None, Class::Stop),
            (ffi::SQLITE_CANTOPEN, Trouble::None, Class::Stop),
            (ffi::SQLITE_PROTOCOL, Trouble::None, Class::Stop),
            (ffi::SQLITE_CORRUPT, Trouble::None, Class::Fence),
            (ffi::SQLITE_CORRUPT, Trouble::Failed, Class::Stop),
            (ffi::SQLITE_CORRUPT_INDEX, Trouble::None, Class::Fence),
            (ffi::SQLITE_CORRUPT_VTAB, Trouble::None, Class::Statement),
            (ffi::SQLITE_NOTADB, Trouble::None, Class::Fence),
            (ffi::SQLITE_BUSY, Trouble::None, Class::Busy),
            (ffi::SQLITE_BUSY_SNAPSHOT, Trouble::None, Class::Busy),
            (ffi::SQLITE_LOCKED, Trouble::None, Class::Statement),
            (ffi::SQLITE_INTERRUPT, Trouble::None, Class::Statement),
        ] {
            assert_eq!(classify(code, trouble), want, "code {code}, {trouble:?}");
        }
    }
}
