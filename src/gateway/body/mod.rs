//! Request bodies, decoded straight into a [`Draft`]: no tree of values in between, and no copy of a
//! text but the one into the draft.
//!
//! As clients have always been allowed to: field names in any case, unknown fields ignored, the first
//! JSON value only, `null` for "absent". Stricter than that: a field given twice is refused, because
//! whichever of the two we took could be the wrong one.
//!
//! | argument | bound as |
//! |---|---|
//! | `null` | NULL |
//! | `true`, `false` | 1, 0 |
//! | a whole number that fits 64 bits, `3.0` and `1e3` included | INTEGER |
//! | another number | REAL |
//! | a string | TEXT |
//! | `{"base64":"…"}` | BLOB |
//! | another object, an array | refused |
//!
//! Cost: one pass over the body. Arguments that stand before what they belong to (`sql`, or an op's
//! `kind`) are encoded aside first and copied once more.

mod argument;
mod scalar;
pub mod select;

use std::borrow::Cow;
use std::fmt;

use bytes::BytesMut;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::gateway::body::argument::Arguments;
use crate::gateway::body::scalar::Name;
use crate::gateway::body::scalar::OneField;
use crate::gateway::body::scalar::Text;
use crate::gateway::body::scalar::TextOf;
use crate::limits;
use crate::sql::select::SelectError;
use crate::wire::bytes::Reader;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::Value;
use crate::wire::command::draft::Draft;
use crate::wire::command::draft::DraftError;

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not JSON, not of the right shape, or something required is absent or blank.
    #[error("invalid body")]
    Shape,
    /// An op is neither `exec` nor `query`.
    #[error("invalid op kind: {0}")]
    Kind(String),
    /// An argument cannot be bound. Counted from one within its statement.
    #[error("argument {0}: bind a string, a number, a boolean, null or {{\"base64\":\"…\"}}")]
    Argument(usize),
    /// A piece of a SELECT is not what belongs in its place.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A condition has more question marks than arguments.
    #[error("not enough args to execute query: want {want} got {got}")]
    TooFewArguments {
        /// Question marks.
        want: usize,
        /// Arguments.
        got: usize,
    },
    /// A SELECT in more pieces than [`limits::SELECT_PIECES_MAX`].
    #[error(
        "invalid body: at most {} columns, joins, conditions, groups and orders",
        limits::SELECT_PIECES_MAX
    )]
    Pieces,
    /// More than a command holds.
    #[error(transparent)]
    Draft(#[from] DraftError),
}

/// Statements that take effect together or not at all.
#[derive(Debug)]
pub struct Transaction {
    /// The statements.
    pub draft: Draft,
    /// Whether the client wants to see what each returned.
    pub return_results: bool,
    /// Whether one of them may write.
    pub writes: bool,
}

/// `{"sql":…, "args":[…]}`.
pub fn statement(body: &[u8], mode: Mode) -> Result<Draft, BodyError> {
    let text = String::from_utf8_lossy(body);
    let mut json = serde_json::Deserializer::from_str(&text);
    let mut pen = Pen::new(Results::Last, text.len());
    let decoded = Statement { pen: &mut pen, mode: Some(mode) }.deserialize(&mut json);
    pen.settle(decoded)?;
    Ok(pen.draft)
}

/// `{"ops":[{"kind":…, "sql":…, "args":[…]}, …], "return_results":…}`, or `{"statements":["…", …]}`.
pub fn transaction(body: &[u8]) -> Result<Transaction, BodyError> {
    let text = String::from_utf8_lossy(body);
    let mut json = serde_json::Deserializer::from_str(&text);
    let mut pen = Pen::new(Results::Each, text.len());
    let decoded = TransactionBody(&mut pen).deserialize(&mut json);
    let return_results = pen.settle(decoded)?;
    Ok(Transaction { draft: pen.draft, return_results, writes: pen.writes })
}

/// The string called `name`, which must not be blank.
pub fn field(body: &[u8], name: &'static str) -> Result<String, BodyError> {
    let text = String::from_utf8_lossy(body);
    let found = any_field(&text, name)?;
    found.filter(|it| !it.trim().is_empty()).map(Cow::into_owned).ok_or(BodyError::Shape)
}

/// The string called `name`, whatever it is; none if it is absent or `null`.
pub fn any_field<'b>(body: &'b str, name: &'static str) -> Result<Option<Cow<'b, str>>, BodyError> {
    let mut json = serde_json::Deserializer::from_str(body);
    OneField(name).deserialize(&mut json).map_err(|_| BodyError::Shape)
}

/// What decoding writes to.
struct Pen {
    draft: Draft,
    /// Encoded arguments that came before their statement.
    early: BytesMut,
    n_early: usize,
    /// Pieces of a SELECT so far.
    n_pieces: usize,
    /// Bytes of the blob at hand.
    blob: Vec<u8>,
    writes: bool,
    /// Why decoding was broken off, if it was not for the JSON.
    refusal: Option<BodyError>,
}

impl Pen {
    fn new(results: Results, body_size: usize) -> Self {
        // Heads of values take some bytes more than their JSON; short bodies get room for that.
        let draft = Draft::new(results, body_size + 64);
        Self {
            draft,
            early: BytesMut::new(),
            n_early: 0,
            n_pieces: 0,
            blob: Vec::new(),
            writes: false,
            refusal: None,
        }
    }

    /// Break off decoding.
    fn refuse<E: Error>(&mut self, why: BodyError) -> E {
        self.refusal = Some(why);
        E::custom("refused")
    }

    fn settle<T>(&mut self, decoded: Result<T, serde_json::Error>) -> Result<T, BodyError> {
        let decoded = decoded.map_err(|_| self.refusal.take().unwrap_or(BodyError::Shape))?;
        if self.draft.n_statements() == 0 { Err(BodyError::Shape) } else { Ok(decoded) }
    }

    /// Begin a statement, which must not be blank.
    fn begin<E: Error>(&mut self, mode: Mode, sql: &str) -> Result<(), E> {
        if sql.trim().is_empty() {
            return Err(self.refuse(BodyError::Shape));
        }
        self.writes |= mode == Mode::Exec;
        self.draft.statement(mode, sql).map_err(|it| self.refuse(it.into()))
    }

    fn bind<E: Error>(&mut self, sink: Sink, value: Value<'_>) -> Result<(), E> {
        match sink {
            Sink::Draft => self.draft.bind(value).map_err(|it| self.refuse(it.into())),
            // No statement could bind more of them.
            Sink::Early if self.n_early == limits::ARGUMENTS_MAX => {
                Err(self.refuse(DraftError::Arguments.into()))
            }
            Sink::Early => {
                self.n_early += 1;
                value.encode(&mut self.early);
                Ok(())
            }
        }
    }

    /// Count a piece of a SELECT.
    fn piece<E: Error>(&mut self) -> Result<(), E> {
        self.n_pieces += 1;
        let fits = self.n_pieces <= limits::SELECT_PIECES_MAX;
        if fits { Ok(()) } else { Err(self.refuse(BodyError::Pieces)) }
    }

    /// Bind what was encoded before its statement began.
    fn bind_early<E: Error>(&mut self) -> Result<(), E> {
        self.n_early = 0;
        let early = self.early.split();
        let mut reader = Reader::new(&early);
        while !reader.is_empty() {
            let value = Value::decode(&mut reader).expect("encoded a moment ago");
            self.draft.bind(value).map_err(|it| self.refuse(it.into()))?;
        }
        Ok(())
    }
}

/// Where arguments go.
#[derive(Clone, Copy, Debug)]
enum Sink {
    Draft,
    Early,
}

/// A statement: the body of a request (with the mode its path says), or an op (which says it itself).
struct Statement<'p> {
    pen: &'p mut Pen,
    mode: Option<Mode>,
}

impl<'de> DeserializeSeed<'de> for Statement<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Statement<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a statement")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.pen.refuse(match self.mode {
            Some(_) => BodyError::Shape,
            None => BodyError::Kind(String::new()),
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { pen, mode: given } = self;
        let (mut mode, mut sql, mut has_arguments, mut has_begun) = (given, None, false, false);
        while let Some(name) = map.next_key_seed(Name(["sql", "args", "kind"]))? {
            match name {
                Some(0) if sql.is_none() => sql = map.next_value_seed(Text)?,
                Some(1) if !has_arguments => {
                    has_arguments = true;
                    let mut sink = Sink::Early;
                    if let (Some(mode), Some(sql)) = (mode, &sql) {
                        pen.begin(mode, sql)?;
                        (has_begun, sink) = (true, Sink::Draft);
                    }
                    map.next_value_seed(Arguments { pen, sink })?;
                }
                Some(2) if given.is_none() && mode.is_none() => {
                    let kind = map.next_value_seed(Text)?.unwrap_or_default();
                    mode = Some(parse_kind(&kind).map_err(|it| pen.refuse::<A::Error>(it))?);
                }
                Some(2) if given.is_some() => drop(map.next_value::<IgnoredAny>()?),
                Some(_) => return Err(pen.refuse(BodyError::Shape)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if !has_begun {
            let Some(mode) = mode else {
                return Err(pen.refuse(BodyError::Kind(String::new())));
            };
            pen.begin(mode, &sql.unwrap_or_default())?;
        }
        pen.bind_early()
    }
}

fn parse_kind(kind: &str) -> Result<Mode, BodyError> {
    let kind = kind.trim();
    if kind.eq_ignore_ascii_case("exec") {
        Ok(Mode::Exec)
    } else if kind.eq_ignore_ascii_case("query") {
        Ok(Mode::Query)
    } else {
        // Enough to recognize it by.
        Err(BodyError::Kind(kind.chars().take(64).collect()))
    }
}

/// The body of a transaction; says whether results are wanted.
struct TransactionBody<'p>(&'p mut Pen);

impl<'de> DeserializeSeed<'de> for TransactionBody<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TransactionBody<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a transaction")
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let pen = self.0;
        let (mut return_results, mut has_ops) = (None, false);
        let mut texts: Option<Vec<TextOf<'de>>> = None;
        while let Some(name) = map.next_key_seed(Name(["ops", "statements", "return_results"]))? {
            match name {
                Some(0) if !has_ops => {
                    has_ops = true;
                    map.next_value_seed(Ops(pen))?;
                }
                Some(1) if texts.is_none() => {
                    texts = Some(map.next_value_seed(Texts(pen))?);
                }
                Some(2) if return_results.is_none() => {
                    return_results = Some(map.next_value::<Option<bool>>()?.unwrap_or_default());
                }
                Some(_) => return Err(pen.refuse(BodyError::Shape)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if pen.draft.n_statements() == 0 {
            for TextOf(sql) in texts.unwrap_or_default() {
                pen.begin(Mode::Exec, &sql)?;
            }
        }
        Ok(return_results.unwrap_or_default())
    }
}

/// The statements of a transaction that are texts alone, an array or `null`; no more than a command holds.
struct Texts<'p>(&'p mut Pen);

impl<'de> DeserializeSeed<'de> for Texts<'_> {
    type Value = Vec<TextOf<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = Vec<TextOf<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of statements")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element()? {
            if texts.len() == limits::STATEMENTS_MAX {
                return Err(self.0.refuse(DraftError::Statements.into()));
            }
            texts.push(text);
        }
        Ok(texts)
    }
}

/// The ops of a transaction, an array or `null`.
struct Ops<'p>(&'p mut Pen);

impl<'de> DeserializeSeed<'de> for Ops<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Ops<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of ops")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Statement { pen: self.0, mode: None })?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
