//! Why requests were refused.

use rescind_base::{
    clock::rfc3339,
    model::{
        Check, ClientId, Credential, Denial, DenialDetails, DenialFilter, EventFilter, EventKind, Record,
        Retention, Revoked, Status, UnixSeconds,
    },
};
use rescind_node::{
    app::{App, may_see, only_clients},
    config::{Past, Span},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Error,
    audit::EventView,
    credential::{CredentialView, view_credential},
    ensure,
};

const DEFAULT_DENIALS: u64 = 100;
const MAX_DENIALS: u64 = 1000;
/// How many events are looked through for the one that led to a denial.
const EVENTS: u64 = 1000;
const FOREVER: UnixSeconds = UnixSeconds::MAX >> 1;

/// Which denials are wanted, the newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DenialQuery {
    /// Only older denials: the `Link` of a page has it for the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// The address that was judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "203.0.113.7")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "address_not_allowed")]
    pub reason: Option<String>,
    /// The time of the oldest denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub since: Option<Past>,
    /// The time after the newest denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub until: Option<Past>,
}

/// A refused request, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DenialView {
    /// The denial's number. Several denials have the same `request_id` if their callers have chosen the same.
    pub id: u64,
    pub request_id: String,
    pub at: String,
    pub node: String,
    /// `verify`, `login`, `refresh`, `logout`, `token`, `introspect` or `revoke`.
    pub operation: String,
    pub status: u16,
    /// The check that failed. docs/denials.md explains each.
    pub reason: String,
    pub what: String,
    pub advice: String,
    /// The client that has proved its identity, or whose API key was presented.
    pub client_id: Option<ClientId>,
    /// The client has proved its identity: by its secret, its certificate, or a token that was issued to it.
    pub proven: bool,
    /// The caller's address, which the allowlist is for. Absent: it could not be read.
    pub address: Option<String>,
    #[serde(flatten)]
    pub details: DenialDetails,
}

/// A refused request, with what is known of it now.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplainedDenial {
    #[serde(flatten)]
    pub denial: DenialView,
    /// The client, as it is now.
    pub client: Option<DeniedClient>,
    /// The credential, as it is now.
    pub credential: Option<CredentialView>,
    /// The event of the audit log that led to the denial: the revocation or suspension, or the last change of the
    /// allowlist. Absent: none is on record. A client's own logout is not: `client` has the time of the last.
    pub event: Option<EventView>,
    /// How many older denials with the same request id are kept.
    pub others: u64,
}

/// A client whose request was refused.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeniedClient {
    pub name: String,
    /// `active`, `suspended` or `deleted`.
    pub status: String,
    pub generation: u64,
    /// When every token that the client had was revoked last, by its own logout or by an operator.
    pub tokens_revoked_at: Option<String>,
}

/// Returns the wanted denials, the newest first, and the `after` of the next page.
///
/// # Errors
///
/// If the limit is out of range, there is no such check or client, or the store is unavailable.
pub async fn denials(app: &App, wanted: DenialQuery) -> Result<(Vec<DenialView>, Option<u64>), Error> {
    let limit = wanted.limit.unwrap_or(DEFAULT_DENIALS);
    ensure((1..=MAX_DENIALS).contains(&limit), "limit", || format!("expected between 1 and {MAX_DENIALS}"))?;
    let is_check = |reason: &String| Check::all().any(|check| check.name() == reason);
    ensure(wanted.reason.as_ref().is_none_or(is_check), "reason", || {
        let names: Vec<_> = Check::all().map(Check::name).collect();
        format!("expected one of {}", names.join(", "))
    })?;
    let address = wanted.address.map(|address| match address.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(address.to_canonical().to_string()),
        Err(_) => Err(super::invalid("address", "expected an IP address, such as 203.0.113.7")),
    });
    // The stores' ids are at most `i64::MAX`.
    let client = wanted.client.filter(|&client| i64::try_from(client).is_ok());
    if client != wanted.client || client.is_some_and(|client| !may_see(client)) {
        return Err(Error::NotFound("client"));
    }
    let now = app.clock.now();
    let filter = DenialFilter {
        before: wanted.after.map(|after| after.min(FOREVER)),
        // One more shows whether there is another page.
        limit: limit + 1,
        request: wanted.request_id,
        clients: client.map(|client| vec![client]).or_else(only_clients),
        address: address.transpose()?,
        reason: wanted.reason,
        since: wanted.since.map_or(0, |since| since.seconds(now)),
        until: wanted.until.map_or(FOREVER, |until| until.seconds(now)),
    };
    app.audit.write_denials(&app.store).await;
    let mut found = app.store.denials(filter).await?;
    let has_next = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = found.last().map(|last| last.id).filter(|_| has_next);
    Ok((found.into_iter().map(view).collect(), next))
}

/// Returns the newest denial of a request.
///
/// # Errors
///
/// If none is kept, or the store is unavailable.
pub async fn denial(app: &App, request_id: &str) -> Result<ExplainedDenial, Error> {
    // What this node has refused just now may be asked for already.
    app.audit.write_denials(&app.store).await;
    let filter = DenialFilter {
        limit: MAX_DENIALS,
        request: Some(request_id.to_owned()),
        clients: only_clients(),
        until: FOREVER,
        ..DenialFilter::default()
    };
    let found = app.store.denials(filter).await?;
    let others = found.len().saturating_sub(1) as u64;
    let mut denial = found.into_iter().next().ok_or_else(|| Error::NotKept(why_none(app)))?;
    let client = match denial.client {
        Some(client) => app.store.find(client, 0).await?.client,
        None => None,
    };
    let DenialDetails { api_key, token, .. } = &mut denial.details;
    let credential = client.as_ref().and_then(|client| {
        let is_it = |known: &&Credential| match token {
            Some(token) => known.id == token.credential,
            None => Some(&known.api_key) == api_key.as_ref(),
        };
        client.credentials.iter().find(is_it)
    });
    // Memory does not have a credential that was revoked.
    if api_key.is_none() {
        *api_key = credential.map(|credential| credential.api_key.clone());
    }
    let event = event(app, &denial).await?;
    let now = app.clock.now();
    Ok(ExplainedDenial {
        credential: credential.map(|credential| view_credential(credential, now)),
        client: client.as_ref().map(|client| DeniedClient {
            name: client.name.clone(),
            status: match client.status {
                Status::Active => "active",
                Status::Suspended => "suspended",
                Status::Deleted => "deleted",
            }
            .to_owned(),
            generation: client.generation,
            tokens_revoked_at: client.tokens_revoked_at.map(rfc3339),
        }),
        event: event.map(EventView::from),
        others,
        denial: view(denial),
    })
}

/// Says why a request may have no denial.
fn why_none(app: &App) -> String {
    let Retention { keep, max_rows } = app.audit.denial_retention;
    format!(
        "no denial of this request is kept. Denials are those that the public listener answered with 401, 403 or 429, \
         or with 400 of the OAuth endpoints where the client or what it may have is the reason; they are kept for {}, and \
         {max_rows} of them; another node writes its own within 5 seconds; of many denials of one client or network within 5 \
         seconds, only some are kept",
        Span::of_seconds(keep)
    )
}

fn view(denial: Denial) -> DenialView {
    let Denial { id, request, at, node, operation, reason, status, client, proven, address, details } =
        denial;
    let known = Check::all().find(|check| check.name() == reason);
    let (what, advice) = known.map_or(
        ("The request was refused by a node of a later version.", "Ask that node."),
        Check::explained,
    );
    DenialView {
        id,
        request_id: request,
        at: rfc3339(at),
        node: node.to_string(),
        operation,
        status,
        reason,
        what: what.to_owned(),
        advice: advice.to_owned(),
        client_id: client,
        proven,
        address,
        details,
    }
}

/// Finds the event that led to a denial.
async fn event(app: &App, denial: &Denial) -> Result<Option<Record>, Error> {
    let Some(client) = denial.client.filter(|_| denial.proven) else { return Ok(None) };
    let DenialDetails { token, api_key, revoked, .. } = &denial.details;
    let session = token.as_ref().map(|token| token.session);
    let issued = token.as_ref().map_or(0, |token| token.iat);
    let of = async |kinds: &[EventKind], since| {
        let mut found = vec![];
        for &kind in kinds {
            let newest = EventFilter::newest(EVENTS);
            let wanted =
                EventFilter { kind: Some(kind), client: Some(client), since, until: denial.at + 1, ..newest };
            found.extend(app.store.records(wanted).await?.records);
        }
        found.sort_unstable_by_key(|record| record.id);
        Ok::<_, Error>(found)
    };
    let every_token = [EventKind::ClientLoggedOut, EventKind::ClientSuspended, EventKind::ClientDeleted];
    Ok(match (denial.reason.as_str(), revoked) {
        ("client_inactive", _) => of(&[EventKind::ClientSuspended, EventKind::ClientDeleted], 0).await?.pop(),
        ("address_not_allowed", _) => of(&[EventKind::AllowlistChanged], 0).await?.pop(),
        ("revoked", Some(Revoked::EveryToken)) => {
            let found = of(&every_token, issued).await?;
            // Of those in the second of the token's issue, only the last can have been after it.
            let first_later = found.iter().position(|record| record.at > issued);
            let at = first_later.unwrap_or(found.len().saturating_sub(1));
            found.into_iter().nth(at)
        }
        ("revoked", Some(Revoked::Credential)) => {
            let kinds = [EventKind::CredentialRevoked, EventKind::CredentialDeleted, EventKind::LeakReported];
            let mut found = of(&kinds, 0).await?.into_iter();
            found.find(|record| record.api_key == *api_key && record.session.is_none())
        }
        ("revoked" | "refresh_token_reused", _) => {
            let kinds = [EventKind::SessionRevoked, EventKind::RefreshTokenReused, EventKind::LeakReported];
            let found = of(&kinds, issued).await?;
            found.into_iter().find(|record| record.session == session)
        }
        _ => None,
    })
}
