//! Lists of clients.

use std::collections::HashMap;

use rescind_base::model::{Client, ClientId, Status};
use rescind_node::{
    app::{App, may_see},
    config::Span,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Error,
    client::{ClientView, used_view},
    ensure,
};

/// Which clients are wanted, and in which order.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientQuery {
    /// A part of the name, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Clients that have not logged in or refreshed, and of which no token was verified, for so long, and that are not newer
    /// than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<Span>,
    pub sort: ClientSort,
    /// At most this many. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only clients with a higher id, in the order of the ids: the `Link` of a page has it for the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<ClientId>,
}

/// The order of a list of clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientSort {
    #[default]
    Id,
    Name,
    Created,
    /// Those that were never used are first, then those that were used longest ago.
    LastUsed,
}

/// Returns the wanted clients of those that were not deleted. In the order of the ids, also the `after` of the next page.
///
/// # Errors
///
/// If a page is wanted in another order, or the store is unavailable.
pub async fn clients(app: &App, wanted: ClientQuery) -> Result<(Vec<ClientView>, Option<ClientId>), Error> {
    ensure(wanted.after.is_none() || wanted.sort == ClientSort::Id, "after", || {
        "expected in the order of the ids only".into()
    })?;
    app.usage.write(&app.store).await;
    let last: HashMap<_, _> = app.store.last_uses().await?.into_iter().collect();
    let last = |client: &Client| last.get(&client.id).copied();
    let part = wanted.name.map(|part| part.to_lowercase());
    let stale_from = wanted.stale.map(|span| app.clock.now().saturating_sub(span.seconds()));
    let mut clients = app.store.clients().await?;
    clients.retain(|client| {
        may_see(client.id)
            && wanted.after.is_none_or(|after| after < client.id)
            && part.as_ref().is_none_or(|part| client.name.to_lowercase().contains(part))
            && wanted.status.is_none_or(|status| client.status == status)
            && stale_from.is_none_or(|from| last(client).unwrap_or(client.created_at) < from)
    });
    match wanted.sort {
        ClientSort::Id => {}
        ClientSort::Name => clients.sort_by_cached_key(|client| client.name.to_lowercase()),
        ClientSort::Created => clients.sort_by_key(|client| client.created_at),
        ClientSort::LastUsed => clients.sort_by_key(&last),
    }
    let shown = clients.len().min(wanted.limit.unwrap_or(usize::MAX));
    let has_next = shown < clients.len() && wanted.sort == ClientSort::Id;
    clients.truncate(shown);
    let next = clients.last().map(|last| last.id).filter(|_| has_next);
    Ok((clients.iter().map(|client| used_view(client, last(client))).collect(), next))
}
