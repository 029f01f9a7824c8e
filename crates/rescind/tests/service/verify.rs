//! `/verify`, as reverse proxies use it.

use reqwest::Method;
use rescind_admin::NewClient;

use crate::app::{HOUR, TestApp};

#[tokio::test]
async fn success_is_200_with_an_empty_body_and_who_it_is() {
    let app = TestApp::start().await;
    let scopes = vec!["orders:write".into(), "orders:read".into()];
    let new = NewClient { name: "Überweisung, \"Nord\"".into(), scopes, ..NewClient::default() };
    let client = app.client_of(new).await;
    app.grant(&client).await;
    let pair = app.grant(&client).await;
    for path in [
        "/verify",
        "/verify?",
        "/verify/",
        "/verify/a",
        "/verify/a/b%2Fc?d=e&scope=orders:delete",
        "/verify?scope=orders:read",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
            let method: Method = method.parse().unwrap();
            let request = app.request(method.clone(), path).bearer_auth(&pair.access);
            let reply = app.send(request).await;
            assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{method} {path}");
            assert_eq!(reply.header("x-rescind-client"), Some("1"));
            assert_eq!(reply.headers["x-rescind-client-name"].as_bytes(), "Überweisung, \"Nord\"".as_bytes());
            assert_eq!(reply.header("x-rescind-scopes"), Some("orders:read orders:write"));
            assert_eq!(reply.header("x-rescind-session"), Some("2"));
            assert_eq!(reply.header("x-accel-expires"), Some("0"));
        }
    }
}

// CVE-2026-30851: a header left out would let a client's own pass
#[tokio::test]
async fn every_identity_header_is_there_even_if_empty() {
    let app = TestApp::start().await;
    let pair = app.grant(&app.client().await).await;
    let reply = app.verify(&pair.access).await;
    assert_eq!(reply.header("x-rescind-scopes"), Some(""));
    assert_eq!(reply.header("x-rescind-client-name"), Some("test"));
}

// check 33
#[tokio::test]
async fn failure_is_401_or_403_and_never_kept() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["203.0.113.7"]).await;
    let pair = app.at("203.0.113.7").login(&client).await.pair();
    let strange = app.at("192.0.2.1").verify(&pair.access).await;
    strange.is_error(403, "IP address not authorized");
    let refused = app.verify("x").await;
    refused.is_error(401, "Invalid token");
    let bare = app.send(app.request(Method::GET, "/verify")).await;
    bare.is_error(401, "Authorization header required");
    app.advance(HOUR);
    let expired = app.at("192.0.2.1").verify(&pair.access).await;
    expired.is_error(401, "Token expired");
    for reply in [strange, refused, bare, expired] {
        assert_eq!(reply.header("x-accel-expires"), Some("0"));
        assert_eq!(reply.header("x-rescind-client"), None);
    }
}

// check 59, 61, CVE-2026-33495, CVE-2026-40575, CVE-2026-34457, CVE-2026-35051: client headers trusted
#[tokio::test]
async fn what_a_client_says_of_its_request_decides_nothing() {
    let app = TestApp::start().await;
    let client = app.client_allowed(&["203.0.113.7"]).await;
    let at_home = TestApp::start().await;
    let token = at_home.grant(&at_home.client().await).await.access;
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-real-ip", "203.0.113.7"),
        ("forwarded", "for=203.0.113.7"),
        ("x-original-uri", "/public"),
        ("x-forwarded-uri", "/public"),
        ("x-forwarded-method", "OPTIONS"),
        ("x-original-method", "OPTIONS"),
        ("x-forwarded-host", "localhost"),
        ("user-agent", "kube-probe/1.30"),
        ("connection", "Authorization, X-Forwarded-For"),
    ] {
        let body = serde_json::json!({"username": client.key, "password": client.secret});
        let login = app.post("/auth/login").header(name, value).json(&body);
        app.send(login).await.is_error(403, "IP address not authorized");
        let bare = app.request(Method::GET, "/verify").header(name, value);
        app.send(bare).await.is_error(401, "Authorization header required");
        let good = at_home.request(Method::GET, "/verify").header(name, value).bearer_auth(&token);
        assert_eq!(at_home.send(good).await.status, 200, "{name}");
    }
}

// check 15: what memory has forgotten is learnt from the store, rightly
#[tokio::test]
async fn tokens_that_memory_does_not_hold_are_decided_by_the_store() {
    let app = TestApp::with(|config| config.server.sessions_in_memory = 1).await;
    let (client, other) = (app.client().await, app.client().await);
    let kept = app.grant(&other).await;
    let mut pairs = Vec::new();
    // Enough for every shard of the memory to have dropped what it held first, twice over.
    for _ in 0..300 {
        pairs.push(app.grant(&client).await);
    }
    assert!(app.app.memory.registry.sessions() < 150, "{}", app.app.memory.registry.sessions());
    for pair in pairs.iter().chain(&pairs[..10]) {
        assert!(app.stands(&pair.access).await);
    }
    let renewed = app.renew(&pairs[0]).await;
    assert!(app.stands(&pairs[0].access).await && app.stands(&renewed.access).await);
    app.refresh(&pairs[0].refresh).await.is_error(401, "Invalid token");
    app.logout(&pairs[150].access).await.is_logged_out();
    for pair in &pairs {
        assert!(!app.stands(&pair.access).await);
    }
    assert!(!app.stands(&renewed.access).await);
    assert!(app.stands(&kept.access).await);
}

#[tokio::test]
async fn a_session_ended_by_reuse_stays_ended_when_memory_has_forgotten_it() {
    let app = TestApp::with(|config| {
        config.server.sessions_in_memory = 1;
        config.tokens.on_reuse = rescind_base::model::OnReuse::EndSession;
    })
    .await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    let second = app.renew(&first).await;
    app.refresh(&first.refresh).await.is_error(401, "Invalid token");
    for _ in 0..300 {
        app.grant(&client).await;
    }
    assert!(!app.stands(&first.access).await && !app.stands(&second.access).await);
    app.refresh(&second.refresh).await.is_error(401, "Invalid token");
}

#[tokio::test]
async fn a_restarted_server_knows_every_token() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (first, logged_out) = (app.grant(&client).await, app.grant(&app.client().await).await);
    let second = app.renew(&first).await;
    app.logout(&logged_out.access).await.is_logged_out();
    let app = app.restart().await;
    assert_eq!(app.app.memory.registry.sessions(), 0);
    assert!(app.stands(&first.access).await && app.stands(&second.access).await);
    assert!(!app.stands(&logged_out.access).await);
    // A logout may well be the first that a new process hears of a session.
    let app = app.restart().await;
    app.logout(&first.access).await.is_logged_out();
    assert!(!app.stands(&second.access).await);
}

// A token of a client, session or pair that was never made, though the key is ours.
#[tokio::test]
async fn tokens_that_the_system_does_not_know_are_invalid() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let session = app.session(1).await;
    let mut unknown = vec![session.clone(); 4];
    unknown[0].id = 99;
    unknown[1].client = 99;
    unknown[2].pair = 2;
    unknown[3].generation = 1;
    for forged in unknown {
        let forged = app.pair_of(&forged);
        assert!(!app.stands(&forged.access_token).await);
        app.refresh(&forged.refresh_token).await.is_error(401, "Invalid token");
    }
    assert_eq!(app.session(1).await, session);
    app.renew(&pair).await;
}

// check 45
#[tokio::test]
async fn tokens_from_the_future_are_invalid() {
    let app = TestApp::start().await;
    let pair = app.grant(&app.client().await).await;
    app.advance(-60);
    assert!(app.stands(&pair.access).await);
    app.advance(-1);
    assert!(!app.stands(&pair.access).await);
    app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
}

// check 60, CVE-2025-64484: identity headers are the service's own
#[tokio::test]
async fn identity_headers_from_a_direct_caller_are_refused() {
    let app = TestApp::start().await;
    let pair = app.grant(&app.client().await).await;
    for name in ["x-rescind-client", "X_Rescind_Client", "x.rescind.client", "X-Rescind-Anything"] {
        let request = app.request(Method::GET, "/verify").bearer_auth(&pair.access).header(name, "7");
        app.send(request).await.is_error(403, "Identity headers are the service's own");
    }
}

// check 21, CVE-2021-32701: the scope is decided at every verification
#[tokio::test]
async fn a_location_may_ask_for_scopes_and_an_audience() {
    let app = TestApp::start().await;
    let scopes = vec!["orders:read".into(), "orders:write".into()];
    let client = app.client_of(NewClient { name: "c".into(), scopes, ..NewClient::default() }).await;
    let pair = app.grant(&client).await;
    let verify = async |query: &str| {
        let request = app.request(Method::GET, &format!("/verify?{query}")).bearer_auth(&pair.access);
        app.send(request).await
    };
    for query in [
        "scope=orders:read",
        "scope=orders:read+orders:write",
        "scope=orders:read&scope=orders:write",
        "aud=http://127.0.0.1:8080",
        "scope=orders:read&aud=http%3A%2F%2F127.0.0.1%3A8080",
    ] {
        assert_eq!(verify(query).await.status, 200, "{query}");
    }
    for (query, scope) in [
        ("scope=orders:delete", ", scope=\"orders:delete\""),
        ("scope=orders:read+orders:delete", ", scope=\"orders:read orders:delete\""),
        ("scope=orders:read&scope=x", ", scope=\"x\""),
        ("scope=%22", ""),
        ("scope=%C3%A4", ""),
    ] {
        let reply = verify(query).await;
        let challenge = format!("Bearer realm=\"rescind\", error=\"insufficient_scope\"{scope}");
        assert_eq!(reply.header("www-authenticate"), Some(challenge.as_str()), "{query}");
        reply.is_error(403, "Insufficient scope");
    }
    verify("aud=http://127.0.0.1:8081").await.is_error(401, "Invalid token");
}

// check 105: a slip in a proxy's configuration opens nothing
#[tokio::test]
async fn what_a_location_asks_for_and_cannot_be_read_is_denied() {
    let app = TestApp::start().await;
    let scopes = vec!["orders:read".into()];
    let client = app.client_of(NewClient { name: "c".into(), scopes, ..NewClient::default() }).await;
    let pair = app.grant(&client).await;
    let verify = async |query: &str| {
        let request = app.request(Method::GET, &format!("/verify{query}")).bearer_auth(&pair.access);
        app.send(request).await
    };
    for query in [
        "?scope",
        "?scope=",
        "?scope=+",
        "?scope=%20",
        "?scopes=x",
        "?Scope=x",
        "?scope%20=x",
        "?=x",
        "?other=1",
        "?scope=orders:read&x",
        "?aud",
        "?aud=",
        "?aud=http://127.0.0.1:8080&aud=http://127.0.0.1:8080",
        "?Path=/x",
        "?path",
        "?p%61th=/x",
        "?&scope",
    ] {
        verify(query).await.is_error(403, "Unknown or empty query parameter");
    }
    // Whoever has no token is told no more than that.
    let bare = app.send(app.request(Method::GET, "/verify?scopes=x")).await;
    bare.is_error(403, "Unknown or empty query parameter");
}

// check 105: what lies behind "path=" is the caller's own
#[tokio::test]
async fn reading_stops_where_the_callers_own_query_begins() {
    let app = TestApp::start().await;
    let scopes = vec!["orders:read".into()];
    let client = app.client_of(NewClient { name: "c".into(), scopes, ..NewClient::default() }).await;
    let pair = app.grant(&client).await;
    let callers = "/x?scope=admin&scope&Scope=x&aud=y&%zz";
    for (asked, status) in [("", 200), ("scope=orders:read&", 200), ("scope=orders:write&", 403), ("&", 200)]
    {
        let request = app.request(Method::GET, &format!("/verify?{asked}path={callers}"));
        assert_eq!(app.send(request.bearer_auth(&pair.access)).await.status, status, "{asked}");
    }
    for path in ["/verify/?scope=admin", "/verify/x?scope=admin&scopes&aud=y", "/verify/scope=admin?scope"] {
        let request = app.request(Method::GET, path).bearer_auth(&pair.access);
        assert_eq!(app.send(request).await.status, 200, "{path}");
    }
}

// CVE-2026-33496, GHSA-rp9m-7r4c-75qg: no verdict is kept, so none can be given to another question
#[tokio::test]
async fn questions_that_differ_in_one_thing_are_decided_apart() {
    let app = TestApp::behind_proxy().await;
    let reader = NewClient { name: "reader".into(), scopes: vec!["read".into()], ..NewClient::default() };
    let reader = app.grant(&app.client_of(reader).await).await.access;
    let bound = app.client_allowed(&["203.0.113.7"]).await;
    let bound = app.at("203.0.113.7").login(&bound).await.pair().access;
    let questions = [
        (&reader, "", "192.0.2.1", 200),
        (&reader, "?scope=read", "192.0.2.1", 200),
        (&reader, "?scope=write", "192.0.2.1", 403),
        (&bound, "", "203.0.113.7", 200),
        (&bound, "", "192.0.2.1", 403),
        (&bound, "?scope=read", "203.0.113.7", 403),
    ];
    for round in 0..questions.len() {
        for i in 0..questions.len() {
            let (token, query, address, status) = questions[(i * 5 + round) % questions.len()];
            let request = app.request(Method::GET, &format!("/verify{query}")).bearer_auth(token);
            let reply = app.send(request.header("x-forwarded-for", address)).await;
            assert_eq!(reply.status, status, "{query} from {address}");
        }
    }
}
