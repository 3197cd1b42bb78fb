//! The log of slow statements: what they do, in which namespace, and where they ran; never their values.

use std::time::Duration;

use tracing::warn;

use crate::catalog::Catalog;
use crate::disk::stopwatch::Slow;
use crate::node::databases::counts::Side;
use crate::sql::shape;
use crate::types::DatabaseId;
use crate::types::Incarnation;
use crate::types::Instant;
use crate::wire::command::Command;
use crate::wire::command::Kind;
use crate::wire::storage::Storage;

/// Lines of one core in a second; of what is left out the next line says how much it was.
const LINES_MAX: u32 = 10;
/// Bytes of a shape.
const SHAPE_SIZE_MAX: usize = 512;
/// Statements of a command whose shape is looked at.
const STATEMENTS_MAX: usize = 8;

/// The log of one core.
#[derive(Debug, Default)]
pub(super) struct SlowLog {
    second_began: Option<Instant>,
    n_lines: u32,
    n_left_out: u64,
}

impl SlowLog {
    /// Tell of a slow command, unless too many have been told of in this second.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        catalog: &Catalog,
        id: DatabaseId,
        side: Side,
        slow: &Slow,
    ) {
        let Ok(command) = Command::decode(&slow.command) else { return };
        if !is_told(command.kind) {
            return;
        }
        let Some(left_out) = self.admit(now) else { return };
        let (n_statements, shape) = shape_of(&command);
        let namespace = match catalog.name_of(id) {
            Some(namespace) => namespace.as_str(),
            None if id.incarnation == Incarnation::ENGINE => "(engine)",
            None => "(unknown)",
        };
        let on = match side {
            Side::Core => "core",
            Side::Thread => "thread",
        };
        let ms = u64::try_from(slow.took.as_millis()).unwrap_or(u64::MAX);
        warn!(namespace, ms, on, rows = slow.rows, n_statements, shape, left_out, "slow statement");
    }

    /// How many were left out since the last line, if there may be one now.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_new = |began| now.since(began) >= Duration::from_secs(1);
        if self.second_began.is_none_or(is_new) {
            self.second_began = Some(now);
            self.n_lines = 0;
        }
        if self.n_lines == LINES_MAX {
            self.n_left_out += 1;
            return None;
        }
        self.n_lines += 1;
        Some(std::mem::take(&mut self.n_left_out))
    }
}

/// Whether somebody asked for what such a command does; the others are the engine's own.
fn is_told(kind: Kind) -> bool {
    match kind {
        Kind::Execute | Kind::Storage => true,
        Kind::Create | Kind::Drop | Kind::Vacuum => false,
    }
}

/// How many statements a command has, and the shapes of the first of them.
fn shape_of(command: &Command<'_>) -> (u32, String) {
    if command.kind == Kind::Storage {
        let what = match command.storage() {
            Ok(Storage::Put { .. }) => "storage put",
            Ok(Storage::Delete { .. }) => "storage delete",
            Ok(Storage::Get { .. }) => "storage get",
            Ok(Storage::Exists { .. }) => "storage exists",
            Ok(Storage::List { .. }) => "storage list",
            Err(_) => "storage",
        };
        return (1, what.to_owned());
    }
    let mut shapes = String::new();
    for statement in command.statements().take(STATEMENTS_MAX).map_while(Result::ok) {
        let left = SHAPE_SIZE_MAX.saturating_sub(shapes.len());
        if left == 0 {
            break;
        }
        if !shapes.is_empty() {
            shapes.push_str("; ");
        }
        shapes.push_str(&shape(statement.sql, left));
    }
    (command.n_statements, shapes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    use crate::types::PartitionId;
    use crate::types::Timestamp;
    use crate::wire::command::CommandLimits;
    use crate::wire::command::Mode;
    use crate::wire::command::Results;
    use crate::wire::command::Stamp;
    use crate::wire::command::draft::Draft;

    fn command(draft: Draft) -> Bytes {
        let limits = CommandLimits {
            steps: 1,
            temp_bytes: 1,
            database_bytes: 1,
            result_bytes: 1,
            result_rows: 1,
            value_bytes: 1,
        };
        let incarnation = Incarnation(7);
        draft.seal(&Stamp { incarnation, time: Timestamp(1), seed: 1, limits })
    }

    fn storage(what: &Storage<'_>) -> Draft {
        Draft::storage(what).unwrap()
    }

    #[test]
    fn a_shape_shows_no_values() {
        let mut statements = Draft::new(Results::Each, 0);
        statements.statement(Mode::Exec, "INSERT INTO t VALUES ('secret')").unwrap();
        statements.statement(Mode::Query, "SELECT 7").unwrap();
        let (key, value) = ("secret", &b"secret"[..]);
        let list = Storage::List { prefix: key, after: key, n_max: 7 };
        for (draft, n, want) in [
            (statements, 2, "INSERT INTO t VALUES (?); SELECT ?"),
            (storage(&Storage::Put { key, ttl_ms: 0, value }), 1, "storage put"),
            (storage(&Storage::Delete { key }), 1, "storage delete"),
            (storage(&Storage::Get { key }), 1, "storage get"),
            (storage(&Storage::Exists { key }), 1, "storage exists"),
            (storage(&list), 1, "storage list"),
        ] {
            let bytes = command(draft);
            assert_eq!(shape_of(&Command::decode(&bytes).unwrap()), (n, want.to_owned()));
        }
    }

    #[test]
    fn what_is_not_told_of_takes_nobodys_line() {
        let mut log = SlowLog::default();
        let id = DatabaseId { partition: PartitionId(1), incarnation: Incarnation(7) };
        let mut tell = |draft| {
            let slow =
                Slow { command: command(draft), took: Duration::from_secs(1), rows: Some(1) };
            log.tell(Instant::START, &Catalog::default(), id, Side::Core, &slow);
            (log.n_lines, log.n_left_out)
        };
        for _ in 0..25 {
            assert_eq!(tell(Draft::vacuum(7)), (0, 0));
        }
        let told: Vec<_> = (0..12).map(|_| tell(storage(&Storage::Get { key: "k" }))).collect();
        assert_eq!(told[..2], [(1, 0), (2, 0)]);
        assert_eq!(told[9..], [(10, 0), (10, 1), (10, 2)]);
        assert_eq!(tell(Draft::vacuum(7)), (10, 2));
    }

    #[test]
    fn lines_are_bounded_and_what_is_left_out_is_counted() {
        let mut log = SlowLog::default();
        let at = |ms| Instant::START.after(Duration::from_millis(ms));
        let told = (0..25).filter(|_| log.admit(at(5)).is_some()).count();
        assert_eq!(told, 10);
        assert_eq!(log.admit(at(1_004)), None);
        assert_eq!(log.admit(at(1_005)), Some(16));
        assert_eq!(log.admit(at(1_006)), Some(0));
    }
}
