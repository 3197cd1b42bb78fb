//! What clients ask next: which operation, in which namespace, on which row.

use std::ops::Range;

use crate::bench::bodies::Bodies;
use crate::bench::bodies::holds_row;
use crate::bench::http;
use crate::bench::http::Reply;
use crate::bench::ledger::Ledger;
use crate::bench::target::Tenant;
use crate::types::Dice;

/// What a group of clients does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mix {
    /// Reads by key, this part of all; the others are inserts of one row.
    Rows {
        /// From 0 to 1.
        reads: f64,
    },
    /// Transactions that insert so many rows.
    Transactions {
        /// Rows of each.
        rows: u64,
    },
    /// A plain GET of the URL.
    Get,
}

/// Clients that do the same.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// What the report calls it.
    pub name: &'static str,
    /// What it does.
    pub mix: Mix,
    /// Clients of it, over all threads.
    pub n_clients: usize,
    /// Requests a second of all of them; none if each waits for its reply only.
    pub rate: Option<f64>,
    /// Namespaces it uses.
    pub tenants: Range<usize>,
    /// The exponent by which some of them are used more than others; 0 is evenly.
    pub zipf: f64,
}

/// What a client waits to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// That these rows are there.
    Rows {
        /// The namespace.
        tenant: usize,
        /// The rows in its ledger.
        rows: Range<u64>,
    },
    /// This row.
    Read {
        /// Its id.
        id: u64,
    },
    /// Anything.
    Get,
}

impl Sent {
    /// Whether a reply of success is the right one.
    pub(super) fn is_answered_by(&self, reply: &Reply<'_>) -> bool {
        match self {
            Self::Read { id } => holds_row(reply, *id),
            Self::Rows { .. } | Self::Get => true,
        }
    }
}

/// One thread's choices for one group.
#[derive(Debug)]
pub(super) struct Workload<'a> {
    mix: Mix,
    tenants: &'a [Tenant],
    bodies: &'a Bodies,
    /// Where the group's namespaces begin, and how likely each one is or one before it.
    first_tenant: usize,
    likelihoods: Vec<f64>,
    /// Rows that can be read, from id 1 on.
    n_rows: u64,
    dice: Dice,
    body: Vec<u8>,
}

impl<'a> Workload<'a> {
    /// For `group`, with `n_rows` rows that are there already.
    pub(super) fn new(
        group: &Group,
        tenants: &'a [Tenant],
        bodies: &'a Bodies,
        n_rows: u64,
        seed: u64,
    ) -> Self {
        assert!(!group.tenants.is_empty(), "a group has a namespace");
        Self {
            mix: group.mix,
            tenants,
            bodies,
            first_tenant: group.tenants.start,
            likelihoods: zipf(group.tenants.len(), group.zipf),
            n_rows,
            dice: Dice::new(seed),
            body: Vec::new(),
        }
    }

    /// Write a client's next request to `out`. `ledgers` are those of all namespaces.
    pub(super) fn next(&mut self, client: u64, ledgers: &mut [Ledger], out: &mut Vec<u8>) -> Sent {
        let nth = self.pick_tenant();
        let tenants = self.tenants;
        let tenant = &tenants[nth];
        self.body.clear();
        let mix = self.mix;
        match mix {
            Mix::Get => {
                http::put_request(&tenant.get, &[], out);
                Sent::Get
            }
            Mix::Rows { reads } if reads > 0.0 && self.fraction() < reads => {
                let id = 1 + self.dice.below(self.n_rows);
                self.bodies.put_read(id, &mut self.body);
                http::put_request(&tenant.query, &self.body, out);
                Sent::Read { id }
            }
            Mix::Rows { .. } => {
                let rows = ledgers[nth].give(1);
                self.bodies.put_insert(ledgers[nth].id(rows.start), client, &mut self.body);
                http::put_request(&tenant.exec, &self.body, out);
                Sent::Rows { tenant: nth, rows }
            }
            Mix::Transactions { rows } => {
                let rows = ledgers[nth].give(rows);
                let ids = rows.clone().map(|row| ledgers[nth].id(row));
                self.bodies.put_transaction(ids, client, &mut self.body);
                http::put_request(&tenant.transaction, &self.body, out);
                Sent::Rows { tenant: nth, rows }
            }
        }
    }

    fn pick_tenant(&mut self) -> usize {
        if self.likelihoods.len() == 1 {
            return self.first_tenant;
        }
        let dice = self.fraction();
        let nth = self.likelihoods.partition_point(|it| *it <= dice);
        self.first_tenant + nth.min(self.likelihoods.len() - 1)
    }

    /// At least 0, less than 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn fraction(&mut self) -> f64 {
        (self.dice.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// For each of `n`, how likely it or one before it is, if the `k`th is used in proportion to `1 / k^exponent`.
#[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 namespaces")]
fn zipf(n: usize, exponent: f64) -> Vec<f64> {
    let weights = (1..=n).map(|k| (k as f64).powf(-exponent));
    let sum: f64 = weights.clone().sum();
    let sums = weights.scan(0.0, |before, it| {
        *before += it / sum;
        Some(*before)
    });
    sums.collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::bench::target::Api;
    use crate::bench::target::Target;

    const GROUP: Group = Group {
        name: "x",
        mix: Mix::Rows { reads: 0.9 },
        n_clients: 1,
        rate: None,
        tenants: 0..1,
        zipf: 1.0,
    };

    fn tenants(n: usize) -> Vec<Tenant> {
        let target = Target::parse("http://127.0.0.1:1", Api::Debros).unwrap();
        (0..n).map(|it| target.tenant(Some(&it.to_string()))).collect()
    }

    #[test]
    fn a_mix_has_as_many_reads_as_it_should_and_never_a_row_twice() {
        let tenants = tenants(1);
        let bodies = Bodies::new(Api::Debros, "t");
        let mut workload = Workload::new(&GROUP, &tenants, &bodies, 50, 7);
        let mut ledgers = [Ledger::new(51, 1)];
        let mut n_reads = 0;
        let mut next_row = 0;
        for _ in 0..10_000 {
            let mut out = Vec::new();
            match workload.next(3, &mut ledgers, &mut out) {
                Sent::Read { id } => {
                    assert!((1..=50).contains(&id));
                    n_reads += 1;
                }
                Sent::Rows { tenant: 0, rows } => {
                    assert_eq!(rows, next_row..next_row + 1);
                    next_row += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!((8_800..9_200).contains(&n_reads), "{n_reads} of 10 000");
    }

    #[test]
    fn a_transaction_is_one_request_with_all_its_rows() {
        let tenants = tenants(1);
        let bodies = Bodies::new(Api::Debros, "t");
        let group = Group { mix: Mix::Transactions { rows: 3 }, ..GROUP };
        let mut workload = Workload::new(&group, &tenants, &bodies, 0, 7);
        let mut ledgers = [Ledger::new(1, 2)];
        let mut out = Vec::new();
        let sent = workload.next(3, &mut ledgers, &mut out);
        assert_eq!(sent, Sent::Rows { tenant: 0, rows: 0..3 });
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /v1/rqlite/transaction HTTP/1.1\r\n"), "{text}");
        for id in [1, 3, 5] {
            assert!(text.contains(&format!("row {id} of client 3")), "{text}");
        }
    }

    #[test]
    fn the_first_of_many_namespaces_is_used_most() {
        let tenants = tenants(101);
        let bodies = Bodies::new(Api::Debros, "t");
        let group = Group { mix: Mix::Get, tenants: 1..101, ..GROUP };
        let mut workload = Workload::new(&group, &tenants, &bodies, 0, 7);
        let mut uses = [0_u32; 101];
        for _ in 0..50_000 {
            uses[workload.pick_tenant()] += 1;
        }
        // 1 / (1 + 1/2 + … + 1/100) of all, and half of that.
        assert_eq!(uses[0], 0);
        assert!((9_200..10_100).contains(&uses[1]), "{uses:?}");
        assert!((4_500..5_150).contains(&uses[2]), "{uses:?}");
        assert!(uses[100] > 0, "{uses:?}");
        let even = zipf(4, 0.0);
        assert!((even[1] - 0.5).abs() < 1e-9, "{even:?}");
    }

    #[test]
    fn a_read_that_brings_another_row_is_not_answered() {
        let body = Cow::Borrowed(&b"row 5 of client 3, short"[..]);
        let reply = Reply { status: 200, body, size: 0, closes: false };
        assert!(Sent::Read { id: 5 }.is_answered_by(&reply));
        assert!(!Sent::Read { id: 6 }.is_answered_by(&reply));
    }
}
