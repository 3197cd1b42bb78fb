//! Requests per second of each key: a bucket of tokens for each that asks.
//!
//! A bucket holds one second's worth, and fills at the rate of the limit; a request takes a token, and is refused if there
//! is none whole. So in any span of time a key gets through at most one second's worth, and what the rate gives for the
//! span; and never less than it asks for if that stays below.
//!
//! Levels are counted in billionths of a token: what a nanosecond brings at the rate of one token a second. That
//! is exact, whatever the rate.
//!
//! A bucket that nobody took from for a second is full, and is forgotten: there are only as many as keys that asked in
//! the last two seconds.
//!
//! Deliberately absent: where the buckets of a key are (one core of the node, so that the limit holds for all of it).

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::auth::key::KeyId;
use crate::limits;
use crate::types::Instant;

/// Parts of a token.
const TOKEN: u64 = 1_000_000_000;
/// Rates up to here can be counted.
pub const RATE_MAX: u64 = 1_000_000_000;
/// After this time without requests, and after no less, every bucket is full, however empty it was.
const FULL_AFTER: Duration = Duration::from_secs(1);

/// Not now: after this time a token is there, if nobody else takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests")]
pub struct TooMany {
    /// That long.
    pub wait: Duration,
}

/// The level that a bucket had.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: u64,
    at: Instant,
}

/// Buckets of all keys of one core.
#[derive(Debug)]
pub struct Rates {
    per_second: u64,
    buckets: BTreeMap<KeyId, Bucket>,
    /// When to look next for full ones.
    sweep_at: Instant,
}

impl Rates {
    /// Nobody has asked yet. A rate above [`RATE_MAX`] counts as that.
    pub fn new(per_second: NonZeroU64) -> Self {
        let per_second = per_second.get().min(RATE_MAX);
        Self { per_second, buckets: BTreeMap::new(), sweep_at: Instant::START }
    }

    /// Let a request of `key` through, or not. `now` never goes backwards.
    pub fn pass(&mut self, now: Instant, key: KeyId) -> Result<(), TooMany> {
        if self.sweep_at <= now {
            self.sweep_at = now.after(FULL_AFTER);
            self.forget_full(now);
        }
        let known = self.buckets.get(&key).copied();
        if known.is_none() && self.buckets.len() >= limits::RATES_MAX {
            return Err(TooMany { wait: FULL_AFTER });
        }
        let level = known.map_or(self.per_second * TOKEN, |it| self.level(it, now));
        let Some(left) = level.checked_sub(TOKEN) else {
            let wait = (TOKEN - level).div_ceil(self.per_second);
            return Err(TooMany { wait: Duration::from_nanos(wait) });
        };
        self.buckets.insert(key, Bucket { level: left, at: now });
        Ok(())
    }

    fn level(&self, bucket: Bucket, now: Instant) -> u64 {
        let full = self.per_second * TOKEN;
        let passed = now.since(bucket.at);
        if passed >= FULL_AFTER {
            return full;
        }
        (bucket.level + u64::from(passed.subsec_nanos()) * self.per_second).min(full)
    }

    fn forget_full(&mut self, now: Instant) {
        let mut buckets = std::mem::take(&mut self.buckets);
        buckets.retain(|_, it| self.level(*it, now) < self.per_second * TOKEN);
        self.buckets = buckets;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: KeyId = KeyId(1);

    fn rates(per_second: u64) -> Rates {
        Rates::new(NonZeroU64::new(per_second).unwrap())
    }

    fn at(nanos: u64) -> Instant {
        Instant::from_start(Duration::from_nanos(nanos))
    }

    #[test]
    fn a_second_s_worth_at_once_and_then_one_by_one() {
        let mut rates = rates(3);
        for _ in 0..3 {
            assert_eq!(rates.pass(at(0), KEY), Ok(()));
        }
        let third = Duration::from_nanos(333_333_334);
        assert_eq!(rates.pass(at(0), KEY), Err(TooMany { wait: third }));
        assert_eq!(
            rates.pass(at(333_333_333), KEY),
            Err(TooMany { wait: Duration::from_nanos(1) })
        );
        assert_eq!(rates.pass(at(333_333_334), KEY), Ok(()));
        assert_eq!(rates.pass(at(333_333_334), KeyId(2)), Ok(()), "another key has its own");
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut rates = rates(2);
        for key in 0..1_000 {
            rates.pass(at(0), KeyId(key)).unwrap();
        }
        assert_eq!(rates.buckets.len(), 1_000);
        rates.pass(at(600_000_000), KeyId(7)).unwrap();
        rates.pass(at(1_000_000_000), KeyId(1)).unwrap();
        let kept: Vec<_> = rates.buckets.keys().copied().collect();
        assert_eq!(kept, [KeyId(1), KeyId(7)], "the seventh has not filled up since");
    }

    #[test]
    fn there_is_a_bound_to_the_buckets() {
        let mut rates = rates(1);
        let n = u32::try_from(limits::RATES_MAX).unwrap();
        for key in 0..n {
            rates.pass(at(5), KeyId(key)).unwrap();
        }
        assert!(rates.pass(at(5), KeyId(n)).is_err());
        assert_eq!(rates.pass(at(2_000_000_000), KeyId(n)), Ok(()));
        assert_eq!(rates.buckets.len(), 1);
    }

    #[test]
    fn the_largest_rate_can_be_counted() {
        let mut rates = rates(u64::MAX);
        for n in 0..10_000 {
            assert_eq!(rates.pass(at(n % 7), KEY), Ok(()));
        }
    }

    proptest! {
        /// In any window no more than a second's worth and what the rate gives; and nobody is refused who stays below.
        #[test]
        fn as_many_as_the_rate_allows_and_no_fewer(
            per_second in prop::sample::select(vec![1_u64, 2, 3, 7, 10, 99, 1_000]),
            gaps in prop::collection::vec((0_u64..4, 0_u64..1_500_000_000), 1..200),
        ) {
            let mut rates = rates(per_second);
            let (mut now, mut passed) = (0, Vec::<u64>::new());
            for (scale, gap) in gaps {
                // Gaps of all sizes: bursts, about the rate, and long ones.
                now += match scale { 0 => 0, 1 => gap / per_second, 2 => gap / 1_000, _ => gap };
                // The window that ends now and began with any that passed must have room for one more.
                let fits = |(at, since): (usize, &u64)| {
                    let n = (passed.len() - at) as u128 + 1;
                    let allowed = u128::from(per_second) * (u128::from(TOKEN) + u128::from(now - since));
                    n * u128::from(TOKEN) <= allowed
                };
                let may = passed.iter().enumerate().all(fits);
                let got = rates.pass(at(now), KEY);
                prop_assert_eq!(got.is_ok(), may, "at {}", now);
                match got {
                    Ok(()) => passed.push(now),
                    // Exact: a nanosecond earlier it would be refused, then it passes.
                    Err(TooMany { wait }) => {
                        let wait = u64::try_from(wait.as_nanos()).unwrap();
                        prop_assert!(wait <= 1_000_000_000);
                        prop_assert!(rates.pass(at(now + wait - 1), KEY).is_err());
                    }
                }
            }
        }
    }
}
