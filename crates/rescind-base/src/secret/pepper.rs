//! The peppers: the keys of the hashes of secrets. There are two while the former one is still valid.

use std::{collections::BTreeMap, fmt};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{MasterKey, SealError, hmac_sha256};
use crate::random::Random;

/// The store's own secrets but its signing keys, each sealed under its name.
pub type SealedSecrets = BTreeMap<String, Vec<u8>>;

/// The name of the first pepper. Another one's name is this one and its number.
const PEPPER: &str = "pepper";
/// The hashes of these texts under the first pepper are kept under these names from the first rotation on. The first
/// identifies the installation, the other one is the seed of the key that signs the audit log.
const INSTALLATION: &str = "installation";
const AUDIT: &str = "audit";

/// HMAC-SHA-256 of an API secret under a pepper. The secrets have 256 random bits, so one fast keyed hash is enough
/// (NIST SP 800-63B §5.1.2.2). Without the pepper, guesses cannot be checked against a stolen table.
#[derive(Clone, Copy, Eq)]
pub struct SecretHash {
    pub bytes: [u8; 32],
    /// The number of the pepper.
    pub pepper: u32,
}

/// Compares in constant time.
impl PartialEq for SecretHash {
    fn eq(&self, other: &SecretHash) -> bool {
        (self.bytes.ct_eq(&other.bytes) & self.pepper.ct_eq(&other.pepper)).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// The hashes that one secret may be known by.
#[derive(Debug, Clone, Copy)]
pub struct Hashes {
    /// The one to keep from now on.
    pub present: SecretHash,
    former: Option<SecretHash>,
}

impl Hashes {
    /// Returns every hash, the one under the present pepper first.
    pub fn iter(&self) -> impl Iterator<Item = &SecretHash> {
        [&self.present].into_iter().chain(&self.former)
    }
}

/// A hash under the present pepper alone.
impl From<SecretHash> for Hashes {
    fn from(present: SecretHash) -> Hashes {
        Hashes { present, former: None }
    }
}

/// HMAC-SHA-256 of a random text that is valid for some hours: a link, or the cookie of a sign-in. Rotations of the pepper
/// leave it as it is, because no guess of 256 random bits needs a secret key against it.
#[derive(Clone, Copy, Eq)]
pub struct TicketHash(pub [u8; 32]);

/// Compares in constant time.
impl PartialEq for TicketHash {
    fn eq(&self, other: &TicketHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TicketHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketHash(…)")
    }
}

/// One key of the hashes of secrets.
#[derive(Clone)]
pub struct Pepper {
    pub number: u32,
    mac: Hmac<Sha256>,
}

impl Pepper {
    /// Makes a pepper from 256 random bits.
    pub fn new(number: u32, key: &[u8; 32]) -> Pepper {
        Pepper { number, mac: hmac_sha256(key) }
    }

    /// Returns the name under which the store keeps it.
    pub fn name(&self) -> String {
        name(self.number)
    }

    fn hash(&self, secret: &str) -> SecretHash {
        let mut mac = self.mac.clone();
        mac.update(secret.as_bytes());
        SecretHash { bytes: mac.finalize().into_bytes().into(), pepper: self.number }
    }
}

/// The peppers that are valid.
pub struct Peppers {
    present: Pepper,
    /// Hashes from before the rotation are under this one.
    pub former: Option<Pepper>,
    /// Identifies the installation, whatever pepper it has.
    pub installation: [u8; 32],
    /// The seed of the key that signs the audit log, whatever pepper there is.
    pub audit: [u8; 32],
}

impl Peppers {
    /// Makes the first pepper of a store, sealed.
    ///
    /// # Errors
    /// Fails if the encryption fails.
    pub fn first(master: &MasterKey, random: &Random) -> Result<SealedSecrets, SealError> {
        let name = name(1);
        let sealed = master.seal(&name, &random.bytes(), random)?;
        Ok([(name, sealed)].into())
    }

    /// Opens the peppers among these secrets. `None`: there is none, so the store is new.
    ///
    /// # Errors
    /// Fails if one was sealed under another master key.
    pub fn open(secrets: &SealedSecrets, master: &MasterKey) -> Result<Option<Peppers>, SealError> {
        let mut found = Vec::new();
        for (name, sealed) in secrets {
            if let Some(number) = number(name) {
                found.push(Pepper::new(number, &*master.open(name, sealed)?));
            }
        }
        found.sort_unstable_by_key(|pepper| pepper.number);
        let Some(present) = found.pop() else { return Ok(None) };
        let former = found.pop();
        let first = former.as_ref().unwrap_or(&present);
        let kept = |name| match secrets.get(name) {
            Some(sealed) => master.open(name, sealed).map(|kept| *kept),
            None => Ok(first.hash(name).bytes),
        };
        let (installation, audit) = (kept(INSTALLATION)?, kept(AUDIT)?);
        Ok(Some(Peppers { present, former, installation, audit }))
    }

    /// Makes the pepper after the present one, sealed, with what the store has to keep beside it.
    ///
    /// # Errors
    /// Fails if the encryption fails.
    pub fn next(&self, master: &MasterKey, random: &Random) -> Result<SealedSecrets, SealError> {
        let name = name(self.present.number + 1);
        let sealed = master.seal(&name, &random.bytes(), random)?;
        let installation = master.seal(INSTALLATION, &self.installation, random)?;
        let audit = master.seal(AUDIT, &self.audit, random)?;
        Ok([(name, sealed), (INSTALLATION.into(), installation), (AUDIT.into(), audit)].into())
    }

    /// Returns these peppers, and beside them the one that was present in `known` until now. Memory still has hashes
    /// under it until the changes of their credentials are taken over.
    pub fn beside(self, known: &Peppers) -> Peppers {
        let replaced = [Some(&known.present), known.former.as_ref()].into_iter().flatten();
        let former = self.former.or_else(|| {
            replaced.filter(|pepper| pepper.number < self.present.number).max_by_key(|p| p.number).cloned()
        });
        Peppers { former, ..self }
    }

    /// Returns the number of the pepper that new hashes are under.
    pub fn present(&self) -> u32 {
        self.present.number
    }

    /// Returns the hash that the store keeps of a new secret.
    pub fn hash(&self, secret: &str) -> SecretHash {
        self.present.hash(secret)
    }

    /// Returns the hashes that a presented secret may be known by.
    pub fn hashes(&self, secret: &str) -> Hashes {
        let former = self.former.as_ref().map(|pepper| pepper.hash(secret));
        Hashes { present: self.hash(secret), former }
    }

    /// Returns the hash that the store keeps of a link or a sign-in.
    pub fn ticket_hash(&self, text: &str) -> TicketHash {
        let mut mac = hmac_sha256(&self.installation);
        mac.update(text.as_bytes());
        TicketHash(mac.finalize().into_bytes().into())
    }
}

fn name(number: u32) -> String {
    if number == 1 { PEPPER.to_owned() } else { format!("{PEPPER} {number}") }
}

fn number(of: &str) -> Option<u32> {
    let number = match of.strip_prefix(PEPPER)? {
        "" => 1,
        number => number.strip_prefix(' ')?.parse().ok()?,
    };
    (name(number) == of).then_some(number)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// `printf %s rs_… | openssl dgst -sha256 -mac HMAC -macopt hexkey:808182…9e9f`
    // check 74
    #[test]
    fn the_hash_is_hmac_sha_256_under_the_pepper() {
        let pepper: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let hash =
            Pepper::new(1, &pepper).hash("rs_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypybnsdxi");
        let expected = "3d720aaf18e49b14dc7116751b2b83363a5f1a71e51fbe013a6feb1201c6e6b5";
        assert_eq!(HEXLOWER.encode(&hash.bytes), expected);
    }

    // check 74
    #[test]
    fn hashes_depend_on_secret_and_pepper() {
        let (one, two) = (Pepper::new(1, &[1; 32]), Pepper::new(2, &[2; 32]));
        assert!(one.hash("a") == one.hash("a"));
        assert!(one.hash("a") != one.hash("b"));
        assert!(one.hash("a") != two.hash("a"));
        // Also if two peppers were the same key.
        assert!(one.hash("a") != Pepper::new(2, &[1; 32]).hash("a"));
    }

    // check 79
    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", SecretHash { bytes: [1; 32], pepper: 1 }), "SecretHash(…)");
    }

    #[test]
    fn the_newest_two_peppers_are_valid_and_what_the_first_one_made_stays_the_same() {
        let random = Random::seeded(6);
        let master = MasterKey::generate(&random);
        let open = |secrets: &SealedSecrets| Peppers::open(secrets, &master).unwrap();
        assert!(open(&SealedSecrets::new()).is_none());

        let mut secrets = Peppers::first(&master, &random).unwrap();
        let first = open(&secrets).unwrap();
        assert_eq!(first.hashes("a").iter().count(), 1);
        for number in 2..12 {
            let before = open(&secrets).unwrap();
            secrets.extend(before.next(&master, &random).unwrap());
            let overlap = open(&secrets).unwrap();
            assert_eq!((overlap.present(), overlap.former.as_ref().unwrap().number), (number, number - 1));
            assert!(overlap.hashes("a").iter().any(|hash| *hash == before.hash("a")));
            assert!(overlap.hash("a") != before.hash("a"));
            secrets.remove(&before.present.name()).unwrap();
            let after = open(&secrets).unwrap();
            assert!(after.former.is_none() && after.hash("a") == overlap.hash("a"));
            assert_eq!((after.installation, after.audit), (first.installation, first.audit));
        }
    }

    #[test]
    fn the_pepper_before_stays_until_the_changes_are_taken_over() {
        let peppers = |present: u32, former: Option<u32>| Peppers {
            present: Pepper::new(present, &[present as u8; 32]),
            former: former.map(|number| Pepper::new(number, &[number as u8; 32])),
            installation: [0; 32],
            audit: [0; 32],
        };
        for (known, told, expected) in [
            ((1, None), (1, None), None),
            ((1, None), (2, Some(1)), Some(1)),
            ((2, Some(1)), (2, None), Some(1)),
            ((1, None), (2, None), Some(1)),
            ((2, Some(1)), (3, Some(2)), Some(2)),
            ((2, None), (1, None), None),
        ] {
            let both = peppers(told.0, told.1).beside(&peppers(known.0, known.1));
            assert_eq!((both.present(), both.former.map(|pepper| pepper.number)), (told.0, expected));
        }
    }
}
