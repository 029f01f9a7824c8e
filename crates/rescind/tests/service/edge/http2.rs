//! HTTP/2: the same contract, and limits for peers that flood a connection.

use reqwest::{Method, Version};
use serde_json::json;

use crate::{
    app::TestApp,
    frames::{
        CALM, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM,
        SETTINGS, block, frame, memory, request,
    },
};

/// The most memory that a flood may cost, in bytes: far more than it does, far less than it sends.
const MEMORY: usize = 128 << 20;
/// The bytes of these indexed statuses (RFC 7541 §A).
const BAD_REQUEST: u8 = 0x80 | 12;
const NOT_FOUND: u8 = 0x80 | 13;

#[tokio::test]
async fn the_contract_holds() {
    let app = TestApp::start().await.over_http2();
    let client = app.client().await;
    let response = app.request(Method::GET, "/verify").send().await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);

    let pair = app.renew(&app.grant(&client).await).await;
    assert!(app.stands(&pair.access).await);
    app.logout(&pair.access).await.is_logged_out();
    assert!(!app.stands(&pair.access).await);

    let asked = async |method, path| app.send(app.request(method, path)).await;
    asked(Method::GET, "/nowhere").await.is_error(404, "No such path");
    let wrong = asked(Method::GET, "/auth/login").await;
    wrong.is_error(405, "Method not allowed on this path");
    assert_eq!(wrong.header("allow"), Some("POST"));
    asked(Method::TRACE, "/auth/login").await.is_error(405, "Method not allowed on this path");
    asked(Method::POST, "/auth/logout").await.is_error(401, "Authorization header required");
    let sane = app.send(app.request(Method::GET, "/verify").header("x-request-id", "mine")).await;
    assert_eq!(sane.header("x-request-id"), Some("mine"));

    // Nothing follows the head of such an answer (RFC 9113 §8.1.1).
    for (path, status) in [
        ("/verify", 401),
        ("/nowhere", 404),
        ("/auth/login", 405),
        ("/.well-known/oauth-authorization-server", 200),
        ("/.well-known/jwks.json", 200),
    ] {
        let reply = asked(Method::HEAD, path).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, ""), "{path}");
        let length = reply.header("content-length").map(|length| length.parse::<usize>().unwrap());
        assert!(length.is_some_and(|length| length > 0), "{path}: {length:?}");
    }

    let typed = app.post("/auth/login").header("content-type", "text/plain").body("{}");
    app.send(typed).await.is_error(415, "Content-Type must be application/json");
    let long = app.post("/auth/login").json(&json!({ "username": "x".repeat(100_000) }));
    app.send(long).await.is_error(413, "Request body must not be longer than 65536 bytes");
}

// check 53
#[tokio::test]
async fn a_head_too_large_is_refused() {
    const TOO_LARGE: &str = "A request has at most 100 headers of at most 16384 bytes together";
    let app = TestApp::start().await.over_http2();
    let many = (0..101).fold(app.post("/auth/logout"), |r, i| r.header(format!("x-{i}"), "y"));
    app.send(many).await.is_error(431, TOO_LARGE);
    let long = app.post("/auth/logout").header("x", "y".repeat(20_000));
    app.send(long).await.is_error(431, TOO_LARGE);
    let verify = app.request(Method::GET, "/verify").header("x", "y".repeat(20_000));
    app.send(verify).await.is_error(403, "Not able to decide on this request");

    // Where h2 gives up, it answers by itself, and without a body.
    let fields: Vec<(String, String)> = (0..5).map(|i| (format!("x-{i}"), "y".repeat(15_000))).collect();
    let mut connection = Frames::open(app.address).await;
    let head = request("GET", "/verify", &[]);
    connection.send(frame(HEADERS, END_STREAM, 1, &head)).await.unwrap();
    for (i, (name, value)) in fields.iter().enumerate() {
        let flags = if i == 4 { END_HEADERS } else { 0 };
        connection.send(frame(CONTINUATION, flags, 1, &block(&[(name, value)]))).await.unwrap();
    }
    let answer = connection.next_of(&[HEADERS, DATA, RST_STREAM]).await.unwrap();
    assert_eq!((answer.kind, answer.flags & END_STREAM), (HEADERS, END_STREAM), "{answer:?}");
    assert!(connection.propagate().await.is_some());
}

// check 55: a reader that opens no window
#[tokio::test]
async fn answers_that_nobody_reads_end_the_connection() {
    let app = TestApp::in_real_time(|config| {
        config.server.idle_timeout = "1s".parse().unwrap();
    })
    .await;
    let mut connection = Frames::open(app.address).await;
    connection.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    let head = request("GET", "/nowhere", &[]);
    for stream in (1..200).step_by(2) {
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)).await.unwrap();
    }
    let mut kinds = vec![];
    while let Some(frame) = connection.next().await {
        kinds.push(frame.kind);
    }
    assert_eq!(kinds.iter().filter(|&&kind| kind == HEADERS).count(), 100);
    assert!(!kinds.contains(&DATA), "{kinds:?}");
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
}

// check 51
#[tokio::test]
async fn what_http2_forbids_is_refused() {
    let app = TestApp::start().await;
    let well = [("te", "trailers"), ("x", "y")];
    for fields in well {
        let mut connection = Frames::open(app.address).await;
        let head = request("GET", "/verify", &[fields]);
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await.unwrap();
        let answer = connection.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await.unwrap();
        assert_eq!(answer.kind, HEADERS, "{fields:?}");
    }
    for fields in [
        ("te", "gzip"),
        ("te", "trailers, deflate"),
        ("connection", "close"),
        ("connection", "authorization"),
        ("proxy-connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("x", "a\r\nauthorization: b"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("x\r\ny", "z"),
        ("x:y", "z"),
        ("x y", "z"),
        ("X", "y"),
        ("", "y"),
        (":path", "/auth/logout"),
        (":status", "200"),
        (":unknown", "x"),
        ("content-length", "5"),
        ("content-length", "+0"),
    ] {
        let mut connection = Frames::open(app.address).await;
        let head = request("GET", "/verify", &[fields]);
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await.unwrap();
        let answer = connection.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await;
        assert!(answer.as_ref().is_none_or(|frame| frame.kind != HEADERS), "{fields:?}: {answer:?}");
    }
    // One request has one authority. The status comes first, and is one of RFC 7541's table.
    for (host, status) in [("x", NOT_FOUND), ("X", NOT_FOUND), ("y", BAD_REQUEST)] {
        let mut connection = Frames::open(app.address).await;
        let head = request("GET", "/nowhere", &[("host", host)]);
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await.unwrap();
        let answer = connection.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await.unwrap();
        assert_eq!((answer.kind, answer.payload[0]), (HEADERS, status), "{host}");
    }
}

// check 105
#[tokio::test]
async fn connect_is_refused() {
    let app = TestApp::start().await;
    let mut connection = Frames::open(app.address).await;
    let head = block(&[(":method", "CONNECT"), (":authority", "elsewhere:443")]);
    connection.send(frame(HEADERS, END_HEADERS, 1, &head)).await.unwrap();
    let answer = connection.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await.unwrap();
    assert_eq!((answer.kind, answer.payload[0]), (HEADERS, BAD_REQUEST));
}

// check 52: CVE-2023-44487
#[tokio::test]
async fn streams_opened_to_be_reset_end_the_connection() {
    let app = TestApp::start().await;
    let token = app.grant(&app.client().await).await.access;
    let before = memory();
    let authorization = format!("Bearer {token}");
    let head = request("GET", "/verify", &[("authorization", &authorization)]);
    let mut connection = Frames::open(app.address).await;
    let mut sent = 0;
    'flood: for round in 0..1000 {
        let mut bytes = vec![];
        for i in 0..100 {
            let stream = (round * 100 + i) * 2 + 1;
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
            bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        }
        if connection.send(&bytes).await.is_err() {
            break 'flood;
        }
        sent += 100;
    }
    assert!(sent < 100_000, "the flood was taken to its end");
    assert!(app.stands(&token).await);
    assert!(memory().saturating_sub(before) < MEMORY);
}

// check 52: the same, slowly: each request has begun before it is reset
#[tokio::test]
async fn requests_called_off_leave_nothing_behind() {
    let app = TestApp::start().await;
    let mut connection = Frames::open(app.address).await;
    let head = request("POST", "/auth/login", &[("content-type", "application/json")]);
    for stream in (1..600).step_by(2) {
        connection.send(frame(HEADERS, END_HEADERS, stream, &head)).await.unwrap();
        connection.propagate().await.unwrap();
        connection.send(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await.unwrap();
    }
    let whole = request("GET", "/nowhere", &[]);
    connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 601, &whole)).await.unwrap();
    assert_eq!(connection.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await.unwrap().stream, 601);
}

// check 52: CVE-2024-27316
#[tokio::test]
async fn a_head_that_is_continued_for_ever_ends_the_connection() {
    let app = TestApp::start().await;
    let before = memory();
    let mut connection = Frames::open(app.address).await;
    connection.send(frame(HEADERS, 0, 1, &request("GET", "/verify", &[]))).await.unwrap();
    let mut continued = 0;
    let part = frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(1000))]));
    while continued < 100_000 && connection.send(&part).await.is_ok() {
        continued += 1;
    }
    assert!(continued < 100_000, "the head was taken to its end");
    app.send(app.request(Method::GET, "/nowhere")).await.is_error(404, "No such path");
    assert!(memory().saturating_sub(before) < MEMORY);

    let mut connection = Frames::open(app.address).await;
    connection.send(frame(HEADERS, 0, 1, &request("GET", "/verify", &[]))).await.unwrap();
    for _ in 0..8 {
        let _ = connection.send(&part).await;
    }
    assert!(matches!(connection.ended().await, None | Some(CALM)));
}

// check 52: a table of fields that refer to one another grows with what is referred to
#[tokio::test]
async fn fields_that_unfold_are_counted_as_unfolded() {
    let app = TestApp::start().await;
    let before = memory();
    let mut connection = Frames::open(app.address).await;
    let mut head = request("GET", "/verify", &[]);
    // One field of 4000 bytes into the dynamic table (§6.2.1), and then a byte for each repetition.
    let field = block(&[("x", &"y".repeat(4000))]);
    head.push(0x40);
    head.extend_from_slice(&field[1..]);
    head.extend(std::iter::repeat_n(0x80 + 62, 10_000));
    connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await.unwrap();
    let answer = connection.next_of(&[HEADERS, DATA, RST_STREAM, GOAWAY]).await;
    let refused = answer.is_none_or(|a| a.kind != HEADERS || a.flags & END_STREAM == END_STREAM);
    assert!(refused);
    app.send(app.request(Method::GET, "/nowhere")).await.is_error(404, "No such path");
    assert!(memory().saturating_sub(before) < MEMORY);
}

// check 52: frames that ask for answers which nobody reads
#[tokio::test]
async fn pings_and_settings_without_end_are_not_kept() {
    for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])] {
        let app = TestApp::in_real_time(|config| {
            config.server.request_timeout = "1s".parse().unwrap();
        })
        .await;
        let before = memory();
        let mut connection = Frames::open(app.address).await;
        let batch = flood.repeat(1000);
        let mut sent = 0_usize;
        while sent < 1 << 30 && connection.send(&batch).await.is_ok() {
            sent += batch.len();
        }
        assert!(sent < 1 << 30, "the flood was taken to its end");
        app.send(app.request(Method::GET, "/nowhere")).await.is_error(404, "No such path");
        assert!(memory().saturating_sub(before) < MEMORY, "{}", memory().saturating_sub(before));
    }
}

// check 52: a body of nothing that never ends
#[tokio::test]
async fn empty_data_frames_are_not_kept() {
    let app = TestApp::in_real_time(|config| {
        config.server.request_timeout = "1s".parse().unwrap();
    })
    .await;
    let before = memory();
    let mut connection = Frames::open(app.address).await;
    let head = request("POST", "/auth/login", &[("content-type", "application/json")]);
    connection.send(frame(HEADERS, END_HEADERS, 1, &head)).await.unwrap();
    let batch = frame(DATA, 0, 1, &[]).repeat(1000);
    // Until the body has taken too long, and is answered for.
    let (mut reader, mut writer) = connection.0.into_split();
    let flood = tokio::spawn(async move {
        let mut sent = 0_usize;
        while sent < 1 << 30 && tokio::io::AsyncWriteExt::write_all(&mut writer, &batch).await.is_ok() {
            sent += batch.len();
        }
        sent
    });
    let mut received = vec![];
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut received).await;
    assert!(flood.await.unwrap() < 1 << 30, "the flood was taken to its end");
    app.send(app.request(Method::GET, "/nowhere")).await.is_error(404, "No such path");
    assert!(memory().saturating_sub(before) < MEMORY);
}

// check 52
#[tokio::test]
async fn one_connection_has_so_many_streams() {
    let app = TestApp::start().await;
    let mut connection = Frames::open(app.address).await;
    let head = request("POST", "/auth/login", &[("content-type", "application/json")]);
    for stream in (1..=201).step_by(2) {
        connection.send(frame(HEADERS, END_HEADERS, stream, &head)).await.unwrap();
    }
    let refused = connection.next_of(&[RST_STREAM]).await.unwrap();
    assert_eq!((refused.stream, &*refused.payload), (201, &[0, 0, 0, 7][..]), "REFUSED_STREAM");
}

// check 61, 63: who asks, and from where, is told as over HTTP/1.1
#[tokio::test]
async fn forward_auth_trusts_no_more_than_over_http1() {
    let app = TestApp::start().await.over_http2();
    let client = app.client_allowed(&["203.0.113.7"]).await;
    let forged = app.at("203.0.113.7");
    forged.login(&client).await.is_error(403, "IP address not authorized");

    let app = TestApp::behind_proxy().await.over_http2();
    let client = app.client_allowed(&["203.0.113.7"]).await;
    let pair = app.at("203.0.113.7").login(&client).await.pair();
    let home = app.at("203.0.113.7").verify(&pair.access).await;
    assert_eq!(home.status, 200);
    assert!(home.headers.keys().any(|name| name.as_str().starts_with("x-rescind-")));
    app.at("203.0.113.8").verify(&pair.access).await.is_error(403, "IP address not authorized");
}
