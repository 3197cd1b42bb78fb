//! Reading a log after a start: what it says, or that it is damaged.
//!
//! Segments form a chain: each header names where its predecessor ended. The chain is followed back from
//! the newest whole header to the oldest segment that was needed, then replayed forward.
//!
//! Verdicts (R1). A batch that is not whole (checksum, salt, sequence number) is
//! - *corruption*, if it lies before an end that a later header names, or a later batch calls it durable:
//!   somebody may have been told it was on disk;
//! - a *torn tail* otherwise: nothing after it counts, and it never happened.
//!
//! A damaged header was never durable, or nothing was ever written behind it, unless a batch with the
//! salt of that segment lies there. Damage to the last batch of all cannot be told from a torn
//! write by any scheme that only has the log; an idle seal makes that batch an empty one.
//!
//! What was read may still be in a cache only: the [`Log`](crate::wal::log::Log) made from a [`Tail`]
//! first syncs it, names and all, opens a new segment whose header names the end found here, and is ready after that.

mod replay;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use crate::types::HardState;
use crate::types::PartitionId;
use crate::types::ReplicaId;
use crate::types::ShardId;
use crate::types::Timestamp;
use crate::wal::format;
use crate::wal::format::BLOCK;
use crate::wal::format::BatchHead;
use crate::wal::format::End;
use crate::wal::format::SegmentHeader;
use crate::wal::ledger::Ledger;
use crate::wal::record::ConfState;
use crate::wal::record::Entry;
use crate::wal::record::EntryId;
use crate::wal::record::Generation;
use crate::wal::record::SegmentId;
use crate::wal::recovery::replay::Replay;
use crate::wal::segments::Segment;
use crate::wire::bytes::DecodeError;

/// Where segments are read from.
pub trait SegmentSource {
    /// All segments, with their sizes in bytes, in any order.
    fn segments(&mut self) -> io::Result<Vec<(SegmentId, u64)>>;
    /// `size` bytes of a segment from `offset` on; they lie within it.
    fn read(&mut self, segment: SegmentId, offset: u64, size: usize) -> io::Result<Bytes>;
}

/// Why a log cannot be used. All are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// What was called durable is not there. The replicas of this shard have lost part of their memory:
    /// they must not go on as they are, but be removed and added anew.
    #[error("log segment {:016x} is corrupt at byte {offset}: {why}", segment.0)]
    Corrupt {
        /// Which segment.
        segment: SegmentId,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// Written by a newer program.
    #[error(
        "log segment {:016x} has format version {version}, this program reads up to {}: start the newer program",
        segment.0,
        format::VERSION
    )]
    Version {
        /// Which segment.
        segment: SegmentId,
        /// Its version.
        version: u8,
    },
    /// The log of another shard, or of a node with another number of them: the folders of a generation are
    /// not those that it was written with (R4).
    #[error(
        "log was written by shard {} of {n_found}, and lies where shard {} of {n_wanted} has its own: restore \
         the folders of all {n_found} shards",
        found.0,
        wanted.0
    )]
    Shards {
        /// The shard in the log.
        found: ShardId,
        /// The number of shards in the log.
        n_found: u16,
        /// The shard that reads it.
        wanted: ShardId,
        /// The number of shards that it has folders for.
        n_wanted: u16,
    },
    /// The disk does not give its bytes.
    #[error("cannot read log segment {:016x}", segment.0)]
    Read {
        /// Which segment; zero if they cannot be listed.
        segment: SegmentId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What a log says.
#[derive(Debug)]
pub struct Recovered {
    /// Each partition it knows.
    pub partitions: BTreeMap<PartitionId, RecoveredPartition>,
    /// Where it ends.
    pub end: End,
    /// Whether bytes of a batch that never became durable were found at the end, and dropped.
    pub is_torn: bool,
    /// For the [`Log`](crate::wal::log::Log) that goes on.
    pub tail: Tail,
}

/// One partition, as of the end of the log. Zeros where the log says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredPartition {
    /// The directory that counts.
    pub generation: Generation,
    /// The replica that lives here.
    pub replica: ReplicaId,
    /// Its term, vote and commit index.
    pub hard_state: HardState,
    /// The configuration applied last.
    pub conf_state: ConfState,
    /// The entry before the first of `entries`.
    pub compacted: EntryId,
    /// All entries kept, one per index. Those of one batch share one allocation.
    pub entries: Vec<Entry>,
    /// The highest time stamp of any entry so far.
    pub last_stamp: Timestamp,
    /// Replica ids that must never speak again.
    pub tombstones: Vec<ReplicaId>,
}

impl RecoveredPartition {
    /// Whether anybody has written to it: an entry that a new leader appends carries nothing and no time.
    pub fn is_used(&self) -> bool {
        self.last_stamp > Timestamp(0) || self.entries.iter().any(|it| !it.payload.is_empty())
    }
}

/// What a log needs in order to go on behind another. The default is behind nothing.
#[derive(Debug, Default)]
pub struct Tail {
    pub(super) ledgers: BTreeMap<PartitionId, Ledger>,
    /// The segments replayed, oldest first.
    pub(super) segments: Vec<Segment>,
    /// Segments older than any needed.
    pub(super) leftovers: Vec<SegmentId>,
    /// Segments never opened, newer than any replayed.
    pub(super) spares: Vec<Segment>,
    pub(super) end: End,
    /// The key of the log's salts, if it has one.
    pub(super) key: Option<u64>,
}

/// Read the log of `shard` on a node with `n_shards`.
pub fn recover(
    source: &mut impl SegmentSource,
    shard: ShardId,
    n_shards: u16,
) -> Result<Recovered, RecoveryError> {
    let listed = source.segments();
    let mut listed =
        listed.map_err(|source| RecoveryError::Read { segment: SegmentId(0), source })?;
    listed.sort_unstable();
    let listed: Vec<_> = listed.into_iter().map(|(id, size)| Segment { id, size }).collect();
    let mut headers = BTreeMap::new();
    for segment in &listed {
        if let Some(header) = read_header(source, *segment)? {
            headers.insert(segment.id, (header, *segment));
        }
    }
    let Some((newest, _)) = headers.values().next_back() else {
        return begin(source, listed);
    };
    if (newest.shard, newest.n_shards) != (shard, n_shards) {
        let (found, n_found) = (newest.shard, newest.n_shards);
        return Err(RecoveryError::Shards { found, n_found, wanted: shard, n_wanted: n_shards });
    }
    let newest_id = newest.segment;
    let chain = chain(&headers);
    let start = chain[0].1.id;
    let spares: Vec<_> = listed.iter().copied().filter(|it| it.id > newest_id).collect();
    let leftovers = listed.iter().map(|it| it.id).filter(|it| *it < start).collect();

    let mut replay = Replay::new(&chain[0].0);
    for (at, (header, segment)) in chain.iter().enumerate() {
        let end = chain.get(at + 1).map(|(next, _)| next.predecessor);
        replay.read_segment(source, header, *segment, end)?;
    }
    let key = newest.key;
    for spare in &spares {
        if has_batch(source, *spare, Some(format::salt(key, spare.id)))? {
            return Err(corrupt(spare.id, 0, "its header is damaged, and batches lie behind it"));
        }
    }
    if start > replay.oldest {
        return Err(corrupt(replay.oldest, 0, "it is missing, or its header is damaged"));
    }
    let segments = chain.iter().map(|(_, it)| *it).collect();
    replay.finish(segments, leftovers, spares, key)
}

/// No segment has a whole header: either nothing was ever durable, or all is lost.
fn begin(
    source: &mut impl SegmentSource,
    spares: Vec<Segment>,
) -> Result<Recovered, RecoveryError> {
    for spare in &spares {
        if spare.id > SegmentId::FIRST || has_batch(source, *spare, None)? {
            return Err(corrupt(spare.id, 0, "its header is damaged, as are all others"));
        }
    }
    let (partitions, is_torn) = (BTreeMap::new(), false);
    let tail = Tail { spares, ..Tail::default() };
    Ok(Recovered { partitions, end: tail.end, is_torn, tail })
}

/// The header of a segment that was opened under its present id, if it is whole.
fn read_header(
    source: &mut impl SegmentSource,
    segment: Segment,
) -> Result<Option<SegmentHeader>, RecoveryError> {
    let size = usize::try_from(segment.size).unwrap_or(usize::MAX);
    let first = read(source, segment.id, 0, size.min(BLOCK))?;
    let bytes = match SegmentHeader::claimed_size(&first) {
        None => return Ok(None),
        Some(claimed) if claimed > size => return Ok(None),
        Some(claimed) if claimed > first.len() => read(source, segment.id, 0, claimed)?,
        Some(_) => first,
    };
    match SegmentHeader::decode(&bytes) {
        None => Ok(None),
        Some(Ok(header)) => Ok(Some(header).filter(|it| it.segment == segment.id)),
        Some(Err(DecodeError::Version(version))) => {
            Err(RecoveryError::Version { segment: segment.id, version })
        }
        Some(Err(error)) => Err(corrupt(segment.id, 0, &error.to_string())),
    }
}

/// From the oldest segment that is needed, so far as headers tell, to the newest; never empty.
fn chain(headers: &BTreeMap<SegmentId, (SegmentHeader, Segment)>) -> Vec<(SegmentHeader, Segment)> {
    let mut chain = VecDeque::new();
    let mut next = headers.values().next_back();
    let oldest = next.map_or(SegmentId(0), |(newest, _)| newest.oldest);
    while let Some((header, segment)) = next {
        chain.push_front((header.clone(), *segment));
        // Ids fall, whatever a header says, so this ends.
        let before = header.predecessor.segment;
        let goes_on = oldest < segment.id && before < segment.id;
        next = headers.get(&before).filter(|_| goes_on);
    }
    chain.into()
}

/// Whether a whole batch lies anywhere in the segment, with that salt if one is given.
fn has_batch(
    source: &mut impl SegmentSource,
    segment: Segment,
    salt: Option<u64>,
) -> Result<bool, RecoveryError> {
    let bytes = read_all(source, segment)?;
    Ok(batches_from(&bytes, 0, salt).next().is_some())
}

/// Every whole batch at a block at or behind `offset`, with that salt if one is given.
fn batches_from(bytes: &[u8], offset: usize, salt: Option<u64>) -> impl Iterator<Item = BatchHead> {
    let blocks = (offset..bytes.len()).step_by(BLOCK).map(|at| &bytes[at..]);
    // What tenants wrote may look like the head of a batch at every block, but for the salt; a checksum each of
    // all that these claim to have would take minutes.
    let is_ours = move |it: &&[u8]| salt.is_none_or(|salt| BatchHead::may_begin(it, salt));
    blocks.filter(is_ours).filter_map(BatchHead::decode)
}

fn read_all(source: &mut impl SegmentSource, segment: Segment) -> Result<Bytes, RecoveryError> {
    let size = usize::try_from(segment.size)
        .map_err(|_| corrupt(segment.id, 0, "it is larger than memory"))?;
    read(source, segment.id, 0, size)
}

fn read(
    source: &mut impl SegmentSource,
    segment: SegmentId,
    offset: u64,
    size: usize,
) -> Result<Bytes, RecoveryError> {
    let bytes = source.read(segment, offset, size);
    let bytes = bytes.map_err(|source| RecoveryError::Read { segment, source })?;
    if bytes.len() < size {
        let source = io::ErrorKind::UnexpectedEof.into();
        return Err(RecoveryError::Read { segment, source });
    }
    Ok(bytes)
}

fn corrupt(segment: SegmentId, offset: usize, why: &str) -> RecoveryError {
    RecoveryError::Corrupt { segment, offset: offset as u64, why: why.to_owned() }
}

#[cfg(test)]
mod tests;
