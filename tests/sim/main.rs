//! Whole clusters in one thread, replayed from a seed.
//!
//! `SIM_SEED=42 cargo t --test sim` replays one run; `SIM_RUNS=10000 cargo sim` runs that many fresh ones.
//! [`world`] is where nodes live; [`disk`] forgets what was not synced.

mod cluster;
mod disk;
mod log;
mod seeds;
mod world;
