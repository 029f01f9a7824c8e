//! Webhooks.

use rescind_base::model::{ChangeOrigin, Delivery, UnixSeconds, WebhookState, changes::of_replay};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::{Sqlite, audit};
use crate::Result;

impl Sqlite {
    pub(crate) async fn claim_webhook(
        &self,
        name: String,
        node: String,
        now: UnixSeconds,
        until: UnixSeconds,
    ) -> Result<Option<u64>> {
        let claim = move |db: &Connection| {
            let mut claim = db.prepare_cached(
                "INSERT INTO webhook (name, cursor, claimed_by, claimed_until)
                 VALUES (?1, (SELECT coalesce(max(id), 0) FROM audit), ?2, ?4)
                 ON CONFLICT (name) DO UPDATE SET claimed_by = ?2, claimed_until = ?4
                     WHERE claimed_by = ?2 OR claimed_until <= ?3
                 RETURNING cursor",
            )?;
            Ok(claim.query_row(params![name, node, now, until], |row| row.get(0)).optional()?)
        };
        self.writer.write(claim).await
    }

    pub(crate) async fn release_webhooks(&self, node: String) -> Result<()> {
        const RELEASE: &str = "UPDATE webhook SET claimed_until = 0 WHERE claimed_by = ?";
        self.change(RELEASE, [node]).await.map(drop)
    }

    pub(crate) async fn webhook_seen(&self, name: String, node: String, cursor: u64) -> Result<bool> {
        const SEEN: &str = "UPDATE webhook SET cursor = ?3 WHERE name = ?1 AND claimed_by = ?2";
        Ok(self.change(SEEN, (name, node, cursor)).await? > 0)
    }

    pub(crate) async fn save_delivery(&self, delivery: Delivery) -> Result<()> {
        const SAVE: &str = "
            INSERT OR REPLACE INTO webhook_delivery (webhook, event, tries, next_at, tried_at, error)
            VALUES (?, ?, ?, ?, ?, ?)";
        let Delivery { webhook, event, tries, next_at, tried_at, error } = delivery;
        self.change(SAVE, (webhook, event, tries, next_at, tried_at, error)).await.map(drop)
    }

    pub(crate) async fn forget_delivery(&self, webhook: String, event: u64) -> Result<()> {
        const FORGET: &str = "DELETE FROM webhook_delivery WHERE webhook = ? AND event = ?";
        self.change(FORGET, (webhook, event)).await.map(drop)
    }

    pub(crate) async fn due_deliveries(
        &self,
        webhook: String,
        now: UnixSeconds,
        limit: u64,
    ) -> Result<Vec<Delivery>> {
        const DUE: &str = "SELECT * FROM webhook_delivery WHERE webhook = ? AND next_at <= ? ORDER BY next_at, event LIMIT ?";
        self.deliveries(DUE, (webhook, now, limit)).await
    }

    pub(crate) async fn dead_deliveries(
        &self,
        webhook: String,
        after: u64,
        limit: u64,
    ) -> Result<Vec<Delivery>> {
        const DEAD: &str = "
            SELECT * FROM webhook_delivery WHERE webhook = ? AND next_at IS NULL AND event > ? ORDER BY event LIMIT ?";
        self.deliveries(DEAD, (webhook, after, limit)).await
    }

    pub(crate) async fn replay_deliveries(
        &self,
        webhook: String,
        event: Option<u64>,
        origin: ChangeOrigin,
    ) -> Result<u64> {
        let replay = move |db: &Connection| {
            let mut replay = db.prepare_cached(
                "UPDATE webhook_delivery SET tries = 0, next_at = ?3
                 WHERE webhook = ?1 AND next_at IS NULL AND (?2 IS NULL OR event = ?2)",
            )?;
            let events = replay.execute((&webhook, event, origin.at))? as u64;
            audit::insert(db, of_replay(&webhook, events, &origin).as_slice())?;
            Ok(events)
        };
        self.writer.write(replay).await
    }

    pub(crate) async fn webhooks(&self) -> Result<Vec<WebhookState>> {
        let read = |db: &Connection| {
            let mut states = db.prepare_cached(
                "SELECT *,
                     (SELECT count(*) FROM webhook_delivery WHERE webhook = name AND next_at IS NOT NULL) AS waiting,
                     (SELECT count(*) FROM webhook_delivery WHERE webhook = name AND next_at IS NULL) AS dead
                 FROM webhook ORDER BY name",
            )?;
            let states = states.query_map([], |row| {
                Ok(WebhookState {
                    name: row.get("name")?,
                    cursor: row.get("cursor")?,
                    claimed_by: row.get("claimed_by")?,
                    claimed_until: row.get("claimed_until")?,
                    waiting: row.get("waiting")?,
                    dead: row.get("dead")?,
                })
            })?;
            Ok(states.collect::<rusqlite::Result<_>>()?)
        };
        self.readers.read_long(read).await
    }

    pub(crate) async fn sweep_deliveries(&self) -> Result<()> {
        const SWEEP: &str =
            "DELETE FROM webhook_delivery WHERE NOT EXISTS (SELECT 1 FROM audit WHERE id = event)";
        self.change(SWEEP, []).await.map(drop)
    }

    /// Runs a statement. Returns how many rows it changed.
    async fn change(&self, sql: &'static str, with: impl Params + Send + 'static) -> Result<u64> {
        self.writer.write_one(move |db| Ok(db.prepare_cached(sql)?.execute(with)? as u64)).await
    }

    async fn deliveries(
        &self,
        sql: &'static str,
        with: impl Params + Send + 'static,
    ) -> Result<Vec<Delivery>> {
        let read = move |db: &Connection| {
            Ok(db.prepare_cached(sql)?.query_map(with, delivery)?.collect::<rusqlite::Result<_>>()?)
        };
        self.readers.read(read).await
    }
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        webhook: row.get("webhook")?,
        event: row.get("event")?,
        tries: row.get("tries")?,
        next_at: row.get("next_at")?,
        tried_at: row.get("tried_at")?,
        error: row.get("error")?,
    })
}
