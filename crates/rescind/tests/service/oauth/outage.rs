//! The OAuth endpoints while the store fails.

use crate::{
    app::{Client, TestApp},
    oauth::{
        TOKEN, Who, access_token, ask, introspect, introspect_refresh, introspector, is_done, issue,
        parameters, revoke,
    },
    outage::store,
    reply::Reply,
};

// check 28
#[track_caller]
fn is_unavailable(reply: &Reply) {
    reply.is_oauth_error(503, "temporarily_unavailable");
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(reply.header("www-authenticate"), None);
    assert!(!reply.body.contains("active"), "{reply:?}");
}

// check 16, 28, 89
#[tokio::test]
async fn while_the_store_takes_no_writes_nothing_is_said_to_be_done() {
    let app = TestApp::start().await;
    let (client, asking) = (introspector(&app).await, introspector(&app).await);
    let pair = app.grant(&client).await;
    let session = app.session(1).await;
    let full = "BEGIN SELECT RAISE(ABORT, 'database or disk is full: canary'); END";
    let break_it = format!(
        "CREATE TRIGGER no_login BEFORE INSERT ON session {full};
         CREATE TRIGGER no_revocation BEFORE UPDATE ON session {full};"
    );
    store(&app).execute_batch(&break_it).unwrap();
    for _ in 0..2 {
        is_unavailable(&issue(&app, &client, None).await);
        is_unavailable(&revoke(&app, &client, &pair.access).await);
        is_unavailable(&revoke(&app, &client, &pair.refresh).await);
        // What is known without a write is still decided.
        assert_eq!(introspect(&app, Who::Basic(&asking), &pair.access).await.json()["active"], true);
        assert_eq!(introspect_refresh(&app, &client, &pair.refresh).await.json()["active"], true);
        for token in [&pair.access, &pair.refresh] {
            revoke(&app, &asking, token).await.is_oauth_error(400, "invalid_grant");
        }
        is_done(&revoke(&app, &client, "x").await);
        let bad = Client { secret: "rs_wrong".into(), ..client.clone() };
        issue(&app, &bad, None).await.is_oauth_error(401, "invalid_client");
        let reply = ask(&app, TOKEN, Who::Basic(&client), &[("grant_type", "x")]).await;
        reply.is_oauth_error(400, "unsupported_grant_type");
    }
    assert_eq!(app.session(1).await, session);
    store(&app).execute_batch("DROP TRIGGER no_login; DROP TRIGGER no_revocation").unwrap();
    is_done(&revoke(&app, &client, &pair.refresh).await);
    assert!(!app.stands(&pair.access).await);
    assert!(app.stands(&access_token(&app, &client).await).await);
}

// check 28, Hydra #3811: an outage is not answered as "inactive"
#[tokio::test]
async fn while_the_store_cannot_be_read_no_token_is_called_inactive() {
    let app = TestApp::start().await;
    let (client, asking) = (introspector(&app).await, introspector(&app).await);
    let known = app.grant(&client).await;
    let bearer = access_token(&app, &asking).await;
    let app = app.restart().await;
    store(&app).execute_batch("ALTER TABLE session RENAME TO gone").unwrap();
    for _ in 0..2 {
        for who in [Who::Basic(&asking), Who::Body(&asking)] {
            is_unavailable(&introspect(&app, who, &known.access).await);
            // To everybody but its client it stands for nothing.
            introspect(&app, who, &known.refresh).await.is_inactive();
            // No store can make anything of these.
            introspect(&app, who, "x").await.is_inactive();
            introspect(&app, who, &known.access[1..]).await.is_inactive();
        }
        is_unavailable(&introspect_refresh(&app, &client, &known.refresh).await);
        // Nor is whoever asks told that its own token is bad.
        is_unavailable(&introspect(&app, Who::Bearer(&bearer), &known.access).await);
        is_unavailable(&revoke(&app, &client, &known.refresh).await);
        is_unavailable(&issue(&app, &client, None).await);
    }
    store(&app).execute_batch("ALTER TABLE gone RENAME TO session").unwrap();
    for who in [Who::Basic(&asking), Who::Bearer(&bearer)] {
        assert_eq!(introspect(&app, who, &known.access).await.json()["active"], true);
    }
    assert_eq!(introspect_refresh(&app, &client, &known.refresh).await.json()["active"], true);
    is_done(&revoke(&app, &client, &known.refresh).await);
    introspect_refresh(&app, &client, &known.refresh).await.is_inactive();
}

// What the store holds and this version cannot read is a fault, not told in detail, and no "inactive".
// check 62
#[tokio::test]
async fn a_damaged_row_is_a_500_without_detail() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let pair = app.grant(&client).await;
    store(&app).execute_batch("UPDATE client SET allowlist = 'canary'").unwrap();
    for reply in [
        issue(&app, &client, None).await,
        introspect_refresh(&app, &client, &pair.refresh).await,
        revoke(&app, &client, &pair.refresh).await,
    ] {
        reply.is_oauth_error(500, "server_error");
        assert!(!reply.body.contains("canary"), "{reply:?}");
    }
    let reply = ask(&app, TOKEN, Who::Nobody, &parameters(TOKEN)).await;
    reply.is_oauth_error(401, "invalid_client");
}
