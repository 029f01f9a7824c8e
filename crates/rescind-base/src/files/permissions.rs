//! Which users may read and write the files that contain secrets.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::Mode,
    process::{Gid, Resource, Rlimit, Uid, geteuid, setrlimit, umask},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use thiserror::Error;
use tracing::warn;

use super::circumstances::circumstances;

/// The target of the warnings about files that other users may read.
pub const TARGET: &str = module_path!();

const OTHERS: u32 = 0o007;
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;
const GROUP: u32 = 0o070;
/// In a folder with this bit only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

/// Why a file or folder is not used.
#[derive(Debug, Error)]
pub enum PermissionError {
    /// Other users have a right that only this user may have.
    #[error("{path} {problem} (mode {mode:04o}, owner uid {owner}; this process is uid {us}): {mend}")]
    Refused { path: PathBuf, problem: &'static str, mode: u32, owner: u32, us: u32, mend: String },
    #[error("{}: {}{}", .0.display(), .1, circumstances(.0, .1))]
    Io(PathBuf, io::Error),
}

/// Closes an empty folder of this user to all others, because `mkdir` may leave it open.
///
/// # Errors
/// Fails if the folder cannot be read or changed.
pub fn close_if_empty(folder: &Path) -> Result<(), PermissionError> {
    let io = |e| PermissionError::Io(folder.to_owned(), e);
    let metadata = fs::metadata(folder).map_err(io)?;
    let is_open = mode_of(&metadata) & (GROUP | OTHERS) != 0 && metadata.uid() == geteuid().as_raw();
    if is_open && fs::read_dir(folder).map_err(io)?.next().is_none() {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(io)?;
    }
    Ok(())
}

/// Checks that other users may not access this user's folder, nor its files for which `is_ours` is true. They may not
/// even pass through the folder: with that right they could open a file whose own mode is wrong. A group's rights
/// only cause a warning, because Kubernetes sets them at each mount (`fsGroup`).
///
/// # Errors
/// Fails if other users have a right, or the folder cannot be read.
pub fn require_ours(folder: &Path, is_ours: impl Fn(&str) -> bool) -> Result<(), PermissionError> {
    let io = |e| PermissionError::Io(folder.to_owned(), e);
    let mut shared = Vec::new();
    let mut look = |path: PathBuf, metadata: &Metadata| {
        let (file, us) = (path.display(), geteuid().as_raw());
        let (mode, owner) = (mode_of(metadata), metadata.uid());
        let (problem, mend) = if !is_trusted(owner, us) {
            ("belongs to another user", format!("run as uid {owner}, or chown -R {us} {}", folder.display()))
        } else if mode & OTHERS == 0 {
            shared.extend((mode & GROUP != 0).then(|| format!("{file} ({mode:04o})")));
            return Ok(());
        } else if metadata.is_dir() {
            let mend = format!("chmod o-rwx {file}, or name a folder to be made inside it with --data-dir");
            ("is open to every user of this machine", mend)
        } else {
            ("is open to every user of this machine", format!("chmod o-rwx {file}"))
        };
        Err(PermissionError::Refused { path, problem, mode, owner, us, mend })
    };
    look(folder.to_owned(), &fs::metadata(folder).map_err(io)?)?;
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if !entry.file_name().to_str().is_some_and(&is_ours) {
            continue;
        }
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => look(entry.path(), &metadata)?,
            Ok(_) => {}
            // SQLite may remove a log meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(PermissionError::Io(entry.path(), e)),
        }
    }
    if !shared.is_empty() {
        shared.sort_unstable();
        let files = shared.join(", ");
        warn!(files, "the group may read or write the data folder: chmod -R g-rwx, if that is not meant");
    }
    Ok(())
}

/// Checks that other users may not write or replace a file with a secret that was put there for this process. Their
/// right to read it only causes a warning, because orchestrators mount secrets so.
///
/// # Errors
/// Fails if other users may write or replace the file, or it cannot be read.
pub fn require_unwritable(name: &str, path: &Path) -> Result<(), PermissionError> {
    let io = |e| PermissionError::Io(path.to_owned(), e);
    let metadata = fs::metadata(path).map_err(io)?;
    // A path that is not a file, such as a pipe of the shell, cannot be written by other users.
    if !metadata.is_file() {
        return Ok(());
    }
    let us = geteuid().as_raw();
    let refuse_writable = |path: &Path, metadata: &Metadata, sticky: u32| {
        let (mode, owner) = (mode_of(metadata), metadata.uid());
        if mode & OTHERS_WRITE == 0 || mode & sticky != 0 {
            return Ok(());
        }
        let (problem, mend) =
            ("can be written by every user of this machine", format!("chmod o-w {}", path.display()));
        Err(PermissionError::Refused { path: path.to_owned(), problem, mode, owner, us, mend })
    };
    // Kubernetes mounts secrets as links to links.
    let file = fs::canonicalize(path).map_err(io)?;
    refuse_writable(&file, &metadata, 0)?;
    for folder in
        [path, &file].into_iter().filter_map(Path::parent).filter(|folder| !folder.as_os_str().is_empty())
    {
        refuse_writable(folder, &fs::metadata(folder).map_err(io)?, STICKY)?;
    }
    let (mode, owner) = (mode_of(&metadata), metadata.uid());
    if mode & OTHERS_READ != 0 || !is_trusted(owner, us) {
        let (file, mode) = (file.display(), format!("{mode:04o}"));
        warn!(%file, mode, owner, us, "{name} can be read by other users: chmod o-r or chown it, if that is not meant");
    }
    Ok(())
}

/// Gives up root's rights for those of the folder's owner, so that what this process makes there is the owner's. Does
/// nothing for other users, nor for a folder that is root's or not there.
///
/// This is for a process of one thread: the threads that start afterwards have the owner's rights, too.
///
/// # Errors
/// Fails if the folder cannot be read, or the operating system refuses.
pub fn become_owner(folder: &Path) -> Result<(), PermissionError> {
    let io = |e| PermissionError::Io(folder.to_owned(), e);
    let metadata = match fs::metadata(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(io)?,
    };
    if !geteuid().is_root() || metadata.uid() == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    // The groups first, because only root may change them.
    set_thread_groups(&[gid])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .map_err(|e| io(e.into()))
}

/// Makes new files accessible to this user alone, and protects this process's memory: the process leaves no core
/// dump, and no other process of this user may read its memory.
///
/// # Errors
/// Fails if the operating system refuses.
pub fn keep_to_ourselves() -> io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // The kernel ignores the limit if it passes core dumps to a program.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn mode_of(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

/// Returns whether the owner is this user or root, who may do everything anyway.
fn is_trusted(owner: u32, us: u32) -> bool {
    owner == us || owner == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 111
    #[test]
    fn of_a_file_and_its_folder_others_have_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ours");
        fs::write(&file, "").unwrap();
        fs::write(dir.path().join("theirs"), "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        set(&dir.path().join("theirs"), 0o666);
        for (folder, mode, is_ours) in [
            (0o700, 0o600, true),
            (0o770, 0o660, true),
            (0o2770, 0o640, true),
            (0o700, 0o604, false),
            (0o700, 0o602, false),
            (0o704, 0o600, false),
            (0o702, 0o600, false),
            (0o701, 0o600, false),
            (0o1777, 0o600, false),
        ] {
            set(dir.path(), folder);
            set(&file, mode);
            let outcome = require_ours(dir.path(), |name| name == "ours");
            assert_eq!(outcome.is_ok(), is_ours, "{folder:o} {mode:o}: {outcome:?}");
        }
        for (owner, us, trusted) in [(0, 0, true), (7, 7, true), (0, 7, true), (7, 0, false), (7, 8, false)] {
            assert_eq!(is_trusted(owner, us), trusted, "{owner} {us}");
        }
    }
}
