//! Writing one shard's log, on its core.
//!
//! One task owns the files and does what [`wal::log::Log`](crate::wal::log::Log) asks: it takes a batch, writes it, syncs it, and
//! reports it durable; meanwhile the next one fills. It yields before it takes a batch, so that every
//! task which can run adds its records first: one sync serves them all.
//!
//! Any error here stops the process, at once (R8). After a failed sync the system may have dropped what
//! it was to write, so a second sync would succeed and prove nothing.
//!
//! Cost of a batch: one copy into an aligned buffer, and one write with its fdatasync (`disk::durable`).

use std::cell::Cell;
use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::Poll;
use std::task::Waker;

use futures_lite::future::yield_now;
use glommio::Task;
use glommio::io::Directory;
use glommio::io::DmaBuffer;
use glommio::io::DmaFile;
use glommio::io::OpenOptions;
use glommio::timer::TimerActionOnce;
use hdrhistogram::Histogram;
use tracing::info;
use tracing::warn;

use crate::disk::durable::Durable;
use crate::disk::fail_stop;
use crate::disk::segments;
use crate::disk::segments::Prepared;
use crate::disk::segments::Preparer;
use crate::disk::segments::Request;
use crate::limits;
use crate::types::Instant;
use crate::types::LogIndex;
use crate::types::PartitionId;
use crate::wal::format::BLOCK;
use crate::wal::log::Log;
use crate::wal::log::LogIo;
use crate::wal::log::Options;
use crate::wal::record::Lsn;
use crate::wal::record::Record;
use crate::wal::record::SegmentId;
use crate::wal::recovery::Tail;

/// What a log has done so far.
#[derive(Clone, Debug)]
pub struct LogStats {
    /// Bytes written, padding and headers included.
    pub written_bytes: u64,
    /// Records per batch; its count is that of the batches with records.
    pub batch_records: Histogram<u64>,
    /// Microseconds per write with its fdatasync, of a batch, header or seal.
    pub write_us: Histogram<u64>,
}

/// The way into a shard's log. Cheap to call; lives on one core.
#[derive(Debug)]
pub struct LogWriter {
    shared: Rc<Shared>,
    task: Task<()>,
}

impl LogWriter {
    /// Start writing behind `tail`, in `directory`. Resolves when all that was recovered is known to be on
    /// the medium and the log has a segment of its own: before that, nothing recovered may be acted on.
    ///
    /// `now` is the driver's clock. `on_durable` is called with each new durable batch, from a task of its
    /// own; it may stage. `interrupts` is that of [`Durable::new`].
    pub async fn open(
        directory: PathBuf,
        options: Options,
        tail: Tail,
        preparer: Preparer,
        interrupts: bool,
        now: impl Fn() -> Instant + 'static,
        on_durable: impl Fn(Lsn) + 'static,
    ) -> Self {
        let shared = Rc::new(Shared::new(Log::new(options, tail)));
        let writer = Writer {
            shared: shared.clone(),
            directory,
            preparer,
            now: Box::new(now),
            on_durable: Box::new(on_durable),
            durable: None,
            interrupts,
            file: None,
            timer: None,
        };
        let task = glommio::spawn_local(writer.run());
        poll_fn(|cx| {
            if shared.log.borrow().is_ready() {
                return Poll::Ready(());
            }
            shared.opener.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        Self { shared, task }
    }

    /// Append records, all or none. They are durable when the returned batch is.
    pub fn stage(&self, records: &[Record]) -> Lsn {
        let lsn = self.shared.log.borrow_mut().stage(records);
        self.shared.wake();
        lsn
    }

    /// The newest durable batch.
    pub fn durable(&self) -> Lsn {
        self.shared.log.borrow().durable()
    }

    /// See [`Log::lagging`].
    pub fn lagging(&self) -> Vec<(PartitionId, RangeInclusive<LogIndex>)> {
        self.shared.log.borrow().lagging()
    }

    /// Bytes of entries that are not compacted.
    pub fn live_bytes(&self) -> u64 {
        self.shared.log.borrow().live_bytes()
    }

    /// Bytes of the log's files.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.log.borrow().disk_bytes()
    }

    /// Whether the disk has no room for the next segment.
    pub fn lacks_room(&self) -> bool {
        self.shared.lacks_room.get()
    }

    /// Look at what the log has done.
    pub fn with_stats<T>(&self, look: impl FnOnce(&LogStats) -> T) -> T {
        look(&self.shared.stats.borrow())
    }

    /// Write and sync what is staged, seal the log, close its files.
    pub async fn close(self) {
        self.shared.is_closing.set(true);
        self.shared.log.borrow_mut().seal_now();
        self.shared.wake();
        self.task.await;
    }
}

/// What the driver's end and the task both hold.
struct Shared {
    log: RefCell<Log>,
    stats: RefCell<LogStats>,
    is_closing: Cell<bool>,
    /// Something was staged, or the timer fired, since the task looked last.
    has_news: Cell<bool>,
    timer_fired: Cell<bool>,
    /// The disk is too full for the next segment.
    lacks_room: Cell<bool>,
    /// The task, if it waits.
    writer: Cell<Option<Waker>>,
    /// Who waits for the log to be ready.
    opener: Cell<Option<Waker>>,
}

impl Shared {
    fn new(log: Log) -> Self {
        // Up to a minute in microseconds; two significant digits take 20 KiB.
        let histogram =
            || Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are in order");
        let stats =
            LogStats { written_bytes: 0, batch_records: histogram(), write_us: histogram() };
        Self {
            log: RefCell::new(log),
            stats: RefCell::new(stats),
            is_closing: Cell::new(false),
            has_news: Cell::new(false),
            timer_fired: Cell::new(false),
            lacks_room: Cell::new(false),
            writer: Cell::new(None),
            opener: Cell::new(None),
        }
    }

    fn wake(&self) {
        self.has_news.set(true);
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("log", &self.log).finish_non_exhaustive()
    }
}

/// The task.
struct Writer {
    shared: Rc<Shared>,
    directory: PathBuf,
    preparer: Preparer,
    now: Box<dyn Fn() -> Instant>,
    on_durable: Box<dyn Fn(Lsn)>,
    /// None before the first write.
    durable: Option<Durable>,
    interrupts: bool,
    /// The segment written last.
    file: Option<(SegmentId, DmaFile)>,
    /// Set if a timer runs; it fires once and is then taken.
    timer: Option<TimerActionOnce<()>>,
}

/// An I/O with its bytes in a buffer of its own.
enum Job {
    SyncNames,
    Sync { segment: SegmentId },
    Write { segment: SegmentId, offset: u64, buffer: DmaBuffer, n_records: u32 },
    Ask(Request),
}

impl Writer {
    async fn run(mut self) {
        let this_task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        loop {
            yield_now().await;
            self.take_prepared();
            match self.next_job(&this_task) {
                Some(Job::Ask(request)) => self.preparer.ask(request),
                Some(job) => {
                    self.perform(job).await;
                    self.report();
                }
                None if self.is_finished() => break,
                None => self.wait().await,
            }
        }
        if let Some((_, file)) = self.file.take() {
            self.or_stop("close", file.close().await);
        }
        if let Some(timer) = self.timer.take() {
            timer.destroy();
        }
    }

    fn next_job(&self, this_task: &Waker) -> Option<Job> {
        let mut log = self.shared.log.borrow_mut();
        Some(match log.next_io((self.now)())? {
            LogIo::SyncNames => Job::SyncNames,
            LogIo::Sync { segment } => Job::Sync { segment },
            LogIo::Write { segment, offset, bytes, n_records } => {
                let mut buffer = glommio::allocate_dma_buffer(bytes.len());
                buffer.as_bytes_mut().copy_from_slice(bytes);
                Job::Write { segment, offset, buffer, n_records }
            }
            LogIo::Prepare { segment, size, recycled } => {
                let waker = this_task.clone();
                Job::Ask(Request::Prepare { segment, size, recycled, waker })
            }
            LogIo::Remove { segment } => Job::Ask(Request::Remove { segment }),
        })
    }

    async fn perform(&mut self, job: Job) {
        match job {
            Job::Ask(_) => {}
            Job::SyncNames => {
                let directory = self.or_stop("open", Directory::open(&self.directory).await);
                self.or_stop("sync", directory.sync().await);
                self.or_stop("close", directory.close().await);
            }
            Job::Sync { segment } => {
                let file = self.open(segment).await;
                self.or_stop("sync", file.fdatasync().await);
                self.or_stop("close", file.close().await);
            }
            Job::Write { segment, offset, buffer, n_records } => {
                self.write(segment, offset, buffer, n_records).await;
            }
        }
    }

    async fn write(&mut self, segment: SegmentId, offset: u64, buffer: DmaBuffer, n_records: u32) {
        if self.file.as_ref().is_none_or(|(id, _)| *id != segment) {
            let new = self.open(segment).await;
            if let Some((_, old)) = self.file.replace((segment, new)) {
                self.or_stop("close", old.close().await);
            }
        }
        let mut durable = match self.durable.take() {
            Some(it) => it,
            None => self.or_stop("write", Durable::new(self.interrupts)),
        };
        let (_, file) = self.file.as_ref().expect("opened above");
        let size = buffer.len();
        let started = (self.now)();
        self.or_stop("write", durable.write(file, buffer, offset).await);
        self.durable = Some(durable);
        let took = (self.now)().since(started).as_micros();
        let mut stats = self.shared.stats.borrow_mut();
        stats.written_bytes += size as u64;
        stats.write_us.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
        if n_records > 0 {
            stats.batch_records.saturating_record(n_records.into());
        }
    }

    async fn open(&self, segment: SegmentId) -> DmaFile {
        let path = segments::path_of(&self.directory, segment);
        let file = self.or_stop("open", OpenOptions::new().write(true).dma_open(&path).await);
        let alignment = file.alignment();
        if !(BLOCK as u64).is_multiple_of(alignment) {
            let why = format!("its disk wants writes of {alignment} bytes, the log makes {BLOCK}");
            self.stop("use", &why);
        }
        file
    }

    /// What was written is on the medium.
    fn report(&self) {
        let before = self.shared.log.borrow().durable();
        let durable = self.shared.log.borrow_mut().on_io_done((self.now)());
        if let Some(waker) = self.shared.opener.take() {
            waker.wake();
        }
        if durable > before {
            (self.on_durable)(durable);
        }
    }

    /// Whether something was.
    fn take_prepared(&self) -> bool {
        let mut is_any = false;
        while let Some(prepared) = self.preparer.poll() {
            is_any = true;
            match prepared {
                Prepared::Ready(segment, size) => {
                    self.shared.log.borrow_mut().on_prepared(segment, size);
                    if self.shared.lacks_room.replace(false) {
                        info!(log = %self.directory.display(), "the log has a next segment again");
                    }
                }
                Prepared::NoRoom(error) => self.on_no_room(&error),
                Prepared::Failed(error) => self.stop("prepare a segment in", &error),
            }
        }
        is_any
    }

    /// The segment at hand is whole and needs no more room. Before there is one, there is no log.
    fn on_no_room(&self, error: &std::io::Error) {
        if !self.shared.log.borrow().is_ready() {
            let size = limits::LOG_SEGMENT_SIZE_FIRST;
            let why = format!("{error}: the disk must have {size} bytes for the first segment");
            self.stop("begin", &why);
        }
        if !self.shared.lacks_room.replace(true) {
            warn!(log = %self.directory.display(), "the disk has no room for the log's next segment");
        }
    }

    fn is_finished(&self) -> bool {
        let log = self.shared.log.borrow();
        // What waits for room that does not come was never called durable.
        let is_stuck = self.shared.lacks_room.get();
        let is_done = log.is_flushed() && log.next_timeout().is_none();
        self.shared.is_closing.get() && (is_done || is_stuck)
    }

    /// Until something is staged, a segment is prepared, or the log is to be sealed.
    async fn wait(&mut self) {
        if self.timer.is_none()
            && let Some(at) = self.shared.log.borrow().next_timeout()
        {
            // One timer at a time: when it fires early for a log that was busy since, it is armed again.
            let shared = self.shared.clone();
            let delay = at.since((self.now)());
            self.timer = Some(TimerActionOnce::do_in(delay, async move {
                shared.timer_fired.set(true);
                shared.wake();
            }));
        }
        poll_fn(|cx| {
            // The thread that prepares segments wakes the task without leaving news: look there as well.
            if self.shared.has_news.replace(false) {
                return Poll::Ready(());
            }
            if self.take_prepared() {
                return Poll::Ready(());
            }
            self.shared.writer.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        if self.shared.timer_fired.replace(false) {
            self.timer = None;
        }
    }

    fn or_stop<T, E: fmt::Display>(&self, what: &str, result: Result<T, E>) -> T {
        match result {
            Ok(it) => it,
            Err(error) => self.stop(what, &error),
        }
    }

    fn stop(&self, what: &str, why: &dyn fmt::Display) -> ! {
        fail_stop(&format!("{what} the log in {}", self.directory.display()), why)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::os::unix::process::ExitStatusExt;

    use bytes::Bytes;
    use glommio::LocalExecutorBuilder;
    use glommio::Placement;
    use glommio::channels::local_channel;

    use super::*;
    use crate::disk::boot::BootError;
    use crate::disk::boot::LogDirectories;
    use crate::types::ShardId;
    use crate::types::Term;
    use crate::types::Timestamp;
    use crate::wal::record::Entry;
    use crate::wal::record::EntryId;
    use crate::wal::recovery::Recovered;
    use crate::wal::recovery::RecoveryError;

    const SHARD: ShardId = ShardId(0);
    const P: PartitionId = PartitionId(7);

    /// An entry whose payload repeats its index.
    fn entry(index: u64, size: usize) -> Entry {
        let payload = Bytes::from(index.to_le_bytes().repeat(size / 8));
        let (term, stamp) = (Term(1), Timestamp(5));
        Entry { partition: P, term, index: LogIndex(index), kind: 0, stamp, payload }
    }

    #[expect(clippy::disallowed_methods, reason = "a test drives the log by the real clock")]
    fn clock() -> impl Fn() -> Instant {
        let started = std::time::Instant::now();
        move || Instant::from_start(started.elapsed())
    }

    /// Start on what the directory holds, let `work` use the log and hear what is durable, close.
    fn run<F>(logs: &LogDirectories, recovered: Recovered, work: F)
    where
        F: AsyncFnOnce(&LogWriter, local_channel::LocalReceiver<Lsn>) + Send + 'static,
    {
        let directory = logs.of(SHARD);
        let (preparer, thread) = Preparer::start(&directory).unwrap();
        let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(1 << 20);
        let task = executor.spawn(move || async move {
            let (sender, durable) = local_channel::new_unbounded();
            let on_durable = move |lsn| sender.try_send(lsn).unwrap_or(());
            let options = Options::new(SHARD, 1, 42);
            let tail = recovered.tail;
            let log =
                LogWriter::open(directory, options, tail, preparer, false, clock(), on_durable)
                    .await;
            work(&log, durable).await;
            log.close().await;
        });
        task.unwrap().join().unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn what_was_staged_is_read_back_from_real_files() {
        let directory = tempfile::tempdir().unwrap();
        let logs = LogDirectories::open(directory.path(), 1).unwrap();
        // The third is larger than what is left of the first segment, which is 4 MiB.
        let entries = [entry(1, 100), entry(2, 1 << 20), entry(3, 5 << 20), entry(4, 8)];
        let staged = entries.clone();
        run(&logs, logs.recover(SHARD).unwrap(), async move |log, durable| {
            for entry in staged {
                let lsn = log.stage(&[Record::Entry(entry)]);
                while durable.recv().await.unwrap() < lsn {}
                assert!(log.durable() >= lsn);
            }
            log.with_stats(|it| assert_eq!(it.batch_records.len(), 4));
        });
        let recovered = logs.recover(SHARD).unwrap();
        assert_eq!(recovered.partitions[&P].entries, entries);

        // A second life compacts, and adds without waiting: close() writes it.
        run(&logs, recovered, async |log, _| {
            let to = EntryId { index: LogIndex(3), term: Term(1) };
            log.stage(&[Record::Compacted { partition: P, entry: to }]);
            log.stage(&[Record::Entry(entry(5, 100))]);
        });
        let recovered = logs.recover(SHARD).unwrap();
        assert_eq!(recovered.partitions[&P].entries, [entry(4, 8), entry(5, 100)]);
        assert!(!recovered.is_torn);
    }

    #[test]
    fn many_records_share_a_sync() {
        let directory = tempfile::tempdir().unwrap();
        let logs = LogDirectories::open(directory.path(), 1).unwrap();
        run(&logs, logs.recover(SHARD).unwrap(), async |log, durable| {
            let lsns: Vec<_> =
                (1..=100).map(|it| log.stage(&[Record::Entry(entry(it, 64))])).collect();
            assert_eq!(lsns.first(), lsns.last());
            assert_eq!(durable.recv().await, lsns.last().copied());
            log.with_stats(|it| assert_eq!(it.batch_records.max(), 100));
        });
    }

    #[test]
    fn an_idle_log_is_sealed_so_that_damage_to_its_last_batch_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let logs = LogDirectories::open(directory.path(), 1).unwrap();
        run(&logs, logs.recover(SHARD).unwrap(), async |log, durable| {
            let lsn = log.stage(&[Record::Entry(entry(1, 100))]);
            assert_eq!(durable.recv().await, Some(lsn));
            assert_eq!(durable.recv().await, Some(lsn.next()), "the seal came by itself");
        });
        let path = segments::path_of(&logs.of(SHARD), SegmentId(1));
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[0xff], (BLOCK + 90) as u64).unwrap();
        let error = logs.recover(SHARD).unwrap_err();
        let BootError::Recovery { source: RecoveryError::Corrupt { segment, offset, .. }, .. } =
            error
        else {
            panic!("{error}");
        };
        assert_eq!((segment, offset), (SegmentId(1), BLOCK as u64));
    }

    #[test]
    fn a_log_in_a_generation_of_another_number_of_shards_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let logs = LogDirectories::open(directory.path(), 1).unwrap();
        run(&logs, logs.recover(SHARD).unwrap(), async |_, _| {});
        fs::create_dir(logs.of(ShardId(1))).unwrap();
        let logs = LogDirectories::open(directory.path(), 2).unwrap();
        let error = logs.recover(SHARD).unwrap_err();
        let BootError::Recovery { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().ends_with("restore the folders of all 1 shards"), "{source}");
    }

    /// The child of the next test: its log's directory is gone, so its first segment cannot be prepared.
    #[test]
    fn child_whose_disk_fails() {
        if std::env::var_os("DEBROS_TEST_DISK_FAILS").is_none() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let logs = LogDirectories::open(directory.path(), 1).unwrap();
        let recovered = logs.recover(SHARD).unwrap();
        fs::remove_dir_all(directory.path()).unwrap();
        run(&logs, recovered, async |_, _| {});
    }

    #[test]
    fn a_failing_disk_stops_the_process_and_says_so() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk::log::tests::child_whose_disk_fails", "--nocapture"])
            .env("DEBROS_TEST_DISK_FAILS", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{said}");
        assert!(
            said.contains("debros: failed to ") && said.contains("the process stops"),
            "{said}"
        );
    }
}
