use std::{net::IpAddr, sync::Arc};

use crate::{Allowlist, Claims, ClientId, CredentialId, Denied, Scopes, SessionId};

/// What a verifier must know of a client.
///
/// Later versions may add fields: make one with [`ClientPolicy::new`], and set the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientPolicy {
    /// The client's name, for people.
    pub name: String,
    /// The number of the client's last change. Of two policies of one client, the one with the higher
    /// revision is the newer.
    pub revision: u64,
    /// Tokens of a lower generation are revoked.
    pub generation: u64,
    /// Whether the client is neither suspended nor deleted.
    pub active: bool,
    /// The networks that the client may call from.
    pub allowlist: Allowlist,
    /// The scopes that the client's tokens may have.
    pub scopes: Scopes,
    /// The credentials that were not revoked. Tokens of any other credential are refused.
    pub credentials: Vec<CredentialId>,
}

impl ClientPolicy {
    /// The policy of a new client: active, of revision and generation 0, without credentials and scopes,
    /// and with an empty allowlist, which permits every address. As long as it has no credential, every
    /// token is refused.
    pub fn new(name: impl Into<String>) -> ClientPolicy {
        ClientPolicy {
            name: name.into(),
            revision: 0,
            generation: 0,
            active: true,
            allowlist: Allowlist::default(),
            scopes: Scopes::default(),
            credentials: Vec::new(),
        }
    }

    /// Checks a token's claims against this policy, all but the caller's address.
    ///
    /// # Errors
    ///
    /// - [`Denied::NotKnown`]: the token's generation is higher than the policy's, so the policy is old.
    /// - [`Denied::ClientInactive`]: the client is suspended or deleted.
    /// - [`Denied::Revoked`]: the token's generation is lower, or its credential was revoked.
    pub fn stands_behind(&self, claims: &Claims) -> Result<(), Denied> {
        if claims.generation > self.generation {
            return Err(Denied::NotKnown);
        }
        if !self.active {
            return Err(Denied::ClientInactive);
        }
        if claims.generation < self.generation || !self.credentials.contains(&claims.credential) {
            return Err(Denied::Revoked);
        }
        Ok(())
    }

    /// Checks whether the client may be used from `address`. `None` is an address that is not known.
    ///
    /// # Errors
    ///
    /// [`Denied::AddressNotAllowed`]: the address is not known, or on no entry of the allowlist.
    pub fn permits(&self, address: Option<IpAddr>) -> Result<(), Denied> {
        if self.allowlist.permits(address) { Ok(()) } else { Err(Denied::AddressNotAllowed) }
    }
}

/// What a verifier must know of a session.
///
/// Later versions may add fields: make one with [`SessionState::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionState {
    /// The client that logged in.
    pub client: ClientId,
    /// The highest pair number issued so far.
    pub pair: u64,
    /// Whether the session's access tokens are revoked.
    pub ended: bool,
}

impl SessionState {
    /// The state of a session.
    pub const fn new(client: ClientId, pair: u64, ended: bool) -> SessionState {
        SessionState { client, pair, ended }
    }
}

/// What is known of clients and sessions, in memory. [`Verifier`](crate::Verifier) reads it once for each
/// token.
pub trait State {
    /// The client's policy. `None`: this state does not have the client.
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>>;
    /// The session's state. `None`: this state does not have the session.
    fn session(&self, id: SessionId) -> Option<SessionState>;
}
