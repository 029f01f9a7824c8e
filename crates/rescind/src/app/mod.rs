//! What one process is made of, put together.

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

/// One process's parts.
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
    /// Whether the wall clock can be believed.
    pub clock_watch: ClockWatch,
    pub on_unavailable: OnUnavailable,
    /// The store was not what was last written here, so every token was ended.
    pub went_back: Option<WentBack>,
    /// Callers may show a certificate.
    pub asks_for_certificates: bool,
    ready: watch::Sender<bool>,
    // Last, so that the store is closed before another process may take the folder.
    folder: DataFolder,
}

/// How often a client may succeed.
pub struct Quotas {
    pub logins: Quota,
    pub refreshes: Quota,
}

impl App {
    /// The data folder.
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// Whether new work is welcome, and can be done.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow() && self.cluster.lease.check().is_ok() && self.cluster.node_clock.check().is_ok()
    }

    /// Tells when it no longer is.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Tells probes to send new work elsewhere.
    pub fn begin_drain(&self) {
        self.ready.send_replace(false);
    }
}
