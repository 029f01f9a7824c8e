//! What a token of either kind is good for.

use std::net::IpAddr;

use rescind_verifier::{Claims, Denied, Kind, Scopes};

use super::{Error, stand};
use crate::{
    app::App,
    model::{Client, ClientId, EventKind, Presented},
};

/// The scope that lets a client ask about the tokens of others.
pub const INTROSPECT: &str = "introspect";

/// Whether a client may ask about the tokens of others.
pub fn may_introspect(app: &App, client: ClientId) -> bool {
    app.memory
        .registry
        .policy(client)
        .is_some_and(|client| client.active && client.scopes.contains(INTROSPECT))
}

/// Who asks about a token, and what about it.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// `None`: a verifier, which is no client.
    pub asking: Option<ClientId>,
    /// It is said to be a refresh token.
    pub of_refresh_token: bool,
    /// The address of whoever presented it, if that is told.
    pub client_ip: Option<IpAddr>,
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
    /// Where it may be used from; empty: from anywhere.
    pub allow: Vec<String>,
}

/// What a token of either kind stands for (RFC 7662). `None`: for nothing, whatever the reason.
///
/// Most who ask look at nothing but whether it stands. So a refresh token stands for nothing, but to its
/// client if that says what it asks about; and a token with an allowlist for nothing unless the caller's
/// address is on it, or whoever asks is known to look.
pub async fn introspect(app: &App, token: &str, question: Question) -> Result<Option<Introspected>, Error> {
    let (kind, claims, scopes, allowlist) = match stand(app, token).await {
        Ok(token) => {
            let allowlist = token.client().allowlist.clone();
            (Kind::Access, token.claims().clone(), token.scopes(), allowlist)
        }
        Err(Error::InvalidToken(Denied::WrongKind)) if question.of_refresh_token => {
            match stands_to_refresh(app, token, question.asking).await? {
                Some((claims, client)) => {
                    let scopes = claims.scopes.intersection(&client.scopes);
                    (Kind::Refresh, claims, scopes, client.allowlist)
                }
                None => return Ok(None),
            }
        }
        Err(error @ Error::Store(_)) => return Err(error),
        Err(_) => return Ok(None),
    };
    let is_held_to = match question.client_ip {
        Some(address) => {
            let permitted = allowlist.permits(Some(address));
            if !permitted {
                app.audit.note(EventKind::AddressDenied, Some(claims.client), Some(address));
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
    Ok(Some(Introspected {
        kind,
        scopes,
        api_key: app.memory.registry.api_key(claims.credential).unwrap_or_default(),
        allow: allowlist.entries().iter().map(ToString::to_string).collect(),
        claims,
    }))
}

/// A refresh token of this client that could be used now.
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
