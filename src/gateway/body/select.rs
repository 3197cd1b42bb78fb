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

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::gateway::body::BodyError;
use crate::gateway::body::Pen;
use crate::gateway::body::Sink;
use crate::gateway::body::argument::Argument;
use crate::gateway::body::argument::Arguments;
use crate::gateway::body::scalar::Name;
use crate::gateway::body::scalar::Text;
use crate::gateway::body::scalar::TextOf;
use crate::sql::select::Conjunction;
use crate::sql::select::Select;
use crate::sql::select::Test;
use crate::wire::bytes::Reader;
use crate::wire::command::Draft;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::Value;

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

/// The fields of all three bodies.
const FIELDS: [&str; 12] = [
    "select", "joins", "where", "group_by", "order_by", "limit", "offset", "table", "criteria",
    "options", "alias", "one",
];

struct Body<'p> {
    pen: &'p mut Pen,
    form: Form,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = Parts<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Parts<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the parts of a SELECT")
    }

    fn visit_unit<E: Error>(self) -> Result<Parts<'de>, E> {
        Ok(Parts::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts<'de>, A::Error> {
        let Self { pen, form } = self;
        let is_select = form == Form::Select;
        let mut parts = Parts::default();
        let mut nested = None;
        let mut seen = 0_u16;
        while let Some(field) = map.next_key_seed(Name(FIELDS))? {
            if let Some(field) = field {
                if seen & (1 << field) != 0 {
                    return Err(pen.refuse(BodyError::Shape));
                }
                seen |= 1 << field;
            }
            match field {
                Some(0..=6) => parts.options.read(field, pen, &mut map)?,
                Some(7) => parts.table = map.next_value_seed(Text)?.unwrap_or_default(),
                Some(8) if !is_select => parts.criteria = map.next_value_seed(Criteria(pen))?,
                Some(9) if !is_select => nested = Some(map.next_value_seed(OptionsBody(pen))?),
                Some(10) if is_select => {
                    let alias = map.next_value_seed(Text)?;
                    parts.alias = alias.filter(|it| !it.trim().is_empty());
                }
                Some(11) if is_select => {
                    parts.one = map.next_value::<Option<bool>>()?.unwrap_or_default();
                }
                Some(_) | None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if let Some(options) = nested.filter(|it| !it.is_empty()) {
            parts.options = options;
        }
        Ok(parts)
    }
}

impl<'de> Options<'de> {
    /// Read the value of the field at this place among [`FIELDS`].
    fn read<A: MapAccess<'de>>(
        &mut self,
        field: Option<usize>,
        pen: &mut Pen,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match field {
            Some(0) => self.select = map.next_value_seed(Pieces::of(pen))?,
            Some(1) => self.joins = map.next_value_seed(Pieces::of(pen))?,
            Some(2) => self.conditions = map.next_value_seed(Conditions(pen))?,
            Some(3) => self.group_by = map.next_value_seed(Pieces::of(pen))?,
            Some(4) => self.order_by = map.next_value_seed(Pieces::of(pen))?,
            Some(5) => self.limit = map.next_value()?,
            Some(6) => self.offset = map.next_value()?,
            Some(_) | None => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// `options`, an object or `null`.
struct OptionsBody<'p>(&'p mut Pen);

impl<'de> DeserializeSeed<'de> for OptionsBody<'_> {
    type Value = Options<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Options<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OptionsBody<'_> {
    type Value = Options<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("options")
    }

    fn visit_unit<E: Error>(self) -> Result<Options<'de>, E> {
        Ok(Options::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Options<'de>, A::Error> {
        let mut options = Options::default();
        let mut seen = 0_u16;
        while let Some(field) = map.next_key_seed(Name(FIELDS))? {
            let field = field.filter(|it| *it <= 6);
            if let Some(field) = field {
                if seen & (1 << field) != 0 {
                    return Err(self.0.refuse(BodyError::Shape));
                }
                seen |= 1 << field;
            }
            options.read(field, self.0, &mut map)?;
        }
        Ok(options)
    }
}

/// An array of pieces that need no pen of their own, or `null`.
struct Pieces<'p, T>(&'p mut Pen, PhantomData<T>);

impl<'p, T> Pieces<'p, T> {
    fn of(pen: &'p mut Pen) -> Self {
        Self(pen, PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Pieces<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<T>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Pieces<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of pieces")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut pieces = Vec::new();
        while let Some(it) = seq.next_element()? {
            self.0.piece()?;
            pieces.push(it);
        }
        Ok(pieces)
    }
}

impl<'de> Deserialize<'de> for Join<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(JoinBody)
    }
}

/// One join, an object.
struct JoinBody;

impl<'de> Visitor<'de> for JoinBody {
    type Value = Join<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a join")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Join<'de>, A::Error> {
        let mut texts = [None, None, None];
        while let Some(field) = map.next_key_seed(Name(["kind", "table", "on"]))? {
            match field {
                Some(it) if texts[it].is_some() => return Err(A::Error::custom("given twice")),
                Some(it) => texts[it] = Some(map.next_value_seed(Text)?.unwrap_or_default()),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let [kind, table, on] = texts.map(Option::unwrap_or_default);
        Ok(Join { kind, table, on })
    }
}

/// The conditions, an array or `null`.
struct Conditions<'p>(&'p mut Pen);

impl<'de> DeserializeSeed<'de> for Conditions<'_> {
    type Value = Vec<Condition<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Conditions<'_> {
    type Value = Vec<Condition<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of conditions")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut conditions = Vec::new();
        while let Some(it) = seq.next_element_seed(ConditionBody(self.0))? {
            self.0.piece()?;
            conditions.push(it);
        }
        Ok(conditions)
    }
}

/// One condition, an object.
struct ConditionBody<'p>(&'p mut Pen);

impl<'de> DeserializeSeed<'de> for ConditionBody<'_> {
    type Value = Condition<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ConditionBody<'_> {
    type Value = Condition<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a condition")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let pen = self.0;
        let (mut conjunction, mut expr, mut arguments) = (None, None, None);
        while let Some(field) = map.next_key_seed(Name(["conj", "expr", "args"]))? {
            match field {
                Some(0) if conjunction.is_none() => {
                    let text = map.next_value_seed(Text)?.unwrap_or_default();
                    let is_or = text.trim().eq_ignore_ascii_case("or");
                    conjunction = Some(if is_or { Conjunction::Or } else { Conjunction::And });
                }
                Some(1) if expr.is_none() => {
                    expr = Some(map.next_value_seed(Text)?.unwrap_or_default());
                }
                Some(2) if arguments.is_none() => {
                    let start = pen.early.len();
                    let sink = Sink::Early;
                    let n = map.next_value_seed(Arguments { pen, sink })?;
                    arguments = Some(Aside { start, end: pen.early.len(), n });
                }
                Some(_) => return Err(pen.refuse(BodyError::Shape)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Condition {
            conjunction: conjunction.unwrap_or_default(),
            expr: expr.unwrap_or_default(),
            arguments: arguments.unwrap_or_default(),
        })
    }
}

/// The criteria, an object or `null`.
struct Criteria<'p>(&'p mut Pen);

impl<'de> DeserializeSeed<'de> for Criteria<'_> {
    type Value = Vec<(Cow<'de, str>, Test, Aside)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Criteria<'_> {
    type Value = Vec<(Cow<'de, str>, Test, Aside)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of columns and values")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let pen = self.0;
        let mut criteria = Vec::new();
        while let Some(TextOf(key)) = map.next_key()? {
            pen.piece()?;
            let start = pen.early.len();
            let number = criteria.len() + 1;
            let test = map.next_value_seed(Wanted { pen, number })?;
            let n = match test {
                Test::Equal => 1,
                Test::Null => 0,
                Test::OneOf { n, .. } => n,
            };
            criteria.push((key, test, Aside { start, end: pen.early.len(), n }));
        }
        Ok(criteria)
    }
}

/// What a column must be: a value, `null`, or an array of both.
struct Wanted<'p> {
    pen: &'p mut Pen,
    /// Which criterion it is, counted from one.
    number: usize,
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Test;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Test, D::Error> {
        json.deserialize_any(self)
    }
}

impl Wanted<'_> {
    fn argument(&mut self) -> Argument<'_> {
        Argument { pen: self.pen, sink: Sink::Early, number: self.number }
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Test;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, null, or an array of values")
    }

    fn visit_unit<E: Error>(self) -> Result<Test, E> {
        Ok(Test::Null)
    }

    fn visit_bool<E: Error>(mut self, it: bool) -> Result<Test, E> {
        self.argument().visit_bool(it).map(|()| Test::Equal)
    }

    fn visit_i64<E: Error>(mut self, it: i64) -> Result<Test, E> {
        self.argument().visit_i64(it).map(|()| Test::Equal)
    }

    fn visit_u64<E: Error>(mut self, it: u64) -> Result<Test, E> {
        self.argument().visit_u64(it).map(|()| Test::Equal)
    }

    fn visit_f64<E: Error>(mut self, it: f64) -> Result<Test, E> {
        self.argument().visit_f64(it).map(|()| Test::Equal)
    }

    fn visit_str<E: Error>(mut self, it: &str) -> Result<Test, E> {
        self.argument().visit_str(it).map(|()| Test::Equal)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<Test, A::Error> {
        self.argument().visit_map(map).map(|()| Test::Equal)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Test, A::Error> {
        let (mut n, mut or_null) = (0, false);
        loop {
            let start = self.pen.early.len();
            if seq.next_element_seed(self.argument())?.is_none() {
                return Ok(Test::OneOf { n, or_null });
            }
            // Nothing is equal to NULL, so that it would never be found in a list.
            if Value::decode(&mut Reader::new(&self.pen.early[start..])) == Ok(Value::Null) {
                self.pen.early.truncate(start);
                self.pen.n_early -= 1;
                or_null = true;
            } else {
                n += 1;
            }
        }
    }
}
