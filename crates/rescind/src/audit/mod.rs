//! The audit log: who changed what, and who tried what.
//!
//! What was changed the store writes down in the transaction of the change, from the values before and
//! after (`model/changes.rs`): no change is without its row, and no row without its change. What callers try
//! is counted in memory and written every few seconds (`attempts.rs`): nobody can fill the table by trying,
//! nor wait for it. No event holds a secret, a token, or anything that a caller has sent but the id of
//! the request.

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

/// How often what was noted is written.
const WRITE_EVERY: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The id of the request that this task answers.
    pub static REQUEST: HeaderValue;
}

/// One process's part in the log.
#[derive(Debug)]
pub struct Audit {
    pub retention: Retention,
    clock: Clock,
    node: Arc<str>,
    notes: Mutex<Attempts>,
}

impl Audit {
    /// Nothing noted yet.
    pub fn new(retention: Retention, node: &str, clock: Clock) -> Audit {
        Audit { retention, clock, node: node.into(), notes: Mutex::default() }
    }

    /// The origin of what the request under way does, or of what the service does by itself.
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

    /// Notes what a caller tried. Costs next to nothing, and can be told as often as it happens.
    pub fn note(&self, kind: EventKind, client: Option<ClientId>, address: Option<IpAddr>) {
        self.notes().add(kind, client, address, self.clock.now());
    }

    fn notes(&self) -> MutexGuard<'_, Attempts> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was noted. What cannot be written now is kept for the next time.
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

/// Writes what is noted every few seconds, until `stop`, and then once more.
pub async fn run(audit: Arc<Audit>, store: Arc<Store>, stop: impl Future<Output = ()>) {
    let mut stop = pin!(stop);
    let mut ticks = interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopped = tokio::select! {
            () = &mut stop => true,
            _ = ticks.tick() => false,
        };
        // Outside of the choice, so that no stop breaks it off.
        audit.write(&store).await;
        if stopped {
            return;
        }
    }
}
