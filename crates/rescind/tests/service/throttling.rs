//! Throttling: too many failures.

use rescind_admin::{self as admin, KeyRotation};

use crate::{
    app::{Client, DAY, TestApp, trust_proxy},
    reply::Reply,
};

const CREDENTIALS: &str = "Invalid credentials";
const TOKEN: &str = "Invalid token";

/// A service that admits three failures a minute, and thirty for each network.
async fn start() -> TestApp {
    TestApp::with(|config| {
        trust_proxy(config);
        config.limits.failed_logins_per_minute = 3;
    })
    .await
}

/// The client's API key with a wrong secret.
fn impostor(client: &Client) -> Client {
    Client { secret: "rs_guess".into(), ..client.clone() }
}

// check 78
#[track_caller]
fn is_throttled(reply: &Reply, seconds: u64) {
    reply.is_error(429, &format!("Rate limit exceeded. Retry after {seconds} seconds."));
    assert_eq!(reply.header("retry-after"), Some(seconds.to_string().as_str()));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("www-authenticate"), None);
}

// check 76, 78
#[tokio::test]
async fn failures_beyond_the_limit_are_429_and_say_when_to_come_back() {
    let app = start().await;
    let guess = impostor(&app.client().await);
    for _ in 0..3 {
        app.login(&guess).await.is_error(401, CREDENTIALS);
    }
    is_throttled(&app.login(&guess).await, 20);
    app.advance(15);
    is_throttled(&app.login(&guess).await, 5);
    app.advance(5);
    app.login(&guess).await.is_error(401, CREDENTIALS);
    is_throttled(&app.login(&guess).await, 20);
    app.advance(60);
    for _ in 0..3 {
        app.login(&guess).await.is_error(401, CREDENTIALS);
    }
    is_throttled(&app.login(&guess).await, 20);
}

// check 76: nobody can lock a client out
#[tokio::test]
async fn right_credentials_are_never_refused() {
    let app = start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    for _ in 0..40 {
        app.login(&impostor(&client)).await;
        app.refresh("x").await;
    }
    is_throttled(&app.login(&impostor(&client)).await, 20);
    let mut pair = app.renew(&pair).await;
    for _ in 0..40 {
        app.grant(&client).await;
        pair = app.renew(&pair).await;
    }
    is_throttled(&app.login(&impostor(&client)).await, 20);
    assert!(app.stands(&pair.access).await);
    app.logout(&pair.access).await.is_logged_out();
}

// check 76
#[tokio::test]
async fn every_way_to_fail_is_counted() {
    let app = start().await;
    let (unknown, suspended) = (app.client().await, app.client().await);
    let unknown = Client { key: "rk_unknown".into(), ..unknown };
    admin::suspend(&app.app, suspended.id, Default::default()).await.unwrap();
    for client in [unknown, suspended] {
        for _ in 0..3 {
            app.login(&client).await.is_error(401, CREDENTIALS);
        }
        is_throttled(&app.login(&client).await, 20);
    }
}

// check 77
#[tokio::test]
async fn refreshes_are_counted_too() {
    let app = start().await;
    for _ in 0..3 {
        app.refresh("x").await.is_error(401, TOKEN);
    }
    is_throttled(&app.refresh("x").await, 20);
    // Whoever tries one after the other is throttled as a network.
    for i in 4..30 {
        app.refresh(&i.to_string()).await.is_error(401, TOKEN);
    }
    is_throttled(&app.refresh("y").await, 2);

    let client = app.client().await;
    let first = app.grant(&client).await;
    app.renew(&first).await;
    for _ in 0..3 {
        app.refresh(&first.refresh).await.is_error(401, TOKEN);
    }
    is_throttled(&app.refresh(&first.refresh).await, 20);
    // One client's failures are not another's.
    let other = app.grant(&app.client().await).await;
    app.renew(&other).await;
    app.refresh(&other.refresh).await.is_error(401, TOKEN);
}

// check 104: who shows a token of ours is no stranger, however old it is
#[tokio::test]
async fn tokens_that_were_good_once_are_counted_for_their_own_client_alone() {
    let app = start().await;
    let mut neighbours = Vec::new();
    for _ in 0..40 {
        let client = app.client().await;
        let pair = app.grant(&client).await;
        neighbours.push((client, pair));
    }
    // Their key is retired.
    admin::rotate_key(&app.app, KeyRotation::default()).await.unwrap();
    let kid = admin::keys(&app.app).await.unwrap().remove(0).kid;
    admin::retire_key(&app.app, &kid).await.unwrap();
    for (_, pair) in &neighbours {
        app.refresh(&pair.refresh).await.is_error(401, TOKEN);
    }
    // A client that goes on with one is told to stop, and no other.
    let (_, first) = &neighbours[0];
    app.refresh(&first.refresh).await.is_error(401, TOKEN);
    app.refresh(&first.refresh).await.is_error(401, TOKEN);
    is_throttled(&app.refresh(&first.refresh).await, 20);
    app.refresh(&neighbours[1].1.refresh).await.is_error(401, TOKEN);

    // Used before; revoked; expired.
    app.advance(60);
    let mut live = Vec::new();
    for (client, _) in &neighbours {
        live.push(app.grant(client).await);
    }
    for pair in &live {
        app.renew(pair).await;
        app.refresh(&pair.refresh).await.is_error(401, TOKEN);
    }
    for pair in &live {
        app.logout(&pair.access).await.is_logged_out();
        app.refresh(&pair.refresh).await.is_error(401, TOKEN);
    }
    app.advance(8 * DAY);
    for pair in &live {
        app.refresh(&pair.refresh).await.is_error(401, "Token expired");
    }
    // Nothing of it is counted for whoever guesses here.
    app.refresh("x").await.is_error(401, TOKEN);
}

// check 104
#[tokio::test]
async fn garbage_is_throttled_and_changes_no_neighbours_answer() {
    let app = start().await;
    let client = app.client().await;
    let (good, revoked) = (app.grant(&client).await, app.grant(&app.client().await).await);
    app.logout(&revoked.access).await.is_logged_out();
    for i in 0..60 {
        let reply = app.refresh(&format!("garbage {i}")).await;
        if i < 30 { reply.is_error(401, TOKEN) } else { is_throttled(&reply, 2) }
    }
    app.refresh(&revoked.refresh).await.is_error(401, TOKEN);
    let next = app.renew(&good).await;
    app.refresh(&good.refresh).await.is_error(401, TOKEN);
    app.refresh(&next.refresh).await.is_error(401, TOKEN);
    // One letter off is garbage as well.
    is_throttled(&app.refresh(&next.refresh.replacen('.', ".e", 1)).await, 2);
}

// check 66, 76, CVE-2025-6004
#[tokio::test]
async fn another_source_network_is_not_affected() {
    let app = start().await;
    let guess = impostor(&app.client().await);
    let fail = async |address: &str| app.at(address).login(&guess).await;
    for _ in 0..3 {
        fail("203.0.113.7").await.is_error(401, CREDENTIALS);
        fail("2001:db8::1").await.is_error(401, CREDENTIALS);
    }
    is_throttled(&fail("203.0.113.7").await, 20);
    is_throttled(&fail("::ffff:203.0.113.7").await, 20);
    fail("203.0.113.8").await.is_error(401, CREDENTIALS);
    // One subscriber's IPv6 addresses are one network.
    is_throttled(&fail("2001:db8::2:ffff").await, 20);
    fail("2001:db8:0:1::1").await.is_error(401, CREDENTIALS);
}

// check 76, CVE-2025-6004
#[tokio::test]
async fn a_network_that_tries_many_keys_is_throttled_as_a_whole() {
    let app = start().await;
    let client = app.client().await;
    for key in 0..30 {
        let guess = Client { key: format!("rk_{key}"), ..client.clone() };
        app.at("203.0.113.7").login(&guess).await.is_error(401, CREDENTIALS);
    }
    let guess = Client { key: "rk_30".into(), ..client.clone() };
    is_throttled(&app.at("203.0.113.7").login(&guess).await, 2);
    is_throttled(&app.at("203.0.113.7").refresh("x").await, 2);
    app.at("203.0.113.8").login(&guess).await.is_error(401, CREDENTIALS);
    app.at("203.0.113.7").login(&client).await.pair();
}

#[tokio::test]
async fn zero_is_no_limit() {
    let app = TestApp::with(|config| config.limits.failed_logins_per_minute = 0).await;
    let guess = impostor(&app.client().await);
    for _ in 0..400 {
        app.login(&guess).await.is_error(401, CREDENTIALS);
    }
}

#[tokio::test]
async fn the_default_is_thirty_a_minute() {
    let app = TestApp::start().await;
    let guess = impostor(&app.client().await);
    for _ in 0..30 {
        app.login(&guess).await.is_error(401, CREDENTIALS);
    }
    is_throttled(&app.login(&guess).await, 2);
}

// Verification and logout are asked with every request of an API: they are not throttled.
#[tokio::test]
async fn verification_and_logout_are_not_counted() {
    let app = start().await;
    for _ in 0..40 {
        app.verify("x").await.is_error(401, TOKEN);
        app.logout("x").await.is_error(401, TOKEN);
    }
    app.login(&impostor(&app.client().await)).await.is_error(401, CREDENTIALS);
}
