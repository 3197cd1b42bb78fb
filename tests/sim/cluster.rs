//! Whole clusters: elections, replication, crash and restart of each node, with real SQL.

use crate::seeds::for_each_seed;
use crate::world::End;
use crate::world::Plan;
use crate::world::World;

/// Seeds that once failed, with what they taught us. Never remove one.
const PINNED: &[u64] = &[
    // A creation replayed after a kill must be kept until the engine database is synced again: that the
    // database has its row says nothing about its disk.
    15_843_512_205_606_553_533,
];
/// Three replicas of every partition.
const THREE: Plan = Plan {
    n_nodes: 3,
    n_crashes: 4,
    n_writes: 250,
    log_bytes: usize::MAX,
    open_databases: 100,
    cut_once_in: 0,
};
/// One node that compacts its log and closes its databases all the time.
const ONE: Plan = Plan {
    n_nodes: 1,
    n_crashes: 6,
    n_writes: 400,
    log_bytes: 20_000,
    open_databases: 4,
    cut_once_in: 0,
};
/// The same, and the power goes in the middle of what is done to its databases.
const CUT: Plan = Plan { n_crashes: 1, n_writes: 150, cut_once_in: 20, ..ONE };

#[test]
fn cluster_of_three_agrees_and_loses_nothing() {
    let mut done = 0;
    for_each_seed(PINNED, 20, |seed| {
        let world = World::run(seed, THREE);
        done += world.ends.values().filter(|it| **it == End::Done).count();
        assert!(world.n_crashed > 0, "nothing went wrong");
    });
    assert!(done > 0, "nothing was ever acknowledged");
}

#[test]
fn cluster_does_once_what_is_asked_again_under_its_key() {
    let (mut replayed, mut crashed) = (0, 0);
    for_each_seed(&[], 12, |seed| {
        for plan in [ONE, THREE] {
            let world = World::run_resending(seed, plan, 3);
            replayed += world.n_replayed;
            crashed += world.n_crashed;
        }
    });
    assert!(replayed > 100, "only {replayed} requests were told what another had been told");
    assert!(crashed > 20, "hardly anything went wrong");
}

#[test]
fn cluster_of_one_compacts_and_evicts_without_loss() {
    let mut compacted = 0;
    for_each_seed(PINNED, 20, |seed| compacted += World::run(seed, ONE).n_compacted);
    assert!(compacted > 0, "the log was never compacted");
}

#[test]
fn cluster_whose_power_goes_in_the_middle_of_anything_loses_nothing() {
    let (mut cut, mut compacted) = (0, 0);
    for_each_seed(&[], 40, |seed| {
        let world = World::run(seed, CUT);
        cut += world.n_cut;
        compacted += world.n_compacted;
    });
    assert!(cut > 40, "the power went {cut} times only");
    assert!(compacted > 0, "the log was never compacted");
}

#[test]
fn cluster_runs_follow_from_their_seed() {
    for_each_seed(PINNED, 3, |seed| {
        for plan in [ONE, CUT, THREE] {
            let trace = World::run(seed, plan).trace;
            assert!(trace == World::run(seed, plan).trace, "something beside the seed decided");
            let other = World::run(seed.wrapping_add(1), plan).trace;
            assert!(trace != other, "the seed decided nothing");
        }
    });
}
