//! Verifiers in other processes.

use std::time::Duration;

use rescind_verifier::UnixSeconds;

use crate::secret::SecretHash;

/// The longest term of a lease.
pub const LONGEST_LEASE: Duration = Duration::from_secs(60);

/// A verifier: an API that may follow the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierRecord {
    /// The verifier's number.
    pub id: u64,
    /// The verifier's name, for people.
    pub name: String,
    /// The hash of the verifier's token.
    pub token_hash: SecretHash,
    /// Whether the verifier receives HS256 keys, with which it could also sign.
    pub shares_hs256: bool,
    /// When the verifier was created.
    pub created_at: UnixSeconds,
}
