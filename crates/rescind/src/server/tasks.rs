//! The tasks that run for the life of the process, by their names.

use std::{collections::HashMap, future::pending};

use thiserror::Error;
use tokio::task::{Id, JoinError, JoinSet};

/// What runs until the stop, and what runs until all that was answered is written and told.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    loops: JoinSet<()>,
    finishers: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// A task ended before the service was stopped: what it did is not done any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the task {name:?} {}", if *.panicked { "panicked" } else { "ended before the service was stopped" })]
pub struct TaskEnded {
    pub name: &'static str,
    pub panicked: bool,
}

impl Tasks {
    /// One that never ends, and may be broken off at any time.
    pub(super) fn run(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.loops.spawn(task).id(), name);
    }

    /// One that ends in its own time, once it is told to.
    pub(super) fn run_to_end(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.finishers.spawn(task).id(), name);
    }

    /// The first that ends, as none may before the stop.
    pub(super) async fn ended(&mut self) -> TaskEnded {
        let ended = tokio::select! {
            Some(ended) = self.loops.join_next_with_id() => ended,
            Some(ended) = self.finishers.join_next_with_id() => ended,
            else => pending().await,
        };
        self.name(ended)
    }

    /// Breaks off those that never end.
    pub(super) async fn stop(&mut self) {
        self.loops.shutdown().await;
    }

    /// Waits for one of those that were told to end. `None`: there is none left.
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
