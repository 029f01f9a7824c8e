//! `POST /auth/logout`

use rescind_admin as admin;

use crate::{
    app::{HOUR, TestApp},
    raw,
};

const INVALID: &str = "Invalid token";

// check 15
#[tokio::test]
async fn a_logout_takes_back_every_token_of_every_session() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let bystander = app.grant(&app.client().await).await;
    let mut pairs = Vec::new();
    for _ in 0..5 {
        let pair = app.grant(&client).await;
        pairs.push(app.renew(&pair).await);
        pairs.push(pair);
    }
    for pair in &pairs {
        assert!(app.stands(&pair.access).await);
    }
    let reply = app.logout(&pairs[3].access).await;
    reply.is_logged_out();
    assert_eq!(reply.header("content-type"), Some("application/json"));
    for pair in &pairs {
        assert!(!app.stands(&pair.access).await);
        app.refresh(&pair.refresh).await.is_error(401, INVALID);
    }
    assert!(app.stands(&bystander.access).await);
    app.renew(&bystander).await;

    let app = app.restart().await;
    for pair in &pairs {
        assert!(!app.stands(&pair.access).await);
        app.refresh(&pair.refresh).await.is_error(401, INVALID);
    }
    assert!(app.stands(&bystander.access).await);
}

// Keycloak #26113: a revoked token lives no second more, and a new one no second less
#[tokio::test]
async fn a_login_within_the_second_of_the_logout_stands() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let mut pair = app.grant(&client).await;
    for _ in 0..20 {
        app.logout(&pair.access).await.is_logged_out();
        assert!(!app.stands(&pair.access).await);
        app.refresh(&pair.refresh).await.is_error(401, INVALID);
        let next = app.grant(&client).await;
        assert!(!app.stands(&pair.access).await);
        assert!(app.stands(&next.access).await);
        pair = app.renew(&next).await;
        assert!(app.stands(&pair.access).await);
    }
    app.advance(-1);
    assert!(app.stands(&pair.access).await);
}

// check 15
#[tokio::test]
async fn a_second_logout_with_the_same_token_is_refused_and_takes_nothing_back() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    app.logout(&first.access).await.is_logged_out();
    let second = app.grant(&client).await;
    let stored = app.stored(&client).await;
    app.logout(&first.access).await.is_error(401, INVALID);
    assert!(app.stands(&second.access).await && app.is_unchanged(&stored).await);
}

#[tokio::test]
async fn a_body_is_ignored() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let huge = vec![b'{'; 300_000];
    let bodies: [(&str, &[u8]); 5] = [
        ("application/json", b"{}"),
        ("application/json", b"{\"refresh_token\": 1, \"refresh_token\": 2"),
        ("text/plain", b"\xff\0\xfe"),
        ("application/json; charset=utf-8", b"[]"),
        ("application/json", &huge),
    ];
    for (content_type, body) in bodies {
        let token = app.grant(&client).await.access;
        let length = body.len();
        let head = format!(
            "POST /auth/logout HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
        );
        raw::answer(app.address, [head.as_bytes(), body].concat()).await.is_logged_out();
        assert!(!app.stands(&token).await);
    }
    // Nor need it have the length that was announced.
    let token = app.grant(&client).await.access;
    let head = format!(
        "POST /auth/logout HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000000\r\n\r\n{{"
    );
    raw::answer(app.address, head).await.is_logged_out();
    assert!(!app.stands(&token).await);
}

// check 70
#[tokio::test]
async fn a_logout_from_another_address_is_403_and_changes_nothing() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["203.0.113.0/24"]).await;
    let pair = app.at("203.0.113.7").login(&client).await.pair();
    let stored = app.stored(&client).await;
    let reply = app.at("192.0.2.1").logout(&pair.access).await;
    reply.is_error(403, "IP address not authorized");
    assert_eq!(reply.header("www-authenticate"), None);
    assert!(app.is_unchanged(&stored).await);
    assert_eq!(app.at("203.0.113.7").verify(&pair.access).await.status, 200);
    app.at("203.0.113.9").logout(&pair.access).await.is_logged_out();
    // Revoked goes before the address, and expired before revoked.
    app.at("192.0.2.1").logout(&pair.access).await.is_error(401, INVALID);
    app.advance(HOUR);
    app.at("192.0.2.1").logout(&pair.access).await.is_error(401, "Token expired");
}

#[tokio::test]
async fn no_error_changes_anything() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["127.0.0.1"]).await;
    let pair = app.grant(&client).await;
    let other = TestApp::start().await;
    let stranger = other.grant(&other.client().await).await.access;
    let (stored, session) = (app.stored(&client).await, app.session(1).await);
    app.logout(&stranger).await.is_error(401, INVALID);
    app.logout(&pair.refresh).await.is_error(401, INVALID);
    app.logout("x").await.is_error(401, INVALID);
    app.at("192.0.2.1").logout(&pair.access).await.is_error(403, "IP address not authorized");
    app.at("garbage").logout(&pair.access).await.is_error(403, "IP address not authorized");
    app.send(app.post("/auth/logout")).await.is_error(401, "Authorization header required");
    let reply = app.send(app.request(reqwest::Method::GET, "/auth/logout").bearer_auth(&pair.access)).await;
    reply.is_error(405, "Method not allowed on this path");
    assert!(app.stands(&pair.access).await);
    app.advance(HOUR);
    app.logout(&pair.access).await.is_error(401, "Token expired");
    assert!(app.is_unchanged(&stored).await);
    assert_eq!(app.session(1).await, session);
    app.renew(&pair).await;
}

// check 17
#[tokio::test]
async fn an_operators_logout_works_as_the_clients_own_does() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    admin::logout(&app.app, client.id).await.unwrap();
    assert!(!app.stands(&pair.access).await);
    app.refresh(&pair.refresh).await.is_error(401, INVALID);
    assert!(app.stands(&app.grant(&client).await.access).await);
}

#[tokio::test]
async fn refreshed_access_tokens_log_out_too() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    app.advance(HOUR);
    app.logout(&first.access).await.is_error(401, "Token expired");
    // As the documentation says: refresh first, then log out with the new access token.
    let second = app.renew(&first).await;
    app.logout(&second.access).await.is_logged_out();
    app.refresh(&second.refresh).await.is_error(401, INVALID);
    assert!(!app.stands(&second.access).await);
}
