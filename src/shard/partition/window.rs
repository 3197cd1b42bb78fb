//! What a partition has proposed and its log has not on disk yet: the window. What comes when it is full waits for its
//! turn (`shard::backlog`), because in the log itself everything stands in the order in which it came.
//!
//! Entries of all kinds count, but only those of clients wait.

use std::collections::VecDeque;

use crate::limits;
use crate::shard::event::Ticket;
use crate::shard::fair::Amount;

/// Readies that are being written, and what will be.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Tickets, the replica's numbers for them, and the entries in each.
    readies: VecDeque<(Ticket, u64, Amount)>,
    /// All of these entries.
    written: Amount,
    /// Proposed since the replica was last asked what it wants.
    fresh: Amount,
}

impl Window {
    /// Whether one more command may be proposed.
    pub(super) fn has_room(&self) -> bool {
        self.written.n + self.fresh.n < limits::UNPERSISTED_MAX
            && self.written.bytes + self.fresh.bytes < limits::UNPERSISTED_BYTES_MAX
    }

    /// A command was proposed.
    pub(super) fn on_proposed(&mut self, bytes: usize) {
        self.fresh.add(Amount::one(bytes));
    }

    /// The replica gave these entries out to be written; those that were overwritten before will not be.
    pub(super) fn on_ready(&mut self, ticket: Ticket, number: u64, entries: Amount) {
        self.readies.push_back((ticket, number, entries));
        self.written.add(entries);
        self.fresh = Amount::default();
    }

    /// Everything up to the ticket is on disk. The number of the last ready of that, if there was one.
    pub(super) fn on_persisted(&mut self, ticket: Ticket) -> Option<u64> {
        let mut last = None;
        while let Some((_, number, entries)) =
            self.readies.pop_front_if(|(first, ..)| *first <= ticket)
        {
            self.written.sub(entries);
            last = Some(number);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_room_again_when_something_is_on_disk() {
        let mut window = Window::default();
        for _ in 0..limits::UNPERSISTED_MAX {
            assert!(window.has_room());
            window.on_proposed(1);
        }
        assert!(!window.has_room());
        let half = Amount { n: limits::UNPERSISTED_MAX / 2, bytes: 10 };
        window.on_ready(Ticket(1), 7, half);
        assert!(window.has_room(), "the other half was overwritten");
        window.on_ready(Ticket(3), 8, half);
        assert!(!window.has_room());
        assert_eq!(window.on_persisted(Ticket(2)), Some(7));
        assert!(window.has_room());
        assert_eq!(window.on_persisted(Ticket(2)), None);
        window.on_proposed(limits::UNPERSISTED_BYTES_MAX);
        assert!(!window.has_room());
        assert_eq!(window.on_persisted(Ticket(3)), Some(8));
    }
}
