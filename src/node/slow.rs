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
        let Some(left_out) = self.admit(now) else { return };
        let Some((n_statements, shape)) = shape_of(slow) else { return };
        let row = catalog
            .rows()
            .find(|it| (it.partition, it.incarnation) == (id.partition, id.incarnation));
        let namespace = match row {
            Some(row) => row.namespace.as_str(),
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

/// How many statements a command has, and the shapes of the first of them.
fn shape_of(slow: &Slow) -> Option<(u32, String)> {
    let command = Command::decode(&slow.command).ok()?;
    if command.kind != Kind::Execute {
        return None;
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
    Some((command.n_statements, shapes))
}

#[cfg(test)]
mod tests {
    use super::*;

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
