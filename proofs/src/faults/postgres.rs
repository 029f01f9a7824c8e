//! A PostgreSQL of our own: a primary, and a stand-by that it never commits without.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::{
    installed::Installed,
    process::{PATIENCE, Process, eventually},
    proxy::{Link, Proxy},
};

/// What the stand-by calls itself, and who may log in.
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
    /// The stand-by's way to its primary.
    replication: Proxy,
    copies: u32,
}

/// The primary as it was at some moment, to go on from to a later one.
#[derive(Debug)]
pub(super) struct Backup(PathBuf);

#[derive(Debug)]
struct Server {
    data: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl Postgres {
    /// Starts both in this folder, with an empty database.
    pub async fn start(folder: &Path) -> anyhow::Result<Postgres> {
        Postgres::start_with(Installed::find()?, folder).await
    }

    /// The same with these programs.
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
        self.add_standby_behind(Duration::ZERO).await
    }

    /// The same; what it has flushed it shows only so much later.
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

    /// A copy of the primary.
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

    /// Now, by the primary's clock.
    pub(super) fn moment(&self) -> anyhow::Result<String> {
        Ok(self.ask("SELECT clock_timestamp()")?.trim().to_owned())
    }

    /// Both servers are gone, and the primary is there again as it was at that moment: from the backup, and from
    /// what the one that is gone has written since.
    pub(super) async fn restore(&mut self, backup: Backup, moment: &str) -> anyhow::Result<()> {
        // A recovery fails that meets no commit later than its target.
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

    /// Both servers are stopped, and the primary is there again as one of a newer version.
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

    /// From now on the primary waits for no stand-by, and whoever waits for one does so no more.
    pub(super) fn empty_names(&self) -> anyhow::Result<()> {
        self.ask("ALTER SYSTEM SET synchronous_standby_names = ''")?;
        self.ask("SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// How often the database's history has forked.
    pub(super) fn timeline(&self) -> anyhow::Result<String> {
        let timeline = self.ask("SELECT ltrim(left(pg_walfile_name(pg_current_wal_lsn()), 8), '0')")?;
        Ok(timeline.trim().to_owned())
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
        self.primary.start(&self.installed, &[])?;
        self.answers().await
    }

    /// The stand-by becomes the primary. What was the primary, killed or not, is to be dropped.
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

    /// The stand-by hangs, and with it every commit.
    pub fn pause_standby(&self) -> anyhow::Result<()> {
        self.signal_standby(Signal::STOP)
    }

    /// It goes on.
    pub fn resume_standby(&self) -> anyhow::Result<()> {
        self.signal_standby(Signal::CONT)
    }

    /// What the primary writes from now on does not reach the stand-by.
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

    /// What the primary says.
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

/// A primary that is one no more, and may not know it. When dropped it ends, and its data go.
#[derive(Debug)]
pub struct FormerPrimary(Server);

impl Drop for FormerPrimary {
    fn drop(&mut self) {
        drop(self.0.process.take());
        let _ = fs::remove_dir_all(&self.0.data);
    }
}

impl Server {
    /// Starts it, with these settings beside those that all have.
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

    /// Takes it out of its place.
    fn moved(&mut self) -> Server {
        Server { data: self.data.clone(), address: self.address, process: self.process.take() }
    }

    fn running(&mut self) -> anyhow::Result<Process> {
        self.process.take().context("the database does not run")
    }
}

/// A port that was free just now.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
