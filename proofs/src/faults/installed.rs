//! PostgreSQL's programs, of one version.

use std::{
    fs,
    io::Write,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use rustix::process::geteuid;

use super::postgres::{STANDBY, SUPERUSER};

/// The programs, and the user that runs them: the server does not run as root.
#[derive(Debug, Clone)]
pub(super) struct Installed {
    pub(super) binaries: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Installed {
    /// The programs in this folder; without one, those of the newest version that Debian's packages have.
    pub(super) fn find(binaries: Option<&Path>) -> anyhow::Result<Installed> {
        let binaries = binaries.map(Path::to_owned).unwrap_or_else(|| {
            // Debian keeps each version in its own folder, outside of the path.
            let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
            versions.map(|version| version.path().join("bin")).max().unwrap_or_default()
        });
        let owner =
            if geteuid().is_root() { Some(user("postgres").or_else(|_| user("nobody"))?) } else { None };
        Ok(Installed { binaries, owner })
    }

    /// The programs in this archive, which `scripts/postgresql-archives` fetches.
    pub(super) fn unpack(archive: &Path, into: &Path) -> anyhow::Result<Installed> {
        let mut command = Command::new("tar");
        fs::create_dir_all(into)?;
        command.arg("xzf").arg(archive).arg("-C").arg(into).args(["--strip-components=1", "--no-same-owner"]);
        if !command.status()?.success() {
            bail!("{} cannot be unpacked", archive.display());
        }
        Installed::find(Some(&into.join("bin")))
    }

    /// Creates an empty database whose primary, also after a fail-over, commits only with a stand-by.
    pub(super) fn initialize(&self, data: &Path, options: &[&str]) -> anyhow::Result<()> {
        self.run("initdb", |command| {
            command.args(["-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--no-locale", "--no-sync"]);
            command.args(options).arg("-D").arg(data)
        })?;
        let mut settings = fs::File::options().append(true).open(data.join("postgresql.conf"))?;
        Ok(writeln!(settings, "synchronous_standby_names = '{STANDBY}'")?)
    }

    pub(super) fn write(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        fs::write(path, text)?;
        self.own(path)
    }

    /// Gives a file or folder to the server's user.
    pub(super) fn own(&self, path: &Path) -> anyhow::Result<()> {
        if let Some((user, group)) = self.owner {
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let ours = self.binaries.join(program);
        let mut command = Command::new(if ours.exists() { ours } else { program.into() });
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/bin").env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group).current_dir("/");
        }
        command
    }

    pub(super) fn run(
        &self,
        program: &str,
        with: impl FnOnce(&mut Command) -> &mut Command,
    ) -> anyhow::Result<String> {
        let mut command = self.command(program);
        let output = with(&mut command).output().with_context(|| program.to_owned())?;
        if !output.status.success() {
            bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// User and group ids by name.
fn user(name: &str) -> anyhow::Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let fields = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == name)
            .then(|| Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?)))?
    };
    users.lines().find_map(fields).with_context(|| format!("no user {name}"))
}
