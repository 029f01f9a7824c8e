//! The feed over HTTP. `rescind_verifier::follow::wire` has the format.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::channel::{Channel, Sender};
use hyper::{
    HeaderMap,
    header::{CONNECTION, CONTENT_TYPE},
    http::request::Parts,
};
use rescind_base::model::{Counted, VerifierRecord};
use rescind_node::{
    app::{App, Holder, Stage},
    audit,
    cluster::{FollowerId, Lapsed, TooMany},
    memory::Changed,
};
use rescind_store::StoreError;
use rescind_verifier::{
    Denied,
    follow::wire::{
        ACK_PATH, Ack, AckMode, Acked, Change, Client, FEED_PATH, Hello, Position, What, event_id,
    },
};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::info;

use super::{
    bearer::bearer,
    body::JsonBody,
    error::{ApiError, Class},
};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// Clients or sessions in one event, and the networks after which it gets no further client. So it has about 1 MiB at most.
const PART: usize = 64;
const NETWORKS: usize = 10_000;
/// Events that are queued for a slow follower. When the queue is full, the stream waits for the follower.
const WAITING: usize = 16;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route(FEED_PATH, get(follow)).route(ACK_PATH, post(acknowledge))
}

/// Marks an answer to a verifier that has shown a valid token: its connection moves to a place aside.
#[derive(Debug, Clone, Copy)]
pub struct Vouched;

/// A verifier, known by the token in the head of its request. A caller without a valid token is refused before its
/// body is read, and its connection is closed.
struct Verifier(VerifierRecord);

impl FromRequestParts<Arc<App>> for Verifier {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let known = bearer(&parts.headers)
            .and_then(|token| verifier(app, token).ok_or_else(|| ApiError::bearer(Denied::NotKnown.into())));
        known.map(Verifier).map_err(|error| ([(CONNECTION, "close")], error).into_response())
    }
}

async fn follow(
    State(app): State<Arc<App>>,
    Verifier(verifier): Verifier,
    headers: HeaderMap,
) -> impl IntoResponse {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let (sender, body) = Channel::<Bytes>::new(WAITING);
    let stream = Stream { stage: app.stage(), app, verifier, sender };
    tokio::spawn(audit::in_current_request(stream.run(last)));
    (Extension(Vouched), [(CONTENT_TYPE, "text/event-stream")], Body::new(body))
}

/// Returns a head that includes every change answered for before this request was sent.
async fn acknowledge(
    State(app): State<Arc<App>>,
    Verifier(verifier): Verifier,
    JsonBody(ack): JsonBody<Ack>,
) -> (Extension<Vouched>, Result<Json<Acked>, ApiError>) {
    (Extension(Vouched), acknowledged(&app, verifier.id, ack).await)
}

async fn acknowledged(app: &App, verifier: u64, ack: Ack) -> Result<Json<Acked>, ApiError> {
    let feed = app.memory.registry.feed();
    // The order matters. First the follower is recorded, so that every change after the head waits for it, also in the
    // next process. Then the lease is checked, and only then the head is read: every change that any node answered for
    // before the check is applied here.
    let exact = match ack.mode {
        AckMode::Bounded => false,
        AckMode::Exact { follower } => {
            let acked = if ack.applied.epoch == feed.head().epoch { ack.applied.seq } else { 0 };
            // A place is free when the lease of another follower has ended.
            let lease = app.cluster.terms.lease.as_secs().max(1);
            let too_many =
                |error: TooMany| ApiError::new(Class::TooManyRequests, error.to_string()).retry_after(lease);
            app.cluster.followers.renew(follower_id(verifier, follower)?, acked).map_err(too_many)?;
            app.cluster.before_lending().await?;
            true
        }
        AckMode::Leave { follower } => {
            app.cluster.followers.leave(&follower_id(verifier, follower)?);
            false
        }
    };
    let left = app.cluster.lease.left();
    if left.is_zero() {
        return Err(StoreError::from(Lapsed).into());
    }
    let lease_ms = exact.then(|| u64::try_from(app.cluster.terms.lend(left).as_millis()).unwrap_or(0));
    // After all that can fail: a follower that is refused reports the same again.
    ack.usage.into_iter().for_each(|counted| reported(app, counted));
    Ok(Json(Acked { head: feed.head(), lease_ms }))
}

/// Counts what a follower has counted, of the clients and credentials that there are. What it had no room for, of client
/// 0, counts for all clients together.
fn reported(app: &App, counted: Counted) {
    let client = app.memory.registry.policy(counted.client);
    if client.is_none() && counted.client != 0 {
        return;
    }
    let is_known = client.is_some_and(|client| client.credentials.contains(&counted.credential));
    let credential = if is_known { counted.credential } else { 0 };
    app.metrics.verifications_reported.inc_by(app.usage.reported(Counted { credential, ..counted }));
}

fn follower_id(verifier: u64, name: String) -> Result<FollowerId, ApiError> {
    if !(1..=64).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ApiError::new(Class::Validation, "follower: expected 1 to 64 visible ASCII characters"));
    }
    Ok(FollowerId { verifier, name })
}

/// Returns the verifier of this token. `None`: the token is unknown or revoked.
pub(super) fn verifier(app: &App, token: &str) -> Option<VerifierRecord> {
    let hashes = app.memory.peppers.load().hashes(token);
    let verifiers = app.memory.verifiers.load();
    let found = hashes.iter().find_map(|hash| verifiers.iter().find(|known| known.token_hash == *hash))?;
    app.proved(Holder::Verifier(found.id), &found.token_hash, &hashes);
    Some(found.clone())
}

/// One follower's stream.
struct Stream {
    app: Arc<App>,
    verifier: VerifierRecord,
    stage: watch::Receiver<Stage>,
    sender: Sender<Bytes>,
}

/// The end of a stream: by a disconnect, a revocation, missed changes or the stop. The follower may connect again.
struct Ended;

impl Stream {
    async fn run(mut self, last: Option<Position>) {
        let (id, name) = (self.verifier.id, self.verifier.name.clone());
        info!(verifier = id, name, "a verifier follows");
        let Err(Ended) = self.send_all(last).await;
        info!(verifier = id, name, "a verifier follows no more");
    }

    async fn send_all(&mut self, last: Option<Position>) -> Result<std::convert::Infallible, Ended> {
        let app = Arc::clone(&self.app);
        let feed = app.memory.registry.feed();
        let mut changes = feed.subscribe();
        let head = feed.head();
        let mut seq = match last.filter(|last| last.epoch == head.epoch && feed.since(last.seq).is_some()) {
            Some(last) => {
                self.send("resumed", None, &last).await?;
                last.seq
            }
            None => {
                self.snapshot(&head).await?;
                head.seq
            }
        };
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            for changed in feed.since(seq).ok_or(Ended)? {
                seq += 1;
                let change = Change { seq, what: self.now(changed)? };
                let position = Position { epoch: head.epoch.clone(), seq };
                self.send("change", Some(&position), &change).await?;
            }
            tokio::select! {
                // Drop the `watch::Ref` at once: while it lives, senders block.
                () = async { drop(changes.wait_for(|&newest| newest > seq).await) } => {}
                _ = heartbeat.tick() => {
                    self.send("heartbeat", None, &Position { epoch: head.epoch.clone(), seq }).await?;
                }
                () = async { drop(self.stage.wait_for(|&stage| stage == Stage::Closing).await) } => return Err(Ended),
            }
        }
    }

    /// Sends the whole state. A part may already contain changes after `head`; those changes are sent again later.
    async fn snapshot(&mut self, head: &Position) -> Result<(), Ended> {
        let app = Arc::clone(&self.app);
        let profile = app.memory.issuer.profile();
        let hello = Hello {
            epoch: head.epoch.clone(),
            seq: head.seq,
            issuer: profile.issuer().to_owned(),
            audience: profile.audience().to_owned(),
            keys: app.memory.issuer.keyring().wire_keys(self.verifier.shares_hs256),
        };
        self.send("snapshot", None, &hello).await?;
        let (mut clients, mut networks) = (Vec::new(), 0);
        for (id, policy) in app.memory.registry.policies() {
            networks += policy.allowlist.entries().len();
            clients.push(Client::new(id, &policy));
            if clients.len() == PART || networks >= NETWORKS {
                self.send("clients", None, &clients).await?;
                clients.clear();
                networks = 0;
            }
        }
        if !clients.is_empty() {
            self.send("clients", None, &clients).await?;
        }
        for part in app.memory.registry.feed().ended().chunks(PART) {
            self.send("sessions", None, &part).await?;
        }
        self.send("complete", Some(head), head).await
    }

    /// Reads the present state of what has changed.
    fn now(&self, changed: Changed) -> Result<What, Ended> {
        Ok(match changed {
            Changed::Client(id) => {
                What::Client(Client::new(id, &*self.app.memory.registry.policy(id).ok_or(Ended)?))
            }
            Changed::Session(ended) => What::Session(ended),
            Changed::Keys => {
                What::Keys(self.app.memory.issuer.keyring().wire_keys(self.verifier.shares_hs256))
            }
        })
    }

    async fn send(&mut self, event: &str, id: Option<&Position>, data: &impl Serialize) -> Result<(), Ended> {
        let data = serde_json::to_string(data).map_err(|_| Ended)?;
        let id = id.map(|id| format!("id: {}\n", event_id(id))).unwrap_or_default();
        let text = format!("event: {event}\n{id}data: {data}\n\n");
        // Checked after the text is made, so that a revoked verifier gets no key that is newer than its revocation.
        if !self.app.memory.verifiers.load().iter().any(|verifier| verifier.id == self.verifier.id) {
            return Err(Ended);
        }
        tokio::select! {
            sent = self.sender.send_data(Bytes::from(text)) => sent.map_err(|_| Ended),
            () = async { drop(self.stage.wait_for(|&stage| stage == Stage::Closing).await) } => Err(Ended),
        }
    }
}
