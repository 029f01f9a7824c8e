//! Periodic work: deletes what has expired, and reports unusual clients.

use std::sync::{Arc, atomic::Ordering};

use tracing::{info, warn};

use super::{App, clock_watch::Turn};
use crate::{
    limits::Flagged,
    model::{Actor, EventKind, SigningKeyRecord, UnixSeconds},
    store::StoreError,
};

/// How long expired sessions are kept, in seconds. A clock that is set back by less still finds them.
const SWEEP_MARGIN: u64 = 3600;
/// Changes kept in the database for disconnected nodes. A node that missed more loads everything.
const CHANGES_KEPT: u64 = 10_000;

impl App {
    /// Frees memory of limits and leases that have ended. Deletes, in batches, expired sessions, keys whose
    /// last token has expired, and audit records that are too old. Returns how many sessions were deleted.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable. The next sweep continues.
    pub async fn sweep(self: &Arc<App>) -> Result<usize, StoreError> {
        self.quotas.logins.sweep();
        self.quotas.refreshes.sweep();
        self.flag_uncached();
        self.cluster.forget_lent().await?;
        let left_out = self.log_limits.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            info!(left_out, "lines on logins, refreshes and logouts were left out: a client had too many");
        }
        let now = self.surely().await?;
        let over = move |key: &SigningKeyRecord| key.retire_at.is_some_and(|at| at < now);
        if self.store.keys().await?.iter().any(over) {
            let origin = self.audit.origin(Actor::Service, None);
            let swept = self.change_keys(async move |app| app.store.retire_keys(origin, over).await).await?;
            if let Err(e) = swept {
                warn!(error = %e, "the signing keys were left as they were");
            }
        }
        self.memory.registry.feed().sweep(now.saturating_sub(SWEEP_MARGIN));
        if let Some(postgres) = self.store.postgres() {
            postgres.trim_changes(CHANGES_KEPT).await?;
        }
        while !self.store.sweep_records(self.audit.retention, now).await? {}
        let (mut after, mut deleted, mut kept) = (0, 0, 0);
        loop {
            let swept = self.store.sweep(after, now.saturating_sub(SWEEP_MARGIN)).await?;
            deleted += swept.deleted;
            kept += swept.kept;
            match swept.next {
                Some(next) => after = next,
                None => break,
            }
        }
        self.metrics.sessions_live.set(i64::try_from(kept).unwrap_or(i64::MAX));
        if deleted > 0 {
            info!(deleted, "swept sessions that were over");
        }
        Ok(deleted)
    }

    /// Flags clients that do not cache their tokens; no other code does.
    fn flag_uncached(&self) {
        // True if there is no other node, no follower, and no public key for verification elsewhere.
        let all_seen = self.cluster.membership().is_none_or(|roll| roll.nodes.len() <= 1)
            && self.memory.verifiers.load().is_empty()
            && self.memory.issuer.keyring().public_keys().next().is_none();
        let verifications = |client| self.memory.registry.verifications(client);
        for Flagged { client, logins, verifications } in
            self.uncached.judge(self.clock.elapsed(), verifications, all_seen)
        {
            warn!(
                client,
                logins, verifications, "a client does not cache its tokens: it logs in again and again"
            );
            self.metrics.tokens_not_cached.inc();
            self.audit.note(EventKind::TokensNotCached, Some(client), None);
        }
    }

    /// The time before which expired data may be deleted.
    async fn surely(&self) -> Result<UnixSeconds, StoreError> {
        let time = self.clock_watch.look(self.cluster.node_clock.is_off());
        match time.turn {
            Some(Turn::Doubted) => warn!(
                ahead_seconds = time.ahead,
                "the machine's clock is not believed: nothing is deleted by it until it is set right, or has gone on for as \
                 long as it is off. If the service was stopped for so long, nothing need be done"
            ),
            Some(Turn::Believed) => info!("the machine's clock is believed again"),
            None => {}
        }
        if let Some(now) = time.save {
            self.store.used_at(now).await?;
            self.clock_watch.saved(now);
        }
        Ok(time.surely)
    }
}
