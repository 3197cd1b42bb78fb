//! The configuration in the terms of those who run by it.

use crate::config::Config;
use crate::disk::workers::Times;
use crate::http;
use crate::http::activity::Timeouts;
use crate::wire::command::CommandLimits;

/// What a command may cost.
pub(super) fn command_limits(config: &Config) -> CommandLimits {
    let limits = &config.limits;
    CommandLimits {
        steps: limits.statement_steps,
        temp_bytes: limits.temp_bytes.0,
        database_bytes: limits.database_bytes.map_or(u64::MAX, |it| it.0),
        result_bytes: limits.result_bytes.0,
        result_rows: limits.result_rows,
        value_bytes: u32::try_from(limits.value_bytes.0).unwrap_or(u32::MAX),
    }
}

/// Bounds of one core's HTTP server.
pub(super) fn http_options(config: &Config) -> http::Options {
    let (gateway, limits) = (&config.gateway, &config.limits);
    let connections = u64::from(limits.connections).div_ceil(u64::from(config.runtime.shards));
    http::Options {
        connections_max: bytes(connections),
        n_cores: usize::from(config.runtime.shards),
        header_bytes_max: bytes(limits.header_bytes.0),
        body_bytes_max: bytes(limits.body_bytes.0),
        timeouts: Timeouts {
            head: gateway.header_timeout,
            idle: gateway.idle_timeout,
            body: gateway.body_timeout,
            write: gateway.reply_timeout,
            ..http::Options::default().timeouts
        },
        drain_timeout: gateway.shutdown_timeout,
        ..http::Options::default()
    }
}

/// How long statements take.
pub(super) fn times(config: &Config) -> Times {
    Times { statement: config.limits.statement_time, slow_statement: config.logging.slow_statement }
}

/// Databases that one core may have open.
pub(super) fn open_databases(config: &Config) -> usize {
    let all = usize::try_from(config.limits.open_databases).unwrap_or(usize::MAX);
    all.div_ceil(usize::from(config.runtime.shards))
}

/// Randomness for a core: where its own begins.
pub(super) fn seed() -> u64 {
    getrandom::u64().expect("the kernel has randomness once a node runs")
}

/// A size in memory.
pub(super) fn bytes(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
