//! Which namespaces there are, and which partition hosts each: rules over the system partition.
//!
//! The truth is a table in the system partition's engine database; every statement here returns the rows
//! it changed, and whoever applies it folds those rows into a [`Catalog`] in memory. A gateway's cache is
//! the same type, fed by the same rows.
//!
//! Life of a row (R30): `creating` (its log index is the incarnation) → the hosting partition creates the
//! database → `live`.

use std::collections::BTreeMap;

use crate::types::DatabaseId;
use crate::types::Incarnation;
use crate::types::Namespace;
use crate::types::PartitionId;
use crate::wire::command::Mode;
use crate::wire::command::Results;
use crate::wire::command::Value;
use crate::wire::command::draft::Draft;
use crate::wire::rows::StatementResult;

/// Tables of every partition's engine database.
pub const ENGINE_SCHEMA: &str = "\
CREATE TABLE incarnations (incarnation INTEGER PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL) STRICT;
CREATE TABLE namespaces (name TEXT PRIMARY KEY, incarnation INTEGER NOT NULL UNIQUE, \
partition INTEGER NOT NULL, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;";

/// Every row, for a node that starts.
pub const SELECT_NAMESPACES: &str =
    "SELECT name, incarnation, partition, state FROM namespaces ORDER BY name";
/// Every incarnation that the partition has or had, for a node that starts.
pub const SELECT_INCARNATIONS: &str =
    "SELECT incarnation, name, state FROM incarnations ORDER BY incarnation";

/// How far a namespace has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its database is not known to exist yet.
    Creating,
    /// It can be used.
    Live,
}

/// What the catalog knows of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub namespace: Namespace,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Who hosts its database.
    pub partition: PartitionId,
    /// How far it has come.
    pub state: State,
}

impl Row {
    /// Which database it has.
    pub fn database(&self) -> DatabaseId {
        DatabaseId { partition: self.partition, incarnation: self.incarnation }
    }
}

/// All namespaces.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    rows: BTreeMap<Namespace, Row>,
    /// Whose each database is.
    names: BTreeMap<DatabaseId, Namespace>,
}

impl Catalog {
    /// The row of a namespace.
    pub fn get(&self, namespace: &Namespace) -> Option<&Row> {
        self.rows.get(namespace)
    }

    /// Whose a database is, in its present life.
    pub fn name_of(&self, database: DatabaseId) -> Option<&Namespace> {
        self.names.get(&database)
    }

    /// Number of namespaces.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows, by name.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Take over what the system partition says. An older life never replaces a newer one.
    pub fn fold(&mut self, row: Row) {
        let is_stale = self.rows.get(&row.namespace).is_some_and(|known| {
            known.incarnation > row.incarnation
                || (known.incarnation == row.incarnation && known.state == State::Live)
        });
        if !is_stale {
            if let Some(before) = self.rows.get(&row.namespace) {
                self.names.remove(&before.database());
            }
            self.names.insert(row.database(), row.namespace.clone());
            self.rows.insert(row.namespace.clone(), row);
        }
    }
}

/// Record a namespace, unless it is there. `incarnation` is the log index this command will have.
pub fn create(namespace: &Namespace, incarnation: Incarnation, partition: PartitionId) -> Draft {
    let values = [
        Value::Text(namespace.as_str()),
        Value::Integer(integer(incarnation)),
        Value::Integer(i64::from(partition.0)),
    ];
    statement(
        "INSERT INTO namespaces (name, incarnation, partition, state) \
         VALUES (?1, ?2, ?3, 'creating') ON CONFLICT DO NOTHING \
         RETURNING name, incarnation, partition, state",
        &values,
    )
}

/// Record that the database of this life exists.
pub fn make_live(namespace: &Namespace, incarnation: Incarnation) -> Draft {
    let values = [Value::Text(namespace.as_str()), Value::Integer(integer(incarnation))];
    statement(
        "UPDATE namespaces SET state = 'live' WHERE name = ?1 AND incarnation = ?2 \
         RETURNING name, incarnation, partition, state",
        &values,
    )
}

/// Record in the hosting partition's engine database that it has this life of a namespace.
pub fn register(incarnation: Incarnation, name: &str) -> Draft {
    let values = [Value::Integer(integer(incarnation)), Value::Text(name)];
    statement(
        "INSERT INTO incarnations (incarnation, name, state) VALUES (?1, ?2, 'live') \
         ON CONFLICT DO NOTHING",
        &values,
    )
}

/// A read of the engine's tables.
pub fn select(sql: &str) -> Draft {
    let mut draft = Draft::new(Results::Last, sql.len());
    draft.statement(Mode::Query, sql).expect("engine statements are short");
    draft
}

fn statement(sql: &str, values: &[Value<'_>]) -> Draft {
    let mut draft = Draft::new(Results::Last, sql.len() + 128);
    draft.statement(Mode::Exec, sql).expect("engine statements are short");
    for value in values {
        draft.bind(*value).expect("engine statements have few arguments");
    }
    draft
}

fn integer(incarnation: Incarnation) -> i64 {
    i64::try_from(incarnation.0).expect("log indexes stay below 2^63")
}

/// The namespace rows among what a catalog command returned.
pub fn rows_of(results: &[StatementResult]) -> Vec<Row> {
    let mut found = Vec::new();
    for result in results {
        let (StatementResult::Rows(rows) | StatementResult::Counts { returned: Some(rows), .. }) =
            result
        else {
            continue;
        };
        let values: Vec<Value<'_>> = rows.values().collect();
        found.extend(values.chunks(4).filter_map(row_of));
    }
    found
}

fn row_of(values: &[Value<'_>]) -> Option<Row> {
    let [
        Value::Text(name),
        Value::Integer(incarnation),
        Value::Integer(partition),
        Value::Text(state),
    ] = values
    else {
        return None;
    };
    Some(Row {
        namespace: Namespace::new(name).ok()?,
        incarnation: Incarnation(u64::try_from(*incarnation).ok()?),
        partition: PartitionId(u16::try_from(*partition).ok()?),
        state: if *state == "live" { State::Live } else { State::Creating },
    })
}

/// The incarnations among what [`SELECT_INCARNATIONS`] returned: all the partition has or had.
pub fn incarnations_of(results: &[StatementResult]) -> Vec<Incarnation> {
    let mut found = Vec::new();
    for result in results {
        if let StatementResult::Rows(rows) = result {
            let values: Vec<Value<'_>> = rows.values().collect();
            found.extend(values.chunks(3).filter_map(|it| match it {
                [Value::Integer(it), ..] => u64::try_from(*it).ok().map(Incarnation),
                _ => None,
            }));
        }
    }
    found
}

/// The names of the incarnations among what [`SELECT_INCARNATIONS`] returned.
pub fn names_of(results: &[StatementResult]) -> Vec<(Incarnation, String)> {
    let mut found = Vec::new();
    for result in results {
        if let StatementResult::Rows(rows) = result {
            let values: Vec<Value<'_>> = rows.values().collect();
            found.extend(values.chunks(3).filter_map(|it| match it {
                [Value::Integer(it), Value::Text(name), ..] => {
                    Some((Incarnation(u64::try_from(*it).ok()?), (*name).to_owned()))
                }
                _ => None,
            }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_life_never_replaces_a_newer_one() {
        let row = |incarnation, state| Row {
            namespace: Namespace::new("n").unwrap(),
            incarnation: Incarnation(incarnation),
            partition: PartitionId(1),
            state,
        };
        let mut catalog = Catalog::default();
        for (incarnation, state, want) in [
            (5, State::Creating, (5, State::Creating)),
            (5, State::Live, (5, State::Live)),
            (5, State::Creating, (5, State::Live)),
            (4, State::Live, (5, State::Live)),
            (9, State::Creating, (9, State::Creating)),
        ] {
            catalog.fold(row(incarnation, state));
            let got = catalog.get(&Namespace::new("n").unwrap()).unwrap();
            assert_eq!((got.incarnation.0, got.state), want);
            let id = |n| DatabaseId { partition: PartitionId(1), incarnation: Incarnation(n) };
            let named: Vec<_> = (0..12).filter(|it| catalog.name_of(id(*it)).is_some()).collect();
            assert_eq!(named, [want.0], "one life has the name");
        }
    }
}
