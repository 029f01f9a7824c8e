//! Client authentication at the OAuth endpoints: the same three rules at each of them.

use data_encoding::BASE64;
use reqwest::header::AUTHORIZATION;
use rescind_admin::{self as admin, NewClient, NewCredential};

use crate::{
    app::{Client, TestApp, trust_proxy},
    oauth::{
        DOORS, INTROSPECTION, REVOCATION, TOKEN, Who, access_token, ask, client_with, introspector,
        parameters, request, send,
    },
    reply::Reply,
};

const CHALLENGE: &str = "Basic realm=\"rescind\"";

// check 5
#[track_caller]
fn is_bad_client(reply: &Reply) {
    is_bad_client_with(reply, Some(CHALLENGE));
}

/// Asserts that this is exactly the answer to credentials in the body. openid-client does not read the body beside a challenge.
#[track_caller]
fn is_bad_client_of_the_body(reply: &Reply) {
    is_bad_client_with(reply, None);
}

#[track_caller]
fn is_bad_client_with(reply: &Reply, challenge: Option<&str>) {
    let body = r#"{"error":"invalid_client","error_description":"Client authentication failed"}"#;
    assert_eq!((reply.status, reply.body.as_str()), (401, body), "{reply:?}");
    assert_eq!(reply.header("www-authenticate"), challenge);
}

/// A request to an endpoint with only an `Authorization` header to authenticate it.
async fn authorized_by(app: &TestApp, door: &str, header: impl AsRef<[u8]>) -> Reply {
    send(request(app, door, Who::Nobody, &parameters(door)).header(AUTHORIZATION, header.as_ref())).await
}

fn basic(credentials: impl AsRef<[u8]>) -> String {
    format!("Basic {}", BASE64.encode(credentials.as_ref()))
}

/// Every byte as `%XX`.
fn escaped(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02x}")).collect()
}

// check 4
#[tokio::test]
async fn by_basic_or_by_the_body() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    for door in DOORS {
        for who in [Who::Basic(&client), Who::Body(&client)] {
            let reply = ask(&app, door, who, &parameters(door)).await;
            assert_eq!(reply.status, 200, "{door} {reply:?}");
        }
        let named = [parameters(door)[0], ("client_id", &client.key)];
        assert_eq!(ask(&app, door, Who::Basic(&client), &named).await.status, 200, "{door}");
    }
}

// check 4
#[tokio::test]
async fn both_together_are_refused() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let other = introspector(&app).await;
    for door in DOORS {
        let good = parameters(door)[0];
        for beside in [
            vec![good, ("client_id", &client.key), ("client_secret", &client.secret)],
            vec![good, ("client_secret", &client.secret)],
            vec![good, ("client_id", &other.key), ("client_secret", &other.secret)],
            vec![good, ("client_id", &other.key)],
        ] {
            let reply = ask(&app, door, Who::Basic(&client), &beside).await;
            reply.is_oauth_error(400, "invalid_request");
        }
    }
}

// check 4: PyIceberg renews a token with the old one beside its credentials. After a logout that is a revoked one.
#[tokio::test]
async fn another_scheme_beside_credentials_in_the_body_is_ignored() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let token = access_token(&app, &client).await;
    app.logout(&token).await.is_logged_out();
    let wrong = Client { secret: "rs_wrong".into(), ..client.clone() };
    for door in DOORS {
        for other in [&format!("Bearer {token}"), "Digest username=\"x\"", "Basics x", "x", "", "\u{e4}"] {
            let beside = |who| request(&app, door, who, &parameters(door)).header(AUTHORIZATION, other);
            let reply = send(beside(Who::Body(&client))).await;
            assert_eq!(reply.status, 200, "{door} {other} {reply:?}");
            send(beside(Who::Body(&wrong))).await.is_oauth_error(401, "invalid_client");
        }
        for basic in
            ["Basic", "Basic ", "basic !", "BASIC\tx", "Basic, x", &basic(format!("{}:x", client.key))]
        {
            let beside = request(&app, door, Who::Body(&client), &parameters(door));
            let reply = send(beside.header(AUTHORIZATION, basic)).await;
            assert!([400, 401].contains(&reply.status), "{door} {basic} {reply:?}");
        }
    }
}

// check 4: RFC 6749 §2.3.1
#[tokio::test]
async fn basic_parts_are_form_decoded() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let (key, secret) = (&client.key, &client.secret);
    for door in DOORS {
        for good in [
            format!("{key}:{secret}"),
            format!("{}:{}", escaped(key), escaped(secret)),
            format!("{}:{secret}", escaped(key)),
        ] {
            for scheme in ["Basic", "basic", "BASIC"] {
                let header = format!("{scheme} {}", BASE64.encode(good.as_bytes()));
                let reply = authorized_by(&app, door, &header).await;
                assert_eq!(reply.status, 200, "{good} {reply:?}");
            }
        }
        for bad in [
            format!("{key}:{}", escaped(&escaped(secret))),
            format!("{}:{secret}", escaped(&format!("{key}:"))),
            format!("{key}:{secret}="),
            format!("{key}:{secret}=x"),
            format!("{key}:{secret}&x"),
            format!("{key}:&{secret}"),
            format!("{key}:{secret}+"),
            format!("{key}:{secret}%"),
        ] {
            is_bad_client(&authorized_by(&app, door, basic(&bad)).await);
        }
    }
}

// check 5
#[tokio::test]
async fn what_is_no_basic_header_is_no_client() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let good = basic(format!("{}:{}", client.key, client.secret));
    let bearer = format!("Bearer {}", access_token(&app, &client).await);
    for door in DOORS {
        assert_eq!(authorized_by(&app, door, &good).await.status, 200);
        for bad in [
            "Basic".into(),
            "Basic !".into(),
            "Digest username=\"x\"".into(),
            good.replacen(' ', "\t", 1),
            good.replacen(' ', ", ", 1),
            good.replacen(' ', "", 1),
            good[..good.len() - 5].to_owned(),
            format!("{good}, {good}"),
            basic(""),
            basic(":"),
            basic(format!("{}{}", client.key, client.secret)),
            basic([client.key.as_bytes(), b":\xff"].concat()),
        ] {
            is_bad_client(&authorized_by(&app, door, &bad).await);
        }
        is_bad_client(&authorized_by(&app, door, b"Basic \xff").await);
        is_bad_client(&ask(&app, door, Who::Nobody, &parameters(door)).await);
    }
    for door in [TOKEN, REVOCATION] {
        is_bad_client(&authorized_by(&app, door, &bearer).await);
    }
}

// check 24
#[tokio::test]
async fn two_authorization_headers_are_refused() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let good = basic(format!("{}:{}", client.key, client.secret));
    let bearer = format!("Bearer {}", access_token(&app, &client).await);
    for door in DOORS {
        for second in [&good, &bearer] {
            let twice = request(&app, door, Who::Basic(&client), &parameters(door));
            let reply = send(twice.header(AUTHORIZATION, second)).await;
            reply.is_oauth_error(400, "invalid_request");
        }
    }
    let twice = request(&app, INTROSPECTION, Who::Nobody, &parameters(INTROSPECTION));
    let reply = send(twice.header(AUTHORIZATION, &bearer).header(AUTHORIZATION, &good)).await;
    reply.is_oauth_error(401, "invalid_token");
}

// check 5, 17
#[tokio::test]
async fn every_bad_client_is_told_the_same() {
    let app = TestApp::with(|config| config.limits.failed_logins_per_minute = 0).await;
    let (client, other) = (introspector(&app).await, introspector(&app).await);
    let (suspended, deleted) = (introspector(&app).await, introspector(&app).await);
    let (revoked, expired) = (introspector(&app).await, introspector(&app).await);
    let mut bad = vec![
        Client { key: "rk_unknown".into(), ..client.clone() },
        Client { key: client.key.to_uppercase(), ..client.clone() },
        Client { secret: "rs_wrong".into(), ..client.clone() },
        Client { secret: other.secret.clone(), ..client.clone() },
        Client { secret: client.key.clone(), ..client.clone() },
    ];
    admin::suspend(&app.app, suspended.id, Default::default()).await.unwrap();
    admin::delete(&app.app, deleted.id).await.unwrap();
    admin::revoke_credential(&app.app, &revoked.key).await.unwrap();
    let short = NewCredential { expires_in: Some("1m".parse().unwrap()) };
    let short = admin::create_credential(&app.app, expired.id, short).await.unwrap();
    let expired = Client { key: short.api_key, secret: short.api_secret, ..expired };
    for door in DOORS {
        assert_eq!(ask(&app, door, Who::Basic(&expired), &parameters(door)).await.status, 200);
    }
    app.advance(60);
    bad.extend([suspended, deleted, revoked, expired]);
    for door in DOORS {
        for client in &bad {
            is_bad_client(&ask(&app, door, Who::Basic(client), &parameters(door)).await);
            is_bad_client_of_the_body(&ask(&app, door, Who::Body(client), &parameters(door)).await);
        }
        for half in [("client_id", &client.key), ("client_secret", &client.secret)] {
            let half = [parameters(door)[0], (half.0, half.1.as_str())];
            is_bad_client(&ask(&app, door, Who::Nobody, &half).await);
        }
        assert_eq!(ask(&app, door, Who::Basic(&client), &parameters(door)).await.status, 200);
    }
}

// check 22: RFC 6749 §2.3.1
#[tokio::test]
async fn nothing_is_read_from_the_query() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let (key, secret) = (&client.key, &client.secret);
    for door in DOORS {
        let path = format!("{door}?client_id={key}&client_secret={secret}");
        is_bad_client(&ask(&app, &path, Who::Nobody, &parameters(door)).await);
        let [(name, value)] = parameters(door);
        let reply = ask(&app, &format!("{door}?{name}={value}"), Who::Basic(&client), &[]).await;
        reply.is_oauth_error(400, "invalid_request");
    }
}

// check 7, 70
#[tokio::test]
async fn a_client_may_ask_from_its_own_addresses_alone() {
    let app = TestApp::behind_proxy().await;
    let scopes = vec!["introspect".into()];
    let allow = vec!["203.0.113.0/24".into()];
    let new = NewClient { name: "c".into(), allow, scopes, ..NewClient::default() };
    let client = app.client_of(new).await;
    let wrong = Client { secret: "rs_wrong".into(), ..client.clone() };
    for door in DOORS {
        let from = async |who: Who<'_>, address: &str| {
            send(request(&app, door, who, &parameters(door)).header("x-forwarded-for", address)).await
        };
        for who in [Who::Basic(&client), Who::Body(&client)] {
            for address in ["203.0.113.7", "::ffff:203.0.113.7"] {
                assert_eq!(from(who, address).await.status, 200, "{door} {address}");
            }
            for address in ["192.0.2.1", "2001:db8::1", "garbage"] {
                let reply = from(who, address).await;
                reply.is_oauth_error(400, "unauthorized_client");
                assert_eq!(reply.json()["error_description"], "IP address not authorized");
            }
        }
        // Whoever does not know the secret learns nothing of the addresses.
        is_bad_client(&from(Who::Basic(&wrong), "192.0.2.1").await);
    }
}

// check 76, 78
#[tokio::test]
async fn repeated_failures_are_429_and_lock_nobody_out() {
    let app = TestApp::with(|config| {
        trust_proxy(config);
        config.limits.failed_logins_per_minute = 3;
    })
    .await;
    for door in DOORS {
        let client = introspector(&app).await;
        let guess = Client { secret: "rs_guess".into(), ..client.clone() };
        let fail = async |who: Who<'_>, address: &str| {
            send(request(&app, door, who, &parameters(door)).header("x-forwarded-for", address)).await
        };
        // One count for both ways to say who one is, and for login.
        is_bad_client(&fail(Who::Basic(&guess), "203.0.113.7").await);
        is_bad_client_of_the_body(&fail(Who::Body(&guess), "203.0.113.7").await);
        app.at("203.0.113.7").login(&guess).await.is_error(401, "Invalid credentials");
        for who in [Who::Basic(&guess), Who::Body(&guess)] {
            let reply = fail(who, "203.0.113.7").await;
            reply.is_oauth_error(429, "temporarily_unavailable");
            assert_eq!(reply.header("retry-after"), Some("20"), "{door}");
            assert_eq!(reply.header("www-authenticate"), None);
        }
        assert_eq!(fail(Who::Basic(&client), "203.0.113.7").await.status, 200, "{door}");
        is_bad_client(&fail(Who::Basic(&guess), "203.0.113.8").await);
        app.advance(20);
        is_bad_client(&fail(Who::Basic(&guess), "203.0.113.7").await);
    }
}

#[tokio::test]
async fn a_client_without_a_right_is_told_which() {
    let app = TestApp::start().await;
    let client = client_with(&app, &["orders:read"]).await;
    for who in [Who::Basic(&client), Who::Body(&client)] {
        let reply = ask(&app, INTROSPECTION, who, &parameters(INTROSPECTION)).await;
        reply.is_oauth_error(403, "insufficient_scope");
    }
    assert_eq!(ask(&app, REVOCATION, Who::Basic(&client), &parameters(REVOCATION)).await.status, 200);
}
