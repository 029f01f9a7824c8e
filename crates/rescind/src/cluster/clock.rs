//! Compares this node's wall clock with the database's and the other nodes'.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rescind_verifier::MAX_CLOCK_DIFFERENCE;
use thiserror::Error;

use crate::{model::UnixSeconds, store::StoreError};

/// How far this node's wall clock differs from the database's. A process that has the store to itself has no
/// other clock to compare with.
#[derive(Debug, Default)]
pub struct NodeClock {
    /// In seconds ahead of the database's clock; negative if behind.
    ahead: AtomicI64,
    /// Other nodes' clocks differ from this one, and the database's clock agrees with theirs.
    apart: AtomicBool,
}

/// Tokens signed here would be refused elsewhere, or tokens signed elsewhere refused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this node's clock is {0}s ahead of the database's, and other nodes' are not: set it right")]
pub struct Apart(i64);

impl From<Apart> for StoreError {
    fn from(apart: Apart) -> StoreError {
        StoreError::Unavailable(apart.into())
    }
}

impl NodeClock {
    /// Stores by how many seconds this node and the others are ahead of the database. Returns whether this
    /// node is off by too much, if that has changed.
    pub(super) fn compare(&self, ahead: i64, others: &[i64]) -> Option<bool> {
        let was_off = self.is_off();
        self.ahead.store(ahead, Ordering::Relaxed);
        // If all nodes agree with each other, the database's clock is wrong, and no node uses it.
        let is_apart = is_far(ahead, 0) && others.iter().any(|&other| is_far(ahead, other));
        self.apart.store(is_apart, Ordering::Relaxed);
        Some(self.is_off()).filter(|&is_off| is_off != was_off)
    }

    /// Checks that tokens may be issued by this clock.
    ///
    /// # Errors
    ///
    /// Fails if the database and another node disagree with this clock.
    pub fn check(&self) -> Result<(), Apart> {
        if self.apart.load(Ordering::Relaxed) { Err(Apart(self.ahead())) } else { Ok(()) }
    }

    /// Whether the database's clock differs by more than clocks may.
    pub fn is_off(&self) -> bool {
        is_far(self.ahead(), 0)
    }

    /// By how many seconds this clock is ahead of the database's; negative if behind.
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }
}

/// By how much a wall clock is at least ahead of `other`, which was read between `before` and `after`. The
/// query may have taken some of that time.
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
        // Only the database's clock differs.
        assert_eq!((clock.compare(500, &[499, 501]), clock.check()), (None, Ok(())));
        // The other node's clock is wrong.
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
        // The boot clock stands still, so the lease does not end.
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

        // Once its clock is right, the node issues tokens.
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
