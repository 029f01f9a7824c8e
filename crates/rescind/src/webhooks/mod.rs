//! Webhooks: events of the audit log, sent to the receivers that the configuration names.
//!
//! What is sent is read from the log after the webhook's cursor, which the store keeps. So every event is sent at least
//! once, through restarts and by any node. One node delivers at a time: it has a claim in the store, which ends by itself.

mod operate;
mod send;

use std::{convert::Infallible, mem, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

pub use operate::{
    DeadQuery, DeadView, DeliveryView, ReplayQuestion, Replayed, Tested, WebhookView, dead, replay, test,
    webhooks,
};
pub use send::{Hook, HookError, SendError};

use rescind_admin as admin;
use rescind_base::{
    model::{Delivery, EventFilter, Page, Record, UnixSeconds},
    random::Random,
};
use rescind_node::app::App;
use rescind_store::StoreError;

/// The pause between two looks at the log.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a claim lasts, in seconds. It is renewed when half of it is over, between two attempts.
const CLAIM: u64 = 60;
/// Events that are read at once.
const PAGE: u64 = 100;
/// The pauses before the further attempts, in seconds: 5 seconds to 8 hours. After the last one an event is dead.
const PAUSES: [u64; 8] = [5, 30, 120, 600, 1800, 7200, 14_400, 28_800];

/// How long a node that has no claim waits before it asks for one again, in seconds.
const ASK_EVERY: u64 = 15;

/// One webhook of this process.
pub struct Delivering {
    app: Arc<App>,
    hook: Hook,
    claim: Claim,
    /// The last attempt failed.
    is_failing: bool,
}

/// What this node knows of its claim.
#[derive(Debug, Clone, Copy)]
enum Claim {
    /// Another node has it. It is not asked for again before this time.
    Elsewhere(UnixSeconds),
    /// This node has it until then, and has looked at the log up to the cursor.
    Here { until: UnixSeconds, cursor: u64 },
}

/// Delivers the events of every webhook, for the life of the process.
pub async fn run(app: Arc<App>, hooks: Vec<Hook>) -> Infallible {
    join_all(hooks.into_iter().map(|hook| Delivering::new(Arc::clone(&app), hook).go_on())).await;
    std::future::pending().await
}

/// Lets another node go on at once, when this one stops.
pub async fn release(app: &App) {
    if !app.webhooks.is_empty()
        && let Err(error) = app.store.release_webhooks(app.audit.node()).await
    {
        warn!(%error, "another node will deliver webhooks when this one's claims have ended");
    }
}

/// Opens every webhook of the configuration.
///
/// # Errors
///
/// Fails if a secret or an authority cannot be used.
pub fn open(app: &App) -> Result<Vec<Hook>, HookError> {
    app.webhooks.iter().map(Hook::open).collect()
}

impl Delivering {
    pub fn new(app: Arc<App>, hook: Hook) -> Delivering {
        Delivering { app, hook, claim: Claim::Elsewhere(0), is_failing: false }
    }

    async fn go_on(mut self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_away = false;
        loop {
            ticks.tick().await;
            let looked = self.look().await;
            match (&looked, is_away) {
                (Err(error), false) => {
                    warn!(webhook = self.name(), %error, "no events can be read for a webhook")
                }
                (Ok(()), true) => info!(webhook = self.name(), "events can be read again for a webhook"),
                _ => {}
            }
            is_away = looked.is_err();
        }
    }

    fn name(&self) -> &str {
        &self.hook.config.name
    }

    /// Sends what is new and what is due, if no other node does.
    ///
    /// # Errors
    ///
    /// Fails if the store is unavailable. What was not sent is sent later.
    pub async fn look(&mut self) -> Result<(), StoreError> {
        while let Some(cursor) = self.claim().await? {
            let wanted = EventFilter { after: Some(cursor), ..EventFilter::newest(PAGE) };
            let Page { records, last, .. } = self.app.store.records(wanted).await?;
            for record in &records {
                if !self.wants(record) {
                    continue;
                }
                self.attempt(record, None).await?;
                if !self.seen(record.id).await? || self.claim().await?.is_none() {
                    return Ok(());
                }
            }
            if last > cursor && !self.seen(last).await? {
                return Ok(());
            }
            self.again().await?;
            let newest = self.app.store.records(EventFilter::newest(1)).await?.last;
            self.app.metrics.webhooks.lag(self.name(), newest.saturating_sub(last));
            if (records.len() as u64) < PAGE {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends again what is due.
    async fn again(&mut self) -> Result<(), StoreError> {
        let now = self.app.clock.now();
        for due in self.app.store.due_deliveries(self.name(), now, PAGE).await? {
            match record(&self.app, due.event).await? {
                Some(record) => self.attempt(&record, Some(due.tries)).await?,
                None => self.app.store.forget_delivery(self.name(), due.event).await?,
            }
            if self.claim().await?.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Claims the webhook, or renews the claim where half of it is over. Returns the cursor.
    async fn claim(&mut self) -> Result<Option<u64>, StoreError> {
        let now = self.app.clock.now();
        match self.claim {
            Claim::Here { until, cursor } if until > now + CLAIM / 2 => return Ok(Some(cursor)),
            Claim::Elsewhere(ask_at) if now < ask_at => return Ok(None),
            _ => {}
        }
        let (node, until) = (self.app.audit.node(), now + CLAIM);
        let cursor = self.app.store.claim_webhook(self.name(), node, now, until).await?;
        self.claim = match cursor {
            Some(cursor) => Claim::Here { until, cursor },
            None => Claim::Elsewhere(now + ASK_EVERY),
        };
        Ok(cursor)
    }

    /// Saves that the log was looked at up to this record. Returns whether this node still has the claim.
    async fn seen(&mut self, record: u64) -> Result<bool, StoreError> {
        let is_ours = self.app.store.webhook_seen(self.name(), self.app.audit.node(), record).await?;
        self.claim = match self.claim {
            Claim::Here { until, .. } if is_ours => Claim::Here { until, cursor: record },
            _ => Claim::Elsewhere(self.app.clock.now() + ASK_EVERY),
        };
        Ok(is_ours)
    }

    fn wants(&self, record: &Record) -> bool {
        let kinds = &self.hook.config.events;
        kinds.is_empty() || kinds.iter().any(|kind| kind.name() == record.kind)
    }

    /// Sends an event, and notes the outcome. `tries`: how often it was tried, if it is sent again.
    async fn attempt(&mut self, record: &Record, tries: Option<u64>) -> Result<(), StoreError> {
        let App { store, clock, random, metrics, .. } = &*self.app;
        let sent = self.hook.send(&id(record), clock.now(), body(record.clone())).await;
        let was_failing = mem::replace(&mut self.is_failing, sent.is_err());
        let name = self.name();
        let Err(error) = sent else {
            metrics.webhooks.delivered(name);
            if was_failing {
                info!(webhook = name, "the receiver of a webhook accepts events again");
            }
            return match tries {
                Some(_) => store.forget_delivery(name, record.id).await,
                None => Ok(()),
            };
        };
        if !was_failing {
            warn!(webhook = name, %error, "the receiver of a webhook does not accept events: they are sent again later");
        }
        let (now, tries) = (clock.now(), tries.unwrap_or(0));
        let next_at = usize::try_from(tries).ok().and_then(|tries| PAUSES.get(tries));
        let next_at = next_at.map(|pause| now + with_jitter(*pause, random));
        metrics.webhooks.failed(name);
        if next_at.is_none() {
            metrics.webhooks.died(name);
        }
        let (webhook, error) = (name.to_owned(), error.to_string());
        let delivery =
            Delivery { webhook, event: record.id, tries: tries + 1, next_at, tried_at: now, error };
        store.save_delivery(delivery).await
    }
}

/// Between half of a pause and all of it, so that many receivers are not asked at once.
fn with_jitter(pause: u64, random: &Random) -> u64 {
    pause - u64::from_be_bytes(random.of_public_ids()) % (pause / 2 + 1)
}

/// Returns the record with this id, if it is still there.
async fn record(app: &App, id: u64) -> Result<Option<Record>, StoreError> {
    let after = Some(id.saturating_sub(1));
    let page = app.store.records(EventFilter { after, ..EventFilter::newest(1) }).await?;
    Ok(page.records.into_iter().find(|record| record.id == id))
}

/// The id by which a receiver knows an event that is sent again. It is made of the hash in the event's chain: a record's own
/// id may be given again after a restore.
fn id(record: &Record) -> String {
    match record.link {
        Some(link) => format!("evt_{}", HEXLOWER.encode(&link.hash.0[..16])),
        None => format!("evt_{}", record.id),
    }
}

/// An event as the admin API shows it.
fn body(record: Record) -> String {
    serde_json::to_string(&admin::EventView::from(record)).unwrap_or_default()
}
