//! The parts of one process, put together.

mod change;
mod clock_watch;
mod maintenance;
mod open;
mod went_back;

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    audit::Audit,
    clock::Clock,
    cluster::Cluster,
    config::OnUnavailable,
    files::data_folder::DataFolder,
    limits::{Limiter, LogLimits, Quota, UncachedLogins},
    memory::Memory,
    model::TokenRules,
    random::Random,
    store::{Store, WentBack},
    telemetry::metrics::Metrics,
};
pub use change::run_to_completion;
pub use clock_watch::{ClockView, ClockWatch};
pub use open::{OpenError, WENT_BACK};
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
    pub limiter: Limiter,
    pub quotas: Quotas,
    pub uncached: UncachedLogins,
    pub log_limits: LogLimits,
    pub metrics: Metrics,
    /// Judges whether the wall clock can be trusted.
    pub clock_watch: ClockWatch,
    pub on_unavailable: OnUnavailable,
    /// The store was not the one last written here, so every token was revoked.
    pub went_back: Option<WentBack>,
    /// Callers may present a certificate.
    pub asks_for_certificates: bool,
    ready: watch::Sender<bool>,
    // The last field, so that the store is closed before another process can take the folder.
    folder: DataFolder,
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
        *self.ready.borrow() && self.cluster.lease.check().is_ok() && self.cluster.node_clock.check().is_ok()
    }

    /// Notifies when the process begins to drain.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Makes probes report that this process should get no new requests.
    pub fn begin_drain(&self) {
        self.ready.send_replace(false);
    }
}
