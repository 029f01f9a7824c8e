//! The data folder: the store's file, the master key, the management socket, and the locks that reserve them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempDir};
use thiserror::Error;
use tracing::warn;

use crate::{
    files::{
        circumstances::circumstances,
        folder_of,
        permissions::{self, PermissionError},
        replacement,
    },
    random::Random,
    secret::{self, MasterKey, SealError},
};

/// A data folder that only this process may change, until this value is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Locks of the folder and of `rescind.lock` in it. Nobody can remove the folder while it is used; older versions
    /// lock only the file.
    _locks: [File; 2],
}

/// The file of a master key under which the store may have been sealed already.
const NEXT_KEY: &str = "master.key.next";

/// How the names of temporary files and folders in it begin. They are of no use to another process.
pub const TEMPORARY: &str = "rescind.tmp-";

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Another process uses the folder.
    #[error(
        "data folder {0} is in use by another rescind; stop that one, or name another folder with --data-dir"
    )]
    InUse(PathBuf),
    /// The path is a file.
    #[error("{0} is no folder: name the data folder with --data-dir")]
    NoFolder(PathBuf),
    /// The operating system reports an error.
    #[error("{}: {}{}", .0.display(), .1, circumstances(.0, .1))]
    Io(PathBuf, io::Error),
    /// The master key is missing, and the store is sealed under it.
    #[error(
        "{0} is missing, and the store is sealed under it: put it back, or set RESCIND_MASTER_KEY or RESCIND_MASTER_KEY_FILE"
    )]
    KeyMissing(PathBuf),
    /// Other users may read or write what is for this user alone.
    #[error(transparent)]
    Permissions(#[from] PermissionError),
    /// The file does not contain a key.
    #[error("{0}: {1}")]
    KeyUnreadable(PathBuf, SealError),
}

impl DataFolder {
    /// Locks the folder for this process, and creates it if there is none.
    ///
    /// # Errors
    /// Fails if another process uses the folder, other users may access it, or the operating system reports an error.
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
        if let Some(kept) = replacement::finish(path).map_err(io)? {
            warn!(kept = %kept.display(), "a restore that was cut off was completed: the former store is kept in this folder");
        }
        remove_temporary(path).map_err(io)?;
        Ok(DataFolder { path: path.to_owned(), _locks: [folder, file] })
    }

    /// Returns the path of the embedded store's file.
    pub fn store(&self) -> PathBuf {
        self.path.join("rescind.db")
    }

    /// Replaces the store by the closed one in this folder, whose file is [`replacement::NEW_STORE`], and its mark.
    /// Returns the folder in which the former store is kept, if there was one.
    ///
    /// # Errors
    /// Fails if a file cannot be renamed.
    pub fn replace_store(&self, with: &TempDir) -> Result<Option<PathBuf>, FolderError> {
        replacement::replace(&self.path, with.path()).map_err(|e| FolderError::Io(self.path.clone(), e))
    }

    /// Creates a file beside the store, for its owner alone, that is removed when dropped.
    ///
    /// # Errors
    /// Fails if the file cannot be created.
    pub fn temporary_file(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::with_prefix_in(TEMPORARY, &self.path)
    }

    /// Creates such a folder.
    ///
    /// # Errors
    /// Fails if the folder cannot be created.
    pub fn temporary_folder(&self) -> io::Result<TempDir> {
        TempDir::with_prefix_in(TEMPORARY, &self.path)
    }

    /// Returns the path of the file with the newest change known of a shared database.
    pub fn known(&self) -> PathBuf {
        self.path.join("rescind.known")
    }

    /// Returns the path of the management socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.path)
    }

    /// Returns the folder's master key, and creates one if there is none and nothing is sealed yet.
    ///
    /// # Errors
    /// Fails if the key is missing though something is sealed, or if its file cannot be read or written.
    pub fn master_key(&self, nothing_sealed: bool, random: &Random) -> Result<MasterKey, FolderError> {
        let path = self.path.join("master.key");
        match read_key(&path)? {
            Some(key) => Ok(key),
            None if nothing_sealed => {
                let key = MasterKey::generate(random);
                let written = self.write_durably(&path, key.to_text().as_bytes());
                written.map(|()| key).map_err(|e| FolderError::Io(path, e))
            }
            None => Err(FolderError::KeyMissing(path)),
        }
    }

    /// Keeps a key beside the folder's master key until [`DataFolder::adopt_next_key`].
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn keep_next_key(&self, key: &MasterKey) -> Result<(), FolderError> {
        let path = self.path.join(NEXT_KEY);
        // One of an attempt that was cut off before anything was sealed under it.
        let kept = match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => self.write_durably(&path, key.to_text().as_bytes()),
        };
        kept.map_err(|e| FolderError::Io(path, e))
    }

    /// Returns the key that was kept beside the folder's master key.
    ///
    /// # Errors
    /// Fails if its file cannot be read.
    pub fn next_key(&self) -> Result<Option<MasterKey>, FolderError> {
        read_key(&self.path.join(NEXT_KEY))
    }

    /// Puts the kept key in the place of the master key.
    ///
    /// # Errors
    /// Fails if the file cannot be renamed.
    pub fn adopt_next_key(&self) -> Result<(), FolderError> {
        let path = self.path.join(NEXT_KEY);
        let adopted = fs::rename(&path, self.path.join("master.key"));
        adopted.and_then(|()| File::open(&self.path)?.sync_all()).map_err(|e| FolderError::Io(path, e))
    }

    /// Writes the whole file or nothing, even if there is a power cut.
    fn write_durably(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let mut file = self.temporary_file()?;
        file.write_all(text)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        File::open(&self.path)?.sync_all()
    }
}

/// Checks the master key in a data folder. One that does not exist yet is made at the first start.
///
/// # Errors
/// Fails if the key is missing beside a store, or cannot be read.
pub fn check_master_key(data_dir: &Path) -> Result<(), FolderError> {
    let path = data_dir.join("master.key");
    let has_store = replacement::has_store(data_dir).map_err(|e| FolderError::Io(data_dir.to_owned(), e))?;
    match read_key(&path)? {
        None if has_store => Err(FolderError::KeyMissing(path)),
        _ => Ok(()),
    }
}

/// Reads a master key. `None`: there is no such file.
fn read_key(path: &Path) -> Result<Option<MasterKey>, FolderError> {
    match secret::read(path) {
        Ok(text) => {
            MasterKey::parse(&text).map(Some).map_err(|e| FolderError::KeyUnreadable(path.to_owned(), e))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FolderError::Io(path.to_owned(), e)),
    }
}

/// Returns whether a file of this name is for this user alone: the store and the files beside it, the lock, the key.
fn is_ours(name: &str) -> bool {
    ["rescind.db", "rescind.mark", "rescind.known", "rescind.repl", TEMPORARY]
        .iter()
        .any(|ours| name.starts_with(ours))
        || matches!(name, "rescind.lock" | "master.key" | NEXT_KEY)
}

/// Removes what processes that were killed have left.
fn remove_temporary(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
    }
    Ok(())
}

/// Flushes the folder around a new folder: otherwise a power cut may remove the new one. A folder that cannot be
/// opened contains no new one.
fn sync_name(path: &Path) -> io::Result<()> {
    if path.parent().is_none() {
        return Ok(());
    }
    match File::open(folder_of(path)) {
        Ok(parent) => parent.sync_all(),
        Err(_) => Ok(()),
    }
}

/// Returns whether a process has locked the folder. A server that starts at this very moment may find it locked.
pub fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|folder| matches!(folder.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Returns the path on which the server of this data folder listens for the command line.
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
        // The lock holds under another name of the folder too, and when its files are removed.
        std::os::unix::fs::symlink(&path, dir.path().join("c")).unwrap();
        fs::remove_file(path.join("rescind.lock")).unwrap();
        for name in [&path, &dir.path().join("c")] {
            assert!(matches!(DataFolder::take(name), Err(FolderError::InUse(_))));
        }
        drop(folder);
        // An older version only locks the file.
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let older = options.open(path.join("rescind.lock")).unwrap();
        older.lock().unwrap();
        assert!(matches!(DataFolder::take(&path), Err(FolderError::InUse(_))));
        drop(older);
        assert!(DataFolder::take(&path).is_ok());
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::take(dir.path()).unwrap();
        fs::write(folder.temporary_folder().unwrap().keep().join("new.db"), "").unwrap();
        folder.temporary_file().unwrap().keep().unwrap();
        fs::write(dir.path().join("backup-1.db"), "of an operator").unwrap();
        drop(folder);
        drop(DataFolder::take(dir.path()).unwrap());
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["backup-1.db", "rescind.lock"]);
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
