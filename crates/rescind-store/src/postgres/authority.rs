//! Which answers are accepted: the primary's, in a session of this process; and, where a stand-by is required, only
//! of commits that a stand-by has.
//!
//! A load balancer or pooler may break this without an error. A load balancer sends reads to a stand-by, which may
//! lack changes. A pooler by transactions loses a session's settings, and so the warning of a commit that was not
//! replicated. Therefore each decisive read reports who answered, and each commit checks its session in the same
//! round trip.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures_util::future::try_join_all;
use tokio::try_join;
use tracing::{info, warn};

use super::{
    answered::{BALANCED, Committed, NOBODY, said},
    connection::Connection,
    connector::Connector,
    error,
};
use crate::{Result, StoreError};

// A load balancer sends this to a stand-by, because it calls no volatile function.
const IS_STAND_BY: &str = "SELECT current_setting('in_hot_standby')";
const IS_READ_ONLY: &str =
    "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean";
/// How many statements are sent to notice a load balancer that chooses a server for each.
const LOOKS: usize = 8;

impl Connection {
    /// Commits, and reads the session's state right before and after. Sends everything at the first poll. `warnings`
    /// were counted before the transaction.
    pub(super) async fn commit_and_look(&self, warnings: u64) -> Result<Committed> {
        let (before, (), after) = try_join!(biased; self.standing(), self.batch("COMMIT"), self.standing())?;
        self.ensure_replicated(warnings)?;
        Ok(Committed { before, after })
    }

    /// Checks that the commit is as durable as the configuration requires.
    pub(super) fn accept(&self, committed: &Committed) -> Result<()> {
        if self.requires_stand_by() { committed.is_replicated() } else { Ok(()) }
    }

    /// Commits, as durably as the configuration requires.
    pub(super) async fn commit(&self, warnings: u64) -> Result<()> {
        let committed = self.commit_and_look(warnings).await?;
        self.accept(&committed)
    }
}

/// The stand-bys that commits wait for, as the last renewal of the lease read them.
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

/// Checks, once at the start, that nothing in between shares sessions or reads from a stand-by, and that commits wait
/// for a stand-by where required. Later each decisive read and each commit checks the same.
pub(super) async fn look(connector: &Connector) -> Result<()> {
    match look_at_two(connector).await {
        Err(error) if error::is_read_only(&error) && is_balanced(connector).await => {
            Err(StoreError::Unsuitable(BALANCED.into()))
        }
        looked => looked,
    }
}

async fn look_at_two(connector: &Connector) -> Result<()> {
    let (first, second) = (connector.connect().await?, connector.connect().await?);
    // A pooler by transactions gives the second connection the server that the first one used.
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

/// Returns whether a server that reports itself as read-only can be written.
async fn is_balanced(connector: &Connector) -> bool {
    connector.ask_any(IS_READ_ONLY).await.is_some_and(|answers| said(&answers) == Some("f"))
}
