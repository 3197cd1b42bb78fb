//! What is at work on a database when the process must stop goes on record (R15).
//!
//! [`guarded`] surrounds every call that applies or reads, on whichever thread. A panic in it ends the
//! process where it happens, in the panic hook: a database in the middle of a command is nobody's to use, what
//! would unwind through C would never come back, and SQLite's callbacks would make a statement's error of it,
//! to be recorded as the command's outcome.

use std::cell::RefCell;
use std::panic;
use std::panic::PanicHookInfo;
use std::sync::Once;

use crate::disk::stops::Kind;
use crate::disk::stops::Stop;
use crate::disk::stops::Stops;
use crate::sql;
use crate::sql::Fault;
use crate::types::DatabaseId;

thread_local! {
    /// What this thread is at work on.
    static AT_WORK: RefCell<Option<(Stops, DatabaseId)>> = const { RefCell::new(None) };
}

/// Run `work`, which applies to `database` or reads it. A panic in it, or a fault of the machine, goes to
/// `stops`. A panic then ends the process; a fault is for the caller to end it.
pub fn guarded<T>(
    stops: &Stops,
    database: DatabaseId,
    work: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, Fault> {
    watch_panics();
    sql::forget_command();
    AT_WORK.set(Some((stops.clone(), database)));
    let ran = work();
    AT_WORK.set(None);
    if let Err(Fault::Stop(cause)) = &ran {
        let index = sql::command_at_work();
        let stop = Stop { kind: Kind::Fault, database, index, cause: cause.clone() };
        // The disk may be what failed; the log of the process has the cause as well.
        let _ = stops.record(&stop);
    }
    ran
}

/// Have a panic of any thread that is at work end the process, on record.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            before(info);
            if let Some((stops, database)) = AT_WORK.take() {
                record(&stops, database, info);
                std::process::abort();
            }
        }));
    });
}

fn record(stops: &Stops, database: DatabaseId, info: &PanicHookInfo<'_>) {
    let said = info.payload_as_str().unwrap_or("no message");
    let cause = match info.location() {
        Some(at) => format!("{}:{}: {said}", at.file(), at.line()),
        None => said.to_owned(),
    };
    let stop = Stop { kind: Kind::Panic, database, index: sql::command_at_work(), cause };
    // The process ends all the same.
    let _ = stops.record(&stop);
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::path::PathBuf;

    use super::*;
    use crate::sql::Database;
    use crate::sql::Entry;
    use crate::sql::Role;
    use crate::sql::Vfs;
    use crate::sql::testing;
    use crate::types::Incarnation;
    use crate::types::LogIndex;
    use crate::types::PartitionId;
    use crate::wire::command::Mode;

    const ID: DatabaseId = DatabaseId { partition: PartitionId(4), incarnation: Incarnation(9) };
    const DIR: &str = "DEBROS_TEST_GUARD_DIR";

    fn apply(dir: &Path, texts: &[&str]) -> Result<Vec<String>, Fault> {
        let path = dir.join("9.db");
        if !path.exists() {
            Database::create(&path, Vfs::system(), "CREATE TABLE t(a)").unwrap();
        }
        let mut database = Database::open(&path, Vfs::system(), Role::Engine).unwrap();
        let entry = |(index, sql): (u64, &&str)| Entry {
            index: LogIndex(index),
            command: testing::command(Mode::Exec, sql, &[], &testing::stamp(index)),
        };
        let entries: Vec<_> = (5..).zip(texts).map(entry).collect();
        let stops = Stops::of(dir);
        let batch = guarded(&stops, ID, || database.apply(&entries))?;
        Ok(batch.applied.iter().map(|it| format!("{it:?}")).collect())
    }

    #[test]
    fn what_goes_well_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let applied = apply(dir.path(), &["INSERT INTO t VALUES (1)", "SELEC"]).unwrap();
        assert_eq!(applied.len(), 2);
        assert_eq!(Stops::of(dir.path()).read().unwrap(), []);
    }

    #[test]
    fn a_fault_of_the_machine_goes_on_record_and_damage_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let stops = Stops::of(dir.path());
        let fault = Fault::Stop("no disk".to_owned());
        assert_eq!(guarded::<()>(&stops, ID, || Err(fault.clone())), Err(fault));
        let fence = Fault::Fence("bad page".to_owned());
        assert_eq!(guarded::<()>(&stops, ID, || Err(fence.clone())), Err(fence));
        let read = stops.read().unwrap();
        let cause = "no disk".to_owned();
        assert_eq!(read, [Stop { kind: Kind::Fault, database: ID, index: None, cause }]);
    }

    /// The child of the next tests: applies commands, the last of which panics.
    #[test]
    fn child_that_panics() {
        let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
        let texts = ["INSERT INTO t VALUES (1)", "INSERT INTO t SELECT panic_in_a_test()"];
        let applied = apply(&dir, &texts);
        unreachable!("the process lives on: {applied:?}");
    }

    fn stopped_child(dir: &Path) {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk::guard::tests::child_that_panics", "--nocapture"])
            .env(DIR, dir)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{said}");
        assert!(said.contains("as the test wants it"), "{said}");
    }

    #[test]
    fn a_panic_in_a_command_ends_the_process_and_names_the_command() {
        let dir = tempfile::tempdir().unwrap();
        stopped_child(dir.path());
        let stops = Stops::of(dir.path()).read().unwrap();
        assert_eq!(stops.len(), 1, "{stops:?}");
        assert_eq!(stops[0].kind, Kind::Panic);
        assert_eq!((stops[0].database, stops[0].index), (ID, Some(LogIndex(6))));
        assert!(stops[0].cause.ends_with("as the test wants it"), "{stops:?}");
        // The process starts anew, and comes to the same command.
        assert!(crate::disk::stops::repeated(&stops).is_empty());
        stopped_child(dir.path());
        let stops = Stops::of(dir.path()).read().unwrap();
        assert!(crate::disk::stops::repeated(&stops).contains_key(&ID), "{stops:?}");
    }
}
