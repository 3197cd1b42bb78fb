//! The configuration as a person wrote it: every key and its default, all optional, nothing checked.
//!
//! A key is added here, given its rule in `rules`, and documented in `configs/`; until something in the
//! program heeds it, it also stands in `warnings`.

use crate::config::decode::Decoder;
use crate::config::decode::Section;
use crate::config::yaml::Value;
use crate::limits;
use crate::types::ByteSize;

const SECOND: i64 = 1_000_000_000;

/// Declares a section. Each line is a key: how it is read, into what, and what it is when left out.
/// The field holds what was written; the method of that name adds the default.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident $key:literal $read:ident: $type:ty = $default:expr,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name {
            $(pub $field: Option<$type>,)+
        }

        impl $name {
            $(pub(super) fn $field(&self) -> $type {
                self.$field.clone().unwrap_or_else(|| $default)
            })+

            /// The keys that were set to something else than their default.
            pub(super) fn changed(&self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(if self.$field.as_ref().is_some_and(|it| *it != $default) {
                    keys.push($key);
                })+
                keys
            }
        }

        impl Section for $name {
            fn set(&mut self, key: &str, value: &Value, decoder: &mut Decoder) -> bool {
                match key {
                    $($key => {
                        if let Some(it) = decoder.$read(value) {
                            self.$field = Some(it);
                        }
                    })+
                    _ => return false,
                }
                true
            }
        }
    };
}

section! {
    /// `node`: this node.
    RawNode {
        id "id" string: String = String::new(),
        // Left out: bootstrap, or node if there is a join address.
        kind "type" string: String = "bootstrap".to_owned(),
        listen_addresses "listen_addresses" strings: Vec<String> =
            vec!["/ip4/0.0.0.0/tcp/4001".to_owned()],
        data_dir "data_dir" string: String = "./data".to_owned(),
        max_connections "max_connections" int: i64 = 50,
    }
}

section! {
    /// `database`: partitions and the ports of the database.
    RawDatabase {
        // Left out: node.data_dir.
        data_dir "data_dir" string: String = "./data".to_owned(),
        replication_factor "replication_factor" int: i64 = 3,
        shard_count "shard_count" int: i64 = 16,
        max_database_size "max_database_size" int64: i64 = 1 << 30,
        backup_interval "backup_interval" duration: i64 = 24 * 3_600 * SECOND,
        rqlite_port "rqlite_port" int: i64 = 5_001,
        rqlite_raft_port "rqlite_raft_port" int: i64 = 7_001,
        rqlite_join_address "rqlite_join_address" string: String = String::new(),
    }
}

section! {
    /// `discovery`: how peers find each other.
    RawDiscovery {
        bootstrap_peers "bootstrap_peers" strings: Vec<String> = Vec::<String>::new(),
        discovery_interval "discovery_interval" duration: i64 = 15 * SECOND,
        bootstrap_port "bootstrap_port" int: i64 = 4_001,
        http_adv_address "http_adv_address" string: String = String::new(),
        raft_adv_address "raft_adv_address" string: String = String::new(),
        node_namespace "node_namespace" string: String = "default".to_owned(),
    }
}

section! {
    /// `security`: TLS.
    RawSecurity {
        enable_tls "enable_tls" boolean: bool = false,
        private_key_file "private_key_file" string: String = String::new(),
        certificate_file "certificate_file" string: String = String::new(),
    }
}

section! {
    /// `logging`.
    RawLogging {
        level "level" string: String = "info".to_owned(),
        format "format" string: String = "console".to_owned(),
        output_file "output_file" string: String = String::new(),
        slow_statement_ms "slow_statement_ms" int64: i64 = count(limits::SLOW_STATEMENT_MS),
    }
}

section! {
    /// `gateway`, and the whole of a stand-alone gateway's file.
    RawGateway {
        // These two have other defaults in a stand-alone gateway.
        listen_addr "listen_addr" string: String = "127.0.0.1:6001".to_owned(),
        rqlite_dsn "rqlite_dsn" string: String = String::new(),
        client_namespace "client_namespace" string: String = "default".to_owned(),
        bootstrap_peers "bootstrap_peers" strings: Vec<String> = Vec::<String>::new(),
        require_auth "require_auth" boolean: bool = true,
        api_keys "api_keys" strings: Vec<String> = Vec::<String>::new(),
        websocket_format "websocket_format" string: String = "auto".to_owned(),
        header_timeout "header_timeout" duration: i64 = 10 * SECOND,
        body_timeout "body_timeout" duration: i64 = 60 * SECOND,
        reply_timeout "reply_timeout" duration: i64 = 120 * SECOND,
        idle_timeout "idle_timeout" duration: i64 = 120 * SECOND,
        shutdown_timeout "shutdown_timeout" duration: i64 = 10 * SECOND,
    }
}

section! {
    /// `metrics`.
    RawMetrics {
        // Empty: nowhere.
        listen_addr "listen_addr" string: String = "127.0.0.1:6002".to_owned(),
    }
}

section! {
    /// `runtime`: cores and the memory of each.
    RawRuntime {
        // Zero, too, is one per online core.
        shards "shards" int: i64 = 0,
        io_memory_bytes "io_memory_bytes" int: i64 = 256 << 10,
        spin_us "spin_us" int: i64 = 0,
    }
}

section! {
    /// `limits`: what a client may ask for.
    RawLimits {
        body_bytes "body_bytes" int64: i64 = bytes(limits::BODY_BYTES),
        header_bytes "header_bytes" int64: i64 = bytes(limits::HEADER_BYTES),
        result_rows "result_rows" int64: i64 = i64::from(limits::RESULT_ROWS),
        result_bytes "result_bytes" int64: i64 = bytes(limits::RESULT_BYTES),
        statement_ms "statement_ms" int64: i64 = count(limits::STATEMENT_MS),
        statement_steps "statement_steps" int64: i64 = count(limits::STATEMENT_STEPS),
        value_bytes "value_bytes" int64: i64 = bytes(limits::VALUE_BYTES),
        temp_bytes "temp_bytes" int64: i64 = bytes(limits::TEMP_BYTES),
        requests_per_second "requests_per_second" int64: i64 = count(limits::REQUESTS_PER_SECOND),
        connections "connections" int64: i64 = count(limits::CONNECTIONS),
        // Left out: database.max_database_size.
        database_bytes "database_bytes" int64: i64 = 1 << 30,
        disk_reserve_bytes "disk_reserve_bytes" int64: i64 = bytes(limits::DISK_RESERVE_BYTES),
        open_databases "open_databases" int64: i64 = count(limits::OPEN_DATABASES),
        wal_bytes "wal_bytes" int64: i64 = bytes(ByteSize(limits::WAL_BYTES_MAX)),
        log_bytes "log_bytes" int64: i64 = bytes(limits::LOG_BYTES),
        fence_log_bytes "fence_log_bytes" int64: i64 = bytes(limits::FENCE_LOG_BYTES),
    }
}

section! {
    /// `cluster`: who may join.
    RawCluster {
        // Empty: join.token in node.data_dir.
        join_token_file "join_token_file" string: String = String::new(),
    }
}

/// A node's whole file.
#[derive(Clone, Debug, Default)]
pub(super) struct RawConfig {
    pub node: RawNode,
    pub database: RawDatabase,
    pub discovery: RawDiscovery,
    pub security: RawSecurity,
    pub logging: RawLogging,
    pub gateway: RawGateway,
    pub metrics: RawMetrics,
    pub runtime: RawRuntime,
    pub limits: RawLimits,
    pub cluster: RawCluster,
}

impl Section for RawConfig {
    fn set(&mut self, key: &str, value: &Value, decoder: &mut Decoder) -> bool {
        let (name, section): (&str, &mut dyn Section) = match key {
            "node" => ("config.NodeConfig", &mut self.node),
            "database" => ("config.DatabaseConfig", &mut self.database),
            "discovery" => ("config.DiscoveryConfig", &mut self.discovery),
            "security" => ("config.SecurityConfig", &mut self.security),
            "logging" => ("config.LoggingConfig", &mut self.logging),
            "gateway" => ("config.GatewayConfig", &mut self.gateway),
            "metrics" => ("config.MetricsConfig", &mut self.metrics),
            "runtime" => ("config.RuntimeConfig", &mut self.runtime),
            "limits" => ("config.LimitsConfig", &mut self.limits),
            "cluster" => ("config.ClusterConfig", &mut self.cluster),
            _ => return false,
        };
        decoder.section(value, name, section);
        true
    }
}

fn bytes(size: ByteSize) -> i64 {
    count(size.0)
}

fn count(n: u64) -> i64 {
    i64::try_from(n).expect("a default is far below 2^63")
}
