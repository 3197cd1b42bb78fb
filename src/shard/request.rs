//! What a client may ask of the node, and what it gets back. The way in is [`Submit`].

use crate::auth::key::KeyId;
use crate::auth::rate::TooMany;
use crate::types::Namespace;
use crate::types::ShardId;
use crate::wire::command::draft::Draft;
use crate::wire::rows::StatementError;
use crate::wire::rows::StatementResult;

/// A request, whichever door it came in by.
#[derive(Debug)]
pub enum Request {
    /// Replicate and apply statements, all or none. A namespace that does not exist is created.
    Write {
        /// Whose database.
        namespace: Namespace,
        /// What to run.
        draft: Draft,
    },
    /// Run statements that do not write, on the leader by its own belief (level `weak`).
    Read {
        /// Whose database.
        namespace: Namespace,
        /// What to run; every statement in mode `Query`.
        draft: Draft,
    },
    /// What the node knows about itself.
    Status,
}

/// What a client gets back.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The results of the statements, as many as the draft asked for.
    Results(Vec<StatementResult>),
    /// The results that the same request gave before, by its key; now it had no effect (R18).
    Replayed(Vec<StatementResult>),
    /// Answer to [`Request::Status`].
    Status(Status),
}

/// What a node knows about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes of all database files of the node, catalog included.
    pub database_bytes: u64,
    /// Partitions with a replica here.
    pub n_partitions: u32,
    /// Partitions led from here.
    pub n_leading: u32,
    /// Partitions with a replica here that knows of no leader.
    pub n_leaderless: u32,
    /// Namespaces in the catalog.
    pub n_namespaces: u32,
    /// Databases that are damaged, and serve nobody.
    pub n_fenced: u32,
    /// Whether less is free on the disk than is to stay free.
    pub is_disk_low: bool,
    /// Whether the node was told to stop.
    pub is_stopping: bool,
    /// Whether a log has no room for its next segment.
    pub is_log_stuck: bool,
}

/// Why a client gets something else. A failing disk has no variant: it stops the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The client must change the statement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// What the same request was told before, by its key; now it had no effect (R18).
    #[error(transparent)]
    Replayed(StatementError),
    /// Not executed: nobody led the partition before the deadline. The client may send it again.
    #[error("no leader")]
    NoLeader,
    /// Not executed: a queue is full. The client should back off, then send it again.
    #[error("overloaded")]
    Overloaded,
    /// Not executed: its key has asked too often. The client may send it again when it says.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Not executed: the node is stopping. Another node may serve it.
    #[error("shutting down")]
    ShuttingDown,
    /// Not executed: this replica of the namespace is damaged and fenced. The operator must look.
    #[error("namespace is fenced: its database is damaged")]
    Fenced,
    /// Not executed: the namespace has used up its quota. The client may delete something.
    #[error("database is full")]
    DatabaseFull,
    /// Not executed: the disk is almost full. The client may delete something, or the operator make room.
    #[error("disk is almost full")]
    DiskReserve,
    /// Proposed, and its fate not known by the deadline. The client must look before it writes again.
    #[error("outcome unknown")]
    OutcomeUnknown,
}

/// The way in: one request, one reply. Implemented by `node::mesh`; `gateway` calls it; tests fake it.
pub trait Submit {
    /// Resolves once the request is done, or refused; within the request deadline in any case, which begins
    /// when a write with results has room for them.
    fn submit(&self, request: Request) -> impl Future<Output = Result<Reply, SubmitError>>;

    /// Whether a request of `key`, which acts in `namespace`, may pass now: it counts as one of those that
    /// a key may send in a second, whatever becomes of it.
    fn pass(
        &self,
        _key: KeyId,
        _namespace: &Namespace,
    ) -> impl Future<Output = Result<(), SubmitError>> {
        std::future::ready(Ok(()))
    }

    /// The core that serves a namespace's requests, if it is another one than this; a hint.
    fn elsewhere(&self, _: &Namespace) -> Option<ShardId> {
        None
    }
}
