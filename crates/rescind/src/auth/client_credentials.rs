//! Trades an API key and secret for an access token without a refresh token.

use std::sync::Arc;

use rescind_base::model::{Phase, TokenRules};
use rescind_node::{app::App, memory::KnownCredential};
use rescind_verifier::{Resources, Scopes};

use super::{Asked, Caller, Error, Grant, open_session};

/// Issues an access token without a refresh token (RFC 6749 §4.4), for the given scopes and resources (RFC 8707) or for all
/// of the client's.
///
/// # Errors
///
/// As [`open_session`].
pub async fn client_credentials(
    app: &Arc<App>,
    credential: &Arc<KnownCredential>,
    caller: &Caller,
    scopes: Option<Scopes>,
    resources: Option<Resources>,
) -> Result<Grant, Error> {
    // The session cannot be refreshed, so it expires with its access token.
    let rules = TokenRules { refresh_ttl: app.rules.access_ttl, ..app.rules };
    open_session(app, credential, caller, rules, Phase::RefreshEnded, Asked { scopes, resources }).await
}
