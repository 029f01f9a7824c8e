//! The socket in the data folder, for the command line.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    mem::replace,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    time::Duration,
};

use rescind_base::files::folder_of;
use tokio::{
    net::{UnixListener, UnixStream},
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{error, warn};

/// How often the service checks that its socket is still in the folder.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A socket that is made again if somebody removes it.
#[derive(Debug)]
pub(super) struct LocalSocket {
    path: PathBuf,
    listener: UnixListener,
    /// The listener's own file, and the folder around it.
    file: Identity,
    folder: Identity,
    looks: Interval,
    /// It was removed and could not be made again, which is logged once.
    is_gone: bool,
}

/// A device and an inode on it.
type Identity = (u64, u64);

impl LocalSocket {
    /// Binds the socket in a private folder and moves it, so that no other user can ever connect to it.
    pub(super) fn bind(path: PathBuf) -> io::Result<LocalSocket> {
        let private = tempfile::Builder::new().prefix(".sock-").rand_bytes(3).tempdir_in(folder_of(&path))?;
        let inside = private.path().join("s");
        let listener = UnixListener::bind(&inside)?;
        fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        let file = identity(&fs::symlink_metadata(&inside)?);
        let folder = identity(&fs::metadata(folder_of(&path))?);
        // This process holds the folder's lock, so an existing socket was left by a process that has ended.
        fs::rename(&inside, &path)?;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(LocalSocket { path, listener, file, folder, looks, is_gone: false })
    }

    /// Accepts the next connection.
    pub(super) async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return Ok(accepted?.0),
                _ = self.looks.tick() => match self.put_back() {
                    Ok(()) => self.is_gone = false,
                    Err(error) => {
                        if !replace(&mut self.is_gone, true) {
                            let path = self.path.display();
                            error!(%path, %error, "the socket for commands is gone, and cannot be made again");
                        }
                    }
                },
            }
        }
    }

    fn put_back(&mut self) -> io::Result<()> {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.file) {
            return Ok(());
        }
        // This process has locked that one alone.
        if identity(&fs::metadata(folder_of(&self.path))?) != self.folder {
            return Err(io::Error::other("another folder is in the place of the data folder"));
        }
        *self = LocalSocket::bind(self.path.clone())?;
        warn!(path = %self.path.display(), "somebody removed the socket for commands: it was made again");
        Ok(())
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}
