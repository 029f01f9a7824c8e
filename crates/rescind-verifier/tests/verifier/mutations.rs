//! A hundred thousand damaged tokens, all different, the same ones in every run.

use std::collections::HashSet;

use rescind_verifier::{Claims, Kind};

use crate::fixture::{KEY, NOW, STRANGER, claims, profile, verifier_of};

/// SplitMix64: all that a repeatable walk needs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

/// Bytes that a token is made of, and some that decoders have been known to skip or to fold.
const ALPHABET: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_...+/= \t\r\n\0\"{}%";

fn damage(random: &mut Random, tokens: &[&str]) -> String {
    let mut bytes = random.pick(tokens).as_bytes().to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, ALPHABET[random.below(ALPHABET.len())]),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            // A run moved to another place, or written twice.
            3 => {
                let run = bytes[at..].iter().copied().take(random.below(64)).collect::<Vec<u8>>();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, run);
            }
            // Segments of several good tokens, put together.
            4 => {
                let segments: Vec<&str> = tokens.iter().flat_map(|token| token.split('.')).collect();
                let count = [3, 3, 3, 2, 4, 5][random.below(6)];
                let chosen: Vec<&str> = (0..count).map(|_| random.pick(&segments)).collect();
                bytes = chosen.join(".").into_bytes();
            }
            _ if !bytes.is_empty() => bytes[at] = ALPHABET[random.below(ALPHABET.len())],
            _ => {}
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn of_a_hundred_thousand_damaged_tokens_none_is_accepted() {
    let verifier = verifier_of(&[KEY, STRANGER]);
    let other = Claims { client: 43, pair: 9, scopes: Default::default(), ..claims() };
    let issued: Vec<(Kind, String)> = [(KEY, claims()), (KEY, other), (STRANGER, claims())]
        .iter()
        .flat_map(|(signer, claims)| {
            [Kind::Access, Kind::Refresh].map(|kind| (kind, signer.issue(kind, claims, &profile())))
        })
        .collect();
    let tokens: Vec<&str> = issued.iter().map(|(_, token)| token.as_str()).collect();

    let mut random = Random(0x5EED);
    let mut seen = HashSet::new();
    while seen.len() < 100_000 {
        let damaged = damage(&mut random, &tokens);
        if seen.contains(&damaged) {
            continue;
        }
        for kind in [Kind::Access, Kind::Refresh] {
            let accepted = verifier.authenticate(&damaged, kind, NOW).is_ok();
            // Now and then the damage undoes itself, or puts the segments of one token together.
            let intact = issued.iter().any(|(k, token)| *k == kind && *token == damaged);
            assert_eq!(accepted, intact, "{damaged}");
        }
        seen.insert(damaged);
    }
    // Some came back intact, so the verifier was not refusing everything.
    assert!(tokens.iter().any(|&token| seen.contains(token)));
}
