//! The one writing connection to one database, and reading on it.

use std::hash::BuildHasher;
use std::hash::RandomState; // tidy: allow(RandomState) see `hash_of`
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use bytes::BytesMut;
use rusqlite::Connection;
use rusqlite::InterruptHandle;
use rusqlite::OpenFlags;
use rusqlite::hooks::Wal;
use rustc_hash::FxHashSet;

use crate::sql::cache::Cache;
use crate::sql::connection;
use crate::sql::connection::EngineError;
use crate::sql::connection::EngineStatements;
use crate::sql::connection::PAGE_SIZE;
use crate::sql::connection::Role;
use crate::sql::content;
use crate::sql::context;
use crate::sql::context::Tables;
use crate::sql::fault::Class;
use crate::sql::fault::Fault;
use crate::sql::fault::SqlError;
use crate::sql::fault::classify;
use crate::sql::fulltext;
use crate::sql::maintenance;
use crate::sql::preparing::Text;
use crate::sql::requests::Requests;
use crate::sql::run::Run;
use crate::sql::running::Setting;
use crate::sql::schema;
use crate::sql::schema::Shape;
use crate::sql::statement::Handle;
use crate::sql::storage::Keys;
use crate::sql::text;
use crate::sql::vfs::Vfs;
use crate::sql::views;
use crate::sql::views::Views;
use crate::types::DatabaseSize;
use crate::types::LogIndex;
use crate::wire::command::Command;
use crate::wire::command::CommandLimits;
use crate::wire::rows::Outcome;
use crate::wire::rows::StatementError;
use crate::wire::spool::Spill;

/// Texts remembered because they ran quickly.
const QUICK_MAX: usize = 1_024;
/// Bytes of one page in the write-ahead log, its header included.
pub(super) const WAL_FRAME_SIZE: u64 = 4096 + 24;

/// Why a database cannot be opened or created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no file: it was never created, or it is lost.
    #[error("no such database")]
    Missing,
    /// There is one already.
    #[error("database exists")]
    Exists,
    /// Another connection kept the lock. Try again.
    #[error("database is busy")]
    Busy,
    /// The machine or the file is sick.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What [`Database`] asks its caller, who may have enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A command is about to begin, and with it the time it may take: is it to be left for later?
    Begin,
    /// Another thousand VM instructions of it, or so, have run: is it to be given up?
    Tick,
}

/// How much a caller lets run (R13). It never shows in what a command gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Nothing that could hold up a core: what takes long, or cannot be known to be short, is left or given
    /// up.
    Inline,
    /// Whatever it takes.
    Whole,
}

/// What became of a command that was to be read by.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// It ran.
    Done(Outcome),
    /// It takes, or may take, longer than its caller gives it: to be handed in where there is time.
    Long,
    /// Its caller had had enough before it began: to be handed in again.
    Later,
}

/// The one writing connection to one database.
///
/// Lives on one core; opened, and dropped, on the helper thread. What it keeps in memory goes with
/// [`Self::rest`].
#[derive(Debug)]
pub struct Database {
    // In this order: statements are finalized before their connection is closed.
    pub(super) cache: Cache,
    pub(super) engine: EngineStatements,
    pub(super) requests: Requests,
    pub(super) keys: Keys,
    pub(super) handle: Handle,
    connection: Connection,
    pub(super) path: PathBuf,
    vfs: Vfs,
    role: Role,
    pub(super) applied: LogIndex,
    /// The schema's rows that belong to the engine: no statement of a tenant may leave them different.
    engine_schema: String,
    /// How large it is, as of the last commit here.
    pub(super) size: DatabaseSize,
    /// How long values the command that runs may touch, and for how many steps; see [`crate::sql::run`].
    pub(super) tier: usize,
    /// What is in the schema.
    pub(super) shape: Shape,
    /// What its tables are.
    pub(super) tables: Arc<Tables>,
    /// What its views may take.
    pub(super) views: Views,
    /// What hangs on the tables of virtual tables, by its names.
    hanging: Vec<String>,
    /// Texts, by their hash, that could have taken long to prepare or to run, and did not.
    pub(super) quick: FxHashSet<u64>,
    /// The last such text, on a connection that only reads.
    pub(super) learned: Option<u64>,
    /// The command that ran last changed the schema, or tried to.
    pub(super) has_changed_schema: bool,
    /// A change of the schema was prepared, which already changes what SQLite guesses of a table, and it is
    /// not known to have come to its end.
    pub(super) has_stale_schema: bool,
    /// Where rows are encoded.
    pub(super) scratch: BytesMut,
    /// Takes what of a read's results is too much for memory, while there is somebody who gave one.
    pub(super) spill: Option<Box<dyn Spill>>,
    /// Pages in the write-ahead log, as of the last commit. Atomic only because SQLite's hook must be `Send`.
    wal_frames: Arc<AtomicU32>,
    /// The limit that was set, if SQLite took it as it is.
    pub(super) page_limit: Option<u64>,
    /// The connection has met a full disk: another takes its place before it writes again.
    pub(super) is_worn: bool,
}

impl Database {
    /// Create a database at `path` that holds what `schema` says, with nothing applied. Durable once this
    /// returns; before that there is nothing at `path`. Waits for the disk.
    pub fn create(path: &Path, vfs: Vfs, schema: &str) -> Result<(), OpenError> {
        maintenance::create(path, vfs, schema)
    }

    /// Open the database at `path`. Ends with a transaction that changes nothing, so that no commit later
    /// pays for syncing the log's header and folder (R22). Waits for the disk.
    pub fn open(path: &Path, vfs: Vfs, role: Role) -> Result<Self, OpenError> {
        let mut database = Self::connect(path, vfs, role, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        match database.engine.touch() {
            Ok(()) => Ok(database),
            Err(EngineError::Busy) => Err(OpenError::Busy),
            // It can be read all the same.
            Err(EngineError::Fault(Fault::NoRoom(_))) => {
                context::idle();
                database.engine.rollback_if_open(database.handle)?;
                Ok(database)
            }
            Err(error) => Err(connection::fault_of(error, "open a database").into()),
        }
    }

    /// Open the database at `path` to look at it: nothing is committed to it but the tables that an older program
    /// did not create.
    pub fn look_at(path: &Path, vfs: Vfs, role: Role) -> Result<Self, OpenError> {
        Self::connect(path, vfs, role, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// Open a connection, by `flags` to write or only to read.
    pub(super) fn connect(
        path: &Path,
        vfs: Vfs,
        role: Role,
        flags: OpenFlags,
    ) -> Result<Self, OpenError> {
        context::idle();
        if !vfs.exists(path)? {
            return Err(OpenError::Missing);
        }
        let opened = connection::open(path, vfs, role, flags);
        let mut connection = opened.map_err(open_error)?;
        let wal_frames = Arc::new(AtomicU32::new(0));
        count_frames(&mut connection, Arc::clone(&wal_frames)).map_err(open_error)?;
        let handle = Handle::new(&connection);
        let mut engines = schema::engine_schema(handle).map_err(open_error)?;
        if !engines.contains("__debros_meta") {
            let cause = "the engine's table is missing".to_owned();
            return Err(Fault::Fence(cause).into());
        }
        let may_write = flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE);
        let has = |name: &str| engines.contains(name);
        if may_write && !(has("__debros_requests_key") && has("__debros_kv_expires")) {
            // Created by an older program.
            let give = || Ok(connection.execute_batch(connection::TABLES)?);
            context::as_engine(give).map_err(open_error)?;
            engines = schema::engine_schema(handle).map_err(open_error)?;
        }
        let mut engine = EngineStatements::new(handle).map_err(open_error)?;
        let size = engine.size()?;
        let applied =
            schema::number(handle, "SELECT applied FROM __debros_meta").map_err(open_error)?;
        let shape = schema::shape(handle).map_err(open_error)?;
        let mut tables = Arc::new(schema::tables(handle).map_err(open_error)?);
        // What only reads changes no schema.
        let views = schema::load(handle, shape, &tables, may_write).map_err(open_error)?;
        context::forget();
        Arc::make_mut(&mut tables).widen(views.width);
        let hanging = if may_write && shape.virtual_tables > 0 {
            fulltext::hanging(handle).map_err(open_error)?
        } else {
            Vec::new()
        };
        let applied = u64::try_from(applied)
            .map_err(|_| Fault::Fence("the applied index is negative".to_owned()))?;
        Ok(Self {
            cache: Cache::default(),
            engine,
            requests: Requests::default(),
            keys: Keys::default(),
            handle,
            connection,
            path: path.to_owned(),
            vfs,
            role,
            applied: LogIndex(applied),
            engine_schema: engines,
            tier: 0,
            shape,
            tables,
            views,
            hanging,
            quick: FxHashSet::default(),
            learned: None,
            has_changed_schema: false,
            has_stale_schema: false,
            scratch: BytesMut::new(),
            spill: None,
            wal_frames,
            page_limit: None,
            size,
            is_worn: false,
        })
    }

    /// Close the connection and open it again: what SQLite remembers of a change of the schema, or of its
    /// statistics, outlives a rollback (R14).
    pub(super) fn reconnect(&mut self) -> Result<(), Fault> {
        let fresh =
            Self::connect(&self.path, self.vfs, self.role, OpenFlags::SQLITE_OPEN_READ_WRITE)
                .map_err(|error| match error {
                    OpenError::Fault(fault) => fault,
                    error => Fault::Stop(format!("open a database again: {error}")),
                })?;
        assert_eq!(fresh.applied, self.applied, "a rollback leaves what was committed");
        // The log is as long as it was, and the new connection has not committed yet.
        fresh.wal_frames.fetch_max(self.wal_frames.load(Ordering::Relaxed), Ordering::Relaxed);
        *self = fresh;
        Ok(())
    }

    /// Read the schema anew: what SQLite guesses of a table's size lives on after the index is gone that
    /// made it guess, and a connection that was opened later would plan differently (R14). Not within a
    /// command: a virtual table may have rows at hand that it has not written.
    pub(super) fn forget_schema(&mut self) -> Result<(), Fault> {
        self.read_schema_anew().map_err(|error| error.into_fault("read the schema anew"))
    }

    fn read_schema_anew(&mut self) -> Result<(), SqlError> {
        self.cache.clear();
        let sql = "PRAGMA writable_schema = RESET";
        context::as_engine(|| {
            schema::number(self.handle, sql)?;
            // At once: where it may be stopped or run out of memory, SQLite would go on without statistics.
            schema::number(self.handle, "SELECT applied FROM __debros_meta")
        })?;
        schema::load(self.handle, self.shape, &self.tables, false)?;
        self.has_stale_schema = false;
        Ok(())
    }

    /// Before a command: see [`Self::forget_schema`].
    pub(super) fn freshen(&mut self) -> Result<(), Fault> {
        if self.has_stale_schema { self.forget_schema() } else { Ok(()) }
    }

    /// The same, but later if the disk is full now, or another connection has the lock: what a read is told then.
    pub(super) fn freshen_if_possible(&mut self) -> Result<Option<StatementError>, Fault> {
        if !self.has_stale_schema {
            return Ok(None);
        }
        let Err(error) = self.read_schema_anew() else { return Ok(None) };
        match classify(error.code, context::trouble()) {
            Class::Busy => Ok(Some(StatementError::coded("busy", "database is busy"))),
            Class::NoRoom => Ok(Some(no_room_to_read())),
            _ => Err(error.into_fault("read the schema anew")),
        }
    }

    /// The log index of the last command applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Bytes of the write-ahead log, as of this connection's last commit, or as it was told since; zero before.
    pub fn wal_bytes(&self) -> u64 {
        u64::from(self.wal_frames.load(Ordering::Relaxed)) * WAL_FRAME_SIZE
    }

    /// Another connection has committed: the write-ahead log has so many bytes now.
    pub fn learn_wal_bytes(&self, bytes: u64) {
        let frames = u32::try_from(bytes / WAL_FRAME_SIZE).unwrap_or(u32::MAX);
        self.wal_frames.store(frames, Ordering::Relaxed);
    }

    /// How large the database is, as of this connection's last commit.
    pub fn size(&self) -> DatabaseSize {
        self.size
    }

    /// Answer `commands`, all from one state of the database; each must only read. One that `enough` gives
    /// up has taken too long, which is its outcome.
    pub fn read(
        &mut self,
        commands: &[Bytes],
        enough: &mut dyn FnMut(Ask) -> bool,
    ) -> Result<Vec<Outcome>, Fault> {
        let ran = self.read_within(commands, Share::Whole, &mut |ask| {
            // All of them are to run.
            enough(ask) && ask == Ask::Tick
        })?;
        let outcome = |it| match it {
            Read::Done(outcome) => outcome,
            Read::Long | Read::Later => unreachable!("nothing was to be left"),
        };
        Ok(ran.into_iter().map(outcome).collect())
    }

    /// Answer `commands`, all from one state of the database, as far as `share` and `enough` let them run.
    /// With [`Share::Whole`], one that `enough` gives up has taken too long, which is its outcome.
    pub fn read_within(
        &mut self,
        commands: &[Bytes],
        share: Share,
        enough: &mut dyn FnMut(Ask) -> bool,
    ) -> Result<Vec<Read>, Fault> {
        context::idle();
        context::set_has_time(share == Share::Whole);
        match self.engine.begin_read() {
            Ok(()) => {}
            Err(EngineError::Fault(Fault::NoRoom(_))) => {
                let refused = |_| Read::Done(Err(no_room_to_read()));
                return Ok(commands.iter().map(refused).collect());
            }
            Err(error) => return Err(connection::fault_of(error, "begin to read")),
        }
        let handle = self.handle;
        let read = |bytes| {
            if enough(Ask::Begin) {
                return Ok(Read::Later);
            }
            if self.has_stale_schema && share == Share::Inline {
                return Ok(Read::Long);
            }
            if let Some(error) = self.freshen_if_possible()? {
                return Ok(Read::Done(Err(error)));
            }
            handle.with_watch(false, enough, || self.read_one(bytes, share))
        };
        let outcomes = commands.iter().map(read).collect::<Result<Vec<_>, _>>();
        // Only reading was done, so that one ends like the other; a rollback cannot fail for want of space.
        if !self.handle.is_autocommit() {
            self.engine.rollback()?;
        }
        context::idle();
        outcomes
    }

    fn read_one(&mut self, bytes: &Bytes, share: Share) -> Result<Read, Fault> {
        let command = match Command::decode(bytes) {
            Ok(command) => command,
            Err(error) => return Ok(Read::Done(Err(StatementError::new(error.to_string())))),
        };
        // On a connection of its own a reader learns of a new schema when it runs. What it knew of the
        // statement before is wrong then, and its transaction keeps the schema as it is now.
        for _ in 0..2 {
            match self.run(&command, Setting::Read, share)? {
                Run::Done(outcome) => return Ok(Read::Done(outcome)),
                Run::Long { .. } => return Ok(Read::Long),
                Run::Undone => {}
                Run::Larger => unreachable!("a read has the time that it has"),
                Run::Decided(_) => unreachable!("a read has no use for a key"),
                Run::Alone => unreachable!("a read shares its transaction with nobody"),
            }
        }
        let message = "the schema changes too often";
        Ok(Read::Done(Err(StatementError::coded("busy", message))))
    }

    /// What stops the statement that runs, from any thread.
    pub(super) fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// Whether preparing the first statement of `sql` cannot take long.
    pub(super) fn is_quick_to_prepare(&self, sql: &str) -> bool {
        self.cache.has(sql)
            || (self.shape.is_quick() && text::is_simple(sql) && !Text::of(sql).is_natural())
            || self.quick.contains(&hash_of(sql))
    }

    /// A text that ran quickly on a connection that only reads, and could have taken long: where there is
    /// little time it may be tried.
    pub fn learn(&mut self, text: u64) {
        if self.quick.len() >= QUICK_MAX {
            self.quick.clear();
        }
        self.quick.insert(text);
    }

    /// A hash over all that the database holds, the schema and the rowids included: equal for replicas that
    /// applied the same commands. Takes time in proportion to the content.
    pub fn content_hash(&mut self) -> Result<u64, Fault> {
        context::idle();
        context::as_engine(|| content::hash(self.handle))
            .map_err(|error| error.into_fault("hash the content"))
    }

    /// Give back the memory that only saves time: prepared statements and cached pages.
    pub fn rest(&mut self) {
        self.cache.clear();
        self.requests = Requests::default();
        self.keys = Keys::default();
        self.scratch = BytesMut::new();
        // Fails only for a connection in use, which this is not.
        let _ = self.connection.release_memory();
    }

    /// Let the database grow to what the limits of a command say, and no further.
    pub(super) fn bound_size(&mut self, limits: &CommandLimits) -> Result<(), Fault> {
        let pages = (limits.database_bytes / PAGE_SIZE).clamp(1, 0xffff_fffe);
        if self.page_limit != Some(pages) {
            let sql = format!("PRAGMA max_page_count = {pages}");
            let set = context::as_engine(|| schema::number(self.handle, &sql))
                .map_err(|error| error.into_fault("bound the size"))?;
            // SQLite takes no limit below the present size, but that size instead. Then it is set again
            // for the next command, or what is allowed would depend on when it was set.
            self.page_limit = (u64::try_from(set) == Ok(pages)).then_some(pages);
        }
        Ok(())
    }

    /// Check what `sql`, a change of the schema, left behind; give what that counts for, in VM instructions. `Err`
    /// names what must not stay.
    pub(super) fn check_schema(&mut self, sql: &str) -> Result<Result<u64, StatementError>, Fault> {
        let before = self.shape;
        let is_selected = text::makes_table_by_select(sql);
        let found = context::as_engine(|| {
            let engines = schema::engine_schema(self.handle)?;
            self.shape = schema::shape(self.handle)?;
            self.tables = Arc::new(schema::tables(self.handle)?);
            context::know(&self.tables);
            let views = views::check(self.handle, is_selected, &self.views)?;
            // No more is done once it is refused.
            let hanging = if views.is_ok() && self.shape.virtual_tables > 0 {
                fulltext::hanging(self.handle)?
            } else {
                Vec::new()
            };
            Ok::<_, SqlError>((engines, views, hanging))
        });
        let (engines, views, hanging) =
            found.map_err(|error| error.into_fault("check the schema"))?;
        if self.role == Role::Tenant && engines != self.engine_schema {
            return Ok(Err(StatementError::coded("not_authorized", "not authorized")));
        }
        if self.role == Role::Engine {
            self.engine_schema = engines;
        } else if let Some(error) = schema::outgrown(before, self.shape) {
            return Ok(Err(error));
        } else if let Some(error) = fulltext::check_hanging(&self.hanging, &hanging) {
            return Ok(Err(error));
        }
        Ok(views.map(|views| {
            self.hanging = hanging;
            context::forget();
            Arc::make_mut(&mut self.tables).widen(views.width);
            context::know(&self.tables);
            let steps = views.steps();
            self.views = views;
            steps
        }))
    }
}

/// A read that needs room on a full disk.
pub(super) fn no_room_to_read() -> StatementError {
    StatementError::coded("disk_reserve", "the disk is full: the statement needs room to work")
}

/// What a text is remembered by. The key is the process's own, so that nobody can make a text that is taken for
/// another. It decides where a text runs, and nothing of what it gives.
pub(super) fn hash_of(sql: &str) -> u64 {
    // tidy: allow(RandomState) as above
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(sql)
}

/// Keep count of the pages in the write-ahead log: SQLite tells at each commit.
pub(super) fn count_frames(
    connection: &mut Connection,
    frames: Arc<AtomicU32>,
) -> Result<(), SqlError> {
    let hook = move |_: &mut Wal, pages| {
        frames.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    };
    Ok(connection.wal_hook(Some(hook))?)
}

pub(super) fn open_error(error: SqlError) -> OpenError {
    match classify(error.code, context::trouble()) {
        Class::Busy => OpenError::Busy,
        _ => error.into_fault("open a database").into(),
    }
}

#[cfg(test)]
mod tests;
