//! Clients.

use std::sync::Arc;

use rescind_base::{
    clock::rfc3339,
    model::{CertificateNames, Client, ClientId, Status, Suspension, UnixSeconds},
};
use rescind_node::{app::App, cluster::Receipt, config::Span};
use rescind_verifier::{Resources, ScopeError, Scopes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Changed, Error, change, ensure, find, invalid, usage::LastUse};

const MAX_NAME_LENGTH: usize = 200;

const MAX_CERTIFICATES: usize = 64;

/// A client's new name.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewName {
    pub name: String,
}

/// A change of the scopes that a client's tokens may have.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScopeChange {
    pub add: Vec<String>,
    pub remove: Vec<String>,
}

/// How a client is suspended.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewSuspension {
    /// The client is resumed within a minute after this time. `None`: an operator resumes it.
    #[serde(rename = "for")]
    pub lasts: Option<Span>,
    /// For people.
    pub reason: Option<String>,
}

/// A client, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ClientView {
    pub client_id: ClientId,
    pub name: String,
    pub allow: Vec<String>,
    pub certificates: Vec<String>,
    pub scopes: Vec<String>,
    pub resources: Vec<String>,
    pub enforces_allowlist: bool,
    pub introspect_lifetime: Option<Span>,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suspended_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suspension_reason: Option<String>,
    pub created_at: String,
    /// The last login, refresh or verification, where it is known and was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_used_at: Option<String>,
    /// The receipt of the change that had this result.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<Receipt>,
}

/// Returns one client, with its last use.
///
/// # Errors
///
/// If there is no such client, or the store is unavailable.
pub async fn client(app: &App, id: ClientId) -> Result<ClientView, Error> {
    let client = find(app, id).await?;
    let last = LastUse::read(app, &client, None).await?;
    Ok(used_view(&client, last.at))
}

/// Gives a client another name.
///
/// # Errors
///
/// As [`suspend`]; also if the name is invalid.
pub async fn rename(app: &Arc<App>, id: ClientId, wanted: NewName) -> Result<ClientView, Error> {
    let name = checked_client_name(&wanted.name)?;
    let rule = move |client: &mut Client| {
        client.name = name;
        Ok(())
    };
    changed_view(change(app, id, "client renamed", rule).await?)
}

/// Changes the scopes that a client's tokens may have.
///
/// # Errors
///
/// As [`suspend`]; also if a scope is invalid, or one to be removed is not there.
pub async fn change_scopes(app: &Arc<App>, id: ClientId, wanted: ScopeChange) -> Result<ClientView, Error> {
    let (add, remove) = (checked_scopes("add", &wanted.add)?, checked_scopes("remove", &wanted.remove)?);
    let rule = move |client: &mut Client| {
        if let Some(missing) = remove.iter().find(|scope| !client.scopes.contains(scope)) {
            return Err(invalid("remove", format!("the client does not have the scope {missing}")));
        }
        let kept = client.scopes.iter().filter(|scope| !remove.contains(scope));
        let after: Vec<_> = kept.chain(add.iter()).collect();
        client.scopes = checked_scopes("add", &after)?;
        Ok(())
    };
    changed_view(change(app, id, "scopes changed", rule).await?)
}

/// Suspends a client and revokes all its tokens.
///
/// # Errors
///
/// If there is no such client, or the change or its propagation fails.
pub async fn suspend(app: &Arc<App>, id: ClientId, wanted: NewSuspension) -> Result<ClientView, Error> {
    ensure(wanted.lasts.is_none_or(|span| span.seconds() > 0), "for", || {
        "expected a time after which the client is resumed, such as 2h".into()
    })?;
    let reason = wanted.reason.as_deref().map(|reason| checked_text("reason", reason)).transpose()?;
    let now = app.clock.now();
    let until = wanted.lasts.map(|span| now + span.seconds());
    let rule = move |client: &mut Client| {
        // The tokens of a client that is suspended are revoked already.
        if client.status != Status::Suspended {
            client.status = Status::Suspended;
            client.revoke_tokens(now);
        }
        client.suspension = Suspension { until, reason };
        Ok(())
    };
    changed_view(change(app, id, "client suspended", rule).await?)
}

/// Lets a suspended client log in again. Its earlier tokens stay revoked.
///
/// # Errors
///
/// As [`suspend`].
pub async fn resume(app: &Arc<App>, id: ClientId) -> Result<ClientView, Error> {
    let rule = |client: &mut Client| {
        client.status = Status::Active;
        client.suspension = Suspension::default();
        Ok(())
    };
    changed_view(change(app, id, "client resumed", rule).await?)
}

/// Revokes all tokens of a client.
///
/// # Errors
///
/// As [`suspend`].
pub async fn logout(app: &Arc<App>, id: ClientId) -> Result<ClientView, Error> {
    let now = app.clock.now();
    let rule = move |client: &mut Client| {
        client.revoke_tokens(now);
        Ok(())
    };
    changed_view(change(app, id, "client logged out", rule).await?)
}

/// Deletes a client and revokes its credentials and tokens.
///
/// # Errors
///
/// As [`suspend`].
pub async fn delete(app: &Arc<App>, id: ClientId) -> Result<ClientView, Error> {
    let now = app.clock.now();
    let rule = move |client: &mut Client| {
        client.status = Status::Deleted;
        client.suspension = Suspension::default();
        client.revoke_tokens(now);
        for credential in &mut client.credentials {
            credential.revoked_at.get_or_insert(now);
        }
        Ok(())
    };
    changed_view(change(app, id, "client deleted", rule).await?)
}

pub(super) fn checked_name(name: &str) -> Result<String, Error> {
    checked_text("name", name)
}

/// A name that is not taken for a client's id.
pub(super) fn checked_client_name(name: &str) -> Result<String, Error> {
    let name = checked_name(name)?;
    ensure(!name.bytes().all(|b| b.is_ascii_digit()), "name", || {
        "expected a name that is not of digits alone, as a client's id is".into()
    })?;
    Ok(name)
}

/// Returns a text for people that fits into one line of a list.
pub(super) fn checked_text(field: &'static str, text: &str) -> Result<String, Error> {
    let text = text.trim();
    let is_good = (1..=MAX_NAME_LENGTH).contains(&text.chars().count()) && !text.chars().any(moves_others);
    let problem = "characters, no control characters and no marks of direction among them";
    ensure(is_good, field, || format!("expected 1 to {MAX_NAME_LENGTH} {problem}"))?;
    Ok(text.to_owned())
}

pub(super) fn checked_scopes(field: &'static str, scopes: &[impl AsRef<str>]) -> Result<Scopes, Error> {
    let joined = scopes.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
    joined.parse().map_err(|e: ScopeError| invalid(field, e.to_string()))
}

/// Whether a character can move the text around it in a list or a log: a control character, a separator of lines or
/// paragraphs, or one of Unicode's `Bidi_Control` (UAX #9 §2).
fn moves_others(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

pub(super) fn changed_view(changed: Changed<()>) -> Result<ClientView, Error> {
    Ok(ClientView { receipt: Some(changed.receipt), ..view(&changed.client) })
}

pub(super) fn used_view(client: &Client, last: Option<UnixSeconds>) -> ClientView {
    ClientView { last_used_at: last.map(rfc3339), ..view(client) }
}

pub(super) fn view(client: &Client) -> ClientView {
    ClientView {
        client_id: client.id,
        name: client.name.clone(),
        allow: client.allowlist.entries().iter().map(ToString::to_string).collect(),
        certificates: client.certificates.iter().map(ToString::to_string).collect(),
        scopes: client.scopes.iter().map(str::to_owned).collect(),
        resources: client.resources.iter().map(str::to_owned).collect(),
        enforces_allowlist: client.enforces_allowlist,
        introspect_lifetime: client.introspect_lifetime.map(Span::of_seconds),
        status: client.status,
        suspended_until: client.suspension.until.map(rfc3339),
        suspension_reason: client.suspension.reason.clone(),
        created_at: rfc3339(client.created_at),
        last_used_at: None,
        receipt: None,
    }
}

pub(super) fn resources(field: &'static str, texts: &[String]) -> Result<Resources, Error> {
    Resources::new(texts.iter().map(String::as_str)).map_err(|e| invalid(field, e.to_string()))
}

pub(super) fn certificate_names(field: &'static str, texts: &[String]) -> Result<CertificateNames, Error> {
    check_number(field, texts.len())?;
    let names: Result<CertificateNames, _> = texts.iter().map(|text| text.parse()).collect();
    names.map_err(|e| invalid(field, e.to_string()))
}

pub(super) fn check_number(field: &'static str, names: usize) -> Result<(), Error> {
    ensure(names <= MAX_CERTIFICATES, field, || {
        format!("a client is bound to at most {MAX_CERTIFICATES} names")
    })
}
