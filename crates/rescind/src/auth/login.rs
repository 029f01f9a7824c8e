//! Trades an API key and secret for a pair of tokens.

use std::sync::Arc;

use rescind_base::{
    model::{Client, Phase, Session, TokenRules},
    telemetry::metrics::Outcome,
};
use rescind_node::{
    app::{App, Holder, run_to_completion},
    memory::KnownCredential,
};
use rescind_store::StoreError;
use rescind_verifier::{Denied, Resources, Scopes};
use tracing::info;

use super::{
    Caller, Error, Failed, Grant, address_denied, failed, grant, is_logged, outcome, over_quota,
    refusals::{Whose, log_refused},
    shown, uncertified,
};

/// Trades an API key and secret for a pair of tokens.
///
/// # Errors
///
/// As [`authenticate`] and [`open_session`].
pub async fn login(app: &Arc<App>, api_key: &str, secret: &str, caller: &Caller) -> Result<Grant, Error> {
    let credential = authenticate(app, api_key, Some(secret), caller)?;
    open_session(app, &credential, caller, app.rules, Phase::Live, Asked::default()).await
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
    recognise(app, api_key, secret, caller).map_err(|error| {
        app.metrics.login(Outcome::from(&error));
        log_refused(app, "login", &error, caller, Whose::of_key(app, api_key, secret.is_some(), &error));
        told(error)
    })
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
            let presented = app.memory.peppers.load().hashes(secret);
            let matches = app.memory.registry.matches(api_key, &presented, now);
            let known = matches.then(|| app.memory.registry.credential(api_key)).flatten();
            known.inspect(|known| {
                let holder = Holder::Credential(known.client, known.credential.id);
                app.proved(holder, &known.credential.secret_hash, &presented);
            })
        }
        None => app.memory.registry.credential(api_key).filter(|known| {
            let is_active = app.memory.registry.policy(known.client).is_some_and(|client| client.active);
            is_active && known.credential.is_good(now) && !known.certificates.is_empty()
        }),
    };
    // The failure is not counted for the key's client: the time of a look-up would show whether the key exists.
    let invalid = |error| failed(app, Failed::Unknown(api_key.as_bytes()), caller, error);
    let known = known.ok_or_else(|| invalid(Error::InvalidCredentials))?;
    if !caller.shows(&known.certificates, now) {
        return Err(invalid(uncertified(app, known.client, caller)));
    }
    let policy = app.memory.registry.policy(known.client).ok_or(Error::InvalidCredentials)?;
    policy.permits(caller.address).map_err(|_| address_denied(app, known.client, caller))?;
    Ok(known)
}

/// What a session is opened for. `None`: for all that the client has.
#[derive(Debug, Default)]
pub struct Asked {
    /// The scopes of the session's tokens.
    pub scopes: Option<Scopes>,
    /// The resources that the session's tokens are for.
    pub resources: Option<Resources>,
}

/// Opens a session in this phase.
///
/// # Errors
///
/// [`Error::OverQuota`]; [`Error::AddressNotAllowed`]; [`Error::ScopeMissing`] and [`Error::ResourceMissing`] for what the
/// client does not have; [`Error::InvalidCredentials`] if the client no longer admits the credential or the certificate; [`Error::Store`] if the session cannot be stored safely.
pub async fn open_session(
    app: &Arc<App>,
    known: &Arc<KnownCredential>,
    caller: &Caller,
    rules: TokenRules,
    phase: Phase,
    asked: Asked,
) -> Result<Grant, Error> {
    let opened = try_open_session(app, known, caller, rules, phase, asked).await;
    app.metrics.login(outcome(opened.as_ref()));
    opened.map_err(|error| {
        log_refused(app, "login", &error, caller, Whose::of_known(known));
        told(error)
    })
}

/// What the caller is told. Only operators learn which part of the credentials is invalid.
fn told(error: Error) -> Error {
    match error {
        Error::Uncertified | Error::InvalidToken(_) => Error::InvalidCredentials,
        error => error,
    }
}

async fn try_open_session(
    app: &Arc<App>,
    known: &Arc<KnownCredential>,
    caller: &Caller,
    rules: TokenRules,
    phase: Phase,
    asked: Asked,
) -> Result<Grant, Error> {
    let (client, credential) = (known.client, known.credential.id);
    app.cluster.node_clock.check().map_err(StoreError::from)?;
    let place =
        app.quotas.logins.take(client).map_err(|over| over_quota(app, client, caller, over.retry_after))?;
    let now = app.clock.now();
    let key = app.memory.issuer.signing_key(now);
    let (issuing, asking, address) = (Arc::clone(app), caller.clone(), caller.address);
    let open = move |client: &Client| {
        client.admits(credential, now)?;
        if !asking.shows(&client.certificates, now) {
            return Err(Error::Uncertified);
        }
        client.permits(asking.address)?;
        let scopes = asked.scopes.unwrap_or_else(|| client.scopes.clone());
        if scopes.intersection(&client.scopes) != scopes {
            return Err(Error::ScopeMissing);
        }
        let session = Session::open(client, credential, scopes, key, now, &rules);
        let resources = asked.resources.unwrap_or_else(|| session.resources.clone());
        if !resources
            .iter()
            .all(|resource| client.resources.names(resource, issuing.memory.issuer.profile().audience()))
        {
            return Err(Error::ResourceMissing);
        }
        Ok(Session { phase, resources, ..session })
    };
    let (opening, known) = (Arc::clone(app), Arc::clone(known));
    let opened = run_to_completion(async move {
        let app = opening;
        let stamp = app.memory.registry.stamp();
        let opened = app.store.open_session(client, open).await?;
        Ok(opened.unwrap_or(Err(Denied::ClientInactive.into())).map(|session| {
            app.memory.registry.fill(&session, stamp);
            app.usage.logged_in(client, credential, address);
            if is_logged(&app, client) {
                let (session, credential) = (session.id, &known.credential.api_key);
                info!(client, session, credential, address = shown(address), "login");
            }
            let granted = grant(&app, &session, &known.credential.api_key)?;
            place.commit();
            app.uncached.logged_in(
                client,
                app.memory.registry.count_after_login(client),
                app.clock.elapsed(),
            );
            Ok(granted)
        }))
    });
    match opened.await? {
        Ok(grant) => grant,
        Err(Error::AddressNotAllowed) => Err(address_denied(app, client, caller)),
        Err(Error::Uncertified) => Err(uncertified(app, client, caller)),
        Err(error) => Err(error),
    }
}
