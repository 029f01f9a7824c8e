//! The rules of login, refresh, logout and verification. No HTTP.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rescind_verifier::{Claims, Denied, Kind, Scopes, StandingToken, State, VerifiedToken};
use thiserror::Error;
use tracing::{info, warn};

use crate::{
    app::{App, to_the_end},
    certificate::{CertificateNames, PeerCertificate},
    cluster::Receipt,
    issuer::Pair,
    limiter::Throttled,
    model::{Client, ClientId, OnReuse, Phase, Presented, Session, TokenRules, UnixSeconds},
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

/// Trades an API key and secret for a pair of tokens.
pub async fn login(app: &Arc<App>, api_key: &str, secret: &str, caller: &Caller) -> Result<Grant, Error> {
    let credential = authenticate(app, api_key, secret, caller)?;
    open_session(app, &credential, caller, app.rules, Phase::Live, None).await
}

/// Whose credentials these are.
///
/// Whether they are good is decided in memory, at one cost for every way in which they may be bad.
/// The transaction that stores a session looks again.
pub fn authenticate(
    app: &App,
    api_key: &str,
    secret: &str,
    caller: &Caller,
) -> Result<Arc<KnownCredential>, Error> {
    app.cluster.lease.check().map_err(StoreError::from)?;
    let now = app.clock.now();
    let presented = app.pepper.hash(secret);
    let known =
        app.registry.opens(api_key, &presented, now).then(|| app.registry.credential(api_key)).flatten();
    known
        .filter(|known| is_certified(known, caller, now))
        .ok_or_else(|| failed(app, api_key.as_bytes(), caller, Error::InvalidCredentials))
}

/// The same where a certificate stands for the secret, as it may for a client that is bound to one.
pub fn authenticate_by_certificate(
    app: &App,
    api_key: &str,
    caller: &Caller,
) -> Result<Arc<KnownCredential>, Error> {
    app.cluster.lease.check().map_err(StoreError::from)?;
    let now = app.clock.now();
    let is_good = |known: &Arc<KnownCredential>| {
        known.credential.is_good(now) && app.registry.client(known.client).is_some_and(|client| client.active)
    };
    app.registry
        .credential(api_key)
        .filter(|known| is_good(known) && !known.certificates.is_empty())
        .filter(|known| is_certified(known, caller, now))
        .ok_or_else(|| failed(app, api_key.as_bytes(), caller, Error::InvalidCredentials))
}

/// Whether the caller shows what the client is bound to. If not, only the log tells why.
fn is_certified(known: &KnownCredential, caller: &Caller, now: UnixSeconds) -> bool {
    let shows = caller.shows(&known.certificates, now);
    if !shows {
        warn_uncertified(known.client, caller);
    }
    shows
}

fn warn_uncertified(client: ClientId, caller: &Caller) {
    let shown = caller.certificate.as_ref().map_or("none".to_owned(), ToString::to_string);
    warn!(client, shown, "refused: the connection's certificate is none that the client is bound to");
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
    let (client, credential) = (known.client, known.credential.id);
    let now = app.clock.now();
    let key = app.issuer.signing_key(now);
    let caller = caller.clone();
    let open = move |client: &Client| {
        client.admits(credential, now)?;
        if !caller.shows(&client.certificates, now) {
            return Err(Error::Uncertified);
        }
        client.permits(caller.address)?;
        let scopes = scopes.unwrap_or_else(|| client.scopes.clone());
        if scopes.intersection(&client.scopes) != scopes {
            return Err(Error::ScopeMissing);
        }
        Ok(Session { phase, ..Session::open(client, credential, scopes, key, now, &rules) })
    };
    let app = Arc::clone(app);
    let opened = to_the_end(async move {
        let opened = app.store.open_session(client, open).await?;
        Ok(opened.unwrap_or(Err(Denied::ClientInactive.into())).map(|session| {
            app.registry.update(&session);
            info!(client, session = session.id, "login");
            grant(&app, &session)
        }))
    });
    match opened.await? {
        Ok(grant) => grant,
        Err(error @ (Error::AddressNotAllowed | Error::ScopeMissing)) => Err(error),
        Err(_) => Err(Error::InvalidCredentials),
    }
}

/// Trades a refresh token for the session's next pair. The token can be used once.
pub async fn refresh(app: &Arc<App>, token: &str, caller: &Caller) -> Result<Grant, Error> {
    app.cluster.lease.check().map_err(StoreError::from)?;
    let now = app.clock.now();
    let claims = app
        .issuer
        .keyring()
        .verifier()
        .authenticate(token, Kind::Refresh, now)
        .map_err(|denied| failed(app, b"", caller, denied.into()))?;
    let (client, session) = (claims.client, claims.session);

    // What memory knows to be dead costs the store nothing.
    let known = app.registry.client(client).map_or(Ok(()), |policy| policy.stands_behind(&claims));
    let outcome = match known {
        Err(denied @ (Denied::ClientInactive | Denied::Revoked)) => Err(denied.into()),
        _ => {
            let (key, rules, app) = (app.issuer.signing_key(now), app.rules, Arc::clone(app));
            let caller = caller.clone();
            to_the_end(async move {
                let rule = move |client: &Client, session: &mut Session| {
                    rotate(client, session, &claims, &caller, key, now, &rules)
                };
                let Some((outcome, session)) = app.store.change_session(client, session, rule).await? else {
                    return Ok(Err(Denied::NotKnown.into()));
                };
                app.registry.update(&session);
                Ok(outcome.and_then(|()| {
                    info!(client, session = session.id, pair = session.pair, "refresh");
                    grant(&app, &session)
                }))
            })
            .await?
        }
    };
    outcome.map_err(|error| match error {
        Error::Reused => {
            warn!(client, session, "a refresh token was used again: the session can be refreshed no more");
            failed(app, &client.to_le_bytes(), caller, error)
        }
        Error::InvalidToken(_) => failed(app, &client.to_le_bytes(), caller, error),
        Error::Uncertified => {
            warn_uncertified(client, caller);
            error
        }
        error => error,
    })
}

/// What a refresh token does to its session, decided over client and session as they are now.
fn rotate(
    client: &Client,
    session: &mut Session,
    claims: &Claims,
    caller: &Caller,
    key: u64,
    now: UnixSeconds,
    rules: &TokenRules,
) -> Result<(), Error> {
    client.policy().stands_behind(claims)?;
    client.admits(claims.credential, now)?;
    // Who does not show to be the client has not used the client's token, be it an old one.
    if !caller.shows(&client.certificates, now) {
        return Err(Error::Uncertified);
    }
    match session.present(claims.pair, now, rules) {
        Presented::Current => {
            client.permits(caller.address)?;
            session.advance(key, now, rules);
            Ok(())
        }
        Presented::Again => Ok(client.permits(caller.address)?),
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
    let now = app.clock.now();
    let (app, asking) = (Arc::clone(app), caller.clone());
    let outcome = to_the_end(async move {
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
        let changed = app.store.change_client(client, rule).await?.unwrap_or(Err(Denied::NotKnown.into()));
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
    if let Err(Error::Uncertified) = outcome {
        warn_uncertified(client, caller);
    }
    outcome
}

/// Decides over an access token that a caller presents.
pub async fn verify(app: &App, token: &str, caller: &Caller) -> Result<VerifiedToken, Error> {
    Ok(stand(app, token).await?.presented_by(caller.address)?)
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

/// Counts a failure of `key` from the caller's network.
pub(crate) fn failed(app: &App, key: &[u8], caller: &Caller, error: Error) -> Error {
    let source = caller.address.unwrap_or(caller.peer);
    match app.limiter.failed(key, source, app.clock.elapsed()) {
        Ok(()) => error,
        Err(Throttled { retry_after }) => Error::Throttled(retry_after),
    }
}
