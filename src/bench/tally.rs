//! What one thread has seen of one group of clients: latencies, requests over time, failures.
//!
//! A request's latency counts if it should have been sent within the window; a request counts as done if
//! its reply came within the window. Only replies of success have a latency: a refusal is quick and would
//! flatter.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;

/// Nanoseconds that a latency may have; more is counted as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Kinds of failures that are told apart; the others are summed up.
const KINDS_MAX: usize = 32;

/// The time that is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// After the warm-up.
    pub from: Instant,
    /// The end of the load.
    pub until: Instant,
}

impl Window {
    fn holds(&self, at: Instant) -> bool {
        self.from <= at && at < self.until
    }
}

/// Counts and latencies.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    window: Window,
    slice: Duration,
    /// Nanoseconds from when a request should have been sent to its whole reply.
    pub latency: Histogram<u64>,
    /// Requests done in each slice of the window.
    pub per_slice: Vec<u64>,
    /// Requests done within the window.
    pub n_done: u64,
    /// What failed within the window, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of requests and replies within the window.
    pub bytes_sent: u64,
    /// The same of replies.
    pub bytes_received: u64,
}

impl Tally {
    /// Nothing yet; what happens over time is told in steps of `slice`.
    pub(super) fn new(window: Window, slice: Duration) -> Self {
        let latency =
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are sane");
        let n_slices = (window.until - window.from).as_nanos().div_ceil(slice.as_nanos());
        Self {
            window,
            slice,
            latency,
            per_slice: vec![0; usize::try_from(n_slices).expect("slices are not that short")],
            n_done: 0,
            errors: BTreeMap::new(),
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    /// A request is done.
    pub(super) fn on_done(&mut self, intended: Instant, now: Instant) {
        if self.window.holds(intended) {
            let nanos = u64::try_from((now - intended).as_nanos()).unwrap_or(LATENCY_NS_MAX);
            self.latency.saturating_record(nanos);
        }
        if self.window.holds(now) {
            self.n_done += 1;
            let slice = (now - self.window.from).as_nanos() / self.slice.as_nanos();
            let slice = usize::try_from(slice).expect("within the window");
            self.per_slice[slice] += 1;
        }
    }

    /// A request has failed, or there is no telling.
    pub(super) fn on_error(&mut self, kind: &str, intended: Instant) {
        if self.window.holds(intended) {
            self.add_errors(kind, 1);
        }
    }

    /// A request and its reply had so many bytes.
    pub(super) fn on_bytes(&mut self, sent: usize, received: usize, now: Instant) {
        if self.window.holds(now) {
            self.bytes_sent += sent as u64;
            self.bytes_received += received as u64;
        }
    }

    /// More failures of one kind.
    pub(super) fn add_errors(&mut self, kind: &str, n: u64) {
        let is_known = self.errors.contains_key(kind) || self.errors.len() < KINDS_MAX;
        let kind = if is_known { kind } else { "other" };
        *self.errors.entry(kind.to_owned()).or_default() += n;
    }

    /// The load has ended early: what comes later counts no more.
    pub(super) fn close(&mut self, now: Instant) {
        self.window.until = self.window.until.min(now.max(self.window.from));
    }

    /// Add what another thread has seen of the same group.
    pub(super) fn merge(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("both have the same bounds");
        for (sum, n) in self.per_slice.iter_mut().zip(&other.per_slice) {
            *sum += n;
        }
        self.n_done += other.n_done;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        for (kind, n) in &other.errors {
            self.add_errors(kind, *n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::clock;

    const MS: Duration = Duration::from_millis(1);

    fn tally() -> (Tally, impl Fn(u32) -> Instant) {
        let origin = clock::now();
        let at = move |ms| origin + ms * MS;
        (Tally::new(Window { from: at(100), until: at(1_000) }, 100 * MS), at)
    }

    #[test]
    fn warm_up_and_what_comes_after_the_end_do_not_count() {
        let (mut tally, at) = tally();
        tally.on_done(at(98), at(99));
        tally.on_done(at(99), at(101));
        tally.on_done(at(500), at(502));
        tally.on_done(at(999), at(1_003));
        tally.on_done(at(1_001), at(1_003));
        assert_eq!((tally.n_done, tally.latency.len()), (2, 2));
        assert_eq!(tally.per_slice, [1, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(tally.latency.max() / 1_000_000, 4);
        tally.on_error("503", at(50));
        tally.on_error("503", at(150));
        tally.on_bytes(10, 20, at(50));
        tally.on_bytes(10, 20, at(150));
        assert_eq!(tally.errors, BTreeMap::from([("503".to_owned(), 1)]));
        assert_eq!((tally.bytes_sent, tally.bytes_received), (10, 20));
        tally.close(at(600));
        tally.on_done(at(700), at(701));
        assert_eq!(tally.n_done, 2);
    }

    #[test]
    fn threads_are_summed_up() {
        let (mut one, at) = tally();
        let mut other = one.clone();
        one.on_done(at(200), at(201));
        other.on_done(at(200), at(203));
        other.on_error("x", at(200));
        one.merge(&other);
        assert_eq!((one.n_done, one.latency.len(), one.per_slice[1]), (2, 2, 2));
        assert_eq!(one.errors["x"], 1);
    }

    #[test]
    fn kinds_of_failures_are_bounded() {
        let (mut tally, at) = tally();
        for n in 0..2 * KINDS_MAX {
            tally.on_error(&n.to_string(), at(200));
        }
        assert_eq!(tally.errors.len(), KINDS_MAX + 1);
        assert_eq!(tally.errors["other"], KINDS_MAX as u64);
    }
}
