//! One core from start to end: what runs on its executor, and in which order it stops.
//!
//! Stopping: `Drain` closes the door and lets requests finish, on all cores, since they serve each other's;
//! `Exit` then ends the loop, flushes the log, and ends the helper thread.

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use rustc_hash::FxHashMap;
use tracing::info;
use tracing::warn;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::disk::fail_stop;
use crate::disk::log::LogStats;
use crate::disk::log::LogWriter;
use crate::disk::segments::Preparer;
use crate::gateway::Gateway;
use crate::gateway::GatewayOptions;
use crate::gateway::NodeInfo;
use crate::gateway::stamps::Stamps;
use crate::gateway::stats::Stats;
use crate::http::Moved;
use crate::http::Refusal;
use crate::http::Sender;
use crate::http::Server;
use crate::http::Service;
use crate::http::body::Content;
use crate::http::shutdown::Shutdown;
use crate::node::clock::Clock;
use crate::node::databases::Databases;
use crate::node::databases::Threads;
use crate::node::driver;
use crate::node::driver::Driver;
use crate::node::mail::Back;
use crate::node::mail::Mail;
use crate::node::mesh::Mesh;
use crate::node::metrics::CoreMetrics;
use crate::node::recover;
use crate::node::scrape;
use crate::node::settings;
use crate::node::turns::Turns;
use crate::shard::Shard;
use crate::shard::ShardBoot;
use crate::types::DatabaseId;
use crate::types::Incarnation;
use crate::types::ShardId;
use crate::wal::log::Options;
use crate::wal::record::Record;
use crate::wal::recovery::Tail;

/// Databases that may be open beyond the limit while others are being closed.
const PRESENT_MARGIN: usize = 16;
/// Letters that are read together with the first: the clock is read once for all.
const LETTERS_MAX: usize = 64;

/// What a core says to the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Its partitions have a log on the disk.
    Born,
    /// Its door is open.
    Serving,
    /// All its clients are served.
    Drained,
}

/// What a core starts from, off the disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) shard: ShardId,
    pub(super) partitions: Vec<recover::Found>,
    /// What the log of partitions without one begins with.
    pub(super) births: Vec<Record>,
    pub(super) log: Tail,
    pub(super) directory: PathBuf,
    pub(super) options: Options,
    pub(super) catalog: Catalog,
}

/// All that a core is given.
pub(super) struct CoreBoot {
    pub(super) found: Found,
    pub(super) threads: Threads,
    pub(super) preparer: Preparer,
    pub(super) letters: flume::Receiver<Vec<Mail>>,
    pub(super) listener: TcpListener,
    pub(super) mailboxes: Vec<flume::Sender<Vec<Mail>>>,
    pub(super) said: flume::Sender<Said>,
    /// Closed when all cores are [`Said::Born`]. A core that served before could have somebody's data while the
    /// others, after a crash, know nothing: a node that was in use, and has lost logs (R27).
    pub(super) all_born: flume::Receiver<()>,
    pub(super) config: Config,
    pub(super) gateway: Arc<(GatewayOptions, NodeInfo)>,
    pub(super) clock: Clock,
    /// Where the page with the metrics of all cores is served, if it is here.
    pub(super) metrics: Option<TcpListener>,
}

/// A panic in a task ends the whole executor, and with it a core that others wait for: the process goes,
/// too. (A connection's task catches its own.)
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic hook has said what and where.
            std::process::abort();
        }
    }
}

/// Run a core until it is told to exit.
pub(super) async fn run(boot: CoreBoot) {
    let _guard = AbortOnPanic;
    let CoreBoot {
        found,
        threads,
        preparer,
        letters,
        listener,
        mailboxes,
        said,
        all_born,
        config,
        gateway,
        clock,
        metrics,
    } = boot;
    let me = found.shard;
    let rates = settings::rates(&config);
    let n_partitions = config.database.shard_count;
    let mesh = Mesh::new(me, mailboxes, found.catalog.clone(), n_partitions, clock, rates);
    // It wakes the driver with each batch that is on disk.
    let waker = Rc::clone(&mesh);
    let (tell_durable, more_durable) = flume::bounded(1);
    let on_durable = move |_| {
        waker.wake();
        // One that was not taken yet says as much.
        let _ = tell_durable.try_send(());
    };
    let now = move || clock.now();
    // It sees what completes only if it is interrupted.
    let spins = !config.runtime.spin.is_zero();
    let log = LogWriter::open(
        found.directory,
        found.options,
        found.log,
        preparer,
        spins,
        now,
        on_durable,
    )
    .await;
    if !found.births.is_empty() {
        let born = log.stage(&found.births);
        while log.durable() < born {
            // The log has the other end.
            let _ = more_durable.recv_async().await;
        }
    }
    drop(more_durable);
    // The main thread outlives the cores.
    let _ = said.send(Said::Born);
    let (shard, databases) = bring_up(&config, found.partitions, found.catalog, threads, clock);
    let (options, info) = &*gateway;
    let service = Gateway::new(options, info.clone(), Rc::clone(&mesh));
    let gateway = service.expect("the keys were checked before the cores were started");
    let (stats, stamps) = (gateway.stats(), gateway.stamps());
    let driver = Driver::new(shard, databases, Rc::clone(&mesh), log, clock, Rc::clone(&stamps));
    let driver = Rc::new(RefCell::new(driver));

    let door = Door { gateway, mesh: Rc::clone(&mesh) };
    let server = Rc::new(served(Server::new(options.http.clone(), door)));
    let shutdown = Shutdown::new();
    let is_exiting = Rc::new(Cell::new(false));
    let desk = Desk {
        me,
        driver: Rc::clone(&driver),
        mesh: Rc::clone(&mesh),
        server: Rc::clone(&server),
        stats,
        stamps,
        clock,
        shutdown: Rc::clone(&shutdown),
        is_exiting: Rc::clone(&is_exiting),
    };
    let mailbox = glommio::spawn_local(desk.read_mail(letters));
    let metrics = metrics.map(|listener| {
        let door = scrape::door(&config, info.clone(), Rc::clone(&mesh));
        let (server, shutdown) =
            (served(Server::new(scrape::options(), door)), Rc::clone(&shutdown));
        glommio::spawn_local(async move { served(server.serve(listener, shutdown).await) })
    });
    mesh.wake();
    let until = {
        let (driver, is_exiting) = (Rc::clone(&driver), Rc::clone(&is_exiting));
        move || is_exiting.get() && driver.borrow().is_quiet()
    };
    let main = glommio::spawn_local(driver::run(Rc::clone(&driver), Rc::clone(&mesh), until));

    let _ = all_born.recv_async().await; // it is closed, and nothing was ever in it
    let _ = said.send(Said::Serving);
    served(server.serve(listener, shutdown).await);
    if let Some(metrics) = metrics {
        metrics.await;
    }
    mesh.stop();
    let _ = said.send(Said::Drained);
    main.await;
    mailbox.cancel().await;
    let driver = Rc::into_inner(driver).expect("everything that used the driver has ended");
    let (log, turns) = driver.into_inner().into_parts();
    let stats = log.with_stats(LogStats::clone);
    log.close().await;
    report(me, &stats, &turns);
}

/// A core that cannot watch its connections is of no use.
fn served<T>(served: io::Result<T>) -> T {
    served.unwrap_or_else(|error| fail_stop("watch connections", &error))
}

/// What the log did, and the loop, for whoever wonders how the disk was and how long anybody waited.
fn report(me: ShardId, stats: &LogStats, turns: &Turns) {
    let (batches, syncs) = (&stats.batch_records, &stats.write_us);
    info!(
        shard = me.0,
        batches = batches.len(),
        batch_records_mean = batches.mean(),
        batch_records_p50 = batches.value_at_quantile(0.5),
        batch_records_max = batches.max(),
        fsyncs = syncs.len(),
        fsync_us_p50 = syncs.value_at_quantile(0.5),
        fsync_us_p99 = syncs.value_at_quantile(0.99),
        fsync_us_max = syncs.max(),
        written_bytes = stats.written_bytes,
        turns = turns.wall_us.len(),
        turn_us_p99 = turns.wall_us.value_at_quantile(0.99),
        turn_us_max = turns.wall_us.max(),
        turn_cpu_us_p99 = turns.cpu_us.value_at_quantile(0.99),
        turn_cpu_us_max = turns.cpu_us.max(),
        "core has stopped"
    );
}

/// The state machine and its databases, from what the disk holds.
fn bring_up(
    config: &Config,
    partitions: Vec<recover::Found>,
    catalog: Catalog,
    threads: Threads,
    clock: Clock,
) -> (Shard, Databases) {
    let mut boots = Vec::new();
    let mut engines = Vec::new();
    let mut floors = FxHashMap::default();
    let mut fenced = Vec::new();
    let mut bytes = FxHashMap::default();
    for it in partitions {
        let partition = it.boot.id;
        for (incarnation, floor) in &it.boot.floors {
            let id = DatabaseId { partition, incarnation: *incarnation };
            floors.insert(id, floor.index);
            if floor.is_fenced {
                fenced.push(id);
            }
        }
        bytes.extend(it.bytes);
        let id = DatabaseId { partition, incarnation: Incarnation::ENGINE };
        engines.extend(it.engine.map(|engine| (id, engine)));
        boots.push(it.boot);
    }
    let dir = config.database.data_dir.clone();
    let open_databases = settings::open_databases(config);
    // The partitions' own are never closed; the margin keeps a full house from waiting for itself.
    let present_max = open_databases + boots.len() + PRESENT_MARGIN;
    let mut databases =
        Databases::new(dir, floors, bytes, present_max, settings::times(config), clock, threads);
    databases.bound_wal(config.limits.wal_bytes.0);
    for id in fenced {
        warn!(partition = %id.partition, incarnation = %id.incarnation, "database is fenced");
        databases.fence(id);
    }
    for (id, engine) in engines {
        databases.insert(id, engine);
    }
    let shard = Shard::new(ShardBoot {
        partitions: boots,
        catalog,
        n_partitions: config.database.shard_count,
        limits: settings::command_limits(config),
        log_bytes: usize::try_from(config.limits.log_bytes.0).unwrap_or(usize::MAX),
        fence_log_bytes: usize::try_from(config.limits.fence_log_bytes.0).unwrap_or(usize::MAX),
        open_databases,
        seed: settings::seed(),
        now: clock.now(),
        wall: Clock::wall(),
    });
    (shard, databases)
}

/// The gateway, with a way for connections to the other cores.
struct Door {
    gateway: Gateway<Rc<Mesh>>,
    mesh: Rc<Mesh>,
}

impl Service for Door {
    async fn call(&self, head: Parts, body: Bytes) -> Response<Content> {
        self.gateway.call(head, body).await
    }

    fn admit(&self, head: &Parts) -> Result<Sender, Response<Bytes>> {
        self.gateway.admit(head)
    }

    fn refuse(&self, head: &Parts, refusal: Refusal) -> Response<Bytes> {
        self.gateway.refuse(head, refusal)
    }

    fn hand_over(&self, core: ShardId, connection: Moved) {
        self.mesh.post(core, Mail::Connection(connection));
        self.mesh.wake(); // whose turn ends with a flush
    }

    fn tell_open(&self, n_open: u64) {
        let core = self.mesh.me();
        self.mesh.post_to_others(|| Mail::Connections { core, n_open });
        self.mesh.wake();
    }
}

/// Where a core's mail is read, and who it is for.
struct Desk {
    me: ShardId,
    driver: Rc<RefCell<Driver>>,
    mesh: Rc<Mesh>,
    server: Rc<Server<Door>>,
    stats: Rc<RefCell<Stats>>,
    stamps: Rc<Stamps>,
    clock: Clock,
    shutdown: Rc<Shutdown>,
    is_exiting: Rc<Cell<bool>>,
}

impl Desk {
    async fn read_mail(self, letters: flume::Receiver<Vec<Mail>>) {
        while let Ok(first) = letters.recv_async().await {
            let mut mail = first;
            mail.extend(letters.try_iter().take(LETTERS_MAX).flatten());
            if mail.iter().any(|it| matches!(it, Mail::Reply { .. })) {
                self.stamps.on_answers(self.clock.moment(self.clock.now()));
            }
            for mail in mail {
                match mail {
                    Mail::Drain => {
                        self.mesh.drain();
                        self.shutdown.begin();
                    }
                    Mail::Exit => self.is_exiting.set(true),
                    Mail::Connection(connection) => self.server.take_over(connection),
                    Mail::Connections { core, n_open } => self.server.on_neighbour(core, n_open),
                    Mail::AskMetrics { token } => {
                        self.mesh.reply(token, Back::Metrics(Box::new(self.metrics())));
                    }
                    other => self.driver.borrow_mut().on_mail(other),
                }
            }
            self.mesh.wake_some();
            self.mesh.wake();
        }
    }

    /// What this core has counted.
    fn metrics(&self) -> CoreMetrics {
        CoreMetrics {
            shard: self.me,
            core: self.driver.borrow().counts(),
            http: self.server.counters(),
            gateway: self.stats.borrow().snapshot(),
            n_crossed: self.mesh.n_crossed(),
            n_unfair: self.mesh.n_unfair(),
        }
    }
}
