//! A process waits for the leases that a killed process before it has granted.

use std::{path::Path, time::Duration};

use rescind_base::clock::Clock;
use rescind_verifier::follow::wire::ACK_PATH;
use rustix::process::Signal;
use serde_json::json;

use crate::{
    api::{Api, Credential, ok},
    fixture::Server as Postgres,
    process::{Server, cli, json, rescind, run},
};

const URL: &str = "RESCIND_DATABASE__URL";
/// A lease that is much longer than a restart.
const LONG: [(&str, &str); 2] = [("RESCIND_CLUSTER__LEASE", "12s"), ("RESCIND_CLUSTER__MARGIN", "1200ms")];
const SHORT: [(&str, &str); 2] = [("RESCIND_CLUSTER__LEASE", "1s"), ("RESCIND_CLUSTER__MARGIN", "100ms")];

/// The time on the boot clock, which measures leases.
fn now() -> Duration {
    Clock::System.elapsed()
}

/// Starts a server, and lets it grant a lease. Returns when the lease ends.
async fn with_a_lease_out(data_dir: &Path, settings: &[(&str, &str)]) -> (Server, Credential, Duration) {
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
    (server, credential, asked + lease)
}

/// The same, and the server is killed.
async fn killed_with_a_lease_out(data_dir: &Path, settings: &[(&str, &str)]) -> (Credential, Duration) {
    let (server, credential, over) = with_a_lease_out(data_dir, settings).await;
    server.stop(Signal::KILL).await;
    (credential, over)
}

/// In milliseconds: longer than a logout waits for leases of the present configuration.
const LONGER: u64 = 2000;

/// Asserts that a logout waits until the lease has ended, which is longer than the server's own leases.
async fn logs_out_after(mut server: Server, credential: &Credential, over: Duration) {
    let api = Api::new(&server.url);
    let tokens = api.login(credential).await;
    assert_eq!(api.logout(&tokens.access).await, ok());
    assert!(now() >= over, "answered {:?} too early", over - now());
    let logout = server.wait_for_log("logout");
    assert!(logout["milliseconds"].as_u64().unwrap() >= LONGER, "{logout}");
}

/// Logs out by command. Returns the milliseconds in its receipt.
fn log_out(data_dir: &Path, settings: &[(&str, &str)]) -> u64 {
    let mut command = rescind();
    command.envs(settings.iter().copied()).arg("--data-dir").arg(data_dir);
    let outcome = run(command.args(["--json", "client", "logout", "1", "--yes"]));
    outcome.json()["receipt"]["milliseconds"].as_u64().unwrap()
}

// check 95
#[tokio::test]
async fn a_server_with_a_shorter_lease_waits_for_those_of_one_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (credential, over) = killed_with_a_lease_out(dir.path(), &LONG).await;
    let server = Server::start_with(dir.path(), &SHORT);
    logs_out_after(server, &credential, over).await;
}

// check 95
#[tokio::test]
async fn a_command_that_opens_the_store_itself_waits_for_the_leases_of_one_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (_, over) = killed_with_a_lease_out(dir.path(), &LONG).await;
    assert!(log_out(dir.path(), &SHORT) >= LONGER);
    assert!(now() >= over, "answered too early");
    // Once it is over, it is.
    assert!(log_out(dir.path(), &SHORT) < LONGER);
}

#[tokio::test]
async fn a_command_waits_for_a_server_that_waits_for_a_lease_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, _, over) = with_a_lease_out(dir.path(), &LONG).await;
    let outcome = cli(dir.path(), ["--json", "client", "logout", "1", "--yes"]);
    assert!(now() >= over, "answered too early");
    assert!(outcome.stderr.starts_with("waiting for the server"), "{outcome:?}");
    assert!(outcome.json()["receipt"]["milliseconds"].as_u64().unwrap() >= LONGER);
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
    logs_out_after(server, &credential, over).await;
}

// check 95
#[tokio::test]
async fn a_command_on_the_database_itself_waits_for_the_leases_of_a_node_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let url = Postgres::shared().database().await;
    let on = |settings: [(&'static str, &'static str); 2]| [settings[0], settings[1], (URL, url.as_str())];
    let (_, over) = killed_with_a_lease_out(dir.path(), &on(LONG)).await;
    assert!(log_out(dir.path(), &on(SHORT)) >= LONGER);
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
    logs_out_after(server, &credential, over).await;
}
