//! Secrets appear nowhere: in logs at the finest level, in error bodies, in the store's files, in the audit log, in the
//! metrics.

use std::{
    io,
    sync::{Arc, Mutex},
};

use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use reqwest::Method;
use rescind_admin as admin;
use rescind_base::model::Role;
use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    app::{Client, HOUR, Pair, TestApp},
    dashboard::browser::{Browser, PASSWORD, secret},
    raw,
    reply::Reply,
};

/// The log of all threads.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Logs {
    type Writer = Logs;

    fn make_writer(&'w self) -> Logs {
        self.clone()
    }
}

/// The secrets that must not be found, each with a name.
#[derive(Default)]
struct Secrets(Vec<(&'static str, Vec<u8>)>);

impl Secrets {
    fn text(&mut self, name: &'static str, text: &str) {
        self.0.push((name, text.into()));
    }

    fn pair(&mut self, pair: &Pair) {
        for token in [&pair.access, &pair.refresh] {
            self.text("a token", token);
            self.text("a token's signature", token.rsplit('.').next().unwrap());
        }
    }

    /// Adds bytes, in every encoding in which a text may contain them.
    fn bytes(&mut self, name: &'static str, bytes: &[u8]) {
        self.0.push((name, bytes.into()));
        for text in [
            HEXLOWER.encode(bytes),
            HEXUPPER.encode(bytes),
            BASE32_NOPAD.encode(bytes),
            BASE64.encode(bytes),
            BASE64URL_NOPAD.encode(bytes),
            format!("{bytes:?}"),
        ] {
            self.text(name, &text);
        }
    }

    fn assert_absent(&self, place: &str, haystack: &[u8]) {
        for (name, needle) in &self.0 {
            let found = haystack.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{name} is in {place}");
        }
    }
}

// check 74, 79, CVE-2024-8365: tokens in logs
#[tokio::test]
async fn no_secret_is_logged_told_or_stored() {
    let logs = Logs::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false);
    subscriber.with_writer(logs.clone()).try_init().unwrap();

    let mut secrets = Secrets::default();
    let mut errors = Vec::new();
    let app = TestApp::behind_proxy().await;
    let client = live(&app, &mut secrets, &mut errors).await;
    dashboard(&app, &client, &mut secrets).await;
    let app = app.restart().await;
    fail(&app, &client, &mut secrets, &mut errors).await;
    let (audit, metrics) = (audit(&app).await, metrics(&app).await);
    let denials = raw::local(&app.socket(), "GET", "/admin/v1/denials?limit=1000", "").await.body;

    secrets.text("the master key", &app.app.memory.master.to_text());
    let loaded = app.app.store.load().await.unwrap();
    for (name, sealed) in &loaded.secrets {
        secrets.bytes("a pepper", &*app.app.memory.master.open(name, sealed).unwrap());
    }
    for key in &loaded.keys {
        let name = format!("signing key {}", key.kid);
        secrets.bytes("a signing key", &*app.app.memory.master.open(&name, &key.sealed).unwrap());
    }

    let mut files = Vec::new();
    let store = app.app.folder().store();
    for file in [store.clone(), store.with_extension("db-wal")] {
        files.extend(std::fs::read(file).unwrap());
    }
    assert!(files.windows(client.key.len()).any(|window| window == client.key.as_bytes()));
    secrets.assert_absent("the store's files", &files);

    for kind in [
        "client_created",
        "credential_created",
        "refresh_token_reused",
        "leak_reported",
        "throttled",
        "address_denied",
    ] {
        assert!(audit.contains(kind), "{kind} is not on record");
    }
    secrets.assert_absent("the audit log", audit.as_bytes());
    for reason in
        ["malformed", "invalid_credentials", "address_not_allowed", "revoked", "refresh_token_reused"]
    {
        assert!(denials.contains(&format!("\"reason\":\"{reason}\"")), "{reason} is not kept");
    }
    secrets.assert_absent("the denials", denials.as_bytes());
    assert!(metrics.contains("rescind_clients"));
    secrets.assert_absent("the metrics", metrics.as_bytes());

    assert!(errors.len() > 10);
    secrets.assert_absent("an error's body", errors.join("\n").as_bytes());

    // Logs need not hide the secret's hash from who reads the store, but do.
    for credential in app.stored(&client).await.credentials {
        secrets.bytes("a secret's hash", &credential.secret_hash.bytes);
    }
    let logs = std::mem::take(&mut *logs.0.lock().unwrap());
    let text = String::from_utf8(logs).unwrap();
    for logged in [
        "login",
        "refresh",
        "logout",
        "leaked",
        "client created",
        "signing key rotated",
        "answered",
        "refused",
    ] {
        assert!(text.contains(logged), "{logged} was not logged");
    }
    secrets.assert_absent("the logs", text.as_bytes());
}

/// Uses a client in every way that succeeds.
async fn live(app: &TestApp, secrets: &mut Secrets, errors: &mut Vec<String>) -> Client {
    let created = local(app, "/clients", json!({"name": "a", "allow": ["127.0.0.1"]})).await;
    let text = |json: &Value, name: &str| json[name].as_str().unwrap().to_owned();
    let client = Client { id: 1, key: text(&created, "api_key"), secret: text(&created, "api_secret") };
    secrets.text("an API secret", &client.secret);
    let rotated = local(app, &format!("/credentials/{}/rotate", client.key), json!({})).await;
    secrets.text("a rotated API secret", &text(&rotated, "api_secret"));
    local(app, "/keys/rotate", json!({})).await;

    let first = app.grant(&client).await;
    let second = app.renew(&first).await;
    let inspected = local(app, "/tokens/inspect", json!({"token": second.refresh})).await;
    assert_eq!(inspected["stands"], true);
    errors.push(app.refresh(&first.refresh).await.body);
    app.logout(&second.access).await.is_logged_out();
    errors.push(app.logout(&second.access).await.body);
    errors.push(app.refresh(&second.refresh).await.body);
    secrets.pair(&first);
    secrets.pair(&second);

    let leaked = Client { id: 1, key: text(&rotated, "api_key"), secret: text(&rotated, "api_secret") };
    let third = app.grant(&leaked).await;
    secrets.pair(&third);
    for found in [&third.refresh, &leaked.secret] {
        let reported = app.post("/auth/leaked").json(&json!({ "token": found }));
        assert_eq!(app.send(reported).await.status, 200);
    }
    client
}

/// Uses the dashboard.
async fn dashboard(app: &TestApp, client: &Client, secrets: &mut Secrets) {
    let new = admin::NewAdministrator { name: "alice".into(), role: Role::Admin };
    let link = admin::create_administrator(&app.app, new).await.unwrap().link;
    let browser = Browser::of(app);
    let page = browser.get(&link).await;
    let authenticator = secret(&page);
    assert_eq!(browser.enrol_by(&page, None).await.status, 200);
    let path = "/dashboard/do/handOverSecret";
    let rotated = format!("/dashboard/do/rotateCredential/{}", client.key);
    // The first one was rotated already.
    browser.post(&rotated, &[]).await.is_refused(400, "was rotated");
    let page = browser.post(path, &[("api_key", &client.key), ("api_secret", &client.secret)]).await;
    let handover = page.find("(/dashboard/handover/rh_[a-z2-7]+)");
    browser.get(&handover).await.has("It can be read once");
    let wrong = [("name", "alice"), ("password", "a wrong password"), ("code", "000000")];
    browser.post("/dashboard/sign-in", &wrong).await.is_refused(401, "is wrong");
    for (name, text) in [
        ("an enrolment's link", link.as_str()),
        ("a handover's link", &handover),
        ("a sign-in's cookie", &browser.cookies.borrow()["__Host-rescind"]),
        ("a password", PASSWORD),
        ("a wrong password", "a wrong password"),
    ] {
        secrets.text(name, text.rsplit('/').next().unwrap());
    }
    secrets.bytes("an authenticator's secret", &BASE32_NOPAD.decode(authenticator.as_bytes()).unwrap());
}

/// Uses a client in ways that fail.
async fn fail(app: &TestApp, client: &Client, secrets: &mut Secrets, errors: &mut Vec<String>) {
    let pair = app.grant(client).await;
    secrets.pair(&pair);
    let (key, secret, access, refresh) = (&client.key, &client.secret, &pair.access, &pair.refresh);
    let wrong = Client { secret: secret.replace("rs_", "rs_a"), ..client.clone() };
    secrets.text("a wrong API secret", &wrong.secret);
    let mut failed = |reply: Reply| {
        assert!(reply.status >= 400, "{reply:?}");
        errors.push(reply.body);
    };

    for _ in 0..40 {
        failed(app.at("192.0.2.2").login(&wrong).await);
    }
    failed(app.login(&wrong).await);
    failed(app.at("192.0.2.1").login(client).await);
    for body in [
        json!({"username": secret, "password": key}),
        json!({"username": key, "password": [secret]}),
        json!({"username": {"password": secret}}),
        json!([key, secret]),
    ] {
        failed(app.send(app.post("/auth/login").json(&body)).await);
    }
    let json = |path: &str| app.post(path).header("content-type", "application/json");
    let twice = format!(r#"{{"username":"{key}","password":"{secret}","password":"{secret}"}}"#);
    failed(app.send(json("/auth/login").body(twice)).await);
    failed(
        app.send(json("/auth/login").body(format!("{{\"username\":\"{key}\",\"password\":{secret}"))).await,
    );
    failed(app.send(app.post("/auth/login").body(format!("username={key}&password={secret}"))).await);
    failed(app.send(app.post("/auth/refresh").json(&json!({"refresh_token": [refresh]}))).await);
    failed(app.send(json("/auth/refresh").body(refresh.clone())).await);
    failed(app.refresh(access).await);
    failed(app.refresh(&refresh[..refresh.len() - 1]).await);
    failed(app.logout(refresh).await);
    failed(app.verify(&format!("{access}, {access}")).await);
    failed(app.at("192.0.2.1").verify(access).await);
    failed(app.at("192.0.2.1").logout(access).await);
    // A proxy, and callers, may put a secret into every place that a denial shows.
    for text in [access, secret] {
        failed(app.at(&format!("{text}, 192.0.2.1")).verify(access).await);
        failed(app.at(text).verify(access).await);
        failed(
            app.send(app.request(Method::GET, &format!("/verify?scope={text}")).bearer_auth(access)).await,
        );
        failed(app.send(app.request(Method::GET, &format!("/verify?aud={text}")).bearer_auth(access)).await);
        let forwarded = app.request(Method::GET, &format!("/verify/{text}?{text}"));
        let forwarded = forwarded.header("x-forwarded-host", text).header("x-forwarded-method", text);
        failed(app.send(forwarded.bearer_auth(access).header("x-forwarded-for", "192.0.2.1")).await);
        failed(app.send(app.request(Method::GET, &format!("/verify?path=/{text}/{text}"))).await);
        failed(
            app.send(app.request(Method::GET, "/verify").header("x-forwarded-uri", format!("/{text}"))).await,
        );
    }
    failed(app.send(app.post(&format!("/auth/logout?access_token={access}"))).await);
    failed(app.send(app.post("/auth/logout").header("authorization", format!("Basic {secret}"))).await);
    let request = format!("GET /verify HTTP/1.1\r\nAuthorization : Bearer {access}\r\n\r\n");
    failed(raw::answer(app.address, request).await);
    let bad = json!({"token": {"access": access}}).to_string();
    failed(raw::local(&app.socket(), "POST", "/admin/v1/tokens/inspect", &bad).await);

    let store = rusqlite::Connection::open(app.app.folder().store()).unwrap();
    store.execute_batch("ALTER TABLE session RENAME TO gone").unwrap();
    failed(app.login(client).await);
    failed(app.refresh(refresh).await);
    store.execute_batch("ALTER TABLE gone RENAME TO session").unwrap();
    admin::suspend(&app.app, client.id, Default::default()).await.unwrap();
    failed(app.login(client).await);
    failed(app.verify(access).await);
    app.advance(HOUR);
    failed(app.verify(access).await);
}

/// The whole audit log.
async fn audit(app: &TestApp) -> String {
    app.app.audit.write(&app.app.store).await;
    let reply = raw::local(&app.socket(), "GET", "/admin/v1/audit?after=0&limit=1000", "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body
}

async fn metrics(app: &TestApp) -> String {
    reqwest::get(format!("http://{}/metrics", app.management)).await.unwrap().text().await.unwrap()
}

async fn local(app: &TestApp, path: &str, body: Value) -> Value {
    let reply = raw::local(&app.socket(), "POST", &format!("/admin/v1{path}"), &body.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}
