//! The audit log: who changed what, and who tried what.
//!
//! The store writes a change's events in the same transaction, from the values before and after
//! (`model/changes.rs`). So each change has its record. Attempts of callers are counted in memory and written
//! every few seconds (`attempts.rs`). So no caller can fill the table, or has to wait for it. No event holds
//! a secret, a token, or any text of a caller but the request id.

mod attempts;

use std::{
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::header::HeaderValue;
use ipnet::IpNet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

pub use attempts::Attempts;

use crate::{
    clock::Clock,
    model::{Actor, ChangeOrigin, ClientId, EventKind, Retention},
    store::Store,
};

/// How often the counted attempts are written.
const WRITE_EVERY: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The id of the request that this task answers.
    pub static REQUEST: HeaderValue;
}

/// One process's part in the audit log.
#[derive(Debug)]
pub struct Audit {
    pub retention: Retention,
    clock: Clock,
    node: Arc<str>,
    notes: Mutex<Attempts>,
}

impl Audit {
    /// No attempts yet.
    pub fn new(retention: Retention, node: &str, clock: Clock) -> Audit {
        Audit { retention, clock, node: node.into(), notes: Mutex::default() }
    }

    /// The origin of a change made by the present request, or by the service itself.
    pub fn origin(&self, by: Actor, address: Option<IpAddr>) -> ChangeOrigin {
        let request = REQUEST.try_with(|id| id.to_str().ok().map(str::to_owned));
        ChangeOrigin {
            at: self.clock.now(),
            by,
            from: address.map(IpNet::from),
            node: Arc::clone(&self.node),
            request: request.ok().flatten(),
        }
    }

    /// Counts an attempt. The call is cheap, and has no limit.
    pub fn note(&self, kind: EventKind, client: Option<ClientId>, address: Option<IpAddr>) {
        self.notes().add(kind, client, address, self.clock.now());
    }

    fn notes(&self) -> MutexGuard<'_, Attempts> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the counted attempts. If the store is unavailable, they are kept for the next call.
    pub async fn write(&self, store: &Store) {
        let notes = std::mem::take(&mut *self.notes());
        let events = notes.events(&self.node);
        if events.is_empty() {
            return;
        }
        if let Err(error) = store.record(events).await {
            warn!(%error, "what callers tried could not be written; it is kept for later");
            self.notes().merge(notes);
        }
    }
}

/// Writes the counted attempts every few seconds, and once more after `stop`.
pub async fn run(audit: Arc<Audit>, store: Arc<Store>, stop: impl Future<Output = ()>) {
    let mut stop = pin!(stop);
    let mut ticks = interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopped = tokio::select! {
            () = &mut stop => true,
            _ = ticks.tick() => false,
        };
        // Outside of the `select!`, so that `stop` cannot cancel the write.
        audit.write(&store).await;
        if stopped {
            return;
        }
    }
}
