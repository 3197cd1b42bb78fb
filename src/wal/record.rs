//! What a log holds: records, to the byte.
//!
//! ```text
//! record, little-endian: u8 tag, u16 partition, then
//!  1 entry       u8 type, u64 term, u64 index, i64 time stamp (unix ms), u32 length, payload
//!  2 rewritten   as an entry
//!  3 hard state  u64 term, u64 vote (replica id, 0 nobody), u64 commit index
//!  4 conf state  u64 index, u8 auto leave, then four lists (voters, learners, outgoing voters,
//!                next learners), each u16 count and u64 replica ids
//!  5 compacted   u64 index, u64 term
//!  6 restored    u64 index, u64 term
//!  7 generation  u64 generation, u64 replica id
//!  8 tombstone   u64 replica id
//! ```
//!
//! Records follow one another in a batch without padding.

use bytes::BufMut;
use bytes::Bytes;

use crate::types::HardState;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::types::ReplicaId;
use crate::types::Term;
use crate::types::Timestamp;
use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;

const INDEX_END: u64 = 1 << 62;

/// The sequence number of a batch; a record is durable when that of its batch is. Zero is before the
/// first batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The batch that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Names a segment of one log; later segments have larger ids. Zero names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// The first segment of a log.
    pub const FIRST: Self = Self(1);

    /// The id that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Which directory holds a partition's databases (R26). Zero is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Names one entry of a partition: an index alone may name different entries at different times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryId {
    /// Its position.
    pub index: LogIndex,
    /// The term of the leader that appended it.
    pub term: Term,
}

/// One entry of a partition's Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose entry.
    pub partition: PartitionId,
    /// The term of the leader that appended it.
    pub term: Term,
    /// Its position.
    pub index: LogIndex,
    /// Raft's type of entry.
    pub kind: u8,
    /// The leader's time stamp (R17).
    pub stamp: Timestamp,
    /// What it carries.
    pub payload: Bytes,
}

/// Who takes part in a partition, as of an applied configuration change (R7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// The index of that change.
    pub index: LogIndex,
    /// Those who vote.
    pub voters: Vec<ReplicaId>,
    /// Those who only receive.
    pub learners: Vec<ReplicaId>,
    /// Those who voted before, while the change is joint.
    pub voters_outgoing: Vec<ReplicaId>,
    /// Outgoing voters who become learners when it ends.
    pub learners_next: Vec<ReplicaId>,
    /// Whether the joint configuration is left by itself.
    pub auto_leave: bool,
}

/// What is staged into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A new entry. It removes the entries at its index and behind.
    Entry(Entry),
    /// An entry the log has already, written again so that an old segment can go (R3). It never removes
    /// entries, nor extends the log.
    Rewritten(Entry),
    /// A replica's term, vote or commit index changed.
    HardState {
        /// Whose.
        partition: PartitionId,
        /// The new one.
        hard_state: HardState,
    },
    /// A configuration change was applied.
    ConfState {
        /// Whose.
        partition: PartitionId,
        /// The new one.
        conf_state: ConfState,
    },
    /// Entries up to and including this one are no longer needed. It is in the log.
    Compacted {
        /// Whose entries.
        partition: PartitionId,
        /// The last of them.
        entry: EntryId,
    },
    /// The log begins anew behind this entry, and what it held before is gone: a snapshot was received,
    /// or the replica is born (R28).
    Restored {
        /// Whose log.
        partition: PartitionId,
        /// The last entry the snapshot covers.
        entry: EntryId,
    },
    /// Which directory and which replica id are the partition's now. Another replica id than before is
    /// another life: vote, configuration and entries of the old one are gone.
    Generation {
        /// Whose.
        partition: PartitionId,
        /// The directory that counts.
        generation: Generation,
        /// The replica that lives here.
        replica: ReplicaId,
    },
    /// A replica id that must never speak again here. If it is this replica's own, its vote,
    /// configuration and entries are gone.
    Tombstone {
        /// Of which partition.
        partition: PartitionId,
        /// The removed replica.
        replica: ReplicaId,
    },
}

impl Record {
    /// The partition it is about.
    pub fn partition(&self) -> PartitionId {
        match self {
            Self::Entry(entry) | Self::Rewritten(entry) => entry.partition,
            Self::HardState { partition, .. }
            | Self::ConfState { partition, .. }
            | Self::Compacted { partition, .. }
            | Self::Restored { partition, .. }
            | Self::Generation { partition, .. }
            | Self::Tombstone { partition, .. } => *partition,
        }
    }

    /// Append the record's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut head = |tag: u8| {
            out.put_u8(tag);
            out.put_u16_le(self.partition().0);
        };
        match self {
            Self::Entry(entry) => {
                head(1);
                put_entry(out, entry);
            }
            Self::Rewritten(entry) => {
                head(2);
                put_entry(out, entry);
            }
            Self::HardState { hard_state, .. } => {
                head(3);
                put_hard_state(out, *hard_state);
            }
            Self::ConfState { conf_state, .. } => {
                head(4);
                put_conf_state(out, conf_state);
            }
            Self::Compacted { entry, .. } => {
                head(5);
                put_entry_id(out, *entry);
            }
            Self::Restored { entry, .. } => {
                head(6);
                put_entry_id(out, *entry);
            }
            Self::Generation { generation, replica, .. } => {
                head(7);
                out.put_u64_le(generation.0);
                out.put_u64_le(replica.0);
            }
            Self::Tombstone { replica, .. } => {
                head(8);
                out.put_u64_le(replica.0);
            }
        }
    }

    /// Read the next record. Its payload is a slice of `bytes`, which `reader` reads.
    pub fn decode(bytes: &Bytes, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tag = reader.u8()?;
        let partition = PartitionId(reader.u16()?);
        Ok(match tag {
            1 => Self::Entry(entry(partition, bytes, reader)?),
            2 => Self::Rewritten(entry(partition, bytes, reader)?),
            3 => Self::HardState { partition, hard_state: hard_state(reader)? },
            4 => Self::ConfState { partition, conf_state: conf_state(reader)? },
            5 => Self::Compacted { partition, entry: entry_id(reader)? },
            6 => Self::Restored { partition, entry: entry_id(reader)? },
            7 => Self::Generation {
                partition,
                generation: Generation(reader.u64()?),
                replica: ReplicaId(reader.u64()?),
            },
            8 => Self::Tombstone { partition, replica: ReplicaId(reader.u64()?) },
            _ => return Err(DecodeError::Malformed("unknown type of record")),
        })
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.reserve(29 + entry.payload.len());
    out.put_u8(entry.kind);
    out.put_u64_le(entry.term.0);
    out.put_u64_le(entry.index.0);
    out.put_i64_le(entry.stamp.0);
    out.put_u32_le(u32::try_from(entry.payload.len()).expect("a command is at most 20 MiB"));
    out.put_slice(&entry.payload);
}

fn entry(
    partition: PartitionId,
    bytes: &Bytes,
    reader: &mut Reader<'_>,
) -> Result<Entry, DecodeError> {
    let kind = reader.u8()?;
    let term = Term(reader.u64()?);
    let index = index(reader)?;
    let stamp = Timestamp(reader.i64()?);
    let payload = bytes.slice_ref(reader.slice()?);
    Ok(Entry { partition, term, index, kind, stamp, payload })
}

/// An index. No log comes near this bound, so `next()` of what was read never overflows.
fn index(reader: &mut Reader<'_>) -> Result<LogIndex, DecodeError> {
    match reader.u64()? {
        it @ ..INDEX_END => Ok(LogIndex(it)),
        _ => Err(DecodeError::Malformed("impossible index")),
    }
}

pub(super) fn put_hard_state(out: &mut Vec<u8>, it: HardState) {
    out.put_u64_le(it.term.0);
    out.put_u64_le(it.vote.0);
    out.put_u64_le(it.commit.0);
}

pub(super) fn hard_state(reader: &mut Reader<'_>) -> Result<HardState, DecodeError> {
    let term = Term(reader.u64()?);
    let vote = ReplicaId(reader.u64()?);
    Ok(HardState { term, vote, commit: index(reader)? })
}

pub(super) fn put_conf_state(out: &mut Vec<u8>, it: &ConfState) {
    out.put_u64_le(it.index.0);
    out.put_u8(it.auto_leave.into());
    for list in [&it.voters, &it.learners, &it.voters_outgoing, &it.learners_next] {
        put_replicas(out, list.len(), list.iter());
    }
}

pub(super) fn conf_state(reader: &mut Reader<'_>) -> Result<ConfState, DecodeError> {
    let index = index(reader)?;
    let auto_leave = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Malformed("a flag is neither set nor clear")),
    };
    let voters = replicas(reader)?;
    let learners = replicas(reader)?;
    let voters_outgoing = replicas(reader)?;
    let learners_next = replicas(reader)?;
    Ok(ConfState { index, voters, learners, voters_outgoing, learners_next, auto_leave })
}

pub(super) fn put_entry_id(out: &mut Vec<u8>, it: EntryId) {
    out.put_u64_le(it.index.0);
    out.put_u64_le(it.term.0);
}

pub(super) fn entry_id(reader: &mut Reader<'_>) -> Result<EntryId, DecodeError> {
    let index = index(reader)?;
    Ok(EntryId { index, term: Term(reader.u64()?) })
}

pub(super) fn put_replicas<'a>(
    out: &mut Vec<u8>,
    count: usize,
    replicas: impl Iterator<Item = &'a ReplicaId>,
) {
    out.put_u16_le(u16::try_from(count).expect("a partition has few replicas"));
    for replica in replicas {
        out.put_u64_le(replica.0);
    }
}

pub(super) fn replicas(reader: &mut Reader<'_>) -> Result<Vec<ReplicaId>, DecodeError> {
    let count = usize::from(reader.u16()?);
    let mut ids = Reader::new(reader.take(count * size_of::<u64>())?);
    (0..count).map(|_| ids.u64().map(ReplicaId)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let entry = (any::<[u64; 2]>(), any::<u8>(), any::<i64>(), any::<Vec<u8>>()).prop_map(
            |([term, index], kind, stamp, payload)| Entry {
                partition: PartitionId(0),
                term: Term(term),
                index: LogIndex(index % INDEX_END),
                kind,
                stamp: Timestamp(stamp),
                payload: payload.into(),
            },
        );
        let ids = || prop::collection::vec(any::<u64>().prop_map(ReplicaId), 0..5);
        let conf_state = (any::<u64>(), any::<bool>(), ids(), ids(), ids(), ids()).prop_map(
            |(index, auto_leave, voters, learners, voters_outgoing, learners_next)| ConfState {
                index: LogIndex(index % INDEX_END),
                voters,
                learners,
                voters_outgoing,
                learners_next,
                auto_leave,
            },
        );
        (any::<u16>(), 1..=8, entry, conf_state, any::<[u64; 3]>()).prop_map(
            |(partition, tag, entry, conf_state, [a, b, c])| {
                let partition = PartitionId(partition);
                let entry = Entry { partition, ..entry };
                let id = EntryId { index: LogIndex(a % INDEX_END), term: Term(b) };
                match tag {
                    1 => Record::Entry(entry),
                    2 => Record::Rewritten(entry),
                    3 => {
                        let (vote, commit) = (ReplicaId(b), LogIndex(c % INDEX_END));
                        let hard_state = HardState { term: Term(a), vote, commit };
                        Record::HardState { partition, hard_state }
                    }
                    4 => Record::ConfState { partition, conf_state },
                    5 => Record::Compacted { partition, entry: id },
                    6 => Record::Restored { partition, entry: id },
                    7 => {
                        let (generation, replica) = (Generation(a), ReplicaId(b));
                        Record::Generation { partition, generation, replica }
                    }
                    _ => Record::Tombstone { partition, replica: ReplicaId(a) },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_went(records in prop::collection::vec(any_record(), 0..8)) {
            let mut bytes = Vec::new();
            for record in &records {
                record.encode(&mut bytes);
            }
            let bytes = Bytes::from(bytes);
            let mut reader = Reader::new(&bytes);
            for record in &records {
                prop_assert_eq!(&Record::decode(&bytes, &mut reader).unwrap(), record);
            }
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>()) {
            let bytes = Bytes::from(bytes);
            let mut reader = Reader::new(&bytes);
            while Record::decode(&bytes, &mut reader).is_ok() {}
        }
    }
}
