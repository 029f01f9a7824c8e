//! What a client does with the answers when it introspects tokens.

use std::sync::Arc;

use rescind_base::model::{Client, ClientId};
use rescind_node::{app::App, config::Span};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ClientView, Error, INTROSPECT_LIFETIME, change, client::changed_view, ensure_nodes_know};

/// A change of whether a client enforces the allowlists of the tokens that it introspects.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnforcementChange {
    pub enforces_allowlist: bool,
}

/// A change of how long a client may keep introspection's answers. None: until the token expires.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LifetimeChange {
    // So that it must be there, though it may be null.
    #[serde(deserialize_with = "Option::deserialize")]
    pub introspect_lifetime: Option<Span>,
}

/// Changes whether a client enforces the allowlists of the tokens that it introspects.
///
/// # Errors
///
/// If there is no such client, or the change or its propagation fails.
pub async fn change_enforcement(
    app: &Arc<App>,
    id: ClientId,
    wanted: EnforcementChange,
) -> Result<ClientView, Error> {
    let rule = move |client: &mut Client| {
        client.enforces_allowlist = wanted.enforces_allowlist;
        Ok(())
    };
    changed_view(change(app, id, "enforcement of allowlists changed", rule).await?)
}

/// Changes for how long a client may keep introspection's answers.
///
/// # Errors
///
/// If there is no such client, a node of an older version would ignore it, or the change or its propagation fails.
pub async fn change_lifetime(
    app: &Arc<App>,
    id: ClientId,
    wanted: LifetimeChange,
) -> Result<ClientView, Error> {
    if wanted.introspect_lifetime.is_some() {
        ensure_nodes_know(app, INTROSPECT_LIFETIME, "ignores introspect_lifetime").await?;
    }
    let rule = move |client: &mut Client| {
        client.introspect_lifetime = wanted.introspect_lifetime.map(Span::seconds);
        Ok(())
    };
    changed_view(change(app, id, "lifetime of introspection's answers changed", rule).await?)
}
