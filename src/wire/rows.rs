//! What a statement returned, flat: one buffer for all values of all rows, whatever their number.
//!
//! Values stand row after row in the encoding of [`Value`]; the columns say how many make a row. Those of a large
//! result of a read lie in a file ([`crate::wire::spool`]).

use std::sync::Arc;

use bytes::Bytes;

use crate::limits;
use crate::wire::bytes::Reader;
use crate::wire::command::Value;
use crate::wire::spool::Spooled;

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, as SQLite gives it.
    pub name: String,
    /// Its declared type in lower case; none for an expression.
    pub declared_type: Option<String>,
}

/// Rows of one result.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Shared with the cached statement.
    pub columns: Arc<[Column]>,
    /// Number of rows.
    pub count: usize,
    /// All values, encoded.
    pub values: Values,
}

/// Where the values of a result lie.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// In memory.
    Held(Bytes),
    /// In a file.
    Spooled(Spooled),
}

impl Values {
    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Held(bytes) => bytes.len() as u64,
            Self::Spooled(it) => it.length(),
        }
    }

    /// Those that are in memory.
    pub fn held(&self) -> Option<&Bytes> {
        match self {
            Self::Held(bytes) => Some(bytes),
            Self::Spooled(_) => None,
        }
    }
}

impl From<Bytes> for Values {
    fn from(bytes: Bytes) -> Self {
        Self::Held(bytes)
    }
}

impl Rows {
    /// The values in order, row after row; of a result that is in memory, as all are that the engine asked for, and
    /// those of writes.
    pub fn values(&self) -> impl Iterator<Item = Value<'_>> {
        let values = self.values.held().expect("what is spooled is read in pieces");
        let mut reader = Reader::new(values);
        std::iter::from_fn(move || {
            let more = !reader.is_empty();
            more.then(|| Value::decode(&mut reader).expect("rows are encoded by this program"))
        })
    }
}

/// What one statement returned.
#[derive(Clone, Debug, PartialEq)]
pub enum StatementResult {
    /// It wrote, or may have.
    Counts {
        /// Rows inserted, changed or deleted; zero for anything else.
        rows_affected: u64,
        /// The rowid of the last row inserted by this command; zero if none.
        last_insert_id: i64,
        /// What `RETURNING` gave.
        returned: Option<Rows>,
    },
    /// It read.
    Rows(Rows),
}

/// The statement is wrong and the client must change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StatementError {
    /// SQLite's own words, or ours in its style.
    pub message: String,
    /// A stable word for programs, if the message alone is not enough.
    pub code: Option<&'static str>,
    /// Seconds after which the same may succeed, if that is known.
    pub retry_after_s: Option<u32>,
}

impl StatementError {
    /// An error without a code.
    pub fn new(message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > limits::MESSAGE_SIZE_MAX {
            // SQLite repeats what it does not understand, and a tenant's triggers say what they like.
            message.truncate(message.floor_char_boundary(limits::MESSAGE_SIZE_MAX));
        }
        Self { message, code: None, retry_after_s: None }
    }

    /// An error with a code.
    pub fn coded(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::new(message) }
    }
}

/// What one command gave: the results of its statements, or why none of them had an effect.
pub type Outcome = Result<Vec<StatementResult>, StatementError>;
