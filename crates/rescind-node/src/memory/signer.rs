//! The writing of tokens, and their signatures by the key's algorithm. All are deterministic, so that a pair can be
//! written again byte for byte.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, Encoder};
use ed25519_dalek::Signer as _;
use hmac::{Hmac, Mac};
use p256::ecdsa::Signature;
use rescind_base::{random::Random, secret::hmac_sha256};
use rescind_verifier::{Algorithm, Claims, Key, KeyError, Kind, Profile, header_segment};
use sha2::Sha256;
use zeroize::Zeroizing;

/// An upper bound of the length of a payload's members without `iss`, `aud` and `scope`.
const NUMBERS_AND_NAMES: usize = 240;
/// The same of `client_id` and `jti`, without the API key.
const CLIENT_ID_AND_JTI: usize = 64;
/// The dots and the longest signature of a token.
const SIGNATURE: usize = 2 + 86;

/// Writes tokens of one kind.
pub(super) struct Writer {
    header: String,
    profile: Profile,
    pub(super) signer: Signer,
}

/// A key that signs.
pub(super) enum Signer {
    /// HMAC-SHA-256.
    Hs256(Hmac<Sha256>),
    /// Ed25519 (RFC 8032), by its older name.
    EdDsa(Box<ed25519_dalek::SigningKey>),
    /// Ed25519, by its own name.
    Ed25519(Box<ed25519_dalek::SigningKey>),
    /// ECDSA over P-256, deterministic (RFC 6979).
    Es256(Box<p256::ecdsa::SigningKey>),
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// The point, encoded as in RFC 8032, with the name that the algorithm has for this key.
    Ed25519 { algorithm: Algorithm, point: [u8; 32] },
    /// The point's coordinates.
    Es256 { x: [u8; 32], y: [u8; 32] },
}

impl Writer {
    /// A writer of tokens of this kind and profile, signed by the key with this id.
    pub(super) fn new(kid: &str, kind: Kind, profile: Profile, signer: Signer) -> Writer {
        Writer { header: header_segment(signer.algorithm(), kid, kind), profile, signer }
    }

    /// Whether a token's header is this writer's.
    pub(super) fn is_of(&self, token: &str) -> bool {
        token.strip_prefix(&self.header).is_some_and(|rest| rest.starts_with('.'))
    }

    /// The token of these claims, with `client_id` and `jti` if the API key is given. It is the only allocation.
    pub(super) fn write(&self, claims: &Claims, api_key: Option<&str>) -> String {
        let (issuer, audience) = (self.profile.issuer(), self.profile.audience());
        // The quotes and the comma between two resources.
        let resources: usize = claims.resources.iter().map(|resource| resource.len() + 3).sum();
        let payload = NUMBERS_AND_NAMES
            + issuer.len()
            + audience.len().max(resources)
            + claims.scopes.as_str().len()
            + api_key.map_or(0, |api_key| CLIENT_ID_AND_JTI + api_key.len());
        let mut token =
            String::with_capacity(self.header.len() + BASE64URL_NOPAD.encode_len(payload) + SIGNATURE);
        token.push_str(&self.header);
        token.push('.');
        // The encoder takes every text.
        let _ =
            claims.write_to(&self.profile, api_key, &mut Encoded(BASE64URL_NOPAD.new_encoder(&mut token)));
        self.signer.sign(&mut token);
        token
    }
}

/// Encodes what is written into it.
struct Encoded<'a>(Encoder<'a>);

impl fmt::Write for Encoded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.append(text.as_bytes());
        Ok(())
    }
}

impl Signer {
    /// A random secret for a key of this algorithm.
    pub(super) fn generate(algorithm: Algorithm, random: &Random) -> Zeroizing<[u8; 32]> {
        loop {
            let secret = random.bytes();
            // One in 2^32 is no scalar of P-256.
            if Signer::new(algorithm, &secret).is_ok() {
                return secret;
            }
        }
    }

    /// The key of this secret.
    pub(super) fn new(algorithm: Algorithm, secret: &[u8; 32]) -> Result<Signer, KeyError> {
        Ok(match algorithm {
            Algorithm::Hs256 => Signer::Hs256(hmac_sha256(secret)),
            Algorithm::EdDsa => Signer::EdDsa(Box::new(ed25519_dalek::SigningKey::from_bytes(secret))),
            Algorithm::Ed25519 => Signer::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(secret))),
            Algorithm::Es256 => {
                let key = p256::ecdsa::SigningKey::from_slice(secret).map_err(|_| KeyError::NotOnCurve)?;
                Signer::Es256(Box::new(key))
            }
        })
    }

    /// The key that verifies this secret's signatures.
    pub(super) fn verification_key(
        algorithm: Algorithm,
        kid: &str,
        secret: &[u8; 32],
    ) -> Result<Key, KeyError> {
        match Signer::new(algorithm, secret)? {
            Signer::Hs256(_) => Key::hs256(kid, secret),
            Signer::EdDsa(key) => Key::eddsa(kid, &key.verifying_key().to_bytes()),
            Signer::Ed25519(key) => Key::ed25519(kid, &key.verifying_key().to_bytes()),
            Signer::Es256(key) => Key::es256(kid, key.verifying_key().to_sec1_point(false).as_bytes()),
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Signer::Hs256(_) => Algorithm::Hs256,
            Signer::EdDsa(_) => Algorithm::EdDsa,
            Signer::Ed25519(_) => Algorithm::Ed25519,
            Signer::Es256(_) => Algorithm::Es256,
        }
    }

    /// Appends a dot and the signature of the text before it.
    pub(super) fn sign(&self, token: &mut String) {
        let text = token.as_bytes();
        let mut signature = [0; 64];
        let signature = match self {
            Signer::Hs256(mac) => {
                signature[..32].copy_from_slice(&mac.clone().chain_update(text).finalize().into_bytes());
                &signature[..32]
            }
            Signer::EdDsa(key) | Signer::Ed25519(key) => {
                signature = key.sign(text).to_bytes();
                &signature
            }
            Signer::Es256(key) => {
                let signed: Signature = key.sign(text);
                // Of the two valid signatures, verifiers accept only this one (low s).
                signature.copy_from_slice(&signed.normalize_s().to_bytes());
                &signature
            }
        };
        token.push('.');
        BASE64URL_NOPAD.encode_append(signature, token);
    }

    /// The public key. `None` for HS256, whose only key is secret.
    pub(super) fn public(&self) -> Option<PublicKey> {
        match self {
            Signer::Hs256(_) => None,
            Signer::EdDsa(key) | Signer::Ed25519(key) => {
                let point = key.verifying_key().to_bytes();
                Some(PublicKey::Ed25519 { algorithm: self.algorithm(), point })
            }
            Signer::Es256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                Some(PublicKey::Es256 { x: (*point.x()?).into(), y: (*point.y()?).into() })
            }
        }
    }
}
