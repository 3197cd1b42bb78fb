//! What the log says of one partition beside its entries: a row of a segment's table, to the byte.
//!
//! ```text
//! row of a segment's table, little-endian: u16 partition, u64 generation, u64 own replica id (0 none),
//!   hard state, compacted (u64 index, u64 term), last (u64 index, u64 term), i64 last time stamp,
//!   conf state, tombstones (u16 count, u64 replica ids); parts as in `record`
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BufMut;

use crate::types::HardState;
use crate::types::PartitionId;
use crate::types::ReplicaId;
use crate::types::Timestamp;
use crate::wal::record;
use crate::wal::record::ConfState;
use crate::wal::record::EntryId;
use crate::wal::record::Generation;
use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;

/// Most entries a table may claim a partition keeps: a log this long would not fit in memory.
const ENTRIES_KEPT_MAX: u64 = 1 << 26;

/// What is known of a partition beside its entries. Zeros where nothing is known yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The directory that counts.
    pub generation: Generation,
    /// The replica that lives here.
    pub replica: ReplicaId,
    /// Its term, vote and commit index.
    pub hard_state: HardState,
    /// The configuration applied last.
    pub conf_state: Arc<ConfState>,
    /// The last entry that is no longer needed.
    pub compacted: EntryId,
    /// The newest entry; `compacted` if none is kept.
    pub last: EntryId,
    /// The highest time stamp of any entry so far.
    pub stamp: Timestamp,
    /// Replica ids that must never speak again.
    pub tombstones: Arc<BTreeSet<ReplicaId>>,
}

impl Meta {
    /// Append the row of `partition` to `out`.
    pub fn encode(&self, partition: PartitionId, out: &mut Vec<u8>) {
        out.put_u16_le(partition.0);
        out.put_u64_le(self.generation.0);
        out.put_u64_le(self.replica.0);
        record::put_hard_state(out, self.hard_state);
        record::put_entry_id(out, self.compacted);
        record::put_entry_id(out, self.last);
        out.put_i64_le(self.stamp.0);
        record::put_conf_state(out, &self.conf_state);
        record::put_replicas(out, self.tombstones.len(), self.tombstones.iter());
    }

    /// Read one row.
    pub fn decode(reader: &mut Reader<'_>) -> Result<(PartitionId, Self), DecodeError> {
        let partition = PartitionId(reader.u16()?);
        let it = Self {
            generation: Generation(reader.u64()?),
            replica: ReplicaId(reader.u64()?),
            hard_state: record::hard_state(reader)?,
            compacted: record::entry_id(reader)?,
            last: record::entry_id(reader)?,
            stamp: Timestamp(reader.i64()?),
            conf_state: Arc::new(record::conf_state(reader)?),
            tombstones: Arc::new(record::replicas(reader)?.into_iter().collect()),
        };
        match it.last.index.0.checked_sub(it.compacted.index.0) {
            Some(0..=ENTRIES_KEPT_MAX) => Ok((partition, it)),
            _ => Err(DecodeError::Malformed("impossible bounds of a partition's entries")),
        }
    }
}
