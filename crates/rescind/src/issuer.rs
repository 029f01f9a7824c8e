//! The signing keys, and the writing of tokens.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use rescind_verifier::{
    Algorithm, ClientId, Key, KeyError, KeySet, Kind, Profile, Verifier, follow::wire::WireKey,
    header_segment,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    model::{Session, UnixSeconds},
    random::Random,
    secret::{MasterKey, SealError},
    signer::{PublicKey, Signer},
    store::StoredKey,
};

/// A key goes when its last token has run out, or by hand.
const FORMER_KEYS: usize = 16;

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

/// The good keys at one moment, the newest last.
pub struct Keyring {
    keys: Vec<SigningKey>,
    verifier: Verifier,
    former: Former,
}

/// Keys that went while this process ran, the last few. They tell whose an old token was, and decide
/// nothing.
struct Former {
    keys: Vec<Key>,
    verifier: Verifier,
}

struct SigningKey {
    id: u64,
    kid: String,
    signs_from: UnixSeconds,
    signer: Signer,
    verification: Key,
    secret: Zeroizing<[u8; 32]>,
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
        let known = self.keyring.load();
        let new = Keyring::unseal(&self.profile, keys, master)?;
        let gone = known.keys.iter().filter(|key| new.keys.iter().all(|other| other.id != key.id));
        let mut former = known.former.keys.clone();
        former.extend(gone.map(|key| key.verification.clone()));
        former.drain(..former.len().saturating_sub(FORMER_KEYS));
        self.keyring.store(Arc::new(Keyring { former: Former::new(former, &self.profile), ..new }));
        Ok(())
    }

    /// The id of the key that signs now.
    pub fn signing_key(&self, now: UnixSeconds) -> u64 {
        let keyring = self.keyring.load();
        let begun = keyring.keys.iter().rfind(|key| key.signs_from <= now);
        // A clock set back to before all keys leaves the oldest.
        begun.or(keyring.keys.first()).map_or(0, |key| key.id)
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
        for StoredKey { id, kid, algorithm, sealed, signs_from, .. } in stored {
            let secret =
                master.open(&seal_name(kid), sealed).map_err(|e| KeyringError::Sealed(kid.clone(), e))?;
            let unusable = |e| KeyringError::Key(kid.clone(), e);
            let verification = Signer::verification_key(*algorithm, kid, &secret).map_err(unusable)?;
            good.push(verification.clone());
            keys.push(SigningKey {
                id: *id,
                kid: kid.clone(),
                signs_from: *signs_from,
                signer: Signer::new(*algorithm, &secret).map_err(unusable)?,
                verification,
                access_header: header_segment(*algorithm, kid, Kind::Access),
                refresh_header: header_segment(*algorithm, kid, Kind::Refresh),
                secret,
            });
        }
        if keys.is_empty() {
            return Err(KeyringError::NoneSigns);
        }
        let verifier = Verifier::new(KeySet::from_iter(good), profile.clone());
        Ok(Keyring { keys, verifier, former: Former::new(vec![], profile) })
    }

    /// Whose client's a token is that a key of ours has signed, be it good, old or revoked.
    pub fn client_of(&self, token: &str) -> Option<ClientId> {
        self.verifier.client_of(token).or_else(|| self.former.verifier.client_of(token))
    }

    /// Decides over tokens of all the good keys.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The keys for a verifier. HS256 keys are secrets: whoever has one can sign.
    pub fn wire_keys(&self, with_secrets: bool) -> Vec<WireKey> {
        let keys = self.keys.iter().filter_map(|key| {
            let wire = |algorithm, bytes: &[u8]| Some(WireKey::new(&key.kid, algorithm, bytes));
            match key.signer.public() {
                Some(PublicKey::EdDsa(point)) => wire(Algorithm::EdDsa, &point),
                Some(PublicKey::Es256 { x, y }) => wire(Algorithm::Es256, &[&[4], x.as_slice(), &y].concat()),
                None if with_secrets => wire(Algorithm::Hs256, &*key.secret),
                None => None,
            }
        });
        keys.collect()
    }

    /// The keys that anybody may know, with their ids: those that only verify.
    pub fn public_keys(&self) -> impl Iterator<Item = (&str, PublicKey)> {
        self.keys.iter().filter_map(|key| Some((key.kid.as_str(), key.signer.public()?)))
    }
}

impl Former {
    fn new(keys: Vec<Key>, profile: &Profile) -> Former {
        let verifier = Verifier::new(KeySet::from_iter(keys.iter().cloned()), profile.clone());
        Former { keys, verifier }
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
        let signature = self.signer.sign(token.as_bytes());
        token.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut token);
        token
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// A new key, sealed for the store, which numbers it.
pub fn generate_key(
    algorithm: Algorithm,
    master: &MasterKey,
    random: &Random,
    created_at: UnixSeconds,
    signs_from: UnixSeconds,
) -> Result<StoredKey, SealError> {
    let mut kid = BASE32_NOPAD.encode(&*random.bytes::<10>());
    kid.make_ascii_lowercase();
    let secret = Signer::generate(algorithm, random);
    let sealed = master.seal(&seal_name(&kid), &secret, random)?;
    Ok(StoredKey { id: 0, kid, algorithm, sealed, created_at, signs_from, retire_at: None })
}

fn seal_name(kid: &str) -> String {
    format!("signing key {kid}")
}
