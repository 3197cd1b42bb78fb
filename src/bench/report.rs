//! The result as values, which is also the JSON: units are in the names.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::bench::disk::DiskTimes;
use crate::bench::tally::Tally;
use crate::bench::verify::Verification;
use crate::bench::worker::SLICE;
use crate::bench::workload::Group;

/// Points of the curve of latencies: quantiles that are told beside the usual ones.
const QUANTILES: [f64; 16] = [
    0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999,
    0.99999,
];

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked.
    pub scenario: &'static str,
    /// In the words of which API.
    pub api: &'static str,
    /// Whom.
    pub url: String,
    /// Threads of the generator.
    pub threads: usize,
    /// How long each phase ran before it was measured.
    pub warmup_seconds: f64,
    /// Somebody ended the load early.
    pub is_interrupted: bool,
    /// The measurements, one after the other.
    pub phases: Vec<PhaseReport>,
    /// The disk, if it was measured.
    pub disk: Option<DiskReport>,
    /// Whether all that was acknowledged is there, if rows were written and could be looked at.
    pub verification: Option<Verification>,
    /// Why they could not be looked at.
    pub verification_error: Option<String>,
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// What it is called.
    pub name: &'static str,
    /// How long it was measured.
    pub seconds: f64,
    /// What the server cost, if it runs on this machine.
    pub server: Option<CpuReport>,
    /// What this program cost.
    pub client: Option<CpuReport>,
    /// Who asked.
    pub groups: Vec<GroupReport>,
}

/// Processor time of a process, user and system.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CpuReport {
    /// The process.
    pub pid: u32,
    /// Processor time of the phase.
    pub cpu_seconds: f64,
    /// The same for each request of all clients.
    pub cpu_us_per_operation: f64,
    /// The same for each row of them.
    pub cpu_us_per_row: Option<f64>,
}

/// What one group of clients saw.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// What it is called.
    pub name: &'static str,
    /// Its clients.
    pub clients: usize,
    /// Requests a second that it was to send; nothing if each client waited for its reply only.
    pub rate_per_second: Option<f64>,
    /// Requests done.
    pub operations: u64,
    /// The same per second.
    pub operations_per_second: f64,
    /// Rows of each request.
    pub rows_per_operation: u64,
    /// Rows per second.
    pub rows_per_second: f64,
    /// From when a request should have been sent to its whole reply; replies of success only.
    pub latency_us: LatencyReport,
    /// What failed: how often, by status and code.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of requests, heads included.
    pub bytes_sent: u64,
    /// Bytes of replies, heads included.
    pub bytes_received: u64,
    /// Length of a step of `operations_per_second_over_time`.
    pub step_seconds: f64,
    /// Throughput in each step.
    pub operations_per_second_over_time: Vec<f64>,
}

/// Latencies in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyReport {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// Nine of ten took less.
    pub p90: f64,
    /// 99 of 100 took less.
    pub p99: f64,
    /// 999 of 1000 took less.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
    /// Quantile and latency, for a curve.
    pub curve: Vec<(f64, f64)>,
}

/// The bare disk before and after the load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DiskReport {
    /// Before.
    pub before: DiskTimes,
    /// After.
    pub after: DiskTimes,
    /// The same, through an executor, as a node writes its log.
    pub through_node_before: DiskTimes,
    /// After the load.
    pub through_node_after: DiskTimes,
    /// The median latency of the first group in the first phase, if it is one of writes, in medians of the disk: of the
    /// shorter one, since others may have used it meanwhile.
    pub p50_ratio: Option<f64>,
    /// The same in medians of the disk through an executor.
    pub p50_ratio_through_node: Option<f64>,
}

impl Report {
    /// Requests that were done.
    pub fn n_done(&self) -> u64 {
        self.phases.iter().map(PhaseReport::n_done).sum()
    }

    /// Rows that were acknowledged and are gone.
    pub fn n_lost(&self) -> u64 {
        self.verification.as_ref().map_or(0, |it| it.rows_lost)
    }
}

impl PhaseReport {
    pub(super) fn n_done(&self) -> u64 {
        self.groups.iter().map(|it| it.operations).sum()
    }
}

impl GroupReport {
    pub(super) fn new(group: &Group, rows: u64, tally: &Tally, seconds: f64) -> Self {
        let step_seconds = SLICE.as_secs_f64();
        let per_second =
            |n: u64, seconds: f64| if seconds > 0.0 { float(n) / seconds } else { 0.0 };
        // The last step may have been cut short.
        let n_steps = tally.per_slice.len();
        let length = |nth: usize| (seconds - float(nth as u64) * step_seconds).min(step_seconds);
        let over_time = (0..n_steps).filter(|nth| length(*nth) > 0.1 * step_seconds);
        Self {
            name: group.name,
            clients: group.n_clients,
            rate_per_second: group.rate,
            operations: tally.n_done,
            operations_per_second: per_second(tally.n_done, seconds),
            rows_per_operation: rows,
            rows_per_second: per_second(tally.n_done * rows, seconds),
            latency_us: LatencyReport::new(&tally.latency),
            errors: tally.errors.clone(),
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            step_seconds,
            operations_per_second_over_time: over_time
                .map(|nth| per_second(tally.per_slice[nth], length(nth)))
                .collect(),
        }
    }
}

impl LatencyReport {
    fn new(nanos: &Histogram<u64>) -> Self {
        let at = |q| micros(nanos.value_at_quantile(q));
        // Beyond one request in all the curve says nothing.
        let n = float(nanos.len());
        let curve = QUANTILES.iter().filter(|q| (1.0 - *q) * n >= 1.0).map(|q| (*q, at(*q)));
        Self {
            mean: micros_of(nanos.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: micros(nanos.max()),
            curve: curve.collect(),
        }
    }
}

impl CpuReport {
    /// Processor time that was spent on `n` requests.
    pub(super) fn new(pid: u32, cpu: Duration, n: u64, rows: u64) -> Self {
        let per = |n: u64| if n == 0 { 0.0 } else { micros_of(cpu.as_secs_f64() * 1e9 / float(n)) };
        Self {
            pid,
            cpu_seconds: cpu.as_secs_f64(),
            cpu_us_per_operation: per(n),
            cpu_us_per_row: (rows > 1).then(|| per(n * rows)),
        }
    }
}

/// Nanoseconds in microseconds, to a tenth.
pub(super) fn micros(nanos: u64) -> f64 {
    micros_of(float(nanos))
}

fn micros_of(nanos: f64) -> f64 {
    (nanos / 100.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "a report needs no more than 15 digits")]
fn float(n: u64) -> f64 {
    n as f64
}

/// A report for the tests of what shows one.
#[cfg(test)]
pub(super) mod testing {
    use std::time::Duration;

    use crate::bench::clock;
    use crate::bench::report::CpuReport;
    use crate::bench::report::GroupReport;
    use crate::bench::report::PhaseReport;
    use crate::bench::report::Report;
    use crate::bench::scenario::Scenario;
    use crate::bench::tally::Tally;
    use crate::bench::tally::Window;
    use crate::bench::verify::Lost;
    use crate::bench::verify::Verification;
    use crate::bench::worker::SLICE;

    /// A noisy neighbour, for a second each time: the `n`th of 1000 requests took `n` microseconds.
    pub(crate) fn report(url: &str) -> Report {
        let scenario = Scenario::Noisy { reads: 0.0, n_neighbours: 8 };
        let from = clock::now();
        let window = Window { from, until: from + Duration::from_millis(900) };
        let mut tally = Tally::new(window, SLICE);
        for n in 1..=1_000_u32 {
            let intended = from + n * Duration::from_micros(800);
            tally.on_done(intended, intended + n * Duration::from_micros(1));
        }
        tally.on_error("503 overloaded", from);
        tally.on_bytes(250_000, 450_000, from);
        let phases = scenario.phases(2, Some(1250.0), 2).into_iter().map(|phase| PhaseReport {
            name: phase.name,
            seconds: 0.9,
            server: Some(CpuReport::new(7, Duration::from_millis(40), 1_000, 1)),
            client: None,
            groups: phase.groups.iter().map(|it| GroupReport::new(it, 1, &tally, 0.9)).collect(),
        });
        Report {
            scenario: scenario.name(),
            api: "debros",
            url: url.to_owned(),
            threads: 1,
            warmup_seconds: 0.5,
            is_interrupted: false,
            phases: phases.collect(),
            disk: None,
            verification: Some(Verification {
                rows_acknowledged: 2_000,
                rows_found: 1_999,
                rows_unacknowledged_found: 1,
                rows_lost: 2,
                lost: vec![Lost { key: 0, id: 17 }, Lost { key: 1, id: 40 }],
            }),
            verification_error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_per_request_and_per_second() {
        let report = testing::report("http://h:1");
        let phase = &report.phases[0];
        let group = &phase.groups[0];
        assert_eq!(group.operations, 1_000);
        assert!((group.operations_per_second - 1_111.1).abs() < 0.1, "{group:?}");
        let it = &group.latency_us;
        for (got, want) in [(it.p50, 500.0), (it.p90, 900.0), (it.p99, 990.0), (it.max, 1_000.0)] {
            assert!((got - want).abs() <= 1.0, "{it:?}");
        }
        assert!(it.curve.iter().all(|(q, _)| *q <= 0.999), "{it:?}");
        let rates = &group.operations_per_second_over_time;
        assert_eq!(rates.len(), 5, "four whole steps and a half");
        assert!(
            rates.iter().skip(1).take(3).all(|it| (1_245.0..=1_255.0).contains(it)),
            "{rates:?}"
        );
        let server = phase.server.unwrap();
        assert!((server.cpu_us_per_operation - 40.0).abs() < 0.01, "{server:?}");
        assert_eq!(server.cpu_us_per_row, None);
        assert_eq!((report.n_lost(), report.n_done()), (2, 3_000));
    }
}
