//! What a node finds on its disk when it starts: logs, manifests, engine databases. Blocking; before any
//! core runs.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use rustc_hash::FxHashMap;
use tracing::error;

use crate::catalog;
use crate::catalog::Catalog;
use crate::disk::manifest;
use crate::disk::stops;
use crate::disk::stops::Stop;
use crate::disk::stops::Stops;
use crate::node::BootError;
use crate::node::databases::partition_dir;
use crate::raft;
use crate::shard::partition::PartitionBoot;
use crate::sql::Database;
use crate::sql::Role;
use crate::sql::Vfs;
use crate::types::DatabaseId;
use crate::types::Floor;
use crate::types::HardState;
use crate::types::Incarnation;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::types::ReplicaId;
use crate::types::Term;
use crate::types::Timestamp;
use crate::wal::record;
use crate::wal::record::EntryId;
use crate::wal::record::Generation;
use crate::wal::record::Record;
use crate::wal::recovery::RecoveredPartition;
use crate::wire::command::Command;
use crate::wire::command::CommandLimits;
use crate::wire::command::Kind;
use crate::wire::command::Stamp;
use crate::wire::rows::StatementResult;

/// The only replica of each partition, until there are other nodes.
const REPLICA: ReplicaId = ReplicaId(1);
/// Where a partition's log begins: as if it came from a snapshot (R28).
const BORN_AT: EntryId = EntryId { index: LogIndex(1), term: Term(1) };

/// The engine's own statements may cost this.
const LIMITS: CommandLimits = CommandLimits {
    steps: u64::MAX >> 1,
    temp_bytes: 1 << 30,
    database_bytes: 1 << 40,
    result_bytes: 1 << 30,
    result_rows: u32::MAX >> 1,
    value_bytes: 1 << 20,
};

/// A partition as the disk has it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) boot: PartitionBoot,
    /// Its engine database; none before the first command for it.
    pub(super) engine: Option<Database>,
    /// What the catalog says, for the system partition.
    pub(super) catalog: Catalog,
    /// Bytes of each database file.
    pub(super) bytes: FxHashMap<DatabaseId, u64>,
}

/// The commands that no process gets past (R15). What is on record is tidied up on the way.
pub(super) fn stops(database_dir: &Path) -> Result<BTreeMap<DatabaseId, Stop>, BootError> {
    let file = Stops::of(database_dir);
    let stops = file.read().context("cannot start")?;
    file.write(&stops).context("cannot start: write the file of stops")?;
    Ok(stops::repeated(&stops))
}

/// Bring one partition together from its log and its databases. `stops` are commands that no process gets
/// past.
pub(super) fn partition(
    database_dir: &Path,
    id: PartitionId,
    log: Option<RecoveredPartition>,
    stops: &BTreeMap<DatabaseId, Stop>,
) -> Result<Found, BootError> {
    let dir = partition_dir(database_dir, id);
    let unusable = |source| BootError::DataDir { path: dir.clone(), source };
    std::fs::create_dir_all(&dir).map_err(unusable)?;
    let mut floors = manifest::read(&dir)
        .with_context(|| format!("cannot start: the manifest in {} is unusable", dir.display()))?;
    let path = dir.join("0.db");
    let floor = floors.get(&Incarnation::ENGINE).copied().unwrap_or_default();
    let floor = floor.index;
    let mut engine = open_engine(&path, floor)
        .with_context(|| format!("cannot start: {} is unusable", path.display()))?;
    let applied = engine.as_ref().map_or(LogIndex(0), Database::applied);
    let log = match log {
        Some(log) => log,
        // An empty replica under an old id would vote again (R27).
        None if applied > LogIndex(0) || !floors.is_empty() => {
            return Err(BootError::Refused(format!(
                "cannot start: {} has data, but its log is gone: restore wal/, or remove the data \
                 directory and start anew",
                dir.display()
            )));
        }
        None => born(),
    };
    let mut catalog = Catalog::default();
    let mut incarnations = Vec::new();
    if let Some(engine) = &mut engine {
        let found = select(engine, catalog::SELECT_INCARNATIONS)?;
        incarnations = catalog::incarnations_of(&found);
        for row in catalog::rows_of(&select(engine, catalog::SELECT_NAMESPACES)?) {
            catalog.fold(row);
        }
    }
    let known = check_floors(id, &floors, &incarnations, &log)?;
    if fence_what_stops(id, &mut floors, &known, stops)? {
        let floors: Vec<_> = floors.iter().map(|(id, it)| (*id, *it)).collect();
        let written = manifest::write(&dir, &floors);
        written.with_context(|| format!("cannot start: {}: write the manifest", dir.display()))?;
    }
    let bytes = sizes(&dir, id).map_err(unusable)?;
    let stamp = log.last_stamp;
    let boot = PartitionBoot {
        id,
        replica: REPLICA,
        recovered: recovered(log),
        stamp,
        incarnations,
        floors,
    };
    Ok(Found { boot, engine, catalog, bytes })
}

/// Fence the databases at one of whose commands the process panics again and again. Whether there are new
/// ones, so that the manifest is to be written.
fn fence_what_stops(
    id: PartitionId,
    floors: &mut BTreeMap<Incarnation, Floor>,
    known: &BTreeSet<Incarnation>,
    stops: &BTreeMap<DatabaseId, Stop>,
) -> Result<bool, BootError> {
    let mut is_any_new = false;
    for incarnation in known {
        let Some(stop) = stops.get(&DatabaseId { partition: id, incarnation: *incarnation }) else {
            continue;
        };
        let index = stop.index.unwrap_or_default();
        if *incarnation == Incarnation::ENGINE {
            return Err(BootError::Refused(format!(
                "cannot start: the process has panicked twice at log index {index} of partition {id}, in \
                 its own database: {}: a program without that fault is needed; to try once more with this \
                 one, remove the file `stops` from the data directory",
                stop.cause
            )));
        }
        let floor = floors.entry(*incarnation).or_default();
        if floor.is_fenced {
            continue;
        }
        // Nothing was forgotten: until now it held the log back like any other.
        *floor = Floor { is_fenced: true, is_log_kept: true, ..*floor };
        is_any_new = true;
        error!(
            partition = id.0,
            incarnation = incarnation.0,
            index = index.0,
            cause = stop.cause,
            "the process has panicked twice at one command; its namespace is fenced: start a program \
             without that fault, after `debros repair`"
        );
    }
    Ok(is_any_new)
}

/// What the manifest vouches for must be known, to the engine database or to the log that is left (R24). All
/// that is known.
fn check_floors(
    id: PartitionId,
    floors: &BTreeMap<Incarnation, Floor>,
    known: &[Incarnation],
    log: &RecoveredPartition,
) -> Result<BTreeSet<Incarnation>, BootError> {
    if floors.get(&Incarnation::ENGINE).is_some_and(|it| it.is_fenced) {
        let what = format!("cannot start: the own database of partition {id} is damaged");
        return Err(BootError::Refused(what));
    }
    let created = log.entries.iter().filter_map(|entry| {
        let command = Command::decode(&entry.payload).ok()?;
        (command.kind == Kind::Create).then_some(command.stamp.incarnation)
    });
    let mut known: BTreeSet<_> = known.iter().copied().chain(created).collect();
    known.insert(Incarnation::ENGINE);
    match floors.keys().find(|it| !known.contains(it)) {
        None => Ok(known),
        Some(lost) => Err(BootError::Refused(format!(
            "cannot start: partition {id} has forgotten its database {lost}: its own database, 0.db, is \
             older than its manifest"
        ))),
    }
}

/// It is created with the first command for it, by the helper thread: a new node starts at once.
fn open_engine(path: &Path, floor: LogIndex) -> anyhow::Result<Option<Database>> {
    if !path.try_exists()? {
        anyhow::ensure!(floor == LogIndex(0), "it was on disk once, and is missing");
        return Ok(None);
    }
    let engine = Database::open(path, Vfs::system(), Role::Engine)?;
    let applied = engine.applied();
    anyhow::ensure!(floor <= applied, "it is at log index {applied}, but had {floor} on disk");
    Ok(Some(engine))
}

/// Read by one of the engine's own statements.
pub(super) fn select(engine: &mut Database, sql: &str) -> anyhow::Result<Vec<StatementResult>> {
    let stamp =
        Stamp { incarnation: Incarnation::ENGINE, time: Timestamp(0), seed: 0, limits: LIMITS };
    let command = catalog::select(sql).seal(&stamp);
    let outcome = engine.read(&[command], &mut |_| false)?.pop();
    Ok(outcome.context("a read has an outcome")??)
}

/// Bytes of each database file of a partition.
fn sizes(dir: &Path, partition: PartitionId) -> std::io::Result<FxHashMap<DatabaseId, u64>> {
    let mut found = FxHashMap::default();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|it| it.strip_suffix(".db")?.parse().ok());
        if let Some(number) = number {
            let id = DatabaseId { partition, incarnation: Incarnation(number) };
            found.insert(id, entry.metadata()?.len());
        }
    }
    Ok(found)
}

/// A partition without a log yet, which [`birth`] writes.
fn born() -> RecoveredPartition {
    let conf_state = record::ConfState {
        index: BORN_AT.index,
        voters: vec![REPLICA],
        ..record::ConfState::default()
    };
    RecoveredPartition {
        generation: Generation(1),
        replica: REPLICA,
        hard_state: HardState { term: BORN_AT.term, vote: ReplicaId(0), commit: BORN_AT.index },
        conf_state,
        compacted: BORN_AT,
        entries: Vec::new(),
        last_stamp: Timestamp(0),
        tombstones: Vec::new(),
    }
}

/// What the log of a new partition begins with.
pub(super) fn birth(partition: PartitionId) -> Vec<Record> {
    let born = born();
    vec![
        Record::Generation { partition, generation: born.generation, replica: born.replica },
        Record::Restored { partition, entry: born.compacted },
        Record::ConfState { partition, conf_state: born.conf_state },
        Record::HardState { partition, hard_state: born.hard_state },
    ]
}

/// The log's terms in raft's.
fn recovered(log: RecoveredPartition) -> raft::Recovered {
    let conf_state = raft::ConfState {
        voters: log.conf_state.voters,
        learners: log.conf_state.learners,
        voters_outgoing: log.conf_state.voters_outgoing,
        learners_next: log.conf_state.learners_next,
        auto_leave: log.conf_state.auto_leave,
    };
    let entry = |it: record::Entry| raft::Entry {
        index: it.index,
        term: it.term,
        kind: if it.kind == 0 { raft::EntryKind::Command } else { raft::EntryKind::Change },
        payload: it.payload,
    };
    raft::Recovered {
        hard_state: log.hard_state,
        conf_state,
        compacted: (log.compacted.index, log.compacted.term),
        entries: log.entries.into_iter().map(entry).collect(),
    }
}
