//! Administrators: people who use the dashboard.

use super::{Role, UnixSeconds};
use crate::secret::TicketHash;

/// A person who uses the dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Administrator {
    /// The administrator's number. 0 until the store saves it.
    pub id: u64,
    /// By this name the administrator signs in. No two have the same.
    pub name: String,
    pub role: Role,
    /// Carried by every sign-in; raising it ends them all.
    pub generation: u64,
    /// What the administrator proves at a sign-in. `None` until the administrator has enrolled.
    pub proofs: Option<Proofs>,
    /// The number of the last code that was accepted. It and those before are refused.
    pub totp_used: u64,
    /// The link by which the administrator may choose a password.
    pub enrolment: Option<Enrolment>,
    pub created_at: UnixSeconds,
    pub signed_in_at: Option<UnixSeconds>,
}

/// What an administrator knows and has.
#[derive(Clone, PartialEq, Eq)]
pub struct Proofs {
    /// The Argon2id hash of the password, as a PHC string.
    pub password: String,
    /// The secret of the authenticator, sealed under the master key.
    pub totp: Vec<u8>,
}

impl std::fmt::Debug for Proofs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proofs(…)")
    }
}

/// A link by which an administrator may choose a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolment {
    pub hash: TicketHash,
    /// From then on the link is refused.
    pub until: UnixSeconds,
}

/// One stay of an administrator in the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignIn {
    /// The hash of the cookie.
    pub hash: TicketHash,
    pub administrator: u64,
    /// The administrator's generation when it began. With another one it has ended.
    pub generation: u64,
    pub began_at: UnixSeconds,
    /// When it was used last, up to a minute earlier.
    pub used_at: UnixSeconds,
}

impl SignIn {
    /// In seconds: how long a sign-in lasts, and how long without use.
    pub const LONGEST: u64 = 12 * 3600;
    pub const IDLE: u64 = 30 * 60;

    /// Whether the cookie is good for this administrator.
    pub fn is_good(&self, administrator: &Administrator, now: UnixSeconds) -> bool {
        self.administrator == administrator.id
            && self.generation == administrator.generation
            && now < self.began_at + Self::LONGEST
            && now < self.used_at + Self::IDLE
    }
}
