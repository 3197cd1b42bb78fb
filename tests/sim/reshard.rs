//! Logs that are written anew for another number of shards (R4): they say the same as before, and a loss of
//! power at any step leaves the old ones or the new ones, whole.
//!
//! The old logs are written by [`Log`], as a node does; a dumb twin keeps what they should say.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use debros::types::Dice;
use debros::types::Instant;
use debros::types::PartitionId;
use debros::types::ShardId;
use debros::wal::generations;
use debros::wal::generations::Files;
use debros::wal::generations::GenerationError;
use debros::wal::generations::LogGeneration;
use debros::wal::generations::NewLayout;
use debros::wal::generations::segment_name;
use debros::wal::log::Log;
use debros::wal::log::LogIo;
use debros::wal::log::Options;
use debros::wal::record::SegmentId;
use debros::wal::recovery::Recovered;
use debros::wal::recovery::RecoveredPartition;
use debros::wal::whole;
use debros::wal::whole::Layout;

use crate::author::Author;
use crate::author::pick;
use crate::folder::Failure;
use crate::folder::Folder;

use crate::seeds::for_each_seed;

/// Seeds that once failed, with what they taught us. Never remove one.
const PINNED: &[u64] = &[
    // A CURRENT that was read back after a kill, but not synced: the logs it named were gone after a power loss.
    6_438_223_298_499_113_532,
];
const RUNS: u64 = 40;
/// Those in which each step of two starts fails.
const RUNS_TWICE: u64 = 4;
const N_PARTITIONS: u64 = 7;
const N_SHARDS_MAX: u64 = 5;

/// What has come of something that a log wanted.
enum Done {
    Io,
    Prepared(SegmentId, u64),
    Nothing,
}

/// A node's logs, and what they should say.
#[derive(Clone)]
struct World {
    dice: Dice,
    files: Folder,
    generation: LogGeneration,
    author: Author,
}

impl World {
    /// Logs of some shards with something in them.
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut files = Folder::default();
        let n_shards = n_shards(&mut dice);
        let generation = generations::create(&mut files, n_shards).expect("an empty folder");
        let author = Author::new(Dice::new(dice.roll()));
        let mut world = Self { dice, files, generation, author };
        world.go_on();
        world
    }

    /// Start as a node does, and write for a while; then end, or be killed.
    fn go_on(&mut self) {
        for (shard, log) in self.generation.shards().zip(self.recover().expect("sound logs")) {
            let options = Options {
                segment_size_first: 16 << 10,
                segment_size: 64 << 10,
                batch_size_max: 8 << 10,
                ..Options::new(shard, self.generation.n_shards, self.dice.roll())
            };
            let mut log = Log::new(options, log.tail);
            self.perform(shard, &mut log);
            let own: Vec<_> = (0..N_PARTITIONS)
                .map(|it| PartitionId(u16::try_from(it).expect("small")))
                .filter(|it| it.shard(self.generation.n_shards) == shard)
                .collect();
            for id in &own {
                if !self.author.wrote().contains_key(id) {
                    log.stage(&self.author.write(*id)); // it is born
                }
            }
            for _ in 0..if own.is_empty() { 0 } else { self.dice.below(60) } {
                let own = own[usize::try_from(self.dice.below(own.len() as u64)).expect("small")];
                log.stage(&self.author.write(own));
                if self.dice.below(3) == 0 {
                    self.perform(shard, &mut log);
                }
            }
            if self.dice.below(2) == 0 {
                log.seal_now();
            }
            self.perform(shard, &mut log);
        }
    }

    /// Do what a log wants done.
    fn perform(&mut self, shard: ShardId, log: &mut Log) {
        let folder = self.generation.folder_of(shard);
        let path = |segment| format!("{folder}/{}", segment_name(segment));
        loop {
            let done = match log.next_io(Instant::START) {
                None => break,
                Some(LogIo::SyncNames) => {
                    self.files.sync_names(&folder).expect("a sound disk");
                    Done::Io
                }
                Some(LogIo::Sync { segment }) => {
                    self.files.sync(&path(segment)).expect("a sound disk");
                    Done::Io
                }
                Some(LogIo::Write { segment, offset, bytes, .. }) => {
                    self.files.write_synced(&path(segment), offset, bytes);
                    Done::Io
                }
                Some(LogIo::Prepare { segment, size, recycled }) => {
                    if let Some(old) = recycled {
                        self.files.rename(&path(old), &path(segment)).expect("a sound disk");
                    } else {
                        let zeros = vec![0; usize::try_from(size).expect("small")];
                        let _ = self.files.remove(&path(segment)); // it need not be there
                        self.files.append(&path(segment), &zeros).expect("a sound disk");
                        self.files.sync(&path(segment)).expect("a sound disk");
                    }
                    self.files.sync_names(&folder).expect("a sound disk");
                    Done::Prepared(segment, size)
                }
                Some(LogIo::Remove { segment }) => {
                    self.files.remove(&path(segment)).expect("a sound disk");
                    Done::Nothing
                }
            };
            match done {
                Done::Io => {
                    log.on_io_done(Instant::START);
                }
                Done::Prepared(segment, size) => log.on_prepared(segment, size),
                Done::Nothing => {}
            }
        }
    }

    fn recover(&mut self) -> Result<Vec<Recovered>, GenerationError> {
        recover(&mut self.files, self.generation)
    }

    /// What a start finds on `files`: it must say what was written.
    fn check(&self, files: &mut Folder) -> (LogGeneration, Vec<Recovered>) {
        let generation = generations::find(files).expect("a whole CURRENT").expect("a CURRENT");
        let logs = recover(files, generation).expect("a crash is not corruption");
        assert!(said_by(&logs) == *self.author.wrote(), "the logs say something else");
        (generation, logs)
    }

    /// Start on `files` as a node does that has `n_shards`, up to where it serves.
    fn start(
        &self,
        files: &mut Folder,
        n_shards: u16,
        dice: Dice,
    ) -> Result<(LogGeneration, Vec<Recovered>), GenerationError> {
        let (generation, logs) = self.read(files, n_shards, dice)?;
        generations::tidy(files, generation)?;
        Ok((generation, logs))
    }

    /// The same up to where the logs are read, and not accepted yet.
    fn read(
        &self,
        files: &mut Folder,
        n_shards: u16,
        mut dice: Dice,
    ) -> Result<(LogGeneration, Vec<Recovered>), GenerationError> {
        let generation = generations::find(files)?.expect("a CURRENT");
        let logs = recover(files, generation).expect("a crash is not corruption");
        assert!(said_by(&logs) == *self.author.wrote(), "the logs say something else");
        let (generation, logs) = if generation.n_shards == n_shards {
            (generation, logs)
        } else {
            // Small ones are many.
            let segment_size = [32 << 10, 256 << 10, 64 << 20][pick(&mut dice, 3)];
            let layout = NewLayout { n_shards, segment_size };
            generations::rewrite(files, generation, logs, layout, || dice.roll())?
        };
        Ok((generation, logs))
    }

    /// A process has died, and with it the machine, or not; what the next one finds.
    fn died(&mut self, files: &Folder) -> Folder {
        if self.dice.below(2) == 0 { files.sound() } else { files.after_power_loss(&mut self.dice) }
    }
}

fn n_shards(dice: &mut Dice) -> u16 {
    u16::try_from(1 + dice.below(N_SHARDS_MAX)).expect("small")
}

fn recover(
    files: &mut Folder,
    generation: LogGeneration,
) -> Result<Vec<Recovered>, GenerationError> {
    generation.shards().map(|shard| generations::recover(files, generation, shard)).collect()
}

/// The steps of a start, and the one behind the last; of many those at both ends and some in between.
fn steps(dice: &mut Dice, n: u64) -> Vec<u64> {
    let n_ends = 12;
    (0..=n).filter(|it| *it < n_ends || n - it < n_ends || dice.below(n) < n_ends).collect()
}

fn said_by(logs: &[Recovered]) -> BTreeMap<PartitionId, RecoveredPartition> {
    logs.iter().flat_map(|it| it.partitions.clone()).collect()
}

fn assert_only(files: &mut Folder, generation: LogGeneration) {
    let mut names = files.names("").expect("the folder is there");
    names.sort_unstable();
    assert_eq!(names, [generation.number.to_string(), "CURRENT".to_owned()]);
}

#[test]
fn logs_say_the_same_for_any_number_of_shards_and_go_on() {
    for_each_seed(PINNED, RUNS, |seed| {
        let mut world = World::new(seed);
        for _ in 0..4 {
            let dice = Dice::new(world.dice.roll());
            let wanted = n_shards(&mut world.dice);
            let mut files = world.files.clone();
            let (generation, logs) = world.start(&mut files, wanted, dice).expect("a sound disk");
            assert_eq!((generation.n_shards, logs.len()), (wanted, usize::from(wanted)));
            for (shard, log) in generation.shards().zip(&logs) {
                assert!(log.partitions.keys().all(|it| it.shard(wanted) == shard));
                assert!(!log.is_torn || generation == world.generation);
            }
            assert!(said_by(&logs) == *world.author.wrote(), "what is given is what is there");
            assert_only(&mut files, generation);
            // Nothing of it is still to be synced.
            world.files = files.after_power_loss(&mut world.dice);
            world.generation = generation;
            world.check(&mut world.files.clone());
            world.go_on();
            world.check(&mut world.files.clone());
        }
    });
}

#[test]
fn power_lost_at_any_step_leaves_the_old_logs_or_the_new_ones() {
    let mut n_new = 0;
    for_each_seed(PINNED, RUNS, |seed| {
        let mut world = World::new(seed);
        let wanted = n_shards(&mut world.dice);
        let dice = Dice::new(world.dice.roll());
        let mut sound = world.files.sound();
        world.start(&mut sound, wanted, dice).expect("a sound disk");
        for step in 0..=sound.n_changes() {
            let mut files = world.files.failing(Failure::Power(step));
            let written = world.start(&mut files, wanted, dice);
            assert_eq!(written.is_ok(), step == sound.n_changes());
            // The process dies as well; with it or after it the machine.
            let mut found = world.died(&files);
            let (generation, _) = world.check(&mut found);
            assert!([wanted, world.generation.n_shards].contains(&generation.n_shards));
            n_new += u64::from(generation.number > world.generation.number);
            // The next start has yet another number in mind.
            let other = n_shards(&mut world.dice);
            let (generation, _) = world.start(&mut found, other, dice).expect("a sound disk");
            assert_only(&mut found, generation);
            let mut found = found.after_power_loss(&mut world.dice);
            world.check(&mut found);
        }
    });
    assert!(std::env::var_os("SIM_SEED").is_some() || n_new > 50, "{n_new} crashes left new logs");
}

#[test]
fn power_lost_at_any_step_of_the_start_after_a_crash_loses_nothing() {
    let (mut n_served, mut n_same) = (0, 0);
    for_each_seed(PINNED, RUNS_TWICE, |seed| {
        let mut world = World::new(seed);
        let wanted = n_shards(&mut world.dice);
        let dice = Dice::new(world.dice.roll());
        let mut sound = world.files.sound();
        world.start(&mut sound, wanted, dice).expect("a sound disk");
        for first in steps(&mut world.dice, sound.n_changes()) {
            let mut files = world.files.failing(Failure::Power(first));
            let _ = world.start(&mut files, wanted, dice); // how far it came is not the point
            let found = world.died(&files);
            let (generation, _) = world.check(&mut found.clone());
            // As often as not the number is the one that it finds, or the one before.
            let other = match world.dice.below(4) {
                0 => generation.n_shards,
                1 => world.generation.n_shards,
                _ => n_shards(&mut world.dice),
            };
            let mut whole = found.sound();
            world.start(&mut whole, other, dice).expect("a sound disk");
            for second in steps(&mut world.dice, whole.n_changes()) {
                let mut world = world.clone();
                let mut files = found.failing(Failure::Power(second));
                let started = world.start(&mut files, other, dice);
                world.files = files.sound();
                if let Ok((generation, _)) = started {
                    // It serves: what it acknowledges is there later.
                    world.generation = generation;
                    world.go_on();
                    n_served += 1;
                    n_same += u64::from(second == 2); // nothing but to find it
                }
                let mut found = world.files.after_power_loss(&mut world.dice);
                let (generation, _) = world.check(&mut found);
                // Whoever starts then can go on, too.
                world.start(&mut found, wanted, dice).expect("a sound disk");
                assert!(generation.number <= 3, "at most two changes were made");
            }
        }
    });
    let is_one = std::env::var_os("SIM_SEED").is_some();
    assert!(is_one || (n_served > 100 && n_same > 10), "{n_served} served, {n_same} with the same");
}

/// Starts whose logs are written anew and then not accepted, each with another number than the one before.
#[test]
fn starts_that_are_refused_in_turn_keep_the_logs_that_were_accepted_and_two_more_at_most() {
    for_each_seed(PINNED, RUNS, |seed| {
        let mut world = World::new(seed);
        let accepted = world.generation;
        let mut files = world.files.sound();
        for round in 0..8 {
            let wanted = 1 + world.check(&mut files).0.n_shards % 3;
            let dice = Dice::new(world.dice.roll());
            let mut sound = files.sound();
            world.read(&mut sound, wanted, dice).expect("a sound disk");
            // Every other is cut short besides.
            files = if round % 2 == 0 {
                sound
            } else {
                let step = world.dice.below(sound.n_changes() + 1);
                let mut files = files.failing(Failure::Power(step));
                let _ = world.read(&mut files, wanted, dice); // how far it came is not the point
                world.died(&files).sound()
            };
            let mut names = files.names("").expect("the folder is there");
            names.retain(|it| !it.starts_with("CURRENT"));
            assert!(names.contains(&accepted.number.to_string()), "{names:?}");
            assert!(names.len() <= 4, "{names:?}");
        }
        let dice = Dice::new(world.dice.roll());
        let (generation, _) = world.start(&mut files, 2, dice).expect("a sound disk");
        assert!(generation.number > 4, "{generation:?}");
        assert_only(&mut files, generation);
        let mut found = files.after_power_loss(&mut world.dice);
        world.check(&mut found);
    });
}

#[test]
fn an_emptied_log_is_not_written_anew() {
    for_each_seed(PINNED, RUNS, |seed| {
        let mut world = World::new(seed);
        let wanted = n_shards(&mut world.dice);
        let old = world.generation;
        if old.n_shards == 1 {
            return; // that is a node that begins
        }
        let shard =
            ShardId(u16::try_from(pick(&mut world.dice, old.n_shards.into())).expect("small"));
        let folder = old.folder_of(shard);
        for name in world.files.names(&folder).expect("the folder is there") {
            world.files.remove(&format!("{folder}/{name}")).expect("a sound disk");
        }
        let logs = world.recover().expect("an empty log is a log");
        let layout = NewLayout { n_shards: wanted, segment_size: 64 << 20 };
        let written = generations::rewrite(&mut world.files, old, logs, layout, || 1);
        let error = written.expect_err("partitions are missing").to_string();
        assert_eq!(error, format!("{folder} says nothing, although other logs do: restore it"));
        assert_only(&mut world.files, old);
    });
}

#[test]
fn what_does_not_read_back_never_counts() {
    let (mut n_flipped, mut n_pointers) = (0, 0);
    for_each_seed(PINNED, RUNS, |seed| {
        let mut world = World::new(seed);
        let wanted = n_shards(&mut world.dice);
        let old = world.generation;
        let dice = Dice::new(world.dice.roll());
        let mut sound = world.files.sound();
        world.start(&mut sound, wanted, dice).expect("a sound disk");
        for step in 0..sound.n_changes() {
            let mut files = world.files.failing(Failure::Flip(step));
            let started = world.start(&mut files, wanted, dice);
            if started.is_ok() {
                // It was no write, or the header of a log that says nothing in any case.
                world.check(&mut files.sound());
                continue;
            }
            n_flipped += files.n_flipped();
            match started.expect_err("the logs are not what was written") {
                GenerationError::NotReadBack { found, wanted: n, .. } => {
                    assert_eq!((found, n), (old.n_shards, wanted));
                }
                GenerationError::Io { path, source } => {
                    n_pointers += 1;
                    assert_eq!((&*path, source.kind()), ("CURRENT.tmp", ErrorKind::InvalidData));
                }
                error => panic!("{error}"),
            }
            let mut found = world.died(&files);
            assert_eq!(world.check(&mut found).0, old);
            // Nothing is left that takes room, unless the power has brought it back.
            assert_only(&mut files.sound(), old);
            // Neither the number before nor the new one is in its way.
            let wanted = if world.dice.below(2) == 0 { old.n_shards } else { wanted };
            let (generation, _) = world.start(&mut found, wanted, dice).expect("a sound disk");
            assert_only(&mut found, generation);
            world.check(&mut found);
        }
    });
    let is_one = std::env::var_os("SIM_SEED").is_some();
    assert!(is_one || n_flipped > 100, "{n_flipped} writes were spoilt");
    assert!(is_one || n_pointers > 10, "{n_pointers} of them were CURRENT");
}

#[test]
fn an_error_before_the_switch_leaves_the_old_logs_and_one_at_it_is_told_apart() {
    let mut n_unsettled = [0, 0];
    for_each_seed(PINNED, RUNS, |seed| {
        let mut world = World::new(seed);
        let wanted = n_shards(&mut world.dice);
        let old = world.generation;
        let dice = Dice::new(world.dice.roll());
        let mut sound = world.files.sound();
        let (new, _) = world.start(&mut sound, wanted, dice).expect("a sound disk");
        if new == old {
            return; // nothing is written anew
        }
        let mut is_after_switch = false;
        for step in 0..sound.n_changes() {
            let mut files = world.files.failing(Failure::Error(step));
            let started = world.start(&mut files, wanted, dice);
            let mut alive = files.sound();
            let mut found = world.died(&files);
            match started {
                Err(GenerationError::Unsettled { wanted: n, source }) => {
                    assert_eq!((n, source.kind()), (wanted, ErrorKind::Other));
                    // Both are there, whichever counts.
                    let names = alive.names("").expect("the folder is there");
                    let has = |it: LogGeneration| names.contains(&it.number.to_string());
                    assert!(has(old) && has(new), "{names:?}");
                    let is_new = world.check(&mut alive).0 == new;
                    n_unsettled[usize::from(is_new)] += 1;
                    is_after_switch = true;
                    world.check(&mut found);
                }
                // It serves, or could: what was in the way is only what does not count any more.
                _ if is_after_switch => assert_eq!(world.check(&mut found).0, new),
                Ok(_) => {}
                Err(_) => {
                    assert_eq!(world.check(&mut found).0, old);
                    assert_only_or_unfinished(&mut alive, old);
                }
            }
            for n_shards in [wanted, old.n_shards] {
                let (generation, _) = world.start(&mut found, n_shards, dice).expect("sound");
                assert_eq!(generation.n_shards, n_shards);
                assert_only(&mut found, generation);
                world.check(&mut found);
            }
        }
    });
    let is_one = std::env::var_os("SIM_SEED").is_some();
    assert!(is_one || n_unsettled.iter().all(|it| *it > 10), "{n_unsettled:?} were not settled");
}

/// The old logs and `CURRENT`; beside them what an error at the clearing away has left.
fn assert_only_or_unfinished(files: &mut Folder, old: LogGeneration) {
    let names = files.names("").expect("the folder is there");
    let known = [old.number, old.number + 1].map(|it| it.to_string());
    let is_known = |it: &String| known.contains(it) || it.starts_with("CURRENT");
    assert!(names.iter().all(is_known), "{names:?}");
}

#[test]
fn power_lost_at_any_step_of_the_very_first_start_leaves_nothing_in_the_way() {
    for_each_seed(PINNED, RUNS, |seed| {
        let mut dice = Dice::new(seed);
        let mut whole = Folder::default();
        generations::create(&mut whole, n_shards(&mut dice)).expect("an empty folder");
        for failure in [Failure::Power, Failure::Error] {
            for step in 0..whole.n_changes() {
                let mut files = Folder::default().failing(failure(step));
                let cut_short = n_shards(&mut dice);
                let made = generations::create(&mut files, cut_short);
                let mut found = match dice.below(2) {
                    0 => files.sound(),
                    _ => files.after_power_loss(&mut dice),
                };
                // As a start does, which may want another number by now.
                let wanted = n_shards(&mut dice);
                let generation = generations::find(&mut found).expect("a whole CURRENT, or none");
                assert!(generation.is_some() || made.is_err(), "what was laid out is there");
                let generation = match generation {
                    Some(it) => it,
                    None => generations::create(&mut found, wanted).expect("nothing in its way"),
                };
                let n_shards = [cut_short, wanted];
                assert!(n_shards.contains(&generation.n_shards), "{generation:?}");
                let logs = recover(&mut found, generation).expect("empty logs are logs");
                assert!(said_by(&logs).is_empty());
                // That holds from now on.
                let mut later = found.after_power_loss(&mut dice);
                let again = generations::find(&mut later).expect("a whole CURRENT");
                assert_eq!(again, Some(generation));
                recover(&mut later, generation).expect("empty logs are logs");
            }
        }
    });
}

#[test]
fn a_full_disk_leaves_the_old_logs_and_nothing_else() {
    for_each_seed(PINNED, RUNS, |seed| {
        let mut world = World::new(seed);
        let wanted = n_shards(&mut world.dice);
        let dice = Dice::new(world.dice.roll());
        let mut sound = world.files.sound();
        world.start(&mut sound, wanted, dice).expect("a sound disk");
        for step in 0..sound.n_changes() {
            let mut files = world.files.failing(Failure::Room(step));
            let mut found = match world.start(&mut files, wanted, dice) {
                Err(GenerationError::Io { source, .. }) => {
                    assert_eq!(source.kind(), ErrorKind::StorageFull);
                    files.sound()
                }
                Err(error) => panic!("{error}"),
                Ok(_) => continue, // nothing is written any more
            };
            let (generation, _) = world.check(&mut found);
            assert_eq!(generation, world.generation);
            assert_only(&mut found, generation);
        }
    });
}

#[test]
fn a_long_log_is_cut_into_segments_that_are_checked_like_any_other() {
    for_each_seed(PINNED, 4, |seed| {
        let mut author = Author::new(Dice::new(seed));
        let id = PartitionId(1);
        author.write(id); // it is born
        author.append(id, 400, 9_000);
        let partition = author.wrote()[&id].clone();
        let mut files = Folder::default();
        let generation = generations::create(&mut files, 1).expect("an empty folder");
        let layout = Layout { segment_size: 256 << 10, ..Layout::new(ShardId(0), 1, 5) };
        let written = whole::write(layout, [(id, &partition)].into_iter(), |segment, bytes| {
            files.append(&format!("1/0/{}", segment_name(segment)), bytes)
        });
        written.expect("a sound disk");
        let names = files.names("1/0").expect("the folder is there");
        assert!(names.len() > 2, "{names:?}");
        let log = generations::recover(&mut files, generation, ShardId(0)).expect("a whole log");
        assert!(log.partitions == *author.wrote());
        // Without one of its segments, or with part of it, it is another log; the last may always be torn.
        let mut names = names;
        names.sort_unstable();
        for name in &names[..names.len() - 1] {
            let path = format!("1/0/{name}");
            let mut damaged = files.clone();
            damaged.remove(&path).expect("a sound disk");
            let found = generations::recover(&mut damaged, generation, ShardId(0));
            assert!(found.is_err(), "{path} is not missed");
            let size = files.size(&path).expect("it is there");
            let half = files.read(&path, 0, usize::try_from(size / 2).expect("small"));
            damaged.append(&path, &half.expect("it is there")).expect("a sound disk");
            let found = generations::recover(&mut damaged, generation, ShardId(0));
            assert!(found.is_err(), "half of {path} is not missed");
        }
        // The last batch is called durable like all others.
        let mut dice = Dice::new(seed);
        for name in names {
            let path = format!("1/0/{name}");
            let size = files.size(&path).expect("it is there");
            let at = dice.below(size / 4096 - 1) * 4096 + 100;
            let mut damaged = files.clone();
            damaged.write_synced(&path, at, &[dice.roll().to_le_bytes()[0] | 1, 0, 0xff]);
            let found = generations::recover(&mut damaged, generation, ShardId(0));
            let is_seen = match &found {
                Err(_) => true,
                Ok(log) => log.partitions == *author.wrote(), // padding
            };
            assert!(is_seen, "damage at {at} of {path} is passed over");
        }
    });
}
