//! Whose word is taken: the primary's, in a session that is this process's own, and of a commit that a
//! stand-by has where that is required.
//!
//! What stands between may do harm without a word. A load balancer sends what only reads to a stand-by,
//! which may be old. A pooler that hands a server on after each transaction loses what a session is set to,
//! and with it the warning of a commit that was not replicated. So whatever is decided by says who has
//! answered, and every commit is asked about in the same way there and back.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures_util::future::try_join_all;
use tokio::try_join;
use tracing::{info, warn};

pub(super) use super::statements::decisive;
use super::{
    answered::{BALANCED, Committed, NOBODY, said},
    connection::{Connection, Connector},
    fault,
};
use crate::store::StoreError;

// Unlike what calls a function, a load balancer sends this to a stand-by.
const IS_STAND_BY: &str = "SELECT current_setting('in_hot_standby')";
const IS_READ_ONLY: &str =
    "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean";
/// How often a load balancer is asked that chooses anew for each statement.
const LOOKS: usize = 8;

impl Connection {
    /// Commits what was begun, and looks whether that was in this session, as it was set. Everything is sent
    /// when first polled. `warnings` were counted before.
    pub(super) async fn commit_and_look(&self, warnings: u64) -> Result<Committed, StoreError> {
        let (before, (), after) = try_join!(biased; self.standing(), self.batch("COMMIT"), self.standing())?;
        self.vouch(warnings)?;
        Ok(Committed { before, after })
    }

    /// Whether that is as durable as it has to be.
    pub(super) fn accept(&self, committed: &Committed) -> Result<(), StoreError> {
        if self.requires_stand_by() { committed.is_replicated() } else { Ok(()) }
    }

    /// Commits what was begun, as durably as it has to be.
    pub(super) async fn commit(&self, warnings: u64) -> Result<(), StoreError> {
        let committed = self.commit_and_look(warnings).await?;
        self.accept(&committed)
    }
}

/// Whom commits wait for, as the lease's renewals find it.
#[derive(Debug, Default)]
pub(super) struct Replication {
    waits_for: ArcSwapOption<String>,
}

impl Replication {
    pub(super) fn waits_for(&self) -> Option<Arc<String>> {
        self.waits_for.load_full()
    }

    pub(super) fn heard(&self, committed: &Committed) {
        let now = &committed.after.waits_for;
        let before = self.waits_for.swap(Some(Arc::new(now.clone())));
        match before.map(|before| before.is_empty()) {
            Some(false) if now.is_empty() => warn!(
                "synchronous_standby_names is empty: commits wait for no stand-by any more, and a fail-over may \
                 undo what is answered from now on"
            ),
            Some(true) if !now.is_empty() => info!(standbys = now, "commits wait for a stand-by again"),
            _ => {}
        }
    }
}

/// Whether nothing between hands sessions on or asks stand-bys, and commits are waited for if they are to
/// be. To be asked once, at the start: whatever comes later is noticed where it does harm.
pub(super) async fn look(connector: &Connector) -> Result<(), StoreError> {
    match look_at_two(connector).await {
        Err(error) if fault::is_read_only(&error) && is_balanced(connector).await => {
            Err(StoreError::Unsuitable(BALANCED.into()))
        }
        looked => looked,
    }
}

async fn look_at_two(connector: &Connector) -> Result<(), StoreError> {
    let (first, second) = (connector.connect().await?, connector.connect().await?);
    // What pools by transactions gives the second the server that the first has had.
    second.batch("BEGIN").await?;
    let standing = first.standing().await?;
    second.standing().await?;
    second.batch("COMMIT").await?;
    let looks = try_join_all((0..LOOKS).map(|_| first.simple(IS_STAND_BY))).await?;
    if looks.iter().any(|answers| said(answers) == Some("on")) {
        return Err(StoreError::Unsuitable(BALANCED.into()));
    }
    if connector.requires_stand_by() && standing.waits_for.is_empty() {
        return Err(StoreError::Unsuitable(format!("{NOBODY}: set it, and synchronous_commit to on")));
    }
    first.done();
    second.done();
    Ok(())
}

/// Whether a server that says it is read-only is one that can be written.
async fn is_balanced(connector: &Connector) -> bool {
    connector.ask_any(IS_READ_ONLY).await.is_some_and(|answers| said(&answers) == Some("f"))
}
