//! What the helper thread does to databases: create, sync, checkpoint. Every call here waits for the disk.
//!
//! All of it goes through SQLite's own handles. A file descriptor on a `.db` or `-shm` that anybody else
//! closed would drop SQLite's locks for the whole process (R25).

use std::path::Path;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;

use crate::sql::connection;
use crate::sql::connection::EngineError;
use crate::sql::connection::EngineStatements;
use crate::sql::connection::Role;
use crate::sql::context;
use crate::sql::database::OpenError;
use crate::sql::database::open_error;
use crate::sql::fault::Class;
use crate::sql::fault::Fault;
use crate::sql::fault::SqlError;
use crate::sql::fault::classify;
use crate::sql::statement::Handle;
use crate::sql::vfs::Vfs;

/// How far a checkpoint came, in frames (pages) of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Frames in the log.
    pub log: u32,
    /// Frames of them that are in the database's file, and synced there.
    pub checkpointed: u32,
}

/// The helper's own connection to one database, kept open as long as the database is.
#[derive(Debug)]
pub struct Checkpointer {
    // In this order: statements are finalized before their connection is closed.
    engine: EngineStatements,
    handle: Handle,
    _connection: Connection,
}

impl Checkpointer {
    /// Connect to the database at `path`.
    pub fn open(path: &Path, vfs: Vfs) -> Result<Self, OpenError> {
        context::idle();
        let opened = connection::open(path, vfs, Role::Engine, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let connection = opened.map_err(open_error)?;
        let handle = Handle::new(&connection);
        let engine = EngineStatements::new(handle).map_err(open_error)?;
        Ok(Self { engine, handle, _connection: connection })
    }

    /// Move as much of the log into the database's file as readers allow, waiting for nobody, and sync both
    /// (R21). None: another connection is at it, or there is no room; try later.
    pub fn checkpoint(&mut self) -> Result<Option<Checkpoint>, Fault> {
        context::idle();
        match self.handle.checkpoint() {
            Ok((log, checkpointed)) => Ok(Some(Checkpoint { log, checkpointed })),
            Err(error) => match classify(error.code, context::trouble()) {
                Class::Busy | Class::Statement | Class::NoRoom => Ok(None),
                Class::Stop | Class::Fence => Err(error.into_fault("checkpoint")),
            },
        }
    }

    /// Commit a transaction that changes nothing, so that the writer never pays for syncing a header or a
    /// folder. False: the writer is at work, which serves as well; or the disk is full.
    pub fn touch(&mut self) -> Result<bool, Fault> {
        context::idle();
        match self.engine.touch() {
            Ok(()) => Ok(true),
            Err(EngineError::Busy) => Ok(false),
            Err(EngineError::Fault(Fault::NoRoom(_))) => {
                // The next commit pays for it, once there is room for one.
                context::idle();
                self.engine.rollback_if_open(self.handle)?;
                Ok(false)
            }
            Err(error) => Err(connection::fault_of(error, "touch a database")),
        }
    }
}

/// Sync the write-ahead log of the database at `path`: what was committed before the call is durable after
/// it (R24). No connection is needed.
pub fn sync_wal(path: &Path, vfs: Vfs) -> Result<(), Fault> {
    context::idle();
    vfs.sync_file(&connection::beside(path, "-wal"))
}

/// See [`crate::sql::Database::create`]. Built under another name: a crash leaves that, and the next attempt
/// begins by deleting it.
pub(super) fn create(path: &Path, vfs: Vfs, schema: &str) -> Result<(), OpenError> {
    context::idle();
    if vfs.exists(path)? {
        return Err(OpenError::Exists);
    }
    let new = connection::beside(path, ".new");
    for left_over in [&new, path] {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            vfs.delete(&connection::beside(left_over, suffix))?;
        }
    }
    build(&new, vfs, schema).map_err(open_error)?;
    vfs.sync_file(&new)?;
    vfs.rename(&new, path)?;
    Ok(())
}

fn build(path: &Path, vfs: Vfs, schema: &str) -> Result<(), SqlError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = connection::open(path, vfs, Role::Engine, flags)?;
    connection.execute_batch(connection::BIRTH)?;
    connection.execute_batch(connection::TABLES)?;
    connection.execute_batch(schema)?;
    // Nothing of this is synced: a crash leaves a file that nobody looks at. Only the whole one is.
    connection.execute_batch("PRAGMA journal_mode = WAL")?;
    // Closing the last connection moves the log into the file, and deletes the log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}
