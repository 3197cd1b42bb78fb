//! What the views of a schema may take, in all: each is prepared after each change of the schema, and when a database
//! is opened.
//!
//! Each counts for what preparing it is seen to do, whether it works or is broken, that is, names what is not there.
//! What that is follows from the schema alone once the columns of those that work are at hand; so each is looked at
//! twice, and the second time counts. The sums have a bound, and are part of the state of a connection; one that is
//! beyond its bound, under an older program, may only shrink.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::sql::cache::PREPARING_MEMORY_MAX;
use crate::sql::fault::SqlError;
use crate::sql::preparing;
use crate::sql::preparing::Allowance;
use crate::sql::preparing::Effort;
use crate::sql::schema;
use crate::sql::schema::RANDOM_NAMES;
use crate::sql::schema::is_any_random;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;
use crate::wire::rows::Column;
use crate::wire::rows::StatementError;

/// Steps that all views that work may count for, and all broken ones: a tenth of a second, or two.
const WORKING_STEPS_MAX: u64 = 7_000_000;
const BROKEN_STEPS_MAX: u64 = 7_000_000;

/// How many times as much the first of two looks at all may count for: more than it can if the second is within the
/// bounds.
const FIRST_ROUND: u64 = 4;
/// What a look at one takes that is at once done: 15 µs.
const STEPS_PER_LOOK: u64 = 512;
/// What one counts for that needs more memory than there is.
const NEEDING_STEPS: u64 = 7_000_000;

const VIEWS: &str = "SELECT name FROM main.sqlite_master WHERE type = 'view'";
/// Its columns may be those of a SELECT, where SQLite makes up names.
const NEWEST_TABLE: &str = "
    SELECT name FROM pragma_table_xinfo((
        SELECT name FROM main.sqlite_master
        WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'
          AND rowid = (SELECT max(rowid) FROM main.sqlite_master)))";

/// What was found out about views. The same on each connection to the same schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Views {
    /// What reading from each that works counts for, in VM instructions.
    working: u64,
    /// What trying to read from each broken one counts for.
    broken: u64,
    /// Those that need more memory than there is to prepare them.
    needing: Arc<FxHashSet<String>>,
    /// Columns of the widest.
    pub(super) width: u64,
}

impl Views {
    /// What looking at each once counts for, in VM instructions.
    pub(super) fn steps(&self) -> u64 {
        self.working.saturating_add(self.broken)
    }
}

/// Look at every view, so that its columns are at hand. What they count for is found out where they are to be `counted`.
pub(super) fn load(handle: Handle, counted: bool) -> Result<Views, SqlError> {
    let names = schema::texts(handle, VIEWS, None)?;
    let mut views = Views::default();
    for _ in 0..=u32::from(counted) {
        views = Views::default();
        for view in &names {
            // Those of an older program may take more than they may now, and are at hand all the same.
            let looked = look_at(handle, view, u64::MAX)?;
            views.add(view, &looked);
        }
    }
    Ok(views)
}

/// Look at every view, and at the newest table if it `is_selected`, that is, was made by a SELECT. `Err`: they take
/// more than they may, and than they did `before`; or a column has a name that SQLite made up by chance. Those of a
/// view may change with any table.
pub(super) fn check(
    handle: Handle,
    is_selected: bool,
    before: &Views,
) -> Result<Result<Views, StatementError>, SqlError> {
    let made_up = || Ok(Err(StatementError::new(RANDOM_NAMES)));
    let refused = |message| Ok(Err(StatementError::coded("schema_views", message)));
    if is_selected {
        let names = schema::texts(handle, NEWEST_TABLE, None)?;
        if is_any_random(names.iter().map(String::as_str)) {
            return made_up();
        }
    }
    let working_max = before.working.max(WORKING_STEPS_MAX);
    let broken_max = before.broken.max(BROKEN_STEPS_MAX);
    let names = schema::texts(handle, VIEWS, None)?;
    // Round one: columns are found out that may be at hand elsewhere, which takes at most as much again.
    let first_max = working_max.saturating_add(broken_max).saturating_mul(FIRST_ROUND);
    let mut views = Views::default();
    for view in &names {
        let looked = look_at(handle, view, first_max - views.steps())?;
        views.add(view, &looked);
        if views.steps() > first_max {
            return refused(format!("preparing what reads view {view} takes too much"));
        }
    }
    // Round two counts.
    views = Views::default();
    for view in &names {
        // Whether it works is not known before.
        let steps = (working_max - views.working).max(broken_max - views.broken);
        let looked = look_at(handle, view, steps)?;
        let is_too_much = if looked.effort.needs_memory {
            !before.needing.contains(view)
        } else {
            looked.effort.is_out
        };
        views.add(view, &looked);
        if is_too_much || views.working > working_max {
            return refused(format!("preparing what reads view {view} takes too much"));
        }
        if views.broken > broken_max {
            return refused(format!(
                "view {view} and others of what is not there take too much: drop them first"
            ));
        }
        let columns = looked.columns.unwrap_or_default();
        if is_any_random(columns.iter().map(|it| it.name.as_str())) {
            return made_up();
        }
    }
    Ok(Ok(views))
}

impl Views {
    /// Count `view`.
    fn add(&mut self, view: &str, looked: &Looked) {
        if looked.effort.needs_memory {
            // How far it came depends on what the connection has at hand.
            self.broken = self.broken.saturating_add(NEEDING_STEPS);
            Arc::make_mut(&mut self.needing).insert(view.to_owned());
            return;
        }
        let steps = looked.effort.steps.saturating_add(STEPS_PER_LOOK);
        if let Some(columns) = &looked.columns {
            self.working = self.working.saturating_add(steps);
            let width = u64::try_from(columns.len()).unwrap_or(u64::MAX);
            self.width = self.width.max(width);
        } else {
            self.broken = self.broken.saturating_add(steps);
        }
    }
}

/// What a look at a view gave.
struct Looked {
    /// None: it is broken, or takes too much.
    columns: Option<Vec<Column>>,
    effort: Effort,
}

/// Prepare what reads `view`, which may take `steps`.
fn look_at(handle: Handle, view: &str, steps: u64) -> Result<Looked, SqlError> {
    let sql = format!("SELECT * FROM main.{}", schema::quoted(view));
    let allowance = Allowance { memory: PREPARING_MEMORY_MAX, steps };
    let (prepared, effort) = preparing::measured(&sql, allowance, || Prepared::new(handle, &sql));
    let columns = match prepared {
        Some(prepared) if !effort.needs_memory => {
            let prepared = schema::if_usable(prepared)?.and_then(|(prepared, _)| prepared);
            prepared.map(|it| it.columns())
        }
        _ => None,
    };
    Ok(Looked { columns, effort })
}

#[cfg(test)]
mod tests;
