//! The tasks that run for the life of the process, by their names.

use std::{collections::HashMap, future::pending};

use futures_util::FutureExt;
use thiserror::Error;
use tokio::task::{Id, JoinError, JoinSet};

/// `loops` run until the stop. `finishers` end by themselves after the stop, when their work is written. Each is boxed, because the
/// runtime's part of a task is compiled for each type of future.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    loops: JoinSet<()>,
    finishers: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// A task ended before the service was stopped, so its work is no longer done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the task {name:?} {}", if *.panicked { "panicked" } else { "ended before the service was stopped" })]
pub struct TaskEnded {
    pub name: &'static str,
    pub panicked: bool,
}

impl Tasks {
    /// Runs a task that never ends by itself and may be aborted at any time.
    pub(super) fn run(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.loops.spawn(task.boxed()).id(), name);
    }

    /// Runs a task that ends by itself some time after it was asked to.
    pub(super) fn run_to_end(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.finishers.spawn(task.boxed()).id(), name);
    }

    /// Waits for the first task that ends. Before the stop no task may end.
    pub(super) async fn ended(&mut self) -> TaskEnded {
        let ended = tokio::select! {
            Some(ended) = self.loops.join_next_with_id() => ended,
            Some(ended) = self.finishers.join_next_with_id() => ended,
            else => pending().await,
        };
        self.name(ended)
    }

    /// Aborts the tasks that never end by themselves.
    pub(super) async fn stop(&mut self) {
        self.loops.shutdown().await;
    }

    /// Waits for the next task that was asked to end. `None`: none is left.
    pub(super) async fn finished(&mut self) -> Option<TaskEnded> {
        let ended = self.finishers.join_next_with_id().await?;
        Some(self.name(ended))
    }

    fn name(&self, ended: Result<(Id, ()), JoinError>) -> TaskEnded {
        let (id, panicked) =
            ended.map_or_else(|error| (error.id(), error.is_panic()), |(id, ())| (id, false));
        TaskEnded { name: self.names.get(&id).copied().unwrap_or_default(), panicked }
    }
}
