//! Decides whether a Rescind token (a JWT, RFC 7519) stands.
//!
//! The decision is made from memory: a [`Verifier`] holds the keys, a [`State`] holds what is known
//! of clients and sessions, and the caller hands in the time and the address. Nothing here reads a
//! clock, a file or a socket.
//!
//! The rules, in the order in which they are checked:
//!
//! 1. the token is three segments, no longer together than [`MAX_TOKEN_LENGTH`];
//! 2. its header is, byte for byte, one that the issuer writes for a key of the set (so the
//!    algorithm is the key's, and `jku`, `jwk`, `x5u`, `crit` and the like are never read);
//! 3. its signature is the key's;
//! 4. its kind is the one asked for: an access token is no refresh token (whose keys are the issuer's
//!    alone: to anybody else's key set rule 2 refuses it);
//! 5. its payload is, byte for byte, in the issuer's [profile](Claims), for this issuer and audience;
//! 6. it is not from the future and has not expired;
//! 7. its client is active, its generation is the client's, its credential and its session live;
//! 8. the caller's address is on the client's allowlist, if there is one.
//!
//! Only a token that passes all of them becomes a [`VerifiedToken`].

#![warn(missing_docs)]

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
mod scopes;
#[cfg(feature = "tower")]
pub mod tower;
mod verifier;

pub use allowlist::{Allowlist, CidrError, parse_cidr};
pub use bearer::{BearerError, bearer_token};
pub use claims::{Claims, Kind, Profile};
pub use denied::Denied;
pub use ipnet::IpNet;
pub use keys::{Algorithm, Key, KeyError, KeySet, MAX_TOKEN_LENGTH, header_segment};
pub use policy::{ClientPolicy, SessionState, State};
pub use scopes::{ScopeError, Scopes};
pub use verifier::{MAX_CLOCK_DIFFERENCE, StandingToken, VerifiedToken, Verifier};

/// The number that names a client, as `sub` carries it.
pub type ClientId = u64;
/// The number that names one of a client's credentials.
pub type CredentialId = u64;
/// The number that names a session: one login and the token pairs that descend from it.
pub type SessionId = u64;
/// Seconds since 1970-01-01T00:00:00Z, without leap seconds (RFC 7519 "NumericDate").
pub type UnixSeconds = u64;
