//! Decides whether a Rescind token (a JWT, RFC 7519) is valid.
//!
//! The decision is made from memory: a [`Verifier`] has the keys, a [`State`] has what is known of clients
//! and sessions, and the caller of [`Verifier::verify`] brings the time and the address. Nothing here reads
//! a clock, a file or a socket, but for the feature `follow`, which keeps all of this up to date from a
//! running server.
//!
//! ```
//! use std::sync::Arc;
//!
//! use rescind_verifier::{
//!     ClientId, ClientPolicy, Denied, Key, KeySet, Profile, SessionId, SessionState, State, Verifier,
//! };
//!
//! /// One client and its session.
//! struct Memory(Arc<ClientPolicy>, SessionState);
//!
//! impl State for Memory {
//!     fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
//!         (id == 42).then(|| Arc::clone(&self.0))
//!     }
//!     fn session(&self, id: SessionId) -> Option<SessionState> {
//!         (id == 7).then_some(self.1)
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = Key::hs256("2025-01", b"an example key of 32 bytes......")?;
//! let profile = Profile::new("https://id.example", "https://api.example").ok_or("needs escaping")?;
//! let verifier = Verifier::new(KeySet::from_iter([key]), profile);
//!
//! let mut billing = ClientPolicy::new("billing");
//! billing.credentials = vec![3];
//! let memory = Memory(Arc::new(billing), SessionState::new(42, 1, false));
//!
//! let (caller, now) = (Some("203.0.113.7".parse()?), 1_736_942_460);
//! # let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6IjIwMjUtMDEifQ.\
//! #     eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJodHRwczovL2FwaS5leGFtcGxlIiwic3ViIjoiNDIi\
//! #     LCJpYXQiOjE3MzY5NDI0MDAsImV4cCI6MTczNjk0NjAwMCwic2lkIjoiNyIsImNyZWQiOjMsImdlbiI6MCwicGFp\
//! #     ciI6MSwic2NvcGUiOiJvcmRlcnM6cmVhZCJ9.8nLU87D-iQJVcqA5JMkeXUDgX6bDf3E-36mf72DrfKA";
//! assert_eq!(verifier.verify(token, caller, now, &memory)?.client().name, "billing");
//! assert_eq!(verifier.verify(token, caller, now + 3600, &memory).unwrap_err(), Denied::Expired);
//! # Ok(())
//! # }
//! ```
//!
//! The rules, in the order in which they are checked:
//!
//! 1. The token is three segments, no longer together than [`MAX_TOKEN_LENGTH`].
//! 2. Its header is, byte for byte, one that the issuer writes for a key of the set. So the algorithm is
//!    the key's, and `jku`, `jwk`, `x5u`, `crit` and the like are never read.
//! 3. Its signature was made with that key.
//! 4. Its kind is the one asked for: a refresh token is no access token. (Only the issuer has keys of
//!    refresh tokens. Any other key set refuses them by rule 2.)
//! 5. Its payload is, byte for byte, in the issuer's [form](Claims), for this issuer, and `aud` has this
//!    audience.
//! 6. It was not issued in the future, and has not expired.
//! 7. Its client is active, its generation is the client's, and its credential and its session are not
//!    revoked.
//! 8. The caller's address is known, and on the client's allowlist if that has entries.
//!
//! Only a token that keeps all of them becomes a [`VerifiedToken`]. Otherwise the first rule that the token
//! breaks is reported, as a [`Denied`].
//!
//! # Features
//!
//! - `asymmetric` (default): Ed25519 and ES256 keys, for verifiers that must not be able to sign.
//! - `follow`: the module `follow`, with a verifier that a server's feed keeps up to date.
//! - `follow-tls`: the same over TLS.
//! - `tower`: the module `tower`, with a middleware that refuses requests without a valid token.

#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod allowlist;
mod bearer;
mod claims;
mod denied;
#[cfg(feature = "follow")]
pub mod follow;
mod keys;
mod policy;
mod resources;
mod scopes;
mod token_cache;
#[cfg(feature = "tower")]
pub mod tower;
mod verifier;

pub use allowlist::{Allowlist, CidrError, contains, nat64, parse_cidr};
pub use bearer::{BearerError, bearer_token};
pub use claims::{Claims, Kind, Profile};
pub use denied::Denied;
pub use ipnet::IpNet;
pub use keys::{Algorithm, Key, KeyError, KeySet, MAX_TOKEN_LENGTH, header_segment};
pub use policy::{ClientPolicy, SessionState, State};
pub use resources::{ResourceError, Resources};
pub use scopes::{ScopeError, Scopes};
pub use verifier::{CACHED_TOKENS, MAX_CLOCK_DIFFERENCE, Refused, StandingToken, VerifiedToken, Verifier};

/// The number that names a client, as `sub` carries it.
pub type ClientId = u64;
/// The number that names one of a client's credentials.
pub type CredentialId = u64;
/// The number that names a session: one login, and the token pairs that came from it by refreshing.
pub type SessionId = u64;
/// Seconds since 1970-01-01T00:00:00Z, without leap seconds (RFC 7519 "NumericDate").
pub type UnixSeconds = u64;
