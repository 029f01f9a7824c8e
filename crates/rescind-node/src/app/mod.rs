//! The parts of one process, put together.

mod audit_chain;
mod change;
mod clock_watch;
mod expiry;
mod first_link;
mod maintenance;
mod open;
mod operator;
mod rehash;
mod trends;
mod went_back;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64},
    },
};

use rescind_base::{
    clock::Clock,
    files::data_folder::DataFolder,
    model::{Expiring, ProtectedResource, TokenRules},
    random::Random,
    telemetry::{metrics::Metrics, trends::Trends},
};
use rescind_store::{Store, WentBack};
use tokio::sync::watch;

use crate::{
    audit::Audit,
    cluster::Cluster,
    config::{OnUnavailable, Setting, Webhook},
    limits::{Limiter, LogLimits, Quota, UncachedLogins},
    memory::Memory,
    usage::Usage,
};
pub use change::run_to_completion;
pub use clock_watch::{ClockView, ClockWatch};
pub use expiry::Validity;
pub use first_link::FirstLink;
use maintenance::Walk;
pub use open::{OpenError, WENT_BACK};
pub use operator::{ASKED, Asked, may_see, only_clients, spawn_as_asked};
pub use rehash::{AT_ONCE, Holder, Rehashes, rehash_in_passing};
pub use went_back::{EndError, end_every_token};

/// The parts of one process.
pub struct App {
    pub clock: Clock,
    pub random: Random,
    pub rules: TokenRules,
    pub store: Arc<Store>,
    pub memory: Arc<Memory>,
    pub cluster: Arc<Cluster>,
    pub audit: Arc<Audit>,
    pub usage: Arc<Usage>,
    pub limiter: Limiter,
    pub quotas: Quotas,
    pub uncached: UncachedLogins,
    pub log_limits: LogLimits,
    rehashes: Rehashes,
    pub metrics: Metrics,
    /// What the metrics were, for charts.
    pub trends: Trends,
    /// Judges whether the wall clock can be trusted.
    pub clock_watch: ClockWatch,
    pub on_unavailable: OnUnavailable,
    /// The store was not the one last written here, so every token was revoked.
    pub went_back: Option<WentBack>,
    /// The APIs whose metadata this service publishes.
    pub protected_resources: Vec<ProtectedResource>,
    /// Callers may present a certificate.
    pub asks_for_certificates: bool,
    /// The receivers of events.
    pub webhooks: Vec<Webhook>,
    /// The configuration, for people.
    pub settings: Vec<Setting>,
    /// For the metadata.
    pub scopes_supported: Vec<String>,
    stage: watch::Sender<Stage>,
    /// Where the listeners are, once they are bound.
    pub urls: OnceLock<Urls>,
    /// For the first administrator.
    pub first_link: FirstLink,
    walk: Mutex<Walk>,
    certificate: Mutex<Option<Validity>>,
    /// The notices of expiries that are due, and were given.
    told: Mutex<BTreeSet<Expiring>>,
    /// When the uses of credentials were swept last, in seconds of boot time.
    uses_swept: AtomicU64,
    /// A chain of the audit log does not continue its last checkpoint.
    chains_broken: AtomicBool,
    // The last field, so that the store is closed before another process can take the folder.
    folder: DataFolder,
}

/// How far the end of this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Serving,
    /// Probes say that new requests should go elsewhere, and those that come are answered.
    Leaving,
    /// No new requests come.
    Closing,
}

/// The URLs of a server's listeners.
#[derive(Debug)]
pub struct Urls {
    pub public: String,
    pub management: String,
}

/// The quotas of successes per client.
pub struct Quotas {
    pub logins: Quota,
    pub refreshes: Quota,
}

impl App {
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// Whether this process should get new requests, and can serve them.
    pub fn is_ready(&self) -> bool {
        *self.stage.borrow() == Stage::Serving
            && self.cluster.lease.check().is_ok()
            && self.cluster.node_clock.check().is_ok()
    }

    /// Notifies when the process comes nearer to its end.
    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Brings the process nearer to its end.
    pub fn enter(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }
}
