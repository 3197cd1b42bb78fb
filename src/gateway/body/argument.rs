//! Arguments of a statement.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::gateway::body::BodyError;
use crate::gateway::body::Pen;
use crate::gateway::body::Sink;
use crate::gateway::body::scalar::Name;
use crate::gateway::body::scalar::Text;
use crate::wire::command::Value;

/// Blobs may come without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The arguments of a statement, an array or `null`; how many they are.
pub(super) struct Arguments<'p> {
    pub(super) pen: &'p mut Pen,
    pub(super) sink: Sink,
}

impl<'de> DeserializeSeed<'de> for Arguments<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<usize, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Arguments<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of arguments")
    }

    fn visit_unit<E: Error>(self) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
        let Self { pen, sink } = self;
        let mut n = 0;
        while seq.next_element_seed(Argument { pen, sink, number: n + 1 })?.is_some() {
            n += 1;
        }
        Ok(n)
    }
}

/// One argument, bound as the table of the module above says.
pub(super) struct Argument<'p> {
    pub(super) pen: &'p mut Pen,
    pub(super) sink: Sink,
    pub(super) number: usize,
}

impl Argument<'_> {
    fn bind<E: Error>(self, value: Value<'_>) -> Result<(), E> {
        self.pen.bind(self.sink, value)
    }

    fn refuse<E: Error>(self) -> E {
        self.pen.refuse(BodyError::Argument(self.number))
    }
}

impl<'de> DeserializeSeed<'de> for Argument<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Argument<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an argument")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.bind(Value::Null)
    }

    fn visit_bool<E: Error>(self, it: bool) -> Result<(), E> {
        self.bind(Value::Integer(i64::from(it)))
    }

    fn visit_i64<E: Error>(self, it: i64) -> Result<(), E> {
        self.bind(Value::Integer(it))
    }

    fn visit_u64<E: Error>(self, it: u64) -> Result<(), E> {
        #[expect(clippy::cast_precision_loss, reason = "as any number beyond 64 bits")]
        let value = i64::try_from(it).map_or(Value::Real(it as f64), Value::Integer);
        self.bind(value)
    }

    fn visit_f64<E: Error>(self, it: f64) -> Result<(), E> {
        const LIMIT: f64 = 9_223_372_036_854_775_808.0; // 2^63
        if it.fract() == 0.0 && (-LIMIT..LIMIT).contains(&it) {
            #[expect(clippy::cast_possible_truncation, reason = "whole, and within the range")]
            return self.bind(Value::Integer(it as i64));
        }
        self.bind(Value::Real(it))
    }

    fn visit_str<E: Error>(self, it: &str) -> Result<(), E> {
        self.bind(Value::Text(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.refuse())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some(Some(_)) = map.next_key_seed(Name(["base64"]))? else {
            return Err(self.refuse());
        };
        let text = map.next_value_seed(Text)?.unwrap_or_default();
        let mut blob = std::mem::take(&mut self.pen.blob);
        blob.clear();
        if BASE64.decode_vec(&*text, &mut blob).is_err()
            || map.next_key_seed(Name(["base64"]))?.is_some()
        {
            return Err(self.refuse());
        }
        let bound = self.pen.bind(self.sink, Value::Blob(&blob));
        self.pen.blob = blob;
        bound
    }
}
