//! A logout that is exact on several nodes and on every attached verifier: leases, the waiting for
//! acknowledgements, and joining. ARCHITECTURE.md has the protocol (Gray & Cheriton, "Leases", 1989).

mod attached;
mod clock;
mod lease;
mod node;
mod settle;
mod terms;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;

use crate::{clock::Clock, config::Config, store::NodeRow};
pub use attached::{Attached, FollowerId, Outcome, TooMany};
pub use clock::{Apart, NodeClock};
pub use lease::{Lapsed, Lease};
pub use node::run;
pub use settle::{Receipt, settle};
pub use terms::Terms;

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
    /// For people.
    pub node_name: String,
    readings: settle::Readings,
    roll: ArcSwapOption<Roll>,
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
}

impl Cluster {
    /// A process that is no node yet.
    pub fn new(config: &Config, lease: Lease, clock: Clock) -> Cluster {
        let terms = config.terms();
        Cluster {
            lease,
            terms,
            clock: NodeClock::default(),
            attached: Attached::new(clock, terms),
            node_name: config.node_name(),
            readings: settle::Readings::default(),
            roll: ArcSwapOption::empty(),
        }
    }

    /// The cluster as last seen. `None`: this process is no node of one.
    pub fn roll(&self) -> Option<Arc<Roll>> {
        self.roll.load_full()
    }

    fn publish(&self, roll: Roll) {
        self.roll.store(Some(Arc::new(roll)));
    }
}
