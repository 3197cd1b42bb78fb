//! The fields of a SELECT in pieces, read from JSON.
//!
//! A field that is given twice is refused, one that a body does not have is passed over, and arguments go to the
//! pen as they come. Lists count their pieces, so that a small body cannot become a large statement.

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
use crate::gateway::body::scalar::Name;
use crate::gateway::body::scalar::Text;
use crate::gateway::body::select::Form;
use crate::gateway::body::select::Options;
use crate::gateway::body::select::Parts;
use crate::gateway::body::select::pieces::Conditions;
use crate::gateway::body::select::pieces::Criteria;

/// The fields of all three bodies.
const FIELDS: [&str; 12] = [
    "select", "joins", "where", "group_by", "order_by", "limit", "offset", "table", "criteria",
    "options", "alias", "one",
];

/// A whole body, an object or `null`.
pub(super) struct Body<'p> {
    pub(super) pen: &'p mut Pen,
    pub(super) form: Form,
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
