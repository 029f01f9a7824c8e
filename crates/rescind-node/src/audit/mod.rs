//! The audit log: who changed what, and who tried what.
//!
//! The store writes a change's events in the same transaction, from the values before and after
//! (`changes.rs` of `rescind-base`). So each change has its record. Attempts of callers are counted in memory and written
//! every few seconds (`attempts.rs`). So no caller can fill the table, or has to wait for it. No event holds
//! a secret, a token, or any text of a caller but the request id.
//!
//! Refused requests are kept beside it with what explains them (`denials.rs`), and written by the same task.

mod attempts;
mod denials;

use std::{
    cell::RefCell,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::Either;
use hyper::header::HeaderValue;
use ipnet::IpNet;
use tracing::{Instrument, warn};

pub use attempts::Attempts;
pub use denials::{DenialCounts, Missed, Owner};
use denials::{Denials, Waiting};
use rescind_base::{
    clock::Clock,
    model::{Actor, ChangeOrigin, Check, ClientId, Denial, EventKind, Refusal, Retention},
};
use rescind_store::Store;

/// How often the counted attempts are written.
pub const WRITE_EVERY: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The request that this task answers.
    pub static REQUEST: Request;
    /// The operator who asks for what this task does.
    pub static OPERATOR: Arc<str>;
}

/// A request of the service.
#[derive(Debug)]
pub struct Request {
    pub id: HeaderValue,
    /// Why it is refused, noted by whoever knows most of it.
    refusal: RefCell<Option<Box<Refusal>>>,
}

impl Request {
    pub const fn new(id: HeaderValue) -> Request {
        Request { id, refusal: RefCell::new(None) }
    }
}

/// Notes why the present request is refused.
pub fn refused(refusal: Refusal) {
    // Outside of a request nobody asks.
    let _ = REQUEST.try_with(|request| request.refusal.replace(Some(Box::new(refusal))));
}

/// Notes that the present request fails a check, of which nothing else is known.
pub fn refused_by(check: Check) {
    refused(Refusal::new(check));
}

/// Returns why the present request is refused, as far as that was noted.
pub fn refusal() -> Option<Box<Refusal>> {
    REQUEST.try_with(|request| request.refusal.take()).ok().flatten()
}

/// Makes a future, which runs in a task of its own, a part of the present request.
pub fn in_current_request<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let future = future.in_current_span();
    let future = match OPERATOR.try_get() {
        Ok(operator) => Either::Left(OPERATOR.scope(operator, future)),
        Err(_) => Either::Right(future),
    };
    match REQUEST.try_with(|request| Request::new(request.id.clone())) {
        Ok(request) => Either::Left(REQUEST.scope(request, future)),
        Err(_) => Either::Right(future),
    }
}

/// One process's part in the audit log.
#[derive(Debug)]
pub struct Audit {
    pub retention: Retention,
    /// The same of denials.
    pub denial_retention: Retention,
    pub denial_counts: DenialCounts,
    clock: Clock,
    node: Arc<str>,
    notes: Mutex<Attempts>,
    denials: Mutex<Denials>,
    /// Held while denials are written.
    writing_denials: tokio::sync::Mutex<()>,
}

impl Audit {
    /// No attempts yet.
    pub fn new(retention: Retention, denial_retention: Retention, node: &str, clock: Clock) -> Audit {
        Audit {
            retention,
            denial_retention,
            denial_counts: DenialCounts::default(),
            clock,
            node: node.into(),
            notes: Mutex::default(),
            denials: Mutex::default(),
            writing_denials: tokio::sync::Mutex::default(),
        }
    }

    /// The name of this node.
    pub fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// The origin of a change made by the present request, or by the service itself.
    pub fn origin(&self, by: Actor, address: Option<IpAddr>) -> ChangeOrigin {
        let request = REQUEST.try_with(|request| request.id.to_str().ok().map(str::to_owned));
        ChangeOrigin {
            at: self.clock.now(),
            by,
            operator: (by == Actor::Operator).then(|| OPERATOR.try_get().ok()).flatten(),
            from: address.map(IpNet::from),
            node: Arc::clone(&self.node),
            request: request.ok().flatten(),
        }
    }

    /// Counts an attempt. The call is cheap, and has no limit.
    pub fn note(&self, kind: EventKind, client: Option<ClientId>, address: Option<IpAddr>) {
        self.notes().add(kind, client, address, self.clock.now());
    }

    /// Keeps a denial until it is written, if its owner has room. The call is cheap, and has no limit.
    pub fn keep_denial(&self, owner: Owner, check: Check, denial: impl FnOnce() -> (Denial, Option<Missed>)) {
        // In a statement of its own, so that the denial is made without the lock.
        let has_place = self.denials().take_place(owner, check, &self.denial_counts);
        if has_place {
            let (denial, missed) = denial();
            self.denials().put(Waiting { owner, check, denial, missed });
        }
    }

    fn denials(&self) -> MutexGuard<'_, Denials> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notes(&self) -> MutexGuard<'_, Attempts> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the counted attempts and the denials. If the store is unavailable, they are kept for the next
    /// call.
    pub async fn write(self: &Arc<Audit>, store: &Arc<Store>) {
        self.write_denials(store).await;
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

    /// Writes the denials, and deletes others if there are then too many. If the store is unavailable, they are kept for
    /// the next call.
    pub async fn write_denials(self: &Arc<Audit>, store: &Arc<Store>) {
        let (audit, store) = (Arc::clone(self), Arc::clone(store));
        let write = async move {
            // Whoever has waited here finds in the store what another has taken before.
            let _writing = audit.writing_denials.lock().await;
            let waiting = std::mem::take(&mut *audit.denials());
            let (denials, most) = (waiting.finished(), audit.denial_retention.max_rows);
            let count = denials.len() as u64;
            if count == 0 {
                return;
            }
            if let Err(error) = store.keep_denials(denials).await {
                warn!(%error, "denials could not be written; they are kept for later");
                return audit.denials().put_back(waiting, &audit.denial_counts);
            }
            audit.denial_counts.kept.fetch_add(count, Relaxed);
            // The sweep deletes the old ones: it knows whether the clock can be believed.
            while store.sweep_denials(0, most).await.is_ok_and(|done| !done) {}
        };
        // In a task of its own, so that a caller who disconnects does not lose them.
        if let Err(error) = tokio::spawn(in_current_request(write)).await {
            warn!(%error, "denials were lost");
        }
    }
}
