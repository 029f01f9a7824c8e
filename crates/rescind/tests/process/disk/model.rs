//! The possible contents of a disk after a power cut.
//!
//! Flushed data is on the disk. Without a flush, each sector of 512 bytes is as it was at the last flush, or as after
//! any write since, independently of the other sectors. The same holds for each file's size and for each name in a
//! folder. After a failed flush the kernel drops the data: the next flush does not write it either, unless the program
//! wrote it again ("fsyncgate").

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rand::{Rng, RngExt, seq::IndexedRandom};

use super::log::{Event, Inode};

const SECTOR: usize = 512;

/// Whether the disk really flushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushes {
    Honest,
    /// The disk reports flushes of the store's files, but does not make them.
    Lies,
}

/// The disk after some events.
pub(crate) struct Model {
    flushes: Flushes,
    /// Present and former files. A name refers to one of them by its index, because an inode may be used again.
    files: Vec<File>,
    folders: HashMap<Inode, Folder>,
    current: HashMap<Inode, usize>,
}

#[derive(Default)]
struct File {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Sizes since the last flush.
    sizes: Vec<usize>,
    sectors: BTreeMap<usize, Unflushed>,
}

#[derive(Default)]
struct Unflushed {
    versions: Vec<[u8; SECTOR]>,
    /// The next flush will write it.
    dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    File(usize),
    Folder(Inode),
}

#[derive(Default)]
struct Folder {
    names: BTreeMap<String, (Inode, Target)>,
    durable: BTreeMap<String, Target>,
    /// All targets that each changed name has had since the last flush.
    changed: BTreeMap<String, Vec<Option<Target>>>,
}

impl Model {
    pub(crate) fn new(flushes: Flushes) -> Model {
        Model { flushes, files: vec![], folders: HashMap::new(), current: HashMap::new() }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { file, at, bytes } => self.file(*file).write(*at, bytes),
            Event::Truncate { file, size } => self.file(*file).truncate(*size),
            Event::Flushed(inode) if self.flushes == Flushes::Lies && self.is_store(*inode) => {}
            Event::Flushed(inode) => match self.folders.get_mut(inode) {
                Some(folder) => folder.flushed(),
                None => self.file(*inode).flushed(),
            },
            // Of a folder nothing is forgotten: names are in the file system's journal.
            Event::NotFlushed(inode) if self.folders.contains_key(inode) => {}
            Event::NotFlushed(inode) => self.file(*inode).not_flushed(),
            Event::Empty(inode) => self.empty(*inode),
            Event::Names { folder, entries } => {
                let mut names = BTreeMap::new();
                for entry in entries.iter().filter(|entry| entry.is_file || entry.is_folder) {
                    let target = if entry.is_folder {
                        Target::Folder(entry.inode)
                    } else {
                        Target::File(self.number(entry.inode))
                    };
                    names.insert(entry.name.clone(), (entry.inode, target));
                }
                self.folders.entry(*folder).or_default().list(names);
            }
            Event::Sent(_) => {}
        }
    }

    /// Writes to `path` what `root`'s folder may contain if the power is cut now.
    pub(crate) fn after_a_cut(&self, root: Inode, path: &Path, random: &mut impl Rng) {
        // Disks differ: nearly all, nearly nothing, or anything may have been written.
        let written = *[0.0, 0.1, 0.5, 0.9, 1.0].choose(random).unwrap();
        self.lay_out(root, path, written, random);
    }

    fn lay_out(&self, folder: Inode, path: &Path, written: f64, random: &mut impl Rng) {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        let Some(folder) = self.folders.get(&folder) else { return };
        let mut names = folder.durable.clone();
        for (name, meanings) in &folder.changed {
            if random.random_bool(written) {
                match meanings.choose(random).unwrap() {
                    Some(target) => names.insert(name.clone(), *target),
                    None => names.remove(name),
                };
            }
        }
        for (name, target) in names {
            let path = path.join(&name);
            match target {
                Target::Folder(inode) => self.lay_out(inode, &path, written, random),
                // What it maps it makes anew, and knows that it must.
                Target::File(_) if name.ends_with("-shm") => {}
                Target::File(file) => {
                    let bytes = self.files[file].after_a_cut(written, random);
                    let mut options = fs::OpenOptions::new();
                    let mut made = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
                    std::io::Write::write_all(&mut made, &bytes).unwrap();
                }
            }
        }
    }

    fn file(&mut self, inode: Inode) -> &mut File {
        let number = self.number(inode);
        &mut self.files[number]
    }

    fn number(&mut self, inode: Inode) -> usize {
        *self.current.entry(inode).or_insert_with(|| {
            self.files.push(File::default());
            self.files.len() - 1
        })
    }

    fn is_store(&self, inode: Inode) -> bool {
        let names = self.folders.values().flat_map(|folder| &folder.names);
        names.into_iter().any(|(name, (of, _))| *of == inode && name.starts_with("rescind.db"))
    }

    /// Records that the inode belongs to a new file, unless its present file was never written.
    fn empty(&mut self, inode: Inode) {
        let file = self.file(inode);
        if file.cached.is_empty() && file.durable.is_empty() && file.sizes.is_empty() {
            return;
        }
        self.current.remove(&inode);
        let target = Target::File(self.number(inode));
        for folder in self.folders.values_mut() {
            let mut names = folder.names.clone();
            names.values_mut().filter(|(i, _)| *i == inode).for_each(|(_, meant)| *meant = target);
            folder.list(names);
        }
    }
}

impl File {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.cached.len() {
            self.cached.resize(end, 0);
            self.sizes.push(end);
        }
        self.cached[at..end].copy_from_slice(bytes);
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            self.touch(sector);
        }
    }

    fn truncate(&mut self, size: usize) {
        let before = self.cached.len();
        if size == before {
            return;
        }
        self.cached.resize(size, 0);
        self.sizes.push(size);
        for sector in size.min(before) / SECTOR..before.max(size).div_ceil(SECTOR) {
            self.touch(sector);
        }
    }

    fn touch(&mut self, sector: usize) {
        let version = sector_of(&self.cached, sector);
        let unflushed = self.sectors.entry(sector).or_default();
        unflushed.versions.push(version);
        unflushed.dirty = true;
    }

    fn flushed(&mut self) {
        self.sizes.clear();
        self.durable.resize(self.cached.len(), 0);
        let (cached, durable) = (&self.cached, &mut self.durable);
        self.sectors.retain(|&sector, unflushed| {
            if unflushed.dirty {
                put_sector(durable, sector, &sector_of(cached, sector));
            }
            !unflushed.dirty
        });
    }

    fn not_flushed(&mut self) {
        self.sectors.values_mut().for_each(|unflushed| unflushed.dirty = false);
    }

    fn after_a_cut(&self, written: f64, random: &mut impl Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        if let Some(&size) = self.sizes.choose(random)
            && random.random_bool(written)
        {
            bytes.resize(size, 0);
        }
        for (&sector, unflushed) in &self.sectors {
            if random.random_bool(written) {
                put_sector(&mut bytes, sector, unflushed.versions.choose(random).unwrap());
            }
        }
        bytes
    }
}

impl Folder {
    fn list(&mut self, names: BTreeMap<String, (Inode, Target)>) {
        let before = std::mem::replace(&mut self.names, names);
        for name in before.keys().chain(self.names.keys()) {
            let (was, is) = (before.get(name).map(|e| e.1), self.names.get(name).map(|e| e.1));
            let meanings = self.changed.get(name).and_then(|meanings| meanings.last());
            if was != is && meanings != Some(&is) {
                self.changed.entry(name.clone()).or_default().push(is);
            }
        }
    }

    fn flushed(&mut self) {
        self.changed.clear();
        self.durable = self.names.iter().map(|(name, (_, target))| (name.clone(), *target)).collect();
    }
}

/// A sector's bytes, with zeros after the end of the file.
fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR] {
    let mut version = [0; SECTOR];
    let from = (sector * SECTOR).min(bytes.len());
    let here = &bytes[from..(from + SECTOR).min(bytes.len())];
    version[..here.len()].copy_from_slice(here);
    version
}

fn put_sector(bytes: &mut [u8], sector: usize, version: &[u8; SECTOR]) {
    let from = (sector * SECTOR).min(bytes.len());
    let to = (from + SECTOR).min(bytes.len());
    bytes[from..to].copy_from_slice(&version[..to - from]);
}
