//! One replicated SQLite database: applies committed commands, answers reads; equal on every replica.
//!
//! Replicas execute the same statements, so what a statement does must follow from the command alone. The
//! text stays as it is, but for the name of the schema table (`text`); what SQL can ask of the machine is answered from the command's stamp:
//! - `now`, in every form: the VFS shim (`vfs`) answers the command's time;
//! - `random()`, `randomblob()`, `total_changes()`: functions of our own (`functions`);
//! - functions whose time is not in proportion to their input: charged for it (`costly`,
//!   `like`);
//! - what cannot be made equal, or reaches outside the database: refused by the authorizer;
//! - cost: counted in VM steps, rows, bytes (`run`), questions of SQLite while it prepares (`preparing`) and memory
//!   (`memory`), never in time; but for reads, which change nothing.
//!
//! A command whose request has a key runs once; sent again, it is told what it gave (`requests`). A tenant's keys
//! and values are rows of the engine's (`storage`).
//!
//! How commands are cut into transactions never shows (`apply`): one transaction takes many commands, and
//! what SQLite would carry from one to the next is reset.
//!
//! The process must run with `SQLITE_TMPDIR` naming a folder of its own for temporary files.
//!
//! Not here: when to sync, checkpoint, open or close. [`Checkpointer`], [`sync_wal`] and [`Database::create`]
//! wait for the disk and belong on a helper thread; the caller decides when.
//!
//! Start reading at [`Database::apply`].

mod database;
mod apply;
mod run;
mod running;
mod rows;
pub mod select;
mod requests;
mod storage;
mod spooled;
mod reader;
mod cache;
mod schema;
mod text;
mod shape;
mod authorizer;
mod functions;
mod costly;
mod like;
mod fulltext;
mod nested;
mod context;
mod charges;
mod preparing;
mod silent;
mod fault;
mod memory;
mod allocated;
mod connection;
mod statement;
mod vfs;
mod views;
mod pace;
mod maintenance;
mod content;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod determinism;
#[cfg(test)]
mod placement;
#[cfg(test)]
mod scripts;

pub use apply::Applied;
pub use apply::Batch;
pub use apply::Entry;
pub use apply::Rest;
pub use connection::Role;
pub use context::command_at_work;
pub use context::forget_command;
pub use database::Ask;
pub use database::Database;
pub use database::OpenError;
pub use database::Read;
pub use database::Share;
pub use fault::Fault;
pub use maintenance::Checkpoint;
pub use maintenance::Checkpointer;
pub use maintenance::export;
pub use maintenance::sync_wal;
pub use memory::give_back_if_due;
pub use pace::Pace;
pub use pace::pace_writes;
pub use reader::Brake;
pub use reader::LongRead;
pub use reader::Reader;
pub use reader::Why;
pub use shape::shape;
pub use text::only_drops;
pub use text::only_shrinks;
pub use vfs::Exists;
pub use vfs::Rename;
pub use vfs::Vfs;
