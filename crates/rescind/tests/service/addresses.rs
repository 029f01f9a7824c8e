//! Callers' addresses and allowlists.

use rescind_admin::{self as admin, AllowChange};

use crate::{
    app::{FORWARDED_FOR, Pair, TestApp, trust_proxy},
    oauth::send,
};

const FORBIDDEN: &str = "IP address not authorized";

/// The status of a verification with these header lines.
async fn status(app: &TestApp, pair: &Pair, header: &str, lines: &[&str]) -> u16 {
    let mut request = app.request(reqwest::Method::GET, "/verify").bearer_auth(&pair.access);
    for line in lines {
        request = request.header(header, *line);
    }
    let reply = app.send(request).await;
    if reply.status != 200 {
        reply.is_error(403, FORBIDDEN);
    }
    reply.status
}

/// A service with a client that may call only from 203.0.113.7, and the client's tokens.
async fn at_one_address(change: impl FnOnce(&mut rescind_node::config::Config)) -> (TestApp, Pair) {
    let app = TestApp::with(|config| {
        trust_proxy(config);
        change(config);
    })
    .await;
    let client = app.client_allowed(&["203.0.113.7"]).await;
    let header =
        app.post("/auth/login").json(&serde_json::json!({"username": client.key, "password": client.secret}));
    let pair = app
        .send(header.header(FORWARDED_FOR, "203.0.113.7").header("forwarded", "for=203.0.113.7"))
        .await
        .pair();
    (app, pair)
}

// check 63
#[tokio::test]
async fn what_a_header_says_is_not_read_unless_a_trusted_proxy_says_it() {
    let untrusting = TestApp::start().await;
    let client = untrusting.client_allowed(&["127.0.0.1"]).await;
    let pair = untrusting.grant(&client).await;
    assert_eq!(status(&untrusting, &pair, FORWARDED_FOR, &["203.0.113.7"]).await, 200);
    assert_eq!(status(&untrusting, &pair, FORWARDED_FOR, &["garbage"]).await, 200);

    let distrusting = TestApp::with(|config| {
        trust_proxy(config);
        config.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let home = distrusting.client_allowed(&["127.0.0.1"]).await;
    distrusting.at("203.0.113.7").login(&home).await.pair();
    let away = distrusting.client_allowed(&["203.0.113.7"]).await;
    distrusting.at("203.0.113.7").login(&away).await.is_error(403, FORBIDDEN);
    distrusting.at("10.0.0.1").login(&away).await.is_error(403, FORBIDDEN);
}

// check 64
#[tokio::test]
async fn the_walk_goes_from_right_to_left_over_trusted_hops_only() {
    let (app, pair) =
        at_one_address(|config| config.server.trusted_proxies.push("10.0.0.0/8".parse().unwrap())).await;
    let xff = async |lines: &[&str]| status(&app, &pair, FORWARDED_FOR, lines).await;
    assert_eq!(xff(&["203.0.113.7"]).await, 200);
    assert_eq!(xff(&["192.0.2.1, 203.0.113.7"]).await, 200);
    assert_eq!(xff(&["garbage, 203.0.113.7,10.1.2.3 , 10.0.0.1"]).await, 200);
    // Several lines are one list.
    assert_eq!(xff(&["192.0.2.1", "203.0.113.7", "10.1.2.3, 10.1.2.4"]).await, 200);
    assert_eq!(xff(&["192.0.2.1, 203.0.113.7", "127.0.0.1"]).await, 200);
    // What a caller writes to the left of its own address is its own invention.
    assert_eq!(xff(&["203.0.113.7, 192.0.2.1"]).await, 403);
    assert_eq!(xff(&["203.0.113.7", "192.0.2.1"]).await, 403);
    assert_eq!(xff(&["203.0.113.7, 192.0.2.1", "10.1.2.3"]).await, 403);
    assert_eq!(xff(&["10.1.2.3"]).await, 403);
}

// check 106: a proxy that does not say for whom it asks is not taken for the caller
#[tokio::test]
async fn a_trusted_proxy_that_names_no_caller_is_denied() {
    let app = TestApp::behind_proxy().await.naming_nobody();
    // Even where the proxy's own address may call, and where every address may.
    for client in [app.client_allowed(&["127.0.0.1"]).await, app.client().await] {
        let pair = app.at("127.0.0.1").login(&client).await.pair();
        let stored = app.stored(&client).await;
        app.login(&client).await.is_error(403, FORBIDDEN);
        app.refresh(&pair.refresh).await.is_error(403, FORBIDDEN);
        app.logout(&pair.access).await.is_error(403, FORBIDDEN);
        app.verify(&pair.access).await.is_error(403, FORBIDDEN);
        let token = app.post("/oauth2/token").basic_auth(&client.key, Some(&client.secret));
        let token = send(
            token
                .header("content-type", "application/x-www-form-urlencoded")
                .body("grant_type=client_credentials"),
        )
        .await;
        assert_eq!((token.status, token.json()["error"].as_str()), (400, Some("unauthorized_client")));
        assert!(app.is_unchanged(&stored).await);
        app.at("127.0.0.1").refresh(&pair.refresh).await.pair();
    }
    // A probe that shows no token is told what everybody without one is.
    let bare = app.send(app.request(reqwest::Method::GET, "/verify")).await;
    bare.is_error(401, "Authorization header required");
}

// check 65, 67, 68, CVE-2026-25748, CVE-2024-47070: unparsable X-Forwarded-For
#[tokio::test]
async fn a_hop_that_cannot_be_read_is_denied_even_where_every_address_may_call() {
    let app = TestApp::behind_proxy().await;
    let client = app.client().await;
    let pair = app.grant(&client).await;
    let stored = app.stored(&client).await;
    for bad in [
        "garbage",
        "unknown",
        "_hidden",
        "203.0.113",
        "203.0.113.07",
        "0xcb.0.113.7",
        "3405803783",
        "203.0.113.7.",
        "203.0.113.7:",
        "203.0.113.7:99999",
        "fe80::1%eth0",
        "[::1",
        "203.0.113.7,",
        ",",
        "\"203.0.113.7\"",
        "203.0.113.7 203.0.113.8",
        "203.0.113.0/24",
        "localhost",
        "203.0.113.7, unknown",
        "",
    ] {
        assert_eq!(app.at(bad).verify(&pair.access).await.status, 403, "{bad:?}");
        app.at(bad).verify(&pair.access).await.is_error(403, FORBIDDEN);
        app.at(bad).login(&client).await.is_error(403, FORBIDDEN);
        app.at(bad).refresh(&pair.refresh).await.is_error(403, FORBIDDEN);
        app.at(bad).logout(&pair.access).await.is_error(403, FORBIDDEN);
    }
    assert!(app.is_unchanged(&stored).await);
    app.renew(&pair).await;
}

// check 66, 67, CVE-2024-24790: IPv4-mapped addresses
#[tokio::test]
async fn mapped_addresses_are_ipv4_and_ports_and_brackets_are_left_off() {
    let (app, pair) = at_one_address(|_| {}).await;
    let xff = async |line: &str| status(&app, &pair, FORWARDED_FOR, &[line]).await;
    for same in [
        "::ffff:203.0.113.7",
        "::FFFF:cb00:7107",
        "[::ffff:203.0.113.7]:443",
        "203.0.113.7:443",
        // As NAT64 writes it.
        "64:ff9b::203.0.113.7",
    ] {
        assert_eq!(xff(same).await, 200, "{same}");
    }
    for other in ["::203.0.113.7", "::ffff:203.0.113.8", "64:ff9b::203.0.113.8", "2002:cb00:7107::", "::1"] {
        assert_eq!(xff(other).await, 403, "{other}");
    }
    let mapped = app.client_allowed(&["::ffff:203.0.113.0/120", "2001:db8::/32"]).await;
    let view = admin::client(&app.app, mapped.id).await.unwrap();
    assert_eq!(view.allow, ["203.0.113.0/24", "2001:db8::/32"]);
    app.at("203.0.113.9").login(&mapped).await.pair();
    app.at("[2001:db8:1::5]:1").login(&mapped).await.pair();
    app.at("203.0.114.9").login(&mapped).await.is_error(403, FORBIDDEN);
}

// check 67: RFC 7239
#[tokio::test]
async fn forwarded_is_read_if_it_is_the_configured_header() {
    let forwarded = |config: &mut rescind_node::config::Config| {
        config.server.client_address_header = Some("forwarded".parse().unwrap());
    };
    let (app, pair) = at_one_address(forwarded).await;
    let ask = async |lines: &[&str]| status(&app, &pair, "forwarded", lines).await;
    assert_eq!(ask(&["for=203.0.113.7"]).await, 200);
    assert_eq!(ask(&["for=192.0.2.1, For=\"203.0.113.7:80\";proto=https"]).await, 200);
    assert_eq!(ask(&["for=192.0.2.1", "for=203.0.113.7"]).await, 200);
    for bad in ["for=unknown", "for=_x", "203.0.113.7", "for=203.0.113.7;for=203.0.113.7", "proto=https"] {
        assert_eq!(ask(&[bad]).await, 403, "{bad}");
    }
    // The other header is not read then.
    assert_eq!(status(&app, &pair, FORWARDED_FOR, &["203.0.113.7"]).await, 403);
}

// check 17, 70, 72
#[tokio::test]
async fn a_narrower_allowlist_holds_from_the_very_next_request() {
    let app = TestApp::behind_proxy().await;
    let client = app.client_allowed(&["203.0.113.0/24", "198.51.100.0/24"]).await;
    let here = app.at("198.51.100.7");
    let pair = here.login(&client).await.pair();
    assert_eq!(here.verify(&pair.access).await.status, 200);
    let remove = AllowChange { remove: vec!["198.51.100.0/24".into()], ..AllowChange::default() };
    admin::change_allowlist(&app.app, client.id, remove).await.unwrap();
    here.verify(&pair.access).await.is_error(403, FORBIDDEN);
    here.logout(&pair.access).await.is_error(403, FORBIDDEN);
    here.refresh(&pair.refresh).await.is_error(403, FORBIDDEN);
    here.login(&client).await.is_error(403, FORBIDDEN);
    assert_eq!(app.at("203.0.113.9").verify(&pair.access).await.status, 200);
    // It takes nothing back: from there the tokens are good again.
    let add = AllowChange { add: vec!["198.51.100.7".into()], ..AllowChange::default() };
    admin::change_allowlist(&app.app, client.id, add).await.unwrap();
    assert_eq!(here.verify(&pair.access).await.status, 200);
    app.at("198.51.100.8").verify(&pair.access).await.is_error(403, FORBIDDEN);
    let pair = here.refresh(&pair.refresh).await.pair();
    here.logout(&pair.access).await.is_logged_out();
}
