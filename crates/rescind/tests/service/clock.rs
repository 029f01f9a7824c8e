//! Clocks that are set back or forward or differ between nodes, and callers that disconnect.

use std::sync::Arc;

use rescind::auth::{self, Caller};
use rescind_admin::{self as admin, KeyRotation, NewClient};
use rescind_base::{clock::Clock, model::EventFilter, random::Random};
use rescind_node::{app::App, cluster, config::Config};
use rescind_store::StoreError;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

use crate::{
    app::{DAY, HOUR, TestApp},
    fixture::Server,
    reply::Reply,
};

const MASTER_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";

// check 91
#[tokio::test]
async fn a_clock_that_is_set_makes_no_revoked_token_stand() {
    let app = TestApp::with(|config| config.server.sessions_in_memory = 1).await;
    let client = app.client().await;
    let reused = app.grant(&client).await;
    app.renew(&reused).await;
    app.refresh(&reused.refresh).await.is_error(401, "Invalid token");
    let revoked = app.grant(&app.client().await).await;
    app.logout(&revoked.access).await.is_logged_out();
    let mut app = app;
    for step in [HOUR, -HOUR, -HOUR, HOUR, HOUR, -HOUR] {
        app.advance(step);
        app.app.sweep().await.unwrap();
        for _ in 0..2 {
            assert_ne!(app.verify(&revoked.access).await.status, 200);
            assert_ne!(app.logout(&revoked.access).await.status, 200);
            assert_ne!(app.refresh(&revoked.refresh).await.status, 200);
            assert_ne!(app.refresh(&reused.refresh).await.status, 200);
            app = app.restart().await;
        }
    }
    // Back at the time of the logout.
    assert!(!app.stands(&revoked.access).await);
    app.refresh(&revoked.refresh).await.is_error(401, "Invalid token");
    assert!(app.stands(&app.grant(&client).await.access).await);
}

// check 91: what had expired when the clock went back was not forgotten either
#[tokio::test]
async fn a_used_refresh_token_is_known_after_the_clock_went_back() {
    // The manual clock takes the time that failures are counted by back with it; the system's does not.
    let app = TestApp::with(|config| config.limits.failed_logins_per_minute = 0).await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    let second = app.renew(&first).await;
    app.refresh(&first.refresh).await.is_error(401, "Invalid token");
    app.advance(7 * 24 * HOUR + HOUR - 1);
    app.app.sweep().await.unwrap();
    app.advance(-HOUR);
    for pair in [&first, &second] {
        app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
    }
    app.advance(-7 * 24 * HOUR);
    app.refresh(&second.refresh).await.is_error(401, "Invalid token");
}

// check 91: nor was what had not
#[tokio::test]
async fn a_clock_that_was_ahead_for_a_while_loses_no_session() {
    let app = TestApp::start().await;
    let pair = app.grant(&app.client().await).await;
    app.advance(7 * 24 * HOUR + HOUR);
    app.refresh(&pair.refresh).await.is_error(401, "Token expired");
    app.app.sweep().await.unwrap();
    app.advance(-7 * 24 * HOUR - HOUR);
    assert!(app.stands(&pair.access).await);
    app.renew(&pair).await;
}

/// The numbers of events, sessions and keys, which a sweep could delete.
async fn stored(app: &TestApp) -> (usize, usize, usize) {
    let wanted = EventFilter::newest(1000);
    let events = app.app.store.records(wanted).await.unwrap().records.len();
    let mut sessions = 0;
    for id in 1..=3 {
        sessions += usize::from(app.app.store.find(1, id).await.unwrap().session.is_some());
    }
    (events, sessions, app.app.store.keys().await.unwrap().len())
}

// check 103
#[tokio::test]
async fn a_clock_that_jumps_a_hundred_days_deletes_nothing_and_one_put_right_sweeps() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    app.grant(&client).await;
    admin::rotate_key(&app.app, KeyRotation::default()).await.unwrap();
    app.grant(&client).await;
    app.app.sweep().await.unwrap();
    let before = stored(&app).await;
    assert_eq!((before.1, before.2), (3, 2));

    app.clock.set_ahead(100 * DAY);
    for _ in 0..3 {
        assert_eq!(app.app.sweep().await.unwrap(), 0);
        app.advance(HOUR);
    }
    assert_eq!(stored(&app).await, before);
    let clock = admin::status(&app.app).clock;
    assert_eq!(
        (clock.in_doubt, clock.ahead_seconds, clock.ahead_of_database_seconds),
        (true, 100 * DAY, None)
    );
    // A new process by the same clock believes it no more.
    let app = app.restart().await;
    app.app.sweep().await.unwrap();
    assert_eq!(stored(&app).await.1, 3);
    assert!(admin::status(&app.app).clock.in_doubt);

    app.clock.set_ahead(-100 * DAY);
    assert_eq!(app.app.sweep().await.unwrap(), 0);
    assert!(!admin::status(&app.app).clock.in_doubt);
    assert!(app.app.store.find(1, 1).await.unwrap().session.is_some());
    app.renew(&pair).await;
    // What is over by then goes, by the time that has passed.
    for _ in 0..9 {
        app.advance(DAY);
        app.app.sweep().await.unwrap();
    }
    let after = stored(&app).await;
    assert_eq!((after.1, after.2), (0, 1));
}

// check 103
#[tokio::test]
async fn after_a_long_stop_what_is_over_goes_when_the_clock_has_gone_on_for_as_long() {
    let app = TestApp::start().await;
    app.grant(&app.client().await).await;
    app.app.sweep().await.unwrap();
    let stopped = app.stop().await;
    stopped.clock().set_ahead(20 * DAY);
    let app = stopped.start_with(|_| {}).await;
    app.app.sweep().await.unwrap();
    assert_eq!(stored(&app).await.1, 1);
    app.advance(6 * DAY);
    app.app.sweep().await.unwrap();
    // By the time that has passed for sure it lives on.
    assert_eq!(stored(&app).await.1, 1);
    assert!(admin::status(&app.app).clock.in_doubt);
    app.advance(14 * DAY);
    app.app.sweep().await.unwrap();
    assert!(!admin::status(&app.app).clock.in_doubt);
    assert_eq!(stored(&app).await.1, 0);
}

#[tokio::test]
async fn a_logout_is_finished_though_its_caller_has_gone() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for _ in 0..20 {
        let pair = app.grant(&client).await;
        let mut caller = TcpStream::connect(app.address).await.unwrap();
        let request =
            format!("POST /auth/logout HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", pair.access);
        caller.write_all(request.as_bytes()).await.unwrap();
        drop(caller);
        let mut asked = 0;
        while app.verify(&pair.access).await.status == 200 {
            asked += 1;
            assert!(asked < 10_000, "the token still stands");
        }
        assert!(!app.stands(&pair.access).await);
        app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
    }
}

#[tokio::test]
async fn a_request_under_way_is_answered_when_the_server_stops() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let body = json!({"username": client.key, "password": client.secret}).to_string();
    let mut idle = TcpStream::connect(app.address).await.unwrap();
    let mut caller = TcpStream::connect(app.address).await.unwrap();
    let head = format!(
        "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    // The handler now waits for the body.
    let mut go_on = [0; 25];
    caller.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    let (app, answer) = tokio::join!(app.restart(), async {
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        caller.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        answer
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut reply = Reply::parse_head(head);
    reply.body = body.into();
    assert_eq!(reply.header("connection"), Some("close"));
    let pair = reply.checked().pair();
    assert!(app.stands(&pair.access).await);
    app.renew(&pair).await;
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
    let database = Server::shared().database().await;
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
