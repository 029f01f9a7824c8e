//! The form of requests to the OAuth endpoints.

use reqwest::{
    Method,
    header::{ALLOW, CONTENT_TYPE},
};

use crate::{
    app::TestApp,
    oauth::{DOORS, TOKEN, Who, introspector, parameters, request, request_of, send},
};

// check 1
#[tokio::test]
async fn only_post_is_a_request() {
    let app = TestApp::start().await;
    for door in DOORS {
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post"] {
            let reply = app.send(app.request(method.parse().unwrap(), door)).await;
            assert_eq!(reply.status, 405, "{method} {door}");
            assert_eq!(reply.header(ALLOW.as_str()), Some("POST"), "{method} {door}");
        }
    }
    for document in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/.well-known/jwks.json",
    ] {
        let reply = app.send(app.request(Method::POST, document)).await;
        reply.is_error(405, "Method not allowed on this path");
        assert_eq!(reply.header(ALLOW.as_str()), Some("GET,HEAD"), "{document}");
    }
}

// check 2
#[tokio::test]
async fn a_repeated_parameter_is_refused() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    for door in DOORS {
        let [(name, value)] = parameters(door);
        for repeated in [
            format!("{name}={value}&{name}={value}"),
            format!("{name}={value}&{name}="),
            format!("{name}={value}&client_id={0}&client_id={0}", client.key),
            format!("{name}={value}&client_secret=&client_secret="),
        ] {
            let reply = send(request_of(&app, door, &client, &repeated)).await;
            reply.is_oauth_error(400, "invalid_request");
        }
    }
    let twice = "grant_type=client_credentials&scope=introspect&scope=introspect";
    send(request_of(&app, TOKEN, &client, twice)).await.is_oauth_error(400, "invalid_request");
}

// check 2
#[tokio::test]
async fn unknown_parameters_are_ignored_and_empty_ones_absent() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    for door in DOORS {
        let [(name, value)] = parameters(door);
        for more in [
            "resource=",
            "audience=x&scope=",
            "token_type_hint=",
            "client_secret=&client_id=",
            "&&=&",
            "x=1&x=2",
            "x=&x=",
            "%22%C3%A4=1&%22%C3%A4=2",
        ] {
            let reply = send(request_of(&app, door, &client, &format!("{name}={value}&{more}"))).await;
            assert_eq!(reply.status, 200, "{door} {more} {reply:?}");
        }
        for missing in [String::new(), format!("{name}="), name.to_owned(), format!("{name}x={value}")] {
            let reply = send(request_of(&app, door, &client, &missing)).await;
            reply.is_oauth_error(400, "invalid_request");
        }
    }
    // An empty scope is not the empty set of scopes.
    let reply = send(request_of(&app, TOKEN, &client, "grant_type=client_credentials&scope=")).await;
    assert_eq!(reply.json()["scope"], "introspect");
}

// check 54, 56, 57, 107
#[tokio::test]
async fn only_a_form_of_sensible_size_in_utf_8_is_read() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    for door in DOORS {
        let good = || request(&app, door, Who::Basic(&client), &parameters(door));
        let typed = "Application/X-WWW-Form-Urlencoded; charset=UTF-8";
        let without_type = app.post(door).basic_auth(&client.key, Some(&client.secret));
        let [(name, value)] = parameters(door);
        let without_type = without_type.body(format!("{name}={value}"));
        send(without_type.try_clone().unwrap()).await.is_oauth_error(415, "invalid_request");
        assert_eq!(send(without_type.header(CONTENT_TYPE, typed)).await.status, 200);
        let json = app.post(door).basic_auth(&client.key, Some(&client.secret));
        let json = json.json(&serde_json::json!({ name: value }));
        send(json).await.is_oauth_error(415, "invalid_request");

        let encoded = send(good().header("content-encoding", "gzip")).await;
        encoded.is_oauth_error(415, "invalid_request");
        assert_eq!(encoded.header("accept-encoding"), Some("identity"));

        let large = format!("{name}={value}&x={}", "a".repeat(70_000));
        send(good().body(large)).await.is_oauth_error(413, "invalid_request");
        for bad in [b"x=%FF".as_slice(), b"x=\xff", b"%C3=1", b"x=%ED%A0%80"] {
            let body = [name.as_bytes(), b"=", value.as_bytes(), b"&", bad].concat();
            send(good().body(body)).await.is_oauth_error(400, "invalid_request");
        }
    }
}
