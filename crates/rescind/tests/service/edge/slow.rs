//! Slow peers: with a head, a body, the reading of an answer, or without a request.

use std::{net::SocketAddr, time::Duration};

use reqwest::Method;
use rescind_base::telemetry::metrics::Listener;
use rescind_node::config::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{interval, timeout},
};

use crate::{app::TestApp, follow::until, reply::Reply};

/// The time after which a test counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";

fn impatient(config: &mut Config) {
    config.server.request_timeout = "1s".parse().unwrap();
    config.server.idle_timeout = "3s".parse().unwrap();
}

/// Sends `at_once`, and then `then` again and again, a byte each tenth of a second. Returns all that the server sent.
async fn trickle(address: SocketAddr, at_once: &str, then: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(at_once.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut received = vec![];
    let trickling = async {
        let mut ticks = interval(Duration::from_millis(100));
        for byte in then.bytes().cycle() {
            ticks.tick().await;
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        // A reset is an end too.
        let _ = reader.read_to_end(&mut received).await;
    };
    timeout(PATIENCE, async {
        tokio::select! { () = reading => {}, () = trickling => {} }
    })
    .await
    .unwrap();
    received
}

async fn is_well(app: &TestApp) {
    app.send(app.request(Method::GET, "/nowhere")).await.is_error(404, "No such path");
}

// check 55
#[tokio::test]
async fn a_head_has_its_time_however_it_comes() {
    let app = TestApp::in_real_time(impatient).await;
    let head = "GET /verify HTTP/1.1\r\nHost: x\r\n";
    for (at_once, then) in [
        (head, ""),
        ("", "X"),
        (head, "X-Slow: y\r\n"),
        ("\r\n", "\r\n"),
        ("PRI * HTT", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        // A settings frame, and one that never ends.
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0\0\0\u{60}\u{4}\0\0\0\0\0", "\0"),
    ] {
        let received = trickle(app.address, at_once, then).await;
        assert!(!received.starts_with(b"HTTP/1.1 2"), "{at_once:?}: {received:?}");
    }
    // The second request's, after a first that was answered.
    let received = trickle(app.address, &format!("{NEXT}{head}"), "X").await;
    let received = String::from_utf8(received).unwrap();
    assert_eq!(received.matches("HTTP/1.1 ").count(), 1, "{received}");
    is_well(&app).await;
}

// check 55
#[tokio::test]
async fn a_body_has_its_time_however_it_comes() {
    // The service's clock stands still, so that no head is late. The body's timer runs in real time.
    let app = TestApp::with(impatient).await;
    let head = "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for (at_once, then) in [
        (format!("{head}Content-Length: 1000\r\n\r\n"), ""),
        (format!("{head}Content-Length: 1000\r\n\r\n"), " "),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n"), "1\r\n \r\n"),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n1;"), "x"),
    ] {
        let received = String::from_utf8(trickle(app.address, &at_once, then).await).unwrap();
        let (head, body) = received.split_once("\r\n\r\n").unwrap();
        let mut reply = Reply::parse_head(head);
        body.clone_into(&mut reply.body);
        reply.checked().is_error(400, "Request body took too long");
    }
    is_well(&app).await;
}

// check 55
#[tokio::test]
async fn an_answer_that_nobody_reads_ends_the_connection() {
    let app = TestApp::in_real_time(impatient).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(app.address).await.unwrap();
    let batch = NEXT.repeat(1000);
    let flood = async {
        let mut sent = 0_usize;
        while sent < 1 << 30 && stream.write_all(batch.as_bytes()).await.is_ok() {
            sent += batch.len();
        }
        sent
    };
    let sent = timeout(PATIENCE, flood).await.unwrap();
    assert!(sent < 1 << 30, "the flood was taken to its end");
    is_well(&app).await;
}

// check 52, 55: as many as are read
#[tokio::test]
async fn requests_sent_without_waiting_are_answered_in_their_order() {
    const MANY: usize = 5000;
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let asking = async {
        for i in 0..MANY {
            let close = if i + 1 == MANY { "Connection: close\r\n" } else { "" };
            let request = format!("GET /next HTTP/1.1\r\nHost: x\r\nX-Request-Id: {i}\r\n{close}\r\n");
            writer.write_all(request.as_bytes()).await.unwrap();
        }
    };
    let mut received = String::new();
    let ((), read) = timeout(PATIENCE, async { tokio::join!(asking, reader.read_to_string(&mut received)) })
        .await
        .unwrap();
    read.unwrap();
    let ids = received.lines().filter_map(|line| line.strip_prefix("x-request-id: "));
    assert!(ids.map(|id| id.parse::<usize>().unwrap()).eq(0..MANY));
}

// check 55
#[tokio::test]
async fn a_connection_is_kept_as_long_as_something_is_asked() {
    // The service's clock moves only between requests, so that a slow machine makes no connection idle.
    let app = TestApp::with(impatient).await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let mut answer = [0; 4096];
    // Longer than an idle connection is kept, in steps longer than a head may take. Timers run in real time:
    // they fire meanwhile, and find that nothing is overdue.
    let mut ticks = interval(Duration::from_millis(1300));
    for _ in 0..5 {
        ticks.tick().await;
        stream.write_all(NEXT.as_bytes()).await.unwrap();
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 404"));
        app.advance(2);
    }
    app.advance(1);
    let ended = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap();
    assert_eq!(ended.unwrap(), 0);
}

/// Reads one answer with a body from a connection.
async fn answer(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let whole = async {
        loop {
            let text = String::from_utf8_lossy(&received);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.unwrap().parse().unwrap() {
                    return text.into_owned();
                }
            }
            assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "closed after {received:?}");
        }
    };
    timeout(PATIENCE, whole).await.unwrap()
}

// What is answered before its body has arrived: without a token, of the wrong type, to no path, with the wrong method.
const ANSWERED_EARLY: [(&str, &str); 4] = [
    ("POST /auth/logout", "HTTP/1.1 401"),
    ("POST /auth/login", "HTTP/1.1 415"),
    ("POST /nowhere", "HTTP/1.1 404"),
    ("PUT /auth/login", "HTTP/1.1 405"),
];

#[tokio::test]
async fn a_connection_is_kept_after_a_refusal_though_the_body_came_later() {
    let app = TestApp::start().await;
    let under_way = app.app.metrics.requests_under_way(Listener::Public).taken;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    for (target, expected) in ANSWERED_EARLY {
        let head = format!("{target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        until("the head has been read", || under_way.get() == 1).await;
        stream.write_all(b"{}").await.unwrap();
        let answer = answer(&mut stream).await;
        assert!(answer.starts_with(expected) && !answer.contains("connection: close"), "{answer}");
    }
    stream.write_all(NEXT.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 404"));
}

// check 55
#[tokio::test]
async fn an_answer_says_so_if_the_connection_is_closed_for_a_body_that_nobody_reads() {
    let app = TestApp::with(impatient).await;
    for (target, expected) in ANSWERED_EARLY {
        for (headers, body) in [
            // Too long to be thrown away; not to be sent before somebody asks for it; one that does not come.
            ("Content-Length: 1000000\r\n", ""),
            ("Content-Length: 2\r\nExpect: 100-continue\r\n", ""),
            ("Content-Length: 2\r\n", "{"),
        ] {
            let mut stream = TcpStream::connect(app.address).await.unwrap();
            let request = format!("{target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}");
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = answer(&mut stream).await;
            assert!(answer.starts_with(expected) && answer.contains("connection: close\r\n"), "{answer}");
            let ended = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
            assert_eq!(ended.unwrap_or(0), 0);
        }
    }
    is_well(&app).await;
}
