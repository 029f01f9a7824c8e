//! Keeps a verifier up to date from a server's feed, so that it decides in memory like the server itself.
//!
//! A [`Follower`] is exact or bounded, as its [`Mode`] says. When a server has answered a change (a logout,
//! a suspension, a narrower allowlist), an *exact* follower already knows the change or refuses everything:
//! the server has waited for it. A *bounded* follower knows the change within its bound, and no server waits.
//!
//! A follower that may be out of date refuses with [`Denied::Stale`]. The time for which it may use an answer
//! of the server counts from before the question was sent, on a clock that runs on in suspend. So a slow
//! network, a stopped process or a sleeping machine can only make a follower refuse.
//!
//! ```no_run
//! # async fn example() {
//! use rescind_verifier::follow::{Follower, Options};
//!
//! let follower = Follower::start(Options::exact("127.0.0.1:8081", "rv_…"));
//! follower.ready().await;
//! let caller = Some("203.0.113.7".parse().unwrap());
//! let verdict = follower.verify("eyJ…", caller);
//! # }
//! ```

mod clock;
mod introspect;
mod session;
mod snapshot;
pub mod sse;
pub mod wire;

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{Mutex, Notify, watch},
    task::JoinHandle,
    time::sleep,
};

use crate::{Claims, ClientPolicy, Denied, Kind, StandingToken, State, VerifiedToken};
use snapshot::{SnapshotView, Snapshots};
use wire::Position;

/// A connection on which nothing arrives for this long is closed. Servers send a heartbeat every second.
const SILENCE: Duration = Duration::from_secs(5);
/// The pause between two attempts to reach the server, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Which server to follow, and how closely.
///
/// Later versions may add fields: make one with [`Options::new`] or [`Options::exact`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The server's management listener, as `host:port`. It speaks plain HTTP: keep it to a network
    /// that you trust.
    pub server: String,
    /// A verifier token, as `rescind verifier create` prints it.
    pub token: String,
    /// How closely the server is followed.
    pub mode: Mode,
    /// The server's public listener, as `host:port`, where [`Follower::verify_or_ask`] asks about single
    /// tokens. `None`: it does not ask.
    pub introspection: Option<String>,
}

/// How closely a server is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The follower knows every change that the server has answered. The server's answers wait for this
    /// follower, at most until the last lease that the server gave it has ended: about 3 seconds.
    Exact,
    /// The follower knows every change within this time after the server has answered it. The server does not
    /// wait.
    Bounded(Duration),
}

impl Mode {
    /// For how long the follower waits for an answer of the server.
    fn patience(self) -> Duration {
        match self {
            Mode::Exact => Duration::from_secs(2),
            Mode::Bounded(bound) => bound,
        }
    }
}

impl Options {
    /// A follower bounded by 5 seconds, that asks about no single token.
    pub fn new(server: impl Into<String>, token: impl Into<String>) -> Options {
        let mode = Mode::Bounded(Duration::from_secs(5));
        Options { server: server.into(), token: token.into(), mode, introspection: None }
    }

    /// An exact follower, that asks about no single token.
    pub fn exact(server: impl Into<String>, token: impl Into<String>) -> Options {
        Options::new(server, token).with_mode(Mode::Exact)
    }

    /// These options with this mode.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Options {
        Options { mode, ..self }
    }

    /// These options, with the public listener (`host:port`) at which [`Follower::verify_or_ask`] asks about
    /// single tokens.
    #[must_use]
    pub fn with_introspection(self, server: impl Into<String>) -> Options {
        Options { introspection: Some(server.into()), ..self }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("server", &self.server)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Why the connection to the feed ended. The follower connects again by itself: this is for logs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The server cannot be reached, or closed the connection.
    #[error("no connection: {0}")]
    Connection(String),
    /// The server answered with this status instead of the feed.
    #[error("the server answered {0}")]
    Refused(u16),
    /// Changes are missing: a new snapshot is needed.
    #[error("a gap in the feed: {got} came after {have}")]
    Gap {
        /// The last change applied.
        have: u64,
        /// The change that arrived.
        got: u64,
    },
    /// The server gives no leases. It is of a version before exact followers.
    #[error("the server gives no leases: it cannot be followed exactly")]
    NoLease,
    /// Nothing arrived for too long.
    #[error("nothing was heard for too long")]
    Silent,
    /// What arrived is not the feed of a server that this version can follow.
    #[error("the feed cannot be read")]
    Unreadable,
}

/// A verifier that follows a server. It is cheap to clone, and stops following when the last clone is
/// dropped.
#[derive(Debug, Clone)]
pub struct Follower {
    shared: Arc<Shared>,
    task: Arc<Task>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// The name by which the server tells apart the followers that share a verifier token.
    name: String,
    /// The state and the deadline until which it may decide, behind one lock, so that a verification reads
    /// both as they belong together.
    snapshots: RwLock<Snapshots>,
    /// The number of the last change applied.
    applied: watch::Sender<u64>,
    /// Notified when a snapshot is complete, so that the server is asked at once.
    complete: Notify,
    /// Why the last connection to the feed ended. `None` while the follower is up to date.
    status: watch::Sender<Option<FeedError>>,
}

#[derive(Debug)]
struct Task(Mutex<JoinHandle<()>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.get_mut().abort();
    }
}

impl Follower {
    /// Starts to follow the server, in a task of the current tokio runtime. Until the first snapshot has
    /// arrived, every token is refused with [`Denied::Stale`].
    ///
    /// # Panics
    ///
    /// If it is called outside of a tokio runtime.
    pub fn start(options: Options) -> Follower {
        let shared = Arc::new(Shared {
            options,
            name: unique_name(),
            snapshots: RwLock::default(),
            applied: watch::Sender::new(0),
            complete: Notify::new(),
            status: watch::Sender::new(Some(FeedError::Connection("not yet".into()))),
        });
        let task = tokio::spawn(follow(Arc::clone(&shared)));
        Follower { shared, task: Arc::new(Task(Mutex::new(task))) }
    }

    /// Stops following, for every clone: from now on every token is refused with [`Denied::Stale`]. An
    /// exact follower also ends its lease at the server, so that no change waits for the rest of it. Call
    /// this at the end of an orderly shutdown.
    pub async fn leave(&self) {
        let mut task = self.task.0.lock().await;
        if !task.is_finished() {
            task.abort();
            let _ = (&mut *task).await;
        }
        // The task that extends the deadline has ended. The state must be dropped before the lease is ended.
        *self.shared.snapshots_mut() = Snapshots::default();
        if self.shared.options.mode == Mode::Exact {
            // If the server cannot be reached, the lease ends by itself.
            let _ = session::leave(&self.shared).await;
        }
    }

    /// Checks an access token that was presented from this address. `None` is an address that is not
    /// known.
    ///
    /// # Errors
    ///
    /// [`Denied::Stale`]: the follower may be out of date. Otherwise the first rule that the token breaks,
    /// as [`Verifier::verify`](crate::Verifier::verify) reports it.
    pub fn verify(&self, token: &str, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        let snapshots = self.shared.snapshots();
        let snapshot = snapshots.fresh(clock::boot()).ok_or(Denied::Stale)?;
        let claims = snapshot.verifier.authenticate(token, Kind::Access, snapshot.time(clock::wall()))?;
        let view = SnapshotView { snapshot, client: claims.client };
        StandingToken::decide(claims, &view)?.presented_by(caller)
    }

    /// Like [`verify`](Self::verify), but if the state is too old, or older than the token, the server is
    /// asked about this one token (RFC 7662), where [`Options::introspection`] says. That is a request over
    /// the network, and takes as long as the bound at most (exact: 2 seconds).
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify). [`Denied::Stale`]: the server did not answer in time either.
    pub async fn verify_or_ask(&self, token: &str, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        let options = &self.shared.options;
        match (self.verify(token, caller), &options.introspection) {
            (Err(Denied::Stale | Denied::NotKnown), Some(server)) => {
                let (claims, policy) = self.read(token)?;
                introspect::ask(options, server, token, claims, policy, caller).await
            }
            (decided, _) => decided,
        }
    }

    /// The token's claims, by the keys of the newest snapshot, and its client's policy there.
    fn read(&self, token: &str) -> Result<(Claims, Option<Arc<ClientPolicy>>), Denied> {
        let snapshots = self.shared.snapshots();
        let snapshot = snapshots.newest().ok_or(Denied::Stale)?;
        let claims = snapshot.verifier.authenticate(token, Kind::Access, clock::wall())?;
        let policy = SnapshotView { snapshot, client: claims.client }.client(claims.client);
        Ok((claims, policy))
    }

    /// Whether the follower is up to date, and can decide at this moment.
    pub fn is_ready(&self) -> bool {
        self.shared.snapshots().fresh(clock::boot()).is_some()
    }

    /// Waits until the follower can decide.
    pub async fn ready(&self) {
        let mut status = self.shared.status.subscribe();
        while !self.is_ready() {
            // The status is sent again whenever the deadline is extended.
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Receives the reason whenever a connection to the feed ends, and `None` when the follower is up to
    /// date again.
    pub fn status(&self) -> watch::Receiver<Option<FeedError>> {
        self.shared.status.subscribe()
    }
}

async fn follow(shared: Arc<Shared>) {
    let mut pause = PAUSES.0;
    loop {
        let before = shared.snapshots().deadline();
        let error = session::run(&shared).await;
        if matches!(error, FeedError::Gap { .. } | FeedError::Unreadable) {
            shared.snapshots_mut().distrust();
        }
        shared.status.send_replace(Some(error));
        pause = if shared.snapshots().deadline() > before { PAUSES.0 } else { PAUSES.1.min(pause * 2) };
        sleep(pause).await;
    }
}

impl Shared {
    fn snapshots(&self) -> RwLockReadGuard<'_, Snapshots> {
        self.snapshots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshots_mut(&self) -> RwLockWriteGuard<'_, Snapshots> {
        self.snapshots.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The position that the feed may be continued from.
    fn position(&self) -> Option<Position> {
        self.snapshots().newest().filter(|snapshot| snapshot.sound).map(|snapshot| snapshot.position.clone())
    }
}

/// A name that no other process has. The standard library keys each hasher at random.
fn unique_name() -> String {
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1))
}
