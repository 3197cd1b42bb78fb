//! What SQLite's return codes mean for a replica: the statement's error, a sick machine, a sick file (R15).

use std::ffi::c_int;

use rusqlite::ffi;

use crate::sql::context;

/// Why a replica cannot go on with this database. Never the fault of a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The machine is sick: stop the process. What was applied is not known to be complete.
    #[error("the machine failed: {0}")]
    Stop(String),
    /// The file is damaged or missing: fence this database's replica and fetch it again.
    #[error("the database is damaged: {0}")]
    Fence(String),
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
}

/// Whose fault the extended result code `code` is, given whether a system call failed.
pub(super) fn classify(code: c_int, has_fault: bool) -> Class {
    if has_fault {
        return Class::Stop;
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
    /// The fault behind an error of a statement that the engine runs for itself: it cannot be wrong, so
    /// what is not the file's fault is the machine's.
    pub(super) fn into_fault(self, during: &str) -> Fault {
        let cause = format!("{during}: {} (code {})", self.message, self.code);
        match classify(self.code, context::has_fault()) {
            Class::Fence => Fault::Fence(cause),
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
        for (code, has_fault, want) in [
            (ffi::SQLITE_CONSTRAINT_UNIQUE, false, Class::Statement),
            (ffi::SQLITE_CONSTRAINT_UNIQUE, true, Class::Stop),
            (ffi::SQLITE_FULL, false, Class::Statement),
            (ffi::SQLITE_FULL, true, Class::Stop),
            (ffi::SQLITE_IOERR_READ, false, Class::Statement),
            (ffi::SQLITE_IOERR_READ, true, Class::Stop),
            (ffi::SQLITE_IOERR_NOMEM, false, Class::Stop),
            (ffi::SQLITE_NOMEM, false, Class::Stop),
            (ffi::SQLITE_CANTOPEN, false, Class::Stop),
            (ffi::SQLITE_PROTOCOL, false, Class::Stop),
            (ffi::SQLITE_CORRUPT, false, Class::Fence),
            (ffi::SQLITE_CORRUPT, true, Class::Stop),
            (ffi::SQLITE_CORRUPT_INDEX, false, Class::Fence),
            (ffi::SQLITE_CORRUPT_VTAB, false, Class::Statement),
            (ffi::SQLITE_NOTADB, false, Class::Fence),
            (ffi::SQLITE_BUSY, false, Class::Busy),
            (ffi::SQLITE_BUSY_SNAPSHOT, false, Class::Busy),
            (ffi::SQLITE_LOCKED, false, Class::Statement),
            (ffi::SQLITE_INTERRUPT, false, Class::Statement),
        ] {
            assert_eq!(classify(code, has_fault), want, "code {code}, fault flag {has_fault}");
        }
    }
}
