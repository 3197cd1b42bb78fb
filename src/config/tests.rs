//! Whole configurations: what they become, and what is told of those that are wrong.

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
