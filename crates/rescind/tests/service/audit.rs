//! The audit log.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use rescind_admin as admin;
use rescind_base::model::EventKind;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{
    app::{Client, DAY, FORWARDED_FOR, TestApp, trust_proxy},
    raw,
    reply::Reply,
};

const INSIDE: &str = "192.0.2.1";
const OUTSIDE: &str = "198.51.100.20";

async fn ask(app: &TestApp, method: &str, path: &str, body: Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    raw::local(&app.socket(), method, &format!("/admin/v1{path}"), &body).await
}

/// The events that this query finds.
async fn events(app: &TestApp, query: &str) -> Vec<Value> {
    let reply = ask(app, "GET", &format!("/audit?{query}"), Value::Null).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["events"].as_array().unwrap().clone()
}

/// EventKind, client, address.
type Tried = (String, Option<u64>, Option<String>);

/// The counts of the attempts that this query finds, summed, because the service may have written an attempt's count
/// in several parts.
async fn counts(app: &TestApp, query: &str) -> Vec<(Tried, u64)> {
    let mut counts = BTreeMap::new();
    for event in events(app, query).await {
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let tried: Tried = (text("kind").unwrap(), event["client_id"].as_u64(), text("address"));
        *counts.entry(tried).or_default() += event["count"].as_u64().unwrap();
    }
    counts.into_iter().collect()
}

fn tried(kind: &str, client: Option<u64>, address: Option<&str>) -> Tried {
    (kind.to_owned(), client, address.map(str::to_owned))
}

/// Writes the counted attempts to the store now.
async fn write(app: &TestApp) {
    app.app.audit.write(&app.app.store).await;
}

#[tokio::test]
async fn what_operators_do_is_on_record_with_the_request_for_it() {
    let app = TestApp::start().await;
    let created = ask(&app, "POST", "/clients", json!({"name": "Nord"})).await;
    let key = created.json()["api_key"].as_str().unwrap().to_owned();
    let rotated = ask(&app, "POST", &format!("/credentials/{key}/rotate"), json!({"overlap": "1h"})).await;
    let new_key = rotated.json()["api_key"].as_str().unwrap().to_owned();
    ask(&app, "POST", "/clients/1/suspend", Value::Null).await;
    let verifier = ask(&app, "POST", "/verifiers", json!({"name": "v"})).await;
    ask(&app, "POST", "/keys/rotate", json!({"algorithm": "EdDSA"})).await;

    let all = events(&app, "after=0").await;
    let told: Vec<_> = all
        .iter()
        .map(|e| (e["kind"].as_str().unwrap(), e["by"].as_str().unwrap(), e["api_key"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("signing_key_created", "service", None),
            ("client_created", "operator", None),
            ("credential_created", "operator", Some(key.as_str())),
            ("credential_expiry_changed", "operator", Some(key.as_str())),
            ("credential_created", "operator", Some(new_key.as_str())),
            ("client_suspended", "operator", None),
            ("verifier_created", "operator", None),
            ("signing_key_created", "operator", None),
        ]
    );
    let request = |i: usize| all[i]["request_id"].as_str();
    assert_eq!(request(0), None);
    assert_eq!((request(1), request(2)), (created.header("x-request-id"), created.header("x-request-id")));
    assert_eq!(request(3), rotated.header("x-request-id"));
    assert_eq!(request(6), verifier.header("x-request-id"));
    let mut first = all[1].clone();
    assert!(first["node"].take().is_string() && first["request_id"].take().is_string());
    assert!(first["hash"].take().as_str().is_some_and(|hash| hash.len() == 64));
    assert!(first["operator"].take().as_str().is_some_and(|name| name.contains("uid ")));
    let expected = json!({
        "id": 2, "at": "2025-01-15T12:00:00Z", "kind": "client_created", "by": "operator", "operator": null, "client_id": 1,
        "api_key": null, "session": null, "address": null, "node": null, "request_id": null,
        "detail": "Nord", "count": 1, "number": 2, "hash": null,
    });
    assert_eq!(first, expected);

    // What clients do all day is not.
    let app = app.restart().await;
    ask(&app, "POST", "/clients/1/resume", Value::Null).await;
    let secret = created.json()["api_secret"].as_str().unwrap().to_owned();
    let pair = app.grant(&Client { id: 1, key, secret }).await;
    let pair = app.renew(&pair).await;
    app.logout(&pair.access).await.is_logged_out();
    assert_eq!(counts(&app, "after=8").await, [(tried("client_resumed", Some(1), None), 1)]);
}

#[tokio::test]
async fn a_refresh_token_used_again_is_on_record_with_its_session_and_address() {
    let app = TestApp::behind_proxy().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    app.renew(&pair).await;
    let reply = app.at(OUTSIDE).refresh(&pair.refresh).await;
    reply.is_error(401, "Invalid token");
    let found = events(&app, "kind=refresh_token_reused").await;
    assert_eq!(found.len(), 1);
    // The session is at its end: once more is no news, and is counted.
    for _ in 0..5 {
        app.at(OUTSIDE).refresh(&pair.refresh).await.is_error(401, "Invalid token");
    }
    write(&app).await;
    let reused = tried("refresh_token_reused", Some(1), Some(OUTSIDE));
    assert_eq!(counts(&app, "kind=refresh_token_reused").await, [(reused, 6)]);
    let rows = events(&app, "kind=refresh_token_reused").await.len();
    assert!((2..5).contains(&rows), "{rows}");
    let event = |name: &str| &found[0][name];
    assert_eq!((event("client_id"), event("session"), event("by")), (&json!(1), &json!(1), &json!("caller")));
    assert_eq!((event("api_key"), event("address")), (&json!(client.key), &json!(OUTSIDE)));
    assert_eq!(event("request_id").as_str(), reply.header("x-request-id"));
}

// check 102
#[tokio::test]
async fn a_client_that_uses_tokens_again_and_again_has_a_bounded_number_of_rows() {
    let app = TestApp::with(|config| config.limits.failed_logins_per_minute = 0).await;
    let (noisy, quiet) = (app.client().await, app.client().await);
    for _ in 0..40 {
        let pair = app.grant(&noisy).await;
        app.renew(&pair).await;
        // Each ends a session of its own.
        app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
    }
    let pair = app.grant(&quiet).await;
    app.renew(&pair).await;
    app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
    let at_once = events(&app, "kind=refresh_token_reused").await;
    let of = |found: &[Value], client: &Client| -> Vec<Value> {
        found.iter().filter(|event| event["client_id"] == client.id).cloned().collect()
    };
    assert_eq!(of(&at_once, &quiet).len(), 1);
    write(&app).await;
    let found = of(&events(&app, "kind=refresh_token_reused").await, &noisy);
    let count: u64 = found.iter().map(|event| event["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 40);
    // The service may have written by itself in between.
    assert!((11..15).contains(&found.len()), "{found:?}");
    app.advance(60);
    let pair = app.grant(&noisy).await;
    app.renew(&pair).await;
    app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
    assert_eq!(of(&events(&app, "kind=refresh_token_reused").await, &noisy).len(), found.len() + 1);
}

#[tokio::test]
async fn what_callers_try_is_counted_by_source_and_client() {
    let app = TestApp::with(|config| {
        trust_proxy(config);
        config.limits.failed_logins_per_minute = 3;
    })
    .await;
    let client = app.client_allowed(&[INSIDE]).await;
    let pair = app.at(INSIDE).login(&client).await.pair();
    let wrong = Client { secret: "rs_guess".into(), ..client.clone() };
    for _ in 0..5 {
        app.at("2001:db8::1").login(&wrong).await;
        app.at("2001:db8::2").login(&wrong).await;
    }
    // At every door.
    app.at(OUTSIDE).login(&client).await.is_error(403, "IP address not authorized");
    app.at(OUTSIDE).refresh(&pair.refresh).await.is_error(403, "IP address not authorized");
    app.at(OUTSIDE).logout(&pair.access).await.is_error(403, "IP address not authorized");
    app.at(OUTSIDE).verify(&pair.access).await.is_error(403, "IP address not authorized");
    let form =
        format!("grant_type=client_credentials&client_id={}&client_secret={}", client.key, client.secret);
    let token = app.post("/oauth2/token").header("content-type", "application/x-www-form-urlencoded");
    let token = token.header(FORWARDED_FOR, OUTSIDE).body(form);
    assert_eq!(token.send().await.unwrap().status().as_u16(), 400);
    app.at("nobody").verify(&pair.access).await.is_error(403, "IP address not authorized");
    // A client that goes on with a dead token is known.
    app.at(INSIDE).logout(&pair.access).await.is_logged_out();
    for _ in 0..5 {
        app.at(INSIDE).refresh(&pair.refresh).await;
    }

    for _ in 0..2 {
        write(&app).await;
        assert_eq!(
            counts(&app, "after=3").await,
            [
                (tried("address_denied", Some(1), None), 1),
                (tried("address_denied", Some(1), Some(OUTSIDE)), 5),
                (tried("throttled", None, Some("2001:db8::/64")), 7),
                (tried("throttled", Some(1), Some(INSIDE)), 2),
            ]
        );
    }
}

#[tokio::test]
async fn a_flood_from_everywhere_is_a_bounded_number_of_rows() {
    let app = TestApp::start().await;
    for address in 0..50_000_u32 {
        app.app.audit.note(EventKind::Throttled, None, Some(Ipv4Addr::from(address).into()));
    }
    write(&app).await;
    let found = events(&app, "kind=throttled&limit=1000").await;
    let count: u64 = found.iter().map(|event| event["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 50_000);
    // The service may have written by itself in between.
    assert!(found.len() < 5 * 130, "{}", found.len());
    assert!(found.iter().any(|event| event["detail"] == "by others, too many to tell apart"));
}

#[tokio::test]
async fn while_it_cannot_be_written_no_change_is_made_and_no_door_waits() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&[INSIDE]).await;
    let pair = app.at(INSIDE).login(&client).await.pair();
    let store = Connection::open(app.app.folder().store()).unwrap();
    store.execute_batch("ALTER TABLE audit RENAME TO gone").unwrap();
    for _ in 0..3 {
        app.at(OUTSIDE).verify(&pair.access).await.is_error(403, "IP address not authorized");
        write(&app).await;
    }
    assert_eq!(app.at(INSIDE).verify(&pair.access).await.status, 200);
    let before = app.stored(&client).await;
    assert_eq!(ask(&app, "POST", "/clients/1/suspend", Value::Null).await.status, 503);
    assert!(app.is_unchanged(&before).await);
    // Logout needs no record.
    app.at(INSIDE).logout(&pair.access).await.is_logged_out();

    store.execute_batch("ALTER TABLE gone RENAME TO audit").unwrap();
    write(&app).await;
    let denied = tried("address_denied", Some(1), Some(OUTSIDE));
    assert_eq!(counts(&app, "kind=address_denied").await, [(denied, 3)]);
    assert_eq!(ask(&app, "POST", "/clients/1/suspend", Value::Null).await.status, 200);
}

#[tokio::test]
async fn what_was_noted_is_written_by_itself_and_at_the_latest_when_the_service_stops() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&[INSIDE]).await;
    let pair = app.at(INSIDE).login(&client).await.pair();
    app.at(OUTSIDE).verify(&pair.access).await;
    let mut polls = 0;
    while events(&app, "kind=address_denied").await.is_empty() {
        polls += 1;
        assert!(polls < 3000, "it was never written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.at(OUTSIDE).verify(&pair.access).await;
    let app = app.restart().await;
    assert_eq!(events(&app, "kind=address_denied").await.len(), 2);
}

#[tokio::test]
async fn what_is_old_is_swept_and_only_that() {
    let app = TestApp::start().await;
    app.client().await;
    app.advance(89 * DAY);
    app.client().await;
    app.app.sweep().await.unwrap();
    assert_eq!(events(&app, "kind=client_created").await.len(), 2);
    assert_eq!(events(&app, "kind=client_created&since=88d").await.len(), 1);
    app.advance(DAY + 1);
    app.app.sweep().await.unwrap();
    let left = events(&app, "kind=client_created").await;
    assert_eq!((left.len(), &left[0]["client_id"]), (1, &json!(2)));
}

// check CVE-2026-33504: a page's token is a number, and nothing else is one
#[tokio::test]
async fn a_query_is_read_as_numbers_and_names_and_nothing_else() {
    let app = TestApp::start().await;
    for i in 0..4 {
        let new = admin::NewClient { name: format!("c{i}"), ..Default::default() };
        app.client_of(new).await;
    }
    let before = events(&app, "after=0").await;
    for bad in
        ["1%20OR%201=1", "1;DROP%20TABLE%20audit", "-1", "1.0", "%27", "18446744073709551616", "0x1", ""]
    {
        for field in ["after", "limit", "client"] {
            let reply = ask(&app, "GET", &format!("/audit?{field}={bad}"), Value::Null).await;
            assert_eq!(reply.json()["error"]["code"], "VALIDATION_FAILURE", "{field}={bad}");
            let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.starts_with(&format!("{field}: ")), "{message}");
        }
    }
    for (query, problem) in [
        ("limit=0", "limit: expected between 1 and 1000"),
        ("limit=1001", "limit: expected between 1 and 1000"),
        ("since=soon", "since: expected a duration such as"),
        ("kind=client_created%27--", "kind: expected one of"),
        ("sort=id", "sort: unknown field `sort`, expected one of"),
        ("after=1&after=2", "duplicate field `after`"),
    ] {
        let reply = ask(&app, "GET", &format!("/audit?{query}"), Value::Null).await;
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(reply.status == 400 && message.starts_with(problem), "{query}: {message}");
    }
    // A verification goes on in a chain that there is.
    let cursor = format!("0.{}.a\0b", "0".repeat(64));
    let reply = ask(&app, "POST", "/audit/verify", json!({ "cursor": cursor })).await;
    reply.is_error(400, "cursor: expected that of the answer before");
    assert_eq!(events(&app, "after=0").await, before);

    // Page by page it is the whole, whatever the size of the pages.
    let (mut after, mut paged) = (0, Vec::new());
    loop {
        let page = ask(&app, "GET", &format!("/audit?after={after}&limit=2"), Value::Null).await.json();
        let found = page["events"].as_array().unwrap().clone();
        if found.is_empty() {
            break;
        }
        after = page["last"].as_u64().unwrap();
        paged.extend(found);
    }
    assert_eq!(paged, before);
    assert_eq!(events(&app, "limit=2").await, before[before.len() - 2..]);
    for beyond in [after + 1, u64::MAX] {
        let page = ask(&app, "GET", &format!("/audit?after={beyond}"), Value::Null).await.json();
        assert_eq!(page, json!({"events": [], "last": beyond}));
    }
}

#[tokio::test]
async fn what_is_beyond_a_quota_and_who_caches_no_token_is_on_record() {
    let app = TestApp::with(|config| {
        trust_proxy(config);
        config.limits.logins_per_minute = 60;
        config.limits.refreshes_per_minute = 1;
    })
    .await;
    let client = app.client().await;
    let home = app.at(INSIDE);
    let first = home.login(&client).await.pair();
    for _ in 1..60 {
        home.login(&client).await.pair();
    }
    for _ in 0..2 {
        assert_eq!(home.login(&client).await.status, 429);
    }
    let next = home.refresh(&first.refresh).await.pair();
    assert_eq!(home.refresh(&next.refresh).await.status, 429);
    app.advance(600);
    app.app.sweep().await.unwrap();
    write(&app).await;
    let exceeded = counts(&app, "kind=quota_exceeded").await;
    assert_eq!(exceeded, [(tried("quota_exceeded", Some(client.id), Some(INSIDE)), 3)]);
    let not_cached = counts(&app, "kind=tokens_not_cached").await;
    assert_eq!(not_cached, [(tried("tokens_not_cached", Some(client.id), None), 1)]);
}
