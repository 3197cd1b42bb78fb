//! `find`, `find-one` and `select`: a SELECT in pieces.
//!
//! | field | `find`, `find-one` | `select` |
//! |---|---|---|
//! | `table` | required | required |
//! | `alias` | | the table's other name |
//! | `criteria` | object: column to value, `null` or an array of both | |
//! | `options` | the six fields below and `where`, in an object; used whole if one of them is there | |
//! | `select`, `group_by`, `order_by` | arrays of strings | the same |
//! | `joins` | `[{kind, table, on}]` | the same |
//! | `where` | `[{expr, args?, conj?}]` | the same |
//! | `limit`, `offset` | whole numbers | the same |
//! | `one` | | at most one row |
//!
//! Values are encoded aside as they come, each condition knows where its own begin, and they are bound in the
//! order of the text ([`crate::sql::select`]). What a condition has more than it wants is left out. All that is
//! gathered before is bounded by [`crate::limits`], however small it is in the body.

mod fields;
mod pieces;

use std::borrow::Cow;

use serde::de::DeserializeSeed;

use crate::gateway::body::BodyError;
use crate::gateway::body::Pen;
use crate::gateway::body::scalar::TextOf;
use crate::gateway::body::select::fields::Body;
use crate::sql::select::Conjunction;
use crate::sql::select::Select;
use crate::sql::select::Test;
use crate::wire::bytes::Reader;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::Value;
use crate::wire::command::draft::Draft;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All that match.
    Find,
    /// The first that matches.
    FindOne,
    /// What the pieces say.
    Select,
}

/// A body that became a statement.
#[derive(Debug)]
pub struct Selection {
    /// The statement, with its arguments.
    pub draft: Draft,
    /// Whether one row is wanted, and not a list.
    pub one: bool,
}

/// Decode a body of `find`, `find-one` or `select`.
pub fn selection(body: &[u8], form: Form) -> Result<Selection, BodyError> {
    let text = String::from_utf8_lossy(body);
    let mut json = serde_json::Deserializer::from_str(&text);
    let mut pen = Pen::new(Results::Last, text.len());
    let decoded = Body { pen: &mut pen, form }.deserialize(&mut json);
    let parts = decoded.map_err(|_| pen.refusal.take().unwrap_or(BodyError::Shape))?;
    if parts.table.trim().is_empty() {
        return Err(BodyError::Shape);
    }
    let one = form == Form::FindOne || parts.one;
    write(&parts, one, &mut pen)?;
    Ok(Selection { draft: pen.draft, one })
}

/// Arguments that were encoded aside.
#[derive(Clone, Copy, Debug, Default)]
struct Aside {
    start: usize,
    end: usize,
    n: usize,
}

/// What a body says. Strings are borrowed from it where they can be.
#[derive(Debug, Default)]
struct Parts<'de> {
    table: Cow<'de, str>,
    alias: Option<Cow<'de, str>>,
    criteria: Vec<(Cow<'de, str>, Test, Aside)>,
    one: bool,
    options: Options<'de>,
}

/// What may stand in `options` or beside it.
#[derive(Debug, Default)]
struct Options<'de> {
    select: Vec<TextOf<'de>>,
    joins: Vec<Join<'de>>,
    conditions: Vec<Condition<'de>>,
    group_by: Vec<TextOf<'de>>,
    order_by: Vec<TextOf<'de>>,
    limit: Option<i64>,
    offset: Option<i64>,
}

#[derive(Debug, Default)]
struct Join<'de> {
    kind: Cow<'de, str>,
    table: Cow<'de, str>,
    on: Cow<'de, str>,
}

#[derive(Debug, Default)]
struct Condition<'de> {
    conjunction: Conjunction,
    expr: Cow<'de, str>,
    arguments: Aside,
}

impl Options<'_> {
    fn is_empty(&self) -> bool {
        self.select.is_empty()
            && self.joins.is_empty()
            && self.conditions.is_empty()
            && self.group_by.is_empty()
            && self.order_by.is_empty()
            && self.limit.is_none()
            && self.offset.is_none()
    }
}

/// Build the statement, and bind what it wants.
fn write(parts: &Parts<'_>, one: bool, pen: &mut Pen) -> Result<(), BodyError> {
    fn texts<'t>(list: &'t [TextOf<'_>]) -> impl ExactSizeIterator<Item = &'t str> {
        list.iter().map(|it| &*it.0)
    }
    let options = &parts.options;
    let columns = texts(&options.select);
    let mut select = Select::new(columns, &parts.table, parts.alias.as_deref())?;
    for join in &options.joins {
        let on = Some(&*join.on).filter(|it| !it.trim().is_empty());
        select.join(&join.kind, &join.table, on)?;
    }
    let mut bound = Vec::with_capacity(parts.criteria.len());
    for (key, test, arguments) in &parts.criteria {
        select.criterion(key, *test)?;
        bound.push(*arguments);
    }
    for condition in &options.conditions {
        let want = select.condition(condition.conjunction, &condition.expr)?;
        let got = condition.arguments.n;
        if want > got {
            return Err(BodyError::TooFewArguments { want, got });
        }
        bound.push(Aside { n: want, ..condition.arguments });
    }
    select.group_by(texts(&options.group_by))?;
    select.order_by(texts(&options.order_by))?;
    let limit = match options.limit {
        Some(0) => Some(0),
        _ if one => Some(1),
        limit => limit,
    };
    pen.draft.statement(Mode::Query, &select.finish(limit, options.offset.is_some()))?;
    let early = pen.early.split();
    for Aside { start, end, n } in bound {
        let mut reader = Reader::new(&early[start..end]);
        for _ in 0..n {
            pen.draft.bind(Value::decode(&mut reader).expect("encoded a moment ago"))?;
        }
    }
    if let Some(offset) = options.offset {
        pen.draft.bind(Value::Integer(offset))?;
    }
    Ok(())
}
