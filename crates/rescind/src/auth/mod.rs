//! The rules of login, refresh, logout and verification, and of the OAuth requests. No HTTP.

mod client_credentials;
mod introspect;
mod leaked;
mod login;
mod logout;
mod refresh;
mod refusals;
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
pub use leaked::{Leaked, report_leak};
pub use login::{Asked, authenticate, login, open_session};
pub use logout::logout;
pub use refresh::refresh;
pub use refusals::lacks;
pub use revoke::{NotRevoked, revoke};
pub use verify::{verify, verify_in_memory};

use rescind_base::{
    model::{CertificateNames, Check, ClientId, EventKind, PeerCertificate, Session, UnixSeconds},
    telemetry::metrics::Outcome,
};
use rescind_node::{
    app::App,
    limits::{OverQuota, Throttled},
    memory::Pair,
};
use rescind_store::StoreError;

/// The log lines for one client's logins, refreshes and logouts.
const LINES_PER_MINUTE: u32 = 60;
/// The audit events of one client, of each kind that its own requests cause. Further ones are counted together.
const EVENTS_PER_MINUTE: u32 = 10;

/// The caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The caller's own address: the peer's, or the one that a trusted proxy names. `None`: the proxy names none that
    /// can be read.
    pub address: Option<IpAddr>,
    /// The peer is a trusted proxy.
    pub through_proxy: bool,
    /// The certificate that the peer has shown, if the listener requests one and the peer has one.
    pub certificate: Option<Arc<PeerCertificate>>,
}

impl Caller {
    /// A caller without a proxy.
    pub const fn direct(peer: IpAddr) -> Caller {
        Caller { peer, address: Some(peer), through_proxy: false, certificate: None }
    }

    /// Whether the peer's certificate has one of these names, or no name is required.
    fn shows(&self, names: &CertificateNames, now: UnixSeconds) -> bool {
        names.admit(self.certificate.as_deref(), now)
    }
}

/// The result of a login or a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The client that gets the tokens.
    pub client: ClientId,
    /// The tokens.
    pub pair: Pair,
    /// The scopes of the tokens.
    pub scopes: Scopes,
}

/// Why a request was refused.
#[derive(Debug, Error)]
pub enum Error {
    /// Unknown key, wrong secret or certificate, revoked or expired credential, suspended client.
    #[error("invalid credentials")]
    InvalidCredentials,
    /// The token is invalid, for this reason.
    #[error("invalid token: {0}")]
    InvalidToken(Denied),
    /// The refresh token was used before.
    #[error("invalid token: used before")]
    Reused,
    /// The token or secret is valid, but the caller lacks a certificate that the client is bound to.
    #[error("invalid token: without its client's certificate")]
    Uncertified,
    /// The token has expired.
    #[error("token expired")]
    TokenExpired,
    /// Only the caller's address is wrong.
    #[error("address not allowed")]
    AddressNotAllowed,
    /// The client or the token lacks a scope that is needed.
    #[error("scope missing")]
    ScopeMissing,
    /// The client does not have a resource that it asks for.
    #[error("resource missing")]
    ResourceMissing,
    /// Too many failures. The duration is the time until the next attempt is allowed.
    #[error("too many failures")]
    Throttled(Duration),
    /// The client's quota is used up. The duration is the time until the next success is allowed.
    #[error("over the quota")]
    OverQuota(Duration),
    /// The node has no lease, or the store is unavailable or unreadable.
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
            Error::ResourceMissing => Outcome::ResourceMissing,
            Error::Throttled(_) => Outcome::Throttled,
            Error::OverQuota(_) => Outcome::OverQuota,
            Error::Store(_) => Outcome::Unavailable,
        }
    }
}

/// The label of a login or a refresh in the metrics.
fn outcome(result: Result<&Grant, &Error>) -> Outcome {
    result.map_or_else(Outcome::from, |_| Outcome::Granted)
}

impl From<OverQuota> for Error {
    fn from(over: OverQuota) -> Error {
        Error::OverQuota(over.retry_after)
    }
}

impl Error {
    /// The reason for which an access token was refused. `None`: the error is not one of a verification.
    pub fn denial(&self) -> Option<Denied> {
        match self {
            Error::InvalidToken(denied) => Some(*denied),
            Error::TokenExpired => Some(Denied::Expired),
            Error::AddressNotAllowed => Some(Denied::AddressNotAllowed),
            Error::ScopeMissing => Some(Denied::ScopeMissing),
            Error::Store(_) => Some(Denied::Stale),
            Error::InvalidCredentials
            | Error::Reused
            | Error::Uncertified
            | Error::ResourceMissing
            | Error::Throttled(_)
            | Error::OverQuota(_) => None,
        }
    }

    /// The check that the request has failed.
    fn check(&self) -> Check {
        match self {
            Error::InvalidCredentials => Check::InvalidCredentials,
            Error::InvalidToken(denied) => Check::Token(*denied),
            Error::Reused => Check::Reused,
            Error::Uncertified => Check::Uncertified,
            Error::TokenExpired => Check::Token(Denied::Expired),
            Error::AddressNotAllowed => Check::Token(Denied::AddressNotAllowed),
            Error::ScopeMissing => Check::Token(Denied::ScopeMissing),
            Error::ResourceMissing => Check::ResourceMissing,
            Error::Throttled(_) => Check::Throttled,
            Error::OverQuota(_) => Check::OverQuota,
            Error::Store(_) => Check::Token(Denied::Stale),
        }
    }

    /// In whole seconds: when the caller may try again.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Error::Throttled(after) | Error::OverQuota(after) => {
                Some(after.as_secs() + u64::from(after.subsec_nanos() > 0))
            }
            _ => None,
        }
    }
}

/// The newest pair of a session. `api_key` is that of its credential.
fn grant(app: &App, session: &Session, api_key: &str) -> Result<Grant, Error> {
    // The key is missing only if it was retired after the session was stored.
    let pair = app.memory.issuer.pair(session, api_key).ok_or(Denied::UnknownKey)?;
    Ok(Grant { client: session.client, pair, scopes: session.scopes.clone() })
}

/// What a failure is counted for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failed<'k> {
    /// The presented text, whose client is unknown, and the caller's network.
    Unknown(&'k [u8]),
    /// The token's client in the caller's network. Other clients in that network are not affected.
    Client(ClientId),
}

/// Counts a failure. Returns `error`, or `Throttled` if the failures are too many.
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

/// Maps a denial to its error, and logs a token from the future.
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

/// Records that only the caller's address was wrong.
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

/// Records that only the caller's certificate was wrong. The caller gets the answer for invalid credentials or tokens;
/// the log has the certificate.
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

/// A caller's address, for the log.
fn shown(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".to_owned(), |address| address.to_canonical().to_string())
}

/// Whether a success of this client is logged. Beyond `LINES_PER_MINUTE` the lines are left out and counted.
pub(crate) fn is_logged(app: &App, client: ClientId) -> bool {
    let logged = app.limiter.admits(&("log", client), LINES_PER_MINUTE, app.clock.elapsed());
    if !logged {
        app.log_limits.left_out.fetch_add(1, Ordering::Relaxed);
    }
    logged
}

/// Whether another event of this kind, which the client's own requests cause, gets a row of its own.
fn is_on_record(app: &App, kind: EventKind, client: ClientId) -> bool {
    app.limiter.admits(&(kind, client), EVENTS_PER_MINUTE, app.clock.elapsed())
}

/// Records that the client's quota is used up.
fn over_quota(app: &App, client: ClientId, caller: &Caller, retry_after: Duration) -> Error {
    app.audit.note(EventKind::QuotaExceeded, Some(client), caller.address);
    Error::OverQuota(retry_after)
}
