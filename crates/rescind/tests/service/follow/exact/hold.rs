//! Tokens that hold connections open at an exact follower: a logout is answered when the connections are closed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use rescind::auth;
use rescind_admin::{self as admin, AllowChange, KeyRotation};
use rescind_node::cluster::Outcome;
use rescind_verifier::{
    Denied,
    follow::{Hold, Mode},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{brief, exact};
use crate::{
    app::TestApp,
    follow::{
        CALLER, Followed, PATIENCE,
        proxy::{Proxy, Weather},
        stands,
    },
};

impl Followed {
    fn hold(&self) -> Hold {
        self.follower.hold(&self.pair.access, CALLER).unwrap()
    }
}

async fn ended(hold: &mut Hold) -> Denied {
    timeout(PATIENCE, hold.ended()).await.expect("the end of the hold")
}

/// A connection that takes longer to close than the follower waits between two acknowledgements.
struct Connection {
    closed: Arc<AtomicBool>,
    task: JoinHandle<Denied>,
}

fn connection(mut hold: Hold) -> Connection {
    let closed = Arc::new(AtomicBool::new(false));
    let closing = Arc::clone(&closed);
    let task = tokio::spawn(async move {
        let denied = hold.ended().await;
        sleep(Duration::from_millis(900)).await;
        closing.store(true, Ordering::SeqCst);
        drop(hold);
        denied
    });
    Connection { closed, task }
}

impl Connection {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

// check 15: for what a token has opened
#[tokio::test]
async fn a_logout_is_answered_when_the_clients_connections_are_closed_and_no_others() {
    let f = exact().await;
    let other = f.app.grant(&f.app.client().await).await;
    stands(&f.follower, &other.access).await;
    let theirs = connection(f.follower.hold(&other.access, CALLER).unwrap());
    let ours = [(); 3].map(|()| connection(f.hold()));
    f.app.logout(&f.pair.access).await.is_logged_out();
    for connection in ours {
        assert!(connection.is_closed());
        // A machine too busy to renew a lease refuses too.
        assert!(matches!(connection.task.await.unwrap(), Denied::Revoked | Denied::Stale));
    }
    assert!(!theirs.is_closed() || theirs.task.await.unwrap() == Denied::Stale);
    assert_eq!(f.follower.hold(&f.pair.access, CALLER).unwrap_err(), Denied::Revoked);
}

// check 17
#[tokio::test]
async fn whatever_revokes_a_token_ends_what_it_holds_open() {
    // Nothing is stale before the test counts as hung, so that it passes only if the hold is told.
    let mode = Mode::Bounded(10 * PATIENCE);
    let f = Followed::at(TestApp::today(|_| {}).await, mode, async |address| address).await;
    let mut hold = f.hold();
    auth::revoke(&f.app.app, f.client.id, &f.pair.refresh).await.unwrap();
    assert_eq!(ended(&mut hold).await, Denied::Revoked);

    let f = f.again().await;
    let mut hold = f.hold();
    admin::suspend(&f.app.app, f.client.id, admin::NewSuspension::default()).await.unwrap();
    assert_eq!(ended(&mut hold).await, Denied::ClientInactive);
    admin::resume(&f.app.app, f.client.id).await.unwrap();

    let f = f.again().await;
    let mut hold = f.hold();
    let keys = admin::rotate_key(&f.app.app, KeyRotation::default()).await.unwrap();
    assert_eq!(hold.ended().now_or_never(), None);
    admin::retire_key(&f.app.app, &keys[0].kid).await.unwrap();
    assert_eq!(ended(&mut hold).await, Denied::UnknownKey);

    let f = f.again().await;
    let mut hold = f.hold();
    let narrow = AllowChange { remove: vec!["127.0.0.0/8".into()], ..AllowChange::default() };
    admin::change_allowlist(&f.app.app, f.client.id, narrow).await.unwrap();
    assert_eq!(ended(&mut hold).await, Denied::AddressNotAllowed);
}

#[tokio::test]
async fn a_connection_that_stays_open_is_waited_for_once_and_only_as_long_as_a_lease() {
    let f = Followed::at(brief().await, Mode::Exact, async |address| address).await;
    let stuck = f.hold();
    let settled = async || {
        let head = f.app.app.memory.registry.feed().head().seq;
        f.app.app.cluster.followers.settled(head).await
    };
    timeout(PATIENCE, f.app.logout(&f.pair.access)).await.unwrap().is_logged_out();
    // The follower itself is not held up.
    stands(&f.follower, &f.app.grant(&f.client).await.access).await;
    let acknowledged = Outcome { followers: 1, acknowledged: 1 };
    timeout(PATIENCE, async { while settled().await != acknowledged {} }).await.unwrap();
    f.app.logout(&f.app.grant(&f.client).await.access).await.is_logged_out();
    assert_eq!(
        settled().now_or_never(),
        Some(acknowledged),
        "the next change is acknowledged before its answer"
    );
    drop(stuck);
}

#[tokio::test]
async fn a_connection_that_is_slow_to_close_delays_the_end_of_no_other() {
    let app = TestApp::live(|config| config.cluster.lease = "60s".parse().unwrap()).await;
    let f = Followed::at(app, Mode::Exact, async |address| address).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let client = f.app.client().await;
        let pair = f.app.grant(&client).await;
        stands(&f.follower, &pair.access).await;
        held.push((client.id, f.follower.hold(&pair.access, CALLER).unwrap()));
    }
    let mut logouts = Vec::new();
    for (client, hold) in &mut held {
        let (app, client) = (Arc::clone(&f.app.app), *client);
        logouts.push(tokio::spawn(async move { admin::logout(&app, client).await }));
        assert_eq!(ended(hold).await, Denied::Revoked);
    }
    // If each had been told when the one before was given up, this one would have been given up long ago.
    assert!(!logouts[0].is_finished());
    drop(held);
    for logout in logouts {
        timeout(PATIENCE, logout).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_hold_that_was_ended_stays_so() {
    let f = Followed::at(
        TestApp::live(|config| config.cluster.lease = "60s".parse().unwrap()).await,
        Mode::Exact,
        async |address| address,
    )
    .await;
    let mut hold = f.hold();
    let networks = || vec!["127.0.0.0/8".to_owned()];
    let narrow = AllowChange { remove: networks(), ..AllowChange::default() };
    admin::change_allowlist(&f.app.app, f.client.id, narrow).await.unwrap();
    let widen = AllowChange { add: networks(), ..AllowChange::default() };
    admin::change_allowlist(&f.app.app, f.client.id, widen).await.unwrap();
    stands(&f.follower, &f.pair.access).await;
    assert_eq!(ended(&mut hold).await, Denied::AddressNotAllowed);
}

// check 89: never open after the lease
#[tokio::test]
async fn what_is_held_open_ends_with_the_lease_of_a_follower_that_is_cut_off() {
    let mut proxy = None;
    let way = async |server| proxy.insert(Proxy::before(server).await).address;
    let f = Followed::at(brief().await, Mode::Exact, way).await;
    let connection = connection(f.hold());
    let cut_off = Weather { hold_feed: true, hold_questions: true, hold_answers: true, ..Weather::default() };
    proxy.unwrap().set(cut_off);
    assert_eq!(timeout(PATIENCE, connection.task).await.unwrap().unwrap(), Denied::Stale);
    assert!(!f.follower.is_ready());
}

#[tokio::test]
async fn a_follower_leaves_when_what_it_holds_open_is_closed() {
    let f = exact().await;
    let connection = connection(f.hold());
    f.follower.leave().await;
    assert!(connection.is_closed());
    assert_eq!(connection.task.await.unwrap(), Denied::Stale);
}
