//! What a Raft log entry carries: SQL statements with arguments, and all that makes them deterministic.
//!
//! A gateway encodes statements once, into a [`Draft`](draft::Draft); the leader's core fills in the header
//! ([`Draft::seal`](draft::Draft::seal)), and the same bytes go to the log, to the followers and to SQLite.
//!
//! ```text
//! header, 80 bytes, little-endian
//!    0 u8   format version, 1
//!    1 u8   kind: 1 execute, 2 create a database, 3 drop a database, 4 give free pages back,
//!           5 keys and values
//!    2 u16  flags: bit 0 transaction (a result per statement, else only the last),
//!           bit 1 the request has a key (kinds 1 and 5); others refused
//!    4 u32  number of statements
//!    8 u64  incarnation the command is for
//!   16 i64  time stamp, unix ms
//!   24 u64  random seed
//!   32 u64  limit: VM steps of a statement
//!   40 u64  limit: temporary bytes
//!   48 u64  limit: bytes a database may reach
//!   56 u64  limit: bytes of a result
//!   64 u32  limit: rows of a result
//!   68 u32  limit: bytes of a value
//!   72 u64  reserved, 0
//! payload of `execute`: per statement
//!    u8 mode (0 exec, 1 query), u32 length, SQL text, u16 number of arguments, arguments
//! argument: u8 tag (0 null, 1 integer i64, 2 real f64, 3 text, 4 blob; text and blob: u32 length, bytes)
//!    and behind the last statement, if the request has a key:
//!    the key (1 to 255 printable ASCII characters), 16 bytes hash of the request, u8 length of the key
//! payload of `create`, `drop`: the namespace's name, UTF-8
//! payload of `vacuum` (4): u32 pages to give back, 1 to 256
//! payload of `storage` (5): see [`Storage`]; behind it the request's key as above
//! ```

pub mod draft;
pub mod statements;

use bytes::BufMut;

use crate::limits;
use crate::types::Incarnation;
use crate::types::Timestamp;
use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;
use crate::wire::command::statements::Statements;
use crate::wire::storage::Storage;

/// Bytes of the header.
pub const HEADER_SIZE: usize = 80;
const VERSION: u8 = 1;
const FLAG_TRANSACTION: u16 = 1;
const FLAG_KEY: u16 = 2;
/// Bytes of a request's hash.
pub const REQUEST_HASH_SIZE: usize = 16;

/// A value that a client binds or a database returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// A 64-bit integer, exact.
    Integer(i64),
    /// An IEEE 754 double.
    Real(f64),
    /// UTF-8 text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Bytes of tag and content.
    pub fn size(self) -> usize {
        match self {
            Self::Null => 1,
            Self::Integer(_) | Self::Real(_) => 9,
            Self::Text(it) => 5 + it.len(),
            Self::Blob(it) => 5 + it.len(),
        }
    }

    /// Append tag and content to `out`.
    pub fn encode(self, out: &mut impl BufMut) {
        match self {
            Self::Null => out.put_u8(0),
            Self::Integer(it) => {
                out.put_u8(1);
                out.put_i64_le(it);
            }
            Self::Real(it) => {
                out.put_u8(2);
                out.put_f64_le(it);
            }
            Self::Text(it) => {
                out.put_u8(3);
                put_slice(out, it.as_bytes());
            }
            Self::Blob(it) => {
                out.put_u8(4);
                put_slice(out, it);
            }
        }
    }

    /// Read one value.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Self::Null,
            1 => Self::Integer(reader.i64()?),
            2 => Self::Real(f64::from_bits(reader.u64()?)),
            3 => Self::Text(reader.text()?),
            4 => Self::Blob(reader.slice()?),
            _ => return Err(DecodeError::Malformed("unknown type of value")),
        })
    }
}

/// What a statement's result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Counts, and rows if it returns some.
    Exec,
    /// Rows; must not write.
    Query,
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Run statements, all or none.
    Execute,
    /// Create the database of the incarnation.
    Create,
    /// Drop it, and leave a tombstone.
    Drop,
    /// Give free pages of it back to the file system (R16).
    Vacuum,
    /// Do something with a key of the key-value storage.
    Storage,
}

/// How many results a command has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Results {
    /// That of the last statement: the statements came as one text.
    Last,
    /// One per statement.
    Each,
}

/// Names a request, so that the same one, sent again, is not run again (R18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey<'a> {
    key: &'a str,
    hash: [u8; REQUEST_HASH_SIZE],
}

impl<'a> RequestKey<'a> {
    /// A request that its client calls `key`, and whose content has this hash. None unless the key is 1 to
    /// 255 printable ASCII characters, blanks included.
    pub fn new(key: &'a [u8], hash: [u8; REQUEST_HASH_SIZE]) -> Option<Self> {
        let fits = (1..=limits::REQUEST_KEY_SIZE_MAX).contains(&key.len());
        let is_printable = key.iter().all(|it| matches!(it, b' '..=b'~'));
        let key = str::from_utf8(key).ok()?;
        (fits && is_printable).then_some(Self { key, hash })
    }

    /// What the client calls it.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// Tells it from another request under the same key.
    pub fn hash(&self) -> &[u8; REQUEST_HASH_SIZE] {
        &self.hash
    }
}

/// What one command may cost, equal on every replica (R12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLimits {
    /// VM instructions of a statement.
    pub steps: u64,
    /// Bytes of temporary files.
    pub temp_bytes: u64,
    /// Bytes the database may reach.
    pub database_bytes: u64,
    /// Bytes of a result.
    pub result_bytes: u64,
    /// Rows of a result.
    pub result_rows: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
}

/// What the leader adds to a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The database's life the command is for.
    pub incarnation: Incarnation,
    /// The command's time: all it learns about the clock (R17).
    pub time: Timestamp,
    /// All its randomness.
    pub seed: u64,
    /// What it may cost.
    pub limits: CommandLimits,
}

/// A decoded command; borrows the bytes it came from.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// What it does.
    pub kind: Kind,
    /// How many results it has.
    pub results: Results,
    /// Number of statements.
    pub n_statements: u32,
    /// What the leader added.
    pub stamp: Stamp,
    /// What its client calls it, if it may be sent again.
    pub request: Option<RequestKey<'a>>,
    payload: &'a [u8],
}

impl<'a> Command<'a> {
    /// Read the header. Statements are checked as they are iterated.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let kind = match reader.u8()? {
            1 => Kind::Execute,
            2 => Kind::Create,
            3 => Kind::Drop,
            4 => Kind::Vacuum,
            5 => Kind::Storage,
            _ => return Err(DecodeError::Malformed("unknown kind of command")),
        };
        let flags = reader.u16()?;
        let known = FLAG_TRANSACTION | if may_have_key(kind) { FLAG_KEY } else { 0 };
        if flags & !known != 0 {
            return Err(DecodeError::Malformed("unknown flag of a command"));
        }
        let is_transaction = flags & FLAG_TRANSACTION != 0;
        let results = if is_transaction { Results::Each } else { Results::Last };
        let n_statements = reader.u32()?;
        let incarnation = Incarnation(reader.u64()?);
        let time = Timestamp(reader.i64()?);
        let seed = reader.u64()?;
        let limits = CommandLimits {
            steps: reader.u64()?,
            temp_bytes: reader.u64()?,
            database_bytes: reader.u64()?,
            result_bytes: reader.u64()?,
            result_rows: reader.u32()?,
            value_bytes: reader.u32()?,
        };
        if reader.u64()? != 0 {
            return Err(DecodeError::Malformed("reserved bytes of a command are in use"));
        }
        let stamp = Stamp { incarnation, time, seed, limits };
        let (request, payload) = match flags & FLAG_KEY {
            0 => (None, reader.rest()),
            _ => split_key(reader.rest()).map(|(request, rest)| (Some(request), rest))?,
        };
        Ok(Self { kind, results, n_statements, stamp, request, payload })
    }

    /// The statements in order. Stops after the first error.
    pub fn statements(&self) -> Statements<'a> {
        Statements::new(self.payload, self.n_statements)
    }

    /// How many pages a command of kind [`Kind::Vacuum`] gives back.
    pub fn vacuum_pages(&self) -> Result<u32, DecodeError> {
        let mut reader = Reader::new(self.payload);
        let n_pages = reader.u32()?;
        let is_whole = reader.rest().is_empty();
        if is_whole && (1..=limits::VACUUM_PAGES_MAX).contains(&n_pages) {
            Ok(n_pages)
        } else {
            Err(DecodeError::Malformed("not a number of pages to give back"))
        }
    }

    /// What a command of kind [`Kind::Storage`] does.
    pub fn storage(&self) -> Result<Storage<'a>, DecodeError> {
        Storage::decode(self.payload)
    }

    /// The namespace's name, for a command that creates or drops one.
    pub fn name(&self) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.payload).map_err(|_| DecodeError::Malformed("name is not UTF-8"))
    }
}

fn may_have_key(kind: Kind) -> bool {
    matches!(kind, Kind::Execute | Kind::Storage)
}

/// The key at the end of a payload, and what stands before it.
fn split_key(payload: &[u8]) -> Result<(RequestKey<'_>, &[u8]), DecodeError> {
    let (length, rest) = payload.split_last().ok_or(DecodeError::Truncated)?;
    let (rest, hash) = rest.split_last_chunk().ok_or(DecodeError::Truncated)?;
    let at = rest.len().checked_sub(usize::from(*length)).ok_or(DecodeError::Truncated)?;
    let (rest, key) = rest.split_at(at);
    let request = RequestKey::new(key, *hash);
    Ok((request.ok_or(DecodeError::Malformed("a request's key is not printable"))?, rest))
}

fn put_slice(out: &mut impl BufMut, slice: &[u8]) {
    // Bounded far below 4 GiB by COMMAND_SIZE_MAX and RESULT_BYTES.
    out.put_u32_le(u32::try_from(slice.len()).expect("slices in messages are bounded"));
    out.put_slice(slice);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::command::draft::Draft;

    const STAMP: Stamp = Stamp {
        incarnation: Incarnation(7),
        time: Timestamp(1_761_300_000_123),
        seed: 42,
        limits: CommandLimits {
            steps: 1,
            temp_bytes: 2,
            database_bytes: 3,
            result_bytes: 4,
            result_rows: 5,
            value_bytes: 6,
        },
    };

    #[test]
    fn what_was_drafted_is_decoded() {
        let mut draft = Draft::new(Results::Each, 0);
        draft.statement(Mode::Exec, "INSERT INTO t VALUES (?, ?, ?, ?)").unwrap();
        let values =
            [Value::Integer(i64::MIN), Value::Real(-0.5), Value::Text("ü"), Value::Blob(&[0, 255])];
        for value in values {
            draft.bind(value).unwrap();
        }
        draft.statement(Mode::Query, "SELECT 1").unwrap();
        let bytes = draft.seal(&STAMP);
        let command = Command::decode(&bytes).unwrap();
        assert_eq!(command.stamp, STAMP);
        assert_eq!((command.kind, command.results), (Kind::Execute, Results::Each));
        let statements: Vec<_> = command.statements().map(Result::unwrap).collect();
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[0].arguments.clone().collect::<Vec<_>>(), values);
        assert_eq!((statements[1].mode, statements[1].sql), (Mode::Query, "SELECT 1"));
    }

    const HASH: [u8; REQUEST_HASH_SIZE] = *b"0123456789abcdef";

    #[test]
    fn a_key_is_printable_and_stands_behind_the_statements() {
        for (key, want) in [
            (&b"k"[..], true),
            (b" two words ~", true),
            (&[b'x'; 255], true),
            (b"", false),
            (&[b'x'; 256], false),
            (b"tab\t", false),
            (b"\x7f", false),
            ("ü".as_bytes(), false),
        ] {
            let request = RequestKey::new(key, HASH);
            assert_eq!(request.is_some(), want, "{key:?}");
            let Some(request) = request else { continue };
            let sealed = |request: Option<RequestKey<'_>>| {
                let mut draft = Draft::new(Results::Each, 0);
                draft.statement(Mode::Exec, "SELECT ?").unwrap();
                draft.bind(Value::Text("x")).unwrap();
                if let Some(request) = request {
                    draft.key(request).unwrap();
                }
                draft.seal(&STAMP)
            };
            let (with, without) = (sealed(Some(request)), sealed(None));
            assert_eq!(with[..2], without[..2]);
            assert_eq!(with[4..without.len()], without[4..], "a key changes nothing before it");
            for (bytes, want) in [(&with, Some(request)), (&without, None)] {
                let command = Command::decode(bytes).unwrap();
                assert_eq!((command.results, command.request), (Results::Each, want));
                let statements: Vec<_> = command.statements().map(Result::unwrap).collect();
                assert_eq!((statements.len(), statements[0].sql), (1, "SELECT ?"));
            }
            // One that lost its end: what is left of it stands behind the statements, or is no key.
            let is_whole = |command: Command<'_>| command.statements().all(|it| it.is_ok());
            if request.key().len() < 20 {
                for n in 0..with.len() {
                    assert!(!Command::decode(&with[..n]).is_ok_and(is_whole), "cut at {n}");
                }
            }
        }
    }

    #[test]
    fn pages_to_give_back_are_bounded() {
        for (payload, want) in [
            (&[1, 0, 0, 0][..], Some(1)),
            (&[0, 1, 0, 0], Some(256)),
            (&[1, 1, 0, 0], None),
            (&[0, 0, 0, 0], None),
            (&[1, 0, 0], None),
            (&[1, 0, 0, 0, 0], None),
        ] {
            let mut bytes = Draft::vacuum(1).seal(&STAMP)[..HEADER_SIZE].to_vec();
            bytes.extend_from_slice(payload);
            let command = Command::decode(&bytes).unwrap();
            assert_eq!(command.kind, Kind::Vacuum);
            assert_eq!(command.vacuum_pages().ok(), want, "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if let [version, kind, flags, zero, ..] = &mut bytes[..] {
                (*version, *kind, *flags, *zero) = (1, 1 + *kind % 5, *flags & 3, 0);
            }
            if let Ok(command) = Command::decode(&bytes) {
                for statement in command.statements().flatten() {
                    let _ = statement.arguments.count();
                }
                let _ = command.vacuum_pages();
                let _ = command.storage();
            }
        }
    }
}
