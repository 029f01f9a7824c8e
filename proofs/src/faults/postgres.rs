//! A PostgreSQL for the tests: a primary, and a stand-by without which it never commits.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use rand::{TryRng, rngs::SysRng};
use rustix::process::Signal;

use super::{
    installed::Installed,
    process::{PATIENCE, Process, eventually},
    proxy::{Link, Proxy},
};

/// The stand-by's application name, and the database's users.
pub(super) const STANDBY: &str = "standby";
pub(super) const SUPERUSER: &str = "postgres";
const USER: &str = "rescind";

/// The two servers.
#[derive(Debug)]
pub struct Postgres {
    pub(super) installed: Installed,
    folder: PathBuf,
    primary: Server,
    standby: Option<Server>,
    /// The stand-by's link to its primary.
    replication: Proxy,
    copies: u32,
}

/// A copy of the primary, from which a later moment can be restored.
#[derive(Debug)]
pub(super) struct Backup(PathBuf);

#[derive(Debug)]
struct Server {
    data: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl Postgres {
    /// Starts both servers in this folder, with an empty database. `programs`: as [`Setup::postgres`].
    ///
    /// # Errors
    ///
    /// Fails if a server cannot be started.
    ///
    /// [`Setup::postgres`]: super::Setup::postgres
    pub async fn start(programs: Option<&Path>, folder: &Path) -> anyhow::Result<Postgres> {
        Postgres::start_with(Installed::find(programs)?, folder).await
    }

    /// Starts both servers with these programs.
    pub(super) async fn start_with(installed: Installed, folder: &Path) -> anyhow::Result<Postgres> {
        installed.own(folder)?;
        let mut primary = Server { data: folder.join("pg-0"), address: free_address()?, process: None };
        installed.initialize(&primary.data, &[])?;
        primary.start(&installed, &[])?;
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

    /// The primary's address.
    pub fn address(&self) -> SocketAddr {
        self.primary.address
    }

    /// The stand-by's address.
    pub(super) fn standby_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.standby.as_ref().context("there is no stand-by")?.address)
    }

    /// The value of `database.url` for a server whose link has this address.
    pub fn url(through: SocketAddr) -> String {
        format!("postgres://{USER}@{through}/{USER}")
    }

    /// Waits until the primary answers.
    ///
    /// # Errors
    ///
    /// Fails after 60 s.
    pub async fn answers(&self) -> anyhow::Result<()> {
        self.eventually("the database answers", "SELECT pg_is_in_recovery()", "f").await
    }

    /// Waits until commits wait for the stand-by.
    ///
    /// # Errors
    ///
    /// Fails after 60 s.
    pub async fn is_synchronous(&self) -> anyhow::Result<()> {
        self.eventually("the stand-by follows", "SELECT sync_state FROM pg_stat_replication", "sync").await
    }

    /// Copies the primary and starts the copy as its stand-by.
    ///
    /// # Errors
    ///
    /// Fails if the copy cannot be made or started.
    pub async fn add_standby(&mut self) -> anyhow::Result<()> {
        self.add_standby_behind(Duration::ZERO).await
    }

    /// Like `add_standby`, with a stand-by that shows each commit only after `delay`.
    pub(super) async fn add_standby_behind(&mut self, delay: Duration) -> anyhow::Result<()> {
        self.standby = None;
        let Backup(data) = self.back_up()?;
        self.installed.write(&data.join("standby.signal"), "")?;
        let mut standby = Server { data, address: free_address()?, process: None };
        let (host, port) = (self.replication.address().ip(), self.replication.address().port());
        let way = format!("host={host} port={port} user={SUPERUSER} application_name={STANDBY}");
        let delay = format!("{}ms", delay.as_millis());
        let settings = [("primary_conninfo", way), ("recovery_min_apply_delay", delay)];
        standby.start(&self.installed, &settings)?;
        self.standby = Some(standby);
        self.replication.set(Link::Open);
        self.is_synchronous().await
    }

    /// Copies the primary.
    pub(super) fn back_up(&mut self) -> anyhow::Result<Backup> {
        self.copies += 1;
        let data = self.folder.join(format!("pg-{}", self.copies));
        let port = self.primary.address.port().to_string();
        self.installed.run("pg_basebackup", |command| {
            command.args(["-h", "127.0.0.1", "-U", SUPERUSER, "-p", &port]);
            command.args(["-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(&data)
        })?;
        Ok(Backup(data))
    }

    /// The present time of the primary's clock.
    pub(super) fn moment(&self) -> anyhow::Result<String> {
        Ok(self.ask("SELECT clock_timestamp()")?.trim().to_owned())
    }

    /// Replaces both servers by a primary restored to this moment, from the backup and the old primary's log.
    pub(super) async fn restore(&mut self, backup: Backup, moment: &str) -> anyhow::Result<()> {
        // A recovery fails if the log has no commit later than its target.
        let later = ["-d", SUPERUSER, "-Atc", "SELECT pg_logical_emit_message(true, 'later', '')"];
        self.client("psql", &later, "-c synchronous_commit=local")?;
        self.kill().await?;
        let gone = [self.standby.take(), Some(self.primary.moved())];
        let [_, Some(former)] = &gone else { bail!("there is no primary") };
        let Backup(data) = backup;
        self.primary = Server { data, address: free_address()?, process: None };
        self.installed.write(&self.primary.data.join("recovery.signal"), "")?;
        let settings = [
            ("restore_command", format!("cp '{}/pg_wal/%f' '%p'", former.data.display())),
            ("recovery_target_time", moment.to_owned()),
            ("recovery_target_action", "promote".to_owned()),
        ];
        self.primary.start(&self.installed, &settings)?;
        self.replication.lead_to(self.primary.address);
        self.answers().await?;
        gone.into_iter().flatten().for_each(|server| drop(FormerPrimary(server)));
        Ok(())
    }

    /// Stops both servers, and upgrades the primary to a newer version.
    pub(super) async fn upgrade(&mut self, newer: Installed) -> anyhow::Result<()> {
        self.stop().await?;
        self.standby = None;
        self.copies += 1;
        let data = self.folder.join(format!("pg-{}", self.copies));
        newer.initialize(&data, &["--no-data-checksums"])?;
        let ports = [free_address()?, free_address()?].map(|address| address.port().to_string());
        newer.run("pg_upgrade", |command| {
            command.args(["-U", SUPERUSER, "--no-sync", "-p", &ports[0], "-P", &ports[1]]);
            command.arg("-b").arg(&self.installed.binaries).arg("-B").arg(&newer.binaries);
            command.arg("-d").arg(&self.primary.data).arg("-D").arg(&data);
            command.arg("-s").arg(&self.folder).current_dir(&self.folder)
        })?;
        self.installed = newer;
        self.primary = Server { data, address: free_address()?, process: None };
        self.primary.start(&self.installed, &[])?;
        self.replication.lead_to(self.primary.address);
        self.answers().await
    }

    /// Makes the primary wait for no stand-by from now on; commits that wait now are answered.
    pub(super) fn empty_names(&self) -> anyhow::Result<()> {
        self.ask("ALTER SYSTEM SET synchronous_standby_names = ''")?;
        self.ask("SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// The primary's timeline.
    pub(super) fn timeline(&self) -> anyhow::Result<String> {
        let timeline = self.ask("SELECT ltrim(left(pg_walfile_name(pg_current_wal_lsn()), 8), '0')")?;
        Ok(timeline.trim().to_owned())
    }

    /// Kills the primary's processes, as a failure of its machine does. The folder remains.
    ///
    /// # Errors
    ///
    /// Fails if the primary does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.primary.running()?.kill_family().await
    }

    /// Stops the primary in order, without waiting for its connections to end.
    ///
    /// # Errors
    ///
    /// Fails if the primary does not run.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.primary.running()?.stop(Signal::INT).await?;
        Ok(())
    }

    /// Starts the primary again, and waits until it answers.
    ///
    /// # Errors
    ///
    /// Fails if the primary does not answer.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.primary.start(&self.installed, &[])?;
        self.answers().await
    }

    /// Promotes the stand-by. The caller drops the former primary, whether it still runs or not.
    ///
    /// # Errors
    ///
    /// Fails if there is no stand-by, or if it cannot be promoted.
    pub async fn promote(&mut self) -> anyhow::Result<FormerPrimary> {
        let standby = self.standby.take().context("there is no stand-by")?;
        let former = self.primary.moved();
        self.primary = standby;
        let data = self.primary.data.clone();
        self.installed.run("pg_ctl", |command| command.args(["promote", "-w", "-s", "-D"]).arg(data))?;
        self.answers().await?;
        self.replication.lead_to(self.primary.address);
        self.replication.set(Link::Open);
        Ok(FormerPrimary(former))
    }

    /// Pauses the stand-by, and so every commit.
    ///
    /// # Errors
    ///
    /// Fails if there is no stand-by.
    pub fn pause_standby(&self) -> anyhow::Result<()> {
        self.signal_standby(Signal::STOP)
    }

    /// Resumes the stand-by.
    ///
    /// # Errors
    ///
    /// Fails if there is no stand-by.
    pub fn resume_standby(&self) -> anyhow::Result<()> {
        self.signal_standby(Signal::CONT)
    }

    /// Stops the replication of new commits to the stand-by.
    pub(super) fn cut_off_standby(&self) {
        self.replication.set(Link::Stalled { requests: true, answers: true });
    }

    fn signal_standby(&self, signal: Signal) -> anyhow::Result<()> {
        let standby = self.standby.as_ref().and_then(|standby| standby.process.as_ref());
        standby.context("there is no stand-by")?.signal_family(signal)
    }

    async fn eventually(&self, what: &str, sql: &str, wanted: &str) -> anyhow::Result<()> {
        let ask = async || (self.ask(sql).ok()?.trim() == wanted).then_some(());
        eventually(what, PATIENCE, ask).await
    }

    /// The primary's answer to a query.
    fn ask(&self, sql: &str) -> anyhow::Result<String> {
        self.client("psql", &["-d", SUPERUSER, "-Atc", sql], "")
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

/// A server that is no longer the primary, and may not know it. On drop it ends, and its data are deleted.
#[derive(Debug)]
pub struct FormerPrimary(Server);

impl Drop for FormerPrimary {
    fn drop(&mut self) {
        drop(self.0.process.take());
        let _ = fs::remove_dir_all(&self.0.data);
    }
}

impl Server {
    /// Starts the server, with settings in addition to the common ones.
    fn start(&mut self, installed: &Installed, settings: &[(&str, String)]) -> anyhow::Result<()> {
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
        settings.iter().for_each(|(name, value)| set(name, value));
        self.process = Some(Process::spawn(&mut command, Signal::QUIT)?);
        Ok(())
    }

    /// Takes the server out of its place.
    fn moved(&mut self) -> Server {
        Server { data: self.data.clone(), address: self.address, process: self.process.take() }
    }

    fn running(&mut self) -> anyhow::Result<Process> {
        self.process.take().context("the database does not run")
    }
}

/// An address whose port was free a moment ago. The port is below those that the system gives to connections and to
/// listeners that ask for any port, so that none of these takes it meanwhile.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    loop {
        let port = 20_000 + (SysRng.try_next_u32()? % 12_000) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
}
