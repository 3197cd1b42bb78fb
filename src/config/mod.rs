//! Files, environment and flags become one valid configuration.
//!
//! What a person wrote is in `raw`, what may run is [`Config`]: once it exists, nothing in it needs
//! checking again. A value comes from a flag, else from the environment, else from the file, else it is
//! the default. Every mistake is told at once, in the words operators know from the original.
//!
//! Start reading at [`Config::load`].

pub mod address;
pub mod duration;
pub mod error;
pub mod gateway;
pub mod identity;
pub mod multiaddr;
pub mod overrides;

mod checks;
mod decode;

mod paths;
mod raw;
mod rules;
mod warnings;
mod yaml;

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use crate::config::address::HostPort;
use crate::config::checks::Rules;
use crate::config::decode::Decoder;
use crate::config::decode::Section;
use crate::config::error::ConfigError;
use crate::config::gateway::Gateway;
use crate::config::multiaddr::Multiaddr;
use crate::config::overrides::Environment;
use crate::config::overrides::Flags;
use crate::config::overrides::Variables;
use crate::config::raw::RawConfig;
use crate::types::ByteSize;
use crate::types::Namespace;

/// What a node needs to know to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: Node,
    /// Partitions and the ports of the database.
    pub database: Database,
    /// How peers find each other.
    pub discovery: Discovery,
    /// TLS.
    pub security: Security,
    /// What is logged, how, and where to.
    pub logging: Logging,
    /// The API of the network.
    pub gateway: Gateway,
    /// Where the node can be watched.
    pub metrics: Metrics,
    /// Cores and the memory of each.
    pub runtime: Runtime,
    /// What a client may ask for.
    pub limits: Limits,
    /// Who may join.
    pub cluster: Cluster,
    /// Keys that the file sets in vain, a line each.
    pub warnings: Vec<String>,
}

/// `node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// A name for people; may be empty. The identity is the key in the data directory.
    pub id: String,
    /// Whether it starts a network or joins one.
    pub kind: NodeKind,
    /// Where libp2p listens; at least one.
    pub listen_addresses: Vec<SocketAddr>,
    /// Identity, keys, lock. May not exist yet.
    pub data_dir: PathBuf,
    /// Peer connections at most.
    pub max_connections: u32,
}

/// `node.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// The first node of a network.
    Bootstrap,
    /// A node that joins through `database.rqlite_join_address`.
    Node,
}

/// `database`. Its `max_database_size` has become [`Limits::database_bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Where `wal/`, `partitions/` and `snapshots/` lie. May not exist yet.
    pub data_dir: PathBuf,
    /// Replicas of each partition.
    pub replication_factor: u16,
    /// Partitions beside the system partition; at least one.
    pub shard_count: u16,
    /// Time between backups; zero for none.
    pub backup_interval: Duration,
    /// TCP port of the rqlite-compatible API.
    pub rqlite_port: u16,
    /// UDP port of the links between nodes.
    pub rqlite_raft_port: u16,
    /// A member to join through; exactly if the node is a [`NodeKind::Node`].
    pub join_address: Option<HostPort>,
}

/// `discovery`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Peers to connect to first, each with a TCP port and a peer id.
    pub bootstrap_peers: Vec<Multiaddr>,
    /// Time between two rounds of discovery.
    pub interval: Duration,
    /// Port that bootstrap peers are assumed to listen on.
    pub bootstrap_port: u16,
    /// Where others reach the rqlite-compatible API.
    pub http_adv_address: Option<HostPort>,
    /// Where others reach the node's links.
    pub raft_adv_address: Option<HostPort>,
    /// Prefix of the nodes' own topics.
    pub node_namespace: Namespace,
}

/// `security`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// The files for TLS, if it is on.
    pub tls: Option<TlsFiles>,
}

/// PEM files, readable when the configuration was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The private key.
    pub private_key: PathBuf,
    /// The certificate chain.
    pub certificate: PathBuf,
}

/// `logging`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// The least important level that is written.
    pub level: Level,
    /// The form of a line.
    pub format: LogFormat,
    /// Where to; standard output if there is none.
    pub output_file: Option<PathBuf>,
    /// How long a statement takes that is logged; none if none is.
    pub slow_statement: Option<Duration>,
}

/// `logging.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Console,
    /// A JSON object per line.
    Json,
}

/// `metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where the page for Prometheus is; none if there is no page.
    pub listen_addr: Option<HostPort>,
}

/// `runtime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Shards, one pinned core each; at least one.
    pub shards: u16,
    /// Registered I/O memory of each shard; the kernel pins three times as much.
    pub io_memory: ByteSize,
    /// How long an idle core polls before it sleeps.
    pub spin: Duration,
}

/// `limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request body.
    pub body_bytes: ByteSize,
    /// A request head.
    pub header_bytes: ByteSize,
    /// Rows of one result.
    pub result_rows: u32,
    /// One result.
    pub result_bytes: ByteSize,
    /// How long a read may take.
    pub statement_time: Duration,
    /// Virtual machine instructions of one write.
    pub statement_steps: u64,
    /// One value.
    pub value_bytes: ByteSize,
    /// Temporary files of one statement.
    pub temp_bytes: ByteSize,
    /// Requests per second and API key, if there is a limit.
    pub requests_per_second: Option<NonZeroU64>,
    /// Client connections open at once.
    pub connections: u32,
    /// A namespace's database, if there is a limit.
    pub database_bytes: Option<ByteSize>,
    /// What is to stay free on the disk of the databases; zero is nothing.
    pub disk_reserve: ByteSize,
    /// Databases open at once, on all shards together.
    pub open_databases: u32,
    /// A database's `-wal`, which a reader may keep from starting anew.
    pub wal_bytes: ByteSize,
    /// Log that a shard keeps before it is compacted.
    pub log_bytes: ByteSize,
    /// Log that is kept for a fenced namespace.
    pub fence_log_bytes: ByteSize,
}

/// `cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Holds the token that a joining node shows. May not exist yet.
    pub join_token_file: PathBuf,
}

/// What is said outside the file.
#[derive(Clone, Copy, Debug)]
pub struct Overrides<'a> {
    /// Above the file.
    pub environment: &'a Environment,
    /// Above the environment.
    pub flags: &'a Flags,
    /// Online cores: the default of `runtime.shards`.
    pub cores: u16,
}

impl Config {
    /// Read the file, if there is one, and everything above it. Touches the file system: a directory
    /// is probed by creating a file in it.
    pub fn load(file: Option<&Path>, overrides: &Overrides<'_>) -> Result<Self, ConfigError> {
        let text = file.map(read).transpose()?;
        Self::parse(text.as_deref(), overrides)
    }

    /// Like [`Config::load`], from the text of a file.
    pub fn parse(text: Option<&str>, overrides: &Overrides<'_>) -> Result<Self, ConfigError> {
        let mut raw = RawConfig::default();
        let unread = match text {
            Some(text) => decode(text, "config.Config", &mut raw)?,
            None => Vec::new(),
        };
        let warnings = warnings::of_node(&raw);
        let mut variables = Variables::new(overrides.environment);
        overrides::apply(&mut raw, &mut variables, overrides.flags);
        let mut rules = Rules::new(variables.errors);
        let config = rules::check(raw, overrides.cores, warnings, &mut rules);
        match config {
            Some(config) if unread.is_empty() && rules.errors.is_empty() => Ok(config),
            config => {
                let found = !unread.is_empty() || !rules.errors.is_empty();
                assert!(found, "a rule refused without saying why: {config:?}");
                Err(ConfigError::Invalid { what: "Configuration", unread, broken: rules.errors })
            }
        }
    }
}

/// The text of the file at `path`.
fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes =
        fs::read(path).map_err(|error| ConfigError::Open(paths::describe("open", path, &error)))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|it| **it == b'\n').count() + 1;
        ConfigError::Syntax(format!("yaml: line {line}: invalid UTF-8"))
    })
}

/// Fill `section` from `text`; returns what could not be read.
fn decode(text: &str, name: &str, section: &mut dyn Section) -> Result<Vec<String>, ConfigError> {
    let document = yaml::parse(text).map_err(|it| ConfigError::Syntax(format!("yaml: {it}")))?;
    let document = document.ok_or_else(|| ConfigError::Syntax("EOF".to_owned()))?;
    let mut decoder = Decoder::default();
    decoder.section(&document, name, section);
    Ok(decoder.errors)
}

#[cfg(test)]
mod shipped;

#[cfg(test)]
mod tests;
