//! The rotation of the pepper, under which secrets are hashed.

use std::task::{Context, Waker};

use rescind_admin::{self as admin, NewManagementToken, NewVerifier, PepperRetirement};
use rescind_base::model::{EventFilter, Role};

use crate::{
    app::{Client, TestApp},
    oauth::{Who, introspect},
    outage::store,
};

const CREDENTIALS: &str = "Invalid credentials";

/// The number of the pepper that the client's hash is under, in the store.
async fn pepper_of(app: &TestApp, client: &Client) -> u32 {
    app.stored(client).await.credentials[0].secret_hash.pepper
}

async fn manages(app: &TestApp, token: &str) -> u16 {
    let url = format!("http://{}/admin/v1/status", app.management);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    app.send(http.get(url).bearer_auth(token)).await.status
}

/// How many credentials, management tokens and verifiers are under the former pepper.
async fn left(app: &TestApp) -> [usize; 3] {
    let left = admin::pepper(&app.app).await.unwrap().left;
    let counts = [left.credentials.len(), left.management_tokens.len(), left.verifiers.len()];
    assert_eq!(left.count, counts.iter().sum::<usize>() as u64);
    counts
}

async fn retire(app: &TestApp, revoke_left: bool) -> Result<admin::PepperView, admin::Error> {
    admin::retire_pepper(&app.app, PepperRetirement { revoke_left }).await
}

#[tokio::test]
async fn every_secret_stays_good_and_is_under_the_new_pepper_once_it_was_used() {
    let app = TestApp::start().await;
    let [used, unused] = [app.client().await, app.client().await];
    let new =
        || NewManagementToken { name: "m".into(), role: Role::Admin, clients: vec![], expires_in: None };
    let token = admin::create_management_token(&app.app, new()).await.unwrap();
    admin::create_management_token(&app.app, new()).await.unwrap();
    let verifier = NewVerifier { name: "v".into(), share_hs256: false };
    let verifier = admin::create_verifier(&app.app, verifier).await.unwrap();
    let pair = app.grant(&used).await;
    let version = admin::version(serde_json::json!(admin::client(&app.app, used.id).await.unwrap()));

    let rotated = admin::rotate_pepper(&app.app).await.unwrap();
    assert_eq!((rotated.present, rotated.former), (2, Some(1)));
    assert_eq!(left(&app).await, [2, 2, 1]);
    let again = admin::rotate_pepper(&app.app).await.unwrap_err().to_string();
    assert!(again.contains("retire it first"), "{again}");

    // Each by its use, and what is made from now on at once. A wrong secret changes nothing.
    app.login(&Client { secret: unused.secret.clone(), ..used.clone() }).await.is_error(401, CREDENTIALS);
    assert_eq!(left(&app).await, [2, 2, 1]);
    app.grant(&used).await;
    assert_eq!(left(&app).await, [1, 2, 1]);
    assert_eq!(manages(&app, &token.token).await, 200);
    assert_eq!(left(&app).await, [1, 1, 1]);
    assert_eq!(introspect(&app, Who::Bearer(&verifier.token), &pair.access).await.status, 200);
    assert_eq!(left(&app).await, [1, 1, 0]);
    let later = app.client().await;
    app.grant(&later).await;
    let peppers =
        [pepper_of(&app, &used).await, pepper_of(&app, &unused).await, pepper_of(&app, &later).await];
    assert_eq!(peppers, [2, 1, 2]);
    assert!(app.stands(&pair.access).await);
    // Nothing that an operator sees has changed.
    assert_eq!(admin::version(serde_json::json!(admin::client(&app.app, used.id).await.unwrap())), version);

    // Memory and a process after this one agree.
    let app = app.restart().await;
    assert_eq!(left(&app).await, [1, 1, 0]);
    for client in [&used, &later] {
        app.grant(client).await;
    }
    assert_eq!(manages(&app, &token.token).await, 200);

    let refused = retire(&app, false).await.unwrap_err().to_string();
    assert!(refused.starts_with("2 secrets are still under"), "{refused}");
    let retired = retire(&app, true).await.unwrap();
    assert_eq!((retired.present, retired.former, retired.left.count), (2, None, 0));
    let app = app.restart().await;
    for client in [&used, &later] {
        app.grant(client).await;
    }
    app.login(&unused).await.is_error(401, CREDENTIALS);
    assert!(app.stored(&unused).await.credentials[0].revoked_at.is_some());
    assert_eq!(admin::management_tokens(&app.app).await.unwrap().len(), 1);
    assert_eq!(manages(&app, &token.token).await, 200);
    assert_eq!(introspect(&app, Who::Bearer(&verifier.token), &pair.access).await.status, 200);
    assert!(app.stands(&pair.access).await);

    let records = app.app.store.records(EventFilter::newest(100)).await.unwrap().records;
    let kinds = records.iter().map(|record| record.kind.as_str()).filter(|kind| kind.starts_with("pepper"));
    assert_eq!(kinds.collect::<Vec<_>>(), ["pepper_rotated", "pepper_retired"]);
    let alone = retire(&app, true).await.unwrap_err().to_string();
    assert!(alone.contains("rotate it first"), "{alone}");
}

#[tokio::test]
async fn a_retired_pepper_opens_nothing_and_the_next_rotation_goes_on_from_there() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for present in 2..5 {
        assert_eq!(admin::rotate_pepper(&app.app).await.unwrap().present, present);
        app.grant(&client).await;
        assert_eq!(retire(&app, false).await.unwrap().former, None);
        assert_eq!(pepper_of(&app, &client).await, present);
        app.grant(&client).await;
    }
    let secrets = app.app.store.load().await.unwrap().secrets;
    assert_eq!(secrets.keys().collect::<Vec<_>>(), ["audit", "installation", "pepper 4"]);
    let app = app.restart().await;
    app.grant(&client).await;
}

#[tokio::test]
async fn a_suspended_clients_secret_is_no_less_good_after_a_rotation() {
    let app = TestApp::start().await;
    let client = app.client().await;
    admin::suspend(&app.app, client.id, admin::NewSuspension::default()).await.unwrap();
    admin::rotate_pepper(&app.app).await.unwrap();
    app.login(&client).await.is_error(401, CREDENTIALS);
    assert_eq!(left(&app).await, [1, 0, 0]);
    admin::resume(&app.app, client.id).await.unwrap();
    app.grant(&client).await;
    assert_eq!(left(&app).await, [0, 0, 0]);
}

#[tokio::test]
async fn whoever_asks_and_goes_away_leaves_memory_as_the_store_is() {
    let app = TestApp::start().await;
    let client = app.client().await;
    admin::rotate_pepper(&app.app).await.unwrap();
    app.grant(&client).await;
    let mut asking = Box::pin(admin::pepper(&app.app));
    assert!(asking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(asking);
    retire(&app, false).await.unwrap();
    app.grant(&client).await;
}

#[tokio::test]
async fn what_cannot_be_written_is_written_later() {
    let app = TestApp::start().await;
    let clients = [app.client().await, app.client().await];
    admin::rotate_pepper(&app.app).await.unwrap();
    let full = "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    let full = format!("CREATE TRIGGER full BEFORE UPDATE ON credential {full}");
    store(&app).execute_batch(&full).unwrap();
    for client in &clients {
        app.grant(client).await;
    }
    for _ in 0..2 {
        admin::pepper(&app.app).await.unwrap_err();
    }
    store(&app).execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(left(&app).await, [0, 0, 0]);
    retire(&app, false).await.unwrap();
    for client in &clients {
        app.grant(client).await;
    }
}
