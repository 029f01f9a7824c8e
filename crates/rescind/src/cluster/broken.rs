//! Why a node must connect again, or join anew.

use std::{error::Error, iter::successors};

use tokio::time::timeout;

use super::Cluster;
use crate::store::StoreError;

/// Why a node cannot continue as before.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database did not answer in time")]
    Silent,
    #[error("the other nodes took this one for dead")]
    Fenced,
    #[error("the database went back, or another one came in its place: change {now} after {known}")]
    WentBack { now: u64, known: u64 },
    #[error(
        "the database is of another installation: name the right one in database.url, or restart this node to use \
         that one"
    )]
    Foreign,
}

impl Broken {
    /// Whether the database answers but must not be used. Only an operator can change that.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Broken::Foreign | Broken::Store(StoreError::Unsuitable(_)))
    }

    /// The reason and its causes, on one line.
    pub(super) fn in_words(&self) -> String {
        let causes = successors(Some(self as &dyn Error), |&e| e.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}

/// Limits an answer to the lease's term: a later answer is of no use.
pub(super) async fn in_time<T>(
    cluster: &Cluster,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Broken> {
    let answer = timeout(cluster.terms.lease, answer).await;
    Ok(answer.map_err(|_| Broken::Silent)??)
}
