//! Clients and their credentials, and the rules that need nothing else.

use std::net::IpAddr;

use rescind_verifier::{Allowlist, ClientId, ClientPolicy, CredentialId, Denied, Scopes, UnixSeconds};
use serde::{Deserialize, Serialize};

use super::CertificateNames;
use crate::secret::{ApiKey, SecretHash};

/// Whether a client may be used. The more restrictive comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It may.
    Active,
    /// Not until resumed. What it held when suspended stays revoked.
    Suspended,
    /// Never again.
    Deleted,
}

/// A caller of APIs, with everything that decides over its tokens. The store numbers clients and
/// credentials as it saves them; until then their ids are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The number that names it.
    pub id: ClientId,
    /// For people.
    pub name: String,
    /// Whether it may be used.
    pub status: Status,
    /// Tokens born under an older one are revoked.
    pub generation: u64,
    /// One more at every change: the higher one is the newer.
    pub revision: u64,
    /// Where it may call from.
    pub allowlist: Allowlist,
    /// What it must show where it says who it is.
    pub certificates: CertificateNames,
    /// What its tokens may do.
    pub scopes: Scopes,
    /// Where it takes tokens, it takes them from addresses on their clients' allowlists alone.
    pub enforces_allowlist: bool,
    /// When it was created.
    pub created_at: UnixSeconds,
    /// Revoked ones included.
    pub credentials: Vec<Credential>,
}

/// An API key and what is kept of its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The number that names it, within tokens.
    pub id: CredentialId,
    /// The name that callers use.
    pub api_key: ApiKey,
    /// What is kept of the secret.
    pub secret_hash: SecretHash,
    /// When it was created.
    pub created_at: UnixSeconds,
    /// From then on it neither logs in nor refreshes. Access tokens already out run to their end.
    pub expires_at: Option<UnixSeconds>,
    /// From then on nothing born of it is good.
    pub revoked_at: Option<UnixSeconds>,
}

impl Credential {
    /// Whether it may log in and refresh.
    pub fn is_good(&self, now: UnixSeconds) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

impl Client {
    /// What verification needs to know of it.
    pub fn policy(&self) -> ClientPolicy {
        let live = self.credentials.iter().filter(|c| c.revoked_at.is_none());
        let mut policy = ClientPolicy::new(&*self.name);
        policy.revision = self.revision;
        policy.generation = self.generation;
        policy.active = self.status == Status::Active;
        policy.allowlist = self.allowlist.clone();
        policy.scopes = self.scopes.clone();
        policy.credentials = live.map(|c| c.id).collect();
        policy
    }

    /// Whether this credential may open or go on with a session.
    pub fn admits(&self, credential: CredentialId, now: UnixSeconds) -> Result<(), Denied> {
        if self.status != Status::Active {
            return Err(Denied::ClientInactive);
        }
        match self.credentials.iter().find(|c| c.id == credential) {
            Some(credential) if credential.is_good(now) => Ok(()),
            _ => Err(Denied::Revoked),
        }
    }

    /// Whether the client may be used from `address`.
    pub fn permits(&self, address: Option<IpAddr>) -> Result<(), Denied> {
        if self.allowlist.permits(address) { Ok(()) } else { Err(Denied::AddressNotAllowed) }
    }
}
