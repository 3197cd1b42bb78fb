//! What a broken rule says, section by section.

use expect_test::expect;

use crate::config::NodeKind;
use crate::config::tests::check;
use crate::config::tests::parse;

#[test]
fn broken_rules_of_a_node() {
    check(
        "node:\n  type: nodule\n  listen_addresses: []\n  data_dir: ''\n  max_connections: -1\n",
        expect![[r#"

            Configuration errors (4):
              - node.type: must be one of [bootstrap node]; got "nodule"
              - node.listen_addresses: must not be empty
              - node.data_dir: must not be empty
              - node.max_connections: must be > 0; got -1

            Please fix the configuration and try again.
        "#]],
    );
    check(
        "node:\n  listen_addresses:\n    - x\n    - /ip4/1.2.3.4/udp/4001\n    \
         - /ip4/1.2.3.4/tcp/0\n    - /ip4/1.2.3.4/tcp/1\n    - /ip4/1.2.3.4/tcp/1\n    \
         - /ip4/1.2.3.4/tcp/99999\n  data_dir: /dev/null\n",
        expect![[r#"

            Configuration errors (6):
              - node.listen_addresses[0]: invalid multiaddr: failed to parse multiaddr "x": must begin with /; expected /ip{4,6}/.../ tcp/<port>
              - node.listen_addresses[1]: cannot convert multiaddr to network address: network not supported: udp; ensure multiaddr contains /tcp/<port>
              - node.listen_addresses[2]: invalid TCP port 0; port must be between 1 and 65535
              - node.listen_addresses[4]: duplicate listen address
              - node.listen_addresses[5]: invalid multiaddr: failed to parse multiaddr "/ip4/1.2.3.4/tcp/99999": invalid value "99999" for protocol tcp: failed to parse port addr: strconv.ParseUint: parsing "99999": value out of range; expected /ip{4,6}/.../ tcp/<port>
              - node.data_dir: path exists but is not a directory

            Please fix the configuration and try again.
        "#]],
    );
}

#[test]
fn broken_rules_of_a_database() {
    check(
        "database:\n  data_dir: /dev/null/x\n  replication_factor: 0\n  shard_count: 5000\n  \
         max_database_size: -1\n  backup_interval: -1s\n  rqlite_port: 7001\n",
        expect![[r#"

            Configuration errors (6):
              - database.data_dir: parent directory not writable: path is not a directory
              - database.replication_factor: must be >= 1; got 0
              - database.shard_count: must be <= 4096; got 5000
              - database.max_database_size: must be >= 0; got -1
              - database.backup_interval: must be >= 0; got -1s
              - database.rqlite_raft_port: must differ from database.rqlite_port (7001)

            Please fix the configuration and try again.
        "#]],
    );
    for address in ["host", "http://host:1", ":1", "host:0"] {
        let text = format!("database: {{rqlite_join_address: '{address}'}}");
        assert_eq!(
            parse(Some(&text)).unwrap_err().report().matches("database.rqlite_join").count(),
            1,
            "{address}"
        );
    }
    check(
        "database: {rqlite_join_address: 'host'}",
        expect![[r#"

        Configuration errors (1):
          - database.rqlite_join_address: expected format host:port; expected format: host:port

        Please fix the configuration and try again.
    "#]],
    );
    check(
        "database: {rqlite_join_address: 'host:x'}",
        expect![[r#"

        Configuration errors (1):
          - database.rqlite_join_address: port must be a number between 1 and 65535; got "x"; expected format: host:port

        Please fix the configuration and try again.
    "#]],
    );
    check(
        "node: {type: node}",
        expect![[r#"

        Configuration errors (1):
          - database.rqlite_join_address: required for node type (non-bootstrap)

        Please fix the configuration and try again.
    "#]],
    );
    check(
        "node: {type: bootstrap}\ndatabase: {rqlite_join_address: 'a:1'}",
        expect![[r#"

        Configuration errors (1):
          - database.rqlite_join_address: must be empty for bootstrap type

        Please fix the configuration and try again.
    "#]],
    );
    let config = parse(Some("database: {rqlite_join_address: '[::1]:7001'}")).unwrap();
    assert_eq!(config.database.join_address.unwrap().to_string(), "[::1]:7001");
    assert_eq!(config.node.kind, NodeKind::Node);
}

#[test]
fn broken_rules_of_discovery_security_and_logging() {
    const PEER: &str = "/p2p/12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB";
    check(
        &format!(
            "discovery:\n  discovery_interval: 0s\n  bootstrap_port: 0\n  \
             bootstrap_peers:\n    - nowhere\n    - /ip4/1.2.3.4/tcp/1\n    \
             - /ip4/1.2.3.4{PEER}\n    - /ip4/1.2.3.4/tcp/0{PEER}\n    \
             - /ip4/1.2.3.4/tcp/1{PEER}\n    - /ip4/1.2.3.4/tcp/1{PEER}\n  \
             http_adv_address: 'x:y'\n  raft_adv_address: ':1'\n  node_namespace: a.b\n"
        ),
        expect![[r#"

            Configuration errors (10):
              - discovery.discovery_interval: must be > 0; got 0s
              - discovery.bootstrap_port: must be between 1 and 65535; got 0
              - discovery.bootstrap_peers[0]: invalid multiaddr: failed to parse multiaddr "nowhere": must begin with /; expected /ip{4,6}/.../tcp/<port>/p2p/<peerID>
              - discovery.bootstrap_peers[1]: missing /p2p/<peerID> component; expected /ip{4,6}/.../tcp/<port>/p2p/<peerID>
              - discovery.bootstrap_peers[2]: missing /tcp/<port> component; expected /ip{4,6}/.../tcp/<port>/p2p/<peerID>
              - discovery.bootstrap_peers[3]: invalid TCP port 0; port must be between 1 and 65535
              - discovery.bootstrap_peers[5]: duplicate bootstrap peer
              - discovery.http_adv_address: port must be a number between 1 and 65535; got "y"; expected format: host or host:port
              - discovery.raft_adv_address: host must not be empty; expected format: host or host:port
              - discovery.node_namespace: invalid namespace; expected 1 to 64 of A-Z, a-z, 0-9, _ and -

            Please fix the configuration and try again.
        "#]],
    );
    check(
        "security:\n  enable_tls: true\n  certificate_file: /nowhere\nlogging:\n  \
         level: loud\n  format: xml\n  output_file: /dev/null/x\n",
        expect![[r#"

            Configuration errors (5):
              - security.private_key_file: required when enable_tls is true
              - security.certificate_file: cannot read file: open /nowhere: no such file or directory
              - logging.level: invalid value "loud"; allowed values: debug, info, warn, error
              - logging.format: invalid value "xml"; allowed values: json, console
              - logging.output_file: parent directory not writable: path is not a directory

            Please fix the configuration and try again.
        "#]],
    );
}

#[test]
fn broken_rules_of_the_new_sections() {
    check(
        "gateway:\n  listen_addr: ''\n  api_keys: ['a:b', 'a:c', secret]\nruntime:\n  shards: -1\n  \
         io_memory_bytes: 1\n  spin_us: -1\nlimits:\n  body_bytes: 0\n  header_bytes: 100\n  \
         result_rows: 5000000000\n  database_bytes: -1\n  log_bytes: 0\n",
        expect![[r#"

            Configuration errors (11):
              - gateway.listen_addr: must not be empty
              - gateway.api_keys[1]: duplicate api key
              - gateway.api_keys[2]: expected format key:namespace
              - runtime.shards: must be between 0 and 1024; got -1
              - runtime.io_memory_bytes: must be between 65536 and 1073741824; got 1
              - runtime.spin_us: must be between 0 and 1000000; got -1
              - limits.body_bytes: must be between 1 and 10485760; got 0
              - limits.header_bytes: must be between 8192 and 1048576; got 100
              - limits.result_rows: must be between 1 and 4294967295; got 5000000000
              - limits.database_bytes: must be between 0 and 9223372036854775807; got -1
              - limits.log_bytes: must be between 1048576 and 1099511627776; got 0

            Please fix the configuration and try again.
        "#]],
    );
}

#[test]
fn where_metrics_are_served() {
    let gateway = |it: &str| format!("gateway:\n  listen_addr: '{it}'\n");
    let metrics = |it: &str| format!("metrics:\n  listen_addr: '{it}'\n");
    for (name, text, want) in [
        ("the default", "logging: {}\n".to_owned(), Some("127.0.0.1:6002")),
        ("nowhere", metrics(""), None),
        ("nowhere, and the gateway there", gateway(":6002") + &metrics(""), None),
        ("everywhere", metrics(":7000"), Some(":7000")),
        ("one host, two ports", gateway(":7000") + &metrics(":7001"), Some(":7001")),
        (
            "two hosts, one port",
            gateway("10.0.0.1:7000") + &metrics("127.0.0.1:7000"),
            Some("127.0.0.1:7000"),
        ),
    ] {
        let got = parse(Some(&text)).unwrap_or_else(|it| panic!("{name}: {}", it.report()));
        let got = got.metrics.listen_addr.map(|it| it.to_string());
        assert_eq!(got.as_deref(), want, "{name}");
    }
    for (name, text, want) in [
        ("no port", metrics("7000"), "invalid format; expected host:port"),
        (
            "the gateway is at the default",
            gateway(":6002"),
            "must differ from gateway.listen_addr (:6002); got 127.0.0.1:6002",
        ),
        (
            "another spelling",
            gateway("localhost:7000") + &metrics("127.0.0.1:7000"),
            "must differ from gateway.listen_addr (localhost:7000); got 127.0.0.1:7000",
        ),
        (
            "the same wildcard",
            gateway("0.0.0.0:7000") + &metrics(":7000"),
            "must differ from gateway.listen_addr (0.0.0.0:7000); got :7000",
        ),
    ] {
        let report = parse(Some(&text)).expect_err(name).report();
        let line = format!("- metrics.listen_addr: {want}\n");
        assert!(report.contains(&line), "{name}: {report}");
    }
}

#[test]
fn from_when_on_statements_are_slow() {
    let of = |it: i64| parse(Some(&format!("logging:\n  slow_statement_ms: {it}\n")));
    for (ms, want) in [(0, None), (1, Some(1)), (3_600_000, Some(3_600_000))] {
        let got = of(ms).unwrap().logging.slow_statement;
        assert_eq!(got, want.map(std::time::Duration::from_millis), "{ms}");
    }
    for ms in [-1, 3_600_001] {
        let want = format!("logging.slow_statement_ms: must be between 0 and 3600000; got {ms}");
        let report = of(ms).unwrap_err().report();
        assert!(report.contains(&want), "{report}");
    }
}
