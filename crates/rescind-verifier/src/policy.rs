use std::{net::IpAddr, sync::Arc};

use crate::{Allowlist, Claims, ClientId, CredentialId, Denied, Scopes, SessionId};

/// What a verifier must know of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPolicy {
    /// The client's name, for people.
    pub name: String,
    /// Orders the changes of one client: the higher one is the newer.
    pub revision: u64,
    /// Tokens of an older generation are revoked.
    pub generation: u64,
    /// Neither suspended nor deleted.
    pub active: bool,
    /// Where the client may call from.
    pub allowlist: Allowlist,
    /// What the client may ask for.
    pub scopes: Scopes,
    /// The credentials that were not revoked. Tokens of any other are dead.
    pub credentials: Vec<CredentialId>,
}

impl ClientPolicy {
    /// Whether the client, as known here, still stands behind a token with these claims.
    pub fn stands_behind(&self, claims: &Claims) -> Result<(), Denied> {
        // A generation ahead of ours says only that our knowledge is old.
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

    /// Whether the client may be used from `address`.
    pub fn permits(&self, address: Option<IpAddr>) -> Result<(), Denied> {
        if self.allowlist.permits(address) { Ok(()) } else { Err(Denied::AddressNotAllowed) }
    }
}

/// What a verifier must know of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionState {
    /// Whose it is.
    pub client: ClientId,
    /// The highest pair number issued so far.
    pub pair: u64,
    /// Its access tokens are revoked.
    pub ended: bool,
}

/// What is known of clients and sessions, in memory.
pub trait State {
    /// The client's policy, if known here.
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>>;
    /// The session's state, if known here.
    fn session(&self, id: SessionId) -> Option<SessionState>;
}
