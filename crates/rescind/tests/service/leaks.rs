//! Reports of leaked tokens and secrets: possession is enough, and the answer keeps the promise of a logout.

use std::collections::BTreeMap;

use regex::Regex;
use reqwest::Method;
use rescind_admin::{self as admin, KeyRotation, NewManagementToken, NewVerifier};
use rescind_base::{
    model::{EventFilter, EventKind, Record, Role},
    random::Random,
    secret::{ApiSecret, MANAGEMENT_PREFIX, VERIFIER_PREFIX, generate_api_key, is_well_formed},
};
use rescind_verifier::{Algorithm, Denied, Kind, follow::Mode, header_segment};
use serde_json::json;

use crate::{
    app::{Client, DAY, FORWARDED_FOR, HOUR, Pair, TestApp, trust_proxy},
    follow::{Followed, verdict},
    reply::Reply,
};

const DOCUMENT: &str = include_str!("../../../../docs/leaks.md");
const FINDER: &str = "203.0.113.7";

async fn report(app: &TestApp, token: &str) -> Reply {
    app.send(app.post("/auth/leaked").json(&json!({ "token": token }))).await
}

#[track_caller]
fn is_revoked(reply: &Reply, what: &str) {
    let body = format!(r#"{{"success":true,"data":{{"revoked":"{what}"}}}}"#);
    assert_eq!((reply.status, reply.body.as_str()), (200, body.as_str()));
}

/// The newest event of this kind.
async fn newest(app: &TestApp, kind: EventKind) -> Record {
    let wanted = EventFilter { kind: Some(kind), ..EventFilter::newest(1) };
    app.app.store.records(wanted).await.unwrap().records.pop().unwrap()
}

async fn management_token(app: &TestApp, expires_in: Option<&str>) -> String {
    let new = NewManagementToken {
        name: "ci".into(),
        role: Role::Viewer,
        clients: vec![],
        expires_in: expires_in.map(|span| span.parse().unwrap()),
    };
    admin::create_management_token(&app.app, new).await.unwrap().token
}

async fn ask_with(app: &TestApp, management_token: &str) -> u16 {
    let url = format!("http://{}/admin/v1/clients", app.management);
    reqwest::Client::new().get(url).bearer_auth(management_token).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_reported_token_ends_its_session_and_no_other() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let token: [fn(&Pair, &Pair) -> String; 4] = [
        |_, now| now.access.clone(),
        |_, now| now.refresh.clone(),
        |before, _| before.access.clone(),
        |before, _| before.refresh.clone(),
    ];
    for token in token {
        let before = app.grant(&client).await;
        let pair = app.renew(&before).await;
        let beside = app.grant(&client).await;
        is_revoked(&report(&app, &token(&before, &pair)).await, "session");
        assert!(!app.stands(&pair.access).await && !app.stands(&before.access).await);
        app.refresh(&pair.refresh).await.is_error(401, "Invalid token");
        assert!(app.stands(&beside.access).await);
        is_revoked(&report(&app, &token(&before, &pair)).await, "nothing");
        app.grant(&client).await;
    }
}

#[tokio::test]
async fn an_expired_token_ends_what_lives_of_its_session() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let first = app.grant(&client).await;
    app.advance(7 * DAY - 1);
    let second = app.renew(&first).await;
    app.advance(1);
    is_revoked(&report(&app, &first.refresh).await, "session");
    assert!(!app.stands(&second.access).await);
    // Nothing lives of this one.
    let third = app.grant(&client).await;
    app.advance(7 * DAY);
    is_revoked(&report(&app, &third.access).await, "nothing");
    // Of a session that can be refreshed no more, the access tokens live.
    let fourth = app.grant(&client).await;
    let fifth = app.renew(&fourth).await;
    app.refresh(&fourth.refresh).await.is_error(401, "Invalid token");
    is_revoked(&report(&app, &fifth.access).await, "session");
    assert!(!app.stands(&fifth.access).await);
}

#[tokio::test]
async fn a_report_needs_neither_an_allowed_address_nor_a_certificate() {
    let app = TestApp::with(trust_proxy).await;
    let client = app.client_allowed(&["192.0.2.0/24"]).await;
    let pair = app.at("192.0.2.1").login(&client).await.pair();
    let reported =
        app.post("/auth/leaked").header(FORWARDED_FOR, FINDER).json(&json!({"token": pair.access}));
    is_revoked(&app.send(reported).await, "session");
    app.at("192.0.2.1").verify(&pair.access).await.is_error(401, "Invalid token");
}

#[tokio::test]
async fn a_reported_secret_revokes_its_credential_and_no_other() {
    let app = TestApp::start().await;
    for (with_key, expired, suspended) in
        [(false, false, false), (true, false, false), (false, true, false), (false, false, true)]
    {
        let client = app.client().await;
        let other = admin::create_credential(&app.app, client.id, Default::default()).await.unwrap();
        let other = Client { key: other.api_key, secret: other.api_secret, ..client.clone() };
        if expired {
            let expiry = admin::Expiry { after: Some("1m".parse().unwrap()), at: None };
            admin::expire_credential(&app.app, &client.key, expiry).await.unwrap();
        }
        let (pair, beside) = (app.grant(&client).await, app.grant(&other).await);
        if expired {
            app.advance(60);
        }
        if suspended {
            admin::suspend(&app.app, client.id, Default::default()).await.unwrap();
        }
        let text = if with_key { format!("{}:{}", client.key, client.secret) } else { client.secret.clone() };
        is_revoked(&report(&app, &text).await, "credential");
        let known = app.app.memory.registry.credential(&client.key);
        assert!(known.is_none());
        if suspended {
            admin::resume(&app.app, client.id).await.unwrap();
        } else {
            assert!(app.stands(&beside.access).await);
        }
        assert!(!app.stands(&pair.access).await);
        app.login(&client).await.is_error(401, "Invalid credentials");
        app.grant(&other).await;
        is_revoked(&report(&app, &text).await, "nothing");
        let app = &app;
        assert!(app.stored(&client).await.credentials[0].revoked_at.is_some());
    }
}

// What was revoked stays so, and what was not is found, when memory is filled from the store.
#[tokio::test]
async fn secrets_are_known_after_a_restart_and_deleted_ones_are_not() {
    let app = TestApp::start().await;
    let [revoked, deleted, live] = [app.client().await, app.client().await, app.client().await];
    is_revoked(&report(&app, &revoked.secret).await, "credential");
    admin::delete(&app.app, deleted.id).await.unwrap();
    is_revoked(&report(&app, &deleted.secret).await, "nothing");
    let app = app.restart().await;
    for gone in [&revoked, &deleted] {
        is_revoked(&report(&app, &gone.secret).await, "nothing");
    }
    is_revoked(&report(&app, &live.secret).await, "credential");
}

#[tokio::test]
async fn a_reported_verifier_and_a_reported_management_token_are_revoked() {
    let app = TestApp::start().await;
    let new = NewVerifier { name: "orders".into(), share_hs256: false };
    let verifier = admin::create_verifier(&app.app, new).await.unwrap().token;
    is_revoked(&report(&app, &verifier).await, "verifier");
    assert!(admin::verifiers(&app.app).is_empty());
    assert_eq!(newest(&app, EventKind::LeakReported).await.detail.unwrap(), "verifier revoked: 1, orders");
    let (leaked, other) = (management_token(&app, None).await, management_token(&app, None).await);
    assert_eq!(ask_with(&app, &leaked).await, 200);
    is_revoked(&report(&app, &leaked).await, "management token");
    assert_eq!((ask_with(&app, &leaked).await, ask_with(&app, &other).await), (401, 200));
    let detail = newest(&app, EventKind::LeakReported).await.detail.unwrap();
    assert_eq!(detail, "management token revoked: 1, ci, viewer");
    for gone in [&verifier, &leaked] {
        is_revoked(&report(&app, gone).await, "nothing");
    }
    let expired = management_token(&app, Some("1h")).await;
    app.advance(HOUR);
    is_revoked(&report(&app, &expired).await, "nothing");
}

#[tokio::test]
async fn a_report_is_on_record_with_the_address_of_who_made_it() {
    let app = TestApp::with(trust_proxy).await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    for (token, session, detail) in
        [(&pair.access, Some(1), "session revoked"), (&client.secret, None, "credential revoked")]
    {
        let reported =
            app.post("/auth/leaked").header(FORWARDED_FOR, FINDER).json(&json!({ "token": token }));
        let reply = app.send(reported.header("x-request-id", "r1")).await;
        assert_eq!(reply.status, 200);
        let event = newest(&app, EventKind::LeakReported).await;
        assert_eq!((event.by.as_str(), event.client, event.session), ("caller", Some(client.id), session));
        assert_eq!(event.api_key.as_ref(), Some(&client.key));
        assert_eq!(event.address.as_deref(), Some(FINDER));
        assert_eq!((event.request.as_deref(), event.detail.as_deref()), (Some("r1"), Some(detail)));
    }
}

#[tokio::test]
async fn what_one_client_reports_beyond_ten_a_minute_is_counted_in_one_row() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for _ in 0..13 {
        let pair = app.grant(&client).await;
        is_revoked(&report(&app, &pair.access).await, "session");
    }
    app.app.audit.write(&app.app.store).await;
    let wanted = EventFilter { kind: Some(EventKind::LeakReported), ..EventFilter::newest(100) };
    let found = app.app.store.records(wanted).await.unwrap().records;
    let counts: Vec<_> = found.iter().map(|event| (event.session.is_some(), event.count)).collect();
    assert_eq!(counts[..10], [(true, 1); 10]);
    assert_eq!(counts[10..], [(false, 3)]);
}

#[tokio::test]
async fn what_opens_nothing_is_told_so_and_changes_nothing() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let elsewhere = TestApp::start().await;
    let foreign = elsewhere.grant(&elsewhere.client().await).await;
    let (over, before) = (app.grant(&client).await, app.stored(&client).await);
    app.logout(&over.access).await.is_logged_out();
    let before_report = app.stored(&client).await;
    assert_ne!(before.revision, before_report.revision);
    let random = Random::seeded(1);
    for text in [
        "x",
        "🦀",
        ":",
        client.key.as_str(),
        &format!("{}:", client.secret),
        &client.secret[..60],
        ApiSecret::generate(&random).expose(),
        ApiSecret::generate_token(VERIFIER_PREFIX, &random).expose(),
        ApiSecret::generate_token(MANAGEMENT_PREFIX, &random).expose(),
        &foreign.access,
        &foreign.refresh,
        &over.access,
        &over.refresh,
    ] {
        is_revoked(&report(&app, text).await, "nothing");
    }
    assert!(app.is_unchanged(&before_report).await);
}

// check 76
#[tokio::test]
async fn guesses_are_bounded_as_failed_logins_are_and_what_is_known_is_taken_all_the_same() {
    let app = TestApp::with(|config| config.limits.failed_logins_per_minute = 3).await;
    let client = app.client().await;
    let (pair, spare) = (app.grant(&client).await, management_token(&app, None).await);
    let random = Random::seeded(2);
    let guess = || ApiSecret::generate(&random);
    for _ in 0..30 {
        is_revoked(&report(&app, guess().expose()).await, "nothing");
    }
    report(&app, guess().expose()).await.is_error(429, "Rate limit exceeded. Retry after 2 seconds.");
    // A guess of what only the store knows is refused before the store is asked, and so is a right one.
    assert_eq!(report(&app, &spare).await.status, 429);
    assert_eq!(ask_with(&app, &spare).await, 200);
    is_revoked(&report(&app, &pair.access).await, "session");
    is_revoked(&report(&app, &client.secret).await, "credential");
    app.advance(60);
    is_revoked(&report(&app, &spare).await, "management token");
    // What memory still has of a session that is over is worth no more.
    let over = app.grant(&app.client().await).await;
    app.advance(8 * DAY);
    for token in [&over.access, &over.refresh] {
        for _ in 0..3 {
            is_revoked(&report(&app, token).await, "nothing");
        }
        assert_eq!(report(&app, token).await.status, 429);
    }
    // The same text is refused sooner.
    for _ in 0..3 {
        is_revoked(&report(&app, &pair.access).await, "nothing");
    }
    assert_eq!(report(&app, &pair.access).await.status, 429);
}

#[tokio::test]
async fn a_report_without_a_token_is_refused_in_the_contracts_words() {
    let app = TestApp::start().await;
    for body in ["{}", r#"{"token":""}"#, r#"{"token":null}"#] {
        let request = app.post("/auth/leaked").header("content-type", "application/json").body(body);
        app.send(request).await.is_error(400, "Token is required");
    }
    let number = app.post("/auth/leaked").json(&json!({"token": 1}));
    app.send(number).await.is_error(400, "token must be a string");
    let form = app.post("/auth/leaked").body("token=x");
    assert_eq!(app.send(form).await.status, 415);
    let get = app.send(app.request(Method::GET, "/auth/leaked")).await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
}

// check 15
#[tokio::test]
async fn every_follower_knows_of_a_leak_when_its_report_is_answered() {
    let f = Followed::at(TestApp::live(|_| {}).await, Mode::Exact, async |address| address).await;
    let beside = f.app.grant(&f.client).await;
    crate::follow::stands(&f.follower, &beside.access).await;
    for (reported, token) in [(&f.pair.refresh, &f.pair.access), (&f.client.secret, &beside.access)] {
        assert_eq!(report(&f.app, reported).await.status, 200);
        // On a busy machine its lease may have ended.
        let verdict = verdict(&f.follower, token);
        assert!(verdict == Err(Denied::Revoked) || verdict == Err(Denied::Stale), "{verdict:?}");
    }
}

/// The patterns of docs/leaks.md.
fn patterns() -> BTreeMap<&'static str, Regex> {
    let (_, block) = DOCUMENT.split_once("```text\n").unwrap();
    let lines = block.split_once("```").unwrap().0.lines();
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, p)| (name, Regex::new(p.trim()).unwrap()))
        .collect()
}

/// The names of the patterns that find something in a text, which is exactly what was hidden there.
fn found(patterns: &BTreeMap<&'static str, Regex>, hidden: &str) -> Vec<&'static str> {
    let text = format!("API_SECRET=\"{hidden}\" # in a file\n");
    let found = patterns.iter().filter_map(|(name, pattern)| Some((name, pattern.find(&text)?)));
    found
        .map(|(name, hit)| {
            assert_eq!(hit.as_str(), hidden, "{name}");
            *name
        })
        .collect()
}

/// CRC-32 as zip files have it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn the_documented_patterns_find_every_secret_and_no_near_miss() {
    let (patterns, random) = (patterns(), Random::System);
    assert_eq!(patterns.len(), 5);
    for _ in 0..1000 {
        for (secret, name) in [
            (ApiSecret::generate(&random), "rescind-api-secret"),
            (ApiSecret::generate_token(VERIFIER_PREFIX, &random), "rescind-verifier-token"),
            (ApiSecret::generate_token(MANAGEMENT_PREFIX, &random), "rescind-management-token"),
        ] {
            let secret = secret.expose();
            assert_eq!(found(&patterns, secret), [name]);
            let last = secret.len() - 1;
            for near in [
                format!("{secret}a"),
                secret[..last].to_owned(),
                format!("x{secret}"),
                secret.to_uppercase(),
                format!("{}1", &secret[..last]),
                // Its last bits would not be zero.
                format!("{}b", &secret[..last]),
                secret.replacen("r", "s", 1),
            ] {
                assert_eq!(found(&patterns, &near), [""; 0], "{near}");
            }
            // The checksum, as the document has it.
            let body = data_encoding::BASE32_NOPAD.decode(secret[3..].to_uppercase().as_bytes()).unwrap();
            let sum = crc32(&[&secret.as_bytes()[..3], &body[..32]].concat());
            assert_eq!(body[32..], sum.to_be_bytes());
            assert!(is_well_formed(&secret[..3], secret));
        }
        assert_eq!(found(&patterns, &generate_api_key(&random)), [""; 0]);
    }
}

#[tokio::test]
async fn the_documented_patterns_find_tokens_of_every_key() {
    let (patterns, app) = (patterns(), TestApp::start().await);
    let client = app.client().await;
    for algorithm in Algorithm::ALL {
        let rotation = KeyRotation { algorithm: Some(algorithm.name().into()), ..KeyRotation::default() };
        admin::rotate_key(&app.app, rotation).await.unwrap();
        app.advance(HOUR);
        let pair = app.grant(&client).await;
        for token in [&pair.access, &pair.refresh] {
            let signed_by = if token == &pair.access { algorithm } else { Algorithm::Hs256 };
            let name =
                if signed_by == Algorithm::Ed25519 { "rescind-token-ed25519" } else { "rescind-token" };
            assert_eq!(found(&patterns, token), [name], "{token}");
            let (header, rest) = token.split_once('.').unwrap();
            // Another issuer's, a token without its signature, and a header alone.
            for near in
                [format!("eyJhbGciOiJIUzI1NiJ9.{rest}"), token[..token.len() - 60].to_owned(), header.into()]
            {
                assert_eq!(found(&patterns, &near), [""; 0], "{near}");
            }
        }
        let kid = "abcdefghijklmnop";
        for kind in [Kind::Access, Kind::Refresh] {
            let token = format!("{}.eyJpc3MiOiJ4.{}", header_segment(algorithm, kid, kind), "A".repeat(43));
            assert_eq!(found(&patterns, &token).len(), 1, "{token}");
        }
    }
}
