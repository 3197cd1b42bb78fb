//! The logs of a node written anew, for another number of shards.
//!
//! Nothing of the old ones changes: the new generation is written and synced beside them and read back, and
//! only what reads as it was written comes to count.

use std::collections::BTreeMap;

use crate::types::PartitionId;
use crate::wal::generations::Files;
use crate::wal::generations::GenerationError;
use crate::wal::generations::LogGeneration;
use crate::wal::generations::io_error;
use crate::wal::generations::make_folders;
use crate::wal::generations::recover;
use crate::wal::generations::remove_unfinished;
use crate::wal::generations::segment_name;
use crate::wal::generations::switch;
use crate::wal::generations::sync_folders;
use crate::wal::generations::write_current;
use crate::wal::meta::Meta;
use crate::wal::record::Record;
use crate::wal::recovery::Recovered;
use crate::wal::recovery::RecoveredPartition;
use crate::wal::whole;
use crate::wal::whole::Layout;
use crate::wal::whole::WholeError;

/// What must be the same of a partition before and after: all but the entries, these by number and checksum.
type Fingerprint = (Meta, usize, u32);

/// How logs are laid out anew.
#[derive(Clone, Copy, Debug)]
pub struct NewLayout {
    /// How many shards there are from then on.
    pub n_shards: u16,
    /// Bytes after which a segment is ended.
    pub segment_size: u64,
}

/// Write the logs of `old` anew, and have them count from then on; what they say is that of `logs`, one for
/// each shard of `old`, which is all that the old ones say. `key` gives a secret number for each log. What
/// lies where they are written is removed first.
///
/// After an error the old logs count and what was begun is removed, unless it is
/// [`Unsettled`](GenerationError::Unsettled). The old ones are not removed: that [`tidy`] does.
pub fn rewrite(
    files: &mut impl Files,
    old: LogGeneration,
    logs: Vec<Recovered>,
    layout: NewLayout,
    key: impl FnMut() -> u64,
) -> Result<(LogGeneration, Vec<Recovered>), GenerationError> {
    let new = LogGeneration { number: old.next()?, n_shards: layout.n_shards };
    refuse_silent(old, &logs)?;
    let partitions = merge(logs)?;
    remove_unfinished(files, old)?;
    let written = write(files, new, partitions, layout.segment_size, key).and_then(|wanted| {
        let recovered = read_back(files, new, wanted).map_err(|source| {
            let (found, wanted) = (old.n_shards, new.n_shards);
            GenerationError::NotReadBack { found, wanted, source: Box::new(source) }
        })?;
        write_current(files, new)?;
        Ok(recovered)
    });
    let recovered = written.inspect_err(|_| {
        // Nobody reads it. What cannot be removed now, the next start removes.
        let _ = remove_unfinished(files, old);
    })?;
    let unsettled = |source| GenerationError::Unsettled { wanted: new.n_shards, source };
    switch(files).map_err(unsettled)?;
    Ok((new, recovered))
}

/// A log that says nothing beside those of a node that was in use has lost its files (R27): written anew, its
/// partitions would be gone for good.
fn refuse_silent(old: LogGeneration, logs: &[Recovered]) -> Result<(), GenerationError> {
    let all = || logs.iter().flat_map(|it| &it.partitions);
    if !all().any(|(_, it)| it.is_used()) {
        return Ok(());
    }
    let last = all().map(|(id, _)| id.0).max().unwrap_or(0);
    for (shard, log) in old.shards().zip(logs) {
        let is_owner = (0..=last).any(|it| PartitionId(it).shard(old.n_shards) == shard);
        if is_owner && log.partitions.is_empty() {
            let folder = old.folder_of(shard);
            let why = format!("{folder} says nothing, although other logs do: restore it");
            return Err(GenerationError::Impossible(why));
        }
    }
    Ok(())
}

fn merge(
    logs: Vec<Recovered>,
) -> Result<BTreeMap<PartitionId, RecoveredPartition>, GenerationError> {
    let mut all = BTreeMap::new();
    for (id, partition) in logs.into_iter().flat_map(|it| it.partitions) {
        if all.insert(id, partition).is_some() {
            let why = format!("partition {id} is in two logs: restore them");
            return Err(GenerationError::Impossible(why));
        }
    }
    Ok(all)
}

/// Write and sync a generation. What is to be read back.
fn write(
    files: &mut impl Files,
    new: LogGeneration,
    partitions: BTreeMap<PartitionId, RecoveredPartition>,
    segment_size: u64,
    mut key: impl FnMut() -> u64,
) -> Result<BTreeMap<PartitionId, Fingerprint>, GenerationError> {
    make_folders(files, new)?;
    for shard in new.shards() {
        let own = partitions.iter().filter(|(id, _)| id.shard(new.n_shards) == shard);
        let own = own.map(|(id, it)| (*id, it));
        let layout = Layout { segment_size, ..Layout::new(shard, new.n_shards, key()) };
        write_log(files, new, layout, own)?;
    }
    sync_folders(files, new)?;
    // What is to be read back takes the memory of what was read.
    Ok(partitions.into_iter().map(|(id, it)| (id, fingerprint(&it))).collect())
}

/// Read a generation that was just written: it must say what is `wanted`, all of it and nothing else.
fn read_back(
    files: &mut impl Files,
    new: LogGeneration,
    mut wanted: BTreeMap<PartitionId, Fingerprint>,
) -> Result<Vec<Recovered>, GenerationError> {
    let mut recovered = Vec::new();
    for shard in new.shards() {
        let log = recover(files, new, shard)?;
        for (id, found) in &log.partitions {
            if wanted.remove(id) != Some(fingerprint(found)) {
                let why = format!("partition {id} does not read as it was written");
                return Err(GenerationError::Impossible(why));
            }
        }
        recovered.push(log);
    }
    match wanted.pop_first() {
        None => Ok(recovered),
        Some((id, _)) => {
            Err(GenerationError::Impossible(format!("partition {id} was written and is not there")))
        }
    }
}

/// Write the log of one shard; each segment is synced before the next one begins.
fn write_log<'a>(
    files: &mut impl Files,
    generation: LogGeneration,
    layout: Layout,
    partitions: impl Iterator<Item = (PartitionId, &'a RecoveredPartition)> + Clone,
) -> Result<(), GenerationError> {
    let folder = generation.folder_of(layout.shard);
    let mut open: Option<String> = None;
    let written = whole::write(layout, partitions, |segment, bytes| {
        let path = format!("{folder}/{}", segment_name(segment));
        if let Some(before) = open.replace(path.clone()).filter(|it| *it != path) {
            files.sync(&before)?;
        }
        files.append(&path, bytes)
    });
    written.map_err(|error| match error {
        WholeError::Io(source) => GenerationError::Io { path: folder.clone(), source },
        error @ WholeError::Impossible { .. } => GenerationError::Impossible(error.to_string()),
    })?;
    match open {
        Some(last) => files.sync(&last).map_err(io_error(&last)),
        None => Ok(()),
    }
}

fn fingerprint(partition: &RecoveredPartition) -> Fingerprint {
    let (mut crc, mut bytes) = (0, Vec::new());
    for entry in &partition.entries {
        bytes.clear();
        Record::Entry(entry.clone()).encode(&mut bytes);
        crc = crc32c::crc32c_append(crc, &bytes);
    }
    (whole::without_entries(partition), partition.entries.len(), crc)
}
