//! A bound that namespaces share: one that asks for much is refused before it is in the way of the others.
//!
//! While less than half of the bound is in use, everybody is taken. Beyond that, each of those who use it has a share,
//! which is the bound divided by their number (who asks counts), and at least one thing, however large. Who
//! is below its share is taken, even if others have more than theirs at the moment: nothing can be taken away from
//! them, but they get nothing new until they are below it as well.
//!
//! So one alone may have the whole bound, and what is in use stays below the bound times `1 + 1/2 + … + 1/k` when `k`
//! namespaces come one after the other and each takes all that it may: 1.5 times with two, 2.9 times
//! with ten, 5.2 times with a hundred. In bytes `k` times the largest thing comes on top, since who has nothing is
//! taken whatever its size: what that may be is for the caller to bound.
//!
//! Cost: a search in a map of those who use it, once when something begins and once when it ends. It allocates
//! only when more use it than before.

use std::collections::BTreeMap;

/// Things, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub n: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl Amount {
    /// One thing of that many bytes.
    pub fn one(bytes: usize) -> Self {
        Self { n: 1, bytes }
    }

    /// Both more.
    pub fn add(&mut self, other: Self) {
        self.n += other.n;
        self.bytes += other.bytes;
    }

    /// Both less; what was not there cannot go.
    pub fn sub(&mut self, other: Self) {
        self.n = self.n.checked_sub(other.n).expect("as many went as had come");
        self.bytes = self.bytes.checked_sub(other.bytes).expect("as much went as had come");
    }

    fn exceeds(self, bound: Self) -> bool {
        self.n > bound.n || self.bytes > bound.bytes
    }

    fn part(self, parts: usize) -> Self {
        Self { n: self.n / parts, bytes: self.bytes / parts }
    }
}

/// Who uses how much of a bound. `K` names those who share it.
#[derive(Debug)]
pub struct Fair<K> {
    bound: Amount,
    total: Amount,
    of: BTreeMap<K, Amount>,
    n_refused: u64,
}

impl<K: Copy + Ord> Fair<K> {
    /// A bound of which nothing is in use.
    pub fn new(bound: Amount) -> Self {
        assert!(bound.n > 1 && bound.bytes > 1, "a bound has two halves");
        Self { bound, total: Amount::default(), of: BTreeMap::new(), n_refused: 0 }
    }

    /// Whether `who` may have one more thing, of that many bytes. A refusal is counted.
    pub fn may_take(&mut self, who: K, bytes: usize) -> bool {
        let may = self.has_room(who, bytes);
        self.n_refused += u64::from(!may);
        may
    }

    fn has_room(&self, who: K, bytes: usize) -> bool {
        let one = Amount::one(bytes);
        let after = |mut it: Amount| {
            it.add(one);
            it
        };
        if !after(self.total).exceeds(self.bound.part(2)) {
            return true;
        }
        match self.of.get(&who) {
            None => true,
            Some(own) => !after(*own).exceeds(self.bound.part(self.of.len())),
        }
    }

    /// `who` has that much more.
    pub fn add(&mut self, who: K, amount: Amount) {
        self.total.add(amount);
        self.of.entry(who).or_default().add(amount);
    }

    /// `who` has that much less.
    pub fn sub(&mut self, who: K, amount: Amount) {
        self.total.sub(amount);
        let own = self.of.get_mut(&who).expect("who gives something back had it");
        own.sub(amount);
        if own.n == 0 {
            self.of.remove(&who);
        }
    }

    /// All that is in use.
    pub fn total(&self) -> Amount {
        self.total
    }

    /// Whether more than half of the bound is in use.
    pub fn is_crowded(&self) -> bool {
        self.total.exceeds(self.bound.part(2))
    }

    /// Whether nothing is left of the bound.
    pub fn is_full(&self) -> bool {
        self.total.n >= self.bound.n || self.total.bytes >= self.bound.bytes
    }

    /// How often somebody was refused.
    pub fn n_refused(&self) -> u64 {
        self.n_refused
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: Amount = Amount { n: 100, bytes: 1_000 };
    /// Bytes of the largest thing.
    const LARGEST: usize = 700;

    /// Take as much as one may.
    fn fill(fair: &mut Fair<u8>, who: u8, bytes: usize) -> usize {
        let mut n = 0;
        while fair.may_take(who, bytes) {
            fair.add(who, Amount::one(bytes));
            n += 1;
        }
        n
    }

    #[test]
    fn one_alone_has_all_and_the_next_a_half() {
        let mut fair = Fair::new(BOUND);
        assert_eq!(fill(&mut fair, 1, 1), 100);
        assert_eq!(fill(&mut fair, 2, 1), 50);
        assert_eq!(fill(&mut fair, 3, 1), 33);
        assert_eq!(fair.n_refused(), 3);
        // Who has more than its share gets nothing new until it is below it.
        fair.sub(1, Amount { n: 67, bytes: 67 });
        assert!(!fair.may_take(1, 1));
        fair.sub(1, Amount::one(1));
        assert!(fair.may_take(1, 1));
        assert!(fair.is_crowded() && fair.is_full());
    }

    #[test]
    fn bytes_are_shared_as_well_and_something_is_always_taken() {
        let mut fair = Fair::new(BOUND);
        assert_eq!(fill(&mut fair, 1, 400), 2);
        assert!(fair.may_take(2, 900), "it has nothing yet");
        fair.add(2, Amount::one(900));
        assert!(!fair.may_take(2, 1));
        assert_eq!(fair.total(), Amount { n: 3, bytes: 1_700 });
    }

    #[test]
    fn large_things_exceed_the_bound_by_one_for_each() {
        let mut fair = Fair::new(BOUND);
        for who in 0..10 {
            assert_eq!(fill(&mut fair, who, LARGEST), 1);
        }
        assert_eq!(fair.total().bytes, 10 * LARGEST, "more than 2.9 times the bound");
    }

    #[test]
    fn nobody_is_refused_before_it_is_crowded() {
        let mut fair = Fair::new(BOUND);
        for who in 10..40 {
            fair.add(who, Amount::one(1));
        }
        assert_eq!(fill(&mut fair, 1, 1), 20, "a share would be three");
        assert!(!fair.is_crowded());
    }

    proptest! {
        /// Who has less than the bound divided by all who use it is taken; all together have no more than that sum.
        #[test]
        fn who_is_below_its_share_is_taken(asks in prop::collection::vec((0_u8..12, prop_oneof![1_usize..30, 1..LARGEST], any::<bool>()), 1..600)) {
            let mut fair = Fair::new(BOUND);
            let mut twin: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for (who, bytes, is_end) in asks {
                let own = twin.entry(who).or_default();
                if is_end {
                    if let Some(bytes) = own.pop() {
                        fair.sub(who, Amount::one(bytes));
                    }
                    continue;
                }
                let after = (own.len() + 1, own.iter().sum::<usize>() + bytes);
                let n_active = twin.iter().filter(|(it, own)| **it == who || !own.is_empty()).count();
                let all = (twin.values().map(Vec::len).sum::<usize>(), twin.values().flatten().sum::<usize>());
                let is_below = after.0 * n_active <= BOUND.n && after.1 * n_active <= BOUND.bytes;
                let is_crowded = (all.0 + 1) * 2 > BOUND.n || (all.1 + bytes) * 2 > BOUND.bytes;
                let want = is_below || !is_crowded || after.0 == 1;
                prop_assert_eq!(fair.may_take(who, bytes), want);
                if want {
                    fair.add(who, Amount::one(bytes));
                    twin.entry(who).or_default().push(bytes);
                }
                let n: usize = twin.values().map(Vec::len).sum();
                prop_assert_eq!(fair.total().n, n);
                let parts: usize = (1..=twin.len()).map(|it| BOUND.n / it + 1).sum();
                prop_assert!(n <= parts);
                let parts: usize = (1..=twin.len()).map(|it| BOUND.bytes / it + LARGEST).sum();
                prop_assert!(fair.total().bytes <= parts);
            }
        }
    }
}
