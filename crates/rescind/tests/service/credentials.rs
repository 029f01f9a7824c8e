//! Creation, rotation and revocation of credentials and signing keys.

use rescind_admin::{self as admin, NewCredential, Rotation};

use crate::app::{Client, DAY, HOUR, TestApp};

const CREDENTIALS: &str = "Invalid credentials";
const TOKEN: &str = "Invalid token";

async fn second_credential(app: &TestApp, client: &Client) -> Client {
    let created = admin::create_credential(&app.app, client.id, NewCredential::default()).await.unwrap();
    Client { key: created.api_key, secret: created.api_secret, ..client.clone() }
}

#[tokio::test]
async fn a_rotated_credential_works_until_its_overlap_is_over() {
    let app = TestApp::start().await;
    let old = app.client().await;
    let rotation = Rotation { overlap: Some("1h".parse().unwrap()) };
    let created = admin::rotate_credential(&app.app, &old.key, rotation).await.unwrap();
    assert_eq!(created.expires_at, None);
    let replaces = created.replaces.unwrap();
    assert_eq!(
        (replaces.api_key, replaces.expires_at),
        (old.key.clone(), Some("2025-01-15T13:00:00Z".into()))
    );
    let new = Client { key: created.api_key, secret: created.api_secret, ..old.clone() };
    assert!(old.key != new.key && old.secret != new.secret);
    let (old_pair, new_pair) = (app.grant(&old).await, app.grant(&new).await);
    app.advance(HOUR - 1);
    let old_pair = app.renew(&old_pair).await;
    app.advance(1);
    app.login(&old).await.is_error(401, CREDENTIALS);
    app.refresh(&old_pair.refresh).await.is_error(401, TOKEN);
    app.grant(&new).await;
    app.renew(&new_pair).await;

    // No overlap at all, and the default of a day.
    let rotation = Rotation { overlap: Some("0s".parse().unwrap()) };
    let newest = admin::rotate_credential(&app.app, &new.key, rotation).await.unwrap();
    app.login(&new).await.is_error(401, CREDENTIALS);
    let newest = Client { key: newest.api_key, secret: newest.api_secret, ..old };
    let created = admin::rotate_credential(&app.app, &newest.key, Rotation::default()).await.unwrap();
    assert_eq!(created.replaces.unwrap().expires_at, Some("2025-01-16T13:00:00Z".into()));
    app.advance(DAY - 1);
    app.grant(&newest).await;
    app.advance(1);
    app.login(&newest).await.is_error(401, CREDENTIALS);
}

// check 17
#[tokio::test]
async fn revoking_a_credential_ends_what_was_born_of_it_and_nothing_else() {
    let app = TestApp::start().await;
    let first = app.client().await;
    let second = second_credential(&app, &first).await;
    let (doomed, kept) = (app.grant(&first).await, app.grant(&second).await);
    let renewed = app.renew(&doomed).await;
    let view = admin::revoke_credential(&app.app, &first.key).await.unwrap();
    assert_eq!((view.status.as_str(), view.revoked_at.as_deref()), ("revoked", Some("2025-01-15T12:00:00Z")));
    let app = {
        let mut app = app;
        for restart in [false, true] {
            if restart {
                app = app.restart().await;
            }
            for pair in [&doomed, &renewed] {
                assert!(!app.stands(&pair.access).await);
                app.refresh(&pair.refresh).await.is_error(401, TOKEN);
            }
            app.login(&first).await.is_error(401, CREDENTIALS);
            assert!(app.stands(&kept.access).await);
        }
        app
    };
    app.renew(&kept).await;
    app.grant(&second).await;
}

// check 17
#[tokio::test]
async fn deletion_ends_every_credential_for_good() {
    let app = TestApp::start().await;
    let first = app.client().await;
    let second = second_credential(&app, &first).await;
    let pairs = [app.grant(&first).await, app.grant(&second).await];
    admin::delete(&app.app, first.id).await.unwrap();
    assert!(admin::resume(&app.app, first.id).await.is_err());
    let app = app.restart().await;
    for pair in &pairs {
        assert!(!app.stands(&pair.access).await);
        app.refresh(&pair.refresh).await.is_error(401, TOKEN);
    }
    app.login(&first).await.is_error(401, CREDENTIALS);
    app.login(&second).await.is_error(401, CREDENTIALS);
}

// check 48
#[tokio::test]
async fn an_old_signing_key_verifies_until_it_is_retired() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (old, refreshed_later) = (app.grant(&client).await, app.grant(&client).await);
    let keys = admin::keys(&app.app).await.unwrap();
    let [first] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!((first.status.as_str(), first.algorithm.as_str()), ("signing", "HS256"));
    assert!(admin::retire_key(&app.app, &first.kid).await.is_err());
    assert!(app.stands(&old.access).await);

    let rotated = admin::rotate_key(&app.app, admin::KeyRotation::default()).await.unwrap();
    let status: Vec<&str> = rotated.iter().map(|key| key.status.as_str()).collect();
    assert_eq!(status, ["verifying", "signing"]);
    assert_eq!(rotated[0].retires_at.as_deref(), Some("2025-01-22T12:00:00Z"));
    let new = app.grant(&client).await;
    let header = |token: &str| token.split('.').next().unwrap().to_owned();
    assert_ne!(header(&old.access), header(&new.access));
    assert!(new.access.starts_with("eyJhbGciOiJIUzI1NiIs"));
    assert!(app.stands(&old.access).await && app.stands(&new.access).await);
    let crossed = app.renew(&refreshed_later).await;
    assert_eq!(header(&crossed.access), header(&new.access));

    let app = app.restart().await;
    assert!(app.stands(&old.access).await && app.stands(&new.access).await);
    admin::retire_key(&app.app, &first.kid).await.unwrap();
    assert!(admin::retire_key(&app.app, &rotated[1].kid).await.is_err());
    for pair in [&old, &refreshed_later] {
        assert!(!app.stands(&pair.access).await);
        app.refresh(&pair.refresh).await.is_error(401, TOKEN);
    }
    assert!(app.stands(&new.access).await && app.stands(&crossed.access).await);
    app.renew(&new).await;
    app.renew(&crossed).await;

    let app = app.restart().await;
    assert!(!app.stands(&old.access).await && app.stands(&new.access).await);
    assert_eq!(admin::keys(&app.app).await.unwrap().len(), 1);
}

// check 48
#[tokio::test]
async fn a_rotated_key_goes_by_itself_when_its_last_token_has_run_out() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let old = app.grant(&client).await;
    admin::rotate_key(&app.app, admin::KeyRotation::default()).await.unwrap();
    app.advance(7 * DAY - 1);
    app.app.sweep().await.unwrap();
    let renewed = app.renew(&old).await;
    app.advance(2);
    app.app.sweep().await.unwrap();
    assert_eq!(admin::keys(&app.app).await.unwrap().len(), 1);
    app.verify(&old.access).await.is_error(401, TOKEN);
    assert!(app.stands(&renewed.access).await);
}

// Sessions that are over are forgotten, and their tokens with them.
#[tokio::test]
async fn the_sweep_makes_no_dead_token_stand() {
    let app = TestApp::with(|config| config.server.sessions_in_memory = 1).await;
    let (client, other) = (app.client().await, app.client().await);
    let (doomed, kept) = (app.grant(&client).await, app.grant(&other).await);
    app.logout(&doomed.access).await.is_logged_out();
    app.app.sweep().await.unwrap();
    assert_eq!(app.app.store.find(0, 1).await.unwrap().session, None);
    assert!(!app.stands(&doomed.access).await);
    app.refresh(&doomed.refresh).await.is_error(401, TOKEN);
    let app = app.restart().await;
    assert!(!app.stands(&doomed.access).await);
    assert!(app.stands(&kept.access).await);
    app.renew(&kept).await;
}
