//! Rules for every path: unknown paths, wrong methods, request ids.

use std::collections::HashSet;

use reqwest::{Method, redirect::Policy};

use crate::{app::TestApp, raw};

const NO_PATH: &str = "No such path";
const NO_METHOD: &str = "Method not allowed on this path";

#[tokio::test]
async fn paths_that_are_not_there_are_404() {
    let app = TestApp::start().await;
    for path in [
        "/",
        "/auth",
        "/auth/",
        "/auth/login/",
        "/auth/Login",
        "//auth/login",
        "/auth/login/x",
        "/auth/../auth/login",
        "/auth%2Flogin",
        "/login",
        "/verifyx",
        "/favicon.ico",
        "/metrics",
        "/livez",
        "/readyz",
        "/healthz",
        "/admin/v1/clients",
        "/admin/v1/status",
        "/debug/pprof",
    ] {
        for method in ["GET", "POST", "OPTIONS", "TRACE"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            raw::answer(app.address, request).await.is_error(404, NO_PATH);
        }
    }
}

// check 1, 62
#[tokio::test]
async fn methods_that_a_path_has_not_are_405_with_those_that_it_has() {
    let app = TestApp::start().await;
    let pair = app.grant(&app.client().await).await;
    for path in ["/auth/login", "/auth/refresh", "/auth/logout"] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "post"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let reply = app.send(app.request(method.clone(), path).bearer_auth(&pair.access)).await;
            assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")), "{method} {path}");
            assert_eq!(reply.header("content-type"), Some("application/json"));
            if method == Method::HEAD {
                assert_eq!(reply.body, "");
            } else {
                reply.is_error(405, NO_METHOD);
            }
        }
    }
    assert!(app.stands(&pair.access).await);
}

// Load balancers ask for health by HEAD too.
#[tokio::test]
async fn a_head_at_the_management_listener_is_that_of_the_get() {
    let app = TestApp::start().await;
    let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/nowhere", 404),
        ("/admin/v1/clients", 401),
        ("/dashboard", 303),
    ] {
        let url = format!("http://{}{path}", app.management);
        let (get, head) = (app.send(http.get(&url)).await, app.send(http.head(&url)).await);
        assert_eq!((get.status, head.status, head.body.as_str()), (status, status, ""), "{path}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
    }
}

// check 62: an echo would show what scripts must not see
#[tokio::test]
async fn trace_echoes_nothing() {
    let app = TestApp::start().await;
    for path in ["/auth/login", "/verify", "/nowhere"] {
        let request = format!(
            "TRACE {path} HTTP/1.1\r\nHost: x\r\nCookie: canary\r\nX-Canary: canary\r\nConnection: close\r\n\r\n"
        );
        let reply = raw::answer(app.address, request).await;
        assert_ne!(reply.status, 200, "{path}");
        assert!(!format!("{reply:?}").contains("canary"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_sane_request_id_comes_back_and_any_other_is_replaced() {
    let app = TestApp::start().await;
    let longest = "x".repeat(128);
    for id in ["a", "1b4c-22:33_!~", "\"quoted\"", &longest] {
        for path in ["/verify", "/nowhere", "/auth/login"] {
            let reply = app.send(app.request(Method::GET, path).header("x-request-id", id)).await;
            assert_eq!(reply.header("x-request-id"), Some(id));
        }
    }
    let too_long = "x".repeat(129);
    let mut seen = HashSet::new();
    for id in ["", "a b", "a\tb", "ä", &too_long] {
        let id = reqwest::header::HeaderValue::from_bytes(id.as_bytes()).unwrap();
        let reply = app.send(app.request(Method::GET, "/verify").header("x-request-id", id)).await;
        assert!(is_ksuid(reply.header("x-request-id").unwrap()), "{reply:?}");
        assert!(seen.insert(reply.header("x-request-id").unwrap().to_owned()));
    }
    let reply = app.send(app.request(Method::GET, "/verify")).await;
    assert!(is_ksuid(reply.header("x-request-id").unwrap()));
    // Those of 2025-01-15T12:00:00Z.
    let of_that_second = "2rfForXdCfMyuqZ2zy34q5LESki"..="2rfFozKhEsdL0KEok7qDcySUAMp";
    assert!(of_that_second.contains(&reply.header("x-request-id").unwrap()));
}

fn is_ksuid(id: &str) -> bool {
    id.len() == 27 && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

// check 3, 33
#[tokio::test]
async fn nothing_is_to_be_kept_by_anyone() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let login = app.login(&client).await;
    let refresh = app.refresh(&login.pair().refresh).await;
    let verify = app.verify(&login.pair().access).await;
    let logout = app.logout(&login.pair().access).await;
    let refused = app.logout(&login.pair().access).await;
    assert_eq!(refused.status, 401);
    for reply in [login, refresh, verify, logout, refused] {
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("set-cookie"), None);
        assert_eq!(reply.header("access-control-allow-origin"), None);
        assert_eq!(reply.header("server"), None);
    }
}
