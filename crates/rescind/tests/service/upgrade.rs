//! The upgrade of a store of the version before refresh keys.
//!
//! `fixture/store-3` is such a store after some use: clients, credentials, verifiers, keys, sessions in every state, and
//! a list of the issued secrets and tokens. `postgres.sql` is the same store, moved to PostgreSQL.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use data_encoding::BASE64URL_NOPAD;
use rescind_admin::{self as admin, KeyRotation};
use rescind_base::model::{EventFilter, EventKind, SigningKeyRecord};
use serde_json::{Value, json};

use crate::{
    app::{Client, HOUR, Pair, TestApp},
    fixture::{Server, connect},
    follow::{feed::Stream, until},
    oauth::{INTROSPECTION, Who, ask, introspect, revoke},
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture/store-3");

/// The issued secrets and tokens.
struct Given(Value);

impl Given {
    fn read() -> Given {
        Given(serde_json::from_slice(&fs::read(Path::new(FOLDER).join("tokens.json")).unwrap()).unwrap())
    }

    fn now(&self) -> u64 {
        self.0["now"].as_u64().unwrap()
    }

    fn text(&self, path: &str) -> &str {
        self.0.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path}"))
    }

    fn client(&self, name: &str) -> Client {
        let text = |field: &str| self.text(&format!("/clients/{name}/{field}")).to_owned();
        let id = self.0["clients"][name]["client_id"].as_u64().unwrap();
        Client { id, key: text("api_key"), secret: text("api_secret") }
    }

    fn credential(&self, name: &str) -> Client {
        let text = |field: &str| self.text(&format!("/credentials/{name}/{field}")).to_owned();
        Client { key: text("api_key"), secret: text("api_secret"), ..self.client("plain") }
    }

    fn access(&self, pair: &str) -> &str {
        self.text(&format!("/pairs/{pair}/access"))
    }

    fn refresh(&self, pair: &str) -> &str {
        self.text(&format!("/pairs/{pair}/refresh"))
    }
}

/// Copies files of the fixture into the data folder of a new folder.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    for file in files {
        let to = data.join(file);
        fs::copy(Path::new(FOLDER).join(file), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder
}

fn json_of(segment: &str) -> Value {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(segment.as_bytes()).unwrap()).unwrap()
}

/// Decodes a token's header and payload.
fn read(token: &str) -> (Value, Value) {
    let segments: Vec<&str> = token.split('.').collect();
    (json_of(segments[0]), json_of(segments[1]))
}

/// Asserts that the refresh token is signed with the refresh key of `key`.
#[track_caller]
fn is_of_a_refresh_key(pair: &Pair, key: &SigningKeyRecord) {
    let (header, claims) = read(&pair.refresh);
    assert_eq!(header, json!({"alg": "HS256", "typ": "rt+jwt", "kid": key.kid}));
    assert_eq!(claims["aud"], "http://127.0.0.1:8080/auth/refresh");
}

/// Asserts that the refresh token is signed with `key` itself, as by the version before.
#[track_caller]
fn is_of_the_key_itself(pair: &Pair, key: &SigningKeyRecord) {
    let (header, claims) = read(&pair.refresh);
    assert_eq!(header, json!({"alg": key.algorithm.name(), "typ": "rt+jwt", "kid": key.kid}));
    assert_eq!(claims["aud"], "http://127.0.0.1:8080");
}

async fn keys(app: &TestApp) -> Vec<SigningKeyRecord> {
    app.app.store.keys().await.unwrap()
}

/// Asserts that every token that was valid still is, and that every revoked one is still revoked.
async fn lives_on(app: &TestApp, given: &Given) {
    let mut standing = vec![given.text("/client_credentials")];
    standing.extend(
        [
            "hs256",
            "refreshed",
            "refreshed_before",
            "reused",
            "expiring_credential",
            "eddsa",
            "allowlisted",
            "logged_in_again",
        ]
        .map(|pair| given.access(pair)),
    );
    for token in standing {
        assert_eq!(app.verify(token).await.status, 200, "{token}");
    }
    for pair in ["revoked_session", "revoked_credential", "suspended", "logged_out"] {
        assert!(!app.stands(given.access(pair)).await, "{pair}");
        app.refresh(given.refresh(pair)).await.is_error(401, "Invalid token");
    }
    app.refresh(given.refresh("reused")).await.is_error(401, "Invalid token");
    for name in ["plain", "allowlisted", "logged_out", "gateway"] {
        app.grant(&given.client(name)).await;
    }
    app.grant(&given.credential("expiring")).await;
    for gone in [given.client("suspended"), given.credential("revoked")] {
        app.login(&gone).await.is_error(401, "Invalid credentials");
    }

    // A pair of a key from before is still written as it was, byte for byte.
    for pair in ["hs256", "refreshed", "eddsa", "allowlisted", "logged_in_again"] {
        let session = read(given.access(pair)).1["sid"].as_str().unwrap().parse().unwrap();
        let written = app.pair_of(&app.session(session).await);
        assert_eq!(
            (written.access_token.as_str(), written.refresh_token.as_str()),
            (given.access(pair), given.refresh(pair))
        );
        let inspected = admin::inspect(&app.app, given.refresh(pair)).await.unwrap();
        assert_eq!((inspected.verdict.as_str(), inspected.kind.as_deref()), ("stands", Some("refresh")));
    }

    // What opens nothing has stopped opening something, whenever it was issued.
    let gateway = given.client("gateway");
    for pair in ["hs256", "eddsa"] {
        introspect(app, Who::Basic(&gateway), given.refresh(pair)).await.is_inactive();
        assert_eq!(app.verify(given.refresh(pair)).await.status, 401);
        assert_eq!(introspect(app, Who::Basic(&gateway), given.access(pair)).await.json()["active"], true);
    }
    introspect(app, Who::Basic(&gateway), given.access("allowlisted")).await.is_inactive();
    for (address, active) in [("203.0.113.7", true), ("2001:db8::1", true), ("198.51.100.1", false)] {
        let parameters = [("token", given.access("allowlisted")), ("client_ip", address)];
        let told = ask(app, INTROSPECTION, Who::Basic(&gateway), &parameters).await.json();
        assert_eq!(told["active"], active, "{address}");
    }

    // Verifiers follow, and have the keys that they had.
    let kids = given.0["keys"].as_array().unwrap();
    for (verifier, shared) in [("sharing", true), ("other", false)] {
        let token = given.text(&format!("/verifiers/{verifier}"));
        let mut stream = Stream::open(app, token, None).await;
        stream.snapshot().await;
        let sent = String::from_utf8_lossy(&stream.bytes).into_owned();
        assert!(sent.contains(kids[1].as_str().unwrap()));
        assert_eq!(sent.contains(kids[0].as_str().unwrap()), shared);
    }

    let wanted = EventFilter { after: Some(0), ..EventFilter::newest(1000) };
    let records = app.app.store.records(wanted).await.unwrap().records;
    let before = given.0["audit_rows"].as_u64().unwrap();
    let ids: Vec<_> = records.iter().map(|record| record.id).take_while(|id| *id <= before).collect();
    assert_eq!(ids, Vec::from_iter(1..=before));
    let reuse = records.iter().find(|record| record.kind == EventKind::RefreshTokenReused.name()).unwrap();
    assert_eq!((reuse.client, reuse.session), (Some(1), Some(3)));
}

/// Asserts that refresh tokens of the version before are valid until they expire, and are traded for new ones.
async fn old_tokens_are_traded_for_new(app: &TestApp, given: &Given, key: &SigningKeyRecord) {
    for pair in ["hs256", "refreshed", "expiring_credential", "eddsa", "allowlisted", "logged_in_again"] {
        let renewed = app.refresh(given.refresh(pair)).await.pair();
        is_of_a_refresh_key(&renewed, key);
        is_of_a_refresh_key(&app.renew(&renewed).await, key);
        // Used once, it was used.
        app.refresh(given.refresh(pair)).await.is_error(401, "Invalid token");
    }
}

// check 92
#[tokio::test]
async fn an_embedded_store_from_before_lives_on() {
    let given = Given::read();
    let app = TestApp::on(folder(&["rescind.db", "master.key"]), given.now(), |_| {}).await;
    // Of the same algorithm, and in the key set before it signs.
    let keys = keys(&app).await;
    let [first, second, third] = keys.as_slice() else { panic!("{keys:?}") };
    assert!(first.refresh_sealed.is_none() && second.refresh_sealed.is_none());
    assert!(third.refresh_sealed.is_some());
    assert_eq!((third.algorithm, third.signs_from), (second.algorithm, given.now() + 600));
    assert_eq!(second.retire_at, Some(third.signs_from + 7 * 24 * 3600));
    assert_eq!(app.app.memory.issuer.keyring().public_keys().count(), 2);

    lives_on(&app, &given).await;
    let before = app.grant(&given.client("plain")).await;
    is_of_the_key_itself(&before, second);
    app.advance(600);
    is_of_a_refresh_key(&app.grant(&given.client("plain")).await, third);
    old_tokens_are_traded_for_new(&app, &given, third).await;
    // That of the key's last second lives for as long as it was given.
    app.advance(7 * 24 * HOUR - 601);
    app.app.sweep().await.unwrap();
    is_of_a_refresh_key(&app.renew(&before).await, third);

    // It happens once.
    let app = app.restart().await;
    assert_eq!(app.app.store.keys().await.unwrap().last().unwrap().kid, third.kid);
}

// check 92
#[tokio::test]
async fn an_hs256_key_from_before_is_followed_at_once() {
    let app = TestApp::start().await;
    let client = app.client().await;
    crate::outage::store(&app).execute_batch("UPDATE signing_key SET refresh_sealed = NULL").unwrap();
    let app = app.restart().await;
    let keys = keys(&app).await;
    assert_eq!((keys.len(), keys[0].algorithm, keys[1].algorithm), (2, keys[1].algorithm, keys[0].algorithm));
    is_of_a_refresh_key(&app.grant(&client).await, &keys[1]);
}

// Old verifiers cannot read the new claims, and only an operator knows whether there are any.
#[tokio::test]
async fn a_key_from_before_writes_tokens_as_before_until_an_operator_rotates_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    crate::outage::store(&app).execute_batch("UPDATE signing_key SET rfc9068 = 0").unwrap();
    let app = app.restart().await;
    let names = |token: &str| read(token).1.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let before = app.grant(&client).await;
    let of_before = ["aud", "cred", "exp", "gen", "iat", "iss", "pair", "sid", "sub"];
    assert_eq!(names(&before.access), of_before);

    admin::rotate_key(&app.app, KeyRotation::default()).await.unwrap();
    let after = app.grant(&client).await;
    let added = ["aud", "client_id", "cred", "exp", "gen", "iat", "iss", "jti", "pair", "sid", "sub"];
    assert_eq!(
        (names(&after.access), names(&after.refresh)),
        (added.map(str::to_owned).into(), of_before.map(str::to_owned).into())
    );
    // Both are good until they expire, and a session goes on with the newest key.
    assert!(app.stands(&before.access).await && app.stands(&after.access).await);
    assert_eq!(names(&app.renew(&before).await.access), added);
    assert!(app.stands(&before.access).await);
}

/// A service on the old store, in a PostgreSQL database of its own.
async fn on_postgres(given: &Given, more: &str) -> (TestApp, tokio_postgres::Client) {
    let url = Server::shared().database().await;
    let dump = fs::read_to_string(Path::new(FOLDER).join("postgres.sql")).unwrap();
    let db = connect(&url).await;
    db.batch_execute(&dump).await.unwrap();
    db.batch_execute("SET search_path = public").await.unwrap();
    db.batch_execute(more).await.unwrap();
    let app = TestApp::on(folder(&["master.key"]), given.now(), |config| {
        config.database.url = Some(url.parse().unwrap());
        config.database.accept_lost_commits = true;
    });
    (app.await, db)
}

// check 92
#[tokio::test]
async fn a_database_from_before_lives_on_and_no_key_is_changed_while_a_node_from_before_serves() {
    let given = Given::read();
    let (app, db) = on_postgres(&given, "INSERT INTO node (name, wait_ms) VALUES ('n-old', 3600)").await;
    let readable_by = async || {
        db.query_one("SELECT readable_by FROM schema", &[]).await.unwrap().get::<_, i32>("readable_by")
    };
    lives_on(&app, &given).await;
    admin::upgrade_key(&app.app).await.unwrap();
    let refused = admin::rotate_key(&app.app, KeyRotation::default()).await.unwrap_err().to_string();
    assert!(refused.contains("\"n-old\" is of an older version"), "{refused}");
    let before = keys(&app).await;
    assert_eq!((before.len(), readable_by().await), (2, 1));
    is_of_the_key_itself(&app.grant(&given.client("plain")).await, &before[1]);

    db.batch_execute("DELETE FROM node WHERE name = 'n-old'").await.unwrap();
    for _ in 0..2 {
        admin::upgrade_key(&app.app).await.unwrap();
    }
    let after = keys(&app).await;
    assert_eq!((after.len(), readable_by().await), (3, 4));
    assert!(after[2].refresh_sealed.is_some());
    // One that was started before may not serve any more.
    let late = db.batch_execute("INSERT INTO node (name, wait_ms) VALUES ('n-old', 3600)").await.unwrap_err();
    assert!(late.as_db_error().unwrap().message().contains("newer version than this node's"), "{late:?}");

    app.advance(600);
    until("a lease", || app.app.is_ready()).await;
    old_tokens_are_traded_for_new(&app, &given, &after[2]).await;
    let client = given.client("plain");
    let pair = app.grant(&client).await;
    is_of_a_refresh_key(&pair, &after[2]);
    assert_eq!(revoke(&app, &client, &pair.refresh).await.status, 200);
    assert!(!app.stands(&pair.access).await);

    // The next key's access tokens are none that a node of this version could read.
    db.batch_execute("INSERT INTO node (name, wait_ms, schema_version) VALUES ('n-4', 3600, 4)")
        .await
        .unwrap();
    let refused = admin::rotate_key(&app.app, KeyRotation::default()).await.unwrap_err().to_string();
    assert!(refused.contains("\"n-4\" is of an older version"), "{refused}");
    db.batch_execute("DELETE FROM node WHERE name = 'n-4'").await.unwrap();
    admin::rotate_key(&app.app, KeyRotation::default()).await.unwrap();
    let keys = keys(&app).await;
    assert_eq!((keys[2].rfc9068, keys[3].rfc9068, readable_by().await), (false, true, 5));
}
