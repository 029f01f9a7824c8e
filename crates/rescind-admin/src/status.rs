//! The status of this process and of its cluster.

use std::time::Duration;

use rescind_base::{clock::rfc3339, model::FIRST_NOTICE};
use rescind_node::{
    app::{App, ClockView},
    cluster::Attached,
};
use rescind_store::{Postgres, Sqlite};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The status of this process.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    pub ready: bool,
    pub version: String,
    /// Where clients log in, and where verifiers and probes are answered. Absent while the listeners are not bound.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub management_url: Option<String>,
    pub store: String,
    pub clients: usize,
    pub sessions_in_memory: usize,
    /// The credentials that expire within 30 days. Absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiring_credentials: Option<ExpiringView>,
    /// Exact verifiers that follow this process.
    pub attached_verifiers: usize,
    #[serde(default)]
    pub followers: Vec<FollowerView>,
    /// Why this node could not renew its lease when it last tried. Absent if it could, or needs none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease_not_renewed: Option<String>,
    /// Why the last change could not be written. Absent if it was written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unwritable: Option<String>,
    #[serde(default)]
    pub clock: ClockView,
    /// Absent if the store is SQLite, which only one process uses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterView>,
}

/// Credentials that expire soon, but those that another one has replaced.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ExpiringView {
    pub count: usize,
    pub next_at: String,
}

/// An exact verifier that follows this process.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FollowerView {
    pub verifier_id: u64,
    /// The name that the follower gives itself.
    pub name: String,
    /// The newest change that it has acknowledged, and how many it has not.
    pub acknowledged: u64,
    pub lag: u64,
    /// For how long its lease may still run.
    pub lease_ms: u64,
}

/// The cluster, as this node saw it when it last renewed its lease.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
        url: app.urls.get().map(|urls| urls.public.clone()),
        management_url: app.urls.get().map(|urls| urls.management.clone()),
        store: app.store.name().into(),
        clients: app.memory.registry.clients(),
        sessions_in_memory: app.memory.registry.sessions(),
        expiring_credentials: expiring(app),
        attached_verifiers: app.cluster.followers.count(),
        followers: followers(app),
        lease_not_renewed: app.cluster.not_renewed().map(|why| why.to_string()),
        unwritable: app.store.embedded().and_then(Sqlite::unwritable),
        clock: app.clock_watch.view(app.cluster.membership().map(|_| app.cluster.node_clock.ahead())),
        cluster: cluster(app),
    }
}

fn expiring(app: &App) -> Option<ExpiringView> {
    let expiring = app.memory.registry.expiring(app.clock.now(), FIRST_NOTICE);
    let next = expiring.iter().filter_map(|known| known.credential.expires_at).min()?;
    Some(ExpiringView { count: expiring.len(), next_at: rfc3339(next) })
}

fn followers(app: &App) -> Vec<FollowerView> {
    let (head, now) = (app.memory.registry.feed().head().seq, app.clock.elapsed());
    let view = |follower: Attached| FollowerView {
        lag: follower.lag(head),
        verifier_id: follower.id.verifier,
        name: follower.id.name,
        acknowledged: follower.acked,
        lease_ms: millis(follower.until.saturating_sub(now)),
    };
    app.cluster.followers.attached().into_iter().map(view).collect()
}

fn cluster(app: &App) -> Option<ClusterView> {
    let (roll, now) = (app.cluster.membership()?, app.clock.elapsed());
    let nodes = roll.nodes.iter().map(|(node, heard_at)| NodeView {
        node: node.id,
        name: node.name.clone(),
        acknowledged: node.acked,
        lag: roll.lag(node),
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
