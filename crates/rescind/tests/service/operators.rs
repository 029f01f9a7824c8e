//! What ends by itself.

use rescind::auth::{self, Caller};
use rescind_admin::{self as admin, NewCredential, NewSuspension, SessionQuery};
use rusqlite::Connection;

use crate::app::{DAY, HOUR, TestApp};

#[tokio::test]
async fn a_suspension_for_a_time_ends_by_itself_and_revives_no_token() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let wanted = NewSuspension { lasts: Some("2h".parse().unwrap()), reason: Some("why".into()) };
    let suspended = admin::suspend(&app.app, client.id, wanted).await.unwrap();
    assert_eq!(suspended.suspended_until.as_deref(), Some("2025-01-15T14:00:00Z"));
    let caller = Caller::direct([127, 0, 0, 1].into());
    app.clock.advance(2 * HOUR - 1);
    app.app.sweep().await.unwrap();
    assert!(auth::login(&app.app, &client.key, &client.secret, &caller).await.is_err());
    app.clock.advance(1);
    app.app.sweep().await.unwrap();
    assert!(auth::login(&app.app, &client.key, &client.secret, &caller).await.is_ok());
    assert!(auth::verify(&app.app, &pair.access, &caller).await.is_err());
    let shown = admin::client(&app.app, client.id).await.unwrap();
    assert_eq!((shown.suspended_until, shown.suspension_reason), (None, None));
    // One without an end stays.
    admin::suspend(&app.app, client.id, NewSuspension::default()).await.unwrap();
    app.clock.advance(400 * DAY);
    app.app.sweep().await.unwrap();
    assert!(auth::login(&app.app, &client.key, &client.secret, &caller).await.is_err());
}

#[tokio::test]
async fn a_credential_that_ended_is_deleted_after_thirty_days() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let expiring = NewCredential { expires_in: Some("1d".parse().unwrap()) };
    let second = admin::create_credential(&app.app, client.id, expiring).await.unwrap();
    let third = admin::create_credential(&app.app, client.id, NewCredential::default()).await.unwrap();
    admin::revoke_credential(&app.app, &third.api_key).await.unwrap();
    let keys = async || {
        let credentials = admin::credentials(&app.app, client.id).await.unwrap();
        credentials.into_iter().map(|credential| credential.api_key).collect::<Vec<_>>()
    };
    app.clock.advance(30 * DAY);
    app.app.sweep().await.unwrap();
    assert_eq!(keys().await, [client.key.clone(), second.api_key.clone(), third.api_key.clone()]);
    app.clock.advance(1);
    app.app.sweep().await.unwrap();
    assert_eq!(keys().await, [client.key.clone(), second.api_key.clone()]);
    app.clock.advance(DAY);
    app.app.sweep().await.unwrap();
    assert_eq!(keys().await, [client.key.as_str()]);
    assert!(app.app.memory.registry.credential(&second.api_key).is_none());
    let caller = Caller::direct([127, 0, 0, 1].into());
    assert!(auth::login(&app.app, &second.api_key, &second.api_secret, &caller).await.is_err());
    assert!(auth::login(&app.app, &client.key, &client.secret, &caller).await.is_ok());
}

#[tokio::test]
async fn a_list_of_sessions_counts_all_and_shows_the_newest() {
    let app = TestApp::start().await;
    let (client, other) = (app.client().await, app.client().await);
    app.grant(&client).await;
    let store = Connection::open(app.app.folder().store()).unwrap();
    // More than one read looks at.
    let columns = "client_id, credential_id, key_id, generation, scopes, pair, phase, started_at, issued_at,
                   access_expires_at, refresh_expires_at, resources";
    let copy = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
         INSERT INTO session ({columns}) SELECT {columns} FROM session, n"
    );
    store.execute_batch(&copy).unwrap();
    app.grant(&other).await;
    app.grant(&client).await;
    let listed = admin::sessions(&app.app, client.id, SessionQuery { limit: Some(2) }).await.unwrap();
    let shown: Vec<_> = listed.sessions.iter().map(|session| session.session_id).collect();
    assert_eq!((listed.live, shown), (40_002, vec![40_003, 40_001]));
    let of_other = admin::sessions(&app.app, other.id, SessionQuery::default()).await.unwrap();
    assert_eq!((of_other.live, of_other.sessions.len()), (1, 1));
}
