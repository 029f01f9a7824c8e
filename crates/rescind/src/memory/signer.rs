//! Signatures by the key's algorithm. All are deterministic, so that a pair can be written again byte for
//! byte.

use ed25519_dalek::Signer as _;
use hmac::{Hmac, Mac};
use p256::ecdsa::Signature;
use rescind_verifier::{Algorithm, Key, KeyError};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{random::Random, secret::hmac_sha256};

/// A key that signs.
pub(super) enum Signer {
    /// HMAC-SHA-256.
    Hs256(Hmac<Sha256>),
    /// Ed25519 (RFC 8032).
    EdDsa(Box<ed25519_dalek::SigningKey>),
    /// ECDSA over P-256, deterministic (RFC 6979).
    Es256(Box<p256::ecdsa::SigningKey>),
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// The point, encoded as in RFC 8032.
    EdDsa([u8; 32]),
    /// The point's coordinates.
    Es256 { x: [u8; 32], y: [u8; 32] },
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
            Signer::Es256(key) => Key::es256(kid, key.verifying_key().to_sec1_point(false).as_bytes()),
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Signer::Hs256(_) => Algorithm::Hs256,
            Signer::EdDsa(_) => Algorithm::EdDsa,
            Signer::Es256(_) => Algorithm::Es256,
        }
    }

    pub(super) fn sign(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Signer::Hs256(mac) => mac.clone().chain_update(text).finalize().into_bytes().to_vec(),
            Signer::EdDsa(key) => key.sign(text).to_bytes().to_vec(),
            Signer::Es256(key) => {
                let signature: Signature = key.sign(text);
                // Of the two valid signatures, verifiers accept only this one (low s).
                signature.normalize_s().to_bytes().to_vec()
            }
        }
    }

    /// The public key. `None` for HS256, whose only key is secret.
    pub(super) fn public(&self) -> Option<PublicKey> {
        match self {
            Signer::Hs256(_) => None,
            Signer::EdDsa(key) => Some(PublicKey::EdDsa(key.verifying_key().to_bytes())),
            Signer::Es256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                Some(PublicKey::Es256 { x: (*point.x()?).into(), y: (*point.y()?).into() })
            }
        }
    }
}
