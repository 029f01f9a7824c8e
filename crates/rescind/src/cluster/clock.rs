//! This node's wall clock beside the database's and the other nodes'.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rescind_verifier::MAX_CLOCK_DIFFERENCE;
use thiserror::Error;

use crate::{model::UnixSeconds, store::StoreError};

/// How far this node's wall clock is off. A process that has the store to itself has nothing to compare
/// it with.
#[derive(Debug, Default)]
pub struct NodeClock {
    /// In seconds, of the database's; negative if it is behind.
    ahead: AtomicI64,
    /// Other nodes go by another time, and by the database's word they are right.
    apart: AtomicBool,
}

/// What this node signed others would refuse, or it what they signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this node's clock is {0}s ahead of the database's, and other nodes' are not: set it right")]
pub struct Apart(i64);

impl From<Apart> for StoreError {
    fn from(apart: Apart) -> StoreError {
        StoreError::Unavailable(apart.into())
    }
}

impl NodeClock {
    /// Takes over by how much this node and the others are ahead. Returns whether this one is further off
    /// than clocks may be, if that has changed.
    pub(super) fn compare(&self, ahead: i64, others: &[i64]) -> Option<bool> {
        let was_off = self.is_off();
        self.ahead.store(ahead, Ordering::Relaxed);
        // Where all agree with each other, it is the database's clock that is wrong, and nobody goes by it.
        let is_apart = is_far(ahead, 0) && others.iter().any(|&other| is_far(ahead, other));
        self.apart.store(is_apart, Ordering::Relaxed);
        Some(self.is_off()).filter(|&is_off| is_off != was_off)
    }

    /// Whether tokens may be issued by it.
    pub fn check(&self) -> Result<(), Apart> {
        if self.apart.load(Ordering::Relaxed) { Err(Apart(self.ahead())) } else { Ok(()) }
    }

    /// Whether the database's clock says otherwise.
    pub fn is_off(&self) -> bool {
        is_far(self.ahead(), 0)
    }

    /// By how many seconds it is ahead of the database's; negative if it is behind.
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }
}

/// By how much a wall clock is ahead of another one, which was read in between: at the least, for the
/// question may have been under way for some time.
pub(super) fn ahead_of(other: UnixSeconds, before: UnixSeconds, after: UnixSeconds) -> i64 {
    let nearest = other.clamp(before.min(after), after.max(before));
    nearest.cast_signed().saturating_sub(other.cast_signed())
}

fn is_far(one: i64, other: i64) -> bool {
    one.abs_diff(other) > MAX_CLOCK_DIFFERENCE
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        admin::{self, NewClient},
        app::App,
        auth::{self, Caller},
        clock::Clock,
        cluster,
        config::Config,
        random::Random,
        store::PostgresServer,
    };

    const MASTER_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";
    const DAY: i64 = 86_400;

    #[test]
    fn a_slow_answer_is_no_difference() {
        assert_eq!(ahead_of(105, 100, 110), 0);
        assert_eq!((ahead_of(100, 100, 100), ahead_of(90, 100, 110), ahead_of(120, 100, 110)), (0, 10, -10));
    }

    // check 103
    #[test]
    fn a_node_is_apart_where_the_database_and_another_node_say_so() {
        let clock = NodeClock::default();
        assert_eq!((clock.compare(60, &[0, -1]), clock.check()), (None, Ok(())));
        assert_eq!((clock.compare(61, &[0]), clock.check()), (Some(true), Err(Apart(61))));
        assert_eq!((clock.compare(-61, &[]), clock.check()), (None, Ok(())));
        assert_eq!((clock.compare(-61, &[-61, 0]), clock.check()), (None, Err(Apart(-61))));
        // The database is alone with its time.
        assert_eq!((clock.compare(500, &[499, 501]), clock.check()), (None, Ok(())));
        // It is the other one that is wrong.
        assert_eq!((clock.compare(0, &[500]), clock.check()), (Some(false), Ok(())));
    }

    struct Node {
        app: Arc<App>,
        clock: Clock,
        _folder: tempfile::TempDir,
        _stop: oneshot::Sender<()>,
    }

    async fn node(database: &str, ahead: i64) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.data_dir = folder.path().join("data");
        config.database.url = Some(database.parse().unwrap());
        config.cluster.lease = "60s".parse().unwrap();
        config.cluster.margin = "10s".parse().unwrap();
        // Its boot clock stands still, and so its lease does not run out.
        let clock = Clock::manual(Clock::System.now());
        clock.set_ahead(ahead);
        let app = App::open(&config, Some(MASTER_KEY), clock.clone(), Random::System).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = Arc::clone(&app);
        tokio::spawn(async move {
            let postgres = running.store.postgres().unwrap();
            cluster::run(&running.cluster, postgres, async { _ = stopped.await }).await;
        });
        while app.cluster.lease.check().is_err() {
            tokio::task::yield_now().await;
        }
        Node { app, clock, _folder: folder, _stop: stop }
    }

    // check 103
    #[tokio::test]
    async fn a_node_eight_days_ahead_deletes_nobodys_sessions_and_gives_no_tokens() {
        let database = PostgresServer::shared().database().await;
        let right = node(&database, 0).await;
        let new = NewClient { name: "c".into(), ..NewClient::default() };
        let client = admin::create_client(&right.app, new).await.unwrap();
        let caller = Caller::direct([127, 0, 0, 1].into());
        let login =
            async |node: &Node| auth::login(&node.app, &client.api_key, &client.api_secret, &caller).await;
        let token = login(&right).await.unwrap().pair;
        right.app.sweep().await.unwrap();

        let wrong = node(&database, 8 * DAY).await;
        assert_eq!(wrong.app.sweep().await.unwrap(), 0);
        let found = right.app.store.find(client.client_id, 1).await.unwrap();
        assert!(found.session.is_some());
        assert!(!wrong.app.is_ready() && right.app.is_ready());
        let status = admin::status(&wrong.app).clock;
        assert!(status.in_doubt && status.ahead_of_database_seconds.unwrap() > 7 * DAY, "{status:?}");
        let refused = |error| matches!(error, auth::Error::Store(StoreError::Unavailable(_)));
        assert!(refused(login(&wrong).await.unwrap_err()));
        assert!(refused(auth::refresh(&wrong.app, &token.refresh_token, &caller).await.unwrap_err()));
        assert!(auth::verify(&right.app, &token.access_token, &caller).await.is_ok());

        // Put right, it is a node like any other.
        wrong.clock.set_ahead(-8 * DAY);
        while !wrong.app.is_ready() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        login(&wrong).await.unwrap();
        wrong.app.sweep().await.unwrap();
        assert!(!admin::status(&wrong.app).clock.in_doubt);
        auth::refresh(&wrong.app, &token.refresh_token, &caller).await.unwrap();
    }
}
