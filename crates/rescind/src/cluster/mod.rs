//! A logout that is exact on several nodes and on every attached verifier: leases, the waiting for
//! acknowledgements, and joining. ARCHITECTURE.md has the protocol (Gray & Cheriton, "Leases", 1989).

mod barrier;
mod broken;
mod clock;
mod followers;
mod history;
mod known;
mod lease;
mod lent;
mod node;
mod terms;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;

use crate::{clock::Clock, config::Config, store::NodeRow};
pub use barrier::{Receipt, settle};
pub use clock::{Apart, NodeClock};
pub use followers::{Attached, FollowerId, Outcome, TooMany};
pub use history::confirm;
pub use known::KnownFile;
pub use lease::{Lapsed, Lease};
pub use lent::{before_lending, forget_lent};
pub use node::run;
pub use terms::{LONGEST_LEASE, Terms};

/// What this process has of a cluster. One that has the store to itself is a cluster of one.
#[derive(Debug)]
pub struct Cluster {
    /// Until when it may answer from memory.
    pub lease: Lease,
    /// How long leases are.
    pub terms: Terms,
    /// Whether its wall clock is that of the others.
    pub clock: NodeClock,
    /// The exact verifiers that follow this process.
    pub attached: Attached,
    lent: lent::Lent,
    /// For people.
    pub node_name: String,
    /// What is known of the database, kept beside it. None where one process has the store to itself.
    pub known: Option<KnownFile>,
    readings: barrier::Readings,
    roll: ArcSwapOption<Roll>,
    refusal: ArcSwapOption<String>,
}

/// The cluster as it was when this node renewed its lease last.
#[derive(Debug, Clone)]
pub struct Roll {
    /// This node.
    pub node: u64,
    /// The last change that it has in memory.
    pub applied: u64,
    /// The last change there was.
    pub head: u64,
    /// Every node, and when it was heard of last, on this node's boot clock.
    pub nodes: Vec<(NodeRow, Duration)>,
    /// How the database stood to what was known when this node joined.
    pub history: &'static str,
}

impl Cluster {
    /// A process that is no node yet. `lent` is the longest lease that verifiers may have of those that had the store
    /// before.
    pub fn new(
        config: &Config,
        lease: Lease,
        known: Option<KnownFile>,
        lent: Duration,
        clock: Clock,
    ) -> Cluster {
        let terms = config.terms();
        let attached = Attached::new(clock, terms);
        if !lent.is_zero() {
            attached.inherit(lent);
        }
        Cluster {
            lease,
            terms,
            clock: NodeClock::default(),
            attached,
            lent: lent::Lent::new(lent),
            node_name: config.node_name(),
            readings: barrier::Readings::default(),
            known,
            roll: ArcSwapOption::empty(),
            refusal: ArcSwapOption::empty(),
        }
    }

    /// The cluster as last seen. `None`: this process is no node of one.
    pub fn roll(&self) -> Option<Arc<Roll>> {
        self.roll.load_full()
    }

    /// Why this node does not use the database that it finds, if that is so.
    pub fn refusal(&self) -> Option<Arc<String>> {
        self.refusal.load_full()
    }

    fn refuse(&self, why: Option<String>) {
        self.refusal.store(why.map(Arc::new));
    }

    fn publish(&self, roll: Roll) {
        self.roll.store(Some(Arc::new(roll)));
    }
}
