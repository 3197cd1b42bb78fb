//! `debros node`: flags, environment and file become a configuration, and the node runs with it.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::Command;
use clap::value_parser;

use crate::cli::Failure;
use crate::cli::World;
use crate::cli::exit::Exit;
use crate::cli::switch;
use crate::cli::text;
use crate::config::Config;
use crate::config::LogFormat;
use crate::config::Logging;
use crate::config::Overrides;
use crate::config::overrides::Flags;
use crate::observe::logging;

/// The subcommand and its flags.
pub(super) fn command() -> Command {
    let number = |name: &'static str, value: &'static str, help: &'static str| {
        text(name, value, help).value_parser(value_parser!(i64))
    };
    Command::new("node").about("Run a node of the network").args([
        text("config", "FILE", "YAML file; every key is optional"),
        text("data", "DIR", "Data directory [node.data_dir]"),
        text("id", "NAME", "Name for people [node.id]"),
        number(
            "p2p-port",
            "PORT",
            "TCP port of libp2p, on every interface [node.listen_addresses]",
        ),
        number("rqlite-http-port", "PORT", "Port of the rqlite API [database.rqlite_port]"),
        number("rqlite-raft-port", "PORT", "Port of node links [database.rqlite_raft_port]"),
        text(
            "rqlite-join-address",
            "HOST:PORT",
            "A member to join through [database.rqlite_join_address]",
        ),
        text(
            "adv-addr",
            "HOST",
            "Host under which others reach this node [discovery.*_adv_address]",
        ),
        text("gateway-addr", "HOST:PORT", "Where the gateway listens [gateway.listen_addr]"),
        text(
            "metrics-addr",
            "HOST:PORT",
            "Where the page for Prometheus is, empty for none [metrics.listen_addr]",
        ),
        number("shards", "N", "Cores to use, 0 for all [runtime.shards]"),
        switch("check-config", "Check the configuration and exit"),
    ])
}

/// Run the node until it is told to stop, or only check the configuration.
pub(super) fn run(matches: &ArgMatches, world: &mut World<'_>) -> Result<(), Failure> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let number = |name: &str| matches.get_one::<i64>(name).copied();
    let file = text("config").filter(|it| !it.is_empty()).map(PathBuf::from);
    let flags = Flags {
        data: text("data").filter(|it| !it.is_empty()),
        id: text("id").filter(|it| !it.is_empty()),
        p2p_port: number("p2p-port"),
        rqlite_http_port: number("rqlite-http-port"),
        rqlite_raft_port: number("rqlite-raft-port"),
        rqlite_join_address: text("rqlite-join-address"),
        adv_addr: text("adv-addr"),
        gateway_addr: text("gateway-addr"),
        metrics_addr: text("metrics-addr"),
        shards: number("shards"),
    };
    if file.is_none() && flags.data.is_none() && flags.id.is_none() {
        return Err(Failure::new(
            Exit::Failure,
            "at least one of --config, --data, --id is required",
        ));
    }
    let overrides =
        Overrides { environment: &world.environment, flags: &flags, cores: world.cores };
    let is_check = matches.get_flag("check-config");
    let config = Config::load(file.as_deref(), &overrides).map_err(|error| {
        let is_directory = !is_check && error.is_about_directories_only();
        let exit = if is_directory { Exit::DataDir } else { Exit::Failure };
        Failure { exit, report: error.report() }
    })?;
    if is_check {
        for warning in &config.warnings {
            world.complain(&format!("warning: {warning}\n"));
        }
        return world.print("configuration ok\n");
    }
    let options = logging_options(&config.logging);
    (world.log)(&options).map_err(|error| Failure::from_error(Exit::Failure, &error))?;
    for warning in &config.warnings {
        tracing::warn!(%warning, "a setting has no effect");
    }
    (world.start)(config)
}

/// What `observe` needs to know of the configuration, which it does not know.
fn logging_options(logging: &Logging) -> logging::Options {
    logging::Options {
        level: logging.level,
        format: match logging.format {
            LogFormat::Console => logging::Format::Console,
            LogFormat::Json => logging::Format::Json,
        },
        output_file: logging.output_file.clone(),
    }
}
