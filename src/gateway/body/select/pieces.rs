//! The pieces themselves: joins, conditions and criteria, read from JSON.

use std::borrow::Cow;
use std::fmt;

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
use crate::gateway::body::select::Aside;
use crate::gateway::body::select::Condition;
use crate::gateway::body::select::Join;
use crate::sql::select::Conjunction;
use crate::sql::select::Test;
use crate::wire::bytes::Reader;
use crate::wire::command::Value;

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
pub(super) struct Conditions<'p>(pub(super) &'p mut Pen);

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
pub(super) struct Criteria<'p>(pub(super) &'p mut Pen);

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
