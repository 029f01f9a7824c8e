//! The APIs that tokens are for (RFC 8707), and the claims by which stock verifiers read them (RFC 9068).

use data_encoding::BASE64URL_NOPAD;
use reqwest::Method;
use rescind_admin::{self as admin, NewClient, ResourceChange};
use rescind_base::model::{EventFilter, EventKind};
use rescind_verifier::{
    Denied,
    follow::{Follower, Options},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    app::{Client, TestApp},
    follow::{PATIENCE, verdict, verifier_token},
    oauth::{TOKEN, Who, access_token, ask, introspect, introspector},
    reply::Reply,
};

const ISSUER: &str = "http://127.0.0.1:8080";
const ORDERS: &str = "https://api.example.com/orders";
const REPORTS: &str = "https://api.example.com/reports";

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap()
}

async fn client_for(app: &TestApp, resources: &[&str]) -> Client {
    let resources = resources.iter().map(|&resource| resource.into()).collect();
    app.client_of(NewClient { name: "test".into(), resources, ..NewClient::default() }).await
}

async fn issue_for(app: &TestApp, client: &Client, resources: &[&str]) -> Reply {
    let mut parameters = vec![("grant_type", "client_credentials")];
    parameters.extend(resources.iter().map(|&resource| ("resource", resource)));
    ask(app, TOKEN, Who::Basic(client), &parameters).await
}

async fn token_for(app: &TestApp, client: &Client, resources: &[&str]) -> String {
    let reply = issue_for(app, client, resources).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

/// Whether `/verify` accepts the token for this resource.
async fn good_for(app: &TestApp, token: &str, resource: &str) -> bool {
    let request = app.request(Method::GET, &format!("/verify?aud={resource}")).bearer_auth(token);
    let reply = app.send(request).await;
    if reply.status != 200 {
        reply.is_error(401, "Invalid token");
    }
    reply.status == 200
}

async fn change(
    app: &TestApp,
    client: &Client,
    add: &[&str],
    remove: &[&str],
) -> Result<Vec<String>, String> {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    let change = ResourceChange { add: texts(add), remove: texts(remove) };
    let changed = admin::change_resources(&app.app, client.id, change).await;
    changed.map(|view| view.resources).map_err(|error| error.to_string())
}

// check 46
#[tokio::test]
async fn a_client_picks_from_its_resources_and_gets_no_other() {
    let app = TestApp::start().await;
    let api = introspector(&app).await;
    let client = client_for(&app, &[REPORTS, ORDERS]).await;
    for (asked, aud) in [
        (&[][..], json!([ORDERS, REPORTS])),
        (&[ORDERS], json!(ORDERS)),
        (&[REPORTS, ORDERS], json!([ORDERS, REPORTS])),
        (&[ORDERS, ORDERS, ""], json!(ORDERS)),
    ] {
        let token = token_for(&app, &client, asked).await;
        assert_eq!(claims(&token)["aud"], aud, "{asked:?}");
        assert_eq!(introspect(&app, Who::Basic(&api), &token).await.json()["aud"], aud, "{asked:?}");
        assert!(app.stands(&token).await);
        for resource in [ORDERS, REPORTS] {
            let is_for = asked.is_empty() || asked.contains(&resource);
            assert_eq!(good_for(&app, &token, resource).await, is_for, "{asked:?} for {resource}");
        }
        assert!(!good_for(&app, &token, ISSUER).await);
    }
    let before = app.app.store.find(0, 5).await.unwrap().session;
    for asked in [
        &["https://api.example.com/other"][..],
        &[ORDERS, "https://api.example.com/other"],
        &[ISSUER],
        &["orders"],
        &["https://api.example.com/orders#a"],
        &["https://api.example.com/orders https://api.example.com/reports"],
    ] {
        issue_for(&app, &client, asked).await.is_oauth_error(400, "invalid_target");
    }
    assert_eq!(app.app.store.find(0, 5).await.unwrap().session, before);
    assert_eq!(before, None);

    // Of a pair, the refresh token is for the issuer alone.
    let pair = app.renew(&app.grant(&client).await).await;
    assert_eq!(claims(&pair.access)["aud"], json!([ORDERS, REPORTS]));
    assert_eq!(claims(&pair.refresh)["aud"], format!("{ISSUER}/auth/refresh"));
}

#[tokio::test]
async fn without_resources_a_token_is_for_the_default_audience() {
    let app = TestApp::start().await;
    let (client, api) = (app.client().await, introspector(&app).await);
    for asked in [&[][..], &[ISSUER]] {
        let token = token_for(&app, &client, asked).await;
        assert_eq!(claims(&token)["aud"], ISSUER);
        assert!(good_for(&app, &token, ISSUER).await && !good_for(&app, &token, ORDERS).await);
    }
    issue_for(&app, &client, &[ORDERS]).await.is_oauth_error(400, "invalid_target");
    // Nobody has set an audience, so introspection speaks of none: some readers refuse any but their own.
    let token = access_token(&app, &client).await;
    let told = introspect(&app, Who::Basic(&api), &token).await.json();
    assert_eq!((&told["active"], told.get("aud")), (&json!(true), None));

    let app = app.restart_with(|config| config.tokens.audience = ORDERS.into()).await;
    let token = token_for(&app, &client, &[ORDERS]).await;
    assert_eq!(claims(&token)["aud"], ORDERS);
    assert_eq!(introspect(&app, Who::Basic(&api), &token).await.json()["aud"], ORDERS);
    assert!(good_for(&app, &token, ORDERS).await && !good_for(&app, &token, ISSUER).await);
}

#[tokio::test]
async fn a_client_that_loses_a_resource_loses_its_tokens() {
    let app = TestApp::start().await;
    let client = client_for(&app, &[ORDERS]).await;
    let first = app.grant(&client).await;
    assert_eq!(change(&app, &client, &[REPORTS], &[]).await.unwrap(), [ORDERS, REPORTS]);
    assert!(app.stands(&first.access).await);
    // It is for what it was issued for, as long as it is refreshed.
    let second = app.renew(&first).await;
    assert_eq!(claims(&second.access)["aud"], ORDERS);

    assert_eq!(change(&app, &client, &[], &[ORDERS]).await.unwrap(), [REPORTS]);
    for pair in [&first, &second] {
        assert!(!app.stands(&pair.access).await);
    }
    app.refresh(&second.refresh).await.is_error(401, "Invalid token");
    let third = app.grant(&client).await;
    assert_eq!(claims(&third.access)["aud"], REPORTS);

    for (add, remove, problem) in [
        (
            &[][..],
            &[ORDERS][..],
            "remove: https://api.example.com/orders is not one of the client's resources",
        ),
        (&["orders"], &[], "add: \"orders\" is not a resource"),
        (&["https://a#b"], &[REPORTS], "add: "),
    ] {
        let refused = change(&app, &client, add, remove).await.unwrap_err();
        assert!(refused.starts_with(problem), "{refused}");
    }
    assert!(app.stands(&third.access).await);

    // Without any, the default audience is the client's own; with the first, it is no more.
    assert_eq!(change(&app, &client, &[], &[REPORTS]).await.unwrap(), Vec::<String>::new());
    assert!(!app.stands(&third.access).await);
    let default = app.grant(&client).await;
    assert_eq!(change(&app, &client, &[ISSUER], &[]).await.unwrap(), [ISSUER]);
    assert!(app.stands(&default.access).await);
    change(&app, &client, &[ORDERS], &[ISSUER]).await.unwrap();
    assert!(!app.stands(&default.access).await);

    let wanted = EventFilter { after: Some(0), client: Some(client.id), ..EventFilter::newest(100) };
    let records = app.app.store.records(wanted).await.unwrap().records;
    let changed = records.iter().filter(|record| record.kind == EventKind::ResourcesChanged.name());
    let details: Vec<_> = changed.map(|record| record.detail.clone().unwrap()).collect();
    assert_eq!(details[1], format!("-{ORDERS}"));
    assert_eq!(details[2], format!("-{REPORTS}: the default audience"));
}

// RFC 9068 §2.2
#[tokio::test]
async fn an_access_token_has_the_claims_that_its_type_promises() {
    let app = TestApp::with(|config| config.tokens.refresh_grace = Some("10s".parse().unwrap())).await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    let second = app.renew(&first).await;
    for (pair, jti) in [(&first, "1-1"), (&second, "1-2")] {
        let claims = claims(&pair.access);
        assert_eq!((&claims["client_id"], &claims["jti"]), (&json!(client.key), &json!(jti)));
        for required in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] {
            assert!(claims.get(required).is_some(), "{required}");
        }
    }
    assert_eq!(claims(&second.refresh).get("client_id"), None);
    // Within the grace the same token is answered with the same pair, byte for byte.
    assert_eq!(app.renew(&first).await, second);
    let app = app.restart().await;
    assert_eq!(app.renew(&first).await, second);

    // It is the key that the session was opened with.
    let created = admin::create_credential(&app.app, client.id, Default::default()).await.unwrap();
    let other = Client { id: client.id, key: created.api_key, secret: created.api_secret };
    let pair = app.renew(&app.grant(&other).await).await;
    assert_eq!(claims(&pair.access)["client_id"], other.key);
    assert_eq!(claims(&access_token(&app, &other).await)["client_id"], other.key);
}

// RFC 9728
#[tokio::test]
async fn the_metadata_of_configured_apis_is_published_and_named_in_challenges() {
    let partners = "https://partners.example.com/orders";
    let app = TestApp::with(|config| {
        config.tokens.resources =
            [ORDERS, partners, "https://api.example.com"].map(|r| r.parse().unwrap()).into();
    })
    .await;
    const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
    let ask = async |path: &str, host: &str| {
        let request = app.request(Method::GET, &format!("{WELL_KNOWN}{path}")).header("host", host);
        app.send(request).await
    };
    for (path, host, resource) in [
        ("/orders", "api.example.com", ORDERS),
        ("/orders", "PARTNERS.example.com", partners),
        ("", "api.example.com", "https://api.example.com"),
        // A proxy may write a host of its own, and one API of that path is enough.
        ("", "127.0.0.1", "https://api.example.com"),
    ] {
        let expected = json!({
            "resource": resource, "authorization_servers": [ISSUER], "bearer_methods_supported": ["header"],
        });
        let reply = ask(path, host).await;
        assert_eq!((reply.status, reply.json()), (200, expected), "{host}{path}");
    }
    for (path, host) in
        [("/orders", "127.0.0.1"), ("/other", "api.example.com"), ("/", "api.example.com"), ("s", "x")]
    {
        ask(path, host).await.is_error(404, "No such path");
    }
    let posted = app.send(app.post(&format!("{WELL_KNOWN}/orders"))).await;
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET,HEAD")));

    let client = client_for(&app, &[REPORTS]).await;
    let token = app.grant(&client).await.access;
    let challenged = async |query: &str, token: Option<&str>| {
        let request = app.request(Method::GET, &format!("/verify?{query}"));
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        app.send(request).await.header("www-authenticate").unwrap().to_owned()
    };
    let metadata = format!(r#", resource_metadata="https://api.example.com{WELL_KNOWN}/orders""#);
    let aud = format!("aud={ORDERS}");
    assert_eq!(challenged(&aud, None).await, format!(r#"Bearer realm="rescind"{metadata}"#));
    for token in [&token, "x"] {
        let expected = format!(r#"Bearer realm="rescind", error="invalid_token"{metadata}"#);
        assert_eq!(challenged(&aud, Some(token)).await, expected);
    }
    let expected = format!(r#"Bearer realm="rescind", error="insufficient_scope", scope="a"{metadata}"#);
    assert_eq!(challenged(&format!("{aud}&scope=a"), Some(&token)).await, expected);
    // Of an API that is not configured nothing is known.
    assert_eq!(challenged(&format!("aud={REPORTS}"), None).await, r#"Bearer realm="rescind""#);
}

// check 46
#[tokio::test]
async fn a_follower_takes_the_tokens_of_its_api_alone() {
    let app = TestApp::today(|_| {}).await;
    let client = client_for(&app, &[ORDERS, REPORTS]).await;
    let (all, one) = (token_for(&app, &client, &[]).await, token_for(&app, &client, &[REPORTS]).await);
    let default = app.grant(&app.client().await).await.access;
    let verifier = verifier_token(&app, true).await;
    let options = || Options::new(app.management.to_string(), verifier.clone());
    let of = async |options: Options| {
        let follower = Follower::start(options);
        timeout(PATIENCE, follower.ready()).await.unwrap();
        [&all, &one, &default].map(|token| verdict(&follower, token))
    };
    let wrong = Err(Denied::WrongAudience);
    assert_eq!(of(options()).await, [wrong, wrong, Ok(())]);
    assert_eq!(of(options().with_resource(ORDERS).unwrap()).await, [Ok(()), wrong, wrong]);
    assert_eq!(of(options().with_resource(REPORTS).unwrap()).await, [Ok(()), Ok(()), wrong]);
    assert!(options().with_resource("orders").is_err());
}
