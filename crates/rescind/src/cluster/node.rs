//! This process as a node of a cluster: it joins, renews its lease, takes over what others changed, and
//! leaves.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::{Roll, clock::ahead_of, settle::settle_attached};
use crate::{
    app::App,
    store::{ChangedRow, LeaseConnection, NodeRow, Postgres, StoreError},
};

/// A lease is renewed so many times in its term.
const RENEWALS: u32 = 4;
/// Between attempts to reach the store.
const PAUSE: Duration = Duration::from_millis(200);
/// More changed clients than that are loaded with all the others at once.
const ONE_BY_ONE: usize = 256;

/// Why a node has to begin anew.
#[derive(Debug, Error)]
enum Broken {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database did not answer in time")]
    Silent,
    #[error("the other nodes took this one for dead")]
    Fenced,
    #[error(
        "the database is older than it was (timeline {} after {}, change {} after {}): is this the primary? \
         Nothing is answered from memory until it is", now.0, known.0, now.1, known.1
    )]
    WentBack { now: (u32, u64), known: (u32, u64) },
}

/// Keeps this process a node until `stop`, through whatever befalls the database.
pub async fn run(app: &Arc<App>, postgres: &Postgres, stop: impl Future<Output = ()>) {
    let mut node = Node::new(app, postgres);
    let keep = async {
        let mut away = None;
        loop {
            let Err(broken) = node.keep(&mut away).await;
            match &broken {
                Broken::Fenced | Broken::WentBack { .. } => app.cluster.lease.end(),
                Broken::Store(_) | Broken::Silent => {}
            }
            // The lease that is there runs on: a short outage goes by unnoticed.
            if away.is_none() {
                match &broken {
                    Broken::WentBack { .. } => error!(error = %broken, "this node cannot renew its lease"),
                    broken => warn!(error = %chain(broken), "this node cannot renew its lease"),
                }
                away = Some(app.clock.elapsed());
            }
            if matches!(broken, Broken::Fenced) {
                node.id = None;
            } else {
                sleep(PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = stop => {}
        () = keep => {}
    }
    app.cluster.lease.end();
    node.leave().await;
}

struct Node<'a> {
    app: &'a Arc<App>,
    postgres: &'a Postgres,
    /// `None`: it has to join.
    id: Option<u64>,
    /// A row of this node that never had a lease.
    unused: Option<u64>,
    /// The last change that memory has, and the one before which nothing is applied that others
    /// must wait for: the attached verifiers have it too.
    applied: u64,
    acked: u64,
    /// Higher at each fail-over. What is in memory is of this one.
    timeline: u32,
    /// The attached verifiers are waited for, up to this change.
    settling: Option<(u64, Settled)>,
    /// The others' beats, and since when, by this node's clock, they have stood still.
    beats: HashMap<u64, (u64, Duration)>,
}

type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<'a> Node<'a> {
    fn new(app: &'a Arc<App>, postgres: &'a Postgres) -> Node<'a> {
        Node {
            app,
            postgres,
            id: None,
            unused: None,
            applied: 0,
            acked: 0,
            timeline: 0,
            settling: None,
            beats: HashMap::new(),
        }
    }

    /// Renews the lease, as long as the database answers.
    async fn keep(&mut self, away: &mut Option<Duration>) -> Result<Infallible, Broken> {
        // One connection is one server: what it says of nodes, changes and clients is of one history.
        let mut connection = in_time(self.app, self.postgres.lease_connection()).await?;
        if connection.timeline() < self.timeline {
            return Err(self.went_back(connection.timeline(), self.applied));
        }
        if connection.timeline() > self.timeline {
            // Another server has taken over, and may never have had the last changes of the one before.
            self.app.cluster.lease.end();
            self.id = None;
        }
        loop {
            match self.id {
                Some(id) => self.renew(&mut connection, id).await?,
                None => {
                    let id = self.join(&mut connection).await?;
                    self.renew(&mut connection, id).await?;
                    let name = &self.app.cluster.node_name;
                    info!(node = id, name, change = self.applied, "joined the cluster");
                }
            }
            if let Some(since) = away.take() {
                let away = self.app.clock.elapsed().saturating_sub(since);
                info!(?away, "this node renews its lease again");
            }
            self.settle_attached();
            tokio::select! {
                biased;
                seq = settled(&mut self.settling) => self.acked = seq,
                rung = connection.rung() => rung?,
                () = sleep(self.app.cluster.terms.lease / RENEWALS) => {}
            }
        }
    }

    /// From the moment that this row is committed every logout waits for this node. What was committed
    /// before is in what it loads after.
    async fn join(&mut self, connection: &mut LeaseConnection) -> Result<u64, Broken> {
        if let Some(unused) = self.unused {
            in_time(self.app, connection.leave(unused)).await?;
        }
        let wait = self.app.cluster.terms.wait();
        let id = in_time(self.app, connection.join(&self.app.cluster.node_name, wait)).await?;
        self.unused = Some(id);
        (self.acked, self.settling) = (0, None);
        self.load(connection).await?;
        (self.id, self.unused, self.timeline) = (Some(id), None, connection.timeline());
        Ok(id)
    }

    /// One renewal: a replicated write, never a read alone, which a database that has been replaced
    /// could answer as well.
    async fn renew(&mut self, connection: &mut LeaseConnection, id: u64) -> Result<(), Broken> {
        // What is applied beforehand is acknowledged by this same write.
        self.catch_up(connection).await?;
        self.settle_attached();
        tokio::select! {
            biased;
            seq = settled(&mut self.settling) => self.acked = seq,
            () = std::future::ready(()) => {}
        }
        self.compare_clocks(connection, id).await?;
        // Before the question is sent: what the answer does not have was committed after this.
        let asked_at = self.app.clock.elapsed();
        let renewed = in_time(self.app, connection.renew(id, self.acked)).await?.ok_or(Broken::Fenced)?;
        if renewed.head < self.applied {
            return Err(self.went_back(self.timeline, renewed.head));
        }
        while self.applied < renewed.head {
            self.catch_up(connection).await?;
        }
        let Self { app, .. } = self;
        app.cluster.lease.extend(app.cluster.terms.deadline(asked_at));
        self.watch(connection, id, &renewed.nodes).await?;
        let roll =
            Roll { node: id, applied: self.applied, head: renewed.head, nodes: self.roll(renewed.nodes) };
        self.app.cluster.publish(roll);
        Ok(())
    }

    /// Whether tokens may be issued by this node's wall clock.
    async fn compare_clocks(&mut self, connection: &mut LeaseConnection, id: u64) -> Result<(), Broken> {
        let app = self.app;
        let before = app.clock.now();
        let clocks = in_time(app, connection.clocks(id)).await?;
        let ahead = ahead_of(clocks.now, before, app.clock.now());
        match app.cluster.clock.compare(ahead, &clocks.others) {
            Some(true) => warn!(
                ahead_seconds = ahead,
                "this node's clock is not the database's: it deletes nothing by it, and gives no tokens as long as another \
                 node's is; set the one right that is wrong"
            ),
            Some(false) => info!("this node's clock is the database's again"),
            None => {}
        }
        in_time(app, connection.tell_clock(id, ahead)).await
    }

    /// Applies the changes since, in their order. Each says what changed; how it is now is looked up,
    /// and is as new or newer.
    async fn catch_up(&mut self, connection: &mut LeaseConnection) -> Result<(), Broken> {
        let changes = in_time(self.app, connection.changes(self.applied)).await?;
        let Some(last) = changes.last().map(|change| change.seq) else { return Ok(()) };
        let (mut clients, mut sessions) = (BTreeSet::new(), BTreeSet::new());
        let (mut keys, mut verifiers) = (false, false);
        for change in &changes {
            match change.what {
                ChangedRow::Client(client) => _ = clients.insert(client),
                ChangedRow::Session { client, session } => _ = sessions.insert((client, session)),
                ChangedRow::Keys => keys = true,
                ChangedRow::Verifiers => verifiers = true,
            }
        }
        let whole = (self.applied + 1..).zip(&changes).all(|(seq, change)| change.seq == seq);
        if !whole || clients.len() + sessions.len() > ONE_BY_ONE {
            return self.load(connection).await;
        }
        let app = self.app;
        in_time(self.app, async {
            for client in clients {
                if let Some(client) = connection.find(client, 0).await?.client {
                    app.registry.apply(&client);
                }
            }
            for (client, session) in sessions {
                if let Some(session) = connection.find(client, session).await?.session {
                    app.registry.update(&session);
                }
            }
            if keys {
                app.take_keys(connection.keys()).await?;
            }
            if verifiers {
                app.take_verifiers(connection.verifiers()).await?;
            }
            Ok(())
        })
        .await?;
        self.applied = last;
        Ok(())
    }

    /// Takes over everything, in place of what was known.
    async fn load(&mut self, connection: &mut LeaseConnection) -> Result<(), Broken> {
        let app = self.app;
        // However long it takes: there is no lease to lose.
        let loaded = app.store.load().await?;
        if loaded.timeline != connection.timeline() {
            return Err(StoreError::Unavailable("another server has taken over meanwhile".into()).into());
        }
        app.registry.replace(&loaded.clients, loaded.ended, app.new_epoch());
        app.take_keys(async { Ok(loaded.keys) }).await?;
        app.take_verifiers(async { Ok(loaded.verifiers) }).await?;
        self.applied = loaded.head;
        Ok(())
    }

    fn went_back(&self, timeline: u32, head: u64) -> Broken {
        Broken::WentBack { now: (timeline, head), known: (self.timeline, self.applied) }
    }

    /// Begins to wait for the attached verifiers, if they do not have all that is applied.
    fn settle_attached(&mut self) {
        if self.settling.is_none() && self.acked < self.applied {
            let app = Arc::clone(self.app);
            let head = app.registry.feed().head().seq;
            let settled = async move { settle_attached(&app, head).await };
            self.settling = Some((self.applied, Box::pin(settled)));
        }
    }

    /// Forgets nodes that are dead: those whose beat has stood still for longer than their lease can
    /// have run.
    async fn watch(
        &mut self,
        connection: &mut LeaseConnection,
        id: u64,
        nodes: &[NodeRow],
    ) -> Result<(), Broken> {
        let now = self.app.clock.elapsed();
        self.beats.retain(|id, _| nodes.iter().any(|node| node.id == *id));
        for node in nodes {
            let (beat, since) = self.beats.entry(node.id).or_insert((node.beat, now));
            if *beat != node.beat {
                (*beat, *since) = (node.beat, now);
            }
            let still = now.saturating_sub(*since);
            if node.id != id && still > node.wait.max(self.app.cluster.terms.wait()) {
                warn!(node = node.id, name = node.name, ?still, "a node is not heard of, and is forgotten");
                in_time(self.app, connection.forget(node.id, node.beat)).await?;
            }
        }
        Ok(())
    }

    fn roll(&self, nodes: Vec<NodeRow>) -> Vec<(NodeRow, Duration)> {
        let now = self.app.clock.elapsed();
        let since = |node: &NodeRow| self.beats.get(&node.id).map_or(now, |(_, since)| *since);
        nodes.into_iter().map(|node| (since(&node), node)).map(|(since, node)| (node, since)).collect()
    }

    /// The lease has ended: nobody needs to wait for this node any more.
    async fn leave(&mut self) {
        let Some(id) = self.id.take() else { return };
        // Verifiers that follow this node may go on for as long as it has lent them its lease.
        self.app.cluster.attached.settled(u64::MAX).await;
        let left = async {
            let mut connection = self.postgres.lease_connection().await?;
            connection.leave(id).await
        };
        match in_time(self.app, left).await {
            Ok(()) => info!(node = id, "left the cluster"),
            Err(broken) => warn!(error = %chain(&broken), "the others will wait for this node's lease"),
        }
    }
}

/// An answer that comes later than a lease lasts is of no use.
async fn in_time<T>(app: &App, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, Broken> {
    let answer = timeout(app.cluster.terms.lease, answer).await;
    Ok(answer.map_err(|_| Broken::Silent)??)
}

/// The change up to which the attached verifiers have all, once they do.
async fn settled(settling: &mut Option<(u64, Settled)>) -> u64 {
    let Some((seq, settled)) = settling else { return std::future::pending().await };
    settled.await;
    let seq = *seq;
    *settling = None;
    seq
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
