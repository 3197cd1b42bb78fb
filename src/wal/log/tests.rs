//! What a log does, step by step, on a disk that never fails.

use bytes::Bytes;

use super::*;
use crate::types::Term;
use crate::types::Timestamp;
use crate::wal::record::Entry;
use crate::wal::record::EntryId;

const BUSY: PartitionId = PartitionId(1);
const LAZY: PartitionId = PartitionId(2);
const START: Instant = Instant::START;

fn options() -> Options {
    let options = Options::new(ShardId(0), 1, 42);
    Options { segment_size_first: 20 << 10, segment_size: 32 << 10, ..options }
}

fn entry(partition: PartitionId, index: u64, size: usize) -> Entry {
    let payload = Bytes::from(vec![7; size]);
    let (term, stamp) = (Term(1), Timestamp(0));
    Entry { partition, term, index: LogIndex(index), kind: 0, stamp, payload }
}

/// Do the next thing, as a disk that never fails would, and say what it was.
fn perform(log: &mut Log, now: Instant) -> Option<String> {
    let io = log.next_io(now)?;
    let what = match &io {
        LogIo::SyncNames => "sync names".to_owned(),
        LogIo::Sync { segment } => format!("sync {}", segment.0),
        LogIo::Write { segment, offset, bytes, n_records } => {
            format!("write {} at {offset}: {} bytes, {n_records} records", segment.0, bytes.len())
        }
        LogIo::Prepare { segment, size, recycled } => {
            let recycled = recycled.map(|it| format!(" from {}", it.0)).unwrap_or_default();
            format!("prepare {}: {size} bytes{recycled}", segment.0)
        }
        LogIo::Remove { segment } => format!("remove {}", segment.0),
    };
    match io {
        LogIo::Prepare { segment, size, .. } => log.on_prepared(segment, size),
        LogIo::Remove { .. } => {}
        _ => {
            log.on_io_done(now);
        }
    }
    Some(what)
}

fn perform_all(log: &mut Log, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| perform(log, now)).collect()
}

#[test]
fn a_log_opens_a_segment_then_groups_what_is_staged_during_a_write() {
    let mut log = Log::new(options(), Tail::default());
    let steps = perform_all(&mut log, START);
    let want = ["sync names", "prepare 1: 20480 bytes", "write 1 at 0: 4096 bytes, 0 records"];
    assert_eq!(steps, want);
    assert!(log.is_ready());

    let first = log.stage(&[Record::Entry(entry(BUSY, 1, 10))]);
    assert!(matches!(log.next_io(START), Some(LogIo::Write { n_records: 1, .. })));
    let second = log.stage(&[Record::Entry(entry(BUSY, 2, 10))]);
    assert_eq!(second, log.stage(&[Record::Entry(entry(LAZY, 1, 10))]));
    assert_eq!(log.next_io(START), None, "one batch is in flight at a time");
    assert!(log.durable() < first);
    assert_eq!(log.on_io_done(START), first);
    // Past a quarter of the segment the next one is asked for, beside the writes.
    assert!(matches!(log.next_io(START), Some(LogIo::Prepare { .. })));
    assert!(matches!(log.next_io(START), Some(LogIo::Write { n_records: 2, .. })));
    assert_eq!(log.on_io_done(START), second);
    assert!(log.is_flushed());
}

#[test]
fn an_idle_log_is_sealed_once() {
    let mut log = Log::new(options(), Tail::default());
    perform_all(&mut log, START);
    assert_eq!(log.next_timeout(), None, "nothing is to be covered");
    log.stage(&[Record::Entry(entry(BUSY, 1, 10))]);
    perform_all(&mut log, START);
    let due = START.after(limits::LOG_SEAL_DELAY);
    assert_eq!(log.next_timeout(), Some(due));
    assert_eq!(perform_all(&mut log, due), ["write 1 at 8192: 4096 bytes, 0 records"]);
    assert_eq!(log.next_timeout(), None);
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_that_fits() {
    let mut log = Log::new(options(), Tail::default());
    perform_all(&mut log, START);
    log.stage(&[Record::Entry(entry(BUSY, 1, 100_000))]);
    let want = [
        "prepare 2: 110592 bytes", // header, 25 blocks, a seal
        "write 2 at 0: 4096 bytes, 0 records",
        "write 2 at 4096: 102400 bytes, 1 records",
        "remove 1",
        "prepare 3: 32768 bytes",
    ];
    assert_eq!(perform_all(&mut log, START), want);
}

#[test]
fn a_full_batch_leaves_the_rest_to_the_next() {
    let options = Options { batch_size_max: 1000, ..options() };
    let mut log = Log::new(options, Tail::default());
    perform_all(&mut log, START);
    let lsns = [1, 2, 3].map(|it| log.stage(&[Record::Entry(entry(BUSY, it, 900))]));
    assert_eq!(lsns[1], lsns[0], "one below its limit takes another group of records");
    assert_eq!(lsns[2], lsns[0].next());
    perform_all(&mut log, START);
    assert_eq!(log.durable(), lsns[2]);
}

#[test]
fn rewriting_the_few_entries_that_lag_frees_the_oldest_segments() {
    let mut log = Log::new(options(), Tail::default());
    perform_all(&mut log, START);
    log.stage(&[Record::Entry(entry(LAZY, 1, 10))]);
    let mut steps = Vec::new();
    for index in 1..=40 {
        log.stage(&[Record::Entry(entry(BUSY, index, 3000))]);
        let to = EntryId { index: LogIndex(index), term: Term(1) };
        log.stage(&[Record::Compacted { partition: BUSY, entry: to }]);
        steps.extend(perform_all(&mut log, START));
    }
    assert!(!steps.iter().any(|it| it.starts_with("remove") || it.contains("from")), "{steps:?}");
    assert_eq!(log.lagging(), [(LAZY, LogIndex(1)..=LogIndex(1))]);

    log.stage(&[Record::Rewritten(entry(LAZY, 1, 10))]);
    assert_eq!(log.lagging(), []);
    steps = perform_all(&mut log, START);
    assert!(steps.contains(&"remove 1".to_owned()), "{steps:?}");
    let before = log.disk_bytes();
    for index in 41..=80 {
        log.stage(&[Record::Entry(entry(BUSY, index, 3000))]);
        let to = EntryId { index: LogIndex(index), term: Term(1) };
        log.stage(&[Record::Compacted { partition: BUSY, entry: to }]);
        if !log.lagging().is_empty() {
            log.stage(&[Record::Rewritten(entry(LAZY, 1, 10))]);
        }
        steps.extend(perform_all(&mut log, START));
    }
    assert!(steps.iter().any(|it| it.contains("from")), "nothing was recycled: {steps:?}");
    assert!(log.disk_bytes() <= before + (32 << 10), "the log grows");
}

#[test]
#[should_panic(expected = "rewrote what the log lacks")]
fn rewriting_another_term_is_a_bug_of_the_caller() {
    let mut log = Log::new(options(), Tail::default());
    log.stage(&[Record::Entry(entry(BUSY, 1, 10))]);
    log.stage(&[Record::Rewritten(Entry { term: Term(2), ..entry(BUSY, 1, 10) })]);
}
