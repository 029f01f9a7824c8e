//! The signing keys, and the writing of tokens.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use rescind_verifier::{
    Algorithm, Claims, Denied, Key, KeyError, KeySet, Kind, Profile, StandingToken, State, Verifier,
    follow::wire::WireKey, header_segment,
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

/// Writes tokens with the key that signs now, and verifies those of all keys that are good.
pub struct Issuer {
    profile: Profile,
    keyring: ArcSwap<Keyring>,
}

/// The good keys at one moment, the newest last.
pub struct Keyring {
    keys: Vec<SigningKey>,
    /// Of what is signed by the keys themselves: access tokens, and refresh tokens from before keys had
    /// one of their own for these.
    verifier: Verifier,
    /// Of what is signed by the keys' refresh keys.
    refresh_verifier: Verifier,
}

struct SigningKey {
    id: u64,
    kid: String,
    signs_from: UnixSeconds,
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
    pub fn signing_key(&self, now: UnixSeconds) -> u64 {
        let keyring = self.keyring.load();
        let begun = keyring.keys.iter().rfind(|key| key.signs_from <= now);
        // A clock set back to before all keys leaves the oldest.
        begun.or(keyring.keys.first()).map_or(0, |key| key.id)
    }

    /// How the newest key signs.
    pub fn algorithm(&self) -> Algorithm {
        self.keyring.load().keys.last().map_or(Algorithm::Hs256, |key| key.access.signer.algorithm())
    }

    /// What every access token says of its issuer and audience.
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
        Some(Pair {
            access_token: key.access.write(&session.claims(session.access_expires_at)),
            refresh_token: key.refresh.write(&session.claims(session.refresh_expires_at)),
            access_expires_at: session.access_expires_at,
            refresh_expires_at: session.refresh_expires_at,
        })
    }
}

impl Keyring {
    fn unseal(profile: &Profile, stored: &[StoredKey], master: &MasterKey) -> Result<Keyring, KeyringError> {
        let refresh_profile = profile.of_refresh_tokens();
        let (mut keys, mut good, mut good_refresh) = (vec![], vec![], vec![]);
        for StoredKey { id, kid, algorithm, sealed, refresh_sealed, signs_from, .. } in stored {
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
            let refresh = match refresh_sealed {
                Some(sealed) => {
                    let secret = open(&refresh_seal_name(kid), sealed)?;
                    good_refresh.push(Key::hs256(kid, &*secret).map_err(unusable)?.for_refresh_tokens());
                    writer(Kind::Refresh, Algorithm::Hs256, &secret, &refresh_profile)?
                }
                None => {
                    good.push(key.clone().for_refresh_tokens());
                    writer(Kind::Refresh, *algorithm, &secret, profile)?
                }
            };
            good.push(key);
            keys.push(SigningKey {
                id: *id,
                kid: kid.clone(),
                signs_from: *signs_from,
                access: writer(Kind::Access, *algorithm, &secret, profile)?,
                refresh,
                secret,
            });
        }
        if keys.is_empty() {
            return Err(KeyringError::NoneSigns);
        }
        Ok(Keyring {
            keys,
            verifier: Verifier::new(KeySet::from_iter(good), profile.clone()),
            refresh_verifier: Verifier::new(KeySet::from_iter(good_refresh), refresh_profile),
        })
    }

    /// What a token of this kind says, by its text alone.
    pub fn authenticate(&self, token: &str, kind: Kind, now: UnixSeconds) -> Result<Claims, Denied> {
        match self.verifier.authenticate(token, kind, now) {
            Err(Denied::UnknownKey) => self.refresh_verifier.authenticate(token, kind, now),
            read => read,
        }
    }

    /// The same without a look at the times.
    pub fn authenticate_at_any_time(&self, token: &str, kind: Kind) -> Result<Claims, Denied> {
        match self.verifier.authenticate_at_any_time(token, kind) {
            Err(Denied::UnknownKey) => self.refresh_verifier.authenticate_at_any_time(token, kind),
            read => read,
        }
    }

    /// Whether an access token stands, whoever presents it.
    pub fn stand(&self, token: &str, now: UnixSeconds, state: &impl State) -> Result<StandingToken, Denied> {
        match self.verifier.stand(token, now, state) {
            // A refresh token is called one.
            Err(Denied::UnknownKey) => self.refresh_verifier.stand(token, now, state),
            decided => decided,
        }
    }

    /// The keys for a verifier, which verifies access tokens alone. HS256 keys are secrets: whoever has
    /// one can sign.
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

    /// The ids of all of them.
    pub fn ids(&self) -> Vec<u64> {
        self.keys.iter().map(|key| key.id).collect()
    }

    /// The keys that anybody may know, with their ids: those that only verify.
    pub fn public_keys(&self) -> impl Iterator<Item = (&str, PublicKey)> {
        self.keys.iter().filter_map(|key| Some((key.kid.as_str(), key.access.signer.public()?)))
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

/// For how long a new public key is shown before it signs, unless told otherwise: longer than the
/// usual caches of key sets keep an old one.
const PUBLISHED_AHEAD: u64 = 600;

/// For how long a new key is published before it signs, unless told otherwise; `least`: what other nodes
/// need to have it by then.
pub fn publish_ahead(algorithm: Algorithm, least: u64) -> u64 {
    match algorithm {
        // A secret key is published to nobody.
        Algorithm::Hs256 => least,
        Algorithm::EdDsa | Algorithm::Es256 => least.max(PUBLISHED_AHEAD),
    }
}

/// A new key of the same algorithm, to follow `newest` as soon as it may. `None`: that one has a refresh
/// key, and needs no other.
pub fn generate_upgrade(
    newest: &StoredKey,
    least_ahead: u64,
    master: &MasterKey,
    random: &Random,
    now: UnixSeconds,
) -> Result<Option<StoredKey>, SealError> {
    if newest.refresh_sealed.is_some() {
        return Ok(None);
    }
    let signs_from = (now + publish_ahead(newest.algorithm, least_ahead)).max(newest.signs_from);
    generate_key(newest.algorithm, master, random, now, signs_from).map(Some)
}

/// A new key with its refresh key, sealed for the store, which numbers it.
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
    let refresh_sealed = Some(master.seal(&refresh_seal_name(&kid), &random.bytes::<32>(), random)?);
    Ok(StoredKey { id: 0, kid, algorithm, sealed, refresh_sealed, created_at, signs_from, retire_at: None })
}

fn seal_name(kid: &str) -> String {
    format!("signing key {kid}")
}

fn refresh_seal_name(kid: &str) -> String {
    format!("refresh key {kid}")
}
