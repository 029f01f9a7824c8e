//! API keys and secrets: their text, their hash, and the sealing of the store's secrets.

mod pepper;

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    path::Path,
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

pub use pepper::{Hashes, Pepper, Peppers, SealedSecrets, SecretHash, TicketHash};

use crate::random::Random;

/// The name of a credential, sent as `username`: `rk_` and a text with a checksum.
pub type ApiKey = String;

pub const KEY_PREFIX: &str = "rk_";
pub const SECRET_PREFIX: &str = "rs_";
pub const VERIFIER_PREFIX: &str = "rv_";
pub const MANAGEMENT_PREFIX: &str = "rm_";
/// Of the link by which an administrator enrols, and of the cookie of a sign-in.
pub const ENROLMENT_PREFIX: &str = "re_";
pub const SIGN_IN_PREFIX: &str = "ri_";
/// Of the link by which a secret is handed over.
pub const HANDOVER_PREFIX: &str = "rh_";

/// Returns 256 random bits and their checksum, in base32. By the checksum scanners recognise a leaked secret.
fn generate(prefix: &str, random: &Random) -> Zeroizing<String> {
    text_of(prefix, &random.bytes())
}

fn text_of(prefix: &str, bits: &[u8; 32]) -> Zeroizing<String> {
    let mut body = Zeroizing::new([0; 36]);
    body[..32].copy_from_slice(bits);
    body[32..].copy_from_slice(&checksum(prefix, bits));
    let mut text = Zeroizing::new(BASE32_NOPAD.encode(&*body));
    text.make_ascii_lowercase();
    Zeroizing::new(format!("{prefix}{}", *text))
}

fn checksum(prefix: &str, body: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(prefix.as_bytes());
    crc.update(body);
    crc.finalize().to_be_bytes()
}

/// Returns whether `text` is exactly a generated text under this prefix.
pub fn is_well_formed(prefix: &str, text: &str) -> bool {
    bits(prefix, text).is_some()
}

/// Returns the random bits of a text that was generated under this prefix.
pub fn bits(prefix: &str, text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let body = text.strip_prefix(prefix).filter(|body| !body.bytes().any(|b| b.is_ascii_uppercase()))?;
    let body = BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes()).ok().map(Zeroizing::new)?;
    let (bits, sum) = body.split_first_chunk::<32>()?;
    (sum == checksum(prefix, bits)).then(|| Zeroizing::new(*bits))
}

/// Returns a new API key.
pub fn generate_api_key(random: &Random) -> ApiKey {
    generate(KEY_PREFIX, random).to_string()
}

/// An API secret, sent as `password`. It is shown once, at its creation, and never stored.
pub struct ApiSecret(Zeroizing<String>);

impl ApiSecret {
    /// Returns a new secret.
    pub fn generate(random: &Random) -> ApiSecret {
        ApiSecret(generate(SECRET_PREFIX, random))
    }

    /// Returns a new token with this prefix, which is treated like a secret.
    pub fn generate_token(prefix: &'static str, random: &Random) -> ApiSecret {
        ApiSecret(generate(prefix, random))
    }

    /// Returns the secret with these random bits.
    pub fn of_bits(bits: &[u8; 32]) -> ApiSecret {
        ApiSecret(text_of(SECRET_PREFIX, bits))
    }

    /// Returns the text, for the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiSecret(…)")
    }
}

/// Returns HMAC-SHA-256 with this key.
pub fn hmac_sha256(key: &[u8; 32]) -> Hmac<Sha256> {
    // A key shorter than the hash's block is filled up with zeros (RFC 2104 §2).
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    Hmac::new((&*block).into())
}

/// The key under which the store's own secrets are sealed (XChaCha20-Poly1305).
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// Why a master key, or a secret sealed under one, cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The text is not a key.
    #[error("a master key is 64 hexadecimal digits, as `openssl rand -hex 32` prints them")]
    BadKey,
    /// The secret was sealed under another key or another name, or is damaged.
    #[error("the store was sealed under another master key")]
    CannotOpen,
}

const NONCE_LENGTH: usize = 24;

impl MasterKey {
    /// Returns a new key.
    pub fn generate(random: &Random) -> MasterKey {
        MasterKey(random.bytes())
    }

    /// Returns the key that only a link has, from the link's random bits.
    pub fn of_link(bits: &[u8; 32]) -> MasterKey {
        let mut mac = hmac_sha256(bits);
        mac.update(b"handover");
        MasterKey(Zeroizing::new(mac.finalize().into_bytes().into()))
    }

    /// Reads 64 hexadecimal digits; white space around them is ignored.
    ///
    /// # Errors
    /// Fails if the text is not a key.
    pub fn parse(text: &str) -> Result<MasterKey, SealError> {
        let mut key = Zeroizing::new([0; 32]);
        let text = text.trim().as_bytes();
        if text.len() != 64 {
            return Err(SealError::BadKey);
        }
        HEXLOWER_PERMISSIVE.decode_mut(text, &mut *key).map_err(|_| SealError::BadKey)?;
        Ok(MasterKey(key))
    }

    /// Returns the key as 64 hexadecimal digits.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(&*self.0))
    }

    /// Seals a 256-bit secret. It opens only under the same `name`.
    ///
    /// # Errors
    /// Fails if the encryption fails.
    pub fn seal(&self, name: &str, secret: &[u8; 32], random: &Random) -> Result<Vec<u8>, SealError> {
        let nonce = random.bytes::<NONCE_LENGTH>();
        let payload = Payload { msg: secret, aad: name.as_bytes() };
        let sealed =
            self.cipher().encrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::CannotOpen)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`seal`](Self::seal) returned for the same name.
    ///
    /// # Errors
    /// Fails if the key or the name is another one, or `sealed` is damaged.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LENGTH>().ok_or(SealError::CannotOpen)?;
        let payload = Payload { msg: sealed, aad: name.as_bytes() };
        let opened = self.cipher().decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new);
        let opened = opened.map_err(|_| SealError::CannotOpen)?;
        let secret = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| SealError::CannotOpen)?;
        Ok(Zeroizing::new(secret))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// Returns a file's text, without white space at its end.
///
/// # Errors
/// Fails if the file cannot be read, or is not UTF-8.
pub fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = fs::read_to_string(path).map(Zeroizing::new).map_err(|e| match e.kind() {
        ErrorKind::InvalidData => io::Error::new(ErrorKind::InvalidData, "it is no text"),
        _ => e,
    })?;
    let end = text.trim_end().len();
    text.truncate(end);
    Ok(text)
}

/// Keys, secrets and tokens are words of at least this length.
const SECRET_LENGTH: usize = 40;

/// Returns a text of unknown origin without parts that may be a misplaced secret. Such parts are a long word, the
/// part of a URL before its `@`, and the lines of a private key.
pub fn shown(text: &str) -> String {
    if text.contains("-----BEGIN") {
        return "…".to_owned();
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || "+-./=_~%".contains(c);
    let mut shown = String::new();
    for part in text.split_inclusive(|c: char| !is_word(c)) {
        let word = part.trim_end_matches(|c: char| !is_word(c));
        // A path may be long, so each of its parts is looked at.
        let is_path = word.starts_with(['/', '.']);
        let is_long = |word: &str| word.len() >= SECRET_LENGTH;
        match is_path {
            true => {
                let parts = word.split('/').map(|part| if is_long(part) { "…" } else { part });
                shown.push_str(&parts.collect::<Vec<_>>().join("/"));
            }
            false => shown.push_str(if is_long(word) { "…" } else { word }),
        }
        shown.push_str(&part[word.len()..]);
    }
    match (shown.find("://"), shown.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => shown.replace_range(scheme + 3..at, "…"),
        _ => {}
    }
    shown
}

/// Returns whether a word of the text looks like a secret of this service or like one of its tokens.
pub fn is_within(text: &str) -> bool {
    const BEGINNINGS: [&str; 7] = [
        SECRET_PREFIX,
        VERIFIER_PREFIX,
        MANAGEMENT_PREFIX,
        ENROLMENT_PREFIX,
        SIGN_IN_PREFIX,
        HANDOVER_PREFIX,
        // Of the base64url of `{"`.
        "eyJ",
    ];
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
    words.any(|word| word.len() >= SECRET_LENGTH && BEGINNINGS.iter().any(|prefix| word.starts_with(prefix)))
}

/// Returns serde's message about a bad value, or that of the value's own type, without the value that serde quotes.
pub fn without_value(problem: &str) -> String {
    let quotes = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];
    let quoted =
        quotes.iter().any(|words| problem.starts_with(words)).then(|| problem.rsplit_once(", expected "));
    match quoted.flatten() {
        Some((_, "u8")) => "expected a whole number between 0 and 255".into(),
        Some((_, "u32")) => "expected a whole number between 0 and 4294967295".into(),
        Some((_, "u64" | "usize")) => "expected a whole number, 0 or more".into(),
        Some((_, "a boolean")) => "expected true or false".into(),
        Some((_, "a sequence")) => "expected a list".into(),
        Some((_, expected)) => format!("expected {expected}"),
        None if matches!(
            problem,
            "invalid digit found in string" | "cannot parse integer from empty string"
        ) =>
        {
            "expected a whole number, 0 or more".into()
        }
        None if problem == "number too large to fit in target type" => "expected a smaller number".into(),
        None if problem.starts_with("provided string was not `true`") => "expected true or false".into(),
        // This message is our own.
        None if problem.starts_with("expected ") => problem.to_owned(),
        None => shown(problem),
    }
}

#[cfg(test)]
mod tests;
