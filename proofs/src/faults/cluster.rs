//! Three nodes over a database and its stand-by.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rescind_verifier::follow::{Follower, Options};

use super::{
    caller::{Caller, Credential},
    clock::{between, now},
    node::Node,
    postgres::Postgres,
    process::eventually,
    recorder::Recorder,
    verifier::{Attached, Verifier},
};
use crate::history::Verdict;

/// The program under test, and the run's parameters.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program `rescind`.
    pub program: PathBuf,
    /// The folder for logs, histories and databases.
    pub folder: PathBuf,
    /// The seed of all random values.
    pub seed: u64,
    /// The folder with the archives of PostgreSQL's versions.
    pub archives: PathBuf,
    /// The folder with PostgreSQL's programs. `None`: those of Debian's packages.
    pub postgres: Option<PathBuf>,
}

impl Setup {
    /// The same setup in a folder of its own.
    pub(super) fn apart(&self, name: &str) -> anyhow::Result<Setup> {
        let folder = self.folder.join(name);
        fs::create_dir(&folder)?;
        Ok(Setup { folder, ..self.clone() })
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The whole system under test.
#[derive(Debug)]
pub struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) postgres: Postgres,
    pub(super) folder: PathBuf,
    /// The source of all random values here.
    pub(super) rng: StdRng,
    /// The options of the exact follower of each node.
    follow: Vec<Options>,
    followers: Vec<Follower>,
    /// A client that is only used to check whether a node serves.
    canary: Credential,
}

impl Cluster {
    /// Starts all servers.
    ///
    /// # Errors
    ///
    /// Fails if a server cannot be started.
    pub async fn start(setup: &Setup) -> anyhow::Result<Cluster> {
        Cluster::start_over(Postgres::start(setup.postgres.as_deref(), &setup.folder).await?, setup, &[])
            .await
    }

    /// Starts nodes over this database, with settings in addition to the common ones.
    pub(super) async fn start_over(
        postgres: Postgres,
        setup: &Setup,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Cluster> {
        let Setup { program, folder, seed, .. } = setup;
        let mut rng = StdRng::seed_from_u64(*seed);
        let key: String =
            (0..64).map(|_| char::from_digit(rng.random_range(0..16), 16).unwrap_or('0')).collect();
        let mut nodes = vec![];
        for name in NAMES {
            let mut node = Node::new(name, program, folder, Some(postgres.address()), &key).await?;
            settings.iter().for_each(|&(name, value)| node.door.command_line.set(name, value));
            node.start(0).await?;
            nodes.push(node);
        }
        let mut follow = vec![];
        for node in &nodes {
            let created = ["verifier", "create", "--share-hs256", "--name", &node.door.name];
            let created = node.door.command_line.json(&created).await?;
            let token = created["token"].as_str().context("verifier create")?;
            follow.push(Options::exact(node.feed.address().to_string(), token));
        }
        let canary = Credential::create(&nodes[0].door.command_line, "canary").await?;
        let folder = folder.to_owned();
        let mut cluster = Cluster { nodes, postgres, folder, rng, follow, followers: vec![], canary };
        cluster.attach();
        Ok(cluster)
    }

    /// Starts a follower of each node.
    pub(super) fn attach(&mut self) {
        self.followers = self.follow.iter().cloned().map(Follower::start).collect();
    }

    /// Stops every follower.
    pub(super) async fn detach(&mut self) {
        for follower in self.followers.drain(..) {
            follower.leave().await;
        }
    }

    /// A caller for each node.
    pub(super) fn callers(&self, recorder: &Arc<Recorder>) -> anyhow::Result<Vec<Caller>> {
        self.nodes.iter().map(|node| Caller::new(&node.door, recorder)).collect()
    }

    /// Everything that verifies tokens: each node, and its attached verifier.
    pub(super) fn verifiers(&self, recorder: &Arc<Recorder>) -> anyhow::Result<Vec<Verifier>> {
        let nodes = self.callers(recorder)?.into_iter().map(Verifier::Node);
        Ok(nodes.chain(self.attached(recorder).map(Verifier::Attached)).collect())
    }

    fn attached(&self, recorder: &Arc<Recorder>) -> impl Iterator<Item = Attached> {
        self.nodes.iter().zip(&self.followers).map(|(node, follower)| Attached {
            name: format!("verifier of {}", node.door.name),
            follower: follower.clone(),
            recorder: Arc::clone(recorder),
        })
    }

    /// Creates clients.
    pub(super) async fn clients(&self, count: usize) -> anyhow::Result<Vec<Credential>> {
        let mut clients = vec![];
        for i in 0..count {
            let node = &self.nodes[i % self.nodes.len()];
            clients.push(Credential::create(&node.door.command_line, "client").await?);
        }
        Ok(clients)
    }

    /// Directs every node's link to the primary.
    pub(super) fn lead_nodes_to_the_primary(&self) -> anyhow::Result<()> {
        let address = self.postgres.address();
        self.nodes.iter().try_for_each(|node| {
            node.link()?.lead_to(address);
            Ok(())
        })
    }

    /// Waits until every node and every attached verifier serves again. Returns the time that this took.
    pub(super) async fn serves(
        &self,
        recorder: &Arc<Recorder>,
        within: Duration,
    ) -> anyhow::Result<Duration> {
        let began = now();
        for (caller, attached) in self.callers(recorder)?.iter().zip(self.attached(recorder)) {
            let what = format!("node {} serves", caller.node.name);
            eventually(&what, within, async || {
                let tokens = caller.login(&self.canary).await.given()?;
                let verdicts = [caller.verify(&tokens).await, attached.verify(&tokens)];
                (verdicts == [Verdict::Accepted(()); 2]).then_some(())
            })
            .await
            .context("after the fault was over")?;
        }
        Ok(between(began, now()))
    }

    /// Stops all servers in order.
    ///
    /// # Errors
    ///
    /// Fails if a server does not stop.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.detach().await;
        for node in &mut self.nodes {
            node.stop().await?;
        }
        self.postgres.stop().await
    }
}
