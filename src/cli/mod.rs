//! What a person may type.
//!
//! `debros <subcommand> [flags]`; a link to the executable that is named like a subcommand behaves as that
//! subcommand. The process's surroundings come in as a [`World`], so that tests can type, too.
//!
//! Start reading at [`run`].

mod arguments;
mod bench;
pub mod exit;
mod identity;
mod node;
mod repair;

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use clap::Arg;
use clap::ArgAction;
use clap::Command;
use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;

use crate::cli::arguments::normalize;
use crate::cli::exit::Exit;
use crate::config::Config;
use crate::config::overrides::Environment;
use crate::node::BootError;
use crate::observe::logging;
use crate::observe::logging::LoggingError;

/// Everything outside that a subcommand may touch, files aside.
pub struct World<'a> {
    /// The environment variables.
    pub environment: Environment,
    /// Online cores.
    pub cores: u16,
    /// Standard output: what was asked for.
    pub stdout: &'a mut dyn Write,
    /// Standard error: what went wrong.
    pub stderr: &'a mut dyn Write,
    /// Sets up the log of the process.
    pub log: &'a dyn Fn(&logging::Options) -> Result<(), LoggingError>,
    /// Runs a node until it is told to stop.
    pub start: &'a dyn Fn(Config) -> Result<(), Failure>,
}

/// A subcommand ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the parent process sees.
    pub exit: Exit,
    /// What the person sees: whole lines.
    pub report: String,
}

impl Failure {
    /// A failure that is told in one line.
    pub fn new(exit: Exit, message: &str) -> Self {
        Self { exit, report: format!("{message}\n") }
    }

    /// A failure that is told in one line, with the causes of `error`.
    pub fn from_error(exit: Exit, error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(it) = cause {
            message = format!("{message}: {it}");
            cause = it.source();
        }
        Self::new(exit, &message)
    }
}

impl From<&BootError> for Failure {
    fn from(error: &BootError) -> Self {
        let exit = match error {
            BootError::IoUring(_) => Exit::IoUring,
            BootError::Cores { .. } => Exit::Cores,
            BootError::Memlock { .. } | BootError::OpenFiles { .. } => Exit::ResourceLimit,
            BootError::DataDir { .. } => Exit::DataDir,
            BootError::Locked(_) => Exit::Locked,
            BootError::Port { .. } => Exit::PortInUse,
            BootError::Refused(_) | BootError::Other(_) => Exit::Failure,
        };
        Self::from_error(exit, error)
    }
}

impl World<'_> {
    fn print(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.stdout.write_all(text.as_bytes()).and_then(|()| self.stdout.flush());
        written.map_err(|error| Failure::from_error(Exit::Failure, &error))
    }

    fn complain(&mut self, text: &str) {
        // There is nobody left to tell.
        let _ = self.stderr.write_all(text.as_bytes());
    }
}

/// Do what the command line says; its first word is the name of the program.
pub fn run(words: impl Iterator<Item = OsString>, world: &mut World<'_>) -> Exit {
    let words = words.map(|it| {
        let wrong =
            |it| Failure::new(Exit::Usage, &format!("not UTF-8: {}", Path::new(&it).display()));
        it.into_string().map_err(wrong)
    });
    match words.collect::<Result<_, _>>().and_then(|it| dispatch(it, world)) {
        Ok(()) => Exit::Success,
        Err(failure) => {
            world.complain(&failure.report);
            failure.exit
        }
    }
}

fn command() -> Command {
    Command::new("debros")
        .about("One executable that turns a few Linux machines into a network")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands([
            node::command(),
            identity::command(),
            repair::command(),
            bench::command(),
            Command::new("version").about("Print the version"),
        ])
}

fn dispatch(words: Vec<String>, world: &mut World<'_>) -> Result<(), Failure> {
    let mut words = words.into_iter();
    let program = words.next().unwrap_or_default();
    let program = Path::new(&program).file_name().and_then(|it| it.to_str()).unwrap_or_default();
    let mut command = command();
    let name = match command.find_subcommand(program) {
        Some(_) => Some(program.to_owned()),
        None => words.next(),
    };
    let mut line = vec!["debros".to_owned()];
    let mut ignored = String::new();
    match name.as_deref().and_then(|it| command.find_subcommand(it)) {
        Some(subcommand) => {
            let arguments = normalize(subcommand, words.collect());
            ignored = arguments.ignored.join(" ");
            line.extend(name);
            line.extend(arguments.flags);
        }
        // No subcommand: left to clap to refuse, or to help.
        None => line.extend(match name.as_deref() {
            Some("-help" | "-h") => Some("--help".to_owned()),
            Some("-version" | "--version") => Some("version".to_owned()),
            _ => name,
        }),
    }
    let matches = match command.try_get_matches_from_mut(line) {
        Ok(it) => it,
        Err(error) => {
            let text = error.render().to_string();
            return match error.kind() {
                ErrorKind::DisplayHelp => world.print(&text),
                _ => Err(Failure { exit: Exit::Usage, report: text }),
            };
        }
    };
    if !ignored.is_empty() {
        world.complain(&format!("warning: ignored after the flags: {ignored}\n"));
    }
    match matches.subcommand() {
        Some(("node", matches)) => node::run(matches, world),
        Some(("identity", matches)) => identity::run(matches, world),
        Some(("repair", matches)) => repair::run(matches, world),
        Some(("bench", matches)) => bench::run(matches, world),
        _ => world.print(concat!("debros ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// A flag that is on when named; `--name=false` is off.
fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_value("false")
        .default_missing_value("true")
        .hide_default_value(true)
        .hide_possible_values(true)
        .value_name("BOOL")
        .value_parser(BoolishValueParser::new())
}

#[cfg(test)]
mod tests {
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
}
