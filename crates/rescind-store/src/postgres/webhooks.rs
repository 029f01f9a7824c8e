//! Webhooks.

use rescind_base::model::{ChangeOrigin, Delivery, UnixSeconds, WebhookState, changes::of_replay};
use tokio_postgres::Row;

use super::{
    Postgres, audit,
    connection::Parameters,
    rows::{self, Number, get, maybe_number, number},
    statements::decisive,
};
use crate::Result;

const CLAIM: &str = "
    INSERT INTO webhook AS known (name, cursor, claimed_by, claimed_until)
    VALUES ($1, (SELECT coalesce(max(id), 0) FROM audit), $2, $4)
    ON CONFLICT (name) DO UPDATE SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
        WHERE known.claimed_by = excluded.claimed_by OR known.claimed_until <= $3
    RETURNING cursor";
const RELEASE: &str = "UPDATE webhook SET claimed_until = 0 WHERE claimed_by = $1";
const SEEN: &str = "UPDATE webhook SET cursor = $3 WHERE name = $1 AND claimed_by = $2 RETURNING cursor";
const SAVE: &str = "
    INSERT INTO webhook_delivery (webhook, event, tries, next_at, tried_at, error) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (webhook, event) DO UPDATE SET tries = excluded.tries, next_at = excluded.next_at,
        tried_at = excluded.tried_at, error = excluded.error";
const FORGET: &str = "DELETE FROM webhook_delivery WHERE webhook = $1 AND event = $2";
const DUE: &str = decisive!(
    "webhook, event, tries, next_at, tried_at, error",
    "FROM (SELECT * FROM webhook_delivery WHERE webhook = $1 AND next_at <= $2 ORDER BY next_at, event LIMIT $3) AS due",
    "next_at, event"
);
const DEAD: &str = decisive!(
    "webhook, event, tries, next_at, tried_at, error",
    "FROM (SELECT * FROM webhook_delivery WHERE webhook = $1 AND next_at IS NULL AND event > $2 ORDER BY event LIMIT $3) AS dead",
    "event"
);
const REPLAY: &str = "
    UPDATE webhook_delivery SET tries = 0, next_at = $3
    WHERE webhook = $1 AND next_at IS NULL AND ($2::bigint IS NULL OR event = $2)";
const STATES: &str = decisive!(
    "name, cursor, claimed_by, claimed_until,
     (SELECT count(*) FROM webhook_delivery WHERE webhook = name AND next_at IS NOT NULL) AS waiting,
     (SELECT count(*) FROM webhook_delivery WHERE webhook = name AND next_at IS NULL) AS dead",
    "FROM webhook",
    "name"
);
const SWEEP: &str = "DELETE FROM webhook_delivery WHERE NOT EXISTS (SELECT FROM audit WHERE id = event)";

impl Postgres {
    pub(crate) async fn claim_webhook(
        &self,
        name: String,
        node: String,
        now: UnixSeconds,
        until: UnixSeconds,
    ) -> Result<Option<u64>> {
        let claimed = self.fetch(CLAIM, &[&name, &node, &Number(now), &Number(until)]).await?;
        claimed.first().map(|row| number(row, "cursor")).transpose()
    }

    pub(crate) async fn release_webhooks(&self, node: String) -> Result<()> {
        self.fetch(RELEASE, &[&node]).await.map(drop)
    }

    pub(crate) async fn webhook_seen(&self, name: String, node: String, cursor: u64) -> Result<bool> {
        Ok(!self.fetch(SEEN, &[&name, &node, &Number(cursor)]).await?.is_empty())
    }

    pub(crate) async fn save_delivery(&self, delivery: Delivery) -> Result<()> {
        let Delivery { webhook, event, tries, next_at, tried_at, error } = delivery;
        let (event, tries, tried_at) = (Number(event), Number(tries), Number(tried_at));
        let with: Parameters<'_> = &[&webhook, &event, &tries, &next_at.map(Number), &tried_at, &error];
        self.fetch(SAVE, with).await.map(drop)
    }

    pub(crate) async fn forget_delivery(&self, webhook: String, event: u64) -> Result<()> {
        self.fetch(FORGET, &[&webhook, &Number(event)]).await.map(drop)
    }

    pub(crate) async fn due_deliveries(
        &self,
        webhook: String,
        now: UnixSeconds,
        limit: u64,
    ) -> Result<Vec<Delivery>> {
        rows::read(&self.fetch(DUE, &[&webhook, &Number(now), &Number(limit)]).await?, delivery)
    }

    pub(crate) async fn dead_deliveries(
        &self,
        webhook: String,
        after: u64,
        limit: u64,
    ) -> Result<Vec<Delivery>> {
        rows::read(&self.fetch(DEAD, &[&webhook, &Number(after), &Number(limit)]).await?, delivery)
    }

    pub(crate) async fn replay_deliveries(
        &self,
        webhook: String,
        event: Option<u64>,
        origin: ChangeOrigin,
    ) -> Result<u64> {
        let mut tx = self.transaction().await?;
        let [record] = tx.prepared([audit::INSERT]).await?;
        tx.batch("BEGIN").await?;
        let events = tx.run(REPLAY, &[&webhook, &event.map(Number), &Number(origin.at)]).await?;
        match of_replay(&webhook, events, &origin) {
            Some(replayed) => tx.commit_and_record(&record, &[replayed]).await?,
            None => tx.commit_as_missing().await?,
        }
        Ok(events)
    }

    pub(crate) async fn webhooks(&self) -> Result<Vec<WebhookState>> {
        rows::read(&self.fetch(STATES, &[]).await?, |row| {
            Ok(WebhookState {
                name: get(row, "name")?,
                cursor: number(row, "cursor")?,
                claimed_by: get(row, "claimed_by")?,
                claimed_until: number(row, "claimed_until")?,
                waiting: number(row, "waiting")?,
                dead: number(row, "dead")?,
            })
        })
    }

    pub(crate) async fn sweep_deliveries(&self) -> Result<()> {
        self.fetch(SWEEP, &[]).await.map(drop)
    }
}

fn delivery(row: &Row) -> Result<Delivery> {
    Ok(Delivery {
        webhook: get(row, "webhook")?,
        event: number(row, "event")?,
        tries: number(row, "tries")?,
        next_at: maybe_number(row, "next_at")?,
        tried_at: number(row, "tried_at")?,
        error: get(row, "error")?,
    })
}
