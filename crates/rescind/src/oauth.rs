//! The rules behind the OAuth 2.0 doors: the same ones, by their names there. No HTTP.

use std::sync::Arc;

use rescind_verifier::{Claims, Denied, Kind, Scopes};
use tracing::info;

use crate::{
    app::{App, to_the_end},
    auth::{self, Caller, Error, Grant},
    cluster::Receipt,
    model::{Client, ClientId, Phase, Presented, Session, TokenRules},
    registry::KnownCredential,
    store::StoreError,
};

/// The scope that lets a client ask about the tokens of others.
pub const INTROSPECT: &str = "introspect";

/// An access token alone (RFC 6749 §4.4), for the scopes asked for or for all that the client has.
pub async fn client_credentials(
    app: &Arc<App>,
    credential: &KnownCredential,
    caller: &Caller,
    scopes: Option<Scopes>,
) -> Result<Grant, Error> {
    // There is nothing to refresh, and the session ends with its access token.
    let rules = TokenRules { refresh_ttl: app.rules.access_ttl, ..app.rules };
    auth::open_session(app, credential, caller, rules, Phase::RefreshEnded, scopes).await
}

/// Whether a client may ask about the tokens of others.
pub fn may_introspect(app: &App, client: ClientId) -> bool {
    app.registry.policy(client).is_some_and(|client| client.active && client.scopes.contains(INTROSPECT))
}

/// What is told of a token that stands.
#[derive(Debug, Clone)]
pub struct Introspected {
    /// What it may be used for.
    pub kind: Kind,
    /// What it says.
    pub claims: Claims,
    /// What it may do now.
    pub scopes: Scopes,
    /// The credential that opened its session.
    pub api_key: String,
    /// Where it may be used from; empty: from anywhere. Whoever asks must hold the caller to it.
    pub allow: Vec<String>,
}

/// What a token of either kind stands for (RFC 7662). `None`: for nothing, whatever the reason.
pub async fn introspect(app: &App, token: &str) -> Result<Option<Introspected>, Error> {
    let (kind, claims, scopes, allowlist) = match auth::stand(app, token).await {
        Ok(token) => {
            let allowlist = token.client().allowlist.clone();
            (Kind::Access, token.claims().clone(), token.scopes(), allowlist)
        }
        Err(Error::InvalidToken(Denied::WrongKind)) => match stands_to_refresh(app, token).await? {
            Some((claims, client)) => {
                let scopes = claims.scopes.intersection(&client.scopes);
                (Kind::Refresh, claims, scopes, client.allowlist)
            }
            None => return Ok(None),
        },
        Err(error @ Error::Store(_)) => return Err(error),
        Err(_) => return Ok(None),
    };
    Ok(Some(Introspected {
        kind,
        scopes,
        api_key: app.registry.api_key(claims.credential).unwrap_or_default(),
        allow: allowlist.entries().iter().map(ToString::to_string).collect(),
        claims,
    }))
}

/// A refresh token that could be used now, and its client.
async fn stands_to_refresh(app: &App, token: &str) -> Result<Option<(Claims, Client)>, Error> {
    let now = app.clock.now();
    let keyring = app.issuer.keyring().clone();
    let Ok(claims) = keyring.verifier().authenticate(token, Kind::Refresh, now) else { return Ok(None) };
    let found = app.store.find(claims.client, claims.session).await?;
    let (Some(client), Some(session)) = (found.client, found.session) else { return Ok(None) };
    let stands = client.policy().stands_behind(&claims).is_ok()
        && client.admits(claims.credential, now).is_ok()
        && session.client == client.id
        && matches!(session.present(claims.pair, now, &app.rules), Presented::Current | Presented::Again);
    Ok(stands.then_some((claims, client)))
}

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
    let now = app.clock.now();
    let keyring = app.issuer.keyring().clone();
    let read = |kind| keyring.verifier().authenticate(token, kind, now);
    let Ok(claims) = read(Kind::Access).or_else(|_| read(Kind::Refresh)) else { return Ok(()) };
    if claims.client != client {
        return Err(NotRevoked::Foreign);
    }
    let app = Arc::clone(app);
    let ended = to_the_end(async move {
        let end = |_: &Client, session: &mut Session| {
            session.phase = Phase::Ended;
            ((), None)
        };
        if let Some(((), session)) = app.store.change_session(client, claims.session, end).await? {
            app.registry.update(&session);
            let Receipt { nodes, acknowledged, milliseconds } = app.settle().await?;
            if auth::is_logged(&app, client) {
                info!(client, session = session.id, nodes, acknowledged, milliseconds, "session revoked");
            }
        }
        Ok(())
    });
    ended.await.map_err(|e| NotRevoked::Error(e.into()))
}
