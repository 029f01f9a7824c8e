//! API keys and secrets.

use std::{net::IpAddr, sync::Arc};

use rescind_base::{
    clock::rfc3339,
    model::{Client, ClientId, Credential, CredentialUse, UnixSeconds},
    secret::{ApiSecret, SECRET_PREFIX, generate_api_key},
};
use rescind_node::{
    app::App,
    config::{Span, Time},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Error, LastView, change, client::checked_text, ensure, find, invalid, usage::LastUse};

const MAX_CREDENTIALS: usize = 64;
/// In seconds: how long a rotated credential stays valid by default.
const DEFAULT_OVERLAP: u64 = 24 * 3600;

/// The properties of a new credential.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    pub expires_in: Option<Span>,
}

/// The rotation of a credential.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// For how long the old credential stays valid.
    pub overlap: Option<Span>,
}

/// When a credential expires: after a time, or at one.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expiry {
    #[serde(rename = "in")]
    pub after: Option<Span>,
    pub at: Option<Time>,
}

/// Where a credential's secret is kept.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewNote {
    /// For people; never the secret itself. Absent or empty: no note.
    pub note: Option<String>,
}

/// A credential and its uses, the newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UsedCredential {
    pub client_id: ClientId,
    pub client_name: String,
    #[serde(flatten)]
    pub credential: CredentialView,
    /// The last time that an access token of its sessions was found valid.
    #[serde(default)]
    pub last_verification: Option<LastView>,
    pub uses: Vec<UseView>,
}

/// From where a credential has logged in or refreshed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UseView {
    pub api_key: String,
    /// `None`: it was not known.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    pub times: u64,
    pub last_at: String,
}

/// A credential, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CredentialView {
    pub api_key: String,
    /// `active`, `expired` or `revoked`.
    pub status: String,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
    /// When another credential took its place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaced_at: Option<String>,
    /// Where the secret is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

/// A new credential, with its secret. The secret is shown only here.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedCredential {
    pub client_id: ClientId,
    pub api_key: String,
    pub api_secret: String,
    pub expires_at: Option<String>,
    /// The old credential, which this one replaces.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaces: Option<Replaced>,
}

/// A rotated credential, and when it expires.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Replaced {
    pub api_key: String,
    pub expires_at: Option<String>,
}

/// Returns a client's credentials, with the revoked ones.
///
/// # Errors
///
/// If there is no such client, or the store is unavailable.
pub async fn credentials(app: &App, id: ClientId) -> Result<Vec<CredentialView>, Error> {
    let now = app.clock.now();
    Ok(find(app, id).await?.credentials.iter().map(|c| view_credential(c, now)).collect())
}

/// Gives a client one more credential.
///
/// # Errors
///
/// If there is no such client, it has too many credentials, or the change or its propagation fails.
pub async fn create_credential(
    app: &Arc<App>,
    id: ClientId,
    wanted: NewCredential,
) -> Result<CreatedCredential, Error> {
    ensure(wanted.expires_in.is_none_or(|span| span.seconds() > 0), "expires_in", || {
        "expected a time in which the credential can be used, such as 90d".into()
    })?;
    let now = app.clock.now();
    let expires_at = wanted.expires_in.map(|span| now + span.seconds());
    let (credential, secret) = new_credential(app, expires_at);
    let api_key = credential.api_key.clone();
    change(app, id, "credential created", move |client| add_credential(client, credential, now)).await?;
    Ok(CreatedCredential {
        client_id: id,
        api_key,
        api_secret: secret.expose().to_owned(),
        expires_at: expires_at.map(rfc3339),
        replaces: None,
    })
}

/// Gives a credential's client a new credential. The old one expires after an overlap.
///
/// # Errors
///
/// If there is no such credential, it is revoked, or it was rotated before; else as [`create_credential`].
pub async fn rotate_credential(
    app: &Arc<App>,
    api_key: &str,
    wanted: Rotation,
) -> Result<CreatedCredential, Error> {
    let known = app.memory.registry.credential(api_key).ok_or(Error::NotFound("credential"))?;
    let now = app.clock.now();
    let ends_at = now + wanted.overlap.map_or(DEFAULT_OVERLAP, Span::seconds);
    let (credential, secret) = new_credential(app, None);
    let (new_key, old) = (credential.api_key.clone(), known.credential.id);
    let rule = move |client: &mut Client| {
        let old = client.credentials.iter_mut().find(|c| c.id == old && c.revoked_at.is_none());
        let old = old.ok_or(Error::NotFound("credential"))?;
        if let Some(at) = old.replaced_at {
            return Err(Error::Refused(format!(
                "this credential was rotated at {} already: rotate the one that took its place, or change when this one ends (`rescind credential expire`)",
                rfc3339(at)
            )));
        }
        old.replaced_at = Some(now);
        let ends_at = old.expires_at.map_or(ends_at, |at| at.min(ends_at));
        old.expires_at = Some(ends_at);
        add_credential(client, credential, now)?;
        Ok(ends_at)
    };
    let ends_at = change(app, known.client, "credential rotated", rule).await?.outcome;
    Ok(CreatedCredential {
        client_id: known.client,
        api_key: new_key,
        api_secret: secret.expose().to_owned(),
        expires_at: None,
        replaces: Some(Replaced { api_key: api_key.to_owned(), expires_at: Some(rfc3339(ends_at)) }),
    })
}

/// Changes when a credential expires. From then on it cannot log in or refresh.
///
/// # Errors
///
/// If there is no such credential, it has ended, the time is not in the future, or the change or its propagation fails.
pub async fn expire_credential(
    app: &Arc<App>,
    api_key: &str,
    wanted: Expiry,
) -> Result<CredentialView, Error> {
    let known = app.memory.registry.credential(api_key).ok_or(Error::NotFound("credential"))?;
    let (now, id) = (app.clock.now(), known.credential.id);
    let at = match wanted {
        Expiry { after: Some(span), at: None } => now + span.seconds(),
        Expiry { after: None, at: Some(time) } => time.seconds(),
        Expiry { .. } => {
            return Err(invalid("in", "expected either in, such as 7d, or at, such as 2025-01-15"));
        }
    };
    ensure(at > now, "at", || "expected a time in the future; to end a credential now, revoke it".into())?;
    let rule = move |client: &mut Client| {
        let credential = client.credentials.iter_mut().find(|c| c.id == id);
        let credential = credential.ok_or(Error::NotFound("credential"))?;
        if !credential.is_good(now) {
            return Err(Error::Refused("this credential has ended: create another one".into()));
        }
        credential.expires_at = Some(at);
        Ok(view_credential(credential, now))
    };
    Ok(change(app, known.client, "credential's expiry changed", rule).await?.outcome)
}

/// Notes where a credential's secret is kept.
///
/// # Errors
///
/// If there is no such credential, the note is too long or may be a secret, or the change or its propagation fails.
pub async fn note_credential(
    app: &Arc<App>,
    api_key: &str,
    wanted: NewNote,
) -> Result<CredentialView, Error> {
    let known = app.memory.registry.credential(api_key).ok_or(Error::NotFound("credential"))?;
    let (now, id) = (app.clock.now(), known.credential.id);
    let note = wanted.note.map(|note| note.trim().to_owned()).filter(|note| !note.is_empty());
    let note = note.map(|note| checked_text("note", &note)).transpose()?;
    let may_be_secret = note.as_deref().is_some_and(|note| note.contains(SECRET_PREFIX));
    ensure(!may_be_secret, "note", || "expected the place of the secret, and never the secret".into())?;
    let rule = move |client: &mut Client| {
        let credential = client.credentials.iter_mut().find(|c| c.id == id);
        let credential = credential.ok_or(Error::NotFound("credential"))?;
        credential.note = note;
        Ok(view_credential(credential, now))
    };
    Ok(change(app, known.client, "credential's note changed", rule).await?.outcome)
}

/// Returns a credential with its uses, also one that was revoked: after a leak this is asked.
///
/// # Errors
///
/// If there is no such credential, or the store is unavailable.
pub async fn credential(app: &App, api_key: &str) -> Result<UsedCredential, Error> {
    let client = app.store.client_of_credential(api_key).await?.ok_or(Error::NotFound("credential"))?;
    let client = find(app, client).await?;
    let credential = client.credentials.iter().find(|c| c.api_key == api_key);
    let credential = credential.ok_or(Error::NotFound("credential"))?;
    let last_verification = LastUse::read(app, &client, Some(credential.id)).await?.verification;
    let mut uses = uses(app, client.id).await?;
    uses.retain(|used| used.api_key == api_key);
    let credential = view_credential(credential, app.clock.now());
    Ok(UsedCredential { client_id: client.id, client_name: client.name, credential, last_verification, uses })
}

/// Returns from where a client's credentials have logged in or refreshed, the newest first.
///
/// # Errors
///
/// If there is no such client, or the store is unavailable.
pub async fn uses(app: &App, id: ClientId) -> Result<Vec<UseView>, Error> {
    let client = find(app, id).await?;
    app.usage.write(&app.store).await;
    let view = |CredentialUse { credential, address, at, times }| {
        let credential = client.credentials.iter().find(|c| c.id == credential)?;
        Some(UseView { api_key: credential.api_key.clone(), address, times, last_at: rfc3339(at) })
    };
    Ok(app.store.uses_of(id).await?.into_iter().filter_map(view).collect())
}

/// Revokes a credential, and every token of the sessions that it opened.
///
/// # Errors
///
/// If there is no such credential, or the change or its propagation fails.
pub async fn revoke_credential(app: &Arc<App>, api_key: &str) -> Result<CredentialView, Error> {
    let known = app.memory.registry.credential(api_key).ok_or(Error::NotFound("credential"))?;
    let (now, id) = (app.clock.now(), known.credential.id);
    let rule = move |client: &mut Client| {
        let credential = client.credentials.iter_mut().find(|c| c.id == id);
        let credential = credential.ok_or(Error::NotFound("credential"))?;
        credential.revoked_at.get_or_insert(now);
        Ok(view_credential(credential, now))
    };
    Ok(change(app, known.client, "credential revoked", rule).await?.outcome)
}

pub(super) fn new_credential(app: &App, expires_at: Option<UnixSeconds>) -> (Credential, ApiSecret) {
    let secret = ApiSecret::generate(&app.random);
    let credential = Credential {
        id: 0,
        api_key: generate_api_key(&app.random),
        secret_hash: app.memory.peppers.load().hash(secret.expose()),
        created_at: app.clock.now(),
        expires_at,
        revoked_at: None,
        replaced_at: None,
        note: None,
    };
    (credential, secret)
}

fn add_credential(client: &mut Client, credential: Credential, now: UnixSeconds) -> Result<(), Error> {
    if client.credentials.iter().filter(|c| c.is_good(now)).count() >= MAX_CREDENTIALS {
        return Err(Error::Refused(format!(
            "the client has {MAX_CREDENTIALS} credentials that can be used: revoke one first"
        )));
    }
    client.credentials.push(credential);
    Ok(())
}

pub(super) fn view_credential(credential: &Credential, now: UnixSeconds) -> CredentialView {
    let status = match credential {
        Credential { revoked_at: Some(_), .. } => "revoked",
        credential if !credential.is_good(now) => "expired",
        _ => "active",
    };
    CredentialView {
        api_key: credential.api_key.clone(),
        status: status.into(),
        created_at: rfc3339(credential.created_at),
        expires_at: credential.expires_at.map(rfc3339),
        revoked_at: credential.revoked_at.map(rfc3339),
        replaced_at: credential.replaced_at.map(rfc3339),
        note: credential.note.clone(),
    }
}
