//! A disk that forgets: what log segments live on in a simulation.
//!
//! Each file has a live image (what the process reads back) and a durable one (what the medium has). A
//! write changes the live image; a sync makes it durable. [`Disk::crash`] is a loss of power: of each
//! sector of 512 bytes written since the last sync, the medium keeps the old content or a newer one, as
//! the dice fall, in no order. [`Disk::kill`] is the end of the process only: the live image stays, and
//! is still not durable. Names are journalled by the file system: of those not synced a crash keeps the
//! first few.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use debros::types::Dice;
use debros::wal::record::SegmentId;
use debros::wal::recovery::SegmentSource;

/// What is written as a whole, or not at all, in bytes.
pub(crate) const SECTOR: usize = 512;

/// The files of one log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// Which file a name means: now, and on the medium.
    names: BTreeMap<SegmentId, usize>,
    names_durable: BTreeMap<SegmentId, usize>,
    /// Changes of names since they were last synced, oldest first.
    renames: Vec<Rename>,
}

/// The images of one file. Only what differs from `live` is kept of the durable one.
#[derive(Clone, Debug)]
struct File {
    live: Vec<u8>,
    /// The old content of each sector written since the last sync.
    unsynced: BTreeMap<usize, Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum Rename {
    Link(SegmentId, usize),
    Move(SegmentId, SegmentId, usize),
    Unlink(SegmentId),
}

impl Disk {
    /// A file of zeros, synced, whose name is not.
    pub(crate) fn create(&mut self, segment: SegmentId, size: u64) {
        let live = vec![0; usize::try_from(size).expect("it fits in memory")];
        self.files.push(File { live, unsynced: BTreeMap::new() });
        self.rename(Rename::Link(segment, self.files.len() - 1));
    }

    /// Give a file another name, in place of what had it. The change is not synced.
    pub(crate) fn move_to(&mut self, from: SegmentId, to: SegmentId) {
        let file = self.names[&from];
        self.rename(Rename::Move(from, to, file));
    }

    /// Forget a name, and perhaps, after a crash, not.
    pub(crate) fn remove(&mut self, segment: SegmentId) {
        assert!(self.names.contains_key(&segment), "{segment:?} does not exist");
        self.rename(Rename::Unlink(segment));
    }

    /// All names are durable.
    pub(crate) fn sync_names(&mut self) {
        self.renames.clear();
        self.names_durable.clone_from(&self.names);
    }

    /// Overwrite part of a file, which never grows.
    pub(crate) fn write(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).expect("it fits in memory");
        assert!(offset.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR), "unaligned");
        let file = self.file(segment);
        let end = offset + bytes.len();
        assert!(end <= file.live.len(), "{segment:?} is written behind its end");
        for sector in offset / SECTOR..end / SECTOR {
            let old = &file.live[sector * SECTOR..][..SECTOR];
            file.unsynced.entry(sector).or_insert_with(|| old.to_vec());
        }
        file.live[offset..end].copy_from_slice(bytes);
    }

    /// What was written to a file is durable.
    pub(crate) fn sync(&mut self, segment: SegmentId) {
        self.file(segment).unsynced.clear();
    }

    /// The power fails.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        for file in &mut self.files {
            // Of a hundred unsynced sectors, how many reach the medium: often all or none.
            let kept = [0, 100, 50, 95, 5][usize::try_from(dice.below(5)).expect("small")];
            for (sector, old) in std::mem::take(&mut file.unsynced) {
                if dice.below(100) >= kept {
                    file.live[sector * SECTOR..][..SECTOR].copy_from_slice(&old);
                }
            }
        }
        let kept = usize::try_from(dice.below(self.renames.len() as u64 + 1)).expect("small");
        for rename in self.renames.drain(..kept) {
            rename.apply(&mut self.names_durable);
        }
        self.renames.clear();
        self.names.clone_from(&self.names_durable);
        self.forget_nameless();
    }

    /// A bit of the medium goes wrong.
    pub(crate) fn flip(&mut self, segment: SegmentId, offset: u64, bit: u8) {
        let offset = usize::try_from(offset).expect("it fits in memory");
        let file = self.file(segment);
        file.live[offset] ^= 1 << bit;
        if let Some(old) = file.unsynced.get_mut(&(offset / SECTOR)) {
            old[offset % SECTOR] ^= 1 << bit;
        }
    }

    fn file(&mut self, segment: SegmentId) -> &mut File {
        let file = self.names.get(&segment).expect("the file exists");
        &mut self.files[*file]
    }

    fn rename(&mut self, rename: Rename) {
        rename.apply(&mut self.names);
        self.renames.push(rename);
    }

    /// Give back the memory of files that no name leads to.
    fn forget_nameless(&mut self) {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        for (at, file) in self.files.iter_mut().enumerate() {
            if !named.contains(&at) {
                file.live = Vec::new();
            }
        }
    }
}

impl Rename {
    fn apply(self, names: &mut BTreeMap<SegmentId, usize>) {
        match self {
            Self::Link(name, file) => {
                names.insert(name, file);
            }
            Self::Move(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
            Self::Unlink(name) => {
                names.remove(&name);
            }
        }
    }
}

impl SegmentSource for Disk {
    fn segments(&mut self) -> io::Result<Vec<(SegmentId, u64)>> {
        Ok(self.names.iter().map(|(id, at)| (*id, self.files[*at].live.len() as u64)).collect())
    }

    fn read(&mut self, segment: SegmentId, offset: u64, size: usize) -> io::Result<Bytes> {
        let offset = usize::try_from(offset).expect("it fits in memory");
        Ok(Bytes::copy_from_slice(&self.file(segment).live[offset..offset + size]))
    }
}
