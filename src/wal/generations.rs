//! The folders of a node's logs, and the way from one number of shards to another (R4).
//!
//! ```text
//! CURRENT                    "debros-wal 1\n", then the generation that counts in decimal and "\n"
//! <generation>/<shard>/      a folder per shard, in decimal
//! <generation>/<shard>/*.log segments, see `format`; *.tmp are unfinished ones
//! ```
//!
//! Another number of shards writes a whole new generation, syncs it, reads it back, and then switches by
//! renaming `CURRENT`; the old generation goes last. So a crash at any step leaves the old logs or the new
//! ones, whole, and what it leaves beside them [`tidy`] removes.
//!
//! Deliberately absent: files; they are behind [`Files`], so that the simulator can lose power at every step.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use crate::types::PartitionId;
use crate::types::ShardId;
use crate::wal::ledger::Meta;
use crate::wal::record::Record;
use crate::wal::record::SegmentId;
use crate::wal::recovery;
use crate::wal::recovery::Recovered;
use crate::wal::recovery::RecoveredPartition;
use crate::wal::recovery::RecoveryError;
use crate::wal::recovery::SegmentSource;
use crate::wal::whole;
use crate::wal::whole::Layout;
use crate::wal::whole::WholeError;

const MAGIC: &str = "debros-wal";
const VERSION: u32 = 1;
const CURRENT: &str = "CURRENT";
const TEMPORARY: &str = "CURRENT.tmp";
const FIRST: u64 = 1;

/// What lies in the folder of the logs. Paths are relative to it, with `/` between names; the empty path is
/// the folder itself.
pub trait Files {
    /// The names in a folder, in any order.
    fn names(&mut self, folder: &str) -> io::Result<Vec<String>>;
    /// Bytes of a file.
    fn size(&mut self, file: &str) -> io::Result<u64>;
    /// `size` bytes of a file from `offset` on.
    fn read(&mut self, file: &str, offset: u64, size: usize) -> io::Result<Bytes>;
    /// Make a folder; one that is there stays as it is.
    fn make_folder(&mut self, folder: &str) -> io::Result<()>;
    /// Write behind the end of a file, which is made if it is not there.
    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()>;
    /// Bring a file's bytes to the medium.
    fn sync(&mut self, file: &str) -> io::Result<()>;
    /// Bring the names in a folder to the medium.
    fn sync_names(&mut self, folder: &str) -> io::Result<()>;
    /// Give a file another name, in place of what had it.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Remove a file, or a folder with all in it.
    fn remove(&mut self, path: &str) -> io::Result<()>;
}

/// Why logs cannot be found, read or written.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The system refused.
    #[error("cannot use {path}")]
    Io {
        /// What.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `CURRENT` is missing beside logs, or cannot be understood.
    #[error("CURRENT {0}")]
    Current(String),
    /// A log is damaged, or not ours to read.
    #[error("cannot recover the log in {path}")]
    Recovery {
        /// The shard's folder.
        path: String,
        /// Why.
        #[source]
        source: RecoveryError,
    },
    /// The logs cannot be what one node wrote.
    #[error("{0}")]
    Impossible(String),
}

/// The logs that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its number, and its folder's name.
    pub number: u64,
    /// How many shards it was written by.
    pub n_shards: u16,
}

impl Generation {
    /// The folder of a shard's log.
    pub fn folder_of(self, shard: ShardId) -> String {
        format!("{}/{}", self.number, shard.0)
    }

    /// Its shards.
    pub fn shards(self) -> impl Iterator<Item = ShardId> {
        (0..self.n_shards).map(ShardId)
    }
}

/// The file name of a segment.
pub fn segment_name(segment: SegmentId) -> String {
    format!("{:016x}.log", segment.0)
}

/// The segment that a file name means, if any.
pub fn parse_segment_name(name: &str) -> Option<SegmentId> {
    let digits = name.strip_suffix(".log").filter(|it| it.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(SegmentId)
}

/// The logs that count; none if none were ever written.
pub fn find(files: &mut impl Files) -> Result<Option<Generation>, GenerationError> {
    let text = match files.size(CURRENT) {
        Ok(size) => {
            let size = usize::try_from(size.min(1 << 10)).expect("small");
            files.read(CURRENT, 0, size).map_err(io_error(CURRENT))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(CURRENT)(error)),
    };
    let text = String::from_utf8_lossy(&text);
    let number = parse_current(&text).map_err(GenerationError::Current)?;
    let folder = number.to_string();
    let names = files.names(&folder).map_err(io_error(&folder))?;
    let shards = names.iter().filter(|it| it.parse::<u16>().is_ok()).count();
    match u16::try_from(shards) {
        Ok(n_shards) if n_shards > 0 => Ok(Some(Generation { number, n_shards })),
        _ => Err(GenerationError::Impossible(format!(
            "{folder} has logs of {shards} shards: restore it"
        ))),
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

/// Lay out logs where there are none.
pub fn create(files: &mut impl Files, n_shards: u16) -> Result<Generation, GenerationError> {
    let generation = Generation { number: FIRST, n_shards };
    for name in files.names("").map_err(io_error(""))? {
        // A start that was cut short leaves empty folders; logs without CURRENT are another matter.
        let Ok(number) = name.parse::<u64>() else { continue };
        for shard in files.names(&name).map_err(io_error(&name))? {
            let folder = format!("{number}/{shard}");
            if !files.names(&folder).map_err(io_error(&folder))?.is_empty() {
                let why = "is missing, although there are logs: restore it".to_owned();
                return Err(GenerationError::Current(why));
            }
        }
        files.remove(&name).map_err(io_error(&name))?;
    }
    make_folders(files, generation)?;
    sync_folders(files, generation)?;
    switch(files, generation)?;
    Ok(generation)
}

/// Read the log of one shard.
pub fn recover(
    files: &mut impl Files,
    generation: Generation,
    shard: ShardId,
) -> Result<Recovered, GenerationError> {
    let folder = generation.folder_of(shard);
    for name in files.names(&folder).map_err(io_error(&folder))? {
        if name.strip_suffix(".tmp").is_some() {
            let path = format!("{folder}/{name}");
            files.remove(&path).map_err(io_error(&path))?;
        }
    }
    let mut segments = Segments { files, folder: folder.clone() };
    let recovered = recovery::recover(&mut segments, shard, generation.n_shards);
    recovered.map_err(|source| GenerationError::Recovery { path: folder, source })
}

/// Remove what lies beside the logs that count: a generation that was never finished, or the one before. Only
/// for who has recovered the former.
pub fn tidy(files: &mut impl Files, generation: Generation) -> Result<bool, GenerationError> {
    let mut is_any = false;
    for name in files.names("").map_err(io_error(""))? {
        let is_other = name.parse::<u64>().is_ok_and(|it| it != generation.number);
        if is_other || name == TEMPORARY {
            files.remove(&name).map_err(io_error(&name))?;
            is_any = true;
        }
    }
    if is_any {
        // A name that came back would mix what is removed with what is written next.
        files.sync_names("").map_err(io_error(""))?;
    }
    Ok(is_any)
}

/// What must be the same of a partition before and after: all but the entries, these by number and checksum.
type Fingerprint = (Meta, usize, u32);

/// Write the logs of `old` anew, for `n_shards`, and have them count from then on; what they say is that of
/// `logs`, which is all that the old ones say. `key` gives a secret number for each log.
///
/// An error before the switch leaves the old ones, and what was begun is removed. The old ones are not: that
/// [`tidy`] does, for who is given the new.
pub fn rewrite(
    files: &mut impl Files,
    old: Generation,
    logs: Vec<Recovered>,
    n_shards: u16,
    key: impl FnMut() -> u64,
) -> Result<(Generation, Vec<Recovered>), GenerationError> {
    let new = Generation { number: old.number + 1, n_shards };
    let partitions = merge(logs)?;
    let written = write(files, new, partitions, key);
    let recovered = written.inspect_err(|_| {
        // Nobody reads it. What cannot be removed now, the next start removes.
        let _ = files.remove(&new.number.to_string());
    })?;
    switch(files, new)?;
    Ok((new, recovered))
}

fn merge(
    logs: Vec<Recovered>,
) -> Result<BTreeMap<PartitionId, RecoveredPartition>, GenerationError> {
    let mut all = BTreeMap::new();
    for (id, partition) in logs.into_iter().flat_map(|it| it.partitions) {
        if all.insert(id, partition).is_some() {
            let why = format!("partition {id} is in two logs: restore them");
            return Err(GenerationError::Impossible(why));
        }
    }
    Ok(all)
}

/// Write, sync and read back a generation.
fn write(
    files: &mut impl Files,
    new: Generation,
    partitions: BTreeMap<PartitionId, RecoveredPartition>,
    mut key: impl FnMut() -> u64,
) -> Result<Vec<Recovered>, GenerationError> {
    make_folders(files, new)?;
    for shard in new.shards() {
        let own = partitions.iter().filter(|(id, _)| id.shard(new.n_shards) == shard);
        let own = own.map(|(id, it)| (*id, it));
        write_log(files, new, Layout::new(shard, new.n_shards, key()), own)?;
    }
    sync_folders(files, new)?;
    // What is to be read back takes the memory of what was read.
    let wanted = partitions.into_iter().map(|(id, it)| (id, fingerprint(&it)));
    let mut wanted: BTreeMap<PartitionId, Fingerprint> = wanted.collect();
    let mut recovered = Vec::new();
    for shard in new.shards() {
        let log = recover(files, new, shard)?;
        for (id, found) in &log.partitions {
            if wanted.remove(id) != Some(fingerprint(found)) {
                let why = format!("partition {id} does not read as it was written");
                return Err(GenerationError::Impossible(why));
            }
        }
        recovered.push(log);
    }
    match wanted.pop_first() {
        None => Ok(recovered),
        Some((id, _)) => {
            Err(GenerationError::Impossible(format!("partition {id} was written and is not there")))
        }
    }
}

fn write_log<'a>(
    files: &mut impl Files,
    generation: Generation,
    layout: Layout,
    partitions: impl Iterator<Item = (PartitionId, &'a RecoveredPartition)> + Clone,
) -> Result<(), GenerationError> {
    let folder = generation.folder_of(layout.shard);
    let mut segments = Vec::new();
    let written = whole::write(layout, partitions, |segment, bytes| {
        if segments.last() != Some(&segment) {
            segments.push(segment);
        }
        files.append(&format!("{folder}/{}", segment_name(segment)), bytes)
    });
    written.map_err(|error| match error {
        WholeError::Io(source) => GenerationError::Io { path: folder.clone(), source },
        error @ WholeError::Impossible { .. } => GenerationError::Impossible(error.to_string()),
    })?;
    for segment in segments {
        let path = format!("{folder}/{}", segment_name(segment));
        files.sync(&path).map_err(io_error(&path))?;
    }
    Ok(())
}

fn fingerprint(partition: &RecoveredPartition) -> Fingerprint {
    let (mut crc, mut bytes) = (0, Vec::new());
    for entry in &partition.entries {
        bytes.clear();
        Record::Entry(entry.clone()).encode(&mut bytes);
        crc = crc32c::crc32c_append(crc, &bytes);
    }
    (whole::without_entries(partition), partition.entries.len(), crc)
}

fn make_folders(files: &mut impl Files, generation: Generation) -> Result<(), GenerationError> {
    let folder = generation.number.to_string();
    files.make_folder(&folder).map_err(io_error(&folder))?;
    for shard in generation.shards() {
        let folder = generation.folder_of(shard);
        files.make_folder(&folder).map_err(io_error(&folder))?;
    }
    Ok(())
}

/// Bring all names of a generation to the medium, its own last.
fn sync_folders(files: &mut impl Files, generation: Generation) -> Result<(), GenerationError> {
    for shard in generation.shards() {
        let folder = generation.folder_of(shard);
        files.sync_names(&folder).map_err(io_error(&folder))?;
    }
    let folder = generation.number.to_string();
    files.sync_names(&folder).map_err(io_error(&folder))?;
    files.sync_names("").map_err(io_error(""))
}

/// Have a generation count that is on the medium.
fn switch(files: &mut impl Files, generation: Generation) -> Result<(), GenerationError> {
    let text = format!("{MAGIC} {VERSION}\n{}\n", generation.number);
    let mut write = || {
        if files.size(TEMPORARY).is_ok() {
            files.remove(TEMPORARY)?;
        }
        files.append(TEMPORARY, text.as_bytes())?;
        files.sync(TEMPORARY)?;
        files.rename(TEMPORARY, CURRENT)?;
        files.sync_names("")
    };
    write().map_err(io_error(CURRENT))
}

fn io_error(path: &str) -> impl FnOnce(io::Error) -> GenerationError {
    let path = path.to_owned();
    move |source| GenerationError::Io { path, source }
}

/// The segments of one log.
struct Segments<'a, F> {
    files: &'a mut F,
    folder: String,
}

impl<F: Files> SegmentSource for Segments<'_, F> {
    fn segments(&mut self) -> io::Result<Vec<(SegmentId, u64)>> {
        let mut found = Vec::new();
        for name in self.files.names(&self.folder)? {
            if let Some(segment) = parse_segment_name(&name) {
                found.push((segment, self.files.size(&format!("{}/{name}", self.folder))?));
            }
        }
        Ok(found)
    }

    fn read(&mut self, segment: SegmentId, offset: u64, size: usize) -> io::Result<Bytes> {
        let path = format!("{}/{}", self.folder, segment_name(segment));
        self.files.read(&path, offset, size)
    }
}
