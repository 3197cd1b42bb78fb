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
mod tests {
    use expect_test::Expect;
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    pub(super) fn parse(text: Option<&str>) -> Result<Config, ConfigError> {
        let (environment, flags) = (Environment::new(), Flags::default());
        Config::parse(text, &Overrides { environment: &environment, flags: &flags, cores: 4 })
    }

    pub(super) fn check(text: &str, expect: Expect) {
        expect.assert_eq(&parse(Some(text)).unwrap_err().report());
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        check(
            "node:\n  id: n\n  typ: node\n  max_connections: 0\ndatabase:\n  shard_count: many\n  \
             rqlite_port: 0\nloging: {}\n",
            expect![[r#"
                Configuration load error: invalid config: yaml: unmarshal errors:
                  line 3: field typ not found in type config.NodeConfig
                  line 6: cannot unmarshal !!str `many` into int
                  line 8: field loging not found in type config.Config

                Configuration errors (2):
                  - node.max_connections: must be > 0; got 0
                  - database.rqlite_port: must be between 1 and 65535; got 0

                Please fix the configuration and try again.
            "#]],
        );
    }

    #[test]
    fn a_file_without_content_or_form_is_told() {
        check(
            "",
            expect![[r#"
            Configuration load error: invalid config: EOF
        "#]],
        );
        check(
            "# nothing\n",
            expect![[r#"
            Configuration load error: invalid config: EOF
        "#]],
        );
        check(
            "node:\n\tid: x",
            expect![[r#"
            Configuration load error: invalid config: yaml: line 2: tabs disallowed within this context (block indentation)
        "#]],
        );
        check(
            "node: {id: 1",
            expect![[r#"
            Configuration load error: invalid config: yaml: line 2: while parsing a flow mapping, did not find expected ',' or '}'
        "#]],
        );
        check(
            "node:\n  id: 'x",
            expect![[r#"
            Configuration load error: invalid config: yaml: line 2: while scanning a quoted scalar, found unexpected end of stream
        "#]],
        );
        check(
            "node:\n id: x\n  data_dir: y",
            expect![[r#"
            Configuration load error: invalid config: yaml: line 3: mapping values are not allowed in this context
        "#]],
        );
        check(
            "- node",
            expect![[r#"
            Configuration load error: invalid config: yaml: unmarshal errors:
              line 1: cannot unmarshal !!seq into config.Config
        "#]],
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let (environment, flags) = (Environment::new(), Flags::default());
        let overrides = Overrides { environment: &environment, flags: &flags, cores: 4 };
        let load = |path: &Path| Config::load(Some(path), &overrides).unwrap_err().report();
        assert_eq!(
            load(Path::new("/nowhere.yaml")),
            "Configuration load error: failed to open config file: \
             open /nowhere.yaml: no such file or directory\n"
        );
        let path = scratch.path().join("latin1.yaml");
        fs::write(&path, b"node:\n  id: caf\xe9\n").unwrap();
        assert_eq!(
            load(&path),
            "Configuration load error: invalid config: yaml: line 2: invalid UTF-8\n"
        );
    }

    /// The values that every layer below can set, in the order of the layers.
    #[test]
    fn flags_stand_above_the_environment_above_the_file_above_the_defaults() {
        let pairs = [
            ("NODE_ID", "variable"),
            ("RQLITE_PORT", "5002"),
            ("GATEWAY_ADDR", ":6012"),
            ("GATEWAY_NAMESPACE", "variable"),
            ("GATEWAY_REQUIRE_AUTH", "0"),
            ("GATEWAY_API_KEYS", "k:variable"),
        ];
        let variables: Environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // Each says the default: it counts all the same.
        let flags = Flags {
            id: Some(String::new()),
            rqlite_http_port: Some(5_001),
            gateway_addr: Some("127.0.0.1:6001".to_owned()),
            shards: Some(0),
            adv_addr: Some("127.0.0.1".to_owned()),
            ..Flags::default()
        };
        let file = "node: {id: file}\ndatabase: {rqlite_port: 5003}\n\
                    discovery: {http_adv_address: 'file:1'}\nruntime: {shards: 2}\n\
                    gateway: {listen_addr: ':6003', client_namespace: file, require_auth: true}\n";
        let (no_variables, no_flags) = (Environment::new(), Flags::default());
        let show = |file: Option<&str>, environment: &Environment, flags: &Flags| {
            let overrides = Overrides { environment, flags, cores: 4 };
            let it = Config::parse(file, &overrides).unwrap();
            format!(
                "id={} port={} adv={} shards={} gateway={} namespace={} auth={} keys={}\n",
                it.node.id,
                it.database.rqlite_port,
                it.discovery.http_adv_address.map(|it| it.to_string()).unwrap_or_default(),
                it.runtime.shards,
                it.gateway.listen_addr,
                it.gateway.client_namespace,
                it.gateway.require_auth,
                it.gateway.api_keys.len(),
            )
        };
        let shown = show(None, &no_variables, &no_flags)
            + &show(Some(file), &no_variables, &no_flags)
            + &show(Some(file), &variables, &no_flags)
            + &show(Some(file), &variables, &flags);
        expect![[r#"
            id= port=5001 adv= shards=4 gateway=127.0.0.1:6001 namespace=default auth=true keys=0
            id=file port=5003 adv=file:1 shards=2 gateway=:6003 namespace=file auth=true keys=0
            id=variable port=5002 adv=file:1 shards=2 gateway=:6012 namespace=variable auth=false keys=1
            id= port=5001 adv=127.0.0.1:5001 shards=4 gateway=127.0.0.1:6001 namespace=variable auth=false keys=1
        "#]].assert_eq(&shown);
    }

    #[test]
    fn keys_set_in_vain_are_told_unless_they_say_the_default() {
        let config = parse(Some(
            "node: {max_connections: 50, id: ''}\ndatabase: {replication_factor: 5, shard_count: 8}\n\
             gateway: {rqlite_dsn: 'http://x', idle_timeout: 1s}\nlimits: {temp_bytes: 5}\n",
        ));
        expect![[r#"
            database.replication_factor: has no effect in this version
            gateway.rqlite_dsn: has no effect inside a node"#]]
        .assert_eq(&config.unwrap().warnings.join("\n"));
    }

    #[test]
    fn directories_follow_the_data_dir_of_the_node() {
        let config = parse(Some("node: {data_dir: ./x}")).unwrap();
        assert_eq!(config.database.data_dir, Path::new("./x"));
        assert_eq!(config.cluster.join_token_file, Path::new("./x/join.token"));
        let config = parse(Some("node: {data_dir: ./x}\ndatabase: {data_dir: ./y}")).unwrap();
        assert_eq!(config.database.data_dir, Path::new("./y"));
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let config = parse(Some("database: {max_database_size: 0}")).unwrap();
        assert_eq!(config.limits.database_bytes, None);
        assert_eq!(config.limits.requests_per_second, None);
        let config = parse(Some("limits: {database_bytes: 5, requests_per_second: 7}")).unwrap();
        assert_eq!(config.limits.database_bytes, Some(ByteSize(5)));
        assert_eq!(config.limits.requests_per_second, NonZeroU64::new(7));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn any_text_is_answered(text in ".*|((node|database|limits|gateway|x): ?(\\{|\\[|\n  )?(id|data_dir|<<|type|api_keys)?:? ?[-a-z0-9&*!'\"]{0,5}\n?){0,5}") {
            match parse(Some(&text)) {
                Ok(config) => prop_assert!(config.runtime.shards > 0),
                Err(error) => prop_assert!(error.report().ends_with('\n')),
            }
        }
    }
}
