//! argv to subcommand.

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::thread;

use debros::cli;
use debros::cli::Failure;
use debros::cli::World;
use debros::node;
use debros::observe::logging;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let text = |it: OsString| it.to_string_lossy().into_owned();
    let cores = thread::available_parallelism().map_or(1, |it| it.get());
    let mut world = World {
        environment: env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
        cores: u16::try_from(cores).unwrap_or(u16::MAX),
        stdout: &mut io::stdout(),
        stderr: &mut io::stderr(),
        log: &logging::init,
        start: &|config| node::run(config).map_err(|error| Failure::from(&error)),
    };
    cli::run(env::args_os(), &mut world).into()
}
