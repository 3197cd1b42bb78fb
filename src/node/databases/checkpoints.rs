//! When the `-wal` of a database goes into its file, and what happens if it does not (R21, R23).

use crate::disk::helper::Job;
use crate::limits;
use crate::node::databases::Checkpoint;
use crate::node::databases::Databases;
use crate::node::databases::NoRoom;
use crate::node::databases::Slot;
use crate::shard::event::Event;
use crate::types::DatabaseId;

impl Databases {
    /// Begin a checkpoint, whatever the size of the `-wal`. Closing a database checkpoints it as well, as far as
    /// readers and the disk let it.
    pub(in crate::node) fn checkpoint(&mut self, id: DatabaseId) {
        let path = self.path(id);
        // One that is under way covers what was applied before its second pass.
        if let Some(Slot::Open(open)) = self.slots.get_mut(&id)
            && open.checkpoint == Checkpoint::Idle
        {
            open.checkpoint = Checkpoint::Running;
            self.counts.checkpoints += 1;
            self.helper.give(Job::Checkpoint { database: id, path });
        }
    }

    /// Begin a checkpoint if the `-wal` has grown by its bound since the last. One that is far too long has
    /// a reader in its way, which is stopped; until then there are no more writes (R23).
    pub(super) fn checkpoint_if_due(&mut self, id: DatabaseId, events: &mut Vec<Event>) {
        let path = self.path(id);
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else { return };
        let Some(database) = &open.here else { return };
        let wal_bytes = database.wal_bytes();
        // It has begun anew.
        if wal_bytes < limits::WAL_BYTES {
            open.checkpoint_at = limits::WAL_BYTES;
        }
        if wal_bytes > limits::WAL_BYTES_MAX {
            self.long_reads.stop_oldest(id);
            if !open.is_strained {
                open.is_strained = true;
                events.push(Event::Strained { database: id, is_strained: true });
            }
        }
        let is_due = wal_bytes > open.checkpoint_at || open.is_strained;
        if open.checkpoint == Checkpoint::Idle && is_due {
            open.checkpoint = Checkpoint::Running;
            open.checkpoint_at = wal_bytes + limits::WAL_BYTES;
            self.counts.checkpoints += 1;
            self.helper.give(Job::Checkpoint { database: id, path });
        }
    }

    /// The second pass of a checkpoint, once commands can wait for it.
    pub(super) fn finish_checkpoint_if_due(&mut self, id: DatabaseId) {
        let path = self.path(id);
        if let Some(Slot::Open(open)) = self.slots.get_mut(&id)
            && open.checkpoint == Checkpoint::Due
            && open.here.is_some()
        {
            open.checkpoint = Checkpoint::Finishing;
            self.helper.give(Job::FinishCheckpoint { database: id, path });
        }
    }

    pub(super) fn on_checkpointed(
        &mut self,
        id: DatabaseId,
        is_complete: bool,
        events: &mut Vec<Event>,
    ) {
        let Some(Slot::Open(open)) = self.slots.get_mut(&id) else { return };
        if open.checkpoint != Checkpoint::Finishing {
            return;
        }
        open.checkpoint = Checkpoint::Idle;
        if is_complete {
            open.checkpoint_at = limits::WAL_BYTES;
            if let Some(database) = &open.here {
                database.forget_wal_bytes();
            }
        }
        if open.is_strained && is_complete {
            open.is_strained = false;
            events.push(Event::Strained { database: id, is_strained: false });
        } else if open.is_strained {
            self.no_room.push(NoRoom::Checkpoint(id));
        }
        self.resume_batch(id, events);
    }
}
