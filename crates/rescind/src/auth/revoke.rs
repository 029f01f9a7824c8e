//! The end of one session.

use std::{convert::Infallible, sync::Arc};

use rescind_verifier::Kind;
use tracing::info;

use super::{Error, is_logged};
use crate::{
    app::App,
    cluster::Receipt,
    model::{Client, ClientId, Session},
    store::StoreError,
};

/// Why a token was not revoked.
#[derive(Debug)]
pub enum NotRevoked {
    /// It is another client's.
    Foreign,
    /// It may or may not have been.
    Error(Error),
}

/// Ends the session of a token of either kind (RFC 7009): its refresh token, and every access token.
/// A token that stands for nothing is revoked already.
pub async fn revoke(app: &Arc<App>, client: ClientId, token: &str) -> Result<(), NotRevoked> {
    app.cluster.lease.check().map_err(|lapsed| NotRevoked::Error(StoreError::from(lapsed).into()))?;
    let keyring = app.memory.issuer.keyring().clone();
    // Whatever its times are, its session may have tokens that are good, here or at a clock that goes otherwise.
    let read = |kind| keyring.authenticate_at_any_time(token, kind);
    let Ok(claims) = read(Kind::Access).or_else(|_| read(Kind::Refresh)) else { return Ok(()) };
    if claims.client != client {
        return Err(NotRevoked::Foreign);
    }
    let (session, until) = (claims.session, app.clock.now().saturating_add(app.rules.refresh_ttl));
    let end = move |client: &Client, session: Option<Session>| match session {
        Some(session) => Some(session.ended(&claims)),
        // Its row is gone, and what it had may still be good elsewhere.
        None => client.policy().stands_behind(&claims).is_ok().then(|| Session::lost(&claims, until)),
    };
    let change =
        async move |app: Arc<App>| app.end_session(client, session, end).await.map(Ok::<_, Infallible>);
    let log = move |app: &App, (): &(), Receipt { nodes, acknowledged, milliseconds }| {
        if is_logged(app, client) {
            info!(client, session, nodes, acknowledged, milliseconds, "session revoked");
        }
    };
    let ended = app.commit(change, log).await;
    ended.map(drop).map_err(|e| NotRevoked::Error(e.into()))
}
