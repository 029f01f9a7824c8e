//! What operators do with webhooks.

use std::sync::Arc;

use rescind_admin::Error;
use rescind_base::{
    clock::rfc3339,
    ksuid,
    model::{Delivery, EventFilter, EventKind, Record, WebhookState},
};
use rescind_node::{app::App, config::Webhook};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{Hook, body};

const DEFAULT_DEAD: u64 = 100;
const MAX_DEAD: u64 = 1000;

/// A webhook.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WebhookView {
    pub name: String,
    /// With `…` for its path and query, which may be secrets.
    pub url: String,
    /// The kinds of events that are sent; empty: every kind.
    pub events: Vec<String>,
    /// The last event of the audit log that was looked at; none before the first look.
    pub cursor: Option<u64>,
    /// How many ids of the audit log are newer than that.
    pub lag: u64,
    /// How many events are sent again later.
    pub waiting: u64,
    /// How many events are not sent any more.
    pub dead: u64,
    /// The node that delivers, or did last.
    pub node: Option<String>,
}

/// Which events are wanted: those after an id.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadQuery {
    pub after: Option<u64>,
    pub limit: Option<u64>,
}

/// Events that are not sent any more, in the order of their ids.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadView {
    pub deliveries: Vec<DeliveryView>,
    /// There may be more after the last one.
    pub more: bool,
}

/// An event that a receiver has not accepted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeliveryView {
    /// The id in the audit log.
    pub event: u64,
    pub tries: u64,
    pub tried_at: String,
    pub error: String,
}

/// Which events are sent anew.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayQuestion {
    /// The id in the audit log; without it, all that are dead.
    pub event: Option<u64>,
}

/// How many events are sent anew.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    pub events: u64,
}

/// The outcome of a test.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Tested {
    pub accepted: bool,
    /// Why it was not accepted.
    pub error: Option<String>,
}

/// Returns every webhook of the configuration.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn webhooks(app: &App) -> Result<Vec<WebhookView>, Error> {
    let mut states = app.store.webhooks().await?;
    let newest = app.store.records(EventFilter::newest(1)).await?.last;
    let mut view = |Webhook { name, url, events, .. }: &Webhook| {
        let place = states.iter().position(|state| state.name == *name);
        let state: Option<WebhookState> = place.map(|place| states.swap_remove(place));
        let of_state = state.as_ref();
        WebhookView {
            name: name.clone(),
            url: url.to_string(),
            events: events.iter().map(|kind| kind.name().to_owned()).collect(),
            cursor: of_state.map(|state| state.cursor),
            lag: of_state.map_or(0, |state| newest.saturating_sub(state.cursor)),
            waiting: of_state.map_or(0, |state| state.waiting),
            dead: of_state.map_or(0, |state| state.dead),
            node: state.map(|state| state.claimed_by),
        }
    };
    Ok(app.webhooks.iter().map(&mut view).collect())
}

/// Returns events of a webhook that are not sent any more.
///
/// # Errors
///
/// If there is no such webhook, the limit is out of range, or the store is unavailable.
pub async fn dead(app: &App, name: &str, DeadQuery { after, limit }: DeadQuery) -> Result<DeadView, Error> {
    find(app, name)?;
    let limit = limit.unwrap_or(DEFAULT_DEAD);
    if !(1..=MAX_DEAD).contains(&limit) {
        let problem = format!("expected between 1 and {MAX_DEAD}");
        return Err(Error::Invalid { field: "limit", problem });
    }
    let after = after.unwrap_or(0).min(u64::MAX >> 1);
    let found = app.store.dead_deliveries(name, after, limit).await?;
    let more = found.len() as u64 == limit;
    let view = |Delivery { event, tries, tried_at, error, .. }| DeliveryView {
        event,
        tries,
        tried_at: rfc3339(tried_at),
        error,
    };
    Ok(DeadView { deliveries: found.into_iter().map(view).collect(), more })
}

/// Lets dead events be sent anew.
///
/// # Errors
///
/// If there is no such webhook or event, or the store is unavailable.
pub async fn replay(
    app: &Arc<App>,
    name: &str,
    ReplayQuestion { event }: ReplayQuestion,
) -> Result<Replayed, Error> {
    find(app, name)?;
    if event.is_some_and(|event| i64::try_from(event).is_err()) {
        return Err(Error::NotFound("dead event"));
    }
    let (origin, name) = (app.by_operator(), name.to_owned());
    let replay = async move |app: Arc<App>| {
        let events = app.store.replay_deliveries(&name, event, origin).await?;
        let is_there = event.is_none() || events > 0;
        Ok(is_there.then_some(Replayed { events }).ok_or(Error::NotFound("dead event")))
    };
    let log = |_: &App, Replayed { events }: &_, _| info!(events, "dead events are sent anew");
    Ok(app.commit(replay, log).await??.0)
}

/// Sends an event that is not in the audit log.
///
/// # Errors
///
/// If there is no such webhook.
pub async fn test(app: &App, name: &str) -> Result<Tested, Error> {
    let hook = Hook::open(find(app, name)?).map_err(|e| Error::Refused(e.to_string()))?;
    let now = app.clock.now();
    let event = app.by_operator().event(EventKind::WebhookReplayed);
    let record = Record { kind: "webhook_test".into(), ..event.record(0) };
    let id = String::from_utf8_lossy(&ksuid::at(now, &app.random.of_public_ids())).into_owned();
    let sent = hook.send(&format!("test_{id}"), now, body(record)).await;
    Ok(Tested { accepted: sent.is_ok(), error: sent.err().map(|error| error.to_string()) })
}

fn find<'a>(app: &'a App, name: &str) -> Result<&'a Webhook, Error> {
    app.webhooks.iter().find(|webhook| webhook.name == name).ok_or(Error::NotFound("webhook"))
}
