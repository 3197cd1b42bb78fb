//! How a database comes to be open, and is closed again: within a number, and as far as the disk has room (R22).

use crate::catalog;
use crate::disk::helper::Job;
use crate::node::databases::Databases;
use crate::node::databases::NoRoom;
use crate::node::databases::Slot;
use crate::node::databases::Work;
use crate::node::databases::open::Open;
use crate::shard::event::Event;
use crate::sql::Database;
use crate::types::DatabaseId;
use crate::types::Incarnation;
use crate::wire::rows::StatementError;

impl Databases {
    /// Open what waits, as long as not too many are open; closing one makes room for the next.
    pub(super) fn open_next(&mut self) {
        while self.n_present < self.present_max
            && let Some(id) = self.to_open.pop_front()
        {
            self.n_present += 1;
            self.open(id);
        }
    }

    pub(super) fn open(&self, id: DatabaseId) {
        let floor = self.floors.get(&id).copied().unwrap_or_default();
        let is_engine = id.incarnation == Incarnation::ENGINE;
        let schema = if is_engine { catalog::ENGINE_SCHEMA } else { "" };
        self.helper.give(Job::Open { database: id, path: self.path(id), floor, schema });
    }

    /// There is no room to create a database, or to open it. Commands wait until there is; reads do not.
    pub(super) fn open_later(
        &mut self,
        id: DatabaseId,
        waiting: Vec<Work>,
        events: &mut Vec<Event>,
    ) {
        let mut kept = Vec::new();
        for work in waiting {
            match work {
                Work::Apply(_) => kept.push(work),
                Work::Read(token, _) => {
                    let error = StatementError::coded("disk_reserve", "the disk is full");
                    events.push(Event::ReadFinished { database: id, token, outcome: Err(error) });
                }
            }
        }
        self.slots.insert(id, Slot::Away(kept));
        self.no_room.push(NoRoom::Open(id));
    }

    /// One fewer is open, or on its way: there is room for the next.
    pub(super) fn leave(&mut self) {
        self.n_present -= 1;
        self.open_next();
    }

    /// Give a database to the helper thread to be closed; `work` waits until it is back.
    fn close(&mut self, id: DatabaseId, open: Box<Database>, work: Vec<Work>) {
        self.slots.insert(id, Slot::Away(work));
        let readers = self.long_reads.take_idle(id);
        self.helper.give(Job::Evict { database: id, path: self.path(id), open, readers });
    }

    /// Close a database that has nothing to do.
    pub(in crate::node) fn evict(&mut self, id: DatabaseId, events: &mut Vec<Event>) {
        match self.slots.remove(&id) {
            Some(Slot::Open(Open { here: Some(database), batch, .. })) => {
                self.forget_retry(id);
                self.close(id, database, batch.map(Work::Apply).into_iter().collect());
            }
            // It was to be opened when there is room on the disk, for reads that have been refused since.
            Some(Slot::Away(work)) if work.is_empty() && self.waits_for_room(id) => {
                self.no_room.retain(|it| it.database() != id);
                self.leave();
                events.push(Event::Evicted { database: id });
            }
            other => {
                self.slots.extend(other.map(|it| (id, it)));
                events.push(Event::Evicted { database: id });
            }
        }
    }

    fn waits_for_room(&self, id: DatabaseId) -> bool {
        self.no_room.iter().any(|it| matches!(it, NoRoom::Open(open) if *open == id))
    }
}
