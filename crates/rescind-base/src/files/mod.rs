//! Files other than the store's: the data folder, certificates and keys, which users may read or change
//! them, and what to tell an operator of a refusal.

use std::{io, path::Path};

use tempfile::NamedTempFile;

use crate::clock::Clock;

pub mod circumstances;
pub mod data_folder;
pub mod pem;
pub mod permissions;
pub mod replacement;
pub mod users;

/// Returns the folder that a file is in, which is the current one for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// In bytes: how much of a long copy is written and flushed in one call of [`gently`].
pub const PART: usize = 1 << 20;

/// How many parts of a file are deleted at once.
const DELETED: u64 = 8;

/// Deletes a large file part by part. A file system that tells the disk of each freed block (`discard`) would hold up the flush of
/// every login while all of them are freed.
///
/// # Errors
/// Fails if the disk does.
pub fn delete_gently(file: NamedTempFile) -> io::Result<()> {
    let mut length = file.as_file().metadata()?.len();
    while length > 0 {
        length = length.saturating_sub(DELETED * PART as u64);
        gently(|| {
            file.as_file().set_len(length)?;
            file.as_file().sync_data()
        })?;
    }
    file.close()
}

/// Does a part of long work, and rests for as long as that took, so that others have the disk and the processor half of the
/// time. A flush of the whole work would hold up the flush of each login meanwhile: each part flushes what it has written.
///
/// # Errors
/// Fails if the part does.
#[expect(clippy::disallowed_methods, reason = "it rests, and waits for nothing")]
pub fn gently<T, E>(part: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    // The disk does not follow a test's clock.
    let begun_at = Clock::System.elapsed();
    let done = part()?;
    std::thread::sleep(Clock::System.elapsed().saturating_sub(begun_at));
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_deleted_whatever_its_length() {
        for length in [0, 1, DELETED * PART as u64, 3 * DELETED * PART as u64 + 1] {
            let file = NamedTempFile::new().unwrap();
            file.as_file().set_len(length).unwrap();
            let path = file.path().to_owned();
            delete_gently(file).unwrap();
            assert!(!path.exists(), "{length}");
        }
    }
}
