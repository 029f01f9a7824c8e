//! The audit log.

use serde::{Deserialize, Serialize};

use super::{Error, invalid};
use crate::{
    clock::{Clock, rfc3339},
    config::Span,
    model::{ClientId, EventKind, Page, Record, Wanted},
    store::Store,
};

const DEFAULT_EVENTS: u64 = 100;
const MAX_EVENTS: u64 = 1000;

/// A query of the audit log: the oldest events after `after`, or without it the newest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsWanted {
    pub after: Option<u64>,
    pub limit: Option<u64>,
    pub kind: Option<EventKind>,
    pub client: Option<ClientId>,
    /// The greatest age of an event.
    pub since: Option<Span>,
}

/// A page of events, the newest last.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventsView {
    pub events: Vec<EventView>,
    /// The `after` of the next page.
    pub last: u64,
}

/// An event, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventView {
    pub id: u64,
    pub at: String,
    pub kind: String,
    /// `operator`, `service` or `caller`.
    pub by: String,
    pub client_id: Option<ClientId>,
    pub api_key: Option<String>,
    pub session: Option<u64>,
    /// An address, or an IPv6 network.
    pub address: Option<String>,
    pub node: String,
    pub request_id: Option<String>,
    pub detail: Option<String>,
    pub count: u64,
}

/// Returns a page of the audit log.
///
/// # Errors
///
/// If the limit is out of range, or the store is unavailable.
pub async fn events(store: &Store, clock: &Clock, wanted: EventsWanted) -> Result<EventsView, Error> {
    let EventsWanted { after, limit, kind, client, since } = wanted;
    let limit = limit.unwrap_or(DEFAULT_EVENTS);
    if !(1..=MAX_EVENTS).contains(&limit) {
        return Err(invalid("limit", format!("expected between 1 and {MAX_EVENTS}")));
    }
    // The stores' ids are at most `i64::MAX`, so a larger one matches nothing.
    if [after, client].iter().flatten().any(|&id| i64::try_from(id).is_err()) {
        return Ok(EventsView { events: vec![], last: after.unwrap_or(0) });
    }
    let since = since.map_or(0, |span| clock.now().saturating_sub(span.seconds()));
    let Page { records, last } = store.records(Wanted { after, limit, kind, client, since }).await?;
    Ok(EventsView { events: records.into_iter().map(view).collect(), last })
}

fn view(record: Record) -> EventView {
    let Record { id, at, kind, by, client, api_key, session, address, node, request, detail, count } = record;
    EventView {
        id,
        at: rfc3339(at),
        kind,
        by,
        client_id: client,
        api_key,
        session,
        address,
        node,
        request_id: request,
        detail,
        count,
    }
}
