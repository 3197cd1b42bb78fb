//! The property that replication rests on: the same commands give the same outcomes and the same content,
//! however they are cut into batches, whenever and wherever they run, and whatever was reopened, forgotten
//! or applied again meanwhile.
//!
//! One seed is one script. It is applied by a replica that can hardly do anything wrong, each command alone
//! on a connection of its own, and by others that do all that a node may do to a database. A failure prints
//! the seed; `DETERMINISM_SEED=<seed>` replays it alone, `DETERMINISM_SECONDS=<n>` tries fresh seeds for
//! that long (`make determinism SECONDS=<n>`).

mod long;
mod replica;
mod statements;

use std::time::Duration;
use std::time::Instant; // tidy: allow(std::time::Instant) a long test is bounded in time

use bytes::Bytes;

use crate::sql::scripts::replica::Manner;
use crate::sql::scripts::replica::NEVER;
use crate::sql::scripts::statements::About;
use crate::types::Dice;
use crate::wire::command::Command;
use crate::wire::command::Kind;

/// Each command on a connection of its own.
const TWIN: Manner = Manner {
    batch_max: 1,
    reopen: 1,
    rest: NEVER,
    read: NEVER,
    thread: NEVER,
    again: NEVER,
    copy: NEVER,
    crash: NEVER,
    checkpoint: NEVER,
    hurry: NEVER,
};

/// The others: undisturbed; one by one, remembering all; as a node lives; as one that has no luck.
const MANNERS: [Manner; 4] = [
    Manner { batch_max: 64, reopen: NEVER, ..TWIN },
    Manner { batch_max: 1, reopen: NEVER, read: 3, thread: 9, ..TWIN },
    Manner { batch_max: 9, reopen: 20, rest: 5, read: 4, thread: 6, again: 8, hurry: 3, ..TWIN },
    Manner {
        batch_max: 30,
        reopen: 15,
        rest: 10,
        read: 6,
        thread: 5,
        again: 5,
        copy: 10,
        crash: 12,
        checkpoint: 9,
        hurry: 2,
    },
];

/// What past seeds taught: each failed once.
const PINNED: [(u64, &str); 4] = [
    (
        0,
        "what SQLite guesses of a table outlives the index that made it guess, until the schema is read anew",
    ),
    (
        11,
        "an FTS5 table that has not read its settings yet rebuilds its index with another version of them",
    ),
    (
        10,
        "reading the statistics, stopped by a caller in a hurry, fails without a word: plans follow none",
    ),
    (
        1_006,
        "a blob of a text is NULL where values are shorter than it, and they are where there is little time",
    ),
];

/// Commands of a script without virtual tables, and with them, where each has a transaction of its own; and of those
/// about long values.
const LENGTH: u64 = 700;
const LENGTH_SEARCH: u64 = 300;
const LENGTH_LONG: u64 = 250;

/// Outcomes that requests with a key have when they come again.
const REPLAYS: [&str; 3] = ["again 1 rows", "again error", "error idempotency_key_reused"];

/// What the script of `seed` is about: one in four has virtual tables, three of sixteen have long values.
fn about(seed: u64) -> About {
    About { search: seed % 4 == 3, long: seed % 8 == 6 || seed % 16 == 15 }
}

/// Apply the script of `seed` in all manners. Returns how many outcomes are those of [`REPLAYS`].
fn check(seed: u64) -> [usize; 3] {
    let about = about(seed);
    let length = match about {
        About { long: true, .. } => LENGTH_LONG,
        About { search: true, .. } => LENGTH_SEARCH,
        About { .. } => LENGTH,
    };
    let mut dice = Dice::new(seed);
    let commands = statements::script(&mut dice, length, about);
    let want = replica::run(&commands, TWIN, &mut dice);
    for manner in MANNERS {
        let before = dice;
        let got = replica::run(&commands, manner, &mut dice);
        let replay = format!("{manner:?}; replay with DETERMINISM_SEED={seed}");
        for (n, (got, want)) in got.printed.iter().zip(&want.printed).enumerate() {
            assert_eq!(got, want, "command {n}, {}, of {replay}", texts(&commands[n]));
        }
        assert_eq!(got.printed.len(), want.printed.len(), "outcomes are missing: {replay}");
        for (n, (got, want)) in got.steps.iter().zip(&want.steps).enumerate() {
            assert_eq!(got, want, "steps of command {n}, {}, of {replay}", texts(&commands[n]));
        }
        if got.hash != want.hash {
            let n = first_difference(&commands, manner, before);
            panic!("contents differ after command {n}, {}: {replay}", texts(&commands[n]));
        }
    }
    // The scripts are worth something only if most of what they try happens.
    let want = want.printed;
    let failed = want.iter().filter(|it| it.starts_with("error")).count();
    assert!(failed * 2 < want.len(), "{failed} of {} commands failed, seed {seed}", want.len());
    let n_of = |what: &str| want.iter().filter(|it| it.starts_with(what)).count();
    REPLAYS.map(n_of)
}

fn texts(command: &Bytes) -> String {
    let command = Command::decode(command).unwrap();
    if command.kind != Kind::Execute {
        return format!("{:?}", command.kind);
    }
    let texts = command.statements().map(|it| {
        let sql = it.unwrap().sql;
        sql.get(..400).map_or_else(|| sql.to_owned(), |start| format!("{start} (of {})", sql.len()))
    });
    format!("{:?}", texts.collect::<Vec<_>>())
}

/// The first of `commands` after which contents differ, as far as halving finds it: the end of a script
/// has a say in how its beginning is cut into batches.
fn first_difference(commands: &[Bytes], manner: Manner, dice: Dice) -> usize {
    let (mut same, mut differs) = (0, commands.len());
    while differs - same > 1 {
        let half = same.midpoint(differs);
        let run = |manner| replica::run(&commands[..half], manner, &mut { dice }).hash;
        if run(TWIN) == run(manner) {
            same = half;
        } else {
            differs = half;
        }
    }
    differs - 1
}

fn number(variable: &str) -> Option<u64> {
    // tidy: allow(std::env) a test is told what to replay
    Some(std::env::var(variable).ok()?.parse().expect("a number"))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a long run is bounded in time")]
fn neither_batches_nor_times_nor_threads_nor_crashes_show() {
    if let Some(seed) = number("DETERMINISM_SEED") {
        check(seed);
        return;
    }
    let Some(seconds) = number("DETERMINISM_SECONDS") else {
        let mut replays = [0; 3];
        for seed in 0..16 {
            for (sum, n) in replays.iter_mut().zip(check(seed)) {
                *sum += n;
            }
        }
        assert!(replays.iter().all(|it| *it > 50), "{REPLAYS:?}: {replays:?}");
        return;
    };
    // tidy: allow(Instant::now) a long test is bounded in time
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut seed = number("DETERMINISM_FROM").unwrap_or(1_000);
    // tidy: allow(Instant::now) a long test is bounded in time
    while Instant::now() < end {
        check(seed);
        seed += 1;
    }
    println!("scripts up to seed {} behave alike", seed - 1);
}

#[test]
fn what_past_seeds_taught_stays_learned() {
    for (seed, _) in PINNED {
        check(seed);
    }
}
