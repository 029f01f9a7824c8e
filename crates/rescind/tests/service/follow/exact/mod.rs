//! An exact follower in another process: it knows every change before the service answers the change.

mod cut;
mod hold;
mod race;

use std::{net::SocketAddr, time::Duration};

use reqwest::Method;
use rescind::auth;
use rescind_admin::{self as admin, AllowChange, KeyRotation};
use rescind_node::cluster::Outcome;
use rescind_verifier::{
    Denied,
    follow::{FeedError, Follower, Mode, Options, wire::ACK_PATH},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    app::TestApp,
    follow::{Followed, PATIENCE, fake::Fake, feed::management, stands, until, verdict, verifier_token},
    reply::Reply,
};

const ROUNDS: u32 = 1000;

pub(crate) fn follow_exactly(address: SocketAddr, token: &str) -> Follower {
    Follower::start(Options::exact(address.to_string(), token))
}

/// A service with the shortest leases that the configuration allows.
pub(crate) async fn brief() -> TestApp {
    TestApp::live(|config| {
        config.cluster.lease = "1s".parse().unwrap();
        config.cluster.margin = "100ms".parse().unwrap();
    })
    .await
}

/// Acknowledges as an exact follower of this name that has applied no change.
pub(crate) async fn renew(app: &TestApp, token: &str, name: &str) -> Reply {
    let epoch = app.app.memory.registry.feed().head().epoch;
    let ack = json!({"epoch": epoch, "seq": 0, "mode": "exact", "follower": name});
    app.send(management(app, Method::POST, ACK_PATH).bearer_auth(token).json(&ack)).await
}

async fn exact() -> Followed {
    Followed::at(TestApp::live(|_| {}).await, Mode::Exact, async |address| address).await
}

impl Followed {
    /// Asserts that the follower knows the change that was just answered. On a busy machine its lease may have ended.
    fn knows(&self, expected: Denied) {
        let verdict = verdict(&self.follower, &self.pair.access);
        assert!(verdict == Err(expected) || verdict == Err(Denied::Stale), "{verdict:?}");
    }

    async fn again(self) -> Followed {
        let pair = self.app.grant(&self.client).await;
        stands(&self.follower, &pair.access).await;
        Followed { pair, ..self }
    }
}

// check 15: here and at every verifier, at once
#[tokio::test]
async fn a_thousand_logouts_are_known_to_every_follower_when_they_are_answered() {
    let f = exact().await;
    let token = verifier_token(&f.app, true).await;
    let more = [0; 2].map(|_| follow_exactly(f.app.management, &token));
    let followers = [&f.follower, &more[0], &more[1]];
    let mut last = String::new();
    for _ in 0..ROUNDS {
        let pair = f.app.grant(&f.client).await;
        for follower in followers {
            stands(follower, &pair.access).await;
        }
        f.app.logout(&pair.access).await.is_logged_out();
        for follower in followers {
            // A machine too busy to renew a lease refuses too.
            let verdict = verdict(follower, &pair.access);
            assert!(matches!(verdict, Err(Denied::Revoked | Denied::Stale)), "{verdict:?}");
        }
        last = pair.access;
    }
    for follower in followers {
        until("revoked", || verdict(follower, &last) == Err(Denied::Revoked)).await;
    }
}

// check 17
#[tokio::test]
async fn a_suspension_and_a_deletion_are_known_when_they_are_answered() {
    let f = exact().await;
    admin::suspend(&f.app.app, f.client.id, Default::default()).await.unwrap();
    f.knows(Denied::ClientInactive);
    admin::resume(&f.app.app, f.client.id).await.unwrap();
    f.knows(Denied::Revoked);
    let f = f.again().await;
    admin::logout(&f.app.app, f.client.id).await.unwrap();
    f.knows(Denied::Revoked);
    let f = f.again().await;
    admin::delete(&f.app.app, f.client.id).await.unwrap();
    f.knows(Denied::ClientInactive);
}

// check 17
#[tokio::test]
async fn a_revoked_credential_is_known_when_it_is_answered() {
    let f = exact().await;
    admin::revoke_credential(&f.app.app, &f.client.key).await.unwrap();
    f.knows(Denied::Revoked);
}

// check 72
#[tokio::test]
async fn a_narrowed_allowlist_is_known_when_it_is_answered() {
    let f = exact().await;
    let narrow = AllowChange { remove: vec!["127.0.0.0/8".into()], ..AllowChange::default() };
    admin::change_allowlist(&f.app.app, f.client.id, narrow).await.unwrap();
    f.knows(Denied::AddressNotAllowed);
}

// check 31
#[tokio::test]
async fn a_revoked_session_is_known_when_it_is_answered_even_the_second_time() {
    let f = exact().await;
    auth::revoke(&f.app.app, f.client.id, &f.pair.refresh).await.unwrap();
    f.knows(Denied::Revoked);
    let f = f.again().await;
    let revoke = || auth::revoke(&f.app.app, f.client.id, &f.pair.refresh);
    // Whichever of the two ended it, both may say so.
    tokio::join!(
        async {
            revoke().await.unwrap();
            f.knows(Denied::Revoked);
        },
        async {
            revoke().await.unwrap();
            f.knows(Denied::Revoked);
        }
    );
}

// check 48
#[tokio::test]
async fn a_retired_key_is_known_when_it_is_answered() {
    let f = exact().await;
    let keys = admin::rotate_key(&f.app.app, KeyRotation::default()).await.unwrap();
    let new = f.app.grant(&f.client).await;
    // The key that signs from now on is known as well.
    assert!(matches!(verdict(&f.follower, &new.access), Ok(()) | Err(Denied::Stale)));
    stands(&f.follower, &f.pair.access).await;
    admin::retire_key(&f.app.app, &keys[0].kid).await.unwrap();
    f.knows(Denied::UnknownKey);
}

#[tokio::test]
async fn a_follower_that_joins_during_a_logout_knows_of_it() {
    let app = brief().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let token = verifier_token(&app, true).await;
    renew(&app, &token, "stalled").await;
    let joined = async {
        while app.verify(&pair.access).await.status == 200 {}
        let follower = follow_exactly(app.management, &token);
        timeout(PATIENCE, follower.ready()).await.unwrap();
        until("known", || {
            let verdict = verdict(&follower, &pair.access);
            assert_ne!(verdict, Ok(()));
            verdict == Err(Denied::Revoked)
        })
        .await;
    };
    let (answered, ()) = tokio::join!(timeout(PATIENCE, app.logout(&pair.access)), joined);
    answered.unwrap().is_logged_out();
}

#[tokio::test]
async fn a_follower_that_renews_its_lease_and_applies_nothing_holds_up_no_logout_for_ever() {
    let app = brief().await;
    let client = app.client().await;
    let token = verifier_token(&app, true).await;
    for _ in 0..2 {
        let pair = app.grant(&client).await;
        renew(&app, &token, "stalled").await;
        let renewing = async {
            loop {
                assert_eq!(renew(&app, &token, "stalled").await.status, 200);
            }
        };
        let logout = timeout(PATIENCE, app.logout(&pair.access));
        tokio::select! {
            answered = logout => answered.expect("an answer").is_logged_out(),
            () = renewing => {}
        }
    }
}

#[tokio::test]
async fn more_followers_than_a_token_is_good_for_are_told_so() {
    let app = TestApp::today(|_| {}).await;
    let (token, other) = (verifier_token(&app, true).await, verifier_token(&app, true).await);
    for n in 0..1000 {
        assert_eq!(renew(&app, &token, &n.to_string()).await.status, 200);
    }
    let refused = "1000 exact followers share this verifier's token: give others one of their own";
    let told = renew(&app, &token, "one-more").await;
    told.is_error(429, refused);
    // Until the lease of the first one may have ended.
    assert_eq!(told.header("retry-after"), Some("3"));
    assert_eq!(renew(&app, &token, "7").await.status, 200);
    assert_eq!(renew(&app, &other, "one-more").await.status, 200);
    let follower = follow_exactly(app.management, &token);
    until("a refusal", || *follower.status().borrow() == Some(FeedError::Refused(429))).await;
    // Until the leases have run out.
    app.advance(3);
    timeout(PATIENCE, follower.ready()).await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_a_follower_that_has_left() {
    let f = exact().await;
    let clone = f.follower.clone();
    let attached = async || f.app.app.cluster.followers.settled(0).await.followers;
    assert_eq!(attached().await, 1);
    f.follower.leave().await;
    assert_eq!(attached().await, 0);
    assert_eq!(verdict(&clone, &f.pair.access), Err(Denied::Stale));
    // For whoever stops twice, and where there is nobody to be told.
    clone.leave().await;
    let Followed { app, pair, .. } = f;
    let token = verifier_token(&app, true).await;
    let follower = follow_exactly(app.management, &token);
    stands(&follower, &pair.access).await;
    app.stop().await;
    timeout(PATIENCE, follower.leave()).await.unwrap();
    assert_eq!(verdict(&follower, &pair.access), Err(Denied::Stale));
}

#[tokio::test]
async fn a_follower_that_is_only_dropped_is_waited_for() {
    let Followed { app, follower, .. } = exact().await;
    drop(follower);
    let waited_for = Outcome { followers: 1, acknowledged: 1 };
    assert_eq!(app.app.cluster.followers.settled(0).await, waited_for);
}

#[tokio::test]
async fn a_server_that_gives_no_leases_is_not_followed_exactly() {
    let mut fake = Fake::start().await;
    fake.answer(r#"{"epoch":"e","seq":5}"#);
    let follower = follow_exactly(fake.address, "rv_test");
    let mut feed = fake.feed().await.begin().await;
    feed.snapshot("e", 5).await;
    until("a refusal", || *follower.status().borrow() == Some(FeedError::NoLease)).await;
    assert!(!follower.is_ready());
    // It has become newer.
    fake.answer(r#"{"epoch":"e","seq":5,"lease_ms":60000}"#);
    let mut feed = fake.feed().await.begin().await;
    feed.snapshot("e", 5).await;
    timeout(PATIENCE, follower.ready()).await.unwrap();
}

// The regular question would come much later.
#[tokio::test]
async fn what_was_applied_is_acknowledged_at_once() {
    let mut fake = Fake::start().await;
    fake.answer(r#"{"epoch":"e","seq":5,"lease_ms":3600000}"#);
    let follower = follow_exactly(fake.address, "rv_test");
    let mut feed = fake.feed().await.begin().await;
    feed.snapshot("e", 5).await;
    timeout(PATIENCE, follower.ready()).await.unwrap();
    for seq in 6..20 {
        feed.send(format!("event: change\ndata: {{\"seq\":{seq},\"keys\":[]}}\n\n")).await;
        fake.asked(&format!("{{\"epoch\":\"e\",\"seq\":{seq},\"mode\":\"exact\",")).await;
    }
    assert!(follower.is_ready());
}

// A lease that is too short for the regular question is not good for longer than it says.
#[tokio::test]
async fn a_lease_is_good_for_no_longer_than_it_says() {
    let mut fake = Fake::start().await;
    fake.answer(r#"{"epoch":"e","seq":5,"lease_ms":300}"#);
    let follower = follow_exactly(fake.address, "rv_test");
    let mut feed = fake.feed().await.begin().await;
    feed.snapshot("e", 5).await;
    timeout(PATIENCE, follower.ready()).await.unwrap();
    fake.answer(r#"{"epoch":"e","seq":6,"lease_ms":300}"#);
    fake.answered(1).await;
    let since = crate::follow::now();
    until("stale", || {
        let begun = crate::follow::now();
        let ready = follower.is_ready();
        assert!(!ready || begun < since + Duration::from_millis(300), "ready {:?} later", begun - since);
        !ready
    })
    .await;
}
