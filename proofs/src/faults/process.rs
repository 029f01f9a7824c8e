//! Processes that are started, signalled, waited for, and never left running.

use std::{
    fs,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::sleep;

/// The limit for waits that should end by themselves; much longer than needed.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// The pause between two checks of a condition.
pub(super) const GLANCE: Duration = Duration::from_millis(25);

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    farewell: Signal,
}

impl Process {
    /// Starts a process. When dropped, it gets the signal `farewell` and is waited for.
    pub(super) fn spawn(command: &mut Command, farewell: Signal) -> anyhow::Result<Process> {
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Process { child, farewell })
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Sends a signal to the process and its children.
    pub(super) fn signal_family(&self, signal: Signal) -> anyhow::Result<()> {
        let children = self.children()?;
        self.signal(signal)?;
        for child in children {
            // The child may have ended meanwhile.
            let _ = kill_process(child, signal);
        }
        Ok(())
    }

    /// Kills the process and its children, and waits until they have ended.
    pub(super) async fn kill_family(self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        let children = self.children()?;
        self.signal_family(Signal::KILL)?;
        self.ended().await?;
        eventually("the processes are gone", PATIENCE, async || {
            children.iter().all(|&child| test_kill_process(child).is_err()).then_some(())
        })
        .await
    }

    fn children(&self) -> anyhow::Result<Vec<Pid>> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect())
    }

    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end of the process.
    pub(super) async fn ended(mut self) -> anyhow::Result<ExitStatus> {
        for _ in 0..PATIENCE.as_millis() / GLANCE.as_millis() {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(GLANCE).await;
        }
        bail!("process {} goes on", self.child.id());
    }

    /// Sends a signal and waits for the end.
    pub(super) async fn stop(self, signal: Signal) -> anyhow::Result<ExitStatus> {
        self.signal(signal)?;
        self.ended().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.signal_family(Signal::CONT);
            let _ = self.signal(self.farewell);
            let _ = self.child.wait();
        }
    }
}

/// Calls `ask` repeatedly until it returns a value.
pub(super) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(GLANCE).await;
        }
    };
    tokio::time::timeout(within, asking).await.with_context(|| format!("not within {within:?}: {what}"))
}
