//! A replica in a test: applies the commands of a script in a manner of its own.

use std::fs; // tidy: allow(std::fs) only in tests, which copy files
use std::path::Path;
use std::path::PathBuf;
use std::thread; // tidy: allow(std::thread) only in tests, which move between threads

use bytes::Bytes;
use tempfile::TempDir;

use crate::sql::Applied;
use crate::sql::Checkpointer;
use crate::sql::Database;
use crate::sql::Entry;
use crate::sql::Rest;
use crate::sql::Role;
use crate::sql::Share;
use crate::sql::Vfs;
use crate::sql::scripts::statements;
use crate::sql::testing;
use crate::sql::testing::print;
use crate::types::Dice;
use crate::types::LogIndex;

/// Bytes of the write-ahead log at which it is moved into the file, so that opening stays quick.
const WAL_BYTES_MAX: u64 = 1 << 20;

/// How a replica treats what it is given. Each but the first says once in how many batches something is
/// done; [`NEVER`] is an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Most commands of a batch.
    pub(super) batch_max: u64,
    /// It is closed and opened again.
    pub(super) reopen: u64,
    /// It forgets what it keeps in memory.
    pub(super) rest: u64,
    /// Others read, which fills what it keeps in memory.
    pub(super) read: u64,
    /// The batch runs on another thread.
    pub(super) thread: u64,
    /// Commands that it has had are handed in again.
    pub(super) again: u64,
    /// A copy of its files is put aside, as a crash would leave them.
    pub(super) copy: u64,
    /// It goes on from that copy: what was applied since is applied again, in other batches.
    pub(super) crash: u64,
    /// The log is moved into the file.
    pub(super) checkpoint: u64,
    /// Whoever hands it in gives it little time, and hands in later what it had no time for.
    pub(super) hurry: u64,
}

/// See [`Manner`].
pub(super) const NEVER: u64 = u64::MAX;

struct Replica {
    folder: TempDir,
    /// None only while it moves.
    database: Option<Database>,
    /// What each command gave.
    printed: Vec<String>,
    /// How many commands were applied when the files were copied.
    copied: Option<usize>,
}

/// What came of a script.
pub(super) struct End {
    /// What each command gave.
    pub(super) printed: Vec<String>,
    /// What each counted for, in VM instructions; none for one that did not have to run.
    pub(super) steps: Vec<Option<u64>>,
    /// The hash of what is there.
    pub(super) hash: u64,
}

/// Apply `commands` in `manner`.
pub(super) fn run(commands: &[Bytes], manner: Manner, dice: &mut Dice) -> End {
    let entries: Vec<Entry> = (1..)
        .zip(commands)
        .map(|(n, command)| Entry { index: LogIndex(n), command: command.clone() })
        .collect();
    let mut replica = Replica::new();
    // How far it has come: goes back after a crash.
    let mut at = 0;
    while at < entries.len() {
        let is_time = |dice: &mut Dice, once_in: u64| dice.below(once_in) == 0;
        let size = usize::try_from(1 + dice.below(manner.batch_max)).unwrap();
        let end = (at + size).min(entries.len());
        let back = if is_time(dice, manner.again) { dice.below(20) } else { 0 };
        let from = at.saturating_sub(usize::try_from(back).unwrap());
        let hurry = is_time(dice, manner.hurry).then(|| dice.roll());
        if is_time(dice, manner.thread) {
            replica.apply_elsewhere(&entries[from..end], at - from, hurry);
        } else {
            replica.apply(&entries[from..end], at - from, hurry);
        }
        at = end;
        if is_time(dice, manner.read) {
            replica.read(dice);
        }
        if is_time(dice, manner.rest) {
            replica.database().rest();
        }
        if is_time(dice, manner.checkpoint) || replica.database().wal_bytes() > WAL_BYTES_MAX {
            replica.checkpoint();
        }
        if is_time(dice, manner.reopen) {
            replica.reopen();
        }
        if is_time(dice, manner.copy) {
            replica.copy();
        }
        if is_time(dice, manner.crash)
            && let Some(copied) = replica.crash()
        {
            at = copied;
        }
    }
    replica.finish()
}

impl Replica {
    fn new() -> Self {
        // In memory, if that is to be had: there is much to sync, and no power to lose.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut replica = Self { folder, database: None, printed: Vec::new(), copied: None };
        testing::watch_steps(&replica.path());
        Database::create(&replica.path(), Vfs::system(), "").unwrap();
        replica.reopen();
        replica
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("1.db")
    }

    fn database(&mut self) -> &mut Database {
        self.database.as_mut().expect("it is not moving")
    }

    fn reopen(&mut self) {
        self.database = None;
        self.database = Some(Database::open(&self.path(), Vfs::system(), Role::Tenant).unwrap());
    }

    /// Apply `entries`, of which it has had `n_had`; the first time in a hurry, if so asked by a seed.
    fn apply(&mut self, entries: &[Entry], n_had: usize, hurry: Option<u64>) {
        let mut n_done = 0;
        if let Some(seed) = hurry {
            let mut dice = Dice::new(seed);
            let share = if dice.below(3) == 0 { Share::Whole } else { Share::Inline };
            let mut asks_left = dice.below(40);
            let mut enough = |_| {
                asks_left = asks_left.saturating_sub(1);
                asks_left == 0
            };
            let batch = self.database().apply_within(entries, share, &mut enough).unwrap();
            let is_left = matches!(batch.rest, Rest::Long | Rest::Later);
            assert_eq!(batch.applied.len() < entries.len(), is_left, "{:?}", batch.rest);
            self.note(&batch.applied, n_had);
            n_done = batch.applied.len();
        }
        let rest = &entries[n_done..];
        let batch = self.database().apply(rest).unwrap();
        assert_eq!(batch.rest, Rest::None);
        assert_eq!(batch.applied.len(), rest.len());
        self.note(&batch.applied, n_had.saturating_sub(n_done));
    }

    fn note(&mut self, applied: &[Applied], n_had: usize) {
        for (n, one) in applied.iter().enumerate() {
            match one {
                Applied::Skipped => {
                    assert!(n < n_had, "a new entry was skipped");
                    continue;
                }
                Applied::Done(outcome) => self.printed.push(print(outcome)),
                Applied::Replayed(outcome) => {
                    self.printed.push(format!("again {}", print(outcome)));
                }
            }
            assert!(n >= n_had, "an entry was applied twice");
        }
    }

    fn apply_elsewhere(&mut self, entries: &[Entry], n_had: usize, hurry: Option<u64>) {
        thread::scope(|scope| {
            scope.spawn(|| self.apply(entries, n_had, hurry)).join().unwrap();
        });
    }

    fn read(&mut self, dice: &mut Dice) {
        let commands: Vec<_> = (0..=dice.below(5)).map(|_| statements::reading(dice)).collect();
        self.database().read(&commands, &mut |_| false).unwrap();
    }

    fn checkpoint(&mut self) {
        let mut checkpointer = Checkpointer::open(&self.path(), Vfs::system()).unwrap();
        checkpointer.checkpoint().unwrap();
        // So that the log starts anew.
        checkpointer.touch().unwrap();
    }

    /// Copy its files as they are, open.
    fn copy(&mut self) {
        copy_files(&self.path(), &self.path().with_extension("copy"));
        self.copied = Some(self.printed.len());
        // Whoever closes a file drops SQLite's locks on it, so that it takes them again.
        self.reopen();
    }

    /// Go on from the copy, if there is one.
    fn crash(&mut self) -> Option<usize> {
        let copied = self.copied?;
        self.database = None;
        copy_files(&self.path().with_extension("copy"), &self.path());
        self.reopen();
        let applied = LogIndex(u64::try_from(copied).unwrap());
        assert_eq!(self.database().applied(), applied, "the copy is that of another moment");
        self.printed.truncate(copied);
        Some(copied)
    }

    fn finish(mut self) -> End {
        let hash = self.database().content_hash().unwrap();
        let steps = testing::steps_of(&self.path());
        let indexes = (1..).map(LogIndex).take(self.printed.len());
        End {
            steps: indexes.map(|it| steps.get(&it).copied()).collect(),
            hash,
            printed: self.printed,
        }
    }
}

/// Copy a database and its log, and nothing that was there before.
fn copy_files(from: &Path, to: &Path) {
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(with(to, suffix));
        if suffix != "-shm" && with(from, suffix).exists() {
            fs::copy(with(from, suffix), with(to, suffix)).unwrap();
        }
    }
}
