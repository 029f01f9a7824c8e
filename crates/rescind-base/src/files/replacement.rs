//! The replacement of the embedded store by a restored one. Wherever it is cut off, the next process that takes the data
//! folder goes on from there.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// The new store's file, in the folder that replaces the present store.
pub const NEW_STORE: &str = "new.db";
const NEW_MARK: &str = "new.mark";

/// The folder of a replacement under way. It has the new store first, and the former one in the end.
const REPLACING: &str = "rescind.replacing";

/// The former store, in the order in which its files are moved: a log without its store is never opened. Its mark is not
/// kept, so that every token ends if somebody puts this store back.
const FORMER: [&str; 3] = ["rescind.db", "rescind.db-wal", "rescind.db-shm"];

/// Returns whether the data folder has a store, also while another one replaces it.
///
/// # Errors
/// Fails if the folder cannot be read.
pub fn has_store(folder: &Path) -> io::Result<bool> {
    Ok(folder.join("rescind.db").try_exists()? || folder.join(REPLACING).try_exists()?)
}

/// Lets the new store of the folder `with` replace the present one. From the first rename on it is certain to do so.
/// Returns the folder in which the former store is kept, if there was one.
///
/// # Errors
/// Fails if a file cannot be renamed.
pub(super) fn replace(folder: &Path, with: &Path) -> io::Result<Option<PathBuf>> {
    File::open(with)?.sync_all()?;
    rename(with, &folder.join(REPLACING))?;
    finish(folder)
}

/// Carries out what is left of a replacement. Returns the folder in which the former store is kept, if there was one.
///
/// # Errors
/// Fails if a file cannot be renamed.
pub(super) fn finish(folder: &Path) -> io::Result<Option<PathBuf>> {
    let replacing = folder.join(REPLACING);
    if !replacing.try_exists()? {
        return Ok(None);
    }
    while let Some((from, to)) = next_rename(folder)? {
        rename(&from, &to)?;
    }
    if fs::remove_dir(&replacing).is_ok() {
        return Ok(None);
    }
    let mut number = 1;
    let kept = loop {
        let kept = folder.join(format!("rescind.replaced-{number}"));
        if !kept.try_exists()? {
            break kept;
        }
        number += 1;
    };
    rename(&replacing, &kept)?;
    Ok(Some(kept))
}

/// The next rename that brings the new store into its place. The new mark stays where it is until the former store is out
/// of the way, so the files show how far the replacement has come.
fn next_rename(folder: &Path) -> io::Result<Option<(PathBuf, PathBuf)>> {
    let replacing = folder.join(REPLACING);
    let (store, mark) = (replacing.join(NEW_STORE), replacing.join(NEW_MARK));
    if mark.try_exists()? {
        for name in FORMER {
            let former = folder.join(name);
            if former.try_exists()? {
                return Ok(Some((former, replacing.join(name))));
            }
        }
        return Ok(Some((mark, folder.join("rescind.mark"))));
    }
    Ok(store.try_exists()?.then(|| (store, folder.join("rescind.db"))))
}

/// Renames, and flushes both folders, so that a power cut undoes no rename before a later one.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    for folder in [to, from].into_iter().filter_map(Path::parent) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    };

    use super::*;
    use crate::files::data_folder::DataFolder;

    /// Writes a file that is for its owner alone.
    fn write(path: PathBuf, text: &str) {
        let file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn new_store(path: &Path, text: &str) {
        fs::DirBuilder::new().mode(0o700).create(path).unwrap();
        for name in [NEW_STORE, NEW_MARK] {
            write(path.join(name), text);
        }
    }

    /// A data folder with a store and its log, and beside them a new store with its mark.
    fn replacing() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        drop(DataFolder::take(dir.path()).unwrap());
        for name in ["rescind.db", "rescind.db-wal", "rescind.mark"] {
            write(dir.path().join(name), "former");
        }
        new_store(&dir.path().join(REPLACING), "new");
        dir
    }

    #[test]
    fn it_goes_on_wherever_it_was_cut_off() {
        let mut renames = 0;
        loop {
            let dir = replacing();
            let mut carried_out = 0;
            while carried_out < renames {
                let Some((from, to)) = next_rename(dir.path()).unwrap() else { break };
                fs::rename(from, to).unwrap();
                carried_out += 1;
            }
            assert!(has_store(dir.path()).unwrap());
            drop(DataFolder::take(dir.path()).unwrap());
            let text = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
            for (name, expected) in [
                ("rescind.db", Some("new")),
                ("rescind.mark", Some("new")),
                ("rescind.db-wal", None),
                ("rescind.replaced-1/rescind.db", Some("former")),
                ("rescind.replaced-1/rescind.db-wal", Some("former")),
                ("rescind.replaced-1/rescind.mark", None),
            ] {
                assert_eq!(text(name).as_deref(), expected, "{name} after {carried_out} renames");
            }
            if carried_out < renames {
                break;
            }
            renames += 1;
        }
        assert_eq!(renames, 5);
    }

    #[test]
    fn each_former_store_is_kept_in_a_folder_of_its_own() {
        let dir = replacing();
        assert_eq!(finish(dir.path()).unwrap(), Some(dir.path().join("rescind.replaced-1")));
        assert_eq!(finish(dir.path()).unwrap(), None);
        let next = dir.path().join("next");
        for (with, kept) in [("a", Some("rescind.replaced-2")), ("b", None)] {
            new_store(&next, with);
            assert_eq!(replace(dir.path(), &next).unwrap(), kept.map(|kept| dir.path().join(kept)));
            assert_eq!(fs::read_to_string(dir.path().join("rescind.db")).unwrap(), with);
            // The second replaces no store.
            fs::remove_file(dir.path().join("rescind.db")).unwrap();
        }
    }
}
