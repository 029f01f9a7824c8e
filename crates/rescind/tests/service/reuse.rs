//! Refresh tokens that are used again.

use std::{collections::HashSet, sync::Arc};

use rescind_base::model::OnReuse;
use serde_json::json;
use tokio::{sync::Barrier, task::JoinSet};

use crate::{
    app::{HOUR, TestApp},
    reply::Reply,
};

const INVALID: &str = "Invalid token";

async fn with_grace() -> TestApp {
    TestApp::with(|config| config.tokens.refresh_grace = Some("10s".parse().unwrap())).await
}

// check 9
#[tokio::test]
async fn reuse_ends_the_refreshing_of_the_session_and_of_no_other() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (first, other) = (app.grant(&client).await, app.grant(&client).await);
    let second = app.renew(&first).await;
    let third = app.renew(&second).await;
    app.refresh(&first.refresh).await.is_error(401, INVALID);
    for dead in [&first, &second, &third] {
        app.refresh(&dead.refresh).await.is_error(401, INVALID);
    }
    // Access tokens already out run to their own end.
    for pair in [&first, &second, &third] {
        assert!(app.stands(&pair.access).await);
    }
    app.renew(&other).await;
    app.advance(HOUR);
    app.verify(&third.access).await.is_error(401, "Token expired");
}

// check 9
#[tokio::test]
async fn reuse_ends_the_whole_session_if_so_configured() {
    let app = TestApp::with(|config| config.tokens.on_reuse = OnReuse::EndSession).await;
    let client = app.client().await;
    let (first, other) = (app.grant(&client).await, app.grant(&client).await);
    let second = app.renew(&first).await;
    assert!(app.stands(&first.access).await && app.stands(&second.access).await);
    app.refresh(&first.refresh).await.is_error(401, INVALID);
    assert!(!app.stands(&first.access).await && !app.stands(&second.access).await);
    app.refresh(&second.refresh).await.is_error(401, INVALID);
    assert!(app.stands(&other.access).await);
    let other = app.renew(&other).await;

    let app = app.restart().await;
    assert!(!app.stands(&first.access).await && !app.stands(&second.access).await);
    app.refresh(&second.refresh).await.is_error(401, INVALID);
    assert!(app.stands(&other.access).await);
}

// check 11, Keycloak #50999: same-second rotation replay
#[tokio::test]
async fn parent_and_grandparent_are_refused_within_one_second() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for ancestor in 0..2 {
        let first = app.grant(&client).await;
        let second = app.renew(&first).await;
        let third = app.renew(&second).await;
        app.refresh([&first, &second][ancestor].refresh.as_str()).await.is_error(401, INVALID);
        app.refresh(&third.refresh).await.is_error(401, INVALID);
    }
    let mut seen = HashSet::new();
    let mut pair = app.grant(&client).await;
    for _ in 0..20 {
        assert!(seen.insert(pair.access.clone()) && seen.insert(pair.refresh.clone()));
        pair = app.renew(&pair).await;
    }
}

// check 12, CVE-2026-9802: a restart forgets no used refresh token
#[tokio::test]
async fn reuse_is_known_after_a_restart() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (first, other) = (app.grant(&client).await, app.grant(&client).await);
    let second = app.renew(&first).await;
    let app = app.restart().await;
    app.refresh(&first.refresh).await.is_error(401, INVALID);
    app.refresh(&second.refresh).await.is_error(401, INVALID);
    let app = app.restart().await;
    app.refresh(&second.refresh).await.is_error(401, INVALID);
    app.renew(&other).await;
}

#[tokio::test]
async fn within_the_grace_the_last_used_token_gets_the_same_pair_byte_for_byte() {
    let app = with_grace().await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    app.advance(5);
    let answer = app.refresh(&first.refresh).await;
    for seconds in [0, 4, 5] {
        app.advance(seconds);
        assert_eq!(app.refresh(&first.refresh).await.body, answer.body);
    }
    let app = app.restart().await;
    assert_eq!(app.refresh(&first.refresh).await.body, answer.body);
    // Ten seconds after it was used it is reuse.
    app.advance(1);
    app.refresh(&first.refresh).await.is_error(401, INVALID);
    app.refresh(&answer.pair().refresh).await.is_error(401, INVALID);
}

// check 11
#[tokio::test]
async fn the_grace_is_for_the_last_used_token_alone() {
    let app = with_grace().await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    let second = app.renew(&first).await;
    let third = app.renew(&second).await;
    assert_eq!(app.renew(&second).await, third);
    app.refresh(&first.refresh).await.is_error(401, INVALID);
    app.refresh(&second.refresh).await.is_error(401, INVALID);
    app.refresh(&third.refresh).await.is_error(401, INVALID);
}

// check 10, CVE-2026-1035: refresh race
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_refreshes_at_once_one_wins() {
    let app = TestApp::with(|config| config.limits.failed_logins_per_minute = 0).await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    let replies = at_once(&app, &first.refresh).await;
    let (won, lost): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 99));
    for reply in lost {
        reply.is_error(401, INVALID);
    }
    // The others were reuse.
    let second = won[0].pair();
    assert!(app.stands(&second.access).await);
    app.refresh(&second.refresh).await.is_error(401, INVALID);
}

// check 10, CVE-2026-1035: refresh race
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_grace_a_hundred_refreshes_at_once_get_one_pair() {
    let app = with_grace().await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    let replies = at_once(&app, &first.refresh).await;
    let pairs: Vec<_> = replies.iter().map(|reply| reply.pair()).collect();
    assert_eq!(pairs.len(), 100);
    assert!(pairs.iter().all(|pair| *pair == pairs[0]));
    assert_ne!(pairs[0], first);
    app.renew(&pairs[0]).await;
}

async fn at_once(app: &TestApp, token: &str) -> Vec<Reply> {
    let barrier = Arc::new(Barrier::new(100));
    let mut running = JoinSet::new();
    for _ in 0..100 {
        let request = app.post("/auth/refresh").json(&json!({"refresh_token": token}));
        let barrier = Arc::clone(&barrier);
        running.spawn(async move {
            barrier.wait().await;
            Reply::read(request.send().await.unwrap()).await
        });
    }
    running.join_all().await
}
