//! Where the rows of a statement go: into memory, and those of a large read to a [`Spill`], if there is one.
//!
//! A read that runs on a core and gives much is left to a thread, which has one. What writes gives stays in memory: it
//! is kept for its request, and its size must not depend on where it ran.

use bytes::Bytes;
use bytes::BytesMut;

use crate::limits;
use crate::sql::database::Share;
use crate::sql::run::RowsEnd;
use crate::sql::running::Setting;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementError;
use crate::wire::rows::Values;
use crate::wire::spool::Spill;
use crate::wire::spool::Spooled;

/// Up to here the result's buffer is copied to its exact size; a larger one is handed over as it is.
const COPIED_MAX: usize = 64 << 10;

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

    /// A row was added; all of them and the names make `size` bytes.
    pub(super) fn on_row(&mut self, size: usize) -> Result<(), RowsEnd> {
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
        let Some(spill) = &mut self.spill else { return Ok(()) };
        let start = spill.put(self.scratch)?;
        let (_, n) = self.spilled.get_or_insert((start, 0));
        *n += self.scratch.len() as u64;
        self.scratch.clear();
        Ok(())
    }

    /// The statement has ended: its rows.
    pub(super) fn end(&mut self) -> Result<Values, StatementError> {
        if self.spilled.is_some() && !self.scratch.is_empty() {
            self.spill_scratch()?;
        }
        Ok(match (self.spilled, &self.spill) {
            (Some((start, n)), Some(spill)) => {
                Values::Spooled(Spooled::new(spill.spool(), start, n))
            }
            _ if self.scratch.len() <= COPIED_MAX => Bytes::copy_from_slice(self.scratch).into(),
            _ => self.scratch.split().freeze().into(),
        })
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
