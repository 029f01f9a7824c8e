use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::{Denied, Kind};

/// The longest token, in bytes. A longer text is refused before anything of it is decoded. The longest token
/// that the issuer writes, with every field at its limit, is well below this.
pub const MAX_TOKEN_LENGTH: usize = 4096;

/// The lengths of signatures of 32 and 64 bytes, as base64url.
const SIGNATURE_LENGTHS: [usize; 2] = [43, 86];

/// How tokens are signed. The algorithm is a property of the key, and never read from a token.
///
/// The list is closed: every verifier must know an algorithm before an issuer may sign with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256 (RFC 7518 §3.2). A program that can verify can also sign.
    Hs256,
    /// Ed25519, by the name that JOSE has for all curves of Edwards (RFC 8037 §3.1).
    EdDsa,
    /// Ed25519, by its own name (RFC 9864 §2.2).
    Ed25519,
    /// ECDSA with P-256 and SHA-256 (RFC 7518 §3.4).
    Es256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 4] =
        [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Ed25519, Algorithm::Es256];

    /// The value of the header's `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::Es256 => "ES256",
        }
    }

    /// The algorithm whose `alg` is `name`. `None`: there is none.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.name() == name)
    }

    /// The length of a signature, in bytes.
    fn signature_length(self) -> usize {
        match self {
            Algorithm::Hs256 => 32,
            Algorithm::EdDsa | Algorithm::Ed25519 | Algorithm::Es256 => 64,
        }
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// An HS256 secret is shorter than 256 bits, which RFC 7518 §3.2 demands.
    #[error("an HS256 key has at least 256 bits")]
    TooShort,
    /// The key id has a character that would need escaping in the header, is empty or too long.
    #[error("a key id is 1 to 64 letters, digits, - or _")]
    BadId,
    /// The bytes of a public key are no point of its curve.
    #[error("the public key is not on its curve")]
    NotOnCurve,
}

/// A verification key, for tokens of one kind.
#[derive(Clone)]
pub struct Key {
    id: String,
    material: Material,
    kind: Kind,
    /// The first segment of every token signed with the key.
    header: String,
}

#[derive(Clone)]
enum Material {
    Hs256(Hmac<Sha256>),
    #[cfg(feature = "asymmetric")]
    EdDsa(ed25519_dalek::VerifyingKey),
    #[cfg(feature = "asymmetric")]
    Ed25519(ed25519_dalek::VerifyingKey),
    #[cfg(feature = "asymmetric")]
    Es256(p256::ecdsa::VerifyingKey),
}

/// A key verifies access tokens, unless it is made [for refresh tokens](Key::for_refresh_tokens).
impl Key {
    /// An HS256 key of at least 256 bits.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooShort`] and [`KeyError::BadId`].
    pub fn hs256(id: &str, secret: &[u8]) -> Result<Key, KeyError> {
        if secret.len() < 32 {
            return Err(KeyError::TooShort);
        }
        let mac = Hmac::new_from_slice(secret).map_err(|_| KeyError::TooShort)?;
        Key::new(id, Material::Hs256(mac))
    }

    /// An Ed25519 public key (RFC 8032 §5.1.5), for tokens whose `alg` is `EdDSA`.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotOnCurve`] and [`KeyError::BadId`].
    #[cfg(feature = "asymmetric")]
    pub fn eddsa(id: &str, public: &[u8; 32]) -> Result<Key, KeyError> {
        Key::new(id, Material::EdDsa(edwards_point(public)?))
    }

    /// An Ed25519 public key (RFC 8032 §5.1.5), for tokens whose `alg` is `Ed25519`.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotOnCurve`] and [`KeyError::BadId`].
    #[cfg(feature = "asymmetric")]
    pub fn ed25519(id: &str, public: &[u8; 32]) -> Result<Key, KeyError> {
        Key::new(id, Material::Ed25519(edwards_point(public)?))
    }

    /// A P-256 public key, as SEC 1 §2.3.3 writes points.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotOnCurve`] and [`KeyError::BadId`].
    #[cfg(feature = "asymmetric")]
    pub fn es256(id: &str, public: &[u8]) -> Result<Key, KeyError> {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(public).map_err(|_| KeyError::NotOnCurve)?;
        Key::new(id, Material::Es256(key))
    }

    fn new(id: &str, material: Material) -> Result<Key, KeyError> {
        if !(1..=64).contains(&id.len())
            || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(KeyError::BadId);
        }
        Ok(Key::of_kind(Kind::Access, id.to_owned(), material))
    }

    fn of_kind(kind: Kind, id: String, material: Material) -> Key {
        let header = header_segment(material.algorithm(), &id, kind);
        Key { id, material, kind, header }
    }

    /// The same key for refresh tokens, and for no access tokens. Only the issuer needs it: refresh tokens
    /// are presented to nobody else.
    pub fn for_refresh_tokens(self) -> Key {
        Key::of_kind(Kind::Refresh, self.id, self.material)
    }
}

#[cfg(feature = "asymmetric")]
fn edwards_point(public: &[u8; 32]) -> Result<ed25519_dalek::VerifyingKey, KeyError> {
    ed25519_dalek::VerifyingKey::from_bytes(public).map_err(|_| KeyError::NotOnCurve)
}

impl Material {
    fn algorithm(&self) -> Algorithm {
        match self {
            Material::Hs256(_) => Algorithm::Hs256,
            #[cfg(feature = "asymmetric")]
            Material::EdDsa(_) => Algorithm::EdDsa,
            #[cfg(feature = "asymmetric")]
            Material::Ed25519(_) => Algorithm::Ed25519,
            #[cfg(feature = "asymmetric")]
            Material::Es256(_) => Algorithm::Es256,
        }
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Material::Hs256(mac) => mac.clone().chain_update(signed).verify_slice(signature).is_ok(),
            #[cfg(feature = "asymmetric")]
            Material::EdDsa(key) | Material::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(signed, &signature).is_ok()),
            #[cfg(feature = "asymmetric")]
            Material::Es256(key) => {
                use p256::ecdsa::{Signature, signature::Verifier};
                // A signature with s negated is valid too (SEC 1 §4.1.4), so anybody could make a second text
                // of a token. The issuer writes the lower s, and only that is accepted.
                Signature::from_slice(signature).is_ok_and(|signature| {
                    signature == signature.normalize_s() && key.verify(signed, &signature).is_ok()
                })
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The first segment of every token of this kind that is signed with a key of this algorithm and id.
pub fn header_segment(algorithm: Algorithm, key_id: &str, kind: Kind) -> String {
    let (alg, typ) = (algorithm.name(), kind.typ());
    BASE64URL_NOPAD.encode(format!(r#"{{"alg":"{alg}","typ":"{typ}","kid":"{key_id}"}}"#).as_bytes())
}

/// The keys that tokens may be signed with.
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Finds the key by the token's header and checks the signature. Returns the key's kind and the payload, as
    /// base64url.
    pub(crate) fn open<'t>(&self, token: &'t str) -> Result<(Kind, &'t str), Denied> {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(Denied::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Denied::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Denied::Malformed)?;
        if !SIGNATURE_LENGTHS.contains(&signature.len()) {
            return Err(Denied::Malformed);
        }
        let key = self.0.iter().find(|key| key.header == header).ok_or(Denied::UnknownKey)?;

        let mut buffer = [0; 64];
        let signature = decode(signature, &mut buffer)?;
        if signature.len() != key.material.algorithm().signature_length() {
            return Err(Denied::Malformed);
        }
        if !key.material.verify(signed.as_bytes(), signature) {
            return Err(Denied::BadSignature);
        }
        Ok((key.kind, payload))
    }
}

/// Decodes a segment into the buffer.
pub(crate) fn decode<'b>(segment: &str, buffer: &'b mut [u8]) -> Result<&'b [u8], Denied> {
    let length = BASE64URL_NOPAD.decode_len(segment.len()).map_err(|_| Denied::Malformed)?;
    let bytes = buffer.get_mut(..length).ok_or(Denied::Malformed)?;
    BASE64URL_NOPAD.decode_mut(segment.as_bytes(), bytes).map_err(|_| Denied::Malformed)?;
    Ok(bytes)
}

impl FromIterator<Key> for KeySet {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        KeySet(keys.into_iter().collect())
    }
}
