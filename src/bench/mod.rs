//! `debros bench`: load a server, measure it, and see whether it kept what it acknowledged.
//!
//! A load is closed (each client waits for its reply, then asks again) or open (requests are due at a rate, and
//! a late one counts from when it was due). Latencies go into histograms of three digits. Beside them stand what
//! the server cost, if it runs on this machine, and what the bare disk takes for a durable write. Afterwards
//! every acknowledged row is looked for.
//!
//! The generator usually shares its processors with what it measures, so it is lean: one thread, one `epoll`,
//! requests put together by hand, replies looked at only as far as needed; no runtime, and no `io_uring`, which
//! a machine that only measures may lack. It names nothing of the server it measures; [`hello`] is a server itself,
//! the floor.
//!
//! Start reading at [`run`].

mod bodies;
mod clock;
mod connection;
mod disk;
pub mod hello;
mod http;
mod interrupt;
mod ledger;
mod pace;
mod plot;
mod poller;
mod process;
pub mod report;
pub mod scenario;
mod session;
mod tally;
pub mod target;
mod text;
mod verify;
mod worker;
mod workload;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::bench::bodies::Bodies;
use crate::bench::bodies::schema;
use crate::bench::disk::DiskTimes;
use crate::bench::interrupt::Interrupt;
use crate::bench::ledger::Ledger;
use crate::bench::process::Process;
use crate::bench::report::CpuReport;
use crate::bench::report::DiskReport;
use crate::bench::report::GroupReport;
use crate::bench::report::PhaseReport;
use crate::bench::report::Report;
use crate::bench::scenario::Phase;
use crate::bench::scenario::Scenario;
use crate::bench::session::Session;
use crate::bench::tally::Tally;
use crate::bench::tally::Window;
use crate::bench::target::Target;
use crate::bench::target::Tenant;
use crate::bench::verify::Verification;
use crate::bench::worker::Clients;
use crate::bench::worker::Load;
use crate::bench::worker::Times;

/// Rows of one request that fills a table.
const FILL_ROWS: u64 = 500;
/// How long the disk is measured in each of two ways, before and after.
const DISK_TIME: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The load.
    pub scenario: Scenario,
    /// The server.
    pub target: Target,
    /// Keys of the namespaces; none is a server that wants none.
    pub keys: Vec<String>,
    /// Clients, a connection each.
    pub n_clients: usize,
    /// Threads that they share.
    pub n_threads: usize,
    /// Requests a second of all clients; a closed loop without.
    pub rate: Option<f64>,
    /// How long it is measured.
    pub duration: Duration,
    /// How long it runs before.
    pub warmup: Duration,
    /// A table of this name instead of one that goes by a random name.
    pub table: Option<String>,
    /// Rows that are there before, if some are to be read.
    pub n_table_rows: u64,
    /// Leave the table where it is.
    pub keeps_table: bool,
    /// The server's process, if it is not to be looked for.
    pub pid: Option<u32>,
    /// Where the disk is measured, if it is.
    pub disk: Option<PathBuf>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Nobody listens, or nobody answers.
    #[error("cannot reach {url}: {source}")]
    Unreachable {
        /// Whom.
        url: String,
        /// Why not.
        source: io::Error,
    },
    /// The server answers, and does not do what is needed.
    #[error("the server refuses {what}: {reply}")]
    Refused {
        /// What it was asked.
        what: String,
        /// What it said.
        reply: String,
    },
    /// A table that was named has rows.
    #[error("table {0} has rows already")]
    NotEmpty(String),
    /// The generator itself failed.
    #[error("failed to {0}")]
    Own(&'static str, #[source] io::Error),
}

impl BenchError {
    fn unreachable(target: &Target, source: io::Error) -> Self {
        Self::Unreachable { url: target.url.clone(), source }
    }
}

/// Prepare, measure, check, tidy up.
pub fn run(plan: &Plan) -> Result<Report, BenchError> {
    let interrupt = Interrupt::keep_back();
    let table = match &plan.table {
        Some(name) => name.clone(),
        None => format!("bench_{:08x}", random()? & 0xffff_ffff),
    };
    let bodies = Bodies::new(plan.target.api.clone(), &table);
    let mut stage = Stage::new(plan, &table, &bodies);
    let writes = plan.scenario != Scenario::Get;
    if writes {
        stage.prepare()?;
    }
    let disk_before = measure_disk(plan)?;
    let is_interrupted = stage.play(&interrupt)?;
    drop(interrupt);
    let disk = measure_disk(plan)?;
    let median = stage.phases[0].groups[0].latency_us.p50;
    let disk = disk_before.zip(disk).map(|((before, node_before), (after, node_after))| {
        let ratio = |before: DiskTimes, after: DiskTimes| {
            plan.scenario.writes().then(|| median / before.p50_us.min(after.p50_us))
        };
        DiskReport {
            before,
            after,
            through_node_before: node_before,
            through_node_after: node_after,
            p50_ratio: ratio(before, after),
            p50_ratio_through_node: ratio(node_before, node_after),
        }
    });
    let checked = writes.then(|| stage.check()).transpose();
    let (verification, verification_error) = match checked {
        Ok(it) => (it, None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Report {
        scenario: plan.scenario.name(),
        api: plan.target.api.name(),
        url: plan.target.url.clone(),
        threads: plan.n_threads,
        warmup_seconds: plan.warmup.as_secs_f64(),
        is_interrupted,
        phases: stage.phases,
        disk,
        verification,
        verification_error,
    })
}

fn random() -> Result<u64, BenchError> {
    let wrong =
        |it: getrandom::Error| BenchError::Own("get randomness", io::Error::other(it.to_string()));
    getrandom::u64().map_err(wrong)
}

fn measure_disk(plan: &Plan) -> Result<Option<(DiskTimes, DiskTimes)>, BenchError> {
    let Some(folder) = &plan.disk else { return Ok(None) };
    let times = disk::measure(folder, DISK_TIME);
    times.map(Some).map_err(|error| BenchError::Own("write to the folder of --disk", error))
}

/// A benchmark under way.
struct Stage<'a> {
    plan: &'a Plan,
    table: &'a str,
    bodies: &'a Bodies,
    tenants: Vec<Tenant>,
    /// Rows that were there before the load, and which they are.
    n_rows: u64,
    filled: Vec<Ledger>,
    /// By thread and namespace.
    ledgers: Vec<Vec<Ledger>>,
    /// Namespaces whose table was made here.
    made: Vec<usize>,
    phases: Vec<PhaseReport>,
}

impl<'a> Stage<'a> {
    fn new(plan: &'a Plan, table: &'a str, bodies: &'a Bodies) -> Self {
        let mut tenants: Vec<_> = plan.keys.iter().map(|it| plan.target.tenant(Some(it))).collect();
        if tenants.is_empty() {
            tenants.push(plan.target.tenant(None));
        }
        let n_rows = if plan.scenario.reads() { plan.n_table_rows } else { 0 };
        let n_threads = plan.n_threads as u64;
        let of_thread = |nth| vec![Ledger::new(n_rows + 1 + nth, n_threads); tenants.len()];
        let ledgers = (0..n_threads).map(of_thread).collect();
        let filled = vec![Ledger::new(1, 1); tenants.len()];
        let (made, phases) = (Vec::new(), Vec::new());
        Self { plan, table, bodies, tenants, n_rows, filled, ledgers, made, phases }
    }

    /// See that each namespace has the table, and that there is something to be read.
    fn prepare(&mut self) -> Result<(), BenchError> {
        let mut session = Session::open(&self.plan.target, self.bodies)?;
        for (nth, tenant) in self.tenants.iter().enumerate() {
            let count = format!("SELECT count(*) FROM {}", self.table);
            // Only somebody's own table can be there already.
            let found = self.plan.table.as_ref().map(|_| session.integers(tenant, &count));
            match found {
                Some(Ok(count)) if count == [[0]] => {}
                Some(Ok(_)) => return Err(BenchError::NotEmpty(self.table.to_owned())),
                Some(Err(BenchError::Refused { .. })) | None => {
                    session.exec(tenant, &schema(self.table))?;
                    self.made.push(nth);
                }
                Some(Err(error)) => return Err(error),
            }
            let ledger = &mut self.filled[nth];
            while ledger.end() <= self.n_rows {
                let rows = ledger.give(FILL_ROWS.min(self.n_rows + 1 - ledger.end()));
                session.insert(tenant, rows.clone().map(|row| ledger.id(row)))?;
                ledger.acknowledge(rows);
            }
        }
        Ok(())
    }

    /// All phases; whether they were ended early.
    fn play(&mut self, interrupt: &Interrupt) -> Result<bool, BenchError> {
        let plan = self.plan;
        for phase in plan.scenario.phases(plan.n_clients, plan.rate, self.tenants.len()) {
            if self.measure(&phase, interrupt)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn measure(&mut self, phase: &Phase, interrupt: &Interrupt) -> Result<bool, BenchError> {
        let plan = self.plan;
        let stop = AtomicBool::new(false);
        let load = Load {
            target: &plan.target,
            tenants: &self.tenants,
            bodies: self.bodies,
            groups: &phase.groups,
            n_rows: self.n_rows,
            n_threads: plan.n_threads,
            seed: random()?,
            stop: &stop,
        };
        let of_threads = self.ledgers.iter_mut().enumerate();
        let threads = of_threads
            .map(|(nth, ledgers)| Clients::connect(&load, nth, ledgers))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| BenchError::unreachable(&plan.target, error))?;
        let server = match plan.pid {
            Some(pid) => Some(Process { pid }),
            None => Process::listening_on(plan.target.address),
        };
        let processes = [server, Some(Process::own())];
        let spent = || processes.map(|it| it.and_then(Process::cpu));
        let origin = clock::now();
        let from = origin + plan.warmup;
        let window = Window { from, until: from + plan.duration };
        let times = Times { origin, window };
        let mut until = window.until;
        let (mut before, mut after) = ([None; 2], [None; 2]);
        let tallies = thread::scope(|scope| {
            let threads: Vec<_> =
                threads.into_iter().map(|it| scope.spawn(move || it.run(times))).collect();
            let is_early = interrupt.comes_before(window.from);
            before = spent();
            if is_early || interrupt.comes_before(window.until) {
                until = clock::now();
                stop.store(true, Ordering::Relaxed);
            }
            after = spent();
            let seen = threads.into_iter().map(|it| it.join().expect("no thread panics"));
            seen.collect::<Result<Vec<_>, _>>()
        });
        let tallies = tallies.map_err(|error| BenchError::Own("wait for replies", error))?;
        let seconds = until.saturating_duration_since(window.from).as_secs_f64();
        let rows = plan.scenario.rows_per_operation();
        let groups: Vec<GroupReport> = (phase.groups.iter().enumerate())
            .map(|(at, group)| GroupReport::new(group, rows, &merged(&tallies, at), seconds))
            .collect();
        let n_done = groups.iter().map(|it| it.operations).sum();
        let cost = |nth: usize| -> Option<CpuReport> {
            let cpu = after[nth]?.checked_sub(before[nth]?)?;
            Some(CpuReport::new(processes[nth]?.pid, cpu, n_done, rows))
        };
        let (server, client) = (cost(0), cost(1));
        self.phases.push(PhaseReport { name: phase.name, seconds, server, client, groups });
        Ok(until < window.until)
    }

    /// Look for every acknowledged row, and drop the tables that were made here.
    fn check(&mut self) -> Result<Verification, BenchError> {
        let mut session = Session::open(&self.plan.target, self.bodies)?;
        let mut verification = Verification::default();
        for (nth, tenant) in self.tenants.iter().enumerate() {
            let mut ledgers = vec![&self.filled[nth]];
            ledgers.extend(self.ledgers.iter().map(|it| &it[nth]));
            verification.look(&mut session, tenant, nth, self.table, &ledgers)?;
        }
        if !self.plan.keeps_table && verification.rows_lost == 0 {
            for nth in &self.made {
                session.exec(&self.tenants[*nth], &format!("DROP TABLE {}", self.table))?;
            }
        }
        Ok(verification)
    }
}

fn merged(tallies: &[Vec<Tally>], group: usize) -> Tally {
    let mut sum = tallies[0][group].clone();
    tallies[1..].iter().for_each(|it| sum.merge(&it[group]));
    sum
}
