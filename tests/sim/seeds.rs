//! Which seeds a test runs, and how a failing one is replayed.

use std::env;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::ops::Range;

/// Run the `pinned` seeds, which once failed, `n_fixed` known ones, and a few fresh ones; `SIM_SEED` runs
/// just that one, `SIM_RUNS` says how many are fresh.
pub(crate) fn for_each_seed(pinned: &[u64], n_fixed: u64, run: impl FnMut(u64)) {
    for_seeds(pinned.iter().copied().chain(0..n_fixed), run);
}

/// The same for one part of many known seeds, so that parts run side by side.
pub(crate) fn for_part_of_seeds(part: Range<u64>, run: impl FnMut(u64)) {
    for_seeds(part, run);
}

fn for_seeds(known: impl Iterator<Item = u64>, mut run: impl FnMut(u64)) {
    let number = |name| env::var(name).ok().map(|it| it.parse().expect("a number"));
    let fresh = (0..number("SIM_RUNS").unwrap_or(4)).map(|it| RandomState::new().hash_one(it));
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => known.chain(fresh).collect(),
    };
    for seed in seeds {
        let _replay = PrintOnPanic(seed);
        run(seed);
    }
}

/// Tells the reader how to replay, whichever assertion failed.
struct PrintOnPanic(u64);

impl Drop for PrintOnPanic {
    #[expect(clippy::print_stderr, reason = "the replay line is for a human")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with: SIM_SEED={} cargo t --test sim", self.0);
        }
    }
}
