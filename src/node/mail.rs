//! What cores, helper threads and the main thread put into a core's mailbox.

use crate::catalog::Row;
use crate::disk::helper::Done;
use crate::http::Moved;
use crate::node::metrics::CoreMetrics;
use crate::shard::event::Answer;
use crate::shard::event::Event;
use crate::shard::event::Token;
use crate::shard::request::Status;
use crate::shard::request::SubmitError;
use crate::types::ShardId;

/// What a request may come back with, whoever answers it.
#[derive(Debug)]
pub(super) enum Back {
    /// From a core's state machine.
    Answer(Result<Answer, SubmitError>),
    /// From a core's driver.
    Status(Status),
    /// From a core's main task.
    Metrics(Box<CoreMetrics>),
}

/// One piece of mail.
#[derive(Debug)]
pub(super) enum Mail {
    /// For the state machine.
    Event(Event),
    /// Another core's answer to a request of this one.
    Reply { token: Token, back: Back },
    /// Another core wants to know how this one is.
    AskStatus { token: Token },
    /// Another core wants to know what this one has counted.
    AskMetrics { token: Token },
    /// The system partition's core applied a change of the catalog.
    Catalog(Row),
    /// A connection whose requests are served here.
    Connection(Moved),
    /// How many connections another core has.
    Connections { core: ShardId, n_open: u64 },
    /// The helper thread is done with something.
    Done(Done),
    /// The operator wants the node to stop: accept nothing, finish what has begun.
    Drain,
    /// Every core has drained: end.
    Exit,
}
