//! `debros bench`: flags become a plan, and its result text, JSON and a plot.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use clap::value_parser;

use crate::bench;
use crate::bench::BenchError;
use crate::bench::Plan;
use crate::bench::hello;
use crate::bench::report::Report;
use crate::bench::scenario::Scenario;
use crate::bench::target::Api;
use crate::bench::target::Target;
use crate::cli::Failure;
use crate::cli::World;
use crate::cli::exit::Exit;
use crate::cli::switch;
use crate::cli::text;
use crate::config::duration::parse_go_duration;

/// Clients at most; each is a connection.
const CLIENTS_MAX: u64 = 10_000;
/// Threads at most.
const THREADS_MAX: u64 = 64;
/// How long a load may be.
const DURATION_MAX: Duration = Duration::from_hours(24);

/// The subcommand and its flags.
pub(super) fn command() -> Command {
    let number = |name: &'static str, value: &'static str, help: &'static str, max: u64| {
        text(name, value, help).value_parser(value_parser!(u64).range(1..=max))
    };
    let real = |name: &'static str, value: &'static str, help: &'static str| {
        text(name, value, help).value_parser(value_parser!(f64))
    };
    let scenarios =
        ["insert", "read", "mixed", "transaction", "namespaces", "noisy", "get", "hello"];
    Command::new("bench")
        .about("Load a server, measure it, and see whether it kept what it acknowledged")
        .args([
            Arg::new("scenario")
                .value_name("SCENARIO")
                .help("What to ask: rows one by one, by key, or both; transactions; many namespaces; one beside a noisy neighbour; the URL itself. `hello` serves that URL on --threads processors: the floor")
                .value_parser(scenarios)
                .required(true),
            text("url", "URL", "The server").default_value("http://127.0.0.1:6001"),
            text("key", "KEY", "An API key, user:password for rqlite; may be repeated")
                .action(ArgAction::Append),
            text("keys-file", "FILE", "API keys, one a line"),
            text("api", "API", "What the server speaks")
                .value_parser(["debros", "rqlite"])
                .default_value("debros"),
            text("level", "LEVEL", "Read consistency of an rqlite server").default_value("weak"),
            number("clients", "N", "Connections [default: 64; noisy: 4]", CLIENTS_MAX),
            number("threads", "N", "Threads that they share", THREADS_MAX).default_value("1"),
            text("duration", "TIME", "How long to measure").default_value("10s"),
            text("warmup", "TIME", "How long to load before").default_value("2s"),
            real("rate", "R", "Requests a second in all, each due at its time, instead of as soon as possible [noisy: 100]"),
            real("reads", "PART", "Part of requests that read [mixed: 0.9; namespaces, noisy: 0]"),
            number("rows", "N", "Rows of a transaction", 5_000).default_value("1000"),
            number("table-rows", "N", "Rows to read from, for each key", 100_000_000)
                .default_value("10000"),
            real("zipf", "S", "How unlike namespaces are used: the k-th in proportion to 1/k^S")
                .default_value("1"),
            number("neighbours", "N", "Connections of the noisy neighbour", CLIENTS_MAX)
                .default_value("64"),
            text("table", "NAME", "Use this table, which is empty or does not exist"),
            switch("keep", "Leave the table where it is"),
            number("pid", "PID", "The server's process, if it is not the one that listens", u32::MAX.into()),
            text("disk", "DIR", "Where to measure the bare disk; empty to leave that out")
                .default_value("."),
            text("json", "FILE", "Write the result as JSON"),
            text("plot", "FILE", "Draw the result as SVG"),
        ])
}

/// Load, measure, tell.
pub(super) fn run(matches: &ArgMatches, world: &mut World<'_>) -> Result<(), Failure> {
    let plan = plan(matches)?;
    if matches.get_one::<String>("scenario").is_some_and(|it| it == "hello") {
        let served = hello::serve(plan.target.address, plan.n_threads);
        return served.map_err(|error| Failure::from(&error));
    }
    let outputs = ["json", "plot"].map(|it| matches.get_one::<String>(it).map(PathBuf::from));
    // Found out before the load rather than after it.
    for path in outputs.iter().flatten() {
        write(path, "")?;
    }
    let report = bench::run(&plan).map_err(|error| Failure::from(&error))?;
    world.print(&report.text())?;
    let [json, plot] = &outputs;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report).expect("a report has a JSON form");
        write(path, &format!("{text}\n"))?;
    }
    if let Some(path) = plot {
        write(path, &report.plot())?;
    }
    verdict(&report)
}

fn verdict(report: &Report) -> Result<(), Failure> {
    if report.n_lost() > 0 {
        let message = format!("{} acknowledged rows are lost", report.n_lost());
        return Err(Failure::new(Exit::Failure, &message));
    }
    if let Some(error) = &report.verification_error {
        let message = format!("acknowledged rows could not be looked for: {error}");
        return Err(Failure::new(Exit::Unreachable, &message));
    }
    if report.n_done() == 0 && !report.is_interrupted {
        return Err(Failure::new(Exit::Failure, "no request was done"));
    }
    Ok(())
}

impl From<&BenchError> for Failure {
    fn from(error: &BenchError) -> Self {
        let exit = match error {
            BenchError::Unreachable { .. } | BenchError::Refused { .. } => Exit::Unreachable,
            BenchError::NotEmpty(_) | BenchError::Own(..) => Exit::Failure,
        };
        // The message has its cause already.
        match error {
            BenchError::Own(..) => Self::from_error(exit, error),
            _ => Self::new(exit, &error.to_string()),
        }
    }
}

fn usage(message: &str) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let wrong = |error| usage(&format!("cannot write {}: {error}", path.display()));
    fs::write(path, text).map_err(wrong)
}

fn plan(matches: &ArgMatches) -> Result<Plan, Failure> {
    let text = |name: &str| matches.get_one::<String>(name).cloned().filter(|it| !it.is_empty());
    let number = |name: &str| matches.get_one::<u64>(name).copied();
    let scenario = scenario(matches)?;
    let is_noisy = matches!(scenario, Scenario::Noisy { .. });
    let api = match text("api").as_deref() {
        Some("rqlite") => Api::Rqlite { level: text("level").unwrap_or_default() },
        _ => Api::Debros,
    };
    let url = text("url").unwrap_or_default();
    let target = Target::parse(&url, api).map_err(|error| usage(&error.to_string()))?;
    let rate = real(matches, "rate", 0.001..=10_000_000.0)?.or_else(|| is_noisy.then_some(100.0));
    let keys = keys(matches)?;
    if keys.len() < scenario.n_namespaces_min() && scenario.n_namespaces_min() > 1 {
        return Err(usage(&format!("{} needs at least two keys", scenario.name())));
    }
    let table = text("table");
    let is_word = |it: &String| {
        it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
            && !it.as_bytes()[0].is_ascii_digit()
    };
    if table.as_ref().is_some_and(|it| !is_word(it)) {
        return Err(usage("--table: letters, digits and underscores, no digit first"));
    }
    let n_clients = number("clients").unwrap_or(if is_noisy { 4 } else { 64 });
    let pid = number("pid").map(|it| u32::try_from(it).expect("clap has the range"));
    Ok(Plan {
        scenario,
        target,
        keys,
        n_clients: size(n_clients),
        n_threads: size(number("threads").unwrap_or(1).min(n_clients)),
        rate,
        duration: duration(matches, "duration", Duration::from_millis(100))?,
        warmup: duration(matches, "warmup", Duration::ZERO)?,
        table,
        n_table_rows: number("table-rows").unwrap_or(1),
        keeps_table: matches.get_flag("keep"),
        pid,
        disk: text("disk").map(PathBuf::from),
    })
}

fn scenario(matches: &ArgMatches) -> Result<Scenario, Failure> {
    let reads = |default: f64| {
        let part = real(matches, "reads", 0.0..=1.0)?;
        Ok::<_, Failure>(part.unwrap_or(default))
    };
    let number = |name: &str| matches.get_one::<u64>(name).copied().unwrap_or(1);
    Ok(match matches.get_one::<String>("scenario").map(String::as_str) {
        Some("insert") => Scenario::Insert,
        Some("read") => Scenario::Read,
        Some("mixed") => Scenario::Mixed { reads: reads(0.9)? },
        Some("transaction") => Scenario::Transaction { rows: number("rows") },
        Some("namespaces") => {
            let zipf = real(matches, "zipf", 0.0..=10.0)?.unwrap_or(1.0);
            Scenario::Namespaces { reads: reads(0.0)?, zipf }
        }
        Some("noisy") => {
            Scenario::Noisy { reads: reads(0.0)?, n_neighbours: size(number("neighbours")) }
        }
        _ => Scenario::Get,
    })
}

fn keys(matches: &ArgMatches) -> Result<Vec<String>, Failure> {
    let mut keys: Vec<String> =
        matches.get_many::<String>("key").into_iter().flatten().cloned().collect();
    if let Some(path) = matches.get_one::<String>("keys-file") {
        let wrong = |error| usage(&format!("cannot read {path}: {error}"));
        let text = fs::read_to_string(path).map_err(wrong)?;
        let lines = text.lines().map(str::trim).filter(|it| !it.is_empty());
        keys.extend(lines.map(str::to_owned));
    }
    if keys.iter().any(|it| it.is_empty() || !it.bytes().all(|it| it.is_ascii_graphic())) {
        return Err(usage("a key is printable ASCII without spaces"));
    }
    Ok(keys)
}

fn real(
    matches: &ArgMatches,
    name: &str,
    range: std::ops::RangeInclusive<f64>,
) -> Result<Option<f64>, Failure> {
    let value = matches.get_one::<f64>(name).copied();
    if value.is_some_and(|it| !range.contains(&it)) {
        let (low, high) = range.into_inner();
        return Err(usage(&format!("--{name}: from {low} to {high}")));
    }
    Ok(value)
}

fn duration(matches: &ArgMatches, name: &str, least: Duration) -> Result<Duration, Failure> {
    let text = matches.get_one::<String>(name).map_or("0", String::as_str);
    let nanos = parse_go_duration(text).map_err(|error| usage(&format!("--{name}: {error}")))?;
    let duration = u64::try_from(nanos).ok().map(Duration::from_nanos);
    let duration = duration.filter(|it| (least..=DURATION_MAX).contains(it));
    duration.ok_or_else(|| usage(&format!("--{name}: from {least:?} to 24h; got {text}")))
}

fn size(n: u64) -> usize {
    usize::try_from(n).expect("it has a bound")
}
