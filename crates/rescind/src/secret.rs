//! API keys and secrets: their text, their hash, and the sealing of the store's secrets.

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
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::random::Random;

/// The name of a credential, sent as `username`: `rk_` and a text with a checksum.
pub type ApiKey = String;

const KEY_PREFIX: &str = "rk_";
const SECRET_PREFIX: &str = "rs_";
const VERIFIER_PREFIX: &str = "rv_";

/// Returns 256 random bits and their checksum, in base32. By the checksum scanners recognise a leaked secret.
fn generate(prefix: &str, random: &Random) -> Zeroizing<String> {
    let random = random.bytes::<32>();
    let mut body = Zeroizing::new([0; 36]);
    body[..32].copy_from_slice(&*random);
    body[32..].copy_from_slice(&checksum(prefix, &*random));
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

    /// Returns a new verifier token, which is treated like a secret.
    pub fn generate_verifier_token(random: &Random) -> ApiSecret {
        ApiSecret(generate(VERIFIER_PREFIX, random))
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

/// HMAC-SHA-256 of an API secret under the pepper. The secrets have 256 random bits, so one fast keyed hash is enough
/// (NIST SP 800-63B §5.1.2.2). Without the pepper, guesses cannot be checked against a stolen table.
#[derive(Clone, Copy, Eq)]
pub struct SecretHash(pub [u8; 32]);

/// Compares in constant time.
impl PartialEq for SecretHash {
    fn eq(&self, other: &SecretHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// Returns HMAC-SHA-256 with this key.
pub fn hmac_sha256(key: &[u8; 32]) -> Hmac<Sha256> {
    // A key shorter than the hash's block is filled up with zeros (RFC 2104 §2).
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    Hmac::new((&*block).into())
}

/// The key of the hashes of secrets.
pub struct Pepper(Hmac<Sha256>);

impl Pepper {
    /// Makes the pepper from 256 random bits.
    pub fn new(key: &[u8; 32]) -> Pepper {
        Pepper(hmac_sha256(key))
    }

    /// Returns the hash that the store keeps of a secret.
    pub fn hash(&self, secret: &str) -> SecretHash {
        let mut mac = self.0.clone();
        mac.update(secret.as_bytes());
        SecretHash(mac.finalize().into_bytes().into())
    }
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

/// The name under which the pepper is sealed.
pub const PEPPER: &str = "pepper";
const NONCE_LENGTH: usize = 24;

impl MasterKey {
    /// Returns a new key.
    pub fn generate(random: &Random) -> MasterKey {
        MasterKey(random.bytes())
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

/// Returns serde's message about a bad value, without the value that serde quotes.
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
        // This message is our own.
        None if problem.starts_with("expected ") => problem.to_owned(),
        None => shown(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 108
    #[test]
    fn what_might_be_a_secret_is_not_shown() {
        let random = Random::seeded(5);
        let secret = ApiSecret::generate(&random);
        let key = MasterKey::generate(&random).to_text();
        for (text, expected) in [
            ("10.0.0.1/8 has host bits set: the network is 10.0.0.0/8", None),
            ("limits.failed_logins_per_minute", None),
            ("/var/lib/rescind/with/a/path/that/is/longer/than/that", None),
            ("2001:0db8:0000:0000:0000:0000:0000:0000/128", None),
            ("", None),
            ("ä", None),
            (secret.expose(), Some("…")),
            (&key, Some("…")),
            (&format!("/auth/logout/{}", secret.expose()), Some("/auth/logout/…")),
            (&format!("\"{}\"", *key), Some("\"…\"")),
            (&"ab/+".repeat(10), Some("…")),
            ("postgres://u:canary@db/x", Some("postgres://…@db/x")),
            ("\"postgres://u:can@ary@db/x\"", Some("\"postgres://…@db/x\"")),
            ("-----BEGIN PRIVATE KEY-----\nAA", Some("…")),
        ] {
            assert_eq!(shown(text), expected.unwrap_or(text));
        }
    }

    /// Returns whether `text` is exactly a text that [`generate`] writes under this prefix.
    fn is_well_formed(prefix: &str, text: &str) -> bool {
        let Some(body) = text.strip_prefix(prefix) else { return false };
        if body.bytes().any(|b| b.is_ascii_uppercase()) {
            return false;
        }
        let Ok(body) = BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes()).map(Zeroizing::new) else {
            return false;
        };
        body.len() == 36 && body[32..] == checksum(prefix, &body[..32])
    }

    // check 73
    #[test]
    fn keys_and_secrets_are_told_apart_and_checked() {
        let random = Random::seeded(1);
        let key = generate_api_key(&random);
        let secret = ApiSecret::generate(&random);
        assert!(is_well_formed(KEY_PREFIX, &key), "{key}");
        assert!(is_well_formed(SECRET_PREFIX, secret.expose()));
        assert_eq!((key.len(), secret.expose().len()), (61, 61));
        assert!(!is_well_formed(KEY_PREFIX, secret.expose()));
        assert!(!is_well_formed(KEY_PREFIX, &key.replacen("rk_", "rs_", 1)));
        assert!(
            !is_well_formed(KEY_PREFIX, &key.to_uppercase())
                && !is_well_formed(KEY_PREFIX, &key[..60])
                && !is_well_formed(KEY_PREFIX, "")
        );
        for i in 3..key.len() {
            let mut typo = key.clone().into_bytes();
            typo[i] = if typo[i] == b'a' { b'b' } else { b'a' };
            assert!(!is_well_formed(KEY_PREFIX, std::str::from_utf8(&typo).unwrap()), "position {i}");
        }
    }

    // check 73
    #[test]
    fn a_secret_is_the_next_256_bits_of_randomness_and_nothing_else() {
        let (random, same) = (Random::seeded(1), Random::seeded(1));
        for _ in 0..100 {
            for text in [generate_api_key(&random), ApiSecret::generate(&random).expose().to_owned()] {
                let body = BASE32_NOPAD.decode(text[3..].to_ascii_uppercase().as_bytes()).unwrap();
                assert_eq!(body[..32], *same.bytes::<32>());
            }
        }
        // Each bit of the system's randomness is set in about 500 of 1000 secrets. Less than one run in 10^20 would
        // leave this range.
        let mut set = [0; 256];
        for _ in 0..1000 {
            let secret = ApiSecret::generate(&Random::System);
            let body = BASE32_NOPAD.decode(secret.expose()[3..].to_ascii_uppercase().as_bytes()).unwrap();
            set.iter_mut().enumerate().for_each(|(i, set)| *set += usize::from(body[i / 8] >> (i % 8) & 1));
        }
        assert!(set.iter().all(|set| (350..=650).contains(set)), "{set:?}");
    }

    /// `printf %s rs_… | openssl dgst -sha256 -mac HMAC -macopt hexkey:808182…9e9f`
    // check 74
    #[test]
    fn the_hash_is_hmac_sha_256_under_the_pepper() {
        let pepper: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let hash = Pepper::new(&pepper).hash("rs_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypybnsdxi");
        let expected = "3d720aaf18e49b14dc7116751b2b83363a5f1a71e51fbe013a6feb1201c6e6b5";
        assert_eq!(HEXLOWER.encode(&hash.0), expected);
    }

    // check 74
    #[test]
    fn hashes_depend_on_secret_and_pepper() {
        let (one, two) = (Pepper::new(&[1; 32]), Pepper::new(&[2; 32]));
        assert!(one.hash("a") == one.hash("a"));
        assert!(one.hash("a") != one.hash("b"));
        assert!(one.hash("a") != two.hash("a"));
    }

    #[test]
    fn sealed_secrets_open_under_the_same_key_and_name_only() {
        let random = Random::seeded(2);
        let master = MasterKey::generate(&random);
        let mut sealed = master.seal("pepper", &[7; 32], &random).unwrap();
        assert_eq!(*master.open("pepper", &sealed).unwrap(), [7; 32]);
        assert_eq!(master.open("key", &sealed).unwrap_err(), SealError::CannotOpen);
        assert_eq!(MasterKey::generate(&random).open("pepper", &sealed).unwrap_err(), SealError::CannotOpen);
        assert_eq!(master.open("pepper", &sealed[..20]).unwrap_err(), SealError::CannotOpen);
        sealed[30] ^= 1;
        assert_eq!(master.open("pepper", &sealed).unwrap_err(), SealError::CannotOpen);
    }

    #[test]
    fn master_keys_are_64_hexadecimal_digits() {
        let master = MasterKey::generate(&Random::seeded(3));
        let again = MasterKey::parse(&format!(" {}\n", master.to_text().to_uppercase())).unwrap();
        assert_eq!(*again.to_text(), *master.to_text());
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(MasterKey::parse(bad).unwrap_err(), SealError::BadKey);
        }
    }

    // check 79
    #[test]
    fn debug_shows_nothing() {
        let secret = ApiSecret::generate(&Random::seeded(4));
        assert_eq!(format!("{secret:?}"), "ApiSecret(…)");
        assert_eq!(format!("{:?}", SecretHash([1; 32])), "SecretHash(…)");
    }
}
