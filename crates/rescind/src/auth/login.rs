//! Trades an API key and secret for a pair of tokens.

use std::sync::Arc;

use rescind_verifier::{Denied, Scopes};
use tracing::info;

use super::{
    Caller, Error, Failed, Grant, address_denied, failed, grant, is_logged, outcome, over_quota, uncertified,
};
use crate::{
    app::{App, run_to_completion},
    memory::KnownCredential,
    model::{Client, Phase, Session, TokenRules, UnixSeconds},
    store::StoreError,
    telemetry::metrics::Outcome,
};

/// Trades an API key and secret for a pair of tokens.
///
/// # Errors
///
/// As [`authenticate`] and [`open_session`].
pub async fn login(app: &Arc<App>, api_key: &str, secret: &str, caller: &Caller) -> Result<Grant, Error> {
    let credential = authenticate(app, api_key, Some(secret), caller)?;
    open_session(app, &credential, caller, app.rules, Phase::Live, None).await
}

/// Returns the credential of this API key and secret. The caller's address must be on the client's allowlist.
///
/// The check is done in memory and costs the same for every kind of invalid credential. The transaction that stores the
/// session checks again. A certificate may replace the secret (RFC 8705 §2.1).
///
/// # Errors
///
/// [`Error::InvalidCredentials`], or [`Error::Throttled`] after too many of them; [`Error::AddressNotAllowed`];
/// [`Error::Store`] if the node has no lease.
pub fn authenticate(
    app: &App,
    api_key: &str,
    secret: Option<&str>,
    caller: &Caller,
) -> Result<Arc<KnownCredential>, Error> {
    recognise(app, api_key, secret, caller).inspect_err(|error| app.metrics.login(Outcome::from(error)))
}

fn recognise(
    app: &App,
    api_key: &str,
    secret: Option<&str>,
    caller: &Caller,
) -> Result<Arc<KnownCredential>, Error> {
    app.cluster.lease.check().map_err(StoreError::from)?;
    let now = app.clock.now();
    let known = match secret {
        Some(secret) => {
            let presented = app.memory.pepper.hash(secret);
            app.memory
                .registry
                .matches(api_key, &presented, now)
                .then(|| app.memory.registry.credential(api_key))
                .flatten()
        }
        None => app.memory.registry.credential(api_key).filter(|known| {
            let is_active = app.memory.registry.policy(known.client).is_some_and(|client| client.active);
            is_active && known.credential.is_good(now) && !known.certificates.is_empty()
        }),
    };
    // The failure is not counted for the key's client: the time of a look-up would show whether the key exists.
    let known = known
        .filter(|known| is_certified(app, known, caller, now))
        .ok_or_else(|| failed(app, Failed::Unknown(api_key.as_bytes()), caller, Error::InvalidCredentials))?;
    let policy = app.memory.registry.policy(known.client).ok_or(Error::InvalidCredentials)?;
    policy.permits(caller.address).map_err(|_| address_denied(app, known.client, caller))?;
    Ok(known)
}

/// Whether the caller shows a certificate that the client is bound to, or the client is bound to none.
fn is_certified(app: &App, known: &KnownCredential, caller: &Caller, now: UnixSeconds) -> bool {
    let shows = caller.shows(&known.certificates, now);
    if !shows {
        uncertified(app, known.client, caller);
    }
    shows
}

/// Opens a session in this phase, for these scopes or for all of the client's.
///
/// # Errors
///
/// [`Error::OverQuota`]; [`Error::AddressNotAllowed`]; [`Error::ScopeMissing`]; [`Error::InvalidCredentials`] if the client
/// no longer admits the credential or the certificate; [`Error::Store`] if the session cannot be stored safely.
pub async fn open_session(
    app: &Arc<App>,
    known: &KnownCredential,
    caller: &Caller,
    rules: TokenRules,
    phase: Phase,
    scopes: Option<Scopes>,
) -> Result<Grant, Error> {
    let opened = try_open_session(app, known, caller, rules, phase, scopes).await;
    app.metrics.login(outcome(opened.as_ref()));
    opened
}

async fn try_open_session(
    app: &Arc<App>,
    known: &KnownCredential,
    caller: &Caller,
    rules: TokenRules,
    phase: Phase,
    scopes: Option<Scopes>,
) -> Result<Grant, Error> {
    let (client, credential) = (known.client, known.credential.id);
    app.cluster.node_clock.check().map_err(StoreError::from)?;
    let place =
        app.quotas.logins.take(client).map_err(|over| over_quota(app, client, caller, over.retry_after))?;
    let now = app.clock.now();
    let key = app.memory.issuer.signing_key(now);
    let asking = caller.clone();
    let open = move |client: &Client| {
        client.admits(credential, now)?;
        if !asking.shows(&client.certificates, now) {
            return Err(Error::Uncertified);
        }
        client.permits(asking.address)?;
        let scopes = scopes.unwrap_or_else(|| client.scopes.clone());
        if scopes.intersection(&client.scopes) != scopes {
            return Err(Error::ScopeMissing);
        }
        Ok(Session { phase, ..Session::open(client, credential, scopes, key, now, &rules) })
    };
    let opening = Arc::clone(app);
    let opened = run_to_completion(async move {
        let app = opening;
        let stamp = app.memory.registry.stamp();
        let opened = app.store.open_session(client, open).await?;
        Ok(opened.unwrap_or(Err(Denied::ClientInactive.into())).map(|session| {
            app.memory.registry.fill(&session, stamp);
            if is_logged(&app, client) {
                info!(client, session = session.id, "login");
            }
            let granted = grant(&app, &session)?;
            place.commit();
            app.uncached.logged_in(client, app.memory.registry.verifications(client), app.clock.elapsed());
            Ok(granted)
        }))
    });
    match opened.await? {
        Ok(grant) => grant,
        Err(Error::AddressNotAllowed) => Err(address_denied(app, client, caller)),
        Err(Error::Uncertified) => {
            uncertified(app, client, caller);
            Err(Error::InvalidCredentials)
        }
        Err(Error::ScopeMissing) => Err(Error::ScopeMissing),
        Err(_) => Err(Error::InvalidCredentials),
    }
}
