//! A command while it is made: a gateway adds statements and arguments, the leader seals it.
//!
//! What a [`Draft`] takes is bounded by [`crate::limits`], and refused beyond that. Its bytes are those of the
//! finished command from the beginning; the header's are filled in last.

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;

use crate::limits;
use crate::wire::bytes::DecodeError;
use crate::wire::command::FLAG_KEY;
use crate::wire::command::FLAG_TRANSACTION;
use crate::wire::command::HEADER_SIZE;
use crate::wire::command::Kind;
use crate::wire::command::Mode;
use crate::wire::command::REQUEST_HASH_SIZE;
use crate::wire::command::RequestKey;
use crate::wire::command::Results;
use crate::wire::command::Stamp;
use crate::wire::command::VERSION;
use crate::wire::command::Value;
use crate::wire::command::may_have_key;
use crate::wire::command::put_slice;
use crate::wire::command::statements::Statement;
use crate::wire::command::statements::Statements;
use crate::wire::rows::StatementError;
use crate::wire::storage::Storage;

/// Statements on their way to a leader, or to a reader. Room for the header is left in front.
#[derive(Debug)]
pub struct Draft {
    bytes: BytesMut,
    kind: Kind,
    results: Results,
    n_statements: u32,
    /// Where the number of arguments of the last statement stands.
    n_arguments_at: usize,
    n_arguments: u16,
    /// The key has been added, behind the statements.
    has_key: bool,
}

/// The draft is larger than a command may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// More bytes than [`limits::COMMAND_SIZE_MAX`].
    #[error("request is too large")]
    Size,
    /// More statements than [`limits::STATEMENTS_MAX`].
    #[error("too many statements: at most {}", limits::STATEMENTS_MAX)]
    Statements,
    /// More arguments than [`limits::ARGUMENTS_MAX`].
    #[error("too many arguments: at most {}", limits::ARGUMENTS_MAX)]
    Arguments,
    /// A text longer than [`limits::SQL_SIZE_MAX`].
    #[error("SQL text is too long: at most {} bytes", limits::SQL_SIZE_MAX)]
    Sql,
}

impl Draft {
    /// An empty list of statements, with room for about `capacity` bytes.
    pub fn new(results: Results, capacity: usize) -> Self {
        Self::with_kind(Kind::Execute, results, capacity)
    }

    /// A command that creates or drops the database of the namespace called `name`.
    pub fn lifecycle(kind: Kind, name: &str) -> Self {
        let mut draft = Self::with_kind(kind, Results::Last, name.len());
        draft.bytes.put_slice(name.as_bytes());
        draft
    }

    /// A command that gives `n_pages` free pages back to the file system.
    pub fn vacuum(n_pages: u32) -> Self {
        assert!((1..=limits::VACUUM_PAGES_MAX).contains(&n_pages), "a bounded piece of work");
        let mut draft = Self::with_kind(Kind::Vacuum, Results::Last, 4);
        draft.bytes.put_u32_le(n_pages);
        draft
    }

    /// A command that does something with a key.
    pub fn storage(what: &Storage<'_>) -> Result<Self, DraftError> {
        let mut draft = Self::with_kind(Kind::Storage, Results::Last, what.size());
        draft.room(what.size())?;
        what.encode(&mut draft.bytes);
        Ok(draft)
    }

    /// Results that its reply will have, at most.
    pub fn n_results(&self) -> u32 {
        match self.results {
            Results::Last => self.n_statements.min(1),
            Results::Each => self.n_statements,
        }
    }

    /// Whether its outcome is kept under a key.
    pub fn has_key(&self) -> bool {
        self.has_key
    }

    /// Whether it is about a key, and adds to what there is.
    pub fn puts(&self) -> bool {
        let payload = &self.bytes[HEADER_SIZE..];
        self.kind == Kind::Storage && payload.first() == Some(&0)
    }

    /// Refuses a value to be put that is larger than `size_max` bytes.
    pub fn check_value(&self, size_max: u32) -> Result<(), StatementError> {
        if !self.puts() {
            return Ok(());
        }
        // A key of the request may stand behind it.
        let size = Storage::size_of_put(&self.bytes[HEADER_SIZE..]).expect("encoded by a draft");
        Storage::check_value(size, size_max)
    }

    fn with_kind(kind: Kind, results: Results, capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER_SIZE + capacity);
        bytes.put_bytes(0, HEADER_SIZE);
        Self {
            bytes,
            kind,
            results,
            n_statements: 0,
            n_arguments_at: 0,
            n_arguments: 0,
            has_key: false,
        }
    }

    /// Add a statement without arguments; [`Self::bind`] adds those.
    pub fn statement(&mut self, mode: Mode, sql: &str) -> Result<(), DraftError> {
        assert!(!self.has_key, "a key comes behind the statements");
        if sql.len() > limits::SQL_SIZE_MAX {
            return Err(DraftError::Sql);
        }
        if self.n_statements as usize >= limits::STATEMENTS_MAX {
            return Err(DraftError::Statements);
        }
        self.room(sql.len())?;
        self.n_statements += 1;
        self.bytes.put_u8(match mode {
            Mode::Exec => 0,
            Mode::Query => 1,
        });
        put_slice(&mut self.bytes, sql.as_bytes());
        self.n_arguments_at = self.bytes.len();
        self.n_arguments = 0;
        self.bytes.put_u16_le(0);
        Ok(())
    }

    /// Add the next argument of the last statement.
    pub fn bind(&mut self, value: Value<'_>) -> Result<(), DraftError> {
        assert!(self.n_statements > 0, "an argument needs a statement");
        assert!(!self.has_key, "a key comes behind the arguments");
        if usize::from(self.n_arguments) >= limits::ARGUMENTS_MAX {
            return Err(DraftError::Arguments);
        }
        self.room(match value {
            Value::Text(it) => it.len(),
            Value::Blob(it) => it.len(),
            _ => 0,
        })?;
        self.n_arguments += 1;
        self.bytes[self.n_arguments_at..self.n_arguments_at + 2]
            .copy_from_slice(&self.n_arguments.to_le_bytes());
        value.encode(&mut self.bytes);
        Ok(())
    }

    /// Name the request, once all its statements are there.
    pub fn key(&mut self, request: RequestKey<'_>) -> Result<(), DraftError> {
        assert!(may_have_key(self.kind), "only what clients ask for is sent again");
        assert!(!self.has_key, "a request has one key");
        self.room(request.key.len() + REQUEST_HASH_SIZE)?;
        self.has_key = true;
        self.bytes.put_slice(request.key.as_bytes());
        self.bytes.put_slice(&request.hash);
        self.bytes.put_u8(u8::try_from(request.key.len()).expect("checked when it was made"));
        Ok(())
    }

    fn room(&self, n: usize) -> Result<(), DraftError> {
        // Sixteen bytes cover the head of a statement or of a value.
        let fits = self.bytes.len() + n + 16 <= limits::COMMAND_SIZE_MAX;
        if fits { Ok(()) } else { Err(DraftError::Size) }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its statements so far, in order.
    pub fn statements(&self) -> impl Iterator<Item = Result<Statement<'_>, DecodeError>> {
        let n = usize::try_from(self.n_statements).unwrap_or(usize::MAX);
        Statements::new(&self.bytes[HEADER_SIZE..], self.n_statements).take(n)
    }

    /// Number of statements so far.
    pub fn n_statements(&self) -> u32 {
        self.n_statements
    }

    /// Bytes of the command this becomes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The finished command.
    pub fn seal(mut self, stamp: &Stamp) -> Bytes {
        let (kind, limits) = (self.kind, &stamp.limits);
        let mut head = &mut self.bytes[..HEADER_SIZE];
        head.put_u8(VERSION);
        head.put_u8(match kind {
            Kind::Execute => 1,
            Kind::Create => 2,
            Kind::Drop => 3,
            Kind::Vacuum => 4,
            Kind::Storage => 5,
        });
        let results = match self.results {
            Results::Last => 0,
            Results::Each => FLAG_TRANSACTION,
        };
        head.put_u16_le(results | if self.has_key { FLAG_KEY } else { 0 });
        head.put_u32_le(self.n_statements);
        head.put_u64_le(stamp.incarnation.0);
        head.put_i64_le(stamp.time.0);
        head.put_u64_le(stamp.seed);
        head.put_u64_le(limits.steps);
        head.put_u64_le(limits.temp_bytes);
        head.put_u64_le(limits.database_bytes);
        head.put_u64_le(limits.result_bytes);
        head.put_u32_le(limits.result_rows);
        head.put_u32_le(limits.value_bytes);
        head.put_u64_le(0);
        assert!(head.is_empty(), "the header fills its room");
        self.bytes.freeze()
    }
}
