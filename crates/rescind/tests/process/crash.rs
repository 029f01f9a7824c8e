//! The process is killed, again and again, while clients are at work.
//!
//! `scripts/soak` runs this for as many cycles as it is told, and on PostgreSQL if it is given a URL.

use std::{path::Path, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IteratorRandom};
use rustix::process::Signal;

use crate::{
    api::Api,
    history::{Crew, History, losses, losses_since},
    process::{Process, Server, number, serve, setting},
};

/// How often, unless `SOAK_CYCLES` says otherwise.
const CYCLES: usize = 100;
/// Clients at work at the same time.
const WORKERS: usize = 6;
/// Clients of earlier cycles that each cycle looks at again.
const EARLIER: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_holds_after_every_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(number("SOAK_SEED", 1) as u64);
    let mut earlier: Vec<History> = vec![];
    let (mut steps, mut in_doubt) = (0, 0);
    let mut server = start(dir.path());
    let cycles = number("SOAK_CYCLES", CYCLES);

    for cycle in 0..cycles {
        let histories = work_until_killed(server, dir.path(), &mut random).await;
        // Some starts do not get far.
        if cycle % 10 == 0 {
            let starting = Process::spawn(serve(dir.path()).envs(variables()));
            tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
            starting.signal(Signal::KILL);
            starting.ended().await;
        }
        server = start(dir.path());
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

/// Kills the server at a random moment of the work.
async fn work_until_killed(server: Server, data_dir: &Path, random: &mut StdRng) -> Vec<History> {
    let socket = data_dir.join("rescind.sock");
    let crew = Crew::start(&server.url, &socket, WORKERS, usize::MAX, random);
    crew.has_done(random.random_range(0..100)).await;
    server.stop(Signal::KILL).await;
    crew.histories().await
}

fn start(data_dir: &Path) -> Server {
    let variables = variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Server::start_with(data_dir, &variables)
}

fn variables() -> Vec<(&'static str, String)> {
    let own = [
        // Refused tokens are asked for in numbers here; being told 429 would prove nothing.
        ("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0".into()),
        ("RESCIND_TOKENS__ACCESS_TTL", "7d".into()),
    ];
    let url = setting("SOAK_DATABASE_URL").map(|url| ("RESCIND_DATABASE__URL", url));
    own.into_iter().chain(url).collect()
}
