//! The data folder: the store's file, the master key, the management socket, and the locks that say
//! which process has them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempDir};
use thiserror::Error;

use crate::{
    files::permissions::{self, PermissionError},
    random::Random,
    secret::{self, MasterKey, SealError},
};

/// A data folder that this process alone may change, until dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Of the folder itself, which nobody can remove while it is used, and of `rescind.lock` in it, which is all that
    /// older versions look at.
    _locks: [File; 2],
}

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Another process has it.
    #[error(
        "data folder {0} is in use by another rescind; stop that one, or name another folder with --data-dir"
    )]
    InUse(PathBuf),
    /// It is a file.
    #[error("{0} is no folder: name the data folder with --data-dir")]
    NoFolder(PathBuf),
    /// The machine says no.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// The master key is somewhere else.
    #[error(
        "{0} is missing, and the store beside it is sealed under it: put it back, or set RESCIND_MASTER_KEY or RESCIND_MASTER_KEY_FILE"
    )]
    KeyMissing(PathBuf),
    /// Others can read or write what is for us alone.
    #[error(transparent)]
    Permissions(#[from] PermissionError),
    /// What a restore would put there is there.
    #[error("{0} is there, from a restore before: move it away")]
    Replaced(PathBuf),
    /// The file is no key.
    #[error("{0}: {1}")]
    KeyUnreadable(PathBuf, SealError),
}

impl DataFolder {
    /// Takes the folder, making it if there is none.
    pub fn take(path: &Path) -> Result<DataFolder, FolderError> {
        let io = |e| FolderError::Io(path.to_owned(), e);
        if path.exists() && !path.is_dir() {
            return Err(FolderError::NoFolder(path.to_owned()));
        }
        let made: Vec<_> = path.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        for made in std::iter::once(path).chain(made) {
            sync_name(made).map_err(io)?;
        }
        permissions::close_if_empty(path)?;
        permissions::require_ours(path, is_ours)?;
        let lock = |file: io::Result<File>| {
            let file = file.map_err(io)?;
            match file.try_lock() {
                Ok(()) => Ok(file),
                Err(TryLockError::WouldBlock) => Err(FolderError::InUse(path.to_owned())),
                Err(TryLockError::Error(e)) => Err(io(e)),
            }
        };
        let folder = lock(File::open(path))?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = lock(options.open(path.join("rescind.lock")))?;
        Ok(DataFolder { path: path.to_owned(), _locks: [folder, file] })
    }

    /// The embedded store's file.
    pub fn store(&self) -> PathBuf {
        self.path.join("rescind.db")
    }

    /// Puts a closed store's file, and its mark beside it, in the place of the store, which is kept there as
    /// `rescind.db.replaced` and `rescind.mark.replaced`.
    pub fn replace_store(&self, with: &Path) -> Result<(), FolderError> {
        let replaced = self.path.join("rescind.db.replaced");
        if replaced.exists() {
            return Err(FolderError::Replaced(replaced));
        }
        let rename = |from: PathBuf, to: PathBuf| {
            let renamed = fs::rename(&from, to).and_then(|()| File::open(&self.path)?.sync_all());
            renamed.map_err(|e| FolderError::Io(from, e))
        };
        // One after the other, wherever it is cut short. The store before its log: nobody opens a log without its store.
        // Its mark last: without its log it is not taken for all.
        for (from, to) in [
            ("rescind.db", "rescind.db.replaced"),
            ("rescind.db-wal", "rescind.db.replaced-wal"),
            ("rescind.db-shm", "rescind.db.replaced-shm"),
            ("rescind.mark", "rescind.mark.replaced"),
        ] {
            match rename(self.path.join(from), self.path.join(to)) {
                Err(FolderError::Io(_, e)) if e.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        rename(with.with_extension("mark"), self.path.join("rescind.mark"))?;
        rename(with.to_owned(), self.store())
    }

    /// A file beside the store, for its owner alone, that is there until dropped.
    pub fn temporary_file(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::with_prefix_in("backup-", &self.path)
    }

    /// The same for a folder.
    pub fn temporary_folder(&self) -> io::Result<TempDir> {
        TempDir::with_prefix_in("restore-", &self.path)
    }

    /// Where it is kept what is known of a database elsewhere.
    pub fn known(&self) -> PathBuf {
        self.path.join("rescind.known")
    }

    /// The management socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.path)
    }

    /// The master key in the folder. Made if there is none and nothing is sealed yet.
    pub fn master_key(&self, nothing_sealed: bool, random: &Random) -> Result<MasterKey, FolderError> {
        let path = self.path.join("master.key");
        let io = |e| FolderError::Io(path.clone(), e);
        match secret::read(&path) {
            Ok(text) => MasterKey::parse(&text).map_err(|e| FolderError::KeyUnreadable(path, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound && nothing_sealed => {
                let key = MasterKey::generate(random);
                self.write_durably(&path, key.to_text().as_bytes()).map_err(io)?;
                Ok(key)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FolderError::KeyMissing(path)),
            Err(e) => Err(io(e)),
        }
    }

    /// All of it or nothing, also after a power cut.
    fn write_durably(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.path)?;
        file.write_all(text)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        File::open(&self.path)?.sync_all()
    }
}

/// The names of the files that are for us alone: the store and what lies beside it, the lock, the key.
fn is_ours(name: &str) -> bool {
    ["rescind.db", "rescind.mark", "rescind.known"].iter().any(|ours| name.starts_with(ours))
        || matches!(name, "rescind.lock" | "master.key")
}

/// A folder that was made is there after a power cut only if the one that it was made in was flushed. One that
/// may not be opened was not made in either.
fn sync_name(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    match File::open(parent) {
        Ok(parent) => parent.sync_all(),
        Err(_) => Ok(()),
    }
}

/// Where the server of this data folder listens for the command line.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("rescind.sock")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    // check 99
    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let folder = DataFolder::take(&path).unwrap();
        assert!(matches!(DataFolder::take(&path), Err(FolderError::InUse(_))));
        // Nor by another name, or when all in it is removed.
        std::os::unix::fs::symlink(&path, dir.path().join("c")).unwrap();
        fs::remove_file(path.join("rescind.lock")).unwrap();
        for name in [&path, &dir.path().join("c")] {
            assert!(matches!(DataFolder::take(name), Err(FolderError::InUse(_))));
        }
        drop(folder);
        // One of before locks the file alone.
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let older = options.open(path.join("rescind.lock")).unwrap();
        older.lock().unwrap();
        assert!(matches!(DataFolder::take(&path), Err(FolderError::InUse(_))));
        drop(older);
        assert!(DataFolder::take(&path).is_ok());
    }

    #[test]
    fn the_master_key_is_made_once_and_kept_to_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::take(dir.path()).unwrap();
        let random = Random::System;
        assert!(matches!(folder.master_key(false, &random), Err(FolderError::KeyMissing(_))));
        let made = folder.master_key(true, &random).unwrap();
        assert_eq!(*folder.master_key(false, &random).unwrap().to_text(), *made.to_text());
        let path = dir.path().join("master.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(matches!(folder.master_key(false, &random), Err(FolderError::KeyUnreadable(..))));
    }
}
