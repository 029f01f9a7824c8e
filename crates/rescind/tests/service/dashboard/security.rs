//! Section H of the security checks.

use std::{collections::BTreeSet, fs};

use axum::{body::Body, extract::Request};
use http_body_util::BodyExt;
use regex::Regex;
use reqwest::Method;
use rescind::http::{self, Door, client_ip::Peer};
use rescind_admin::{self as admin, NewClient};
use rescind_base::model::{Actor, EventKind, Role};

use super::browser::Browser;
use crate::{app::TestApp, raw};

const PAGES: [&str; 12] = [
    "/dashboard/clients",
    "/dashboard/clients/1",
    "/dashboard/clients/new",
    "/dashboard/administrators",
    "/dashboard/account",
    "/dashboard/overview",
    "/dashboard/audit",
    "/dashboard/refused",
    "/dashboard/keys",
    "/dashboard/cluster",
    "/dashboard/settings",
    "/dashboard/management-tokens",
];

// check 85
#[tokio::test]
async fn every_page_runs_no_inline_script_or_style_and_is_in_no_frame() {
    let app = TestApp::start().await;
    app.client().await;
    let browser = Browser::signed_in(&app, Role::Admin).await;
    let link = admin::create_administrator(
        &app.app,
        admin::NewAdministrator { name: "x".into(), role: Role::Viewer },
    );
    let link = link.await.unwrap().link;
    let others = [
        "/dashboard/sign-in",
        "/dashboard/no-such-page",
        "/dashboard/style.css",
        "/dashboard/htmx.min.js",
        "/dashboard/dashboard.js",
        &link,
    ];
    let inline = Regex::new(r"<script(>| [^>]*>)[^<]").unwrap();
    let elsewhere = Regex::new(r#"(src|href|action)="(https?:)?//"#).unwrap();
    for path in PAGES.iter().chain(&others) {
        let page = browser.get(path).await;
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        assert_eq!(page.headers["cache-control"], "no-store");
        if page.headers["content-type"].to_str().unwrap().starts_with("text/html") {
            page.lacks(" style=").lacks(" onclick=").lacks("<style");
            assert!(!inline.is_match(&page.body), "{path}");
            // Nothing comes from elsewhere.
            assert!(!elsewhere.is_match(&page.body), "{path}");
        }
    }
}

// check 83
#[tokio::test]
async fn posts_of_other_origins_and_other_forms_are_refused() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let browser = Browser::signed_in(&app, Role::Admin).await;
    let own = format!("http://{}", app.management);
    let post = |content_type: &str| {
        let request = browser.request(Method::POST, "/dashboard/do/logOutClient/1");
        request.header("content-type", content_type).body("_name=test")
    };
    let form = "application/x-www-form-urlencoded";
    for request in [
        // Nothing says where it comes from.
        post(form),
        post(form).header("origin", "https://evil.example"),
        post(form).header("origin", "null"),
        post(form).header("origin", &own).header("sec-fetch-site", "cross-site"),
        post(form).header("sec-fetch-site", "same-site"),
    ] {
        browser.follow("", request).await.is_refused(403, "its own pages only");
    }
    for content_type in ["text/plain", "application/json", "multipart/form-data; boundary=x", ""] {
        let page = browser.follow("", post(content_type).header("origin", &own)).await;
        page.is_refused(415, "Content-Type must be application/x-www-form-urlencoded");
    }
    assert!(app.stands(&pair.access).await);
    browser.follow("", post(form).header("origin", &own)).await;
    assert!(!app.stands(&pair.access).await);
}

// check 84
#[tokio::test]
async fn nothing_changes_by_get() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let browser = Browser::signed_in(&app, Role::Admin).await;
    for path in [
        "/dashboard/do/logOutClient/1?_name=test",
        "/dashboard/do/deleteClient/1?_name=test",
        "/dashboard/sign-out",
        "/dashboard/account/password",
        "/dashboard/account/enrolment",
        "/dashboard/clients/1/allow",
    ] {
        let page = browser.get(path).await;
        assert_eq!(page.status, 405, "{path}: {}", page.body);
    }
    assert!(app.stands(&pair.access).await);
    assert_eq!(browser.get("/dashboard/clients").await.path, "/dashboard/clients");
}

// check 86
#[tokio::test]
async fn a_hostile_name_is_text() {
    let app = TestApp::start().await;
    let names = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' autofocus onfocus='alert(1)",
        "</title></textarea><svg onload=alert(1)>",
        "javascript:alert(1)",
        "{{7*7}} ${7*7} &lt;b&gt;",
    ];
    for name in names {
        admin::create_client(&app.app, NewClient { name: name.into(), ..NewClient::default() })
            .await
            .unwrap();
    }
    let browser = Browser::signed_in(&app, Role::Admin).await;
    for id in 1..=names.len() {
        let list = browser.get(&format!("/dashboard/clients?name={}", "%3Cscript%3E%22")).await;
        for page in [
            browser.get(&format!("/dashboard/clients/{id}")).await,
            browser.get("/dashboard/clients").await,
            list,
        ] {
            page.lacks("<script>alert").lacks("<img").lacks("<svg onload").lacks("href=\"javascript:");
        }
        let shown = browser.get(&format!("/dashboard/clients/{id}")).await;
        shown.has(
            &names[id - 1]
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;"),
        );
    }
    // In a message, in the filter, and in what a refused form says.
    browser
        .post(
            "/dashboard/do/renameClient/1",
            &[("name", "<b>x</b>"), ("_done", "<i>y</i>"), ("_then", "/dashboard/clients/1")],
        )
        .await
        .has("&lt;b&gt;x")
        .lacks("<i>y")
        .lacks("<b>x");
    browser.post("/dashboard/do/suspendClient/1", &[("for", "<u>z</u>")]).await.lacks("<u>z");
}

// check 81
#[tokio::test]
async fn a_cookie_that_comes_twice_or_is_no_cookie_of_a_sign_in_is_no_sign_in() {
    let app = TestApp::start().await;
    let browser = Browser::signed_in(&app, Role::Admin).await;
    let cookie = browser.cookies.borrow()["__Host-rescind"].clone();
    let stranger = Browser::of(&app);
    let ask = async |cookies: &str| {
        let request = stranger.request(Method::GET, "/dashboard/clients").header("cookie", cookies);
        stranger.follow("/dashboard/clients", request).await.path == "/dashboard/clients"
    };
    assert!(ask(&format!("a=b; __Host-rescind={cookie}")).await);
    for cookies in [
        format!("__Host-rescind={cookie}; __Host-rescind={cookie}"),
        format!("rescind={cookie}"),
        format!("__Host-rescind={}", cookie.to_uppercase()),
        format!("__Host-rescind={}", &cookie[..cookie.len() - 1]),
        "__Host-rescind=".into(),
    ] {
        assert!(!ask(&cookies).await, "{cookies}");
    }
}

// check 87
#[tokio::test]
async fn the_dashboard_is_at_no_name_that_an_attacker_may_resolve_to_it() {
    let app = TestApp::start().await;
    let browser = Browser::signed_in(&app, Role::Admin).await;
    let request = browser.request(Method::GET, "/dashboard/clients").header("host", "evil.example");
    browser.follow("", request).await.is_refused(403, "Host: without TLS");
}

#[tokio::test]
async fn a_link_on_another_page_leads_to_the_page_and_not_to_the_sign_in() {
    let app = TestApp::start().await;
    let browser = Browser::of(&app);
    // The browser keeps the cookie back.
    let request = browser.request(Method::GET, "/dashboard/clients/1").header("sec-fetch-site", "cross-site");
    let page = browser.follow("/dashboard/clients/1", request).await;
    page.has("http-equiv=\"refresh\" content=\"0; url=/dashboard/clients/1\"");
}

#[tokio::test]
async fn the_form_of_a_stranger_is_short_and_every_form_has_few_fields() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    let new = admin::NewAdministrator { name: "x".into(), role: Role::Viewer };
    let link = admin::create_administrator(&app.app, new).await.unwrap().link;
    let long = "x".repeat(8192);
    for path in ["/dashboard/sign-in", &link] {
        let page = browser.post(path, &[("name", &long)]).await;
        page.is_refused(413, "Request body must not be longer than 8192 bytes");
        browser.post(path, &[("a", ""); 17]).await.is_refused(400, "This form has at most 16 fields");
    }
    for path in ["/dashboard/account/password", "/dashboard/do/renameClient/1", "/dashboard/clients/1/allow"]
    {
        browser.post(path, &[("a", ""); 101]).await.is_refused(400, "This form has at most 100 fields");
    }
    let page = browser.post("/dashboard/clients/1/allow", &[("list", &"192.0.2.0/24\n".repeat(9000))]).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(app.stored(&client).await.name, "test");
}

#[tokio::test]
async fn who_is_removed_while_a_form_arrives_does_nothing_by_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    let id = app.app.store.administrators().await.unwrap()[0].id;
    let cookie = browser.cookies.borrow()["__Host-rescind"].clone();
    let body = "_name=test";
    let head = format!(
        "POST /dashboard/do/logOutClient/1 HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\nConnection: close\r\n\
         Cookie: __Host-rescind={cookie}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {1}\r\nExpect: 100-continue\r\n\r\n",
        app.management,
        body.len()
    );
    // The service asks for the body when it has read the sign-in.
    let removed = async || _ = admin::remove_administrator(&app.app, id).await.unwrap();
    let answer = raw::continued(app.management, &head, removed, body).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("Your sign-in has ended"), "{answer}");
    assert!(app.stands(&pair.access).await);
}

#[tokio::test]
async fn a_form_that_is_sent_after_the_sign_in_has_ended_leads_to_a_page() {
    let app = TestApp::start().await;
    app.client().await;
    let browser = Browser::signed_in(&app, Role::Operator).await;
    let (signed_in, ended) = (browser.cookies.borrow().clone(), Browser::of(&app));
    let page = ended.get("/dashboard/clients/1?tab=a").await;
    page.has("value=\"/dashboard/clients/1?tab=a\"");
    for path in ["/dashboard/do/renameClient/1", "/dashboard/account/password", "/dashboard/clients/1/allow"]
    {
        let page = ended.post(path, &[("name", "other")]).await;
        assert_eq!(page.status, 200, "{path}");
        let then = page.find(r#"name="then" value="([^"]*)""#);
        *browser.cookies.borrow_mut() = signed_in.clone();
        assert_eq!(browser.get(&then).await.status, 200, "{path}: {then}");
    }
}

#[tokio::test]
async fn every_answer_is_a_page_whatever_its_path_and_query_say() {
    let app = TestApp::start().await;
    app.client().await;
    let (browser, stranger) = (Browser::signed_in(&app, Role::Admin).await, Browser::of(&app));
    for path in ["/dashboard/clients/abc", "/dashboard/enrol/%ff", "/dashboard/handover/%ff"] {
        browser.get(path).await.is_refused(404, "No such path");
    }
    for path in [
        "/dashboard/do/renameClient/%ff",
        "/dashboard/enrol/%ff",
        "/dashboard/handover/%ff",
        "/dashboard/clients/a/allow",
    ] {
        browser.post(path, &[]).await.is_refused(404, "No such path");
    }
    let route = Regex::new(r#"\.route\(\s*"([^"]*)""#).unwrap();
    let mut routes = BTreeSet::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/dashboard")).unwrap() {
        let file = file.unwrap().path();
        // `mod.rs` has what leads here from elsewhere.
        let Some(text) = fs::read_to_string(&file).ok().filter(|_| !file.ends_with("mod.rs")) else {
            continue;
        };
        routes.extend(route.captures_iter(&text).map(|found| format!("/dashboard{}", &found[1])));
    }
    assert!(routes.contains("/dashboard/clients/{id}/allow") && routes.len() > 20, "{routes:?}");
    let parameter = Regex::new(r"\{[a-z]+\}").unwrap();
    // The sign-in ends by the last one.
    let (last, others): (Vec<_>, _) = routes.iter().partition(|route| route.ends_with("/sign-out"));
    for route in others.into_iter().chain(last) {
        for value in ["%ff", "abc", "1", "%00"] {
            let path = parameter.replace_all(route, value);
            for query in ["", "?then=a&then=b", "?id=%ff"] {
                let path = format!("{path}{query}");
                for browser in [&browser, &stranger] {
                    let put = browser.follow(&path, browser.request(Method::PUT, &path)).await;
                    for page in [browser.get(&path).await, browser.post(&path, &[]).await, put] {
                        let media_type = page.headers["content-type"].to_str().unwrap();
                        let is_file = page.status == 200 && media_type.starts_with("text/csv");
                        let is_page = media_type.starts_with("text/html") && page.body.contains("<html");
                        assert!(is_file || is_page, "{path}: {page:?}");
                    }
                }
            }
        }
    }
    // Of a query, the first value counts.
    stranger.get("/dashboard/sign-in?then=/dashboard/a&then=b").await.has("value=\"/dashboard/a\"");
}

#[tokio::test]
async fn an_export_ends_with_the_sign_in_that_it_was_begun_by() {
    let app = TestApp::start().await;
    let browser = Browser::signed_in(&app, Role::Viewer).await;
    let event = app.app.audit.origin(Actor::Operator, None).event(EventKind::Throttled);
    app.app.store.record(vec![event; 5000]).await.unwrap();
    let id = app.app.store.administrators().await.unwrap()[0].id;
    let request = browser.request(Method::GET, "/dashboard/audit.csv").build().unwrap();
    let mut asked = Request::builder().uri("/dashboard/audit.csv").header("host", "localhost");
    asked = asked.header("cookie", &request.headers()["cookie"]);
    let routes = http::management(app.app.clone(), Door::Loopback);
    let answer = routes.serve(asked.body(Body::empty()).unwrap(), &Peer::LOCAL).await;
    assert_eq!(answer.status(), 200);
    // Nobody has read the first page of it.
    admin::remove_administrator(&app.app, id).await.unwrap();
    let (mut body, mut rows) = (answer.into_body(), 0);
    let ended = loop {
        match body.frame().await {
            Some(Ok(frame)) => rows += frame.into_data().unwrap().iter().filter(|&&b| b == b'\n').count(),
            Some(Err(_)) => break "cut off",
            None => break "whole",
        }
    };
    assert_eq!(ended, "cut off");
    assert!(rows <= 2001, "{rows}");
}
