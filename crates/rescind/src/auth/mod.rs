//! The rules of login, refresh, logout and verification, and the same by their OAuth names. No HTTP.

mod client_credentials;
mod introspect;
mod login;
mod logout;
mod refresh;
mod revoke;
mod verify;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rescind_verifier::{Denied, Scopes};
use thiserror::Error;
use tracing::warn;

pub use client_credentials::client_credentials;
pub use introspect::{INTROSPECT, Introspected, Question, introspect, may_introspect};
pub use login::{authenticate, login, open_session};
pub use logout::logout;
pub use refresh::refresh;
pub use revoke::{NotRevoked, revoke};
pub use verify::{stand, verify};

use crate::{
    app::App,
    limits::{OverQuota, Throttled},
    memory::Pair,
    model::{CertificateNames, ClientId, EventKind, PeerCertificate, Session, UnixSeconds},
    store::StoreError,
    telemetry::metrics::Outcome,
};

/// Of each client's logins, refreshes and logouts so many have a line in the log.
const LINES_PER_MINUTE: u32 = 60;
/// Of the sessions in which a client's refresh tokens were used again so many are on record each for itself.
const REUSES_PER_MINUTE: u32 = 10;

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
            denied => Error::InvalidToken(denied),
        }
    }
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Outcome {
        match error {
            Error::InvalidCredentials | Error::InvalidToken(_) | Error::Uncertified => Outcome::Invalid,
            Error::Reused => Outcome::Reused,
            Error::TokenExpired => Outcome::Expired,
            Error::AddressNotAllowed => Outcome::AddressNotAllowed,
            Error::ScopeMissing => Outcome::ScopeMissing,
            Error::Throttled(_) => Outcome::Throttled,
            Error::OverQuota(_) => Outcome::OverQuota,
            Error::Store(_) => Outcome::Unavailable,
        }
    }
}

/// What became of a login or a refresh, for the metrics.
fn outcome(result: Result<&Grant, &Error>) -> Outcome {
    result.map_or_else(Outcome::from, |_| Outcome::Granted)
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

fn grant(app: &App, session: &Session) -> Result<Grant, Error> {
    // Only a key retired since the session was saved is missing.
    let pair = app.memory.issuer.pair(session).ok_or(Denied::UnknownKey)?;
    Ok(Grant { client: session.client, pair, scopes: session.scopes.clone() })
}

/// Whom a failure is counted for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failed<'k> {
    /// What the caller presented and nobody can tell whose it is, and the caller's network.
    Unknown(&'k [u8]),
    /// The client whose token it is, from the caller's network. Its neighbours there have no part in it.
    Client(ClientId),
}

/// Counts a failure from the caller's network.
pub(crate) fn failed(app: &App, whose: Failed<'_>, caller: &Caller, error: Error) -> Error {
    let source = caller.address.unwrap_or(caller.peer);
    let now = app.clock.elapsed();
    let (client, counted) = match whose {
        Failed::Unknown(presented) => (None, app.limiter.failed(presented, source, now)),
        Failed::Client(client) => (Some(client), app.limiter.failed_as(client, source, now)),
    };
    match counted {
        Ok(()) => error,
        Err(Throttled { retry_after }) => {
            app.audit.note(EventKind::Throttled, client, Some(source));
            Error::Throttled(retry_after)
        }
    }
}

/// The token is good for nothing.
fn refused(app: &App, denied: Denied) -> Error {
    if denied == Denied::NotYetValid
        && let Some(times) = app.log_limits.from_future.due(())
    {
        warn!(
            times,
            "a token was refused that was issued in the future: this machine's clock is behind, or was ahead when it issued it"
        );
    }
    denied.into()
}

/// All is well with this client's caller but the address.
pub(crate) fn address_denied(app: &App, client: ClientId, caller: &Caller) -> Error {
    if caller.address.is_none()
        && let Some(times) = app.log_limits.proxies.due(caller.peer)
    {
        warn!(
            proxy = %caller.peer, times,
            "refused: this trusted proxy names no caller's address, or none that can be read, in server.client_address_header"
        );
    }
    app.audit.note(EventKind::AddressDenied, Some(client), caller.address);
    Error::AddressNotAllowed
}

/// All is well with this client's caller but the certificate. The caller is told of wrong credentials;
/// the log has what was shown.
fn uncertified(app: &App, client: ClientId, caller: &Caller) -> Error {
    app.audit.note(EventKind::CertificateDenied, Some(client), caller.address);
    if let Some(times) = app.log_limits.uncertified.due(client) {
        let shown = caller.certificate.as_ref().map_or("none".to_owned(), ToString::to_string);
        warn!(
            client,
            shown, times, "refused: the connection's certificate is none that the client is bound to"
        );
    }
    Error::Uncertified
}

/// Whether a line in the log says what this client has done well. If it does so much, most are left out.
pub(crate) fn is_logged(app: &App, client: ClientId) -> bool {
    let logged = app.limiter.admits(&("log", client), LINES_PER_MINUTE, app.clock.elapsed());
    if !logged {
        app.log_limits.left_out.fetch_add(1, Ordering::Relaxed);
    }
    logged
}

/// This client has succeeded often enough for now.
fn over_quota(app: &App, client: ClientId, caller: &Caller, retry_after: Duration) -> Error {
    app.audit.note(EventKind::QuotaExceeded, Some(client), caller.address);
    Error::OverQuota(retry_after)
}
