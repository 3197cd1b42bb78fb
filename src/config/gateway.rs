//! The gateway's configuration, inside a node and on its own.
//!
//! A node's file has it as the section `gateway`; the file of a stand-alone gateway has the same keys at
//! the top. Two defaults differ: on its own it listens on every interface, and it asks a database that
//! runs elsewhere.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::config::address::HostPort;
use crate::config::checks::Rules;
use crate::config::checks::one_of;
use crate::config::error::ConfigError;
use crate::config::multiaddr::Multiaddr;
use crate::config::overrides;
use crate::config::overrides::Environment;
use crate::config::overrides::GatewayFlags;
use crate::config::overrides::Variables;
use crate::config::raw::RawGateway;
use crate::config::warnings;
use crate::types::Namespace;

/// What the gateway needs to know, wherever it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Where it listens.
    pub listen_addr: HostPort,
    /// Who an unauthenticated request is, when `require_auth` is off.
    pub client_namespace: Namespace,
    /// Whether a request without a credential is refused. A wrong one is refused always.
    pub require_auth: bool,
    /// Keys that are valid without being in the catalog; no key twice.
    pub api_keys: Vec<ApiKey>,
    /// What WebSocket subscribers are sent when they do not say.
    pub websocket_format: WebSocketFormat,
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a client may take to send a whole body.
    pub body_timeout: Duration,
    /// How long a client may take to read a whole reply.
    pub reply_timeout: Duration,
    /// How long a connection may lie idle between requests.
    pub idle_timeout: Duration,
    /// How long running requests may take when the gateway stops.
    pub shutdown_timeout: Duration,
}

/// `websocket_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSocketFormat {
    /// By how the client presents its credential.
    Auto,
    /// The payload in a binary frame.
    Raw,
    /// JSON with topic and time around it.
    Envelope,
}

/// A key and the namespace that it opens. Prints without the key.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    key: String,
    namespace: Namespace,
}

impl ApiKey {
    /// Read `key:namespace`; the key itself may contain colons.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.rsplit_once(':') {
            Some((key, namespace)) if !key.is_empty() => match Namespace::new(namespace) {
                Ok(namespace) => Ok(Self { key: key.to_owned(), namespace }),
                Err(_) => Err("invalid namespace; expected format key:namespace"),
            },
            _ => Err("expected format key:namespace"),
        }
    }

    /// What a client may show: the key alone, or `key:namespace`.
    pub fn credentials(&self) -> [String; 2] {
        [self.key.clone(), format!("{}:{}", self.key, self.namespace)]
    }

    /// What the key opens.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// What a gateway on its own needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandaloneGateway {
    /// The part that it shares with a node's gateway.
    pub gateway: Gateway,
    /// The rqlite-compatible API that serves `/v1/rqlite`.
    pub rqlite_dsn: String,
    /// Further endpoints of it (`RQLITE_NODES`), as they were written.
    pub rqlite_nodes: Vec<String>,
    /// Peers to connect to first.
    pub bootstrap_peers: Vec<Multiaddr>,
    /// Keys that the file sets in vain, a line each.
    pub warnings: Vec<String>,
}

impl StandaloneGateway {
    /// Read the file, if there is one, and what stands above it.
    pub fn load(
        file: Option<&Path>,
        environment: &Environment,
        flags: &GatewayFlags,
    ) -> Result<Self, ConfigError> {
        let text = file.map(super::read).transpose()?;
        Self::parse(text.as_deref(), environment, flags)
    }

    /// Like [`StandaloneGateway::load`], from the text of a file.
    pub fn parse(
        text: Option<&str>,
        environment: &Environment,
        flags: &GatewayFlags,
    ) -> Result<Self, ConfigError> {
        let mut raw = RawGateway::default();
        let unread = match text {
            Some(text) => super::decode(text, "main.yamlCfg", &mut raw)?,
            None => Vec::new(),
        };
        let mut variables = Variables::new(environment);
        let is_local = overrides::is_dev_local(&mut variables);
        let port = variables.port("RQLITE_PORT").unwrap_or(5_001);
        let (any_host, database_host) =
            if is_local { ("127.0.0.1", "127.0.0.1") } else { ("", "localhost") };
        // Blank values in the file count as left out.
        for it in [&mut raw.listen_addr, &mut raw.client_namespace, &mut raw.rqlite_dsn] {
            *it = it.take().filter(|it| !it.trim().is_empty());
        }
        let warnings = warnings::of_gateway(&raw);
        raw.listen_addr.get_or_insert_with(|| format!("{any_host}:6001"));
        raw.rqlite_dsn.get_or_insert_with(|| format!("http://{database_host}:{port}"));
        overrides::apply_gateway(&mut raw, &mut variables);
        overrides::apply_gateway_flags(&mut raw, flags);
        let rqlite_nodes = variables.text("RQLITE_NODES").unwrap_or_default();
        let is_separator = |it: char| it == ',' || it.is_whitespace();
        let rqlite_nodes = rqlite_nodes.split(is_separator).filter(|it| !it.is_empty());

        let mut rules = Rules::new(variables.errors);
        match check(&raw, "gateway.", &mut rules) {
            Some(it) if unread.is_empty() && rules.errors.is_empty() => Ok(Self {
                gateway: it.gateway,
                rqlite_dsn: raw.rqlite_dsn(),
                rqlite_nodes: rqlite_nodes.map(str::to_owned).collect(),
                bootstrap_peers: it.bootstrap_peers,
                warnings,
            }),
            _ => Err(ConfigError::Invalid {
                what: "Gateway configuration",
                unread,
                broken: rules.errors,
            }),
        }
    }
}

/// The checked keys of a gateway; a node has no use for the peers.
pub(super) struct Checked {
    pub gateway: Gateway,
    pub bootstrap_peers: Vec<Multiaddr>,
}

/// Check a gateway's keys, whose paths begin with `prefix`.
pub(super) fn check(raw: &RawGateway, prefix: &str, rules: &mut Rules) -> Option<Checked> {
    let path = |key: &str| format!("{prefix}{key}");
    let listen_addr = rules.check(&path("listen_addr"), HostPort::parse_listen(&raw.listen_addr()));
    let client_namespace = rules.namespace(&path("client_namespace"), &raw.client_namespace());
    let bootstrap_peers = rules.bootstrap_peers(&path("bootstrap_peers"), &raw.bootstrap_peers());
    if raw.rqlite_dsn.as_ref().is_some_and(|it| !it.is_empty()) {
        rules.check(&path("rqlite_dsn"), check_dsn(&raw.rqlite_dsn()));
    }
    let api_keys = api_keys(&raw.api_keys(), &path("api_keys"), rules);
    let websocket_format = match raw.websocket_format().as_str() {
        "auto" => Ok(WebSocketFormat::Auto),
        "raw" => Ok(WebSocketFormat::Raw),
        "envelope" => Ok(WebSocketFormat::Envelope),
        other => Err(one_of(other, "auto, raw, envelope")),
    };
    let websocket_format = rules.check(&path("websocket_format"), websocket_format);
    let header_timeout = rules.positive(&path("header_timeout"), raw.header_timeout());
    let body_timeout = rules.positive(&path("body_timeout"), raw.body_timeout());
    let reply_timeout = rules.positive(&path("reply_timeout"), raw.reply_timeout());
    let idle_timeout = rules.positive(&path("idle_timeout"), raw.idle_timeout());
    let shutdown_timeout = rules.positive(&path("shutdown_timeout"), raw.shutdown_timeout());
    let gateway = Gateway {
        listen_addr: listen_addr?,
        client_namespace: client_namespace?,
        require_auth: raw.require_auth(),
        api_keys: api_keys?,
        websocket_format: websocket_format?,
        header_timeout: header_timeout?,
        body_timeout: body_timeout?,
        reply_timeout: reply_timeout?,
        idle_timeout: idle_timeout?,
        shutdown_timeout: shutdown_timeout?,
    };
    Some(Checked { gateway, bootstrap_peers: bootstrap_peers? })
}

/// The keys. None is shown in a message.
fn api_keys(texts: &[String], path: &str, rules: &mut Rules) -> Option<Vec<ApiKey>> {
    let mut keys: Vec<ApiKey> = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let Some(key) = rules.check(&path, ApiKey::parse(text)) else { continue };
        if keys.iter().any(|it| it.key == key.key) {
            rules.wrong(&path, "duplicate api key");
        }
        keys.push(key);
    }
    (keys.len() == texts.len()).then_some(keys)
}

fn check_dsn(text: &str) -> Result<(), String> {
    if let Some(odd) = text.chars().find(|it| it.is_whitespace() || it.is_control()) {
        return Err(format!("invalid URL: invalid character {odd:?} in URL"));
    }
    let is_word = |it: &str| {
        it.starts_with(|it: char| it.is_ascii_alphabetic())
            && it.bytes().all(|it| it.is_ascii_alphanumeric() || b"+-.".contains(&it))
    };
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if is_word(scheme) => (scheme, rest),
        Some(("", _)) => return Err("invalid URL: missing protocol scheme".to_owned()),
        _ => ("", text),
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(format!("scheme must be http or https; got {scheme:?}"));
    }
    let authority = rest.strip_prefix("//").unwrap_or_default();
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Err("host must not be empty".to_owned());
    }
    // A port is a number; the colons of an IPv6 address are inside brackets.
    match host.rsplit(']').next().unwrap_or_default().split_once(':') {
        Some((_, port)) if port.parse::<u16>().is_err() => {
            Err(format!("invalid URL: invalid port {:?} after host", format!(":{port}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::Expect;
    use expect_test::expect;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn check_report(text: &str, expect: Expect) {
        let error =
            StandaloneGateway::parse(Some(text), &Environment::new(), &GatewayFlags::default())
                .unwrap_err();
        expect.assert_eq(&error.report());
    }

    #[test]
    fn keys_are_split_at_their_last_colon() {
        for (text, want) in [
            ("ak_x:ns", Ok(("ak_x", "ns"))),
            ("ak_x:default:ns", Ok(("ak_x:default", "ns"))),
            ("ak_x", Err("expected format key:namespace")),
            (":ns", Err("expected format key:namespace")),
            ("ak_x:", Err("invalid namespace; expected format key:namespace")),
            ("ak_x:a b", Err("invalid namespace; expected format key:namespace")),
        ] {
            let got = ApiKey::parse(text);
            let got = got.as_ref().map(|it| (it.key.as_str(), it.namespace.as_str()));
            assert_eq!(got.map_err(|it| *it), want, "{text:?}");
        }
        let key = ApiKey::parse("ak_x:ns").unwrap();
        assert_eq!(key.credentials(), ["ak_x", "ak_x:ns"]);
        assert!(!format!("{key:?}").contains("ak_x"), "a key was printed");
    }

    #[test]
    fn flags_stand_above_variables_above_the_file_above_the_defaults() {
        let none = (Environment::new(), GatewayFlags::default());
        let variables = environment(&[("GATEWAY_ADDR", ":2"), ("GATEWAY_NAMESPACE", "two")]);
        let flags = GatewayFlags { addr: Some(":3".to_owned()), ..GatewayFlags::default() };
        let file = "listen_addr: ':1'\nclient_namespace: one\n";
        for (text, environment, flags, want) in [
            (None, &none.0, &none.1, (":6001", "default")),
            (
                Some("listen_addr: ''\nclient_namespace: ' '"),
                &none.0,
                &none.1,
                (":6001", "default"),
            ),
            (Some(file), &none.0, &none.1, (":1", "one")),
            (Some(file), &variables, &none.1, (":2", "two")),
            (Some(file), &variables, &flags, (":3", "two")),
        ] {
            let it = StandaloneGateway::parse(text, environment, flags).unwrap().gateway;
            let got = (it.listen_addr.to_string(), it.client_namespace.to_string());
            assert_eq!((got.0.as_str(), got.1.as_str()), want);
        }
    }

    #[test]
    fn the_database_is_asked_where_the_environment_says() {
        for (pairs, dsn, nodes) in [
            (&[][..], "http://localhost:5001", vec![]),
            (&[("RQLITE_PORT", "5003")], "http://localhost:5003", vec![]),
            (&[("NETWORK_DEV_LOCAL", "1")], "http://127.0.0.1:5001", vec![]),
            (
                &[("GATEWAY_RQLITE_DSN", "https://u:p@db?level=none")],
                "https://u:p@db?level=none",
                vec![],
            ),
            (&[("RQLITE_NODES", "a:1, b\tc")], "http://localhost:5001", vec!["a:1", "b", "c"]),
        ] {
            let environment = environment(pairs);
            let it = StandaloneGateway::parse(None, &environment, &GatewayFlags::default());
            let it = it.unwrap();
            assert_eq!(
                (it.rqlite_dsn.as_str(), it.rqlite_nodes),
                (dsn, nodes.into_iter().map(str::to_owned).collect())
            );
        }
    }

    #[test]
    fn the_report_tells_everything() {
        check_report(
            "listen_adr: x\nlisten_addr: nowhere\nclient_namespace: a:b\nrqlite_dsn: ftp://x\n\
             bootstrap_peers: [/ip4/1.2.3.4/tcp/1]\napi_keys: [secret]\nwebsocket_format: xml\n\
             idle_timeout: 0s\nrequire_auth: 7\n",
            expect![[r#"
                Configuration load error: invalid config: yaml: unmarshal errors:
                  line 1: field listen_adr not found in type main.yamlCfg
                  line 9: cannot unmarshal !!int `7` into bool

                Gateway configuration errors (7):
                  - gateway.listen_addr: invalid format; expected host:port
                  - gateway.client_namespace: invalid namespace; expected 1 to 64 of A-Z, a-z, 0-9, _ and -
                  - gateway.bootstrap_peers[0]: missing /p2p/<peerID> component; expected /ip{4,6}/.../tcp/<port>/p2p/<peerID>
                  - gateway.rqlite_dsn: scheme must be http or https; got "ftp"
                  - gateway.api_keys[0]: expected format key:namespace
                  - gateway.websocket_format: invalid value "xml"; allowed values: auto, raw, envelope
                  - gateway.idle_timeout: must be > 0; got 0s

                Please fix the configuration and try again.
            "#]],
        );
    }

    #[test]
    fn dsns() {
        for (text, want) in [
            ("http://localhost:5001", Ok(())),
            ("https://user:pass@[::1]:5001/?level=none", Ok(())),
            ("localhost:5001", Err("scheme must be http or https; got \"localhost\"")),
            ("//localhost", Err("scheme must be http or https; got \"\"")),
            ("::", Err("invalid URL: missing protocol scheme")),
            ("http://", Err("host must not be empty")),
            ("http://:5001", Err("host must not be empty")),
            ("http:localhost", Err("host must not be empty")),
            ("http://a b", Err("invalid URL: invalid character ' ' in URL")),
            ("http://a:b", Err("invalid URL: invalid port \":b\" after host")),
        ] {
            assert_eq!(check_dsn(text), want.map_err(str::to_owned), "{text:?}");
        }
    }
}
