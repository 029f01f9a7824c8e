//! This process as a node of a cluster: it joins, renews its lease, applies the others' changes, and leaves.

use std::{collections::HashMap, convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use rescind_store::{HistoryStatus, Known, LeaseConnection, NodeRow, Place, Postgres, StoreError};
use tokio::{task::JoinHandle, time::sleep};
use tracing::{error, info, warn};

use super::{
    Cluster, Membership, PAUSE,
    broken::{Away, Broken, in_time},
    catch_up::{Row, catch_up, load},
    clock::ahead_of,
    history::{self, History},
};

/// Keeps this process a node until `stop`, through outages of the database.
pub async fn run(cluster: &Arc<Cluster>, postgres: &Postgres, stop: impl Future<Output = ()>) {
    let mut node = Node {
        cluster,
        postgres,
        id: None,
        unused: None,
        applied: 0,
        acked: 0,
        remembers: false,
        lost: None,
        history: None,
        keeping: None,
        settling: None,
        beats: HashMap::new(),
        namesake: None,
        has_joined: false,
    };
    let keep = async {
        let mut away: Option<Away> = None;
        postgres.guard();
        loop {
            postgres.lease_comes_first();
            let Err(broken) = node.keep(&mut away).await;
            // On other errors the current lease continues, so a short outage interrupts nothing.
            if matches!(broken, Broken::Fenced | Broken::WentBack { .. }) {
                node.joins_elsewhere();
            }
            let (why, now) = (broken.in_words(), cluster.clock.elapsed());
            cluster.not_renewed.store(Some(Arc::new(why.clone())));
            if away.get_or_insert_with(|| Away::since(now)).is_news(&why, now) {
                match broken.is_refusal() {
                    true => error!(error = why, "this node cannot renew its lease"),
                    false => warn!(error = why, "this node cannot renew its lease"),
                }
            }
            match broken {
                Broken::Fenced => {}
                // Each attempt joins and loads everything anew.
                Broken::OtherProfile { .. } => sleep(cluster.terms.lease).await,
                _ => sleep(PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = stop => {}
        () = keep => {}
    }
    cluster.lease.end();
    node.leave().await;
    postgres.lease_is_over();
}

struct Node<'a> {
    cluster: &'a Arc<Cluster>,
    postgres: &'a Postgres,
    /// `None`: this node has to join.
    id: Option<u64>,
    /// A row of this node that never had a lease, and the server that has the row.
    unused: Option<(Place, u64)>,
    /// `applied`: the last change in this node's memory. `acked`: the last change that this node *and* all
    /// attached verifiers have.
    applied: u64,
    acked: u64,
    /// This node has joined before, so its memory has the changes up to `applied`.
    remembers: bool,
    /// The newest known change, once its loss has been logged.
    lost: Option<Known>,
    /// What this node found about the database's history when it joined.
    history: Option<History>,
    /// The task that writes the newest known change to disk.
    keeping: Option<JoinHandle<()>>,
    /// The wait for the attached verifiers, and the change that they are to acknowledge.
    settling: Option<(u64, Settled)>,
    /// The other nodes' beats, and since when, on this node's clock, each has not changed.
    beats: HashMap<u64, (u64, Duration)>,
    /// Another node of this node's name, once it was logged.
    namesake: Option<u64>,
    /// The row has had a lease.
    has_joined: bool,
}

type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Node<'_> {
    /// Renews the lease for as long as the database answers.
    async fn keep(&mut self, away: &mut Option<Away>) -> Result<Infallible, Broken> {
        // One connection is to one server, so all that it returns is of one history.
        let mut connection = self.postgres.lease_connection(self.cluster.terms.lease).await?;
        if self.postgres.place().is_none_or(|used| !connection.place().goes_on(&used)) {
            // The new server may lack the last changes of the one before.
            self.joins_elsewhere();
        }
        match self.serve(&mut connection, away).await {
            // Asked as long as the connection, and so what it waits for, is there.
            Err(Broken::Silent) => Err(Broken::Held(self.postgres.held_by(&connection).await)),
            ended => ended,
        }
    }

    /// Ends the lease. This node has to join, and on another server the same ids may be other nodes'.
    fn joins_elsewhere(&mut self) {
        self.cluster.lease.end();
        self.id = None;
        self.beats.clear();
    }

    /// Joins, unless this node has a row, and renews the lease for as long as the connection lasts.
    async fn serve(
        &mut self,
        connection: &mut LeaseConnection,
        away: &mut Option<Away>,
    ) -> Result<Infallible, Broken> {
        loop {
            let id = match self.id {
                Some(id) => id,
                None => self.join(connection).await?,
            };
            self.renew(connection, id).await?;
            if !std::mem::replace(&mut self.has_joined, true) {
                let (name, change) = (&self.cluster.node_name, self.applied);
                let history = self.history.map(History::text).unwrap_or_default();
                info!(node = id, name, change, history, "joined the cluster");
            }
            self.cluster.not_renewed.store(None);
            if let Some(Away { since, .. }) = away.take() {
                let away = self.cluster.clock.elapsed().saturating_sub(since);
                info!(?away, "this node renews its lease again");
            }
            self.keep_known();
            self.propagate_to_followers();
            tokio::select! {
                biased;
                seq = settled(&mut self.settling) => self.acked = seq,
                notified = connection.notified() => notified?,
                () = sleep(self.cluster.terms.renewal()) => {}
            }
        }
    }

    /// Joins the cluster. Every logout after the row's commit waits for this node; the changes before that
    /// commit are in the state that the node loads afterwards. Returns the node's id.
    async fn join(&mut self, connection: &mut LeaseConnection) -> Result<u64, Broken> {
        // Memory is replaced only after the database has everything that memory has.
        let mut alone = None;
        if self.remembers {
            alone = Some(self.cluster.memory.alone().await);
        }
        let remembers = self.remembers.then_some(self.applied);
        let mut history =
            history::ensure(self.cluster, self.postgres, connection, remembers, &mut self.lost).await?;
        // An earlier attempt may have repaired the database; the log then still reports the loss.
        if history.is_whole() && self.lost.is_some() {
            history = self.history.unwrap_or(history);
        }
        self.history = Some(history);
        self.postgres.approve(connection.place());
        if !history.is_whole() {
            // The other nodes must know of the repair before this one serves.
            self.cluster.propagate().await?;
        }
        // At the first start this comes after the approval: a task that waits for it may hold `changing`.
        let alone = match alone {
            Some(alone) => alone,
            None => self.cluster.memory.alone().await,
        };
        if let Some((place, unused)) = self.unused.take().filter(|(place, _)| place == connection.place()) {
            self.unused = Some((place, unused));
            in_time(self.cluster, connection.leave(unused)).await?;
        }
        let wait = self.cluster.terms.wait();
        let id = in_time(self.cluster, connection.join(&self.cluster.node_name, wait, &self.cluster.profile))
            .await?;
        self.unused = Some((connection.place().clone(), id));
        (self.acked, self.settling) = (0, None);
        self.applied = load(self.cluster, self.postgres, connection, Row { id, acked: 0 }, alone).await?;
        (self.id, self.unused, self.remembers) = (Some(id), None, true);
        (self.lost, self.has_joined) = (None, false);
        Ok(id)
    }

    /// Renews the lease once, by a replicated write. A read does not suffice: a replaced database could still
    /// answer it.
    async fn renew(&mut self, connection: &mut LeaseConnection, id: u64) -> Result<(), Broken> {
        // Confirms the history before any change is applied.
        let known = self.postgres.known();
        let position = in_time(self.cluster, connection.position(&known)).await?;
        if position.standing(&known, true) != Some(HistoryStatus::Confirmed) {
            return Err(Broken::WentBack { now: position.head.seq, known: known.seq });
        }
        if self.postgres.place().as_ref() != Some(connection.place()) {
            self.postgres.approve(connection.place());
        }
        // This write also acknowledges the changes that are applied before it.
        self.catch_up(connection, id).await?;
        self.propagate_to_followers();
        tokio::select! {
            biased;
            seq = settled(&mut self.settling) => self.acked = seq,
            () = std::future::ready(()) => {}
        }
        self.compare_clocks(connection, id).await?;
        // Read before the request is sent: a change that the answer lacks was committed after `asked_at`.
        let asked_at = self.cluster.clock.elapsed();
        let renewed = in_time(self.cluster, connection.renew(id, self.acked)).await?.ok_or(Broken::Fenced)?;
        if renewed.head < self.applied {
            return Err(Broken::WentBack { now: renewed.head, known: self.applied });
        }
        while self.applied < renewed.head {
            self.catch_up(connection, id).await?;
        }
        self.watch(connection, id, &renewed.nodes).await?;
        self.cluster.lease.extend(self.cluster.terms.deadline(asked_at));
        self.postgres.share_connections(renewed.nodes.len());
        let now = self.cluster.clock.elapsed();
        let nodes = renewed.nodes.into_iter().map(|node| {
            let since = self.beats.get(&node.id).map_or(now, |(_, since)| *since);
            (node, since)
        });
        let roll = Membership {
            node: id,
            applied: self.applied,
            head: renewed.head,
            nodes: nodes.collect(),
            history: self.history.map(History::text).unwrap_or_default(),
        };
        self.cluster.roll.store(Some(Arc::new(roll)));
        Ok(())
    }

    /// Takes over what the other nodes have changed.
    async fn catch_up(&mut self, connection: &mut LeaseConnection, id: u64) -> Result<(), Broken> {
        let row = Row { id, acked: self.acked };
        self.applied = catch_up(self.cluster, self.postgres, connection, row, self.applied).await?;
        Ok(())
    }

    /// Compares this node's wall clock with the others', which decides whether this node may issue tokens.
    async fn compare_clocks(&mut self, connection: &mut LeaseConnection, id: u64) -> Result<(), Broken> {
        let cluster = self.cluster;
        let before = cluster.clock.now();
        let clocks = in_time(cluster, connection.clocks(id)).await?;
        let ahead = ahead_of(clocks.now, before, cluster.clock.now());
        match cluster.node_clock.compare(ahead, &clocks.others) {
            Some(true) => warn!(
                ahead_seconds = ahead,
                "this node's clock is not the database's: it deletes nothing by it, and gives no tokens as long as another \
                 node's is; set the one right that is wrong"
            ),
            Some(false) => info!("this node's clock is the database's again"),
            None => {}
        }
        in_time(cluster, connection.tell_clock(id, ahead)).await
    }

    /// Writes the newest known change to disk for the next process. For others' changes this may be a little
    /// later than their answers.
    fn keep_known(&mut self) {
        if self.keeping.as_ref().is_some_and(|keeping| !keeping.is_finished()) {
            return;
        }
        let cluster = Arc::clone(self.cluster);
        self.keeping = Some(tokio::spawn(async move {
            let (Some(file), Some(postgres)) = (&cluster.known, cluster.store.postgres()) else { return };
            if let Err(error) = file.keep(|| postgres.known()).await {
                warn!(%error, "what is known of the database cannot be kept in the data folder");
            }
        }));
    }

    /// Starts to wait for the attached verifiers, if they lack changes that this node has applied.
    fn propagate_to_followers(&mut self) {
        if self.settling.is_none() && self.acked < self.applied {
            let cluster = Arc::clone(self.cluster);
            let head = cluster.memory.registry.feed().head().seq;
            let settled = async move { cluster.propagate_to_followers(head).await };
            self.settling = Some((self.applied, Box::pin(settled)));
        }
    }

    /// Removes dead nodes: those whose beat has not changed for longer than their lease can last.
    async fn watch(
        &mut self,
        connection: &mut LeaseConnection,
        id: u64,
        nodes: &[NodeRow],
    ) -> Result<(), Broken> {
        let now = self.cluster.clock.elapsed();
        self.beats.retain(|id, _| nodes.iter().any(|node| node.id == *id));
        for node in nodes {
            let (beat, since) = self.beats.entry(node.id).or_insert((node.beat, now));
            let beats = *beat != node.beat;
            if beats {
                (*beat, *since) = (node.beat, now);
            }
            let still = now.saturating_sub(*since);
            let (cluster, is_other) = (self.cluster, node.id != id);
            if is_other
                && beats
                && node.name == cluster.node_name
                && self.namesake.replace(node.id) != Some(node.id)
            {
                let name = &node.name;
                warn!(
                    node = node.id,
                    name,
                    "another node has this node's name: set cluster.node_name, by which people tell them apart"
                );
            }
            // Of two such nodes the one that was first goes on.
            if let Some(theirs) =
                node.profile.clone().filter(|theirs| node.id < id && *theirs != cluster.profile)
                && still <= node.wait.max(cluster.terms.wait())
            {
                let (name, ours) = (node.name.clone(), cluster.profile.clone());
                // No change waits for this node meanwhile, and it comes after all that serve when it joins again.
                cluster.lease.end();
                cluster.followers.settled(u64::MAX).await;
                in_time(cluster, connection.leave(id)).await?;
                self.id = None;
                return Err(Broken::OtherProfile { id: node.id, name, theirs, ours });
            }
            if is_other && still > node.wait.max(self.cluster.terms.wait()) {
                warn!(node = node.id, name = node.name, ?still, "a node is not heard of, and is forgotten");
                in_time(self.cluster, connection.forget(node.id, node.beat)).await?;
            }
        }
        Ok(())
    }

    /// Removes this node's row after its lease has ended, so that no change waits for it.
    async fn leave(&mut self) {
        let serving = self.id.take().and_then(|id| Some((self.postgres.place()?, id)));
        let Some((place, id)) = serving.or_else(|| self.unused.take()) else { return };
        // Verifiers that follow this node may decide until their lent leases end.
        self.cluster.followers.settled(u64::MAX).await;
        let left = async {
            let mut connection = self.postgres.lease_connection(self.cluster.terms.lease).await?;
            // On another server this id may be another node's.
            if place != *connection.place() {
                return Err(StoreError::Unavailable("another server has taken over".into()));
            }
            connection.leave(id).await
        };
        match in_time(self.cluster, left).await {
            Ok(()) => info!(node = id, "left the cluster"),
            Err(broken) => warn!(error = %broken.in_words(), "the others will wait for this node's lease"),
        }
    }
}

/// Waits for the attached verifiers, and returns the last change that all of them have.
async fn settled(settling: &mut Option<(u64, Settled)>) -> u64 {
    let Some((seq, settled)) = settling else { return std::future::pending().await };
    settled.await;
    let seq = *seq;
    *settling = None;
    seq
}
