//! The status of this process and of its cluster.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, ClockView},
    store::Postgres,
};

/// The status of this process.
#[derive(Debug, Serialize, Deserialize)]
pub struct StatusView {
    pub ready: bool,
    pub version: String,
    pub store: String,
    pub clients: usize,
    pub sessions_in_memory: usize,
    /// Exact verifiers that follow this process.
    pub attached_verifiers: usize,
    /// Why this node does not use the database that it finds. Absent if it uses one, or needs none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    #[serde(default)]
    pub clock: ClockView,
    /// Absent if the store is SQLite, which only one process uses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterView>,
}

/// The cluster, as this node saw it when it last renewed its lease.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClusterView {
    /// The id of this node.
    pub node: u64,
    /// For how long this node may still answer from memory.
    pub lease_ms: u64,
    /// The newest change in this node's memory, and the newest change of all.
    pub applied: u64,
    pub head: u64,
    /// Whether the database had lost changes when this node joined, and what was done about it.
    #[serde(default)]
    pub history: String,
    /// The stand-bys that the database's commits wait for: `synchronous_standby_names`. Empty: commits wait for none.
    pub synchronous_standby_names: String,
    pub nodes: Vec<NodeView>,
}

/// A node, as this node sees it.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeView {
    pub node: u64,
    pub name: String,
    /// The newest change that the node and its attached verifiers have acknowledged.
    pub acknowledged: u64,
    /// How many changes the node has not acknowledged.
    pub lag: u64,
    /// How long ago this process saw the node renew its lease.
    pub heard_ms_ago: u64,
}

/// Returns the status of this process.
pub fn status(app: &App) -> StatusView {
    StatusView {
        ready: app.is_ready(),
        version: env!("CARGO_PKG_VERSION").into(),
        store: app.store.name().into(),
        clients: app.memory.registry.clients(),
        sessions_in_memory: app.memory.registry.sessions(),
        attached_verifiers: app.cluster.followers.count(),
        refused: app.cluster.refusal().map(|why| why.to_string()),
        clock: app.clock_watch.view(app.cluster.membership().map(|_| app.cluster.node_clock.ahead())),
        cluster: cluster(app),
    }
}

fn cluster(app: &App) -> Option<ClusterView> {
    let (roll, now) = (app.cluster.membership()?, app.clock.elapsed());
    let nodes = roll.nodes.iter().map(|(node, heard_at)| NodeView {
        node: node.id,
        name: node.name.clone(),
        acknowledged: node.acked,
        lag: roll.head.saturating_sub(node.acked),
        heard_ms_ago: millis(now.saturating_sub(*heard_at)),
    });
    let names = app.store.postgres().and_then(Postgres::waits_for).unwrap_or_default();
    Some(ClusterView {
        node: roll.node,
        lease_ms: millis(app.cluster.lease.left()),
        applied: roll.applied,
        head: roll.head,
        history: roll.history.into(),
        synchronous_standby_names: names.to_string(),
        nodes: nodes.collect(),
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
