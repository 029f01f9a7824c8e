//! Records of signing keys.

use rescind_verifier::Algorithm;

use super::UnixSeconds;

/// A signing key as the store keeps it: sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyRecord {
    /// The number by which sessions refer to the key.
    pub id: u64,
    /// The key's name in tokens.
    pub kid: String,
    /// The algorithm of its signatures.
    pub algorithm: Algorithm,
    /// The key, sealed under the master key.
    pub sealed: Vec<u8>,
    /// The HS256 key for the refresh tokens of sessions with this key, sealed under another name. `None`: the key is
    /// of an earlier version, and signs its refresh tokens itself.
    pub refresh_sealed: Option<Vec<u8>>,
    /// Whether the key's access tokens have the claims `client_id` and `jti` (RFC 9068). Keys of earlier versions are
    /// without, and a new key of the service's own accord is as the one before: only an operator knows that every
    /// verifier can read both.
    pub rfc9068: bool,
    /// When the key was created.
    pub created_at: UnixSeconds,
    /// When the key begins to sign. It signs until the next key does.
    pub signs_from: UnixSeconds,
    /// When the key's last token has expired. `None`: the key is the newest.
    pub retire_at: Option<UnixSeconds>,
}
