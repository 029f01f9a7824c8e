//! A verifier with a cache decides as one without, whatever is presented, when, in which state and by which keys.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use rescind_verifier::{Claims, ClientPolicy, Denied, KeySet, Kind, SessionState, Verifier};

use super::{
    keys::{KEYS, TestKey},
    mutate::Mutator,
    random::Random,
};
use crate::fixture::{Memory, NOW, claims, profile};

/// How many tokens are presented.
const LOOKS: usize = 120_000;
/// After so many looks the keys change, as a rotation changes them.
const ROTATION: usize = 2_000;
/// The cache is smaller than what is presented, so that tokens take each other's place.
const CACHED: usize = 32;

fn verifiers(keys: &[TestKey]) -> (Verifier, Verifier) {
    let keys = keys.iter().flat_map(|key| [key.key(), key.key().for_refresh_tokens()]);
    let plain = Verifier::new(KeySet::from_iter(keys), profile());
    (plain.clone(), plain.with_token_cache(CACHED))
}

/// Good tokens of every key and kind, of several clients.
fn good() -> Vec<String> {
    let mut tokens = vec![];
    for key in KEYS {
        for kind in [Kind::Access, Kind::Refresh] {
            let of = |client| {
                let session = client;
                key.issue(kind, &Claims { client, session, ..claims() }, &profile())
            };
            tokens.extend((42..if kind == Kind::Access { 46 } else { 43 }).map(of));
        }
    }
    tokens
}

/// A state in which a token of `claims()` may be valid, revoked, or not known.
fn state(random: &mut Random) -> Memory {
    let mut memory = Memory::default();
    for client in 42..46 {
        let mut policy = ClientPolicy::new("c");
        policy.generation = random.pick(&[5, 5, 5, 5, 5, 5, 5, 5, 4, 6]);
        policy.active = random.below(8) != 0;
        policy.credentials = vec![random.pick(&[3, 3, 3, 3, 4])];
        policy.scopes = "orders:read".parse().unwrap();
        memory.clients.insert(client, Arc::new(policy));
        memory.sessions.insert(client, SessionState::new(client, 2, random.below(8) == 0));
    }
    memory
}

#[test]
fn a_cache_changes_no_verdict() {
    let mut random = Random(7);
    let mut mutator = Mutator::new(7);
    let good = good();
    let (mut plain, mut cached) = verifiers(&KEYS);
    let mut memory = state(&mut random);
    let mut recent: Vec<String> = vec![];
    let (mut accepted, mut again, mut denied) = (HashSet::new(), 0, HashSet::new());
    for look in 0..LOOKS {
        if look % ROTATION == 0 {
            accepted.clear();
            let left = random.next() | random.next();
            let keys: Vec<_> = KEYS.into_iter().enumerate().filter(|(i, _)| left >> i & 1 == 1).collect();
            (plain, cached) = verifiers(&keys.into_iter().map(|(_, key)| key).collect::<Vec<_>>());
        }
        if random.below(20) == 0 {
            memory = state(&mut random);
        }
        let token = match random.below(10) {
            0..3 => {
                let (_, mutant) = mutator.next();
                recent.push(mutant.clone());
                mutant
            }
            3..6 if !recent.is_empty() => recent[random.below(recent.len())].clone(),
            // Few of them, so that they come again before others have taken their place.
            _ => good[(look / 500 * 5 + random.below(12)) % good.len()].clone(),
        };
        if recent.len() > 50 {
            recent.swap_remove(random.below(50));
        }
        let now = random.pick(&[NOW, NOW, NOW, NOW + 3599, NOW + 3600, NOW - 60, NOW - 61, 4_102_444_800]);
        let kind = random.pick(&[Kind::Access, Kind::Access, Kind::Access, Kind::Refresh]);
        let caller: Option<IpAddr> = Some("203.0.113.7".parse().unwrap());

        let decide = |verifier: &Verifier| -> Result<Claims, Denied> {
            match kind {
                Kind::Access => {
                    verifier.verify(&token, caller, now, &memory).map(|token| token.claims().clone())
                }
                Kind::Refresh => verifier.authenticate(&token, kind, now),
            }
        };
        let verdict = decide(&plain);
        assert_eq!(decide(&cached), verdict, "look {look}: {token}");
        match verdict {
            Ok(_) if accepted.contains(&token) => again += 1,
            Ok(_) => drop(accepted.insert(token)),
            Err(reason) => drop(denied.insert(reason)),
        }
    }
    assert!(again > LOOKS / 30, "were nothing found in the cache, nothing would have been shown: {again}");
    for reason in [
        Denied::Malformed,
        Denied::UnknownKey,
        Denied::BadSignature,
        Denied::WrongKind,
        Denied::NotYetValid,
        Denied::Expired,
        Denied::Revoked,
    ] {
        assert!(denied.contains(&reason), "{reason:?}");
    }
}

/// The signature alone finds the entry, and every other character must still be right.
#[test]
fn a_token_in_the_cache_lets_no_other_text_in() {
    let (_, cached) = verifiers(&KEYS);
    for token in good() {
        let kind =
            if cached.authenticate(&token, Kind::Access, NOW).is_ok() { Kind::Access } else { Kind::Refresh };
        for at in 0..token.len() {
            // In the cache, however many have come since.
            cached.authenticate(&token, kind, NOW).unwrap();
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(cached.authenticate(&other, kind, NOW).is_err(), "{at}: {other}");
        }
        for other in [&token[1..], &token[..token.len() - 1], &format!("{token} "), &format!(".{token}")] {
            assert!(cached.authenticate(other, kind, NOW).is_err(), "{other}");
        }
    }
}

#[test]
fn threads_that_share_a_cache_do_not_mix_tokens_up() {
    let (_, cached) = verifiers(&KEYS[..1]);
    let token = |client| KEYS[0].issue(Kind::Access, &Claims { client, ..claims() }, &profile());
    let tokens: Vec<_> = (0..100).map(|client| (client, token(client))).collect();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (cached, tokens) = (&cached, &tokens);
            scope.spawn(move || {
                let mut random = Random(seed);
                for _ in 0..5_000 {
                    // Some of them often, so that they are found, and some seldom.
                    let most = random.pick(&[4, 20, 100]);
                    let (client, token) = &tokens[random.below(most)];
                    let claims = cached.authenticate(token, Kind::Access, NOW).unwrap();
                    assert_eq!(claims.client, *client);
                }
            });
        }
    });
}
