//! The configuration in the terms of those who run by it.

use crate::auth::rate::Rates;
use crate::config::Config;
use crate::disk::spool;
use crate::disk::workers::Times;
use crate::http;
use crate::http::activity::Timeouts;
use crate::http::places::Places;
use crate::limits;
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

/// Bounds of the HTTP servers, which share the places for connections.
pub(super) fn http_options(config: &Config) -> http::Options {
    let (gateway, limits) = (&config.gateway, &config.limits);
    http::Options {
        places: Places::new(bytes(limits.connections.into())),
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
        interrupts: !config.runtime.spin.is_zero(),
        ..http::Options::default()
    }
}

/// How often each API key may ask, if there is a limit.
pub(super) fn rates(config: &Config) -> Option<Rates> {
    config.limits.requests_per_second.map(Rates::new)
}

/// How long statements take.
pub(super) fn times(config: &Config) -> Times {
    Times { statement: config.limits.statement_time, slow_statement: config.logging.slow_statement }
}

/// What one core's files with large results may take, of which so many may be open. They end where a disk that was
/// low is found to have room again, and what all threads put there between two looks is left free as well: so they
/// take nothing from those who write.
pub(super) fn spools(config: &Config, files: usize) -> spool::Bounds {
    let reserve = config.limits.disk_reserve.0;
    let n_threads = u64::from(config.runtime.shards) * limits::READER_THREADS as u64;
    let margin = (reserve / 10).saturating_add(n_threads * limits::SPOOL_LOOK_BYTES);
    spool::Bounds {
        files,
        bytes: limits::SPOOLED_BYTES_MAX,
        unwritten: limits::SPOOLED_BYTES_UNWRITTEN,
        reserve: reserve.saturating_add(margin),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use crate::config::overrides::Environment;
    use crate::config::overrides::Flags;
    use crate::shard::room::Reserve;
    use crate::shard::room::Room;

    #[test]
    fn large_results_leave_a_disk_that_was_low_time_to_get_out_of_it() {
        let (environment, flags) = (Environment::new(), Flags::default());
        let overrides = Overrides { environment: &environment, flags: &flags, cores: 4 };
        let config = Config::parse(None, &overrides).unwrap();
        let kept = spools(&config, 9).reserve;
        // Each thread has looked, and then puts there what it may before it looks again.
        let put = limits::SPOOL_LOOK_BYTES
            * limits::READER_THREADS as u64
            * u64::from(config.runtime.shards);
        let room = Reserve::new(config.limits.disk_reserve.0);
        assert_eq!(room.room(Room::Low, kept - put), Room::Enough);
    }
}
