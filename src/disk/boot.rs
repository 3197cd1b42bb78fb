//! Finding and reading logs before any core runs. Blocking.
//!
//! What lies where is in [`wal::generations`](crate::wal::generations), which decides; here are the files.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use tracing::info;
use tracing::warn;

use crate::disk;
use crate::disk::segments;
use crate::disk::segments::SYNC_EVERY;
use crate::limits;
use crate::types::ShardId;
use crate::wal::generations;
use crate::wal::generations::Files;
use crate::wal::generations::GenerationError;
use crate::wal::generations::LogGeneration;
use crate::wal::generations::NewLayout;
use crate::wal::recovery::Recovered;
use crate::wal::recovery::RecoveryError;
use crate::wal::whole;

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
    /// A log is damaged, or not ours to read.
    #[error("cannot recover the log in {path}")]
    Recovery {
        /// The shard's folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: RecoveryError,
    },
    /// The logs cannot be what one node wrote.
    #[error("the logs in {path} cannot be used: {why}")]
    Impossible {
        /// The folder of all logs.
        path: PathBuf,
        /// What is wrong with them.
        why: String,
    },
    /// Logs were written anew, and do not count: what is read of them is not what was written.
    #[error(
        "the logs in {path} that were written anew for {wanted} shards do not read back; those of {found} \
         shards are untouched: start with {found} shards"
    )]
    NotReadBack {
        /// The folder of all logs.
        path: PathBuf,
        /// How many shards the old logs belong to.
        found: u16,
        /// How many the new ones.
        wanted: u16,
        /// What is wrong with those.
        #[source]
        source: Box<Self>,
    },
    /// Logs were written anew, and the next start finds whether they count or the old ones.
    #[error("the logs are written anew for {wanted} shards, but {path} is not: start again")]
    Unsettled {
        /// `CURRENT`.
        path: PathBuf,
        /// How many shards the new logs belong to.
        wanted: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no room to write the logs anew (R4).
    #[error(
        "the logs in {path} belong to {found} shards, the configuration says {wanted}, and the disk has no \
         room to write them anew, which takes {bytes} bytes: make room, or start with {found} shards"
    )]
    NoRoom {
        /// The folder of all logs.
        path: PathBuf,
        /// How many logs there are.
        found: u16,
        /// How many there should be.
        wanted: u16,
        /// About how many bytes the new ones take.
        bytes: u64,
    },
}

/// The folders of a node's logs.
#[derive(Clone, Debug)]
pub struct LogDirectories {
    wal: PathBuf,
    generation: LogGeneration,
}

impl LogDirectories {
    /// Find the logs under `data_dir`, which exists; lay out those of `n_shards` if there are none. The
    /// caller holds the lock of the data directory.
    pub fn open(data_dir: &Path, n_shards: u16) -> Result<Self, BootError> {
        assert!(n_shards > 0, "a node has at least one shard");
        let wal = data_dir.join("wal");
        let make = || {
            fs::create_dir_all(&wal)?;
            segments::sync_directory(data_dir)
        };
        make().map_err(io_error(&wal))?;
        let mut files = Folder::new(&wal);
        let found = generations::find(&mut files).and_then(|it| match it {
            Some(generation) => Ok(generation),
            None => generations::create(&mut files, n_shards),
        });
        let generation = found.map_err(|it| BootError::of(&wal, it))?;
        Ok(Self { wal, generation })
    }

    /// Find the logs under `data_dir`, which must be there. The caller holds the lock of the data directory.
    pub fn open_any(data_dir: &Path) -> Result<Self, BootError> {
        let wal = data_dir.join("wal");
        let found = generations::find(&mut Folder::new(&wal));
        let Some(generation) = found.map_err(|it| BootError::of(&wal, it))? else {
            let source = io::ErrorKind::NotFound.into();
            return Err(BootError::Io { path: wal.join("CURRENT"), source });
        };
        Ok(Self { wal, generation })
    }

    /// How many shards the logs belong to.
    pub fn n_shards(&self) -> u16 {
        self.generation.n_shards
    }

    /// Those shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.generation.shards()
    }

    /// Where the log of `shard` lies.
    pub fn of(&self, shard: ShardId) -> PathBuf {
        self.wal.join(self.generation.folder_of(shard))
    }

    /// Read the log of `shard`. Nothing of it may be acted on before the
    /// [`LogWriter`](crate::disk::log::LogWriter) made from its tail is open.
    pub fn recover(&self, shard: ShardId) -> Result<Recovered, BootError> {
        let recovered = generations::recover(&mut self.files(), self.generation, shard);
        recovered.map_err(|it| BootError::of(&self.wal, it))
    }

    /// Remove logs that do not count: those before a change of the number of shards, and what a crash has left
    /// of one. Only once these are recovered, and what they say is accepted. What cannot be removed stays, with
    /// a warning.
    pub fn tidy(&self) -> Result<(), BootError> {
        let done = generations::tidy(&mut self.files(), self.generation);
        let done = done.map_err(|it| BootError::of(&self.wal, it))?;
        for error in &done.left {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            let wal = self.wal.display();
            warn!(%wal, %error, cause, "logs that do not count stay, and take room: remove them");
        }
        if done.is_any && done.left.is_empty() {
            info!("removed logs that a change of the number of shards had left");
        }
        Ok(())
    }

    /// Write these logs anew for `n_shards`, and go on with those (R4). `logs` is what
    /// [`recover`](Self::recover) gave for each, `key` gives secret numbers. If that fails before the last
    /// step, the old ones are as they were. They stay until [`tidy`](Self::tidy).
    pub fn rewrite(
        self,
        logs: Vec<Recovered>,
        n_shards: u16,
        key: impl FnMut() -> u64,
    ) -> Result<(Self, Vec<Recovered>), BootError> {
        assert!(n_shards > 0, "a node has at least one shard");
        let found = self.n_shards();
        let partitions = logs.iter().flat_map(|it| it.partitions.values());
        let bytes = partitions.map(whole::size_of).sum::<u64>() + u64::from(n_shards) * (64 << 10);
        let no_room = || {
            let path = self.wal.clone();
            BootError::NoRoom { path, found, wanted: n_shards, bytes }
        };
        let mut files = self.files();
        let cleared = generations::remove_unfinished(&mut files, self.generation);
        cleared.map_err(|it| BootError::of(&self.wal, it))?;
        // Filling the disk to find that out would take the room that others need.
        if disk::free_bytes(&self.wal).map_err(io_error(&self.wal))? < bytes {
            return Err(no_room());
        }
        let layout = NewLayout { n_shards, segment_size: limits::LOG_SEGMENT_SIZE };
        let written = generations::rewrite(&mut files, self.generation, logs, layout, key);
        let (generation, logs) = written.map_err(|error| match error {
            GenerationError::Io { source, .. } if disk::lacks_room(&source) => no_room(),
            error => BootError::of(&self.wal, error),
        })?;
        Ok((Self { generation, ..self }, logs))
    }

    fn files(&self) -> Folder {
        Folder::new(&self.wal)
    }
}

impl BootError {
    fn of(wal: &Path, error: GenerationError) -> Self {
        match error {
            GenerationError::Io { path, source } => Self::Io { path: wal.join(path), source },
            GenerationError::Current(why) => Self::Current { path: wal.join("CURRENT"), why },
            GenerationError::Recovery { path, source } => {
                Self::Recovery { path: wal.join(path), source }
            }
            GenerationError::Impossible(why) => Self::Impossible { path: wal.to_owned(), why },
            GenerationError::NotReadBack { found, wanted, source } => {
                let source = Box::new(Self::of(wal, *source));
                Self::NotReadBack { path: wal.to_owned(), found, wanted, source }
            }
            GenerationError::Unsettled { wanted, source } => {
                Self::Unsettled { path: wal.join("CURRENT"), wanted, source }
            }
        }
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BootError {
    let path = path.to_owned();
    move |source| BootError::Io { path, source }
}

/// A folder of the file system.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Files written since they were synced. The descriptor that wrote is the one that syncs: an error of the
    /// medium is told to that one for sure (R8).
    writers: BTreeMap<String, Writer>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    /// Bytes since the last sync.
    n_unsynced: usize,
}

impl Folder {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), writers: BTreeMap::new() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }
}

impl Files for Folder {
    fn names(&mut self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(folder))? {
            // Ours are ASCII.
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn is_folder(&mut self, path: &str) -> bool {
        self.at(path).is_dir()
    }

    fn size(&mut self, file: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.at(file))?.len())
    }

    fn read(&mut self, file: &str, offset: u64, size: usize) -> io::Result<Bytes> {
        let file = File::open(self.at(file))?;
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    fn make_folder(&mut self, folder: &str) -> io::Result<()> {
        fs::create_dir_all(self.at(folder))
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let mut writer = if let Some(writer) = self.writers.remove(file) {
            writer
        } else {
            let file = File::options().append(true).create(true).open(self.at(file))?;
            Writer { file, n_unsynced: 0 }
        };
        writer.file.write_all(bytes)?;
        writer.n_unsynced += bytes.len();
        if writer.n_unsynced >= SYNC_EVERY {
            writer.file.sync_data()?;
            writer.n_unsynced = 0;
        }
        self.writers.insert(file.to_owned(), writer);
        Ok(())
    }

    fn sync(&mut self, file: &str) -> io::Result<()> {
        match self.writers.remove(file) {
            Some(writer) => writer.file.sync_all(),
            None => File::open(self.at(file))?.sync_all(),
        }
    }

    fn sync_names(&mut self, folder: &str) -> io::Result<()> {
        segments::sync_directory(&self.at(folder))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let below = format!("{path}/");
        self.writers.retain(|it, _| it != path && !it.starts_with(&below));
        let path = self.at(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::record::SegmentId;

    #[test]
    fn an_empty_directory_is_laid_out_once() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let logs = LogDirectories::open(directory.path(), 2).unwrap();
            assert_eq!(logs.of(ShardId(1)), directory.path().join("wal/1/1"));
            assert!(logs.recover(ShardId(1)).unwrap().partitions.is_empty());
        }
        let current = fs::read_to_string(directory.path().join("wal/CURRENT")).unwrap();
        assert_eq!(current, "debros-wal 1\n1\ncrc32c 9012a20a\n");
    }

    #[test]
    fn a_current_without_a_checksum_gets_one_once_its_logs_are_accepted() {
        let directory = tempfile::tempdir().unwrap();
        LogDirectories::open(directory.path(), 2).unwrap();
        let current = directory.path().join("wal/CURRENT");
        let whole = fs::read(&current).unwrap();
        fs::write(&current, "debros-wal 1\n1\n").unwrap();
        let logs = LogDirectories::open(directory.path(), 2).unwrap();
        assert!(fs::read(&current).unwrap() < whole, "nothing is changed before");
        logs.tidy().unwrap();
        assert_eq!(fs::read(&current).unwrap(), whole);
        assert_eq!(Folder::new(&directory.path().join("wal")).names("").unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_sentence() {
        for (name, current, want) in [
            (
                "newer",
                Some("debros-wal 2\n1\ncrc32c f2302b33\n"),
                "has format version 2, this program reads up to 1",
            ),
            ("flipped", Some("debros-wal 1\n3\ncrc32c 9012a20a\n"), "is damaged (its checksum"),
            ("text", Some("1\n"), "does not begin with"),
            ("empty", Some("debros-wal 1\n"), "names no generation"),
            ("missing", None, "is missing, although there are logs"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            LogDirectories::open(directory.path(), 2).unwrap();
            let wal = directory.path().join("wal");
            fs::write(wal.join("1/0/0000000000000001.log"), [0; 4096]).unwrap();
            match current {
                Some(text) => fs::write(wal.join("CURRENT"), text).unwrap(),
                None => fs::remove_file(wal.join("CURRENT")).unwrap(),
            }
            let error = LogDirectories::open(directory.path(), 2).unwrap_err().to_string();
            assert!(error.contains(want), "{name}: {error}");
        }
    }

    #[test]
    fn a_first_start_that_was_cut_short_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("wal/1/7")).unwrap();
        let logs = LogDirectories::open(directory.path(), 2).unwrap();
        assert_eq!(logs.n_shards(), 2);
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

    #[test]
    fn logs_are_written_anew_for_another_number_of_shards() {
        let directory = tempfile::tempdir().unwrap();
        let wal = directory.path().join("wal");
        let mut n = LogDirectories::open(directory.path(), 1).unwrap().n_shards();
        for (number, n_shards) in [(2, 3), (3, 1), (4, 2)] {
            let logs = LogDirectories::open(directory.path(), n_shards).unwrap();
            assert_eq!(logs.n_shards(), n);
            let old = logs.shards().map(|it| logs.recover(it).unwrap()).collect();
            let (logs, recovered) = logs.rewrite(old, n_shards, || 7).unwrap();
            assert_eq!(recovered.len(), usize::from(n_shards));
            assert_eq!(logs.of(ShardId(0)), directory.path().join(format!("wal/{number}/0")));
            assert_eq!(Folder::new(&wal).names("").unwrap().len(), 3, "the old ones are there");
            logs.tidy().unwrap();
            let names = Folder::new(&wal).names("").unwrap();
            assert_eq!(names.len(), 2, "CURRENT and one generation: {names:?}");
            n = n_shards;
        }
    }

    /// One log, and what is there beside it.
    fn one_log(directory: &Path) -> (LogDirectories, Vec<Recovered>) {
        let logs = LogDirectories::open(directory, 1).unwrap();
        let old = vec![logs.recover(ShardId(0)).unwrap()];
        (logs, old)
    }

    #[test]
    fn logs_that_do_not_read_back_are_told_of_and_the_old_ones_count() {
        let directory = tempfile::tempdir().unwrap();
        let wal = directory.path().join("wal");
        let (logs, old) = one_log(directory.path());
        let mut n_keys = 0;
        // When the key of the second log is asked for, the first is written.
        let error = logs.rewrite(old, 2, || {
            n_keys += 1;
            if n_keys == 2 {
                let name = Folder::new(&wal).names("2/0").unwrap().remove(0);
                let mut bytes = fs::read(wal.join("2/0").join(&name)).unwrap();
                bytes[32] ^= 1;
                fs::write(wal.join("2/0").join(&name), bytes).unwrap();
            }
            7
        });
        let error = error.unwrap_err();
        assert!(matches!(error, BootError::NotReadBack { found: 1, wanted: 2, .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains(wal.to_str().unwrap()) && said.contains("start with 1 shards"));
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains(wal.join("2/0").to_str().unwrap()), "{cause}");
        let mut names = Folder::new(&wal).names("").unwrap();
        names.sort_unstable();
        assert_eq!(names, ["1", "CURRENT"]);
        let (logs, old) = one_log(directory.path());
        logs.rewrite(old, 2, || 7).unwrap();
    }

    #[test]
    fn a_switch_that_fails_leaves_both_for_the_next_start_to_choose() {
        let directory = tempfile::tempdir().unwrap();
        let wal = directory.path().join("wal");
        let (logs, old) = one_log(directory.path());
        fs::rename(wal.join("CURRENT"), wal.join("old")).unwrap();
        fs::create_dir(wal.join("CURRENT")).unwrap();
        let error = logs.rewrite(old, 2, || 7).unwrap_err();
        assert!(matches!(error, BootError::Unsettled { wanted: 2, .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("wal/CURRENT is not: start again"), "{said}");
        assert!(wal.join("1").is_dir() && wal.join("2").is_dir());
        // Whichever it names.
        fs::remove_dir(wal.join("CURRENT")).unwrap();
        for (file, n_shards) in [("old", 1), ("CURRENT.tmp", 2)] {
            fs::copy(wal.join(file), wal.join("CURRENT")).unwrap();
            let logs = LogDirectories::open_any(directory.path()).unwrap();
            assert_eq!(logs.n_shards(), n_shards);
            assert!(logs.shards().all(|it| logs.recover(it).is_ok()));
        }
    }

    #[test]
    fn names_that_only_look_like_numbers_are_neither_logs_nor_removed() {
        let directory = tempfile::tempdir().unwrap();
        let wal = directory.path().join("wal");
        LogDirectories::open(directory.path(), 2).unwrap();
        let others = ["+1", "007", "9", "keep"];
        for name in others {
            fs::create_dir(wal.join(name)).unwrap();
        }
        fs::create_dir(wal.join("1/+0")).unwrap();
        fs::write(wal.join("1/2"), "a file").unwrap();
        fs::write(wal.join("2"), "a file").unwrap();
        let logs = LogDirectories::open(directory.path(), 2).unwrap();
        assert_eq!(logs.n_shards(), 2);
        logs.tidy().unwrap();
        for name in others.into_iter().chain(["1", "2"]) {
            assert!(wal.join(name).exists(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_removed_does_not_keep_the_logs_from_being_used() {
        let directory = tempfile::tempdir().unwrap();
        let wal = directory.path().join("wal");
        let logs = LogDirectories::open(directory.path(), 1).unwrap();
        fs::create_dir(wal.join("0")).unwrap();
        let mut files = Stubborn(Folder::new(&wal));
        let done = generations::tidy(&mut files, logs.generation).unwrap();
        assert_eq!(done.left.len(), 1);
        assert_eq!(done.left[0].to_string(), "cannot use 0");
        // What is in the way of new logs is another matter.
        fs::create_dir(wal.join("2")).unwrap();
        let layout = NewLayout { n_shards: 2, segment_size: 1 << 20 };
        let old = vec![logs.recover(ShardId(0)).unwrap()];
        let written = generations::rewrite(&mut files, logs.generation, old, layout, || 7);
        assert_eq!(written.unwrap_err().to_string(), "cannot use 2");
    }

    /// One from which nothing can be removed.
    struct Stubborn(Folder);

    impl Files for Stubborn {
        fn names(&mut self, folder: &str) -> io::Result<Vec<String>> {
            self.0.names(folder)
        }

        fn is_folder(&mut self, path: &str) -> bool {
            self.0.is_folder(path)
        }

        fn size(&mut self, file: &str) -> io::Result<u64> {
            self.0.size(file)
        }

        fn read(&mut self, file: &str, offset: u64, size: usize) -> io::Result<Bytes> {
            self.0.read(file, offset, size)
        }

        fn make_folder(&mut self, folder: &str) -> io::Result<()> {
            self.0.make_folder(folder)
        }

        fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.append(file, bytes)
        }

        fn sync(&mut self, file: &str) -> io::Result<()> {
            self.0.sync(file)
        }

        fn sync_names(&mut self, folder: &str) -> io::Result<()> {
            self.0.sync_names(folder)
        }

        fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }

        fn remove(&mut self, _: &str) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}
