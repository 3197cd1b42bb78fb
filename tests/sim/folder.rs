//! A folder that forgets: files and names that a loss of power takes back to what was synced.
//!
//! Of a file written since its last sync the medium keeps, sector by sector, the old content or the new one.
//! Of the names in a folder, changed since that was synced, it keeps the first few, in each folder on its own;
//! and what lies in a folder whose own name is lost is lost with it.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use debros::types::Dice;
use debros::wal::generations::Files;

use crate::disk::SECTOR;

/// What fails, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Power, before the change of that number.
    Power(u64),
    /// Room, at that change or the first write behind it.
    Room(u64),
    /// The medium, at that change alone: it is not made.
    Error(u64),
    /// The medium, without a word: a bit of what is written with that change is another.
    Flip(u64),
}

/// Files and folders, by their paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folder {
    files: Vec<File>,
    live: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    /// Changes of names since they were synced, oldest first.
    changes: Vec<Change>,
    failure: Option<Failure>,
    /// Changes of any kind so far.
    n_changes: u64,
    n_flipped: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, Node),
    Rename(String, String),
    Remove(String),
}

impl Change {
    /// The folder whose names it changes.
    fn folder(&self) -> &str {
        match self {
            Self::Link(path, _) | Self::Remove(path) | Self::Rename(path, _) => parent(path),
        }
    }

    fn apply(self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Link(path, node) => {
                names.insert(path, node);
            }
            Self::Rename(from, to) => {
                let node = names.remove(&from).expect("it was linked before");
                names.insert(to, node);
            }
            Self::Remove(path) => {
                names.remove(&path);
            }
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Folder {
    /// The same, with nothing changed yet, failing once.
    pub(crate) fn failing(&self, failure: Failure) -> Self {
        Self { failure: Some(failure), n_changes: 0, n_flipped: 0, ..self.clone() }
    }

    /// The same, with nothing changed yet.
    pub(crate) fn sound(&self) -> Self {
        Self { failure: None, n_changes: 0, n_flipped: 0, ..self.clone() }
    }

    /// Changes of any kind since [`Self::sound`].
    pub(crate) fn n_changes(&self) -> u64 {
        self.n_changes
    }

    /// How often the medium kept something else.
    pub(crate) fn n_flipped(&self) -> u64 {
        self.n_flipped
    }

    /// The power fails; what is there when it is back.
    pub(crate) fn after_power_loss(&self, dice: &mut Dice) -> Self {
        let mut found = self.sound();
        for file in &mut found.files {
            file.crash(dice);
        }
        let mut kept: BTreeMap<&str, u64> = BTreeMap::new();
        for change in &self.changes {
            *kept.entry(change.folder()).or_default() += 1;
        }
        for n in kept.values_mut() {
            *n = dice.below(*n + 1);
        }
        for change in &self.changes {
            let left = kept.get_mut(change.folder()).expect("all are counted");
            if *left > 0 {
                *left -= 1;
                change.clone().apply(&mut found.durable);
            }
        }
        let all = found.durable.clone();
        found.durable.retain(|path, _| {
            let mut folder = parent(path);
            while !folder.is_empty() {
                if !all.contains_key(folder) {
                    return false;
                }
                folder = parent(folder);
            }
            true
        });
        found.live.clone_from(&found.durable);
        found.changes.clear();
        found
    }

    /// Overwrite part of a file, and sync it.
    pub(crate) fn write_synced(&mut self, path: &str, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).expect("it fits in memory");
        let file = self.file(path).expect("the file exists");
        file.live[offset..offset + bytes.len()].copy_from_slice(bytes);
        file.durable.clone_from(&file.live);
    }

    fn file(&mut self, path: &str) -> io::Result<&mut File> {
        match self.live.get(path) {
            Some(Node::File(at)) => Ok(&mut self.files[*at]),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.live);
        self.changes.push(change);
    }

    /// Count a change, or fail.
    fn count(&mut self, needs_room: bool) -> io::Result<()> {
        let at = self.n_changes;
        self.n_changes += 1;
        match self.failure {
            Some(Failure::Power(when)) if when <= at => Err(io::Error::other("the power is lost")),
            Some(Failure::Room(when)) if when <= at && needs_room => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Failure::Error(when)) if when == at => Err(io::Error::other("the medium fails")),
            _ => Ok(()),
        }
    }
}

impl File {
    fn crash(&mut self, dice: &mut Dice) {
        if self.live == self.durable {
            return;
        }
        let kept = [0, 100, 50][usize::try_from(dice.below(3)).expect("small")];
        let (old, new) = (&self.durable, &self.live);
        let mut found = vec![0; if dice.below(100) < kept { new.len() } else { old.len() }];
        for at in (0..found.len()).step_by(SECTOR) {
            let from = if dice.below(100) < kept { new } else { old };
            let end = found.len().min(at + SECTOR).min(from.len());
            if at < end {
                found[at..end].copy_from_slice(&from[at..end]);
            }
        }
        self.live.clone_from(&found);
        self.durable = found;
    }
}

impl Files for Folder {
    fn names(&mut self, folder: &str) -> io::Result<Vec<String>> {
        if !folder.is_empty() && self.live.get(folder) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let own = self.live.keys().filter(|it| parent(it) == folder);
        Ok(own.map(|it| it.rsplit('/').next().unwrap_or(it).to_owned()).collect())
    }

    fn is_folder(&mut self, path: &str) -> bool {
        self.live.get(path) == Some(&Node::Folder)
    }

    fn size(&mut self, file: &str) -> io::Result<u64> {
        Ok(self.file(file)?.live.len() as u64)
    }

    fn read(&mut self, file: &str, offset: u64, size: usize) -> io::Result<Bytes> {
        let offset = usize::try_from(offset).expect("it fits in memory");
        let bytes = self.file(file)?.live.get(offset..offset + size);
        Ok(Bytes::copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?))
    }

    fn make_folder(&mut self, folder: &str) -> io::Result<()> {
        self.count(true)?;
        if !self.live.contains_key(folder) {
            self.change(Change::Link(folder.to_owned(), Node::Folder));
        }
        Ok(())
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.count(true)?;
        if !self.live.contains_key(file) {
            self.files.push(File::default());
            let node = Node::File(self.files.len() - 1);
            self.change(Change::Link(file.to_owned(), node));
        }
        let is_flipped = self.failure == Some(Failure::Flip(self.n_changes - 1));
        let live = &mut self.file(file)?.live;
        let start = live.len();
        live.extend(bytes);
        if is_flipped {
            // Early enough to be nobody's padding.
            live[start + bytes.len().min(64) / 2] ^= 1;
            self.n_flipped += 1;
        }
        Ok(())
    }

    fn sync(&mut self, file: &str) -> io::Result<()> {
        self.count(false)?;
        let file = self.file(file)?;
        file.durable.clone_from(&file.live);
        Ok(())
    }

    fn sync_names(&mut self, folder: &str) -> io::Result<()> {
        self.count(false)?;
        for change in std::mem::take(&mut self.changes) {
            if change.folder() == folder {
                change.apply(&mut self.durable);
            } else {
                self.changes.push(change);
            }
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.count(false)?;
        self.file(from)?;
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.count(false)?;
        if !self.live.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let below = format!("{path}/");
        let all = self.live.keys().filter(|it| *it == path || it.starts_with(&below));
        let mut all: Vec<String> = all.cloned().collect();
        // What lies in a folder goes before it.
        all.sort_unstable_by_key(|it| std::cmp::Reverse(it.len()));
        for path in all {
            self.change(Change::Remove(path));
        }
        Ok(())
    }
}
