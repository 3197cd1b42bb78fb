//! The manifest of a partition: every database it has, and how far each is known to be on disk (R24).
//!
//! It lies in the directory of the databases as `manifest`, is rewritten under a temporary name, synced and
//! renamed, and is on disk before the log forgets what it vouches for. A database that is missing, or that
//! is behind its floor, has been lost.
//!
//! ```text
//! debros manifest 1
//! <incarnation> <floor: log index>        one line each, by incarnation; behind a damaged one ` fenced kept`
//!                                         if the log has kept all behind the floor, else ` fenced`
//! crc32c <8 hex digits, of everything above>
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;

use crate::types::Floor;
use crate::types::Incarnation;
use crate::types::LogIndex;

const NAME: &str = "manifest";
const MAGIC: &str = "debros manifest ";
const VERSION: &str = "1";

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The disk said no.
    #[error("read manifest")]
    Io(#[from] io::Error),
    /// Written by a newer program.
    #[error("manifest has format version {0}, which is newer than this program")]
    Version(String),
    /// Not what was written.
    #[error("manifest is damaged: {0}")]
    Damaged(&'static str),
}

/// Read the floors of a directory; none if it has no manifest yet.
pub fn read(dir: &Path) -> Result<BTreeMap<Incarnation, Floor>, ManifestError> {
    match fs::read_to_string(dir.join(NAME)) {
        Ok(text) => decode(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

/// Replace the manifest of a directory. It is on disk when this returns. An error that tells of a full disk
/// leaves the one that was there; after another, nobody knows.
pub fn write(dir: &Path, floors: &[(Incarnation, Floor)]) -> io::Result<()> {
    let temporary = dir.join("manifest.new");
    let prepare = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(encode(floors).as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(NAME))
    };
    prepare().inspect_err(|_| {
        // Nobody reads it; the next attempt begins it anew, sync and all.
        let _ = fs::remove_file(&temporary);
    })?;
    let synced = fs::File::open(dir).and_then(|it| it.sync_all());
    // Whatever a failing sync says: it is not that there is no room.
    synced.map_err(io::Error::other)
}

fn encode(floors: &[(Incarnation, Floor)]) -> String {
    let mut text = format!("{MAGIC}{VERSION}\n");
    for (incarnation, floor) in floors {
        let fence = match (floor.is_fenced, floor.is_log_kept) {
            (true, true) => " fenced kept",
            (true, false) => " fenced",
            (false, _) => "",
        };
        writeln!(text, "{incarnation} {}{fence}", floor.index).expect("a String takes all");
    }
    let crc = crc32c::crc32c(text.as_bytes());
    writeln!(text, "crc32c {crc:08x}").expect("a String takes all");
    text
}

fn decode(text: &str) -> Result<BTreeMap<Incarnation, Floor>, ManifestError> {
    let first = text.lines().next().unwrap_or_default();
    let Some(version) = first.strip_prefix(MAGIC) else {
        return Err(ManifestError::Damaged("it does not begin as one"));
    };
    if version != VERSION {
        return Err(ManifestError::Version(version.to_owned()));
    }
    let Some(body_length) = text.rfind("crc32c ") else {
        return Err(ManifestError::Damaged("it has no checksum"));
    };
    let (body, checksum) = text.split_at(body_length);
    if checksum.trim_end() != format!("crc32c {:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err(ManifestError::Damaged("its checksum is wrong"));
    }
    let floor = |line: &str| {
        let (incarnation, floor) = line.split_once(' ')?;
        let (floor, is_log_kept) = match floor.strip_suffix(" kept") {
            Some(floor) if floor.ends_with(" fenced") => (floor, true),
            Some(_) => return None,
            None => (floor, false),
        };
        let (index, is_fenced) = match floor.strip_suffix(" fenced") {
            Some(index) => (index, true),
            None => (floor, false),
        };
        let floor = Floor { index: LogIndex(index.parse().ok()?), is_fenced, is_log_kept };
        Some((Incarnation(incarnation.parse().ok()?), floor))
    };
    let floors = body.lines().skip(1).map(floor).collect::<Option<_>>();
    floors.ok_or(ManifestError::Damaged("a line is not a floor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        let floor = |index, is_fenced, is_log_kept| Floor {
            index: LogIndex(index),
            is_fenced,
            is_log_kept,
        };
        let floors = [
            (Incarnation(0), floor(7, false, false)),
            (Incarnation(5), floor(0, true, false)),
            (Incarnation(6), floor(9, true, true)),
        ];
        write(dir.path(), &floors).unwrap();
        assert_eq!(read(dir.path()).unwrap(), BTreeMap::from(floors));
    }

    #[test]
    fn damage_is_seen() {
        let good = encode(&[(Incarnation(3), Floor { index: LogIndex(12), ..Floor::default() })]);
        for (name, text, want) in [
            ("a changed digit", good.replace("12", "13"), "its checksum is wrong"),
            ("cut short", good[..good.len() - 8].to_owned(), "its checksum is wrong"),
            ("empty", String::new(), "it does not begin as one"),
            ("newer", good.replace("manifest 1", "manifest 2"), "format version 2"),
        ] {
            let error = decode(&text).unwrap_err().to_string();
            assert!(error.contains(want), "{name}: {error}");
        }
    }
}
