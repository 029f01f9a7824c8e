//! Keys that are made from their names, and the texts that are signed with them.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::Signer as _;
use hmac::{Hmac, KeyInit, Mac};
use rescind_verifier::{Algorithm, Claims, Kind};
use sha2::{Digest, Sha256};

use super::{format, profile, written};

#[derive(Clone, Copy)]
pub(super) struct TestKey {
    pub(super) kid: &'static str,
    pub(super) algorithm: Algorithm,
}

pub(super) const CURRENT: TestKey = TestKey { kid: "current", algorithm: Algorithm::Hs256 };
/// A key that is still in the key set.
pub(super) const PREVIOUS: TestKey = TestKey { kid: "previous", algorithm: Algorithm::Hs256 };
/// A key that is in no key set any more.
pub(super) const RETIRED: TestKey = TestKey { kid: "retired", algorithm: Algorithm::Hs256 };
pub(super) const ED: TestKey = TestKey { kid: "ed", algorithm: Algorithm::EdDsa };
pub(super) const ED25519: TestKey = TestKey { kid: "ed25519", algorithm: Algorithm::Ed25519 };
pub(super) const ES: TestKey = TestKey { kid: "es", algorithm: Algorithm::Es256 };

/// The keys of a verifier of the vectors.
pub(super) const GOOD: [TestKey; 5] = [CURRENT, PREVIOUS, ED, ED25519, ES];

impl TestKey {
    /// The HMAC secret, the Ed25519 seed or the P-256 scalar.
    pub(super) fn secret(self) -> [u8; 32] {
        Sha256::digest(format!("rescind test vectors: {}", self.kid)).into()
    }

    /// The key in the form that a verifier gets.
    pub(super) fn verification_bytes(self) -> Vec<u8> {
        match self.algorithm {
            Algorithm::Hs256 => self.secret().to_vec(),
            Algorithm::EdDsa | Algorithm::Ed25519 => self.ed25519().verifying_key().to_bytes().to_vec(),
            Algorithm::Es256 => self.p256().verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        }
    }

    fn ed25519(self) -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&self.secret())
    }

    fn p256(self) -> p256::ecdsa::SigningKey {
        p256::ecdsa::SigningKey::from_slice(&self.secret()).unwrap()
    }

    fn signature(self, text: &str) -> Vec<u8> {
        match self.algorithm {
            Algorithm::Hs256 => hs256(&self.secret(), text),
            Algorithm::EdDsa | Algorithm::Ed25519 => self.ed25519().sign(text.as_bytes()).to_bytes().to_vec(),
            Algorithm::Es256 => {
                let signature: p256::ecdsa::Signature = self.p256().sign(text.as_bytes());
                signature.normalize_s().to_bytes().to_vec()
            }
        }
    }

    /// The other ES256 signature of a text, with n − s for s.
    pub(super) fn sign_high(self, text: &str) -> String {
        let (r, s) = p256::ecdsa::Signature::from_slice(&self.signature(text)).unwrap().split_scalars();
        let twin = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
        format!("{text}.{}", base64url(twin.to_bytes()))
    }

    /// Adds the signature to any text at all.
    pub(super) fn sign(self, text: &str) -> String {
        format!("{text}.{}", base64url(self.signature(text)))
    }

    /// A header as the issuer writes it, in clear.
    pub(super) fn header(self, kind: Kind) -> String {
        let TestKey { kid, algorithm } = self;
        format!(r#"{{"alg":"{}","typ":"{}","kid":"{kid}"}}"#, algorithm.name(), kind.typ())
    }

    /// A token of any header and payload.
    pub(super) fn mint(self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        self.sign(&format!("{}.{}", base64url(header), base64url(payload)))
    }

    /// An access token as the issuer writes it.
    pub(super) fn issue(self, claims: &Claims) -> String {
        self.mint(self.header(Kind::Access), written(claims))
    }

    /// Adds the tag of the secret that signs refresh tokens. No verifier gets this secret.
    pub(super) fn sign_refresh(self, text: &str) -> String {
        let secret = Sha256::digest(format!("rescind test vectors: {}, refresh tokens", self.kid));
        format!("{text}.{}", base64url(hs256(&secret, text)))
    }

    /// A refresh token as the issuer writes it.
    pub(super) fn issue_refresh(self, claims: &Claims) -> String {
        let header = TestKey { algorithm: Algorithm::Hs256, ..self }.header(Kind::Refresh);
        let payload = claims.write(&profile().of_refresh_tokens(), None);
        self.sign_refresh(&format!("{}.{}", base64url(header), base64url(payload)))
    }

    fn entry(self) -> format::Key {
        let bytes = base64url(self.verification_bytes());
        let symmetric = self.algorithm == Algorithm::Hs256;
        format::Key {
            kid: self.kid.to_owned(),
            alg: self.algorithm.name().to_owned(),
            secret: symmetric.then(|| bytes.clone()),
            public: (!symmetric).then_some(bytes),
        }
    }
}

pub(super) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

pub(super) fn hs256(secret: &[u8], text: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

pub(super) fn good() -> Vec<format::Key> {
    GOOD.map(TestKey::entry).into()
}

/// Keys that every verifier must refuse.
pub(super) fn refused() -> Vec<format::Key> {
    let hs256 = |kid: &str, length: usize| format::Key {
        kid: kid.to_owned(),
        alg: "HS256".to_owned(),
        secret: Some(base64url(vec![1; length])),
        public: None,
    };
    let public = |alg: &str, bytes: &[u8]| format::Key {
        kid: "k".to_owned(),
        alg: alg.to_owned(),
        secret: None,
        public: Some(base64url(bytes)),
    };
    let mut refused: Vec<format::Key> = [0, 16, 31].map(|length| hs256("short", length)).into();
    refused.extend(["", "a.b", "a/b", "a\"b", "a b", "a\0", "ä", &"k".repeat(65)].map(|kid| hs256(kid, 32)));
    refused.extend([
        public("EdDSA", &[2; 32]),
        public("EdDSA", &[]),
        public("Ed25519", &[2; 32]),
        public("ES256", &[4; 65]),
        public("ES256", &[0]),
        public("ES256", &[]),
    ]);
    refused
}
