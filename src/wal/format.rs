//! Segments and batches, to the byte.
//!
//! A segment is a file of fixed size: a header, then batches, each beginning at a multiple of 4 KiB and
//! padded with zeros to the next. What lies behind the last batch is zeros, or bytes of an earlier use of
//! the file: the salt tells them apart. It follows from the log's secret key and the segment's id, so it is
//! known for a segment whose header is damaged, and no tenant can write what looks like a batch. Numbers are little-endian. The first 13 bytes mean the same in
//! every version, so that a newer one is recognised for what it is (R5).
//!
//! ```text
//! segment header
//!    0 [4]  "DBWS"
//!    4 u32  crc32c of bytes 8 to the end
//!    8 u32  bytes of the header, table included, padding not
//!   12 u8   format version, 1; then 3 zeros
//!   16 u64  id of the segment
//!   24 u64  key of the log's salts, the same in all its segments
//!   32 u64  sequence number of its first batch
//!   40 u64  id of the oldest segment that is still needed
//!   48 u64  id of its predecessor, 0 none
//!   56 u64  offset at which the predecessor ended: what lies behind it there is never judged
//!   64 u64  sequence number of the predecessor's last batch, which is thereby called durable
//!   72 u16  shard
//!   74 u16  number of shards of the node
//!   76 u16  partitions in the table; then 2 zeros
//!   80      the table: what is known of each partition at this point (R2), see `meta`
//! batch
//!    0 [4]  "DBWB"
//!    4 u32  crc32c of bytes 8 to the end
//!    8 u32  bytes of the batch, padding not included
//!   12 u8   format version, 1; then 3 zeros
//!   16 u64  salt of the segment
//!   24 u64  sequence number, one more than that of the batch before
//!   32 u64  highest sequence number known durable when this was written
//!   40 u64  id of the oldest segment that is still needed
//!   48      records; a batch without any only says what is durable (an idle seal)
//! ```

use bytes::BufMut;

use crate::types::Dice;
use crate::types::PartitionId;
use crate::types::ShardId;
use crate::wal::meta::Meta;
use crate::wal::record::Lsn;
use crate::wal::record::SegmentId;
use crate::wire::bytes::DecodeError;
use crate::wire::bytes::Reader;

/// What writes are rounded to, in bytes. Smaller ones gain nothing and make 4 KiB media read first.
pub const BLOCK: usize = 4096;
/// Bytes of a batch before its records.
pub const BATCH_HEAD_SIZE: usize = 48;
/// Bytes of a segment header before its table.
pub const SEGMENT_HEAD_SIZE: usize = 80;
/// The version this program writes.
pub const VERSION: u8 = 1;

const SEGMENT_MAGIC: [u8; 4] = *b"DBWS";
const BATCH_MAGIC: [u8; 4] = *b"DBWB";
const CHECKED_FROM: usize = 8;

/// `size` rounded up to whole blocks.
pub fn padded(size: usize) -> usize {
    size.next_multiple_of(BLOCK)
}

/// The salt of a segment's batches: another for each segment, and not to be guessed without the key.
pub fn salt(key: u64, segment: SegmentId) -> u64 {
    Dice::new(key ^ segment.0).roll()
}

/// Where a segment ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Which segment.
    pub segment: SegmentId,
    /// Bytes up to the end of its last batch, padding included.
    pub offset: u64,
    /// Sequence number of its last batch; of its predecessor's, if it has none.
    pub lsn: Lsn,
}

/// How a segment opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which segment.
    pub segment: SegmentId,
    /// Key of the log's salts.
    pub key: u64,
    /// Sequence number of its first batch.
    pub lsn_first: Lsn,
    /// The oldest segment still needed.
    pub oldest: SegmentId,
    /// Where the segment before ended; all zeros for the first.
    pub predecessor: End,
    /// Whose log.
    pub shard: ShardId,
    /// How many shards the node has.
    pub n_shards: u16,
    /// What is known of each partition.
    pub table: Vec<(PartitionId, Meta)>,
}

impl SegmentHeader {
    /// Replace `out` by the header, padded.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.put_slice(&SEGMENT_MAGIC);
        out.put_bytes(0, CHECKED_FROM);
        out.put_u32_le(VERSION.into());
        out.put_u64_le(self.segment.0);
        out.put_u64_le(self.key);
        out.put_u64_le(self.lsn_first.0);
        out.put_u64_le(self.oldest.0);
        out.put_u64_le(self.predecessor.segment.0);
        out.put_u64_le(self.predecessor.offset);
        out.put_u64_le(self.predecessor.lsn.0);
        out.put_u16_le(self.shard.0);
        out.put_u16_le(self.n_shards);
        out.put_u32_le(u32::try_from(self.table.len()).expect("at most 65536 partitions"));
        debug_assert_eq!(out.len(), SEGMENT_HEAD_SIZE);
        for (partition, meta) in &self.table {
            meta.encode(*partition, out);
        }
        finish(out);
    }

    /// Read a header from the start of a segment. `None` if no whole header is there.
    pub fn decode(bytes: &[u8]) -> Option<Result<Self, DecodeError>> {
        let frame = frame(bytes, SEGMENT_MAGIC)?;
        Some(match frame[12] {
            VERSION => Self::decode_fields(frame),
            version => Err(DecodeError::Version(version)),
        })
    }

    fn decode_fields(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        reader.take(16)?;
        let segment = SegmentId(reader.u64()?);
        let key = reader.u64()?;
        let lsn_first = Lsn(reader.u64()?);
        let oldest = SegmentId(reader.u64()?);
        let predecessor = End {
            segment: SegmentId(reader.u64()?),
            offset: reader.u64()?,
            lsn: Lsn(reader.u64()?),
        };
        let shard = ShardId(reader.u16()?);
        let n_shards = reader.u16()?;
        let n_rows = reader.u32()?;
        if lsn_first.0 >> 62 != 0 {
            return Err(DecodeError::Malformed("impossible sequence number"));
        }
        let table = (0..n_rows).map(|_| Meta::decode(&mut reader)).collect::<Result<_, _>>()?;
        Ok(Self { segment, key, lsn_first, oldest, predecessor, shard, n_shards, table })
    }

    /// Bytes of the header, padding included: where the first batch begins.
    pub fn size_padded(&self) -> usize {
        let mut table = Vec::new();
        self.table.iter().for_each(|(partition, meta)| meta.encode(*partition, &mut table));
        padded(SEGMENT_HEAD_SIZE + table.len())
    }

    /// How many bytes a header claims to have, padding not included, whole or not. `None` if there is
    /// none at the start of `bytes`.
    pub fn claimed_size(bytes: &[u8]) -> Option<usize> {
        claimed_size(bytes, SEGMENT_MAGIC)
    }
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// Bytes of the batch, padding not included.
    pub size: usize,
    /// Salt of the segment it was written to.
    pub salt: u64,
    /// Its sequence number.
    pub lsn: Lsn,
    /// The highest sequence number known durable when it was written.
    pub durable: Lsn,
    /// The oldest segment needed once this batch is durable.
    pub oldest: SegmentId,
}

impl BatchHead {
    /// Begin a batch: room for the head, to which records are appended.
    pub fn reserve(out: &mut Vec<u8>) {
        out.clear();
        out.put_bytes(0, BATCH_HEAD_SIZE);
    }

    /// Finish a batch begun with [`BatchHead::reserve`]: fill in the head, check and pad. The field
    /// `size` is not looked at.
    pub fn seal(&self, out: &mut Vec<u8>) {
        assert!(out.len() >= BATCH_HEAD_SIZE, "no room was reserved for the head");
        let mut head = &mut out[..BATCH_HEAD_SIZE];
        head.put_slice(&BATCH_MAGIC);
        head.put_u64_le(0);
        head.put_u32_le(VERSION.into());
        head.put_u64_le(self.salt);
        head.put_u64_le(self.lsn.0);
        head.put_u64_le(self.durable.0);
        head.put_u64_le(self.oldest.0);
        finish(out);
    }

    /// Whether a batch with this salt may begin at the start of `bytes`. Looks at a few of them, where
    /// [`BatchHead::decode`] reads as many as are claimed.
    pub fn may_begin(bytes: &[u8], salt: u64) -> bool {
        bytes.starts_with(&BATCH_MAGIC) && bytes.get(16..24) == Some(&salt.to_le_bytes())
    }

    /// Read the batch at the start of `bytes`. `None` if there is no whole one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let frame = frame(bytes, BATCH_MAGIC)?;
        if frame.len() < BATCH_HEAD_SIZE || frame[12] != VERSION {
            return None;
        }
        let mut reader = Reader::new(&frame[16..]);
        let mut next = || reader.u64().ok();
        Some(Self {
            size: frame.len(),
            salt: next()?,
            lsn: Lsn(next()?),
            durable: Lsn(next()?),
            oldest: SegmentId(next()?),
        })
    }
}

/// Fill in length and checksum, and pad.
fn finish(out: &mut Vec<u8>) {
    let size = u32::try_from(out.len()).expect("a batch is cut long before 4 GiB");
    out[8..12].copy_from_slice(&size.to_le_bytes());
    let crc = crc32c::crc32c(&out[CHECKED_FROM..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.resize(padded(out.len()), 0);
}

/// The checked bytes of the header or batch at the start of `bytes`, if it is whole.
fn frame(bytes: &[u8], magic: [u8; 4]) -> Option<&[u8]> {
    let frame = bytes.get(..claimed_size(bytes, magic)?)?;
    let crc = u32::from_le_bytes(*frame[4..].first_chunk()?);
    (crc32c::crc32c(frame.get(CHECKED_FROM..)?) == crc).then_some(frame)
}

fn claimed_size(bytes: &[u8], magic: [u8; 4]) -> Option<usize> {
    if !bytes.starts_with(&magic) {
        return None;
    }
    let size = u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
    // Sixteen bytes hold all that `frame` and the version check look at.
    usize::try_from(size).ok().filter(|it| *it >= 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            segment: SegmentId(7),
            key: 11,
            lsn_first: Lsn(100),
            oldest: SegmentId(5),
            predecessor: End { segment: SegmentId(6), offset: 8192, lsn: Lsn(99) },
            shard: ShardId(1),
            n_shards: 2,
            table: vec![(PartitionId(3), Meta::default())],
        }
    }

    #[test]
    fn a_header_comes_back_and_any_flipped_bit_makes_it_unreadable() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(SegmentHeader::decode(&bytes), Some(Ok(header())));
        for at in 0..SegmentHeader::claimed_size(&bytes).unwrap() * 8 {
            let mut bytes = bytes.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert_eq!(SegmentHeader::decode(&bytes), None, "bit {at}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        bytes[12] = VERSION + 1;
        let size = SegmentHeader::claimed_size(&bytes).unwrap();
        let crc = crc32c::crc32c(&bytes[CHECKED_FROM..size]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Some(Err(DecodeError::Version(2))));
    }

    #[test]
    fn a_batch_is_the_documented_bytes() {
        let head = BatchHead {
            size: 50,
            salt: 0x0102_0304_0506_0708,
            lsn: Lsn(9),
            durable: Lsn(8),
            oldest: SegmentId(3),
        };
        let mut bytes = Vec::new();
        BatchHead::reserve(&mut bytes);
        bytes.extend([0xaa, 0xbb]);
        head.seal(&mut bytes);
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(&bytes[..4], b"DBWB");
        assert_eq!(bytes[8..16], [50, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[16..24], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!((bytes[24], bytes[32], bytes[40]), (9, 8, 3));
        assert_eq!(bytes[48..51], [0xaa, 0xbb, 0]);
        assert_eq!(BatchHead::decode(&bytes), Some(head));
        assert!(BatchHead::may_begin(&bytes, head.salt));
        assert!(!BatchHead::may_begin(&bytes, head.salt + 1));
        assert!(!BatchHead::may_begin(&bytes[..23], head.salt));
        for at in 0..50 * 8 {
            let mut bytes = bytes.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert_eq!(BatchHead::decode(&bytes), None, "bit {at}");
        }
    }
}
