//! Revokes one session.

use std::{convert::Infallible, sync::Arc};

use rescind_base::model::{Client, ClientId, Session};
use rescind_node::{app::App, cluster::Receipt};
use rescind_store::StoreError;
use rescind_verifier::Kind;
use tracing::info;

use super::{Error, is_logged};

/// Why a token was not revoked.
#[derive(Debug)]
pub enum NotRevoked {
    /// The token belongs to another client.
    Foreign,
    /// The revocation failed, or its outcome is unknown.
    Error(Error),
}

/// Revokes the session of an access or refresh token (RFC 7009), with all its tokens. An invalid token counts as
/// revoked.
///
/// # Errors
///
/// [`NotRevoked::Foreign`] for another client's token. [`NotRevoked::Error`] if the node has no lease, or the change or its
/// propagation fails.
pub async fn revoke(app: &Arc<App>, client: ClientId, token: &str) -> Result<(), NotRevoked> {
    app.cluster.lease.check().map_err(|lapsed| NotRevoked::Error(StoreError::from(lapsed).into()))?;
    let keyring = app.memory.issuer.keyring().clone();
    // Expiry is ignored: the session may have other valid tokens, or a verifier's clock may differ.
    let read = |kind| keyring.authenticate_at_any_time(token, kind);
    let Ok(claims) = read(Kind::Access).or_else(|_| read(Kind::Refresh)) else { return Ok(()) };
    if claims.client != client {
        return Err(NotRevoked::Foreign);
    }
    let (session, until) = (claims.session, app.clock.now().saturating_add(app.rules.refresh_ttl));
    let end = move |client: &Client, session: Option<Session>| match session {
        Some(session) => Some((session.ended(&claims), None)),
        // The session's row was deleted, but its tokens may still be valid on a process with another clock.
        None => {
            let stands = client.policy().stands_behind(&claims).is_ok();
            stands.then(|| (Session::lost(&claims, until), None))
        }
    };
    let change =
        async move |app: Arc<App>| app.end_session(client, session, end).await.map(Ok::<_, Infallible>);
    let log = move |app: &App, _: &bool, Receipt { nodes, acknowledged, milliseconds }| {
        if is_logged(app, client) {
            info!(client, session, nodes, acknowledged, milliseconds, "session revoked");
        }
    };
    let ended = app.commit(change, log).await;
    ended.map(drop).map_err(|e| NotRevoked::Error(e.into()))
}
