//! Management tokens, for the admin API over the network.

use std::{convert::Infallible, sync::Arc};

use rescind_base::{
    clock::rfc3339,
    model::{ClientId, ManagementToken, Role},
    secret::{ApiSecret, MANAGEMENT_PREFIX},
};
use rescind_node::{app::App, config::Span};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{Error, client::checked_name, ensure, find, invalid};

/// The most clients that one token is bound to.
const MAX_CLIENTS: usize = 64;

/// The properties of a new management token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewManagementToken {
    /// A name for people.
    pub name: String,
    pub role: Role,
    /// The only clients that the token may see and change. Absent or empty: the token is bound to no client.
    #[serde(default)]
    pub clients: Vec<ClientId>,
    /// The time after which the token is refused. Absent: never.
    #[schema(value_type = Option<String>, example = "90d")]
    pub expires_in: Option<Span>,
}

/// A management token, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ManagementTokenView {
    pub management_token_id: u64,
    pub name: String,
    pub role: Role,
    /// The only clients that the token may see and change. Empty: the token is bound to no client.
    pub clients: Vec<ClientId>,
    pub created_at: String,
    pub expires_at: Option<String>,
    /// When the token was used last, up to a minute earlier.
    pub last_used_at: Option<String>,
}

/// A new management token. Its text is shown only here.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedManagementToken {
    pub management_token_id: u64,
    pub name: String,
    pub role: Role,
    pub clients: Vec<ClientId>,
    pub expires_at: Option<String>,
    pub token: String,
}

/// Creates a management token.
///
/// # Errors
///
/// If a property is invalid, a client is not there, or the store is unavailable.
pub async fn create_management_token(
    app: &Arc<App>,
    new: NewManagementToken,
) -> Result<CreatedManagementToken, Error> {
    let NewManagementToken { name, role, mut clients, expires_in } = new;
    clients.sort_unstable();
    clients.dedup();
    ensure(clients.len() <= MAX_CLIENTS, "clients", || format!("expected at most {MAX_CLIENTS}"))?;
    ensure(clients.is_empty() || role != Role::Admin, "role", || {
        "expected viewer or operator for a token that is bound to clients: an admin changes what is no client's"
            .into()
    })?;
    ensure(expires_in.is_none_or(|span| span.seconds() > 0), "expires_in", || {
        "expected a time in which the token can be used, such as 90d".into()
    })?;
    for &id in &clients {
        find(app, id).await.map_err(|error| match error {
            Error::NotFound(_) => invalid("clients", format!("there is no client {id}")),
            error => error,
        })?;
    }
    let text = ApiSecret::generate_token(MANAGEMENT_PREFIX, &app.random);
    let now = app.clock.now();
    let token = ManagementToken {
        id: 0,
        name: checked_name(&name)?,
        role,
        clients: Some(clients).filter(|clients| !clients.is_empty()),
        token_hash: app.memory.peppers.load().hash(text.expose()),
        created_at: now,
        expires_at: expires_in.map(|span| now + span.seconds()),
        last_used_at: None,
    };
    let origin = app.by_operator();
    let create = async move |app: Arc<App>| {
        app.store.create_management_token(token, origin).await.map(Ok::<_, Infallible>)
    };
    let log = |_: &App, token: &ManagementToken, _| info!(token = token.id, "management token created");
    let Ok((token, _)) = app.commit(create, log).await?;
    let ManagementTokenView { management_token_id, name, role, clients, expires_at, .. } = view(&token);
    let token = text.expose().to_owned();
    Ok(CreatedManagementToken { management_token_id, name, role, clients, expires_at, token })
}

/// Returns every management token.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn management_tokens(app: &App) -> Result<Vec<ManagementTokenView>, Error> {
    Ok(app.store.management_tokens().await?.iter().map(view).collect())
}

/// Revokes a management token. Each request reads its token from the store, so no request that begins from then on is
/// answered.
///
/// # Errors
///
/// If there is no such token, or the store is unavailable.
pub async fn revoke_management_token(app: &Arc<App>, id: u64) -> Result<ManagementTokenView, Error> {
    // The stores' ids are at most `i64::MAX`.
    if i64::try_from(id).is_err() {
        return Err(Error::NotFound("management token"));
    }
    let origin = app.by_operator();
    let revoke = async move |app: Arc<App>| {
        let revoked = app.store.delete_management_token(id, origin).await?;
        Ok(revoked.ok_or(Error::NotFound("management token")))
    };
    let log = |_: &App, token: &ManagementToken, _| info!(token = token.id, "management token revoked");
    let (token, _) = app.commit(revoke, log).await??;
    Ok(view(&token))
}

fn view(token: &ManagementToken) -> ManagementTokenView {
    ManagementTokenView {
        management_token_id: token.id,
        name: token.name.clone(),
        role: token.role,
        clients: token.clients.clone().unwrap_or_default(),
        created_at: rfc3339(token.created_at),
        expires_at: token.expires_at.map(rfc3339),
        last_used_at: token.last_used_at.map(rfc3339),
    }
}
