//! The signing keys, and the writing of tokens.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use data_encoding::BASE32_NOPAD;
use rescind_base::{
    model::{Session, SigningKeyRecord, UnixSeconds},
    random::Random,
    secret::{MasterKey, SealError},
};
use rescind_verifier::{
    Algorithm, Claims, ClientId, Denied, Key, KeyError, Kind, Profile, Refused, Resources, StandingToken,
    State, follow::wire::WireKey,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::memory::{
    signer::{PublicKey, Signer, Writer},
    verification::{Verification, Verifiers},
};

/// How many removed keys are kept, to identify the clients of old tokens.
const FORMER_KEYS: usize = 16;

/// The tokens that a login or refresh answers with.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub access_token: String,
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
    /// The key is not sealed under this master key.
    #[error("signing key {0}: {1}")]
    Sealed(String, SealError),
    /// The key is unsealed, but unusable.
    #[error("signing key {0}: {1}")]
    Key(String, KeyError),
    /// There is no key.
    #[error("the store has no key to sign with")]
    NoneSigns,
}

/// Writes tokens with the key that signs now, and verifies the tokens of all valid keys.
pub struct Issuer {
    profile: Profile,
    keyring: ArcSwap<Keyring>,
}

/// The valid keys at one moment, the newest last.
pub struct Keyring {
    keys: Vec<SigningKey>,
    verifiers: Verifiers,
    /// The last keys that were removed while this process ran. They only identify the client of an old token.
    former: Vec<Verification>,
    former_verifiers: Verifiers,
}

struct SigningKey {
    id: u64,
    kid: Arc<str>,
    signs_from: UnixSeconds,
    verification: Verification,
    secret: Zeroizing<[u8; 32]>,
    /// Whether access tokens have `client_id` and `jti`.
    rfc9068: bool,
    access: Writer,
    refresh: Writer,
}

impl Issuer {
    /// An issuer with the keys from the store.
    ///
    /// # Errors
    ///
    /// Fails if a key cannot be unsealed or used, or if there is none.
    pub fn new(
        profile: Profile,
        keys: &[SigningKeyRecord],
        master: &MasterKey,
    ) -> Result<Issuer, KeyringError> {
        let keyring = ArcSwap::from_pointee(Keyring::unseal(&profile, keys, master)?);
        Ok(Issuer { profile, keyring })
    }

    /// Replaces the keys for every request that begins afterwards.
    ///
    /// # Errors
    ///
    /// Fails like [`Issuer::new`], and then keeps the old keys.
    pub fn set_keys(&self, keys: &[SigningKeyRecord], master: &MasterKey) -> Result<(), KeyringError> {
        let known = self.keyring.load();
        let new = Keyring::unseal(&self.profile, keys, master)?;
        let gone = known.keys.iter().filter(|key| new.keys.iter().all(|other| other.id != key.id));
        let mut former = known.former.clone();
        former.extend(gone.map(|key| key.verification.clone()));
        former.drain(..former.len().saturating_sub(FORMER_KEYS));
        let former_verifiers = Verifiers::new(former.iter(), &self.profile);
        self.keyring.store(Arc::new(Keyring { former, former_verifiers, ..new }));
        Ok(())
    }

    /// The id of the key that signs now.
    pub fn signing_key(&self, now: UnixSeconds) -> u64 {
        let keyring = self.keyring.load();
        let begun = keyring.keys.iter().rfind(|key| key.signs_from <= now);
        // If the clock was set back to before all keys, the oldest key signs.
        begun.or(keyring.keys.first()).map_or(0, |key| key.id)
    }

    /// The newest key's algorithm, and whether its access tokens have `client_id` and `jti`.
    pub fn newest(&self) -> (Algorithm, bool) {
        let keyring = self.keyring.load();
        let newest = keyring.keys.last();
        newest.map_or((Algorithm::Hs256, true), |key| (key.access.signer.algorithm(), key.rfc9068))
    }

    /// The issuer, audience and form of every access token.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The present keys.
    pub fn keyring(&self) -> arc_swap::Guard<Arc<Keyring>> {
        self.keyring.load()
    }

    /// The newest pair of a session, always as the same bytes. `api_key` is that of its credential. `None` if its key has
    /// been retired.
    pub fn pair(&self, session: &Session, api_key: &str) -> Option<Pair> {
        let keyring = self.keyring.load();
        let key = keyring.keys.iter().find(|key| key.id == session.key)?;
        let mut claims = session.claims(session.access_expires_at);
        let access_token = key.access.write(&claims, key.rfc9068.then_some(api_key));
        // The refresh token is for the issuer alone.
        claims.resources = Resources::default();
        claims.expires_at = session.refresh_expires_at;
        Some(Pair {
            access_token,
            refresh_token: key.refresh.write(&claims, None),
            access_expires_at: session.access_expires_at,
            refresh_expires_at: session.refresh_expires_at,
        })
    }
}

impl Keyring {
    fn unseal(
        profile: &Profile,
        stored: &[SigningKeyRecord],
        master: &MasterKey,
    ) -> Result<Keyring, KeyringError> {
        let refresh_profile = profile.of_refresh_tokens();
        let mut keys = Vec::with_capacity(stored.len());
        for SigningKeyRecord { id, kid, algorithm, sealed, refresh_sealed, rfc9068, signs_from, .. } in stored
        {
            let open = |name: &str, sealed: &[u8]| {
                master.open(name, sealed).map_err(|e| KeyringError::Sealed(kid.clone(), e))
            };
            let unusable = |e| KeyringError::Key(kid.clone(), e);
            let writer = |kind, algorithm, secret: &[u8; 32], profile: &Profile| {
                let signer = Signer::new(algorithm, secret).map_err(unusable)?;
                Ok(Writer::new(kid, kind, profile.clone(), signer))
            };
            let secret = open(&seal_name(kid), sealed)?;
            let key = Signer::verification_key(*algorithm, kid, &secret).map_err(unusable)?;
            let (verification, refresh) = match refresh_sealed {
                Some(sealed) => {
                    let secret = open(&refresh_seal_name(kid), sealed)?;
                    let refresh = Key::hs256(kid, &*secret).map_err(unusable)?.for_refresh_tokens();
                    (
                        Verification { own: vec![key], refresh: Some(refresh) },
                        writer(Kind::Refresh, Algorithm::Hs256, &secret, &refresh_profile)?,
                    )
                }
                None => (
                    Verification { own: vec![key.clone().for_refresh_tokens(), key], refresh: None },
                    writer(Kind::Refresh, *algorithm, &secret, profile)?,
                ),
            };
            keys.push(SigningKey {
                id: *id,
                kid: kid.as_str().into(),
                signs_from: *signs_from,
                rfc9068: *rfc9068,
                access: writer(Kind::Access, *algorithm, &secret, profile)?,
                refresh,
                verification,
                secret,
            });
        }
        if keys.is_empty() {
            return Err(KeyringError::NoneSigns);
        }
        let verifiers = Verifiers::new(keys.iter().map(|key| &key.verification), profile).cached();
        Ok(Keyring { keys, verifiers, former: vec![], former_verifiers: Verifiers::new([].iter(), profile) })
    }

    /// The claims of a token of this kind, by its text alone.
    ///
    /// # Errors
    ///
    /// Fails if the token is malformed, expired or not signed by a valid key.
    pub fn authenticate(&self, token: &str, kind: Kind, now: UnixSeconds) -> Result<Claims, Refused> {
        self.verifiers.ask(|verifier| verifier.authenticate_explained(token, kind, now))
    }

    /// Like [`Keyring::authenticate`], without checking the times.
    ///
    /// # Errors
    ///
    /// Fails if the token is malformed or not signed by a valid key.
    pub fn authenticate_at_any_time(&self, token: &str, kind: Kind) -> Result<Claims, Denied> {
        let read = self.verifiers.ask(|verifier| verifier.authenticate_at_any_time(token, kind));
        read.map_err(|refused| refused.reason)
    }

    /// Whether an access token is valid, whoever presents it.
    ///
    /// # Errors
    ///
    /// Fails if the token is invalid; a refresh token is reported as one.
    pub fn stand(&self, token: &str, now: UnixSeconds, state: &impl State) -> Result<StandingToken, Refused> {
        self.verifiers.ask(|verifier| verifier.stand_explained(token, now, state))
    }

    /// The id of the present key that a token's header names.
    pub fn kid_of(&self, token: &str) -> Option<Arc<str>> {
        let names = |writer: &Writer| writer.is_of(token);
        let key = self.keys.iter().find(|key| names(&key.access) || names(&key.refresh));
        key.map(|key| Arc::clone(&key.kid))
    }

    /// The client of a token that one of our keys has signed, even if the token is expired or revoked.
    pub fn client_of(&self, token: &str) -> Option<ClientId> {
        self.verifiers.client_of(token).or_else(|| self.former_verifiers.client_of(token))
    }

    /// The keys for a verifier's access tokens. An HS256 key is a secret: its holder can sign too.
    pub fn wire_keys(&self, with_secrets: bool) -> Vec<WireKey> {
        let keys = self.keys.iter().filter_map(|key| {
            let wire = |algorithm, bytes: &[u8]| Some(WireKey::new(&key.kid, algorithm, bytes));
            match key.access.signer.public() {
                Some(PublicKey::Ed25519 { algorithm, point }) => wire(algorithm, &point),
                Some(PublicKey::Es256 { x, y }) => wire(Algorithm::Es256, &[&[4], x.as_slice(), &y].concat()),
                None if with_secrets => wire(Algorithm::Hs256, &*key.secret),
                None => None,
            }
        });
        keys.collect()
    }

    /// The ids of all keys.
    pub fn ids(&self) -> Vec<u64> {
        self.keys.iter().map(|key| key.id).collect()
    }

    /// The public keys with their ids. HS256 keys have none.
    pub fn public_keys(&self) -> impl Iterator<Item = (&str, PublicKey)> {
        self.keys.iter().filter_map(|key| Some((&*key.kid, key.access.signer.public()?)))
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// How long, in seconds, a new public key is published before it signs: longer than the usual caches of key
/// sets keep an old one.
const PUBLISHED_AHEAD: u64 = 600;

/// The default for how long a new key is published before it signs, in seconds. `least`: the time in which
/// all nodes receive it.
pub fn publish_ahead(algorithm: Algorithm, least: u64) -> u64 {
    match algorithm {
        // A secret key is not published.
        Algorithm::Hs256 => least,
        Algorithm::EdDsa | Algorithm::Ed25519 | Algorithm::Es256 => least.max(PUBLISHED_AHEAD),
    }
}

/// A new key as `newest`, but for a refresh key, that signs as soon as possible. `None`: `newest` already has a refresh
/// key.
///
/// # Errors
///
/// Fails if the key cannot be sealed.
pub fn generate_upgrade(
    newest: &SigningKeyRecord,
    least_ahead: u64,
    master: &MasterKey,
    random: &Random,
    now: UnixSeconds,
) -> Result<Option<SigningKeyRecord>, SealError> {
    if newest.refresh_sealed.is_some() {
        return Ok(None);
    }
    let signs_from = (now + publish_ahead(newest.algorithm, least_ahead)).max(newest.signs_from);
    let key = generate_key(newest.algorithm, master, random, now, signs_from)?;
    Ok(Some(SigningKeyRecord { rfc9068: newest.rfc9068, ..key }))
}

/// A new key with its refresh key, sealed for the store, which assigns the id.
///
/// # Errors
///
/// Fails if the key cannot be sealed.
pub fn generate_key(
    algorithm: Algorithm,
    master: &MasterKey,
    random: &Random,
    created_at: UnixSeconds,
    signs_from: UnixSeconds,
) -> Result<SigningKeyRecord, SealError> {
    let mut kid = BASE32_NOPAD.encode(&*random.bytes::<10>());
    kid.make_ascii_lowercase();
    let secret = Signer::generate(algorithm, random);
    let sealed = master.seal(&seal_name(&kid), &secret, random)?;
    let refresh_sealed = Some(master.seal(&refresh_seal_name(&kid), &random.bytes::<32>(), random)?);
    Ok(SigningKeyRecord {
        id: 0,
        kid,
        algorithm,
        sealed,
        refresh_sealed,
        rfc9068: true,
        created_at,
        signs_from,
        retire_at: None,
    })
}

/// Seals a signing key's secrets under another master key.
///
/// # Errors
///
/// Fails if `from` does not open them.
pub fn reseal_key(
    key: &SigningKeyRecord,
    from: &MasterKey,
    to: &MasterKey,
    random: &Random,
) -> Result<SigningKeyRecord, SealError> {
    let reseal = |name: &str, sealed: &[u8]| to.seal(name, &*from.open(name, sealed)?, random);
    let refresh = key.refresh_sealed.as_deref().map(|sealed| reseal(&refresh_seal_name(&key.kid), sealed));
    Ok(SigningKeyRecord {
        sealed: reseal(&seal_name(&key.kid), &key.sealed)?,
        refresh_sealed: refresh.transpose()?,
        ..key.clone()
    })
}

fn seal_name(kid: &str) -> String {
    format!("signing key {kid}")
}

fn refresh_seal_name(kid: &str) -> String {
    format!("refresh key {kid}")
}
