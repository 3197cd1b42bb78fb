//! Afterwards: is every acknowledged row there?
//!
//! Ids are looked at range by range: how many rows, and the sum of their ids. Where all that was sent was
//! acknowledged, the two say whether all is there; where they differ, or where something was sent and not
//! acknowledged, the ids themselves are read. A row that was not acknowledged may be there or not.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::Serialize;

use crate::bench::BenchError;
use crate::bench::ledger::Ledger;
use crate::bench::session::Session;
use crate::bench::target::Tenant;

/// Ids that are looked at at once.
const RANGE: u64 = 20_000;
/// Lost rows that are named.
const NAMED_MAX: usize = 20;

/// What is there of what was acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Rows that the server said it has.
    pub rows_acknowledged: u64,
    /// Rows that are there.
    pub rows_found: u64,
    /// Rows that are there without having been acknowledged: their replies were lost.
    pub rows_unacknowledged_found: u64,
    /// Rows that were acknowledged and are not there.
    pub rows_lost: u64,
    /// The first of them.
    pub lost: Vec<Lost>,
}

/// A row that was acknowledged and is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Which of the keys it was written with, from 0 on.
    pub key: usize,
    /// Its id in the table.
    pub id: u64,
}

impl Verification {
    /// Look at one namespace, the `key`th.
    pub(super) fn look(
        &mut self,
        session: &mut Session<'_>,
        tenant: &Tenant,
        key: usize,
        table: &str,
        ledgers: &[&Ledger],
    ) -> Result<(), BenchError> {
        let end = ledgers.iter().map(|it| it.end()).max().unwrap_or(1);
        let mut from = 1;
        while from < end {
            let ids = from..(from + RANGE).min(end);
            from = ids.end;
            let expected = Expected::new(ledgers, ids.clone());
            let within = format!("FROM {table} WHERE id >= {} AND id < {}", ids.start, ids.end);
            let sql = format!("SELECT count(*), sum(id) {within}");
            let sums = session.integers(tenant, &sql)?;
            let is_all = sums == [[expected.n_acknowledged, expected.sum]];
            if is_all && expected.unknown.is_empty() {
                self.rows_acknowledged += expected.n_acknowledged;
                self.rows_found += expected.n_acknowledged;
                continue;
            }
            let found = session.integers(tenant, &format!("SELECT id {within}"))?;
            let found: BTreeSet<u64> = found.into_iter().flatten().collect();
            self.compare(key, ids, &found, ledgers);
        }
        Ok(())
    }

    fn compare(&mut self, key: usize, ids: Range<u64>, found: &BTreeSet<u64>, ledgers: &[&Ledger]) {
        self.rows_found += found.len() as u64;
        for (id, is_acknowledged) in ledgers.iter().flat_map(|it| it.within(ids.clone())) {
            match (is_acknowledged, found.contains(&id)) {
                (true, true) => self.rows_acknowledged += 1,
                (true, false) => {
                    self.rows_acknowledged += 1;
                    self.rows_lost += 1;
                    if self.lost.len() < NAMED_MAX {
                        self.lost.push(Lost { key, id });
                    }
                }
                (false, true) => self.rows_unacknowledged_found += 1,
                (false, false) => {}
            }
        }
    }
}

/// What should be in a range of ids.
struct Expected {
    n_acknowledged: u64,
    sum: u64,
    /// Sent, and not acknowledged.
    unknown: Vec<u64>,
}

impl Expected {
    fn new(ledgers: &[&Ledger], ids: Range<u64>) -> Self {
        let mut expected = Self { n_acknowledged: 0, sum: 0, unknown: Vec::new() };
        for (id, is_acknowledged) in ledgers.iter().flat_map(|it| it.within(ids.clone())) {
            if is_acknowledged {
                expected.n_acknowledged += 1;
                expected.sum += id;
            } else {
                expected.unknown.push(id);
            }
        }
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_row_that_is_missing_is_named_and_another_one_is_not() {
        let mut one = Ledger::new(1, 2);
        let mut two = Ledger::new(2, 2);
        one.give(4);
        two.give(4);
        // Ids 1 3 5 7 and 2 4 6 8; 7 and 8 are not acknowledged.
        one.acknowledge(0..3);
        two.acknowledge(0..3);
        let found = BTreeSet::from([1, 2, 4, 5, 6, 8]);
        let mut verification = Verification::default();
        verification.compare(9, 1..100, &found, &[&one, &two]);
        let want = Verification {
            rows_acknowledged: 6,
            rows_found: 6,
            rows_unacknowledged_found: 1,
            rows_lost: 1,
            lost: vec![Lost { key: 9, id: 3 }],
        };
        assert_eq!(verification, want);
        let expected = Expected::new(&[&one, &two], 2..8);
        assert_eq!((expected.n_acknowledged, expected.sum), (5, 2 + 3 + 4 + 5 + 6));
        assert_eq!(expected.unknown, [7]);
    }
}
