//! `POST /auth/login`

use rescind_admin::{self as admin, NewCredential};
use serde_json::{Value, json};

use crate::{
    app::{Client, DAY, FORWARDED_FOR, HOUR, TestApp},
    raw,
};

const REQUIRED: &str = "Username and password are required";

#[tokio::test]
async fn a_login_gives_two_tokens_and_their_times() {
    let app = TestApp::start().await;
    app.client().await;
    let client = app.client().await;
    let reply = app.login(&client).await;
    let pair = reply.pair();
    assert!(pair.access.starts_with("eyJhbGciOiJIUzI1NiIs"), "{}", pair.access);
    assert!(pair.refresh.starts_with("eyJhbGciOiJIUzI1NiIs"), "{}", pair.refresh);
    assert_ne!(pair.access, pair.refresh);
    assert_eq!(pair.access_expires_at, "2025-01-15T13:00:00Z");
    assert_eq!(pair.refresh_expires_at, "2025-01-22T12:00:00Z");
    assert_eq!(reply.json()["data"]["client_id"], json!(2));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(app.stands(&pair.access).await);
}

#[tokio::test]
async fn every_login_gives_tokens_of_its_own_beside_the_others() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (first, second) = (app.grant(&client).await, app.grant(&client).await);
    assert_ne!(first.access, second.access);
    assert_ne!(first.refresh, second.refresh);
    assert!(app.stands(&first.access).await && app.stands(&second.access).await);
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_the_content_type_may_have_parameters() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let body = json!({"x": [1, {"y": null}], "username": client.key, "z": "", "password": client.secret});
    for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON ;a=b"] {
        let request = app.post("/auth/login").header("content-type", content_type).body(body.to_string());
        app.send(request).await.pair();
    }
}

#[tokio::test]
async fn both_fields_are_required() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (key, secret) = (&client.key, &client.secret);
    for body in [
        json!({}),
        json!({"username": key}),
        json!({"password": secret}),
        json!({"username": "", "password": secret}),
        json!({"username": key, "password": ""}),
        json!({"username": null, "password": secret}),
        json!({"username": key, "password": null}),
        json!({"Username": key, "Password": secret}),
    ] {
        let reply = app.send(app.post("/auth/login").json(&body)).await;
        reply.is_error(400, REQUIRED);
        assert_eq!(reply.header("www-authenticate"), None);
    }
    app.send(app.post("/auth/login")).await.is_error(400, REQUIRED);
}

#[tokio::test]
async fn fields_of_another_type_are_named() {
    let app = TestApp::start().await;
    for wrong in [json!(1), json!(true), json!([]), json!({}), json!(["a"])] {
        let send = |body: Value| app.send(app.post("/auth/login").json(&body));
        let reply = send(json!({"username": wrong, "password": "b"})).await;
        reply.is_error(400, "username must be a string");
        let reply = send(json!({"username": "a", "password": wrong})).await;
        reply.is_error(400, "password must be a string");
    }
}

// check 57, 58, CVE-2025-6203
#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let app = TestApp::start().await;
    let deep = "[".repeat(60_000);
    let duplicate = "Request body: a name occurs twice in one object at line 1 column";
    let not_json = "Request body must be valid JSON";
    let no_object = "Request body must be a JSON object";
    let cases: [(&[u8], &str); 14] = [
        (br#"{"username":"a","username":"b","password":"c"}"#, duplicate),
        (br#"{"username":"a","password":"c","x":{"username":1,"username":2}}"#, duplicate),
        (b"{", not_json),
        (b"username=a&password=b", not_json),
        (b"{} {}", not_json),
        (b"{'username':'a'}", not_json),
        (b"\xef\xbb\xbf{\"username\":\"a\",\"password\":\"b\"}", not_json),
        (b"{\"username\":\"\xff\",\"password\":\"b\"}", not_json),
        (b"{\"username\":\"a\0\",\"password\":\"b\"}", not_json),
        (br#"{"username":"\ud800","password":"b"}"#, not_json),
        (br#"{"username":"a","password":"b","n":1e400}"#, not_json),
        (deep.as_bytes(), not_json),
        (br#"["username","password"]"#, no_object),
        (br#""username""#, no_object),
    ];
    for (body, expected) in cases {
        let request = app.post("/auth/login").header("content-type", "application/json").body(body.to_vec());
        let reply = app.send(request).await;
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        // Where in the body it was found is left to the parser.
        assert!(message.starts_with(expected), "{:?}: {message}", String::from_utf8_lossy(body));
        reply.is_error(400, &message);
    }
}

// check 56
#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let body = json!({"username": client.key, "password": client.secret}).to_string();
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/json5", "", "json"] {
        let request = app.post("/auth/login").header("content-type", content_type).body(body.clone());
        app.send(request).await.is_error(415, "Content-Type must be application/json");
    }
    let request = app.post("/auth/login").body(body);
    app.send(request).await.is_error(415, "Content-Type must be application/json");
}

// check 107
#[tokio::test]
async fn a_body_that_is_encoded_is_refused() {
    const MESSAGE: &str = "Content-Encoding must be identity";
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let login = json!({"username": client.key, "password": client.secret});
    let refresh = json!({"refresh_token": pair.refresh});
    for lines in [&["gzip"][..], &["GZIP"], &["identity, gzip"], &["identity", "br"], &[""], &["identity,"]] {
        for (path, body) in [("/auth/login", &login), ("/auth/refresh", &refresh)] {
            let mut request = app.post(path).json(body);
            for line in lines {
                request = request.header("content-encoding", *line);
            }
            let reply = app.send(request).await;
            reply.is_error(415, MESSAGE);
            assert_eq!(reply.header("accept-encoding"), Some("identity"), "{lines:?}");
        }
    }
    // A body of the wrong type is no question of its encoding.
    let typed = app.post("/auth/login").header("content-type", "text/plain").body("x");
    assert_eq!(app.send(typed).await.header("accept-encoding"), None);
    for line in ["identity", "Identity"] {
        app.send(app.post("/auth/login").header("content-encoding", line).json(&login)).await.pair();
    }
    // What is not read need not be readable.
    let bare = app.post("/auth/login").header("content-encoding", "gzip");
    app.send(bare).await.is_error(400, "Username and password are required");
    app.send(app.post("/auth/refresh").json(&refresh)).await.pair();
    let logout = app.post("/auth/logout").bearer_auth(&pair.access).header("content-encoding", "gzip");
    app.send(logout.body("x")).await.is_logged_out();
}

// check 54
#[tokio::test]
async fn a_body_that_is_too_long_is_refused_however_it_comes() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let body = |length: usize| {
        let body = json!({"username": client.key, "password": client.secret, "x": ""}).to_string();
        body.replace(r#""x":"""#, &format!(r#""x":"{}""#, "x".repeat(length - body.len())))
    };
    let post = |body: String| app.post("/auth/login").header("content-type", "application/json").body(body);
    assert_eq!(body(65_536).len(), 65_536);
    app.send(post(body(65_536))).await.pair();
    let too_long = "Request body must not be longer than 65536 bytes";
    app.send(post(body(65_537))).await.is_error(413, too_long);

    let chunked = |body: String| {
        let mut request = b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body.as_bytes().chunks(1000) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    };
    raw::answer(app.address, chunked(body(65_536))).await.pair();
    raw::answer(app.address, chunked(body(65_537))).await.is_error(413, too_long);
    // Not all of it has to arrive for it to be known.
    let head = "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let unfinished = format!("{head}Content-Length: 99999999\r\n\r\n{}", body(70_000));
    raw::answer(app.address, unfinished).await.is_error(413, too_long);
}

// check 17, 75, CVE-2023-22492, CVE-2024-47000, CVE-2025-64521, CVE-2025-6011: login survives no deactivation
#[tokio::test]
async fn bad_credentials_of_every_kind_get_one_answer() {
    let app = TestApp::start().await;
    let good = app.client().await;
    let unknown = app.client().await;
    let unknown = Client { key: unknown.key.replacen("rk_", "rk_x", 1), ..unknown };
    let wrong = Client { secret: app.client().await.secret, ..good.clone() };
    let another_case = Client { key: good.key.to_uppercase(), ..good.clone() };
    let revoked = app.client().await;
    admin::revoke_credential(&app.app, &revoked.key).await.unwrap();
    let suspended = app.client().await;
    admin::suspend(&app.app, suspended.id, Default::default()).await.unwrap();
    let deleted = app.client().await;
    admin::delete(&app.app, deleted.id).await.unwrap();
    let expires_in = NewCredential { expires_in: Some("1h".parse().unwrap()) };
    let expired = admin::create_credential(&app.app, good.id, expires_in).await.unwrap();
    let expired = Client { key: expired.api_key, secret: expired.api_secret, ..good.clone() };
    app.advance(HOUR - 1);
    app.grant(&expired).await;
    app.advance(1);

    for (why, client) in [
        ("unknown", unknown),
        ("wrong", wrong),
        ("another case", another_case),
        ("revoked", revoked),
        ("suspended", suspended),
        ("deleted", deleted),
        ("expired", expired),
    ] {
        let reply = app.login(&client).await;
        assert_eq!(reply.status, 401, "{why}");
        reply.is_error(401, "Invalid credentials");
        assert_eq!(reply.header("www-authenticate"), None);
    }
    app.grant(&good).await;
}

#[tokio::test]
async fn a_resumed_client_logs_in_again() {
    let app = TestApp::start().await;
    let client = app.client().await;
    admin::suspend(&app.app, client.id, Default::default()).await.unwrap();
    app.login(&client).await.is_error(401, "Invalid credentials");
    admin::resume(&app.app, client.id).await.unwrap();
    assert!(app.stands(&app.grant(&client).await.access).await);
}

// check 70
#[tokio::test]
async fn good_credentials_from_another_address_are_403() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["203.0.113.0/24", "2001:db8::/32"]).await;
    app.at("203.0.113.7").login(&client).await.pair();
    app.at("2001:db8::7").login(&client).await.pair();
    for strange in ["203.0.114.7", "2001:db9::7", "127.0.0.1"] {
        app.at(strange).login(&client).await.is_error(403, "IP address not authorized");
    }
}

#[tokio::test]
async fn a_wrong_secret_from_another_address_is_401() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["203.0.113.0/24"]).await;
    let wrong = Client { secret: "rs_wrong".into(), ..client };
    app.at("192.0.2.1").login(&wrong).await.is_error(401, "Invalid credentials");
    // The body goes before either.
    let request = app.post("/auth/login").header(FORWARDED_FOR, "192.0.2.1");
    app.send(request.json(&json!({"username": wrong.key}))).await.is_error(400, REQUIRED);
}

#[tokio::test]
async fn logins_outlive_a_restart() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let before = app.grant(&client).await;
    let app = app.restart().await;
    assert!(app.stands(&before.access).await);
    assert!(app.stands(&app.grant(&client).await.access).await);
    app.advance(7 * DAY);
    app.verify(&before.access).await.is_error(401, "Token expired");
}
