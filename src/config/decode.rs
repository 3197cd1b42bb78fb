//! YAML nodes to the types of the configuration, gathering every error instead of the first.
//!
//! The texts are those of Go's yaml.v3, which operators and their scripts know:
//! ``line 3: cannot unmarshal !!str `abc` into int``. What a scalar is follows that library too: YAML 1.1
//! numbers (`0x10`, `010`, `1_000`), bare words as strings, quoted numbers as strings.

use crate::config::duration::parse_go_duration;
use crate::config::yaml::Data;
use crate::config::yaml::Reading;
use crate::config::yaml::Value;

/// A mapping with a closed set of keys.
pub(super) trait Section {
    /// Take the value of `key`; false if there is no such key.
    fn set(&mut self, key: &str, value: &Value, decoder: &mut Decoder) -> bool;
}

/// Turns nodes into values. What does not fit is noted and treated as left out; so is `null`.
#[derive(Default)]
pub(super) struct Decoder {
    /// What is wrong, each beginning with `line N: `, in the order of the text.
    pub errors: Vec<String>,
}

impl Decoder {
    /// Read the mapping `value` into `section`, whose type is called `name` in messages.
    pub(super) fn section(&mut self, value: &Value, name: &str, section: &mut dyn Section) {
        let Data::Mapping(entries) = &value.data else {
            if kind(value) != Kind::Null {
                self.note_mismatch(value, name);
            }
            return;
        };
        let mut seen: Vec<(&str, usize)> = Vec::new();
        let mut merged: Vec<&Value> = Vec::new();
        for (key, value) in entries {
            let Data::Scalar(text, reading) = &key.data else {
                self.note_mismatch(key, "string");
                continue;
            };
            if text == "<<" && *reading == Reading::Plain {
                merged.push(value);
                continue;
            }
            if let Some((_, first)) = seen.iter().find(|(it, _)| it == text) {
                self.wrong(
                    key.line,
                    &format!("mapping key {text:?} already defined at line {first}"),
                );
                continue;
            }
            seen.push((text, key.line));
            if !section.set(text, value, self) {
                self.wrong(key.line, &format!("field {text} not found in type {name}"));
            }
        }
        // `<<: *other` fills in what the mapping itself does not say.
        for source in merged {
            let sources = match &source.data {
                Data::Sequence(items) => items.as_slice(),
                _ => std::slice::from_ref(source),
            };
            for source in sources {
                let Data::Mapping(entries) = &source.data else {
                    self.wrong(
                        source.line,
                        "map merge requires map or sequence of maps as the value",
                    );
                    continue;
                };
                let is_new = |key: &Value| match &key.data {
                    Data::Scalar(text, _) => seen.iter().all(|(it, _)| it != text),
                    _ => true,
                };
                let entries = entries.iter().filter(|(key, _)| is_new(key)).cloned().collect();
                self.section(
                    &Value { line: source.line, data: Data::Mapping(entries) },
                    name,
                    section,
                );
            }
        }
    }

    pub(super) fn string(&mut self, value: &Value) -> Option<String> {
        match (&value.data, kind(value)) {
            (_, Kind::Null) => None,
            (Data::Scalar(text, _), _) => Some(text.clone()),
            _ => self.mismatch(value, "string"),
        }
    }

    pub(super) fn strings(&mut self, value: &Value) -> Option<Vec<String>> {
        match (&value.data, kind(value)) {
            (_, Kind::Null) => None,
            (Data::Sequence(items), _) => {
                Some(items.iter().filter_map(|it| self.string(it)).collect())
            }
            _ => self.mismatch(value, "[]string"),
        }
    }

    pub(super) fn int(&mut self, value: &Value) -> Option<i64> {
        self.integer(value, "int")
    }

    pub(super) fn int64(&mut self, value: &Value) -> Option<i64> {
        self.integer(value, "int64")
    }

    fn integer(&mut self, value: &Value, name: &str) -> Option<i64> {
        match kind(value) {
            Kind::Null => None,
            Kind::Int(n) => Some(n),
            _ => self.mismatch(value, name),
        }
    }

    pub(super) fn boolean(&mut self, value: &Value) -> Option<bool> {
        match (kind(value), &value.data) {
            (Kind::Null, _) => None,
            (Kind::Bool(it), _) => Some(it),
            // YAML 1.1 spellings, which yaml.v3 takes where a bool is asked for.
            (Kind::Str, Data::Scalar(text, Reading::Plain)) => match text.as_str() {
                "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
                "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
                _ => self.mismatch(value, "bool"),
            },
            _ => self.mismatch(value, "bool"),
        }
    }

    /// Nanoseconds: a duration text, or a bare integer.
    pub(super) fn duration(&mut self, value: &Value) -> Option<i64> {
        match (kind(value), &value.data) {
            (Kind::Null, _) => None,
            (Kind::Int(n), _) => Some(n),
            (Kind::Str, Data::Scalar(text, _)) => {
                parse_go_duration(text).ok().or_else(|| self.mismatch(value, "time.Duration"))
            }
            _ => self.mismatch(value, "time.Duration"),
        }
    }

    fn mismatch<T>(&mut self, value: &Value, name: &str) -> Option<T> {
        self.note_mismatch(value, name);
        None
    }

    fn note_mismatch(&mut self, value: &Value, name: &str) {
        let what = match (&value.data, kind(value)) {
            (Data::Sequence(_), _) => "!!seq".to_owned(),
            (Data::Mapping(_), _) => "!!map".to_owned(),
            (Data::Scalar(text, _), kind) => format!("{} `{}`", kind.tag(), shorten(text)),
        };
        self.wrong(value.line, &format!("cannot unmarshal {what} into {name}"));
    }

    fn wrong(&mut self, line: usize, what: &str) {
        self.errors.push(format!("line {line}: {what}"));
    }
}

/// What a node looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float,
    Timestamp,
    Str,
    Collection,
}

impl Kind {
    fn tag(self) -> &'static str {
        match self {
            Self::Null => "!!null",
            Self::Bool(_) => "!!bool",
            Self::Int(_) => "!!int",
            Self::Float => "!!float",
            Self::Timestamp => "!!timestamp",
            Self::Str | Self::Collection => "!!str",
        }
    }
}

fn kind(value: &Value) -> Kind {
    let Data::Scalar(text, reading) = &value.data else { return Kind::Collection };
    match reading {
        Reading::Quoted => Kind::Str,
        Reading::Plain => plain_kind(text),
        Reading::Tagged(tag) => match (tag.as_str(), plain_kind(text)) {
            ("null", _) => Kind::Null,
            ("int", it @ Kind::Int(_))
            | ("bool", it @ Kind::Bool(_))
            | ("float", it @ (Kind::Int(_) | Kind::Float)) => it,
            _ => Kind::Str,
        },
    }
}

fn plain_kind(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF"
        | ".nan" | ".NaN" | ".NAN" => return Kind::Float,
        _ => {}
    }
    if !text.starts_with(|it: char| it.is_ascii_digit() || "+-.".contains(it)) {
        return Kind::Str;
    }
    let digits = text.replace('_', "");
    if let Some(n) = integer(&digits) {
        return Kind::Int(n);
    }
    if digits.bytes().all(|it| it.is_ascii_digit() || b"+-.eE".contains(&it))
        && let Ok(number) = digits.parse::<f64>()
    {
        return whole(number).map_or(Kind::Float, Kind::Int);
    }
    let is_date = text.len() >= 10
        && text.bytes().take(10).enumerate().all(|(at, it)| match at {
            4 | 7 => it == b'-',
            _ => it.is_ascii_digit(),
        });
    if is_date { Kind::Timestamp } else { Kind::Str }
}

/// A YAML 1.1 integer: decimal, `0x`, `0b`, `0o`, or octal by a leading zero.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(it) => ("-", it),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', b'o' | b'O', ..] => (&digits[2..], 8),
        [b'0', _, ..] if digits.bytes().all(|it| (b'0'..=b'7').contains(&it)) => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if !digits.starts_with(|it: char| it.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// The integer that a float such as `1e3` is, if it is one exactly.
fn whole(number: f64) -> Option<i64> {
    // Up to 2^53 every integer has its own float, and its text is its digits.
    let is_exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    is_exact.then(|| format!("{number:.0}").parse().ok()).flatten()
}

/// At most ten bytes, as the original shows values.
fn shorten(text: &str) -> String {
    if text.len() <= 10 {
        return text.to_owned();
    }
    let end = (0..=7).rev().find(|it| text.is_char_boundary(*it)).unwrap_or(0);
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use expect_test::Expect;
    use expect_test::expect;

    use super::*;
    use crate::config::yaml;

    #[derive(Debug, Default)]
    struct Inner {
        id: Option<String>,
        l: Option<Vec<String>>,
        n: Option<i64>,
        m: Option<i64>,
        d: Option<i64>,
        b: Option<bool>,
    }

    impl Section for Inner {
        fn set(&mut self, key: &str, value: &Value, decoder: &mut Decoder) -> bool {
            match key {
                "id" => self.id = decoder.string(value),
                "l" => self.l = decoder.strings(value),
                "n" => self.n = decoder.int(value),
                "m" => self.m = decoder.int64(value),
                "d" => self.d = decoder.duration(value),
                "b" => self.b = decoder.boolean(value),
                _ => return false,
            }
            true
        }
    }

    #[derive(Default)]
    struct Outer(Inner);

    impl Section for Outer {
        fn set(&mut self, key: &str, value: &Value, decoder: &mut Decoder) -> bool {
            key == "node" && {
                decoder.section(value, "config.NodeConfig", &mut self.0);
                true
            }
        }
    }

    fn decode(text: &str) -> (Inner, Vec<String>) {
        let value = yaml::parse(text).unwrap().unwrap();
        let mut decoder = Decoder::default();
        let mut outer = Outer::default();
        decoder.section(&value, "config.Config", &mut outer);
        (outer.0, decoder.errors)
    }

    fn check(text: &str, expect: Expect) {
        expect.assert_eq(&decode(text).1.join("\n"));
    }

    #[test]
    fn scalars_are_read_as_yaml_v3_does() {
        for (text, want) in [
            ("n: 0x10", 16),
            ("n: 010", 8),
            ("n: 0o10", 8),
            ("n: 1_000", 1_000),
            ("n: -0b11", -3),
            ("n: +5", 5),
            ("n: 08", 8),
            ("n: 1e3", 1_000),
            ("n: 1.0", 1),
            ("n: !!int \"5\"", 5),
        ] {
            let (inner, errors) = decode(&format!("node:\n  {text}\n"));
            assert_eq!((inner.n, errors), (Some(want), vec![]), "{text}");
        }
        for (text, want) in [("15s", 15_000_000_000), ("15", 15), ("-5s", -5_000_000_000)] {
            let (inner, errors) = decode(&format!("node:\n  d: {text}\n"));
            assert_eq!((inner.d, errors), (Some(want), vec![]), "{text}");
        }
        for (text, want) in [("yes", true), ("True", true), ("off", false), ("false", false)] {
            let (inner, errors) = decode(&format!("node:\n  b: {text}\n"));
            assert_eq!((inner.b, errors), (Some(want), vec![]), "{text}");
        }
        for (text, want) in [("5.0", "5.0"), ("true", "true"), ("2001-01-01", "2001-01-01")] {
            let (inner, errors) = decode(&format!("node:\n  id: {text}\n"));
            assert_eq!((inner.id.as_deref(), errors), (Some(want), vec![]), "{text}");
        }
    }

    #[test]
    fn null_is_left_out() {
        let (inner, errors) = decode("node:\n  n: null\n  id: ~\n  l:\n  d: Null\n  b:\n  m: NULL");
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(format!("{inner:?}").matches("None").count(), 6);
        assert_eq!(decode("node:\n").1, Vec::<String>::new());
        assert_eq!(decode("~").1, Vec::<String>::new());
    }

    #[test]
    fn a_merge_key_fills_in_what_is_not_said() {
        let (inner, errors) = decode("node:\n  n: 2\n  <<: {n: 1, m: 7}\n");
        assert_eq!((inner.n, inner.m, errors), (Some(2), Some(7), vec![]));
    }

    #[test]
    fn all_type_errors_are_told_with_their_lines() {
        check(
            "foo: 1\nnode:\n  foo: 2\n  ID: x\n  n: abc\n  m: \"5\"\n  b: maybe\n  d: abc\n  l: x\n  id: [a]\nbar: 3",
            expect![[r#"
                line 1: field foo not found in type config.Config
                line 3: field foo not found in type config.NodeConfig
                line 4: field ID not found in type config.NodeConfig
                line 5: cannot unmarshal !!str `abc` into int
                line 6: cannot unmarshal !!str `5` into int64
                line 7: cannot unmarshal !!str `maybe` into bool
                line 8: cannot unmarshal !!str `abc` into time.Duration
                line 9: cannot unmarshal !!str `x` into []string
                line 10: cannot unmarshal !!seq into string
                line 11: field bar not found in type config.Config"#]],
        );
        check(
            "node:\n  n: 99999999999999999999\n  m: 2001-01-01\n  b: 1\n  d: 1.5\n  l: [1, [2], {a: b}]\n  id: {}",
            expect![[r#"
                line 2: cannot unmarshal !!float `9999999...` into int
                line 3: cannot unmarshal !!timestamp `2001-01-01` into int64
                line 4: cannot unmarshal !!int `1` into bool
                line 5: cannot unmarshal !!float `1.5` into time.Duration
                line 6: cannot unmarshal !!seq into string
                line 6: cannot unmarshal !!map into string
                line 7: cannot unmarshal !!map into string"#]],
        );
    }

    #[test]
    fn shapes_and_repeated_keys_are_told() {
        check("[]", expect!["line 1: cannot unmarshal !!seq into config.Config"]);
        check("abc", expect!["line 1: cannot unmarshal !!str `abc` into config.Config"]);
        check("node: [1]", expect!["line 1: cannot unmarshal !!seq into config.NodeConfig"]);
        check("[a]: 2", expect!["line 1: cannot unmarshal !!seq into string"]);
        check(
            "node:\n  n: 1\n  n: 2",
            expect![[r#"line 3: mapping key "n" already defined at line 2"#]],
        );
        check(
            "node:\n  n: \"aé€bcdefghijklm\"",
            expect!["line 2: cannot unmarshal !!str `aé€b...` into int"],
        );
        check("node:\n  - n", expect!["line 2: cannot unmarshal !!seq into config.NodeConfig"]);
    }
}
