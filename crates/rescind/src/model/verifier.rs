//! Verifiers in other processes.

use std::time::Duration;

use rescind_verifier::UnixSeconds;

use crate::secret::SecretHash;

/// No lease's term is longer.
pub const LONGEST_LEASE: Duration = Duration::from_secs(60);

/// Another process that may follow the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierRecord {
    /// The number that names it.
    pub id: u64,
    /// For people.
    pub name: String,
    /// What is kept of its token.
    pub token_hash: SecretHash,
    /// It is given HS256 keys, with which it could also sign.
    pub shares_hs256: bool,
    /// When it was created.
    pub created_at: UnixSeconds,
}
