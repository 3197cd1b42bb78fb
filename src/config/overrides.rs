//! What stands above the file: environment variables, and flags above those.
//!
//! Both are written into the raw configuration before any rule is checked, so that a value is judged
//! the same wherever it came from. An empty variable counts as unset; a flag that is given counts even
//! when it says the default.

use std::collections::BTreeMap;

use crate::config::raw::RawConfig;
use crate::config::raw::RawGateway;

/// The variables of the process, by name. Read once, by `main`.
pub type Environment = BTreeMap<String, String>;

/// Flags of `debros node`, as far as they were given.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--data`: `node.data_dir`.
    pub data: Option<String>,
    /// `--id`: `node.id`.
    pub id: Option<String>,
    /// `--p2p-port`: replaces `node.listen_addresses`.
    pub p2p_port: Option<i64>,
    /// `--rqlite-http-port`: `database.rqlite_port`.
    pub rqlite_http_port: Option<i64>,
    /// `--rqlite-raft-port`: `database.rqlite_raft_port`.
    pub rqlite_raft_port: Option<i64>,
    /// `--rqlite-join-address`: `database.rqlite_join_address`; empty is not given.
    pub rqlite_join_address: Option<String>,
    /// `--adv-addr`: the host of both advertised addresses; empty is not given.
    pub adv_addr: Option<String>,
    /// `--gateway-addr`: `gateway.listen_addr`.
    pub gateway_addr: Option<String>,
    /// `--metrics-addr`: `metrics.listen_addr`; empty is nowhere.
    pub metrics_addr: Option<String>,
    /// `--shards`: `runtime.shards`.
    pub shards: Option<i64>,
}

/// Flags of a stand-alone gateway, as far as they were given.
#[derive(Clone, Debug, Default)]
pub struct GatewayFlags {
    /// `--addr`: `listen_addr`.
    pub addr: Option<String>,
    /// `--namespace`: `client_namespace`.
    pub namespace: Option<String>,
    /// `--bootstrap-peers`, separated by commas.
    pub bootstrap_peers: Option<String>,
}

/// Reads variables and notes those that make no sense.
pub(super) struct Variables<'a> {
    environment: &'a Environment,
    /// What is wrong, `NAME: message` each.
    pub errors: Vec<String>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self { environment, errors: Vec::new() }
    }

    /// The value without blanks around it, unless that is empty.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.environment.get(name).map(|it| it.trim()).filter(|it| !it.is_empty())
    }

    /// The items of a list separated by commas; blank ones do not count.
    pub(super) fn list(&self, name: &str) -> Option<Vec<String>> {
        self.text(name).map(split_list)
    }

    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        let text = self.text(name)?;
        match text.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "yes" | "on" => Some(true),
            "0" | "f" | "false" | "no" | "off" => Some(false),
            _ => {
                self.errors.push(format!("{name}: must be true or false; got {text:?}"));
                None
            }
        }
    }

    pub(super) fn port(&mut self, name: &str) -> Option<i64> {
        let text = self.text(name)?;
        let port = text.parse::<u16>().ok().filter(|it| *it > 0);
        if port.is_none() {
            let what = format!("{name}: port must be a number between 1 and 65535; got {text:?}");
            self.errors.push(what);
        }
        port.map(i64::from)
    }
}

/// `NETWORK_DEV_LOCAL`: addresses that nobody chose lie on this machine only.
pub(super) fn is_dev_local(variables: &mut Variables<'_>) -> bool {
    variables.boolean("NETWORK_DEV_LOCAL").unwrap_or(false)
}

/// Put the environment, then the flags, over a node's file.
pub(super) fn apply(raw: &mut RawConfig, variables: &mut Variables<'_>, flags: &Flags) {
    let is_local = is_dev_local(variables);
    let any_host = if is_local { "127.0.0.1" } else { "0.0.0.0" };
    if is_local {
        let local = || vec!["/ip4/127.0.0.1/tcp/4001".to_owned()];
        raw.node.listen_addresses.get_or_insert_with(local);
    }
    replace(&mut raw.node.id, variables.text("NODE_ID").map(str::to_owned));
    replace(&mut raw.discovery.bootstrap_peers, variables.list("BOOTSTRAP_PEERS"));
    replace(&mut raw.database.rqlite_port, variables.port("RQLITE_PORT"));
    apply_gateway(&mut raw.gateway, variables);

    let given = |it: &Option<String>| it.clone().filter(|it| !it.is_empty());
    replace(&mut raw.node.data_dir, flags.data.clone());
    replace(&mut raw.node.id, flags.id.clone());
    let listen = flags.p2p_port.map(|it| vec![format!("/ip4/{any_host}/tcp/{it}")]);
    replace(&mut raw.node.listen_addresses, listen);
    replace(&mut raw.database.rqlite_port, flags.rqlite_http_port);
    replace(&mut raw.database.rqlite_raft_port, flags.rqlite_raft_port);
    replace(&mut raw.database.rqlite_join_address, given(&flags.rqlite_join_address));
    // A host alone: the rules add the port that the node has in the end.
    replace(&mut raw.discovery.http_adv_address, given(&flags.adv_addr));
    replace(&mut raw.discovery.raft_adv_address, given(&flags.adv_addr));
    replace(&mut raw.gateway.listen_addr, flags.gateway_addr.clone());
    replace(&mut raw.metrics.listen_addr, flags.metrics_addr.clone());
    replace(&mut raw.runtime.shards, flags.shards);
}

/// Put the `GATEWAY_` variables over the gateway's part.
pub(super) fn apply_gateway(raw: &mut RawGateway, variables: &mut Variables<'_>) {
    let text = |name: &str| variables.text(name).map(str::to_owned);
    replace(&mut raw.listen_addr, text("GATEWAY_ADDR"));
    replace(&mut raw.client_namespace, text("GATEWAY_NAMESPACE"));
    replace(&mut raw.rqlite_dsn, text("GATEWAY_RQLITE_DSN"));
    replace(&mut raw.bootstrap_peers, variables.list("GATEWAY_BOOTSTRAP_PEERS"));
    replace(&mut raw.api_keys, variables.list("GATEWAY_API_KEYS"));
    replace(&mut raw.require_auth, variables.boolean("GATEWAY_REQUIRE_AUTH"));
}

/// Put a stand-alone gateway's flags over its part.
pub(super) fn apply_gateway_flags(raw: &mut RawGateway, flags: &GatewayFlags) {
    replace(&mut raw.listen_addr, flags.addr.clone());
    replace(&mut raw.client_namespace, flags.namespace.clone());
    replace(&mut raw.bootstrap_peers, flags.bootstrap_peers.as_deref().map(split_list));
}

fn replace<T>(slot: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *slot = value;
    }
}

fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn blank_variables_do_not_count() {
        let environment = environment(&[("NODE_ID", " "), ("BOOTSTRAP_PEERS", " a, ,b,")]);
        let mut raw = RawConfig::default();
        raw.node.id = Some("from the file".to_owned());
        apply(&mut raw, &mut Variables::new(&environment), &Flags::default());
        assert_eq!(raw.node.id.as_deref(), Some("from the file"));
        assert_eq!(raw.discovery.bootstrap_peers.unwrap(), ["a", "b"]);
    }

    #[test]
    fn variables_that_make_no_sense_are_told() {
        let environment = environment(&[
            ("GATEWAY_REQUIRE_AUTH", "perhaps"),
            ("RQLITE_PORT", "0"),
            ("NETWORK_DEV_LOCAL", "2"),
        ]);
        let mut variables = Variables::new(&environment);
        apply(&mut RawConfig::default(), &mut variables, &Flags::default());
        assert_eq!(
            variables.errors,
            [
                "NETWORK_DEV_LOCAL: must be true or false; got \"2\"",
                "RQLITE_PORT: port must be a number between 1 and 65535; got \"0\"",
                "GATEWAY_REQUIRE_AUTH: must be true or false; got \"perhaps\"",
            ]
        );
    }

    #[test]
    fn a_local_network_stays_on_this_machine() {
        let environment = environment(&[("NETWORK_DEV_LOCAL", "1")]);
        for (flags, want) in [
            (Flags::default(), "/ip4/127.0.0.1/tcp/4001"),
            (Flags { p2p_port: Some(5), ..Flags::default() }, "/ip4/127.0.0.1/tcp/5"),
        ] {
            let mut raw = RawConfig::default();
            apply(&mut raw, &mut Variables::new(&environment), &flags);
            assert_eq!(raw.node.listen_addresses.unwrap(), [want]);
        }
    }
}
