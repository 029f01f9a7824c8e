//! A PostgreSQL of our own: a primary, and a stand-by that it never commits without.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use rustix::process::{Signal, geteuid};

use super::{
    process::{PATIENCE, Process, eventually},
    proxy::Proxy,
};

/// What the stand-by calls itself, and who may log in.
const STANDBY: &str = "standby";
const SUPERUSER: &str = "postgres";
const USER: &str = "rescind";

/// The two servers.
#[derive(Debug)]
pub struct Postgres {
    installed: Installed,
    folder: PathBuf,
    primary: Server,
    standby: Option<Server>,
    /// The stand-by's way to its primary.
    replication: Proxy,
    copies: u32,
}

/// The programs, and as whom to run them: the server refuses to be root's.
#[derive(Debug)]
struct Installed {
    binaries: PathBuf,
    owner: Option<(u32, u32)>,
}

#[derive(Debug)]
struct Server {
    data: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl Postgres {
    /// Starts both in this folder, with an empty database.
    pub async fn start(folder: &Path) -> anyhow::Result<Postgres> {
        let installed = Installed::find()?;
        installed.own(folder)?;
        let mut primary = Server { data: folder.join("pg-0"), address: free_address()?, process: None };
        installed.run("initdb", |command| {
            command.args(["-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--no-locale", "--no-sync", "-D"]);
            command.arg(&primary.data)
        })?;
        primary.start(&installed, None)?;
        let replication = Proxy::start(primary.address).await?;
        let mut postgres =
            Postgres { installed, folder: folder.to_owned(), primary, standby: None, replication, copies: 0 };
        postgres.answers().await?;
        for (program, arguments) in [("createuser", vec![USER]), ("createdb", vec!["-O", USER, USER])] {
            // There is no stand-by yet that a commit could wait for.
            postgres.client(program, &arguments, "-c synchronous_commit=local")?;
        }
        postgres.add_standby().await?;
        Ok(postgres)
    }

    /// Where the primary is.
    pub fn address(&self) -> SocketAddr {
        self.primary.address
    }

    /// Where the stand-by is.
    pub(super) fn standby_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.standby.as_ref().context("there is no stand-by")?.address)
    }

    /// What a server writes as `database.url`, if its way there is this address.
    pub fn url(through: SocketAddr) -> String {
        format!("postgres://{USER}@{through}/{USER}")
    }

    /// Waits until the primary answers.
    pub async fn answers(&self) -> anyhow::Result<()> {
        self.eventually("the database answers", "SELECT pg_is_in_recovery()", "f").await
    }

    /// Waits until commits are on the stand-by too.
    pub async fn is_synchronous(&self) -> anyhow::Result<()> {
        self.eventually("the stand-by follows", "SELECT sync_state FROM pg_stat_replication", "sync").await
    }

    /// Copies the primary and starts the copy as its stand-by.
    pub async fn add_standby(&mut self) -> anyhow::Result<()> {
        self.copies += 1;
        let data = self.folder.join(format!("pg-{}", self.copies));
        let port = self.primary.address.port().to_string();
        self.installed.run("pg_basebackup", |command| {
            command.args(["-h", "127.0.0.1", "-U", SUPERUSER, "-p", &port]);
            command.args(["-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(&data)
        })?;
        fs::write(data.join("standby.signal"), "")?;
        self.installed.own(&data.join("standby.signal"))?;
        let mut standby = Server { data, address: free_address()?, process: None };
        standby.start(&self.installed, Some(self.replication.address()))?;
        self.standby = Some(standby);
        self.is_synchronous().await
    }

    /// The primary's processes are gone, as when its machine is. The folder stays.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.primary.running()?.kill_family().await
    }

    /// The primary ends in order, without waiting for those who are connected.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.primary.running()?.stop(Signal::INT).await?;
        Ok(())
    }

    /// The primary runs and answers again.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.primary.start(&self.installed, None)?;
        self.answers().await
    }

    /// The stand-by becomes the primary. What was the primary, killed or not, is to be dropped.
    pub async fn promote(&mut self) -> anyhow::Result<FormerPrimary> {
        let standby = self.standby.take().context("there is no stand-by")?;
        let former = std::mem::replace(&mut self.primary, standby);
        let data = self.primary.data.clone();
        self.installed.run("pg_ctl", |command| command.args(["promote", "-w", "-s", "-D"]).arg(data))?;
        self.answers().await?;
        self.replication.lead_to(self.primary.address);
        Ok(FormerPrimary(former))
    }

    /// The stand-by hangs, and with it every commit.
    pub fn pause_standby(&self) -> anyhow::Result<()> {
        self.signal_standby(Signal::STOP)
    }

    /// It goes on.
    pub fn resume_standby(&self) -> anyhow::Result<()> {
        self.signal_standby(Signal::CONT)
    }

    fn signal_standby(&self, signal: Signal) -> anyhow::Result<()> {
        let standby = self.standby.as_ref().and_then(|standby| standby.process.as_ref());
        standby.context("there is no stand-by")?.signal_family(signal)
    }

    async fn eventually(&self, what: &str, sql: &str, wanted: &str) -> anyhow::Result<()> {
        let arguments = ["-d", SUPERUSER, "-Atc", sql];
        let ask = async || (self.client("psql", &arguments, "").ok()?.trim() == wanted).then_some(());
        eventually(what, PATIENCE, ask).await
    }

    /// Runs a client program of the primary to its end.
    fn client(&self, program: &str, arguments: &[&str], options: &str) -> anyhow::Result<String> {
        let port = self.primary.address.port().to_string();
        self.installed.run(program, |command| {
            command.env("PGOPTIONS", options).env("PGCONNECT_TIMEOUT", "5");
            command.args(["-h", "127.0.0.1", "-U", SUPERUSER, "-p", &port]).args(arguments)
        })
    }
}

/// A primary that is one no more, and may not know it. When dropped it ends, and its data go.
#[derive(Debug)]
pub struct FormerPrimary(Server);

impl Drop for FormerPrimary {
    fn drop(&mut self) {
        drop(self.0.process.take());
        let _ = fs::remove_dir_all(&self.0.data);
    }
}

impl Installed {
    fn find() -> anyhow::Result<Installed> {
        // Debian keeps each version in a folder of its own, and none on the path.
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let binaries = versions.map(|version| version.path().join("bin")).max().unwrap_or_default();
        let owner =
            if geteuid().is_root() { Some(user("postgres").or_else(|_| user("nobody"))?) } else { None };
        Ok(Installed { binaries, owner })
    }

    /// Gives a file or folder to whoever the server runs as.
    fn own(&self, path: &Path) -> anyhow::Result<()> {
        if let Some((user, group)) = self.owner {
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group).current_dir("/");
        }
        command
    }

    fn run(&self, program: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> anyhow::Result<String> {
        let mut command = self.command(program);
        let output = with(&mut command).output().with_context(|| program.to_owned())?;
        if !output.status.success() {
            bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Server {
    /// Starts it, as the stand-by of the primary there or as a primary.
    fn start(&mut self, installed: &Installed, primary: Option<SocketAddr>) -> anyhow::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.data.with_extension("log"))?;
        let mut command = installed.command("postgres");
        command.stdout(log.try_clone()?).stderr(log).arg("-D").arg(&self.data);
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("listen_addresses", "127.0.0.1");
        set("port", &self.address.port().to_string());
        set("unix_socket_directories", "");
        set("shared_buffers", "32MB");
        set("wal_keep_size", "256MB");
        set("wal_retrieve_retry_interval", "100ms");
        // Also once it is promoted: a primary commits nothing that is not on a stand-by.
        set("synchronous_standby_names", STANDBY);
        if let Some(primary) = primary {
            let (host, port) = (primary.ip(), primary.port());
            let way = format!("host={host} port={port} user={SUPERUSER} application_name={STANDBY}");
            set("primary_conninfo", &way);
        }
        self.process = Some(Process::spawn(&mut command, Signal::QUIT)?);
        Ok(())
    }

    fn running(&mut self) -> anyhow::Result<Process> {
        self.process.take().context("the database does not run")
    }
}

/// A port that was free just now.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
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
