//! Leases of verifiers stay in force when the process that granted them restarts, also with another configuration.

use std::time::Duration;

use rescind_admin as admin;
use rescind_base::model::Actor;
use rescind_node::config::Config;
use tokio::time::timeout;

use crate::{
    app::{Client, Pair, TestApp},
    follow::{PATIENCE, exact::renew, verifier_token},
};

/// Shorter than every lease here, longer than an answer takes.
const BRIEF: Duration = Duration::from_millis(300);

fn term(seconds: u64) -> impl FnOnce(&mut Config) {
    move |config| {
        config.cluster.lease = format!("{seconds}s").parse().unwrap();
        config.cluster.margin = format!("{}ms", seconds * 100).parse().unwrap();
    }
}

/// A service with a manual clock that has granted a lease of a minute.
async fn has_lent() -> (TestApp, Client, String) {
    let app = TestApp::with(term(60)).await;
    let (client, token) = (app.client().await, verifier_token(&app, true).await);
    let lent = renew(&app, &token, "silent").await.json()["lease_ms"].as_u64().unwrap();
    assert!(lent > 40_000, "{lent}");
    (app, client, token)
}

/// Asserts that a logout is answered after this many more seconds, and not before.
async fn answers_after(app: &TestApp, client: &Client, seconds: i64) {
    let pairs = [app.grant(client).await, app.grant(client).await];
    let out = async |pair: &Pair, patience| timeout(patience, app.logout(&pair.access)).await;
    if seconds > 0 {
        app.advance(seconds - 1);
        assert!(out(&pairs[0], BRIEF).await.is_err(), "a lease is out");
        app.advance(1);
    }
    let pair = app.grant(client).await;
    out(&pair, PATIENCE).await.expect("nobody to wait for").is_logged_out();
}

// check 95
#[tokio::test]
async fn a_restart_with_a_shorter_lease_waits_for_what_was_lent() {
    let (app, client, token) = has_lent().await;
    let app = app.restart_with(term(1)).await;
    // Of its own it lends less, which takes nothing back.
    assert!(renew(&app, &token, "other").await.json()["lease_ms"].as_u64().unwrap() < 1000);
    app.app.sweep().await.unwrap();
    app.advance(30);
    // Whoever comes after knows of it too, by its own clock, which may have begun anew.
    let app = app.restart().await;
    answers_after(&app, &client, 60).await;
    // What is over is not waited for again.
    let app = app.restart_with(term(60)).await;
    answers_after(&app, &client, 0).await;
}

// check 95
#[tokio::test]
async fn a_restart_after_the_last_verifier_was_revoked_waits_for_what_was_lent() {
    let (app, client, _) = has_lent().await;
    // As if it had been killed before that was answered.
    let origin = app.app.audit.origin(Actor::Operator, None);
    app.app.store.delete_verifier(1, origin).await.unwrap();
    let app = app.restart_with(term(1)).await;
    assert!(app.app.memory.verifiers.load().is_empty());
    answers_after(&app, &client, 60).await;
}

// check 95
#[tokio::test]
async fn a_revoked_verifiers_lease_is_waited_for_and_others_are_not() {
    let (app, client, token) = has_lent().await;
    app.advance(60);
    let other = verifier_token(&app, true).await;
    renew(&app, &token, "revoked").await;
    app.advance(59);
    assert!(timeout(BRIEF, admin::revoke_verifier(&app.app, 1)).await.is_err());
    renew(&app, &token, "revoked").await.is_error(401, "Invalid token");
    app.advance(1);
    timeout(PATIENCE, admin::revoke_verifier(&app.app, 2)).await.unwrap().unwrap();
    renew(&app, &other, "too late").await.is_error(401, "Invalid token");
    answers_after(&app, &client, 0).await;
}

// check 95
#[tokio::test]
async fn where_nothing_was_lent_nobody_waits() {
    let app = TestApp::with(term(60)).await;
    let (client, _) = (app.client().await, verifier_token(&app, true).await);
    let app = app.restart().await;
    answers_after(&app, &client, 0).await;
}
