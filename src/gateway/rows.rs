//! Results as JSON, written from the encoded values straight into the reply.
//!
//! | SQLite | declared type of the column | JSON |
//! |---|---|---|
//! | NULL | any | `null` |
//! | INTEGER | `boolean` | `true` if greater than zero |
//! | INTEGER | `timestamp`, `datetime`, `date` | RFC 3339 in UTC, from seconds (milliseconds beyond ±1e12) since 1970 |
//! | INTEGER | other | number, all 64 bits |
//! | REAL | any | number |
//! | TEXT | any | string |
//! | BLOB | any | base64 string, or `{"base64":…}` if asked for |
//!
//! A moment outside the years 0 to 9999 has no such text and stays a number. In an object the columns
//! are sorted by name, and of several with one name the last stays; the arrays keep all, in order.
//!
//! Cost of a row: no allocation and no formatting machinery but for floats with a fraction; about 10 ns
//! per short value, twice (object and array).

use crate::gateway::json;
use crate::gateway::time;
use crate::wire::command::Value;
use crate::wire::rows::Rows;

/// Bytes reserved for a result before it is written; what is longer grows as it is written.
const RESERVE_SIZE_MAX: usize = 1 << 20;

/// How blobs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blobs {
    /// As a base64 string.
    #[default]
    Text,
    /// As `{"base64":…}`, which can be bound again and is not mistaken for text.
    Object,
}

/// What of a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The rows as objects, an array.
    Items,
    /// The rows as arrays, an array.
    Rows,
    /// The first row, which there must be, as an object.
    First,
}

/// How the integers of a column are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Number,
    Boolean,
    Moment,
}

impl Meaning {
    fn of(declared_type: Option<&str>) -> Self {
        match declared_type {
            Some("boolean") => Self::Boolean,
            Some("timestamp" | "datetime" | "date") => Self::Moment,
            _ => Self::Number,
        }
    }
}

/// One result, ready to be written.
#[derive(Debug)]
pub struct Table<'a> {
    rows: &'a Rows,
    blobs: Blobs,
    meanings: Vec<Meaning>,
    /// The columns an object has, sorted by name: `"name":` in `names`, and the column's position.
    fields: Vec<(std::ops::Range<usize>, usize)>,
    names: Vec<u8>,
}

impl<'a> Table<'a> {
    /// Prepare to write `rows`.
    pub fn new(rows: &'a Rows, blobs: Blobs) -> Self {
        let columns = &rows.columns;
        let meanings = columns.iter().map(|it| Meaning::of(it.declared_type.as_deref())).collect();
        let mut order: Vec<usize> = (0..columns.len()).collect();
        // Stable: of equal names the last column comes last.
        order.sort_by(|a, b| columns[*a].name.cmp(&columns[*b].name));
        let mut names = Vec::new();
        let mut fields = Vec::with_capacity(order.len());
        for (nth, &at) in order.iter().enumerate() {
            let name = &columns[at].name;
            if order.get(nth + 1).is_some_and(|next| columns[*next].name == *name) {
                continue;
            }
            let start = names.len();
            json::put_text(&mut names, name);
            names.push(b':');
            fields.push((start..names.len(), at));
        }
        Self { rows, blobs, meanings, fields, names }
    }

    /// Bytes to reserve for all parts: about what they take, and at most [`RESERVE_SIZE_MAX`]. Names are
    /// repeated in every row, so that a small result may have a text that is larger by far.
    pub fn size_hint(&self) -> usize {
        let names = self.rows.count.saturating_mul(self.names.len());
        let values = usize::try_from(self.rows.values.size()).unwrap_or(usize::MAX);
        let values = values.saturating_mul(3);
        names.saturating_add(values).saturating_add(128).min(RESERVE_SIZE_MAX)
    }

    /// Append the names of the columns, an array.
    pub fn put_columns(&self, out: &mut Vec<u8>) {
        put_list(out, self.rows.columns.iter(), |out, it| json::put_text(out, &it.name));
    }

    /// What it is of.
    pub fn rows(&self) -> &Rows {
        self.rows
    }

    /// Append what `part` says, of rows that are in memory.
    pub fn put(&self, out: &mut Vec<u8>, part: Part) {
        match part {
            Part::Items => self.put_each_row(out, |out, row| self.put_item(out, row)),
            Part::Rows => self.put_each_row(out, |out, row| self.put_array(out, row)),
            Part::First => {
                let row: Vec<_> = self.rows.values().take(self.rows.columns.len()).collect();
                self.put_item(out, &row);
            }
        }
    }

    /// Append one row.
    pub fn put_row(&self, out: &mut Vec<u8>, row: &[Value<'_>], part: Part) {
        match part {
            Part::Items | Part::First => self.put_item(out, row),
            Part::Rows => self.put_array(out, row),
        }
    }

    /// The columns that an object has: the text of the name, with its colon, and where its value stands in the row.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], usize)> {
        self.fields.iter().map(|(name, at)| (&self.names[name.clone()], *at))
    }

    fn put_item(&self, out: &mut Vec<u8>, row: &[Value<'_>]) {
        out.push(b'{');
        for (nth, (name, at)) in self.fields().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            self.put_value(out, at, row[at]);
        }
        out.push(b'}');
    }

    fn put_array(&self, out: &mut Vec<u8>, row: &[Value<'_>]) {
        put_list(out, row.iter().enumerate(), |out, (at, it)| self.put_value(out, at, *it));
    }

    fn put_each_row(&self, out: &mut Vec<u8>, put: impl Fn(&mut Vec<u8>, &[Value<'a>])) {
        let width = self.rows.columns.len();
        let mut values = self.rows.values();
        let mut row = Vec::with_capacity(width);
        put_list(out, 0..self.rows.count, |out, _| {
            row.clear();
            row.extend(values.by_ref().take(width));
            assert_eq!(row.len(), width, "a row has a value per column");
            put(out, &row);
        });
    }

    /// Append a value of column `at`.
    pub fn put_value(&self, out: &mut Vec<u8>, at: usize, value: Value<'_>) {
        match value {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Integer(it) => match self.meanings[at] {
                Meaning::Number => json::put_integer(out, it),
                Meaning::Boolean => {
                    out.extend_from_slice(if it > 0 { b"true" } else { b"false" });
                }
                Meaning::Moment => put_moment(out, it),
            },
            Value::Real(it) => json::put_real(out, it),
            Value::Text(it) => json::put_text(out, it),
            Value::Blob(it) if self.blobs == Blobs::Object => {
                out.extend_from_slice(b"{\"base64\":");
                json::put_base64(out, it);
                out.push(b'}');
            }
            Value::Blob(it) => json::put_base64(out, it),
        }
    }
}

fn put_moment(out: &mut Vec<u8>, value: i64) {
    const SECONDS_MAX: u64 = 1_000_000_000_000;
    let is_ms = value.unsigned_abs() > SECONDS_MAX;
    let ms = if is_ms { Some(value) } else { value.checked_mul(1_000) };
    match ms.and_then(time::rfc3339) {
        Some(text) => json::put_text(out, &text),
        None => json::put_integer(out, value),
    }
}

fn put_list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (nth, item) in items.enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::rows::Column;

    /// Rows of these values; a column is `name` or `name:type`.
    pub(crate) fn rows(columns: &[&str], values: &[Value<'_>]) -> Rows {
        let columns: Vec<Column> = columns
            .iter()
            .map(|it| match it.split_once(':') {
                Some((name, it)) => {
                    Column { name: name.to_owned(), declared_type: Some(it.to_owned()) }
                }
                None => Column { name: (*it).to_owned(), declared_type: None },
            })
            .collect();
        let mut encoded = BytesMut::new();
        for value in values {
            value.encode(&mut encoded);
        }
        let count = if columns.is_empty() { 0 } else { values.len() / columns.len() };
        Rows { columns: columns.into(), count, values: encoded.freeze().into() }
    }

    fn text(rows: &Rows, blobs: Blobs) -> String {
        let table = Table::new(rows, blobs);
        let mut out = Vec::new();
        table.put_columns(&mut out);
        out.push(b'\n');
        table.put(&mut out, Part::Items);
        out.push(b'\n');
        table.put(&mut out, Part::Rows);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_by_type_and_declared_type() {
        for (declared, value, want) in [
            ("", Value::Null, "null"),
            ("", Value::Integer(i64::MAX), "9223372036854775807"),
            ("", Value::Real(3.0), "3"),
            ("", Value::Text("<ü>"), r#""\u003cü\u003e""#),
            ("", Value::Blob(b"\0\xff"), r#""AP8=""#),
            ("text", Value::Blob(b"ab"), r#""YWI=""#),
            ("boolean", Value::Integer(1), "true"),
            ("boolean", Value::Integer(0), "false"),
            ("boolean", Value::Integer(-1), "false"),
            ("boolean", Value::Text("t"), r#""t""#),
            ("boolean", Value::Null, "null"),
            ("datetime", Value::Integer(1_761_300_000), r#""2025-10-24T10:00:00Z""#),
            ("timestamp", Value::Integer(1_761_300_000_500), r#""2025-10-24T10:00:00.5Z""#),
            ("date", Value::Integer(0), r#""1970-01-01T00:00:00Z""#),
            ("date", Value::Integer(999_999_999_999), "999999999999"),
            ("date", Value::Integer(i64::MIN), "-9223372036854775808"),
            ("date", Value::Text("2025-10-24 10:00:00"), r#""2025-10-24 10:00:00""#),
            ("date", Value::Real(0.5), "0.5"),
            ("integer", Value::Integer(1), "1"),
        ] {
            let rows = rows(&[&format!("c:{declared}")], &[value]);
            let got = text(&rows, Blobs::Text);
            assert_eq!(got, format!("[\"c\"]\n[{{\"c\":{want}}}]\n[[{want}]]"), "{declared}");
        }
    }

    #[test]
    fn objects_are_sorted_and_arrays_are_complete() {
        let values: Vec<_> = (1..=8).map(Value::Integer).collect();
        expect_test::expect![[r#"
            ["b","a","b","\u003c"]
            [{"\u003c":4,"a":2,"b":3},{"\u003c":8,"a":6,"b":7}]
            [[1,2,3,4],[5,6,7,8]]"#]]
        .assert_eq(&text(&rows(&["b", "a", "b", "<"], &values), Blobs::Text));
    }

    #[test]
    fn what_is_reserved_is_bounded() {
        let name = "n".repeat(1_000);
        let nulls = vec![Value::Null; 5_000];
        let large = rows(&[&name], &nulls);
        assert_eq!(Table::new(&large, Blobs::Text).size_hint(), RESERVE_SIZE_MAX);
        let small = rows(&["c"], &[Value::Null]);
        assert!(Table::new(&small, Blobs::Text).size_hint() < 256);
    }

    #[test]
    fn blobs_can_be_objects_and_nothing_is_an_empty_list() {
        let one = rows(&["c"], &[Value::Blob(b"a")]);
        assert!(text(&one, Blobs::Object).ends_with(r#"[[{"base64":"YQ=="}]]"#));
        assert_eq!(text(&rows(&["c"], &[]), Blobs::Text), "[\"c\"]\n[]\n[]");
        assert_eq!(text(&rows(&[], &[]), Blobs::Text), "[]\n[]\n[]");
    }
}
