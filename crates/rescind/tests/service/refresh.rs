//! `POST /auth/refresh`

use rescind_admin::{self as admin, NewCredential};
use rescind_base::model;
use serde_json::json;

use crate::{
    app::{Client, DAY, HOUR, TestApp, trust_proxy},
    oauth::client_with,
};

const REQUIRED: &str = "Refresh token is required";
const INVALID: &str = "Invalid token";

#[tokio::test]
async fn a_refresh_gives_the_next_pair_in_the_shape_of_a_login() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    app.advance(HOUR / 2);
    let second = app.renew(&first).await;
    assert_eq!(second.client_id, client.id);
    assert_eq!(second.access_expires_at, "2025-01-15T13:30:00Z");
    assert_eq!(second.refresh_expires_at, "2025-01-22T12:30:00Z");
    assert!(second.access.starts_with("eyJhbGciOiJIUzI1NiIs"));
    assert!(second.refresh.starts_with("eyJhbGciOiJIUzI1NiIs"));
    assert!(first.access != second.access && first.refresh != second.refresh);
    // The access token of the old pair runs out by itself.
    assert!(app.stands(&first.access).await && app.stands(&second.access).await);
    app.advance(HOUR / 2);
    app.verify(&first.access).await.is_error(401, "Token expired");
    assert!(app.stands(&second.access).await);
    app.renew(&second).await;
}

#[tokio::test]
async fn the_token_is_required() {
    let app = TestApp::start().await;
    for body in
        [json!({}), json!({"refresh_token": ""}), json!({"refresh_token": null}), json!({"token": "x"})]
    {
        app.send(app.post("/auth/refresh").json(&body)).await.is_error(400, REQUIRED);
    }
    app.send(app.post("/auth/refresh")).await.is_error(400, REQUIRED);
    let reply = app.send(app.post("/auth/refresh").json(&json!({"refresh_token": 7}))).await;
    reply.is_error(400, "refresh_token must be a string");
    let reply = app.send(app.post("/auth/refresh").json(&json!(["refresh_token"]))).await;
    reply.is_error(400, "Request body must be a JSON object");
    let request = app.post("/auth/refresh").header("content-type", "application/json");
    app.send(request.body("{")).await.is_error(400, "Request body must be valid JSON");
    let reply = app.send(app.post("/auth/refresh").body(r#"{"refresh_token":"x"}"#)).await;
    reply.is_error(415, "Content-Type must be application/json");
}

#[tokio::test]
async fn a_refresh_token_lives_seven_days() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (first, idle) = (app.grant(&client).await, app.grant(&client).await);
    app.advance(7 * DAY - 1);
    let second = app.renew(&first).await;
    assert_eq!(second.refresh_expires_at, "2025-01-29T11:59:59Z");
    app.advance(1);
    app.refresh(&idle.refresh).await.is_error(401, "Token expired");
    // What has expired may be forgotten: nobody is told that it was also used.
    app.refresh(&first.refresh).await.is_error(401, "Token expired");
    app.renew(&second).await;
}

// check 13
#[tokio::test]
async fn no_session_outlives_its_greatest_age() {
    let app = TestApp::with(|config| config.tokens.session_max_age = Some("2h".parse().unwrap())).await;
    let client = app.client().await;
    let mut pair = app.grant(&client).await;
    assert_eq!(pair.refresh_expires_at, "2025-01-15T14:00:00Z");
    for _ in 0..3 {
        app.advance(HOUR / 2);
        pair = app.renew(&pair).await;
        assert_eq!(pair.refresh_expires_at, "2025-01-15T14:00:00Z");
    }
    assert_eq!(pair.access_expires_at, "2025-01-15T14:00:00Z");
    app.advance(HOUR / 2 - 1);
    pair = app.renew(&pair).await;
    assert!(app.stands(&pair.access).await);
    app.advance(1);
    app.refresh(&pair.refresh).await.is_error(401, "Token expired");
    app.verify(&pair.access).await.is_error(401, "Token expired");
    app.grant(&client).await;
}

// check 14
#[tokio::test]
async fn a_scope_sent_with_a_refresh_widens_nothing() {
    let app = TestApp::start().await;
    let client = client_with(&app, &["orders:read"]).await;
    let mut pair = app.grant(&client).await;
    for scope in [json!("orders:read admin"), json!("admin"), json!(["admin"]), json!(""), json!(null)] {
        for name in ["scope", "scopes"] {
            let body = json!({"refresh_token": pair.refresh, name: scope});
            pair = app.send(app.post("/auth/refresh?scope=admin").json(&body)).await.pair();
            let verified = app.verify(&pair.access).await;
            assert_eq!(verified.header("x-rescind-scopes"), Some("orders:read"), "{name}: {scope}");
        }
    }
    // Nor does the next refresh remember any of it.
    pair = app.renew(&pair).await;
    assert_eq!(app.verify(&pair.access).await.header("x-rescind-scopes"), Some("orders:read"));
}

// check 70
#[tokio::test]
async fn a_refresh_from_another_address_is_403_and_does_not_use_the_token_up() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["203.0.113.0/24"]).await;
    let first = app.at("203.0.113.7").login(&client).await.pair();
    for _ in 0..2 {
        app.at("192.0.2.1").refresh(&first.refresh).await.is_error(403, "IP address not authorized");
    }
    let second = app.at("203.0.113.8").refresh(&first.refresh).await.pair();
    // That a token was used goes before where it comes from.
    app.at("192.0.2.1").refresh(&first.refresh).await.is_error(401, INVALID);
    app.at("203.0.113.8").refresh(&second.refresh).await.is_error(401, INVALID);
}

// check 70
#[tokio::test]
async fn the_same_pair_within_the_grace_is_not_given_to_another_address() {
    let app = TestApp::with(|config| {
        trust_proxy(config);
        config.tokens.refresh_grace = Some("10s".parse().unwrap());
    })
    .await;
    let client = app.client_allowed(&["203.0.113.0/24"]).await;
    let first = app.at("203.0.113.7").login(&client).await.pair();
    let second = app.at("203.0.113.7").refresh(&first.refresh).await.pair();
    app.at("192.0.2.1").refresh(&first.refresh).await.is_error(403, "IP address not authorized");
    assert_eq!(app.at("203.0.113.7").refresh(&first.refresh).await.pair(), second);
}

// check 39
#[tokio::test]
async fn each_kind_of_token_is_refused_at_the_other_ones_door() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    app.refresh(&pair.access).await.is_error(401, INVALID);
    app.logout(&pair.refresh).await.is_error(401, INVALID);
    app.verify(&pair.refresh).await.is_error(401, INVALID);
    // Also when expired: its kind is looked at first.
    app.advance(8 * DAY);
    app.refresh(&pair.access).await.is_error(401, INVALID);
    app.verify(&pair.refresh).await.is_error(401, INVALID);
    app.logout(&pair.refresh).await.is_error(401, INVALID);
    app.verify(&pair.access).await.is_error(401, "Token expired");
    // None of this was a theft.
    let pair = app.grant(&client).await;
    app.refresh(&pair.access).await.is_error(401, INVALID);
    app.renew(&pair).await;
}

// check 46
#[tokio::test]
async fn what_is_no_refresh_token_is_invalid() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let token = app.grant(&client).await.refresh;
    let truncated = &token[..token.len() - 1];
    let padded = format!("{token}=");
    let spaced = format!(" {token}");
    let huge = format!("{token}{}", "A".repeat(50_000));
    for bad in ["x", "..", "a.b.c", truncated, &padded, &spaced, &huge, "null"] {
        app.refresh(bad).await.is_error(401, INVALID);
    }
    // Of another service, which has other keys.
    let other = TestApp::start().await;
    let stranger = other.grant(&other.client().await).await;
    app.refresh(&stranger.refresh).await.is_error(401, INVALID);
    let pair = app.refresh(&token).await.pair();
    // check 46: under the same keys, of another issuer
    let app = app.restart_with(|config| config.tokens.issuer = "http://elsewhere".into()).await;
    app.refresh(&pair.refresh).await.is_error(401, INVALID);
    assert!(!app.stands(&pair.access).await);
}

// check 17, CVE-2023-22492, CVE-2024-47000, CVE-2025-64521: refresh survives no deactivation
#[tokio::test]
async fn no_refresh_survives_suspension_deletion_or_the_revoking_of_its_credential() {
    let app = TestApp::start().await;
    let suspended = app.client().await;
    let pair = app.grant(&suspended).await;
    admin::suspend(&app.app, suspended.id, Default::default()).await.unwrap();
    app.refresh(&pair.refresh).await.is_error(401, INVALID);
    admin::resume(&app.app, suspended.id).await.unwrap();
    app.refresh(&pair.refresh).await.is_error(401, INVALID);
    assert!(!app.stands(&pair.access).await);

    let deleted = app.client().await;
    let pair = app.grant(&deleted).await;
    admin::delete(&app.app, deleted.id).await.unwrap();
    app.refresh(&pair.refresh).await.is_error(401, INVALID);
    assert!(!app.stands(&pair.access).await);

    let revoked = app.client().await;
    let pair = app.grant(&revoked).await;
    admin::revoke_credential(&app.app, &revoked.key).await.unwrap();
    app.refresh(&pair.refresh).await.is_error(401, INVALID);
    assert!(!app.stands(&pair.access).await);

    let app = app.restart().await;
    app.refresh(&pair.refresh).await.is_error(401, INVALID);
    assert!(!app.stands(&pair.access).await);
}

// check 17
#[tokio::test]
async fn no_refresh_outlives_its_credential() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let expires_in = NewCredential { expires_in: Some("30m".parse().unwrap()) };
    let short = admin::create_credential(&app.app, client.id, expires_in).await.unwrap();
    let short = Client { key: short.api_key, secret: short.api_secret, ..client.clone() };
    let pair = app.grant(&short).await;
    app.advance(HOUR / 2 - 1);
    let pair = app.renew(&pair).await;
    app.advance(1);
    app.refresh(&pair.refresh).await.is_error(401, INVALID);
    // Its access tokens run to their end, and the client's other credential goes on.
    assert!(app.stands(&pair.access).await);
    app.renew(&app.grant(&client).await).await;
}

// check 8, CVE-2026-55672: a session and its tokens are bound to one client
#[tokio::test]
async fn a_refresh_token_works_for_the_client_it_was_given_to_alone() {
    let app = TestApp::behind_proxy().await;
    let a = app.client_allowed(&["203.0.113.1"]).await;
    let b = app.client_allowed(&["203.0.113.2"]).await;
    let pair = app.at("203.0.113.1").login(&a).await.pair();
    // B may call from where it is; A's token may not.
    app.at("203.0.113.2").login(&b).await.pair();
    app.at("203.0.113.2").refresh(&pair.refresh).await.is_error(403, "IP address not authorized");
    let renewed = app.at("203.0.113.1").refresh(&pair.refresh).await.pair();
    assert_eq!(renewed.client_id, a.id);

    // A token of A that names B's session, as only the owner of the signing key could write it.
    let (of_a, of_b) = (app.session(1).await, app.session(2).await);
    assert_eq!((of_a.client, of_b.client), (a.id, b.id));
    let forged = model::Session { client: a.id, credential: of_a.credential, ..of_b };
    let forged = app.pair_of(&forged);
    app.at("203.0.113.1").refresh(&forged.refresh_token).await.is_error(401, INVALID);
    app.at("203.0.113.1").verify(&forged.access_token).await.is_error(401, INVALID);
    app.at("203.0.113.1").logout(&forged.access_token).await.is_error(401, INVALID);
}
