//! What the helper thread does to databases: create, sync, checkpoint. Every call here waits for the disk.
//!
//! All of it goes through SQLite's own handles. A file descriptor on a `.db` or `-shm` that anybody else
//! closed would drop SQLite's locks for the whole process (R25).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;

use crate::sql::connection;
use crate::sql::connection::EngineError;
use crate::sql::connection::EngineStatements;
use crate::sql::connection::Role;
use crate::sql::context;
use crate::sql::database::OpenError;
use crate::sql::database::WAL_FRAME_SIZE;
use crate::sql::database::count_frames;
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
    /// Pages in the write-ahead log as of its own last commit.
    wal_frames: Arc<AtomicU32>,
}

impl Checkpointer {
    /// Connect to the database at `path`.
    pub fn open(path: &Path, vfs: Vfs) -> Result<Self, OpenError> {
        context::idle();
        let opened = connection::open(path, vfs, Role::Engine, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let mut connection = opened.map_err(open_error)?;
        let wal_frames = Arc::new(AtomicU32::new(0));
        count_frames(&mut connection, Arc::clone(&wal_frames)).map_err(open_error)?;
        let handle = Handle::new(&connection);
        let engine = EngineStatements::new(handle).map_err(open_error)?;
        Ok(Self { engine, handle, _connection: connection, wal_frames })
    }

    /// Bytes of the write-ahead log as of the last [`Self::touch`] that committed: few if it began anew.
    pub fn wal_bytes(&self) -> u64 {
        u64::from(self.wal_frames.load(Ordering::Relaxed)) * WAL_FRAME_SIZE
    }

    /// Move as much of the log into the database's file as readers allow, waiting for nobody, and sync both
    /// (R21). None: another connection is at it; try later, as when there is no room.
    pub fn checkpoint(&mut self) -> Result<Option<Checkpoint>, Fault> {
        context::idle();
        match self.handle.checkpoint() {
            Ok((log, checkpointed)) => Ok(Some(Checkpoint { log, checkpointed })),
            Err(error) => match classify(error.code, context::trouble()) {
                Class::Busy | Class::Statement => Ok(None),
                Class::NoRoom | Class::Stop | Class::Fence => Err(error.into_fault("checkpoint")),
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

/// Copy what the database at `from` holds for its tenant to a new file at `to`, which any SQLite opens: one file,
/// without a log and without the engine's tables, but for `__debros_kv` if the tenant has keys and values. Nobody else may have the database open. `from` is changed in
/// nothing but what its `-wal` needs to be read; damage that is met is an error, and leaves nothing at `to`.
pub fn export(from: &Path, to: &Path, vfs: Vfs) -> Result<(), OpenError> {
    context::idle();
    if !vfs.exists(from)? {
        return Err(OpenError::Missing);
    }
    if vfs.exists(to)? {
        return Err(OpenError::Exists);
    }
    let new = connection::beside(to, ".new");
    vfs.delete(&new)?;
    let copied = copy_content(from, &new, vfs);
    if copied.is_err() {
        // The error says more than that this fails as well.
        let _ = vfs.delete(&new);
    }
    copied.map_err(open_error)?;
    vfs.sync_file(&new)?;
    vfs.rename(&new, to)?;
    Ok(())
}

fn copy_content(from: &Path, to: &Path, vfs: Vfs) -> Result<(), SqlError> {
    let source = connection::open(from, vfs, Role::Engine, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // The flag is about ATTACH, which this is inside.
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, true)?;
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, true)?;
    let name = to.to_str().ok_or_else(|| SqlError {
        code: rusqlite::ffi::SQLITE_ERROR,
        message: "the name of the copy is not UTF-8".to_owned(),
    })?;
    source.execute("VACUUM INTO ?", [name])?;
    let copy = connection::open(to, vfs, Role::Engine, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    copy.execute_batch(
        "DROP TABLE IF EXISTS __debros_requests;
         DROP TABLE IF EXISTS __debros_meta",
    )?;
    let is_there = |sql| copy.query_row(sql, [], |row| row.get::<_, bool>(0));
    let has_table = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '__debros_kv')";
    let has_keys = "SELECT EXISTS (SELECT 1 FROM __debros_kv)";
    if is_there(has_table)? && !is_there(has_keys)? {
        copy.execute_batch("DROP TABLE __debros_kv")?;
    }
    copy.execute_batch("PRAGMA incremental_vacuum")?;
    copy.close().map_err(|(_, error)| error)?;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::connection;
    use super::export;
    use crate::sql::Checkpointer;
    use crate::sql::Database;
    use crate::sql::Fault;
    use crate::sql::OpenError;
    use crate::sql::Rest;
    use crate::sql::Role;
    use crate::sql::Share;
    use crate::sql::Vfs;
    use crate::sql::testing::Fixture;
    use crate::sql::testing::print;
    use crate::sql::testing::stamp;
    use crate::types::DatabaseSize;
    use crate::wire::command::draft::Draft;

    /// What the database says of its size, which is what the last batch said.
    fn size(fixture: &mut Fixture) -> DatabaseSize {
        let batch = fixture.database.apply(&[]).unwrap();
        let of_sqlite = fixture.database.engine.size().unwrap();
        assert_eq!(batch.size, of_sqlite);
        batch.size
    }

    #[test]
    fn pages_go_back_a_few_at_a_time_and_nothing_else_changes() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
        fixture.must("CREATE INDEX t_b ON t(b)");
        fixture.must(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000)
             INSERT INTO t(b) SELECT hex(zeroblob(500)) || x FROM n",
        );
        let full = size(&mut fixture);
        assert!(full.pages > 1_000 && full.free_pages == 0, "{full:?}");
        fixture.must("DELETE FROM t WHERE a % 40 <> 0");
        let deleted = size(&mut fixture);
        assert_eq!(deleted.pages, full.pages);
        assert!(deleted.free_pages > full.pages / 2, "{deleted:?}");
        let all = "SELECT rowid, a, b FROM t WHERE b > '' ORDER BY b";
        let content = fixture.query(all);
        let path = fixture.database.path.clone();
        let mut checkpointer = Checkpointer::open(&path, Vfs::system()).unwrap();
        checkpointer.checkpoint().unwrap().unwrap();
        let bytes_before = fs::metadata(&path).unwrap().len();
        // Where there is little time it is left alone.
        let entries = fixture.entries([Draft::vacuum(200).seal(&stamp(1))]);
        let tried = fixture.database.apply_within(&entries, Share::Inline, &mut |_| false).unwrap();
        assert_eq!((tried.rest, tried.applied.len(), tried.size), (Rest::Long, 0, deleted));
        fixture.next -= 1;
        // With neighbours in its batch.
        let mut commands = vec![Draft::vacuum(200).seal(&stamp(1))];
        commands.extend([Draft::vacuum(256).seal(&stamp(2)), Draft::vacuum(1).seal(&stamp(3))]);
        let outcomes = fixture.apply(commands);
        assert!(outcomes.iter().all(|it| print(it).is_empty()), "{outcomes:?}");
        let smaller = size(&mut fixture);
        assert_eq!(deleted.free_pages - smaller.free_pages, 457);
        // A page that says where others are went as well.
        assert_eq!(full.pages - smaller.pages, 458);
        assert_eq!(fixture.query(all), content);
        checkpointer.checkpoint().unwrap().unwrap();
        let bytes = fs::metadata(&path).unwrap().len();
        assert_eq!(bytes, u64::from(smaller.pages) * 4_096);
        assert!(bytes < bytes_before, "the file became smaller");
        // More than there are.
        for n in 0..10 {
            fixture.apply([Draft::vacuum(256).seal(&stamp(n))]);
        }
        assert_eq!(size(&mut fixture).free_pages, 0);
        assert_eq!(fixture.query(all), content);
        fixture.must("INSERT INTO t(b) VALUES ('more')");
    }

    #[test]
    fn an_export_is_a_plain_database_without_the_engine() {
        let mut fixture = Fixture::new();
        for sql in [
            "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE, c AS (b || '!'))",
            "CREATE INDEX t_c ON t(c)",
            "CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE gaps(x)",
            "CREATE VIEW v AS SELECT c FROM t",
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO w VALUES (new.a); END",
            "CREATE VIRTUAL TABLE f USING fts5(body)",
            "INSERT INTO t(b) VALUES ('x'), ('y')",
            "INSERT INTO gaps(rowid, x) VALUES (5, 'five'), (90, 'ninety')",
            "INSERT INTO f VALUES ('hello world')",
            "ANALYZE",
        ] {
            fixture.must(sql);
        }
        let from = fixture.database.path.clone();
        let to = fixture.folder.path().join("out").with_extension("sqlite");
        drop(fixture.database);
        export(&from, &to, Vfs::system()).unwrap();
        assert_eq!(export(&from, &to, Vfs::system()), Err(OpenError::Exists));
        let plain = rusqlite::Connection::open(&to).unwrap();
        let text = |sql: &str| plain.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(text("PRAGMA integrity_check"), "ok");
        assert_eq!(text("PRAGMA journal_mode"), "delete");
        assert_eq!(text("SELECT group_concat(c) FROM v"), "x!,y!");
        assert_eq!(text("SELECT group_concat(k) FROM w"), "1,2");
        assert_eq!(text("SELECT group_concat(rowid) FROM gaps"), "5,90");
        assert_eq!(text("SELECT body FROM f('hello')"), "hello world");
        let engine = "SELECT count(*) || '' FROM sqlite_master WHERE tbl_name LIKE '%debros%'";
        assert_eq!(text(engine), "0");
        plain.execute_batch("INSERT INTO t(b) VALUES ('z')").unwrap();
        assert_eq!(text("SELECT max(a) || '' FROM t"), "3");
        // It is still what it was.
        Database::open(&from, Vfs::system(), Role::Tenant).unwrap();
    }

    #[test]
    fn damage_is_not_exported() {
        let mut fixture = Fixture::new();
        fixture.must("CREATE TABLE t(a)");
        fixture.must("INSERT INTO t VALUES (1)");
        let root = fixture.query("SELECT rootpage FROM sqlite_master WHERE name = 't'");
        let root: u64 = root.trim_matches(|it: char| !it.is_ascii_digit()).parse().unwrap();
        let (from, folder) = (fixture.database.path.clone(), fixture.folder);
        let mut checkpointer = Checkpointer::open(&from, Vfs::system()).unwrap();
        checkpointer.checkpoint().unwrap().unwrap();
        drop((checkpointer, fixture.database));
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(connection::beside(&from, suffix));
        }
        let file = fs::OpenOptions::new().write(true).open(&from).unwrap();
        file.write_all_at(&[0xff; 4_096], (root - 1) * 4_096).unwrap();
        let to = folder.path().join("out.sqlite");
        let error = export(&from, &to, Vfs::system()).unwrap_err();
        assert!(matches!(error, OpenError::Fault(Fault::Fence(_))), "{error}");
        assert_eq!(
            fs::read_dir(folder.path())
                .unwrap()
                .filter(|it| {
                    it.as_ref().unwrap().file_name().to_string_lossy().starts_with("out")
                })
                .count(),
            0
        );
    }
}
