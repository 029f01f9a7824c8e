//! The stand-by takes over. Before that no node starts on it. Afterwards it knows the used and the revoked
//! tokens.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};

use super::{
    caller::{Caller, Credential, Tokens},
    cluster::Cluster,
    fault::Fault,
    node::Node,
    scenarios::Recording,
};
use crate::history::Verdict;

/// Clients whose tokens are stolen.
const CLIENTS: usize = 6;

/// A session that was refreshed twice.
struct Chain {
    used: [Arc<Tokens>; 2],
    newest: Arc<Tokens>,
}

impl Chain {
    async fn begin(at: [&Caller; 3], client: &Credential) -> anyhow::Result<Chain> {
        let first = at[0].login(client).await.given().context("login")?;
        let second = at[1].refresh(&first).await.given().context("refresh")?;
        let newest = at[2].refresh(&second).await.given().context("refresh")?;
        Ok(Chain { used: [first, second], newest })
    }
}

pub(super) async fn run(cluster: &mut Cluster, recording: &Recording) -> anyhow::Result<String> {
    nobody_starts_on_the_standby(cluster).await?;
    let [a, b, c] = &recording.callers[..] else { anyhow::bail!("three nodes") };
    let turns = [[a, b, c], [b, c, a], [c, a, b]];
    let at = |i: usize| turns[i % turns.len()];
    let (clients, other) = (cluster.clients(CLIENTS).await?, cluster.clients(1).await?);
    let (mut stolen, mut kept) = (vec![], vec![]);
    for (i, client) in clients.iter().enumerate() {
        stolen.push(Chain::begin(at(i), client).await?);
        kept.push(Chain::begin(at(i + 1), client).await?);
    }
    let revoked = Chain::begin(at(0), &other[0]).await?;
    a.logout(&revoked.newest).await.given().context("logout")?;

    Fault::Promotion.strike(cluster).await?;
    cluster.serves(&recording.recorder, Duration::from_secs(30)).await?;

    for (i, (Chain { used, newest }, kept)) in stolen.iter().zip(&kept).enumerate() {
        let [thief, owner, other] = at(i);
        ensure!(is_refused(thief, &used[i % 2]).await, "a token used before the fail-over was not refused");
        ensure!(is_refused(owner, newest).await, "a chain goes on of which a token was used again");
        other.refresh(&kept.newest).await.given().context("a chain of which none was used again")?;
    }
    for node in [a, b, c] {
        ensure!(is_refused(node, &revoked.newest).await, "a chain goes on after a logout");
        ensure!(node.verify(&revoked.newest).await == Verdict::Refused, "a token outlives the logout");
    }
    recording.judged().await?;
    Ok(format!(
        "nobody starts on the stand-by; when it had taken over, {CLIENTS} used tokens ended their chains, {CLIENTS} \
         others went on, and what was revoked was"
    ))
}

async fn is_refused(at: &Caller, tokens: &Tokens) -> bool {
    matches!(at.refresh(tokens).await, Verdict::Refused)
}

/// The program must report the reason and the remedy.
async fn nobody_starts_on_the_standby(cluster: &Cluster) -> anyhow::Result<()> {
    let program = &cluster.nodes[0].door.command_line.program;
    let standby = cluster.postgres.standby_address()?;
    let node = Node::new("stray", program, &cluster.folder, Some(standby), &"0".repeat(64)).await?;
    let (status, said) = node.fails_to_start().await?;
    ensure!(status.code() == Some(1), "on the stand-by: {status}: {said}");
    for told in ["error: ", "it is a stand-by", "name the primary in database.url"] {
        ensure!(said.contains(told), "on the stand-by {told:?} is not told: {said}");
    }
    Ok(())
}
