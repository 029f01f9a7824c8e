//! The admin API over the network, for holders of a management token.

use reqwest::{Method, RequestBuilder};
use rescind_admin::{self as admin, NewManagementToken};
use rescind_base::model::Role;
use rescind_node::config::Webhook;
use serde_json::{Value, json};

use crate::{
    app::{DAY, TestApp},
    metrics::Samples,
    raw,
    reply::Reply,
};

/// The holder of a management token.
struct Manager<'a> {
    app: &'a TestApp,
    id: u64,
    token: String,
    http: reqwest::Client,
}

impl<'a> Manager<'a> {
    async fn new(app: &'a TestApp, role: Role, clients: &[u64]) -> Manager<'a> {
        let new = NewManagementToken { name: "ci".into(), role, clients: clients.to_vec(), expires_in: None };
        let created = admin::create_management_token(&app.app, new).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Manager { app, id: created.management_token_id, token: created.token, http }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}/admin/v1{path}", self.app.management);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    async fn send(&self, request: RequestBuilder) -> Reply {
        self.app.send(request).await
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Reply {
        let request = self.request(method.parse().unwrap(), path);
        self.send(if body.is_null() { request } else { request.json(body) }).await
    }

    async fn get(&self, path: &str) -> Value {
        let reply = self.ask("GET", path, &Value::Null).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        let reply = self.ask("POST", path, &body).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply
    }
}

/// An operation, as the document has it.
struct Operation {
    method: String,
    path: String,
    role: String,
    changes: bool,
    for_bound_tokens: bool,
}

fn operations() -> Vec<Operation> {
    let document = rescind::http::document();
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(|(method, operation)| Operation {
            method: method.to_uppercase(),
            path: path.strip_prefix("/admin/v1").unwrap().to_owned(),
            role: operation["x-role"].as_str().unwrap().to_owned(),
            changes: operation["x-changes"].as_bool().unwrap(),
            for_bound_tokens: operation["x-for-bound-tokens"].as_bool().unwrap(),
        })
    });
    all.collect()
}

#[test]
fn the_document_is_the_one_in_docs() {
    let kept = include_str!("../../../../docs/openapi.json");
    let kept: Value = serde_json::from_str(kept).unwrap();
    let how = "write it again: cargo run --example openapi >docs/openapi.json";
    assert!(
        rescind::http::document() == kept,
        "docs/openapi.json is not the document of this program: {how}"
    );
}

#[tokio::test]
async fn the_document_and_its_page_are_served() {
    let app = TestApp::start().await;
    let get = async |path: &str| {
        let url = format!("http://{}/admin/v1{path}", app.management);
        reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap()
    };
    let document: Value = get("/openapi.json").await.json().await.unwrap();
    assert_eq!(document, rescind::http::document());
    for path in ["/docs", "/docs/viewer.js", "/docs/viewer.css"] {
        let page = get(path).await;
        assert_eq!(page.status(), 200);
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        // Nothing comes from elsewhere.
        assert!(!page.text().await.unwrap().contains("://"), "{path}");
    }
}

// check 80
#[tokio::test]
async fn without_a_management_token_no_operation_answers() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    assert!(app.app.store.management_tokens().await.unwrap().is_empty());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut one = Manager::new(&app, Role::Admin, &[]).await;
    let revoked = Manager::new(&app, Role::Admin, &[]).await;
    admin::revoke_management_token(&app.app, revoked.id).await.unwrap();
    one.token.replace_range(10..11, if one.token.as_bytes()[10] == b'a' { "b" } else { "a" });
    for Operation { method, path, .. } in operations() {
        let url = |address| format!("http://{address}/admin/v1{}", path.replace("{id}", "1"));
        let request = || http.request(method.parse().unwrap(), url(app.management));
        app.send(request()).await.is_error(401, "Authorization header required");
        app.send(request().basic_auth("admin", Some("admin")))
            .await
            .is_error(401, "Authorization header required");
        for token in [&pair.access, &client.secret, &one.token, &revoked.token] {
            let reply = app.send(request().bearer_auth(token)).await;
            reply.is_error(401, "Invalid token");
            assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer "));
        }
        // The public listener has no such path.
        let public = http.request(method.parse().unwrap(), url(app.address));
        app.send(public).await.is_error(404, "No such path");
    }
}

#[tokio::test]
async fn a_token_ends_with_its_time_and_tells_when_it_was_used() {
    let app = TestApp::start().await;
    let admin = Manager::new(&app, Role::Admin, &[]).await;
    let body = json!({"name": "short", "role": "viewer", "expires_in": "1d"});
    let created = admin.post("/management-tokens", body).await.json();
    let token = created["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("rm_"));
    let short = Manager {
        app: &app,
        id: created["management_token_id"].as_u64().unwrap(),
        token,
        http: admin.http.clone(),
    };
    app.advance(DAY - 1);
    short.get("/clients").await;
    let listed = admin.get("/management-tokens").await;
    assert_eq!(listed[1]["last_used_at"], "2025-01-16T11:59:59Z");
    assert_eq!(listed[1]["expires_at"], "2025-01-16T12:00:00Z");
    assert_eq!(listed[1].get("token"), None);
    app.advance(1);
    short.ask("GET", "/clients", &Value::Null).await.is_error(401, "Invalid token");
    let gone = admin.ask("DELETE", &format!("/management-tokens/{}", short.id), &Value::Null).await;
    assert_eq!(gone.status, 200);
    admin
        .ask("DELETE", &format!("/management-tokens/{}", short.id), &Value::Null)
        .await
        .is_error(404, "no such management token");
    let body = json!({"name": "x", "role": "admin", "clients": [1]});
    let refused = admin.ask("POST", "/management-tokens", &body).await;
    assert!(refused.json()["detail"].as_str().unwrap().starts_with("role: expected viewer or operator"));
    let body = json!({"name": "x", "role": "viewer", "clients": [1]});
    admin.ask("POST", "/management-tokens", &body).await.is_error(400, "clients: there is no client 1");
}

// check 88
#[tokio::test]
async fn a_viewer_changes_nothing_by_any_operation() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let webhook = Webhook {
        name: "w".into(),
        url: "http://127.0.0.1:1/".to_owned().try_into().unwrap(),
        events: vec![],
        secret_file: secret.path().to_owned(),
        ca: None,
        allow_http: false,
    };
    let app = TestApp::with(|config| config.webhook.push(webhook)).await;
    let client = app.client().await;
    let (viewer, operator) =
        (Manager::new(&app, Role::Viewer, &[]).await, Manager::new(&app, Role::Operator, &[]).await);
    let before = app.stored(&client).await;
    let kid = viewer.get("/keys").await[0]["kid"].as_str().unwrap().to_owned();
    let refused = app.verify("x").await;
    let refused = refused.header("x-request-id").unwrap();
    let events = viewer.get("/audit").await["last"].clone();
    let mut changing = 0;
    for Operation { method, path, role, changes, .. } in operations() {
        let filled = path.replace("{id}", "1").replace("{api_key}", &client.key).replace("{kid}", &kid);
        let filled = filled.replace("{request_id}", refused).replace("{name}", "w");
        let body = json!({});
        let says = |has: &str| format!("This needs the role {role}, and the token's role is {has}");
        changing += usize::from(changes);
        if role != "viewer" {
            viewer.ask(&method, &filled, &body).await.is_error(403, &says("viewer"));
        } else {
            let reply = viewer.ask(&method, &filled, &body).await;
            assert!([200, 400].contains(&reply.status), "{filled}: {reply:?}");
        }
        if role == "admin" {
            operator.ask(&method, &filled, &body).await.is_error(403, &says("operator"));
        }
    }
    assert!(changing >= 18, "{changing}");
    assert!(app.is_unchanged(&before).await);
    assert_eq!(viewer.get("/audit").await["last"], events);
}

// check 88
#[tokio::test]
async fn a_bound_token_sees_and_changes_its_clients_alone() {
    let app = TestApp::start().await;
    let (mine, other) = (app.client().await, app.client().await);
    let bound = Manager::new(&app, Role::Operator, &[mine.id]).await;
    let before = app.stored(&other).await;
    let pair = app.grant(&other).await;
    for Operation { method, path, role, for_bound_tokens, .. } in operations() {
        // The session is the other client's, too.
        let id = if path.starts_with("/sessions") { 1 } else { other.id };
        let filled =
            path.replace("{id}", &id.to_string()).replace("{api_key}", &other.key).replace("{kid}", "x");
        let (body, query) = match path.rsplit('/').next().unwrap() {
            "check" => (json!({}), "?address=1.2.3.4"),
            "name" => (json!({"name": "x"}), ""),
            "expire" => (json!({"in": "1d"}), ""),
            "enforces-allowlist" => (json!({"enforces_allowlist": true}), ""),
            "introspect-lifetime" => (json!({"introspect_lifetime": "1h"}), ""),
            _ => (json!({}), ""),
        };
        let reply = bound.ask(&method, &format!("{filled}{query}"), &body).await;
        if !for_bound_tokens || role == "admin" {
            assert_eq!(reply.status, 403, "{method} {filled}: {reply:?}");
        } else if path.contains('{') {
            assert_eq!(reply.status, 404, "{method} {filled}: {reply:?}");
        }
    }
    assert!(app.is_unchanged(&before).await);
    let seen = bound.get("/clients").await;
    assert_eq!((seen.as_array().unwrap().len(), &seen[0]["client_id"]), (1, &json!(mine.id)));
    let events = bound.get("/audit").await;
    assert!(events["events"].as_array().unwrap().iter().all(|event| event["client_id"] == mine.id));
    bound
        .ask("GET", &format!("/audit?client={}", other.id), &Value::Null)
        .await
        .is_error(404, "no such client");
    let inspected = bound.post("/tokens/inspect", json!({ "token": pair.access })).await.json();
    assert_eq!((&inspected["stands"], &inspected["client_id"]), (&json!(false), &Value::Null));
    // Its own client obeys.
    let own = app.grant(&mine).await;
    bound.post(&format!("/clients/{}/logout", mine.id), json!({})).await;
    assert!(!app.stands(&own.access).await);
    assert!(app.stands(&pair.access).await);
}

#[tokio::test]
async fn each_change_takes_effect_before_its_answer_and_names_the_token() {
    let app = TestApp::start().await;
    let manager = Manager::new(&app, Role::Admin, &[]).await;
    let client = app.client().await;
    let at = |path: &str| format!("/clients/{}{path}", client.id);
    let changes = [
        ("POST", at("/logout"), json!({}), "client_logged_out"),
        ("POST", at("/suspend"), json!({}), "client_suspended"),
        ("POST", at("/resume"), json!({}), "client_resumed"),
        ("POST", at("/allow"), json!({"add": ["10.0.0.0/8"]}), "allowlist_changed"),
        ("PATCH", at(""), json!({"allow": [], "allow_any": true}), "allowlist_changed"),
        ("PATCH", at(""), json!({"allow": ["10.0.0.0/8"]}), "allowlist_changed"),
        ("PATCH", at(""), json!({"allow": [], "allow_any": true}), "allowlist_changed"),
        ("POST", format!("/credentials/{}/revoke", client.key), json!({}), "credential_revoked"),
    ];
    for (method, path, body, kind) in changes {
        let refuses = !(path.ends_with("/resume") || body["allow_any"] == true);
        let pair = if refuses { Some(app.grant(&client).await) } else { None };
        let reply = manager.ask(method, &path, &body).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert!(
            reply.header("rescind-receipt").unwrap().starts_with("nodes=1, acknowledged=1, milliseconds=")
        );
        if let Some(pair) = pair {
            let verdict = app.verify(&pair.access).await.status;
            assert!([401, 403].contains(&verdict), "{path}: {verdict}");
        }
        let events = manager.get("/audit?limit=1").await;
        let event = &events["events"][0];
        let who = json!(format!("management token {} (ci)", manager.id));
        assert_eq!((&event["kind"], &event["by"]), (&json!(kind), &json!("operator")), "{path}");
        assert_eq!(event["operator"], who, "{path}");
        assert_eq!(event["address"], "127.0.0.1");
    }
    // The socket leaves the same row, but for who did it.
    let other = app.client().await;
    raw::local(&app.socket(), "POST", &format!("/admin/v1/clients/{}/suspend", other.id), "{}").await;
    let events = manager.get("/audit?limit=1").await;
    let event = &events["events"][0];
    assert_eq!((&event["kind"], &event["by"]), (&json!("client_suspended"), &json!("operator")));
    assert!(event["operator"].as_str().unwrap().contains("uid"), "{event}");
}

#[tokio::test]
async fn an_update_is_made_only_to_the_version_that_it_names() {
    let app = TestApp::start().await;
    let manager = Manager::new(&app, Role::Operator, &[]).await;
    let client = app.client().await;
    let path = format!("/clients/{}", client.id);
    let read = manager.ask("GET", &path, &Value::Null).await;
    let tag = read.header("etag").unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    // What the client does itself is no other version.
    app.grant(&client).await;
    assert_eq!(manager.ask("GET", &path, &Value::Null).await.header("etag"), Some(&*tag));
    let update = async |tag: &str, body: Value| {
        manager.send(manager.request(Method::PATCH, &path).header("if-match", tag).json(&body)).await
    };
    let renamed = update(&tag, json!({"name": "Süd", "scopes": ["a"]})).await;
    assert_eq!(
        (renamed.status, &renamed.json()["name"], &renamed.json()["scopes"]),
        (200, &json!("Süd"), &json!(["a"]))
    );
    let newer = renamed.header("etag").unwrap().to_owned();
    assert_ne!(newer, tag);
    let stale = "the client has changed meanwhile: read it again";
    update(&tag, json!({"name": "West"})).await.is_error(412, stale);
    update(&format!("W/{newer}"), json!({"name": "West"})).await.is_error(412, stale);
    let delete = manager.request(Method::DELETE, &path).header("if-match", &tag);
    manager.send(delete).await.is_error(412, stale);
    assert_eq!(manager.get(&path).await["name"], "Süd");
    update("x", json!({}))
        .await
        .is_error(400, "If-Match: expected the ETag of an answer, in its quotation marks, or *");
    assert_eq!(update(&format!("\"x\", {newer}"), json!({"name": "West"})).await.status, 200);
    assert_eq!(update("*", json!({"name": "Ost"})).await.status, 200);
    // Nothing is changed by an update that changes nothing.
    let same = update("*", json!({"name": "Ost"})).await;
    assert_eq!(same.header("etag"), manager.ask("GET", &path, &Value::Null).await.header("etag"));
    let ignored = manager.request(Method::GET, &path).header("if-match", &tag);
    manager.send(ignored).await.is_error(400, "If-Match: this operation is not for one version of a client");
    for (body, problem) in [
        (json!({"allow": ["10.0.0.1/8"]}), "allow: "),
        (json!({"name": ""}), "name: "),
        (json!({"scopes": ["a\"b"]}), "scopes: "),
        (json!({"colour": 1}), "unknown field"),
    ] {
        let refused = update("*", body).await;
        assert_eq!(refused.status, 400);
        assert!(refused.json()["detail"].as_str().unwrap().contains(problem), "{refused:?}");
    }
    assert_eq!(
        update("*", json!({"allow": ["10.0.0.0/8"], "certificates": ["dns:a.example"]})).await.status,
        200
    );
    update("*", json!({"allow": []}))
        .await
        .is_error(400, "allow: an empty allowlist lets every address call: say so with allow_any");
    update("*", json!({"certificates": []})).await.is_error(
        400,
        "certificates: without a name the client would need no certificate: say so with unbind",
    );
}

#[tokio::test]
async fn a_creation_under_one_key_creates_once() {
    let app = TestApp::start().await;
    let (manager, another) =
        (Manager::new(&app, Role::Operator, &[]).await, Manager::new(&app, Role::Operator, &[]).await);
    let create = async |manager: &Manager<'_>, key: &str, name: &str| {
        let request = manager.request(Method::POST, "/clients").header("idempotency-key", key);
        manager.send(request.json(&json!({ "name": name }))).await
    };
    // A refused creation leaves the key to the next.
    create(&manager, "k", "").await;
    let created = create(&manager, "k", "a").await;
    assert_eq!(created.status, 200, "{created:?}");
    let again = create(&manager, "k", "a").await;
    let told =
        "Idempotency-Key: it was used before, and created /admin/v1/clients/1. Its secret is not shown again";
    again.is_error(409, told);
    assert_eq!(again.json()["created"], "/admin/v1/clients/1");
    assert!(!again.body.contains("rs_"));
    let other = create(&manager, "k", "b").await;
    other.is_error(409, "Idempotency-Key: it was used for another request");
    assert_eq!(other.json().get("created"), None);
    // A key is its token's own, and is forgotten after a day.
    assert_eq!(create(&another, "k", "b").await.status, 200);
    create(&manager, "ä", "c")
        .await
        .is_error(400, "Idempotency-Key: expected one of 1 to 128 visible ASCII characters");
    let at_once = futures_util::future::join_all((0..8).map(|_| create(&manager, "parallel", "d"))).await;
    assert_eq!(at_once.iter().filter(|reply| reply.status == 200).count(), 1, "{at_once:?}");
    assert!(at_once.iter().all(|reply| [200, 409].contains(&reply.status)), "{at_once:?}");
    assert_eq!(manager.get("/clients").await.as_array().unwrap().len(), 3);
    let app = {
        drop((manager, another));
        app.restart().await
    };
    let manager = Manager::new(&app, Role::Operator, &[]).await;
    app.advance(DAY);
    assert_eq!(create(&manager, "k", "a").await.status, 200);
}

#[tokio::test]
async fn clients_are_listed_in_pages() {
    let app = TestApp::start().await;
    let manager = Manager::new(&app, Role::Viewer, &[]).await;
    for name in ["a", "B", "ab", "c"] {
        let new = admin::NewClient { name: name.into(), ..admin::NewClient::default() };
        app.client_of(new).await;
    }
    let names = |reply: &Reply| -> Vec<String> {
        reply.json().as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = manager.ask("GET", "/clients?limit=1&name=b", &Value::Null).await;
    assert_eq!(names(&first), ["B"]);
    let next = "</admin/v1/clients?limit=1&name=b&after=2>; rel=\"next\"";
    assert_eq!(first.header("link"), Some(next));
    let second = manager.ask("GET", "/clients?limit=1&name=b&after=2", &Value::Null).await;
    assert_eq!((names(&second), second.header("link")), (vec!["ab".to_owned()], None));
    assert_eq!(names(&manager.ask("GET", "/clients?status=suspended", &Value::Null).await), [""; 0]);
    let sorted = manager.ask("GET", "/clients?sort=name&after=1", &Value::Null).await;
    sorted.is_error(400, "after: expected in the order of the ids only");
    let unknown = manager.ask("GET", "/clients?colour=1", &Value::Null).await;
    assert_eq!(unknown.status, 400);
}

// check 83, 87
#[tokio::test]
async fn no_page_of_another_origin_reaches_the_admin_api() {
    let app = TestApp::start().await;
    let manager = Manager::new(&app, Role::Admin, &[]).await;
    let another = "The admin API answers no page of another origin";
    let own = format!("http://{}", app.management);
    for (name, value) in [
        ("origin", "https://a.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for path in ["/clients", "/openapi.json", "/docs", "/nowhere"] {
            let request = manager.request(Method::GET, path).header(name, value);
            manager.send(request).await.is_error(403, another);
        }
    }
    let request = manager
        .request(Method::GET, "/clients")
        .header("origin", own)
        .header("sec-fetch-site", "same-origin");
    assert_eq!(manager.send(request).await.status, 200);
    // A preflight gets no permission.
    let preflight =
        manager.request(Method::OPTIONS, "/clients").header("access-control-request-method", "POST");
    let reply = manager.send(preflight).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (405, None));
    // DNS rebinding: the attacker's name is this address.
    for host in ["a.example", "a.example:8081", "127.0.0.1.a.example"] {
        let request = manager.request(Method::GET, "/clients").header("host", host);
        manager
            .send(request)
            .await
            .is_error(403, "Host: without TLS the admin API is at a loopback address or localhost");
    }
    // What a form can send.
    for form in ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"] {
        let request = manager.request(Method::POST, "/clients").header("content-type", form);
        manager
            .send(request.body(r#"{"name":"x"}"#))
            .await
            .is_error(415, "Content-Type must be application/json");
    }
    let cookie = manager.http.get(format!("http://{}/admin/v1/clients", app.management));
    let cookie = cookie.header("cookie", format!("token={}", manager.token));
    app.send(cookie).await.is_error(401, "Authorization header required");
    assert_eq!(manager.get("/clients").await, json!([]));
}

#[tokio::test]
async fn off_loopback_the_admin_api_needs_tls() {
    let app = TestApp::with(|config| config.server.management_listen = "0.0.0.0:0".parse().unwrap()).await;
    let url = format!("http://127.0.0.1:{}/admin/v1/clients", app.management.port());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let closed = "The admin API needs TLS on an address that others reach: set tls.management";
    app.send(http.get(url)).await.is_error(403, closed);
}

#[tokio::test]
async fn a_token_that_is_revoked_while_a_body_arrives_does_nothing_by_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let manager = Manager::new(&app, Role::Admin, &[]).await;
    let body = r#"{"name": "renamed"}"#;
    let head = format!(
        "PATCH /admin/v1/clients/{} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        client.id,
        app.management,
        manager.token,
        body.len()
    );
    // The service asks for the body when it has read the token.
    let revoked = async || _ = admin::revoke_management_token(&app.app, manager.id).await.unwrap();
    let answer = raw::continued(app.management, &head, revoked, body).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("Invalid token"), "{answer}");
    assert_eq!(app.stored(&client).await.name, "test");
    // Who has no token is not waited for.
    let head = head.replace(&manager.token, "x");
    raw::answer(app.management, &head).await.is_error(401, "Invalid token");
}

#[tokio::test]
async fn a_token_is_bound_only_to_clients_that_are_there() {
    let app = TestApp::start().await;
    let (there, deleted) = (app.client().await, app.client().await);
    let manager = Manager::new(&app, Role::Admin, &[]).await;
    let reply = manager.ask("DELETE", &format!("/clients/{}", deleted.id), &Value::Null).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let beyond = i64::MAX as u64 + 1;
    for id in [deleted.id, 99, beyond, u64::MAX] {
        let new = json!({"name": "ci", "role": "viewer", "clients": [there.id, id]});
        let create = manager.request(Method::POST, "/management-tokens").header("idempotency-key", id);
        let reply = manager.send(create.json(&new)).await;
        reply.is_error(400, &format!("clients: there is no client {id}"));
    }
    assert_eq!(manager.get("/management-tokens").await.as_array().unwrap().len(), 1);
    // No other id that is beyond the stores' own is a failure of the store.
    for operation in operations() {
        let path = operation.path.replace("{id}", &beyond.to_string());
        if path == operation.path {
            continue;
        }
        for body in [Value::Null, json!({}), json!({"role": "viewer"}), json!({"name": "x"})] {
            let reply = manager.ask(&operation.method, &path, &body).await;
            assert!([400, 404].contains(&reply.status), "{} {path}: {reply:?}", operation.method);
        }
    }
}

#[tokio::test]
async fn a_head_of_a_backup_makes_none() {
    let app = TestApp::start().await;
    let admin = Manager::new(&app, Role::Admin, &[]).await;
    let before = admin.get("/audit").await["last"].clone();
    let head = admin.request(Method::HEAD, "/backup").send().await.unwrap();
    assert_eq!(head.status(), 200);
    let media_type = head.headers()["content-type"].clone();
    assert_eq!(admin.get("/audit").await["last"], before);
    assert_eq!(Samples::of(&app).await.get("rescind_backup_timestamp_seconds"), 0.0);
    let get = admin.request(Method::GET, "/backup").send().await.unwrap();
    assert_eq!(get.headers()["content-type"], media_type);
    assert!(get.bytes().await.unwrap().starts_with(b"SQLite format 3"));
    assert_eq!(
        admin.get("/audit").await["events"].as_array().unwrap().last().unwrap()["kind"],
        "store_backed_up"
    );
}

#[tokio::test]
async fn what_an_operation_does_not_know_is_refused_and_changes_nothing() {
    let app = TestApp::start().await;
    app.client().await;
    let admin = Manager::new(&app, Role::Admin, &[]).await;
    let before = admin.get("/audit").await["last"].clone();
    let parameter = regex::Regex::new(r"\{[a-z_]+\}").unwrap();
    for Operation { method, path, .. } in operations() {
        let path = parameter.replace(&path, "1");
        let reply = match method.as_str() {
            "GET" | "DELETE" => admin.ask(&method, &format!("{path}?nope=1"), &Value::Null).await,
            _ => admin.ask(&method, &path, &json!({"nope": 1})).await,
        };
        assert_eq!(reply.status, 400, "{method} {path}: {reply:?}");
        assert!(reply.body.contains("unknown field `nope`"), "{method} {path}: {reply:?}");
    }
    assert_eq!(admin.get("/audit").await["last"], before);
}

#[test]
fn every_operation_may_fail() {
    let document = rescind::http::document();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for status in ["500", "503"] {
                assert!(operation["responses"][status].is_object(), "{method} {path} {status}");
            }
        }
    }
}
