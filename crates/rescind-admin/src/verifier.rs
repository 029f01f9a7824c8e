//! Verifiers: other processes that may follow the feed.

use std::sync::Arc;

use rescind_base::{
    clock::rfc3339,
    model::VerifierRecord,
    secret::{ApiSecret, VERIFIER_PREFIX},
};
use rescind_node::app::App;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{Error, client::checked_name};

/// The properties of a new verifier.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVerifier {
    pub name: String,
    /// Gives the verifier HS256 keys too, with which it could also sign tokens.
    #[serde(default)]
    pub share_hs256: bool,
}

/// A verifier, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct VerifierView {
    pub verifier_id: u64,
    pub name: String,
    pub share_hs256: bool,
    pub created_at: String,
}

/// A new verifier, with its token. The token is shown only here.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedVerifier {
    pub verifier_id: u64,
    pub name: String,
    pub share_hs256: bool,
    pub token: String,
}

/// Creates a verifier, with a token for following the feed.
///
/// # Errors
///
/// If the name is invalid, or the change or its propagation fails.
pub async fn create_verifier(app: &Arc<App>, new: NewVerifier) -> Result<CreatedVerifier, Error> {
    let token = ApiSecret::generate_token(VERIFIER_PREFIX, &app.random);
    let verifier = VerifierRecord {
        id: 0,
        name: checked_name(&new.name)?,
        token_hash: app.memory.peppers.load().hash(token.expose()),
        shares_hs256: new.share_hs256,
        created_at: app.clock.now(),
    };
    let name = verifier.name.clone();
    let origin = app.by_operator();
    let create = async move |app: Arc<App>| app.store.create_verifier(verifier, origin).await;
    let verifiers = app.change_verifiers(create).await?;
    let verifier_id = verifiers.last().map_or(0, |verifier| verifier.id);
    info!(verifier = verifier_id, "verifier created");
    let token = token.expose().to_owned();
    Ok(CreatedVerifier { verifier_id, name, share_hs256: new.share_hs256, token })
}

/// Returns every verifier.
pub fn verifiers(app: &App) -> Vec<VerifierView> {
    app.memory.verifiers.load().iter().map(view).collect()
}

/// Revokes a verifier. Its feed ends at the next event.
///
/// # Errors
///
/// If there is no such verifier, or the change or its propagation fails.
pub async fn revoke_verifier(app: &Arc<App>, id: u64) -> Result<Vec<VerifierView>, Error> {
    if !app.memory.verifiers.load().iter().any(|verifier| verifier.id == id) {
        return Err(Error::NotFound("verifier"));
    }
    let origin = app.by_operator();
    let left = app.change_verifiers(async move |app| app.store.delete_verifier(id, origin).await).await?;
    info!(verifier = id, "verifier revoked");
    Ok(left.iter().map(view).collect())
}

fn view(verifier: &VerifierRecord) -> VerifierView {
    VerifierView {
        verifier_id: verifier.id,
        name: verifier.name.clone(),
        share_hs256: verifier.shares_hs256,
        created_at: rfc3339(verifier.created_at),
    }
}
