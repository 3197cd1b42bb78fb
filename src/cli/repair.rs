//! `debros repair`: what is fenced, and the way back.

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::Command;

use crate::cli::Failure;
use crate::cli::World;
use crate::cli::exit::Exit;
use crate::cli::switch;
use crate::cli::text;
use crate::config::Config;
use crate::config::Overrides;
use crate::config::overrides::Flags;
use crate::node::repair::Fenced;
use crate::node::repair::FileState;
use crate::node::repair::Repair;

/// The subcommand and its flags.
pub(super) fn command() -> Command {
    Command::new("repair")
        .about("List fenced namespaces of a stopped node, export one, or lift its fence")
        .args([
            text("config", "FILE", "The node's YAML file"),
            text("data", "DIR", "The node's data directory [node.data_dir]"),
            text("namespace", "NAME", "Lift the fence of this namespace"),
            text(
                "export",
                "FILE",
                "Instead, copy what the namespace holds to this new SQLite file",
            ),
            switch("accept-loss", "Lift it even if commands are missing for ever"),
        ])
}

/// List what is fenced, or lift one fence.
pub(super) fn run(matches: &ArgMatches, world: &mut World<'_>) -> Result<(), Failure> {
    let text = |name: &str| matches.get_one::<String>(name).cloned().filter(|it| !it.is_empty());
    let file = text("config").map(PathBuf::from);
    let flags = Flags { data: text("data"), ..Flags::default() };
    if file.is_none() && flags.data.is_none() {
        return Err(Failure::new(Exit::Failure, "at least one of --config, --data is required"));
    }
    let overrides =
        Overrides { environment: &world.environment, flags: &flags, cores: world.cores };
    let config = Config::load(file.as_deref(), &overrides)
        .map_err(|error| Failure { exit: Exit::Failure, report: error.report() })?;
    let mut repair = Repair::open(&config).map_err(|error| Failure::from(&error))?;
    match (text("namespace"), text("export")) {
        (None, Some(_)) => Err(Failure::new(Exit::Failure, "--export needs --namespace")),
        (None, None) => world.print(&listing(&repair.fenced())),
        (Some(name), Some(file)) => {
            let report = export(&repair, &name, Path::new(&file))?;
            world.print(&report)
        }
        (Some(name), None) => {
            let report = lift(&mut repair, &name, matches.get_flag("accept-loss"))?;
            world.print(&report)
        }
    }
}

fn listing(fenced: &[Fenced]) -> String {
    if fenced.is_empty() {
        return "no namespace is fenced\n".to_owned();
    }
    fenced.iter().map(describe).collect::<Vec<_>>().join("\n")
}

fn describe(fenced: &Fenced) -> String {
    let state = match &fenced.state {
        FileState::Missing if fenced.n_lost_max == 0 => {
            "missing: it can be made anew from the log".to_owned()
        }
        FileState::Missing => "missing: put back a backup copy".to_owned(),
        FileState::Damaged(cause) => format!("damaged: {cause}: put back a backup copy"),
        FileState::Intact { applied } => format!("intact, at log index {applied}"),
    };
    let log = match fenced.log {
        Some((first, last)) => format!("has log indexes {first} to {last}"),
        None => "is empty".to_owned(),
    };
    let (n, lost) = (fenced.n_again, fenced.n_lost_max);
    let outlook = match (&fenced.state, lost) {
        (FileState::Intact { .. }, 0) => {
            format!("{n} commands would be applied again, none is missing")
        }
        (FileState::Intact { .. }, _) => {
            format!("{n} commands would be applied again, up to {lost} are missing for ever")
        }
        (FileState::Missing | FileState::Damaged(_), 0) => {
            format!("{n} of its commands, which is all that there ever were")
        }
        (FileState::Missing | FileState::Damaged(_), _) => {
            format!(
                "{n} of its commands: a copy must be at log index {lost} or later to lose nothing"
            )
        }
    };
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{name:<11}{value}").expect("a String takes all");
    };
    line("namespace", fenced.name.as_deref().unwrap_or("(unknown)"));
    line("partition", &format!("{}, incarnation {}", fenced.id.partition, fenced.id.incarnation));
    line("file", &fenced.path.display().to_string());
    line("state", &state);
    line("log", &format!("{log}: {outlook}"));
    let cause = fenced.cause();
    line("cause", cause.as_deref().unwrap_or("the file: see the node's log"));
    text
}

fn refusal(name: &str, why: &str) -> Failure {
    Failure::new(Exit::Failure, &format!("{name}: {why}"))
}

/// What is fenced of a namespace: something.
fn fenced_of(repair: &Repair, name: &str) -> Result<Vec<Fenced>, Failure> {
    let fenced: Vec<_> =
        repair.fenced().into_iter().filter(|it| it.name.as_deref() == Some(name)).collect();
    if fenced.is_empty() {
        return Err(refusal(name, "this namespace is not fenced"));
    }
    Ok(fenced)
}

/// Copy a namespace to a file. If it has had several lives, the last is the one that counts.
fn export(repair: &Repair, name: &str, file: &Path) -> Result<String, Failure> {
    let fenced = fenced_of(repair, name)?;
    let newest = fenced.iter().max_by_key(|it| it.id.incarnation).expect("one at least");
    newest.export(file).map_err(|why| refusal(name, &why.to_string()))?;
    let mut report = format!("{name}: exported to {}", file.display());
    if newest.n_again > 0 || newest.n_lost_max > 0 {
        let (again, lost) = (newest.n_again, newest.n_lost_max);
        write!(report, "; {again} commands in the log are not in it").expect("a String takes all");
        if lost > 0 {
            write!(report, ", and up to {lost} are lost").expect("a String takes all");
        }
    }
    Ok(report + "\n")
}

fn lift(repair: &mut Repair, name: &str, accepts_loss: bool) -> Result<String, Failure> {
    let refused = |why: &str| refusal(name, why);
    let fenced = fenced_of(repair, name)?;
    let mut report = String::new();
    for it in &fenced {
        let lifted = repair.lift(it, accepts_loss).map_err(|error| Failure::from(&error))?;
        let applied = lifted.map_err(|why| refused(&why.to_string()))?;
        let again = it.n_again;
        writeln!(
            report,
            "{name}: the fence is lifted at log index {applied}; the next start applies {again} commands"
        )
        .expect("a String takes all");
        if it.n_lost_max > 0 {
            writeln!(report, "{name}: up to {} commands are lost", it.n_lost_max)
                .expect("a String takes all");
        }
        if let Some(cause) = it.cause() {
            writeln!(report, "{name}: {cause}: this may happen again").expect("a String takes all");
        }
    }
    Ok(report)
}
