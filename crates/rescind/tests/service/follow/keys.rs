//! The keys that a verifier in another process gets.

use std::time::Duration;

use rescind_admin::{self as admin, KeyRotation, KeyView};
use rescind_node::memory::Changed;
use rescind_verifier::{
    Denied,
    follow::wire::{Position, What, event_id},
};

use crate::{
    app::TestApp,
    follow::{feed::Stream, follow, stands, until, verdict, verifier_token},
};

const BOUND: Duration = Duration::from_millis(500);

async fn rotate(app: &TestApp, algorithm: &str, publish_ahead: &str) -> Vec<KeyView> {
    let wanted = KeyRotation {
        algorithm: Some(algorithm.into()),
        publish_ahead: Some(publish_ahead.parse().unwrap()),
    };
    admin::rotate_key(&app.app, wanted).await.unwrap()
}

/// The key strings and ids of every HS256 key. Only verifiers with `share_hs256` may get them.
fn secrets(app: &TestApp) -> Vec<String> {
    let keys = app.app.memory.issuer.keyring().wire_keys(true);
    keys.into_iter().filter(|key| key.alg == "HS256").flat_map(|key| [key.key, key.kid]).collect()
}

async fn until_told(stream: &mut Stream) {
    while !matches!(stream.change().await.what, What::Keys(_)) {}
}

#[tokio::test]
async fn no_secret_reaches_a_verifier_that_may_not_have_it() {
    let app = TestApp::today(|_| {}).await;
    let (plain, sharing) = (verifier_token(&app, false).await, verifier_token(&app, true).await);
    let mut streams = [Stream::open(&app, &plain, None).await, Stream::open(&app, &sharing, None).await];
    for stream in &mut streams {
        stream.snapshot().await;
    }
    let mut all = secrets(&app);
    for algorithm in ["HS256", "EdDSA", "ES256", "HS256"] {
        rotate(&app, algorithm, "0s").await;
        for stream in &mut streams {
            until_told(stream).await;
        }
        all.extend(secrets(&app));
    }
    // As they resume, too.
    let [plain_stream, sharing_stream] = &mut streams;
    let beginning = Position { seq: 0, ..app.app.memory.registry.feed().head() };
    let mut resumed = Stream::open(&app, &plain, Some(&event_id(&beginning))).await;
    resumed.resumed(&beginning).await;
    until_told(&mut resumed).await;

    let holds =
        |bytes: &[u8], secret: &str| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
    assert!(all.len() >= 6);
    for secret in &all {
        assert!(holds(&sharing_stream.bytes, secret));
        assert!(!holds(&plain_stream.bytes, secret));
        assert!(!holds(&resumed.bytes, secret));
    }
    assert!(!holds(&plain_stream.bytes, "HS256") && !holds(&resumed.bytes, "HS256"));
}

// A revoked verifier that is slow to read must not be told the key that comes after it.
#[tokio::test]
async fn a_secret_made_after_a_verifier_was_revoked_does_not_reach_it() {
    let app = TestApp::today(|_| {}).await;
    let token = verifier_token(&app, true).await;
    let client = app.client().await;
    let before = app.app.memory.registry.feed().head();
    // More than is on its way at any time, and then the keys.
    for _ in 0..9000 {
        app.app.memory.registry.feed().publish(Changed::Client(client.id));
    }
    app.app.memory.registry.feed().publish(Changed::Keys);
    let mut stream = Stream::open(&app, &token, Some(&event_id(&before))).await;
    let old = secrets(&app);
    let verifier = admin::verifiers(&app.app)[0].verifier_id;
    admin::revoke_verifier(&app.app, verifier).await.unwrap();
    rotate(&app, "HS256", "0s").await;
    let new: Vec<_> = secrets(&app).into_iter().filter(|secret| !old.contains(secret)).collect();
    assert_eq!(new.len(), 2);
    while stream.next().await.is_some() {}
    let text = str::from_utf8(&stream.bytes).unwrap();
    assert!(new.iter().all(|secret| !text.contains(secret)));
}

#[tokio::test]
async fn hs256_tokens_are_unknown_without_opt_in_and_public_keys_need_none() {
    let app = TestApp::today(|_| {}).await;
    let (plain, sharing) = (verifier_token(&app, false).await, verifier_token(&app, true).await);
    let followers = [plain, sharing].map(|token| follow(app.management, &token, BOUND));
    let client = app.client().await;
    let hs256 = app.grant(&client).await.access;
    stands(&followers[1], &hs256).await;
    until("not its key", || verdict(&followers[0], &hs256) == Err(Denied::UnknownKey)).await;

    for algorithm in ["EdDSA", "ES256"] {
        rotate(&app, algorithm, "0s").await;
        let token = app.grant(&client).await.access;
        for follower in &followers {
            stands(follower, &token).await;
        }
    }
    until("still not its key", || verdict(&followers[0], &hs256) == Err(Denied::UnknownKey)).await;
}

#[tokio::test]
async fn a_key_published_ahead_is_known_before_it_signs() {
    let app = TestApp::today(|_| {}).await;
    let follower = follow(app.management, &verifier_token(&app, false).await, BOUND);
    rotate(&app, "ES256", "0s").await;
    rotate(&app, "EdDSA", "30s").await;
    // Whoever knows this client knows what was changed before it.
    let client = app.client().await;
    let before = app.grant(&client).await.access;
    stands(&follower, &before).await;
    app.advance(31);
    let after = app.grant(&client).await.access;
    assert_ne!(before.split('.').next(), after.split('.').next(), "another key signs");
    // Anything but the key may be missing now.
    assert!(matches!(verdict(&follower, &after), Ok(()) | Err(Denied::Stale)));
    stands(&follower, &after).await;
}
