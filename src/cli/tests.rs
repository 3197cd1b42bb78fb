//! What people type, and what they read.

use std::fs;
use std::os::unix::ffi::OsStringExt;

use expect_test::Expect;
use expect_test::expect;

use super::*;

/// Type `line` in a world without variables, whose nodes say what they would run; `DIR` is a
/// directory of our own. Shows what is printed, what is complained, and the exit code.
fn typed(line: &str, directory: &Path) -> String {
    let directory = directory.to_str().unwrap();
    let words = line.split_whitespace().map(|it| it.replace("DIR", directory).into());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut world = World {
        environment: Environment::new(),
        cores: 4,
        stdout: &mut stdout,
        stderr: &mut stderr,
        log: &|_| Ok(()),
        start: &|config| {
            let message = format!("would run on {}", config.gateway.listen_addr);
            Err(Failure::new(Exit::PortInUse, &message))
        },
    };
    let code = run(words, &mut world).code();
    let mut shown = String::new();
    for (name, text) in [("out", stdout), ("err", stderr)] {
        for line in String::from_utf8(text).unwrap().lines() {
            shown.extend([name, ": ", line.replace(directory, "DIR").trim_end(), "\n"]);
        }
    }
    shown.extend([format!("exit {code}\n")]);
    shown
}

fn check(line: &str, expect: Expect) {
    expect.assert_eq(&typed(line, tempfile::tempdir().unwrap().path()));
}

#[test]
fn help_and_version_are_printed() {
    check(
        "debros",
        expect![[r#"
            err: One executable that turns a few Linux machines into a network
            err: 
            err: Usage: debros <COMMAND>
            err: 
            err: Commands:
            err:   node      Run a node of the network
            err:   identity  Make the key that is a node's identity
            err:   repair    List fenced namespaces of a stopped node, export one, or lift its fence
            err:   bench     Load a server, measure it, and see whether it kept what it acknowledged
            err:   version   Print the version
            err: 
            err: Options:
            err:   -h, --help  Print help
            exit 2
        "#]],
    );
    check(
        "debros -help",
        expect![[r#"
            out: One executable that turns a few Linux machines into a network
            out: 
            out: Usage: debros <COMMAND>
            out: 
            out: Commands:
            out:   node      Run a node of the network
            out:   identity  Make the key that is a node's identity
            out:   repair    List fenced namespaces of a stopped node, export one, or lift its fence
            out:   bench     Load a server, measure it, and see whether it kept what it acknowledged
            out:   version   Print the version
            out: 
            out: Options:
            out:   -h, --help  Print help
            exit 0
        "#]],
    );
    check(
        "debros version",
        expect![[r#"
        out: debros 0.1.0
        exit 0
    "#]],
    );
    check(
        "node -h",
        expect![[r#"
            out: Run a node of the network
            out: 
            out: Usage: debros node [OPTIONS]
            out: 
            out: Options:
            out:       --config <FILE>
            out:           YAML file; every key is optional
            out:       --data <DIR>
            out:           Data directory [node.data_dir]
            out:       --id <NAME>
            out:           Name for people [node.id]
            out:       --p2p-port <PORT>
            out:           TCP port of libp2p, on every interface [node.listen_addresses]
            out:       --rqlite-http-port <PORT>
            out:           Port of the rqlite API [database.rqlite_port]
            out:       --rqlite-raft-port <PORT>
            out:           Port of node links [database.rqlite_raft_port]
            out:       --rqlite-join-address <HOST:PORT>
            out:           A member to join through [database.rqlite_join_address]
            out:       --adv-addr <HOST>
            out:           Host under which others reach this node [discovery.*_adv_address]
            out:       --gateway-addr <HOST:PORT>
            out:           Where the gateway listens [gateway.listen_addr]
            out:       --metrics-addr <HOST:PORT>
            out:           Where the page for Prometheus is, empty for none [metrics.listen_addr]
            out:       --shards <N>
            out:           Cores to use, 0 for all [runtime.shards]
            out:       --check-config[=<BOOL>]
            out:           Check the configuration and exit
            out:   -h, --help
            out:           Print help
            exit 0
        "#]],
    );
}

#[test]
fn an_unknown_word_or_flag_is_a_usage_error() {
    check(
        "debros nod",
        expect![[r#"
        err: error: unrecognized subcommand 'nod'
        err: 
        err: Usage: debros <COMMAND>
        err: 
        err: For more information, try '--help'.
        exit 2
    "#]],
    );
    check(
        "debros node -dat x",
        expect![[r#"
            err: error: unexpected argument '--dat' found
            err: 
            err: Usage: debros node [OPTIONS]
            err: 
            err: For more information, try '--help'.
            exit 2
        "#]],
    );
    check(
        "debros node -p2p-port x",
        expect![[r#"
        err: error: invalid value 'x' for '--p2p-port <PORT>': invalid digit found in string
        err: 
        err: For more information, try '--help'.
        exit 2
    "#]],
    );
    check(
        "debros node -data",
        expect![[r#"
        err: error: a value is required for '--data <DIR>' but none was supplied
        err: 
        err: For more information, try '--help'.
        exit 2
    "#]],
    );
    check(
        "debros node --check-config=perhaps",
        expect![[r#"
            err: error: invalid value 'perhaps' for '--check-config[=<BOOL>]': value was not a boolean
            err: 
            err: For more information, try '--help'.
            exit 2
        "#]],
    );
    let words = ["node".into(), OsString::from_vec(b"-data=\xff".to_vec())];
    let mut world = World {
        environment: Environment::new(),
        cores: 4,
        stdout: &mut Vec::new(),
        stderr: &mut Vec::new(),
        log: &|_| Ok(()),
        start: &|_| Ok(()),
    };
    assert_eq!(run(words.into_iter(), &mut world), Exit::Usage);
}

#[test]
fn a_node_needs_to_be_told_something() {
    for line in ["debros node", "node", "node -p2p-port 5 -config= -check-config"] {
        check(
            line,
            expect![[r#"
            err: at least one of --config, --data, --id is required
            exit 1
        "#]],
        );
    }
}

#[test]
fn a_configuration_can_be_checked_without_running_it() {
    check(
        "node --check-config --data DIR/new",
        expect![[r#"
        out: configuration ok
        exit 0
    "#]],
    );
    check(
        "/usr/bin/node -check-config=true -data=DIR/new",
        expect![[r#"
        out: configuration ok
        exit 0
    "#]],
    );
    check(
        "node --check-config --data DIR --p2p-port 0 --shards -1",
        expect![[r#"
        err: 
        err: Configuration errors (2):
        err:   - node.listen_addresses[0]: invalid TCP port 0; port must be between 1 and 65535
        err:   - runtime.shards: must be between 0 and 1024; got -1
        err: 
        err: Please fix the configuration and try again.
        exit 1
    "#]],
    );
    check(
        "node --check-config --config DIR/none.yaml",
        expect![[r#"
        err: Configuration load error: failed to open config file: open DIR/none.yaml: no such file or directory
        exit 1
    "#]],
    );
    check(
        "node --check-config --data DIR more --shards -1",
        expect![[r#"
        out: configuration ok
        err: warning: ignored after the flags: more --shards -1
        exit 0
    "#]],
    );
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("c.yaml"), "database: {rqlite_port: 5007}").unwrap();
    expect![[r#"
        out: configuration ok
        err: warning: database.rqlite_port: has no effect in this version
        exit 0
    "#]]
    .assert_eq(&typed("node -config DIR/c.yaml -check-config", scratch.path()));
}

#[test]
fn a_node_runs_with_what_its_flags_say() {
    check(
        "debros node -data DIR -gateway-addr=:7 --id n",
        expect![[r#"
        err: would run on :7
        exit 76
    "#]],
    );
}

#[test]
fn an_identity_is_shown_or_saved() {
    let scratch = tempfile::tempdir().unwrap();
    let without_id = |line: &str| {
        let shown = typed(line, scratch.path());
        let at = shown.find("12D3KooW").expect("a peer id");
        (shown[at..at + 52].to_owned(), shown.replace(&shown[at..at + 52], "ID"))
    };
    let (shown, text) = without_id("debros identity -display-only");
    expect![[r#"
        out: Node Identity: ID
        exit 0
    "#]]
    .assert_eq(&text);
    let (saved, text) = without_id("identity --output DIR/a/identity.key");
    expect![[r#"
        out: Generated Node Identity: ID
        out: Identity saved to: DIR/a/identity.key
        exit 0
    "#]]
    .assert_eq(&text);
    assert_ne!(shown, saved);
    let loaded = crate::config::identity::Identity::load_or_create(&scratch.path().join("a"));
    assert_eq!(loaded.unwrap().peer_id().to_string(), saved);
    expect![[r#"
        err: DIR/a/identity.key exists already
        exit 1
    "#]]
    .assert_eq(&typed("identity -output DIR/a/identity.key", scratch.path()));
    expect![[r#"
        err: Output path is required
        exit 1
    "#]]
    .assert_eq(&typed("identity", scratch.path()));
}
