//! Finding and reading logs before any core runs. Blocking.
//!
//! ```text
//! <data_dir>/wal/CURRENT                      "debros-wal 1\n", then the generation in decimal and "\n"
//! <data_dir>/wal/<generation>/<shard>/        one folder per shard, in decimal
//! <data_dir>/wal/<generation>/<shard>/*.log   segments, see `wal::format`; *.tmp are unfinished ones
//! ```
//!
//! A new layout is complete and synced before `CURRENT` names it, so a crash leaves the old one or none.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;

use crate::disk::segments;
use crate::types::ShardId;
use crate::wal::record::SegmentId;
use crate::wal::recovery;
use crate::wal::recovery::Recovered;
use crate::wal::recovery::RecoveryError;
use crate::wal::recovery::SegmentSource;

const MAGIC: &str = "debros-wal";
const VERSION: u32 = 1;
const GENERATION_FIRST: u64 = 1;

/// Why the node cannot start with this data directory. All are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The system refused.
    #[error("cannot use {path}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `CURRENT` is missing beside logs, or cannot be understood.
    #[error("{path} {why}")]
    Current {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The logs were written with another number of shards (R4).
    #[error(
        "the logs in {path} belong to {found} shards, the configuration says {wanted}: start with {found}"
    )]
    Shards {
        /// The generation's folder.
        path: PathBuf,
        /// How many logs there are.
        found: usize,
        /// How many there should be.
        wanted: u16,
    },
    /// A log is damaged, or not ours to read.
    #[error("cannot recover the log in {path}")]
    Recovery {
        /// The shard's folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: RecoveryError,
    },
}

/// The folders of a node's logs.
#[derive(Clone, Debug)]
pub struct LogDirectories {
    generation: PathBuf,
    n_shards: u16,
}

impl LogDirectories {
    /// Find the logs under `data_dir`, which exists; create the folders if there are none. The caller
    /// holds the lock of the data directory.
    pub fn open(data_dir: &Path, n_shards: u16) -> Result<Self, BootError> {
        assert!(n_shards > 0, "a node has at least one shard");
        let wal = data_dir.join("wal");
        let current = wal.join("CURRENT");
        let generation = match fs::read_to_string(&current) {
            Ok(text) => parse_current(&text)
                .map_err(|why| BootError::Current { path: current.clone(), why })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(data_dir, &wal, n_shards)?;
                GENERATION_FIRST
            }
            Err(source) => return Err(BootError::Io { path: current, source }),
        };
        let generation = wal.join(generation.to_string());
        let found = fs::read_dir(&generation).and_then(|it| it.collect::<Result<Vec<_>, _>>());
        let found = found.map_err(io_error(&generation))?.len();
        if found != usize::from(n_shards) {
            return Err(BootError::Shards { path: generation, found, wanted: n_shards });
        }
        Ok(Self { generation, n_shards })
    }

    /// Find the logs under `data_dir`, however many shards they belong to; their shards. The caller holds
    /// the lock of the data directory.
    pub fn open_any(data_dir: &Path) -> Result<(Self, Vec<ShardId>), BootError> {
        let current = data_dir.join("wal").join("CURRENT");
        let text = fs::read_to_string(&current).map_err(io_error(&current))?;
        let generation = parse_current(&text)
            .map_err(|why| BootError::Current { path: current.clone(), why })?;
        let generation = data_dir.join("wal").join(generation.to_string());
        let found = fs::read_dir(&generation).map_err(io_error(&generation))?.count();
        let n_shards = u16::try_from(found).unwrap_or(u16::MAX);
        Ok((Self { generation, n_shards }, (0..n_shards).map(ShardId).collect()))
    }

    /// Where the log of `shard` lies.
    pub fn of(&self, shard: ShardId) -> PathBuf {
        self.generation.join(shard.0.to_string())
    }

    /// Read the log of `shard`. Nothing of it may be acted on before the
    /// [`LogWriter`](crate::disk::log::LogWriter) made from its tail is open.
    pub fn recover(&self, shard: ShardId) -> Result<Recovered, BootError> {
        let path = self.of(shard);
        let mut files = SegmentFiles::open(&path).map_err(io_error(&path))?;
        let recovered = recovery::recover(&mut files, shard, self.n_shards);
        recovered.map_err(|source| BootError::Recovery { path, source })
    }
}

fn parse_current(text: &str) -> Result<u64, String> {
    let mut lines = text.lines();
    let version = lines.next().and_then(|it| it.strip_prefix(MAGIC)?.trim().parse::<u32>().ok());
    match version {
        Some(VERSION) => {}
        Some(version) => {
            return Err(format!(
                "has format version {version}, this program reads up to {VERSION}: start the newer program"
            ));
        }
        None => return Err(format!("does not begin with {MAGIC:?} and a version")),
    }
    let generation = lines.next().and_then(|it| it.parse().ok());
    generation.ok_or_else(|| "names no generation".to_owned())
}

/// Lay out an empty data directory: folders first, then `CURRENT`.
fn create(data_dir: &Path, wal: &Path, n_shards: u16) -> Result<(), BootError> {
    let generation = wal.join(GENERATION_FIRST.to_string());
    for shard in 0..n_shards {
        let path = generation.join(shard.to_string());
        fs::create_dir_all(&path).map_err(io_error(&path))?;
        // A start that was cut short leaves empty folders; logs without CURRENT are another matter.
        if fs::read_dir(&path).map_err(io_error(&path))?.next().is_some() {
            let why = "is missing, although there are logs: restore it".to_owned();
            return Err(BootError::Current { path: wal.join("CURRENT"), why });
        }
        segments::sync_directory(&path).map_err(io_error(&path))?;
    }
    segments::sync_directory(&generation).map_err(io_error(&generation))?;
    let temporary = wal.join("CURRENT.tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        write!(file, "{MAGIC} {VERSION}\n{GENERATION_FIRST}\n")?;
        file.sync_all()?;
        fs::rename(&temporary, wal.join("CURRENT"))?;
        segments::sync_directory(wal)?;
        segments::sync_directory(data_dir)
    };
    write().map_err(io_error(wal))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BootError {
    let path = path.to_owned();
    move |source| BootError::Io { path, source }
}

/// The segments of one log, as files.
#[derive(Debug)]
struct SegmentFiles {
    files: BTreeMap<SegmentId, File>,
}

impl SegmentFiles {
    /// Open what there is, and remove what was never finished.
    fn open(directory: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            if let Some(segment) = segments::parse_name(name) {
                files.insert(segment, File::open(&path)?);
            } else if path.extension().is_some_and(|it| it == "tmp") {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self { files })
    }
}

impl SegmentSource for SegmentFiles {
    fn segments(&mut self) -> io::Result<Vec<(SegmentId, u64)>> {
        self.files.iter().map(|(id, file)| Ok((*id, file.metadata()?.len()))).collect()
    }

    fn read(&mut self, segment: SegmentId, offset: u64, size: usize) -> io::Result<Bytes> {
        let file = self.files.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_is_laid_out_once() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let logs = LogDirectories::open(directory.path(), 2).unwrap();
            assert_eq!(logs.of(ShardId(1)), directory.path().join("wal/1/1"));
            assert!(logs.recover(ShardId(1)).unwrap().partitions.is_empty());
        }
        let current = fs::read_to_string(directory.path().join("wal/CURRENT")).unwrap();
        assert_eq!(current, "debros-wal 1\n1\n");
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_sentence() {
        for (name, current, n_shards, want) in [
            (
                "shards",
                Some("debros-wal 1\n1\n"),
                3,
                "belong to 2 shards, the configuration says 3",
            ),
            (
                "newer",
                Some("debros-wal 2\n1\n"),
                2,
                "has format version 2, this program reads up to 1",
            ),
            ("text", Some("1\n"), 2, "does not begin with"),
            ("empty", Some("debros-wal 1\n"), 2, "names no generation"),
            ("missing", None, 2, "is missing, although there are logs"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            LogDirectories::open(directory.path(), 2).unwrap();
            let wal = directory.path().join("wal");
            fs::write(wal.join("1/0/0000000000000001.log"), [0; 4096]).unwrap();
            match current {
                Some(text) => fs::write(wal.join("CURRENT"), text).unwrap(),
                None => fs::remove_file(wal.join("CURRENT")).unwrap(),
            }
            let error = LogDirectories::open(directory.path(), n_shards).unwrap_err().to_string();
            assert!(error.contains(want), "{name}: {error}");
        }
    }

    #[test]
    fn unfinished_segments_are_removed_and_a_damaged_log_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let logs = LogDirectories::open(directory.path(), 1).unwrap();
        let temporary = logs.of(ShardId(0)).join("0000000000000001.tmp");
        fs::write(&temporary, [0; 10]).unwrap();
        logs.recover(ShardId(0)).unwrap();
        assert!(!temporary.exists());
        fs::write(segments::path_of(&logs.of(ShardId(0)), SegmentId(2)), [7; 8192]).unwrap();
        let error = logs.recover(ShardId(0)).unwrap_err();
        assert!(matches!(error, BootError::Recovery { .. }), "{error:?}");
    }
}
