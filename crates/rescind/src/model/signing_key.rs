//! Records of signing keys.

use rescind_verifier::Algorithm;

use super::UnixSeconds;

/// A signing key as the store keeps it: sealed.
#[derive(Debug, Clone)]
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
    /// When the key was created.
    pub created_at: UnixSeconds,
    /// When the key begins to sign. It signs until the next key does.
    pub signs_from: UnixSeconds,
    /// When the key's last token has expired. `None`: the key is the newest.
    pub retire_at: Option<UnixSeconds>,
}
