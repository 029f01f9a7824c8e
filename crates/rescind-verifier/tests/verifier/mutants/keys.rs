//! Keys of every kind, and the tokens that an issuer writes with them.

use ed25519_dalek::Signer as _;
use hmac::{Hmac, KeyInit, Mac};
use rescind_verifier::{Algorithm, Claims, Key, KeySet, Kind, Profile, Verifier};
use sha2::Sha256;

use crate::fixture::{base64url, client_id, profile};

/// The keys that the verifier knows: half of them with a secret, half with a curve.
pub(super) const KEYS: [TestKey; 4] = [
    TestKey { id: "h1", algorithm: Algorithm::Hs256, seed: 1 },
    TestKey { id: "h2", algorithm: Algorithm::Hs256, seed: 2 },
    TestKey { id: "ed", algorithm: Algorithm::EdDsa, seed: 3 },
    TestKey { id: "es", algorithm: Algorithm::Es256, seed: 4 },
];

/// Keys of somebody else, with the ids of ours.
pub(super) const STRANGERS: [TestKey; 3] = [
    TestKey { id: "h1", algorithm: Algorithm::Hs256, seed: 11 },
    TestKey { id: "ed", algorithm: Algorithm::EdDsa, seed: 13 },
    TestKey { id: "es", algorithm: Algorithm::Es256, seed: 14 },
];

#[derive(Debug, Clone, Copy)]
pub(super) struct TestKey {
    pub(super) id: &'static str,
    pub(super) algorithm: Algorithm,
    seed: u8,
}

impl TestKey {
    /// The HMAC secret, the Ed25519 seed or the P-256 scalar.
    pub(super) fn secret(self) -> [u8; 32] {
        [self.seed; 32]
    }

    fn ed25519(self) -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&self.secret())
    }

    fn p256(self) -> p256::ecdsa::SigningKey {
        p256::ecdsa::SigningKey::from_slice(&self.secret()).unwrap()
    }

    /// The verification key: the secret itself, the 32 bytes of RFC 8032, or the point of SEC 1.
    pub(super) fn verification_bytes(self) -> Vec<u8> {
        match self.algorithm {
            Algorithm::Hs256 => self.secret().to_vec(),
            Algorithm::EdDsa | Algorithm::Ed25519 => self.ed25519().verifying_key().to_bytes().to_vec(),
            Algorithm::Es256 => self.p256().verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        }
    }

    pub(super) fn key(self) -> Key {
        let bytes = self.verification_bytes();
        match self.algorithm {
            Algorithm::Hs256 => Key::hs256(self.id, &bytes),
            Algorithm::EdDsa => Key::eddsa(self.id, &bytes.try_into().unwrap()),
            Algorithm::Ed25519 => Key::ed25519(self.id, &bytes.try_into().unwrap()),
            Algorithm::Es256 => Key::es256(self.id, &bytes),
        }
        .unwrap()
    }

    pub(super) fn signature(self, text: &str) -> Vec<u8> {
        match self.algorithm {
            Algorithm::Hs256 => hs256(&self.secret(), text),
            Algorithm::EdDsa | Algorithm::Ed25519 => self.ed25519().sign(text.as_bytes()).to_bytes().to_vec(),
            Algorithm::Es256 => {
                let signature: p256::ecdsa::Signature = self.p256().sign(text.as_bytes());
                signature.normalize_s().to_bytes().to_vec()
            }
        }
    }

    /// Adds the signature to any text at all.
    pub(super) fn sign(self, text: &str) -> String {
        format!("{text}.{}", base64url(self.signature(text)))
    }

    /// A header as the issuer writes it, in clear.
    pub(super) fn header(self, kind: Kind) -> String {
        let TestKey { id, algorithm, .. } = self;
        format!(r#"{{"alg":"{}","typ":"{}","kid":"{id}"}}"#, algorithm.name(), kind.typ())
    }

    /// A token of any header and payload.
    pub(super) fn mint(self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        self.sign(&format!("{}.{}", base64url(header), base64url(payload)))
    }

    /// A token as the issuer writes it.
    pub(super) fn issue(self, kind: Kind, claims: &Claims, profile: &Profile) -> String {
        self.mint(self.header(kind), claims.write(profile, client_id(kind)))
    }
}

pub(super) fn hs256(secret: &[u8], text: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

pub(super) fn verifier() -> Verifier {
    let keys = KEYS.map(TestKey::key).into_iter().flat_map(|key| [key.clone(), key.for_refresh_tokens()]);
    Verifier::new(KeySet::from_iter(keys), profile())
}
