//! The limits of connections, and which connection is closed when a limit is reached.

use std::{io, net::SocketAddr, time::Duration};

use rescind_node::config::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    app::{TestApp, trust_proxy},
    raw,
    reply::Reply,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const ASK: &str = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";

pub(crate) fn bounded(in_all: usize, per_address: usize) -> impl FnOnce(&mut Config) {
    move |config| {
        config.server.max_connections = in_all;
        config.server.max_connections_per_address = per_address;
    }
}

/// Connects from this address of this machine.
pub(crate) async fn from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether a request on this connection is answered. It is not if the connection is closed or refused.
pub(crate) async fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4096];
    let asked = async {
        stream.write_all(ASK.as_bytes()).await?;
        stream.read(&mut answer).await
    };
    match timeout(PATIENCE, asked).await.expect("an answer or an end") {
        Ok(read) => answer[..read].starts_with(b"HTTP/1.1 404"),
        Err(e) => {
            assert!(matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{e}");
            false
        }
    }
}

/// The answer on a connection on which nothing is sent.
pub(crate) async fn refusal(mut stream: TcpStream) -> Reply {
    let mut received = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut received)).await.unwrap().unwrap();
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    let mut reply = Reply::parse_head(head);
    body.clone_into(&mut reply.body);
    reply.checked()
}

// check 55, 78
#[tokio::test]
async fn one_address_has_so_many_and_is_told_when_it_wants_more() {
    let app = TestApp::with(bounded(100, 3)).await;
    let mut open = vec![];
    for _ in 0..3 {
        let mut stream = from("127.0.0.1", app.address).await;
        assert!(is_served(&mut stream).await);
        open.push(stream);
    }
    let reply = refusal(from("127.0.0.1", app.address).await).await;
    reply.is_error(503, "Too many connections. Retry after 1 second.");
    assert_eq!((reply.header("retry-after"), reply.header("connection")), (Some("1"), Some("close")));

    assert!(is_served(&mut from("127.0.0.2", app.address).await).await);
    for stream in &mut open {
        assert!(is_served(stream).await);
    }
    // The next one that comes after one has gone has its place.
    drop(open.pop());
    for _ in 0..1000 {
        if is_served(&mut from("127.0.0.1", app.address).await).await {
            return;
        }
    }
    panic!("a place that was given back is not given out");
}

// check 55
#[tokio::test]
async fn when_full_an_address_that_has_many_makes_room_for_one_that_has_few() {
    let app = TestApp::with(bounded(20, 100)).await;
    let mut slow = vec![];
    for _ in 0..20 {
        let mut stream = from("127.0.0.1", app.address).await;
        stream.write_all(b"GET /next HTTP/1.1\r\nX: ").await.unwrap();
        slow.push(stream);
    }
    // Who is refused has been seen after all of them.
    let full = refusal(from("127.0.0.1", app.address).await).await;
    full.is_error(503, "Too many connections. Retry after 1 second.");
    let mut live = vec![];
    for _ in 0..5 {
        let mut stream = from("127.0.0.2", app.address).await;
        assert!(is_served(&mut stream).await);
        live.push(stream);
    }
    for stream in &mut live {
        assert!(is_served(stream).await);
    }
    let mut closed = 0;
    for stream in &mut slow {
        closed += usize::from(matches!(
            timeout(Duration::ZERO, stream.read(&mut [0; 1])).await,
            Ok(Ok(0) | Err(_))
        ));
    }
    assert_eq!(closed, 5);
}

// check 55
#[tokio::test]
async fn trusted_proxies_are_counted_in_all_only() {
    let app = TestApp::with(|config| {
        trust_proxy(config);
        bounded(10, 2)(config);
    })
    .await;
    let mut open = vec![];
    for _ in 0..10 {
        let mut stream = from("127.0.0.1", app.address).await;
        assert!(is_served(&mut stream).await);
        open.push(stream);
    }
    // None of them goes for somebody else, nor for one of their own.
    for address in ["127.0.0.1", "127.0.0.2"] {
        refusal(from(address, app.address).await)
            .await
            .is_error(503, "Too many connections. Retry after 1 second.");
    }
    for stream in &mut open {
        assert!(is_served(stream).await);
    }
}

// check 55
#[tokio::test]
async fn operators_get_in_whatever_goes_on_in_public() {
    let app = TestApp::with(bounded(5, 100)).await;
    let mut flood = vec![];
    for _ in 0..5 {
        flood.push(from("127.0.0.1", app.address).await);
    }
    refusal(from("127.0.0.1", app.address).await)
        .await
        .is_error(503, "Too many connections. Retry after 1 second.");
    let ready =
        raw::answer(app.management, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(ready.status, 200);
    assert_eq!(raw::local(&app.socket(), "GET", "/admin/v1/clients", "").await.status, 200);
}

// check 55: a full server that is stopped does not wait for those who say nothing
#[tokio::test]
async fn connections_on_which_nothing_was_asked_do_not_hold_up_the_end() {
    let app = TestApp::with(|config| {
        bounded(50, 50)(config);
        config.server.drain_timeout = "1h".parse().unwrap();
    })
    .await;
    let mut open = vec![];
    for i in 0..50 {
        let mut stream = from("127.0.0.1", app.address).await;
        if i % 2 == 0 {
            assert!(is_served(&mut stream).await);
        }
        open.push(stream);
    }
    assert!(timeout(PATIENCE, app.stop()).await.is_ok(), "they are waited for");
}
