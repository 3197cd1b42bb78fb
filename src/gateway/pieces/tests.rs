//! Pieces, held against the text that is written at once.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::gateway::rows::tests::rows;
use crate::http::testing::on_executor;
use crate::wire::command::Value;
use crate::wire::spool::Spooled;
use crate::wire::spool::tests::Fake;

/// All pieces, as they come.
pub(crate) async fn collect(mut pieces: Box<dyn Pieces>) -> io::Result<Vec<Bytes>> {
    let mut all = Vec::new();
    while let Some(piece) = std::future::poll_fn(|cx| pieces.poll_piece(cx)).await {
        all.push(piece?);
    }
    Ok(all)
}

/// `rows` in a spool, in which something stands in front and behind.
fn spooled(rows: &Rows, waits: usize, broken_at: u64) -> Rows {
    let held = rows.values.held().unwrap();
    let bytes = [&b"in front"[..], held, b"behind"].concat();
    let spool = Arc::new(Fake { bytes, waits, broken_at });
    let values = Values::Spooled(Spooled::new(spool, 8, held.len() as u64));
    Rows { values, ..rows.clone() }
}

fn plan(rows: &Rows, blobs: Blobs) -> Plan {
    let mut plan = Plan::default();
    let table = Table::new(rows, blobs);
    plan.text().extend_from_slice(b"begin ");
    for part in [Part::Items, Part::Rows, Part::First] {
        if part != Part::First || rows.count > 0 {
            plan.put(&table, part);
            plan.text().extend_from_slice(b" then ");
        }
    }
    plan
}

/// What is written at once.
fn whole(rows: &Rows, blobs: Blobs) -> Vec<u8> {
    let mut out = b"begin ".to_vec();
    let table = Table::new(rows, blobs);
    for part in [Part::Items, Part::Rows, Part::First] {
        if part != Part::First || rows.count > 0 {
            table.put(&mut out, part);
            out.extend_from_slice(b" then ");
        }
    }
    out
}

/// Values as they come, but for their length.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let encoded = |value: Value<'_>| {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        bytes
    };
    let real = prop_oneof![
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0)
    ];
    prop_oneof![
        Just(encoded(Value::Null)),
        prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just((1 << 53) + 1)]
            .prop_map(move |it| encoded(Value::Integer(it))),
        real.prop_map(move |it| encoded(Value::Real(it))),
        prop_oneof![".{0,9}", "[\"\\\\<>&\u{2028}\u{fffd}\u{10348}\u{0}-\u{20}a]{0,300}"]
            .prop_map(move |it| encoded(Value::Text(&it))),
        prop_oneof![vec(any::<u8>(), 0..9), vec(any::<u8>(), 0..300)]
            .prop_map(move |it| encoded(Value::Blob(&it))),
    ]
}

fn any_rows() -> impl Strategy<Value = Rows> {
    let names = vec(
        prop_oneof![Just("a"), Just("b:boolean"), Just("\"<:date"), Just("c:blob"), Just("a:text")],
        1..6,
    );
    (names, 0..12_usize).prop_flat_map(|(names, count)| {
        vec(value(), names.len() * count).prop_map(move |values| Rows {
            values: Bytes::from(values.concat()).into(),
            count,
            ..rows(&names, &[])
        })
    })
}

proptest! {
    #[test]
    fn pieces_are_the_same_text(
        rows in any_rows(), piece in 1..400_usize, is_object: bool, waits in 0..5_usize,
    ) {
        let blobs = if is_object { Blobs::Object } else { Blobs::Text };
        let want = whole(&rows, blobs);
        for rows in [spooled(&rows, 0, u64::MAX), spooled(&rows, waits, u64::MAX), rows] {
            let pieces = plan(&rows, blobs).into_pieces(blobs, piece);
            let got = on_executor(collect(pieces)).unwrap();
            prop_assert!(got.iter().all(|it| !it.is_empty()));
            let got = got.concat();
            prop_assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&want));
        }
    }
}

#[test]
fn a_piece_is_bounded_however_large_the_result() {
    let (text, blob) = ("<\u{2028}x".repeat(300_000), vec![0xfe; 1_000_000]);
    let large = [Value::Text(&text), Value::Blob(&blob), Value::Integer(7)];
    let small = [Value::Text("a"), Value::Null, Value::Integer(i64::MIN)];
    let values: Vec<_> = large.iter().chain(small.repeat(20_000).iter()).copied().collect();
    let rows = rows(&["t", "b", "n"], &values);
    let want = whole(&rows, Blobs::Object);
    let spooled = spooled(&rows, 7, u64::MAX);
    let pieces = plan(&spooled, Blobs::Object).into_pieces(Blobs::Object, 64 << 10);
    let got = on_executor(collect(pieces)).unwrap();
    let longest = got.iter().map(Bytes::len).max().unwrap();
    // A text may become six times as long.
    assert!((64 << 10..8 * (64 << 10)).contains(&longest), "{longest}");
    assert!(got.concat() == want, "the text is another");
}

#[test]
fn nothing_is_read_before_it_is_asked_for_and_the_file_goes_with_the_reply() {
    let text = "x".repeat(1_000);
    let rows = spooled(&rows(&["t"], &vec![Value::Text(&text); 1_000]), 0, u64::MAX);
    let Values::Spooled(part) = &rows.values else { unreachable!() };
    let file = Arc::downgrade(part.spool());
    let mut pieces = plan(&rows, Blobs::Text).into_pieces(Blobs::Text, 8_192);
    drop(rows);
    let first = on_executor(std::future::poll_fn(|cx| pieces.poll_piece(cx)));
    assert!(first.unwrap().unwrap().len() < 3 * 8_192);
    assert!(file.upgrade().is_some());
    drop(pieces);
    assert!(file.upgrade().is_none());
}

#[test]
fn what_cannot_be_read_ends_in_an_error() {
    let rows = rows(&["t"], &vec![Value::Integer(1); 10_000]);
    for waits in [0, 2] {
        let broken = spooled(&rows, waits, 60_000);
        let pieces = plan(&broken, Blobs::Text).into_pieces(Blobs::Text, 4_096);
        let error = on_executor(collect(pieces)).unwrap_err();
        assert_eq!(error.to_string(), "broken");
    }
}

#[test]
fn a_blob_alone_is_its_bytes() {
    let blob: Vec<u8> = (0..=255).cycle().take(300_001).collect();
    let rows = spooled(&rows(&["value"], &[Value::Blob(&blob)]), 0, u64::MAX);
    let got = on_executor(collect(bytes_of_value(rows.values))).unwrap();
    assert!(got.len() > 3);
    assert!(got.concat() == blob);
}

#[test]
fn results_are_large_together() {
    let text = "x".repeat(limits::RESULT_HELD_SIZE_MAX / 2);
    let half = || StatementResult::Rows(rows(&["t"], &[Value::Text(&text)]));
    assert!(!are_large(&[half()]));
    assert!(are_large(&[half(), half()]));
    // Names count with each row, and without any.
    let name = "n".repeat(limits::RESULT_HELD_SIZE_MAX / 100);
    let nulls = |n| [StatementResult::Rows(rows(&[&name], &vec![Value::Null; n]))];
    assert!(!are_large(&nulls(90)));
    assert!(are_large(&nulls(110)));
    assert!(are_large(&(0..110).flat_map(|_| nulls(0)).collect::<Vec<_>>()));
    let small = spooled(&rows(&["t"], &[Value::Null]), 0, u64::MAX);
    assert!(are_large(&[StatementResult::Rows(small)]));
}
