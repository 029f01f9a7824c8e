//! The signing keys, and the writing of tokens.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use rescind_verifier::{
    Algorithm, Claims, ClientId, Denied, Key, KeyError, Kind, Profile, StandingToken, State, Verifier,
    follow::wire::WireKey, header_segment,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    memory::signer::{PublicKey, Signer},
    model::{Session, SigningKeyRecord, UnixSeconds},
    random::Random,
    secret::{MasterKey, SealError},
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
    former: Former,
}

/// The last keys that were removed while this process ran. They only identify the client of an old token.
struct Former {
    keys: Vec<Verification>,
    verifiers: Verifiers,
}

/// The keys that verify the tokens of one signing key.
#[derive(Clone)]
struct Verification {
    /// For what the key itself signs: access tokens, and refresh tokens if it has no refresh key.
    own: Vec<Key>,
    refresh: Option<Key>,
}

/// The same for several signing keys.
struct Verifiers {
    own: Verifier,
    refresh: Verifier,
}

struct SigningKey {
    id: u64,
    kid: String,
    signs_from: UnixSeconds,
    verification: Verification,
    secret: Zeroizing<[u8; 32]>,
    access: Writer,
    refresh: Writer,
}

/// Writes tokens of one kind.
struct Writer {
    header: String,
    profile: Profile,
    signer: Signer,
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
        // If the clock was set back to before all keys, the oldest key signs.
        begun.or(keyring.keys.first()).map_or(0, |key| key.id)
    }

    /// The newest key's algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.keyring.load().keys.last().map_or(Algorithm::Hs256, |key| key.access.signer.algorithm())
    }

    /// The issuer, audience and form of every access token.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The present keys.
    pub fn keyring(&self) -> arc_swap::Guard<Arc<Keyring>> {
        self.keyring.load()
    }

    /// The newest pair of a session, always as the same bytes. `None` if its key has been retired.
    pub fn pair(&self, session: &Session) -> Option<Pair> {
        let keyring = self.keyring.load();
        let key = keyring.keys.iter().find(|key| key.id == session.key)?;
        Some(Pair {
            access_token: key.access.write(&session.claims(session.access_expires_at)),
            refresh_token: key.refresh.write(&session.claims(session.refresh_expires_at)),
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
        for SigningKeyRecord { id, kid, algorithm, sealed, refresh_sealed, signs_from, .. } in stored {
            let open = |name: &str, sealed: &[u8]| {
                master.open(name, sealed).map_err(|e| KeyringError::Sealed(kid.clone(), e))
            };
            let unusable = |e| KeyringError::Key(kid.clone(), e);
            let writer = |kind, algorithm, secret: &[u8; 32], profile: &Profile| {
                Ok(Writer {
                    header: header_segment(algorithm, kid, kind),
                    profile: profile.clone(),
                    signer: Signer::new(algorithm, secret).map_err(unusable)?,
                })
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
                kid: kid.clone(),
                signs_from: *signs_from,
                access: writer(Kind::Access, *algorithm, &secret, profile)?,
                refresh,
                verification,
                secret,
            });
        }
        if keys.is_empty() {
            return Err(KeyringError::NoneSigns);
        }
        let verifiers = Verifiers::new(keys.iter().map(|key| &key.verification), profile);
        Ok(Keyring { keys, verifiers, former: Former::new(vec![], profile) })
    }

    /// The claims of a token of this kind, by its text alone.
    ///
    /// # Errors
    ///
    /// Fails if the token is malformed, expired or not signed by a valid key.
    pub fn authenticate(&self, token: &str, kind: Kind, now: UnixSeconds) -> Result<Claims, Denied> {
        self.verifiers.ask(|verifier| verifier.authenticate(token, kind, now))
    }

    /// Like [`Keyring::authenticate`], without checking the times.
    ///
    /// # Errors
    ///
    /// Fails if the token is malformed or not signed by a valid key.
    pub fn authenticate_at_any_time(&self, token: &str, kind: Kind) -> Result<Claims, Denied> {
        self.verifiers.ask(|verifier| verifier.authenticate_at_any_time(token, kind))
    }

    /// Whether an access token is valid, whoever presents it.
    ///
    /// # Errors
    ///
    /// Fails if the token is invalid; a refresh token is reported as one.
    pub fn stand(&self, token: &str, now: UnixSeconds, state: &impl State) -> Result<StandingToken, Denied> {
        self.verifiers.ask(|verifier| verifier.stand(token, now, state))
    }

    /// The client of a token that one of our keys has signed, even if the token is expired or revoked.
    pub fn client_of(&self, token: &str) -> Option<ClientId> {
        self.verifiers.client_of(token).or_else(|| self.former.verifiers.client_of(token))
    }

    /// The keys for a verifier's access tokens. An HS256 key is a secret: its holder can sign too.
    pub fn wire_keys(&self, with_secrets: bool) -> Vec<WireKey> {
        let keys = self.keys.iter().filter_map(|key| {
            let wire = |algorithm, bytes: &[u8]| Some(WireKey::new(&key.kid, algorithm, bytes));
            match key.access.signer.public() {
                Some(PublicKey::EdDsa(point)) => wire(Algorithm::EdDsa, &point),
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
        self.keys.iter().filter_map(|key| Some((key.kid.as_str(), key.access.signer.public()?)))
    }
}

impl Former {
    fn new(keys: Vec<Verification>, profile: &Profile) -> Former {
        Former { verifiers: Verifiers::new(keys.iter(), profile), keys }
    }
}

impl Verifiers {
    fn new<'k>(keys: impl Iterator<Item = &'k Verification> + Clone, profile: &Profile) -> Verifiers {
        let own = keys.clone().flat_map(|key| &key.own).cloned().collect();
        let refresh = keys.filter_map(|key| key.refresh.clone()).collect();
        Verifiers {
            own: Verifier::new(own, profile.clone()),
            refresh: Verifier::new(refresh, profile.of_refresh_tokens()),
        }
    }

    /// The answer of the verifier that has the key which the token names.
    fn ask<T>(&self, ask: impl Fn(&Verifier) -> Result<T, Denied>) -> Result<T, Denied> {
        match ask(&self.own) {
            Err(Denied::UnknownKey) => ask(&self.refresh),
            answer => answer,
        }
    }

    /// The client of a token of any kind, expired or not.
    fn client_of(&self, token: &str) -> Option<ClientId> {
        let read = |kind| self.ask(|verifier| verifier.authenticate_at_any_time(token, kind));
        Some(read(Kind::Access).or_else(|_| read(Kind::Refresh)).ok()?.client)
    }
}

impl Writer {
    fn write(&self, claims: &Claims) -> String {
        let mut token = self.header.clone();
        token.push('.');
        BASE64URL_NOPAD.encode_append(claims.write(&self.profile).as_bytes(), &mut token);
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

/// How long, in seconds, a new public key is published before it signs: longer than the usual caches of key
/// sets keep an old one.
const PUBLISHED_AHEAD: u64 = 600;

/// The default for how long a new key is published before it signs, in seconds. `least`: the time in which
/// all nodes receive it.
pub fn publish_ahead(algorithm: Algorithm, least: u64) -> u64 {
    match algorithm {
        // A secret key is not published.
        Algorithm::Hs256 => least,
        Algorithm::EdDsa | Algorithm::Es256 => least.max(PUBLISHED_AHEAD),
    }
}

/// A new key of `newest`'s algorithm that signs as soon as possible. `None`: `newest` already has a refresh
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
    generate_key(newest.algorithm, master, random, now, signs_from).map(Some)
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
        created_at,
        signs_from,
        retire_at: None,
    })
}

fn seal_name(kid: &str) -> String {
    format!("signing key {kid}")
}

fn refresh_seal_name(kid: &str) -> String {
    format!("refresh key {kid}")
}
