//! What a follower needs to know.

use std::time::Duration;

#[cfg(feature = "follow-tls")]
use super::tls::{Authorities, AuthorityError};
use crate::{ResourceError, Resources};

/// Which server to follow, and how closely.
///
/// Later versions may add fields: make one with [`Options::new`] or [`Options::exact`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The server's management listener, as `host:port` or `https://host:port`. Without TLS (the feature
    /// `follow-tls`, and `management = true` under `[tls]` of the server), keep it to a network that you trust.
    pub server: String,
    /// A verifier token, as `rescind verifier create` prints it.
    pub token: String,
    /// How closely the server is followed.
    pub mode: Mode,
    /// The server's public listener, as `host:port` or `https://host:port`, where [`Follower::verify_or_ask`](super::Follower::verify_or_ask) asks
    /// about single tokens. `None`: it does not ask.
    pub introspection: Option<String>,
    /// The authorities of servers' certificates. `None`: those of the machine.
    #[cfg(feature = "follow-tls")]
    pub(super) authorities: Option<Authorities>,
    /// The resource that tokens must be for. `None`: the server's own audience.
    pub(super) resource: Option<String>,
}

/// How closely a server is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The follower knows every change that the server has answered. The server's answers wait for this
    /// follower, at most until the last lease that the server gave it has ended: about 3 seconds.
    Exact,
    /// The follower knows every change within this time after the server has answered it. The server does not
    /// wait.
    Bounded(Duration),
}

impl Mode {
    /// For how long the follower waits for an answer of the server.
    pub(super) fn patience(self) -> Duration {
        match self {
            Mode::Exact => Duration::from_secs(2),
            Mode::Bounded(bound) => bound,
        }
    }
}

impl Options {
    /// A follower bounded by 5 seconds, that asks about no single token.
    pub fn new(server: impl Into<String>, token: impl Into<String>) -> Options {
        let mode = Mode::Bounded(Duration::from_secs(5));
        Options {
            server: server.into(),
            token: token.into(),
            mode,
            introspection: None,
            #[cfg(feature = "follow-tls")]
            authorities: None,
            resource: None,
        }
    }

    /// An exact follower, that asks about no single token.
    pub fn exact(server: impl Into<String>, token: impl Into<String>) -> Options {
        Options::new(server, token).with_mode(Mode::Exact)
    }

    /// These options with this mode.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Options {
        Options { mode, ..self }
    }

    /// These options, for an API that the server knows as this resource: tokens must have it in `aud`.
    ///
    /// # Errors
    ///
    /// Fails if this is no absolute URI without a fragment.
    pub fn with_resource(self, resource: &str) -> Result<Options, ResourceError> {
        Resources::new([resource])?;
        Ok(Options { resource: Some(resource.to_owned()), ..self })
    }

    /// These options, with the public listener at which [`Follower::verify_or_ask`](super::Follower::verify_or_ask) asks about single tokens.
    #[must_use]
    pub fn with_introspection(self, server: impl Into<String>) -> Options {
        Options { introspection: Some(server.into()), ..self }
    }

    /// These options, with the authorities that may sign the certificates of `https://` servers, in PEM, in place
    /// of the machine's. A self-signed certificate is named here, too, and must have `CA:FALSE`.
    ///
    /// # Errors
    ///
    /// Fails if the text has no certificate, or one that cannot be read.
    #[cfg(feature = "follow-tls")]
    pub fn with_authorities(self, pem: impl AsRef<[u8]>) -> Result<Options, AuthorityError> {
        Ok(Options { authorities: Some(Authorities::read(pem.as_ref())?), ..self })
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("server", &self.server)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
