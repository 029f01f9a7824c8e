//! Operations of webhooks.

use rescind_base::{
    model::{ChangeOrigin, Delivery, UnixSeconds, WebhookState},
    telemetry::step,
};
use tracing::Instrument;

use super::{Result, Store, ask};

impl Store {
    /// Claims a webhook for a node until `until`, unless another node has it at `now`. Returns the last record that was
    /// looked at; for a new webhook, the newest record. `None`: another node has it.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn claim_webhook(
        &self,
        name: &str,
        node: &str,
        now: UnixSeconds,
        until: UnixSeconds,
    ) -> Result<Option<u64>> {
        ask!(self, claim_webhook(name.to_owned(), node.to_owned(), now, until))
    }

    /// Ends the claims of a node, which stops.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn release_webhooks(&self, node: &str) -> Result<()> {
        ask!(self, release_webhooks(node.to_owned()))
    }

    /// Saves the last record that was looked at, for a node that has the webhook. Returns whether it still has it.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn webhook_seen(&self, name: &str, node: &str, cursor: u64) -> Result<bool> {
        ask!(self, webhook_seen(name.to_owned(), node.to_owned(), cursor))
    }

    /// Saves an event that was not accepted.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn save_delivery(&self, delivery: Delivery) -> Result<()> {
        ask!(self, save_delivery(delivery))
    }

    /// Forgets an event that was accepted, or is no longer there.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn forget_delivery(&self, webhook: &str, event: u64) -> Result<()> {
        ask!(self, forget_delivery(webhook.to_owned(), event))
    }

    /// Returns the events that are to be tried again by `now`, the first ones first.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn due_deliveries(&self, webhook: &str, now: UnixSeconds, limit: u64) -> Result<Vec<Delivery>> {
        ask!(self, due_deliveries(webhook.to_owned(), now, limit))
    }

    /// Returns the events after `after` that are not tried again, in the order of their ids.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn dead_deliveries(&self, webhook: &str, after: u64, limit: u64) -> Result<Vec<Delivery>> {
        ask!(self, dead_deliveries(webhook.to_owned(), after, limit))
    }

    /// Lets events that are not tried again be tried anew: this one, or all. Returns how many.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn replay_deliveries(
        &self,
        webhook: &str,
        event: Option<u64>,
        origin: ChangeOrigin,
    ) -> Result<u64> {
        ask!(self, replay_deliveries(webhook.to_owned(), event, origin))
    }

    /// Returns how far each webhook has come.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn webhooks(&self) -> Result<Vec<WebhookState>> {
        ask!(self, webhooks())
    }

    /// Forgets deliveries whose records were swept.
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn sweep_deliveries(&self) -> Result<()> {
        ask!(self, sweep_deliveries())
    }
}
