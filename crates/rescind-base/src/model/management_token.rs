//! Management tokens: who may use the admin API over the network, and for what.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ClientId, UnixSeconds};
use crate::secret::SecretHash;

/// What an operator may do, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also changes clients, their credentials, allowlists and sessions.
    Operator,
    /// Does everything.
    Admin,
}

impl Role {
    /// Returns the name, which never changes.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Role, &'static str> {
        let known = [Role::Viewer, Role::Operator, Role::Admin].into_iter().find(|role| role.name() == name);
        known.ok_or("expected viewer, operator or admin")
    }
}

/// A management token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagementToken {
    /// The token's number. 0 until the store saves it.
    pub id: u64,
    /// The token's name, for people.
    pub name: String,
    pub role: Role,
    /// The only clients that the token may see and change. `None`: it is bound to no client.
    pub clients: Option<Vec<ClientId>>,
    pub token_hash: SecretHash,
    pub created_at: UnixSeconds,
    /// From then on the token is refused.
    pub expires_at: Option<UnixSeconds>,
    /// When the token was used last, up to a minute earlier.
    pub last_used_at: Option<UnixSeconds>,
}

/// What is known of a creation whose idempotency key was used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creation {
    /// The hash of the request.
    pub request: [u8; 32],
    /// The path of what was created. `None`: the creation is under way, or it is not known whether it was committed.
    pub created: Option<String>,
}

/// Who names an idempotency key, and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreationKey {
    /// The management token. 0: a user of the socket.
    pub token: u64,
    pub key: String,
}
