//! Tests of the files in `configs/`: they load, name every key, and tell the true defaults.
//!
//! Each key stands under a comment that ends with ``Default: `…`.``, so that the file of all documented
//! defaults can be made from it and compared with what leaving everything out gives.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::config::Config;
use crate::config::gateway::StandaloneGateway;
use crate::config::overrides::Environment;
use crate::config::overrides::GatewayFlags;
use crate::config::raw::RawConfig;
use crate::config::raw::RawGateway;
use crate::config::tests::parse;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
    fs::read_to_string(path).unwrap()
}

/// The same file with every value replaced by its documented default.
fn with_documented_defaults(text: &str) -> String {
    let mut result = String::new();
    let mut default: Option<&str> = None;
    for line in text.lines() {
        let code = line.trim_start();
        if let Some(comment) = code.strip_prefix('#') {
            if let Some((_, rest)) = comment.split_once("Default: `") {
                default = rest.split('`').next();
            }
        } else if let Some((key, _)) = code.split_once(':').filter(|_| !code.starts_with('-')) {
            let indent = &line[..line.len() - code.len()];
            if code.ends_with(':') && default.is_none() {
                result.extend([line, "\n"]); // a section
            } else {
                let default = default.take().unwrap_or_else(|| panic!("{key} tells no default"));
                result.extend([indent, key, ": ", default, "\n"]);
            }
        }
    }
    assert_eq!(default, None, "a default belongs to no key");
    result
}

#[test]
fn the_files_of_nodes_load() {
    for name in ["bootstrap.yaml", "node.yaml", "node3.yaml"] {
        if let Err(error) = parse(Some(&shipped(name))) {
            panic!("{name}: {}", error.report());
        }
    }
}

#[test]
fn the_file_of_the_gateway_loads() {
    let (environment, flags) = (Environment::new(), GatewayFlags::default());
    let text = shipped("gateway.yaml");
    if let Err(error) = StandaloneGateway::parse(Some(&text), &environment, &flags) {
        panic!("{}", error.report());
    }
    let documented = with_documented_defaults(&text);
    let documented = StandaloneGateway::parse(Some(&documented), &environment, &flags).unwrap();
    assert_eq!(documented, StandaloneGateway::parse(None, &environment, &flags).unwrap());
    let mut raw = RawGateway::default();
    super::decode(&text, "main.yamlCfg", &mut raw).unwrap();
    assert!(!format!("{raw:?}").contains("None"), "a key is missing: {raw:?}");
}

#[test]
fn the_files_of_nodes_name_every_key_and_its_true_default() {
    for name in ["bootstrap.yaml", "node.yaml", "node3.yaml"] {
        let text = shipped(name);
        let mut raw = RawConfig::default();
        let unread = super::decode(&text, "config.Config", &mut raw).unwrap();
        assert_eq!(unread, Vec::<String>::new(), "{name}");
        assert!(!format!("{raw:?}").contains("None"), "{name} misses a key: {raw:?}");
        let documented = parse(Some(&with_documented_defaults(&text))).unwrap();
        assert_eq!(documented, parse(None).unwrap(), "{name} documents another default");
    }
}

#[test]
fn the_nodes_can_run_side_by_side() {
    let configs =
        ["bootstrap.yaml", "node.yaml", "node3.yaml"].map(|it| parse(Some(&shipped(it))).unwrap());
    let claims = |it: &Config| {
        let mut claims: Vec<String> =
            it.node.listen_addresses.iter().map(|it| it.port().to_string()).collect();
        claims.push(it.database.rqlite_port.to_string());
        claims.push(it.database.rqlite_raft_port.to_string());
        claims.push(it.gateway.listen_addr.port.to_string());
        claims.extend(it.metrics.listen_addr.as_ref().map(|it| it.port.to_string()));
        claims.push(it.node.data_dir.display().to_string());
        claims.push(format!("{} of the database", it.database.data_dir.display()));
        claims
    };
    let all: Vec<String> = configs.iter().flat_map(claims).collect();
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "two nodes claim the same: {all:?}");
    let raft_port = configs[0].database.rqlite_raft_port;
    for it in &configs[1..] {
        let join = it.database.join_address.as_ref().unwrap();
        assert_eq!(join.port, raft_port, "joins somebody else");
    }
}
