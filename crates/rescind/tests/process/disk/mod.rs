//! A test's own disk, which the test can make fail, and whose power it can cut at any moment.
//!
//! A small library (`shim.c`) is preloaded into the server and intercepts the calls that change files under one
//! folder.

mod log;
mod model;
mod small;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) use log::{Event, Inode};
pub(crate) use model::{Flushes, Model};
pub(crate) use small::SmallDisk;

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// The disk works.
    None = b'-',
    /// ENOSPC on every write.
    Full = b'f',
    /// EROFS on every change.
    ReadOnly = b'r',
    /// EIO on every write.
    Write = b'w',
    /// EIO on every flush.
    Flush = b's',
    /// EIO on every flush but the log's: checkpoints fail, commits do not.
    Checkpoint = b'd',
    /// EIO on the next flush alone.
    OneFlush = b'S',
    /// EIO on the next write alone.
    OneWrite = b'W',
    /// EIO on everything.
    Gone = b'i',
    /// Every flush takes 200 ms.
    Slow = b'l',
}

/// A folder on such a disk. The server creates its data folder in it.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
    recorded: bool,
}

impl Disk {
    /// A disk that can fail.
    pub(crate) fn new() -> Disk {
        Disk::make(false)
    }

    /// A disk that can fail, and that records the data for a power cut.
    pub(crate) fn recorded() -> Disk {
        Disk::make(true)
    }

    fn make(recorded: bool) -> Disk {
        let disk = Disk { folder: tempfile::tempdir().unwrap(), recorded };
        let shim = disk.beside("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/disk/shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&shim).arg(source);
        assert!(cc.arg("-ldl").status().unwrap().success());
        fs::create_dir(disk.beside("disk")).unwrap();
        disk.fails(Fault::None);
        disk
    }

    /// The server's data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.beside("disk/data")
    }

    /// The variables for the server's environment.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![("LD_PRELOAD", "shim.so"), ("DISK_ROOT", "disk"), ("DISK_FAULT", "fault")];
        if self.recorded {
            variables.push(("DISK_LOG", "log"));
        }
        let text = |name| self.beside(name).to_str().unwrap().to_owned();
        variables.into_iter().map(|(variable, name)| (variable, text(name))).collect()
    }

    /// Makes the disk fail like this from now on.
    pub(crate) fn fails(&self, fault: Fault) {
        // In place: the server has this very file mapped.
        fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.beside("fault"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, &[fault as u8]))
            .unwrap();
    }

    /// Everything that was done to the disk.
    pub(crate) fn events(&self) -> Vec<Event> {
        log::read(&fs::read(self.beside("log")).unwrap())
    }

    fn beside(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }
}
