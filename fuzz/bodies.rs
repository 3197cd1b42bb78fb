//! What each fuzz target does with its bytes. `tests/sim/corpora.rs` runs the same bodies over `corpus/`.
//!
//! Whatever the bytes are, reading them gives a value or an error; anything else is a panic, and a bug. What
//! was read is checked against what can be known of it, mostly that it survives being written again.

// A target uses one of these, and its binary has them all.
#![allow(dead_code, reason = "each fuzz target is a program of its own")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use debros::auth::Policy;
use debros::auth::credential;
use debros::auth::credential::Plus;
use debros::auth::credential::Presented;
use debros::auth::key::Keys;
use debros::config::Config;
use debros::config::Overrides;
use debros::config::duration::format_go_nanos;
use debros::config::duration::parse_go_duration;
use debros::config::gateway::StandaloneGateway;
use debros::config::multiaddr::Multiaddr;
use debros::config::overrides::Environment;
use debros::config::overrides::Flags;
use debros::config::overrides::GatewayFlags;
use debros::disk::manifest;
use debros::disk::stops;
use debros::disk::stops::Stop;
use debros::disk::stops::Stops;
use debros::gateway::body;
use debros::gateway::body::select::Form;
use debros::gateway::body::select::selection;
use debros::gateway::storage::Endpoint::Delete;
use debros::gateway::storage::Endpoint::Exists;
use debros::gateway::storage::Endpoint::Get;
use debros::gateway::storage::Endpoint::List;
use debros::gateway::storage::Endpoint::Put;
use debros::gateway::storage::Endpoint::PutOrGet;
use debros::gateway::storage::Wish;
use debros::sql::Applied;
use debros::sql::Database;
use debros::sql::Entry;
use debros::sql::Rest;
use debros::sql::Role;
use debros::sql::Vfs;
use debros::sql::select::Conjunction;
use debros::sql::select::Select;
use debros::sql::select::SelectError;
use debros::sql::select::Test;
use debros::types::DatabaseId;
use debros::types::Incarnation;
use debros::types::LogIndex;
use debros::types::Namespace;
use debros::types::PartitionId;
use debros::types::ShardId;
use debros::types::Timestamp;
use debros::wal::format;
use debros::wal::record::Record;
use debros::wal::record::SegmentId;
use debros::wal::recovery::SegmentSource;
use debros::wal::recovery::recover;
use debros::wire::bytes::Reader;
use debros::wire::command::Command;
use debros::wire::command::CommandLimits;
use debros::wire::command::Mode;
use debros::wire::command::Results;
use debros::wire::command::Stamp;
use debros::wire::command::Value;
use debros::wire::command::draft::Draft;
use http::Method;

/// The bytes of a command, as a log entry carries them.
pub(crate) fn wire_command(data: &[u8]) {
    let Ok(command) = Command::decode(data) else { return };
    let _ = (command.name(), command.storage(), command.vacuum_pages());
    for statement in command.statements().flatten() {
        let n = statement.arguments.len();
        assert_eq!(statement.arguments.clone().count(), n, "arguments are as many as they say");
        for value in statement.arguments {
            let encoded = |value: Value<'_>| {
                let mut bytes = Vec::new();
                value.encode(&mut bytes);
                bytes
            };
            let once = encoded(value);
            let again = Value::decode(&mut Reader::new(&once)).expect("just encoded");
            assert_eq!(once, encoded(again), "a value survives being written again");
        }
    }
}

/// Records, as a batch of the log holds them.
pub(crate) fn wal_record(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut reader = Reader::new(&bytes);
    while let Ok(record) = Record::decode(&bytes, &mut reader) {
        let mut again = Vec::new();
        record.encode(&mut again);
        let again = Bytes::from(again);
        let decoded = Record::decode(&again, &mut Reader::new(&again));
        assert_eq!(decoded, Ok(record), "a record survives being written again");
    }
}

/// A log on disk. The bytes are a list of pieces, each `u8` segment, `u8` kind, `u16` length and content;
/// kind 0 is put into the segment as it is, 1 becomes a segment header with a right checksum, 2 a batch
/// with a right checksum and salt, so that what lies behind those is reached.
pub(crate) fn wal_recovery(data: &[u8]) {
    let mut segments = Segments::default();
    let mut reader = Reader::new(data);
    while let (Ok(segment), Ok(kind), Ok(length)) = (reader.u8(), reader.u8(), reader.u16()) {
        let content = reader.take(usize::from(length).min(reader.rest().len()));
        let content = content.expect("no more than there is");
        segments.add(u64::from(segment % 5), kind % 3, content);
    }
    let (first, again) = (judge(&mut segments), judge(&mut segments));
    assert_eq!(first, again, "one log has one verdict");
}

fn judge(segments: &mut Segments) -> Result<String, String> {
    match recover(segments, ShardId(0), 1) {
        Ok(it) => Ok(format!("{:?} {:?}", it.partitions, it.end)),
        Err(error) => Err(error.to_string()),
    }
}

/// Segments in memory. All have the key of the first header.
#[derive(Default)]
struct Segments {
    bytes: BTreeMap<u64, Vec<u8>>,
    key: u64,
}

impl Segments {
    fn add(&mut self, id: u64, kind: u8, content: &[u8]) {
        let (key, salt) = (self.key, format::salt(self.key, SegmentId(id)));
        let segment = self.bytes.entry(id).or_default();
        let frame = match kind {
            0 => content.to_vec(),
            1 => {
                let mut frame = frame(*b"DBWS", content);
                // The first header brings the key, the others get it.
                if let Some(own) = frame.get_mut(24..32) {
                    if key == 0 {
                        self.key = own.iter().rev().fold(0, |key, it| key << 8 | u64::from(*it));
                    }
                    own.copy_from_slice(&self.key.to_le_bytes());
                }
                sealed(frame)
            }
            _ => {
                let mut frame = frame(*b"DBWB", content);
                if let Some(own) = frame.get_mut(16..24) {
                    own.copy_from_slice(&salt.to_le_bytes());
                }
                sealed(frame)
            }
        };
        segment.extend(frame);
        segment.resize(format::padded(segment.len()), 0);
    }
}

/// Magic, room for the checksum, length and version, then the content.
fn frame(magic: [u8; 4], content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(16 + content.len()).expect("pieces are short");
    let mut frame = magic.to_vec();
    frame.extend([0; 4]);
    frame.extend(size.to_le_bytes());
    frame.extend([format::VERSION, 0, 0, 0]);
    frame.extend(content);
    frame
}

fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

impl SegmentSource for Segments {
    fn segments(&mut self) -> io::Result<Vec<(SegmentId, u64)>> {
        Ok(self.bytes.iter().map(|(id, bytes)| (SegmentId(*id), bytes.len() as u64)).collect())
    }

    fn read(&mut self, segment: SegmentId, offset: u64, size: usize) -> io::Result<Bytes> {
        let offset = usize::try_from(offset).expect("segments are short");
        let bytes = &self.bytes[&segment.0];
        Ok(Bytes::copy_from_slice(&bytes[offset..offset + size]))
    }
}

/// The body of a request, for each path that has one.
pub(crate) fn gateway_body(data: &[u8]) {
    for mode in [Mode::Exec, Mode::Query] {
        if let Ok(draft) = body::statement(data, mode) {
            check_draft(draft);
        }
    }
    if let Ok(transaction) = body::transaction(data) {
        check_draft(transaction.draft);
    }
    for form in [Form::Find, Form::FindOne, Form::Select] {
        if let Ok(it) = selection(data, form) {
            check_draft(it.draft);
        }
    }
    for name in ["schema", "table"] {
        if let Ok(text) = body::field(data, name) {
            assert!(!text.trim().is_empty(), "a field that is taken is not blank");
        }
    }
}

/// The pieces of a SELECT, a line each: table, column, condition, group, order, alias, kind of a join, its table
/// and condition, criterion. What is taken is one statement, which reads, for SQLite, too.
pub(crate) fn select(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut lines = text.splitn(10, '\n').map(|it| Some(it).filter(|it| !it.is_empty()));
    let [table, column, condition, group, order, alias, kind, joined, on, key] =
        [(); 10].map(|()| lines.next().flatten());
    let build = || -> Result<(String, usize), SelectError> {
        let mut select = Select::new(column.into_iter(), table.unwrap_or("t"), alias)?;
        let mut n = 0;
        if let Some(joined) = joined {
            select.join(kind.unwrap_or_default(), joined, on)?;
        }
        if let Some(key) = key {
            select.criterion(key, Test::Equal)?;
            select.criterion(key, Test::OneOf { n: 2, or_null: true })?;
            select.criterion(key, Test::Null)?;
            n += 3;
        }
        if let Some(it) = condition {
            n += select.condition(Conjunction::And, it)?;
            n += select.condition(Conjunction::Or, it)?;
        }
        select.group_by(group.as_slice().iter().copied())?;
        select.order_by(order.into_iter())?;
        Ok((select.finish(Some(1), true), n + 1))
    };
    let Ok((sql, n)) = build() else { return };
    let dir = scratch();
    let mut database = tenant(&dir.path().join("a.db"));
    let ask = |n: usize| {
        let mut draft = Draft::new(Results::Last, sql.len());
        draft.statement(Mode::Query, &sql).ok()?;
        for _ in 0..n {
            draft.bind(Value::Null).ok()?;
        }
        Some(draft.seal(&STAMP))
    };
    let Some(command) = ask(n) else { return };
    let budget = Cell::new(50_u32);
    let mut expired = |_| budget.replace(budget.get().saturating_sub(1)) == 0;
    let outcome = database.read(&[command], &mut expired).expect("a text harms nothing");
    if let Err(error) = &outcome[0] {
        for wrong in ["syntax error", "incomplete input", "unrecognized token", "not enough args"] {
            assert!(!error.message.contains(wrong), "{sql}: {error}");
        }
    }
}

/// The query of a request about a key.
pub(crate) fn storage_query(data: &[u8]) {
    let Ok(query) = str::from_utf8(data) else { return };
    for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
        for endpoint in [Put, Get, PutOrGet, Exists, List, Delete] {
            let Some(endpoint) = endpoint.by(&method) else { continue };
            let Ok(wish) = Wish::read(endpoint, query, data) else { continue };
            let storage = wish.storage(endpoint, data);
            let bytes = Draft::storage(&storage).expect("it is short").seal(&STAMP);
            let command = Command::decode(&bytes).expect("a draft becomes a command");
            assert_eq!(command.storage(), Ok(storage), "what is asked for is what is done");
        }
    }
}

/// What a gateway makes of a body, every replica can read.
fn check_draft(draft: Draft) {
    let n = draft.n_statements();
    let bytes = draft.seal(&STAMP);
    let command = Command::decode(&bytes).expect("a draft becomes a command");
    let statements: Result<Vec<_>, _> = command.statements().collect();
    let statements = statements.expect("its statements can be read");
    assert_eq!(u32::try_from(statements.len()), Ok(n), "none is lost");
}

/// Three lines: the header `Authorization`, the header `X-API-Key`, the query.
pub(crate) fn credential(data: &[u8]) {
    let mut lines = data.splitn(3, |it| *it == b'\n');
    let mut line = || lines.next().filter(|it| !it.is_empty());
    let (authorization, api_key) = (line(), line());
    let query = line().and_then(|it| str::from_utf8(it).ok());
    let presented = Presented { authorization, api_key, query };
    let own = Namespace::new("own").expect("a name");
    let keys = Keys::new([("ak_secret", &own)], [3; 16]).expect("one key");
    let policy = Policy { keys, require_auth: true, client_namespace: None };
    if policy.identify(&presented).is_ok() {
        let parts = presented.credentials();
        let is_shown = parts.iter().flatten().any(|it| it.starts_with(b"ak_secret"));
        assert!(is_shown, "nobody comes in without the key");
    }
    if let Some(text) = query {
        for plus in [Plus::Space, Plus::Plus] {
            assert!(credential::decode(text, plus).len() <= text.len(), "decoding only shrinks");
        }
        let _ = credential::parameter(text, "blobs");
    }
}

/// A configuration file, of a node and of a gateway on its own. Checking a node's probes the directories
/// that it names, so texts that name some are only read as a gateway's.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let environment = Environment::new();
    let gateway = StandaloneGateway::parse(Some(text), &environment, &GatewayFlags::default());
    if let Err(error) = gateway {
        assert!(error.report().ends_with('\n'), "a report is whole lines");
    }
    if ["_dir", "_file", "\\"].iter().any(|it| text.contains(it)) {
        return;
    }
    let data = std::env::temp_dir().to_str().map(str::to_owned);
    let flags = Flags { data, ..Flags::default() };
    let overrides = Overrides { environment: &environment, flags: &flags, cores: 4 };
    match Config::parse(Some(text), &overrides) {
        Ok(config) => assert!(config.runtime.shards > 0, "a valid configuration can run"),
        Err(error) => assert!(error.report().ends_with('\n'), "a report is whole lines"),
    }
}

/// A duration.
pub(crate) fn duration(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(nanos) = parse_go_duration(text) {
        assert_eq!(parse_go_duration(&format_go_nanos(nanos)), Ok(nanos), "{text:?}");
    }
}

/// An address of a peer.
pub(crate) fn multiaddr(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(address) = Multiaddr::parse(text) {
        assert_eq!(Multiaddr::parse(address.as_str()), Ok(address.clone()), "{text:?}");
        let _ = (address.peer(), address.tcp_port(), address.socket_addr());
    }
}

/// A partition's manifest: as it is, and with the checksum that it should have.
pub(crate) fn manifest(data: &[u8]) {
    let dir = scratch();
    let path = dir.path().join("manifest");
    let read = |content: &[u8]| {
        fs::write(&path, content).expect("write a file");
        manifest::read(dir.path())
    };
    let _ = read(data);
    let mut signed = data.to_vec();
    signed.extend(format!("crc32c {:08x}\n", crc32c::crc32c(data)).as_bytes());
    if let Ok(floors) = read(&signed) {
        let list: Vec<_> = floors.iter().map(|(id, floor)| (*id, *floor)).collect();
        manifest::write(dir.path(), &list).expect("write a manifest");
        assert_eq!(manifest::read(dir.path()).expect("just written"), floors);
    }
}

/// The file of stops: as it is, and behind the head that it should have.
pub(crate) fn stops(data: &[u8]) {
    let dir = scratch();
    let file = Stops::of(dir.path());
    for head in ["", "debros stops 1\n"] {
        let content = [head.as_bytes(), data].concat();
        fs::write(dir.path().join("stops"), content).expect("write a file");
        let Ok(found) = file.read() else { continue };
        // One more, whatever was there.
        let database = DatabaseId { partition: PartitionId(1), incarnation: Incarnation(2) };
        let kind = stops::Kind::Panic;
        let stop = Stop { kind, database, index: Some(LogIndex(3)), cause: "x".to_owned() };
        let is_ours = !found.is_empty();
        file.record(&stop).expect("append to a file");
        let after = file.read().expect("just read");
        assert!(!is_ours || after.last() == Some(&stop), "the last line is the last stop");
        file.write(&after).expect("write a file");
        let kept = file.read().expect("just written");
        assert!(after.ends_with(&kept), "the newest are kept");
        let _ = stops::repeated(&after);
    }
}

/// What a command may cost here: little, so that many fit a second.
const LIMITS: CommandLimits = CommandLimits {
    steps: 50_000,
    temp_bytes: 1 << 20,
    database_bytes: 1 << 20,
    result_bytes: 1 << 16,
    result_rows: 1_000,
    value_bytes: 1 << 14,
};
const STAMP: Stamp = Stamp {
    incarnation: Incarnation(1),
    time: Timestamp(1_761_300_000_123),
    seed: 42,
    limits: LIMITS,
};

/// SQL of a tenant: texts between zero bytes, each a command. No text harms the replica, and two replicas
/// agree, whether the commands came together or one by one.
pub(crate) fn sql(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut entries = Vec::new();
    for (index, sql) in (1..).zip(text.split('\0').take(8)) {
        let mut draft = Draft::new(Results::Last, sql.len());
        if draft.statement(Mode::Exec, sql).is_err() {
            return;
        }
        entries.push(Entry { index: LogIndex(index), command: draft.seal(&STAMP) });
    }
    let dir = scratch();
    let [mut together, mut apart] = ["a.db", "b.db"].map(|name| tenant(&dir.path().join(name)));
    let one = done(&mut together, &entries);
    let many: Vec<_> = entries.chunks(1).flat_map(|it| done(&mut apart, it)).collect();
    assert_eq!(one, many, "batches show");
    let hashes = [&mut together, &mut apart].map(|it| it.content_hash().expect("a whole file"));
    assert_eq!(hashes[0], hashes[1], "contents differ");
    let reads: Vec<_> = entries.iter().map(|it| it.command.clone()).collect();
    let budget = Cell::new(50_u32);
    let mut expired = |_| budget.replace(budget.get().saturating_sub(1)) == 0;
    together.read(&reads, &mut expired).expect("a text harms nothing");
    assert_eq!(together.content_hash().expect("a whole file"), hashes[0], "a read wrote");
}

fn done(database: &mut Database, entries: &[Entry]) -> Vec<Applied> {
    let batch = database.apply(entries).expect("a text harms nothing");
    assert_eq!(batch.rest, Rest::None, "nobody else is here");
    batch.applied
}

fn tenant(path: &Path) -> Database {
    thread_local! {
        static TEMPLATE: (tempfile::TempDir, PathBuf) = {
            let dir = scratch();
            let path = dir.path().join("template.db");
            Database::create(&path, Vfs::system(), "").expect("create a database");
            (dir, path)
        };
    }
    // The fuzzer's own timer interrupts a copy now and then.
    let copied = || TEMPLATE.with(|(_, template)| fs::copy(template, path));
    let is_interrupted = |it: &io::Error| it.kind() == io::ErrorKind::Interrupted;
    while copied().inspect_err(|it| assert!(is_interrupted(it), "copy a database: {it}")).is_err() {
    }
    Database::open(path, Vfs::system(), Role::Tenant).expect("open a database")
}

/// A directory of one's own, in memory where there is such a place.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("make a directory")
}
