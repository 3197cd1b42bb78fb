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

/// A flag with a value of the kind that `value` names.
fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Set)
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
mod tests;
