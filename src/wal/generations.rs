//! The folders of a node's logs, and the way from one number of shards to another (R4).
//!
//! ```text
//! CURRENT                    "debros-wal 1\n", then the generation that counts in decimal and "\n", then "crc32c ",
//!                            that of all before it in eight hexadecimal digits, and "\n"; old ones lack the last line
//! <generation>/<shard>/      a folder per shard, in decimal
//! <generation>/<shard>/*.log segments, see `format`; *.tmp are unfinished ones
//! ```
//!
//! Another number of shards writes a whole new generation, syncs it, reads it back, and then switches by
//! renaming `CURRENT`; the old generation goes last, once what is in the new one is accepted. So a crash at any
//! step leaves the old logs or the new ones, whole, and what it leaves beside them [`tidy`] removes.
//!
//! A `CURRENT` that was read need not be on the medium: whoever renamed it may have been killed before that was
//! synced. So [`find`] syncs it before anything is done because of it.
//!
//! Deliberately absent: files; they are behind [`Files`], so that the simulator can lose power at every step.

mod rewrite;

pub use rewrite::NewLayout;
pub use rewrite::rewrite;

use std::io;

use bytes::Bytes;

use crate::types::ShardId;
use crate::wal::record::SegmentId;
use crate::wal::recovery;
use crate::wal::recovery::Recovered;
use crate::wal::recovery::RecoveryError;
use crate::wal::recovery::SegmentSource;

const MAGIC: &str = "debros-wal";
const VERSION: u32 = 1;
const CURRENT: &str = "CURRENT";
const TEMPORARY: &str = "CURRENT.tmp";
const CHECKSUM: &str = "crc32c ";
const FIRST: u64 = 1;

/// What lies in the folder of the logs. Paths are relative to it, with `/` between names; the empty path is
/// the folder itself.
pub trait Files {
    /// The names in a folder, in any order.
    fn names(&mut self, folder: &str) -> io::Result<Vec<String>>;
    /// Whether a path is that of a folder; not if there is nothing.
    fn is_folder(&mut self, path: &str) -> bool;
    /// Bytes of a file.
    fn size(&mut self, file: &str) -> io::Result<u64>;
    /// `size` bytes of a file from `offset` on.
    fn read(&mut self, file: &str, offset: u64, size: usize) -> io::Result<Bytes>;
    /// Make a folder; one that is there stays as it is.
    fn make_folder(&mut self, folder: &str) -> io::Result<()>;
    /// Write behind the end of a file, which is made if it is not there. Bytes may wait for [`Self::sync`].
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
    /// What was written anew is not what is read. The old logs count and are as they were.
    #[error(
        "the logs written anew for {wanted} shards do not read back; those of {found} shards are untouched: \
         start with {found} shards"
    )]
    NotReadBack {
        /// How many shards the old logs belong to.
        found: u16,
        /// How many the new ones.
        wanted: u16,
        /// What is wrong with those.
        #[source]
        source: Box<Self>,
    },
    /// The new logs are there, whole; whether they count or the old ones is for the next start to find.
    #[error("the logs are written anew for {wanted} shards, but CURRENT is not: start again")]
    Unsettled {
        /// How many shards the new logs belong to.
        wanted: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The logs that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogGeneration {
    /// Its number, and its folder's name.
    pub number: u64,
    /// How many shards it was written by.
    pub n_shards: u16,
}

impl LogGeneration {
    /// The folder of a shard's log.
    pub fn folder_of(self, shard: ShardId) -> String {
        format!("{}/{}", self.number, shard.0)
    }

    /// The number of the one that is written next.
    fn next(self) -> Result<u64, GenerationError> {
        let none =
            || GenerationError::Impossible(format!("{} is the last generation", self.number));
        self.number.checked_add(1).ok_or_else(none)
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

/// The number that a name in decimal means, if any. There is one name for each.
fn parse_number(name: &str) -> Option<u64> {
    name.parse::<u64>().ok().filter(|it| it.to_string() == name)
}

/// The logs that count; none if none were ever written. That they do is on the medium from then on.
pub fn find(files: &mut impl Files) -> Result<Option<LogGeneration>, GenerationError> {
    let bytes = match read_current(files) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(CURRENT)(error)),
    };
    let number = parse_current(&bytes).map_err(GenerationError::Current)?;
    let folder = number.to_string();
    // Its name first: what is done next may be to remove what an older CURRENT names.
    files.sync(CURRENT).map_err(io_error(CURRENT))?;
    files.sync_names("").map_err(io_error(""))?;
    let names = files.names(&folder).map_err(io_error(&folder))?;
    let is_shard =
        |it: &&String| parse_number(it).is_some() && files.is_folder(&format!("{folder}/{it}"));
    let shards = names.iter().filter(is_shard).count();
    match u16::try_from(shards) {
        Ok(n_shards) if n_shards > 0 => Ok(Some(LogGeneration { number, n_shards })),
        _ => Err(GenerationError::Impossible(format!(
            "{folder} has logs of {shards} shards: restore it"
        ))),
    }
}

fn read_current(files: &mut impl Files) -> io::Result<Bytes> {
    let size = files.size(CURRENT)?;
    files.read(CURRENT, 0, usize::try_from(size.min(1 << 10)).expect("small"))
}

/// What `CURRENT` says where this generation counts.
fn current_of(number: u64) -> String {
    let said = format!("{MAGIC} {VERSION}\n{number}\n");
    let sum = crc32c::crc32c(said.as_bytes());
    format!("{said}{CHECKSUM}{sum:08x}\n")
}

/// The generation that a `CURRENT` names. Whatever a single byte of it is turned into, that is the same or an error.
fn parse_current(bytes: &[u8]) -> Result<u64, String> {
    let damaged = |how: &str| {
        format!(
            "is damaged ({how}): restore it; if only one generation lies beside it, two lines will do: \
             \"{MAGIC} {VERSION}\" and its number, each with its end of line"
        )
    };
    let text = str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let (said, sum) = match text.rfind(CHECKSUM) {
        Some(at) => (&text[..at], Some(&text[at..])),
        None => (text, None),
    };
    let want = crc32c::crc32c(said.as_bytes());
    if sum.is_some_and(|it| it != format!("{CHECKSUM}{want:08x}\n")) {
        return Err(damaged("its checksum is wrong"));
    }
    let Some((version, rest)) = said.strip_prefix(MAGIC).and_then(|it| it.split_once('\n')) else {
        return Err(damaged(&format!("it does not begin with {MAGIC:?} and a version")));
    };
    let version = version.strip_prefix(' ').and_then(parse_number);
    match version.ok_or_else(|| damaged("it names no version"))? {
        it if it == u64::from(VERSION) => {}
        version if sum.is_some() => {
            return Err(format!(
                "has format version {version}, this program reads up to {VERSION}: start the newer program"
            ));
        }
        // Those have a checksum.
        _ => return Err(damaged("it names a version that it cannot have")),
    }
    let number = rest.strip_suffix('\n').and_then(parse_number);
    number.ok_or_else(|| damaged("it names no generation"))
}

/// Lay out logs where there are none.
pub fn create(files: &mut impl Files, n_shards: u16) -> Result<LogGeneration, GenerationError> {
    let generation = LogGeneration { number: FIRST, n_shards };
    for name in files.names("").map_err(io_error(""))? {
        // A start that was cut short leaves empty folders; logs without CURRENT are another matter.
        if parse_number(&name).is_none() || !files.is_folder(&name) {
            continue;
        }
        for shard in files.names(&name).map_err(io_error(&name))? {
            let folder = format!("{name}/{shard}");
            if !files.is_folder(&folder)
                || !files.names(&folder).map_err(io_error(&folder))?.is_empty()
            {
                let why = "is missing, although there are logs: restore it".to_owned();
                return Err(GenerationError::Current(why));
            }
        }
        files.remove(&name).map_err(io_error(&name))?;
    }
    make_folders(files, generation)?;
    sync_folders(files, generation)?;
    write_current(files, generation)?;
    switch(files).map_err(io_error(CURRENT))?;
    Ok(generation)
}

/// Read the log of one shard.
pub fn recover(
    files: &mut impl Files,
    generation: LogGeneration,
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

/// What [`tidy`] has done.
#[derive(Debug, Default)]
pub struct Tidied {
    /// Whether there was anything to remove.
    pub is_any: bool,
    /// What could not be removed, and only takes room.
    pub left: Vec<GenerationError>,
}

/// Remove what lies beside the logs that count: a generation that was never finished, or those before. Only
/// for who has recovered the former, and accepted what they say.
pub fn tidy(files: &mut impl Files, generation: LogGeneration) -> Result<Tidied, GenerationError> {
    let mut done = Tidied::default();
    for name in files.names("").map_err(io_error(""))? {
        let is_leftover = match parse_number(&name) {
            // One that was never finished is the next; nothing else here is ours to remove.
            Some(number) => {
                let is_ours =
                    number < generation.number || Some(number) == generation.number.checked_add(1);
                is_ours && files.is_folder(&name)
            }
            None => name == TEMPORARY,
        };
        if is_leftover {
            done.is_any = true;
            done.left.extend(files.remove(&name).map_err(io_error(&name)).err());
        }
    }
    if done.is_any {
        // A name that came back would mix what is removed with what is written next.
        files.sync_names("").map_err(io_error(""))?;
    }
    let has_checksum =
        |it: io::Result<Bytes>| it.is_ok_and(|it| it == current_of(generation.number));
    if !has_checksum(read_current(files)) && write_current(files, generation).is_ok() {
        // It says the same before and after; if this fails, the next start tries again.
        let _ = switch(files);
    }
    Ok(done)
}

/// Remove what was begun of the generation behind `old`, which counts. And, where starts were refused one after the
/// other, those before `old` that nobody ever accepted: all but the oldest, or each would leave one more.
pub fn remove_unfinished(
    files: &mut impl Files,
    old: LogGeneration,
) -> Result<(), GenerationError> {
    let folder = old.next()?.to_string();
    let names = files.names("").map_err(io_error(""))?;
    let before = names.iter().filter_map(|it| parse_number(it)).filter(|it| *it < old.number);
    let mut before: Vec<_> = before.filter(|it| files.is_folder(&it.to_string())).collect();
    before.sort_unstable();
    for number in before.into_iter().skip(1) {
        // It only takes room.
        let _ = files.remove(&number.to_string());
    }
    let mut is_any = false;
    for name in [folder.as_str(), TEMPORARY] {
        if names.iter().any(|it| it == name) {
            files.remove(name).map_err(io_error(name))?;
            is_any = true;
        }
    }
    if is_any { files.sync_names("").map_err(io_error("")) } else { Ok(()) }
}

fn make_folders(files: &mut impl Files, generation: LogGeneration) -> Result<(), GenerationError> {
    let folder = generation.number.to_string();
    files.make_folder(&folder).map_err(io_error(&folder))?;
    for shard in generation.shards() {
        let folder = generation.folder_of(shard);
        files.make_folder(&folder).map_err(io_error(&folder))?;
    }
    Ok(())
}

/// Bring all names of a generation to the medium, its own last.
fn sync_folders(files: &mut impl Files, generation: LogGeneration) -> Result<(), GenerationError> {
    for shard in generation.shards() {
        let folder = generation.folder_of(shard);
        files.sync_names(&folder).map_err(io_error(&folder))?;
    }
    let folder = generation.number.to_string();
    files.sync_names(&folder).map_err(io_error(&folder))?;
    files.sync_names("").map_err(io_error(""))
}

/// Bring to the medium what `CURRENT` is to say, beside it.
fn write_current(files: &mut impl Files, generation: LogGeneration) -> Result<(), GenerationError> {
    let text = current_of(generation.number);
    let mut write = || {
        if files.size(TEMPORARY).is_ok() {
            files.remove(TEMPORARY)?;
        }
        files.append(TEMPORARY, text.as_bytes())?;
        files.sync(TEMPORARY)?;
        let size = usize::try_from(files.size(TEMPORARY)?).unwrap_or(usize::MAX);
        if size != text.len() || files.read(TEMPORARY, 0, size)? != text {
            let why = "it does not read as it was written";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(())
    };
    write().map_err(io_error(TEMPORARY))
}

/// Have the generation count for which [`write_current`] was called, and which is on the medium.
fn switch(files: &mut impl Files) -> io::Result<()> {
    files.rename(TEMPORARY, CURRENT)?;
    files.sync_names("")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_damage_to_current_names_another_generation() {
        for number in [1, 2, 7, 12, 199, u64::MAX] {
            let whole = current_of(number);
            assert_eq!(parse_current(whole.as_bytes()), Ok(number));
            for at in 0..whole.len() {
                let mut bytes = whole.clone().into_bytes();
                for other in (0..=u8::MAX).filter(|it| *it != whole.as_bytes()[at]) {
                    bytes[at] = other;
                    let error = parse_current(&bytes).expect_err("a byte is another");
                    assert!(error.starts_with("is damaged"), "byte {at} is {other}: {error}");
                }
                // Torn: what is there of it, or zeros behind that.
                let torn = parse_current(&whole.as_bytes()[..at]);
                let is_old = whole[at..].starts_with(CHECKSUM);
                assert_eq!(torn.ok(), is_old.then_some(number), "{at} bytes of {whole:?}");
                bytes[at..].fill(0);
                parse_current(&bytes).expect_err("the end is lost");
            }
        }
    }

    #[test]
    fn a_current_of_old_has_no_checksum() {
        assert_eq!(parse_current(b"debros-wal 1\n7\n"), Ok(7));
        for text in [
            "",
            "debros-wal 1\n7",
            "debros-wal 1\n07\n",
            "debros-wal 1\n7\n8\n",
            "debros-wal 3\n7\n",
            "debros-wal1\n7\n",
            "debros-wal 1 7\n",
        ] {
            let error = parse_current(text.as_bytes()).expect_err("it cannot be ours");
            assert!(error.starts_with("is damaged"), "{text:?}: {error}");
        }
    }
}
