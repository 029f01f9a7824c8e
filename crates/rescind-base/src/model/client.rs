//! Clients and their credentials, and the rules that need only these.

use std::net::IpAddr;

use rescind_verifier::{
    Allowlist, ClientId, ClientPolicy, CredentialId, Denied, Resources, Scopes, UnixSeconds,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::CertificateNames;
use crate::secret::{ApiKey, SecretHash};

/// Whether a client may be used. The order is from the least to the most restrictive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The client may be used.
    Active,
    /// The client may not be used until it is resumed. Tokens and sessions from before the suspension stay revoked.
    Suspended,
    /// The client may never be used again.
    Deleted,
}

/// A caller of APIs, with all data that decides on its tokens. The store numbers clients and credentials when it
/// saves them; until then their ids are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The client's number.
    pub id: ClientId,
    /// The client's name, for people.
    pub name: String,
    /// Whether the client may be used.
    pub status: Status,
    /// How long a suspended client is suspended, and why. Empty otherwise.
    pub suspension: Suspension,
    /// Tokens of an older generation are revoked.
    pub generation: u64,
    /// When all tokens of that time were revoked last.
    pub tokens_revoked_at: Option<UnixSeconds>,
    /// Raised by every change, so that the higher of two revisions is the newer.
    pub revision: u64,
    /// The networks from which the client may call.
    pub allowlist: Allowlist,
    /// Names of which the client's certificate must have one when the client authenticates.
    pub certificates: CertificateNames,
    /// The scopes that the client's tokens may have.
    pub scopes: Scopes,
    /// The resources that the client's tokens may be for. Empty: the default audience alone.
    pub resources: Resources,
    /// Whether the client enforces the allowlists of the tokens that it introspects.
    pub enforces_allowlist: bool,
    /// For how many seconds the client may keep introspection's answers: 0 if they have no `exp`, none if they have the
    /// token's.
    pub introspect_lifetime: Option<u64>,
    /// When the client was created.
    pub created_at: UnixSeconds,
    /// The client's credentials, revoked ones included.
    pub credentials: Vec<Credential>,
}

/// How long a client is suspended, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspension {
    /// The client is resumed then. `None`: an operator resumes it.
    pub until: Option<UnixSeconds>,
    /// For people.
    pub reason: Option<String>,
}

/// From where a credential has logged in or refreshed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialUse {
    /// The credential.
    pub credential: CredentialId,
    /// The caller's address. `None`: it was not known.
    pub address: Option<IpAddr>,
    /// When that happened last.
    pub at: UnixSeconds,
    /// How often it happened.
    pub times: u64,
}

/// An API key and the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The credential's number, which tokens carry.
    pub id: CredentialId,
    /// The API key, which callers send.
    pub api_key: ApiKey,
    /// The hash of the secret.
    pub secret_hash: SecretHash,
    /// When the credential was created.
    pub created_at: UnixSeconds,
    /// From then on the credential cannot log in or refresh. Its access tokens stay valid until they expire.
    pub expires_at: Option<UnixSeconds>,
    /// From then on all sessions and tokens of the credential are revoked.
    pub revoked_at: Option<UnixSeconds>,
    /// When another credential took the place of this one, which expires soon after.
    pub replaced_at: Option<UnixSeconds>,
    /// Where the secret is kept, for people.
    pub note: Option<String>,
}

impl Credential {
    /// Returns whether the credential may log in and refresh.
    pub fn is_good(&self, now: UnixSeconds) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }

    /// When the credential was revoked or expired, or will expire.
    pub fn ends_at(&self) -> Option<UnixSeconds> {
        self.revoked_at.or(self.expires_at)
    }
}

impl Client {
    /// Revokes every token that the client has now.
    pub fn revoke_tokens(&mut self, now: UnixSeconds) {
        self.generation += 1;
        self.tokens_revoked_at = Some(now);
    }

    /// Returns the client's data that verification needs.
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

    /// Checks that this credential may open or refresh a session.
    ///
    /// # Errors
    /// Fails if the client is not active, or the credential is expired or revoked.
    pub fn admits(&self, credential: CredentialId, now: UnixSeconds) -> Result<(), Denied> {
        if self.status != Status::Active {
            return Err(Denied::ClientInactive);
        }
        match self.credentials.iter().find(|c| c.id == credential) {
            Some(credential) if credential.is_good(now) => Ok(()),
            _ => Err(Denied::Revoked),
        }
    }

    /// Returns the API key of a credential.
    pub fn api_key(&self, credential: CredentialId) -> Option<&str> {
        let found = self.credentials.iter().find(|c| c.id == credential);
        found.map(|credential| credential.api_key.as_str())
    }

    /// Checks that the client may call from `address`.
    ///
    /// # Errors
    /// Fails if the allowlist does not permit the address.
    pub fn permits(&self, address: Option<IpAddr>) -> Result<(), Denied> {
        if self.allowlist.permits(address) { Ok(()) } else { Err(Denied::AddressNotAllowed) }
    }
}
