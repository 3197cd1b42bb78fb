//! The thread that watches how much room the disk of the databases has, and tells every core when that
//! changes what may be done (R35).
//!
//! Asking is a system call that waits for the file system, so it is made on no core. A disk that is nearly
//! full is asked more often: at 400 MB/s it loses 40 MB between two looks.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tracing::info;
use tracing::warn;

use crate::disk::free_bytes;
use crate::shard::room::Reserve;
use crate::shard::room::Room;

/// Time between two looks at a disk with room.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same if less than twice the reserve is free.
const INTERVAL_NEAR: Duration = Duration::from_millis(100);

/// Ends the thread when it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    _stop: flume::Sender<()>,
}

/// Look at the disk of `directory`, now and from now on; `tell` is called now, unless there is room, and with each
/// change.
pub(super) fn watch(
    directory: &Path,
    reserve: Reserve,
    tell: impl Fn(Room) + Send + 'static,
) -> io::Result<Watch> {
    let (stop, stopped) = flume::bounded(0);
    let mut watcher =
        Watcher { directory: directory.to_owned(), reserve, room: Room::Enough, tell };
    let mut interval = watcher.look(free_bytes(directory)?);
    let mut is_blind = false;
    let work = move || {
        while stopped.recv_timeout(interval) == Err(flume::RecvTimeoutError::Timeout) {
            match free_bytes(&watcher.directory) {
                Ok(free) => {
                    interval = watcher.look(free);
                    is_blind = false;
                }
                // What was told last holds until it can be seen again.
                Err(error) if !is_blind => {
                    warn!(%error, "cannot tell how much room the disk has");
                    is_blind = true;
                }
                Err(_) => {}
            }
        }
    };
    thread::Builder::new().name("disk-space".to_owned()).spawn(work)?;
    Ok(Watch { _stop: stop })
}

struct Watcher<F> {
    directory: PathBuf,
    reserve: Reserve,
    room: Room,
    tell: F,
}

impl<F: Fn(Room)> Watcher<F> {
    /// So much is free. When to look again.
    fn look(&mut self, free: u64) -> Duration {
        let before = self.room;
        self.room = self.reserve.room(before, free);
        if self.room != before {
            (self.tell)(self.room);
            let directory = self.directory.display();
            match self.room {
                Room::Enough => info!(%directory, free, "the disk has room again"),
                Room::Low => {
                    warn!(%directory, free, "the disk is almost full: only deletions pass");
                }
                Room::Scarce => warn!(%directory, free, "the disk is full: only DROP passes"),
            }
        }
        if self.reserve.is_near(free) { INTERVAL_NEAR } else { INTERVAL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_a_nearly_full_disk_is_watched_closely() {
        let (told, heard) = flume::unbounded();
        let mut watcher = Watcher {
            directory: PathBuf::from("/data"),
            reserve: Reserve::new(1_000),
            room: Room::Enough,
            tell: |room| told.send(room).unwrap(),
        };
        let intervals = [5_000, 1_500, 900, 800, 400, 300, 700, 1_050, 1_100, 2_000]
            .map(|free| watcher.look(free));
        assert_eq!(
            heard.drain().collect::<Vec<_>>(),
            [Room::Low, Room::Scarce, Room::Low, Room::Enough]
        );
        let is_near: Vec<_> = intervals.iter().map(|it| *it == INTERVAL_NEAR).collect();
        assert_eq!(is_near, [false, true, true, true, true, true, true, true, true, false]);
    }

    #[test]
    fn the_disk_of_a_directory_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free_bytes(directory.path()).unwrap() > 0);
        free_bytes(Path::new("/no/such/place")).unwrap_err();
        let (told, heard) = flume::unbounded();
        let tell = move |room| told.send(room).unwrap();
        // Nobody has that much.
        let watch = watch(directory.path(), Reserve::new(u64::MAX), tell).unwrap();
        assert_eq!(heard.recv(), Ok(Room::Scarce));
        drop(watch);
        // The thread is gone, and its end of the channel with it.
        assert_eq!(heard.recv(), Err(flume::RecvError::Disconnected));
    }
}
