//! What happens to a shard, and what it wants done: the whole contract between core and shell.

use bytes::Bytes;

use crate::catalog;
use crate::raft;
use crate::shard::request::SubmitError;
use crate::shard::room::Room;
use crate::sql::Applied;
use crate::types::DatabaseId;
use crate::types::DatabaseSize;
use crate::types::Floor;
use crate::types::Incarnation;
use crate::types::LogIndex;
use crate::types::Namespace;
use crate::types::PartitionId;
use crate::types::Timestamp;
use crate::wal::record::Record;
use crate::wire::command::draft::Draft;
use crate::wire::rows::Outcome;
use crate::wire::rows::StatementResult;

/// Names a waiting request. Given out by the shell, never twice in the life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Names a durable step that the core waits for. Rises with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something that happened. Closed: adapters add no variants of their own.
#[derive(Debug)]
pub enum Event {
    /// The shell is ready: hand out what the log has, and ask to lead.
    Start,
    /// What the wall clock says now; about once a second.
    Clock {
        /// The clock's time.
        wall: Timestamp,
    },
    /// How much room the disk of the databases has now, if it has changed.
    DiskSpace {
        /// That much.
        room: Room,
    },
    /// A client writes; [`Effect::Reply`] answers `token`.
    Write {
        /// Whom to answer.
        token: Token,
        /// Where to.
        database: DatabaseId,
        /// What to run.
        draft: Draft,
    },
    /// A client reads, at level `weak`; [`Effect::Reply`] answers `token`.
    Read {
        /// Whom to answer.
        token: Token,
        /// Where from.
        database: DatabaseId,
        /// What to run.
        draft: Draft,
    },
    /// Somebody wants a namespace to exist. For the system partition.
    CreateNamespace {
        /// Whom to answer.
        token: Token,
        /// Its name.
        namespace: Namespace,
    },
    /// The system partition's leader wants a database to exist. For the hosting partition.
    CreateDatabase {
        /// Whom to answer.
        token: Token,
        /// Which.
        database: DatabaseId,
        /// Whose.
        namespace: Namespace,
    },
    /// What [`Effect::Ask`] got.
    Answered {
        /// Whose database was asked for.
        namespace: Namespace,
        /// Whether it exists now.
        result: Result<Answer, SubmitError>,
    },
    /// Another replica spoke.
    Message {
        /// Of which partition.
        partition: PartitionId,
        /// What it said.
        message: raft::Message,
    },
    /// Everything up to and including the ticket is on disk.
    Persisted {
        /// The last of them.
        ticket: Ticket,
    },
    /// A batch of commands ran, on the core or on a thread; the core cannot tell.
    Applied {
        /// Where.
        database: DatabaseId,
        /// What became of the commands of [`Effect::Apply`], in order; of the first ones, if the rest is
        /// still under way.
        applied: Vec<Applied>,
        /// How large the database is now.
        size: DatabaseSize,
    },
    /// A read ran.
    ReadFinished {
        /// Where.
        database: DatabaseId,
        /// Whose.
        token: Token,
        /// What it gave.
        outcome: Outcome,
    },
    /// The `-wal` of a database is too long, so that it takes no writes; or not any more (R23).
    Strained {
        /// Which.
        database: DatabaseId,
        /// Whether it is.
        is_strained: bool,
    },
    /// The database is damaged; nothing of the batch in flight counts.
    Fenced {
        /// Which.
        database: DatabaseId,
    },
    /// [`Effect::Sync`] is done.
    Synced,
    /// [`Effect::WriteManifests`] is done.
    ManifestsWritten,
    /// [`Effect::WriteManifests`] found no room on the disk: all manifests are the old ones or the new ones.
    ManifestsNotWritten,
    /// Entries of this partition pin an old log segment: write those up to `last` again (R3).
    Lagging {
        /// Which.
        partition: PartitionId,
        /// The last entry that does.
        last: LogIndex,
    },
    /// [`Effect::Evict`] is done.
    Evicted {
        /// Which.
        database: DatabaseId,
    },
    /// The time last returned by [`crate::shard::Shard::next_timeout`] has come.
    Timeout,
    /// No more events are at hand: what was proposed in this turn of the loop leaves together.
    TurnEnd,
}

/// Something the shell must do, in order. Performing it is submitting it; what takes time comes back as
/// an [`Event`].
#[derive(Debug)]
pub enum Effect {
    /// Say it to another replica.
    Send {
        /// Of which partition.
        partition: PartitionId,
        /// What to say; it knows to whom.
        message: raft::Message,
    },
    /// Append to the shard's log and sync, then report [`Event::Persisted`].
    Persist {
        /// Rises with each.
        ticket: Ticket,
        /// What to append, in order.
        records: Vec<Record>,
    },
    /// Run committed commands in one go, then report [`Event::Applied`]. One at a time per database.
    Apply {
        /// Where.
        database: DatabaseId,
        /// Log index and bytes of each command.
        commands: Vec<(LogIndex, Bytes)>,
    },
    /// Run statements that do not write, then report [`Event::ReadFinished`].
    Read {
        /// Whose.
        token: Token,
        /// Where.
        database: DatabaseId,
        /// A sealed draft.
        command: Bytes,
    },
    /// Answer a request; each token exactly once.
    Reply {
        /// Which.
        token: Token,
        /// How it ended.
        result: Result<Answer, SubmitError>,
    },
    /// Have the hosting partition create a database ([`Event::CreateDatabase`]), wherever it is led, then
    /// report [`Event::Answered`].
    Ask {
        /// Whose.
        namespace: Namespace,
        /// Which.
        database: DatabaseId,
    },
    /// Tell the caches of all shards.
    CatalogChanged {
        /// What the catalog says now.
        row: catalog::Row,
    },
    /// Sync the `-wal` of each database, then report [`Event::Synced`].
    Sync {
        /// Which.
        databases: Vec<DatabaseId>,
    },
    /// Write and sync the manifests, then report [`Event::ManifestsWritten`].
    WriteManifests {
        /// The durable index of every database of each partition.
        floors: Vec<(PartitionId, Vec<(Incarnation, Floor)>)>,
    },
    /// The log has kept too much for a database that is fenced, and forgets what that may lack (R38). For the
    /// operator to know.
    LetGo {
        /// Which.
        database: DatabaseId,
        /// Bytes of log that its partition keeps.
        bytes: usize,
    },
    /// Checkpoint a database that has become smaller, so that its file does, too. Nothing comes back.
    Checkpoint {
        /// Which.
        database: DatabaseId,
    },
    /// Checkpoint and close a clean database, then report [`Event::Evicted`].
    Evict {
        /// Which.
        database: DatabaseId,
    },
    /// Own rules are broken by what the disk holds: stop the process and say why.
    Stop {
        /// For the operator.
        reason: String,
    },
}

/// How a request ends well.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The results of a write or a read.
    Results(Vec<StatementResult>),
    /// The results that the same request gave before; now it had no effect (R18).
    Replayed(Vec<StatementResult>),
    /// The namespace exists.
    Namespace(catalog::Row),
}
