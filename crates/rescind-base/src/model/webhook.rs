//! What is kept of webhooks.

use super::UnixSeconds;

/// An event that a receiver has not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub webhook: String,
    /// The record's id.
    pub event: u64,
    pub tries: u64,
    /// When it is tried again; `None`: no more.
    pub next_at: Option<UnixSeconds>,
    pub tried_at: UnixSeconds,
    /// Why the last try failed, for people.
    pub error: String,
}

/// How far a webhook has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookState {
    pub name: String,
    /// The last record that was looked at.
    pub cursor: u64,
    /// The node that delivers, or did last.
    pub claimed_by: String,
    pub claimed_until: UnixSeconds,
    /// How many events are tried again.
    pub waiting: u64,
    /// How many are not.
    pub dead: u64,
}
