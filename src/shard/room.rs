//! How much room there is, on the node's disk and in each database, and what may still be proposed.
//!
//! | | enough | below reserve 1 | below reserve 2 |
//! |---|---|---|---|
//! | reads; giving pages back | yes | yes | yes |
//! | DROP | yes | yes | yes |
//! | DELETE | yes | yes | no |
//! | everything else, new namespaces | within the quota | no | no |
//!
//! The leader decides it, before it proposes: a replica that applies never asks its own disk (R12, R16, R35).
//! What a request may do is told from the first words of its statements. That is enough: what a trigger of a
//! DELETE adds is bounded by the limit that the command carries.

use crate::limits;
use crate::shard::request::SubmitError;
use crate::sql;
use crate::types::DatabaseSize;
use crate::wire::command::Kind;
use crate::wire::command::draft::Draft;

/// Bytes of a page of every database.
const PAGE_SIZE: u64 = 4_096;

/// How full the disk of the databases is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Less is free than reserve 2: what is left is for what is under way.
    Scarce,
    /// Less is free than reserve 1: the node takes nothing that needs more.
    Low,
    /// There is room.
    #[default]
    Enough,
}

/// The bytes that are to stay free on the disk of the databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    low: u64,
    scarce: u64,
}

impl Reserve {
    /// Reserve 1 is `bytes`, reserve 2 the half of it; zero is none.
    pub fn new(bytes: u64) -> Self {
        Self { low: bytes, scarce: bytes / 2 }
    }

    /// The room with `free` bytes left, if it was `before` until now. To get out of a reserve takes a tenth more
    /// than to get into it, or the node would change its mind with every segment of the log.
    pub fn room(self, before: Room, free: u64) -> Room {
        let bound = |reserve: u64, is_below: bool| {
            if is_below { reserve.saturating_add(reserve / 10) } else { reserve }
        };
        if free < bound(self.scarce, before == Room::Scarce) {
            Room::Scarce
        } else if free < bound(self.low, before < Room::Enough) {
            Room::Low
        } else {
            Room::Enough
        }
    }

    /// Whether it is near: time to look more often.
    pub fn is_near(self, free: u64) -> bool {
        free < self.low.saturating_mul(2)
    }
}

/// Whether `draft` may be proposed to a tenant's database of `size` (none: not known) on a disk with that much
/// `room`, where a value of the key-value storage has `value_max` bytes at most. Returns the bytes that the
/// database may reach by it, where `quota` is the limit.
pub(super) fn admit(
    draft: &Draft,
    room: Room,
    size: Option<DatabaseSize>,
    quota: u64,
    value_max: u32,
) -> Result<u64, SubmitError> {
    match draft.kind() {
        Kind::Drop | Kind::Vacuum => return Ok(quota),
        Kind::Create if room < Room::Enough => return Err(SubmitError::DiskReserve),
        // It writes to the engine's own database.
        Kind::Create => return Ok(u64::MAX),
        // Each replica would refuse it as well, but only after it was logged by all.
        Kind::Storage => draft.check_value(value_max)?,
        Kind::Execute => {}
    }
    let is_key = draft.kind() == Kind::Storage;
    let all = |is: fn(&str) -> bool| draft.statements().all(|it| it.is_ok_and(|it| is(it.sql)));
    let only_shrinks = || if is_key { !draft.puts() } else { all(sql::only_shrinks) };
    let may_pass = match room {
        Room::Enough => true,
        Room::Low => only_shrinks(),
        Room::Scarce => !is_key && all(sql::only_drops),
    };
    if !may_pass {
        return Err(SubmitError::DiskReserve);
    }
    let size = size.unwrap_or_default();
    let used = u64::from(size.pages.saturating_sub(size.free_pages)) * PAGE_SIZE;
    let slack = limits::QUOTA_SLACK.0;
    if used.saturating_add(slack) < quota {
        return Ok(quota);
    }
    if only_shrinks() {
        // A quota that was lowered may lie below what is there.
        let bytes = u64::from(size.pages) * PAGE_SIZE;
        return Ok(quota.max(bytes).saturating_add(slack));
    }
    if used < quota { Ok(quota) } else { Err(SubmitError::DatabaseFull) }
}

/// How many pages of a database of `size` to give back next, if it is time (R16).
pub(super) fn pages_to_give_back(size: DatabaseSize) -> Option<u32> {
    let is_due = size.free_pages >= limits::VACUUM_FREE_PAGES_MIN
        && size.free_pages > size.pages / limits::VACUUM_FREE_RATIO;
    is_due.then(|| size.free_pages.min(limits::VACUUM_PAGES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::command::Mode;
    use crate::wire::command::RequestKey;
    use crate::wire::command::Results;
    use crate::wire::storage::Storage;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_reserve_is_left_later_than_it_is_entered() {
        let reserve = Reserve::new(100);
        let mut room = Room::Enough;
        let mut seen = Vec::new();
        for free in [1_000, 100, 99, 100, 109, 110, 109, 99, 50, 49, 54, 55, 60, 10, 109, 49, 110] {
            room = reserve.room(room, free);
            seen.push((free, room));
        }
        assert_eq!(
            seen,
            [
                (1_000, Room::Enough),
                (100, Room::Enough),
                (99, Room::Low),
                (100, Room::Low),
                (109, Room::Low),
                (110, Room::Enough),
                (109, Room::Enough),
                (99, Room::Low),
                (50, Room::Low),
                (49, Room::Scarce),
                (54, Room::Scarce),
                (55, Room::Low),
                (60, Room::Low),
                (10, Room::Scarce),
                (109, Room::Low),
                (49, Room::Scarce),
                (110, Room::Enough),
            ]
        );
        let none = Reserve::new(0);
        assert_eq!(none.room(Room::Enough, 0), Room::Enough);
        assert!(!none.is_near(0));
        assert!(reserve.is_near(199) && !reserve.is_near(200));
    }

    fn draft(texts: &[&str]) -> Draft {
        let mut draft = Draft::new(Results::Each, 0);
        for sql in texts {
            draft.statement(Mode::Exec, sql).unwrap();
        }
        draft
    }

    #[test]
    fn a_full_disk_takes_what_makes_room() {
        let (insert, delete) = (draft(&["INSERT INTO t VALUES (1)"]), draft(&["DELETE FROM t"]));
        let drop = draft(&["DROP TABLE t", "SELECT 1"]);
        let mixed = draft(&["DELETE FROM t", "UPDATE t SET a = 1"]);
        let put = Draft::storage(&Storage::Put { key: "k", ttl_ms: 0, value: b"" }).unwrap();
        let remove = Draft::storage(&Storage::Delete { key: "k" }).unwrap();
        let create = Draft::lifecycle(Kind::Create, "n");
        let vacuum = Draft::vacuum(1);
        for (name, draft, want) in [
            ("insert", &insert, [true, false, false]),
            ("delete", &delete, [true, true, false]),
            ("drop", &drop, [true, true, true]),
            ("mixed", &mixed, [true, false, false]),
            ("put", &put, [true, false, false]),
            ("remove", &remove, [true, true, false]),
            ("create", &create, [true, false, false]),
            ("vacuum", &vacuum, [true, true, true]),
        ] {
            let rooms = [Room::Enough, Room::Low, Room::Scarce];
            let got = rooms.map(|room| match admit(draft, room, None, u64::MAX, 9) {
                Ok(_) => true,
                Err(SubmitError::DiskReserve) => false,
                Err(error) => panic!("{name}: {error}"),
            });
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn a_value_that_is_too_large_is_not_proposed() {
        let put = |size: usize| {
            let what = Storage::Put { key: "key", ttl_ms: 1, value: &vec![0; size] };
            let mut draft = Draft::storage(&what).unwrap();
            draft.key(RequestKey::new(b"name", [7; 16]).unwrap()).unwrap();
            admit(&draft, Room::Enough, None, MIB, 9).map_err(|it| it.to_string())
        };
        assert_eq!(put(9), Ok(MIB));
        assert_eq!(put(10), Err("value is too large: at most 9 bytes".to_owned()));
        let remove = Draft::storage(&Storage::Delete { key: "longer than nine" }).unwrap();
        admit(&remove, Room::Enough, None, MIB, 9).unwrap();
    }

    #[test]
    fn a_full_database_takes_what_shrinks_it() {
        let insert = draft(&["INSERT INTO t VALUES (1)"]);
        let delete = draft(&["DELETE FROM t", "SELECT 1"]);
        let pages = |mib: u64| u32::try_from(mib * MIB / PAGE_SIZE).unwrap();
        let size =
            |used, free| Some(DatabaseSize { pages: pages(used + free), free_pages: pages(free) });
        let full = Err(SubmitError::DatabaseFull);
        for (name, size, for_insert, for_delete) in [
            ("not known", None, Ok(100), Ok(100)),
            ("far from full", size(80, 0), Ok(100), Ok(100)),
            ("nearly full", size(90, 0), Ok(100), Ok(116)),
            ("full", size(100, 0), full.clone(), Ok(116)),
            ("full of free pages", size(20, 80), Ok(100), Ok(100)),
            ("beyond a lowered quota", size(130, 20), full, Ok(166)),
        ] {
            let admit = |draft| admit(draft, Room::Enough, size, 100 * MIB, 9).map(|it| it / MIB);
            assert_eq!(admit(&insert), for_insert, "{name}");
            assert_eq!(admit(&delete), for_delete, "{name}");
        }
    }

    #[test]
    fn free_pages_are_given_back_when_they_are_many() {
        for (pages, free_pages, want) in [
            (1_000, 100, None),
            (1_000, 101, Some(32)),
            (10_000, 5_000, Some(32)),
            (100, 63, None),
            (100, 64, Some(32)),
            (0, 0, None),
        ] {
            let size = DatabaseSize { pages, free_pages };
            assert_eq!(pages_to_give_back(size), want, "{size:?}");
        }
    }
}
