//! A store that fails: the service answers only what it knows.

use rescind::auth;
use rusqlite::Connection;

use crate::{
    app::{DAY, Pair, TestApp},
    reply::Reply,
};

const UNAVAILABLE: &str = "The service cannot answer safely now. Retry after 1 second.";

/// A second connection to the store, with which a test breaks it.
pub(crate) fn store(app: &TestApp) -> Connection {
    Connection::open(app.app.folder().store()).unwrap()
}

// check 28
fn is_unavailable(reply: &Reply) {
    reply.is_error(503, UNAVAILABLE);
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(reply.header("www-authenticate"), None);
}

// check 16, 89, CVE-2020-15223: a store error is not told as a revocation
#[tokio::test]
async fn while_the_store_takes_no_writes_nothing_is_said_to_be_done() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let (stored, session) = (app.stored(&client).await, app.session(1).await);
    let full = "BEGIN SELECT RAISE(ABORT, 'database or disk is full: canary'); END";
    let break_it = format!(
        "CREATE TRIGGER no_login BEFORE INSERT ON session {full};
         CREATE TRIGGER no_refresh BEFORE UPDATE ON session {full};
         CREATE TRIGGER no_logout BEFORE UPDATE ON client {full};"
    );
    store(&app).execute_batch(&break_it).unwrap();
    for _ in 0..2 {
        is_unavailable(&app.login(&client).await);
        is_unavailable(&app.refresh(&pair.refresh).await);
        is_unavailable(&app.logout(&pair.access).await);
        // What is known without the store is still decided.
        assert!(app.verify(&pair.access).await.status == 200);
        app.logout("x").await.is_error(401, "Invalid token");
        app.refresh("x").await.is_error(401, "Invalid token");
    }
    assert!(app.is_unchanged(&stored).await);
    assert_eq!(app.session(1).await, session);

    let mend_it = "DROP TRIGGER no_login; DROP TRIGGER no_refresh; DROP TRIGGER no_logout;";
    store(&app).execute_batch(mend_it).unwrap();
    let pair = app.renew(&pair).await;
    app.logout(&pair.access).await.is_logged_out();
    assert!(!app.stands(&pair.access).await);
    app.grant(&client).await;
}

// Hydra #3811: an outage is not answered as "inactive", and lets nobody pass
#[tokio::test]
async fn while_the_store_cannot_be_read_unknown_tokens_neither_pass_nor_are_called_invalid() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let Pair { access, refresh, .. } = app.grant(&client).await;
    let app = app.restart().await;
    store(&app).execute_batch("ALTER TABLE session RENAME TO gone").unwrap();
    for _ in 0..2 {
        // A reverse proxy takes 401 and 403 alone for a refusal.
        let reply = app.verify(&access).await;
        reply.is_error(403, "Not able to decide now");
        assert_eq!(reply.header("x-rescind-client"), None);
        is_unavailable(&app.logout(&access).await);
        is_unavailable(&app.refresh(&refresh).await);
        is_unavailable(&app.login(&client).await);
        let caller = auth::Caller::direct([127, 0, 0, 1].into());
        assert!(matches!(auth::verify(&app.app, &access, &caller).await, Err(auth::Error::Store(_))));
    }
    store(&app).execute_batch("ALTER TABLE gone RENAME TO session").unwrap();
    assert!(app.stands(&access).await);
    app.refresh(&refresh).await.pair();
    app.logout(&access).await.is_logged_out();
}

// What the store holds and this version cannot read is a fault, and not told in detail.
// check 62
#[tokio::test]
async fn a_damaged_row_is_a_500_without_detail() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    store(&app).execute_batch("UPDATE client SET allowlist = 'canary'").unwrap();
    for reply in [app.login(&client).await, app.refresh(&pair.refresh).await, app.logout(&pair.access).await]
    {
        reply.is_error(500, "Internal server error");
    }
}

#[tokio::test]
async fn a_part_of_the_sweep_that_fails_keeps_the_rest_from_nothing() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.grant(&client).await;
    app.advance(365 * DAY);
    let gone = "ALTER TABLE handover RENAME TO one; ALTER TABLE sign_in RENAME TO other";
    store(&app).execute_batch(gone).unwrap();
    app.app.sweep().await.unwrap();
    assert_eq!(app.app.store.find(client.id, 1).await.unwrap().session, None);
}
