//! The sweep of sessions that are over.

use std::sync::Arc;

use rescind::auth::{self, Caller};
use rescind_admin::{self as admin, NewClient};
use rescind_base::{clock::Clock, model::UnixSeconds, random::Random};
use rescind_node::{app::App, config::Config};
use tokio::task::JoinSet;

/// A service with a client, and how sessions are opened there.
struct Service {
    app: Arc<App>,
    api_key: String,
    api_secret: String,
    _folder: tempfile::TempDir,
}

impl Service {
    async fn start() -> Service {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.data_dir = folder.path().join("data");
        let clock = Clock::manual(1_736_942_400);
        let app = App::open(&config, None, clock, Random::seeded(1)).await.unwrap();
        let client =
            admin::create_client(&app, NewClient { name: "c".into(), ..NewClient::default() }).await.unwrap();
        let (api_key, api_secret) = (client.api_key, client.api_secret);
        Service { app, api_key, api_secret, _folder: folder }
    }

    async fn log_in(&self, times: usize) {
        let mut logins = JoinSet::new();
        for _ in 0..times {
            let app = Arc::clone(&self.app);
            let (api_key, api_secret) = (self.api_key.clone(), self.api_secret.clone());
            logins.spawn(async move {
                let caller = Caller::direct([127, 0, 0, 1].into());
                auth::login(&app, &api_key, &api_secret, &caller).await.unwrap();
            });
        }
        logins.join_all().await;
    }

    /// Sweeps what was over by this time. A batch of the store has 1000 sessions. Returns how many were deleted,
    /// and the metric.
    async fn sweep(&self, expired: UnixSeconds) -> (usize, i64) {
        let deleted = self.app.sweep_sessions(expired, 1000).await.unwrap();
        (deleted, self.app.metrics.sessions_live.get())
    }
}

#[tokio::test]
async fn each_sweep_looks_at_a_part_of_the_sessions_and_the_next_goes_on() {
    let service = Service::start().await;
    service.log_in(2500).await;
    assert_eq!(service.sweep(0).await, (0, 0));
    assert_eq!(service.sweep(0).await, (0, 0));
    // The end of the first walk. The number is known now.
    assert_eq!(service.sweep(0).await, (0, 2500));
    assert_eq!(service.sweep(0).await, (0, 2500));
    let over = UnixSeconds::MAX >> 1;
    assert_eq!(service.sweep(over).await, (1000, 2500));
    assert_eq!(service.sweep(over).await, (500, 1000));
    assert_eq!(service.sweep(over).await, (1000, 0));
    assert_eq!(service.sweep(over).await, (0, 0));
}

#[tokio::test]
async fn a_walk_ends_however_many_sessions_are_opened_meanwhile() {
    let service = Service::start().await;
    let mut live = vec![];
    for _ in 0..5 {
        service.log_in(1500).await;
        live.push(service.sweep(0).await.1);
    }
    // The first walk takes two sweeps, the second three. The last batch has some that were opened meanwhile.
    assert_eq!(live, [0, 2000, 2000, 2000, 5000]);
}
