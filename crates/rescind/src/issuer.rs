//! The signing keys, and the writing of tokens.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use hmac::{Hmac, Mac};
use rescind_verifier::{Key, KeyError, KeySet, Kind, Profile, Verifier, header_segment};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    model::{Session, UnixSeconds},
    random::Random,
    secret::{MasterKey, SealError, hmac_sha256},
    store::StoredKey,
};

/// What a login or refresh is answered with.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The access token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: String,
    /// When the access token expires.
    pub access_expires_at: UnixSeconds,
    /// When the refresh token expires.
    pub refresh_expires_at: UnixSeconds,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(…)")
    }
}

/// Why the keys in the store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// Not sealed under this master key.
    #[error("signing key {0}: {1}")]
    Sealed(String, SealError),
    /// Unsealed, and not usable.
    #[error("signing key {0}: {1}")]
    Key(String, KeyError),
    /// None of them signs.
    #[error("the store has no key to sign with")]
    NoneSigns,
}

/// Writes tokens with the key that signs now, and holds the verifier for all keys that are good.
pub struct Issuer {
    profile: Profile,
    keyring: ArcSwap<Keyring>,
}

/// The good keys at one moment.
pub struct Keyring {
    keys: Vec<SigningKey>,
    signing: u64,
    verifier: Verifier,
}

struct SigningKey {
    id: u64,
    mac: Hmac<Sha256>,
    access_header: String,
    refresh_header: String,
}

impl Issuer {
    /// An issuer with the keys in the store.
    pub fn new(profile: Profile, keys: &[StoredKey], master: &MasterKey) -> Result<Issuer, KeyringError> {
        let keyring = ArcSwap::from_pointee(Keyring::unseal(&profile, keys, master)?);
        Ok(Issuer { profile, keyring })
    }

    /// Goes over to other keys, at once for every request that begins after.
    pub fn set_keys(&self, keys: &[StoredKey], master: &MasterKey) -> Result<(), KeyringError> {
        self.keyring.store(Arc::new(Keyring::unseal(&self.profile, keys, master)?));
        Ok(())
    }

    /// The id of the key that signs now.
    pub fn signing_key(&self) -> u64 {
        self.keyring.load().signing
    }

    /// What every token says of its issuer and audience.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The keys of this moment.
    pub fn keyring(&self) -> arc_swap::Guard<Arc<Keyring>> {
        self.keyring.load()
    }

    /// The newest pair of a session: the same bytes whenever it is asked for. `None` if its key has
    /// been retired.
    pub fn pair(&self, session: &Session) -> Option<Pair> {
        let keyring = self.keyring.load();
        let key = keyring.keys.iter().find(|key| key.id == session.key)?;
        let write = |kind, expires_at| key.sign(kind, &session.claims(expires_at).write(&self.profile));
        Some(Pair {
            access_token: write(Kind::Access, session.access_expires_at),
            refresh_token: write(Kind::Refresh, session.refresh_expires_at),
            access_expires_at: session.access_expires_at,
            refresh_expires_at: session.refresh_expires_at,
        })
    }
}

impl Keyring {
    fn unseal(profile: &Profile, stored: &[StoredKey], master: &MasterKey) -> Result<Keyring, KeyringError> {
        let mut keys = Vec::with_capacity(stored.len());
        let mut good = Vec::with_capacity(stored.len());
        for StoredKey { id, kid, sealed, .. } in stored {
            let secret =
                master.open(&seal_name(kid), sealed).map_err(|e| KeyringError::Sealed(kid.clone(), e))?;
            good.push(Key::hs256(kid, &*secret).map_err(|e| KeyringError::Key(kid.clone(), e))?);
            keys.push(SigningKey {
                id: *id,
                mac: hmac_sha256(&secret),
                access_header: header_segment(kid, Kind::Access),
                refresh_header: header_segment(kid, Kind::Refresh),
            });
        }
        let signing = stored.iter().find(|key| key.retire_at.is_none()).ok_or(KeyringError::NoneSigns)?.id;
        Ok(Keyring { keys, signing, verifier: Verifier::new(KeySet::from_iter(good), profile.clone()) })
    }

    /// Decides over tokens of all the good keys.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}

impl SigningKey {
    fn sign(&self, kind: Kind, payload: &str) -> String {
        let mut token = match kind {
            Kind::Access => self.access_header.clone(),
            Kind::Refresh => self.refresh_header.clone(),
        };
        token.push('.');
        BASE64URL_NOPAD.encode_append(payload.as_bytes(), &mut token);
        let mut mac = self.mac.clone();
        mac.update(token.as_bytes());
        token.push('.');
        BASE64URL_NOPAD.encode_append(&mac.finalize().into_bytes(), &mut token);
        token
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// A new HS256 key, sealed for the store, which numbers it.
pub fn generate_key(master: &MasterKey, random: &Random, now: UnixSeconds) -> Result<StoredKey, SealError> {
    let mut kid = BASE32_NOPAD.encode(&*random.bytes::<10>());
    kid.make_ascii_lowercase();
    let secret: Zeroizing<[u8; 32]> = random.bytes();
    let sealed = master.seal(&seal_name(&kid), &secret, random)?;
    Ok(StoredKey { id: 0, kid, sealed, created_at: now, retire_at: None })
}

fn seal_name(kid: &str) -> String {
    format!("signing key {kid}")
}
