//! The values of a result, a few at a time, from wherever they lie.
//!
//! What lies in a file is read on the core as far as the system has it in memory, which is a copy of
//! [`PIECE_SIZE`](crate::limits::PIECE_SIZE) bytes at most, a few microseconds; what would wait for the disk is read on
//! one of the threads that a core has for that.

use std::io;
use std::sync::Arc;

use crate::wire::rows::Values;
use crate::wire::spool::Spooled;

/// Pieces that a window holds before a row that does not fit is looked at value by value.
const PIECES_MAX: usize = 4;

/// A stretch of values, which moves from their first byte to their last.
#[derive(Debug)]
pub(super) struct Window {
    values: Values,
    buffer: Vec<u8>,
    /// What of the buffer has been taken.
    taken: usize,
    /// Where the byte behind the buffer stands.
    next: u64,
    piece: usize,
}

impl Window {
    /// On the first byte; reads `piece` bytes at once.
    pub(super) fn new(values: Values, piece: usize) -> Self {
        Self { values, buffer: Vec::new(), taken: 0, next: 0, piece }
    }

    /// What is at hand.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// The first `n` bytes of that are not needed any more.
    pub(super) fn take(&mut self, n: usize) {
        self.taken += n;
        assert!(self.taken <= self.buffer.len(), "what is taken was there");
    }

    /// Where the first byte at hand stands.
    pub(super) fn position(&self) -> u64 {
        self.next - self.rest().len() as u64
    }

    /// Go on elsewhere.
    pub(super) fn seek(&mut self, position: u64) {
        self.buffer.clear();
        (self.taken, self.next) = (0, position);
    }

    /// Whether there is as much at hand as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.rest().len() >= self.piece * PIECES_MAX
    }

    /// Have more at hand.
    pub(super) async fn more(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let left = self.values.size().saturating_sub(self.next);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.piece);
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read(&self.values, self.next, n, &mut self.buffer).await?;
        self.next += n as u64;
        Ok(())
    }

    /// Up to `n` bytes from `position` on, fewer only at the end; the window stays where it is.
    pub(super) async fn look(&self, position: u64, n: usize) -> io::Result<Vec<u8>> {
        let left = self.values.size().saturating_sub(position);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(n);
        let mut bytes = Vec::new();
        read(&self.values, position, n, &mut bytes).await?;
        Ok(bytes)
    }
}

/// Append `n` bytes of `values` from `position` on.
async fn read(values: &Values, position: u64, n: usize, into: &mut Vec<u8>) -> io::Result<()> {
    match values {
        Values::Held(bytes) => {
            let start = usize::try_from(position).map_err(io::Error::other)?;
            let found = bytes.get(start..start + n).ok_or(io::ErrorKind::UnexpectedEof)?;
            into.extend_from_slice(found);
            Ok(())
        }
        Values::Spooled(part) => read_spooled(part, position, n, into).await,
    }
}

async fn read_spooled(
    part: &Spooled,
    position: u64,
    n: usize,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    let (before, offset) = (into.len(), part.start() + position);
    into.resize(before + n, 0);
    if part.spool().read_at_hand(offset, &mut into[before..])? {
        return Ok(());
    }
    let (spool, mut buffer) = (Arc::clone(part.spool()), std::mem::take(into));
    let wait = move || {
        let done = spool.read(offset, &mut buffer[before..]);
        (done, buffer)
    };
    let (done, buffer) = glommio::executor().spawn_blocking(wait).await;
    *into = buffer;
    done
}
