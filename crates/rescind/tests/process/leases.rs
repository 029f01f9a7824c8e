//! Leases of processes that were killed, as those after them wait for them.

use std::{path::Path, time::Duration};

use rescind::clock::Clock;
use rescind_verifier::follow::wire::ACK_PATH;
use rustix::process::Signal;
use serde_json::json;

use crate::{
    api::{Api, Credential, ok},
    fixture::Server as Postgres,
    process::{Server, cli, json, rescind, run},
};

const URL: &str = "RESCIND_DATABASE__URL";
/// Long enough for a restart to be much shorter.
const LONG: [(&str, &str); 2] = [("RESCIND_CLUSTER__LEASE", "12s"), ("RESCIND_CLUSTER__MARGIN", "1200ms")];
const SHORT: [(&str, &str); 2] = [("RESCIND_CLUSTER__LEASE", "1s"), ("RESCIND_CLUSTER__MARGIN", "100ms")];

/// On the boot clock, which leases are measured by.
fn now() -> Duration {
    Clock::System.elapsed()
}

/// Lends a lease, kills the server, and tells when the lease is over.
async fn killed_with_a_lease_out(data_dir: &Path, settings: &[(&str, &str)]) -> (Credential, Duration) {
    let server = Server::start_with(data_dir, settings);
    server.ready().await;
    let credential = Credential::from_json(&json(data_dir, "client create --name demo"));
    let verifier = json(data_dir, "verifier create --name api");
    let token = verifier["token"].as_str().unwrap();
    let ack = json!({ "epoch": "none", "seq": 0, "mode": "exact", "follower": "silent" });
    let asked = now();
    let lent = Api::new(&server.management).post(ACK_PATH, &ack, Some(token), "ack").await.unwrap();
    let lease = Duration::from_millis(lent.1["lease_ms"].as_u64().expect("a lease"));
    assert!(lease > Duration::from_secs(5), "{lease:?}");
    server.stop(Signal::KILL).await;
    (credential, asked + lease)
}

/// A logout that is answered before the lease is over is no test of anything if the lease was over before.
async fn logs_out_after(server: &Server, credential: &Credential, over: Duration) {
    let api = Api::new(&server.url);
    let tokens = api.login(credential).await;
    assert!(now() < over, "this machine is too slow for this test");
    assert_eq!(api.logout(&tokens.access).await, ok());
    assert!(now() >= over, "answered {:?} too early", over - now());
}

// check 95
#[tokio::test]
async fn a_server_with_a_shorter_lease_waits_for_those_of_one_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (credential, over) = killed_with_a_lease_out(dir.path(), &LONG).await;
    let server = Server::start_with(dir.path(), &SHORT);
    logs_out_after(&server, &credential, over).await;
}

// check 95
#[tokio::test]
async fn a_command_that_opens_the_store_itself_waits_for_the_leases_of_one_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (_, over) = killed_with_a_lease_out(dir.path(), &LONG).await;
    assert!(now() < over, "this machine is too slow for this test");
    let outcome =
        run(rescind().envs(SHORT).arg("--data-dir").arg(dir.path()).args(["client", "logout", "1"]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(now() >= over, "answered too early");
    // Once it is over, it is.
    let begun = now();
    assert_eq!(cli(dir.path(), ["client", "logout", "1"]).code, Some(0));
    assert!(now() < begun + Duration::from_secs(3), "{:?}", now() - begun);
}

// check 95
#[tokio::test]
async fn a_node_with_a_shorter_lease_waits_for_those_of_one_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let url = Postgres::shared().database().await;
    let on = |settings: [(&'static str, &'static str); 2]| [settings[0], settings[1], (URL, url.as_str())];
    let (credential, over) = killed_with_a_lease_out(dir.path(), &on(LONG)).await;
    let server = Server::start_with(dir.path(), &on(SHORT));
    server.ready().await;
    logs_out_after(&server, &credential, over).await;
}

// check 95
#[tokio::test]
async fn a_command_on_the_database_itself_waits_for_the_leases_of_a_node_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let url = Postgres::shared().database().await;
    let on = |settings: [(&'static str, &'static str); 2]| [settings[0], settings[1], (URL, url.as_str())];
    let (_, over) = killed_with_a_lease_out(dir.path(), &on(LONG)).await;
    assert!(now() < over, "this machine is too slow for this test");
    let mut command = rescind();
    command.envs(on(SHORT)).arg("--data-dir").arg(dir.path()).args(["client", "logout", "1"]);
    assert_eq!(run(&mut command).code, Some(0));
    assert!(now() >= over, "answered too early");
}

// check 95
#[tokio::test]
async fn a_node_waits_for_the_leases_of_the_store_that_was_copied() {
    let dir = tempfile::tempdir().unwrap();
    let url = Postgres::shared().database().await;
    let (credential, over) = killed_with_a_lease_out(dir.path(), &LONG).await;
    json(dir.path(), &format!("db copy --to {url}"));
    let server = Server::start_with(dir.path(), &[SHORT[0], SHORT[1], (URL, url.as_str())]);
    server.ready().await;
    logs_out_after(&server, &credential, over).await;
}
