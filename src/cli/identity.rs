//! `debros identity`: make the identity of a node before the node.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::Command;

use crate::cli::Failure;
use crate::cli::World;
use crate::cli::exit::Exit;
use crate::cli::switch;
use crate::cli::text;
use crate::config::identity::Identity;

/// The subcommand and its flags.
pub(super) fn command() -> Command {
    Command::new("identity").about("Make the key that is a node's identity").args([
        text("output", "FILE", "Where to save the key; must not exist yet"),
        switch("display-only", "Print the name of a new identity, save nothing"),
    ])
}

/// Make one, print its peer id, and save it unless it is only to be shown.
pub(super) fn run(matches: &ArgMatches, world: &mut World<'_>) -> Result<(), Failure> {
    let identity = Identity::generate();
    if matches.get_flag("display-only") {
        return world.print(&format!("Node Identity: {}\n", identity.peer_id()));
    }
    let output = matches.get_one::<String>("output").filter(|it| !it.is_empty());
    let path = output.map(PathBuf::from);
    let path = path.ok_or_else(|| Failure::new(Exit::Failure, "Output path is required"))?;
    identity.save(&path).map_err(|error| Failure::from_error(Exit::Failure, &error))?;
    world.print(&format!(
        "Generated Node Identity: {}\nIdentity saved to: {}\n",
        identity.peer_id(),
        path.display()
    ))
}
