//! Whole clusters, logs and databases in one thread, replayed from a seed.
//!
//! `SIM_SEED=42 cargo t --test sim` replays one run; `SIM_RUNS=10000 cargo sim` runs that many fresh ones.
//! [`world`] is where nodes live; [`disk`] and [`vfs`] forget what was not synced.

mod author;
mod cluster;
mod corpora;
mod databases;
mod disk;
mod faults;
mod folder;
mod log;
mod memory;
mod reshard;
mod seeds;
mod vfs;
mod world;
