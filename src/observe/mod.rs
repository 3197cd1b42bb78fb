//! Logs, counters and histograms.
//!
//! Each subsystem owns a plain struct of integers and implements [`Stats`] for it: counting is an
//! addition on the core that owns the struct, with no lock and no atomic. The node sums the structs of
//! its shards when somebody asks.

pub mod histogram;
pub mod logging;

/// What a subsystem counts on one shard.
///
/// Names end in `_total`, `_seconds` or `_bytes`, or are plain nouns for what is there now. They come
/// from a small closed set, never from what a user sent.
pub trait Stats: Default {
    /// Count what `other`, the same subsystem on another shard, has counted.
    fn add(&mut self, other: &Self);

    /// Hand every name and its value to `visitor`, in a fixed order.
    fn visit(&self, visitor: &mut dyn FnMut(&'static str, u64));
}

/// The sum over shards.
pub fn sum<'a, S: Stats + 'a>(shards: impl IntoIterator<Item = &'a S>) -> S {
    shards.into_iter().fold(S::default(), |mut sum, it| {
        sum.add(it);
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counts {
        requests_total: u64,
        sent_bytes: u64,
    }

    impl Stats for Counts {
        fn add(&mut self, other: &Self) {
            self.requests_total += other.requests_total;
            self.sent_bytes += other.sent_bytes;
        }

        fn visit(&self, visitor: &mut dyn FnMut(&'static str, u64)) {
            visitor("requests_total", self.requests_total);
            visitor("sent_bytes", self.sent_bytes);
        }
    }

    #[test]
    fn a_node_counts_what_its_shards_count() {
        let shards = [
            Counts { requests_total: 1, sent_bytes: 10 },
            Counts { requests_total: 2, sent_bytes: 20 },
        ];
        let mut seen = Vec::new();
        sum(&shards).visit(&mut |name, value| seen.push((name, value)));
        assert_eq!(seen, [("requests_total", 3), ("sent_bytes", 30)]);
    }
}
