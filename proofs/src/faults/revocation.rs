//! Sessions are revoked while they are refreshed, at a server that remembers a few.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time::sleep};

use super::{
    caller::{Caller, Credential, Tokens, Which},
    clock::{between, now},
    cluster::Setup,
    node::Node,
    scenarios::Recording,
};
use crate::history::Kind;

/// So many sessions, and so many logins at once.
const SESSIONS: usize = 3072;
const AT_ONCE: usize = 64;
/// As many of them as come about in this time, and are raced in this time.
const TIME: Duration = Duration::from_secs(8);

/// The server remembers sessions in so many places by their numbers, and here two in each. Those of one place are
/// raced together, so that what is learned of one pushes out what was just learned of another.
const PLACES: usize = 64;

pub(super) async fn run(setup: &Setup) -> anyhow::Result<String> {
    let mut node = Node::single(setup).await?;
    node.door.command_line.set("RESCIND_SERVER__SESSIONS_IN_MEMORY", "1");
    node.start(0).await?;
    let recording = Recording::create(setup.folder.join("history.jsonl"))?;
    let caller = Caller::new(&node.door, &recording.recorder)?;
    let credential = Credential::create(&node.door.command_line, "client").await?;
    let mut places = vec![vec![]; PLACES];
    let since = now();
    for _ in (0..SESSIONS / AT_ONCE).take_while(|_| between(since, now()) < TIME) {
        let logins = (0..AT_ONCE).map(|_| {
            let (caller, credential) = (caller.clone(), credential.clone());
            async move { caller.login(&credential).await.given() }
        });
        for tokens in logins.collect::<JoinSet<_>>().join_all().await {
            let tokens = tokens.context("login")?;
            places[tokens.session as usize % PLACES].push(tokens);
        }
    }
    let mut rng = StdRng::seed_from_u64(setup.seed);
    let since = now();
    for sessions in places.into_iter().take_while(|_| between(since, now()) < TIME) {
        let races = sessions.into_iter().map(|tokens| {
            let after = Duration::from_millis(rng.random_range(0..100));
            race(caller.clone(), credential.clone(), tokens, after)
        });
        let ended = races.collect::<JoinSet<_>>().join_all().await;
        ended.into_iter().collect::<anyhow::Result<()>>()?;
    }
    node.stop().await?;
    let report = recording.judged().await?;
    let count = |kind| report.verdicts.get(&kind).copied().unwrap_or_default();
    Ok(format!(
        "{} sessions revoked, {} refreshed meanwhile; a revoked token was presented {} times, and always refused",
        count(Kind::Revoke).accepted,
        count(Kind::Refresh).accepted,
        report.revoked_presented
    ))
}

/// A session's end beside its refresh, and some time after.
async fn race(
    caller: Caller,
    credential: Credential,
    tokens: Arc<Tokens>,
    after: Duration,
) -> anyhow::Result<()> {
    let revoke = async {
        sleep(after).await;
        caller.revoke(&credential, &tokens, Which::Access).await
    };
    let (refreshed, revoked) = tokio::join!(caller.refresh(&tokens), revoke);
    revoked.given().context("revoke")?;
    let held = [Some(tokens), refreshed.given()];
    for _ in 0..2 {
        for tokens in held.iter().flatten() {
            caller.verify(tokens).await;
        }
    }
    Ok(())
}
