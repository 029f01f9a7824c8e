//! An exact follower that gets no changes or cannot acknowledge them: a logout waits until the follower's lease has
//! ended, and no longer.

use std::{net::SocketAddr, sync::mpsc, thread, time::Duration};

use rescind_verifier::{Denied, follow::Mode};
use tokio::{pin, sync::oneshot, task::yield_now, time::timeout};

use crate::{
    app::{Pair, TestApp},
    follow::{
        Followed, PATIENCE,
        exact::{brief, follow_exactly},
        now,
        proxy::{Proxy, Weather},
        stands, until, verdict, verifier_token,
    },
};

/// The lease is one second. The rest is for a busy machine.
const LONG: Duration = Duration::from_secs(10);

async fn followed() -> (Followed, Proxy) {
    let mut proxy = None;
    let way = async |server: SocketAddr| proxy.insert(Proxy::before(server).await).address;
    let followed = Followed::at(brief().await, Mode::Exact, way).await;
    (followed, proxy.unwrap())
}

/// Logs out while the follower verifies all the time, and asserts that the follower refuses after the answer.
async fn refuses_from_the_answer_on(app: &TestApp, pair: &Pair, decide: impl Fn() -> Result<(), Denied>) {
    let begun = now();
    let logout = app.logout(&pair.access);
    pin!(logout);
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut logout => break answer,
            () = yield_now() => drop(decide()),
        }
    };
    for _ in 0..100 {
        assert!(decide().is_err());
        yield_now().await;
    }
    answer.is_logged_out();
    let took = now() - begun;
    assert!(took < LONG, "{took:?}");
}

async fn cut_by(weather: Weather) {
    let (f, proxy) = followed().await;
    proxy.set(weather);
    refuses_from_the_answer_on(&f.app, &f.pair, || verdict(&f.follower, &f.pair.access)).await;
    proxy.set(Weather::default());
    until("revoked", || {
        let verdict = verdict(&f.follower, &f.pair.access);
        assert_ne!(verdict, Ok(()));
        verdict == Err(Denied::Revoked)
    })
    .await;
    stands(&f.follower, &f.app.grant(&f.client).await.access).await;
}

// check 89: never an accept after the lease
#[tokio::test]
async fn nothing_arrives() {
    cut_by(Weather { hold_feed: true, hold_questions: true, hold_answers: true, ..Weather::default() }).await;
}

// It goes on renewing what it cannot use.
#[tokio::test]
async fn the_feed_alone_does_not_arrive() {
    cut_by(Weather { hold_feed: true, ..Weather::default() }).await;
}

#[tokio::test]
async fn acknowledgements_do_not_arrive() {
    cut_by(Weather { hold_questions: true, ..Weather::default() }).await;
}

#[tokio::test]
async fn leases_do_not_arrive() {
    cut_by(Weather { hold_answers: true, ..Weather::default() }).await;
}

#[tokio::test]
async fn leases_arrive_late() {
    cut_by(Weather { delay: Duration::from_millis(600), ..Weather::default() }).await;
}

// The lease counts from before the question was sent: time that answers take is not given twice.
#[tokio::test]
async fn leases_arrive_late_and_the_feed_not_at_all() {
    let (f, proxy) = followed().await;
    let delay = Duration::from_millis(600);
    for _ in 0..3 {
        proxy.set(Weather { delay, ..Weather::default() });
        let pair = f.app.grant(&f.client).await;
        stands(&f.follower, &pair.access).await;
        proxy.set(Weather { delay, hold_feed: true, ..Weather::default() });
        refuses_from_the_answer_on(&f.app, &pair, || verdict(&f.follower, &pair.access)).await;
    }
}

#[tokio::test]
async fn every_connection_breaks() {
    cut_by(Weather { closed: true, ..Weather::default() }).await;
}

// Like a process that is sent SIGSTOP, but for the one thread that verifies.
#[tokio::test]
async fn a_follower_that_stands_still() {
    let app = brief().await;
    let token = verifier_token(&app, true).await;
    let pair = app.grant(&app.client().await).await;
    let (started, follower) = oneshot::channel();
    let ((stop, stopping), (stopped, stands_still)) = (oneshot::channel(), oneshot::channel());
    let ((go_on, going_on), (end, ending)) = (mpsc::channel::<()>(), oneshot::channel::<()>());
    let address = app.management;
    let following = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _ = started.send(follow_exactly(address, &token));
            let () = stopping.await.unwrap();
            stopped.send(()).unwrap();
            // Nothing else of this runtime moves while its only thread is here.
            let () = going_on.recv().unwrap();
            let () = ending.await.unwrap();
        });
    });
    let follower = follower.await.unwrap();
    stands(&follower, &pair.access).await;
    stop.send(()).unwrap();
    stands_still.await.unwrap();
    refuses_from_the_answer_on(&app, &pair, || verdict(&follower, &pair.access)).await;
    assert_eq!(verdict(&follower, &pair.access), Err(Denied::Stale));
    go_on.send(()).unwrap();
    until("revoked", || verdict(&follower, &pair.access) == Err(Denied::Revoked)).await;
    end.send(()).unwrap();
    following.join().unwrap();
}

// Leases of the process before bind the one that comes after it.
#[tokio::test]
async fn a_server_that_is_restarted_waits_for_those_it_does_not_know_of() {
    let (f, proxy) = followed().await;
    let address = f.app.management;
    let stopped = f.app.stop().await;
    proxy.set(Weather { closed: true, ..Weather::default() });
    let app = stopped.start_with(|config| config.server.management_listen = address).await;
    refuses_from_the_answer_on(&app, &f.pair, || verdict(&f.follower, &f.pair.access)).await;
    proxy.set(Weather::default());
    stands(&f.follower, &app.grant(&f.client).await.access).await;
    assert_eq!(verdict(&f.follower, &f.pair.access), Err(Denied::Revoked));
}

#[tokio::test]
async fn a_server_that_nobody_could_have_followed_waits_for_nobody() {
    let app = TestApp::today(|config| config.cluster.lease = "60s".parse().unwrap()).await;
    let pair = app.grant(&app.client().await).await;
    let app = app.restart().await;
    timeout(PATIENCE, app.logout(&pair.access)).await.unwrap().is_logged_out();
}
