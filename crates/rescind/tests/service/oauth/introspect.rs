//! The introspection endpoint (RFC 7662).

use rescind_admin::{self as admin, LifetimeChange, NewClient, NewVerifier};
use rescind_verifier::Denied;
use serde_json::{Value, json};

use crate::{
    app::{Client, DAY, HOUR, NOW, Pair, TestApp},
    oauth::{
        INTROSPECTION, Who, access_token, ask, client_with, introspect, introspect_refresh, introspector,
        issue, parameters, request, send,
    },
};

const ISSUER: &str = "http://127.0.0.1:8080";

// check 29, 33, 39
#[tokio::test]
async fn who_may_ask() {
    let app = TestApp::start().await;
    let (client, without) = (introspector(&app).await, client_with(&app, &["introspection", "a"]).await);
    let token = app.grant(&app.client().await).await.access;
    let verifier = NewVerifier { name: "v".into(), share_hs256: false };
    let verifier = admin::create_verifier(&app.app, verifier).await.unwrap();
    let (bearer, login) = (access_token(&app, &client).await, app.grant(&client).await);
    for who in [
        Who::Basic(&client),
        Who::Body(&client),
        Who::Bearer(&bearer),
        Who::Bearer(&login.access),
        Who::Bearer(&verifier.token),
    ] {
        assert_eq!(introspect(&app, who, &token).await.json()["active"], true);
    }
    // Nobody is told anything, of good tokens or bad ones.
    let narrowed = issue(&app, &client_with(&app, &["introspect", "a"]).await, Some("a")).await.json();
    let narrowed = narrowed["access_token"].as_str().unwrap();
    let own = access_token(&app, &without).await;
    for asked in [&token, &own, "x"] {
        introspect(&app, Who::Nobody, asked).await.is_oauth_error(401, "invalid_client");
        for who in [Who::Basic(&without), Who::Body(&without), Who::Bearer(&own), Who::Bearer(narrowed)] {
            let reply = introspect(&app, who, asked).await;
            reply.is_oauth_error(403, "insufficient_scope");
            let challenge = "Bearer realm=\"rescind\", error=\"insufficient_scope\", scope=\"introspect\"";
            assert_eq!(reply.header("www-authenticate"), Some(challenge));
        }
        for bad in ["x", &login.refresh, &bearer[..bearer.len() - 1], &client.secret] {
            let reply = introspect(&app, Who::Bearer(bad), asked).await;
            reply.is_oauth_error(401, "invalid_token");
            let challenge = "Bearer realm=\"rescind\", error=\"invalid_token\"";
            assert_eq!(reply.header("www-authenticate"), Some(challenge));
        }
    }

    // The right goes as everything else goes.
    admin::revoke_verifier(&app.app, verifier.verifier_id).await.unwrap();
    introspect(&app, Who::Bearer(&verifier.token), &token).await.is_oauth_error(401, "invalid_token");
    app.logout(&login.access).await.is_logged_out();
    for gone in [&bearer, &login.access] {
        let reply = introspect(&app, Who::Bearer(gone), &token).await;
        reply.is_oauth_error(401, "invalid_token");
        assert_eq!(reply.header("www-authenticate"), Denied::Revoked.challenge());
    }
    let bearer = access_token(&app, &client).await;
    app.advance(HOUR);
    introspect(&app, Who::Bearer(&bearer), &token).await.is_oauth_error(401, "invalid_token");
}

// check 29, 70
#[tokio::test]
async fn a_token_asks_from_its_clients_addresses_alone() {
    let app = TestApp::behind_proxy().await;
    let new = NewClient {
        name: "c".into(),
        allow: vec!["203.0.113.7".into()],
        scopes: vec!["introspect".into()],
        ..NewClient::default()
    };
    let pair = app.at("203.0.113.7").login(&app.client_of(new).await).await.pair();
    let from = async |address: &str| {
        let request = request(&app, INTROSPECTION, Who::Bearer(&pair.access), &parameters(INTROSPECTION));
        send(request.header("x-forwarded-for", address)).await
    };
    from("203.0.113.7").await.is_inactive();
    from("203.0.113.8").await.is_oauth_error(400, "unauthorized_client");
}

#[tokio::test]
async fn what_is_told_of_a_token_that_stands() {
    let app = TestApp::start().await;
    let asking = introspector(&app).await;
    let client = client_with(&app, &["introspect", "b", "a"]).await;
    let pair = app.grant(&client).await;
    let access = json!({
        "active": true, "client_id": client.key, "token_type": "Bearer", "scope": "a b introspect",
        "exp": NOW + 3600, "iat": NOW, "sub": "2", "iss": ISSUER, "sid": "1",
    });
    assert_eq!(introspect(&app, Who::Basic(&asking), &pair.access).await.json(), access);
    let mut refresh = access.clone();
    refresh["token_type"] = "refresh_token".into();
    refresh["exp"] = (NOW + 7 * 24 * 3600).into();
    refresh["aud"] = format!("{ISSUER}/auth/refresh").into();
    assert_eq!(introspect_refresh(&app, &client, &pair.refresh).await.json(), refresh);

    // A narrowed one, and one without scopes.
    let narrowed = issue(&app, &client, Some("b")).await.json();
    let told = introspect(&app, Who::Basic(&asking), narrowed["access_token"].as_str().unwrap()).await.json();
    assert_eq!((&told["scope"], &told["sid"]), (&json!("b"), &json!("2")));
    let bare = app.grant(&app.client().await).await;
    let told = introspect(&app, Who::Basic(&asking), &bare.access).await.json();
    assert_eq!((told["active"].as_bool(), told.get("scope"), told.get("allow")), (Some(true), None, None));

    // For an access token the hint is no more than that.
    for hint in ["access_token", "refresh_token", "x"] {
        let parameters = [("token", pair.access.as_str()), ("token_type_hint", hint)];
        let reply = ask(&app, INTROSPECTION, Who::Basic(&asking), &parameters).await;
        assert_eq!(reply.json(), access);
    }
    // Asking uses nothing up.
    app.renew(&pair).await;
}

// Modules keep an answer until its `exp`, whatever is revoked meanwhile.
#[tokio::test]
async fn the_answers_to_a_client_that_keeps_them_have_no_exp_or_a_near_one() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let asking = async |lifetime: Option<&str>| {
        let introspect_lifetime = lifetime.map(|lifetime| lifetime.parse().unwrap());
        let scopes = vec!["introspect".into()];
        let new = NewClient { name: "m".into(), scopes, introspect_lifetime, ..NewClient::default() };
        app.client_of(new).await
    };
    let token = access_token(&app, &client).await;
    app.advance(60);
    let exp = NOW + 3600;
    for (lifetime, told) in [
        (None, Some(exp)),
        (Some("0s"), None),
        (Some("2s"), Some(NOW + 62)),
        (Some("59m"), Some(exp)),
        (Some("7d"), Some(exp)),
    ] {
        let asking = asking(lifetime).await;
        let bearer = access_token(&app, &asking).await;
        for who in [Who::Basic(&asking), Who::Body(&asking), Who::Bearer(&bearer)] {
            let answer = introspect(&app, who, &token).await.json();
            assert_eq!(answer["active"], true);
            assert_eq!(answer.get("exp").map(|exp| exp.as_u64().unwrap()), told, "{lifetime:?}");
        }
        // It is heard of at once.
        let change = LifetimeChange { introspect_lifetime: None };
        admin::change_lifetime(&app.app, asking.id, change).await.unwrap();
        assert_eq!(introspect(&app, Who::Basic(&asking), &token).await.json()["exp"], exp);
    }
}

// check 92: those who ask look at nothing but whether it is active
#[tokio::test]
async fn a_refresh_token_is_inactive_but_to_its_client_that_calls_it_one() {
    let app = TestApp::start().await;
    let (client, other) = (introspector(&app).await, introspector(&app).await);
    let pair = app.grant(&client).await;
    let (own, others) = (access_token(&app, &client).await, access_token(&app, &other).await);
    let verifier = NewVerifier { name: "v".into(), share_hs256: true };
    let verifier = admin::create_verifier(&app.app, verifier).await.unwrap();
    let told = async |who: Who<'_>, hint: Option<&str>| {
        let mut parameters = vec![("token", pair.refresh.as_str())];
        parameters.extend(hint.map(|hint| ("token_type_hint", hint)));
        ask(&app, INTROSPECTION, who, &parameters).await
    };
    let hints = [None, Some(""), Some("access_token"), Some("Refresh_token"), Some("refresh_token")];
    for hint in hints {
        for who in [Who::Basic(&other), Who::Body(&other), Who::Bearer(&others), Who::Bearer(&verifier.token)]
        {
            told(who, hint).await.is_inactive();
        }
        for who in [Who::Basic(&client), Who::Body(&client), Who::Bearer(&own), Who::Bearer(&pair.access)] {
            let reply = told(who, hint).await;
            match hint {
                Some("refresh_token") => assert_eq!(reply.json()["token_type"], "refresh_token"),
                _ => reply.is_inactive(),
            }
        }
    }
    app.renew(&pair).await;
}

// check 30
#[tokio::test]
async fn whatever_does_not_stand_is_inactive_and_no_more_is_told() {
    let app = TestApp::start().await;
    let asking = introspector(&app).await;
    let client = introspector(&app).await;
    let old = app.grant(&client).await;
    let pair = app.renew(&old).await;
    let session = app.session(1).await;
    let mut forged = vec![session.clone(); 4];
    forged[0].id = 99;
    forged[1].client = 99;
    forged[2].pair = 9;
    forged[3].generation = 1;
    let mut bad: Vec<String> = ["x", "..", "eyJhbGciOiJub25lIn0.e30.", "🦀", " ", &"a".repeat(20_000)]
        .map(str::to_owned)
        .into_iter()
        .chain([client.secret.clone(), client.key.clone(), asking.secret.clone()])
        .collect();
    // What was issued by another service, of the same name.
    let elsewhere = TestApp::start().await;
    let foreign = elsewhere.grant(&elsewhere.client().await).await;
    bad.extend([foreign.access, foreign.refresh]);
    // What has been used before.
    bad.push(old.refresh.clone());
    for session in &forged {
        let pair = app.pair_of(session);
        bad.extend([pair.access_token, pair.refresh_token]);
    }
    for token in [&pair.access, &pair.refresh] {
        bad.extend([token[..token.len() - 1].to_owned(), format!("{token}A"), format!(" {token}")]);
    }
    for token in &bad {
        introspect(&app, Who::Basic(&asking), token).await.is_inactive();
        introspect_refresh(&app, &client, token).await.is_inactive();
    }
    // To be asked about is not to be used.
    assert_eq!(app.session(1).await, session);
    for good in [&old.access, &pair.access] {
        assert_eq!(introspect(&app, Who::Basic(&asking), good).await.json()["active"], true);
    }
    assert!(is_refreshable(&app, &client, &pair.refresh).await);
}

async fn is_active(app: &TestApp, token: &str) -> bool {
    let reply = introspect(app, Who::Basic(&introspector(app).await), token).await;
    if reply.json()["active"] == Value::Bool(false) {
        reply.is_inactive();
        return false;
    }
    assert_eq!((reply.status, &reply.json()["active"]), (200, &Value::Bool(true)));
    true
}

/// Whether introspection by its own client reports a refresh token as active.
async fn is_refreshable(app: &TestApp, client: &Client, token: &str) -> bool {
    let reply = introspect_refresh(app, client, token).await;
    if reply.json()["active"] == Value::Bool(false) {
        reply.is_inactive();
        return false;
    }
    assert_eq!((reply.status, &reply.json()["active"]), (200, &Value::Bool(true)));
    true
}

async fn are_inactive(app: &TestApp, client: &Client, pair: &Pair) -> bool {
    !is_active(app, &pair.access).await && !is_refreshable(app, client, &pair.refresh).await
}

// check 30, 44
#[tokio::test]
async fn what_has_expired_is_inactive() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let pair = app.grant(&client).await;
    app.advance(HOUR - 1);
    assert!(is_active(&app, &pair.access).await);
    app.advance(1);
    assert!(!is_active(&app, &pair.access).await);
    app.advance(7 * DAY - HOUR - 1);
    assert!(is_refreshable(&app, &client, &pair.refresh).await);
    app.advance(1);
    assert!(are_inactive(&app, &client, &pair).await);
}

// check 15, 17, 30, 31
#[tokio::test]
async fn whatever_ends_a_token_makes_it_inactive_at_once() {
    let mut app = TestApp::start().await;
    for from_memory in [true, false] {
        let client = introspector(&app).await;
        let (first, second) = (app.grant(&client).await, app.grant(&client).await);
        let single = access_token(&app, &client).await;
        assert!(is_active(&app, &single).await && is_refreshable(&app, &client, &first.refresh).await);
        app.logout(&second.access).await.is_logged_out();
        if !from_memory {
            app = app.restart().await;
            assert_eq!(app.app.memory.registry.sessions(), 0);
        }
        for pair in [&first, &second] {
            assert!(are_inactive(&app, &client, pair).await);
        }
        assert!(!is_active(&app, &single).await);
        let again = app.grant(&client).await;
        assert!(is_active(&app, &again.access).await);
        assert!(is_refreshable(&app, &client, &again.refresh).await);

        admin::suspend(&app.app, client.id, Default::default()).await.unwrap();
        assert!(!is_active(&app, &again.access).await);
        admin::resume(&app.app, client.id).await.unwrap();
        assert!(are_inactive(&app, &client, &again).await);
        let again = app.grant(&client).await;
        let other = admin::NewCredential::default();
        let other = admin::create_credential(&app.app, client.id, other).await.unwrap();
        let other = Client { key: other.api_key, secret: other.api_secret, ..client };
        admin::revoke_credential(&app.app, &client.key).await.unwrap();
        assert!(are_inactive(&app, &other, &again).await);

        let client = app.client().await;
        let pair = app.grant(&client).await;
        admin::delete(&app.app, client.id).await.unwrap();
        assert!(!is_active(&app, &pair.access).await);
    }
}

// check 9
#[tokio::test]
async fn a_session_that_can_be_refreshed_no_more_says_so() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let first = app.grant(&client).await;
    let second = app.renew(&first).await;
    app.refresh(&first.refresh).await.is_error(401, "Invalid token");
    assert!(!is_refreshable(&app, &client, &second.refresh).await);
    assert!(is_active(&app, &second.access).await && is_active(&app, &first.access).await);
}

#[tokio::test]
async fn within_the_grace_the_refresh_token_before_is_active() {
    let app = TestApp::with(|config| config.tokens.refresh_grace = Some("10s".parse().unwrap())).await;
    let client = introspector(&app).await;
    let first = app.grant(&client).await;
    let second = app.renew(&first).await;
    let good = async |pair: &Pair| is_refreshable(&app, &client, &pair.refresh).await;
    app.advance(9);
    assert!(good(&first).await && good(&second).await);
    app.advance(1);
    assert!(!good(&first).await && good(&second).await);
    // Asking about a token used before is no sign of theft.
    app.renew(&second).await;
}
