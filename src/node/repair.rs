//! Looking at fenced namespaces, exporting them, and lifting their fence, while no node runs (R38).
//!
//! A fence is lifted from a database whose file opens, is intact, and lacks nothing that the log has
//! forgotten. What it does lack is applied from the log at the next start, like after any restart. The new
//! floor is what the file has, which is synced first; then the record of stops forgets the namespace, and last
//! the manifest says that it is well: interrupted, it is fenced still, and can be repaired again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::catalog;
use crate::config::Config;
use crate::disk::boot::LogDirectories;
use crate::disk::manifest;
use crate::disk::segments::sync_directory;
use crate::disk::stops::Kind;
use crate::disk::stops::Stop;
use crate::disk::stops::Stops;
use crate::node::BootError;
use crate::node::boot::lock_database_dir;
use crate::node::databases::partition_dir;
use crate::node::preflight;
use crate::node::recover;
use crate::sql;
use crate::sql::Checkpointer;
use crate::sql::Database;
use crate::sql::Fault;
use crate::sql::OpenError;
use crate::sql::Role;
use crate::sql::Vfs;
use crate::types::DatabaseId;
use crate::types::Floor;
use crate::types::Incarnation;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::wal::recovery::RecoveredPartition;
use crate::wire::command::Command;
use crate::wire::command::Kind as CommandKind;
use crate::wire::command::Value;
use crate::wire::rows::StatementResult;

/// A namespace that is fenced, and what could be found out about it.
#[derive(Debug)]
pub struct Fenced {
    /// Which database.
    pub id: DatabaseId,
    /// Whose; none if nothing says so any more.
    pub name: Option<String>,
    /// Its file.
    pub path: PathBuf,
    /// At what the process had to stop because of it, newest last.
    pub stops: Vec<Stop>,
    /// Whether the file can be used.
    pub state: FileState,
    /// The first and the last log index that its partition keeps; none if the log keeps nothing.
    pub log: Option<(LogIndex, LogIndex)>,
    /// Commands in the log that the file does not have; all of the namespace's if the file cannot be used.
    pub n_again: usize,
    /// How many commands may be missing for ever, at most: the log has forgotten so many that the file does
    /// not have, and which of them were for this namespace nobody knows.
    pub n_lost_max: u64,
}

/// What a database's file is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// There is none.
    Missing,
    /// SQLite cannot open it, or finds damage.
    Damaged(String),
    /// Nothing is wrong with it.
    Intact {
        /// The last command it has.
        applied: LogIndex,
    },
}

/// Why a namespace is not exported.
#[derive(Debug, thiserror::Error)]
pub enum NoExport {
    /// There is nothing to read.
    #[error("the file is missing")]
    Missing,
    /// Something has the name already.
    #[error("there is a file already: give another name")]
    Exists,
    /// Not all of it can be read.
    #[error(
        "{0}: what can be read may be got out of the file with the command .recover of the program sqlite3"
    )]
    Damaged(String),
}

/// Why a fence is not lifted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to be used.
    #[error(
        "the file is missing: put back a backup copy of it, with its -wal if that has one, and repair again"
    )]
    Missing,
    /// It is not to be used.
    #[error(
        "the file is damaged ({0}): put back a backup copy of it, with its -wal if that has one (else remove \
         the -wal and -shm that are there), and repair again"
    )]
    Damaged(String),
    /// It does not belong to this log.
    #[error(
        "the file has log index {applied}, but the log ends at {last}: it is not from this data directory"
    )]
    Foreign {
        /// What it has.
        applied: LogIndex,
        /// Where the log ends.
        last: LogIndex,
    },
    /// The log has forgotten something.
    #[error(
        "up to {0} commands that it needs are not in the log any more: put back a newer copy, or accept the \
         loss with --accept-loss"
    )]
    Loss(u64),
}

/// A data directory without a node.
#[derive(Debug)]
pub struct Repair {
    dir: PathBuf,
    partitions: BTreeMap<PartitionId, Partition>,
    stops: Vec<Stop>,
    _locks: (File, Option<File>),
}

#[derive(Debug)]
struct Partition {
    floors: BTreeMap<Incarnation, Floor>,
    log: Option<RecoveredPartition>,
    names: BTreeMap<Incarnation, String>,
}

impl Repair {
    /// Look at a data directory, and keep nodes away from it meanwhile.
    pub fn open(config: &Config) -> Result<Self, BootError> {
        let dir = config.database.data_dir.clone();
        for path in [&config.node.data_dir, &dir] {
            std::fs::metadata(path.join("lock"))
                .map_err(|source| BootError::DataDir { path: path.clone(), source })?;
        }
        let locks = (preflight::lock(&config.node.data_dir)?, lock_database_dir(config)?);
        preflight::environment(&dir)?;
        let stops = Stops::of(&dir).read().context("cannot repair")?;
        let mut logs = BTreeMap::new();
        let directories = LogDirectories::open_any(&dir).context("cannot repair")?;
        for shard in directories.shards() {
            let recovered = directories.recover(shard).context("cannot repair")?;
            logs.extend(recovered.partitions);
        }
        let mut partitions = BTreeMap::new();
        for id in partitions_of(&dir)? {
            partitions.insert(id, Partition::open(&partition_dir(&dir, id), logs.remove(&id))?);
        }
        Ok(Self { dir, partitions, stops, _locks: locks })
    }

    /// All namespaces that are fenced.
    pub fn fenced(&self) -> Vec<Fenced> {
        let mut found = Vec::new();
        for (id, partition) in &self.partitions {
            for (incarnation, floor) in partition.floors.iter().filter(|(_, it)| it.is_fenced) {
                let id = DatabaseId { partition: *id, incarnation: *incarnation };
                found.push(self.look_at(id, partition, *floor));
            }
        }
        found
    }

    fn look_at(&self, id: DatabaseId, partition: &Partition, floor: Floor) -> Fenced {
        let path = partition_dir(&self.dir, id.partition).join(format!("{}.db", id.incarnation));
        let state = state_of(&path);
        let entries = partition.log.as_ref().map_or(&[][..], |it| &it.entries);
        let log = entries.first().zip(entries.last()).map(|(a, b)| (a.index, b.index));
        let applied = match &state {
            FileState::Intact { applied } => *applied,
            FileState::Missing | FileState::Damaged(_) => LogIndex(0),
        };
        let is_lacking = |index: LogIndex, payload: &[u8]| {
            applied < index
                && Command::decode(payload).is_ok_and(|it| it.stamp.incarnation == id.incarnation)
        };
        let n_again = entries.iter().filter(|it| is_lacking(it.index, &it.payload)).count();
        // The log has everything from here on, and, if it has kept that, what is behind the floor.
        let forgotten = partition.log.as_ref().map_or(LogIndex(0), |it| it.compacted.index);
        let whole_behind = if floor.is_log_kept { forgotten.min(floor.index) } else { forgotten };
        Fenced {
            id,
            name: partition.names.get(&id.incarnation).cloned(),
            path,
            stops: self.stops.iter().filter(|it| it.database == id).cloned().collect(),
            state,
            log,
            n_again,
            n_lost_max: whole_behind.0.saturating_sub(applied.0),
        }
    }

    /// Lift a fence. Lost commands are accepted if `accepts_loss`. What the database has.
    pub fn lift(
        &mut self,
        fenced: &Fenced,
        accepts_loss: bool,
    ) -> Result<Result<LogIndex, Refusal>, BootError> {
        let applied = match &fenced.state {
            FileState::Intact { applied } => *applied,
            // It is made anew, and all it ever had is applied to it again.
            FileState::Missing if fenced.n_lost_max == 0 => LogIndex(0),
            FileState::Missing => return Ok(Err(Refusal::Missing)),
            FileState::Damaged(cause) => return Ok(Err(Refusal::Damaged(cause.clone()))),
        };
        let partition = self.partitions.get_mut(&fenced.id.partition);
        let partition = partition.context("its partition is gone")?;
        let entries = partition.log.as_ref().map_or(&[][..], |it| &it.entries);
        let forgotten = partition.log.as_ref().map_or(LogIndex(0), |it| it.compacted.index);
        let last = entries.last().map_or(forgotten, |it| it.index);
        if last < applied {
            return Ok(Err(Refusal::Foreign { applied, last }));
        }
        if fenced.n_lost_max > 0 && !accepts_loss {
            return Ok(Err(Refusal::Loss(fenced.n_lost_max)));
        }
        let dir = partition_dir(&self.dir, fenced.id.partition);
        make_durable(&fenced.path).with_context(|| format!("sync {}", fenced.path.display()))?;
        self.stops.retain(|it| it.database != fenced.id);
        Stops::of(&self.dir).write(&self.stops).context("write the file of stops")?;
        let floor = Floor { index: applied, ..Floor::default() };
        partition.floors.insert(fenced.id.incarnation, floor);
        let floors: Vec<_> = partition.floors.iter().map(|(id, it)| (*id, *it)).collect();
        manifest::write(&dir, &floors)
            .with_context(|| format!("write the manifest in {}", dir.display()))?;
        Ok(Ok(applied))
    }
}

impl Fenced {
    /// Copy what the namespace holds to a plain SQLite file at `to`.
    pub fn export(&self, to: &Path) -> Result<(), NoExport> {
        sql::export(&self.path, to, Vfs::system()).map_err(|error| match error {
            OpenError::Missing => NoExport::Missing,
            OpenError::Exists => NoExport::Exists,
            error => NoExport::Damaged(error.to_string()),
        })
    }

    /// What the process had to stop at, for a person.
    pub fn cause(&self) -> Option<String> {
        let stop = self.stops.last()?;
        let kind = match stop.kind {
            Kind::Panic => "the process panicked",
            Kind::Fault => "the machine failed",
        };
        let at = stop.index.map_or_else(|| "a read".to_owned(), |it| format!("log index {it}"));
        Some(format!("{kind} at {at}: {}", stop.cause))
    }
}

impl Partition {
    fn open(dir: &Path, log: Option<RecoveredPartition>) -> Result<Self, BootError> {
        let floors = manifest::read(dir).with_context(|| {
            format!("cannot repair: the manifest in {} is unusable", dir.display())
        })?;
        let mut names = BTreeMap::new();
        // The log may be ahead of the partition's own database.
        for entry in log.iter().flat_map(|it| &it.entries) {
            if let Ok(command) = Command::decode(&entry.payload)
                && command.kind == CommandKind::Create
                && let Ok(name) = command.name()
            {
                names.insert(command.stamp.incarnation, name.to_owned());
            }
        }
        let engine = Database::look_at(&dir.join("0.db"), Vfs::system(), Role::Engine);
        if let Ok(mut engine) = engine {
            names.extend(catalog::names_of(&recover::select(
                &mut engine,
                catalog::SELECT_INCARNATIONS,
            )?));
        }
        Ok(Self { floors, log, names })
    }
}

/// The partitions that have a directory.
fn partitions_of(dir: &Path) -> Result<Vec<PartitionId>, BootError> {
    let dir = dir.join("partitions");
    let read = || -> io::Result<Vec<PartitionId>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&dir)? {
            let number = entry?.file_name().to_str().and_then(|it| it.parse().ok());
            found.extend(number.map(PartitionId));
        }
        found.sort_unstable();
        Ok(found)
    };
    read().map_err(|source| BootError::DataDir { path: dir.clone(), source })
}

/// Open a file and have SQLite check it. Nothing is written to it but what its `-wal` needs to be read.
fn state_of(path: &Path) -> FileState {
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return FileState::Missing,
        Err(error) => return FileState::Damaged(error.to_string()),
    }
    let check = || -> anyhow::Result<FileState> {
        let mut database = Database::look_at(path, Vfs::system(), Role::Engine)?;
        let found = recover::select(&mut database, "PRAGMA integrity_check")?;
        let Some(StatementResult::Rows(rows)) = found.first() else {
            anyhow::bail!("SQLite does not answer");
        };
        Ok(match rows.values().next() {
            Some(Value::Text("ok")) => FileState::Intact { applied: database.applied() },
            Some(Value::Text(cause)) => FileState::Damaged(cause.to_owned()),
            _ => FileState::Damaged("SQLite does not answer".to_owned()),
        })
    };
    check().unwrap_or_else(|error| FileState::Damaged(error.to_string()))
}

/// Bring what the database has to the disk, whoever copied the file there, and its name. Without a file there
/// is nothing to bring.
fn make_durable(path: &Path) -> anyhow::Result<()> {
    if !path.try_exists()? {
        return Ok(());
    }
    let mut checkpointer = Checkpointer::open(path, Vfs::system())?;
    match checkpointer.checkpoint() {
        // What is not moved is synced where it is.
        Ok(_) | Err(Fault::NoRoom(_)) => {}
        Err(fault) => return Err(fault.into()),
    }
    drop(checkpointer);
    // Nobody has it open now, so that closing it drops no lock (R25).
    for suffix in ["", "-wal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match File::open(Path::new(&name)) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let dir = path.parent().context("it lies in a directory")?;
    Ok(sync_directory(dir)?)
}
