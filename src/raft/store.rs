//! The part of a replica's log that raft-rs may ask for: every entry that is not compacted.
//!
//! It is memory, not disk: an entry is here from the moment it is handed out to be persisted until it is
//! compacted, so every term that raft-rs asks for is known (R6). Payloads are shared with the buffers they
//! came in. What bounds it is compaction, which the shard starts at `limits.log_bytes`.

use std::collections::VecDeque;

use ::raft::Error;
use ::raft::GetEntriesContext;
use ::raft::RaftState;
use ::raft::Storage;
use ::raft::StorageError;
use ::raft::eraftpb;
use ::raft::util::limit_size;

/// Entries from `first` on, and what raft-rs starts from.
#[derive(Debug)]
pub(super) struct Store {
    state: RaftState,
    /// Index and term of the entry before the first.
    compacted: (u64, u64),
    entries: VecDeque<eraftpb::Entry>,
    bytes: usize,
}

impl Store {
    pub(super) fn new(
        state: RaftState,
        compacted: (u64, u64),
        entries: VecDeque<eraftpb::Entry>,
    ) -> Self {
        let bytes = entries.iter().map(size_of_entry).sum();
        Self { state, compacted, entries, bytes }
    }

    pub(super) fn first(&self) -> u64 {
        self.compacted.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.compacted.0 + self.entries.len() as u64
    }

    /// Bytes of payload held, with a flat charge for each entry.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, index: u64) -> Option<&eraftpb::Entry> {
        let at = index.checked_sub(self.first())?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Add entries; those that stood at their place or behind it are gone.
    pub(super) fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(self.first() <= first.index, "appended below what is compacted");
        assert!(first.index <= self.last() + 1, "appended with a hole");
        while self.last() >= first.index {
            let gone = self.entries.pop_back().expect("last is at or behind first");
            self.bytes -= size_of_entry(&gone);
        }
        self.bytes += entries.iter().map(size_of_entry).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Forget everything up to `index`. Returns the term of the entry there.
    pub(super) fn compact(&mut self, index: u64) -> u64 {
        assert!(index <= self.last(), "compacted what does not exist");
        while self.first() <= index {
            let gone = self.entries.pop_front().expect("first is at or before last");
            self.bytes -= size_of_entry(&gone);
            self.compacted = (gone.index, gone.term);
        }
        self.compacted.1
    }
}

fn size_of_entry(entry: &eraftpb::Entry) -> usize {
    size_of::<eraftpb::Entry>() + entry.data.len()
}

impl Storage for Store {
    fn initial_state(&self) -> ::raft::Result<RaftState> {
        Ok(self.state.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> ::raft::Result<Vec<eraftpb::Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "asked for entries that do not exist");
        let at = |index: u64| usize::try_from(index - self.first()).expect("fits the memory");
        let mut found: Vec<_> = self.entries.range(at(low)..at(high)).cloned().collect();
        limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> ::raft::Result<u64> {
        if index == self.compacted.0 {
            return Ok(self.compacted.1);
        }
        if index < self.compacted.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.get(index).map(|it| it.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> ::raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> ::raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _: u64, _: u64) -> ::raft::Result<eraftpb::Snapshot> {
        // raft-rs asks again; the log is not compacted above what a live follower has (R24).
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
