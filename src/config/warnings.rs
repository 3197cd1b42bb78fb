//! Keys that are accepted but that nothing in this version heeds.
//!
//! A file written for the whole product must load, and its operator must not believe that it is all in
//! force. A key is warned about only when the file says something else than the default.

use crate::config::raw::RawConfig;
use crate::config::raw::RawGateway;

/// Remove a key here when it begins to have its effect.
const WITHOUT_EFFECT: &[&str] = &[
    "node.id",
    "node.type",
    "node.listen_addresses",
    "node.max_connections",
    "database.replication_factor",
    "database.backup_interval",
    "database.rqlite_port",
    "database.rqlite_raft_port",
    "database.rqlite_join_address",
    "discovery.bootstrap_peers",
    "discovery.discovery_interval",
    "discovery.bootstrap_port",
    "discovery.http_adv_address",
    "discovery.raft_adv_address",
    "discovery.node_namespace",
    "security.enable_tls",
    "security.private_key_file",
    "security.certificate_file",
    "gateway.websocket_format",
    "cluster.join_token_file",
];

/// Keys of `gateway` that only a stand-alone gateway needs: a node's gateway asks its own node.
const STAND_ALONE_ONLY: &[&str] = &["rqlite_dsn", "bootstrap_peers"];

/// A line for each key of a node's file that was set in vain.
pub(super) fn of_node(raw: &RawConfig) -> Vec<String> {
    let sections = [
        ("node", raw.node.changed()),
        ("database", raw.database.changed()),
        ("discovery", raw.discovery.changed()),
        ("security", raw.security.changed()),
        ("logging", raw.logging.changed()),
        ("gateway", raw.gateway.changed()),
        ("metrics", raw.metrics.changed()),
        ("runtime", raw.runtime.changed()),
        ("limits", raw.limits.changed()),
        ("cluster", raw.cluster.changed()),
    ];
    let mut found = Vec::new();
    for (section, keys) in sections {
        for key in keys {
            let path = format!("{section}.{key}");
            if section == "gateway" && STAND_ALONE_ONLY.contains(&key) {
                found.push(format!("{path}: has no effect inside a node"));
            } else if WITHOUT_EFFECT.contains(&path.as_str()) {
                found.push(format!("{path}: has no effect in this version"));
            }
        }
    }
    found
}

/// The same for a stand-alone gateway's file.
pub(super) fn of_gateway(raw: &RawGateway) -> Vec<String> {
    let is_idle = |key: &&str| WITHOUT_EFFECT.contains(&format!("gateway.{key}").as_str());
    let keys = raw.changed().into_iter().filter(is_idle);
    keys.map(|key| format!("gateway.{key}: has no effect in this version")).collect()
}
