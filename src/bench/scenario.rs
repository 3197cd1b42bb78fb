//! What can be measured: scenarios, and the phases and groups of clients that they are.

use crate::bench::workload::Group;
use crate::bench::workload::Mix;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scenario {
    /// One row per request.
    Insert,
    /// One row per request, by key.
    Read,
    /// Both.
    Mixed {
        /// The part that are reads, from 0 to 1.
        reads: f64,
    },
    /// Many rows per request, all or none.
    Transaction {
        /// How many.
        rows: u64,
    },
    /// One row per request, in one of many namespaces.
    Namespaces {
        /// The part that are reads, from 0 to 1.
        reads: f64,
        /// Exponent of Zipf's law; 0 uses all alike.
        zipf: f64,
    },
    /// One row per request, alone and then beside a neighbour who asks as fast as it can.
    Noisy {
        /// The part that are reads, from 0 to 1; of both.
        reads: f64,
        /// Clients of the neighbour.
        n_neighbours: usize,
    },
    /// A plain GET of the URL: what HTTP alone costs.
    Get,
}

/// A part of a scenario, which is measured by itself.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    /// What the report calls it.
    pub name: &'static str,
    /// Who asks.
    pub groups: Vec<Group>,
}

impl Scenario {
    /// The word that people type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Read => "read",
            Self::Mixed { .. } => "mixed",
            Self::Transaction { .. } => "transaction",
            Self::Namespaces { .. } => "namespaces",
            Self::Noisy { .. } => "noisy",
            Self::Get => "get",
        }
    }

    /// Namespaces that it needs at least.
    pub fn n_namespaces_min(self) -> usize {
        match self {
            Self::Noisy { .. } | Self::Namespaces { .. } => 2,
            _ => 1,
        }
    }

    /// Rows that one request writes or reads.
    pub(super) fn rows_per_operation(self) -> u64 {
        match self {
            Self::Transaction { rows } => rows,
            Self::Get => 0,
            _ => 1,
        }
    }

    /// Whether rows must be there before.
    pub(super) fn reads(self) -> bool {
        matches!(self.mix(), Mix::Rows { reads } if reads > 0.0)
    }

    /// Whether it writes more than it reads, so that its median is that of a write.
    pub(super) fn writes(self) -> bool {
        match self.mix() {
            Mix::Rows { reads } => reads < 0.5,
            Mix::Transactions { .. } => true,
            Mix::Get => false,
        }
    }

    fn mix(self) -> Mix {
        match self {
            Self::Insert => Mix::Rows { reads: 0.0 },
            Self::Read => Mix::Rows { reads: 1.0 },
            Self::Mixed { reads } | Self::Namespaces { reads, .. } | Self::Noisy { reads, .. } => {
                Mix::Rows { reads }
            }
            Self::Transaction { rows } => Mix::Transactions { rows },
            Self::Get => Mix::Get,
        }
    }

    /// Who asks what, one after the other.
    pub(super) fn phases(
        self,
        n_clients: usize,
        rate: Option<f64>,
        n_namespaces: usize,
    ) -> Vec<Phase> {
        let mix = self.mix();
        let group = Group { name: self.name(), mix, n_clients, rate, tenants: 0..1, zipf: 0.0 };
        match self {
            Self::Namespaces { zipf, .. } => {
                let groups = vec![Group { tenants: 0..n_namespaces, zipf, ..group }];
                vec![Phase { name: self.name(), groups }]
            }
            Self::Noisy { n_neighbours, .. } => {
                let measured = Group { name: "measured", ..group.clone() };
                let neighbour = Group {
                    name: "neighbour",
                    n_clients: n_neighbours,
                    rate: None,
                    tenants: 1..2,
                    ..group
                };
                vec![
                    Phase { name: "alone", groups: vec![measured.clone()] },
                    Phase { name: "beside a neighbour", groups: vec![measured, neighbour] },
                ]
            }
            _ => vec![Phase { name: self.name(), groups: vec![group] }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noisy_neighbour_comes_second_and_keeps_no_rate() {
        let noisy = Scenario::Noisy { reads: 0.0, n_neighbours: 9 };
        let phases = noisy.phases(4, Some(100.0), 2);
        let shape: Vec<Vec<_>> = phases
            .iter()
            .map(|it| {
                it.groups.iter().map(|it| (it.n_clients, it.rate, it.tenants.clone())).collect()
            })
            .collect();
        let measured = (4, Some(100.0), 0..1);
        assert_eq!(shape, [vec![measured.clone()], vec![measured, (9, None, 1..2)]]);
    }

    #[test]
    fn only_what_reads_needs_rows_before() {
        for (scenario, want) in [
            (Scenario::Insert, false),
            (Scenario::Read, true),
            (Scenario::Mixed { reads: 0.5 }, true),
            (Scenario::Mixed { reads: 0.0 }, false),
            (Scenario::Transaction { rows: 5 }, false),
            (Scenario::Get, false),
        ] {
            assert_eq!(scenario.reads(), want, "{scenario:?}");
        }
    }
}
