//! Opening a connection the one way that is safe here, and what the engine itself runs on it.

use std::ffi::CStr;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;
use rusqlite::ffi;
use rusqlite::limits::Limit;

use crate::limits;
use crate::sql::authorizer;
use crate::sql::context;
use crate::sql::context::Trouble;
use crate::sql::costly;
use crate::sql::fault::Class;
use crate::sql::fault::Fault;
use crate::sql::fault::SqlError;
use crate::sql::fault::classify;
use crate::sql::functions;
use crate::sql::like;
use crate::sql::statement::Handle;
use crate::sql::statement::Prepared;
use crate::sql::vfs::Vfs;
use crate::types::DatabaseSize;
use crate::types::LogIndex;
use crate::wire::command::Value;

/// How often a connection that writes tries again to get a lock before it answers BUSY (R21).
const BUSY_YIELDS_MAX: i32 = 2_000;
/// Longest pattern of LIKE and GLOB, which look at each character of a text up to so many times (R12).
const LIKE_PATTERN_MAX: i32 = 128;

/// Whose statements a database runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The engine's own: nothing is refused.
    Engine,
    /// A tenant's: bounded by the authorizer.
    Tenant,
}

/// The page size of every database, in bytes.
pub(super) const PAGE_SIZE: u64 = 4_096;

/// Set on every connection. `temp_store` and `cache_size` decide when temporary bytes are written, which
/// are counted; the folder for temporary files is the process's `SQLITE_TMPDIR`.
const SETTINGS: &str = "
    PRAGMA synchronous = NORMAL;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA journal_size_limit = 1048576;
    PRAGMA cache_size = -2000;
    PRAGMA temp_store = FILE;
    PRAGMA mmap_size = 0;
    PRAGMA threads = 0;";

/// A new database: what cannot be changed later, the log, and the engine's own table. `auto_vacuum` writes the first
/// page, so what spares it a journal and three syncs comes before.
pub(super) const BIRTH: &str = "
    PRAGMA page_size = 4096;
    PRAGMA journal_mode = MEMORY;
    PRAGMA synchronous = OFF;
    PRAGMA auto_vacuum = INCREMENTAL;
    CREATE TABLE __debros_meta(id INTEGER PRIMARY KEY CHECK (id = 0), applied INTEGER NOT NULL);
    INSERT INTO __debros_meta VALUES (0, 0);";

/// What [`BIRTH`] is followed by, and what a database of an older program is given when it is opened.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS __debros_requests(
        seq INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        hash BLOB NOT NULL,
        at INTEGER NOT NULL,
        outcome BLOB NOT NULL);
    CREATE INDEX IF NOT EXISTS __debros_requests_key ON __debros_requests(key);
    CREATE TABLE IF NOT EXISTS __debros_kv(
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        expires INTEGER,
        value BLOB NOT NULL);
    CREATE INDEX IF NOT EXISTS __debros_kv_key ON __debros_kv(key, expires);
    CREATE INDEX IF NOT EXISTS __debros_kv_expires ON __debros_kv(expires) WHERE expires IS NOT NULL;";

/// What SQLite must have been built with: see `.cargo/config.toml`, which a build somewhere else may not have read.
const BUILT_WITH: [&CStr; 4] =
    [c"THREADSAFE=2", c"DEFAULT_MEMSTATUS=0", c"OMIT_DEPRECATED", c"OMIT_SHARED_CACHE"];

/// Whether it was built with `option`.
fn is_built_with(option: &CStr) -> bool {
    // SAFETY: the name is valid; what it is compared with is constant.
    #[expect(unsafe_code, reason = "SQLite is asked how it was built")]
    unsafe {
        ffi::sqlite3_compileoption_used(option.as_ptr()) != 0
    }
}

/// Open the database at `path`, by `flags` to write, to read, or to create it.
pub(super) fn open(
    path: &Path,
    vfs: Vfs,
    role: Role,
    flags: OpenFlags,
) -> Result<Connection, SqlError> {
    if let Some(option) = BUILT_WITH.iter().find(|it| !is_built_with(it)) {
        let message = format!("SQLite was not built as .cargo/config.toml says: {option:?} is off");
        return Err(SqlError { code: ffi::SQLITE_MISUSE, message });
    }
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags_and_vfs(path, flags, vfs.name())?;
    let handle = Handle::new(&connection);
    handle.shrink_lookaside();
    for (setting, value) in [
        // The bundled build turns them on; the network never enforced them.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false),
        (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        // An index on a string that later becomes a column would corrupt itself.
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, true),
        // The plan, and so the number of steps, must not depend on the values bound first.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
    ] {
        connection.set_db_config(setting, value)?;
    }
    connection.busy_handler(Some(|n| {
        std::thread::yield_now(); // tidy: allow(std::thread) whoever holds the lock needs the processor
        n < BUSY_YIELDS_MAX
    }))?;
    let bound = |it: usize| i32::try_from(it).expect("limits fit");
    // Texts are not bounded here but where a command is made: those that SQLite writes itself, with more
    // quotes or longer names, are longer, and a schema that it could not read again would count as damage.
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, bound(limits::ARGUMENTS_MAX)),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LIKE_PATTERN_MAX),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, value)?;
    }
    functions::register(&connection, handle)?;
    costly::register(handle)?;
    like::register(handle)?;
    connection.execute_batch(SETTINGS)?;
    if role == Role::Tenant {
        connection.execute_batch(authorizer::CREATE_VIEWS)?;
        connection.authorizer(Some(authorizer::authorize))?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    handle.watch_rowids();
    handle.count_steps();
    Ok(connection)
}

/// A statement of the engine ended in BUSY or worse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EngineError {
    /// Another connection holds the lock; nothing has run.
    Busy,
    /// The database or the machine is sick.
    Fault(Fault),
    /// It failed by what a tenant's statements did before.
    Statement(SqlError),
}

/// What the engine runs around the commands.
#[derive(Debug)]
pub(super) struct EngineStatements {
    begin: Prepared,
    begin_read: Prepared,
    commit: Prepared,
    rollback: Prepared,
    savepoint: Prepared,
    release: Prepared,
    rollback_to: Prepared,
    forget: Prepared,
    record: Prepared,
    applied: Prepared,
    no_changes: Prepared,
    pages: Prepared,
    free_pages: Prepared,
}

impl EngineStatements {
    /// Prepare them on a connection to a database that has the engine's table.
    pub(super) fn new(handle: Handle) -> Result<Self, SqlError> {
        let prepare = |sql: &str| {
            let (prepared, _) = Prepared::new(handle, sql)?;
            Ok::<_, SqlError>(prepared.expect("the engine's statements are not blank"))
        };
        context::as_engine(|| {
            Ok(Self {
                begin: prepare("BEGIN IMMEDIATE")?,
                begin_read: prepare("BEGIN")?,
                commit: prepare("COMMIT")?,
                rollback: prepare("ROLLBACK")?,
                savepoint: prepare("SAVEPOINT command")?,
                release: prepare("RELEASE command")?,
                rollback_to: prepare("ROLLBACK TO command")?,
                forget: prepare("DELETE FROM __debros_meta WHERE id = 0")?,
                record: prepare("INSERT INTO __debros_meta(id, applied) VALUES (0, ?)")?,
                applied: prepare("SELECT applied FROM __debros_meta")?,
                no_changes: prepare("DELETE FROM __debros_meta WHERE id = 1")?,
                pages: prepare("PRAGMA page_count")?,
                free_pages: prepare("PRAGMA freelist_count")?,
            })
        })
    }

    /// Begin a transaction that will write.
    pub(super) fn begin(&mut self) -> Result<(), EngineError> {
        run(&mut self.begin)
    }

    /// Begin a transaction that only reads.
    pub(super) fn begin_read(&mut self) -> Result<(), EngineError> {
        run(&mut self.begin_read)
    }

    /// Make the transaction's effects last.
    pub(super) fn commit(&mut self) -> Result<(), EngineError> {
        run(&mut self.commit)
    }

    /// Undo the transaction.
    pub(super) fn rollback(&mut self) -> Result<(), Fault> {
        must(run(&mut self.rollback), "roll back")
    }

    /// Undo the transaction, if there is one: an error may have undone it already.
    pub(super) fn rollback_if_open(&mut self, handle: Handle) -> Result<(), Fault> {
        if handle.is_autocommit() { Ok(()) } else { self.rollback() }
    }

    /// Mark where a command begins.
    pub(super) fn savepoint(&mut self) -> Result<(), Fault> {
        must(run(&mut self.savepoint), "mark a command")
    }

    /// The marked command stays.
    pub(super) fn release(&mut self) -> Result<(), Fault> {
        must(run(&mut self.release), "keep a command")
    }

    /// The marked command is undone.
    pub(super) fn undo(&mut self) -> Result<(), Fault> {
        must(run(&mut self.rollback_to), "undo a command")?;
        self.release()
    }

    /// Record that everything up to `applied` has been applied. The row is deleted and inserted, not
    /// updated: an update to the same content would write no page, and [`Self::touch`] needs one.
    pub(super) fn record(&mut self, applied: LogIndex) -> Result<(), EngineError> {
        let applied = i64::try_from(applied.0).expect("log indexes stay below 2^63");
        self.settle()?;
        run(&mut self.forget)?;
        run_with(&mut self.record, Value::Integer(applied))
    }

    /// What is on record, and the certainty that what is written next belongs to the transaction.
    ///
    /// A statement makes SQLite load the schema, if another connection has changed it, and the statistics with
    /// it. An error of reading those undoes the transaction, and is told to nobody: the row that is forgotten
    /// next would be gone for good. Once a statement has run, the schema stays.
    pub(super) fn settle(&mut self) -> Result<i64, EngineError> {
        let mut applied = 0;
        let read = context::as_engine(|| {
            self.applied.run(std::iter::empty(), |row| {
                if let Ok(Value::Integer(it)) = row.value(0) {
                    applied = it;
                }
                Ok::<(), SqlError>(())
            })
        });
        read.map_err(engine_error)?;
        if self.applied.is_autocommit() || context::trouble() != Trouble::None {
            let message = "the transaction was undone".to_owned();
            return Err(engine_error(SqlError { code: ffi::SQLITE_ABORT_ROLLBACK, message }));
        }
        Ok(applied)
    }

    /// A transaction that changes nothing and writes a page, so that the log's header and folder are
    /// synced now, here, and not by the next commit (R21).
    pub(super) fn touch(&mut self) -> Result<(), EngineError> {
        self.begin()?;
        let applied = self.settle()?;
        run(&mut self.forget)?;
        run_with(&mut self.record, Value::Integer(applied))?;
        self.commit()
    }

    /// How large the database is. Inside a transaction it costs no lock, and below a microsecond.
    pub(super) fn size(&mut self) -> Result<DatabaseSize, Fault> {
        let read = context::as_engine(|| {
            let pages = number(&mut self.pages)?;
            Ok(DatabaseSize { pages, free_pages: number(&mut self.free_pages)? })
        });
        read.map_err(|error: SqlError| error.into_fault("count pages"))
    }

    /// Make `changes()` answer nought.
    pub(super) fn reset_changes(&mut self) -> Result<(), Fault> {
        must(run(&mut self.no_changes), "reset a counter")
    }
}

/// Give up to `n_pages` free pages back. In a transaction, with nothing else in it.
pub(super) fn vacuum(handle: Handle, n_pages: u32) -> Result<(), Fault> {
    let ran = context::as_engine(|| {
        let (prepared, _) =
            Prepared::new(handle, &format!("PRAGMA incremental_vacuum({n_pages})"))?;
        let mut prepared = prepared.expect("not blank");
        prepared.run(std::iter::empty(), |_| Ok::<(), SqlError>(()))
    });
    ran.map_err(|error| error.into_fault("give pages back"))
}

/// The one number that a statement gives.
fn number(prepared: &mut Prepared) -> Result<u32, SqlError> {
    Ok(u32::try_from(prepared.number()?).unwrap_or(0))
}

fn run(prepared: &mut Prepared) -> Result<(), EngineError> {
    let ran = context::as_engine(|| prepared.run(std::iter::empty(), |_| Ok::<(), SqlError>(())));
    ran.map_err(engine_error)
}

fn run_with(prepared: &mut Prepared, value: Value<'_>) -> Result<(), EngineError> {
    let ran =
        context::as_engine(|| prepared.run(std::iter::once(value), |_| Ok::<(), SqlError>(())));
    ran.map_err(engine_error)
}

fn engine_error(error: SqlError) -> EngineError {
    match classify(error.code, context::trouble()) {
        Class::Busy => EngineError::Busy,
        Class::Statement => EngineError::Statement(error),
        Class::Stop | Class::Fence | Class::NoRoom => {
            EngineError::Fault(error.into_fault("run a transaction"))
        }
    }
}

/// What a tenant's statements cannot make fail.
fn must(ran: Result<(), EngineError>, during: &str) -> Result<(), Fault> {
    ran.map_err(|error| match error {
        EngineError::Busy => Fault::Stop(format!("{during}: busy")),
        EngineError::Fault(fault) => fault,
        EngineError::Statement(error) => error.into_fault(during),
    })
}

/// The fault behind any error of a statement of the engine, where BUSY is not expected.
pub(super) fn fault_of(error: EngineError, during: &str) -> Fault {
    must(Err(error), during).expect_err("an error stays one")
}

/// The name of the file beside `path` that ends with `suffix`.
pub(super) fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
