//! An [`Outcome`] as bytes: what is kept of a request with a key, to be given again (R18).
//!
//! ```text
//! little-endian
//!   u8  format version, 1
//!   u8  0 results, 1 an error
//! results: u32 number, then each
//!   u8  0 counts, 1 counts and returned rows, 2 rows
//!   counts: u64 rows affected, i64 last insert id
//!   rows:   u32 number of columns, then each: text name, u8 0 or 1, and if 1: text declared type
//!           u32 number of rows, u32 length, values as in `command`
//! error
//!   text message, text code (empty: none), u32 seconds to wait (0: not known)
//! text: u32 length, UTF-8
//! ```
//!
//! Codes are words of [`CODES`]. One that is not there, which a newer program wrote, reads as none.

use std::sync::Arc;

use bytes::BufMut;
use bytes::Bytes;

use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;
use crate::wire::command::Value;
use crate::wire::rows::Column;
use crate::wire::rows::Outcome;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementError;
use crate::wire::rows::StatementResult;

const VERSION: u8 = 1;

/// Every code that a statement's error may have.
pub const CODES: [&str; 18] = [
    "busy",
    "database_bytes",
    "disk_reserve",
    "fenced",
    "idempotency_key_reused",
    "idempotency_keys_full",
    "not_authorized",
    "overloaded",
    "result_bytes",
    "result_rows",
    "schema_objects",
    "schema_views",
    "statement_match",
    "statement_memory",
    "statement_ms",
    "statement_steps",
    "temp_bytes",
    "value_bytes",
];

/// Bytes that these results become.
pub fn size_of_results(results: &[StatementResult]) -> usize {
    let text = |it: &str| 4 + it.len();
    let column = |it: &Column| text(&it.name) + 1 + it.declared_type.as_deref().map_or(0, text);
    let rows = |it: &Rows| 12 + it.columns.iter().map(column).sum::<usize>() + held(it).len();
    let result = |it: &StatementResult| match it {
        StatementResult::Counts { returned, .. } => 17 + returned.as_ref().map_or(0, rows),
        StatementResult::Rows(it) => 1 + rows(it),
    };
    6 + results.iter().map(result).sum::<usize>()
}

/// Append `outcome` to `out`. Its parts are bounded far below 4 GiB.
pub fn encode(outcome: &Outcome, out: &mut impl BufMut) {
    out.put_u8(VERSION);
    match outcome {
        Ok(results) => {
            out.put_u8(0);
            put_count(out, results.len());
            for result in results {
                encode_result(result, out);
            }
        }
        Err(error) => {
            out.put_u8(1);
            put_text(out, &error.message);
            let code = error.code.unwrap_or_default();
            debug_assert!(code.is_empty() || CODES.contains(&code), "{code} is not in CODES");
            put_text(out, code);
            out.put_u32_le(error.retry_after_s.unwrap_or_default());
        }
    }
}

fn encode_result(result: &StatementResult, out: &mut impl BufMut) {
    match result {
        StatementResult::Counts { rows_affected, last_insert_id, returned } => {
            out.put_u8(u8::from(returned.is_some()));
            out.put_u64_le(*rows_affected);
            out.put_i64_le(*last_insert_id);
            if let Some(rows) = returned {
                encode_rows(rows, out);
            }
        }
        StatementResult::Rows(rows) => {
            out.put_u8(2);
            encode_rows(rows, out);
        }
    }
}

fn encode_rows(rows: &Rows, out: &mut impl BufMut) {
    put_count(out, rows.columns.len());
    for column in rows.columns.iter() {
        put_text(out, &column.name);
        out.put_u8(u8::from(column.declared_type.is_some()));
        if let Some(declared) = &column.declared_type {
            put_text(out, declared);
        }
    }
    put_count(out, rows.count);
    put_count(out, held(rows).len());
    out.put_slice(held(rows));
}

/// Read what [`encode`] wrote, to the last byte.
pub fn decode(bytes: &[u8]) -> Result<Outcome, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let outcome = match reader.u8()? {
        0 => {
            let n = count(&mut reader)?;
            // No more room than the bytes that are there can fill.
            let mut results = Vec::with_capacity(n.min(bytes.len() / 13));
            for _ in 0..n {
                results.push(decode_result(&mut reader)?);
            }
            Ok(results)
        }
        1 => {
            let message = reader.text()?.to_owned();
            let code = reader.text()?;
            let code = CODES.into_iter().find(|it| *it == code);
            let wait = reader.u32()?;
            Err(StatementError { message, code, retry_after_s: (wait > 0).then_some(wait) })
        }
        _ => return Err(DecodeError::Malformed("unknown kind of outcome")),
    };
    if reader.is_empty() {
        Ok(outcome)
    } else {
        Err(DecodeError::Malformed("bytes behind an outcome"))
    }
}

fn decode_result(reader: &mut Reader<'_>) -> Result<StatementResult, DecodeError> {
    Ok(match reader.u8()? {
        kind @ (0 | 1) => StatementResult::Counts {
            rows_affected: reader.u64()?,
            last_insert_id: reader.i64()?,
            returned: if kind == 1 { Some(decode_rows(reader)?) } else { None },
        },
        2 => StatementResult::Rows(decode_rows(reader)?),
        _ => return Err(DecodeError::Malformed("unknown kind of result")),
    })
}

fn decode_rows(reader: &mut Reader<'_>) -> Result<Rows, DecodeError> {
    let n_columns = count(reader)?;
    let mut columns = Vec::with_capacity(n_columns.min(reader.rest().len() / 5));
    for _ in 0..n_columns {
        let name = reader.text()?.to_owned();
        let declared_type = match reader.u8()? {
            0 => None,
            1 => Some(reader.text()?.to_owned()),
            _ => return Err(DecodeError::Malformed("unknown flag of a column")),
        };
        columns.push(Column { name, declared_type });
    }
    let n_rows = count(reader)?;
    let values = reader.slice()?;
    // Checked here once, so that whoever reads the rows cannot fail.
    let (mut checked, mut n_values) = (Reader::new(values), 0_usize);
    while !checked.is_empty() {
        Value::decode(&mut checked)?;
        n_values += 1;
    }
    let is_table = n_rows.checked_mul(n_columns) == Some(n_values);
    if !is_table || (n_columns == 0 && n_rows > 0) {
        return Err(DecodeError::Malformed("values do not fill their rows"));
    }
    let (columns, values) = (Arc::from(columns), Bytes::copy_from_slice(values));
    Ok(Rows { columns, count: n_rows, values: values.into() })
}

fn held(rows: &Rows) -> &Bytes {
    rows.values.held().expect("results of writes are in memory")
}

fn count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    usize::try_from(reader.u32()?).map_err(|_| DecodeError::Truncated)
}

fn put_count(out: &mut impl BufMut, n: usize) {
    out.put_u32_le(u32::try_from(n).expect("parts of an outcome are bounded"));
}

fn put_text(out: &mut impl BufMut, text: &str) {
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Vec<u8>> {
        let encoded = |value: Value<'_>| {
            let mut bytes = Vec::new();
            value.encode(&mut bytes);
            bytes
        };
        prop_oneof![
            Just(encoded(Value::Null)),
            any::<i64>().prop_map(move |it| encoded(Value::Integer(it))),
            any::<f64>().prop_map(move |it| encoded(Value::Real(it))),
            ".{0,9}".prop_map(move |it| encoded(Value::Text(&it))),
            vec(any::<u8>(), 0..9).prop_map(move |it| encoded(Value::Blob(&it))),
        ]
    }

    fn rows() -> impl Strategy<Value = Rows> {
        let column = (".{0,9}", option::of("[a-z()0-9]{0,9}"));
        let column = column.prop_map(|(name, declared_type)| Column { name, declared_type });
        (vec(column, 0..4), 0..4_usize).prop_flat_map(|(columns, count)| {
            let count = if columns.is_empty() { 0 } else { count };
            vec(value(), columns.len() * count).prop_map(move |values| Rows {
                columns: columns.clone().into(),
                count,
                values: Bytes::from(values.concat()).into(),
            })
        })
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        let counts = (any::<u64>(), any::<i64>(), option::of(rows()));
        let counts = counts.prop_map(|(rows_affected, last_insert_id, returned)| {
            StatementResult::Counts { rows_affected, last_insert_id, returned }
        });
        let result = prop_oneof![counts, rows().prop_map(StatementResult::Rows)];
        let error = (".{0,40}", option::of(0..CODES.len()), option::of(1..=u32::MAX));
        let error = error.prop_map(|(message, code, retry_after_s)| StatementError {
            message,
            code: code.map(|at| CODES[at]),
            retry_after_s,
        });
        prop_oneof![vec(result, 0..5).prop_map(Ok), error.prop_map(Err)]
    }

    fn encoded(outcome: &Outcome) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(outcome, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(outcome in outcome(), cut in any::<usize>()) {
            let bytes = encoded(&outcome);
            if let Ok(results) = &outcome {
                prop_assert_eq!(size_of_results(results), bytes.len());
            }
            // By their bytes: a NaN does not equal itself.
            prop_assert_eq!(encoded(&decode(&bytes).unwrap()), &bytes[..]);
            prop_assert!(decode(&bytes[..cut % bytes.len()]).is_err(), "cut short");
            let longer = [&bytes[..], &[0]].concat();
            prop_assert!(decode(&longer).is_err(), "too long");
        }

        #[test]
        fn decoding_never_panics(
            outcome in outcome(),
            at in any::<usize>(),
            byte in any::<u8>(),
            noise in vec(any::<u8>(), 0..60),
        ) {
            let mut bytes = encoded(&outcome);
            let at = at % bytes.len();
            bytes[at] = byte;
            for bytes in [bytes, [&[1, 0][..], &noise].concat(), [&[1, 1][..], &noise].concat()] {
                if let Ok(Ok(results)) = decode(&bytes) {
                    for result in results {
                        if let StatementResult::Rows(rows) = result {
                            prop_assert_eq!(rows.values().count(), rows.count * rows.columns.len());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_newer_is_named_as_such() {
        assert_eq!(decode(&[2, 0, 0, 0, 0, 0]), Err(DecodeError::Version(2)));
        let mut bytes = encoded(&Err(StatementError::coded("busy", "x")));
        let at = bytes.len() - 5;
        bytes[at] = b'X';
        assert_eq!(decode(&bytes), Ok(Err(StatementError::new("x"))));
    }

    #[test]
    fn every_code_of_a_statement_is_in_the_list() {
        let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut found = Vec::new();
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                pending.extend(std::fs::read_dir(path).unwrap().map(|it| it.unwrap().path()));
                continue;
            }
            if path.ends_with("wire/outcome.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.split("StatementError::coded(").skip(1);
            let codes = calls.filter_map(|it| it.trim_start().strip_prefix('"')?.split('"').next());
            found.extend(codes.map(|it| (path.clone(), it.to_owned())));
        }
        assert!(found.len() > 8, "{found:?}");
        for (path, code) in found {
            assert!(CODES.contains(&&*code), "{code} of {} is not in CODES", path.display());
        }
    }
}
