//! Makes a logout exact on several nodes and on every attached verifier: leases, waiting for
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
use rescind_base::{
    clock::Clock,
    model::{Actor, ChangeOrigin, SigningKeyRecord},
    random::Random,
};
use rescind_store::{NodeRow, Store, StoreError};
use tokio::sync::Mutex;

use crate::memory::Memory;
pub use barrier::Receipt;
pub use clock::{Apart, NodeClock};
pub use followers::{Attached, ExactFollowers, FollowerId, Outcome, TooMany};
pub use history::confirm;
pub use known::KnownFile;
pub use lease::{Lapsed, Lease};
pub use node::run;
pub use terms::Terms;

/// The pause between attempts to reach the store.
const PAUSE: Duration = Duration::from_millis(200);

/// This process's part of a cluster. A process that has the store to itself is a cluster of one.
pub struct Cluster {
    /// Until when this process may answer from memory.
    pub lease: Lease,
    /// How long leases are.
    pub terms: Terms,
    /// How far this process's wall clock differs from the other nodes'.
    pub node_clock: NodeClock,
    /// The exact verifiers that follow this process.
    pub followers: ExactFollowers,
    /// The store's record of the longest term that a lent lease may have; never longer than in the store.
    lent: Mutex<Duration>,
    /// The node's name in the status and the log.
    pub node_name: String,
    /// The newest known change of the database, kept on disk. `None` if one process has the store to itself.
    pub known: Option<KnownFile>,
    readings: barrier::Readings,
    roll: ArcSwapOption<Membership>,
    /// The issuer and audience of this node's tokens, for people.
    profile: String,
    not_renewed: ArcSwapOption<String>,
    clock: Clock,
    random: Random,
    store: Arc<Store>,
    memory: Arc<Memory>,
    histories_lost: Counter,
}

/// The options of a [`Cluster`].
pub struct Options {
    pub terms: Terms,
    pub node_name: String,
    /// The issuer and audience of this node's tokens, for people.
    pub profile: String,
    /// The newest known change, if the store is a PostgreSQL database.
    pub known: Option<KnownFile>,
    /// The longest lease that verifiers of earlier processes may still hold.
    pub lent: Duration,
    /// Counts how often the database lacked a change that had been answered for.
    pub histories_lost: Counter,
}

/// The cluster at this node's last renewal of its lease.
#[derive(Debug, Clone)]
pub struct Membership {
    /// This node's id.
    pub node: u64,
    /// The last change that this node has in memory.
    pub applied: u64,
    /// The number of the newest change.
    pub head: u64,
    /// Every node, and when its beat last changed, on this node's boot clock.
    pub nodes: Vec<(NodeRow, Duration)>,
    /// What this node found, when it joined, about the database's history.
    pub history: &'static str,
}

impl Membership {
    /// How many changes a node has not acknowledged.
    pub fn lag(&self, node: &NodeRow) -> u64 {
        self.head.saturating_sub(node.acked)
    }
}

impl Cluster {
    /// A process that has not joined yet.
    pub fn new(
        options: Options,
        store: Arc<Store>,
        memory: Arc<Memory>,
        clock: Clock,
        random: Random,
    ) -> Cluster {
        let Options { terms, node_name, profile, known, lent, histories_lost } = options;
        let followers = ExactFollowers::new(clock.clone(), terms);
        if !lent.is_zero() {
            followers.assume_predecessors(lent);
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
            followers,
            lent: Mutex::new(lent),
            node_name,
            profile,
            known,
            readings: barrier::Readings::default(),
            roll: ArcSwapOption::empty(),
            not_renewed: ArcSwapOption::empty(),
            clock,
            random,
            store,
            memory,
            histories_lost,
        }
    }

    /// The cluster at the last renewal. `None`: this process has not joined one.
    pub fn membership(&self) -> Option<Arc<Membership>> {
        self.roll.load_full()
    }

    /// Why this node could not renew its lease when it last tried. `None`: it could.
    pub fn not_renewed(&self) -> Option<Arc<String>> {
        self.not_renewed.load_full()
    }

    /// Generates a signing key that signs from now on.
    fn new_key(&self) -> Result<SigningKeyRecord, StoreError> {
        let new = self.memory.new_key(self.clock.now(), &self.random);
        new.map_err(|e| StoreError::Unreadable(e.to_string()))
    }

    /// The origin of changes that this node makes by itself.
    fn origin(&self) -> ChangeOrigin {
        ChangeOrigin::new(self.clock.now(), Actor::Service, &self.node_name)
    }
}
