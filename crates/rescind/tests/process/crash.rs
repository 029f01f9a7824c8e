//! Kills the server, the database or both again and again while clients are at work.
//!
//! `scripts/soak` runs these tests for a given number of cycles.

use std::{path::Path, process::Command, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IteratorRandom};
use rustix::process::Signal;

use crate::{
    api::Api,
    database::Database,
    history::{Crew, History, losses, losses_since},
    process::{Process, Server, number, serve},
};

/// Clients at work at the same time.
const WORKERS: usize = 6;
/// Clients of earlier cycles that each cycle checks again.
const EARLIER: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_holds_after_every_kill() {
    soak(None, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_holds_after_every_kill_with_postgresql() {
    soak(Some(Database::start()), 6).await;
}

/// Runs `cycles` cycles, or as many as `SOAK_CYCLES` says.
async fn soak(mut database: Option<Database>, cycles: usize) {
    let dir = tempfile::tempdir().unwrap();
    let url = database.as_ref().map(|database| database.url.clone());
    let command = || command(dir.path(), url.as_deref());
    let cycles = number("SOAK_CYCLES", cycles);
    let mut random = StdRng::seed_from_u64(number("SOAK_SEED", 1) as u64);
    let mut earlier: Vec<History> = vec![];
    let (mut steps, mut in_doubt) = (0, 0);
    let mut server = Server::spawn(&mut command());
    server.ready().await;

    for cycle in 0..cycles {
        let socket = dir.path().join("rescind.sock");
        let crew = Crew::start(&server.url, &socket, WORKERS, usize::MAX, &mut random);
        crew.has_done(random.random_range(0..100)).await;
        // In turn the server, the database, both.
        let turn = if database.is_some() { cycle % 3 } else { 0 };
        let (kills_server, mut killed) = (turn != 1, database.as_mut().filter(|_| turn != 0));
        if let Some(database) = &killed {
            database.kill().await;
        }
        if kills_server {
            server.signal(Signal::KILL);
        }
        let histories = crew.histories().await;
        if let Some(database) = &mut killed {
            database.start_again();
        }
        if kills_server {
            server.ended().await;
            // Some starts do not get far.
            if cycle % 10 == 0 {
                let starting = Process::spawn(&mut command());
                tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
                starting.signal(Signal::KILL);
                starting.ended().await;
            }
            server = Server::spawn(&mut command());
            server.ready().await;
        } else {
            server.wait_for_log("this node renews its lease again");
        }

        let api = Api::new(&server.url);
        for history in &histories {
            steps += history.steps.len();
            in_doubt += usize::from(history.ends_in_doubt());
            let lost = losses(&api, history, history.steps.len(), &mut random).await;
            assert!(lost.is_empty(), "cycle {cycle}: {lost:#?} of {history:#?}");
        }
        for _ in 0..EARLIER {
            if let Some(i) = (0..earlier.len()).choose(&mut random) {
                let lost = losses_since(&api, &earlier[i], &mut random).await;
                assert!(lost.is_empty(), "cycle {cycle}: {lost:#?} of {:#?}", earlier[i]);
            }
        }
        earlier.extend(histories);
    }
    println!("{cycles} kills, {steps} answers, {in_doubt} requests of unknown fate: nothing lost");
    assert!(steps > cycles * WORKERS && in_doubt > cycles, "too little was going on: {steps}, {in_doubt}");
}

fn command(data_dir: &Path, database: Option<&str>) -> Command {
    let mut command = serve(data_dir);
    // Refused tokens are asked for in numbers here; being told 429 would prove nothing.
    command.env("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0").env("RESCIND_TOKENS__ACCESS_TTL", "7d");
    // A node that was killed is waited for: briefly.
    command.env("RESCIND_CLUSTER__LEASE", "2s");
    command.envs(database.map(|url| ("RESCIND_DATABASE__URL", url)));
    command
}
