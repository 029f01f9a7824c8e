//! The `Authorization` header, at both endpoints that read it: logout and verification.

use reqwest::{Method, header::HeaderValue};
use rescind_admin as admin;

use crate::{
    app::{DAY, HOUR, TestApp},
    oauth::{is_done, revoke},
    reply::Reply,
};

const REQUIRED: &str = "Authorization header required";
const INVALID: &str = "Invalid token";

/// RFC 6750 §3.1: the answer to a request without a token has no error code.
const CHALLENGE: &str = r#"Bearer realm="rescind""#;
const INVALID_TOKEN: &str = r#"Bearer realm="rescind", error="invalid_token""#;
const REVOKED: &str =
    r#"Bearer realm="rescind", error="invalid_token", error_description="revoked: get a new token""#;

/// The answer of both endpoints to these `Authorization` lines. The two answers must be equal.
async fn ask(app: &TestApp, lines: &[&[u8]]) -> Reply {
    let mut replies = Vec::new();
    for (method, path) in [(Method::GET, "/verify"), (Method::POST, "/auth/logout")] {
        let mut request = app.request(method, path);
        for line in lines {
            request = request.header("authorization", HeaderValue::from_bytes(line).unwrap());
        }
        replies.push(app.send(request).await);
    }
    let (logout, verify) = (replies.pop().unwrap(), replies.pop().unwrap());
    assert_eq!(verify.status, logout.status);
    if verify.status != 200 {
        assert_eq!(verify.body, logout.body);
        assert_eq!(verify.header("www-authenticate"), logout.header("www-authenticate"));
    }
    logout
}

// check 23
#[tokio::test]
async fn the_scheme_is_case_insensitive() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for scheme in ["Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer   "] {
        let pair = app.grant(&client).await;
        ask(&app, &[format!("{scheme}{}", pair.access).as_bytes()]).await.is_logged_out();
        assert!(!app.stands(&pair.access).await);
    }
}

// check 19, 22, 23
#[tokio::test]
async fn what_is_no_bearer_credential_is_none() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let token = app.grant(&client).await.access;
    let stored = app.stored(&client).await;
    let tab = format!("Bearer\t{token}");
    let joined = format!("Bearer{token}");
    let colon = format!("Bearer:{token}");
    let other = format!("Token {token}");
    let basic = format!("Basic {token}");
    for value in [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "bearer",
        "Basic dTpw",
        "Bear",
        &tab,
        &joined,
        &colon,
        &other,
        &basic,
        &token,
    ] {
        let reply = ask(&app, &[value.as_bytes()]).await;
        reply.is_error(401, REQUIRED);
        assert_eq!(reply.header("www-authenticate"), Some(CHALLENGE), "{value:?}");
    }
    let reply = ask(&app, &[]).await;
    reply.is_error(401, REQUIRED);
    assert_eq!(reply.header("www-authenticate"), Some(CHALLENGE));
    assert!(app.stands(&token).await && app.is_unchanged(&stored).await);
}

// check 22
#[tokio::test]
async fn tokens_in_query_body_or_cookie_are_not_read() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let token = app.grant(&client).await.access;
    let stored = app.stored(&client).await;
    let form = format!("access_token={token}");
    for (method, path) in
        [(Method::POST, "/auth/logout"), (Method::POST, "/verify"), (Method::POST, "/verify/x")]
    {
        let with_query = app.send(app.request(method.clone(), &format!("{path}?{form}"))).await;
        match path {
            "/verify" => with_query.is_error(403, "Unknown or empty query parameter"),
            _ => with_query.is_error(401, REQUIRED),
        }
        let with_form = app.request(method.clone(), path).body(form.clone());
        let with_form = with_form.header("content-type", "application/x-www-form-urlencoded");
        app.send(with_form).await.is_error(401, REQUIRED);
        let with_json = app.request(method.clone(), path).json(&serde_json::json!({"access_token": token}));
        app.send(with_json).await.is_error(401, REQUIRED);
        let with_cookie = app.request(method.clone(), path).header("cookie", &form);
        app.send(with_cookie).await.is_error(401, REQUIRED);
        let elsewhere = app.request(method, path).header("x-authorization", format!("Bearer {token}"));
        let elsewhere = elsewhere.header("proxy-authorization", format!("Bearer {token}"));
        app.send(elsewhere).await.is_error(401, REQUIRED);
    }
    assert!(app.stands(&token).await && app.is_unchanged(&stored).await);
}

// check 20, 23, 41, CVE-2026-27840: truncated tokens
#[tokio::test]
async fn what_is_no_token_to_the_letter_is_invalid() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let token = app.grant(&client).await.access;
    let stored = app.stored(&client).await;
    let segments: Vec<&str> = token.split('.').collect();
    let (header, payload, signature) = (segments[0], segments[1], segments[2]);
    let flipped = format!("{}{}", if token.starts_with('e') { 'f' } else { 'e' }, &token[1..]);
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    let mut bad = vec![
        "x".to_owned(),
        "..".to_owned(),
        "null".to_owned(),
        format!("{token}, Bearer {token}"),
        format!("{token},{token}"),
        format!("{token} {token}"),
        format!("\"{token}\""),
        format!("{token}="),
        format!("{token}."),
        format!(".{token}"),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!("{header}.{payload}.{payload}.{signature}"),
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{signature}"),
        flipped,
        "A".repeat(10_000),
    ];
    bad.extend([1, 2, 3, 4, 43, 44].map(|cut| token[..token.len() - cut].to_owned()));
    for bad in bad {
        let reply = ask(&app, &[format!("Bearer {bad}").as_bytes()]).await;
        reply.is_error(401, INVALID);
        assert_eq!(reply.header("www-authenticate"), Some(INVALID_TOKEN), "{bad}");
    }
    ask(&app, &[b"Bearer \xc3\xa4"]).await.is_error(401, INVALID);
    ask(&app, &[b"Bearer \xff"]).await.is_error(401, INVALID);
    assert!(app.stands(&token).await && app.is_unchanged(&stored).await);
}

// check 24: never first- or last-wins
#[tokio::test]
async fn two_headers_are_refused_in_either_order() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let token = format!("Bearer {}", app.grant(&client).await.access);
    let other = format!("Bearer {}", app.grant(&client).await.access);
    let stored = app.stored(&client).await;
    for second in [&token, &other, "Bearer x", "Bearer", "Basic dTpw", ""] {
        for lines in [[token.as_bytes(), second.as_bytes()], [second.as_bytes(), token.as_bytes()]] {
            let reply = ask(&app, &lines).await;
            reply.is_error(401, INVALID);
            assert_eq!(reply.header("www-authenticate"), Some(INVALID_TOKEN), "{second:?}");
        }
    }
    assert!(app.is_unchanged(&stored).await);
}

// check 20
#[tokio::test]
async fn an_expired_token_is_told_so_also_if_it_was_revoked() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (kept, revoked) = (app.grant(&client).await, app.grant(&app.client().await).await);
    app.logout(&revoked.access).await.is_logged_out();
    app.advance(HOUR - 1);
    assert!(app.stands(&kept.access).await);
    assert!(!app.stands(&revoked.access).await);
    let stored = app.stored(&client).await;
    for seconds in [1, HOUR, 30 * DAY] {
        app.advance(seconds);
        for token in [&kept.access, &revoked.access] {
            let reply = ask(&app, &[format!("Bearer {token}").as_bytes()]).await;
            reply.is_error(401, "Token expired");
            assert_eq!(reply.header("www-authenticate"), Some(INVALID_TOKEN));
        }
    }
    assert!(app.is_unchanged(&stored).await);
    // A signature that is wrong goes before a time that has passed.
    let cut = &kept.access[..kept.access.len() - 2];
    ask(&app, &[format!("Bearer {cut}AA").as_bytes()]).await.is_error(401, INVALID);
}

// check 20
#[tokio::test]
async fn a_revoked_token_and_no_other_is_told_that_a_new_one_will_help() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let challenge = async |token: &str| {
        let reply = ask(&app, &[format!("Bearer {token}").as_bytes()]).await;
        reply.is_error(401, INVALID);
        reply.header("www-authenticate").unwrap().to_owned()
    };
    let (first, second) = (app.grant(&client).await, app.grant(&client).await);
    is_done(&revoke(&app, &client, &first.access).await);
    assert_eq!(challenge(&first.access).await, REVOKED);
    app.logout(&second.access).await.is_logged_out();
    assert_eq!(challenge(&second.access).await, REVOKED);
    let of_revoked = app.grant(&client).await;
    admin::revoke_credential(&app.app, &client.key).await.unwrap();
    assert_eq!(challenge(&of_revoked.access).await, REVOKED);

    assert_eq!(challenge(&of_revoked.refresh).await, INVALID_TOKEN);
    assert_eq!(challenge(&second.access[..second.access.len() - 1]).await, INVALID_TOKEN);
    let suspended = app.client().await;
    let of_suspended = app.grant(&suspended).await;
    admin::suspend(&app.app, suspended.id, admin::NewSuspension::default()).await.unwrap();
    assert_eq!(challenge(&of_suspended.access).await, INVALID_TOKEN);
}
