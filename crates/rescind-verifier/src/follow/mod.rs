//! Keeps a verifier fresh from a server's feed, so that it decides in memory like the server itself.
//!
//! A [`Follower`] is *bounded*: whatever a server has answered (a logout, a suspension, an allowlist
//! narrowed) is known here within the bound, 5 seconds unless set otherwise, and a follower that
//! cannot be sure of that refuses with [`Denied::Stale`]. The bound counts from before the question
//! "am I up to date?" was sent, on a clock that runs on in suspend: a slow network, a stopped process
//! or a sleeping machine make a follower refuse, never accept what it should not.
//!
//! ```no_run
//! # async fn example() {
//! use rescind_verifier::follow::{Follower, Options};
//!
//! let follower = Follower::start(Options::new("127.0.0.1:8081", "rv_…"));
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
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::sleep,
};

use crate::{Claims, ClientPolicy, Denied, Kind, StandingToken, State, VerifiedToken};
use known::{Known, Seen};

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
    /// How old the state may be.
    pub bound: Duration,
    /// The server's public listener, as `host:port`, if [`Follower::verify_or_ask`] may ask there.
    pub introspection: Option<String>,
}

impl Options {
    /// A bound of 5 seconds, and no asking.
    pub fn new(server: impl Into<String>, token: impl Into<String>) -> Options {
        let bound = Duration::from_secs(5);
        Options { server: server.into(), token: token.into(), bound, introspection: None }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("server", &self.server)
            .field("bound", &self.bound)
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
    _task: Arc<Task>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// State and deadline are one object: neither is seen without the other.
    known: RwLock<Option<Known>>,
    /// The last change applied, for whoever waits for one.
    applied: watch::Sender<u64>,
    /// Rung when a snapshot is complete: no need to wait for the next regular question.
    complete: Notify,
    /// Why the feed broke off last; `None` while it runs.
    status: watch::Sender<Option<FeedError>>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    /// Begins to follow, in a task of the current tokio runtime. Until the first snapshot is there
    /// everything is refused with [`Denied::Stale`].
    pub fn start(options: Options) -> Follower {
        let shared = Arc::new(Shared {
            options,
            known: RwLock::new(None),
            applied: watch::Sender::new(0),
            complete: Notify::new(),
            status: watch::Sender::new(Some(FeedError::Connection("not yet".into()))),
        });
        let task = tokio::spawn(follow(Arc::clone(&shared)));
        Follower { shared, _task: Arc::new(Task(task)) }
    }

    /// Decides over an access token, presented from this address.
    pub fn verify(&self, token: &str, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().filter(|known| clock::boot() < known.deadline).ok_or(Denied::Stale)?;
        let claims = known.verifier.authenticate(token, Kind::Access, clock::wall())?;
        let seen = Seen { known, client: claims.client };
        StandingToken::decide(claims, &seen)?.presented_by(caller)
    }

    /// Like [`verify`](Self::verify), but where the state is too old, or the token newer than it, the
    /// server is asked about this one token, if `introspection` says where. That is a request over
    /// the network, as long as the bound at most: for middlewares that can wait.
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
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().ok_or(Denied::Stale)?;
        let claims = known.verifier.authenticate(token, Kind::Access, clock::wall())?;
        let policy = Seen { known, client: claims.client }.client(claims.client);
        Ok((claims, policy))
    }

    /// Whether it could decide at this moment.
    pub fn is_ready(&self) -> bool {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|known| clock::boot() < known.deadline)
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
        let before = shared.deadline();
        let error = session::run(&shared).await;
        if matches!(error, FeedError::Gap { .. } | FeedError::Unreadable) {
            shared.distrust();
        }
        shared.status.send_replace(Some(error));
        pause = if shared.deadline() > before { PAUSES.0 } else { PAUSES.1.min(pause * 2) };
        sleep(pause).await;
    }
}

impl Shared {
    /// What is known cannot be built upon: neither may the feed go on from it, nor its deadline be
    /// extended.
    fn distrust(&self) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_mut() {
            known.sound = false;
        }
    }

    fn deadline(&self) -> Duration {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map_or(Duration::ZERO, |known| known.deadline)
    }
}
