//! Who owns a path, who this process is, and how much space is left: what an operator needs to know of a refusal.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::{
    fs::statvfs,
    process::{getegid, geteuid},
};

/// Returns the circumstances after which an error at this path can be mended, as ` (…)`. Empty for errors that need none.
pub fn circumstances(path: &Path, error: &io::Error) -> String {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem => format!(" ({})", owner(path)),
        QuotaExceeded | StorageFull => format!(" ({})", owner_and_space(path)),
        _ => String::new(),
    }
}

/// Says who owns the path, or the nearest folder above it that can be seen, and who this process is.
fn owner(path: &Path) -> String {
    let us = format!("this process is uid {}, gid {}", geteuid().as_raw(), getegid().as_raw());
    let Some((path, metadata)) = nearest(path) else { return us };
    let (owner, group) = (metadata.uid(), metadata.gid());
    let mode = metadata.permissions().mode() & 0o7777;
    format!("{} belongs to uid {owner}, gid {group}, mode {mode:04o}; {us}", path.display())
}

/// The same, and how much space is left there.
pub fn owner_and_space(path: &Path) -> String {
    let free = nearest(path).and_then(|(path, _)| free_bytes(path));
    let free = free.map(|free| format!("; {free} bytes are free there"));
    format!("{}{}", owner(path), free.unwrap_or_default())
}

fn nearest(path: &Path) -> Option<(&Path, Metadata)> {
    path.ancestors().find_map(|path| {
        // The folder of a path such as `data` is the current one.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Some((path, fs::symlink_metadata(path).ok()?))
    })
}

/// Returns how many bytes this process may still write to the file system of a path.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let system = statvfs(path).ok()?;
    let blocks = if geteuid().is_root() { system.f_bfree } else { system.f_bavail };
    Some(blocks.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_nearest_path_its_owner_and_us() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("a/b");
        let refused = circumstances(&missing, &io::ErrorKind::PermissionDenied.into());
        let us = geteuid().as_raw();
        let expected = format!(" ({} belongs to uid {us}, gid ", folder.path().display());
        assert!(refused.starts_with(&expected) && refused.contains("; this process is uid "), "{refused}");
        let full = circumstances(&missing, &io::ErrorKind::StorageFull.into());
        assert!(full.starts_with(&expected) && full.ends_with(" bytes are free there)"), "{full}");
        assert_eq!(circumstances(&missing, &io::ErrorKind::NotFound.into()), "");
    }
}
