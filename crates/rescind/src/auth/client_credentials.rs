//! An API key and secret for an access token alone.

use std::sync::Arc;

use rescind_verifier::Scopes;

use super::{Caller, Error, Grant, open_session};
use crate::{
    app::App,
    memory::KnownCredential,
    model::{Phase, TokenRules},
};

/// An access token alone (RFC 6749 §4.4), for the scopes asked for or for all that the client has.
pub async fn client_credentials(
    app: &Arc<App>,
    credential: &KnownCredential,
    caller: &Caller,
    scopes: Option<Scopes>,
) -> Result<Grant, Error> {
    // There is nothing to refresh, and the session ends with its access token.
    let rules = TokenRules { refresh_ttl: app.rules.access_ttl, ..app.rules };
    open_session(app, credential, caller, rules, Phase::RefreshEnded, scopes).await
}
