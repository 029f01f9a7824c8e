//! Signing keys.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::info;

use super::Error;
use crate::{
    app::{App, to_the_end},
    clock::rfc3339,
    issuer::generate_key,
    store::StoredKey,
};

/// A signing key as shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyView {
    pub kid: String,
    pub algorithm: String,
    /// `signing` or `verifying`.
    pub status: String,
    pub created_at: String,
    /// When its last token has run out, and it goes by itself.
    pub retires_at: Option<String>,
}

/// Every signing key, the newest last.
pub async fn keys(app: &App) -> Result<Vec<KeyView>, Error> {
    Ok(app.store.load().await?.keys.iter().map(view_key).collect())
}

/// Signs with a new key from now on. The old one verifies until its last token has run out.
pub async fn rotate_key(app: &Arc<App>) -> Result<Vec<KeyView>, Error> {
    let now = app.clock.now();
    let key = generate_key(&app.master, &app.random, now)?;
    let retire_at = now + app.rules.refresh_ttl;
    let changing = Arc::clone(app);
    let kid = key.kid.clone();
    let keys = to_the_end(async move {
        let keys = changing.store.rotate_key(key, retire_at).await?;
        Ok(changing.issuer.set_keys(&keys, &changing.master).map(|()| keys))
    });
    let keys = keys.await??;
    info!(kid, "signing key rotated");
    Ok(keys.iter().map(view_key).collect())
}

/// Refuses every token signed with a key, from now on.
pub async fn retire_key(app: &Arc<App>, kid: &str) -> Result<Vec<KeyView>, Error> {
    let known = app.store.load().await?.keys;
    let key = known.iter().find(|key| key.kid == kid).ok_or(Error::NotFound("signing key"))?;
    if key.retire_at.is_none() {
        return Err(Error::Refused(format!("{kid} signs: rotate the key first, then retire this one")));
    }
    let (id, changing) = (key.id, Arc::clone(app));
    let keys = to_the_end(async move {
        let keys = changing.store.retire_keys(move |key| key.id == id && key.retire_at.is_some()).await?;
        Ok(changing.issuer.set_keys(&keys, &changing.master).map(|()| keys))
    });
    let keys = keys.await??;
    info!(kid, "signing key retired");
    Ok(keys.iter().map(view_key).collect())
}

fn view_key(key: &StoredKey) -> KeyView {
    KeyView {
        kid: key.kid.clone(),
        algorithm: "HS256".into(),
        status: if key.retire_at.is_none() { "signing".into() } else { "verifying".into() },
        created_at: rfc3339(key.created_at),
        retires_at: key.retire_at.map(rfc3339),
    }
}
