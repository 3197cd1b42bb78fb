//! What each namespace uses, on one core; those that use most by name, the rest together.
//!
//! Anybody with a key may bring namespaces into being, and each name is a series that somebody's monitoring keeps:
//! so there is a bound to the names. The rule, which depends on the requests and their order only:
//!
//! - While fewer than [`NAMED_MAX`] have a name, a namespace gets one with its first request.
//! - Then a request of another counts as one of the `other`; the first [`CANDIDATES_MAX`] such namespaces of a
//!   round are watched.
//! - After each [`ROUND`] requests, the one watched with most requests in the round takes the place of the named
//!   one with fewest, as long as it had more than twice as many; ties go by name. What the named ones had counts
//!   half in the next round.
//! - No name is taken in the [`REST`] rounds after one was.
//!
//! So whoever brings up names costs a monitoring system at most [`NAMED_MAX`] series at a time, and one more for
//! each `ROUND * (REST + 1)` requests.
//!
//! A request counts once: what came in while a namespace was one of the others stays there. The series of one
//! that loses its name ends, and its total leaves the sum: the sum over all series falls then, which a `rate()`
//! of each series does not see and a `rate()` of the sum takes for a restart. `http_requests_total` is what
//! to add up.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use crate::types::Namespace;

/// What the rest is called.
pub const OTHER: &str = "other";
/// Namespaces of a core with a series of their own.
pub const NAMED_MAX: usize = 64;
/// Others that are watched in a round.
pub const CANDIDATES_MAX: usize = 64;
/// Requests in a round.
pub const ROUND: u32 = 8_192;
/// Rounds after one in which a name was taken, in which none is.
pub const REST: u32 = 63;

/// What requests amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests, refused ones included.
    pub requests: u64,
    /// Those that read.
    pub reads: u64,
    /// Those that write.
    pub writes: u64,
    /// Those replied to with a status from 400 on.
    pub errors: u64,
    /// Rows in results.
    pub rows_read: u64,
    /// Rows inserted, changed or deleted.
    pub rows_written: u64,
    /// Bytes of bodies received.
    pub received_bytes: u64,
    /// Bytes of bodies sent.
    pub sent_bytes: u64,
}

impl Usage {
    /// Add what `other` says.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.reads += other.reads;
        self.writes += other.writes;
        self.errors += other.errors;
        self.rows_read += other.rows_read;
        self.rows_written += other.rows_written;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
    }
}

/// A namespace with a name of its own.
#[derive(Debug)]
struct Named {
    namespace: Namespace,
    usage: Usage,
    /// Requests of this round, and a half of those of the round before, and so on.
    recent: u32,
}

/// Where a namespace is counted.
#[derive(Clone, Copy, Debug)]
enum Place {
    Named(usize),
    Candidate(usize),
}

/// All namespaces of a core.
#[derive(Debug, Default)]
pub struct Tenants {
    named: Vec<Named>,
    candidates: Vec<(Namespace, u32)>,
    other: Usage,
    places: FxHashMap<Namespace, Place>,
    n_in_round: u32,
    /// Rounds in which no name is taken.
    n_rest: u32,
}

impl Tenants {
    /// Count a request of `namespace`.
    pub fn count(&mut self, namespace: &Namespace, usage: &Usage) {
        match self.places.get(namespace) {
            Some(Place::Named(at)) => {
                let named = &mut self.named[*at];
                named.usage.add(usage);
                named.recent = named.recent.saturating_add(1);
            }
            Some(Place::Candidate(at)) => {
                self.candidates[*at].1 += 1;
                self.other.add(usage);
            }
            // One that is called like the rest is one of the rest.
            None if namespace.as_str() == OTHER => self.other.add(usage),
            None if self.named.len() < NAMED_MAX => {
                self.places.insert(namespace.clone(), Place::Named(self.named.len()));
                let namespace = namespace.clone();
                self.named.push(Named { namespace, usage: *usage, recent: 1 });
            }
            None => {
                if self.candidates.len() < CANDIDATES_MAX {
                    self.places.insert(namespace.clone(), Place::Candidate(self.candidates.len()));
                    self.candidates.push((namespace.clone(), 1));
                }
                self.other.add(usage);
            }
        }
        self.n_in_round += 1;
        if self.n_in_round == ROUND {
            self.end_round();
        }
    }

    /// Count bytes that were sent after their request was counted.
    pub fn count_sent(&mut self, namespace: &Namespace, bytes: u64) {
        let usage = match self.places.get(namespace) {
            Some(Place::Named(at)) => &mut self.named[*at].usage,
            Some(Place::Candidate(_)) | None => &mut self.other,
        };
        usage.sent_bytes += bytes;
    }

    fn end_round(&mut self) {
        self.n_in_round = 0;
        for (namespace, _) in &self.candidates {
            self.places.remove(namespace);
        }
        let busiest = self
            .candidates
            .drain(..)
            .min_by(|(one, n_one), (two, n_two)| (Reverse(n_one), one).cmp(&(Reverse(n_two), two)));
        match self.n_rest.checked_sub(1) {
            Some(left) => self.n_rest = left,
            None => self.give_name(busiest),
        }
        for it in &mut self.named {
            it.recent /= 2;
        }
    }

    /// The busiest of the others gets a name, if it is busy enough.
    fn give_name(&mut self, busiest: Option<(Namespace, u32)>) {
        let Some((namespace, n)) = busiest else { return };
        let named = self.named.iter().enumerate();
        let fewest = named.min_by_key(|(_, it)| (it.recent, Reverse(&it.namespace)));
        let Some((at, fewest)) = fewest.filter(|(_, it)| n > it.recent.saturating_mul(2)) else {
            return;
        };
        self.places.remove(&fewest.namespace);
        self.places.insert(namespace.clone(), Place::Named(at));
        self.named[at] = Named { namespace, usage: Usage::default(), recent: n };
        self.n_rest = REST;
    }

    /// The namespaces that have a name, in no order that matters.
    pub fn named(&self) -> impl Iterator<Item = (&Namespace, &Usage)> {
        self.named.iter().map(|it| (&it.namespace, &it.usage))
    }

    /// All others together.
    pub fn other(&self) -> &Usage {
        &self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> Namespace {
        Namespace::new(&format!("n{n:04}")).unwrap()
    }

    fn count(tenants: &mut Tenants, n: usize, times: u32) {
        let usage = Usage { requests: 1, sent_bytes: 10, ..Usage::default() };
        for _ in 0..times {
            tenants.count(&name(n), &usage);
        }
    }

    fn requests(tenants: &Tenants, n: usize) -> Option<u64> {
        tenants.named().find(|(it, _)| **it == name(n)).map(|(_, it)| it.requests)
    }

    #[test]
    fn names_are_bounded_and_no_request_is_lost_while_none_is_taken() {
        let mut tenants = Tenants::default();
        for n in 0..300 {
            count(&mut tenants, n, 3);
        }
        assert_eq!(tenants.named().count(), NAMED_MAX);
        let named: u64 = tenants.named().map(|(_, it)| it.requests).sum();
        assert_eq!(named + tenants.other().requests, 900);
        assert_eq!(tenants.other().sent_bytes, (300 - 64) * 30);
        assert!(tenants.places.len() <= NAMED_MAX + CANDIDATES_MAX);
    }

    #[test]
    fn bytes_that_follow_are_no_further_request() {
        let mut tenants = full();
        let (before, recent) = (tenants.n_in_round, tenants.named[3].recent);
        for n in [3, 900] {
            tenants.count_sent(&name(n), 7);
        }
        assert_eq!((tenants.n_in_round, tenants.named[3].recent), (before, recent));
        assert_eq!(tenants.named[3].usage.sent_bytes, 4 * 10 + 7);
        assert_eq!(*tenants.other(), Usage { sent_bytes: 7, ..Usage::default() });
        assert!(tenants.candidates.is_empty());
    }

    /// 64 named ones, the first with one request and each further one with more.
    fn full() -> Tenants {
        let mut tenants = Tenants::default();
        for (n, times) in (0..NAMED_MAX).zip(1..) {
            count(&mut tenants, n, times);
        }
        tenants
    }

    #[test]
    fn who_asks_more_takes_the_name_of_who_asks_least() {
        let mut tenants = full();
        let left = ROUND - tenants.n_in_round;
        count(&mut tenants, 900, 2); // not more than twice as many
        count(&mut tenants, 901, 3);
        count(&mut tenants, 902, left - 5);
        // The busiest has taken the place of the first; of the next, with two requests, three is too few.
        assert_eq!(requests(&tenants, 902), Some(0));
        assert_eq!((requests(&tenants, 0), requests(&tenants, 1)), (None, Some(2)));
        assert_eq!((requests(&tenants, 900), requests(&tenants, 901)), (None, None));
        assert_eq!(tenants.other().requests, u64::from(left), "what was counted stays there");
        count(&mut tenants, 902, 7);
        assert_eq!(requests(&tenants, 902), Some(7));
    }

    #[test]
    fn the_same_requests_give_the_same_names() {
        let run = || {
            let mut tenants = full();
            for n in 0..40_000_usize {
                count(&mut tenants, n * n % 977, 1);
            }
            let mut names: Vec<_> = tenants.named().map(|(it, _)| it.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn one_that_is_called_like_the_rest_is_counted_there() {
        let mut tenants = Tenants::default();
        let usage = Usage { requests: 1, ..Usage::default() };
        tenants.count(&Namespace::new(OTHER).unwrap(), &usage);
        assert_eq!((tenants.named().count(), tenants.other().requests), (0, 1));
    }

    #[test]
    fn ties_go_by_name() {
        let mut tenants = Tenants::default();
        for n in 0..NAMED_MAX {
            count(&mut tenants, n, 1);
        }
        let left = ROUND - tenants.n_in_round;
        count(&mut tenants, 501, left / 2);
        count(&mut tenants, 500, left - left / 2);
        assert_eq!(left % 2, 0, "both have as many");
        let gone: Vec<_> = (0..NAMED_MAX).filter(|n| requests(&tenants, *n).is_none()).collect();
        assert_eq!(gone, [NAMED_MAX - 1], "of equals the last by name goes");
        let named: Vec<_> = [500, 501].map(|n| requests(&tenants, n)).into();
        assert_eq!(named, [Some(0), None], "of equals the first by name comes");
    }

    #[test]
    fn however_many_names_are_brought_up_few_are_taken() {
        let mut tenants = full();
        let (mut seen, mut counted) = (NAMED_MAX, u64::from(tenants.n_in_round));
        let left = ROUND - tenants.n_in_round;
        count(&mut tenants, 1_000, left);
        counted += u64::from(left);
        let mut evicted = 1;
        assert_eq!(requests(&tenants, 0), None);
        for round in 1..=130 {
            // A new name in each round, which has all its requests.
            let before: Vec<_> = tenants.named().map(|(it, n)| (it.clone(), n.requests)).collect();
            count(&mut tenants, 1_000 + round, ROUND);
            counted += u64::from(ROUND);
            for (name, n) in before {
                if tenants.named().all(|(it, _)| *it != name) {
                    seen += 1;
                    evicted += n;
                }
            }
        }
        assert_eq!(seen, NAMED_MAX + 2, "one in each {} rounds", REST + 1);
        // What the sum over all series lacks is what those had that lost their names.
        let named: u64 = tenants.named().map(|(_, it)| it.requests).sum();
        assert_eq!(named + tenants.other().requests, counted - evicted);
        assert!(tenants.places.len() <= NAMED_MAX + CANDIDATES_MAX);
    }
}
