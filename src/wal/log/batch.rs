//! Records that reach the disk together, from the first that is staged until they are written.

use crate::types::PartitionId;
use crate::wal::format::BatchHead;
use crate::wal::meta::Meta;
use crate::wal::record::Lsn;
use crate::wal::record::SegmentId;

/// Records on their way to the disk.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) lsn: Lsn,
    pub(super) bytes: Vec<u8>,
    pub(super) n_records: u32,
    /// The partitions it changes.
    pub(super) touched: Vec<PartitionId>,
    /// What held when it took its last record; nothing while it is the open batch.
    pub(super) closed: Option<Closed>,
}

/// State as of the end of a batch.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) metas: Vec<(PartitionId, Meta)>,
    pub(super) oldest: SegmentId,
}

impl Batch {
    /// An open batch without records, in a buffer that is used again.
    pub(super) fn new(lsn: Lsn, mut bytes: Vec<u8>) -> Self {
        BatchHead::reserve(&mut bytes);
        Self { lsn, bytes, n_records: 0, touched: Vec::new(), closed: None }
    }
}
