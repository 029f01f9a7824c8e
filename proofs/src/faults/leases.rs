//! A new process must wait for the leases that its predecessor has lent, even if settings have changed or the
//! verifier was deleted.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use rescind_verifier::follow::{Follower, Options};
use tokio::time::sleep;

use super::{
    caller::{Caller, Credential, Tokens},
    clock::{between, now},
    cluster::Setup,
    node::Node,
    process::{PATIENCE, eventually},
    proxy::Link,
    scenarios::Recording,
    verifier::Attached,
};
use crate::history::Verdict;

/// Leases and margins: the verifier gets most of the long lease, and the next process knows only the short one.
const LONG: [(&str, &str); 2] = [("RESCIND_CLUSTER__LEASE", "5s"), ("RESCIND_CLUSTER__MARGIN", "500ms")];
const SHORT: [(&str, &str); 2] = [("RESCIND_CLUSTER__LEASE", "1s"), ("RESCIND_CLUSTER__MARGIN", "100ms")];

/// Longer than any lease here.
const OVER: Duration = Duration::from_secs(6);

/// The process that answers for the logout.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The server, stopped in order and started again.
    Stopped,
    /// The server, killed and started again.
    Killed,
    /// A command that opens the store itself, after the server was killed.
    Command,
}

/// A server with the embedded store, and a verifier that follows it.
struct Bench {
    node: Node,
    credential: Credential,
    recording: Recording,
    caller: Caller,
}

pub(super) async fn shortened(setup: &Setup) -> anyhow::Result<String> {
    let mut bench = Bench::start(setup).await?;
    let mut told = vec![];
    for next in [Next::Stopped, Next::Killed, Next::Command] {
        let (_, attached) = bench.attach().await?;
        let tokens = bench.held_by(&attached).await?;
        bench.node.feed.set(Link::Stalled { requests: true, answers: true });
        bench.set(SHORT);
        match next {
            Next::Stopped => bench.node.stop().await?,
            Next::Killed | Next::Command => bench.node.kill().await?,
        }
        if !matches!(next, Next::Command) {
            bench.node.start(0).await?;
        }
        let asked = now();
        let verdict = match next {
            Next::Command => bench.caller.logout_by_operator(&bench.credential).await,
            Next::Stopped | Next::Killed => bench.caller.logout(&tokens).await,
        };
        verdict.given().context("logout")?;
        told.push(format!("{next:?}: a logout took {:.1} s", between(asked, now()).as_secs_f64()));
        bench.look(&attached, &tokens).await;
        if matches!(next, Next::Command) {
            bench.node.start(0).await?;
        }
        bench.set(LONG);
        bench.node.stop().await?;
        bench.node.start(0).await?;
        bench.node.feed.set(Link::Open);
    }
    bench.judged(&told).await
}

pub(super) async fn revoked(setup: &Setup) -> anyhow::Result<String> {
    let mut bench = Bench::start(setup).await?;
    let mut told = vec![];
    for next in [Next::Stopped, Next::Killed] {
        let (verifier, attached) = bench.attach().await?;
        let tokens = bench.held_by(&attached).await?;
        bench.node.feed.set(Link::Stalled { requests: true, answers: true });
        // The command waits for the lease, so it is not awaited.
        let command_line = bench.node.door.command_line.clone();
        let revoking =
            tokio::spawn(async move { command_line.json(&["--yes", "verifier", "revoke", &verifier]).await });
        let command_line = &bench.node.door.command_line;
        eventually("there is no verifier", PATIENCE, async || {
            let verifiers = command_line.json(&["verifier", "list"]).await.ok()?;
            verifiers.as_array()?.is_empty().then_some(())
        })
        .await?;
        match next {
            Next::Stopped => bench.node.stop().await?,
            Next::Killed | Next::Command => bench.node.kill().await?,
        }
        let _ = revoking.await;
        bench.node.start(0).await?;
        let asked = now();
        bench.caller.logout(&tokens).await.given().context("logout")?;
        told.push(format!("{next:?}: a logout took {:.1} s", between(asked, now()).as_secs_f64()));
        bench.look(&attached, &tokens).await;
        bench.node.feed.set(Link::Open);
    }
    bench.judged(&told).await
}

impl Bench {
    async fn start(setup: &Setup) -> anyhow::Result<Bench> {
        let mut node = Node::single(setup).await?;
        LONG.iter().for_each(|(name, value)| node.door.command_line.set(name, *value));
        node.start(0).await?;
        let credential = Credential::create(&node.door.command_line, "client").await?;
        let recording = Recording::create(setup.folder.join("history.jsonl"))?;
        let caller = Caller::new(&node.door, &recording.recorder)?;
        Ok(Bench { node, credential, recording, caller })
    }

    fn set(&self, settings: [(&str, &str); 2]) {
        settings.iter().for_each(|(name, value)| self.node.door.command_line.set(name, *value));
    }

    /// Creates a verifier, and returns its id and a follower.
    async fn attach(&self) -> anyhow::Result<(String, Attached)> {
        let create = ["verifier", "create", "--share-hs256", "--name", "verifier"];
        let created = self.node.door.command_line.json(&create).await?;
        let token = created["token"].as_str().context("verifier create")?;
        let follower = Follower::start(Options::exact(self.node.feed.address().to_string(), token));
        let recorder = Arc::clone(&self.recording.recorder);
        Ok((created["verifier_id"].to_string(), Attached { name: "verifier".to_owned(), follower, recorder }))
    }

    /// Tokens that the verifier accepts.
    async fn held_by(&self, attached: &Attached) -> anyhow::Result<Arc<Tokens>> {
        let tokens = self.caller.login(&self.credential).await.given().context("login")?;
        eventually("the verifier follows", PATIENCE, async || {
            (attached.verify(&tokens) == Verdict::Accepted(())).then_some(())
        })
        .await?;
        Ok(tokens)
    }

    /// Verifies a token repeatedly until its lease must have ended.
    async fn look(&self, attached: &Attached, tokens: &Tokens) {
        let since = now();
        while attached.verify(tokens) == Verdict::Accepted(()) && between(since, now()) < OVER {
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn judged(mut self, told: &[String]) -> anyhow::Result<String> {
        self.node.stop().await?;
        self.recording.judged().await.with_context(|| told.join("; "))?;
        Ok(told.join("; "))
    }
}
