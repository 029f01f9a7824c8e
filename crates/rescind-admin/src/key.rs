//! Signing keys.

use std::sync::Arc;

use rescind_base::{
    clock::rfc3339,
    model::{Actor, SigningKeyRecord},
};
use rescind_node::{
    app::App,
    config::Span,
    memory::{generate_key, generate_upgrade, publish_ahead},
};
use rescind_verifier::Algorithm;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{Error, REFRESH_KEYS, RESOURCES, ensure_nodes_know, invalid, node_without};

/// The rotation of the signing key.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    /// `HS256`, `ES256`, `Ed25519` or `EdDSA`. Absent: the algorithm of the newest key.
    pub algorithm: Option<String>,
    /// For how long the new key is published before it signs.
    pub publish_ahead: Option<Span>,
}

/// A signing key, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    pub kid: String,
    pub algorithm: String,
    /// `next`, `signing` or `verifying`.
    pub status: String,
    pub created_at: String,
    pub signs_from: String,
    /// When the key's last token has expired and the service removes the key.
    pub retires_at: Option<String>,
}

/// Returns every signing key, the newest last.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn keys(app: &App) -> Result<Vec<KeyView>, Error> {
    Ok(view_keys(app, &app.store.keys().await?))
}

/// Adds a key that signs from now on, or as soon as it has been published for long enough. The previous key verifies
/// until its last token has expired.
///
/// # Errors
///
/// If the algorithm or the time is invalid, a node is of an older version, or the store is unavailable.
pub async fn rotate_key(app: &Arc<App>, wanted: KeyRotation) -> Result<Vec<KeyView>, Error> {
    let now = app.clock.now();
    let newest = app.store.keys().await?.last().map_or(Algorithm::Hs256, |key| key.algorithm);
    let algorithm = match &wanted.algorithm {
        Some(name) => Algorithm::from_name(name).ok_or_else(|| {
            invalid("algorithm", format!("{name:?} is not one of HS256, ES256, Ed25519 and EdDSA"))
        })?,
        None => newest,
    };
    let least = least_ahead(app);
    let ahead = match wanted.publish_ahead {
        Some(span) if span.seconds() < least => {
            return Err(invalid("publish_ahead", format!("expected at least {least}s, for the other nodes")));
        }
        Some(span) => span.seconds(),
        None => publish_ahead(algorithm, least),
    };
    ensure_nodes_know(app, RESOURCES, "could not read tokens of a new key").await?;
    let signs_from = now + ahead;
    let key = generate_key(algorithm, &app.memory.master, &app.random, now, signs_from)?;
    let (kid, retire_at) = (key.kid.clone(), signs_from + app.rules.refresh_ttl);
    let origin = app.by_operator();
    let keys =
        app.change_keys(async move |app| app.store.rotate_key(None, key, retire_at, origin).await).await??;
    info!(kid, algorithm = algorithm.name(), "signing key rotated");
    Ok(view_keys(app, &keys))
}

/// Rotates a signing key without a refresh key to one that has a refresh key, as soon as every node can read the tokens of
/// such a key.
///
/// # Errors
///
/// If the key cannot be sealed or the store is unavailable.
pub async fn upgrade_key(app: &Arc<App>) -> Result<(), Error> {
    let keys = app.store.keys().await?;
    let Some(newest) = keys.last() else { return Ok(()) };
    let now = app.clock.now();
    let next = generate_upgrade(newest, least_ahead(app), &app.memory.master, &app.random, now)?;
    let Some(next) = next else { return Ok(()) };
    if node_without(app, REFRESH_KEYS).await?.is_some() {
        return Ok(());
    }
    let (newest, kid, retire_at) = (newest.id, next.kid.clone(), next.signs_from + app.rules.refresh_ttl);
    let origin = app.audit.origin(Actor::Service, None);
    let rotate = async move |app: Arc<App>| app.store.rotate_key(Some(newest), next, retire_at, origin).await;
    let keys = app.change_keys(rotate).await??;
    // If two nodes do this at once, only one of them adds its key.
    if keys.iter().any(|key| key.kid == kid) {
        info!(kid, "a signing key with a refresh key of its own takes over");
    }
    Ok(())
}

/// The shortest time, in seconds, for which a new key is published before it signs, so that every node has the key
/// before a token of it can arrive.
fn least_ahead(app: &App) -> u64 {
    app.store.postgres().map_or(0, |_| 2 * app.cluster.terms.wait().as_secs() + 1)
}

/// Removes a key, so that every token that it signed is refused from now on.
///
/// # Errors
///
/// If there is no such key, the key signs or will sign, or the store is unavailable.
pub async fn retire_key(app: &Arc<App>, kid: &str) -> Result<Vec<KeyView>, Error> {
    let known = app.store.keys().await?;
    let key = known.iter().find(|key| key.kid == kid).ok_or(Error::NotFound("signing key"))?;
    if key.retire_at.is_none() || key.id == app.memory.issuer.signing_key(app.clock.now()) {
        let problem = "signs, or is the next to: rotate the key, and retire this one when the new one signs";
        return Err(Error::Refused(format!("{kid} {problem}")));
    }
    let (id, origin) = (key.id, app.by_operator());
    let retire = async move |app: Arc<App>| app.store.retire_keys(origin, move |key| key.id == id).await;
    let keys = app.change_keys(retire).await??;
    info!(kid, "signing key retired");
    Ok(view_keys(app, &keys))
}

fn view_keys(app: &App, keys: &[SigningKeyRecord]) -> Vec<KeyView> {
    let now = app.clock.now();
    let signing = app.memory.issuer.signing_key(now);
    let view = |key: &SigningKeyRecord| KeyView {
        kid: key.kid.clone(),
        algorithm: key.algorithm.name().into(),
        status: match key {
            key if key.id == signing => "signing".into(),
            key if key.signs_from > now => "next".into(),
            _ => "verifying".into(),
        },
        created_at: rfc3339(key.created_at),
        signs_from: rfc3339(key.signs_from),
        retires_at: key.retire_at.map(rfc3339),
    };
    keys.iter().map(view).collect()
}
