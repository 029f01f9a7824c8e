//! The metrics, as an operator sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex},
};

use reqwest::Method;
use rescind_admin::{self as admin, KeyRotation, NewVerifier};

use crate::{
    app::{Client, HOUR, Pair, TestApp, trust_proxy},
    oauth::{Who, introspect, introspector, issue},
    outage::store,
    raw,
};

const DOCUMENTED: &str = include_str!("../../../../docs/metrics.md");
pub(crate) const MINUTE: i64 = 60;

/// Every sample, by its name and labels.
pub(crate) struct Samples {
    pub(crate) text: String,
    pub(crate) values: BTreeMap<String, f64>,
}

/// The media type and the text that are answered to who accepts this.
pub(crate) async fn scrape(app: &TestApp, accept: &str) -> (String, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.get(format!("http://{}/metrics", app.management)).header("accept", accept);
    let response = request.send().await.unwrap();
    (response.headers()["content-type"].to_str().unwrap().to_owned(), response.text().await.unwrap())
}

impl Samples {
    pub(crate) async fn of(app: &TestApp) -> Samples {
        let (kind, text) = scrape(app, "application/openmetrics-text;version=1.0.0").await;
        assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(text.ends_with("# EOF\n"), "{text}");
        Samples::read(text)
    }

    pub(crate) fn read(text: String) -> Samples {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let values = samples.map(|line| line.rsplit_once(' ').unwrap());
        let values: BTreeMap<_, _> = values.map(|(name, n)| (name.to_owned(), n.parse().unwrap())).collect();
        Samples { text, values }
    }

    /// One sample. Its labels are in the order of their names.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> f64 {
        *self.values.get(name).unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    /// The samples other than 0 of a metric with one label, by the label's value.
    fn by_label(&self, metric: &str) -> BTreeMap<&str, f64> {
        let labelled = self.values.iter().filter(|(_, value)| **value != 0.0).filter_map(|(name, value)| {
            let (_, label) =
                name.strip_prefix(metric)?.strip_prefix('{')?.strip_suffix("\"}")?.split_once("=\"")?;
            Some((label, *value))
        });
        labelled.collect()
    }

    fn requests(&self, route: &str, status: &str) -> f64 {
        self.get(&format!("rescind_requests_total{{route=\"{route}\",status=\"{status}\"}}"))
    }
}

/// The names in queries: a counter's name ends in `_total`.
fn names(lines: impl Iterator<Item = (&'static str, &'static str)>) -> BTreeSet<String> {
    lines.map(|(name, kind)| format!("{name} {kind}")).collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_there() {
    let app = TestApp::start().await;
    let samples = Samples::of(&app).await;
    let text: &'static str = samples.text.leak();
    let told =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).map(|(name, kind)| {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (&*format!("{name}{suffix}").leak(), kind)
        });
    // What only a node has is looked for where there are nodes: process::cluster.
    let (of_one, of_a_cluster) = DOCUMENTED.split_once("## In a cluster").unwrap();
    let rows = |text: &'static str| {
        let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        names(cells.map(|(name, rest)| (name, rest.split(' ').next().unwrap())))
    };
    assert_eq!(names(told), rows(of_one));
    assert!(rows(of_a_cluster).contains("rescind_lease_seconds gauge"));
    // Every word that a label has is explained.
    for (name, _) in
        samples.values.iter().filter(|(name, _)| !name.contains("le=\"") && !name.contains("build"))
    {
        for word in name.split('"').skip(1).step_by(2) {
            assert!(of_one.contains(&format!("`{word}`")), "{word} of {name}");
        }
    }
}

#[tokio::test]
async fn every_request_is_counted_where_it_was_asked() {
    let app = TestApp::start().await;
    let before = Samples::of(&app).await;
    let asked = |name: &str| name.contains("requests") && !name.contains("under_way");
    assert!(before.values.iter().all(|(name, value)| !asked(name) || *value == 0.0));
    let client = introspector(&app).await;
    let pair = app.grant(&client).await;
    let pair = app.renew(&pair).await;
    for path in ["/verify", "/verify/", "/verify/any/thing?scope=introspect"] {
        app.send(app.request(Method::GET, path).bearer_auth(&pair.access)).await;
    }
    issue(&app, &client, None).await;
    introspect(&app, Who::Basic(&client), &pair.access).await;
    crate::oauth::revoke(&app, &client, "x").await;
    app.send(app.request(Method::GET, "/.well-known/jwks.json")).await;
    for path in ["/metrics", "/\"}bad_label{\"", "/verifyx", "/auth/login/"] {
        raw::answer(app.address, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
            .await;
    }
    app.send(app.request(Method::GET, "/auth/login")).await.is_error(405, "Method not allowed on this path");
    app.logout(&pair.access).await.is_logged_out();
    raw::local(&app.socket(), "GET", "/admin/v1/clients", "").await;

    let after = Samples::of(&app).await;
    for (route, answers) in [
        ("verify", [3.0, 0.0, 0.0]),
        ("login", [1.0, 1.0, 0.0]),
        ("refresh", [1.0, 0.0, 0.0]),
        ("logout", [1.0, 0.0, 0.0]),
        ("token", [1.0, 0.0, 0.0]),
        ("introspect", [1.0, 0.0, 0.0]),
        ("revoke", [1.0, 0.0, 0.0]),
        ("authorize", [0.0, 0.0, 0.0]),
        ("metadata", [1.0, 0.0, 0.0]),
        ("feed", [0.0, 0.0, 0.0]),
        ("admin", [1.0, 0.0, 0.0]),
        ("dashboard", [0.0, 0.0, 0.0]),
        ("probe", [1.0, 0.0, 0.0]),
        ("other", [0.0, 4.0, 0.0]),
    ] {
        assert_eq!(["2xx", "4xx", "5xx"].map(|status| after.requests(route, status)), answers, "{route}");
        let timed = after.get(&format!("rescind_request_duration_seconds_count{{route=\"{route}\"}}"));
        assert_eq!(timed, answers.iter().sum::<f64>(), "{route}");
    }
    assert!(!after.text.contains("bad_label"));
}

#[tokio::test]
async fn a_refused_token_is_counted_by_the_reason() {
    let app = TestApp::with(trust_proxy).await;
    let client = app.client_allowed(&["203.0.113.0/24"]).await;
    let home = app.at("203.0.113.7");
    let pair = home.login(&client).await.pair();
    let denied = async || Samples::of(&app).await;
    let verify = async |query: &str, token: &str| {
        let request = app.request(Method::GET, &format!("/verify{query}")).bearer_auth(token);
        app.send(request.header(crate::app::FORWARDED_FOR, "203.0.113.7")).await.status
    };
    assert_eq!(verify("", &pair.access).await, 200);
    assert!(denied().await.by_label("rescind_denials_total").is_empty());

    assert_eq!(verify("", "x").await, 401);
    assert_eq!(verify("", &pair.refresh).await, 401);
    assert_eq!(verify("", &pair.access[..pair.access.len() - 1]).await, 401);
    assert_eq!(verify("?scope=orders:read", &pair.access).await, 403);
    assert_eq!(verify("?scope=%22", &pair.access).await, 403);
    assert_eq!(verify("?aud=other", &pair.access).await, 401);
    app.at("192.0.2.1").verify(&pair.access).await.is_error(403, "IP address not authorized");
    home.logout(&pair.access).await.is_logged_out();
    for _ in 0..2 {
        home.logout(&pair.access).await.is_error(401, "Invalid token");
    }
    app.advance(HOUR);
    assert_eq!(verify("", &pair.access).await, 401);
    let samples = denied().await;
    let mut expected = BTreeMap::from([
        ("wrong_kind", 1.0),
        ("scope_missing", 2.0),
        ("wrong_audience", 1.0),
        ("address_not_allowed", 1.0),
        ("revoked", 2.0),
        ("expired", 1.0),
    ]);
    // A token cut short is malformed or badly signed, by where its last character ends.
    let mut counted = samples.by_label("rescind_denials_total");
    let broken: f64 =
        ["malformed", "bad_signature", "unknown_key"].iter().filter_map(|r| counted.remove(r)).sum();
    assert_eq!((broken, &mut counted), (2.0, &mut expected));
}

#[tokio::test]
async fn logins_and_refreshes_are_counted_by_what_became_of_them() {
    let app = TestApp::with(|config| {
        trust_proxy(config);
        config.limits.failed_logins_per_minute = 2;
        config.limits.logins_per_minute = 3;
        config.limits.refreshes_per_minute = 2;
    })
    .await;
    let client = app.client_allowed(&["203.0.113.0/24"]).await;
    let home = app.at("203.0.113.7");
    let first = home.login(&client).await.pair();
    issue(&app, &client, None).await.is_oauth_error(400, "unauthorized_client");
    let guess = Client { secret: "rs_guess".into(), ..client.clone() };
    for _ in 0..3 {
        home.login(&guess).await;
    }
    app.at("192.0.2.1").login(&client).await.is_error(403, "IP address not authorized");
    home.login(&client).await.pair();
    home.login(&client).await.pair();
    assert_eq!(home.login(&client).await.status, 429);

    let second = home.refresh(&first.refresh).await.pair();
    let third = home.refresh(&second.refresh).await.pair();
    assert_eq!(home.refresh(&third.refresh).await.status, 429);
    home.refresh(&first.refresh).await.is_error(401, "Invalid token");
    home.refresh(&third.refresh).await.is_error(401, "Invalid token");
    app.at("192.0.2.1").refresh("x").await.is_error(401, "Invalid token");
    store(&app).execute_batch("ALTER TABLE session RENAME TO gone").unwrap();
    app.advance(MINUTE);
    assert_eq!(home.login(&client).await.status, 503);
    assert_eq!(home.refresh(&third.refresh).await.status, 503);
    store(&app).execute_batch("ALTER TABLE gone RENAME TO session").unwrap();

    let samples = Samples::of(&app).await;
    let logins = BTreeMap::from([
        ("granted", 3.0),
        ("invalid", 2.0),
        ("throttled", 1.0),
        ("address_not_allowed", 2.0),
        ("over_quota", 1.0),
        ("unavailable", 1.0),
    ]);
    assert_eq!(samples.by_label("rescind_logins_total"), logins);
    let refreshes = BTreeMap::from([
        ("granted", 2.0),
        ("over_quota", 1.0),
        ("reused", 1.0),
        ("invalid", 2.0),
        ("unavailable", 1.0),
    ]);
    assert_eq!(samples.by_label("rescind_refreshes_total"), refreshes);
    assert_eq!(samples.requests("login", "5xx"), 1.0);
}

#[tokio::test]
async fn commits_revocations_look_ups_and_connections_are_measured() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let before = Samples::of(&app).await;
    let pair = app.grant(&client).await;
    let app = {
        app.logout(&app.grant(&client).await.access).await.is_logged_out();
        let after = Samples::of(&app).await;
        let grown = |name: &str| after.get(name) - before.get(name);
        // Two logins and a logout, one after the other, and what the server does by itself.
        assert!(grown("rescind_store_commit_duration_seconds_count") >= 3.0);
        assert!(grown("rescind_store_commit_changes_sum") >= 3.0);
        assert!(grown("rescind_store_commit_duration_seconds_sum") > 0.0);
        assert_eq!(grown("rescind_revocation_settle_seconds_count"), 1.0);
        assert_eq!(grown("rescind_verification_lookups_total"), 0.0);
        assert_eq!(after.get("rescind_clients"), 1.0);
        assert_eq!(after.get("rescind_credentials"), 1.0);
        assert_eq!(after.get("rescind_sessions_in_memory"), 2.0);
        assert!(after.get("rescind_connections{listener=\"public\"}") >= 1.0);
        assert!(after.get("rescind_connections{listener=\"management\"}") >= 1.0);
        assert_eq!(after.get("rescind_connections{listener=\"local\"}"), 0.0);
        app.restart().await
    };
    // A session that memory does not know is looked up once.
    let live = app.grant(&client).await;
    let app = app.restart().await;
    assert!(
        !app.stands(&pair.access).await && app.stands(&live.access).await && app.stands(&live.access).await
    );
    assert_eq!(Samples::of(&app).await.get("rescind_verification_lookups_total"), 1.0);
    // Two were logged out.
    app.app.sweep().await.unwrap();
    assert_eq!(Samples::of(&app).await.get("rescind_sessions_live"), 1.0);
}

/// The log of this test's thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends a client's ten minutes. Returns how often clients have been flagged since the start, and what is logged now.
async fn judged(app: &TestApp) -> (f64, String) {
    app.advance(10 * MINUTE);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let logging = tracing::subscriber::set_default(subscriber);
    app.app.sweep().await.unwrap();
    drop(logging);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (Samples::of(app).await.get("rescind_tokens_not_cached_total"), log)
}

/// Logs in before each request.
async fn log_in_for_each(app: &TestApp, client: &Client, requests: usize) -> Pair {
    let mut pair = app.grant(client).await;
    for _ in 1..requests {
        assert!(app.stands(&pair.access).await);
        pair = app.grant(client).await;
    }
    pair
}

#[tokio::test]
async fn a_client_that_logs_in_for_every_request_is_flagged_once_an_hour() {
    let app = TestApp::start().await;
    let (wasteful, thrifty) = (app.client().await, app.client().await);
    log_in_for_each(&app, &wasteful, 60).await;
    // As many logins, but of processes that use what they have got.
    for _ in 0..60 {
        let pair = app.grant(&thrifty).await;
        for _ in 0..3 {
            assert!(app.stands(&pair.access).await);
        }
    }
    let (flagged, log) = judged(&app).await;
    assert_eq!(flagged, 1.0);
    let told = format!("it seems not to cache its tokens client={}", wasteful.id);
    assert!(log.contains("WARN") && log.contains(&format!("{told} logins=60 verifications=59")), "{log}");
    assert_eq!(log.matches("cache its tokens").count(), 1, "{log}");

    // It goes on, and is flagged again after an hour.
    for flagged in [1.0, 1.0, 1.0, 1.0, 1.0, 2.0] {
        log_in_for_each(&app, &wasteful, 60).await;
        assert_eq!(judged(&app).await.0, flagged);
    }
    // One login less would not have been enough.
    app.advance(HOUR);
    log_in_for_each(&app, &wasteful, 59).await;
    assert_eq!(judged(&app).await, (2.0, String::new()));
}

// An API that asks introspection may keep the answer, so it asks once for a token that is used a hundred times.
#[tokio::test]
async fn a_client_of_many_processes_whose_api_keeps_answers_is_not_flagged() {
    let app = TestApp::start().await;
    let (client, api) = (app.client().await, introspector(&app).await);
    let log_in = async |processes: usize| {
        for _ in 0..processes {
            let pair = app.grant(&client).await;
            let told = introspect(&app, Who::Basic(&api), &pair.access).await.json();
            assert_eq!(told["active"], true);
        }
    };
    log_in(62).await;
    assert_eq!(judged(&app).await.0, 0.0);
    // What this process sees itself still tells.
    log_in(1).await;
    log_in_for_each(&app, &client, 60).await;
    assert_eq!(judged(&app).await.0, 1.0);
}

#[tokio::test]
async fn a_client_whose_tokens_may_be_used_elsewhere_is_not_flagged_for_what_is_not_seen_here() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let unused = async |flagged: f64| {
        for _ in 0..100 {
            app.grant(&client).await;
        }
        assert_eq!(judged(&app).await.0, flagged);
        app.advance(HOUR);
    };
    // Nobody else could verify.
    unused(1.0).await;
    let new = NewVerifier { name: "api".into(), share_hs256: true };
    let verifier = admin::create_verifier(&app.app, new).await.unwrap().verifier_id;
    unused(1.0).await;
    // Tokens that are used here once each tell all the same.
    log_in_for_each(&app, &client, 100).await;
    assert_eq!(judged(&app).await.0, 2.0);
    app.advance(HOUR);
    admin::revoke_verifier(&app.app, verifier).await.unwrap();
    unused(3.0).await;
    let public = KeyRotation { algorithm: Some("ES256".into()), ..KeyRotation::default() };
    admin::rotate_key(&app.app, public).await.unwrap();
    unused(3.0).await;
}
