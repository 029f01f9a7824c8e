//! Requests whose bodies never arrive must not block other requests.

use std::time::Duration;

use reqwest::Method;
use rescind_node::config::{Config, OnUnavailable};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    app::{TestApp, trust_proxy},
    edge::limits::{PATIENCE, bounded, from, is_served, refusal},
    follow::{exact::renew, verifier_token},
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, frame, request},
    raw,
};

/// With `Expect: 100-continue`, so that the server reports when it begins to wait for the body.
const HEAD: &str = "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
    Content-Length: 60\r\nExpect: 100-continue\r\n\r\n";
const WAITS: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const TOO_MANY: &str = "Too many requests. Retry after 1 second.";

fn requests(in_all: usize, per_address: usize) -> impl FnOnce(&mut Config) {
    move |config| {
        config.server.max_requests = in_all;
        config.server.max_requests_per_address = per_address;
    }
}

/// A connection from this address, on which the server waits for a body.
async fn waiting(address: &str, app: &TestApp) -> TcpStream {
    let mut stream = from(address, app.address).await;
    stream.write_all(HEAD.as_bytes()).await.unwrap();
    let mut said = [0; WAITS.len()];
    timeout(PATIENCE, stream.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, WAITS);
    stream
}

/// An HTTP/2 connection on which the server waits for the bodies of this many streams.
async fn waiting_streams(app: &TestApp, streams: u32) -> Frames {
    let mut connection = Frames::open(app.address).await;
    let head = request("POST", "/auth/login", &[("content-type", "application/json")]);
    for i in 0..streams {
        connection.send(frame(HEADERS, END_HEADERS, i * 2 + 1, &head)).await.unwrap();
    }
    connection.propagate().await.unwrap();
    connection
}

/// Whether the server has sent nothing on a connection.
async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(Duration::ZERO, stream.read(&mut [0; 1])).await.is_err()
}

// check 100
#[tokio::test]
async fn whoever_holds_all_places_with_bodies_that_never_come_loses_them_to_newcomers() {
    let app = TestApp::with(bounded(10, 100)).await;
    let mut held = vec![];
    for _ in 0..10 {
        held.push(waiting("127.0.0.1", &app).await);
    }
    for _ in 0..30 {
        assert!(is_served(&mut from("127.0.0.2", app.address).await).await);
    }
    // One has gone, for nobody needed more at once.
    let mut silent = 0;
    for stream in &mut held {
        silent += usize::from(is_silent(stream).await);
    }
    assert_eq!(silent, 9);
}

// check 100: streams that are begun again and again
#[tokio::test]
async fn a_connection_is_not_in_use_for_the_streams_that_wait_on_it() {
    let app = TestApp::with(bounded(10, 100)).await;
    let mut held = vec![];
    for _ in 0..10 {
        held.push(waiting_streams(&app, 3).await);
    }
    for i in 0..30 {
        assert!(is_served(&mut from("127.0.0.2", app.address).await).await);
        let head = request("POST", "/auth/login", &[("content-type", "application/json")]);
        // The one that was closed is no matter.
        let _ = held[i % 10].send(frame(HEADERS, END_HEADERS, 101, &head)).await;
    }
}

// check 100
#[tokio::test]
async fn of_one_addresss_requests_the_one_that_has_waited_longest_makes_room() {
    let app = TestApp::with(requests(100, 3)).await;
    let mut held = vec![];
    for _ in 0..3 {
        held.push(waiting("127.0.0.1", &app).await);
        app.advance(1);
    }
    let mut kept = from("127.0.0.1", app.address).await;
    assert!(is_served(&mut kept).await);
    let reply = refusal(held.remove(0)).await;
    reply.is_error(503, TOO_MANY);
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert!(is_silent(&mut held[0]).await && is_silent(&mut held[1]).await);
    // A place was given back with that answer, and another address has its own.
    held.push(waiting("127.0.0.1", &app).await);
    assert!(is_served(&mut from("127.0.0.2", app.address).await).await);
    let metrics = app.app.metrics.requests_under_way(rescind_base::telemetry::metrics::Listener::Public);
    assert_eq!((metrics.taken.get(), metrics.turned_away.get()), (3, 1));
    drop(held);
}

// check 100
#[tokio::test]
async fn a_stream_that_makes_room_is_answered_and_its_neighbours_go_on() {
    let app = TestApp::with(requests(100, 3)).await;
    let mut held = waiting_streams(&app, 3).await;
    app.send(app.request(Method::GET, "/nowhere")).await.is_error(404, "No such path");
    let answer = held.next_of(&[HEADERS, RST_STREAM]).await.unwrap();
    assert_eq!(answer.kind, HEADERS);
    let body = held.next_of(&[DATA]).await.unwrap();
    assert!(String::from_utf8(body.payload).unwrap().contains(TOO_MANY));
    // The others are asked for their bodies still.
    let other = if answer.stream == 3 { 5 } else { 3 };
    held.send(frame(DATA, END_STREAM, other, b"{}")).await.unwrap();
    let body = loop {
        let frame = held.next_of(&[DATA]).await.unwrap();
        if frame.stream == other {
            break frame;
        }
    };
    assert!(String::from_utf8(body.payload).unwrap().contains("Username and password are required"));
}

// check 100
#[tokio::test]
async fn a_request_that_is_worked_on_makes_room_for_nobody() {
    for (undecided, verdict, message) in [
        (OnUnavailable::Forbidden, 403, "Not able to decide now"),
        (OnUnavailable::Unavailable, 503, TOO_MANY),
    ] {
        let app = TestApp::with(|config| {
            config.forward_auth.unavailable = undecided;
            requests(1, 1)(config);
        })
        .await;
        let other = app.grant(&app.client().await).await.access;
        // Memory does not know this session then.
        let app = app.restart().await;
        let token = app.grant(&app.client().await).await.access;
        // It is waited for, until its lease has run out: so is the logout's answer.
        renew(&app, &verifier_token(&app, true).await, "silent").await;
        let under_way =
            app.app.metrics.requests_under_way(rescind_base::telemetry::metrics::Listener::Public).taken;
        let logout = async {
            app.logout(&token).await.is_logged_out();
        };
        let meanwhile = async {
            while under_way.get() == 0 {
                tokio::task::yield_now().await;
            }
            for path in ["/nowhere", "/auth/login"] {
                let reply = app.send(app.post(path)).await;
                reply.is_error(503, TOO_MANY);
                assert_eq!(reply.header("retry-after"), Some("1"));
            }
            // What memory decides needs no place. What must wait for the store needs one.
            app.verify("none").await.is_error(401, "Invalid token");
            app.verify(&other).await.is_error(verdict, message);
            app.advance(60);
        };
        tokio::join!(logout, meanwhile);
        app.send(app.post("/nowhere")).await.is_error(404, "No such path");
    }
}

// check 100
#[tokio::test]
async fn requests_of_trusted_proxies_are_counted_in_all_only() {
    let app = TestApp::with(|config| {
        trust_proxy(config);
        requests(3, 1)(config);
    })
    .await;
    let mut held = vec![];
    for _ in 0..3 {
        held.push(waiting("127.0.0.1", &app).await);
        app.advance(1);
    }
    // Theirs make room for their own, and for nobody else.
    let closing = format!("{}\r\n", "GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    let mut other = from("127.0.0.2", app.address).await;
    other.write_all(closing.as_bytes()).await.unwrap();
    refusal(other).await.is_error(503, TOO_MANY);
    raw::answer(app.address, &closing).await.is_error(404, "No such path");
    refusal(held.remove(0)).await.is_error(503, TOO_MANY);
    assert!(is_silent(&mut held[0]).await && is_silent(&mut held[1]).await);
}
