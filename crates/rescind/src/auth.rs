//! The rules of login, refresh, logout and verification. No HTTP.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rescind_verifier::{Claims, Denied, Kind, Scopes, StandingToken, VerifiedToken};
use thiserror::Error;
use tracing::{info, warn};

use crate::{
    app::{App, to_the_end},
    audit::{self, By},
    certificate::{CertificateNames, PeerCertificate},
    cluster::Receipt,
    issuer::Pair,
    limiter::Throttled,
    model::{Client, ClientId, OnReuse, Phase, Presented, Session, TokenRules, UnixSeconds},
    quota::OverQuota,
    registry::KnownCredential,
    store::StoreError,
};

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The caller's own address: the peer's, or what a trusted proxy says. `None` if the proxy's
    /// word could not be read.
    pub address: Option<IpAddr>,
    /// The peer is a trusted proxy.
    pub through_proxy: bool,
    /// What the peer has shown, if it was asked and has one.
    pub certificate: Option<Arc<PeerCertificate>>,
}

impl Caller {
    /// One who calls without a proxy.
    pub const fn direct(peer: IpAddr) -> Caller {
        Caller { peer, address: Some(peer), through_proxy: false, certificate: None }
    }

    /// Whether the peer shows one of these names, or need not.
    fn shows(&self, names: &CertificateNames, now: UnixSeconds) -> bool {
        names.admit(self.certificate.as_deref(), now)
    }
}

/// What login and refresh give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub client: ClientId,
    /// The tokens.
    pub pair: Pair,
    /// What they may do.
    pub scopes: Scopes,
}

/// Why not.
#[derive(Debug, Error)]
pub enum Error {
    /// Unknown key, wrong secret or certificate, revoked or expired credential, suspended client.
    #[error("invalid credentials")]
    InvalidCredentials,
    /// Good for nothing, for this reason.
    #[error("invalid token: {0}")]
    InvalidToken(Denied),
    /// A refresh token used before.
    #[error("invalid token: used before")]
    Reused,
    /// Good, but shown without a certificate that its client is bound to.
    #[error("invalid token: without its client's certificate")]
    Uncertified,
    /// Good once.
    #[error("token expired")]
    TokenExpired,
    /// All is well but the caller's address.
    #[error("address not allowed")]
    AddressNotAllowed,
    /// All is well but what is asked for.
    #[error("scope missing")]
    ScopeMissing,
    /// Too many failures.
    #[error("too many failures")]
    Throttled(Duration),
    /// All is well, but it has been often enough for now.
    #[error("over the quota")]
    OverQuota(Duration),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Error {
        match denied {
            Denied::Expired => Error::TokenExpired,
            Denied::AddressNotAllowed => Error::AddressNotAllowed,
            Denied::ScopeMissing => Error::ScopeMissing,
            Denied::Malformed
            | Denied::UnknownKey
            | Denied::BadSignature
            | Denied::WrongKind
            | Denied::WrongIssuer
            | Denied::WrongAudience
            | Denied::NotYetValid
            | Denied::NotKnown
            | Denied::Stale
            | Denied::ClientInactive
            | Denied::Revoked => Error::InvalidToken(denied),
        }
    }
}

impl From<OverQuota> for Error {
    fn from(over: OverQuota) -> Error {
        Error::OverQuota(over.retry_after)
    }
}

impl Error {
    /// Why an access token was refused, if that is what was asked.
    fn denial(&self) -> Option<Denied> {
        match self {
            Error::InvalidToken(denied) => Some(*denied),
            Error::TokenExpired => Some(Denied::Expired),
            Error::AddressNotAllowed => Some(Denied::AddressNotAllowed),
            Error::ScopeMissing => Some(Denied::ScopeMissing),
            Error::Store(_) => Some(Denied::Stale),
            Error::InvalidCredentials
            | Error::Reused
            | Error::Uncertified
            | Error::Throttled(_)
            | Error::OverQuota(_) => None,
        }
    }
}

/// Trades an API key and secret for a pair of tokens.
pub async fn login(app: &Arc<App>, api_key: &str, secret: &str, caller: &Caller) -> Result<Grant, Error> {
    let credential = authenticate(app, api_key, Some(secret), caller)?;
    open_session(app, &credential, caller, app.rules, Phase::Live, None).await
}

/// Whose credentials these are, from an address that their client may call from.
///
/// Whether they are good is decided in memory, at one cost for every way in which they may be bad.
/// The transaction that stores a session looks again. Where there is no secret, a certificate may stand
/// for it (RFC 8705 §2.1).
pub fn authenticate(
    app: &App,
    api_key: &str,
    secret: Option<&str>,
    caller: &Caller,
) -> Result<Arc<KnownCredential>, Error> {
    recognise(app, api_key, secret, caller).inspect_err(|error| app.metrics.login(Err(error)))
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
            let presented = app.pepper.hash(secret);
            app.registry.opens(api_key, &presented, now).then(|| app.registry.credential(api_key)).flatten()
        }
        None => app.registry.credential(api_key).filter(|known| {
            let is_active = app.registry.policy(known.client).is_some_and(|client| client.active);
            is_active && known.credential.is_good(now) && !known.certificates.is_empty()
        }),
    };
    // Whose key it may be is not looked up: how long that takes would tell.
    let known = known
        .filter(|known| is_certified(app, known, caller, now))
        .ok_or_else(|| failed(app, api_key.as_bytes(), None, caller, Error::InvalidCredentials))?;
    let policy = app.registry.policy(known.client).ok_or(Error::InvalidCredentials)?;
    policy.permits(caller.address).map_err(|_| address_denied(app, known.client, caller))?;
    Ok(known)
}

/// Whether the caller shows what the client is bound to.
fn is_certified(app: &App, known: &KnownCredential, caller: &Caller, now: UnixSeconds) -> bool {
    let shows = caller.shows(&known.certificates, now);
    if !shows {
        uncertified(app, known.client, caller);
    }
    shows
}

/// Opens a session in this phase for these scopes, or for all that the client has.
pub async fn open_session(
    app: &Arc<App>,
    known: &KnownCredential,
    caller: &Caller,
    rules: TokenRules,
    phase: Phase,
    scopes: Option<Scopes>,
) -> Result<Grant, Error> {
    let opened = try_open_session(app, known, caller, rules, phase, scopes).await;
    app.metrics.login(opened.as_ref());
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
    let place =
        app.quotas.logins.take(client).map_err(|over| over_quota(app, client, caller, over.retry_after))?;
    let now = app.clock.now();
    let key = app.issuer.signing_key(now);
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
    let opened = to_the_end(async move {
        let app = opening;
        let opened = app.store.open_session(client, open).await?;
        Ok(opened.unwrap_or(Err(Denied::ClientInactive.into())).map(|session| {
            app.registry.update(&session);
            info!(client, session = session.id, "login");
            let granted = grant(&app, &session)?;
            place.stamp();
            app.caching.logged_in(client, app.registry.verifications(client), app.clock.elapsed());
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

/// Trades a refresh token for the session's next pair. The token can be used once.
pub async fn refresh(app: &Arc<App>, token: &str, caller: &Caller) -> Result<Grant, Error> {
    let refreshed = try_refresh(app, token, caller).await;
    app.metrics.refresh(refreshed.as_ref());
    refreshed
}

async fn try_refresh(app: &Arc<App>, token: &str, caller: &Caller) -> Result<Grant, Error> {
    app.cluster.lease.check().map_err(StoreError::from)?;
    let now = app.clock.now();
    let claims = app
        .issuer
        .keyring()
        .verifier()
        .authenticate(token, Kind::Refresh, now)
        .map_err(|denied| failed(app, b"", None, caller, denied.into()))?;
    let (client, session) = (claims.client, claims.session);

    // What memory knows to be dead costs the store nothing.
    let known = app.registry.policy(client).map_or(Ok(()), |policy| policy.stands_behind(&claims));
    let outcome = match known {
        Err(denied @ (Denied::ClientInactive | Denied::Revoked)) => Err(denied.into()),
        _ => {
            let (key, rules, app) = (app.issuer.signing_key(now), app.rules, Arc::clone(app));
            let (quota, origin, caller) =
                (app.quotas.refreshes.clone(), app.audit.origin(By::Caller, caller.address), caller.clone());
            to_the_end(async move {
                let use_up = move |client: &Client, session: &mut Session| {
                    let presented = present(client, session, &claims, &caller, now, &rules)?;
                    // Before the token is used up.
                    let place = quota.take(client.id)?;
                    if presented == Presented::Current {
                        session.advance(key, now, &rules);
                    }
                    Ok(place)
                };
                let rule = move |client: &Client, session: &mut Session| {
                    let outcome = use_up(client, session);
                    let reused = matches!(outcome, Err(Error::Reused));
                    (outcome, reused.then(|| audit::changes::of_reuse(client, session, &origin)))
                };
                let Some((outcome, session)) = app.store.change_session(client, session, rule).await? else {
                    return Ok(Err(Denied::NotKnown.into()));
                };
                app.registry.update(&session);
                Ok(outcome.and_then(|place| {
                    info!(client, session = session.id, pair = session.pair, "refresh");
                    let granted = grant(&app, &session)?;
                    place.stamp();
                    Ok(granted)
                }))
            })
            .await?
        }
    };
    outcome.map_err(|error| match error {
        Error::Reused => {
            warn!(client, session, "a refresh token was used again: the session can be refreshed no more");
            failed(app, &client.to_le_bytes(), Some(client), caller, error)
        }
        Error::InvalidToken(_) => failed(app, &client.to_le_bytes(), Some(client), caller, error),
        Error::Uncertified => uncertified(app, client, caller),
        Error::AddressNotAllowed => address_denied(app, client, caller),
        Error::OverQuota(retry_after) => over_quota(app, client, caller, retry_after),
        error => error,
    })
}

/// Whether a refresh token may be used or is good again, decided over client and session as they are
/// now. One that was used before ends the session's refreshing.
fn present(
    client: &Client,
    session: &mut Session,
    claims: &Claims,
    caller: &Caller,
    now: UnixSeconds,
    rules: &TokenRules,
) -> Result<Presented, Error> {
    client.policy().stands_behind(claims)?;
    client.admits(claims.credential, now)?;
    // Who does not show to be the client has not used the client's token, be it an old one.
    if !caller.shows(&client.certificates, now) {
        return Err(Error::Uncertified);
    }
    match session.present(claims.pair, now, rules) {
        good @ (Presented::Current | Presented::Again) => {
            client.permits(caller.address)?;
            Ok(good)
        }
        Presented::Reused => {
            session.phase = match rules.on_reuse {
                OnReuse::EndRefresh => Phase::RefreshEnded,
                OnReuse::EndSession => Phase::Ended,
            };
            Err(Error::Reused)
        }
        Presented::Ended => Err(Denied::Revoked.into()),
        Presented::Unknown => Err(Denied::NotKnown.into()),
    }
}

/// Takes back every token of the client that this access token is of: one increment.
pub async fn logout(app: &Arc<App>, token: &str, caller: &Caller) -> Result<(), Error> {
    let verified = verify(app, token, caller).await?;
    let (client, generation) = (verified.claims().client, verified.claims().generation);
    let (now, origin) = (app.clock.now(), app.audit.origin(By::Caller, caller.address));
    let (logging_out, asking) = (Arc::clone(app), caller.clone());
    let outcome = to_the_end(async move {
        let app = logging_out;
        // Of two logouts with one generation's tokens the later one comes with revoked ones: it
        // must not take back what a login in between has given.
        let rule = move |client: &mut Client| {
            if client.generation != generation {
                return Err(Error::from(Denied::Revoked));
            }
            if !asking.shows(&client.certificates, now) {
                return Err(Error::Uncertified);
            }
            client.generation += 1;
            Ok(())
        };
        let changed = app.store.change_client(client, origin, rule).await?;
        let changed = changed.unwrap_or(Err(Denied::NotKnown.into()));
        let changed = match changed {
            Ok(((), changed)) => changed,
            Err(error) => return Ok(Err(error)),
        };
        app.registry.apply(&changed);
        let Receipt { nodes, acknowledged, milliseconds } = app.settle().await?;
        info!(client, generation = changed.generation, nodes, acknowledged, milliseconds, "logout");
        Ok(Ok(()))
    })
    .await?;
    outcome.map_err(|error| match error {
        Error::Uncertified => uncertified(app, client, caller),
        error => error,
    })
}

/// Decides over an access token that a caller presents.
pub async fn verify(app: &App, token: &str, caller: &Caller) -> Result<VerifiedToken, Error> {
    let verdict = stand(app, token).await.and_then(|token| {
        let client = token.claims().client;
        token.presented_by(caller.address).map_err(|denied| match denied {
            Denied::AddressNotAllowed => address_denied(app, client, caller),
            denied => denied.into(),
        })
    });
    verdict.inspect_err(|error| {
        if let Some(reason) = error.denial() {
            app.metrics.denied(reason);
        }
    })
}

/// Decides over an access token, whoever may present it: in memory, unless the token is newer than
/// that; then the store is asked once.
pub async fn stand(app: &App, token: &str) -> Result<StandingToken, Error> {
    // First, before anything is read that the verdict is made of.
    app.cluster.lease.check().map_err(StoreError::from)?;
    let now = app.clock.now();
    match app.issuer.keyring().verifier().stand(token, now, &app.registry) {
        Err(Denied::NotKnown) => {}
        decided => return Ok(decided?),
    }

    app.metrics.lookups.inc();
    let keyring = app.issuer.keyring().clone();
    let claims = keyring.verifier().authenticate(token, Kind::Access, now)?;
    let asked = app.registry.asking(claims.session);
    let found = app.store.find(claims.client, claims.session).await?;
    if let Some(client) = &found.client {
        app.registry.apply(client);
    }
    if let Some(session) = &found.session {
        app.registry.learn(session.id, session.state(), asked);
    }
    Ok(keyring.verifier().stand(token, now, &found)?)
}

fn grant(app: &App, session: &Session) -> Result<Grant, Error> {
    // Only a key retired since the session was saved is missing.
    let pair = app.issuer.pair(session).ok_or(Denied::UnknownKey)?;
    Ok(Grant { client: session.client, pair, scopes: session.scopes.clone() })
}

/// Counts a failure of `key`, which is this client's if that is known, from the caller's network.
pub(crate) fn failed(
    app: &App,
    key: &[u8],
    client: Option<ClientId>,
    caller: &Caller,
    error: Error,
) -> Error {
    let source = caller.address.unwrap_or(caller.peer);
    match app.limiter.failed(key, source, app.clock.elapsed()) {
        Ok(()) => error,
        Err(Throttled { retry_after }) => {
            app.audit.note(audit::Kind::Throttled, client, Some(source));
            Error::Throttled(retry_after)
        }
    }
}

/// All is well with this client's caller but the address.
pub(crate) fn address_denied(app: &App, client: ClientId, caller: &Caller) -> Error {
    app.audit.note(audit::Kind::AddressDenied, Some(client), caller.address);
    Error::AddressNotAllowed
}

/// All is well with this client's caller but the certificate. The caller is told of wrong credentials;
/// the log has what was shown.
fn uncertified(app: &App, client: ClientId, caller: &Caller) -> Error {
    app.audit.note(audit::Kind::CertificateDenied, Some(client), caller.address);
    let shown = caller.certificate.as_ref().map_or("none".to_owned(), ToString::to_string);
    warn!(client, shown, "refused: the connection's certificate is none that the client is bound to");
    Error::Uncertified
}

/// This client has succeeded often enough for now.
fn over_quota(app: &App, client: ClientId, caller: &Caller, retry_after: Duration) -> Error {
    app.audit.note(audit::Kind::QuotaExceeded, Some(client), caller.address);
    Error::OverQuota(retry_after)
}
