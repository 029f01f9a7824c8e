//! Two requests at once, many times: in either order, no token from before the revocation is valid after it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use rescind::auth::{self, Caller, Error, Grant, login, logout, refresh};
use rescind_admin as admin;
use rescind_node::app::App;
use rescind_verifier::Kind;
use tokio::{
    sync::Barrier,
    task::{JoinSet, yield_now},
};

use crate::app::{Client, NOW, TestApp};

const HERE: Caller = {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Caller::direct(here)
};

/// Clients at the same time, so that their changes share commits.
const CLIENTS: u64 = 25;

/// A service without the limit of failures, because these tests present many refused tokens.
async fn unthrottled() -> TestApp {
    TestApp::with(|config| config.limits.failed_logins_per_minute = 0).await
}

type Outcome = Result<Grant, Error>;

/// In the first round `one` ends before `other` begins, in the second `other` ends before `one` begins. In all other
/// rounds both begin at the same moment, each after a number of steps that differs from round to round.
async fn at_once<A: Send + 'static, B: Send + 'static>(
    round: u64,
    one: impl Future<Output = A> + Send + 'static,
    other: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    match round {
        0 => return (one.await, other.await),
        1 => {
            let other = other.await;
            return (one.await, other);
        }
        _ => {}
    }
    let barrier = Arc::new(Barrier::new(2));
    let steps = round % 8;
    let (one, other) = (
        tokio::spawn(begin(Arc::clone(&barrier), steps, one)),
        tokio::spawn(begin(barrier, 7 - steps, other)),
    );
    (one.await.unwrap(), other.await.unwrap())
}

async fn begin<T>(barrier: Arc<Barrier>, steps: u64, task: impl Future<Output = T>) -> T {
    barrier.wait().await;
    for _ in 0..steps {
        yield_now().await;
    }
    task.await
}

/// Asserts that both orders occurred, as the first two rounds of each client guarantee.
fn assert_both_orders(count: u64, rounds: u64) {
    assert!((CLIENTS..=CLIENTS * (rounds - 1)).contains(&count), "{count}");
}

/// Runs the rounds of every client, and adds up the results.
async fn rounds<F: Future<Output = u64> + Send + 'static>(
    test: &TestApp,
    run: impl Fn(Arc<App>, Client) -> F,
) -> u64 {
    let mut running = JoinSet::new();
    for _ in 0..CLIENTS {
        running.spawn(run(Arc::clone(&test.app), test.client().await));
    }
    running.join_all().await.into_iter().sum()
}

async fn log_in(app: Arc<App>, client: Client) -> Outcome {
    login(&app, &client.key, &client.secret, &HERE).await
}

async fn stands(app: &App, grant: &Grant) -> bool {
    match auth::verify(app, &grant.pair.access_token, &HERE).await {
        Ok(_) => true,
        Err(Error::InvalidToken(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn assert_dead(app: &Arc<App>, grant: &Grant) {
    assert!(!stands(app, grant).await);
    let refreshed = refresh(app, &grant.pair.refresh_token, &HERE).await;
    assert!(matches!(refreshed, Err(Error::InvalidToken(_) | Error::Reused)), "{refreshed:?}");
}

fn generation(app: &App, grant: &Grant) -> u64 {
    let keyring = app.memory.issuer.keyring();
    keyring.authenticate(&grant.pair.access_token, Kind::Access, NOW).unwrap().generation
}

async fn current_generation(app: &App, client: &Client) -> u64 {
    app.store.find(client.id, 0).await.unwrap().client.unwrap().generation
}

// check 18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_racing_a_logout_gives_new_tokens_or_dead_ones() {
    let test = unthrottled().await;
    let survivors = rounds(&test, async |app, client| {
        let mut survivors = 0;
        let mut old = log_in(Arc::clone(&app), client.clone()).await.unwrap();
        for round in 0..400 {
            let taking_back = {
                let (app, old) = (Arc::clone(&app), old.clone());
                async move {
                    logout(&app, &old.pair.access_token, &HERE).await.unwrap();
                    assert_dead(&app, &old).await;
                }
            };
            let (new, ()) = at_once(round, log_in(Arc::clone(&app), client.clone()), taking_back).await;
            let new = new.unwrap();
            assert_dead(&app, &old).await;
            let current = current_generation(&app, &client).await;
            assert_eq!(current, generation(&app, &old) + 1);
            if generation(&app, &new) == current {
                assert!(stands(&app, &new).await);
                assert!(refresh(&app, &new.pair.refresh_token, &HERE).await.is_ok());
                survivors += 1;
                old = new;
            } else {
                assert_dead(&app, &new).await;
                old = log_in(Arc::clone(&app), client.clone()).await.unwrap();
            }
        }
        survivors
    })
    .await;
    assert_both_orders(survivors, 400);
}

// Keycloak #51312: a refresh racing a revocation survives it
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_refresh_racing_a_logout_survives_it() {
    let test = unthrottled().await;
    let refreshed = rounds(&test, async |app, client| {
        let mut refreshed = 0;
        for round in 0..80 {
            let old = log_in(Arc::clone(&app), client.clone()).await.unwrap();
            let (new, ()) = at_once(round, renew(&app, &old), {
                let (app, old) = (Arc::clone(&app), old.clone());
                async move { logout(&app, &old.pair.access_token, &HERE).await.unwrap() }
            })
            .await;
            refreshed += assert_both_dead(&app, &old, new).await;
        }
        refreshed
    })
    .await;
    assert_both_orders(refreshed, 80);
}

// check 17, CVE-2023-22492, CVE-2024-47000, CVE-2025-64521: refresh or login survives deactivation
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_refresh_or_login_racing_a_suspension_survives_it() {
    let test = unthrottled().await;
    let given = rounds(&test, async |app, client| {
        let mut given = 0;
        for round in 0..80 {
            let old = log_in(Arc::clone(&app), client.clone()).await.unwrap();
            let suspending = {
                let app = Arc::clone(&app);
                async move { admin::suspend(&app, client.id, Default::default()).await.unwrap() }
            };
            let new = if round % 2 == 0 {
                at_once(round / 2, renew(&app, &old), suspending).await.0
            } else {
                at_once(round / 2, log_in(Arc::clone(&app), client.clone()), suspending).await.0
            };
            let new = match new {
                Err(Error::InvalidCredentials) => None,
                new => Some(new),
            };
            // Neither while it is suspended nor after.
            assert_dead(&app, &old).await;
            if let Some(Ok(new)) = &new {
                assert_dead(&app, new).await;
            }
            admin::resume(&app, client.id).await.unwrap();
            match new {
                Some(new) => given += assert_both_dead(&app, &old, new).await,
                None => assert_dead(&app, &old).await,
            }
        }
        given
    })
    .await;
    assert_both_orders(given, 80);
}

// check 17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_login_racing_the_revoking_of_its_credential_survives_it() {
    let test = unthrottled().await;
    let given = rounds(&test, async |app, client| {
        let mut given = 0;
        for round in 0..18 {
            let created = admin::create_credential(&app, client.id, admin::NewCredential::default());
            let created = created.await.unwrap();
            let client = Client { key: created.api_key, secret: created.api_secret, ..client };
            let revoking = {
                let (app, key) = (Arc::clone(&app), client.key.clone());
                async move { admin::revoke_credential(&app, &key).await.unwrap() }
            };
            match at_once(round, log_in(Arc::clone(&app), client), revoking).await.0 {
                Ok(new) => {
                    assert_dead(&app, &new).await;
                    given += 1;
                }
                Err(error) => assert!(matches!(error, Error::InvalidCredentials), "{error}"),
            }
        }
        given
    })
    .await;
    assert_both_orders(given, 18);
}

// Two logouts at once, and a login between them: one of them succeeds or both do, and only what was
// there before is taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_logouts_of_one_generation_one_counts() {
    let test = unthrottled().await;
    let done = rounds(&test, async |app, client| {
        let mut done = 0;
        for round in 0..40 {
            let mut old = Vec::new();
            for _ in 0..2 {
                old.push(log_in(Arc::clone(&app), client.clone()).await.unwrap());
            }
            let before = current_generation(&app, &client).await;
            let taking_back = |grant: &Grant| {
                let (app, token) = (Arc::clone(&app), grant.pair.access_token.clone());
                async move { logout(&app, &token, &HERE).await }
            };
            let (one, other) = at_once(round, taking_back(&old[0]), taking_back(&old[1])).await;
            let succeeded = [one, other].into_iter().filter(Result::is_ok).count();
            assert_eq!(succeeded, 1);
            assert_eq!(current_generation(&app, &client).await, before + 1);
            for grant in &old {
                assert_dead(&app, grant).await;
            }
            done += 1;
        }
        done
    })
    .await;
    assert_eq!(done, CLIENTS * 40);
}

// Memory holds two sessions of 64 here, and many others log in: an ending is forgotten before a refresh from before it
// tells what it has done.
// check 94
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_refresh_racing_the_revocation_of_its_session_brings_it_back() {
    let test = TestApp::with(|config| {
        config.limits.failed_logins_per_minute = 0;
        config.server.sessions_in_memory = 1;
    })
    .await;
    let mut others = JoinSet::new();
    for _ in 0..8 {
        let client = test.client().await;
        for _ in 0..32 {
            let (app, client) = (Arc::clone(&test.app), client.clone());
            others.spawn(async move {
                loop {
                    log_in(Arc::clone(&app), client.clone()).await.unwrap();
                }
            });
        }
    }
    let refreshed = rounds(&test, async |app, client| {
        let mut refreshed = 0;
        for round in 0..7 {
            let old = log_in(Arc::clone(&app), client.clone()).await.unwrap();
            let (new, ()) = at_once(round, renew(&app, &old), {
                let (app, old) = (Arc::clone(&app), old.clone());
                async move {
                    auth::revoke(&app, client.id, &old.pair.access_token).await.unwrap();
                    for _ in 0..20 {
                        assert!(!stands(&app, &old).await, "round {round}");
                        yield_now().await;
                    }
                }
            })
            .await;
            refreshed += assert_both_dead(&app, &old, new).await;
        }
        refreshed
    })
    .await;
    assert_both_orders(refreshed, 7);
}

fn renew(app: &Arc<App>, grant: &Grant) -> impl Future<Output = Outcome> + Send + 'static {
    let (app, token) = (Arc::clone(app), grant.pair.refresh_token.clone());
    async move { refresh(&app, &token, &HERE).await }
}

/// Asserts that neither the old nor the new tokens are valid. Returns the number of new grants: 0 or 1.
async fn assert_both_dead(app: &Arc<App>, old: &Grant, new: Outcome) -> u64 {
    assert_dead(app, old).await;
    match new {
        Ok(new) => {
            assert_dead(app, &new).await;
            1
        }
        Err(error) => {
            assert!(matches!(error, Error::InvalidToken(_)), "{error}");
            0
        }
    }
}
