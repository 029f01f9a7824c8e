//! A test's own file system, small enough to be filled.

use std::{
    fs::{self, File},
    io::{Write, stderr},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, getgid, getuid};
use tempfile::TempDir;

/// A file system for one command. It ends with the command.
pub(crate) struct SmallDisk {
    folder: TempDir,
    /// The size, in the form of `mount`'s option.
    size: &'static str,
    may_mount: bool,
}

impl SmallDisk {
    /// `None`, with a message, if no file system can be mounted. If this process has the right to mount, it panics.
    pub(crate) fn new(size: &'static str) -> Option<SmallDisk> {
        let disk = SmallDisk { folder: tempfile::tempdir().unwrap(), size, may_mount: may_mount() };
        let tried = disk.holding(&Command::new("true")).output().unwrap();
        if tried.status.success() {
            return Some(disk);
        }
        let why = String::from_utf8_lossy(&tried.stderr);
        assert!(!disk.may_mount, "no file system can be mounted: {why}");
        // Not by a macro: those are silent in tests that pass.
        let _ = writeln!(stderr(), "NOT TESTED, as no file system can be mounted here: {why}");
        None
    }

    /// The path of the file system, for the command that it is made for.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The same command with this disk, and with only the variables set on the command.
    pub(crate) fn holding(&self, command: &Command) -> Command {
        let mount = format!("mount -t tmpfs -o size={},mode=755 none '{}'", self.size, self.path().display());
        // Whoever may not mount may where they are root, and are then themselves again.
        let (user, again) = if self.may_mount {
            (None, String::new())
        } else {
            let (user, group) = (getuid().as_raw(), getgid().as_raw());
            (Some("--map-root-user"), format!("unshare --map-user={user} --map-group={group} --"))
        };
        let mut holding = Command::new("unshare");
        holding.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        holding.arg("--mount").args(user).args([
            "--",
            "sh",
            "-c",
            &format!("{mount} && exec {again} \"$@\""),
        ]);
        holding.arg("sh").arg(command.get_program()).args(command.get_args());
        holding
    }

    /// The path of one of its files for other processes, through `/proc` of the process that has the disk.
    pub(crate) fn file(&self, holds: Pid, name: &str) -> PathBuf {
        let path = self.path().join(name);
        PathBuf::from(format!("/proc/{}/root{}", holds.as_raw_nonzero(), path.display()))
    }

    /// Fills the disk.
    pub(crate) fn fill(&self, holds: Pid) {
        let mut filler = File::create(self.file(holds, "filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    /// Frees the room that `fill` has used.
    pub(crate) fn make_room(&self, holds: Pid) {
        fs::remove_file(self.file(holds, "filler")).unwrap();
    }
}

/// Whether this process has the right to mount. Few containers grant it, even to root.
fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(rights.trim(), 16).unwrap() & CAP_SYS_ADMIN != 0
}
