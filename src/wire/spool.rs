//! Results that are too large for memory: where they are put while a statement runs, and read from while they are
//! sent. What is behind it is the shell's; here it is only bytes at offsets.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::wire::rows::StatementError;

/// What was spilled: written once, then only read. It is gone when its last owner drops it.
pub trait Spool: fmt::Debug + Send + Sync {
    /// Fill `into` with the bytes from `offset` on. May wait for the disk.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// The same, unless that would wait: then `false`, and what is in `into` means nothing.
    fn read_at_hand(&self, offset: u64, into: &mut [u8]) -> io::Result<bool>;
}

/// Takes the values of one command's results, when they are too many for memory.
pub trait Spill: fmt::Debug + Send {
    /// Append `bytes`; where they begin. The error is what the client is told if there is no room.
    fn put(&mut self, bytes: &[u8]) -> Result<u64, StatementError>;

    /// What all that was put can be read from, once something was.
    fn spool(&self) -> Arc<dyn Spool>;
}

/// A part of a [`Spool`].
#[derive(Clone, Debug)]
pub struct Spooled {
    spool: Arc<dyn Spool>,
    start: u64,
    length: u64,
}

impl Spooled {
    /// `length` bytes of `spool`, from `start` on.
    pub fn new(spool: Arc<dyn Spool>, start: u64, length: u64) -> Self {
        Self { spool, start, length }
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whose part it is.
    pub fn spool(&self) -> &Arc<dyn Spool> {
        &self.spool
    }

    /// Where it begins.
    pub fn start(&self) -> u64 {
        self.start
    }
}

impl PartialEq for Spooled {
    fn eq(&self, other: &Self) -> bool {
        let is_same = Arc::ptr_eq(&self.spool, &other.spool);
        is_same && (self.start, self.length) == (other.start, other.length)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A spool that is a vector.
    #[derive(Debug)]
    pub(crate) struct Fake {
        /// What it holds.
        pub(crate) bytes: Vec<u8>,
        /// Every so many reads one would wait; none ever if zero.
        pub(crate) waits: usize,
        /// Reads from here on fail.
        pub(crate) broken_at: u64,
    }

    impl Spool for Fake {
        fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            let start = usize::try_from(offset).unwrap();
            let end = start + into.len();
            if u64::try_from(end).unwrap() > self.broken_at {
                return Err(io::Error::other("broken"));
            }
            let found = self.bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
            into.copy_from_slice(found);
            Ok(())
        }

        fn read_at_hand(&self, offset: u64, into: &mut [u8]) -> io::Result<bool> {
            let is_away = self.waits > 0 && usize::try_from(offset).unwrap() % self.waits == 1;
            if is_away { Ok(false) } else { self.read(offset, into).map(|()| true) }
        }
    }

    #[test]
    fn parts_are_equal_if_they_are_of_one_spool() {
        let spool = || Arc::new(Fake { bytes: vec![1; 9], waits: 0, broken_at: u64::MAX });
        let one: Arc<dyn Spool> = spool();
        let part = |start, length| Spooled::new(Arc::clone(&one), start, length);
        assert_eq!(part(1, 2), part(1, 2));
        assert_ne!(part(1, 2), part(1, 3));
        assert_ne!(part(1, 2), Spooled::new(spool(), 1, 2));
    }
}
