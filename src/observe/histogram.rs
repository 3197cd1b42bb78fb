//! How a quantity is distributed: microseconds of something, or a count.
//!
//! Values are kept in buckets of two significant digits (an error of at most 1 %), from one to
//! [`VALUE_MAX`]; larger ones count as that. A histogram takes about 30 KiB whatever it is fed: make one
//! per shard and quantity, not one per request.

use std::fmt;

use hdrhistogram::Histogram as Buckets;

/// The largest value that is told apart: an hour in microseconds.
pub const VALUE_MAX: u64 = 3_600_000_000;

const SIGNIFICANT_DIGITS: u8 = 2;

/// Records values and tells their quantiles.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Buckets<u64>,
    /// The sum of the values, saturating: the exact mean.
    sum: u64,
    /// The largest value, unrounded.
    max: u64,
}

/// What a histogram has seen, in the unit that was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Values.
    pub count: u64,
    /// Their mean, rounded down.
    pub mean: u64,
    /// Half of them are at most this.
    pub p50: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// 999 of 1000 are at most this.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

impl Histogram {
    /// Count `value` once.
    pub fn record(&mut self, value: u64) {
        self.buckets.saturating_record(value.min(VALUE_MAX));
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// Count everything that `other` has counted.
    pub fn add(&mut self, other: &Self) {
        self.buckets.add(&other.buckets).expect("all histograms have the same bounds");
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Forget everything.
    pub fn reset(&mut self) {
        self.buckets.reset();
        (self.sum, self.max) = (0, 0);
    }

    /// What has been recorded until now; all zero if nothing has.
    pub fn summary(&self) -> Summary {
        let count = self.buckets.len();
        // A bucket is told by its upper end, which may lie above everything that is in it.
        let quantile = |it| self.buckets.value_at_quantile(it).min(self.max);
        Summary {
            count,
            mean: self.sum.checked_div(count).unwrap_or(0),
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: self.max,
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = Buckets::new_with_bounds(1, VALUE_MAX, SIGNIFICANT_DIGITS);
        Self { buckets: buckets.expect("the bounds are in range"), sum: 0, max: 0 }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, mean, p50, p99, p999, max } = self;
        write!(f, "count={count} mean={mean} p50={p50} p99={p99} p999={p999} max={max}")
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|it| histogram.record(it));
        histogram
    }

    #[test]
    fn a_summary_prints_on_one_line() {
        expect!["count=0 mean=0 p50=0 p99=0 p999=0 max=0"].assert_eq(&of([]).summary().to_string());
        expect!["count=1000 mean=500 p50=501 p99=991 p999=999 max=1000"]
            .assert_eq(&of(1..=1_000).summary().to_string());
        expect!["count=2 mean=9223372036854775807 p50=0 p99=3607101439 p999=3607101439 max=18446744073709551615"].assert_eq(&of([0, u64::MAX]).summary().to_string());
    }

    #[test]
    fn memory_stays_bounded() {
        let one = of([7]);
        let many = of((0..100_000_u64).map(|it| it.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        assert_eq!(one.buckets.distinct_values(), many.buckets.distinct_values());
        assert!(one.buckets.distinct_values() * size_of::<u64>() < 32 << 10);
    }

    #[test]
    fn a_reset_forgets() {
        let mut histogram = of([5, 6]);
        histogram.reset();
        assert_eq!(histogram.summary(), Summary::default());
    }

    proptest! {
        #[test]
        fn quantiles_are_true_to_one_percent(
            mut values in proptest::collection::vec(0..10_000_000_u64, 1..200),
            cut in 0..200_usize,
        ) {
            let (left, right) = values.split_at(cut.min(values.len()));
            let mut histogram = of(left.iter().copied());
            histogram.add(&of(right.iter().copied()));
            values.sort_unstable();
            let summary = histogram.summary();
            let n = values.len();
            prop_assert_eq!(summary.count, n as u64);
            prop_assert_eq!(summary.max, values[n - 1]);
            prop_assert_eq!(summary.mean, values.iter().sum::<u64>() / n as u64);
            let p50 = values[n.div_ceil(2) - 1];
            prop_assert!(summary.p50 >= p50 && summary.p50 <= p50 + p50 / 100 + 1, "{} {}", summary, p50);
        }
    }
}
