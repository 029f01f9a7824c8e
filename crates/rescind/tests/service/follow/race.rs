//! Logouts while a follower verifies without a pause.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rescind_verifier::Denied;
use tokio::task::yield_now;

use crate::follow::{Followed, now, refused_in_time, stands, until, verdict};

const ROUNDS: usize = 60;
const VERIFYING: usize = 2;
const BOUND: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Round {
    token: String,
    /// When the last verification that accepted the token began.
    accepted: Duration,
}

// check 15, 31
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_verification_begun_a_bound_after_a_logout_accepts() {
    let mut f = Followed::through(BOUND, async |server| server).await;
    let (round, over) = (Arc::new(Mutex::new(Round::default())), Arc::new(AtomicBool::new(false)));
    let verifying: Vec<_> = (0..VERIFYING)
        .map(|_| {
            let (follower, round, over) = (f.follower.clone(), Arc::clone(&round), Arc::clone(&over));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let token = round.lock().unwrap().token.clone();
                    let begun = now();
                    if verdict(&follower, &token) == Ok(()) {
                        let mut round = round.lock().unwrap();
                        if round.token == token {
                            round.accepted = round.accepted.max(begun);
                        }
                    }
                    yield_now().await;
                }
            })
        })
        .collect();

    let mut slowest = Duration::ZERO;
    for _ in 0..ROUNDS {
        f.pair = f.app.grant(&f.client).await;
        let token = f.pair.access.clone();
        stands(&f.follower, &token).await;
        *round.lock().unwrap() = Round { token: token.clone(), accepted: Duration::ZERO };
        until("accepted", || round.lock().unwrap().accepted > Duration::ZERO).await;
        f.app.logout(&token).await.is_logged_out();
        let answered = now();
        refused_in_time(&f.follower, &token, answered, BOUND, Denied::Revoked).await;
        slowest = slowest.max(now() - answered);
        let accepted = round.lock().unwrap().accepted;
        assert!(accepted < answered + BOUND, "accepted {:?} later", accepted - answered);
    }
    over.store(true, Ordering::Relaxed);
    for verifying in verifying {
        verifying.await.unwrap();
    }
    println!("the slowest of {ROUNDS} logouts was known after {slowest:?}");
}
