//! Checkpoints that are tried again, each database's at times of its own: when, and what the log says of it.
//!
//! ```text
//! absent ──the `-wal` does not begin anew──► waits ──its time──► tried ──in vain──► waits twice as long ──► …
//!                                                                  └──begins anew, fenced, closed──► absent
//! ```
//!
//! What keeps a `-wal` long may be nothing that ends here: the disk is full, or a reader of another process (a backup,
//! say) is open. That may be over in a moment, or tomorrow. So it is looked at less and less often, but never so
//! rarely that anybody waits for long once it is over; the log says once that it lasts, and once that it is over.
//!
//! Invariants
//! - A few are begun at once, those first whose writers are refused, so that other work of the helper thread waits for
//!   those at most.
//! - There is one of each database that is open, so no more than may be open.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::limits;
use crate::types::DatabaseId;
use crate::types::Instant;

/// How much it hurts that a `-wal` is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pain {
    /// It takes room.
    Room,
    /// Writes are refused.
    Refused,
    /// Commands wait, for a moment (R23).
    Waiting,
}

impl Pain {
    /// The longest pause between two tries.
    fn pause_max(self) -> Duration {
        match self {
            Self::Room => limits::CHECKPOINT_RETRY_MAX,
            Self::Refused => limits::CHECKPOINT_RETRY_REFUSING_MAX,
            Self::Waiting => limits::CHECKPOINT_RETRY_MIN,
        }
    }
}

#[derive(Debug)]
struct Retry {
    /// The first that was in vain.
    since: Instant,
    /// The next pause, if nothing is worse than that it takes room.
    pause: Duration,
    /// None: it is under way, or the end of a read begins it.
    at: Option<Instant>,
    pain: Pain,
    is_told: bool,
}

/// Checkpoints of a core's databases that are tried again.
#[derive(Debug, Default)]
pub(super) struct Retries {
    of: FxHashMap<DatabaseId, Retry>,
    /// The soonest of all.
    next: Option<Instant>,
    /// More were due than are begun at once.
    not_before: Option<Instant>,
}

impl Retries {
    /// When [`Self::take_due`] gives something.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.next.max(self.not_before.filter(|_| self.next.is_some()))
    }

    /// One was in vain at `now`: try it again, later than the last time. For how long that has been going on, if it is
    /// to be told, which is once.
    pub(super) fn later(&mut self, id: DatabaseId, now: Instant, pain: Pain) -> Option<Duration> {
        let pause = limits::CHECKPOINT_RETRY_MIN;
        let new = Retry { since: now, pause, at: None, pain, is_told: false };
        let retry = self.of.entry(id).or_insert(new);
        retry.pain = pain;
        let at = now.after(retry.pause.min(pain.pause_max()));
        // One that has its time already was not the one that was in vain.
        if retry.at.is_none() {
            retry.pause = (retry.pause * 2).min(limits::CHECKPOINT_RETRY_MAX);
        }
        retry.at = Some(retry.at.map_or(at, |it| it.min(at)));
        let lasts = now.since(retry.since);
        let is_due = !retry.is_told && lasts >= limits::CHECKPOINT_TOLD_AFTER;
        retry.is_told |= is_due;
        self.find_next();
        is_due.then_some(lasts)
    }

    /// What was in the way may be gone: as if the next were the first.
    pub(super) fn hope(&mut self, id: DatabaseId) {
        if let Some(retry) = self.of.get_mut(&id) {
            (retry.pause, retry.at) = (limits::CHECKPOINT_RETRY_MIN, None);
            self.find_next();
        }
    }

    /// The log has said by other words that it lasts.
    pub(super) fn note_told(&mut self, id: DatabaseId) {
        if let Some(retry) = self.of.get_mut(&id) {
            retry.is_told = true;
        }
    }

    /// It is over, or nobody wants it any more. How long it lasted, if anything was told of it.
    pub(super) fn end(&mut self, id: DatabaseId, now: Instant) -> Option<Duration> {
        let ended = self.of.remove(&id)?;
        self.find_next();
        ended.is_told.then(|| now.since(ended.since))
    }

    /// Whether there is one of this database.
    pub(super) fn has(&self, id: DatabaseId) -> bool {
        self.of.contains_key(&id)
    }

    /// Whether there are none at all, as nearly always.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Those to begin now: a few, and the others a little later.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<DatabaseId> {
        if self.next_timeout().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let all = self.of.iter();
        let due = all.filter_map(|(id, it)| Some((it.pain, it.at.filter(|at| *at <= now)?, *id)));
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(pain, at, id)| (std::cmp::Reverse(*pain), *at, *id));
        let has_more = due.len() > limits::CHECKPOINT_RETRIES_MAX;
        self.not_before = has_more.then(|| now.after(limits::CHECKPOINT_RETRY_MIN));
        // One of them whatever it is: room may be what the others wait for.
        let oldest = due.iter().enumerate().min_by_key(|(_, (_, at, id))| (*at, *id));
        if let Some((place, _)) = oldest.filter(|(it, _)| *it >= limits::CHECKPOINT_RETRIES_MAX) {
            due.swap(limits::CHECKPOINT_RETRIES_MAX - 1, place);
        }
        due.truncate(limits::CHECKPOINT_RETRIES_MAX);
        for (_, _, id) in &due {
            self.of.get_mut(id).expect("it was there in this function").at = None;
        }
        self.find_next();
        due.into_iter().map(|(_, _, id)| id).collect()
    }

    fn find_next(&mut self) {
        self.next = self.of.values().filter_map(|it| it.at).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Incarnation;
    use crate::types::PartitionId;

    fn id(n: u64) -> DatabaseId {
        DatabaseId { partition: PartitionId(1), incarnation: Incarnation(n) }
    }

    fn ms(it: u64) -> Instant {
        Instant::START.after(Duration::from_millis(it))
    }

    /// When those of one database are tried until then, each in vain; and what is told, with its time.
    fn tries(retries: &mut Retries, pain: Pain, until: u64) -> (Vec<u64>, Vec<(u64, u128)>) {
        let (mut tries, mut told) = (Vec::new(), Vec::new());
        retries.later(id(1), ms(0), pain);
        for now in 0..until {
            if retries.take_due(ms(now)).is_empty() {
                continue;
            }
            tries.push(now);
            told.extend(retries.later(id(1), ms(now), pain).map(|it| (now, it.as_millis())));
        }
        (tries, told)
    }

    #[test]
    fn what_does_not_help_is_tried_less_and_less_often_and_told_once() {
        let mut retries = Retries::default();
        let (times, told) = tries(&mut retries, Pain::Room, 20_000);
        assert_eq!(times, [100, 300, 700, 1_500, 3_100, 6_300, 11_300, 16_300]);
        assert_eq!(told, [(1_500, 1_500)]);
        assert_eq!(retries.end(id(1), ms(21_000)), Some(Duration::from_secs(21)));
        assert!(retries.is_empty() && retries.next_timeout().is_none());
        // The next begins from the beginning.
        let (times, told) = tries(&mut retries, Pain::Room, 800);
        assert_eq!((times, told), (vec![100, 300, 700], vec![]));
        assert_eq!(retries.end(id(1), ms(800)), None, "nothing was said of it");
    }

    #[test]
    fn who_waits_for_writes_does_so_for_a_second_at_most_once_they_are_possible() {
        let (times, _) = tries(&mut Retries::default(), Pain::Refused, 6_000);
        assert_eq!(times, [100, 300, 700, 1_500, 2_500, 3_500, 4_500, 5_500]);
        let (times, _) = tries(&mut Retries::default(), Pain::Waiting, 550);
        assert_eq!(times, [100, 200, 300, 400, 500]);
    }

    #[test]
    fn that_a_reader_has_left_begins_it_from_the_beginning() {
        let mut retries = Retries::default();
        tries(&mut retries, Pain::Room, 7_000);
        retries.hope(id(1));
        assert_eq!(retries.next_timeout(), None);
        retries.later(id(1), ms(7_000), Pain::Room);
        assert_eq!(retries.next_timeout(), Some(ms(7_100)));
        // Asked for twice, it does not wait longer for that.
        retries.later(id(1), ms(7_050), Pain::Room);
        assert_eq!(retries.take_due(ms(7_100)), [id(1)]);
        retries.later(id(1), ms(7_100), Pain::Room);
        assert_eq!(retries.next_timeout(), Some(ms(7_300)));
    }

    #[test]
    fn a_few_are_begun_at_once_and_those_first_that_hurt_most() {
        let mut retries = Retries::default();
        for n in 0..6 {
            retries.later(id(n), ms(n), Pain::Room);
        }
        retries.later(id(6), ms(60), Pain::Refused);
        assert_eq!(retries.take_due(ms(99)), []);
        assert_eq!(retries.take_due(ms(200)), [id(6), id(0), id(1), id(2)]);
        assert_eq!(retries.next_timeout(), Some(ms(300)), "not in the next turn");
        assert_eq!(retries.take_due(ms(299)), []);
        assert_eq!(retries.take_due(ms(300)), [id(3), id(4), id(5)]);
        assert_eq!(retries.next_timeout(), None);
        retries.later(id(3), ms(400), Pain::Room);
        assert_eq!(retries.next_timeout(), Some(ms(600)));
    }
}
