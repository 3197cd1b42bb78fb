//! `<data_dir>/stops`: at which command the process has stopped, so that one that stops it again and again is
//! known for it (R15).
//!
//! A line is appended and synced when the machine fails under a command, and when the process panics in one.
//! Nothing else is ever at hand at such a moment, so the file is text, and reading it forgives: a line that
//! was cut short, or that makes no sense, does not count. The file is written anew at the start, with the
//! newest [`LINES_MAX`] lines.
//!
//! ```text
//! debros stops 1
//! <panic | fault> <partition> <incarnation> <log index, or - > <cause: the rest of the line, not empty>
//! ```
//!
//! Numbers are decimal. `-` stands for what is not at a place of the log: a read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::segments;
use crate::types::DatabaseId;
use crate::types::Incarnation;
use crate::types::LogIndex;
use crate::types::PartitionId;

const NAME: &str = "stops";
const MAGIC: &str = "debros stops ";
const VERSION: &str = "1";
/// Lines that are kept: the newest.
const LINES_MAX: usize = 200;
/// Characters of a cause that are kept.
const CAUSE_MAX: usize = 300;
/// Panics at one command after which its namespace is fenced.
const PANICS_MAX: usize = 2;

/// Why the process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A promise of the program itself was broken.
    Panic,
    /// The machine failed.
    Fault,
}

/// One stop of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub kind: Kind,
    /// What it was at work on.
    pub database: DatabaseId,
    /// At which command; none if at a read.
    pub index: Option<LogIndex>,
    /// For a person: one line.
    pub cause: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StopsError {
    /// The disk said no.
    #[error("read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Written by a newer program.
    #[error("{} has format version {version}, which is newer than this program", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
}

/// The file.
#[derive(Clone, Debug)]
pub struct Stops {
    path: Arc<Path>,
}

impl Stops {
    /// The one of a data directory; it need not exist.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join(NAME).into() }
    }

    /// Add a stop; it is on disk when this returns. May be called by several threads at once: one after the other
    /// has the file, so that none takes what another has written for a head that was cut short.
    pub fn record(&self, stop: &Stop) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        // Given back when the file is closed, by a panic too.
        file.lock()?;
        let found = fs::read(&self.path)?;
        let is_new = !found.contains(&b'\n');
        if is_new && !found.is_empty() {
            // A head that was cut short would hide what follows it.
            file.set_len(0)?;
        }
        let head = if is_new { format!("{MAGIC}{VERSION}\n") } else { String::new() };
        // Begins with a line break: what is there may have been cut short.
        file.write_all(format!("{head}\n{}", line_of(stop)).as_bytes())?;
        file.sync_all()?;
        if is_new { self.sync_name() } else { Ok(()) }
    }

    /// What is on record, oldest first.
    pub fn read(&self) -> Result<Vec<Stop>, StopsError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StopsError::Io { path: self.path.to_path_buf(), source }),
        };
        parse(&String::from_utf8_lossy(&bytes))
            .map_err(|version| StopsError::Version { path: self.path.to_path_buf(), version })
    }

    /// Replace what is on record with the newest of `stops`. It is on disk when this returns. Only while no
    /// node runs.
    pub fn write(&self, stops: &[Stop]) -> io::Result<()> {
        let kept = &stops[stops.len().saturating_sub(LINES_MAX)..];
        if kept.is_empty() {
            return match fs::remove_file(&self.path) {
                Ok(()) => self.sync_name(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
        }
        let temporary = self.path.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        let lines: String = kept.iter().map(line_of).collect();
        file.write_all(format!("{MAGIC}{VERSION}\n{lines}").as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        self.sync_name()
    }

    fn sync_name(&self) -> io::Result<()> {
        segments::sync_directory(self.path.parent().expect("it lies in a directory"))
    }
}

/// The commands at which the process has panicked so often that it would do so again, by their database; the
/// newest stop of each.
pub fn repeated(stops: &[Stop]) -> BTreeMap<DatabaseId, Stop> {
    let mut counts = BTreeMap::new();
    let mut found = BTreeMap::new();
    for stop in stops.iter().filter(|it| it.kind == Kind::Panic) {
        let Some(index) = stop.index else { continue };
        let count = counts.entry((stop.database, index)).or_insert(0);
        *count += 1;
        if *count >= PANICS_MAX {
            found.insert(stop.database, stop.clone());
        }
    }
    found
}

fn line_of(stop: &Stop) -> String {
    let kind = match stop.kind {
        Kind::Panic => "panic",
        Kind::Fault => "fault",
    };
    let DatabaseId { partition, incarnation } = stop.database;
    let mut line = format!("{kind} {partition} {incarnation} ");
    match stop.index {
        Some(index) => write!(line, "{index} ").expect("a String takes all"),
        None => line.push_str("- "),
    }
    let cause: String = clean(&stop.cause);
    line.push_str(if cause.is_empty() { "unknown" } else { &cause });
    line.push('\n');
    line
}

/// A cause as a line holds it.
fn clean(cause: &str) -> String {
    let words: Vec<_> = cause.split(|it: char| it.is_whitespace() || it.is_control()).collect();
    let text = words.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" ");
    let cut: String = text.chars().take(CAUSE_MAX).collect();
    cut.trim_end().to_owned()
}

/// The stops in a text; `Err` is a newer version.
fn parse(text: &str) -> Result<Vec<Stop>, String> {
    let Some((first, rest)) = text.split_once('\n') else {
        // Not even the head is whole.
        return Ok(Vec::new());
    };
    match first.strip_prefix(MAGIC) {
        Some(VERSION) => {}
        Some(version) => return Err(version.to_owned()),
        None => return Ok(Vec::new()),
    }
    // What follows the last line break was cut short.
    let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
    Ok(whole.split('\n').filter_map(parse_line).collect())
}

fn parse_line(line: &str) -> Option<Stop> {
    let mut parts = line.splitn(5, ' ');
    let kind = match parts.next()? {
        "panic" => Kind::Panic,
        "fault" => Kind::Fault,
        _ => return None,
    };
    let partition = PartitionId(parts.next()?.parse().ok()?);
    let incarnation = Incarnation(parts.next()?.parse().ok()?);
    let index = match parts.next()? {
        "-" => None,
        number => Some(LogIndex(number.parse().ok()?)),
    };
    let cause = clean(parts.next()?);
    let stop = Stop { kind, database: DatabaseId { partition, incarnation }, index, cause };
    (!stop.cause.is_empty()).then_some(stop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stop(kind: Kind, index: Option<u64>, cause: &str) -> Stop {
        let database = DatabaseId { partition: PartitionId(3), incarnation: Incarnation(12) };
        Stop { kind, database, index: index.map(LogIndex), cause: cause.to_owned() }
    }

    #[test]
    fn stops_are_added_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let stops = Stops::of(dir.path());
        assert_eq!(stops.read().unwrap(), []);
        let one = stop(Kind::Panic, Some(7), "src/x.rs:1: broken");
        let two = stop(Kind::Fault, None, "disk full");
        stops.record(&one).unwrap();
        stops.record(&two).unwrap();
        assert_eq!(stops.read().unwrap(), [one.clone(), two.clone()]);
        stops.write(&[two.clone(), one.clone()]).unwrap();
        assert_eq!(stops.read().unwrap(), [two, one]);
        stops.write(&[]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_cut_short_does_not_count_and_spoils_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let stops = Stops::of(dir.path());
        let one = stop(Kind::Panic, Some(471), "broken");
        stops.record(&one).unwrap();
        let whole = fs::read(dir.path().join(NAME)).unwrap();
        for cut in 0..whole.len() {
            fs::write(dir.path().join(NAME), &whole[..cut]).unwrap();
            assert_eq!(stops.read().unwrap(), [], "cut at {cut}");
            stops.record(&one).unwrap();
            let last = stops.read().unwrap().pop();
            assert_eq!(last, Some(one.clone()), "cut at {cut}");
        }
    }

    #[test]
    fn what_several_threads_add_at_once_is_all_there() {
        const N_THREADS: usize = 8;
        const N_ROUNDS: usize = 50;
        let dir = tempfile::tempdir().unwrap();
        let stops = Stops::of(dir.path());
        for round in 0..N_ROUNDS {
            fs::write(dir.path().join(NAME), &MAGIC[..5]).unwrap();
            let barrier = std::sync::Barrier::new(N_THREADS);
            std::thread::scope(|scope| {
                for nth in 0..N_THREADS as u64 {
                    let (stops, barrier) = (&stops, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        stops.record(&stop(Kind::Fault, Some(nth), "full")).unwrap();
                    });
                }
            });
            let mut found: Vec<_> =
                stops.read().unwrap().iter().map(|it| it.index.unwrap().0).collect();
            found.sort_unstable();
            let want: Vec<_> = (0..N_THREADS as u64).collect();
            assert_eq!(found, want, "round {round}");
        }
    }

    #[test]
    fn only_the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let stops = Stops::of(dir.path());
        let many: Vec<_> = (0..500).map(|it| stop(Kind::Panic, Some(it), "x")).collect();
        stops.write(&many).unwrap();
        assert_eq!(stops.read().unwrap(), many[300..]);
    }

    #[test]
    fn a_newer_file_is_refused_and_a_foreign_one_is_empty() {
        for (text, want) in [
            ("debros stops 2\npanic 1 1 1 x\n", Err("2".to_owned())),
            ("something else\npanic 1 1 1 x\n", Ok(0)),
            ("debros stops 1\npanic 1 1 1 x\nnonsense\nfault 1 1 - y\n", Ok(2)),
        ] {
            assert_eq!(parse(text).map(|it| it.len()), want, "{text:?}");
        }
    }

    #[test]
    fn two_panics_at_one_command_are_one_too_many() {
        let panic = |index| stop(Kind::Panic, index, "broken");
        for (stops, want) in [
            (vec![panic(Some(5)), panic(Some(6))], None),
            (vec![panic(Some(5)), panic(Some(6)), panic(Some(5))], Some(5)),
            (vec![panic(None), panic(None)], None),
            (vec![panic(Some(5)), stop(Kind::Fault, Some(5), "full")], None),
        ] {
            let found = repeated(&stops);
            let index = found.values().next().and_then(|it| it.index);
            assert_eq!(index, want.map(LogIndex), "{stops:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stop_comes_back(partition: u16, incarnation: u64, index: Option<u64>, is_panic: bool, cause in "\\PC{0,400}|[\\x00-\\x7f]{0,40}") {
            let database = DatabaseId {
                partition: PartitionId(partition),
                incarnation: Incarnation(incarnation),
            };
            let kind = if is_panic { Kind::Panic } else { Kind::Fault };
            let stop = Stop { kind, database, index: index.map(LogIndex), cause };
            let text = format!("{MAGIC}{VERSION}\n{}", line_of(&stop));
            let read = parse(&text).unwrap();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(line_of(&read[0]), line_of(&stop));
        }
    }
}
