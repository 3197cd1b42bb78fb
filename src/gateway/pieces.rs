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

mod printer;

use crate::gateway::rows::Blobs;
use crate::gateway::rows::Part;
use crate::gateway::rows::Table;
use crate::http::body::Pieces;
use crate::limits;
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
        let piece = piece.max(PIECE_SIZE_MIN);
        printer::pieces(blobs, piece, |it| it.print(self))
    }
}

/// The bytes of a value and nothing else, which follow its tag and its length.
pub(super) fn bytes_of_value(values: Values) -> Box<dyn Pieces> {
    printer::pieces(Blobs::Text, limits::PIECE_SIZE, |it| it.copy(values))
}

#[cfg(test)]
pub(crate) mod tests;
