//! What the bare disk takes for a durable write: 4 KiB and `fdatasync`, one at a time.
//!
//! The file has its blocks already and is opened with `O_DIRECT` where the file system has that: the least that
//! a durable write can cost here. Once with two calls of the system that a thread waits in, and once as a node writes its
//! log: through an executor that sleeps until the disk is done.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use glommio::LocalExecutorBuilder;
use glommio::Placement;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::bench::clock;
use crate::disk::durable::Durable;

const BLOCK: usize = 4096;
/// Blocks that are written in turn.
const BLOCKS: u64 = 1024;

/// Nanoseconds that a write may take; more is counted as this.
const NANOS_MAX: u64 = 3_600_000_000_000;

/// Memory as `O_DIRECT` wants it.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

/// What one look at the disk gave.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DiskTimes {
    /// Writes, each synced.
    pub writes: u64,
    /// Half took less, in microseconds.
    pub p50_us: f64,
    /// All but one in a hundred took less, in microseconds.
    pub p99_us: f64,
    /// Whether the page cache was passed by.
    pub is_direct: bool,
}

/// Write for `time` into a file of its own in `folder`, and as long again the way a node does.
pub(super) fn measure(folder: &Path, time: Duration) -> io::Result<(DiskTimes, DiskTimes)> {
    let path = Removed(folder.join(format!(".debros-bench-{}.tmp", std::process::id())));
    let (file, is_direct) = create(&path.0)?;
    let block = Box::new(Block([0xa5; BLOCK]));
    for nth in 0..BLOCKS {
        file.write_all_at(&block.0, nth * BLOCK as u64)?;
    }
    file.sync_all()?;
    let mut times = Times::new(time);
    while let Some(offset) = times.next() {
        file.write_all_at(&block.0, offset)?;
        file.sync_data()?;
    }
    let bare = times.report(is_direct);
    // On a thread of its own: what is left of an executor's rings interrupts the calls of the thread that it ran on.
    let through_node = thread::scope(|scope| {
        let run = scope.spawn(|| through_node(&file, &block, time));
        run.join().map_err(|_| io::Error::other("the measurement panicked"))?
    })?;
    Ok((bare, through_node.report(is_direct)))
}

fn through_node(file: &File, block: &Block, time: Duration) -> io::Result<Times> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).make();
    executor.map_err(io::Error::from)?.run(async {
        let mut durable = Durable::new(false).map_err(io::Error::other)?;
        let mut times = Times::new(time);
        while let Some(offset) = times.next() {
            let mut buffer = glommio::allocate_dma_buffer(BLOCK);
            buffer.as_bytes_mut().copy_from_slice(&block.0);
            durable.write(file, buffer, offset).await.map_err(io::Error::other)?;
        }
        Ok(times)
    })
}

/// Writes in turn, and how long each takes.
struct Times {
    begin: Instant,
    before: Option<Instant>,
    time: Duration,
    n: u64,
    nanos: Histogram<u64>,
}

impl Times {
    fn new(time: Duration) -> Self {
        let nanos = Histogram::new_with_bounds(1, NANOS_MAX, 3).expect("the bounds are sane");
        Self { begin: clock::now(), before: None, time, n: 0, nanos }
    }

    /// Where to write next, until the time is over. The write before has ended.
    fn next(&mut self) -> Option<u64> {
        let now = clock::now();
        if let Some(before) = self.before {
            let nanos = u64::try_from((now - before).as_nanos()).unwrap_or(NANOS_MAX);
            self.nanos.saturating_record(nanos);
        }
        self.before = Some(now);
        self.n += 1;
        (now - self.begin < self.time).then(|| self.n % BLOCKS * BLOCK as u64)
    }

    fn report(self, is_direct: bool) -> DiskTimes {
        let micros = |q| super::report::micros(self.nanos.value_at_quantile(q));
        let writes = self.nanos.len();
        DiskTimes { writes, p50_us: micros(0.5), p99_us: micros(0.99), is_direct }
    }
}

fn create(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_DIRECT);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            // Some file systems make the file before they refuse.
            let _ = fs::remove_file(path);
            options.custom_flags(0).open(path).map(|it| (it, false))
        }
        result => result.map(|it| (it, true)),
    }
}

/// A file that goes away with this.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_writes_for_a_while_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (bare, through_node) = measure(folder.path(), Duration::from_millis(20)).unwrap();
        for times in [bare, through_node] {
            assert!(times.writes > 0, "{times:?}");
            assert!(0.0 < times.p50_us && times.p50_us <= times.p99_us, "{times:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        measure(&folder.path().join("none"), Duration::ZERO).unwrap_err();
    }
}
