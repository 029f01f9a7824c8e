//! Signing keys as they are kept.

use rescind_verifier::Algorithm;

use super::UnixSeconds;

/// A signing key as the store keeps it: sealed.
#[derive(Debug, Clone)]
pub struct SigningKeyRecord {
    /// The number that sessions name it by.
    pub id: u64,
    /// The name that tokens carry.
    pub kid: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// Sealed under the master key.
    pub sealed: Vec<u8>,
    /// The HS256 key of the refresh tokens of the sessions that name this key, sealed as well, under
    /// another name. `None`: a key from before there were such, which signs them itself.
    pub refresh_sealed: Option<Vec<u8>>,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// From when it signs, until the next key does.
    pub signs_from: UnixSeconds,
    /// When its last token has run out. `None`: it is the newest.
    pub retire_at: Option<UnixSeconds>,
}
