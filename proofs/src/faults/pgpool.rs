//! Pgpool-II between a node and the database. It has reads answered by the stand-by.

use std::{fmt::Write, fs, net::SocketAddr, path::Path};

use anyhow::Context;
use rustix::process::Signal;

use super::{
    postgres::{Postgres, SUPERUSER, free_address},
    process::{PATIENCE, Process, eventually},
};

/// A running Pgpool-II.
#[derive(Debug)]
pub(super) struct Pgpool {
    pub(super) address: SocketAddr,
    _process: Process,
}

impl Pgpool {
    /// Starts Pgpool-II over both servers. It prefers the stand-by, statement by statement.
    pub(super) async fn start(postgres: &Postgres, folder: &Path) -> anyhow::Result<Pgpool> {
        let (address, control) = (free_address()?, free_address()?);
        let mut settings = String::new();
        let mut set = |name: &str, value: &str| writeln!(settings, "{name} = '{value}'");
        set("backend_clustering_mode", "streaming_replication")?;
        for (i, server, weight) in [(0, postgres.address(), "1"), (1, postgres.standby_address()?, "4")] {
            set(&format!("backend_hostname{i}"), &server.ip().to_string())?;
            set(&format!("backend_port{i}"), &server.port().to_string())?;
            set(&format!("backend_weight{i}"), weight)?;
            set(&format!("backend_flag{i}"), "DISALLOW_TO_FAILOVER")?;
        }
        set("listen_addresses", &address.ip().to_string())?;
        set("port", &address.port().to_string())?;
        set("pcp_listen_addresses", &control.ip().to_string())?;
        set("pcp_port", &control.port().to_string())?;
        for name in ["socket_dir", "pcp_socket_dir", "wd_ipc_socket_dir", "logdir"] {
            set(name, &folder.display().to_string())?;
        }
        set("pid_file_name", &folder.join("pgpool.pid").display().to_string())?;
        set("num_init_children", "48")?;
        set("load_balance_mode", "on")?;
        set("statement_level_load_balance", "on")?;
        set("sr_check_period", "1")?;
        set("sr_check_user", SUPERUSER)?;
        let (file, log) = (folder.join("pgpool.conf"), folder.join("pgpool.log"));
        fs::write(&file, settings)?;
        let log = fs::File::create(log)?;
        let mut command = postgres.installed.command("pgpool");
        command.arg("-n").arg("-f").arg(&file).stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn(&mut command, Signal::INT)
            .context("Pgpool-II is missing: Debian and Ubuntu have it as pgpool2")?;
        eventually("Pgpool-II answers", PATIENCE, async || {
            tokio::net::TcpStream::connect(address).await.ok().map(drop)
        })
        .await?;
        Ok(Pgpool { address, _process: process })
    }
}
