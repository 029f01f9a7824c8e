//! The inspection of a token.

use rescind_base::{
    clock::rfc3339,
    model::{ClientId, Presented},
};
use rescind_node::app::{App, may_see};
use rescind_verifier::{Denied, Kind, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Error;

/// A token's claims, and whether the token is valid.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// `stands`, or the reason why the token is invalid.
    pub verdict: String,
    pub stands: bool,
    pub kind: Option<String>,
    pub client_id: Option<ClientId>,
    pub session: Option<u64>,
    pub pair: Option<u64>,
    pub generation: Option<u64>,
    pub scopes: Vec<String>,
    /// The APIs that the token is for.
    pub audience: Vec<String>,
    pub issued_at: Option<String>,
    pub expires_at: Option<String>,
}

/// Returns the claims of an access or refresh token, and whether the token is valid. The caller's address is not checked.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn inspect(app: &App, token: &str) -> Result<TokenView, Error> {
    let now = app.clock.now();
    let (keyring, profile) = (app.memory.issuer.keyring().clone(), app.memory.issuer.profile());
    let (kind, read) = match keyring.authenticate(token, Kind::Access, now) {
        Err(refused) if refused.reason == Denied::WrongKind => {
            (Kind::Refresh, keyring.authenticate(token, Kind::Refresh, now))
        }
        read => (Kind::Access, read),
    };
    let claims = match read {
        Ok(claims) => claims,
        Err(refused) => {
            return Ok(TokenView { verdict: refused.reason.to_string(), ..TokenView::default() });
        }
    };
    if !may_see(claims.client) {
        return Ok(TokenView { verdict: Denied::NotKnown.to_string(), ..TokenView::default() });
    }
    let found = app.store.find(claims.client, claims.session).await?;
    let verdict = (|| {
        let client = found.client.as_ref().ok_or(Denied::NotKnown)?;
        client.policy().stands_behind(&claims)?;
        let session = found.session.as_ref().filter(|s| s.client == client.id && claims.pair <= s.pair);
        let session = session.ok_or(Denied::NotKnown)?;
        let state = found.session(session.id).ok_or(Denied::NotKnown)?;
        let spent =
            kind == Kind::Refresh && session.present(claims.pair, now, &app.rules) != Presented::Current;
        if state.ended || spent { Err(Denied::Revoked) } else { Ok(()) }
    })();
    Ok(TokenView {
        verdict: verdict.map_or_else(|denied: Denied| denied.to_string(), |()| "stands".into()),
        stands: verdict.is_ok(),
        kind: Some(if kind == Kind::Access { "access" } else { "refresh" }.into()),
        client_id: Some(claims.client),
        session: Some(claims.session),
        pair: Some(claims.pair),
        generation: Some(claims.generation),
        scopes: claims.scopes.iter().map(str::to_owned).collect(),
        audience: match kind {
            Kind::Access if claims.resources.is_empty() => vec![profile.audience().to_owned()],
            Kind::Access => claims.resources.iter().map(str::to_owned).collect(),
            Kind::Refresh => vec![profile.of_refresh_tokens().audience().to_owned()],
        },
        issued_at: Some(rfc3339(claims.issued_at)),
        expires_at: Some(rfc3339(claims.expires_at)),
    })
}
