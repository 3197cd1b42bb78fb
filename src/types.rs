//! Vocabulary: identifiers and units that every module shares. Depends on nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What one core owns: a pinned executor and all its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// One Raft group and the SQLite databases it replicates. Zero is the system partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The partition that holds the catalog.
    pub const SYSTEM: Self = Self(0);

    /// The shard, of `n_shards`, that owns this partition's replica on any node.
    pub fn shard(self, n_shards: u16) -> ShardId {
        assert!(n_shards > 0, "a node has at least one shard");
        ShardId(self.0 % n_shards)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One node's copy of a partition: its Raft id. Never used twice. Zero names nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

/// Position of an entry in a partition's log. Zero means "before the first entry".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The position that follows this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; zero stays zero.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Raft term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// Names one life of a namespace's database: the system partition's log index of its catalog row.
/// Zero is the partition's own engine database, which for the system partition is the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The partition's own database: which incarnations live here, or (partition 0) the catalog.
    pub const ENGINE: Self = Self(0);
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One database on this node: where it lives and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId {
    /// The hosting partition.
    pub partition: PartitionId,
    /// Which of its databases.
    pub incarnation: Incarnation,
}

/// What the manifest says of a database (R24).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// How far it is known to be on disk.
    pub index: LogIndex,
    /// It was damaged: it must not be used (R38).
    pub is_fenced: bool,
    /// It is fenced, and the log has kept all that it may lack behind `index`.
    pub is_log_kept: bool,
}

/// How large a database is, wherever its pages lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseSize {
    /// Pages of 4 KiB, the free ones included.
    pub pages: u32,
    /// Pages of them that hold nothing.
    pub free_pages: u32,
}

impl DatabaseSize {
    /// Bytes of all pages.
    pub fn bytes(self) -> u64 {
        u64::from(self.pages) * 4_096
    }
}

/// What a replica must not forget, besides the entries of its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term; zero is nobody.
    pub vote: ReplicaId,
    /// How far it knew the log to be committed. Synced only along with other things.
    pub commit: LogIndex,
}

/// The name of a tenant: `[A-Za-z0-9_-]{1,64}`, case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// The text is not a namespace name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid namespace")]
pub struct NamespaceError;

impl Namespace {
    /// Longest name, in bytes.
    pub const LENGTH_MAX: usize = 64;

    /// Check a name.
    pub fn new(name: &str) -> Result<Self, NamespaceError> {
        let fits = (1..=Self::LENGTH_MAX).contains(&name.len());
        let is_word = |it: u8| it.is_ascii_alphanumeric() || it == b'_' || it == b'-';
        if fits && name.bytes().all(is_word) { Ok(Self(name.into())) } else { Err(NamespaceError) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where a namespace of this name is placed when it is created, among `n_partitions` partitions
    /// beside the system partition. FNV-1a 64 (<http://www.isthe.com/chongo/tech/comp/fnv/>).
    pub fn home(&self, n_partitions: u16) -> PartitionId {
        assert!(n_partitions > 0, "there is at least one partition for data");
        let hash = self.0.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let at = hash % u64::from(n_partitions);
        PartitionId(1 + u16::try_from(at).expect("less than a u16"))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Monotonic time since the node started. Handed in by the driver, never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The moment the node started.
    pub const START: Self = Self(Duration::ZERO);

    /// The moment `since_start` after the node started.
    pub fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// This moment plus `delay`.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0 + delay)
    }

    /// Time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall-clock time as a command carries it: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` binary mebibytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

/// splitmix64 (Steele, Lea, Flood 2014): the randomness of cores, which comes from a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dice(u64);

impl Dice {
    /// A generator whose whole future `seed` decides.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `bound`; the bias is below 2^-40 for the small bounds we use.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        self.roll() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_names() {
        for (name, want) in [
            ("default", true),
            ("A-b_9", true),
            ("", false),
            ("a.b", false),
            ("a:b", false),
            ("ä", false),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(Namespace::new(name).is_ok(), want, "{name:?}");
        }
    }

    #[test]
    fn a_namespace_has_the_home_that_its_hash_says() {
        // FNV-1a 64 of "a" is af63dc4c8601ec8c (the reference vector); mod 16 is 12.
        assert_eq!(Namespace::new("a").unwrap().home(16), PartitionId(13));
    }
}
