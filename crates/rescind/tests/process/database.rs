//! A test's own database server, which the test can kill and start again.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdout, Command},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    disk::SmallDisk,
    fixture::{SCRIPT, connect, spawn},
};

pub(crate) struct Database {
    /// The script ends the server when the script's standard input ends.
    script: Child,
    says: BufReader<ChildStdout>,
    pub(crate) url: String,
}

impl Database {
    pub(crate) fn start() -> Database {
        Database::by(&mut Command::new(SCRIPT))
    }

    /// Starts a server that stores everything on this disk.
    pub(crate) fn start_on(disk: &SmallDisk) -> Database {
        Database::by(&mut disk.holding(Command::new(SCRIPT).env("TMPDIR", disk.path())))
    }

    fn by(script: &mut Command) -> Database {
        let (script, says, url) = spawn(script);
        Database { script, says, url }
    }

    /// The process in whose mount namespace the disk is.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.script)
    }

    /// Kills all processes of the server at once, like the failure of its machine.
    pub(crate) async fn kill(&self) {
        let server = self.server().await;
        // It starts no others while they are looked for.
        kill_process(server, Signal::STOP).unwrap();
        let mut family = children(server);
        family.push(server);
        for &process in &family {
            // A child may have ended by itself.
            let _ = kill_process(process, Signal::KILL);
        }
        gone(&family).await;
    }

    /// The server's first process.
    pub(crate) async fn server(&self) -> Pid {
        // It is there for as long as the connection is.
        let db = connect(&self.url).await;
        let row = db.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
        let [_, parent] = stat(Pid::from_raw(row.get(0)).unwrap()).unwrap();
        Pid::from_raw(parent.parse().unwrap()).unwrap()
    }

    /// Writes until the server's log has no room, which makes the whole server fail.
    pub(crate) async fn use_up_the_log(&self) {
        let db = connect(&self.url).await;
        let megabyte = "SELECT pg_logical_emit_message(false, 'test', repeat('x', 1048576))";
        while db.batch_execute(megabyte).await.is_ok() {}
    }

    /// Starts the ended server again, and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        self.script.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut said = String::new();
        self.says.read_line(&mut said).unwrap();
        if said.is_empty() {
            let mut log = String::new();
            self.script.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            panic!("the database does not start again:\n{log}");
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// Waits until all these processes have ended.
pub(crate) async fn gone(processes: &[Pid]) {
    let gone = async {
        while processes.iter().any(|&process| stat(process).is_some_and(|[state, _]| state != "Z")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
}

fn children(process: Pid) -> Vec<Pid> {
    let pid = process.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap()).unwrap()).collect()
}

/// A process's state and its parent. `None`: no such process runs.
fn stat(process: Pid) -> Option<[String; 2]> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // Its name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(") ").unwrap().1.split(' ').map(str::to_owned);
    Some([fields.next().unwrap(), fields.next().unwrap()])
}
