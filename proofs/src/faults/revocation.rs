//! Sessions are revoked while they are refreshed, at a server with memory for a few sessions.

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

/// The number of sessions, and of simultaneous logins.
const SESSIONS: usize = 3072;
const AT_ONCE: usize = 64;
/// The time for the logins, and for the races.
const TIME: Duration = Duration::from_secs(8);

/// The server spreads sessions over this many shards by their numbers, with two in each here. Sessions of one
/// shard race together, so that each change drops another session from memory.
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

/// Refreshes a session, revokes it `after` the request, and verifies all of its tokens.
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
