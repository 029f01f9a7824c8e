//! Why requests were refused, as operators are told.

use std::collections::BTreeSet;

use reqwest::Method;
use rescind_admin::{self as admin, AllowChange, CertificateChange, NewManagementToken};
use rescind_base::{
    clock::{Clock, rfc3339},
    model::{Check, Role},
};
use rescind_node::audit::WRITE_EVERY;
use serde_json::{Value, json};

use crate::{
    app::{Client, FORWARDED_FOR, HOUR, TestApp, trust_proxy},
    fixture::Server,
    oauth::{INTROSPECTION, TOKEN, Who, ask, client_with, introspect},
    raw,
    reply::Reply,
};

async fn get(app: &TestApp, path: &str) -> Reply {
    raw::local(&app.socket(), "GET", &format!("/admin/v1{path}"), "").await
}

/// Asks why a request was refused, by the request id of its answer.
async fn why(app: &TestApp, refused: &Reply) -> Value {
    let id = refused.header("x-request-id").unwrap();
    let reply = get(app, &format!("/denials/{id}")).await;
    assert_eq!(reply.status, 200, "{refused:?}: {reply:?}");
    let told = reply.json();
    assert_eq!((&told["request_id"], &told["status"]), (&json!(id), &json!(refused.status)), "{refused:?}");
    told
}

/// The reasons that were seen, each explained.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    /// Checks the reason of a refused request, and returns its explanation.
    async fn is(&mut self, app: &TestApp, reason: &str, operation: &str, refused: &Reply) -> Value {
        let told = why(app, refused).await;
        assert_eq!((&told["reason"], &told["operation"]), (&json!(reason), &json!(operation)), "{told}");
        assert!(told["what"].as_str().unwrap().ends_with('.') && told["advice"].is_string(), "{told}");
        self.0.insert(reason.to_owned());
        told
    }
}

async fn verify(app: &TestApp, path: &str, token: &str) -> Reply {
    app.send(app.request(Method::GET, path).bearer_auth(token)).await
}

/// A service with an embedded store, or one in PostgreSQL.
async fn service(postgres: bool) -> TestApp {
    let url = if postgres { Some(Server::shared().database().await) } else { None };
    TestApp::with(|config| {
        trust_proxy(config);
        config.limits.failed_logins_per_minute = 6;
        config.limits.logins_per_minute = 5;
        config.database.url = url.map(|url| url.parse().unwrap());
    })
    .await
}

// Every check is failed once, but those that need more than requests. The clock stands still, as leases need it.
async fn every_reason_is_explained(postgres: bool) {
    let app = service(postgres).await;
    let mut seen = Seen::default();
    let client = client_with(&app, &["orders"]).await;
    let pair = app.grant(&client).await;
    let token = pair.access.as_str();

    // Nobody known.
    let none = app.send(app.request(Method::GET, "/verify")).await;
    let told = seen.is(&app, "authorization_missing", "verify", &none).await;
    assert_eq!((&told["client_id"], &told["proven"]), (&Value::Null, &json!(false)));
    let two = app.request(Method::GET, "/verify").bearer_auth(token).header("authorization", "Bearer x");
    seen.is(&app, "malformed", "verify", &app.send(two).await).await;
    seen.is(&app, "malformed", "logout", &app.logout("x").await).await;
    let header = "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6IngifQ";
    let (_, rest) = token.split_once('.').unwrap();
    seen.is(&app, "unknown_key", "verify", &app.verify(&format!("{header}.{rest}")).await).await;
    let mut forged = token.to_owned();
    let changed = if forged.pop() == Some('A') { 'E' } else { 'A' };
    forged.push(changed);
    let told = seen.is(&app, "bad_signature", "verify", &app.verify(&forged).await).await;
    assert_eq!((&told["token"], &told["client_id"]), (&Value::Null, &Value::Null));
    seen.is(&app, "wrong_kind", "verify", &app.verify(&pair.refresh).await).await;
    let wrong = Client { secret: "rs_wrong".into(), ..client.clone() };
    let told = seen.is(&app, "invalid_credentials", "login", &app.login(&wrong).await).await;
    // The client is that of the API key, and has proved nothing.
    assert_eq!((&told["client_id"], &told["proven"]), (&json!(client.id), &json!(false)));
    assert_eq!((&told["api_key"], &told["credential"]["status"]), (&json!(client.key), &json!("active")));
    let anonymous = ask(&app, TOKEN, Who::Nobody, &[("grant_type", "client_credentials")]).await;
    seen.is(&app, "credentials_missing", "token", &anonymous).await;
    seen.is(&app, "unknown_parameter", "verify", &verify(&app, "/verify?scop=x", token).await).await;
    let long = app.request(Method::GET, "/verify").bearer_auth(token).header("x-long", "x".repeat(17_000));
    seen.is(&app, "undecided", "verify", &app.send(long).await).await;

    // The client's own token.
    let told = seen.is(&app, "scope_missing", "verify", &verify(&app, "/verify?scope=x", token).await).await;
    assert_eq!(told["asked"], json!({"scopes": ["x"]}));
    let told =
        seen.is(&app, "wrong_audience", "verify", &verify(&app, "/verify?aud=urn:x", token).await).await;
    assert_eq!((&told["asked"], &told["proven"]), (&json!({"audience": "urn:x"}), &json!(true)));
    assert_eq!((&told["token"]["session"], &told["token"]["pair"]), (&json!(1), &json!(1)));
    assert!(told["token"]["kid"].is_string() && told["api_key"] == json!(client.key), "{told}");
    let not_allowed = introspect(&app, Who::Basic(&client), token).await;
    seen.is(&app, "scope_missing", "introspect", &not_allowed).await;
    let bearer = ask(&app, INTROSPECTION, Who::Bearer(token), &[("token", token)]).await;
    seen.is(&app, "scope_missing", "introspect", &bearer).await;
    let parameters = [("grant_type", "client_credentials"), ("resource", "urn:other")];
    let refused = ask(&app, TOKEN, Who::Basic(&client), &parameters).await;
    assert_eq!(refused.status, 400);
    seen.is(&app, "resource_missing", "token", &refused).await;

    // Of its certificate, its refresh token, its limits.
    let bind = |add: &[&str], remove: &[&str]| CertificateChange {
        add: add.iter().map(|&name| name.into()).collect(),
        remove: remove.iter().map(|&name| name.into()).collect(),
        unbind: true,
    };
    admin::change_certificates(&app.app, client.id, bind(&["dns:a.example"], &[])).await.unwrap();
    let told = seen.is(&app, "certificate_missing", "login", &app.login(&client).await).await;
    assert_eq!(told["proven"], true);
    seen.is(&app, "certificate_missing", "refresh", &app.refresh(&pair.refresh).await).await;
    admin::change_certificates(&app.app, client.id, bind(&[], &["dns:a.example"])).await.unwrap();
    let renewed = app.renew(&pair).await;
    let told = seen.is(&app, "refresh_token_reused", "refresh", &app.refresh(&pair.refresh).await).await;
    assert_eq!(
        (&told["token"]["kind"], &told["event"]["kind"]),
        (&json!("refresh"), &json!("refresh_token_reused"))
    );
    let noisy = app.client().await;
    for _ in 0..5 {
        app.grant(&noisy).await;
    }
    let told = seen.is(&app, "over_quota", "login", &app.login(&noisy).await).await;
    assert_eq!(told["retry_after"], 60);
    let wrong = Client { secret: "rs_wrong".into(), ..noisy.clone() };
    let mut last = app.login(&wrong).await;
    while last.status == 401 {
        last = app.login(&wrong).await;
    }
    seen.is(&app, "throttled", "login", &last).await;

    // Revoked by the client itself, suspended, revoked, expired.
    app.logout(&renewed.access).await.is_logged_out();
    let told = seen.is(&app, "revoked", "refresh", &app.refresh(&renewed.refresh).await).await;
    assert_eq!((&told["revoked"], &told["event"]), (&json!("every-token"), &Value::Null));
    assert_eq!(told["client"]["tokens_revoked_at"], rfc3339(app.clock.now()));
    let renewed = app.grant(&client).await;
    admin::suspend(&app.app, client.id, Default::default()).await.unwrap();
    let told = seen.is(&app, "client_inactive", "verify", &app.verify(&renewed.access).await).await;
    assert_eq!(
        (&told["event"]["kind"], &told["client"]["status"]),
        (&json!("client_suspended"), &json!("suspended"))
    );
    admin::resume(&app.app, client.id).await.unwrap();
    let told = seen.is(&app, "revoked", "verify", &app.verify(&renewed.access).await).await;
    assert_eq!(
        (&told["revoked"], &told["event"]["kind"]),
        (&json!("every-token"), &json!("client_suspended"))
    );
    assert_eq!((&told["token"]["generation"], &told["client_generation"]), (&json!(1), &json!(2)));
    let pair = app.grant(&client).await;
    admin::revoke_session(&app.app, told_session(&app, &pair.access).await).await.unwrap();
    let told = seen.is(&app, "revoked", "logout", &app.logout(&pair.access).await).await;
    assert_eq!((&told["revoked"], &told["event"]["kind"]), (&json!("session"), &json!("session_revoked")));
    let pair = app.grant(&client).await;
    let reported = app.send(app.post("/auth/leaked").json(&json!({"token": pair.access}))).await;
    assert_eq!(reported.status, 200);
    let told = seen.is(&app, "revoked", "verify", &app.verify(&pair.access).await).await;
    assert_eq!((&told["revoked"], &told["event"]["kind"]), (&json!("session"), &json!("leak_reported")));
    let pair = app.grant(&client).await;
    admin::revoke_credential(&app.app, &client.key).await.unwrap();
    let told = seen.is(&app, "revoked", "verify", &app.verify(&pair.access).await).await;
    assert_eq!(
        (&told["revoked"], &told["event"]["kind"]),
        (&json!("credential"), &json!("credential_revoked"))
    );
    assert_eq!(told["credential"]["status"], "revoked");

    let walled = app.client_allowed(&["192.0.2.0/24"]).await;
    seen.is(&app, "address_not_allowed", "login", &app.login(&walled).await).await;
    let refused = ask(&app, TOKEN, Who::Basic(&walled), &[("grant_type", "client_credentials")]).await;
    assert_eq!(refused.status, 400);
    seen.is(&app, "address_not_allowed", "token", &refused).await;

    let elsewhere =
        ["expired", "identity_headers", "no_place", "not_known", "not_yet_valid", "stale", "wrong_issuer"];
    let expected: BTreeSet<_> = Check::all()
        .map(|check| check.name().to_owned())
        .filter(|name| !elsewhere.contains(&name.as_str()))
        .collect();
    assert_eq!(seen.0, expected);
}

/// The session of an access token.
async fn told_session(app: &TestApp, token: &str) -> u64 {
    app.verify(token).await.header("x-rescind-session").unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_reason_is_explained_from_the_embedded_store() {
    every_reason_is_explained(false).await;
}

#[tokio::test]
async fn every_reason_is_explained_from_postgresql() {
    every_reason_is_explained(true).await;
}

#[tokio::test]
async fn what_only_time_a_new_issuer_or_a_direct_caller_shows_is_explained_too() {
    let (app, mut seen) = (TestApp::start().await, Seen::default());
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let spoofed =
        app.request(Method::GET, "/verify").bearer_auth(&pair.access).header("x-rescind-client", "1");
    seen.is(&app, "identity_headers", "verify", &app.send(spoofed).await).await;
    app.advance(HOUR);
    let told = seen.is(&app, "expired", "verify", &app.verify(&pair.access).await).await;
    assert_eq!((&told["client_id"], &told["proven"]), (&json!(client.id), &json!(true)));
    app.advance(-HOUR - 120);
    seen.is(&app, "not_yet_valid", "verify", &app.verify(&pair.access).await).await;
    app.advance(120);
    // The session is in no store.
    let app = app.restart().await;
    rusqlite::Connection::open(app.app.folder().store())
        .unwrap()
        .execute_batch("DELETE FROM session")
        .unwrap();
    let told = seen.is(&app, "not_known", "verify", &app.verify(&pair.access).await).await;
    assert_eq!((&told["client_id"], &told["token"]["session"]), (&json!(client.id), &json!(1)));
    let pair = app.grant(&client).await;
    let app = app.restart().await;
    let store = rusqlite::Connection::open(app.app.folder().store()).unwrap();
    store.execute_batch("ALTER TABLE session RENAME TO gone").unwrap();
    let undecided = app.verify(&pair.access).await;
    assert_eq!(undecided.status, 403);
    seen.is(&app, "stale", "verify", &undecided).await;
    store.execute_batch("ALTER TABLE gone RENAME TO session").unwrap();
    let app = app.restart_with(|config| config.tokens.issuer = "https://other.example".into()).await;
    seen.is(&app, "wrong_issuer", "verify", &app.verify(&pair.access).await).await;
}

#[tokio::test]
async fn an_address_is_explained_by_its_way_and_the_nearest_entries() {
    let app = TestApp::behind_proxy().await;
    let list = ["192.0.2.0/25", "198.51.100.0/24", "203.0.112.0/24", "2001:db8::/32"];
    let client = app.client_allowed(&list).await;
    let token = app.at("192.0.2.1").login(&client).await.pair().access;
    let request = app
        .request(Method::GET, "/verify")
        .header(FORWARDED_FOR, "198.51.100.1, bogus, 203.0.113.9, 127.0.0.1")
        .bearer_auth(&token)
        .header("x-forwarded-method", "POST")
        .header("x-forwarded-host", "api.example")
        .header("x-forwarded-uri", format!("/orders/{token}?secret=1"));
    let refused = Reply::read(request.send().await.unwrap()).await;
    refused.is_error(403, "IP address not authorized");
    let told = why(&app, &refused).await;
    assert_eq!((&told["reason"], &told["address"]), (&json!("address_not_allowed"), &json!("203.0.113.9")));
    let hop = |address: &str, named_by: &str, role: &str| json!({"address": address, "named_by": named_by, "role": role});
    assert_eq!(
        told["hops"],
        json!([
            hop("127.0.0.1", "connection", "trusted"),
            hop("127.0.0.1", FORWARDED_FOR, "trusted"),
            hop("203.0.113.9", FORWARDED_FOR, "judged"),
            hop("bogus", FORWARDED_FOR, "ignored"),
            hop("198.51.100.1", FORWARDED_FOR, "ignored"),
        ])
    );
    assert_eq!(
        told["allowlist"],
        json!({"entries": 4, "nearest": ["203.0.112.0/24", "192.0.2.0/25", "198.51.100.0/24"]})
    );
    assert_eq!(told["forwarded"], json!({"method": "POST", "host": "api.example", "path": "/orders/…"}));

    // The last change of the list is what an operator looks for next.
    let change = AllowChange { remove: vec!["192.0.2.0/25".into()], ..AllowChange::default() };
    admin::change_allowlist(&app.app, client.id, change).await.unwrap();
    let told = why(&app, &app.at("192.0.2.1").verify(&token).await).await;
    assert_eq!(told["event"]["detail"], "-192.0.2.0/25");
    // An address that cannot be read.
    let refused = app.at("unknown").verify(&token).await;
    let told = why(&app, &refused).await;
    assert_eq!((&told["address"], &told["allowlist"]), (&Value::Null, &Value::Null));
    assert_eq!(told["hops"][1], hop("unknown", FORWARDED_FOR, "unreadable"));
}

#[tokio::test]
async fn a_bound_viewer_sees_its_clients_denials_only() {
    let app = TestApp::start().await;
    let (one, other) = (app.client_allowed(&["192.0.2.1"]).await, app.client_allowed(&["192.0.2.1"]).await);
    let (of_one, of_other) = (app.login(&one).await, app.login(&other).await);
    let of_nobody = app.verify("x").await;
    let new =
        NewManagementToken { name: "v".into(), role: Role::Viewer, clients: vec![one.id], expires_in: None };
    let viewer = admin::create_management_token(&app.app, new).await.unwrap().token;
    let ask = async |path: String| {
        let url = format!("http://{}/admin/v1{path}", app.management);
        Reply::read(reqwest::Client::new().get(url).bearer_auth(&viewer).send().await.unwrap()).await
    };
    let id = |reply: &Reply| reply.header("x-request-id").unwrap().to_owned();
    let listed = ask("/denials".into()).await.json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["request_id"], json!(id(&of_one)));
    assert_eq!(ask(format!("/denials/{}", id(&of_one))).await.json()["client_id"], one.id);
    for hidden in [&of_other, &of_nobody] {
        let reply = ask(format!("/denials/{}", id(hidden))).await;
        assert_eq!(reply.status, 404, "{reply:?}");
        // It is told no more than of an id that never was.
        let never = ask("/denials/never".into()).await.json()["error"]["message"].clone();
        assert_eq!(reply.json()["error"]["message"], never);
    }
    assert_eq!(ask(format!("/denials?client={}", other.id)).await.status, 404);
}

#[tokio::test]
async fn denials_are_listed_page_by_page_and_filtered() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["192.0.2.1"]).await;
    for n in 0..5 {
        app.at(&format!("203.0.113.{n}")).login(&client).await;
        app.advance(60);
    }
    app.verify("x").await;
    let list = async |query: &str| {
        let reply = get(&app, &format!("/denials?{query}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let found = reply.json();
        let addresses: Vec<_> = found
            .as_array()
            .unwrap()
            .iter()
            .map(|denial| denial["address"].as_str().unwrap().to_owned())
            .collect();
        (addresses.join(" "), reply.header("link").map(str::to_owned))
    };
    let last = ["203.0.113.4", "203.0.113.3", "203.0.113.2", "203.0.113.1", "203.0.113.0"];
    assert_eq!(list("").await, (format!("127.0.0.1 {}", last.join(" ")), None));
    assert_eq!(list("client=1").await.0, last.join(" "));
    assert_eq!(list("reason=malformed").await.0, "127.0.0.1");
    assert_eq!(list("address=::ffff:203.0.113.2").await.0, "203.0.113.2");
    assert_eq!(list("since=2m&client=1").await.0, last[..2].join(" "));
    assert_eq!(list("until=2m").await.0, last[2..].join(" "));
    let (page, link) = list("client=1&limit=2").await;
    assert_eq!(page, last[..2].join(" "));
    let link = link.unwrap();
    let next = link.split_once("?").unwrap().1.split_once('>').unwrap().0;
    let (page, link) = list(next).await;
    assert_eq!((page, link.is_some()), (last[2..4].join(" "), true));
    let next = link.unwrap();
    let next = next.split_once("?").unwrap().1.split_once('>').unwrap().0;
    assert_eq!(list(next).await, (last[4].to_owned(), None));
    for (query, problem) in [
        ("limit=0", "limit: expected between 1 and 1000"),
        ("reason=bad", "reason: expected one of malformed, "),
        ("address=host", "address: expected an IP address"),
        ("since=never", "since: "),
    ] {
        let reply = get(&app, &format!("/denials?{query}")).await;
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(reply.status == 400 && message.starts_with(problem), "{message}");
    }
}

#[tokio::test]
async fn a_request_without_a_denial_is_told_why_it_may_have_none() {
    let app = TestApp::with(|config| config.denials.keep = "3d".parse().unwrap()).await;
    let accepted = app.login(&app.client().await).await;
    let reply = get(&app, &format!("/denials/{}", accepted.header("x-request-id").unwrap())).await;
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(reply.status, 404);
    assert!(message.contains("kept for 3d, and 100000 of them"), "{message}");
    // An id that the caller has chosen, with what a path must encode; the newest of two is shown.
    for token in ["x", "y.y.y"] {
        app.send(app.request(Method::GET, "/verify").bearer_auth(token).header("x-request-id", "a/b?%c"))
            .await;
    }
    let told = get(&app, "/denials/a%2Fb%3F%25c").await.json();
    assert_eq!((&told["request_id"], &told["others"]), (&json!("a/b?%c"), &json!(1)));
    let listed = get(&app, "/denials?request_id=a/b%3F%25c").await.json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    // They are forgotten when they are old.
    app.advance(4 * 24 * HOUR);
    app.app.sweep().await.unwrap();
    assert_eq!(get(&app, "/denials/a%2Fb%3F%25c").await.status, 404);
}

// check 102
#[tokio::test]
async fn a_flood_of_denials_keeps_the_table_at_its_bound_and_pushes_nobody_out() {
    /// Of the 50 of a client in a round.
    const LEFT_OUT: u64 = 50 - 32;
    let app = TestApp::with(|config| {
        trust_proxy(config);
        config.limits.failed_logins_per_minute = 0;
        config.denials.max_rows = 100;
    })
    .await;
    let (quiet, noisy) = (app.client_allowed(&["192.0.2.1"]).await, app.client_allowed(&["192.0.2.1"]).await);
    let token = app.at("192.0.2.1").login(&noisy).await.pair().access;
    let first = app.login(&quiet).await;
    let (counts, begun_at) = (&app.app.audit.denial_counts, Clock::System.elapsed());
    // Returns how many denials of a round found no place.
    let flood = async |round: u64| {
        let before = counts.left_out();
        for n in 0..50 {
            app.at(&format!("203.0.113.{round}")).verify(&token).await;
            app.at(&format!("198.51.{round}.{n}")).verify("x").await;
        }
        app.app.audit.write(&app.app.store).await;
        let listed = get(&app, "/denials?limit=1000").await.json();
        assert!(listed.as_array().unwrap().len() <= 100);
        counts.left_out() - before
    };
    // The service writes every few seconds by itself, too. In a round that this cuts in two, more find a place. The last
    // round is a whole one.
    let (mut rounds, mut left_out) = (0, vec![]);
    while rounds < 20 || left_out.last() != Some(&LEFT_OUT) {
        left_out.push(flood(rounds).await);
        rounds += 1;
    }
    let cut = left_out.iter().filter(|&&left_out| left_out != LEFT_OUT).count() as u64;
    let writes = Clock::System.elapsed().saturating_sub(begun_at).as_secs() / WRITE_EVERY.as_secs() + 1;
    assert!(left_out.iter().all(|left_out| *left_out <= LEFT_OUT) && cut <= writes, "{left_out:?}");
    let of = async |client: u64| {
        get(&app, &format!("/denials?limit=1000&client={client}")).await.json().as_array().unwrap().len()
    };
    // The table is shared by those who have many, and those who have few keep theirs.
    assert_eq!((of(quiet.id).await, of(noisy.id).await), (1, 49));
    assert_eq!(why(&app, &first).await["client_id"], quiet.id);
    let listed = get(&app, &format!("/denials?client={}&limit=1", noisy.id)).await.json();
    assert_eq!(listed[0]["not_kept"], LEFT_OUT);
    let metrics =
        reqwest::get(format!("http://{}/metrics", app.management)).await.unwrap().text().await.unwrap();
    let count = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let (kept, all_left_out) =
        (count("rescind_denials_kept_total "), count("rescind_denials_left_out_total "));
    assert_eq!((kept + all_left_out, all_left_out), (rounds * 100 + 1, left_out.iter().sum()));
}
