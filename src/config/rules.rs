//! What must hold of a configuration, and how a broken rule is told.
//!
//! Rules are checked section by section in the order of the file, each tells of itself once, and none
//! stops the others. A rule that holds yields the checked value, so that [`Config`] cannot be built
//! from anything else.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use crate::config::Cluster;
use crate::config::Config;
use crate::config::Database;
use crate::config::Discovery;
use crate::config::Limits;
use crate::config::LogFormat;
use crate::config::Logging;
use crate::config::Metrics;
use crate::config::Node;
use crate::config::NodeKind;
use crate::config::Runtime;
use crate::config::Security;
use crate::config::TlsFiles;
use crate::config::address::HostPort;
use crate::config::checks::Rules;
use crate::config::checks::one_of;
use crate::config::checks::port_zero;
use crate::config::duration::format_go_nanos;
use crate::config::gateway;
use crate::config::multiaddr::Multiaddr;
use crate::config::paths;
use crate::config::raw::RawConfig;
use crate::config::raw::RawDatabase;
use crate::config::raw::RawDiscovery;
use crate::config::raw::RawLimits;
use crate::config::raw::RawLogging;
use crate::config::raw::RawNode;
use crate::config::raw::RawRuntime;
use crate::config::raw::RawSecurity;
use crate::limits;
use crate::types::ByteSize;

/// Most partitions of a network: each costs every node a Raft group.
const SHARD_COUNT_MAX: i64 = 4_096;
/// Most replicas of a partition: more would slow every write for nothing.
const REPLICATION_FACTOR_MAX: i64 = 64;
/// Bytes of a body or value at most: its command, in which bytes may double, fits into a Raft entry.
const BODY_BYTES_MAX: u32 = 10 << 20;
const _: () = assert!(BODY_BYTES_MAX as usize * 2 <= limits::COMMAND_SIZE_MAX);

/// Check everything. Nothing comes back exactly if `rules` has found something in `raw`.
pub(super) fn check(
    mut raw: RawConfig,
    cores: u16,
    warnings: Vec<String>,
    rules: &mut Rules,
) -> Option<Config> {
    fill(&mut raw);
    let node = node(&raw.node, rules);
    let database = database(&raw.database, &raw, rules);
    let discovery = discovery(&raw.discovery, &raw, rules);
    let security = security(&raw.security, rules);
    let logging = logging(&raw.logging, rules);
    let gateway = gateway::check(&raw.gateway, "gateway.", rules);
    let metrics = metrics(&raw, rules);
    let runtime = runtime(&raw.runtime, cores, rules);
    let limits = limits(&raw.limits, &raw.database, rules);
    let join_token_file = match raw.cluster.join_token_file().as_str() {
        "" => Path::new(&raw.node.data_dir()).join("join.token"),
        path => PathBuf::from(path),
    };
    Some(Config {
        node: node?,
        database: database?,
        discovery: discovery?,
        security: security?,
        logging: logging?,
        gateway: gateway?.gateway,
        metrics: metrics?,
        runtime: runtime?,
        limits: limits?,
        cluster: Cluster { join_token_file },
        warnings,
    })
}

/// Give keys that were left out the values that follow from other keys.
fn fill(raw: &mut RawConfig) {
    let RawConfig { node, database, limits, .. } = raw;
    if !database.rqlite_join_address().is_empty() {
        node.kind.get_or_insert_with(|| "node".to_owned());
    }
    database.data_dir.get_or_insert_with(|| node.data_dir());
    limits.database_bytes.get_or_insert_with(|| database.max_database_size());
}

fn node_kind(raw: &RawNode) -> Result<NodeKind, String> {
    match raw.kind().as_str() {
        "node" => Ok(NodeKind::Node),
        "bootstrap" => Ok(NodeKind::Bootstrap),
        other => Err(format!("must be one of [bootstrap node]; got {other:?}")),
    }
}

fn node(raw: &RawNode, rules: &mut Rules) -> Option<Node> {
    let kind = rules.check("node.type", node_kind(raw));
    let listen_addresses = listen_addresses(raw, rules);
    let data_dir = rules.directory("node.data_dir", &raw.data_dir());
    let max_connections = match raw.max_connections() {
        n @ ..=0 => rules.check("node.max_connections", Err(format!("must be > 0; got {n}"))),
        n => rules.at_least("node.max_connections", n, 1..=1_000_000),
    };
    Some(Node {
        id: raw.id(),
        kind: kind?,
        listen_addresses: listen_addresses?,
        data_dir: data_dir?,
        max_connections: max_connections?,
    })
}

fn listen_addresses(raw: &RawNode, rules: &mut Rules) -> Option<Vec<std::net::SocketAddr>> {
    let texts = raw.listen_addresses();
    if texts.is_empty() {
        rules.wrong("node.listen_addresses", "must not be empty");
        return None;
    }
    let check = |at: usize, text: &String| {
        // The blank in this hint is what the original prints.
        let address = Multiaddr::parse(text).map_err(|error| {
            format!("invalid multiaddr: {error}; expected /ip{{4,6}}/.../ tcp/<port>")
        })?;
        let socket = address.socket_addr().map_err(|error| {
            format!(
                "cannot convert multiaddr to network address: {error}; \
                 ensure multiaddr contains /tcp/<port>"
            )
        })?;
        if socket.port() == 0 {
            return Err(port_zero());
        }
        if texts.iter().take(at).any(|it| it == text) {
            return Err("duplicate listen address".to_owned());
        }
        Ok(socket)
    };
    let checked = texts
        .iter()
        .enumerate()
        .map(|(at, text)| rules.check(&format!("node.listen_addresses[{at}]"), check(at, text)));
    checked.collect::<Vec<_>>().into_iter().collect()
}

fn database(raw: &RawDatabase, all: &RawConfig, rules: &mut Rules) -> Option<Database> {
    let data_dir = if raw.data_dir() == all.node.data_dir() {
        Some(PathBuf::from(raw.data_dir())) // told already
    } else {
        rules.directory("database.data_dir", &raw.data_dir())
    };
    let replication_factor = rules.at_least(
        "database.replication_factor",
        raw.replication_factor(),
        1..=REPLICATION_FACTOR_MAX,
    );
    let shard_count =
        rules.at_least("database.shard_count", raw.shard_count(), 1..=SHARD_COUNT_MAX);
    let _: Option<i64> =
        rules.at_least("database.max_database_size", raw.max_database_size(), 0..=i64::MAX);
    let backup_interval = u64::try_from(raw.backup_interval())
        .map_err(|_| format!("must be >= 0; got {}", format_go_nanos(raw.backup_interval())));
    let backup_interval = rules.check("database.backup_interval", backup_interval);
    let rqlite_port = rules.port("database.rqlite_port", raw.rqlite_port());
    let rqlite_raft_port = rules.port("database.rqlite_raft_port", raw.rqlite_raft_port());
    if raw.rqlite_port() == raw.rqlite_raft_port() {
        let message = format!("must differ from database.rqlite_port ({})", raw.rqlite_port());
        rules.wrong("database.rqlite_raft_port", message);
    }
    let text = raw.rqlite_join_address();
    let join_address = match node_kind(&all.node) {
        Ok(NodeKind::Node) if text.is_empty() => {
            Err("required for node type (non-bootstrap)".to_owned())
        }
        Ok(NodeKind::Node) => HostPort::parse(&text)
            .map(Some)
            .map_err(|error| format!("{error}; expected format: host:port")),
        Ok(NodeKind::Bootstrap) if !text.is_empty() => {
            Err("must be empty for bootstrap type".to_owned())
        }
        Ok(NodeKind::Bootstrap) | Err(_) => Ok(None),
    };
    let join_address = rules.check("database.rqlite_join_address", join_address);
    Some(Database {
        data_dir: data_dir?,
        replication_factor: replication_factor?,
        shard_count: shard_count?,
        backup_interval: Duration::from_nanos(backup_interval?),
        rqlite_port: rqlite_port?,
        rqlite_raft_port: rqlite_raft_port?,
        join_address: join_address?,
    })
}

fn discovery(raw: &RawDiscovery, all: &RawConfig, rules: &mut Rules) -> Option<Discovery> {
    let interval = rules.positive("discovery.discovery_interval", raw.discovery_interval());
    let bootstrap_port = rules.port("discovery.bootstrap_port", raw.bootstrap_port());
    let bootstrap_peers =
        rules.bootstrap_peers("discovery.bootstrap_peers", &raw.bootstrap_peers());
    let mut advertised = |path: &str, text: &str, port: i64| {
        if text.is_empty() {
            return Some(None);
        }
        // A host alone is completed by the port that this node has.
        let address = if text.contains(':') {
            HostPort::parse(text)
        } else {
            let port = u16::try_from(port).ok().filter(|it| *it > 0)?; // the port's own rule tells
            Ok(HostPort { host: text.to_owned(), port })
        };
        let hint = |error| format!("{error}; expected format: host or host:port");
        rules.check(path, address.map(Some).map_err(hint))
    };
    let http_adv_address = advertised(
        "discovery.http_adv_address",
        &raw.http_adv_address(),
        all.database.rqlite_port(),
    );
    let raft_adv_address = advertised(
        "discovery.raft_adv_address",
        &raw.raft_adv_address(),
        all.database.rqlite_raft_port(),
    );
    let node_namespace = rules.namespace("discovery.node_namespace", &raw.node_namespace());
    Some(Discovery {
        bootstrap_peers: bootstrap_peers?,
        interval: interval?,
        bootstrap_port: bootstrap_port?,
        http_adv_address: http_adv_address?,
        raft_adv_address: raft_adv_address?,
        node_namespace: node_namespace?,
    })
}

fn security(raw: &RawSecurity, rules: &mut Rules) -> Option<Security> {
    if !raw.enable_tls() {
        return Some(Security { tls: None });
    }
    let mut file = |path: &str, text: String| {
        if text.is_empty() {
            rules.wrong(path, "required when enable_tls is true");
            return None;
        }
        let file = PathBuf::from(text);
        let readable = paths::check_readable(&file);
        rules.check(path, readable.map_err(|error| format!("cannot read file: {error}")))?;
        Some(file)
    };
    let private_key = file("security.private_key_file", raw.private_key_file());
    let certificate = file("security.certificate_file", raw.certificate_file());
    Some(Security { tls: Some(TlsFiles { private_key: private_key?, certificate: certificate? }) })
}

fn logging(raw: &RawLogging, rules: &mut Rules) -> Option<Logging> {
    let level = match raw.level().as_str() {
        "debug" => Ok(Level::DEBUG),
        "info" => Ok(Level::INFO),
        "warn" => Ok(Level::WARN),
        "error" => Ok(Level::ERROR),
        other => Err(one_of(other, "debug, info, warn, error")),
    };
    let level = rules.check("logging.level", level);
    let format = match raw.format().as_str() {
        "json" => Ok(LogFormat::Json),
        "console" => Ok(LogFormat::Console),
        other => Err(one_of(other, "json, console")),
    };
    let format = rules.check("logging.format", format);
    let output_file = match raw.output_file().as_str() {
        "" => Some(None),
        text => {
            let file = PathBuf::from(text);
            rules.check("logging.output_file", paths::check_parent(&file)).map(|()| Some(file))
        }
    };
    let slow = rules.between("logging.slow_statement_ms", raw.slow_statement_ms(), 0..=3_600_000);
    Some(Logging {
        level: level?,
        format: format?,
        output_file: output_file?,
        slow_statement: Some(Duration::from_millis(slow?)).filter(|it| !it.is_zero()),
    })
}

fn metrics(raw: &RawConfig, rules: &mut Rules) -> Option<Metrics> {
    let (path, text) = ("metrics.listen_addr", raw.metrics.listen_addr());
    if text.is_empty() {
        return Some(Metrics { listen_addr: None });
    }
    let listen_addr = rules.check(path, HostPort::parse_listen(&text))?;
    // What is wrong with the gateway's is told there.
    let gateway = HostPort::parse_listen(&raw.gateway.listen_addr()).ok();
    if let Some(gateway) = gateway.filter(|it| it.overlaps(&listen_addr)) {
        rules.wrong(path, format!("must differ from gateway.listen_addr ({gateway}); got {text}"));
        return None;
    }
    Some(Metrics { listen_addr: Some(listen_addr) })
}

fn runtime(raw: &RawRuntime, cores: u16, rules: &mut Rules) -> Option<Runtime> {
    let shards = match raw.shards() {
        0 => Some(cores.max(1)),
        n => rules.between("runtime.shards", n, 0..=1_024),
    };
    // glommio's rings need a few pages, and the kernel pins three times this for every shard.
    let io_memory =
        rules.between("runtime.io_memory_bytes", raw.io_memory_bytes(), 64 << 10..=1 << 30);
    let spin = rules.between("runtime.spin_us", raw.spin_us(), 0..=1_000_000);
    Some(Runtime {
        shards: shards?,
        io_memory: ByteSize(io_memory?),
        spin: Duration::from_micros(spin?),
    })
}

fn limits(raw: &RawLimits, database: &RawDatabase, rules: &mut Rules) -> Option<Limits> {
    let body_bytes =
        rules.between("limits.body_bytes", raw.body_bytes(), 1..=BODY_BYTES_MAX.into());
    // hyper needs 8 KiB.
    let header_bytes = rules.between("limits.header_bytes", raw.header_bytes(), 8 << 10..=1 << 20);
    let result_rows =
        rules.between("limits.result_rows", raw.result_rows(), 1..=i64::from(u32::MAX));
    let result_bytes = rules.between("limits.result_bytes", raw.result_bytes(), 1..=1 << 30);
    let statement_ms = rules.between("limits.statement_ms", raw.statement_ms(), 1..=3_600_000);
    let statement_steps =
        rules.between("limits.statement_steps", raw.statement_steps(), 1_000..=i64::MAX);
    let value_bytes = rules.between(
        "limits.value_bytes",
        raw.value_bytes(),
        limits::VALUE_BYTES_MIN.into()..=BODY_BYTES_MAX.into(),
    );
    let temp_bytes = rules.between("limits.temp_bytes", raw.temp_bytes(), 1..=i64::MAX);
    let requests_per_second =
        rules.between("limits.requests_per_second", raw.requests_per_second(), 0..=1_000_000_000);
    let connections = rules.between("limits.connections", raw.connections(), 1..=10_000_000);
    let database_bytes = if raw.database_bytes() == database.max_database_size() {
        u64::try_from(raw.database_bytes()).ok() // told already
    } else {
        rules.between("limits.database_bytes", raw.database_bytes(), 0..=i64::MAX)
    };
    let disk_reserve_bytes =
        rules.between("limits.disk_reserve_bytes", raw.disk_reserve_bytes(), 0..=1 << 50);
    let open_databases =
        rules.between("limits.open_databases", raw.open_databases(), 1..=1_000_000);
    let wal_bytes_min = i64::try_from(limits::WAL_BYTES + limits::WAL_BYTES_WAIT).unwrap_or(0);
    let wal_bytes = rules.between("limits.wal_bytes", raw.wal_bytes(), wal_bytes_min..=1 << 40);
    let log_bytes = rules.between("limits.log_bytes", raw.log_bytes(), 1 << 20..=1 << 40);
    let fence_log_bytes =
        rules.between("limits.fence_log_bytes", raw.fence_log_bytes(), 1 << 20..=1 << 40);
    Some(Limits {
        body_bytes: ByteSize(body_bytes?),
        header_bytes: ByteSize(header_bytes?),
        result_rows: result_rows?,
        result_bytes: ByteSize(result_bytes?),
        statement_time: Duration::from_millis(statement_ms?),
        statement_steps: statement_steps?,
        value_bytes: ByteSize(value_bytes?),
        temp_bytes: ByteSize(temp_bytes?),
        requests_per_second: std::num::NonZeroU64::new(requests_per_second?),
        connections: connections?,
        database_bytes: Some(ByteSize(database_bytes?)).filter(|it| it.0 > 0),
        disk_reserve: ByteSize(disk_reserve_bytes?),
        open_databases: open_databases?,
        wal_bytes: ByteSize(wal_bytes?),
        log_bytes: ByteSize(log_bytes?),
        fence_log_bytes: ByteSize(fence_log_bytes?),
    })
}

#[cfg(test)]
mod tests;
