//! Quotas: too many successes.

use reqwest::Method;
use rescind_admin as admin;

use crate::{
    app::{Client, TestApp, trust_proxy},
    oauth::{TOKEN, Who, ask, client_with, issue},
    outage::store,
    reply::Reply,
};

const TOKEN_IS_INVALID: &str = "Invalid token";

/// A service with quotas of two logins and three refreshes a minute for each client.
async fn start() -> TestApp {
    TestApp::with(|config| {
        trust_proxy(config);
        config.limits.failed_logins_per_minute = 0;
        config.limits.logins_per_minute = 2;
        config.limits.refreshes_per_minute = 3;
    })
    .await
}

// check 78
#[track_caller]
fn is_over_quota(reply: &Reply, seconds: u64) {
    reply.is_error(429, &format!("Rate limit exceeded. Retry after {seconds} seconds."));
    assert_eq!(reply.header("retry-after"), Some(seconds.to_string().as_str()));
    assert_eq!(reply.header("www-authenticate"), None);
}

// check 78
#[tokio::test]
async fn no_minute_has_more_logins_than_the_quota() {
    let app = start().await;
    let client = app.client().await;
    app.grant(&client).await;
    app.advance(40);
    app.grant(&client).await;
    is_over_quota(&app.login(&client).await, 20);
    app.advance(19);
    is_over_quota(&app.login(&client).await, 1);
    app.advance(1);
    app.grant(&client).await;
    // The one of twenty seconds ago still counts.
    is_over_quota(&app.login(&client).await, 40);
    app.advance(600);
    app.grant(&client).await;
    app.grant(&client).await;
    is_over_quota(&app.login(&client).await, 60);
    // Another client's logins are its own.
    app.grant(&app.client().await).await;
}

// check 78
#[tokio::test]
async fn a_refresh_that_is_over_the_quota_has_not_used_its_token_up() {
    let app = start().await;
    let mut pair = app.grant(&app.client().await).await;
    for _ in 0..3 {
        pair = app.renew(&pair).await;
    }
    let session = app.session(1).await;
    for _ in 0..3 {
        is_over_quota(&app.refresh(&pair.refresh).await, 60);
    }
    assert_eq!(app.session(1).await, session);
    app.advance(60);
    let next = app.renew(&pair).await;
    assert!(app.stands(&next.access).await);
}

// check 9, 76
#[tokio::test]
async fn what_is_wrong_is_told_so_whatever_the_quota() {
    let app = start().await;
    let client = app.client_allowed(&["203.0.113.0/24"]).await;
    let home = app.at("203.0.113.7");
    let first = home.login(&client).await.pair();
    home.login(&client).await.pair();
    let mut pair = home.refresh(&first.refresh).await.pair();
    for _ in 0..2 {
        pair = home.refresh(&pair.refresh).await.pair();
    }
    is_over_quota(&home.login(&client).await, 60);
    is_over_quota(&home.refresh(&pair.refresh).await, 60);

    let guess = Client { secret: "rs_guess".into(), ..client.clone() };
    home.login(&guess).await.is_error(401, "Invalid credentials");
    app.at("192.0.2.1").login(&client).await.is_error(403, "IP address not authorized");
    app.at("192.0.2.1").refresh(&pair.refresh).await.is_error(403, "IP address not authorized");
    home.refresh("x").await.is_error(401, TOKEN_IS_INVALID);
    home.refresh(&pair.access).await.is_error(401, TOKEN_IS_INVALID);
    // Reuse ends the session's refreshing, as ever.
    home.refresh(&first.refresh).await.is_error(401, TOKEN_IS_INVALID);
    home.refresh(&pair.refresh).await.is_error(401, TOKEN_IS_INVALID);
    admin::suspend(&app.app, client.id, Default::default()).await.unwrap();
    home.login(&client).await.is_error(401, "Invalid credentials");
}

#[tokio::test]
async fn what_fails_takes_no_place() {
    let app = start().await;
    let client = client_with(&app, &["orders:read"]).await;
    let pair = app.grant(&client).await;
    let break_it = "CREATE TRIGGER no_login BEFORE INSERT ON session BEGIN SELECT RAISE(ABORT, 'full'); END;
         CREATE TRIGGER no_refresh BEFORE UPDATE ON session BEGIN SELECT RAISE(ABORT, 'full'); END;";
    store(&app).execute_batch(break_it).unwrap();
    for _ in 0..5 {
        assert_eq!(app.login(&client).await.status, 503);
        assert_eq!(app.refresh(&pair.refresh).await.status, 503);
    }
    store(&app).execute_batch("DROP TRIGGER no_login; DROP TRIGGER no_refresh").unwrap();
    for _ in 0..5 {
        issue(&app, &client, Some("orders:write")).await.is_oauth_error(400, "invalid_scope");
        app.refresh("x").await.is_error(401, TOKEN_IS_INVALID);
    }
    let mut pair = app.renew(&pair).await;
    for _ in 0..2 {
        pair = app.renew(&pair).await;
    }
    app.grant(&client).await;
    is_over_quota(&app.login(&client).await, 60);
    is_over_quota(&app.refresh(&pair.refresh).await, 60);
}

// check 7, 78
#[tokio::test]
async fn client_credentials_are_a_login() {
    let app = start().await;
    let client = app.client().await;
    app.grant(&client).await;
    assert_eq!(issue(&app, &client, None).await.status, 200);
    is_over_quota(&app.login(&client).await, 60);
    for who in [Who::Basic(&client), Who::Body(&client)] {
        let reply = ask(&app, TOKEN, who, &[("grant_type", "client_credentials")]).await;
        reply.is_oauth_error(429, "temporarily_unavailable");
        assert_eq!(reply.header("retry-after"), Some("60"));
    }
}

#[tokio::test]
async fn the_same_pair_again_counts_as_well() {
    let app = start().await.restart_with(|config| config.tokens.refresh_grace = "9s".parse().ok()).await;
    let pair = app.grant(&app.client().await).await;
    let next = app.renew(&pair).await;
    for _ in 0..2 {
        assert_eq!(app.renew(&pair).await, next);
    }
    is_over_quota(&app.refresh(&pair.refresh).await, 60);
    is_over_quota(&app.refresh(&next.refresh).await, 60);
}

#[tokio::test]
async fn verification_and_logout_have_no_quota() {
    let app = start().await;
    let client = app.client().await;
    app.grant(&client).await;
    let pair = app.grant(&client).await;
    is_over_quota(&app.login(&client).await, 60);
    for _ in 0..20 {
        assert!(app.stands(&pair.access).await);
    }
    let scoped = app.request(Method::GET, "/verify?scope=x").bearer_auth(&pair.access);
    app.send(scoped).await.is_error(403, "Insufficient scope");
    app.logout(&pair.access).await.is_logged_out();
}

#[tokio::test]
async fn of_fifty_at_once_as_many_as_there_are_places_succeed() {
    let app = TestApp::with(|config| {
        config.limits.logins_per_minute = 7;
        config.limits.refreshes_per_minute = 5;
    })
    .await;
    let client = app.client().await;
    let asked = futures_util::future::join_all((0..50).map(|_| app.login(&client))).await;
    let pairs: Vec<_> = asked.iter().filter(|reply| reply.status == 200).map(Reply::pair).collect();
    assert_eq!((pairs.len(), asked.iter().filter(|reply| reply.status == 429).count()), (7, 43));

    let asked = futures_util::future::join_all(pairs.iter().map(|pair| app.refresh(&pair.refresh))).await;
    let refused: Vec<_> = asked.iter().zip(&pairs).filter(|(reply, _)| reply.status == 429).collect();
    assert_eq!(refused.len(), 2, "{asked:?}");
    app.advance(60);
    for (_, pair) in refused {
        app.renew(pair).await;
    }
}

#[tokio::test]
async fn by_default_there_is_no_quota() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let mut pair = app.grant(&client).await;
    for _ in 0..100 {
        app.grant(&client).await;
        pair = app.renew(&pair).await;
    }
}
