//! A logout that is exact on several nodes and on every attached verifier: leases, the waiting for
//! acknowledgements, and joining. ARCHITECTURE.md has the protocol (Gray & Cheriton, "Leases", 1989).

mod barrier;
mod broken;
mod catch_up;
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

use prometheus_client::metrics::counter::Counter;

use crate::{
    clock::Clock,
    memory::Memory,
    model::{Actor, ChangeOrigin},
    random::Random,
    store::{NodeRow, Store},
};
pub use barrier::Receipt;
pub use clock::{Apart, NodeClock};
pub use followers::{ExactFollowers, FollowerId, Outcome, TooMany};
pub use history::confirm;
pub use known::KnownFile;
pub use lease::{Lapsed, Lease};
pub use node::run;
pub use terms::Terms;

/// Between attempts to reach the store.
const PAUSE: Duration = Duration::from_millis(200);

/// What this process has of a cluster. One that has the store to itself is a cluster of one.
pub struct Cluster {
    /// Until when it may answer from memory.
    pub lease: Lease,
    /// How long leases are.
    pub terms: Terms,
    /// Whether its wall clock is that of the others.
    pub node_clock: NodeClock,
    /// The exact verifiers that follow this process.
    pub attached: ExactFollowers,
    lent: lent::Lent,
    /// For people.
    pub node_name: String,
    /// What is known of the database, kept beside it. None where one process has the store to itself.
    pub known: Option<KnownFile>,
    readings: barrier::Readings,
    roll: ArcSwapOption<Membership>,
    refusal: ArcSwapOption<String>,
    clock: Clock,
    random: Random,
    store: Arc<Store>,
    memory: Arc<Memory>,
    histories_lost: Counter,
}

/// What a cluster's part of a process is told.
pub struct Options {
    pub terms: Terms,
    pub node_name: String,
    /// What is known of the database, where there is one.
    pub known: Option<KnownFile>,
    /// The longest lease that verifiers may have of those that had the store before.
    pub lent: Duration,
    /// Counts the times that the database did not have what was answered for.
    pub histories_lost: Counter,
}

/// The cluster as it was when this node renewed its lease last.
#[derive(Debug, Clone)]
pub struct Membership {
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
    /// A process that is no node yet.
    pub fn new(
        options: Options,
        store: Arc<Store>,
        memory: Arc<Memory>,
        clock: Clock,
        random: Random,
    ) -> Cluster {
        let Options { terms, node_name, known, lent, histories_lost } = options;
        let attached = ExactFollowers::new(clock.clone(), terms);
        if !lent.is_zero() {
            attached.inherit(lent);
        }
        let lease = match store.postgres() {
            None => Lease::unlimited(clock.clone()),
            // Only a node that has joined may answer from memory.
            Some(_) => Lease::none(clock.clone()),
        };
        Cluster {
            lease,
            terms,
            node_clock: NodeClock::default(),
            attached,
            lent: lent::Lent::new(lent),
            node_name,
            known,
            readings: barrier::Readings::default(),
            roll: ArcSwapOption::empty(),
            refusal: ArcSwapOption::empty(),
            clock,
            random,
            store,
            memory,
            histories_lost,
        }
    }

    /// The cluster as last seen. `None`: this process is no node of one.
    pub fn roll(&self) -> Option<Arc<Membership>> {
        self.roll.load_full()
    }

    /// Why this node does not use the database that it finds, if that is so.
    pub fn refusal(&self) -> Option<Arc<String>> {
        self.refusal.load_full()
    }

    fn refuse(&self, why: Option<String>) {
        self.refusal.store(why.map(Arc::new));
    }

    /// The origin of what this node does by itself.
    fn origin(&self) -> ChangeOrigin {
        ChangeOrigin::new(self.clock.now(), Actor::Service, &self.node_name)
    }

    fn publish(&self, roll: Membership) {
        self.roll.store(Some(Arc::new(roll)));
    }
}
