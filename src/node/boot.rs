//! From a configuration to a running node, and back to a clean exit.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use glommio::LocalExecutorBuilder;
use glommio::Placement;
use glommio::PoolPlacement;
use tracing::info;

use crate::auth::key::Keys;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::config::gateway::ApiKey;
use crate::config::identity;
use crate::config::identity::Identity;
use crate::config::identity::SecretError;
use crate::disk::boot::BootError as LogError;
use crate::disk::boot::LogDirectories;
use crate::disk::helper::Helper;
use crate::disk::segments::Preparer;
use crate::disk::spool::Spools;
use crate::disk::stops::Stops;
use crate::disk::workers::Workers;
use crate::gateway::GatewayOptions;
use crate::gateway::NodeInfo;
use crate::node::BootError;
use crate::node::clock::Clock;
use crate::node::core;
use crate::node::core::CoreBoot;
use crate::node::databases::Threads;
use crate::node::mail::Mail;
use crate::node::preflight;
use crate::node::recover;
use crate::node::settings;
use crate::node::signals;
use crate::node::space;
use crate::shard::event::Event;
use crate::shard::room::Reserve;
use crate::types::PartitionId;
use crate::wal::log::Options;
use crate::wal::recovery::Recovered;

/// How long cores may take to finish what they have begun, beyond what their clients may take.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// Threads of a core for calls that block: one may wait for the disk while another is asked.
const BLOCKING_THREADS: usize = 2;

/// Run a node until SIGINT or SIGTERM.
pub fn run(mut config: Config) -> Result<(), BootError> {
    let clock = Clock::start();
    signals::block();
    // glommio opens files by whole paths only.
    for dir in [&mut config.node.data_dir, &mut config.database.data_dir] {
        let unusable = |source| BootError::DataDir { path: dir.clone(), source };
        *dir = std::path::absolute(&*dir).map_err(unusable)?;
    }
    preflight::small_pages();
    refuse_what_cannot_be(&config)?;
    let _lock = preflight::lock(&config.node.data_dir)?;
    let _database_lock = lock_database_dir(&config)?;
    let temporary = preflight::environment(&config.database.data_dir)?;
    let (cpus, n_spools) = check_machine(&config)?;
    let refused = |error: SecretError| BootError::Refused(format!("cannot start: {error}"));
    let identity = Identity::load_or_create(&config.node.data_dir).map_err(refused)?;
    let own_key = identity::load_or_create_api_key(&config.node.data_dir).map_err(refused)?;
    let n_shards = config.runtime.shards;
    let (address, listeners) = preflight::listeners(&config.gateway.listen_addr, n_shards)?;
    let metrics_addr = config.metrics.listen_addr.as_ref();
    let metrics = metrics_addr.map(|it| preflight::listeners(it, 1)).transpose()?;
    let (metrics_address, metrics) = metrics.unzip();
    // The first core serves it.
    let mut metrics = metrics.into_iter().flatten();
    let found = recover_cores(&config, clock)?;

    let gateway = Arc::new((gateway_options(&config, &own_key)?, node_info(&identity, clock)));
    let (mailboxes, letters): (Vec<_>, Vec<_>) =
        (0..n_shards).map(|_| flume::unbounded::<Vec<Mail>>()).unzip();
    // Cores hear of a full disk before they hear of anything else.
    let reserve = Reserve::new(config.limits.disk_reserve.0);
    let watched = space::watch(&config.database.data_dir, reserve, {
        let mailboxes = mailboxes.clone();
        move |room| {
            for mailbox in &mailboxes {
                // A core that is gone writes no more.
                let _ = mailbox.send(vec![Mail::Event(Event::DiskSpace { room })]);
            }
        }
    });
    let _watch = watched.context("cannot tell how much room the disk has")?;
    let (said, heard) = flume::unbounded();
    let (doors, all_born) = flume::bounded(0);
    let mut cores = Vec::new();
    let mut helpers = Vec::new();
    let starts = found.into_iter().zip(letters).zip(listeners);
    for ((found, letters), listener) in starts {
        // Threads inherit the processors of whoever starts them: these are not to be pinned.
        let own_mailbox = mailboxes[usize::from(found.shard.0)].clone();
        let report = move |done| {
            // The core is gone: so is whoever wanted to know.
            let _ = own_mailbox.send(vec![Mail::Done(done)]);
        };
        let workers = {
            let now = move || clock.now();
            let stops = Stops::of(&config.database.data_dir);
            let spools = Spools::start(temporary.clone(), settings::spools(&config, n_spools));
            Workers::start(&stops, settings::times(&config), spools, now, report.clone())
        };
        let threads = Threads { helper: Helper::start(report), workers };
        let preparer = Preparer::start(&found.directory);
        let (preparer, thread) = preparer.context("cannot start a thread")?;
        helpers.push(thread);
        let boot = CoreBoot {
            found,
            threads,
            preparer,
            letters,
            listener,
            mailboxes: mailboxes.clone(),
            said: said.clone(),
            all_born: all_born.clone(),
            config: config.clone(),
            gateway: Arc::clone(&gateway),
            clock,
            metrics: metrics.next(),
        };
        cores.push(spawn(&config, &cpus, address, boot)?);
    }
    drop(said);
    wait_for(&heard, n_shards, core::Said::Born, None)?;
    drop(doors);
    wait_for(&heard, n_shards, core::Said::Serving, None)?;
    if let Some(address) = metrics_address {
        info!(%address, "metrics can be read");
    }
    announce(&config, address, &own_key, clock);
    let signal = signals::wait().context("cannot wait for signals")?;
    info!(signal, "stopping");
    let tell = |mail: fn() -> Mail| {
        for mailbox in &mailboxes {
            // A core that is gone has nothing left to stop.
            let _ = mailbox.send(vec![mail()]);
        }
    };
    tell(|| Mail::Drain);
    let limit = config.gateway.shutdown_timeout + DRAIN_MARGIN;
    wait_for(&heard, n_shards, core::Said::Drained, Some(limit))?;
    tell(|| Mail::Exit);
    for core in cores {
        if let Err(error) = core.join() {
            return Err(anyhow::anyhow!("a core ended badly: {error}").into());
        }
    }
    for helper in helpers {
        // A panic there has been told by the panic hook.
        let _ = helper.join();
    }
    info!("stopped");
    Ok(())
}

/// What an operator would be wrong to rely on: better not to start than to start something else.
fn refuse_what_cannot_be(config: &Config) -> Result<(), BootError> {
    let refused = |what: &str| Err(BootError::Refused(format!("cannot start: {what}")));
    if config.database.join_address.is_some() {
        return refused(
            "database.rqlite_join_address is set, but this version cannot join a network: a node of \
             its own would not hold the network's data",
        );
    }
    if config.security.tls.is_some() {
        return refused("security.enable_tls is set, but this version does not speak TLS");
    }
    Ok(())
}

/// What the machine must offer. The processors that the cores are pinned to, and how many files with large results each
/// may have.
fn check_machine(config: &Config) -> Result<(Vec<usize>, usize), BootError> {
    let runtime = &config.runtime;
    let cpus = preflight::cpus();
    if usize::from(runtime.shards) > cpus.len() {
        return Err(BootError::Cores { wanted: runtime.shards, has: cpus.len() });
    }
    let limits = &config.limits;
    let connections = u64::from(limits.connections);
    let open_databases = u64::from(limits.open_databases);
    let n_spools =
        preflight::resources(runtime.shards, runtime.io_memory.0, open_databases, connections)?;
    preflight::io_uring(settings::bytes(runtime.io_memory.0))?;
    Ok((cpus, n_spools))
}

/// A database directory of its own is locked as well: another node might be told to use it.
pub(super) fn lock_database_dir(config: &Config) -> Result<Option<std::fs::File>, BootError> {
    let dir = &config.database.data_dir;
    let same = std::fs::canonicalize(dir).ok() == std::fs::canonicalize(&config.node.data_dir).ok();
    if same { Ok(None) } else { preflight::lock(dir).map(Some) }
}

/// What each core starts from.
fn recover_cores(config: &Config, clock: Clock) -> Result<Vec<core::Found>, BootError> {
    let n_shards = config.runtime.shards;
    let n_partitions = config.database.shard_count;
    let dir = &config.database.data_dir;
    let mut catalog = Catalog::default();
    let mut cores = Vec::new();
    let (directories, logs) = recover_logs(config, clock)?;
    let stops = recover::stops(dir)?;
    for (shard, mut log) in directories.shards().zip(logs) {
        let own = (0..=n_partitions).map(PartitionId).filter(|it| it.shard(n_shards) == shard);
        let own: Vec<_> = own.collect();
        let mut partitions = Vec::new();
        let mut births = Vec::new();
        for id in own {
            let kept = log.partitions.remove(&id);
            if kept.is_none() {
                births.extend(recover::birth(id));
            }
            let found = recover::partition(dir, id, kept, &stops)?;
            if id == PartitionId::SYSTEM {
                catalog = found.catalog.clone();
            }
            partitions.push(found);
        }
        cores.push(core::Found {
            shard,
            partitions,
            births,
            log: log.tail,
            directory: directories.of(shard),
            options: Options::new(shard, n_shards, settings::seed()),
            catalog: Catalog::default(),
        });
    }
    for core in &mut cores {
        core.catalog = catalog.clone();
    }
    // All of them are accepted: nobody needs older ones any more.
    directories.tidy().map_err(|error| refused(&error))?;
    Ok(cores)
}

/// What the logs say, which are written anew first if they were those of another number of shards (R4).
fn recover_logs(
    config: &Config,
    clock: Clock,
) -> Result<(LogDirectories, Vec<Recovered>), BootError> {
    let n_shards = config.runtime.shards;
    let refused = |error: LogError| refused(&error);
    let directories = LogDirectories::open(&config.database.data_dir, n_shards).map_err(refused)?;
    let logs = directories.shards().map(|shard| directories.recover(shard));
    let logs = logs.collect::<Result<Vec<_>, _>>().map_err(refused)?;
    let kept = || logs.iter().flat_map(|it| &it.partitions);
    let is_used = kept().any(|(_, it)| it.is_used());
    check_partitions(kept().map(|(id, _)| *id).max(), is_used, config.database.shard_count)?;
    let from = directories.n_shards();
    if from == n_shards {
        return Ok((directories, logs));
    }
    let began = clock.now();
    info!(from, to = n_shards, "writing the logs anew for another number of shards");
    let (directories, logs) =
        directories.rewrite(logs, n_shards, settings::seed).map_err(refused)?;
    let ms = u64::try_from(clock.now().since(began).as_millis()).unwrap_or(u64::MAX);
    let entries = logs.iter().flat_map(|it| it.partitions.values()).map(|it| it.entries.len());
    let entries = entries.sum::<usize>();
    info!(from, to = n_shards, entries, ms, "wrote the logs anew for another number of shards");
    Ok((directories, logs))
}

fn refused(error: &LogError) -> BootError {
    BootError::Refused(format!("cannot start: {}", chain(error)))
}

/// An error and its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text = format!("{text}: {it}");
        cause = it.source();
    }
    text
}

/// How many partitions there are is settled when a network is born (R30). Each shard writes down the births of
/// its own: until the network is used, the `last` one that a log knows need not be the last one there is.
fn check_partitions(
    last: Option<PartitionId>,
    is_used: bool,
    n_partitions: u16,
) -> Result<(), BootError> {
    match last {
        Some(last) if last.0 > n_partitions || (last.0 < n_partitions && is_used) => {
            Err(BootError::Refused(format!(
                "cannot start: database.shard_count is {n_partitions}, but this network was born with \
                 {last}: set it back"
            )))
        }
        _ => Ok(()),
    }
}

/// What each core's gateway is made from.
fn gateway_options(config: &Config, own_key: &ApiKey) -> Result<GatewayOptions, BootError> {
    let gateway = &config.gateway;
    let pair = |it: &ApiKey| {
        let [key, _] = it.credentials();
        (key, it.namespace().clone())
    };
    let mut key_seed = [0; 16];
    getrandom::fill(&mut key_seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let keys: Vec<_> = gateway.api_keys.iter().chain([own_key]).map(pair).collect();
    let pairs = keys.iter().map(|(key, namespace)| (key.as_str(), namespace));
    Keys::new(pairs, key_seed)
        .map_err(|error| BootError::Refused(format!("cannot start: API keys: {error}")))?;
    Ok(GatewayOptions {
        client_namespace: gateway.client_namespace.clone(),
        require_auth: gateway.require_auth,
        keys,
        key_seed,
        result_bytes: config.limits.result_bytes.0,
        http: settings::http_options(config),
    })
}

fn node_info(identity: &Identity, clock: Clock) -> NodeInfo {
    NodeInfo {
        node_id: identity.peer_id().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("DEBROS_COMMIT").unwrap_or_default().to_owned(),
        build_time: option_env!("DEBROS_BUILD_TIME").unwrap_or_default().to_owned(),
        started_at: Clock::wall(),
        started: clock.started(),
    }
}

fn spawn(
    config: &Config,
    cpus: &[usize],
    address: SocketAddr,
    boot: CoreBoot,
) -> Result<glommio::ExecutorJoinHandle<()>, BootError> {
    // Nodes that share a machine differ in their port: with fewer shards than processors, neighbours
    // start on different ones.
    let n_shards = usize::from(config.runtime.shards);
    let first = if n_shards < cpus.len() { usize::from(address.port()) } else { 0 };
    let at = (first + usize::from(boot.found.shard.0)) % cpus.len();
    let name = format!("debros-{}", boot.found.shard.0);
    LocalExecutorBuilder::new(Placement::Fixed(cpus[at]))
        .name(&name)
        // What waits for the disk, or writes a page of metrics, is not to take the core's own processor.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
        .io_memory(settings::bytes(config.runtime.io_memory.0))
        .spin_before_park(config.runtime.spin)
        .spawn(move || core::run(boot))
        .map_err(|error| BootError::IoUring(error.to_string()))
}

/// Wait until every core has said it.
fn wait_for(
    heard: &flume::Receiver<core::Said>,
    n_shards: u16,
    what: core::Said,
    limit: Option<Duration>,
) -> Result<(), BootError> {
    for _ in 0..n_shards {
        let said = match limit {
            Some(limit) => heard.recv_timeout(limit).ok(),
            None => heard.recv().ok(),
        };
        match said {
            Some(said) if said == what => {}
            Some(said) => return Err(anyhow::anyhow!("a core says {said:?} out of turn").into()),
            None => return Err(anyhow::anyhow!("a core did not get as far as {what:?}").into()),
        }
    }
    Ok(())
}

/// Tell the operator where it is and how to use it.
fn announce(config: &Config, address: SocketAddr, own_key: &ApiKey, clock: Clock) {
    let [_, api_key] = own_key.credentials();
    let ready_ms = u64::try_from(clock.now().since(crate::types::Instant::START).as_millis());
    info!(%address, shards = config.runtime.shards, ready_ms = ready_ms.unwrap_or(0), "gateway is open");
    let text = format!(
        "DeBros node is ready.\n\
         \x20 gateway  http://{address}\n\
         \x20 API key  {api_key}\n\
         Try it:\n\
         \x20 curl -s http://{address}/v1/rqlite/query -H 'X-API-Key: {api_key}' -d '{{\"sql\":\"SELECT 1 AS one\"}}'\n"
    );
    // Nobody may be listening; the log has the address as well.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_of_partitions_is_refused_once_it_matters() {
        let (used, unused) = (true, false);
        for (name, last, is_used, is_fine) in [
            ("nothing yet", None, unused, true),
            ("as born", Some(16), used, true),
            ("fewer in use", Some(15), used, false),
            ("a first start that was cut short", Some(15), unused, true),
            ("more", Some(17), unused, false),
        ] {
            let checked = check_partitions(last.map(PartitionId), is_used, 16);
            assert_eq!(checked.is_ok(), is_fine, "{name}");
        }
    }
}
