//! Requests that are no HTTP, or whose end is unclear. The service refuses them and closes the connection, or reads
//! exactly one request. In every exchange another request follows on the same connection.

use crate::{
    app::TestApp,
    raw::{answer, exchange, local},
    reply::Reply,
};

/// The request that follows. Its answer is a 404.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";
const NOT_HTTP: &str = "The request is not valid HTTP";

/// Asserts that a request is refused, and that the request after it gets no answer.
async fn refused(app: &TestApp, request: &str, status: u16, message: &str) {
    let mut replies = exchange(app.address, format!("{request}{NEXT}")).await;
    assert_eq!(replies.len(), 1, "{request:?}: {replies:?}");
    let reply = replies.remove(0);
    reply.says_error(status, message);
    assert_eq!(reply.header("connection"), Some("close"), "{request:?}");
}

/// Returns the answer to a request that must be read as exactly one, so that the next request gets its 404.
async fn taken_for_one(app: &TestApp, request: &str) -> Reply {
    let mut replies = exchange(app.address, format!("{request}{NEXT}")).await;
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert!(matches!(*statuses, [_, 404]), "{request:?}: {replies:?}");
    replies.remove(0)
}

/// A logout with these header lines and this text after the head.
fn logout(token: &str, lines: &str, body: &str) -> String {
    format!("POST /auth/logout HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{lines}\r\n\r\n{body}")
}

// check 50
#[tokio::test]
async fn a_head_that_is_no_http_is_refused_and_the_connection_closed() {
    let app = TestApp::start().await;
    for request in [
        "\x16\x03\x01\r\n\r\n",
        "GET /verify\r\n\r\n",
        "GET /verify HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET /verify HTTP/2.0\r\nHost: x\r\n\r\n",
        "G@T( /verify HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /ver ify HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /ver\x01ify HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /verify HTTP/1.1\r\nHo st: x\r\n\r\n",
        "GET /verify HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET /verify HTTP/1.1\r\nHost\r\n\r\n",
        "GET /verify HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "GET /verify HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        "GET /verify HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        "GET /verify HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n",
        "GET /verify HTTP/1.1\r\n Host: x\r\n\r\n",
        "GET /verify HTTP/1.1\rHost: x\r\r",
    ] {
        refused(&app, request, 400, NOT_HTTP).await;
    }
    // Where HTTP/2 is not spoken, it is known for what it is, and cannot be answered.
    assert!(exchange(app.management, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.is_empty());
}

// check 50
#[tokio::test]
async fn a_body_whose_length_is_doubtful_is_refused_and_the_connection_closed() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let token = app.grant(&client).await.access;
    let stored = app.stored(&client).await;
    for lines in [
        "Content-Length: 3\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 3",
        "Content-Length: 5, 5",
        "Content-Length: 3, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 18446744073709551621",
        "Content-Length:",
        "Content-Length: five",
    ] {
        refused(&app, &logout(&token, lines, "abcde"), 400, NOT_HTTP).await;
    }
    for lines in [
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: gzip\r\nContent-Length: 5",
    ] {
        refused(&app, &logout(&token, lines, "0\r\n\r\n"), 400, NOT_HTTP).await;
    }
    let older = logout(&token, "Transfer-Encoding: chunked", "0\r\n\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1);
    refused(&app, &older, 400, NOT_HTTP).await;
    assert!(app.stands(&token).await && app.is_unchanged(&stored).await);
}

// check 50: RFC 9112 §6.3 gives the transfer coding precedence, and §6.1 closes the connection
#[tokio::test]
async fn a_length_beside_a_transfer_coding_is_not_read_and_nothing_after_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: Chunked\r\nContent-Length: 100",
    ] {
        let token = app.grant(&client).await.access;
        let request = logout(&token, lines, "0\r\n\r\n");
        let reply = answer(app.address, format!("{request}{NEXT}")).await;
        reply.is_logged_out();
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(!app.stands(&token).await);
    }
}

// check 50
#[tokio::test]
async fn what_can_be_read_in_one_way_only_is_one_request() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for (lines, body) in [
        ("Content-Length: 5", "abcde"),
        ("Content-Length: 0", ""),
        ("Content-Length: 005", "abcde"),
        ("Transfer-Encoding: chunked", "5\r\nabcde\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "5;a=b\r\nabcde\r\n0\r\nX-Trailer: y\r\n\r\n"),
    ] {
        let token = app.grant(&client).await.access;
        taken_for_one(&app, &logout(&token, lines, body)).await.is_logged_out();
        assert!(!app.stands(&token).await);
    }
    for request in [
        "GET /verify HTTP/1.1\nHost: x\n\n",
        "GET /verify HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
        "\r\n\r\nGET /verify HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://elsewhere/verify HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /verify HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    ] {
        taken_for_one(&app, request).await.is_error(401, "Authorization header required");
    }
}

// check 50: a request within a body is a body
#[tokio::test]
async fn no_request_is_smuggled_in_a_body() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (outer, inner) = (app.grant(&client).await.access, app.grant(&app.client().await).await.access);
    let smuggled = logout(&inner, "Content-Length: 0", "");
    let length = format!("Content-Length: {}", smuggled.len());
    taken_for_one(&app, &logout(&outer, &length, &smuggled)).await.is_logged_out();
    let outer = app.grant(&client).await.access;
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    taken_for_one(&app, &logout(&outer, "Transfer-Encoding: chunked", &chunk)).await.is_logged_out();
    assert!(app.stands(&inner).await);
}

// check 50
#[tokio::test]
async fn a_chunked_body_that_cannot_be_read_ends_the_connection() {
    let app = TestApp::start().await;
    for body in ["zz\r\n{}\r\n0\r\n\r\n", "2\r\n{}xx\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"] {
        let request = format!(
            "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{body}{NEXT}"
        );
        answer(app.address, request).await.is_error(400, "Request body could not be read");
    }
}

// check 53
#[tokio::test]
async fn a_head_too_large_is_refused_whoever_notices() {
    const TOO_LARGE: &str = "A request has at most 100 headers of at most 16384 bytes together";
    let app = TestApp::start().await;
    let many = |headers: usize| {
        let lines: String = (1..headers).map(|i| format!("X-{i}: y\r\n")).collect();
        format!("POST /auth/logout HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
    };
    let long = |bytes: usize| {
        format!("POST /auth/logout HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(bytes - 6))
    };
    for within in [many(100), long(16_384)] {
        taken_for_one(&app, &within).await.is_error(401, "Authorization header required");
    }
    // A proxy copies its client's headers: they may be too long, and must not become a fault.
    let verify = long(16_385).replace("POST /auth/logout", "GET /verify");
    taken_for_one(&app, &verify).await.is_error(403, "Not able to decide on this request");
    for beyond in [long(16_385), long(60_000)] {
        taken_for_one(&app, &beyond).await.is_error(431, TOO_LARGE);
    }
    // There hyper gives up.
    for beyond in [many(101), many(257)] {
        refused(&app, &beyond, 431, TOO_LARGE).await;
    }
    let endless = long(1_000_000);
    let reply = answer(app.address, &endless[..900_000]).await;
    reply.says_error(431, TOO_LARGE);
    assert_eq!(reply.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_target_too_long_is_refused() {
    let app = TestApp::start().await;
    let request = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(length - 1));
    taken_for_one(&app, &request(65_000)).await.is_error(404, "No such path");
    refused(&app, &request(65_535), 400, "The request's target is too long").await;
}

// check 50: what hyper would read in one way, and another server on the way might in another
#[tokio::test]
async fn doubtful_framing_is_refused() {
    let app = TestApp::start().await;
    for (lines, message) in [
        ("", "A request has exactly one Host header"),
        ("Host: x\r\nHost: x\r\n", "A request has exactly one Host header"),
        ("Host: x\r\nTransfer-Encoding: gzip, chunked\r\n", "The only transfer coding read is chunked"),
        (
            "Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "The only transfer coding read is chunked",
        ),
    ] {
        refused(&app, &format!("POST /auth/logout HTTP/1.1\r\n{lines}\r\n"), 400, message).await;
    }
}

// check 54: what is announced too large is refused without waiting for it
#[tokio::test]
async fn an_announced_body_is_not_waited_for() {
    let app = TestApp::start().await;
    let head = "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n";
    answer(app.address, head).await.is_error(413, "Request body must not be longer than 65536 bytes");
}

// check 105: nothing is tunnelled, and nothing taken for the answer to a tunnel
#[tokio::test]
async fn connect_is_refused_on_every_listener() {
    const MESSAGE: &str = "CONNECT is not served";
    let app = TestApp::start().await;
    let token = app.grant(&app.client().await).await.access;
    for target in ["elsewhere:443", "/auth/login", "/nowhere"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        refused(&app, &request, 400, MESSAGE).await;
        let reply = answer(app.management, &request).await;
        reply.says_error(400, MESSAGE);
        let reply = local(&app.socket(), "CONNECT", target, "").await;
        reply.says_error(400, MESSAGE);
    }
    let verify =
        format!("CONNECT /verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n{NEXT}");
    let reply = answer(app.address, verify).await;
    reply.says_error(403, "Not able to decide on this request");
    assert_eq!(reply.header("connection"), Some("close"));
}
