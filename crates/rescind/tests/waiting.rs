//! The memory that the service holds for requests whose bodies have not arrived, and for connections that rest. This is a
//! binary of its own, because its counting allocator counts for the whole process.

#![cfg(test)]

use std::{
    alloc::System,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rescind::server::Server;
use rescind_admin::{self as admin, NewVerifier};
use rescind_base::{clock::Clock, random::Random, telemetry::metrics::Listener};
use rescind_node::{app::App, config::Config};
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};
use tokio::{
    task::{spawn_blocking, yield_now},
    time::{sleep, timeout},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most bytes on the heap for a request whose body has not arrived, and for a connection that rests.
const AT_MOST: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(10);
/// Many, so that what the process allocates meanwhile for its other tasks is little beside them.
const CONNECTIONS: usize = 10;
const ASK: &[u8] = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n";
const STREAMS: u32 = 100;
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// The public paths that wait for a body.
const PATHS: [(&str, &str); 5] = [
    ("/auth/login", JSON),
    ("/auth/refresh", JSON),
    ("/oauth2/token", FORM),
    ("/oauth2/introspect", FORM),
    ("/oauth2/revoke", FORM),
];

struct Service {
    app: Arc<App>,
    public: SocketAddr,
    management: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Service {
    async fn start() -> Service {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.server.management_listen = config.server.listen;
        config.server.data_dir = folder.path().join("data");
        let app = App::open(&config, None, Clock::System, Random::System).await.unwrap();
        let server = Server::bind(Arc::clone(&app), &config).await.unwrap();
        let (public, management) = (server.address().unwrap(), server.management_address().unwrap());
        tokio::spawn(server.run(std::future::pending()));
        Service { app, public, management, _folder: folder }
    }

    /// Returns the bytes held for each of the requests that `send` sends, when the service waits for all their bodies.
    async fn held(&self, listener: Listener, requests: usize, send: impl FnOnce() + Send + 'static) -> usize {
        let under_way = self.app.metrics.requests_under_way(listener).taken;
        let before = live();
        spawn_blocking(send).await.unwrap();
        while under_way.get() < requests as i64 {
            yield_now().await;
        }
        // There is one thread: whatever is to be polled has been, several times.
        for _ in 0..100 {
            yield_now().await;
        }
        (live() - before) / requests
    }
}

fn live() -> usize {
    let Stats { bytes_allocated, bytes_deallocated, .. } = ALLOCATOR.stats();
    bytes_allocated - bytes_deallocated
}

/// Asks, and reads until the end of this answer.
fn answered(stream: &mut TcpStream, ask: &[u8], answer: &[u8]) {
    stream.write_all(ask).unwrap();
    let mut received = vec![];
    while !received.windows(answer.len()).any(|window| window == answer) {
        let mut some = [0; 1024];
        let read = stream.read(&mut some).unwrap();
        assert!(read > 0, "closed after {received:?}");
        received.extend_from_slice(&some[..read]);
    }
}

/// Connections on which one request was answered.
fn kept(address: SocketAddr, ask: &[u8], answer: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        answered(&mut stream, ask, answer);
        stream
    };
    (0..CONNECTIONS).map(open).collect()
}

async fn http1(service: &Service, listener: Listener, head: String) -> usize {
    let address = if listener == Listener::Public { service.public } else { service.management };
    // The next request has begun, so that the connection does not rest.
    let (begin, head) = head.split_at(1);
    let (ask, head) = ([ASK, begin.as_bytes()].concat(), head.to_owned());
    let ask = move || kept(address, &ask, b"}}");
    let streams = spawn_blocking(ask).await.unwrap();
    let sending = streams.iter().map(|stream| stream.try_clone().unwrap()).collect::<Vec<_>>();
    service
        .held(listener, CONNECTIONS, move || {
            for mut stream in sending {
                stream.write_all(head.as_bytes()).unwrap();
            }
        })
        .await
}

fn head(path: &str, content_type: &str, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: 60\r\n{more}\r\n"
    )
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut bytes = vec![0, 0, length, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

async fn http2(service: &Service, path: &str, content_type: &str) -> usize {
    const PING: &[u8] = b"a ping..";
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(4, 0, 0, &[]));
    opening.extend(frame(6, 0, 0, PING));
    let public = service.public;
    let connections = spawn_blocking(move || kept(public, &opening, PING)).await.unwrap();
    // Each field written out in full (RFC 7541 §6.2.2).
    let mut fields = vec![];
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", content_type),
    ] {
        fields.push(0);
        for text in [name, value] {
            fields.push(u8::try_from(text.len()).unwrap());
            fields.extend_from_slice(text.as_bytes());
        }
    }
    let requests: Vec<u8> = (0..STREAMS).flat_map(|i| frame(1, 4, i * 2 + 1, &fields)).collect();
    let sending = connections.iter().map(|stream| stream.try_clone().unwrap()).collect::<Vec<_>>();
    let all = CONNECTIONS * STREAMS as usize;
    service
        .held(Listener::Public, all, move || {
            for mut connection in sending {
                connection.write_all(&requests).unwrap();
            }
        })
        .await
}

// check 100
#[tokio::test]
async fn a_request_whose_body_has_not_come_is_held_in_little_memory() {
    for (path, content_type) in PATHS {
        let service = Service::start().await;
        let held = http1(&service, Listener::Public, head(path, content_type, "")).await;
        assert!((100..=AT_MOST).contains(&held), "{path} over HTTP/1.1: {held}");
        let service = Service::start().await;
        let held = http2(&service, path, content_type).await;
        assert!((100..=AT_MOST).contains(&held), "{path} over HTTP/2: {held}");
    }
    let service = Service::start().await;
    let new = NewVerifier { name: "test".into(), share_hs256: false };
    let token = admin::create_verifier(&service.app, new).await.unwrap().token;
    let head = head("/feed/v1/ack", JSON, &format!("Authorization: Bearer {token}\r\n"));
    let held = http1(&service, Listener::Management, head).await;
    assert!((100..=AT_MOST).contains(&held), "/feed/v1/ack: {held}");
}

#[tokio::test]
async fn a_connection_that_rests_is_held_in_little_memory_and_served_again() {
    const MANY: usize = 50;
    let service = Service::start().await;
    let (public, before) = (service.public, live());
    let open = move || (0..MANY).map(|_| TcpStream::connect(public).unwrap()).collect::<Vec<_>>();
    let mut connections = spawn_blocking(open).await.unwrap();
    for _ in 0..3 {
        let ask = move || {
            connections.iter_mut().for_each(|connection| answered(connection, ASK, b"}}"));
            connections
        };
        connections = spawn_blocking(ask).await.unwrap();
        let at_rest = async {
            while live().saturating_sub(before) / MANY > AT_MOST {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let rested = timeout(PATIENCE, at_rest).await;
        assert!(rested.is_ok(), "{} each", live().saturating_sub(before) / MANY);
    }
}
