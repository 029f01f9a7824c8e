//! Logouts while exact followers verify without a pause: every verification that begins after the answer
//! refuses.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use rescind_verifier::follow::Mode;

use crate::{
    app::TestApp,
    follow::{Followed, exact::follow_exactly, stands, until, verdict, verifier_token},
};

const CLIENTS: usize = 4;
const ROUNDS: u64 = 60;

/// One client's latest token.
#[derive(Default)]
struct Latest {
    /// The number of its login, and the token.
    token: Mutex<(u64, String)>,
    /// The number of the login whose logout was answered last.
    answered: AtomicU64,
    /// The last login whose token a follower accepted, and the last login whose token a follower refused after the
    /// logout was answered.
    accepted: AtomicU64,
    refused: AtomicU64,
}

// check 15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_verification_begun_after_a_logout_accepts() {
    let f = Followed::at(TestApp::live(|_| {}).await, Mode::Exact, async |server| server).await;
    let token = verifier_token(&f.app, true).await;
    let more = [0; 2].map(|_| follow_exactly(f.app.management, &token));
    let followers = [f.follower.clone(), more[0].clone(), more[1].clone()];
    let latest: Arc<[Latest; CLIENTS]> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));

    let verifying = followers.clone().map(|follower| {
        let (latest, over) = (Arc::clone(&latest), Arc::clone(&over));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for latest in &*latest {
                    let (login, token) = latest.token.lock().unwrap().clone();
                    let was_answered = latest.answered.load(Ordering::SeqCst) >= login;
                    match verdict(&follower, &token) {
                        Ok(()) => {
                            assert!(!was_answered, "accepted after the logout was answered");
                            latest.accepted.fetch_max(login, Ordering::SeqCst);
                        }
                        Err(_) if was_answered => _ = latest.refused.fetch_max(login, Ordering::SeqCst),
                        Err(_) => {}
                    }
                }
                thread::yield_now();
            }
        })
    });

    let log_out = async |latest: &Latest| {
        let client = f.app.client().await;
        for login in 1..=ROUNDS {
            let token = f.app.grant(&client).await.access;
            for follower in &followers {
                stands(follower, &token).await;
            }
            *latest.token.lock().unwrap() = (login, token.clone());
            until("accepted", || latest.accepted.load(Ordering::SeqCst) >= login).await;
            f.app.logout(&token).await.is_logged_out();
            latest.answered.store(login, Ordering::SeqCst);
            until("refused", || latest.refused.load(Ordering::SeqCst) >= login).await;
        }
    };
    let [a, b, c, d] = &*latest;
    tokio::join!(log_out(a), log_out(b), log_out(c), log_out(d));
    over.store(true, Ordering::Relaxed);
    for verifying in verifying {
        verifying.join().unwrap();
    }
}
