//! Mutations of valid tokens: of their characters, of their signatures, and of the signed text.

use rescind_verifier::{Algorithm, Claims, Kind};

use super::{
    json,
    keys::{KEYS, STRANGERS, TestKey, hs256},
    random::Random,
};
use crate::fixture::{base64url, claims, client_id, profile};

/// The characters of tokens, and characters that some decoders skip or replace.
const ALPHABET: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_...+/= \t\r\n\0\"{}%";
/// 2100-01-01: these tokens do not expire while tests run.
const EXPIRES_AT: u64 = 4_102_444_800;
/// The order of Ed25519's group, in little-endian bytes (RFC 8032 §5.1).
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// How a valid token was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// Characters changed, lost, added, moved.
    Damaged,
    /// Segments of several tokens, put together.
    Spliced,
    /// The same bytes in another base64, or with characters around them.
    Respelled,
    /// Another signature: damaged, by a wrong key, by a key used with another algorithm, or missing.
    Missigned,
    /// Header, payload or both changed and signed again with the right key.
    Resigned,
}

/// A valid token and its parts.
struct Good {
    key: TestKey,
    kind: Kind,
    payload: String,
    token: String,
}

/// Makes mutants without end, the same ones for the same seed.
pub(super) struct Mutator {
    random: Random,
    good: Vec<Good>,
}

impl Mutator {
    pub(super) fn new(seed: u64) -> Mutator {
        let lasting = Claims { expires_at: EXPIRES_AT, ..claims() };
        let bare = Claims { client: 43, pair: 9, scopes: Default::default(), ..lasting.clone() };
        let large = Claims { session: (1 << 53) - 1, generation: 1 << 40, ..lasting.clone() };
        let resources = format!("{} urn:other", profile().audience()).parse().unwrap();
        let shared = Claims { resources, ..lasting.clone() };
        let good = |key: TestKey, kind, claims: &Claims| Good {
            key,
            kind,
            payload: claims.write(&profile(), client_id(kind)),
            token: key.issue(kind, claims, &profile()),
        };
        let kinds = [Kind::Access, Kind::Refresh];
        let good = KEYS.iter().flat_map(|&key| {
            let of = [&lasting, &bare, &large, &shared];
            kinds.map(|kind| of.map(|claims| good(key, kind, claims))).into_iter().flatten()
        });
        Mutator { random: Random(seed), good: good.collect() }
    }

    /// The next mutant. Sometimes the mutations undo each other, and the result is a valid token.
    pub(super) fn next(&mut self) -> (How, String) {
        loop {
            let random = &mut self.random;
            // Curves cost a hundred times what an HMAC does: one in eight is signed with one.
            let among = if random.below(4) == 0 { &self.good[..] } else { &self.good[..self.good.len() / 2] };
            let good = &among[random.below(among.len())];
            let (how, token) = match random.below(100) {
                0..30 => (How::Damaged, damaged(good, random)),
                30..40 => (How::Spliced, Some(spliced(&self.good, random))),
                40..50 => (How::Respelled, Some(respelled(good, random))),
                50..60 => (How::Missigned, Some(missigned(good, random))),
                _ => (How::Resigned, Some(resigned(good, random))),
            };
            if let Some(token) = token {
                return (how, token);
            }
        }
    }
}

/// `None`: the result is no UTF-8, so no verifier can read it.
fn damaged(good: &Good, random: &mut Random) -> Option<String> {
    let mut bytes = good.token.as_bytes().to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        let run = at..bytes.len().min(at + random.below(64));
        match random.below(9) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.pick(ALPHABET)),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            3 if !bytes.is_empty() => bytes[at] = random.pick(ALPHABET),
            4 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            5 if !bytes.is_empty() => {
                let other = random.below(bytes.len());
                bytes.swap(at, other);
            }
            6 => bytes[run].iter_mut().for_each(|b| *b ^= 0x20 * u8::from(b.is_ascii_alphabetic())),
            7 => drop(bytes.drain(run)),
            _ => {
                let copy = bytes[run].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
        }
    }
    String::from_utf8(bytes).ok()
}

fn spliced(good: &[Good], random: &mut Random) -> String {
    let count = random.pick(&[3, 3, 3, 3, 1, 2, 4, 5]);
    let segment = |_| match random.below(12) {
        0 => "",
        1 => "e30",
        _ => {
            let token = &good[random.below(good.len())].token;
            token.split('.').nth(random.below(3)).unwrap_or_default()
        }
    };
    (0..count).map(segment).collect::<Vec<_>>().join(".")
}

fn respelled(good: &Good, random: &mut Random) -> String {
    let token = &good.token;
    let mut segments: Vec<String> = token.split('.').map(str::to_owned).collect();
    let which = random.below(3);
    let segment = &mut segments[which];
    let at = random.below(segment.len());
    match random.below(8) {
        0 => segment.push_str(random.pick(&["=", "==", "====", "A", "AA", "%3D"])),
        1 => *segment = segment.replace('-', "+").replace('_', "/"),
        // The last character's spare bits, where there are any.
        2 => {
            let last = segment.pop().and_then(|c| ALPHABET.iter().position(|&b| char::from(b) == c));
            segment.push(char::from(ALPHABET[last.unwrap_or_default() ^ (1 + random.below(15))]));
        }
        3 => segment.insert_str(at, random.pick(&[" ", "\n", "\r\n", "\t", "\0", "=", "\u{200b}"])),
        4 => segment.replace_range(at..=at, &format!("%{:02x}", segment.as_bytes()[at])),
        5 => *segment = base64url(&*segment),
        6 => *segment = segment.chars().rev().collect(),
        _ => {
            let around = [
                ("", " "),
                (" ", ""),
                ("", "."),
                (".", ""),
                ("\"", "\""),
                ("Bearer ", ""),
                ("", "\n"),
                ("", ","),
            ];
            let (before, after) = random.pick(&around);
            return format!("{before}{token}{after}");
        }
    }
    segments.join(".")
}

fn missigned(good: &Good, random: &mut Random) -> String {
    let Good { key, kind, payload, .. } = good;
    let signed = |header: String| format!("{}.{}", base64url(header), base64url(payload));
    let text = signed(key.header(*kind));
    let mut signature = key.signature(&text);
    let some_byte = random.below(signature.len());
    match random.below(11) {
        0 => signature.truncate(some_byte),
        1 => signature.extend((0..1 + random.below(33)).map(|_| random.below(256) as u8)),
        2 => signature.resize(signature.len() + 1 + random.below(32), 0),
        3 => signature[some_byte] ^= 1 << random.below(8),
        4 => signature = vec![0; random.pick(&[0, 1, 31, 32, 33, 63, 64, 65])],
        5 => signature = random.pick(&STRANGERS).signature(&text),
        6 => signature = random.pick(&KEYS).signature(&text),
        // Only a part of what should be signed.
        7 => {
            let parts = [payload, &key.header(*kind), &base64url(payload), &text.replace('.', "")];
            signature = key.signature(parts[random.below(parts.len())]);
        }
        8 => signature = relatives(key.algorithm, &signature, random),
        // What verifies taken for a secret.
        9 => {
            let text = signed(key.header(*kind).replace(key.algorithm.name(), "HS256"));
            let bytes = key.verification_bytes();
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let secrets = [bytes.clone(), hex.into(), base64url(&bytes).into(), bytes[1..].to_vec(), vec![]];
            // An HS256 key's own bytes are no confusion.
            let from = usize::from(key.algorithm == Algorithm::Hs256);
            let tag = hs256(&secrets[from + random.below(secrets.len() - from)], &text);
            return format!("{text}.{}", base64url(tag));
        }
        _ => {
            let algorithms = [
                "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA",
                "Ed25519", "dir",
            ];
            let text = signed(key.header(*kind).replace(key.algorithm.name(), random.pick(&algorithms)));
            return match random.below(3) {
                0 => text,
                1 => format!("{text}."),
                _ => key.sign(&text),
            };
        }
    }
    format!("{text}.{}", base64url(signature))
}

/// Other signatures that a lax verifier of the same algorithm accepts in place of this one.
fn relatives(algorithm: Algorithm, signature: &[u8], random: &mut Random) -> Vec<u8> {
    let (first, second) = signature.split_at(signature.len() / 2);
    match algorithm {
        Algorithm::Hs256 => [first, &[0; 16]].concat(),
        Algorithm::EdDsa | Algorithm::Ed25519 => {
            let mut carry = 0;
            let sum = second.iter().zip(L).map(|(&a, b)| {
                let sum = u16::from(a) + u16::from(b) + carry;
                carry = sum >> 8;
                sum as u8
            });
            [first, &sum.collect::<Vec<_>>()].concat()
        }
        Algorithm::Es256 => {
            let own = p256::ecdsa::Signature::from_slice(signature).unwrap();
            let (r, s) = own.split_scalars();
            match random.below(4) {
                0 => p256::ecdsa::Signature::from_scalars(r, -s).unwrap().to_bytes().to_vec(),
                1 => own.to_der().as_bytes().to_vec(),
                2 => [second, first].concat(),
                _ => [first, &[0; 32]].concat(),
            }
        }
    }
}

fn resigned(good: &Good, random: &mut Random) -> String {
    let Good { key, kind, payload, .. } = good;
    let header = key.header(*kind);
    let (header, payload) = match random.below(6) {
        0 | 1 => (json::changed(&header, random), payload.clone().into_bytes()),
        2 => (json::changed(&header, random), json::changed(payload, random)),
        _ => (header.into_bytes(), json::changed(payload, random)),
    };
    key.mint(header, payload)
}
