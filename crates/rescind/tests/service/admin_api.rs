//! The admin API over the data folder's socket, and the probes.

use rescind_node::app::Stage;
use serde_json::{Value, json};

use crate::{app::TestApp, raw, reply::Reply};

async fn ask(app: &TestApp, method: &str, path: &str, body: Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    raw::local(&app.socket(), method, &format!("/admin/v1{path}"), &body).await
}

async fn get(app: &TestApp, path: &str) -> Value {
    let reply = ask(app, "GET", path, Value::Null).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

async fn post(app: &TestApp, path: &str, body: Value) -> Value {
    let reply = ask(app, "POST", path, body).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

/// A client's first credential, as `client create` prints it.
fn credential(created: &Value) -> crate::app::Client {
    let text = |name: &str| created[name].as_str().unwrap().to_owned();
    crate::app::Client {
        id: created["client_id"].as_u64().unwrap(),
        key: text("api_key"),
        secret: text("api_secret"),
    }
}

#[tokio::test]
async fn clients() {
    let app = TestApp::start().await;
    let body = json!({"name": " Nord ", "allow": ["127.0.0.1", "10.0.0.0/8"], "scopes": ["b", "a"]});
    let created = post(&app, "/clients", body).await;
    let client = credential(&created);
    assert!(client.key.starts_with("rk_") && client.secret.starts_with("rs_"));
    let view = json!({
        "client_id": 1, "name": "Nord", "allow": ["10.0.0.0/8", "127.0.0.1/32"], "scopes": ["a", "b"],
        "status": "active",
    });
    let mut expected = view.clone();
    expected["api_key"] = client.key.as_str().into();
    expected["api_secret"] = client.secret.as_str().into();
    assert_eq!(created, expected);
    let mut expected = view;
    expected["certificates"] = json!([]);
    expected["resources"] = json!([]);
    expected["enforces_allowlist"] = false.into();
    expected["introspect_lifetime"] = Value::Null;
    expected["created_at"] = "2025-01-15T12:00:00Z".into();
    assert_eq!(get(&app, "/clients/1").await, expected);
    assert_eq!(get(&app, "/clients").await, json!([expected]));

    // Where one process has the store to itself, it is the one node there is.
    let acknowledged = |mut client: Value| {
        let receipt = client.as_object_mut().unwrap().remove("receipt").unwrap();
        assert_eq!((&receipt["nodes"], &receipt["acknowledged"]), (&json!(1), &json!(1)));
        client
    };
    let pair = app.grant(&client).await;
    assert_eq!(acknowledged(post(&app, "/clients/1/logout", Value::Null).await), expected);
    assert!(!app.stands(&pair.access).await);
    let pair = app.grant(&client).await;
    let suspended = post(&app, "/clients/1/suspend", Value::Null).await;
    assert_eq!(suspended["status"], "suspended");
    assert!(!app.stands(&pair.access).await);
    app.login(&client).await.is_error(401, "Invalid credentials");
    assert_eq!(acknowledged(post(&app, "/clients/1/resume", Value::Null).await), expected);
    app.grant(&client).await;
    let deleted = ask(&app, "DELETE", "/clients/1", Value::Null).await;
    assert_eq!((deleted.status, &deleted.json()["status"]), (200, &json!("deleted")));
    app.login(&client).await.is_error(401, "Invalid credentials");
    assert_eq!(get(&app, "/clients").await, json!([]));
    for (method, path) in
        [("GET", ""), ("DELETE", ""), ("POST", "/resume"), ("POST", "/suspend"), ("POST", "/logout")]
    {
        let reply = ask(&app, method, &format!("/clients/1{path}"), Value::Null).await;
        reply.is_error(404, "no such client");
    }
}

#[tokio::test]
async fn certificates() {
    let app = TestApp::start().await;
    post(&app, "/clients", json!({"name": "a", "certificates": ["dns:b.example"]})).await;
    let change = async |body: Value| ask(&app, "POST", "/clients/1/certificates", body).await;
    let names = |count| (0..count).map(|i| format!("uri:x:{i:02}")).collect::<Vec<_>>();
    let added = change(json!({"add": names(63)})).await;
    assert_eq!(added.json()["certificates"][0], "dns:b.example");
    let too_many = "add: a client is bound to at most 64 names";
    change(json!({"add": ["dns:a.example"]})).await.is_error(400, too_many);
    change(json!({"add": names(65)})).await.is_error(400, too_many);
    // Those that it has already are no more.
    assert_eq!(change(json!({"add": names(63)})).await.status, 200);
    let exchanged = change(json!({"add": ["dns:A.example"], "remove": names(63)})).await;
    assert_eq!(exchanged.json()["certificates"], json!(["dns:a.example", "dns:b.example"]));

    let missing = change(json!({"remove": ["dns:c.example"]})).await;
    missing.is_error(400, "remove: the client is not bound to dns:c.example");
    let all = json!(["dns:a.example", "dns:b.example"]);
    change(json!({"remove": all})).await.is_error(
        400,
        "this would leave no name, and the client would need no certificate: say so with unbind (--unbind)",
    );
    assert_eq!(get(&app, "/clients/1").await["certificates"], all);
    assert_eq!(change(json!({"remove": all, "unbind": true})).await.json()["certificates"], json!([]));
    assert_eq!(change(json!({})).await.status, 200);
    ask(&app, "POST", "/clients/2/certificates", json!({})).await.is_error(404, "no such client");
}

// check 93
#[tokio::test]
async fn who_enforces_allowlists() {
    let app = TestApp::start().await;
    let created = post(&app, "/clients", json!({"name": "a", "enforces_allowlist": true})).await;
    assert_eq!(created["enforces_allowlist"], true);
    assert_eq!(get(&app, "/clients/1").await["enforces_allowlist"], true);
    let change = async |body: Value| ask(&app, "POST", "/clients/1/enforces-allowlist", body).await;
    for enforces in [false, false, true] {
        let changed = change(json!({"enforces_allowlist": enforces})).await;
        assert_eq!((changed.status, &changed.json()["enforces_allowlist"]), (200, &json!(enforces)));
    }
    // What was so before is no event.
    let events = get(&app, "/audit?kind=enforcement_changed").await;
    let details: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| &event["detail"]).collect();
    assert_eq!(details, ["it enforces none", "it enforces allowlists"]);
    change(json!({})).await.is_error(400, "missing field `enforces_allowlist`");
    let text = "enforces_allowlist: expected true or false";
    change(json!({"enforces_allowlist": "yes"})).await.is_error(400, text);
    let body = json!({"enforces_allowlist": true});
    ask(&app, "POST", "/clients/2/enforces-allowlist", body).await.is_error(404, "no such client");
}

#[tokio::test]
async fn how_long_answers_of_introspection_may_be_kept() {
    let app = TestApp::start().await;
    let created = post(&app, "/clients", json!({"name": "a", "introspect_lifetime": "0s"})).await;
    assert_eq!(created["introspect_lifetime"], "0s");
    assert_eq!(get(&app, "/clients/1").await["introspect_lifetime"], "0s");
    let change = async |body: Value| ask(&app, "POST", "/clients/1/introspect-lifetime", body).await;
    for lifetime in [json!("0s"), json!("90s"), Value::Null, json!("2m")] {
        let changed = change(json!({"introspect_lifetime": lifetime})).await;
        assert_eq!((changed.status, &changed.json()["introspect_lifetime"]), (200, &lifetime));
    }
    // What was so before is no event.
    let events = get(&app, "/audit?kind=lifetime_changed").await;
    let details: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| &event["detail"]).collect();
    assert_eq!(details, ["90s", "off", "120s"]);
    let app = app.restart().await;
    assert_eq!(get(&app, "/clients/1").await["introspect_lifetime"], "2m");
    let change = async |body: Value| ask(&app, "POST", "/clients/1/introspect-lifetime", body).await;
    change(json!({})).await.is_error(400, "missing field `introspect_lifetime`");
    let text = "introspect_lifetime: expected a duration such as 30s, 10m, 1h or 7d, up to 3650d";
    change(json!({"introspect_lifetime": "soon"})).await.is_error(400, text);
    let body = json!({"introspect_lifetime": "0s"});
    ask(&app, "POST", "/clients/2/introspect-lifetime", body).await.is_error(404, "no such client");
}

// check 68, 69, 70
#[tokio::test]
async fn allowlists() {
    let app = TestApp::start().await;
    post(&app, "/clients", json!({"name": "a"})).await;
    let allow = async |body: Value| ask(&app, "POST", "/clients/1/allow", body).await;
    let added = allow(json!({"add": ["10.0.0.0/8", "2001:db8::1"]})).await;
    assert_eq!(added.json()["allow"], json!(["10.0.0.0/8", "2001:db8::1/128"]));
    assert_eq!(
        get(&app, "/clients/1/allow/check?address=10.1.2.3").await,
        json!({"client_id": 1, "address": "10.1.2.3", "allowed": true, "entries": ["10.0.0.0/8"]})
    );
    assert_eq!(
        get(&app, "/clients/1/allow/check?address=::ffff:11.1.2.3").await,
        json!({"client_id": 1, "address": "11.1.2.3", "allowed": false, "entries": []})
    );
    let reply = ask(&app, "GET", "/clients/1/allow/check?address=x", Value::Null).await;
    reply.is_error(400, "address: \"x\" is not an IP address such as 203.0.113.7 or 2001:db8::1");
    let reply = ask(&app, "GET", "/clients/1/allow/check", Value::Null).await;
    reply.is_error(400, "address: expected one in the query, as ?address=203.0.113.7");

    let before = get(&app, "/clients/1").await;
    for (field, entry, problem) in [
        ("add", "10.1.2.3/8", "10.1.2.3/8 has host bits set: the network is 10.0.0.0/8"),
        ("add", "2001:db8::1/32", "2001:db8::1/32 has host bits set: the network is 2001:db8::/32"),
        (
            "add",
            "0.0.0.0/0",
            "0.0.0.0/0 lets every address of its kind call: say so with allow_any (--allow-any)",
        ),
        ("add", "::/0", "::/0 lets every address of its kind call: say so with allow_any (--allow-any)"),
        ("remove", "10.1.0.0/16", "10.1.0.0/16 is not on the allowlist"),
    ] {
        allow(json!({field: [entry]})).await.is_error(400, &format!("{field}: {problem}"));
    }
    for entry in
        ["10.0.0.0/33", "::/129", "010.0.0.0/8", "10/8", "0xa.0.0.0/8", "10.0.0.0/08", "10.0.0.0/", "x", ""]
    {
        let expected = format!(
            "add: {entry:?} is not an address or a network: write one such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32"
        );
        allow(json!({"add": [entry]})).await.is_error(400, &expected);
    }
    let emptying = json!({"remove": ["10.0.0.0/8", "2001:db8::1"]});
    let reply = allow(emptying.clone()).await;
    assert_eq!(reply.json()["error"]["code"], "BAD_REQUEST");
    reply.is_error(
        400,
        "this would leave no entry, and an empty allowlist lets every address call: say so with allow_any (--allow-any)",
    );
    assert_eq!(get(&app, "/clients/1").await, before);

    let any = allow(json!({"add": ["0.0.0.0/0"], "allow_any": true})).await;
    assert_eq!(any.json()["allow"], json!(["0.0.0.0/0", "10.0.0.0/8", "2001:db8::1/128"]));
    let mut emptying = emptying;
    emptying["remove"].as_array_mut().unwrap().push("0.0.0.0/0".into());
    emptying["allow_any"] = true.into();
    assert_eq!(allow(emptying).await.json()["allow"], json!([]));
    // To leave an empty list empty changes nothing, and needs no word.
    assert_eq!(allow(json!({})).await.status, 200);
}

#[tokio::test]
async fn credentials() {
    let app = TestApp::start().await;
    let first = credential(&post(&app, "/clients", json!({"name": "a"})).await);
    let created = post(&app, "/clients/1/credentials", json!({"expires_in": "90d"})).await;
    assert_eq!(created["expires_at"], "2025-04-15T12:00:00Z");
    assert_eq!(created.get("replaces"), None);
    app.grant(&credential(&created)).await;
    let rotated = post(&app, &format!("/credentials/{}/rotate", first.key), json!({"overlap": "1h"})).await;
    assert_eq!(rotated["replaces"], json!({"api_key": first.key, "expires_at": "2025-01-15T13:00:00Z"}));
    let third = credential(&rotated);
    app.grant(&third).await;
    let revoked = post(&app, &format!("/credentials/{}/revoke", third.key), Value::Null).await;
    app.login(&third).await.is_error(401, "Invalid credentials");
    app.advance(3600);
    let now = "2025-01-15T12:00:00Z";
    assert_eq!(
        revoked,
        json!({"api_key": third.key, "status": "revoked", "created_at": now, "expires_at": null, "revoked_at": now})
    );
    let view = |key: &Value, status: &str, expires_at: &str| json!({"api_key": key, "status": status, "created_at": now, "expires_at": expires_at, "revoked_at": null});
    let mut replaced = view(&json!(first.key), "expired", "2025-01-15T13:00:00Z");
    replaced["replaced_at"] = now.into();
    assert_eq!(
        get(&app, "/clients/1/credentials").await,
        json!([replaced, view(&created["api_key"], "active", "2025-04-15T12:00:00Z"), revoked])
    );
    for action in ["rotate", "revoke"] {
        for key in ["rk_unknown", &third.key] {
            let reply = ask(&app, "POST", &format!("/credentials/{key}/{action}"), Value::Null).await;
            reply.is_error(404, "no such credential");
        }
    }
    ask(&app, "POST", "/clients/9/credentials", Value::Null).await.is_error(404, "no such client");
    ask(&app, "GET", "/clients/9/credentials", Value::Null).await.is_error(404, "no such client");
}

// check 48
#[tokio::test]
async fn keys() {
    let app = TestApp::start().await;
    let keys = get(&app, "/keys").await;
    let kid = keys[0]["kid"].as_str().unwrap();
    let now = "2025-01-15T12:00:00Z";
    let signing = |kid: &Value| json!({"kid": kid, "algorithm": "HS256", "status": "signing", "created_at": now, "signs_from": now, "retires_at": null});
    assert_eq!(keys, json!([signing(&keys[0]["kid"])]));
    let reply = ask(&app, "POST", &format!("/keys/{kid}/retire"), Value::Null).await;
    assert_eq!(reply.json()["error"]["code"], "BAD_REQUEST");
    reply.is_error(
        400,
        &format!(
            "{kid} signs, or is the next to: rotate the key, and retire this one when the new one signs"
        ),
    );
    let rotated = post(&app, "/keys/rotate", Value::Null).await;
    let old = json!({
        "kid": kid, "algorithm": "HS256", "status": "verifying", "created_at": now, "signs_from": now,
        "retires_at": "2025-01-22T12:00:00Z",
    });
    assert_eq!(rotated, json!([old, signing(&rotated[1]["kid"])]));
    assert_eq!(get(&app, "/keys").await, rotated);
    let left = post(&app, &format!("/keys/{kid}/retire"), Value::Null).await;
    assert_eq!(left, json!([signing(&rotated[1]["kid"])]));
    ask(&app, "POST", &format!("/keys/{kid}/retire"), Value::Null).await.is_error(404, "no such signing key");
}

#[tokio::test]
async fn tokens_and_status() {
    let app = TestApp::start().await;
    let client = app.client_of(rescind_admin::NewClient {
        name: "a".into(),
        scopes: vec!["s".into()],
        ..Default::default()
    });
    let client = client.await;
    let pair = app.grant(&client).await;
    let renewed = app.renew(&pair).await;
    let inspect = async |token: &str| post(&app, "/tokens/inspect", json!({"token": token})).await;
    assert_eq!(
        inspect(&pair.access).await,
        json!({
            "verdict": "stands", "stands": true, "kind": "access", "client_id": 1, "session": 1, "pair": 1,
            "generation": 0, "scopes": ["s"], "audience": ["http://127.0.0.1:8080"],
            "issued_at": "2025-01-15T12:00:00Z",
            "expires_at": "2025-01-15T13:00:00Z",
        })
    );
    for (token, verdict, kind) in [
        (&renewed.refresh, "stands", json!("refresh")),
        (&pair.refresh, "revoked", json!("refresh")),
        (&"x".to_owned(), "malformed", json!(null)),
    ] {
        let view = inspect(token).await;
        assert_eq!((&view["verdict"], &view["kind"]), (&json!(verdict), &kind));
        assert_eq!(view["stands"], verdict == "stands");
    }
    app.logout(&pair.access).await.is_logged_out();
    assert_eq!(inspect(&renewed.access).await["verdict"], "revoked");
    app.advance(3600);
    assert_eq!(inspect(&renewed.access).await["verdict"], "expired");
    let status = json!({
        "ready": true, "version": env!("CARGO_PKG_VERSION"), "store": "sqlite", "clients": 1,
        "url": format!("http://{}", app.address), "management_url": format!("http://{}", app.management),
        "sessions_in_memory": 1, "attached_verifiers": 0, "clock": {"in_doubt": false, "ahead_seconds": 0},
        "followers": [],
    });
    assert_eq!(get(&app, "/status").await, status);
}

// check 86
#[tokio::test]
async fn no_name_moves_what_is_shown_beside_it() {
    let app = TestApp::start().await;
    let ranges = ['\0'..='\u{1f}', '\u{7f}'..='\u{9f}', '\u{61c}'..='\u{61c}', '\u{200e}'..='\u{200f}'];
    let ranges = ranges.into_iter().chain(['\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}']);
    for c in ranges.flatten() {
        let reply = ask(&app, "POST", "/clients", json!({"name": format!("a{c}b")})).await;
        assert_eq!(reply.status, 400, "{c:?}");
    }
    // Other scripts are as welcome as ever, with the joiners that they need.
    for name in ["Größe", "خدمة الفوترة", "می\u{200c}خواهم", "👩\u{200d}💻"] {
        assert_eq!(post(&app, "/clients", json!({"name": name})).await["name"], name);
    }
}

// check 74, 86
#[tokio::test]
async fn bad_input_names_the_field() {
    let app = TestApp::start().await;
    post(&app, "/clients", json!({"name": "a"})).await;
    let long = "x".repeat(201);
    let name =
        "name: expected 1 to 200 characters, no control characters and no marks of direction among them";
    let duration = "expires_in: expected a duration such as 30s, 10m, 1h or 7d, up to 3650d";
    for (path, body, message) in [
        ("/clients", json!({}), "missing field `name`"),
        ("/clients", json!({"name": " "}), name),
        ("/clients", json!({"name": "a\nb"}), name),
        ("/verifiers", json!({"name": "a\u{2066}b"}), name),
        ("/clients", json!({"name": long}), name),
        ("/clients", json!({"name": 7}), "name: expected a string"),
        (
            "/clients",
            json!({"name": "0042"}),
            "name: expected a name that is not of digits alone, as a client's id is",
        ),
        (
            "/clients/1/name",
            json!({"name": " 2 "}),
            "name: expected a name that is not of digits alone, as a client's id is",
        ),
        (
            "/clients/1/suspend",
            json!({"for": "0s"}),
            "for: expected a time after which the client is resumed, such as 2h",
        ),
        (
            "/management-tokens",
            json!({"name": "a", "role": "viewer", "expires_in": "0s"}),
            "expires_in: expected a time in which the token can be used, such as 90d",
        ),
        ("/clients", json!({"name": "a", "allow": "10.0.0.0/8"}), "allow: expected a list"),
        (
            "/clients",
            json!({"name": "a", "allow": ["10.0.0.1/8"]}),
            "allow: 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8",
        ),
        (
            "/clients",
            json!({"name": "a", "scopes": ["a\"b"]}),
            "scopes: \"a\\\"b\" is not a scope: use visible ASCII characters other than \" and \\",
        ),
        (
            "/clients",
            json!({"name": "a", "nmae": "b"}),
            "nmae: unknown field `nmae`, expected one of `name`, `allow`, `certificates`, `scopes`, `resources`, `enforces_allowlist`, `introspect_lifetime`, `allow_any`",
        ),
        (
            "/clients",
            json!({"name": "a", "certificates": ["api.example.com"]}),
            "certificates: \"api.example.com\" is not a name such as dns:api.example.com or uri:spiffe://example.com/api",
        ),
        (
            "/clients/1/certificates",
            json!({"ad": []}),
            "ad: unknown field `ad`, expected one of `add`, `remove`, `unbind`",
        ),
        (
            "/clients",
            json!({"name": "a", "api_secret": "hunter2"}),
            "api_secret: unknown field `api_secret`, expected one of `name`, `allow`, `certificates`, `scopes`, `resources`, `enforces_allowlist`, `introspect_lifetime`, `allow_any`",
        ),
        (
            "/clients/1/credentials",
            json!({"api_secret": "hunter2"}),
            "api_secret: unknown field `api_secret`, expected `expires_in`",
        ),
        (
            "/clients/1/allow",
            json!({"ad": []}),
            "ad: unknown field `ad`, expected one of `add`, `remove`, `replace`, `allow_any`",
        ),
        ("/clients/1/credentials", json!({"expires_in": "soon"}), duration),
        (
            "/clients/1/credentials",
            json!({"expires": "1h"}),
            "expires: unknown field `expires`, expected `expires_in`",
        ),
        ("/tokens/inspect", json!({"token": "a", "x": 1}), "x: unknown field `x`, expected `token`"),
        ("/tokens/inspect", json!({}), "missing field `token`"),
    ] {
        let reply = ask(&app, "POST", path, body).await;
        assert_eq!(reply.json()["error"]["code"], "VALIDATION_FAILURE");
        reply.is_error(400, message);
    }
    assert_eq!(get(&app, "/clients").await.as_array().unwrap().len(), 1);
    for path in ["/clients/x", "/clients/-1", "/clients/1.0", "/nothing", "/clients/1/nothing"] {
        ask(&app, "GET", path, Value::Null).await.is_error(404, "No such path");
    }
    let reply = ask(&app, "PUT", "/clients", Value::Null).await;
    reply.is_error(405, "Method not allowed on this path");
    assert_eq!(reply.header("allow"), Some("GET,HEAD,POST"));
}

// check 80
#[tokio::test]
async fn the_socket_is_for_whoever_may_open_the_data_folder() {
    let app = TestApp::start().await;
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(app.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // And the socket has nothing of the public listener's.
    raw::local(&app.socket(), "POST", "/auth/login", "").await.is_error(404, "No such path");
    raw::local(&app.socket(), "GET", "/verify", "").await.is_error(404, "No such path");
}

#[tokio::test]
async fn probes() {
    let app = TestApp::start().await;
    let probe = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let reply = raw::answer(app.management, request).await;
        assert_eq!(raw::local(&app.socket(), "GET", path, "").await.body, reply.body);
        reply
    };
    assert_eq!(probe("/livez").await.json(), json!({"status": "live"}));
    assert_eq!(probe("/readyz").await.json(), json!({"status": "ready"}));
    assert_eq!(probe("/healthz").await.json(), json!({"status": "ready"}));
    app.app.enter(Stage::Leaving);
    assert_eq!(probe("/livez").await.json(), json!({"status": "live"}));
    for path in ["/readyz", "/healthz"] {
        probe(path).await.is_error(503, "Draining: send new work elsewhere");
    }
    for path in ["/auth/login", "/verify", "/dashboards"] {
        probe(path).await.is_error(404, "No such path");
    }
}
