//! Periodic work: deletes what has expired, and reports unusual clients.

use std::{
    convert::Infallible,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

use rescind_base::model::{
    Actor, Client, EventKind, HOUR, Retention, SessionId, SigningKeyRecord, Status, Suspension, UnixSeconds,
};
use rescind_store::StoreError;
use tracing::{info, warn};

use super::{App, clock_watch::Turn};
use crate::{limits::Flagged, usage};

/// How long expired sessions are kept, in seconds. A clock that is set back by less still finds them.
const SWEEP_MARGIN: u64 = 3600;
/// How long credentials are kept after they have ended, in seconds.
const CREDENTIALS_KEPT: u64 = 30 * 86_400;
/// How long the uses of credentials are kept, but the last one of each, and how often others are looked for; in seconds.
const USES_KEPT: u64 = 90 * 86_400;
const SWEEP_USES_EVERY: u64 = 3600;
/// Changes kept in the database for disconnected nodes. A node that missed more loads everything.
const CHANGES_KEPT: u64 = 10_000;

/// The least number of sessions that one sweep looks at.
const SESSIONS_A_SWEEP: u64 = 50_000;
/// With many sessions, the walk over all of them takes this many sweeps.
const SWEEPS_A_WALK: u64 = 60;

/// How far the sweeps have come in the sessions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Walk {
    /// The last session that was looked at; 0 before the first.
    after: SessionId,
    /// The newest session when the walk began. The walk ends here, because later logins would lead it on for ever.
    end: SessionId,
    /// How many sessions this walk has kept.
    kept: u64,
    /// How many the walk before has kept.
    live: Option<u64>,
    /// The newest session at the sweep before.
    newest: Option<SessionId>,
}

impl App {
    /// Frees memory of limits and leases that have ended. Deletes, in batches, sessions that are over, keys whose
    /// last token has expired, and audit records that are too old. A sweep looks at a part of the sessions, and the
    /// next goes on from there. Returns how many sessions were deleted.
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
        let now = self.at_least().await?;
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
        self.resume_suspended(now).await?;
        self.delete_credentials(now).await?;
        if let Err(error) = self.tell_expiries(now).await {
            warn!(%error, "it could not be noted what expires soon; it is tried again in a minute");
        }
        if self.uses_due()
            && let Err(error) = self.sweep_uses(now).await
        {
            warn!(%error, "old uses of credentials could not be deleted; it is tried again in an hour");
        }
        for (what, swept) in [
            ("sign-ins", self.store.sweep_sign_ins(now).await),
            ("links to secrets", self.store.sweep_handovers(now).await),
        ] {
            if let Err(error) = swept {
                warn!(%error, "{what} that are over could not be deleted; it is tried again in a minute");
            }
        }
        while !self.store.sweep_records(self.audit.retention, now, self.audit_key()).await? {}
        self.save_checkpoints().await?;
        if !self.webhooks.is_empty() {
            self.store.sweep_deliveries().await?;
        }
        let Retention { keep, max_rows } = self.audit.denial_retention;
        while !self.store.sweep_denials(now.saturating_sub(keep), max_rows).await? {}
        let deleted = self.sweep_sessions(now.saturating_sub(SWEEP_MARGIN), SESSIONS_A_SWEEP).await?;
        if deleted > 0 {
            info!(deleted, "swept sessions that were over");
        }
        Ok(deleted)
    }

    /// Resumes the clients whose suspension is over.
    async fn resume_suspended(&self, now: UnixSeconds) -> Result<(), StoreError> {
        for id in self.store.suspended_until(now).await? {
            let rule = move |client: &mut Client| {
                let is_over = client.suspension.until.is_some_and(|until| until <= now);
                if client.status == Status::Suspended && is_over {
                    client.status = Status::Active;
                    client.suspension = Suspension::default();
                }
                Ok::<_, Infallible>(())
            };
            self.change_client(id, self.audit.origin(Actor::Service, None), rule).await?;
            info!(client = id, "client resumed: its suspension is over");
        }
        Ok(())
    }

    /// Deletes credentials that ended long ago. No token of theirs is valid any more.
    async fn delete_credentials(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let before = now.saturating_sub(CREDENTIALS_KEPT.max(self.rules.access_ttl + SWEEP_MARGIN));
        for id in self.store.with_ended_credentials(before).await? {
            let rule = move |client: &mut Client| {
                client.credentials.retain(|credential| credential.ends_at().is_none_or(|at| at >= before));
                Ok::<_, Infallible>(())
            };
            self.change_client(id, self.audit.origin(Actor::Service, None), rule).await?;
        }
        Ok(())
    }

    /// Whether the uses of credentials are to be swept. That reads all of them, so it is done seldom.
    fn uses_due(&self) -> bool {
        let (now, swept) = (self.clock.elapsed().as_secs(), self.uses_swept.load(Ordering::Relaxed));
        let is_due = now >= swept + SWEEP_USES_EVERY;
        if is_due {
            self.uses_swept.store(now, Ordering::Relaxed);
        }
        is_due
    }

    /// Deletes, in batches, uses of credentials and counts that need not be kept.
    async fn sweep_uses(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let mut after = 0;
        while let Some(last) = self.store.sweep_uses(after, now.saturating_sub(USES_KEPT)).await? {
            after = last;
        }
        while !self.store.sweep_usage((now / HOUR).saturating_sub(usage::KEPT)).await? {}
        Ok(())
    }

    /// Goes on with the walk over the sessions, looks at `least` of them or more, and deletes those that are over.
    /// Returns how many were deleted.
    pub async fn sweep_sessions(&self, expired: UnixSeconds, least: u64) -> Result<usize, StoreError> {
        let mut walk = *self.walk();
        let (oldest, newest) = self.store.session_ids().await?.unwrap_or_default();
        if walk.after == 0 {
            walk.end = newest;
        }
        // A sweep looks at no fewer sessions than were opened since the one before: else each walk would take longer.
        let opened = newest.saturating_sub(walk.newest.unwrap_or(newest));
        let most = newest.saturating_sub(oldest);
        let enough = (walk.live.unwrap_or(most).min(most) / SWEEPS_A_WALK).max(opened).max(least);
        walk.newest = walk.newest.max(Some(newest));
        let (mut seen, mut deleted) = (0, 0);
        while seen < enough && walk.after < walk.end {
            let swept = self.store.sweep(walk.after, expired).await?;
            seen += (swept.deleted + swept.kept) as u64;
            deleted += swept.deleted;
            walk.kept += swept.kept as u64;
            walk.after = swept.next.unwrap_or(walk.end);
        }
        if walk.after >= walk.end {
            self.metrics.sessions_live.set(i64::try_from(walk.kept).unwrap_or(i64::MAX));
            walk = Walk { live: Some(walk.kept), newest: walk.newest, ..Walk::default() };
        }
        *self.walk() = walk;
        Ok(deleted)
    }

    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
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
                logins,
                verifications,
                "a client logs in for nearly every request that is seen here: it seems not to cache its tokens"
            );
            self.metrics.tokens_not_cached.inc();
            self.audit.note(EventKind::TokensNotCached, Some(client), None);
        }
    }

    /// The time before which expired data may be deleted.
    async fn at_least(&self) -> Result<UnixSeconds, StoreError> {
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
        Ok(time.at_least)
    }
}
