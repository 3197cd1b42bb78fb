//! Every bound in one place, and how they hang together.
//!
//! What an operator may change is in `config::Limits`, whose defaults stand here too.

use std::time::Duration;

use crate::types::ByteSize;

/// Bytes of one command, header included: one Raft entry.
pub const COMMAND_SIZE_MAX: usize = 20 << 20;
/// Statements of one command.
pub const STATEMENTS_MAX: usize = 10_000;
/// Arguments of one statement; SQLite's own limit is set to it.
pub const ARGUMENTS_MAX: usize = 32_766;
/// Bytes of one SQL text.
pub const SQL_SIZE_MAX: usize = 1_000_000;
/// Pieces that one SELECT is built from: columns, joins, criteria, conditions, groups and orders (400).
pub const SELECT_PIECES_MAX: usize = 2_000;
/// Bytes of what one full-text search is for (400): a row takes it time in proportion to the words of both, and
/// nothing stops it meanwhile.
pub const MATCH_SIZE_MAX: usize = 1 << 10;
/// Words of it, as its tokenizer tells them apart (400). On the worst row of 4 MiB they take a second or two.
pub const MATCH_WORDS_MAX: usize = 128;
/// Phrases of it, a word by itself being one (400).
pub const MATCH_PHRASES_MAX: usize = 64;
/// Phrases of it in one `NEAR()`, whose square it takes (400): on such a row a second.
pub const MATCH_NEAR_MAX: usize = 16;
/// Bytes of the arguments of one tokenizer of full-text search (400).
pub const TOKENIZER_SIZE_MAX: usize = 2 << 10;

/// Tables, indexes, views and triggers of one database: opening it takes time in proportion to them, and so does
/// each change of the schema (400). Replicas must agree on this and the next: to change them is to change the format.
pub const SCHEMA_OBJECTS_MAX: usize = 10_000;
/// Bytes of the texts that they were created with (400).
pub const SCHEMA_SIZE_MAX: usize = 16 << 20;

/// Bytes of the message of one error; what is longer is cut.
pub const MESSAGE_SIZE_MAX: usize = 4 << 10;
/// Bytes of an `Idempotency-Key`, whose length is one byte in a command.
pub const REQUEST_KEY_SIZE_MAX: usize = 255;
/// How long the outcome of a request with a key is kept, by the time of commands.
pub const REQUEST_KEPT: Duration = Duration::from_hours(24);
/// Requests with a key that a namespace remembers.
pub const REQUESTS_KEPT_MAX: u64 = 10_000;
/// A full memory forgets the oldest request if it is as old as this, else it takes no other (429).
pub const REQUEST_KEPT_MIN: Duration = Duration::from_mins(10);
/// Bytes of one kept outcome. A request with a key whose results are larger fails.
pub const REQUEST_OUTCOME_SIZE_MAX: usize = 1 << 20;
/// Outcomes up to here are kept even if the database is full: all of them together take 80 MB at most.
pub const REQUEST_OUTCOME_SIZE_SMALL: usize = 8 << 10;

/// Bytes of a key of the key-value storage.
pub const STORAGE_KEY_SIZE_MAX: usize = 1 << 10;
/// Keys that one request lists, if it does not say how many.
pub const STORAGE_LIST: u32 = 100;
/// Keys that one request may list.
pub const STORAGE_LIST_MAX: u32 = 1_000;
/// Keys that have expired, which a list passes over before it ends early and says where to go on.
pub const STORAGE_SKIPPED_MAX: u32 = 1_000;
/// Keys that have expired, removed with each put: more than one, so that they become fewer.
pub const STORAGE_EXPIRED_PER_PUT: u32 = 4;
/// The same with each delete, which passes when the namespace is full.
pub const STORAGE_EXPIRED_PER_DELETE: u32 = 64;
/// Bytes of their values at which no more are removed with the same command.
pub const STORAGE_EXPIRED_BYTES: i64 = 1 << 20;

/// Commands taken but not yet applied, per partition: what one namespace alone may have. Several share it
/// (`shard::fair`), and who has more than its share is told `overloaded`.
pub const PROPOSALS_IN_FLIGHT_MAX: usize = 8_192;
/// Bytes of commands taken but not yet applied, per partition; shared in the same way.
pub const PROPOSAL_BYTES_IN_FLIGHT_MAX: usize = 64 << 20;
/// Commands of a partition that its log has not on disk, when further ones wait for their turn: as many as a slow disk
/// (10 ms) needs to write 100 000 a second.
pub const UNPERSISTED_MAX: usize = 2_048;
/// Bytes of them: what a disk writes in 10 ms, about.
pub const UNPERSISTED_BYTES_MAX: usize = 4 << 20;
/// Bytes of commands that a namespace adds to the log in its turn, while others wait for theirs.
pub const TURN_BYTES: usize = 64 << 10;
/// What a command counts as in such a turn, besides its bytes.
pub const COMMAND_COST: usize = 1 << 10;
/// Messages waiting from one core to another; more are told `overloaded`.
pub const MESH_DEPTH_MAX: usize = 16_384;
/// Bytes of request bodies that one core gathers at once, for one API key alone; several share it (`shard::fair`), and who
/// has more than its share is told `overloaded`.
pub const BODIES_HELD_BYTES_MAX: usize = 128 << 20;
/// API keys that may ask within two seconds, where there is a limit to their requests per second; others are
/// refused (429).
pub const RATES_MAX: usize = 100_000;
/// Connections of a core beyond `limits.connections` that are told so (503); further ones are closed at once.
pub const CONNECTIONS_REFUSED_MAX: usize = 64;

/// Commands of one transaction of one database: what a step of apply may cost.
pub const APPLY_BATCH_MAX: usize = 512;
/// Free pages that one command may give back to the file system (R16).
pub const VACUUM_PAGES_MAX: u32 = 256;
/// Free pages that one command gives back: few enough to do it on a core, for on a thread the commands behind it
/// would wait for others' long statements.
pub const VACUUM_PAGES: u32 = 32;
/// Free pages below which a database is left as it is.
pub const VACUUM_FREE_PAGES_MIN: u32 = 64;
/// Free pages are given back while they are more than one part in this many.
pub const VACUUM_FREE_RATIO: u32 = 10;
/// A database with less than this left of its quota is nearly full: statements are looked at before they
/// are proposed. One that only shrinks may take this much beyond the quota while it works: a DELETE
/// needs a page now and then.
pub const QUOTA_SLACK: ByteSize = ByteSize::mib(16);
/// How long a batch of commands, a file or a manifest that found no room on the disk waits before it is tried
/// again.
pub const ROOM_RETRY: Duration = Duration::from_millis(100);
/// Threads of a shard that apply what takes long; one namespace has one at most.
pub const SQL_THREADS: usize = 4;
/// Those of them that one command may have for as long as it takes, while others wait.
pub const SQL_THREADS_VERY_LONG: usize = 2;
/// How long a command, or a row of short ones, has one of the others, while others wait; then it is given up, and has to wait for one of those.
pub const GIVE_WAY_TIME: Duration = Duration::from_secs(2);
/// Threads of a shard that read what takes long.
pub const READER_THREADS: usize = 4;
/// Threads of them that one namespace may have at once.
pub const READERS_OF_NAMESPACE_MAX: usize = 2;
/// Long reads that wait for a thread, per shard; more are told `overloaded`.
pub const LONG_READS_WAITING_MAX: usize = 1_024;
/// Bytes of their commands.
pub const LONG_READ_BYTES_WAITING_MAX: usize = 64 << 20;
/// Bytes of a read's results, names of columns with each row included, that are kept in memory. What is more goes to a
/// file while it is read, on a thread, and is sent from there.
pub const RESULT_HELD_SIZE_MAX: usize = 256 << 10;
/// Bytes of a reply from which on it counts as held in memory until it is sent.
pub const REPLY_COUNTED_SIZE: usize = 16 << 10;
/// Bytes of replies to reads that a core holds; more are told `overloaded`. Of these and the next a namespace may have as
/// much as it leaves to the others.
pub const REPLIES_HELD_BYTES_MAX: u64 = 1 << 30;
/// Bytes of results of writes that a core holds, and sets aside for those under way that may give rows back:
/// `limits.result_bytes` each. Others wait for these, or are told `overloaded`, before they are proposed.
pub const RETURNED_BYTES_MAX: u64 = 4 << 30;
/// How long they wait. The request's deadline begins then.
pub const RETURNED_WAIT_MAX: Duration = Duration::from_secs(5);
/// Bytes that are moved to, or read from, such a file at once; and about those of a piece of a reply.
pub const PIECE_SIZE: usize = 64 << 10;
/// Files with results that a shard has open at once; more are told `overloaded`.
pub const SPOOLS_MAX: usize = 512;
/// Bytes in them; more are told `overloaded`. Of both a namespace may have as much as it leaves to the others.
pub const SPOOLED_BYTES_MAX: u64 = 4 << 30;
/// Bytes in them beyond which what is put there is written to the disk at once, piece by piece, so that the next sync of
/// a log finds little to wait for. Below, a file that is gone soon is never written.
pub const SPOOLED_BYTES_UNWRITTEN: u64 = 64 << 20;
/// Bytes after which the disk is asked for its room again while a result is put there.
pub const SPOOL_LOOK_BYTES: u64 = 1 << 20;
/// Connections that only read and wait for work, per shard.
pub const READERS_IDLE_MAX: usize = 16;
/// How long a core applies commands of one database, or reads from it, before others have their turn.
pub const INLINE_BATCH_TIME: Duration = Duration::from_millis(2);
/// How long a core goes on with what follows from one another before other tasks have their turn.
pub const TURN_TIME: Duration = Duration::from_millis(4);
/// How long a single command may take on a core before it is undone and moved to a thread.
pub const INLINE_COMMAND_TIME: Duration = Duration::from_millis(1);
/// Bytes of a `-wal` at which it is checkpointed.
pub const WAL_BYTES: u64 = 8 << 20;
/// Bytes by which a `-wal` may grow during a checkpoint until commands wait for that, so that one that writes much
/// at once is slowed down.
pub const WAL_BYTES_WAIT: u64 = 56 << 20;
/// Default of `limits.wal_bytes`: bytes of a `-wal` at which the oldest reader that keeps it from starting anew is stopped, and commands
/// wait until it has (R23).
pub const WAL_BYTES_MAX: u64 = 512 << 20;
/// How long they wait for that before writes are refused, and those that were taken go on.
pub const WAL_WAIT_MAX: Duration = Duration::from_secs(3);
/// A checkpoint that nobody here can help is tried again after this, and then after twice as long each time, up to the
/// next.
pub const CHECKPOINT_RETRY_MIN: Duration = Duration::from_millis(100);
/// After this at the latest.
pub const CHECKPOINT_RETRY_MAX: Duration = Duration::from_secs(5);
/// The same where writes are refused meanwhile.
pub const CHECKPOINT_RETRY_REFUSING_MAX: Duration = Duration::from_secs(1);
/// Of a core's, so many are begun again at once; the next of them, [`CHECKPOINT_RETRY_MIN`] later.
pub const CHECKPOINT_RETRIES_MAX: usize = 4;
/// How long one does not help before the log says so. Less is a matter of course: somebody looks at a file, a read is
/// just ending.
pub const CHECKPOINT_TOLD_AFTER: Duration = Duration::from_secs(1);
/// Namespaces of a network.
pub const NAMESPACES_MAX: usize = 100_000;
/// Requests that wait for a leader, per shard; and for the creation of one namespace.
pub const PARKED_MAX: usize = 4_096;
/// How long a request may take before its client is told that it was not executed, or that nobody knows.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(15);
/// After this time the system partition's leader takes up a half-created namespace again (R30).
pub const CREATION_RETRY: Duration = Duration::from_secs(10);
/// The same after a refusal, which may be over in a moment.
pub const CREATION_RETRY_REFUSED: Duration = Duration::from_millis(100);
/// One tick of Raft's logical clock; heartbeats and election timeouts are counted in it.
pub const TICK: Duration = Duration::from_millis(50);
/// Least silence of a leader after which another replica asks to lead.
pub const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// Most silence; the difference keeps two from asking at once.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// Bytes of the first log segment after each start: small, because it is written before anything else.
pub const LOG_SEGMENT_SIZE_FIRST: u64 = 4 << 20;
/// Bytes of the later log segments, prepared behind.
pub const LOG_SEGMENT_SIZE: u64 = 64 << 20;
/// Bytes at which a batch of the log takes no more records.
pub const LOG_BATCH_SIZE_MAX: usize = 16 << 20;
/// How long the log is idle before an empty batch says that the last one is durable.
pub const LOG_SEAL_DELAY: Duration = Duration::from_millis(10);
/// The oldest log segments are freed by rewriting what they hold if that is at most one part in this many.
pub const LOG_REWRITE_RATIO: u64 = 8;

/// Default of `limits.body_bytes`: bytes of a request body (413).
pub const BODY_BYTES: ByteSize = ByteSize::mib(10);
/// Default of `limits.header_bytes`: bytes of a request head (431).
pub const HEADER_BYTES: ByteSize = ByteSize(32 << 10);
/// Default of `limits.result_rows`: rows of one result (400).
pub const RESULT_ROWS: u32 = 100_000;
/// Default of `limits.result_bytes`: bytes of one result (400).
pub const RESULT_BYTES: ByteSize = ByteSize::mib(32);
/// Default of `limits.statement_ms`: milliseconds a read may take (400).
pub const STATEMENT_MS: u64 = 10_000;
/// Default of `limits.statement_steps`: VM instructions of one write (400).
pub const STATEMENT_STEPS: u64 = 200_000_000;
/// Default of `limits.value_bytes`: bytes of one value (400).
pub const VALUE_BYTES: ByteSize = ByteSize::mib(4);
/// Least of `limits.value_bytes`: pieces of an index (a node of an R-tree, a word) are values, too.
pub const VALUE_BYTES_MIN: u32 = 32 << 10;
/// Default of `limits.temp_bytes`: bytes of temporary files of one statement (400).
pub const TEMP_BYTES: ByteSize = ByteSize::mib(256);
/// Default of `logging.slow_statement_ms`: milliseconds from which on a statement is logged; zero is never.
pub const SLOW_STATEMENT_MS: u64 = 1_000;
/// Default of `limits.requests_per_second`, per key; zero is no limit (429).
pub const REQUESTS_PER_SECOND: u64 = 0;
/// Default of `limits.connections`: open client connections of the node (503).
pub const CONNECTIONS: u64 = 10_000;
/// Default of `limits.disk_reserve_bytes`: bytes that are to stay free on the disk of the databases (507). The
/// half of it, below which only DROP passes, is for what is under way: on four shards the next
/// log segment each (64 MiB), and a few `-wal` files that grow before their checkpoint (by [`WAL_BYTES_WAIT`];
/// only a reader in the way lets one grow to [`WAL_BYTES_MAX`]). More than that is waited for, not lost.
pub const DISK_RESERVE_BYTES: ByteSize = ByteSize::mib(1_024);
/// Default of `limits.open_databases`: SQLite databases open at once, per node.
pub const OPEN_DATABASES: u64 = 256;
/// Default of `limits.log_bytes`: log kept in memory per shard before it is compacted; on disk it may take a
/// few times as much.
pub const LOG_BYTES: ByteSize = ByteSize::mib(32);
/// Default of `limits.fence_log_bytes`: log kept for a fenced namespace.
pub const FENCE_LOG_BYTES: ByteSize = ByteSize::mib(256);

const _: () = {
    // A body becomes one command: escapes shrink, and the head of each value is smaller than its JSON.
    assert!(BODY_BYTES.0 * 2 <= COMMAND_SIZE_MAX as u64);
    // Whoever waits for a read that takes all its time is still waited for.
    assert!(REQUEST_DEADLINE.as_millis() > STATEMENT_MS as u128 + 1_000);
    // An error can always be kept, whatever its message.
    assert!(MESSAGE_SIZE_MAX + 64 <= REQUEST_OUTCOME_SIZE_SMALL);
    assert!(REQUEST_OUTCOME_SIZE_SMALL < REQUEST_OUTCOME_SIZE_MAX);
    assert!(STORAGE_LIST <= STORAGE_LIST_MAX);
    assert!(REQUEST_KEPT_MIN.as_millis() < REQUEST_KEPT.as_millis());
    assert!(REQUEST_KEY_SIZE_MAX == u8::MAX as usize);
    // A partition can be filled from one core alone.
    assert!(PROPOSALS_IN_FLIGHT_MAX <= MESH_DEPTH_MAX);
    assert!(ELECTION_TIMEOUT_MIN.as_millis() < ELECTION_TIMEOUT_MAX.as_millis());
    assert!(TICK.as_millis() * 4 <= ELECTION_TIMEOUT_MIN.as_millis());
    assert!(COMMAND_SIZE_MAX <= PROPOSAL_BYTES_IN_FLIGHT_MAX);
    // The log takes a good part of what is under way, so that it is never idle while something waits.
    assert!(UNPERSISTED_MAX <= PROPOSALS_IN_FLIGHT_MAX / 2);
    assert!(UNPERSISTED_BYTES_MAX <= PROPOSAL_BYTES_IN_FLIGHT_MAX / 2);
    assert!(BODY_BYTES.0 <= BODIES_HELD_BYTES_MAX as u64);
    // The half of the reserve covers the next segment of four shards, and as much again.
    assert!(DISK_RESERVE_BYTES.0 / 2 >= 8 * LOG_SEGMENT_SIZE);
    assert!(VACUUM_FREE_PAGES_MIN <= VACUUM_PAGES_MAX);
    assert!(WAL_BYTES + WAL_BYTES_WAIT <= WAL_BYTES_MAX);
    // Who waits for a `-wal` is answered in time.
    assert!(WAL_WAIT_MAX.as_millis() * 2 < REQUEST_DEADLINE.as_millis());
    assert!(0 < SQL_THREADS_VERY_LONG && SQL_THREADS_VERY_LONG < SQL_THREADS);
    assert!(CHECKPOINT_RETRY_MIN.as_millis() <= CHECKPOINT_RETRY_REFUSING_MAX.as_millis());
    assert!(CHECKPOINT_RETRY_REFUSING_MAX.as_millis() <= CHECKPOINT_RETRY_MAX.as_millis());
    assert!(PIECE_SIZE <= RESULT_HELD_SIZE_MAX);
    // A result that is not large is written as objects and as arrays, with six bytes for one at worst.
    assert!(RESULT_HELD_SIZE_MAX as u64 * 12 * 2 <= REPLIES_HELD_BYTES_MAX);
    assert!(RESULT_BYTES.0 * 128 <= RETURNED_BYTES_MAX);
    assert!(SPOOLED_BYTES_UNWRITTEN < SPOOLED_BYTES_MAX);
    // Each has a result of the default size, or nearly as many have.
    assert!(SPOOLED_BYTES_MAX >= RESULT_BYTES.0 * 64);
    // The length of a batch is a u32, and one more record goes into one that is not full.
    assert!(LOG_BATCH_SIZE_MAX + COMMAND_SIZE_MAX < u32::MAX as usize);
};
