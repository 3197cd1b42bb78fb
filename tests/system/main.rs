//! The real executable, as users run it: processes, sockets, files, signals.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests of processes have threads and clocks, and say what they saw"
)]

// Its SQLite calls functions of the library's (`.cargo/config.toml`), which is otherwise not used here.
use debros as _;

mod bad_http;
mod bench;
mod client;
mod crash;
mod exits;
mod fence;
mod find;
mod hostile;
mod idempotency;
mod idle;
mod large;
mod limits;
mod metrics;
mod pinned;
mod placement;
mod process;
mod replies;
mod repair;
mod reshard;
mod slow_http;
mod space;
mod sql;
mod storage;
mod threads;
mod walkthrough;
