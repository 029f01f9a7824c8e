use thiserror::Error;

/// Declares the reasons, and the list of all of them.
macro_rules! denied {
    ($($(#[$attribute:meta])* $reason:ident, $name:literal, $text:literal;)+) => {
        /// Why a token was refused. The texts are for operators and logs. A caller who presents a token
        /// gets less detail.
        ///
        /// Later versions may know more reasons. Treat a reason that your program does not know as
        /// [`Revoked`](Denied::Revoked): the token must not be accepted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
        #[non_exhaustive]
        pub enum Denied {
            $($(#[$attribute])* #[error($text)] $reason,)+
        }

        impl Denied {
            /// Every reason, in the order of declaration.
            pub const ALL: &[Denied] = &[$(Denied::$reason),+];

            /// The reason's name in lower case, as metrics and the test vectors write it:
            /// `address_not_allowed`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Denied::$reason => $name,)+
                }
            }

            /// Whether the token keeps rules 1 to 5 of the [crate](crate): then its claims are the issuer's.
            pub fn is_authentic(self) -> bool {
                !matches!(
                    self,
                    Denied::Malformed
                        | Denied::UnknownKey
                        | Denied::BadSignature
                        | Denied::WrongKind
                        | Denied::WrongIssuer
                        | Denied::WrongAudience
                        | Denied::Stale
                )
            }

            /// The value of `WWW-Authenticate` in the 401 for a token that is invalid for this reason (RFC 6750 §3). `None`:
            /// the answer is another one. A revoked token's says that a new one will help, because most clients keep a
            /// token until it expires.
            pub fn challenge(self) -> Option<&'static str> {
                match self {
                    Denied::AddressNotAllowed | Denied::Stale | Denied::ScopeMissing => None,
                    Denied::Revoked => Some(
                        r#"Bearer realm="rescind", error="invalid_token", error_description="revoked: get a new token""#,
                    ),
                    _ => Some(r#"Bearer realm="rescind", error="invalid_token""#),
                }
            }
        }
    };
}

denied! {
    /// The token is not three base64url segments, is too long, or its payload does not follow the
    /// issuer's profile.
    Malformed, "malformed", "malformed";
    /// The header is not one that the issuer writes for a key of the set.
    UnknownKey, "unknown_key", "unknown key or header";
    /// The signature was not made with the key that the header names.
    BadSignature, "bad_signature", "bad signature";
    /// A refresh token was presented in place of an access token, or an access token in place of a
    /// refresh token.
    WrongKind, "wrong_kind", "wrong kind of token";
    /// The token was signed by a known key, for another issuer.
    WrongIssuer, "wrong_issuer", "wrong issuer";
    /// The token was signed by a known key, for another audience.
    WrongAudience, "wrong_audience", "wrong audience";
    /// The token was issued further in the future than
    /// [clocks may differ](crate::MAX_CLOCK_DIFFERENCE).
    NotYetValid, "not_yet_valid", "issued in the future";
    /// The token's `exp` has passed.
    Expired, "expired", "expired";
    /// The [`State`](crate::State) does not have the token's client, session, pair or generation. Either
    /// the token is newer than the state, or it was never issued. A program with access to the store
    /// can ask the store once.
    NotKnown, "not_known", "not known";
    /// The client is suspended or deleted.
    ClientInactive, "client_inactive", "client is not active";
    /// The client's generation is higher than the token's, or the session or the credential was revoked.
    Revoked, "revoked", "revoked";
    /// The caller's address is on no entry of the client's allowlist, or is not known.
    AddressNotAllowed, "address_not_allowed", "address not allowed";
    /// The verifier's state is too old to decide about any token.
    Stale, "stale", "state too old";
    /// The token is valid, but lacks a scope that was required.
    ScopeMissing, "scope_missing", "scope missing";
}
