//! A follower that asks the server about single tokens while its state is too old.

use std::time::Duration;

use rescind_admin::{self as admin, CountsView, UsageQuery};
use rescind_verifier::{
    Denied,
    follow::{Follower, Mode, Options},
};
use tokio::time::timeout;

use crate::{
    app::TestApp,
    follow::{
        CALLER, PATIENCE,
        proxy::{Proxy, Weather},
        until, verdict, verifier_token,
    },
};

#[tokio::test]
async fn what_is_too_old_to_decide_is_asked_for() {
    let app = TestApp::today(|_| {}).await;
    let client = app.client_allowed(&["127.0.0.0/8"]).await;
    let pair = app.grant(&client).await;
    let proxy = Proxy::before(app.management).await;
    let options = |token: &str| {
        Options::new(proxy.address.to_string(), token).with_mode(Mode::Bounded(Duration::from_millis(500)))
    };
    let token = verifier_token(&app, true).await;
    let asking = Follower::start(options(&token).with_introspection(app.address.to_string()));
    let silent = Follower::start(options(&token));
    for follower in [&asking, &silent] {
        timeout(PATIENCE, follower.ready()).await.unwrap();
    }
    proxy.set(Weather { closed: true, ..Weather::default() });
    for follower in [&asking, &silent] {
        until("stale", || verdict(follower, &pair.access) == Err(Denied::Stale)).await;
    }

    let token = asking.verify_or_ask(&pair.access, CALLER).await.unwrap();
    assert_eq!((token.claims().client, token.client().name.as_str()), (client.id, "test"));
    let ask = async |follower: &Follower, token: &str, caller| {
        follower.verify_or_ask(token, caller).await.map(drop)
    };
    assert_eq!(ask(&silent, &pair.access, CALLER).await, Err(Denied::Stale));
    for elsewhere in [None, Some([192, 0, 2, 1].into())] {
        assert_eq!(ask(&asking, &pair.access, elsewhere).await, Err(Denied::AddressNotAllowed));
    }
    assert_eq!(ask(&asking, &pair.refresh, CALLER).await, Err(Denied::UnknownKey));
    assert_eq!(ask(&asking, "x", CALLER).await, Err(Denied::Malformed));

    // check 15: asked at once after a logout, it is as exact as the service itself
    app.logout(&pair.access).await.is_logged_out();
    assert_eq!(ask(&asking, &pair.access, CALLER).await, Err(Denied::Revoked));
    let pair = app.grant(&client).await;
    assert_eq!(ask(&asking, &pair.access, CALLER).await, Ok(()));

    // Nobody there to ask.
    let address = app.address.to_string();
    drop(app);
    until("gone", || std::net::TcpStream::connect(&address).is_err()).await;
    assert_eq!(ask(&asking, &pair.access, CALLER).await, Err(Denied::Stale));
}

#[tokio::test]
async fn a_token_that_the_server_finds_valid_is_no_denial() {
    let app = TestApp::today(|_| {}).await;
    let proxy = Proxy::before(app.management).await;
    let options = Options::new(proxy.address.to_string(), verifier_token(&app, true).await)
        .with_mode(Mode::Bounded(PATIENCE))
        .with_introspection(app.address.to_string());
    let follower = Follower::start(options);
    timeout(PATIENCE, follower.ready()).await.unwrap();
    proxy.set(Weather { hold_feed: true, ..Weather::default() });
    let client = app.client().await;
    let pair = app.grant(&client).await;
    // Newer than what the follower knows.
    assert_eq!(verdict(&follower, &pair.access), Err(Denied::NotKnown));
    follower.verify_or_ask(&pair.access, CALLER).await.unwrap();
    // The service has counted what it was asked, and this is the denial of the verdict before.
    follower.leave().await;
    let used = admin::usage(&app.app, client.id, UsageQuery::default()).await.unwrap();
    let CountsView { verifications, denials, .. } = used.hours.total;
    assert_eq!((verifications, denials), (1, 1));
}
