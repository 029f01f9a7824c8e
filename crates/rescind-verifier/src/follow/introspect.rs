//! Asks the server about one token (RFC 7662), when the state is too old or older than the token.

use std::{net::IpAddr, sync::Arc};

use hyper::{Method, header::CONTENT_TYPE};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    FeedError, Shared,
    connect::Listener,
    session::{post, request},
    wire::Client,
};
use crate::{Claims, ClientPolicy, Denied, StandingToken, VerifiedToken};

/// The answer's members that matter here. All but `active` are present only if the token is valid.
#[derive(Deserialize)]
struct Answer {
    active: bool,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    sid: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    allow: Vec<String>,
}

/// Decides about a token whose text and signature are valid, and whose claims are `claims`. `known` is its
/// client's policy in the newest snapshot.
pub(super) async fn ask(
    shared: &Shared,
    server: &str,
    token: &str,
    claims: Claims,
    known: Option<Arc<ClientPolicy>>,
    caller: Option<IpAddr>,
) -> Result<VerifiedToken, Denied> {
    let answer = timeout(shared.options.mode.patience(), answer(shared, server, token, caller));
    let answer = answer.await.map_err(|_| Denied::Stale)?.map_err(|_| Denied::Stale)?;
    if !answer.active {
        // The server does not say why the token is not active.
        let permitted = known.is_none_or(|known| known.allowlist.permits(caller));
        return Err(if permitted { Denied::Revoked } else { Denied::AddressNotAllowed });
    }
    // An answer about another token decides nothing about this one.
    if answer.sub != claims.client.to_string() || answer.sid != claims.session.to_string() {
        return Err(Denied::Stale);
    }
    let client = Client {
        client_id: claims.client,
        name: known.map(|known| known.name.clone()).unwrap_or_default(),
        revision: 0,
        generation: claims.generation,
        active: true,
        allow: answer.allow,
        scopes: answer.scope,
        credentials: vec![claims.credential],
    };
    let policy = client.policy().ok_or(Denied::Stale)?;
    StandingToken::told(claims, Arc::new(policy)).presented_by(caller)
}

async fn answer(
    shared: &Shared,
    server: &str,
    token: &str,
    caller: Option<IpAddr>,
) -> Result<Answer, FeedError> {
    let caller = caller.map(|address| format!("&client_ip={address}")).unwrap_or_default();
    let server = Listener::new(server);
    let mut connection = shared.connector.connect(server).await?;
    let request = request(&shared.options, server, Method::POST, "/oauth2/introspect");
    let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    // A token that was authenticated has no character that would need encoding, nor has an address.
    post(&mut connection, request, format!("token={token}{caller}")).await
}
