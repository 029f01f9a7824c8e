//! One server of the cluster.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Context;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;

use super::{
    caller::{CommandLine, Door},
    cluster::Setup,
    postgres::Postgres,
    process::{PATIENCE, Process, eventually},
    proxy::Proxy,
};

/// The terms of a node's lease, as the nodes are configured, in milliseconds.
pub(super) const LEASE: u64 = 3000;
pub(super) const MARGIN: u64 = 300;
pub(super) const DRIFT_PERCENT: u64 = 10;

/// W: how long a logout waits at most for an unavailable node.
pub(super) const WAIT: u64 = LEASE + LEASE * DRIFT_PERCENT / 100 + MARGIN;

/// A server with its own data folder and its own link to the database.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) door: Arc<Door>,
    /// The link to the database; `None` with an embedded store.
    link: Option<Proxy>,
    /// The link of attached verifiers to this node.
    pub(super) feed: Proxy,
    log: PathBuf,
    process: Option<Process>,
}

/// By how many seconds the boot clock and the monotonic clock of a node's machine are ahead.
pub(super) type Ahead = i64;

impl Node {
    /// A node that does not run yet.
    pub(super) async fn new(
        name: &str,
        program: &Path,
        folder: &Path,
        database: Option<SocketAddr>,
        master_key: &str,
    ) -> anyhow::Result<Node> {
        let link = match database {
            Some(address) => Some(Proxy::start(address).await?),
            None => None,
        };
        let command_line = CommandLine::new(program, folder.join(format!("node-{name}")));
        command_line.set("RESCIND_MASTER_KEY", master_key);
        command_line.set("RESCIND_LOG__FORMAT", "json");
        // Tokens do not expire in these tests, and no limit refuses a request.
        command_line.set("RESCIND_TOKENS__ACCESS_TTL", "1d");
        command_line.set("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0");
        if let Some(link) = &link {
            command_line.set("RESCIND_DATABASE__URL", Postgres::url(link.address()));
            command_line.set("RESCIND_CLUSTER__NODE_NAME", name);
            command_line.set("RESCIND_CLUSTER__LEASE", format!("{LEASE}ms"));
            command_line.set("RESCIND_CLUSTER__MARGIN", format!("{MARGIN}ms"));
            command_line.set("RESCIND_CLUSTER__CLOCK_DRIFT_PERCENT", DRIFT_PERCENT.to_string());
        }
        let log = folder.join(format!("node-{name}.log"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let door =
            Door { name: name.to_owned(), url: RwLock::new(format!("http://{nowhere}")), command_line };
        Ok(Node { door: Arc::new(door), link, feed: Proxy::start(nowhere).await?, log, process: None })
    }

    /// A node with an embedded store.
    pub(super) async fn single(setup: &Setup) -> anyhow::Result<Node> {
        Node::new("single", &setup.program, &setup.folder, None, &"0".repeat(64)).await
    }

    /// The link to the database.
    pub(super) fn link(&self) -> anyhow::Result<&Proxy> {
        self.link.as_ref().context("this node has no database")
    }

    /// Starts the node, and waits until it is ready.
    pub(super) async fn start(&mut self, ahead: Ahead) -> anyhow::Result<()> {
        let (log, said_before) = (&self.log, fs::metadata(&self.log).map_or(0, |log| log.len()));
        let said = || fs::read_to_string(log).unwrap_or_default().split_off(said_before as usize);
        let mut process = self.spawn(ahead)?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let ready = eventually("the node is ready", PATIENCE, async || {
            if !process.is_running() {
                // Restarts it, as a supervisor does. An operator's command may have held the folder.
                process = self.spawn(ahead).ok()?;
            }
            let serving = said().lines().rev().find_map(Serving::read)?;
            let ready = http.get(format!("http://{}/readyz", serving.management)).send().await.ok()?;
            ready.status().is_success().then_some(serving)
        });
        let serving = ready.await.with_context(|| format!("node {}: {}", self.door.name, said()))?;
        *self.door.url.write().unwrap_or_else(PoisonError::into_inner) = format!("http://{}", serving.listen);
        self.feed.lead_to(serving.management);
        self.process = Some(process);
        Ok(())
    }

    /// Starts the node where it cannot serve, and returns its exit status and log.
    pub(super) async fn fails_to_start(&self) -> anyhow::Result<(ExitStatus, String)> {
        let status = self.spawn(0)?.ended().await?;
        Ok((status, self.said()?))
    }

    /// The log so far.
    pub(super) fn said(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    fn spawn(&self, ahead: Ahead) -> anyhow::Result<Process> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.door.command_line.command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--management-listen", "127.0.0.1:0"]);
        if ahead != 0 {
            command = with_clocks_ahead(&command, ahead);
        }
        command.stdout(log.try_clone()?).stderr(log);
        Process::spawn(&mut command, Signal::KILL)
    }

    /// Stops the process by a signal until `go_on`.
    pub(super) fn pause(&self) -> anyhow::Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    pub(super) fn go_on(&self) -> anyhow::Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.end(Signal::KILL).await
    }

    /// Stops the node in order.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.end(Signal::TERM).await
    }

    async fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.process.take().context("the node does not run")?.stop(signal).await?;
        Ok(())
    }

    fn running(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("the node does not run")
    }
}

/// The addresses in the log line of a node that serves.
#[derive(Deserialize)]
struct Serving {
    listen: SocketAddr,
    management: SocketAddr,
}

impl Serving {
    fn read(line: &str) -> Option<Serving> {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["message"] == "serving").then(|| serde_json::from_value(event).ok())?
    }
}

/// The same command in a time namespace of its own.
fn with_clocks_ahead(command: &Command, seconds: Ahead) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--time", "--boottime", &seconds.to_string(), "--monotonic", &seconds.to_string(), "--"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}
