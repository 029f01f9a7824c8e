//! What is known of refused logins, refreshes, token requests and verifications. It is said once: in the log, and in the
//! denial that is kept. It is also counted for the client.

use rescind_base::{
    model::{ClientId, CredentialId, PresentedToken, Refusal},
    secret::{ApiKey, KEY_PREFIX, is_well_formed},
};
use rescind_node::{app::App, audit, limits::network, memory::KnownCredential};
use rescind_verifier::{Claims, Denied, Kind};
use tracing::info;

use super::{Caller, Error, shown};

/// Whose request was refused, as far as that is known.
#[derive(Debug, Default)]
pub(super) struct Whose {
    pub(super) client: Option<ClientId>,
    pub(super) credential: Option<CredentialId>,
    pub(super) api_key: Option<ApiKey>,
    pub(super) token: Option<PresentedToken>,
}

impl Whose {
    /// Of a presented API key. The client of invalid credentials is not looked up: the time would differ between known and
    /// unknown keys. With neither a secret nor the right certificate, nothing shows that the caller is the client. What is
    /// no API key may be a secret in the wrong place.
    pub(super) fn of_key(app: &App, api_key: &str, with_secret: bool, error: &Error) -> Whose {
        let known = match error {
            Error::InvalidCredentials | Error::Throttled(_) => None,
            Error::Uncertified if !with_secret => None,
            _ => app.memory.registry.credential(api_key),
        };
        Whose {
            client: known.as_ref().map(|known| known.client),
            credential: known.map(|known| known.credential.id),
            api_key: is_well_formed(KEY_PREFIX, api_key).then(|| api_key.to_owned()),
            token: None,
        }
    }

    /// Of a credential that has authenticated.
    pub(super) fn of_known(KnownCredential { client, credential, .. }: &KnownCredential) -> Whose {
        let (id, api_key) = (credential.id, credential.api_key.clone());
        Whose { client: Some(*client), credential: Some(id), api_key: Some(api_key), token: None }
    }

    /// Of a presented token with these claims, which its issuer wrote.
    pub(super) fn of_token(app: &App, token: &str, claims: &Claims, kind: Kind) -> Whose {
        let keyring = app.memory.issuer.keyring();
        Whose {
            client: Some(claims.client),
            credential: Some(claims.credential),
            api_key: app.memory.registry.api_key(claims.credential),
            token: Some(PresentedToken::new(claims, kind, keyring.kid_of(token))),
        }
    }
}

/// Notes why the present request is refused, and counts it for the client.
fn note(app: &App, error: &Error, Whose { client, credential, api_key, token }: Whose) {
    if let Some(client) = client {
        app.usage.denied(client, credential);
    }
    let retry_after = error.retry_after();
    audit::refused(Refusal { client, api_key, token, retry_after, ..Refusal::new(error.check()) });
}

/// Logs and notes a refused login, refresh or token request. A caller who causes too many lines has some of them counted
/// together.
pub(super) fn log_refused(app: &App, what: &'static str, error: &Error, caller: &Caller, whose: Whose) {
    // What failed for want of the store is logged with its cause.
    if matches!(error, Error::Store(_)) {
        return;
    }
    if let Some(times) = app.log_limits.refused.due(network(caller.address.unwrap_or(caller.peer))) {
        let (client, credential) = (whose.client, whose.api_key.as_deref());
        let (address, peer) = (shown(caller.address), caller.through_proxy.then_some(caller.peer));
        let peer = peer.map(tracing::field::display);
        info!(reason = %error, client, credential, address, peer, times, "{what} refused");
    }
    note(app, error, whose);
}

/// Notes why an access token is refused. The credential's API key is looked up only for a denial that is kept.
pub(super) fn note_denied(app: &App, token: &str, error: &Error, claims: Option<&Claims>) {
    let token = claims.map(|claims| {
        let keyring = app.memory.issuer.keyring();
        PresentedToken::new(claims, Kind::Access, keyring.kid_of(token))
    });
    let (client, credential) = claims.map(|claims| (claims.client, claims.credential)).unzip();
    note(app, error, Whose { client, credential, api_key: None, token });
}

/// Logs and notes a refused verification: one line a second for each client and reason. The claims are those of a token
/// whose issuer wrote them.
pub(super) fn log_denied(
    app: &App,
    token: &str,
    (error, reason): (&Error, Denied),
    claims: Option<&Claims>,
    caller: &Caller,
) {
    note_denied(app, token, error, claims);
    let client = claims.map(|claims| claims.client);
    let Some(times) = app.log_limits.denied.due((client, reason)) else { return };
    let credential = claims.and_then(|claims| app.memory.registry.api_key(claims.credential));
    let (address, peer) = (shown(caller.address), caller.through_proxy.then_some(caller.peer));
    let (credential, peer) = (credential.as_deref(), peer.map(tracing::field::display));
    info!(%reason, client, credential, address, peer, times, "verification refused");
}

/// Counts and notes that a valid access token is refused for what was asked of it.
pub fn lacks(app: &App, token: &str, claims: &Claims, reason: Denied) {
    app.metrics.denied(reason);
    note_denied(app, token, &reason.into(), Some(claims));
}
