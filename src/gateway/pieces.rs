//! Large results as JSON, written piece by piece while they are sent: the same text that
//! [`rows`](crate::gateway::rows) writes at once.
//!
//! A reply is first planned: texts, and lists of rows between them. What the plan says is written when the connection
//! asks for a piece, and no further: whatever a result's size, a reply holds a window of its values, and the text
//! of about a piece. A piece ends behind the row, or the part of a value, with which it is full: it may be longer by the
//! text of a row that fits into the window (four pieces, which escapes may make six times as long, and the names of the
//! columns). A row that is larger than the window is written value by value, and a value that is larger than a piece in
//! parts.
//!
//! A failure ends the connection in the middle of the reply: the status has been sent, and nothing that looks complete
//! may follow it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use tracing::warn;

use crate::gateway::json;
use crate::gateway::rows::Blobs;
use crate::gateway::rows::Part;
use crate::gateway::rows::Table;
use crate::gateway::window::Window;
use crate::http::body::Pieces;
use crate::limits;
use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;
use crate::wire::command::Value;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementResult;
use crate::wire::rows::Values;

/// Tag of a value, and the length of a text or a blob.
pub(super) const HEAD_SIZE: u64 = 5;
const TAG_TEXT: u8 = 3;
/// Only texts and blobs are larger.
const PIECE_SIZE_MIN: usize = 9;

/// Whether results are too large to be written at once.
pub(super) fn are_large(results: &[StatementResult]) -> bool {
    let mut held = 0_usize;
    for result in results {
        let rows = match result {
            StatementResult::Rows(rows) => Some(rows),
            StatementResult::Counts { returned, .. } => returned.as_ref(),
        };
        let Some(rows) = rows else { continue };
        match &rows.values {
            Values::Held(bytes) => held = held.saturating_add(bytes.len()),
            Values::Spooled(_) => return true,
        }
        // They stand in front of all rows, and in each that is an object.
        let names = rows.columns.iter().map(|it| it.name.len() + 4).sum::<usize>();
        held = held.saturating_add(names.saturating_mul(rows.count.saturating_add(1)));
    }
    held > limits::RESULT_HELD_SIZE_MAX
}

/// Where a reply is written.
pub(super) trait Paper {
    /// Text is appended here.
    fn text(&mut self) -> &mut Vec<u8>;

    /// Append what `part` says of the rows of `table`.
    fn put(&mut self, table: &Table<'_>, part: Part);

    /// About so many bytes will follow.
    fn reserve(&mut self, size: usize);
}

impl Paper for Vec<u8> {
    fn text(&mut self) -> &mut Vec<u8> {
        self
    }

    fn put(&mut self, table: &Table<'_>, part: Part) {
        table.put(self, part);
    }

    fn reserve(&mut self, size: usize) {
        Self::reserve(self, size);
    }
}

/// A reply that is yet to be written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    parts: Vec<(Vec<u8>, Rows, Part)>,
    /// What follows them.
    text: Vec<u8>,
}

impl Paper for Plan {
    fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    fn put(&mut self, table: &Table<'_>, part: Part) {
        self.parts.push((std::mem::take(&mut self.text), table.rows().clone(), part));
    }

    fn reserve(&mut self, _: usize) {}
}

impl Plan {
    /// What writes it down, in pieces of about `piece` bytes, or of [`PIECE_SIZE_MIN`].
    pub(super) fn into_pieces(self, blobs: Blobs, piece: usize) -> Box<dyn Pieces> {
        let text = Rc::new(RefCell::new(Vec::new()));
        let piece = piece.max(PIECE_SIZE_MIN);
        let printer = Printer { text: Rc::clone(&text), blobs, piece };
        Box::new(Printing { text, piece, work: Some(Box::pin(printer.print(self))) })
    }
}

/// The bytes of a value and nothing else, which follow its tag and its length.
pub(super) fn bytes_of_value(values: Values) -> Box<dyn Pieces> {
    let text = Rc::new(RefCell::new(Vec::new()));
    let (blobs, piece) = (Blobs::Text, limits::PIECE_SIZE);
    let printer = Printer { text: Rc::clone(&text), blobs, piece };
    Box::new(Printing { text, piece, work: Some(Box::pin(printer.copy(values))) })
}

/// A reply that is being written.
struct Printing {
    text: Rc<RefCell<Vec<u8>>>,
    piece: usize,
    work: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
}

impl fmt::Debug for Printing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printing").field("piece", &self.piece).finish_non_exhaustive()
    }
}

impl Pieces for Printing {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(work) = &mut self.work {
            match work.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => self.work = None,
                Poll::Ready(Err(error)) => {
                    // Each client could have one logged: each time they are twice as many, one is.
                    static N: AtomicU64 = AtomicU64::new(0);
                    let n = N.fetch_add(1, Ordering::Relaxed) + 1;
                    if n.is_power_of_two() {
                        warn!(%error, n, "failed to read a result that is being sent");
                    }
                    self.work = None;
                    self.text.take();
                    return Poll::Ready(Some(Err(error)));
                }
                // It waits for the disk, or for this piece to be taken.
                Poll::Pending if self.text.borrow().len() < self.piece => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        // The next piece is as long, and a little longer, unless this is the last.
        let size = if self.work.is_some() { self.piece + self.piece / 8 } else { 0 };
        let text = self.text.replace(Vec::with_capacity(size));
        Poll::Ready((!text.is_empty()).then(|| Ok(text.into())))
    }
}

/// Why a stretch of rows ends.
enum Stop {
    /// They are all written.
    End,
    /// The piece is full.
    Full,
    /// The rest of a row is not at hand.
    Short,
}

/// Writes a reply. Runs as far as there is room for its text.
struct Printer {
    text: Rc<RefCell<Vec<u8>>>,
    blobs: Blobs,
    piece: usize,
}

impl Printer {
    async fn print(self, plan: Plan) -> io::Result<()> {
        for (text, rows, part) in plan.parts {
            self.put(&text);
            let table = Table::new(&rows, self.blobs);
            match part {
                Part::First => self.rows(&table, part, 1).await?,
                Part::Items | Part::Rows => {
                    self.put(b"[");
                    self.rows(&table, part, rows.count).await?;
                    self.put(b"]");
                }
            }
            self.room().await;
        }
        self.put(&plan.text);
        Ok(())
    }

    fn put(&self, text: &[u8]) {
        self.text.borrow_mut().extend_from_slice(text);
    }

    /// Wait until the piece is taken, if it is full.
    async fn room(&self) {
        std::future::poll_fn(|_| match self.text.borrow().len() {
            // Whoever takes it asks again.
            n if n >= self.piece => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    async fn rows(&self, table: &Table<'_>, part: Part, n: usize) -> io::Result<()> {
        let mut window = Window::new(table.rows().values.clone(), self.piece);
        let mut nth = 0;
        loop {
            match self.put_at_hand(table, part, n, &mut nth, &mut window)? {
                Stop::End => return Ok(()),
                Stop::Full => self.room().await,
                Stop::Short if window.is_full() => {
                    if nth > 0 {
                        self.put(b",");
                    }
                    self.large_row(table, part, &mut window).await?;
                    nth += 1;
                }
                Stop::Short => window.more().await?,
            }
        }
    }

    /// Write the rows that are at hand, from the `nth` of `n` on.
    fn put_at_hand(
        &self,
        table: &Table<'_>,
        part: Part,
        n: usize,
        nth: &mut usize,
        window: &mut Window,
    ) -> io::Result<Stop> {
        let mut text = self.text.borrow_mut();
        let width = table.rows().columns.len();
        let mut row = Vec::with_capacity(width);
        let mut reader = Reader::new(window.rest());
        let stop = loop {
            if *nth == n {
                break Stop::End;
            }
            if text.len() >= self.piece {
                break Stop::Full;
            }
            row.clear();
            let mut ahead = reader;
            let decoded = (0..width).try_for_each(|_| {
                row.push(Value::decode(&mut ahead)?);
                Ok(())
            });
            match decoded {
                Ok(()) => {}
                Err(DecodeError::Truncated) => break Stop::Short,
                Err(error) => return Err(io::Error::other(error)),
            }
            reader = ahead;
            if *nth > 0 {
                text.push(b',');
            }
            table.put_row(&mut text, &row, part);
            *nth += 1;
        };
        let n_taken = window.rest().len() - reader.rest().len();
        window.take(n_taken);
        Ok(stop)
    }

    /// Write the row that begins where the window does, and does not fit into it.
    async fn large_row(
        &self,
        table: &Table<'_>,
        part: Part,
        window: &mut Window,
    ) -> io::Result<()> {
        let mut places = Vec::with_capacity(table.rows().columns.len());
        let mut position = window.position();
        for _ in 0..table.rows().columns.len() {
            let head = window.look(position, usize::try_from(HEAD_SIZE).unwrap_or(0)).await?;
            let size = size_of_value(&head).map_err(io::Error::other)?;
            places.push((position, size));
            position += size;
        }
        let brackets = if part == Part::Rows { [b"[", b"]"] } else { [b"{", b"}"] };
        self.put(brackets[0]);
        if part == Part::Rows {
            for (at, place) in places.iter().enumerate() {
                self.put(if at > 0 { b"," } else { b"" });
                self.value(table, at, *place, window).await?;
            }
        } else {
            for (nth, (name, at)) in table.fields().enumerate() {
                self.put(if nth > 0 { b"," } else { b"" });
                self.put(name);
                self.value(table, at, places[at], window).await?;
            }
        }
        self.put(brackets[1]);
        window.seek(position);
        Ok(())
    }

    /// Write the value of column `at`, which stands at `position` and has `size` bytes with its tag.
    async fn value(
        &self,
        table: &Table<'_>,
        at: usize,
        (position, size): (u64, u64),
        window: &Window,
    ) -> io::Result<()> {
        self.room().await;
        let n = usize::try_from(size).map_err(io::Error::other)?;
        if n <= self.piece {
            let bytes = window.look(position, n).await?;
            let value = Value::decode(&mut Reader::new(&bytes)).map_err(io::Error::other)?;
            table.put_value(&mut self.text.borrow_mut(), at, value);
            return Ok(());
        }
        let is_text = window.look(position, 1).await?.first() == Some(&TAG_TEXT);
        let is_object = !is_text && self.blobs == Blobs::Object;
        self.put(if is_object { b"{\"base64\":\"" } else { b"\"" });
        let (mut position, end) = (position + HEAD_SIZE, position + size);
        while position < end {
            let left = usize::try_from(end - position).map_err(io::Error::other)?;
            // Three bytes are four letters, whatever follows.
            let n = if is_text { self.piece } else { self.piece / 3 * 3 };
            let bytes = window.look(position, n.min(left)).await?;
            position += self.part_of_value(&bytes, is_text)? as u64;
            self.room().await;
        }
        self.put(if is_object { b"\"}" } else { b"\"" });
        Ok(())
    }

    /// Write a part of a text or a blob; how much of it there was to write.
    fn part_of_value(&self, bytes: &[u8], is_text: bool) -> io::Result<usize> {
        let mut text = self.text.borrow_mut();
        if is_text {
            let whole = whole_letters(bytes)?;
            json::put_letters(&mut text, whole);
            return Ok(whole.len());
        }
        json::put_base64_letters(&mut text, bytes);
        Ok(bytes.len())
    }

    async fn copy(self, values: Values) -> io::Result<()> {
        let (mut position, end) = (HEAD_SIZE, values.size());
        let window = Window::new(values, self.piece);
        while position < end {
            let bytes = window.look(position, self.piece).await?;
            position += bytes.len() as u64;
            self.put(&bytes);
            self.room().await;
        }
        Ok(())
    }
}

/// Bytes of the value that begins with `head`.
fn size_of_value(head: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(head);
    Ok(match reader.u8()? {
        0 => 1,
        1 | 2 => 9,
        3 | 4 => HEAD_SIZE + u64::from(reader.u32()?),
        _ => return Err(DecodeError::Malformed("unknown type of value")),
    })
}

/// The letters that are there whole; the last of them may go on behind `bytes`.
fn whole_letters(bytes: &[u8]) -> io::Result<&str> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            str::from_utf8(&bytes[..error.valid_up_to()]).map_err(io::Error::other)
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::rows::tests::rows;
    use crate::http::testing::on_executor;
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
            prop_oneof![
                Just("a"),
                Just("b:boolean"),
                Just("\"<:date"),
                Just("c:blob"),
                Just("a:text")
            ],
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
}
