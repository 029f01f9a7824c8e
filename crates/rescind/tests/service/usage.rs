//! How clients are used: counted, written now and then, and told.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use rescind_admin::{
    self as admin, ClientQuery, CountsView, NewCredential, NewManagementToken, Rotation, UsageQuery,
    UsageView,
};
use rescind_base::{
    clock::Clock,
    model::{self, EventFilter, Hours, Role},
    random::Random,
};
use rescind_node::{app::Validity, usage::Usage};
use rescind_store::Store;
use rescind_verifier::follow::{Mode, wire::ACK_PATH};
use serde_json::{Value, json};
use tokio::{task::yield_now, time::timeout};

use crate::{
    app::{Client, DAY, HOUR, NOW, TestApp},
    follow::{CALLER, Followed, PATIENCE, exact, feed::management, verdict, verifier_token},
    metrics::Samples,
    oauth::{Who, introspect},
    raw,
};

async fn usage(app: &TestApp, client: &Client) -> UsageView {
    let path = format!("/admin/v1/clients/{}/usage", client.id);
    let reply = raw::local(&app.socket(), "GET", &path, "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_value(reply.json()).unwrap()
}

fn counts(logins: u64, refreshes: u64, verifications: u64, denials: u64) -> CountsView {
    CountsView { logins, refreshes, verifications, denials }
}

#[tokio::test]
async fn what_a_client_does_is_counted_for_it_and_for_all_together() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["10.0.0.0/8"]).await;
    let other = app.client().await;
    let caller = app.at("10.0.0.7");
    let pair = caller.login(&client).await.pair();
    let renewed = caller.refresh(&pair.refresh).await.pair();
    for _ in 0..5 {
        assert_eq!(app.at("10.0.0.8").verify(&renewed.access).await.status, 200);
    }
    // Four that are refused to a client that is known, and three of nobody.
    app.at("192.0.2.1").verify(&renewed.access).await.is_error(403, "IP address not authorized");
    app.at("192.0.2.1").login(&client).await.is_error(403, "IP address not authorized");
    caller.refresh(&pair.refresh).await.is_error(401, "Invalid token");
    let path = "/verify?scope=orders:read";
    let asked = app.request(Method::GET, path).header("x-forwarded-for", "10.0.0.9");
    assert_eq!(app.send(asked.bearer_auth(&renewed.access)).await.status, 403);
    let wrong = Client { secret: "rs_x".into(), ..client.clone() };
    assert_eq!(caller.login(&wrong).await.status, 401);
    assert_eq!(caller.verify("x").await.status, 401);
    assert_eq!(caller.verify(&pair.refresh).await.status, 401);
    app.verify(&app.grant(&other).await.access).await;

    let used = usage(&app, &client).await;
    // The one whose scope was missing was found valid.
    assert_eq!(used.hours.total, counts(1, 1, 6, 4));
    let hour = &used.hours.hours[0];
    assert_eq!((hour.hour.as_str(), hour.counts), ("2025-01-15T12:00:00Z", used.hours.total));
    assert_eq!((used.hours.hours.len(), used.hours.lag_seconds), (1, 15));
    let (login, verified) = (used.last_login.unwrap(), used.last_verification.unwrap());
    let at = "2025-01-15T12:00:00Z";
    assert_eq!((login.at.as_str(), login.address), (at, Some([10, 0, 0, 7].into())));
    assert_eq!((verified.at.as_str(), verified.address), (at, Some([10, 0, 0, 9].into())));
    assert_eq!((login.api_key, verified.api_key), (client.key.clone(), client.key.clone()));

    let all = raw::local(&app.socket(), "GET", "/admin/v1/usage?since=1h", "").await.json();
    assert_eq!(all["total"], json!({"logins": 2, "refreshes": 1, "verifications": 7, "denials": 4}));
    // A revoked token that introspection says nothing of is refused too.
    app.at("10.0.0.7").logout(&renewed.access).await.is_logged_out();
    app.at("10.0.0.7").verify(&renewed.access).await.is_error(401, "Invalid token");
    assert_eq!(usage(&app, &client).await.hours.total, counts(1, 1, 7, 5));
    // So is a client that may not introspect.
    assert_eq!(introspect(&app, Who::Basic(&other), &renewed.access).await.status, 403);
    assert_eq!(usage(&app, &other).await.hours.total, counts(1, 0, 1, 1));
}

#[tokio::test]
async fn verifications_write_nothing_of_their_own() {
    let app = TestApp::start().await;
    let pair = app.grant(&app.client().await).await;
    let commits = async || Samples::of(&app).await.get("rescind_store_commit_duration_seconds_count");
    let before = commits().await;
    for _ in 0..500 {
        assert_eq!(app.verify(&pair.access).await.status, 200);
    }
    // What is written now and then is written all the same.
    let written = commits().await - before;
    assert!(written < 20.0, "{written}");
}

#[tokio::test]
async fn an_hour_has_what_was_done_in_it_and_is_kept_for_thirty_days() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let verify = async |times: usize| {
        let pair = app.grant(&client).await;
        for _ in 0..times {
            assert_eq!(app.verify(&pair.access).await.status, 200);
        }
    };
    verify(1).await;
    app.advance(HOUR - 1);
    verify(2).await;
    // Without a write between the hours.
    app.advance(1);
    verify(4).await;
    app.advance(29 * DAY);
    verify(8).await;
    let hours = async |query: UsageQuery| {
        let used = admin::usage(&app.app, client.id, query).await.unwrap();
        let hours = used.hours.hours.into_iter();
        hours.map(|hour| (hour.hour, hour.counts.verifications)).collect::<Vec<_>>()
    };
    let [first, second, last] =
        [("2025-01-15T12:00:00Z", 3), ("2025-01-15T13:00:00Z", 4), ("2025-02-13T13:00:00Z", 8)]
            .map(|(hour, verifications)| (hour.to_owned(), verifications));
    assert_eq!(hours(UsageQuery::default()).await, [first.clone(), second.clone(), last.clone()]);
    let since = |text: &str| UsageQuery { since: Some(text.parse().unwrap()), ..UsageQuery::default() };
    assert_eq!(hours(since("24h")).await, std::slice::from_ref(&last));
    let between = UsageQuery {
        since: Some("2025-01-15T12:59:59Z".parse().unwrap()),
        until: Some("2025-01-15T13:00:00Z".parse().unwrap()),
        api_key: None,
    };
    assert_eq!(hours(between).await, [first]);
    let reply = raw::local(&app.socket(), "GET", "/admin/v1/clients/1/usage?since=1h&until=2h", "").await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("since: expected a time before until"), "{reply:?}");

    let kept = async || {
        let all = Hours { since: 0, until: NOW / 3600 + 2000 };
        app.app.store.usage_of(0, None, Hours { since: NOW / 3600 - 1, ..all }).await.unwrap().len()
    };
    assert_eq!(kept().await, 3);
    app.advance(DAY);
    app.app.sweep().await.unwrap();
    assert_eq!(kept().await, 2);
    app.advance(HOUR + 1);
    app.app.sweep().await.unwrap();
    assert_eq!(kept().await, 1);
    assert_eq!(hours(UsageQuery::default()).await, [last]);
}

#[tokio::test]
async fn a_stop_in_order_loses_nothing_and_nobody_need_ask_for_the_counts_to_be_written() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    for _ in 0..3 {
        app.verify(&pair.access).await;
    }
    let app = app.restart().await;
    let written = async |app: &TestApp| {
        let hours = Hours { since: NOW / 3600, until: NOW / 3600 + 1 };
        let counted = app.app.store.usage_of(client.id, None, hours).await.unwrap();
        counted.first().map_or(0, |(_, tally)| tally.verifications)
    };
    assert_eq!(written(&app).await, 3);
    app.verify(&pair.access).await;
    let come = async {
        while written(&app).await < 4 {
            yield_now().await;
        }
    };
    timeout(2 * PATIENCE, come).await.unwrap();
}

#[tokio::test]
async fn a_follower_reports_what_it_verified_and_says_the_rest_when_it_leaves() {
    for mode in [Mode::Bounded(Duration::from_millis(500)), Mode::Exact] {
        let f = Followed::at(TestApp::live(|_| {}).await, mode, async |address| address).await;
        // The first token that stood was counted when the follower was ready.
        for _ in 0..10 {
            verdict(&f.follower, &f.pair.access).unwrap();
        }
        f.follower.verify(&f.pair.access, Some([192, 0, 2, 1].into())).unwrap_err();
        let come = async {
            while usage(&f.app, &f.client).await.hours.total != counts(1, 0, 11, 1) {
                yield_now().await;
            }
        };
        timeout(PATIENCE, come).await.unwrap();
        let last = usage(&f.app, &f.client).await.last_verification.unwrap();
        assert_eq!((last.api_key, last.address), (f.client.key.clone(), CALLER));
        assert!(Samples::of(&f.app).await.get("rescind_verifications_reported_total") >= 11.0);

        for _ in 0..10 {
            verdict(&f.follower, &f.pair.access).unwrap();
        }
        f.follower.leave().await;
        assert_eq!(usage(&f.app, &f.client).await.hours.total, counts(1, 0, 21, 1));
    }
}

#[tokio::test]
async fn a_report_counts_for_clients_that_there_are_and_in_hours_that_were() {
    let app = TestApp::start().await;
    let (client, token) = (app.client().await, verifier_token(&app, false).await);
    let credential = app.stored(&client).await.credentials[0].id;
    let hour = NOW / 3600;
    let last = json!({"at": u64::MAX, "from": "::ffff:192.0.2.1"});
    let ack = json!({"epoch": "x", "seq": 0, "mode": "bounded", "a later member": 1, "usage": [
        {"client": client.id, "credential": credential, "hour": hour + 9, "verifications": 2, "denials": 1, "last": last},
        {"client": client.id, "credential": 99, "hour": hour - 1, "verifications": 3, "last": last},
        {"client": client.id, "credential": credential, "hour": hour - 2, "verifications": u64::MAX},
        {"client": client.id, "credential": credential, "hour": 5, "verifications": 7},
        {"client": 99, "credential": credential, "hour": hour, "verifications": 7},
        {"client": 0, "credential": 0, "hour": hour, "verifications": 7},
    ]});
    let url = format!("http://{}{ACK_PATH}", app.management);
    let answer = reqwest::Client::new().post(url).bearer_auth(token).json(&ack).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let used = usage(&app, &client).await;
    let verifications = used.hours.hours.iter().map(|hour| hour.counts.verifications).collect::<Vec<_>>();
    assert_eq!(verifications, [u64::from(u32::MAX), 3, 2]);
    let last = used.last_verification.unwrap();
    let expected = ("2025-01-15T12:00:00Z", Some([192, 0, 2, 1].into()));
    assert_eq!((last.at.as_str(), last.address), expected);
    // What a follower had no room for, of client 0, counts for all together.
    let all = raw::local(&app.socket(), "GET", "/admin/v1/usage", "").await.json();
    assert_eq!(all["total"]["verifications"], u64::from(u32::MAX) + 5 + 7);
    assert_eq!(reported(&app).await, u64::from(u32::MAX) as f64 + 5.0 + 7.0);
}

async fn reported(app: &TestApp) -> f64 {
    Samples::of(app).await.get("rescind_verifications_reported_total")
}

// Its follower counts what it reported again.
#[tokio::test]
async fn a_report_that_is_refused_counts_nothing() {
    let app = TestApp::start().await;
    let (client, token) = (app.client().await, verifier_token(&app, false).await);
    let credential = app.stored(&client).await.credentials[0].id;
    let report = async |mode: &str, follower: &str| {
        let ack = json!({"epoch": "x", "seq": 0, "mode": mode, "follower": follower, "usage": [
            {"client": client.id, "credential": credential, "hour": NOW / 3600, "verifications": 2},
        ]});
        app.send(management(&app, Method::POST, ACK_PATH).bearer_auth(&token).json(&ack)).await.status
    };
    assert_eq!(report("exact", "no name").await, 400);
    for n in 0..1000 {
        assert_eq!(exact::renew(&app, &token, &n.to_string()).await.status, 200);
    }
    assert_eq!(report("exact", "one-more").await, 429);
    assert_eq!(reported(&app).await, 0.0);
    assert_eq!(report("exact", "7").await, 200);
    assert_eq!(reported(&app).await, 2.0);
    app.app.cluster.lease.end();
    for (mode, follower) in [("exact", "7"), ("bounded", ""), ("leave", "7")] {
        assert_eq!(report(mode, follower).await, 503, "{mode}");
    }
    assert_eq!(reported(&app).await, 2.0);
}

#[tokio::test]
async fn a_credential_that_only_its_tokens_use_is_not_stale_and_shows_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let rotated = admin::rotate_credential(&app.app, &client.key, Rotation::default()).await.unwrap();
    app.advance(HOUR / 2);
    app.verify(&pair.access).await;
    let verified = async |key: &str| {
        let shown = admin::credential(&app.app, key).await.unwrap();
        shown.last_verification.map(|last| (last.at, last.address))
    };
    let expected = ("2025-01-15T12:30:00Z".to_owned(), CALLER);
    assert_eq!(verified(&client.key).await, Some(expected.clone()));
    assert_eq!(verified(&rotated.api_key).await, None);
    assert_eq!(admin::client(&app.app, client.id).await.unwrap().last_used_at, Some(expected.0));
    let stale = async || {
        let wanted = ClientQuery { stale: Some("30m".parse().unwrap()), ..ClientQuery::default() };
        admin::clients(&app.app, wanted).await.unwrap().0.len()
    };
    app.advance(HOUR / 2);
    assert_eq!(stale().await, 0);
    app.advance(1);
    assert_eq!(stale().await, 1);
    let of_one = |key: &str| UsageQuery { api_key: Some(key.into()), ..UsageQuery::default() };
    let used = admin::usage(&app.app, client.id, of_one(&rotated.api_key)).await.unwrap();
    assert_eq!((used.hours.total, used.last_login.is_none()), (counts(0, 0, 0, 0), true));
    let used = admin::usage(&app.app, client.id, of_one(&client.key)).await.unwrap();
    assert_eq!(used.hours.total, counts(1, 0, 1, 0));
    assert!(admin::usage(&app.app, client.id, of_one("rk_none")).await.is_err());
}

#[tokio::test]
async fn what_expires_is_told_of_once_for_each_number_of_days_whoever_restarts() {
    let mut app = TestApp::start().await;
    let client = app.client().await;
    let lasting = |days: &str| NewCredential { expires_in: Some(days.parse().unwrap()) };
    let credential = admin::create_credential(&app.app, client.id, lasting("40d")).await.unwrap();
    admin::create_credential(&app.app, client.id, lasting("12h")).await.unwrap();
    let rotated = admin::create_credential(&app.app, client.id, lasting("40d")).await.unwrap();
    let rotation = Rotation { overlap: Some("39d".parse().unwrap()) };
    admin::rotate_credential(&app.app, &rotated.api_key, rotation).await.unwrap();
    let token = NewManagementToken {
        name: "ci".into(),
        role: Role::Viewer,
        clients: vec![],
        expires_in: Some("40d".parse().unwrap()),
    };
    admin::create_management_token(&app.app, token).await.unwrap();
    let until = NOW + 40 * 86_400;
    let validity = Validity { from: NOW, until };
    for (after, days) in [
        (10 * DAY - 1, None),
        (1, Some("within 30 days")),
        (23 * DAY, Some("within 7 days")),
        (6 * DAY, Some("within 1 day")),
        (DAY - 1, None),
        (HOUR, None),
    ] {
        app.advance(after);
        app.app.certificate_in_force(validity);
        let newest = app.app.store.records(EventFilter::newest(1)).await.unwrap().last;
        app.app.sweep().await.unwrap();
        app.app.sweep().await.unwrap();
        app = app.restart().await;
        app.app.certificate_in_force(validity);
        app.app.sweep().await.unwrap();
        let wanted = EventFilter { after: Some(newest), ..EventFilter::newest(100) };
        let mut told = app.app.store.records(wanted).await.unwrap().records;
        told.retain(|event| event.kind.ends_with("_expiring"));
        let Some(days) = days else {
            assert_eq!(told, []);
            continue;
        };
        let told: Vec<_> = told
            .iter()
            .map(|event| (event.kind.as_str(), event.api_key.as_deref(), event.detail.as_deref().unwrap()))
            .collect();
        let when = format!("{days}, at 2025-02-24T12:00:00Z");
        let of_token = format!("management token 1 (ci): {when}");
        assert_eq!(
            told,
            [
                ("credential_expiring", Some(credential.api_key.as_str()), when.as_str()),
                ("management_token_expiring", None, of_token.as_str()),
                ("certificate_expiring", None, when.as_str()),
            ]
        );
    }
}

#[tokio::test]
async fn the_status_says_how_many_credentials_expire_soon() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let status = async || raw::local(&app.socket(), "GET", "/admin/v1/status", "").await.json();
    assert_eq!(status().await["expiring_credentials"], Value::Null);
    let expiring = NewCredential { expires_in: Some("31d".parse().unwrap()) };
    admin::create_credential(&app.app, client.id, expiring).await.unwrap();
    assert_eq!(status().await["expiring_credentials"], Value::Null);
    app.advance(DAY);
    let expected = json!({"count": 1, "next_at": "2025-02-15T12:00:00Z"});
    assert_eq!(status().await["expiring_credentials"], expected);
}

#[tokio::test]
async fn the_counts_of_many_clients_are_written_in_batches_and_kept_while_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rescind.db");
    let store = Arc::new(Store::open_file(&path, &Random::seeded(1)).unwrap());
    let usage = Arc::new(Usage::new(Clock::manual(5 * model::HOUR)));
    for client in 1..=2500 {
        usage.denied(client, Some(client));
    }
    let hours = Hours { since: 5, until: 6 };
    let denials = async |client| {
        let counted = store.usage_of(client, None, hours).await.unwrap();
        counted.first().map_or(0, |(_, tally)| tally.denials)
    };
    let database = rusqlite::Connection::open(&path).unwrap();
    // The third batch fails.
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON usage WHEN new.client_id = 2001
                  BEGIN SELECT RAISE(FAIL, 'full'); END";
    database.execute_batch(refuse).unwrap();
    usage.write(&store).await;
    assert_eq!((denials(0).await, denials(2000).await, denials(2001).await), (2000, 1, 0));
    database.execute_batch("DROP TRIGGER full").unwrap();
    usage.denied(2500, Some(2500));
    usage.write(&store).await;
    assert_eq!((denials(0).await, denials(2001).await, denials(2500).await), (2501, 1, 2));
}
