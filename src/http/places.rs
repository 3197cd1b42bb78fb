//! Places for connections, which all servers of a node share: a bound that is exact wherever the kernel puts them, and
//! that a connection which moves to another core takes along.
//!
//! One number for all cores, touched when a connection opens and when it ends, which is rare beside its system calls;
//! requests do not come near it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// All places of a node.
#[derive(Clone, Debug)]
pub struct Places {
    n_taken: Arc<AtomicUsize>,
    n: usize,
}

impl Places {
    /// That many, at least one.
    pub fn new(n: usize) -> Self {
        assert!(n > 0, "a server serves somebody");
        Self { n_taken: Arc::default(), n }
    }

    /// How many there are.
    pub fn n(&self) -> usize {
        self.n
    }

    /// One of them, if one is left.
    pub fn take(&self) -> Option<Seat> {
        let more = |taken: usize| (taken < self.n).then_some(taken + 1);
        let taken = self.n_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Seat { n_taken: Arc::clone(&self.n_taken) })
    }
}

/// A place that is taken; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    n_taken: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.n_taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_there_are() {
        let places = Places::new(2);
        let elsewhere = places.clone();
        let first = places.take().unwrap();
        let _second = elsewhere.take().unwrap();
        assert!(places.take().is_none());
        drop(first);
        assert!(elsewhere.take().is_some());
        assert_eq!(places.n(), 2);
    }
}
