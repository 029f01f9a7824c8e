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
mod connect;
mod hold;
mod introspect;
mod options;
mod session;
mod snapshot;
pub mod sse;
#[cfg(feature = "follow-tls")]
mod tls;
#[cfg(not(feature = "follow-tls"))]
#[path = "no_tls.rs"]
mod tls;
pub mod usage;
pub mod wire;

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use thiserror::Error;
use tokio::{
    sync::{Mutex, Notify, watch},
    task::JoinHandle,
    time::sleep,
};

pub use hold::Hold;
pub use options::{Mode, Options};
#[cfg(feature = "follow-tls")]
pub use tls::AuthorityError;

use crate::{Claims, ClientPolicy, Denied, Kind, UnixSeconds, VerifiedToken};
use connect::{Connector, Listener};
use hold::Holds;
use snapshot::{Confirmed, Snapshots};
use wire::Position;

/// A connection on which nothing arrives for this long is closed. Servers send a heartbeat every second.
const SILENCE: Duration = Duration::from_secs(5);
/// The pause between two attempts to reach the server, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Why the connection to the feed ended. The follower connects again by itself: this is for logs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The server cannot be reached, or closed the connection.
    #[error("no connection: {0}")]
    Connection(String),
    /// TLS could not be begun with the server, for this reason.
    #[error("no TLS connection: {0}")]
    Tls(String),
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
    connector: Connector,
    /// The name by which the server tells apart the followers that share a verifier token.
    name: String,
    snapshots: std::sync::Mutex<Snapshots>,
    /// The keys and the state, and the deadline until which they may decide: behind one pointer, so that a
    /// verification reads them as they belong together, and waits for nobody.
    confirmed: ArcSwapOption<Confirmed>,
    holds: Holds,
    counts: usage::Counts,
    /// The number of the last change applied.
    applied: watch::Sender<u64>,
    /// The last change applied for which no connection is still to be closed.
    settled: watch::Sender<Option<Position>>,
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
        let shared = Arc::new(Shared::new(options));
        let task = tokio::spawn(follow(Arc::clone(&shared)));
        Follower { shared, task: Arc::new(Task(Mutex::new(task))) }
    }

    /// Stops following, for every clone: from now on every token is refused with [`Denied::Stale`], and every
    /// [`Hold`] ends. An exact follower also ends its lease at the server, so that no change waits for the rest of
    /// it. Call this at the end of an orderly shutdown.
    pub async fn leave(&self) {
        let mut task = self.task.0.lock().await;
        if !task.is_finished() {
            task.abort();
            let _ = (&mut *task).await;
        }
        // The task that extends the deadline has ended. The state must be dropped before the lease is ended.
        self.shared.change(|snapshots| *snapshots = Snapshots::default());
        hold::end_refused(&self.shared).await.closed(&self.shared).await;
        // If the server cannot be reached, a lease ends by itself, and what was counted is lost.
        let _ = session::leave(&self.shared).await;
    }

    /// Checks an access token that was presented from this address. `None` is an address that is not
    /// known.
    ///
    /// # Errors
    ///
    /// [`Denied::Stale`]: the follower may be out of date. Otherwise the first rule that the token breaks,
    /// as [`Verifier::verify`](crate::Verifier::verify) reports it.
    pub fn verify(&self, token: &str, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        self.shared.presented(token, caller)
    }

    /// Checks an access token as [`verify`](Self::verify) does, and again whenever its verdict may change, for a
    /// connection that it opens.
    ///
    /// ```no_run
    /// # async fn example(follower: rescind_verifier::follow::Follower, token: &str) -> Result<(), rescind_verifier::Denied> {
    /// # async fn serve_connection() {}
    /// let mut hold = follower.hold(token, None)?;
    /// tokio::select! {
    ///     () = serve_connection() => {}
    ///     denied = hold.ended() => println!("closed: {denied}"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn hold(&self, token: &str, caller: Option<IpAddr>) -> Result<Hold, Denied> {
        Hold::new(self, token, caller)
    }

    /// Like [`verify`](Self::verify), but if the state is too old, or older than the token, the server is
    /// asked about this one token (RFC 7662), where [`Options::introspection`] says. That is a request over
    /// the network, and takes as long as the bound at most (exact: 2 seconds).
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify). [`Denied::Stale`]: the server did not answer in time either.
    pub async fn verify_or_ask(&self, token: &str, caller: Option<IpAddr>) -> Result<VerifiedToken, Denied> {
        let now = clock::wall();
        let decided = match (self.shared.decide(token, caller, now), &self.shared.options.introspection) {
            (Err(Denied::Stale | Denied::NotKnown), Some(server)) => match self.read(token, now) {
                // The server counts what it decides.
                Ok((claims, policy)) => {
                    return introspect::ask(&self.shared, server, token, claims, policy, caller).await;
                }
                Err(denied) => Err(denied),
            },
            (decided, _) => decided,
        };
        self.shared.counted(token, caller, now, decided)
    }

    /// The token's claims, by the keys of the newest snapshot, and its client's policy there.
    fn read(&self, token: &str, now: UnixSeconds) -> Result<(Claims, Option<Arc<ClientPolicy>>), Denied> {
        let (verifier, known) = self.shared.read(|snapshots| {
            let newest = snapshots.newest().ok_or(Denied::Stale)?;
            Ok((Arc::clone(&newest.verifier), Arc::clone(&newest.known)))
        })?;
        let claims = verifier.authenticate(token, Kind::Access, now)?;
        let policy = known.client(claims.client);
        Ok((claims, policy))
    }

    /// Whether the follower is up to date, and can decide at this moment.
    pub fn is_ready(&self) -> bool {
        !self.shared.fresh_for().is_zero()
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

    /// Receives the reason when a connection to the feed ends, and `None` when the follower is up to date again. A
    /// reason for which one attempt after another fails is told once.
    pub fn status(&self) -> watch::Receiver<Option<FeedError>> {
        self.shared.status.subscribe()
    }
}

async fn follow(shared: Arc<Shared>) {
    let mut pause = PAUSES.0;
    loop {
        let before = shared.read(Snapshots::deadline);
        let error = session::run(&shared).await;
        if matches!(error, FeedError::Gap { .. } | FeedError::Unreadable) {
            shared.change(Snapshots::distrust);
        }
        shared.status.send_if_modified(|told| {
            let is_news = told.as_ref() != Some(&error);
            *told = Some(error);
            is_news
        });
        pause = if shared.read(Snapshots::deadline) > before { PAUSES.0 } else { PAUSES.1.min(pause * 2) };
        sleep(pause).await;
    }
}

impl Shared {
    fn new(options: Options) -> Shared {
        Shared {
            connector: Connector::new(&options),
            options,
            name: unique_name(),
            snapshots: std::sync::Mutex::default(),
            confirmed: ArcSwapOption::empty(),
            holds: Holds::default(),
            counts: usage::Counts::default(),
            settled: watch::Sender::new(None),
            applied: watch::Sender::new(0),
            complete: Notify::new(),
            status: watch::Sender::new(Some(FeedError::Connection("not yet".into()))),
        }
    }

    /// The listener that the feed comes from.
    fn server(&self) -> Listener<'_> {
        Listener::new(&self.options.server)
    }

    fn decide(&self, token: &str, caller: Option<IpAddr>, now: UnixSeconds) -> Result<VerifiedToken, Denied> {
        let confirmed = self.confirmed.load();
        // The clock is read after the deadline, and before the state.
        let confirmed = confirmed.as_ref().filter(|confirmed| confirmed.is_fresh(clock::boot()));
        confirmed.ok_or(Denied::Stale)?.verify(token, caller, now)
    }

    /// For how long, from this moment, the follower may decide.
    fn fresh_for(&self) -> Duration {
        let confirmed = self.confirmed.load();
        confirmed.as_ref().map_or(Duration::ZERO, |confirmed| confirmed.fresh_for(clock::boot()))
    }

    fn read<T>(&self, read: impl FnOnce(&Snapshots) -> T) -> T {
        read(&self.snapshots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every verification that begins after this is decided by what `change` leaves.
    fn change<T>(&self, change: impl FnOnce(&mut Snapshots) -> T) -> T {
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut snapshots);
        self.confirmed.store(snapshots.confirmed().map(Arc::new));
        result
    }

    /// The position that the feed may be continued from.
    fn position(&self) -> Option<Position> {
        self.read(|snapshots| {
            let sound = snapshots.newest().filter(|snapshot| snapshot.sound);
            sound.map(|snapshot| snapshot.position.clone())
        })
    }
}

/// A name that no other process has. The standard library keys each hasher at random.
fn unique_name() -> String {
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1))
}
