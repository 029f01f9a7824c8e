use thiserror::Error;

/// Why a token was refused. The texts are for operators and logs: a caller who presents a token is
/// told far less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Denied {
    /// Not three base64url segments, too long, or a payload outside the issuer's profile.
    #[error("malformed")]
    Malformed,
    /// The header is not one the issuer writes for any key of the set.
    #[error("unknown key or header")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("bad signature")]
    BadSignature,
    /// A refresh token where an access token belongs, or the other way round.
    #[error("wrong kind of token")]
    WrongKind,
    /// Signed by a known key, for another issuer.
    #[error("wrong issuer")]
    WrongIssuer,
    /// Signed by a known key, for another audience.
    #[error("wrong audience")]
    WrongAudience,
    /// Issued further in the future than clocks may differ.
    #[error("issued in the future")]
    NotYetValid,
    /// Past its `exp`.
    #[error("expired")]
    Expired,
    /// Its client, session, pair or generation is not in the [`State`](crate::State): either newer
    /// than it, or never issued. Whoever has the store can ask it once.
    #[error("not known")]
    NotKnown,
    /// The client is suspended or deleted.
    #[error("client is not active")]
    ClientInactive,
    /// The client's generation has moved on, or the session or the credential was revoked.
    #[error("revoked")]
    Revoked,
    /// The caller's address is on no entry of the client's allowlist, or could not be told.
    #[error("address not allowed")]
    AddressNotAllowed,
    /// What is known is older than it may be, so that nothing can be decided.
    #[error("state too old")]
    Stale,
    /// It stands, but not for what is asked of it.
    #[error("scope missing")]
    ScopeMissing,
}
