//! The tokens that were found authentic lately, so that the signature of a repeated token is checked once.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::RwLock,
};

use zeroize::Zeroizing;

use crate::{Claims, Kind};

/// The longest token that is kept, in bytes. A token is longer only if it has scopes by the dozen.
const MAX_LENGTH: usize = 1024;

/// The number of tokens in a set.
const WAYS: usize = 8;

/// A cache of tokens that keep rules 1 to 5, with their claims, in sets of [`WAYS`]. Only such a token is put
/// here, so nobody without one can fill the cache. Whether a token was revoked or has expired is not kept.
///
/// Nobody waits for another: if a set is in use by a writer, its tokens are checked as if they were not here.
pub(crate) struct TokenCache {
    sets: Box<[RwLock<Set>]>,
    /// Keyed at random, so that nobody can choose tokens that take each other's place.
    hasher: RandomState,
}

#[derive(Default)]
struct Set {
    entries: Vec<Entry>,
    /// The entry that is replaced next, which is the oldest.
    next: usize,
}

struct Entry {
    tag: Tag,
    kind: Kind,
    /// The whole text. It is as good as a password until it expires, so it is overwritten before it is freed.
    token: Zeroizing<String>,
    claims: Claims,
}

/// A keyed hash of a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl TokenCache {
    /// A cache of at least this many tokens, and at most twice as many.
    pub(crate) fn new(tokens: usize) -> TokenCache {
        let sets = tokens.div_ceil(WAYS).next_power_of_two();
        TokenCache { sets: (0..sets).map(|_| RwLock::default()).collect(), hasher: RandomState::new() }
    }

    /// Where the token is kept. `None`: it is not.
    pub(crate) fn tag(&self, token: &str) -> Option<Tag> {
        if token.len() > MAX_LENGTH {
            return None;
        }
        let (_, signature) = token.rsplit_once('.')?;
        Some(Tag(self.hasher.hash_one(signature)))
    }

    /// The claims of this token, if it is here as a token of this kind.
    pub(crate) fn find(&self, tag: Tag, token: &str, kind: Kind) -> Option<Claims> {
        let set = self.set(tag).try_read().ok()?;
        // The texts need no comparison in constant time: whoever reaches it has the signature already, or has
        // guessed the hash under a key that only this process has.
        let entry = set.entries.iter().find(|entry| entry.tag == tag && *entry.token == token)?;
        (entry.kind == kind).then(|| entry.claims.clone())
    }

    /// Keeps a token of this kind that is authentic, and has these claims.
    pub(crate) fn put(&self, tag: Tag, token: &str, kind: Kind, claims: &Claims) {
        let Ok(mut set) = self.set(tag).try_write() else { return };
        let Set { entries, next } = &mut *set;
        if entries.iter().any(|entry| entry.tag == tag) {
            return;
        }
        let new = |token| Entry { tag, kind, token, claims: claims.clone() };
        if entries.len() < WAYS {
            entries.reserve_exact(WAYS - entries.len());
            entries.push(new(Zeroizing::new(token.to_owned())));
            return;
        }
        let oldest = &mut entries[*next];
        *next = (*next + 1) % WAYS;
        let mut text = std::mem::take(&mut oldest.token);
        if text.capacity() < token.len() {
            text = Zeroizing::new(token.to_owned());
        } else {
            text.clear();
            text.push_str(token);
        }
        *oldest = new(text);
    }

    fn set(&self, tag: Tag) -> &RwLock<Set> {
        // The number of sets is a power of two.
        &self.sets[tag.0 as usize & (self.sets.len() - 1)]
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("sets", &self.sets.len()).finish_non_exhaustive()
    }
}
