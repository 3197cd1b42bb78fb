//! A small histogram: twenty buckets, each twice as wide as the one before.
//!
//! A plain value without locks or atomics, owned by one core: to record is to find the highest bit and to
//! add twice. A page of many of them stays small, which one of a finer histogram (the log's, the loop's) would
//! not; those are kept as they are, and cast into this form when somebody asks ([`Histogram::of`]).

use std::time::Duration;

/// Buckets; the last has no upper end.
pub const N_BUCKETS: usize = 20;

/// Counts of values by their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// The first bucket ends at two to the power of this.
    first: u32,
    counts: [u64; N_BUCKETS],
    sum: u64,
}

impl Histogram {
    /// One whose first bucket ends at `1 << first`, and whose last begins behind `1 << (first + 18)`.
    pub const fn new(first: u32) -> Self {
        Self { first, counts: [0; N_BUCKETS], sum: 0 }
    }

    /// The same values as in a finer histogram, to within its precision.
    pub fn of(fine: &hdrhistogram::Histogram<u64>, first: u32) -> Self {
        let mut coarse = Self::new(first);
        for it in fine.iter_recorded() {
            let (value, n) = (it.value_iterated_to(), it.count_at_value());
            // What lies across the end of a bucket is in the lower: the error is that of `fine`.
            coarse.counts[coarse.bucket(fine.lowest_equivalent(value))] += n;
            coarse.sum += fine.median_equivalent(value) * n;
        }
        coarse
    }

    /// The same with a sum that is known better than from the buckets of a histogram.
    pub fn with_sum_of(self, all: Duration) -> Self {
        Self { sum: u64::try_from(all.as_micros()).unwrap_or(u64::MAX), ..self }
    }

    /// Count a value.
    pub fn record(&mut self, value: u64) {
        self.counts[self.bucket(value)] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Count a time, in microseconds.
    pub fn record_time(&mut self, time: Duration) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    fn bucket(&self, value: u64) -> usize {
        let scaled = value.saturating_sub(1) >> self.first;
        let bits = u64::BITS - scaled.leading_zeros();
        usize::try_from(bits).unwrap_or(N_BUCKETS).min(N_BUCKETS - 1)
    }

    /// The end of each bucket, which belongs to it, and how many values lie in it or below. The last has no
    /// end.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let mut n = 0;
        let ends = (self.first..).map(|it| 1_u64 << it);
        self.counts.iter().zip(ends).enumerate().map(move |(at, (count, end))| {
            n += count;
            ((at + 1 < N_BUCKETS).then_some(end), n)
        })
    }

    /// Sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_its_upper_end() {
        let mut it = Histogram::new(4);
        for value in [0, 1, 16, 17, 32, 33, 1 << 22, (1 << 22) + 1, u64::MAX >> 8] {
            it.record(value);
        }
        let ends: Vec<_> = it.cumulative().collect();
        assert_eq!(ends.len(), N_BUCKETS);
        assert_eq!(ends[..4], [(Some(16), 3), (Some(32), 5), (Some(64), 6), (Some(128), 6)]);
        assert_eq!(ends[N_BUCKETS - 2..], [(Some(1 << 22), 7), (None, 9)]);
    }

    #[test]
    fn times_are_microseconds() {
        let mut it = Histogram::new(0);
        it.record_time(Duration::from_millis(3));
        assert_eq!(it.sum(), 3_000);
        assert_eq!(it.cumulative().find(|(_, n)| *n == 1).unwrap().0, Some(4_096));
    }

    #[test]
    fn a_finer_histogram_is_cast_without_losing_a_value() {
        let mut fine = hdrhistogram::Histogram::new_with_bounds(1, 60_000_000, 2).unwrap();
        let mut coarse = Histogram::new(0);
        let mut sum = 0;
        for n in 0..5_000_u64 {
            let value = 1 + n * n % 400_000;
            fine.saturating_record(value);
            coarse.record(value);
            sum += value;
        }
        let cast = Histogram::of(&fine, 0);
        assert!(cast.sum().abs_diff(sum) <= sum / 100, "{} is not near {sum}", cast.sum());
        for ((_, got), (_, want)) in cast.cumulative().zip(coarse.cumulative()) {
            assert!(got.abs_diff(want) <= 100, "{got} is not near {want}");
        }
        assert_eq!(cast.cumulative().last().unwrap().1, 5_000);
        assert_eq!(cast.with_sum_of(Duration::from_nanos(7_999)).sum(), 7);
        assert_eq!(cast.with_sum_of(Duration::ZERO).cumulative().last().unwrap().1, 5_000);
    }
}
