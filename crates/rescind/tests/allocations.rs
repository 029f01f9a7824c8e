//! The allocations of a verification over HTTP. This is a binary of its own, because its counting allocator counts for
//! the whole process.

#![cfg(test)]

use std::{
    alloc::System,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rescind::{
    auth::{self, Caller},
    server::Server,
};
use rescind_admin::{self as admin, NewClient};
use rescind_base::{clock::Clock, random::Random};
use rescind_node::{app::App, config::Config};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::task::spawn_blocking;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most allocations and reallocations for one verification on a kept connection, those of hyper included.
const AT_MOST: usize = 8;
const REQUESTS: usize = 2000;

/// Asks for the same verification many times, and returns the allocations for each.
fn allocations_of(head: &str, address: SocketAddr) -> f64 {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut answer = [0; 4096];
    let mut ask = |times: usize| {
        for _ in 0..times {
            stream.write_all(head.as_bytes()).unwrap();
            let length = stream.read(&mut answer).unwrap();
            assert!(
                answer[..length].starts_with(b"HTTP/1.1 200 ") && answer[..length].ends_with(b"\r\n\r\n")
            );
        }
    };
    ask(100);
    let region = Region::new(ALLOCATOR);
    ask(REQUESTS);
    let counted = region.change();
    (counted.allocations + counted.reallocations) as f64 / REQUESTS as f64
}

#[tokio::test]
async fn a_verification_allocates_little() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config.server.management_listen = config.server.listen;
    config.server.data_dir = folder.path().join("data");
    let app = App::open(&config, None, Clock::System, Random::System).await.unwrap();
    let client =
        NewClient { name: "a".into(), scopes: vec!["read".into(), "write".into()], ..NewClient::default() };
    let client = admin::create_client(&app, client).await.unwrap();
    let caller = Caller::direct("127.0.0.1".parse().unwrap());
    let token = auth::login(&app, &client.api_key, &client.api_secret, &caller).await.unwrap();
    let token = token.pair.access_token;
    let server = Server::bind(Arc::clone(&app), &config).await.unwrap();
    let address = server.address().unwrap();
    tokio::spawn(server.run(std::future::pending()));
    for (headers, query) in
        [("", ""), ("X-Request-Id: abc\r\nAccept: */*\r\nUser-Agent: x\r\n", ""), ("", "?scope=read")]
    {
        let head = format!(
            "GET /verify{query} HTTP/1.1\r\nHost: x\r\n{headers}Authorization: Bearer {token}\r\n\r\n"
        );
        let counted = spawn_blocking(move || allocations_of(&head, address)).await.unwrap();
        assert!(counted < AT_MOST as f64 + 0.5, "{counted} with {headers:?} and {query:?}");
    }
    // A refused one, of whose log lines one a second is due.
    admin::logout(&app, client.client_id).await.unwrap();
    let refuse = || assert!(auth::verify_in_memory(&app, &token, &caller).unwrap().is_err());
    refuse();
    let region = Region::new(ALLOCATOR);
    (0..REQUESTS).for_each(|_| refuse());
    let counted = region.change().allocations as f64 / REQUESTS as f64;
    // The claims, and of them the texts of the denial that may be kept.
    assert!(counted < 3.5, "{counted} for a refused one");
}
