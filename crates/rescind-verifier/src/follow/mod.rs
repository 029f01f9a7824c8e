//! Keeps a verifier fresh from a server's feed, so that it decides in memory like the server itself.
//!
//! A [`Follower`] is exact or bounded, as its [`Mode`] says. *Exact*: a server that has answered (a
//! logout, a suspension, an allowlist narrowed) has waited until this follower knew, or could decide
//! nothing any more. *Bounded*: it is known here within the bound, and no server waits.
//!
//! A follower that cannot be sure of that refuses with [`Denied::Stale`]. What it may decide until
//! counts from before the question "am I up to date?" was sent, on a clock that runs on in suspend: a
//! slow network, a stopped process or a sleeping machine make a follower refuse, never accept what it
//! should not.
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
mod known;
mod session;
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
use known::{Held, Seen};
use wire::Position;

/// Servers send a heartbeat every second.
const SILENCE: Duration = Duration::from_secs(5);
/// Between attempts to reach the server, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Whom to follow, and how closely.
#[derive(Clone)]
pub struct Options {
    /// The server's management listener, as `host:port`. It speaks plain HTTP: keep it to a network
    /// that you trust.
    pub server: String,
    /// A verifier token, as `rescind verifier create` prints it.
    pub token: String,
    /// How closely.
    pub mode: Mode,
    /// The server's public listener, as `host:port`, if [`Follower::verify_or_ask`] may ask there.
    pub introspection: Option<String>,
}

/// How closely a server is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What the server has answered is known. Its answers wait for this follower, at most until the
    /// lease has run out that it last gave: some 3 seconds.
    Exact,
    /// What the server has answered is known so much later, and nobody waits for it.
    Bounded(Duration),
}

impl Mode {
    /// For how long an answer is worth waiting for.
    fn patience(self) -> Duration {
        match self {
            Mode::Exact => Duration::from_secs(2),
            Mode::Bounded(bound) => bound,
        }
    }
}

impl Options {
    /// Bounded by 5 seconds, and no asking.
    pub fn new(server: impl Into<String>, token: impl Into<String>) -> Options {
        let mode = Mode::Bounded(Duration::from_secs(5));
        Options { server: server.into(), token: token.into(), mode, introspection: None }
    }

    /// Exact, and no asking.
    pub fn exact(server: impl Into<String>, token: impl Into<String>) -> Options {
        Options { mode: Mode::Exact, ..Options::new(server, token) }
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

/// Why the feed broke off. The follower goes on by itself; this is for logs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FeedError {
    /// The server cannot be reached, or went away.
    #[error("no connection: {0}")]
    Connection(String),
    /// The server refuses to be followed.
    #[error("the server answered {0}")]
    Refused(u16),
    /// Changes are missing: a new snapshot is needed.
    #[error("a gap in the feed: {got} came after {have}")]
    Gap {
        /// The last change applied.
        have: u64,
        /// The one that came.
        got: u64,
    },
    /// The server follows acknowledgements, but lends nothing: an older version than exact followers.
    #[error("the server gives no leases: it cannot be followed exactly")]
    NoLease,
    /// Nothing came for too long.
    #[error("nothing was heard for too long")]
    Silent,
    /// Not the feed of a server this version knows.
    #[error("the feed cannot be read")]
    Unreadable,
}

/// A verifier that follows a server. Cheap to clone; the feed ends with the last clone.
#[derive(Debug, Clone)]
pub struct Follower {
    shared: Arc<Shared>,
    task: Arc<Task>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// What the server tells this follower by from others with the same token.
    name: String,
    /// State and deadline are one object: neither is seen without the other.
    held: RwLock<Held>,
    /// The last change applied, for whoever waits for one.
    applied: watch::Sender<u64>,
    /// Rung when a snapshot is complete: no need to wait for the next regular question.
    complete: Notify,
    /// Why the feed broke off last; `None` while it runs.
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
    /// Begins to follow, in a task of the current tokio runtime. Until the first snapshot is there
    /// everything is refused with [`Denied::Stale`].
    pub fn start(options: Options) -> Follower {
        let shared = Arc::new(Shared {
            options,
            name: unique_name(),
            held: RwLock::default(),
            applied: watch::Sender::new(0),
            complete: Notify::new(),
            status: watch::Sender::new(Some(FeedError::Connection("not yet".into()))),
        });
        let task = tokio::spawn(follow(Arc::clone(&shared)));
        Follower { shared, task: Arc::new(Task(Mutex::new(task))) }
    }

    /// Ends it, for every clone: from now on everything is refused with [`Denied::Stale`]. An exact
    /// follower tells the server, which then need not wait for its lease to run out: call this at the
    /// end of an orderly shutdown.
    pub async fn leave(&self) {
        let mut task = self.task.0.lock().await;
        if !task.is_finished() {
            task.abort();
            let _ = (&mut *task).await;
        }
        // Nobody is left who could extend what is taken away here. Only now may it be told.
        *self.shared.held_mut() = Held::default();
        if self.shared.options.mode == Mode::Exact {
            // If it cannot be told, the lease runs out by itself.
            let _ = session::leave(&self.shared).await;
        }
    }

    /// Decides over an access token, presented from this address.
    pub fn verify(&self, token: &str, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        let held = self.shared.held();
        let known = held.fresh(clock::boot()).ok_or(Denied::Stale)?;
        let claims = known.verifier.authenticate(token, Kind::Access, known.time(clock::wall()))?;
        let seen = Seen { known, client: claims.client };
        StandingToken::decide(claims, &seen)?.presented_by(caller)
    }

    /// Like [`verify`](Self::verify), but where the state is too old, or the token newer than it, the
    /// server is asked about this one token, if `introspection` says where. That is a request over
    /// the network, as long as the bound (exact: 2 seconds) at most: for middlewares that can wait.
    pub async fn verify_or_ask(&self, token: &str, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        let options = &self.shared.options;
        match (self.verify(token, caller), &options.introspection) {
            (Err(Denied::Stale | Denied::NotKnown), Some(server)) => {
                let (claims, known) = self.read(token)?;
                introspect::ask(options, server, token, claims, known, caller).await
            }
            (decided, _) => decided,
        }
    }

    /// What the token says, by the keys known last, and what was known of its client.
    fn read(&self, token: &str) -> Result<(Claims, Option<Arc<ClientPolicy>>), Denied> {
        let held = self.shared.held();
        let known = held.newest().ok_or(Denied::Stale)?;
        let claims = known.verifier.authenticate(token, Kind::Access, clock::wall())?;
        let policy = Seen { known, client: claims.client }.client(claims.client);
        Ok((claims, policy))
    }

    /// Whether it could decide at this moment.
    pub fn is_ready(&self) -> bool {
        self.shared.held().fresh(clock::boot()).is_some()
    }

    /// Waits until it can decide.
    pub async fn ready(&self) {
        let mut status = self.shared.status.subscribe();
        while !self.is_ready() {
            // Every renewal of the deadline is told through the status.
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells whenever the feed breaks off (why) and runs again (`None`).
    pub fn status(&self) -> watch::Receiver<Option<FeedError>> {
        self.shared.status.subscribe()
    }
}

async fn follow(shared: Arc<Shared>) {
    let mut pause = PAUSES.0;
    loop {
        let before = shared.held().deadline();
        let error = session::run(&shared).await;
        if matches!(error, FeedError::Gap { .. } | FeedError::Unreadable) {
            shared.held_mut().distrust();
        }
        shared.status.send_replace(Some(error));
        pause = if shared.held().deadline() > before { PAUSES.0 } else { PAUSES.1.min(pause * 2) };
        sleep(pause).await;
    }
}

impl Shared {
    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place that the feed may go on from.
    fn position(&self) -> Option<Position> {
        self.held().newest().filter(|known| known.sound).map(|known| known.position.clone())
    }
}

/// Unique among all processes: hashers are keyed at random.
fn unique_name() -> String {
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1))
}
