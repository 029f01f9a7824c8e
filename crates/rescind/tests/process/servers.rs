//! PostgreSQL servers that can be copied, promoted, recovered and killed.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rand::{TryRng, rngs::SysRng};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::process::PATIENCE;

/// A PostgreSQL server. It ends with the thread that started it.
pub(crate) struct Postgres {
    data: PathBuf,
    pub(crate) port: u16,
    process: Option<Child>,
}

/// One of PostgreSQL's programs, of the version that `scripts/postgres` starts. As root it runs as the user `postgres`, because PostgreSQL refuses to run as root.
pub(crate) fn program(name: &str) -> Command {
    #[expect(clippy::disallowed_methods, reason = "how scripts/test names the programs of other versions")]
    let named = std::env::var_os("RESCIND_TEST_POSTGRES_PROGRAMS").map(PathBuf::from);
    let binaries = named.unwrap_or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        versions.map(|version| version.path().join("bin")).max().unwrap_or_default()
    });
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]).current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
    if geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg(binaries.join(name));
    command
}

#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A port that was free a moment ago. It is below those that the system gives to connections and to listeners that ask
/// for any port, so that none of these takes it meanwhile.
fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| 20_000 + (SysRng.try_next_u32().unwrap() % 12_000) as u16);
    ports.find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()).unwrap()
}

/// A folder that the server's user may write.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if geteuid().is_root() {
        run(Command::new("chown").arg("postgres").arg(folder.path()));
    }
    folder
}

impl Postgres {
    /// Starts a new server, with a database for the service.
    pub(crate) async fn start(folder: &Path, name: &str) -> Postgres {
        let mut postgres = Postgres { data: folder.join(name), port: free_port(), process: None };
        run(program("initdb")
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(&postgres.data));
        let archive = folder.join("archive");
        let copy = format!("mkdir -p {0} && cp %p {0}/%f", archive.display());
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nshared_buffers = '32MB'\n\
             max_connections = 100\nwal_keep_size = '256MB'\nwal_retrieve_retry_interval = '100ms'\n\
             archive_mode = on\narchive_command = '{copy}'\nrestore_command = 'cp {}/%f %p'\n",
            archive.display()
        );
        postgres.configure(&settings);
        postgres.run().await;
        postgres.ask("postgres", "CREATE DATABASE rescind").await;
        postgres
    }

    /// Copies the server's data. The copy does not run yet.
    pub(crate) fn copy(&self, to: &Path) -> Postgres {
        run(program("pg_basebackup")
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()])
            .args(["-X", "stream", "-c", "fast", "--no-sync", "-D"])
            .arg(to));
        Postgres { data: to.to_owned(), port: free_port(), process: None }
    }

    /// Starts a stand-by of this server, which can be promoted.
    pub(crate) async fn stand_by(&self, at: &Path) -> Postgres {
        let mut stand_by = self.copy(at);
        let way = format!("host=127.0.0.1 port={} user=postgres", self.port);
        stand_by.configure(&format!("primary_conninfo = '{way}'\n"));
        stand_by.signal_file("standby.signal");
        stand_by.run().await;
        stand_by
    }

    pub(crate) fn configure(&self, settings: &str) {
        let file = self.data.join("postgresql.auto.conf");
        let before = fs::read_to_string(&file).unwrap_or_default();
        fs::write(&file, before + settings).unwrap();
    }

    pub(crate) fn signal_file(&self, name: &str) {
        fs::write(self.data.join(name), "").unwrap();
    }

    /// Starts the server, and waits until it answers.
    pub(crate) async fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.data.with_extension("log")).unwrap();
        let mut command = program("postgres");
        command.arg("-D").arg(&self.data).args(["-p", &self.port.to_string()]);
        self.process = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        self.until("postgres", "SELECT 1", "1").await;
    }

    /// Queries one value, as text.
    async fn try_ask(&self, database: &str, sql: &str) -> Option<String> {
        let url = format!("postgres://postgres@127.0.0.1:{}/{database}", self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
        tokio::spawn(connection);
        let answers = client.simple_query(sql).await.ok()?;
        Some(
            answers
                .iter()
                .find_map(|answer| match answer {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                })
                .unwrap_or_default(),
        )
    }

    pub(crate) async fn ask(&self, database: &str, sql: &str) -> String {
        self.try_ask(database, sql).await.unwrap_or_else(|| panic!("{sql}"))
    }

    pub(crate) async fn until(&self, database: &str, sql: &str, wanted: &str) {
        let asking = async {
            while self.try_ask(database, sql).await.as_deref() != Some(wanted) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let log = self.data.with_extension("log");
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| panic!("{sql}: {}", fs::read_to_string(log).unwrap_or_default()));
    }

    /// Waits until the stand-by has everything that was written so far.
    pub(crate) async fn until_followed(&self) {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
        self.until("postgres", sql, "1").await;
    }

    pub(crate) async fn promote(&self) {
        self.until("postgres", "SELECT pg_promote()", "t").await;
        self.until("postgres", "SELECT pg_is_in_recovery()", "f").await;
    }

    pub(crate) fn stop(&mut self, how: Signal) {
        if let Some(mut process) = self.process.take() {
            let _ = kill_process(Pid::from_child(&process), how);
            process.wait().unwrap();
        }
    }

    /// Kills the server, like the failure of its machine.
    pub(crate) fn kill(&mut self) {
        self.stop(Signal::QUIT);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}
