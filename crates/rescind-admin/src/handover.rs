//! Secrets that are handed to somebody by a link, who need not be able to sign in.
//!
//! The store has the secret sealed under a key that only the link has, until it is read for the first time. Nobody can read
//! it from the store, and the reader sees whether somebody was faster.

use std::{net::IpAddr, sync::Arc};

use rescind_base::{
    clock::rfc3339,
    model::{Actor, ClientId, Handover, UnixSeconds},
    secret::{ApiKey, ApiSecret, HANDOVER_PREFIX, MasterKey, SECRET_PREFIX, bits},
};
use rescind_node::app::App;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{Error, ensure, invalid};

/// In seconds: how long a link is good.
const LINK_TTL: u64 = 24 * 3600;
/// The name under which a secret is sealed.
const SEALED_AS: &str = "handover";

/// A secret that is to be handed over.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHandover {
    pub api_key: String,
    /// The credential's secret, which the service does not keep.
    pub api_secret: String,
}

/// A link by which a secret may be read once. It is shown only here.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedHandover {
    pub client_id: ClientId,
    pub api_key: String,
    /// The link's path on the management listener.
    #[schema(example = "/dashboard/handover/rh_…")]
    pub link: String,
    pub link_until: String,
}

/// What is known of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// The secret can be read.
    Waiting,
    /// It was read then.
    Read(UnixSeconds),
    /// The link is unknown, or has ended.
    Gone,
}

/// Makes a link by which somebody may read a credential's secret, once.
///
/// # Errors
///
/// If there is no such credential, the secret is another one's, or the store is unavailable.
pub async fn hand_over(app: &Arc<App>, new: NewHandover) -> Result<CreatedHandover, Error> {
    let NewHandover { api_key, api_secret } = new;
    let known = app.memory.registry.credential(&api_key);
    let known = known.ok_or_else(|| invalid("api_key", "there is no such credential"))?;
    let hashes = app.memory.peppers.load().hashes(&api_secret);
    let is_of_credential = hashes.iter().any(|hash| *hash == known.credential.secret_hash);
    let secret = bits(SECRET_PREFIX, &api_secret).filter(|_| is_of_credential);
    let secret = secret.ok_or_else(|| invalid("api_secret", "expected the secret of this credential"))?;
    ensure(known.credential.is_good(app.clock.now()), "api_key", || "the credential has ended".into())?;
    let link = ApiSecret::generate_token(HANDOVER_PREFIX, &app.random);
    let key = key_of(link.expose()).ok_or_else(|| invalid("api_key", "no link could be made"))?;
    let now = app.clock.now();
    let handover = Handover {
        hash: app.memory.peppers.load().ticket_hash(link.expose()),
        client: known.client,
        api_key: api_key.clone(),
        sealed: Some(key.seal(SEALED_AS, &secret, &app.random)?),
        created_at: now,
        ends_at: now + LINK_TTL,
        read_at: None,
    };
    app.store.hand_over(handover, app.by_operator()).await?;
    info!(client = known.client, "secret handed over by a link");
    Ok(CreatedHandover {
        client_id: known.client,
        api_key,
        link: format!("/dashboard/handover/{}", link.expose()),
        link_until: rfc3339(now + LINK_TTL),
    })
}

/// Returns what is known of a link.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn link_state(app: &App, link: &str) -> Result<LinkState, Error> {
    if bits(HANDOVER_PREFIX, link).is_none() {
        return Ok(LinkState::Gone);
    }
    Ok(match app.store.handover(app.memory.peppers.load().ticket_hash(link)).await? {
        Some(Handover { read_at: Some(at), .. }) => LinkState::Read(at),
        Some(Handover { sealed: Some(_), ends_at, .. }) if app.clock.now() < ends_at => LinkState::Waiting,
        _ => LinkState::Gone,
    })
}

/// Returns the credential of a link, for the first who asks.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn read_handover(
    app: &App,
    link: &str,
    address: IpAddr,
) -> Result<Option<(ApiKey, ApiSecret)>, Error> {
    let Some(key) = key_of(link) else { return Ok(None) };
    let origin = app.audit.origin(Actor::Caller, Some(address));
    let read = app.store.read_handover(app.memory.peppers.load().ticket_hash(link), origin).await?;
    let Some(Handover { api_key, sealed: Some(sealed), client, .. }) = read else { return Ok(None) };
    info!(client, "secret read by its link");
    Ok(Some((api_key, ApiSecret::of_bits(&*key.open(SEALED_AS, &sealed)?))))
}

fn key_of(link: &str) -> Option<MasterKey> {
    bits(HANDOVER_PREFIX, link).map(|bits| MasterKey::of_link(&bits))
}
