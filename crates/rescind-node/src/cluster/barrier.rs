//! Waits for the propagation of a change.

use std::{fmt, sync::Arc, time::Duration};

use rescind_base::clock::Clock;
use rescind_store::{NodeRow, Place, Postgres, StoreError};
use serde::{Deserialize, Serialize};
use tokio::{
    join,
    sync::Mutex,
    time::{sleep, timeout},
};
use tracing::{debug, warn};
use utoipa::ToSchema;

use super::{Cluster, Outcome};

/// The first and the longest pause between two reads of the nodes' acknowledgements.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(25));

/// The result of a propagation. Every verification that begins afterwards, on any node, applies the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The nodes that had to acknowledge.
    pub nodes: usize,
    /// The nodes that did. The leases of the others have ended.
    pub acknowledged: usize,
    /// How long the propagation took, from the commit on.
    pub milliseconds: u64,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Receipt { nodes, acknowledged, milliseconds } = self;
        match nodes {
            0 => write!(f, "no node was running"),
            _ => write!(f, "{acknowledged} of {nodes} nodes acknowledged, {milliseconds} ms"),
        }
    }
}

impl Cluster {
    /// Waits until every node and every attached exact verifier has all changes of this process, or can
    /// answer from memory no more. Called after the change's commit, and after memory has the change.
    ///
    /// # Errors
    ///
    /// Fails if the nodes cannot be read for as long as a lease may last, if the newest known change cannot
    /// be written to disk, or if another server takes over meanwhile. The change is committed, but its
    /// propagation is not confirmed.
    pub async fn propagate(&self) -> Result<Receipt, StoreError> {
        let committed_at = self.clock.elapsed();
        let (nodes, acknowledged) = match self.store.postgres() {
            None => {
                self.propagate_to_followers(self.memory.registry.feed().head().seq).await;
                if let Err(error) = self.forget_lent().await {
                    debug!(%error, "that leases are over could not be written");
                }
                (1, 1)
            }
            Some(postgres) => propagate_to_nodes(self, postgres, committed_at).await?,
        };
        let took = self.clock.elapsed().saturating_sub(committed_at);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Ok(Receipt { nodes, acknowledged, milliseconds })
    }

    /// Waits until the attached verifiers have this process's feed up to `seq`, or their leases have ended.
    pub(super) async fn propagate_to_followers(&self, seq: u64) {
        let Outcome { followers, acknowledged } = self.followers.settled(seq).await;
        if acknowledged < followers {
            warn!(followers, acknowledged, "the leases of verifiers that did not acknowledge have run out");
        }
    }
}

async fn propagate_to_nodes(
    cluster: &Cluster,
    postgres: &Postgres,
    committed_at: Duration,
) -> Result<(usize, usize), StoreError> {
    let readings = &cluster.readings;
    // Lists the nodes in a snapshot newer than the commit. A node that joins later loads the change.
    let members = async {
        loop {
            match readings.since(&cluster.clock, postgres, committed_at).await {
                Ok(members) => break members,
                Err(error) => debug!(%error, "the nodes cannot be read; trying again"),
            }
            sleep(PAUSES.1).await;
        }
    };
    let (members, ()) = join!(timeout(cluster.terms.wait(), members), postgres.notify());
    let members = members.map_err(|e| StoreError::Unavailable(e.into()))?;
    // The wait starts now: a repair of the database may have committed just before this read.
    let wait = members.nodes.iter().map(|node| node.wait).fold(cluster.terms.wait(), Duration::max);
    // On another server these rows and acknowledgements belong to other nodes.
    let is_elsewhere = || postgres.place().is_none_or(|used| !used.goes_on(&members.place));
    let mut newest = Arc::clone(&members);
    let everyone = async {
        let mut pause = PAUSES.0;
        while newest.missing(&members) > 0 && !is_elsewhere() {
            sleep(pause).await;
            pause = PAUSES.1.min(pause.mul_f64(1.5));
            // While the database is unavailable, only the time limit can end this wait.
            if let Ok(reading) = readings.since(&cluster.clock, postgres, cluster.clock.elapsed()).await {
                newest = reading;
            }
        }
    };
    // Writes the newest known change to disk, so that a database that goes back is detected.
    let keep = async {
        match &cluster.known {
            Some(file) => file.keep(|| postgres.known()).await,
            None => Ok(()),
        }
    };
    let (_, kept) = join!(timeout(wait, everyone), keep);
    kept.map_err(|e| StoreError::Unavailable(e.into()))?;
    if is_elsewhere() {
        return Err(StoreError::Unavailable("another server has taken over meanwhile".into()));
    }
    let listed = newest.listed(&members);
    Ok((listed, listed - newest.missing(&members)))
}

/// The nodes at one moment.
#[derive(Debug)]
struct Reading {
    /// On the boot clock, before the query was sent.
    asked_at: Duration,
    place: Place,
    head: u64,
    nodes: Vec<NodeRow>,
}

impl Reading {
    /// How many nodes of `members` have not acknowledged its head. A node that is no longer listed has no
    /// lease.
    fn missing(&self, members: &Reading) -> usize {
        self.nodes.iter().filter(|node| members.has(node) && node.acked < members.head).count()
    }

    /// How many nodes of `members` are still listed.
    fn listed(&self, members: &Reading) -> usize {
        self.nodes.iter().filter(|node| members.has(node)).count()
    }

    fn has(&self, node: &NodeRow) -> bool {
        self.nodes.iter().any(|member| member.id == node.id)
    }
}

/// The latest reading of the nodes, shared by all changes that wait at the same time.
#[derive(Debug, Default)]
pub(super) struct Readings {
    latest: Mutex<Option<Arc<Reading>>>,
}

impl Readings {
    /// The nodes at a moment after `at`.
    async fn since(
        &self,
        clock: &Clock,
        postgres: &Postgres,
        at: Duration,
    ) -> Result<Arc<Reading>, StoreError> {
        let mut latest = self.latest.lock().await;
        if let Some(reading) = latest.as_ref().filter(|reading| reading.asked_at >= at) {
            return Ok(Arc::clone(reading));
        }
        let asked_at = clock.elapsed();
        let (place, head, nodes) = postgres.nodes().await?;
        Ok(Arc::clone(latest.insert(Arc::new(Reading { asked_at, place, head, nodes }))))
    }
}
