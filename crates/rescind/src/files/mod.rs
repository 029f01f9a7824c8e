//! Files other than the store's: the data folder, certificates and keys, which users may read or change
//! them, and what to tell an operator of a refusal.

use std::{fs::File, io, path::Path};

use crate::clock::Clock;

pub mod circumstances;
pub mod data_folder;
pub mod pem;
pub mod permissions;
pub mod users;

/// Returns the folder that a file is in, which is the current one for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// In bytes: how much of a long copy is written between two calls of [`flush_gently`].
pub const PART: usize = 1 << 20;

/// Flushes a part of a long copy, and rests for as long as that took, so that others have the disk half of the time. A
/// flush of the whole copy would hold up the flush of each login meanwhile.
///
/// # Errors
/// Fails if the disk does.
#[expect(clippy::disallowed_methods, reason = "a copy rests, and waits for nothing")]
pub fn flush_gently(file: &File) -> io::Result<()> {
    // The disk does not follow a test's clock.
    let begun_at = Clock::System.elapsed();
    file.sync_data()?;
    std::thread::sleep(Clock::System.elapsed().saturating_sub(begun_at));
    Ok(())
}
