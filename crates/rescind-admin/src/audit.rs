//! The audit log.

use rescind_base::{
    clock::{Clock, rfc3339},
    model::{ClientId, EventFilter, EventKind, Page, Record, UnixSeconds},
};
use rescind_node::{app::only_clients, config::Past};
use rescind_store::Store;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Error, ensure, invalid};

const DEFAULT_EVENTS: u64 = 100;
const MAX_EVENTS: u64 = 1000;

/// A query of the audit log: the oldest events after `after`, or without it the newest, before `before`.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    pub after: Option<u64>,
    pub before: Option<u64>,
    pub limit: Option<u64>,
    pub kind: Option<EventKind>,
    pub client: Option<ClientId>,
    /// The time of the oldest event.
    #[schema(value_type = Option<String>, example = "1h")]
    pub since: Option<Past>,
    /// The time after the newest event.
    #[schema(value_type = Option<String>, example = "1h")]
    pub until: Option<Past>,
}

/// A page of events, the newest last.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct EventsView {
    pub events: Vec<EventView>,
    /// The `after` of the next page.
    pub last: u64,
    /// There are older events that were asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub more: bool,
}

/// An event, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    pub id: u64,
    pub at: String,
    pub kind: String,
    /// `operator`, `service` or `caller`.
    pub by: String,
    /// Which user or management token, if that is an operator.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operator: Option<String>,
    pub client_id: Option<ClientId>,
    pub api_key: Option<String>,
    pub session: Option<u64>,
    /// An address, or an IPv6 network.
    pub address: Option<String>,
    pub node: String,
    pub request_id: Option<String>,
    pub detail: Option<String>,
    pub count: u64,
    /// The number in the chain of its node.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub number: Option<u64>,
    /// The hash over the row and the one before, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hash: Option<String>,
}

/// Returns a page of the audit log.
///
/// # Errors
///
/// If the limit is out of range, or the store is unavailable.
pub async fn events(store: &Store, clock: &Clock, wanted: EventQuery) -> Result<EventsView, Error> {
    let EventQuery { after, before, limit, kind, client, since, until } = wanted;
    let limit = limit.unwrap_or(DEFAULT_EVENTS);
    ensure((1..=MAX_EVENTS).contains(&limit), "limit", || format!("expected between 1 and {MAX_EVENTS}"))?;
    // The stores' ids are at most `i64::MAX`, so a larger one matches nothing.
    if [after, before, client].iter().flatten().any(|&id| i64::try_from(id).is_err()) {
        return Ok(EventsView { last: after.unwrap_or(0), ..EventsView::default() });
    }
    let client = match only_clients() {
        None => client,
        Some(only) => match client.or(only.first().copied().filter(|_| only.len() == 1)) {
            Some(client) if only.contains(&client) => Some(client),
            Some(_) => return Err(Error::NotFound("client")),
            None => return Err(invalid("client", "expected one of the token's clients")),
        },
    };
    let since = since.map_or(0, |since| since.seconds(clock.now()));
    let until = until.map_or(UnixSeconds::MAX >> 1, |until| until.seconds(clock.now()));
    let wanted = EventFilter { after, before, limit, kind, client, since, until };
    let Page { records, last, more } = store.records(wanted).await?;
    Ok(EventsView { events: records.into_iter().map(EventView::from).collect(), last, more })
}

impl From<Record> for EventView {
    fn from(record: Record) -> EventView {
        let Record {
            id,
            at,
            kind,
            by,
            operator,
            client,
            api_key,
            session,
            address,
            node,
            request,
            detail,
            count,
            link,
        } = record;
        EventView {
            id,
            at: rfc3339(at),
            kind,
            by,
            operator,
            client_id: client,
            api_key,
            session,
            address,
            node,
            request_id: request,
            detail,
            count,
            number: link.map(|link| link.number),
            hash: link.map(|link| link.hash.to_text()),
        }
    }
}
