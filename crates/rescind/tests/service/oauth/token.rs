//! The token endpoint (RFC 6749 §4.4).

use reqwest::Method;
use rescind_admin::{self as admin, AllowChange};
use serde_json::json;

use crate::{
    app::{HOUR, TestApp},
    oauth::{TOKEN, Who, access_token, ask, client_with, introspect, introspector, issue},
};

/// Whether `/verify` accepts a token if this scope is required.
async fn good_for(app: &TestApp, token: &str, scope: &str) -> bool {
    let request = app.request(Method::GET, &format!("/verify?scope={scope}")).bearer_auth(token);
    let reply = app.send(request).await;
    if reply.status != 200 {
        reply.is_error(403, "Insufficient scope");
    }
    reply.status == 200
}

// check 3, 6
#[tokio::test]
async fn the_answer_has_an_access_token_and_no_refresh_token() {
    let app = TestApp::start().await;
    let client = client_with(&app, &["orders:write", "orders:read"]).await;
    let reply = issue(&app, &client, None).await;
    let token = reply.json()["access_token"].as_str().unwrap().to_owned();
    let body = format!(
        r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600,"scope":"orders:read orders:write"}}"#
    );
    assert_eq!((reply.status, reply.body), (200, body));
    let verified = app.verify(&token).await;
    assert_eq!(verified.status, 200);
    assert_eq!(verified.header("x-rescind-client"), Some("1"));
    assert_eq!(verified.header("x-rescind-scopes"), Some("orders:read orders:write"));

    // A client without scopes is not told of any.
    let reply = issue(&app, &app.client().await, None).await.json();
    let members: Vec<_> = reply.as_object().unwrap().keys().collect();
    assert_eq!(members, ["access_token", "expires_in", "token_type"]);
}

#[tokio::test]
async fn expires_in_is_when_it_expires() {
    let app = TestApp::with(|config| config.tokens.access_ttl = "90s".parse().unwrap()).await;
    let client = app.client().await;
    let reply = issue(&app, &client, None).await.json();
    assert_eq!(reply["expires_in"], 90);
    let token = reply["access_token"].as_str().unwrap();
    app.advance(89);
    assert!(app.stands(token).await);
    app.advance(1);
    app.verify(token).await.is_error(401, "Token expired");

    // No more than the session may live.
    let app = app.restart_with(|config| config.tokens.session_max_age = Some("30s".parse().unwrap())).await;
    assert_eq!(issue(&app, &client, None).await.json()["expires_in"], 30);
}

// check 6, 14, 39
#[tokio::test]
async fn its_session_cannot_be_refreshed() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let token = access_token(&app, &client).await;
    app.refresh(&token).await.is_error(401, "Invalid token");
    // Nobody is given it. Were it found out, it would be worth nothing.
    let session = app.session(1).await;
    let pair = app.pair_of(&session);
    assert_eq!(pair.access_token, token);
    app.refresh(&pair.refresh_token).await.is_error(401, "Invalid token");
    introspect(&app, Who::Basic(&introspector(&app).await), &pair.refresh_token).await.is_inactive();
    assert_eq!(app.session(1).await, session);
    assert!(app.stands(&token).await);
    // A login's session beside it can.
    app.renew(&app.grant(&client).await).await;
    // It is kept for as long as its token may come, and no longer.
    app.advance(HOUR - 1);
    app.app.sweep().await.unwrap();
    let app = app.restart().await;
    assert!(app.stands(&token).await);
    app.advance(HOUR + 2);
    app.app.sweep().await.unwrap();
    assert_eq!(app.app.store.find(0, 1).await.unwrap().session, None);
}

// check 7
#[tokio::test]
async fn other_grants_are_not_supported() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let refresh = app.grant(&client).await.refresh;
    for grant in [
        "password",
        "authorization_code",
        "implicit",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "Client_Credentials",
        "client_credentials ",
    ] {
        let reply = ask(&app, TOKEN, Who::Basic(&client), &[("grant_type", grant)]).await;
        reply.is_oauth_error(400, "unsupported_grant_type");
    }
    let parameters = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    let reply = ask(&app, TOKEN, Who::Basic(&client), &parameters).await;
    reply.is_oauth_error(400, "unsupported_grant_type");
    let reply = ask(&app, TOKEN, Who::Basic(&client), &[("scope", "x")]).await;
    reply.is_oauth_error(400, "invalid_request");
    assert_eq!(app.refresh(&refresh).await.status, 200);
}

// check 14, 21
#[tokio::test]
async fn a_narrowed_token_has_just_the_scopes_asked_for() {
    let app = TestApp::start().await;
    let client = client_with(&app, &["a", "b", "c"]).await;
    for (asked, given) in [("a", "a"), ("c b", "b c"), ("b b", "b"), ("c b a", "a b c")] {
        let reply = issue(&app, &client, Some(asked)).await;
        assert_eq!((reply.status, &reply.json()["scope"]), (200, &json!(given)), "{asked}");
        let reply = reply.json();
        let token = reply["access_token"].as_str().unwrap();
        for scope in ["a", "b", "c"] {
            assert_eq!(good_for(&app, token, scope).await, given.contains(scope), "{asked} for {scope}");
        }
        assert_eq!(app.verify(token).await.header("x-rescind-scopes"), Some(given));
    }
}

// check 7, 14
#[tokio::test]
async fn no_scope_is_given_that_the_client_does_not_have() {
    let app = TestApp::start().await;
    let client = client_with(&app, &["a", "b"]).await;
    let long = "x".repeat(2000);
    for asked in ["c", "a c", "A", "a b c", "a,b", "a\tb", "\"", "\\", "ä", "a\n", "introspect", &long] {
        issue(&app, &client, Some(asked)).await.is_oauth_error(400, "invalid_scope");
    }
    issue(&app, &app.client().await, Some("a")).await.is_oauth_error(400, "invalid_scope");
    // Nothing was opened by it.
    assert_eq!(app.app.store.find(client.id, 1).await.unwrap().session, None);
}

// check 15, 17, 70
#[tokio::test]
async fn it_ends_as_every_token_does() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let token = access_token(&app, &client).await;
    let login = app.grant(&client).await;
    app.logout(&login.access).await.is_logged_out();
    assert!(!app.stands(&token).await);

    // And can end all the others.
    let (token, login) = (access_token(&app, &client).await, app.grant(&client).await);
    app.logout(&token).await.is_logged_out();
    assert!(!app.stands(&login.access).await && !app.stands(&token).await);
    app.refresh(&login.refresh).await.is_error(401, "Invalid token");

    let token = access_token(&app, &client).await;
    let narrowed = AllowChange { add: vec!["192.0.2.0/24".into()], ..AllowChange::default() };
    admin::change_allowlist(&app.app, client.id, narrowed).await.unwrap();
    app.verify(&token).await.is_error(403, "IP address not authorized");
    issue(&app, &client, None).await.is_oauth_error(400, "unauthorized_client");

    let client = app.client().await;
    let token = access_token(&app, &client).await;
    admin::suspend(&app.app, client.id, Default::default()).await.unwrap();
    assert!(!app.stands(&token).await);
    issue(&app, &client, None).await.is_oauth_error(401, "invalid_client");
}
