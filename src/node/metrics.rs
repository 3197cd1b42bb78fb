//! What the cores have counted, as a page for Prometheus.
//!
//! Every core's numbers stand by themselves, under the label `shard`; whoever watches adds them up. Labels come
//! from small closed sets: cores, routes, statuses, limits, and the namespaces that a core tells by name
//! ([`tenants`](crate::gateway::tenants)).

use std::time::Duration;

use crate::gateway::NodeInfo;
use crate::gateway::stats::Snapshot;
use crate::gateway::tenants::OTHER;
use crate::gateway::tenants::Usage;
use crate::http::Counters;
use crate::node::databases::counts::Present;
use crate::node::process::Process;
use crate::observe::histogram::Histogram;
use crate::observe::page::Kind;
use crate::observe::page::Page;
use crate::observe::page::Unit;
use crate::shard::Load;
use crate::shard::request::Status;
use crate::types::ShardId;

/// Bytes that a core's part of a page takes, about.
const SIZE_HINT: usize = 64 << 10;

/// What one core has counted.
#[derive(Debug)]
pub(super) struct CoreMetrics {
    pub(super) shard: ShardId,
    pub(super) core: CoreCounts,
    pub(super) http: Counters,
    pub(super) gateway: Snapshot,
    /// Requests of clients that another core was asked.
    pub(super) n_crossed: u64,
    /// Requests refused because whoever sent them had its share of what may be unanswered.
    pub(super) n_unfair: u64,
}

/// What one core's loop has counted.
#[derive(Debug)]
pub(super) struct CoreCounts {
    pub(super) status: Status,
    pub(super) load: Load,
    pub(super) databases: Present,
    pub(super) turn_us: Histogram,
    pub(super) turn_cpu_us: Histogram,
    pub(super) batch_records: Histogram,
    pub(super) write_us: Histogram,
    pub(super) written_bytes: u64,
    pub(super) log_live_bytes: u64,
    pub(super) log_disk_bytes: u64,
}

/// What is to be told of the node as a whole.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) info: &'a NodeInfo,
    pub(super) process: Process,
    /// What the disk of the databases has; none if it does not tell.
    pub(super) free_bytes: Option<u64>,
    pub(super) reserve_bytes: u64,
    /// Client connections that may be open.
    pub(super) connections_max: u64,
}

/// The page.
pub(super) fn page(cores: &[CoreMetrics], node: &Node<'_>) -> String {
    let mut page = Page::with_capacity(SIZE_HINT * (cores.len() + 1));
    whole(&mut page, node);
    let names = cores.iter().map(|it| it.shard.0.to_string()).collect();
    let mut cores = Cores { all: cores, names, page: &mut page };
    cores.loops();
    cores.log();
    cores.partitions();
    cores.databases();
    cores.connections();
    cores.requests();
    cores.shares();
    cores.tenants();
    page.into_text()
}

/// The node as a whole, and its process.
fn whole(page: &mut Page, node: &Node<'_>) {
    let NodeInfo { version, commit, started_at, .. } = node.info;
    page.family("build_info", Kind::Gauge, "Always 1; the labels say what runs.")
        .put(&[("version", version), ("commit", commit)], 1_u64);
    let started = Duration::from_millis(u64::try_from(started_at.0).unwrap_or(0));
    page.family("process_start_time_seconds", Kind::Gauge, "When the node started, since 1970.")
        .put_time(&[], started);
    // What the system does not tell has no series: zero would be a number like others.
    let mut cpu =
        page.family("process_cpu_seconds_total", Kind::Counter, "Processor time of all threads.");
    if let Some(time) = node.process.cpu {
        cpu.put_time(&[], time);
    }
    let gauges = [
        ("process_resident_memory_bytes", "Memory of the process.", node.process.resident_bytes),
        ("process_open_fds", "Open files, sockets among them.", node.process.open_files),
        ("disk_free_bytes", "Free on the disk of the databases.", node.free_bytes),
    ];
    for (name, help, value) in gauges {
        let mut family = page.family(name, Kind::Gauge, help);
        if let Some(value) = value {
            family.put(&[], value);
        }
    }
    page.family(
        "disk_reserve_bytes",
        Kind::Gauge,
        "What is to stay free: limits.disk_reserve_bytes.",
    )
    .put(&[], node.reserve_bytes);
    page.family("connections_max", Kind::Gauge, "Client connections that may be open.")
        .put(&[], node.connections_max);
}

/// A number of a namespace: its name, what it is, and where it comes from.
type Tenancy = (&'static str, &'static str, fn(&Usage) -> u64);

/// The cores, and where they are written to.
struct Cores<'a> {
    all: &'a [CoreMetrics],
    names: Vec<String>,
    page: &'a mut Page,
}

impl Cores<'_> {
    /// A number of each core.
    fn each(&mut self, name: &str, kind: Kind, help: &str, value: impl Fn(&CoreMetrics) -> u64) {
        let mut family = self.page.family(name, kind, help);
        for (core, shard) in self.all.iter().zip(&self.names) {
            family.put(&[("shard", shard)], value(core));
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Fn(&CoreMetrics) -> u64) {
        self.each(name, Kind::Counter, help, value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Fn(&CoreMetrics) -> u64) {
        self.each(name, Kind::Gauge, help, value);
    }

    /// A histogram of each core.
    fn histogram(
        &mut self,
        name: &str,
        unit: Unit,
        help: &str,
        of: impl Fn(&CoreMetrics) -> &Histogram,
    ) {
        let mut family = self.page.histograms(name, unit, help);
        for (core, shard) in self.all.iter().zip(&self.names) {
            family.put(&[("shard", shard)], of(core));
        }
    }

    fn loops(&mut self) {
        let help = "Time of a turn of a core's loop, which everybody on it waits for.";
        self.histogram("turn_seconds", Unit::Micros, help, |it| &it.core.turn_us);
        let help = "The same in processor time.";
        self.histogram("turn_cpu_seconds", Unit::Micros, help, |it| &it.core.turn_cpu_us);
    }

    fn log(&mut self) {
        let help = "Records of the log that shared a write and a sync.";
        self.histogram("log_batch_records", Unit::Count, help, |it| &it.core.batch_records);
        let help = "Time of a write of the log with its sync.";
        self.histogram("log_fsync_seconds", Unit::Micros, help, |it| &it.core.write_us);
        let help = "Bytes written to the log, padding included.";
        self.counter("log_written_bytes_total", help, |it| it.core.written_bytes);
        let help = "Bytes of log entries that are not compacted.";
        self.gauge("log_live_bytes", help, |it| it.core.log_live_bytes);
        let help = "Rounds of compaction, which limits.log_bytes makes due.";
        self.counter("compactions_total", help, |it| it.core.load.compactions);
        let help = "Fenced databases whose part of the log was let go: limits.fence_log_bytes.";
        self.counter("log_let_go_total", help, |it| it.core.load.let_go);
        let help = "Bytes of the log's files.";
        self.gauge("log_disk_bytes", help, |it| it.core.log_disk_bytes);
        let help = "Whether the log has no room for its next segment.";
        self.gauge("log_stuck", help, |it| u64::from(it.core.status.is_log_stuck));
    }

    fn partitions(&mut self) {
        let help = "Requests that write, and are not decided.";
        self.gauge("queue_requests", help, |it| it.core.load.waiting as u64);
        let help = "Bytes of the commands of those.";
        self.gauge("queue_bytes", help, |it| it.core.load.waiting_bytes as u64);
        let help = "Those of them that wait for their namespace's turn to be logged.";
        self.gauge("backlog_requests", help, |it| it.core.load.backlog as u64);
        let help = "Requests that wait for their partition to have a leader.";
        self.gauge("parked_requests", help, |it| it.core.load.parked as u64);
        let help = "Partitions with a replica here.";
        self.gauge("raft_partitions", help, |it| it.core.status.n_partitions.into());
        let help = "Partitions led from here.";
        self.gauge("raft_partitions_led", help, |it| it.core.status.n_leading.into());
        let help = "Changes of the terms of all partitions.";
        self.counter("raft_term_changes_total", help, |it| it.core.load.terms);
    }

    fn databases(&mut self) {
        let mut family = self.page.family(
            "applies_total",
            Kind::Counter,
            "Commands applied to databases, by where they ran.",
        );
        for (core, shard) in self.all.iter().zip(&self.names) {
            let counts = &core.core.databases.counts;
            family.put(&[("shard", shard), ("on", "core")], counts.applied_here);
            family.put(&[("shard", shard), ("on", "thread")], counts.applied_on_threads);
        }
        let mut family = self.page.family(
            "apply_seconds_total",
            Kind::Counter,
            "Time that applying took on the core; what was given up there is included.",
        );
        for (core, shard) in self.all.iter().zip(&self.names) {
            family.put_time(&[("shard", shard)], core.core.databases.counts.apply_time);
        }
        let help = "Batches of commands that were too long for the core, and went to a thread.";
        self.counter("batches_to_threads_total", help, |it| {
            it.core.databases.counts.batches_to_threads
        });
        let mut family = self.page.family(
            "reads_total",
            Kind::Counter,
            "Reads of databases, by where they ran; what was too long for the core went to a thread.",
        );
        for (core, shard) in self.all.iter().zip(&self.names) {
            let counts = &core.core.databases.counts;
            family.put(&[("shard", shard), ("on", "core")], counts.reads_here);
            family.put(&[("shard", shard), ("on", "thread")], counts.reads_to_threads);
        }
        let help = "Reads on threads now.";
        self.gauge("long_reads", help, |it| it.core.databases.long_reads as u64);
        let help = "Reads that wait for a thread.";
        self.gauge("long_reads_waiting", help, |it| it.core.databases.long_reads_waiting as u64);
        let help = "Databases whose commands are on a thread now, or wait for one.";
        self.gauge("long_batches", help, |it| it.core.databases.long_batches as u64);
        let help = "How often a command was given up on its thread, because others waited; it begins anew.";
        self.counter("long_batches_given_up_total", help, |it| {
            it.core.databases.long_batches_given_up
        });
        let help = "Files with large results that are being sent, or read.";
        self.gauge("spools", help, |it| it.core.databases.spools.files as u64);
        let help = "Bytes in those.";
        self.gauge("spooled_bytes", help, |it| it.core.databases.spools.bytes);
        let help = "Results that were too large for memory.";
        self.counter("spools_total", help, |it| it.core.databases.spools.opened);
        let help = "Databases open, being opened or being closed.";
        self.gauge("open_databases", help, |it| it.core.databases.n_open as u64);
        let help = "Databases closed because limits.open_databases were open.";
        self.counter("evictions_total", help, |it| it.core.load.evictions);
        let help = "Databases that are damaged, and serve nobody.";
        self.gauge("fenced_databases", help, |it| it.core.databases.n_fenced as u64);
        let help = "Bytes of all databases.";
        self.gauge("database_bytes", help, |it| it.core.databases.bytes);
        let help = "Checkpoints begun.";
        self.counter("checkpoints_total", help, |it| it.core.databases.counts.checkpoints);
        let help = "Databases whose write-ahead log could not begin anew, which is tried again.";
        self.gauge("checkpoints_overdue", help, |it| it.core.databases.checkpoints_overdue as u64);
        let help = "How often a write-ahead log came to its bound, so that commands waited.";
        self.counter("wal_waits_total", help, |it| it.core.databases.counts.wal_waits);
        let help = "How often it stayed there, so that writes were refused.";
        self.counter("wal_refusals_total", help, |it| it.core.databases.counts.wal_refusals);
        let help = "Bytes of the longest write-ahead log of a database.";
        self.gauge("wal_max_bytes", help, |it| it.core.databases.wal_bytes_max);
    }

    fn connections(&mut self) {
        self.gauge("connections", "Client connections open.", |it| it.http.open);
        let help = "Client connections refused because that many were open.";
        self.counter("connections_turned_away_total", help, |it| it.http.turned_away);
        let help = "Client connections accepted.";
        self.counter("connections_accepted_total", help, |it| it.http.accepted);
        let help = "Failures to accept a connection.";
        self.counter("accept_errors_total", help, |it| it.http.accept_errors);
        let help = "Connections that moved to the core that serves them.";
        self.counter("connections_moved_total", help, |it| it.http.handed_over);
        let help = "Connections closed because they were idle or slow.";
        self.counter("connection_timeouts_total", help, |it| it.http.timeouts);
        let help = "Connections that ended in a panic.";
        self.counter("connection_panics_total", help, |it| it.http.panics);
        let help = "Requests of clients that another core was asked.";
        self.counter("requests_crossed_total", help, |it| it.n_crossed);
    }

    fn requests(&mut self) {
        let mut family = self.page.family(
            "http_requests_total",
            Kind::Counter,
            "Requests answered, refused ones included.",
        );
        for (core, shard) in self.all.iter().zip(&self.names) {
            for route in &core.gateway.routes {
                for (status, n) in &route.statuses {
                    let status = status.to_string();
                    let labels = [("shard", &**shard), ("route", route.route), ("status", &status)];
                    family.put(&labels, *n);
                }
            }
        }
        let mut family = self.page.histograms(
            "http_request_seconds",
            Unit::Micros,
            "From the whole request to the reply that is ready; without what was refused unread.",
        );
        for (core, shard) in self.all.iter().zip(&self.names) {
            for route in &core.gateway.routes {
                family.put(&[("shard", shard), ("route", route.route)], &route.took_us);
            }
        }
        let mut family =
            self.page.family("limit_refusals_total", Kind::Counter, "Requests refused by a limit.");
        for (core, shard) in self.all.iter().zip(&self.names) {
            for (limit, n) in &core.gateway.refusals {
                family.put(&[("shard", shard), ("limit", limit)], *n);
            }
            family.put(&[("shard", shard), ("limit", "connections")], core.http.turned_away);
        }
    }

    /// What one namespace, or key, asked for beyond its share of what others wanted as well.
    fn shares(&mut self) {
        let mut family = self.page.family(
            "share_refusals_total",
            Kind::Counter,
            "Requests refused because their namespace, or key, had its share of something crowded.",
        );
        for (core, shard) in self.all.iter().zip(&self.names) {
            let of = [
                ("writes", core.core.load.unfair),
                ("mailbox", core.n_unfair),
                ("long_reads", core.core.databases.long_reads_refused),
                ("bodies", core.http.unfair),
            ];
            for (of, n) in of {
                family.put(&[("shard", shard), ("of", of)], n);
            }
        }
    }

    fn tenants(&mut self) {
        let families: [Tenancy; 8] = [
            ("namespace_requests_total", "Requests.", |it| it.requests),
            ("namespace_reads_total", "Requests that read.", |it| it.reads),
            ("namespace_writes_total", "Requests that write.", |it| it.writes),
            ("namespace_errors_total", "Requests with a status from 400 on.", |it| it.errors),
            ("namespace_rows_read_total", "Rows in results.", |it| it.rows_read),
            ("namespace_rows_written_total", "Rows changed.", |it| it.rows_written),
            ("namespace_received_bytes_total", "Bytes of bodies received.", |it| it.received_bytes),
            ("namespace_sent_bytes_total", "Bytes of bodies sent.", |it| it.sent_bytes),
        ];
        for (name, help, value) in families {
            let help = format!("{help} Busy namespaces by name, the rest under `{OTHER}`.");
            let mut family = self.page.family(name, Kind::Counter, &help);
            for (core, shard) in self.all.iter().zip(&self.names) {
                for (namespace, usage) in &core.gateway.named {
                    let labels = [("shard", &**shard), ("namespace", namespace.as_str())];
                    family.put(&labels, value(usage));
                }
                family.put(&[("shard", shard), ("namespace", OTHER)], value(&core.gateway.other));
            }
        }
    }
}
