//! Starts processes of the program, waits for their output, and ends them with the test.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, PipeReader, Read, empty, pipe},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use tokio::time::Instant;

use crate::api::{Api, ok};

/// Far longer than any step takes, so that no test fails because the machine is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The last lines of a process's output that are shown when its test fails.
const LAST_LINES: usize = 30;

/// A test's number of cycles or cuts: `scripts/soak` and `scripts/powercut` set more than a test run has.
#[expect(clippy::disallowed_methods, reason = "the tests' own settings, not the program's")]
pub(crate) fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// The program with an empty environment, so that no variable of the test's own reaches it.
pub(crate) fn rescind() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rescind"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// A running process. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts a process, and reads its standard error.
    pub(crate) fn spawn(command: &mut Command) -> Process {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let source = child.stderr.take().unwrap();
        Process::reading(child, source)
    }

    /// Starts a process, and reads its standard output.
    pub(crate) fn spawn_talking(command: &mut Command) -> Process {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let source = child.stdout.take().unwrap();
        Process::reading(child, source)
    }

    /// Starts a process, and leaves it to the test to read its standard error, or not to.
    pub(crate) fn spawn_unread(mut command: Command) -> (Process, PipeReader) {
        let (output, input) = pipe().unwrap();
        let child = command.stderr(input).spawn().unwrap();
        (Process::reading(child, empty()), output)
    }

    fn reading(child: Child, source: impl Read + Send + 'static) -> Process {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Process { child, lines, seen: vec![] }
    }

    /// The next line for which `wanted` has an answer.
    pub(crate) fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            // A process that repeats other lines for ever is given up too.
            let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) else {
                panic!("no {what} in:\n{}", self.seen.join("\n"));
            };
            let found = wanted(&line);
            self.seen.push(line);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// The next log line with this message.
    pub(crate) fn wait_for_log(&mut self, message: &str) -> Value {
        self.wait_for(message, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            (event["message"] == message).then_some(event)
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal. Returns after SIGSTOP when no thread of the process runs any more.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
        if signal == Signal::STOP {
            let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
            assert!(status.stopped(), "{status:?}");
        }
    }

    /// Waits for the end of the process. Returns its exit status and all its lines.
    pub(crate) async fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let mut status = None;
        // try_wait reaps it, so the id belongs to no other process afterwards.
        for _ in 0..PATIENCE.as_millis() / 10 {
            status = self.child.try_wait().unwrap();
            if status.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let status = status.expect("the process goes on");
        // The channel is closed at the end of the output, which another process that has the pipe would delay.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the process has ended, but not its output"),
            }
        }
        (status, std::mem::take(&mut self.seen))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.seen.extend(self.lines.try_iter());
            let last = self.seen.len().saturating_sub(LAST_LINES);
            eprintln!("the last that process {} said:\n{}", self.child.id(), self.seen[last..].join("\n"));
        }
    }
}

/// A `rescind serve` that answers.
pub(crate) struct Server {
    process: Process,
    /// The public listener.
    pub(crate) url: String,
    /// The management listener.
    pub(crate) management: String,
}

impl Server {
    /// Starts a server on free ports.
    pub(crate) fn start(data_dir: &Path) -> Server {
        Server::start_with(data_dir, &[])
    }

    /// Starts a server on free ports with these variables.
    pub(crate) fn start_with(data_dir: &Path, variables: &[(&str, &str)]) -> Server {
        Server::spawn(serve(data_dir).envs(variables.iter().copied()))
    }

    /// Starts a server by this command.
    pub(crate) fn spawn(command: &mut Command) -> Server {
        let mut process = Process::spawn(command);
        let serving = process.wait_for_log("serving");
        let url = |field: &str| format!("http://{}", serving[field].as_str().unwrap());
        Server { url: url("listen"), management: url("management"), process }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub(crate) fn wait_for_log(&mut self, message: &str) -> Value {
        self.process.wait_for_log(message)
    }

    /// The next line for which `wanted` has an answer.
    pub(crate) fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        self.process.wait_for(what, wanted)
    }

    /// Waits until the server reports that it is ready.
    pub(crate) async fn ready(&self) {
        let management = Api::new(&self.management);
        let ready = async {
            while management.get("/readyz").await != ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("the server is ready");
    }

    pub(crate) async fn ended(self) -> (ExitStatus, Vec<String>) {
        self.process.ended().await
    }

    /// Sends a signal and waits for the server's end.
    pub(crate) async fn stop(self, signal: Signal) -> (ExitStatus, Vec<String>) {
        self.signal(signal);
        self.ended().await
    }
}

/// `rescind serve` on free ports, not yet started.
pub(crate) fn serve(data_dir: &Path) -> Command {
    let mut command = rescind();
    command.args(["serve", "--listen", "127.0.0.1:0", "--management-listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data_dir);
    command
}

/// The outcome of a command that ends by itself.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Reads the one JSON value on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        let value = serde_json::from_str(&self.stdout);
        value.unwrap_or_else(|e| panic!("not exactly one JSON value: {e} in {self:?}"))
    }

    /// Asserts this exit code, nothing on standard output, and this text in one line on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, because: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        assert!(self.stderr.contains(because), "{because:?} is not in {self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

/// Runs a command of the program to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Outcome {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(PATIENCE) else {
        let _ = kill_process(pid, Signal::KILL);
        panic!("goes on: {command:?}");
    };
    let output = output.unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `rescind --data-dir DIR ARGS`.
pub(crate) fn cli<S: AsRef<OsStr>>(data_dir: &Path, args: impl IntoIterator<Item = S>) -> Outcome {
    run(&mut command(data_dir, args))
}

/// `rescind --data-dir DIR ARGS`.
pub(crate) fn command<S: AsRef<OsStr>>(data_dir: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = rescind();
    command.arg("--data-dir").arg(data_dir).args(args);
    command
}

/// Runs `rescind --data-dir DIR --json ARGS`, ARGS separated by spaces.
#[track_caller]
pub(crate) fn json(data_dir: &Path, args: &str) -> Value {
    cli(data_dir, ["--json"].into_iter().chain(args.split(' '))).json()
}
