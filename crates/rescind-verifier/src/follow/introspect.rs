//! Asks the server about one token (RFC 7662), when the state is too old or older than the token.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{FeedError, Options, session::connect};
use crate::{Allowlist, Claims, ClientPolicy, Denied, StandingToken, VerifiedToken, parse_cidr};

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
    options: &Options,
    server: &str,
    token: &str,
    claims: Claims,
    known: Option<Arc<ClientPolicy>>,
    caller: Option<IpAddr>,
) -> Result<VerifiedToken, Denied> {
    let answer = timeout(options.mode.patience(), answer(options, server, token, caller));
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
    let entries: Result<Vec<_>, _> = answer.allow.iter().map(|entry| parse_cidr(entry)).collect();
    let policy = ClientPolicy {
        generation: claims.generation,
        allowlist: Allowlist::from_iter(entries.map_err(|_| Denied::Stale)?),
        scopes: answer.scope.parse().map_err(|_| Denied::Stale)?,
        credentials: vec![claims.credential],
        ..ClientPolicy::new(known.map(|known| known.name.clone()).unwrap_or_default())
    };
    StandingToken::told(claims, Arc::new(policy)).presented_by(caller)
}

async fn answer(
    options: &Options,
    server: &str,
    token: &str,
    caller: Option<IpAddr>,
) -> Result<Answer, FeedError> {
    let caller = caller.map(|address| format!("&client_ip={address}")).unwrap_or_default();
    let mut connection = connect(server).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/oauth2/introspect")
        .header(HOST, server)
        .header(AUTHORIZATION, format!("Bearer {}", options.token))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        // A token that was authenticated has no character that would need encoding, nor has an address.
        .body(Full::from(Bytes::from(format!("token={token}{caller}"))))
        .map_err(|_| FeedError::Unreadable)?;
    let response =
        connection.send_request(request).await.map_err(|e| FeedError::Connection(e.to_string()))?;
    if response.status() != StatusCode::OK {
        return Err(FeedError::Refused(response.status().as_u16()));
    }
    let body = response.into_body().collect().await.map_err(|e| FeedError::Connection(e.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|_| FeedError::Unreadable)
}
