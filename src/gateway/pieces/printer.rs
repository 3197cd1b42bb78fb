//! Writes a planned reply down, as far as there is room for its text.
//!
//! The [`Printer`] is a future that appends to a text and waits while that is as long as a piece; [`Printing`] takes
//! the text away and polls it again. Both are on one core, and the text is theirs.

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
use crate::gateway::pieces::HEAD_SIZE;
use crate::gateway::pieces::Plan;
use crate::gateway::pieces::TAG_TEXT;
use crate::gateway::rows::Blobs;
use crate::gateway::rows::Part;
use crate::gateway::rows::Table;
use crate::gateway::window::Window;
use crate::http::body::Pieces;
use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;
use crate::wire::command::Value;
use crate::wire::rows::Values;

/// What a printer's `work` writes, in pieces of about `piece` bytes.
pub(super) fn pieces<F>(
    blobs: Blobs,
    piece: usize,
    work: impl FnOnce(Printer) -> F,
) -> Box<dyn Pieces>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let text = Rc::new(RefCell::new(Vec::new()));
    let printer = Printer { text: Rc::clone(&text), blobs, piece };
    Box::new(Printing { text, piece, work: Some(Box::pin(work(printer))) })
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
pub(super) struct Printer {
    text: Rc<RefCell<Vec<u8>>>,
    blobs: Blobs,
    piece: usize,
}

impl Printer {
    /// Write all that is planned.
    pub(super) async fn print(self, plan: Plan) -> io::Result<()> {
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

    /// Write the bytes of a value without its tag and length.
    pub(super) async fn copy(self, values: Values) -> io::Result<()> {
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
