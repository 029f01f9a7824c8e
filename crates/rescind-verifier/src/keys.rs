use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::{Denied, Kind};

/// Longer texts are refused before anything is decoded. The longest token the issuer writes, with
/// every field at its limit, is well below it.
pub const MAX_TOKEN_LENGTH: usize = 4096;

/// What a payload of a token of that length decodes to.
const MAX_PAYLOAD_LENGTH: usize = MAX_TOKEN_LENGTH / 4 * 3;

/// An HS256 tag (RFC 7518 §3.2), as base64url.
const TAG_LENGTH: usize = 43;

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// RFC 7518 §3.2 asks for at least the hash's size.
    #[error("an HS256 key has at least 256 bits")]
    TooShort,
    /// The id goes into the header unescaped.
    #[error("a key id is 1 to 64 letters, digits, - or _")]
    BadId,
}

/// A verification key. The algorithm belongs to the key, never to the token.
#[derive(Clone)]
pub struct Key {
    id: String,
    mac: Hmac<Sha256>,
    access_header: String,
    refresh_header: String,
}

impl Key {
    /// An HS256 key of at least 256 bits.
    pub fn hs256(id: &str, secret: &[u8]) -> Result<Key, KeyError> {
        if secret.len() < 32 {
            return Err(KeyError::TooShort);
        }
        if !(1..=64).contains(&id.len())
            || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(KeyError::BadId);
        }
        Ok(Key {
            id: id.to_owned(),
            mac: Hmac::new_from_slice(secret).map_err(|_| KeyError::TooShort)?,
            access_header: header_segment(id, Kind::Access),
            refresh_header: header_segment(id, Kind::Refresh),
        })
    }

    fn kind_of(&self, header: &str) -> Option<Kind> {
        if header == self.access_header {
            Some(Kind::Access)
        } else if header == self.refresh_header {
            Some(Kind::Refresh)
        } else {
            None
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The first segment of every token of this kind signed with this HS256 key.
pub fn header_segment(key_id: &str, kind: Kind) -> String {
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","typ":"{}","kid":"{key_id}"}}"#, kind.typ()))
}

/// The keys whose tokens are good.
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Finds the key by the token's header, checks the signature and decodes the payload.
    pub(crate) fn open(&self, token: &str) -> Result<(Kind, Payload), Denied> {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(Denied::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Denied::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Denied::Malformed)?;
        if signature.len() != TAG_LENGTH {
            return Err(Denied::Malformed);
        }
        let (key, kind) =
            self.0.iter().find_map(|key| Some((key, key.kind_of(header)?))).ok_or(Denied::UnknownKey)?;

        let mut tag = [0; 32];
        let length = URL_SAFE_NO_PAD.decode_slice(signature, &mut tag).map_err(|_| Denied::Malformed)?;
        let mut mac = key.mac.clone();
        mac.update(signed.as_bytes());
        mac.verify_slice(&tag[..length]).map_err(|_| Denied::BadSignature)?;

        let mut bytes = [0; MAX_PAYLOAD_LENGTH];
        let length = URL_SAFE_NO_PAD.decode_slice(payload, &mut bytes).map_err(|_| Denied::Malformed)?;
        Ok((kind, Payload { bytes, length }))
    }
}

impl FromIterator<Key> for KeySet {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        KeySet(keys.into_iter().collect())
    }
}

/// A decoded payload whose signature was good.
pub(crate) struct Payload {
    bytes: [u8; MAX_PAYLOAD_LENGTH],
    length: usize,
}

impl Payload {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
