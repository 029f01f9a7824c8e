//! The power goes, again and again, while clients log in and out.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::{
    api::{Api, Credential, Tokens, ok, unauthorized},
    process::{Server, json},
};

const CYCLES: usize = 20;
/// Clients that only log in, several at a time.
const OPENERS: usize = 3;
/// Clients that log in and out in turn.
const CHURNERS: usize = 5;

/// What one caller was told.
#[derive(Default)]
struct Told {
    /// Logged in, and not logged out.
    live: Vec<Tokens>,
    /// Logged out.
    dead: Vec<Tokens>,
    /// The answer to the logout was lost.
    in_doubt: Vec<Tokens>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_holds_after_every_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(&dir);
    let create =
        |name: String| Credential::from_json(&json(dir.path(), &format!("client create --name {name}")));
    let opener = create("opener".into());
    let churners: Vec<_> = (0..CHURNERS).map(|i| create(format!("churner-{i}"))).collect();
    let mut dead_before: Vec<Tokens> = vec![];
    let mut used_before: Vec<Tokens> = vec![];
    let (mut logins, mut logouts) = (0, 0);

    for cycle in 0..CYCLES {
        let api = Api::new(&server.url);
        let answered = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..OPENERS {
            callers.spawn(open(api.clone(), opener.clone(), Arc::clone(&answered)));
        }
        for churner in &churners {
            callers.spawn(churn(api.clone(), churner.clone(), Arc::clone(&answered)));
        }
        // Another moment of the work in each cycle.
        let enough = 10 + cycle * 13 % 50;
        while answered.load(Ordering::SeqCst) < enough {
            tokio::task::yield_now().await;
        }
        server.stop(Signal::KILL).await;
        let told: Vec<Told> = callers.join_all().await;

        server = start(&dir);
        let api = Api::new(&server.url);
        for tokens in dead_before.iter().chain(told.iter().flat_map(|told| &told.dead)) {
            assert_eq!(api.verify(&tokens.access).await, unauthorized("Invalid token"), "cycle {cycle}");
            assert!(api.refresh(&tokens.refresh).await.is_err(), "cycle {cycle}: a revoked token is back");
        }
        for tokens in &used_before {
            assert!(api.refresh(&tokens.refresh).await.is_err(), "cycle {cycle}: a used token is unused");
        }
        used_before.clear();
        for told in told {
            logins += told.live.len() + told.dead.len();
            logouts += told.dead.len();
            for tokens in told.live {
                assert_eq!(api.verify(&tokens.access).await, ok(), "cycle {cycle}: a login is lost");
                assert!(api.refresh(&tokens.refresh).await.is_ok(), "cycle {cycle}: a login is lost");
                used_before.push(tokens);
            }
            // A logout is done or not done, never in part.
            let mut fates = vec![];
            for tokens in &told.in_doubt {
                fates.push(api.verify(&tokens.access).await == ok());
            }
            assert!(fates.windows(2).all(|pair| pair[0] == pair[1]), "cycle {cycle}: {fates:?}");
            dead_before.extend(told.dead);
        }
    }
    assert!(logins > 100 && logouts > 20, "too little was going on: {logins} logins, {logouts} logouts");
}

fn start(dir: &tempfile::TempDir) -> Server {
    // Refused tokens are asked for in numbers here; being told 429 would prove nothing.
    Server::start_with(dir.path(), &[("RESCIND_LIMITS__FAILED_LOGINS_PER_MINUTE", "0")])
}

async fn open(api: Api, credential: Credential, answered: Arc<AtomicUsize>) -> Told {
    let mut told = Told::default();
    while let Ok(tokens) = api.try_login(&credential).await {
        told.live.push(tokens.unwrap());
        answered.fetch_add(1, Ordering::SeqCst);
    }
    told
}

async fn churn(api: Api, credential: Credential, answered: Arc<AtomicUsize>) -> Told {
    let mut told = Told::default();
    loop {
        for _ in 0..2 {
            let Ok(tokens) = api.try_login(&credential).await else { return told };
            told.live.push(tokens.unwrap());
            answered.fetch_add(1, Ordering::SeqCst);
        }
        told.in_doubt = std::mem::take(&mut told.live);
        let Ok(answer) = api.try_logout(&told.in_doubt[0].access).await else { return told };
        assert_eq!(answer, ok());
        told.dead.append(&mut told.in_doubt);
        answered.fetch_add(1, Ordering::SeqCst);
    }
}
