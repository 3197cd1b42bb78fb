//! For the tests of this folder: a database in a folder of its own, and commands in one line.

#![expect(clippy::disallowed_types, reason = "tests learn what went on in other threads")]

use std::fmt::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tempfile::TempDir;

use crate::sql::Applied;
use crate::sql::Database;
use crate::sql::Entry;
use crate::sql::Rest;
use crate::sql::Role;
use crate::sql::Vfs;
use crate::types::Incarnation;
use crate::types::LogIndex;
use crate::types::Timestamp;
use crate::wire::command::CommandLimits;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::Stamp;
use crate::wire::command::Value;
use crate::wire::command::draft::Draft;
use crate::wire::rows::Outcome;
use crate::wire::rows::Rows;
use crate::wire::rows::StatementResult;

/// Room for all that a test does.
pub(crate) const LIMITS: CommandLimits = CommandLimits {
    steps: 10_000_000,
    temp_bytes: 64 << 20,
    database_bytes: 256 << 20,
    result_bytes: 1 << 20,
    result_rows: 1_000,
    value_bytes: 1 << 20,
};

/// The stamp of the test's `n`-th command.
pub(crate) fn stamp(n: u64) -> Stamp {
    Stamp {
        incarnation: Incarnation(1),
        time: Timestamp(1_761_300_000_000 + n.cast_signed() * 1_000),
        seed: n,
        limits: LIMITS,
    }
}

/// A command that runs `sql`, as one text, in `mode`.
pub(crate) fn command(mode: Mode, sql: &str, arguments: &[Value<'_>], stamp: &Stamp) -> Bytes {
    let mut draft = Draft::new(Results::Last, 0);
    draft.statement(mode, sql).unwrap();
    for value in arguments {
        draft.bind(*value).unwrap();
    }
    draft.seal(stamp)
}

/// The steps that commands counted for, of databases that are watched.
static STEPS: Mutex<Option<FxHashMap<PathBuf, FxHashMap<LogIndex, u64>>>> = Mutex::new(None);

/// Note, from now on, what the commands of the database at `path` count for.
pub(crate) fn watch_steps(path: &Path) {
    let mut watched = STEPS.lock().unwrap();
    watched.get_or_insert_default().insert(path.to_owned(), FxHashMap::default());
}

/// What each command counted for, when it ran last, of the database at `path`, which is not watched any more.
pub(crate) fn steps_of(path: &Path) -> FxHashMap<LogIndex, u64> {
    STEPS.lock().unwrap().get_or_insert_default().remove(path).expect("a database that is watched")
}

/// The command at `index` counted for `steps`.
pub(crate) fn note_steps(path: &Path, index: LogIndex, steps: u64) {
    let mut watched = STEPS.lock().unwrap();
    if let Some(of_it) = watched.as_mut().and_then(|it| it.get_mut(path)) {
        of_it.insert(index, steps);
    }
}

/// A database and the index of its last command.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) database: Database,
    pub(crate) folder: TempDir,
    pub(crate) next: u64,
}

impl Fixture {
    /// An empty database of a tenant.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.db");
        Database::create(&path, Vfs::system(), "").unwrap();
        let database = Database::open(&path, Vfs::system(), Role::Tenant).unwrap();
        Self { database, folder, next: 1 }
    }

    /// Entries for `commands`, which come next.
    pub(crate) fn entries(&mut self, commands: impl IntoIterator<Item = Bytes>) -> Vec<Entry> {
        commands
            .into_iter()
            .map(|command| {
                let index = LogIndex(self.next);
                self.next += 1;
                Entry { index, command }
            })
            .collect()
    }

    /// Apply `commands` as one batch.
    pub(crate) fn apply(&mut self, commands: impl IntoIterator<Item = Bytes>) -> Vec<Outcome> {
        let entries = self.entries(commands);
        let batch = self.database.apply(&entries).unwrap();
        assert_eq!(batch.rest, Rest::None);
        batch
            .applied
            .into_iter()
            .map(|it| match it {
                Applied::Done(outcome) | Applied::Replayed(outcome) => outcome,
                Applied::Skipped => panic!("a new entry was skipped"),
            })
            .collect()
    }

    /// Apply the texts as one batch of commands, and print what each gave.
    pub(crate) fn exec(&mut self, texts: &[&str]) -> Vec<String> {
        let first = self.next;
        let commands = (first..).zip(texts);
        let commands: Vec<_> =
            commands.map(|(n, sql)| command(Mode::Exec, sql, &[], &stamp(n))).collect();
        self.apply(commands).iter().map(print).collect()
    }

    /// Apply one text, which must succeed.
    pub(crate) fn must(&mut self, sql: &str) -> String {
        let printed = self.exec(&[sql]).remove(0);
        assert!(!printed.starts_with("error"), "{sql}: {printed}");
        printed
    }

    /// Read by one text.
    pub(crate) fn query(&mut self, sql: &str) -> String {
        let command = command(Mode::Query, sql, &[], &stamp(self.next));
        print(&self.database.read(&[command], &mut |_| false).unwrap()[0])
    }
}

/// An outcome in one line.
pub(crate) fn print(outcome: &Outcome) -> String {
    match outcome {
        Err(error) => match error.code {
            Some(code) => format!("error {code}: {error}"),
            None => format!("error: {error}"),
        },
        Ok(results) => results.iter().map(print_result).collect::<Vec<_>>().join("; "),
    }
}

fn print_result(result: &StatementResult) -> String {
    match result {
        StatementResult::Rows(rows) => print_rows(rows),
        StatementResult::Counts { rows_affected, last_insert_id, returned } => {
            let returned = returned.as_ref().map(|it| format!(" returned {}", print_rows(it)));
            format!("{rows_affected} rows, id {last_insert_id}{}", returned.unwrap_or_default())
        }
    }
}

fn print_rows(rows: &Rows) -> String {
    let names: Vec<_> = rows.columns.iter().map(|it| it.name.as_str()).collect();
    let mut printed = format!("[{}]", names.join(","));
    let values: Vec<_> = rows.values().collect();
    for row in values.chunks(rows.columns.len().max(1)) {
        let row: Vec<_> = row
            .iter()
            .map(|value| match value {
                Value::Null => "NULL".to_owned(),
                Value::Integer(it) => it.to_string(),
                Value::Real(it) => format!("{it:?}"),
                Value::Text(it) => format!("'{it}'"),
                Value::Blob(it) => format!("{it:02x?}"),
            })
            .collect();
        write!(printed, "({})", row.join(",")).unwrap();
    }
    printed
}
