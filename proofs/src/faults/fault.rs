//! The faults, and their repair.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use rand::{RngExt, seq::SliceRandom};
use tokio::time::sleep;

use super::{
    clock::now,
    cluster::Cluster,
    proxy::{Link, Proxy},
};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// A node is paused for longer than its lease.
    NodePaused,
    /// A node is killed, and started again.
    NodeKilled,
    /// Every node in turn is stopped in order, and started again.
    RollingRestart,
    /// A node restarts on a machine with another boot time.
    OtherBootTime,
    /// A node's connections to the database are broken, and new ones fail.
    LinkCut,
    /// A node's connections to the database stay open, but carry nothing.
    LinkStalled,
    /// A node's connections to the database carry one direction only.
    LinkStalledOneWay,
    /// A node's connections to the database are slow.
    LinkSlow,
    /// The connections of a node's verifier to the node are broken, and new ones fail.
    FeedCut,
    /// The connections of a node's verifier to the node stay open, but carry nothing.
    FeedStalled,
    /// The database is killed, and started again.
    DatabaseKilled,
    /// The database is stopped in order, and started again.
    DatabaseStopped,
    /// The database is killed, and its stand-by takes over.
    Promotion,
    /// The stand-by takes over from a primary that still runs, and one node still uses the old primary.
    NodeLeftBehind,
    /// The stand-by is paused, and so is every commit.
    StandbyPaused,
    /// Commits stop waiting for the stand-by, which falls behind; the primary is killed, and the stand-by takes over.
    PromotedWithoutCommit,
    /// The database is restored to an earlier state.
    RestoredToAPointInTime,
}

/// What a fault has done.
#[derive(Debug)]
pub(super) struct Struck {
    pub(super) particulars: String,
    /// Since when the database's commits may be lost.
    pub(super) lost_since: Option<u64>,
}

impl Fault {
    /// Draws `count` faults of these kinds in random order, each kind equally often.
    pub(super) fn draw(count: usize, kinds: &[Fault], rng: &mut impl rand::Rng) -> Vec<Fault> {
        let mut drawn = vec![];
        while drawn.len() < count {
            let mut kinds = kinds.to_vec();
            kinds.shuffle(rng);
            drawn.extend(kinds);
        }
        drawn.truncate(count);
        drawn
    }

    /// Whether a node or verifier is unavailable for a while, so that a logout must wait.
    pub(super) fn silences_somebody(self) -> bool {
        matches!(
            self,
            Fault::NodePaused
                | Fault::NodeKilled
                | Fault::LinkCut
                | Fault::LinkStalled
                | Fault::LinkStalledOneWay
                | Fault::FeedCut
                | Fault::FeedStalled
        )
    }

    /// Whether the fault sends signals to nodes.
    pub(super) fn signals_nodes(self) -> bool {
        matches!(self, Fault::NodePaused | Fault::NodeKilled | Fault::RollingRestart | Fault::OtherBootTime)
    }

    /// Whether the database is unavailable for all nodes.
    pub(super) fn stops_the_database(self) -> bool {
        matches!(
            self,
            Fault::DatabaseKilled
                | Fault::DatabaseStopped
                | Fault::Promotion
                | Fault::PromotedWithoutCommit
                | Fault::RestoredToAPointInTime
        )
    }

    /// Causes the fault, repairs it, and returns its details.
    pub(super) async fn strike(self, cluster: &mut Cluster) -> anyhow::Result<Struck> {
        let which = cluster.rng.random_range(0..cluster.nodes.len());
        // From much less than a lease to more than W.
        let a_while = Duration::from_millis(cluster.rng.random_range(500..5500));
        let longer_than_a_lease = Duration::from_millis(cluster.rng.random_range(3800..6500));
        let node = &mut cluster.nodes[which];
        let name = node.door.name.clone();
        let told = |time: Duration| format!("node {name}, {:.1} s", time.as_secs_f64());
        let mut lost_since = None;
        let particulars = match self {
            Fault::NodePaused => {
                node.pause()?;
                sleep(longer_than_a_lease).await;
                node.go_on()?;
                told(longer_than_a_lease)
            }
            Fault::NodeKilled => {
                node.kill().await?;
                sleep(a_while).await;
                node.start(0).await?;
                told(a_while)
            }
            Fault::RollingRestart => {
                for node in &mut cluster.nodes {
                    node.stop().await?;
                    node.start(0).await?;
                }
                "all nodes".to_owned()
            }
            Fault::OtherBootTime => {
                let ahead = cluster.rng.random_range(1..1_000_000);
                node.stop().await?;
                node.start(ahead).await?;
                format!("node {name}, {ahead} s ahead")
            }
            Fault::LinkCut => broken(node.link()?, Link::Cut, a_while, told).await,
            Fault::LinkStalled => {
                broken(
                    node.link()?,
                    Link::Stalled { requests: true, answers: true },
                    longer_than_a_lease,
                    told,
                )
                .await
            }
            Fault::LinkStalledOneWay => {
                let requests = cluster.rng.random();
                let stalled = Link::Stalled { requests, answers: !requests };
                let way = if requests { "to it" } else { "from it" };
                let told = |time| format!("{} {way}", told(time));
                broken(node.link()?, stalled, longer_than_a_lease, told).await
            }
            Fault::FeedCut => broken(&node.feed, Link::Cut, a_while, told).await,
            Fault::FeedStalled => {
                let stalled = Link::Stalled { requests: true, answers: true };
                broken(&node.feed, stalled, longer_than_a_lease, told).await
            }
            Fault::LinkSlow => {
                let delay = Duration::from_millis(cluster.rng.random_range(20..400));
                let told = |time| format!("{}, {} ms each way", told(time), delay.as_millis());
                broken(node.link()?, Link::Slow(delay), a_while, told).await
            }
            Fault::DatabaseKilled => {
                cluster.postgres.kill().await?;
                cluster.postgres.start_again().await?;
                "started again at once".to_owned()
            }
            Fault::DatabaseStopped => {
                cluster.postgres.stop().await?;
                sleep(a_while).await;
                cluster.postgres.start_again().await?;
                format!("{:.1} s", a_while.as_secs_f64())
            }
            Fault::Promotion => {
                cluster.postgres.kill().await?;
                cluster.postgres.promote().await?;
                cluster.lead_nodes_to_the_primary()?;
                cluster.postgres.add_standby().await?;
                "and a new stand-by".to_owned()
            }
            Fault::NodeLeftBehind => {
                let former = cluster.postgres.promote().await?;
                let address = cluster.postgres.address();
                for (i, node) in cluster.nodes.iter().enumerate() {
                    if i != which {
                        node.link()?.lead_to(address);
                    }
                }
                cluster.postgres.add_standby().await?;
                sleep(longer_than_a_lease).await;
                cluster.nodes[which].link()?.lead_to(address);
                drop(former);
                told(longer_than_a_lease)
            }
            Fault::StandbyPaused => {
                cluster.postgres.pause_standby()?;
                sleep(a_while).await;
                cluster.postgres.resume_standby()?;
                format!("{:.1} s", a_while.as_secs_f64())
            }
            Fault::PromotedWithoutCommit => {
                lost_since = Some(now());
                cluster.postgres.empty_names()?;
                cluster.postgres.cut_off_standby();
                sleep(a_while).await;
                cluster.postgres.kill().await?;
                cluster.postgres.promote().await?;
                cluster.lead_nodes_to_the_primary()?;
                cluster.postgres.add_standby().await?;
                format!("{:.1} s", a_while.as_secs_f64())
            }
            Fault::RestoredToAPointInTime => {
                let backup = cluster.postgres.back_up()?;
                lost_since = Some(now());
                let moment = cluster.postgres.moment()?;
                sleep(a_while).await;
                cluster.postgres.restore(backup, &moment).await?;
                cluster.lead_nodes_to_the_primary()?;
                cluster.postgres.add_standby().await?;
                format!("{:.1} s back", a_while.as_secs_f64())
            }
        };
        Ok(Struck { particulars, lost_since })
    }
}

async fn broken(link: &Proxy, how: Link, time: Duration, told: impl FnOnce(Duration) -> String) -> String {
    link.set(how);
    sleep(time).await;
    link.set(Link::Open);
    told(time)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Fault::NodePaused => "node paused",
            Fault::NodeKilled => "node killed",
            Fault::RollingRestart => "rolling restart",
            Fault::OtherBootTime => "other boot time",
            Fault::LinkCut => "link cut",
            Fault::LinkStalled => "link stalled",
            Fault::LinkStalledOneWay => "link stalled one way",
            Fault::LinkSlow => "link slow",
            Fault::FeedCut => "feed cut",
            Fault::FeedStalled => "feed stalled",
            Fault::DatabaseKilled => "database killed",
            Fault::DatabaseStopped => "database stopped",
            Fault::Promotion => "promotion",
            Fault::NodeLeftBehind => "node left behind",
            Fault::StandbyPaused => "stand-by paused",
            Fault::PromotedWithoutCommit => "promoted without commit",
            Fault::RestoredToAPointInTime => "restored to a point in time",
        })
    }
}
