//! Why a node must connect again, or join anew.

use std::{collections::BTreeMap, time::Duration};

use rescind_base::telemetry::with_causes;
use rescind_store::StoreError;
use tokio::time::timeout;

use super::Cluster;

/// For how long a reason that was logged is not logged again, and how many are logged in that time.
const TOLD: Duration = Duration::from_secs(10);
const MAX_TOLD: usize = 8;

/// Why a node cannot continue as before.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database did not answer in time")]
    Silent,
    #[error("the database did not answer in time: {0}")]
    Held(String),
    #[error("the other nodes took this one for dead")]
    Fenced,
    #[error("the database went back, or another one came in its place: change {now} after {known}")]
    WentBack { now: u64, known: u64 },
    #[error(
        "the database is of another installation: name the right one in database.url, or restart this node to use \
         that one"
    )]
    Foreign,
    #[error(
        "node {id} ({name}) has {theirs}, and this node has {ours}: each would refuse the tokens of the other; set the \
         same on every node"
    )]
    OtherProfile { id: u64, name: String, theirs: String, ours: String },
}

impl Broken {
    /// Whether the database answers but must not be used. Only an operator can change that.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Broken::Foreign | Broken::OtherProfile { .. } | Broken::Store(StoreError::Unsuitable(_))
        )
    }

    /// The reason and its causes, on one line.
    pub(super) fn in_words(&self) -> String {
        with_causes(self)
    }
}

/// An outage.
pub(super) struct Away {
    pub(super) since: Duration,
    /// The last reason.
    last: String,
    /// When each reason was logged.
    told: BTreeMap<String, Duration>,
}

impl Away {
    pub(super) fn since(since: Duration) -> Away {
        Away { since, last: String::new(), told: BTreeMap::new() }
    }

    /// Returns whether this reason has to be logged: it is another one than before, and was not logged just now.
    pub(super) fn is_news(&mut self, why: &str, now: Duration) -> bool {
        if self.last == why {
            return false;
        }
        why.clone_into(&mut self.last);
        self.told.retain(|_, at| now.saturating_sub(*at) < TOLD);
        let is_news = self.told.len() < MAX_TOLD && !self.told.contains_key(why);
        if is_news {
            self.told.insert(why.to_owned(), now);
        }
        is_news
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
