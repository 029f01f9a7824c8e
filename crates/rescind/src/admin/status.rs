//! How the process is, and the cluster that it is a node of.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, ClockView},
    store::Postgres,
};

/// How the process is.
#[derive(Debug, Serialize, Deserialize)]
pub struct StatusView {
    pub ready: bool,
    pub version: String,
    pub store: String,
    pub clients: usize,
    pub sessions_in_memory: usize,
    /// Exact verifiers that follow this process.
    pub attached_verifiers: usize,
    /// Why the database that this node finds is not used; absent where it is, or where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    #[serde(default)]
    pub clock: ClockView,
    /// Absent where one process has the store to itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterView>,
}

/// The cluster, as this node knew it when it renewed its lease last.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClusterView {
    /// This node.
    pub node: u64,
    /// For how long this node may still answer from memory.
    pub lease_ms: u64,
    /// The last change that this node has in memory, and the last there was.
    pub applied: u64,
    pub head: u64,
    /// How the database stood to what was known when this node joined: whether it had lost something.
    #[serde(default)]
    pub history: String,
    /// Whom the database's commits wait for: `synchronous_standby_names`. Empty: for nobody.
    pub synchronous_standby_names: String,
    pub nodes: Vec<NodeView>,
}

/// A node.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeView {
    pub node: u64,
    pub name: String,
    /// The last change that it has acknowledged, its attached verifiers included.
    pub acknowledged: u64,
    /// How many changes it has not.
    pub lag: u64,
    /// How long ago this node saw it renew its lease.
    pub heard_ms_ago: u64,
}

/// How this process is.
pub fn status(app: &App) -> StatusView {
    StatusView {
        ready: app.is_ready(),
        version: env!("CARGO_PKG_VERSION").into(),
        store: app.store.name().into(),
        clients: app.memory.registry.clients(),
        sessions_in_memory: app.memory.registry.sessions(),
        attached_verifiers: app.cluster.attached.count(),
        refused: app.cluster.refusal().map(|why| why.to_string()),
        clock: app.clock_watch.view(app.cluster.roll().map(|_| app.cluster.node_clock.ahead())),
        cluster: cluster(app),
    }
}

fn cluster(app: &App) -> Option<ClusterView> {
    let (roll, now) = (app.cluster.roll()?, app.clock.elapsed());
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
