//! A follower that is cut off from its server, in part or wholly, refuses within its bound.

use std::{net::SocketAddr, time::Duration};

use rescind_verifier::{Denied, follow::FeedError};
use tokio::time::timeout;

use crate::follow::{
    Followed, PATIENCE, now,
    proxy::{Proxy, Weather},
    refused_in_time, stands, until, verdict,
};

const BOUND: Duration = Duration::from_millis(300);

async fn followed() -> (Followed, Proxy) {
    let mut proxy = None;
    let way = async |server: SocketAddr| proxy.insert(Proxy::before(server).await).address;
    let followed = Followed::through(BOUND, way).await;
    (followed, proxy.unwrap())
}

/// Logs out in this weather, in which the follower cannot learn of it, and asserts that the follower refuses in time.
async fn cut_by(weather: Weather) {
    let (f, proxy) = followed().await;
    proxy.set(weather);
    f.app.logout(&f.pair.access).await.is_logged_out();
    refused_in_time(&f.follower, &f.pair.access, now(), BOUND, Denied::Stale).await;
    assert!(!f.follower.is_ready());
    proxy.set(Weather::default());
    refused_in_time(&f.follower, &f.pair.access, Duration::ZERO, Duration::ZERO, Denied::Revoked).await;
    stands(&f.follower, &f.app.grant(&f.client).await.access).await;
}

// check 89: never an accept after the lease
#[tokio::test]
async fn nothing_arrives() {
    cut_by(Weather { hold_feed: true, hold_questions: true, hold_answers: true, ..Weather::default() }).await;
}

#[tokio::test]
async fn the_feed_alone_does_not_arrive() {
    cut_by(Weather { hold_feed: true, ..Weather::default() }).await;
}

#[tokio::test]
async fn every_connection_breaks() {
    cut_by(Weather { closed: true, ..Weather::default() }).await;
}

/// Asserts that a follower whose questions are not answered refuses in time, even if the feed brings every change.
async fn uncertain_by(weather: Weather) {
    let (f, proxy) = followed().await;
    proxy.set(weather);
    refused_in_time(&f.follower, &f.pair.access, now(), BOUND, Denied::Stale).await;
    // A reason for which one attempt after another fails is told once.
    let mut status = f.follower.status();
    let is_silent = |status: &Option<FeedError>| *status == Some(FeedError::Silent);
    timeout(PATIENCE, status.wait_for(is_silent)).await.unwrap().unwrap();
    assert!(!f.follower.is_ready());
    proxy.set(Weather::default());
    stands(&f.follower, &f.pair.access).await;
}

#[tokio::test]
async fn questions_do_not_arrive() {
    uncertain_by(Weather { hold_questions: true, ..Weather::default() }).await;
}

#[tokio::test]
async fn answers_do_not_arrive() {
    uncertain_by(Weather { hold_answers: true, ..Weather::default() }).await;
}

#[tokio::test]
async fn answers_take_longer_than_the_bound() {
    uncertain_by(Weather { delay: BOUND * 2, ..Weather::default() }).await;
}

// The bound counts from before the question was sent: time that answers take is not given twice.
#[tokio::test]
async fn slow_answers_do_not_stretch_the_bound() {
    let (mut f, proxy) = followed().await;
    for part in 1..=6 {
        let delay = BOUND * part / 10;
        proxy.set(Weather { delay, ..Weather::default() });
        f.pair = f.app.grant(&f.client).await;
        stands(&f.follower, &f.pair.access).await;
        proxy.set(Weather { delay, hold_feed: true, ..Weather::default() });
        f.app.logout(&f.pair.access).await.is_logged_out();
        refused_in_time(&f.follower, &f.pair.access, now(), BOUND, Denied::Stale).await;
    }
}

// check 12: what was revoked stays so
#[tokio::test]
async fn a_server_that_stops_is_missed_within_the_bound_and_followed_again_when_it_is_back() {
    let f = Followed::through(BOUND, async |server| server).await;
    let revoked = f.pair.access.clone();
    f.app.logout(&revoked).await.is_logged_out();
    let ended = f.app.grant(&f.client).await.access;
    rescind::auth::revoke(&f.app.app, f.client.id, &ended).await.unwrap();
    let pair = f.app.grant(&f.client).await;
    stands(&f.follower, &pair.access).await;
    let (address, stopped) = (f.app.management, f.app.stop().await);
    refused_in_time(&f.follower, &pair.access, now(), BOUND, Denied::Stale).await;
    until("no connection", || matches!(*f.follower.status().borrow(), Some(FeedError::Connection(_)))).await;

    let app = stopped.start_with(|config| config.server.management_listen = address).await;
    stands(&f.follower, &pair.access).await;
    assert_eq!(verdict(&f.follower, &revoked), Err(Denied::Revoked));
    assert_eq!(verdict(&f.follower, &ended), Err(Denied::Revoked));
    app.logout(&pair.access).await.is_logged_out();
    refused_in_time(&f.follower, &pair.access, now(), BOUND, Denied::Revoked).await;
}

// `restart` waits until nothing holds the service any more.
#[tokio::test]
async fn open_feeds_do_not_hold_up_the_end_of_the_server() {
    let app = crate::app::TestApp::today(|config| config.server.drain_timeout = "1h".parse().unwrap()).await;
    let token = crate::follow::verifier_token(&app, false).await;
    let followers = [0; 4].map(|_| crate::follow::follow(app.management, &token, BOUND));
    for follower in &followers {
        timeout(PATIENCE, follower.ready()).await.unwrap();
    }
    let address = app.management;
    let stopped = timeout(PATIENCE, app.stop()).await.unwrap();
    let _app = stopped.start_with(|config| config.server.management_listen = address).await;
    for follower in &followers {
        timeout(PATIENCE, follower.ready()).await.unwrap();
    }
}
