//! Where the rows of a statement go: into memory, and those of a large read to a [`Spill`], if there is one.
//!
//! A read that runs on a core and gives much is left to a thread, which has one. What writes gives stays in memory: it
//! is kept for its request, and its size must not depend on where it ran.

use bytes::Bytes;
use bytes::BytesMut;

use crate::limits;
use crate::sql::database::Share;
use crate::sql::rows::RowsEnd;
use crate::sql::running::Setting;
use crate::wire::command::Value;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementError;
use crate::wire::rows::Values;
use crate::wire::spool::Spill;
use crate::wire::spool::Spooled;

/// Up to here the result's buffer is copied to its exact size; a larger one is handed over as it is.
const COPIED_MAX: usize = 64 << 10;
/// A buffer with more room than this is not kept for the next rows.
const SCRATCH_SIZE_MAX: usize = 4 * limits::PIECE_SIZE;

/// Room for the rows of one statement.
pub(super) struct Room<'a> {
    /// Where rows are encoded, one behind the other.
    pub(super) scratch: &'a mut BytesMut,
    spill: Option<&'a mut (dyn Spill + 'static)>,
    setting: Setting,
    share: Share,
    /// Bytes of the results before this one.
    before: u64,
    /// Where those that were spilled begin, and how many they are.
    spilled: Option<(u64, u64)>,
}

impl<'a> Room<'a> {
    /// Room in `scratch`, and in `spill`.
    pub(super) fn new(
        scratch: &'a mut BytesMut,
        spill: Option<&'a mut (dyn Spill + 'static)>,
    ) -> Self {
        let (setting, share) = (Setting::Alone, Share::Whole);
        Self { scratch, spill, setting, share, before: 0, spilled: None }
    }

    /// A statement begins, behind `before` bytes of others.
    pub(super) fn begin(&mut self, setting: Setting, share: Share, before: u64) {
        self.scratch.clear();
        (self.setting, self.share, self.before, self.spilled) = (setting, share, before, None);
    }

    /// Bytes of the rows so far.
    pub(super) fn size(&self) -> usize {
        let spilled = self.spilled.map_or(0, |(_, n)| usize::try_from(n).unwrap_or(usize::MAX));
        self.scratch.len().saturating_add(spilled)
    }

    /// Append `value`, with which all values and the names make `size` bytes. Where that is too much, it is told
    /// before the value is copied.
    pub(super) fn put(&mut self, value: Value<'_>, size: usize) -> Result<(), RowsEnd> {
        self.make_room(size)?;
        value.encode(self.scratch);
        Ok(())
    }

    /// A row is complete; all of them and the names make `size` bytes.
    pub(super) fn on_row(&mut self, size: usize) -> Result<(), RowsEnd> {
        self.make_room(size)
    }

    /// What is in memory stays there, goes to the file, or is too much for a core.
    fn make_room(&mut self, size: usize) -> Result<(), RowsEnd> {
        if self.spilled.is_some() {
            if self.scratch.len() >= limits::PIECE_SIZE {
                self.spill_scratch().map_err(RowsEnd::Limit)?;
            }
            return Ok(());
        }
        let held_max = limits::RESULT_HELD_SIZE_MAX as u64;
        if self.setting != Setting::Read || (size as u64).saturating_add(self.before) <= held_max {
            return Ok(());
        }
        if self.share == Share::Inline {
            return Err(RowsEnd::Large);
        }
        self.spill_scratch().map_err(RowsEnd::Limit)
    }

    fn spill_scratch(&mut self) -> Result<(), StatementError> {
        if self.scratch.is_empty() {
            return Ok(());
        }
        let Some(spill) = &mut self.spill else { return Ok(()) };
        let start = spill.put(self.scratch)?;
        let (_, n) = self.spilled.get_or_insert((start, 0));
        *n += self.scratch.len() as u64;
        self.scratch.clear();
        Ok(())
    }

    /// The statement has ended: its rows.
    pub(super) fn end(&mut self) -> Result<Values, StatementError> {
        if self.spilled.is_some() {
            self.spill_scratch()?;
        }
        Ok(match (self.spilled, &self.spill) {
            (Some((start, n)), Some(spill)) => {
                Values::Spooled(Spooled::new(spill.spool(), start, n))
            }
            _ if self.scratch.len() <= COPIED_MAX => Bytes::copy_from_slice(self.scratch).into(),
            _ => take(self.scratch).into(),
        })
    }
}

/// What is in `scratch`. Its memory goes along if it is large: the next rows would keep all of it.
pub(super) fn take(scratch: &mut BytesMut) -> Bytes {
    if scratch.capacity() > SCRATCH_SIZE_MAX {
        return std::mem::take(scratch).freeze();
    }
    scratch.split().freeze()
}

/// Give back the memory of `scratch`, which nobody needs now, if it is large.
pub(super) fn shrink(scratch: &mut BytesMut) {
    if scratch.capacity() > SCRATCH_SIZE_MAX {
        *scratch = BytesMut::new();
    }
}

/// Rows that are in memory, out of it if they are large.
pub(super) fn move_if_large(rows: &mut Rows, spill: &mut dyn Spill) -> Result<(), StatementError> {
    if let Values::Held(bytes) = &rows.values
        && bytes.len() > limits::RESULT_HELD_SIZE_MAX
    {
        let start = spill.put(bytes)?;
        let spooled = Spooled::new(spill.spool(), start, bytes.len() as u64);
        rows.values = Values::Spooled(spooled);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::wire::spool::Spool;
    use crate::wire::spool::tests::Fake;

    /// Notes how long the longest piece is.
    #[derive(Debug, Default)]
    struct Longest(Arc<AtomicUsize>);

    impl Spill for Longest {
        fn put(&mut self, bytes: &[u8]) -> Result<u64, StatementError> {
            self.0.fetch_max(bytes.len(), Ordering::Relaxed);
            Ok(0)
        }

        fn spool(&self) -> Arc<dyn Spool> {
            Arc::new(Fake { bytes: Vec::new(), waits: 0, broken_at: 0 })
        }
    }

    /// Put a row of `n` texts that share their memory; whether all were taken.
    fn put(room: &mut Room<'_>, n: usize) -> Result<(), RowsEnd> {
        let text = "x".repeat(100_000);
        for _ in 0..n {
            let value = Value::Text(&text);
            room.put(value, room.size() + value.size())?;
        }
        room.on_row(room.size())
    }

    #[test]
    fn a_wide_row_is_left_to_a_thread_before_it_is_whole() {
        let mut scratch = BytesMut::new();
        let mut room = Room::new(&mut scratch, None);
        room.begin(Setting::Read, Share::Inline, 0);
        assert!(matches!(put(&mut room, 2_000), Err(RowsEnd::Large)));
        assert_eq!(room.size(), 2 * 100_005, "{} would be too many", limits::RESULT_HELD_SIZE_MAX);
    }

    #[test]
    fn a_wide_row_goes_to_the_file_value_by_value() {
        let mut scratch = BytesMut::new();
        let longest = Arc::default();
        let mut spill = Longest(Arc::clone(&longest));
        let mut room = Room::new(&mut scratch, Some(&mut spill));
        room.begin(Setting::Read, Share::Whole, 0);
        assert!(put(&mut room, 2_000).is_ok());
        assert!(matches!(room.end(), Ok(Values::Spooled(it)) if it.length() == 2_000 * 100_005));
        assert_eq!(longest.load(Ordering::Relaxed), 2 * 100_005);
        assert!(scratch.capacity() <= 8 * 100_005, "{}", scratch.capacity());
    }

    #[test]
    fn large_memory_is_not_kept() {
        for (size, is_kept) in [(1_000, true), (100_000, true), (300_000, false)] {
            let mut scratch = BytesMut::with_capacity(size);
            shrink(&mut scratch);
            assert_eq!(scratch.capacity() > 0, is_kept, "{size}");
            let mut scratch = BytesMut::with_capacity(size);
            scratch.extend_from_slice(&vec![7; size / 2]);
            assert_eq!(take(&mut scratch).len(), size / 2);
            assert_eq!(scratch.capacity() > 0, is_kept, "{size}");
        }
    }
}
