//! Signing keys.

use std::sync::Arc;

use rescind_verifier::Algorithm;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{Error, invalid};
use crate::{app::App, audit::By, clock::rfc3339, config::Span, issuer::generate_key, store::StoredKey};

/// For how long a new public key is shown before it signs, unless told otherwise: longer than the
/// usual caches of key sets keep an old one.
const DEFAULT_PUBLISH_AHEAD: u64 = 600;

/// The rotation of the signing key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    /// `HS256`, `EdDSA` or `ES256`; that of the newest key if absent.
    #[serde(default)]
    pub algorithm: Option<String>,
    /// For how long the new key is published before it signs.
    #[serde(default)]
    pub publish_ahead: Option<Span>,
}

/// A signing key as shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyView {
    pub kid: String,
    pub algorithm: String,
    /// `next`, `signing` or `verifying`.
    pub status: String,
    pub created_at: String,
    pub signs_from: String,
    /// When its last token has run out, and it goes by itself.
    pub retires_at: Option<String>,
}

/// Every signing key, the newest last.
pub async fn keys(app: &App) -> Result<Vec<KeyView>, Error> {
    Ok(view_keys(app, &app.store.keys().await?))
}

/// Adds a key that signs from now on, or as soon as it has been published for long enough. The one
/// before verifies until its last token has run out.
pub async fn rotate_key(app: &Arc<App>, wanted: KeyRotation) -> Result<Vec<KeyView>, Error> {
    let now = app.clock.now();
    let newest = app.store.keys().await?.last().map_or(Algorithm::Hs256, |key| key.algorithm);
    let algorithm = match &wanted.algorithm {
        Some(name) => Algorithm::from_name(name)
            .ok_or_else(|| invalid("algorithm", format!("{name:?} is not one of HS256, EdDSA and ES256")))?,
        None => newest,
    };
    // No token of it may reach a node that does not have it yet.
    let least = app.store.postgres().map_or(0, |_| 2 * app.cluster.terms.wait().as_secs() + 1);
    let publish_ahead = match (wanted.publish_ahead, algorithm) {
        (Some(span), _) if span.seconds() < least => {
            return Err(invalid("publish_ahead", format!("expected at least {least}s, for the other nodes")));
        }
        (Some(span), _) => span.seconds(),
        // A secret key is published to nobody.
        (None, Algorithm::Hs256) => least,
        (None, Algorithm::EdDsa | Algorithm::Es256) => DEFAULT_PUBLISH_AHEAD,
    };
    let signs_from = now + publish_ahead;
    let key = generate_key(algorithm, &app.master, &app.random, now, signs_from)?;
    let (kid, retire_at) = (key.kid.clone(), signs_from + app.rules.refresh_ttl);
    let origin = app.audit.origin(By::Operator, None);
    let keys = app.change_keys(async move |app| app.store.rotate_key(key, retire_at, origin).await).await??;
    info!(kid, algorithm = algorithm.name(), "signing key rotated");
    Ok(view_keys(app, &keys))
}

/// Refuses every token signed with a key, from now on.
pub async fn retire_key(app: &Arc<App>, kid: &str) -> Result<Vec<KeyView>, Error> {
    let known = app.store.keys().await?;
    let key = known.iter().find(|key| key.kid == kid).ok_or(Error::NotFound("signing key"))?;
    if key.retire_at.is_none() || key.id == app.issuer.signing_key(app.clock.now()) {
        let problem = "signs, or is the next to: rotate the key, and retire this one when the new one signs";
        return Err(Error::Refused(format!("{kid} {problem}")));
    }
    let (id, origin) = (key.id, app.audit.origin(By::Operator, None));
    let retire = async move |app: Arc<App>| app.store.retire_keys(origin, move |key| key.id == id).await;
    let keys = app.change_keys(retire).await??;
    info!(kid, "signing key retired");
    Ok(view_keys(app, &keys))
}

fn view_keys(app: &App, keys: &[StoredKey]) -> Vec<KeyView> {
    let now = app.clock.now();
    let signing = app.issuer.signing_key(now);
    let view = |key: &StoredKey| KeyView {
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
