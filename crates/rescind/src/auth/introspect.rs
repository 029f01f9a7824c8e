//! Introspection of access and refresh tokens.

use std::net::IpAddr;

use rescind_base::model::{Client, ClientId, EventKind, Presented, UnixSeconds};
use rescind_node::app::App;
use rescind_verifier::{Claims, Denied, Kind, Scopes};

use super::{
    Error,
    verify::{Unverified, stand},
};

/// The scope that lets a client introspect the tokens of other clients.
pub const INTROSPECT: &str = "introspect";

/// Whether a client may introspect the tokens of other clients.
pub fn may_introspect(app: &App, client: ClientId) -> bool {
    app.memory
        .registry
        .policy(client)
        .is_some_and(|client| client.active && client.scopes.contains(INTROSPECT))
}

/// The caller and the parameters of an introspection.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The client that asks. `None`: a verifier asks.
    pub asking: Option<ClientId>,
    /// The hint names a refresh token.
    pub of_refresh_token: bool,
    /// The address of the caller that presented the token, if the request names it.
    pub client_ip: Option<IpAddr>,
}

/// The answer for a valid token.
#[derive(Debug, Clone)]
pub struct Introspected {
    /// Access or refresh token.
    pub kind: Kind,
    /// The claims of the token.
    pub claims: Claims,
    /// The token's scopes that the client still has.
    pub scopes: Scopes,
    /// The API key that opened the token's session.
    pub api_key: String,
    /// The client's allowlist. Empty: every address is allowed.
    pub allow: Vec<String>,
    /// When the answer expires: with the token, or earlier. `None`: the asking client may not keep it.
    pub expires_at: Option<UnixSeconds>,
}

/// Introspects an access or refresh token (RFC 7662). `None`: the token is inactive, for any reason.
///
/// Most callers read only `active`. So a refresh token is active only to its own client, and only with the hint. A token
/// with an allowlist is active only if the given address is on it; without an address, only if the asking client
/// enforces allowlists.
///
/// # Errors
///
/// [`Error::Store`]: the node has no lease, or the store is unavailable.
pub async fn introspect(app: &App, token: &str, question: Question) -> Result<Option<Introspected>, Error> {
    let (kind, claims, scopes, allowlist) = match stand(app, token).await {
        Ok(token) => {
            app.uncached.introspected(token.claims().client);
            let allowlist = token.client().allowlist.clone();
            (Kind::Access, token.claims().clone(), token.scopes(), allowlist)
        }
        Err(Unverified { error: Error::InvalidToken(Denied::WrongKind), .. })
            if question.of_refresh_token =>
        {
            match stands_to_refresh(app, token, question.asking).await? {
                Some((claims, client)) => {
                    let scopes = claims.scopes.intersection(&client.scopes);
                    (Kind::Refresh, claims, scopes, client.allowlist)
                }
                None => return Ok(None),
            }
        }
        Err(Unverified { error: error @ Error::Store(_), .. }) => return Err(error),
        Err(Unverified { claims, .. }) => {
            if let Some(claims) = claims {
                app.usage.denied(claims.client, Some(claims.credential));
            }
            return Ok(None);
        }
    };
    let is_held_to = match question.client_ip {
        Some(address) => {
            let permitted = allowlist.permits(Some(address));
            if !permitted {
                app.audit.note(EventKind::AddressDenied, Some(claims.client), Some(address));
                app.usage.denied(claims.client, Some(claims.credential));
            }
            permitted
        }
        None => {
            let enforces = |client| app.memory.registry.enforces_allowlist(client);
            allowlist.is_empty() || question.asking.is_some_and(enforces)
        }
    };
    if !is_held_to {
        return Ok(None);
    }
    if kind == Kind::Access {
        app.usage.verified(&claims, question.client_ip);
    }
    let lifetime = question.asking.and_then(|client| app.memory.registry.introspect_lifetime(client));
    let expires_at = match lifetime {
        None => Some(claims.expires_at),
        Some(0) => None,
        Some(seconds) => Some(claims.expires_at.min(app.clock.now() + seconds)),
    };
    Ok(Some(Introspected {
        expires_at,
        kind,
        scopes,
        api_key: app.memory.registry.api_key(claims.credential).unwrap_or_default(),
        allow: allowlist.entries().iter().map(ToString::to_string).collect(),
        claims,
    }))
}

/// Returns the claims of a refresh token of this client that could be used now.
async fn stands_to_refresh(
    app: &App,
    token: &str,
    of: Option<ClientId>,
) -> Result<Option<(Claims, Client)>, Error> {
    let now = app.clock.now();
    let keyring = app.memory.issuer.keyring().clone();
    let Ok(claims) = keyring.authenticate(token, Kind::Refresh, now) else { return Ok(None) };
    if of != Some(claims.client) {
        return Ok(None);
    }
    let found = app.store.find(claims.client, claims.session).await?;
    let (Some(client), Some(session)) = (found.client, found.session) else { return Ok(None) };
    let stands = client.policy().stands_behind(&claims).is_ok()
        && client.admits(claims.credential, now).is_ok()
        && session.client == client.id
        && matches!(session.present(claims.pair, now, &app.rules), Presented::Current | Presented::Again);
    Ok(stands.then_some((claims, client)))
}
