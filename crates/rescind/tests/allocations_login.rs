//! The allocations of a login. This is a binary of its own, because its allocator counts for the process.

#![cfg(test)]

use std::{
    alloc::System,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use rescind::auth::{self, Caller};
use rescind_admin::{self as admin, CreatedClient, NewClient};
use rescind_base::{clock::Clock, random::Random};
use rescind_node::{app::App, config::Config};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CALLER: Caller = Caller::direct(IpAddr::V4(Ipv4Addr::LOCALHOST));
/// What one login with a commit of its own may allocate in all threads: its place in the commit, the client's row, the
/// session, the tokens, and the commit's mark. SQLite has an allocator of its own.
const LOGIN: usize = 34;
const LOGINS: usize = 100;

/// How often `f` allocates. Other threads can only add to a count, so the least of ten counts is right.
fn allocations(mut f: impl FnMut()) -> usize {
    let mut once = || {
        let region = Region::new(ALLOCATOR);
        f();
        let change = region.change();
        change.allocations + change.reallocations
    };
    (0..10).map(|_| once()).min().unwrap()
}

async fn app(folder: &std::path::Path) -> (Arc<App>, CreatedClient) {
    let mut config = Config::default();
    config.server.data_dir = folder.join("data");
    let app = App::open(&config, None, Clock::manual(1_736_942_400), Random::seeded(1)).await.unwrap();
    let client = NewClient { name: "counted".into(), ..NewClient::default() };
    let client = admin::create_client(&app, client).await.unwrap();
    (app, client)
}

#[test]
fn a_login_allocates_little_and_its_tokens_nothing_but_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (app, client) = runtime.block_on(app(folder.path()));
    let login = || {
        runtime.block_on(auth::login(&app, &client.api_key, &client.api_secret, &CALLER)).unwrap();
    };
    let all = allocations(|| (0..LOGINS).for_each(|_| login()));
    assert!(all <= LOGIN * LOGINS, "{} for each login", all as f64 / LOGINS as f64);

    let found = runtime.block_on(app.store.find(client.client_id, 1)).unwrap().session.unwrap();
    let pair = || drop(std::hint::black_box(app.memory.issuer.pair(&found, &client.api_key).unwrap()));
    assert_eq!(allocations(pair), 2);
}
