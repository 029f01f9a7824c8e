//! API keys and secrets.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Error, change, find};
use crate::{
    app::App,
    clock::rfc3339,
    config::Span,
    model::{Client, ClientId, Credential, UnixSeconds},
    secret::{ApiSecret, generate_api_key},
};

const MAX_CREDENTIALS: usize = 64;
/// In seconds: how long a rotated credential stays valid by default.
const DEFAULT_OVERLAP: u64 = 24 * 3600;

/// The properties of a new credential.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    #[serde(default)]
    pub expires_in: Option<Span>,
}

/// The rotation of a credential.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// For how long the old credential stays valid.
    #[serde(default)]
    pub overlap: Option<Span>,
}

/// A credential, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct CredentialView {
    pub api_key: String,
    /// `active`, `expired` or `revoked`.
    pub status: String,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
}

/// A new credential, with its secret. The secret is shown only here.
#[derive(Serialize, Deserialize)]
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
#[derive(Debug, Serialize, Deserialize)]
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
    let expires_at = wanted.expires_in.map(|span| app.clock.now() + span.seconds());
    let (credential, secret) = new_credential(app, expires_at);
    let api_key = credential.api_key.clone();
    change(app, id, "credential created", |client| add_credential(client, credential)).await?;
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
/// If there is no such credential or it is revoked; else as [`create_credential`].
pub async fn rotate_credential(
    app: &Arc<App>,
    api_key: &str,
    wanted: Rotation,
) -> Result<CreatedCredential, Error> {
    let known = app.memory.registry.credential(api_key).ok_or(Error::NotFound("credential"))?;
    let ends_at = app.clock.now() + wanted.overlap.map_or(DEFAULT_OVERLAP, Span::seconds);
    let (credential, secret) = new_credential(app, None);
    let (new_key, old) = (credential.api_key.clone(), known.credential.id);
    let rule = move |client: &mut Client| {
        let old = client.credentials.iter_mut().find(|c| c.id == old && c.revoked_at.is_none());
        let old = old.ok_or(Error::NotFound("credential"))?;
        let ends_at = old.expires_at.map_or(ends_at, |at| at.min(ends_at));
        old.expires_at = Some(ends_at);
        add_credential(client, credential)?;
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
        secret_hash: app.memory.pepper.hash(secret.expose()),
        created_at: app.clock.now(),
        expires_at,
        revoked_at: None,
    };
    (credential, secret)
}

fn add_credential(client: &mut Client, credential: Credential) -> Result<(), Error> {
    if client.credentials.iter().filter(|c| c.revoked_at.is_none()).count() >= MAX_CREDENTIALS {
        return Err(Error::Refused(format!(
            "the client has {MAX_CREDENTIALS} credentials already: revoke one first"
        )));
    }
    client.credentials.push(credential);
    Ok(())
}

fn view_credential(credential: &Credential, now: UnixSeconds) -> CredentialView {
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
    }
}
