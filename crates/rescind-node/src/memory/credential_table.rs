//! Checks an API key and secret in constant time and memory access.
//!
//! A hash map leaks whether a key exists: a known key touches other memory than an unknown one, about 200 ns,
//! measurable over HTTP. Here each credential is one 64-byte slot, and all slots of a key's bucket are always
//! read.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{PoisonError, RwLock},
};

use rescind_base::{
    model::UnixSeconds,
    secret::{Hashes, SecretHash},
};
use subtle::{Choice, ConstantTimeEq, ConstantTimeLess};

/// Slots per bucket; all are read for every key.
const WAYS: usize = 4;
const FIRST_BUCKETS: usize = 64;

/// The credentials that may log in.
#[derive(Debug)]
pub(super) struct CredentialTable {
    hashers: [RandomState; 2],
    /// The number of buckets is a power of two.
    buckets: RwLock<Vec<[Slot; WAYS]>>,
}

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Slot {
    /// A keyed hash of the API key; 0 in an empty slot.
    tag: u128,
    secret_hash: SecretHash,
    /// The time from which the credential may not log in; 0 if it may not at all.
    good_until: UnixSeconds,
}

const EMPTY: Slot = Slot { tag: 0, secret_hash: SecretHash { bytes: [0; 32], pepper: 1 }, good_until: 0 };

impl Default for CredentialTable {
    fn default() -> CredentialTable {
        CredentialTable {
            hashers: [RandomState::new(), RandomState::new()],
            buckets: RwLock::new(vec![[EMPTY; WAYS]; FIRST_BUCKETS]),
        }
    }
}

impl CredentialTable {
    /// Whether this key and secret belong together, and may log in now.
    pub(super) fn matches(&self, api_key: &str, presented: &Hashes, now: UnixSeconds) -> bool {
        let tag = self.tag(api_key);
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        let bucket = &buckets[bucket_of(tag, buckets.len())];
        let opens = bucket.iter().fold(Choice::from(0), |opens, slot| {
            let hash = slot.secret_hash;
            let is_secret = presented.iter().fold(Choice::from(0), |is_secret, presented| {
                is_secret | (hash.bytes.ct_eq(&presented.bytes) & hash.pepper.ct_eq(&presented.pepper))
            });
            opens | (slot.tag.ct_eq(&tag) & is_secret & now.ct_lt(&slot.good_until))
        });
        opens.into()
    }

    /// Inserts a credential, or replaces the one with the same key.
    pub(super) fn put(&self, api_key: &str, secret_hash: SecretHash, good_until: UnixSeconds) {
        let slot = Slot { tag: self.tag(api_key), secret_hash, good_until };
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        while !try_put(&mut buckets, slot) {
            // Half of a full bucket may be full again, but each doubling makes that less probable.
            let wider = 2 * buckets.len();
            let known = std::mem::replace(&mut *buckets, vec![[EMPTY; WAYS]; wider]);
            for slot in known.into_iter().flatten().filter(|slot| slot.tag != 0) {
                // One bucket is split in two, so each half has room.
                try_put(&mut buckets, slot);
            }
        }
    }

    /// Removes a key.
    pub(super) fn remove(&self, api_key: &str) {
        let tag = self.tag(api_key);
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        let index = bucket_of(tag, buckets.len());
        for slot in buckets[index].iter_mut().filter(|slot| slot.tag == tag) {
            *slot = EMPTY;
        }
    }

    /// 128 bits under a secret random key, so that tags neither collide nor can be computed outside.
    fn tag(&self, api_key: &str) -> u128 {
        let [high, low] = self.hashers.each_ref().map(|hasher| u128::from(hasher.hash_one(api_key)));
        (high << 64 | low).max(1)
    }
}

fn bucket_of(tag: u128, buckets: usize) -> usize {
    tag as usize & (buckets - 1)
}

/// Returns whether the bucket had room.
fn try_put(buckets: &mut [[Slot; WAYS]], slot: Slot) -> bool {
    let bucket = &mut buckets[bucket_of(slot.tag, buckets.len())];
    let place = bucket.iter().position(|known| known.tag == slot.tag);
    match place.or_else(|| bucket.iter().position(|known| known.tag == 0)) {
        Some(place) => {
            bucket[place] = slot;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_is_one_cache_line() {
        assert_eq!(size_of::<Slot>(), 64);
    }

    #[test]
    fn it_grows() {
        let credential_table = CredentialTable::default();
        for i in 0..10_000_u64 {
            credential_table.put(&i.to_string(), SecretHash { bytes: [i as u8; 32], pepper: 1 }, i + 1);
        }
        for i in 0..10_000_u64 {
            let hash = SecretHash { bytes: [i as u8; 32], pepper: 1 };
            assert!(credential_table.matches(&i.to_string(), &hash.into(), i), "{i}");
            assert!(!credential_table.matches(&i.to_string(), &hash.into(), i + 1), "{i}");
            assert!(
                !credential_table.matches(
                    &i.to_string(),
                    &SecretHash { bytes: [i as u8 ^ 1; 32], pepper: 1 }.into(),
                    i
                ),
                "{i}"
            );
            assert!(!credential_table.matches(&format!("x{i}"), &hash.into(), 0), "{i}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((0u8..20, 0u8..3, 0u64..3), 0..200)) {
            let (credential_table, mut map) = (CredentialTable::default(), HashMap::new());
            for (key, secret, until) in steps {
                let (key, hash) = (key.to_string(), SecretHash { bytes: [secret; 32], pepper: 1 });
                if secret == 2 {
                    credential_table.remove(&key);
                    map.remove(&key);
                } else {
                    credential_table.put(&key, hash, until);
                    map.insert(key.clone(), (secret, until));
                }
                for now in 0..3 {
                    for presented in 0..2 {
                        let expected = map.get(&key).is_some_and(|&(s, until)| s == presented && now < until);
                        prop_assert_eq!(credential_table.matches(&key, &SecretHash { bytes: [presented; 32], pepper: 1 }.into(), now), expected);
                    }
                }
            }
        }
    }
}
