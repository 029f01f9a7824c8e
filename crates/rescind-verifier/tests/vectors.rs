//! The test vectors: the file is what its generator writes, and the verifier comes to every verdict in
//! it.

#![cfg(test)]
#![cfg(feature = "asymmetric")]

#[path = "../examples/vectors/generate/mod.rs"]
mod generate;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use data_encoding::BASE64URL_NOPAD;
use generate::format::{self, Case, Vectors};
use rescind_verifier::{
    Algorithm, ClientId, ClientPolicy, Denied, Key, KeySet, Profile, SessionId, SessionState, State,
    Verifier, parse_cidr,
};

const FILE: &str = include_str!("../../../vectors/tokens.json");

fn file() -> Vectors {
    serde_json::from_str(FILE).unwrap()
}

#[test]
fn the_file_is_what_the_generator_writes() {
    let written = generate::vectors().to_json();
    for (line, (file, written)) in FILE.lines().zip(written.lines()).enumerate() {
        assert_eq!(file, written, "line {}: see vectors/README.md on how to write it anew", line + 1);
    }
    assert_eq!(FILE, written);
}

/// `None`: the key is refused.
fn key(key: &format::Key) -> Option<Key> {
    let bytes =
        BASE64URL_NOPAD.decode(key.secret.as_ref().xor(key.public.as_ref()).unwrap().as_bytes()).unwrap();
    match Algorithm::from_name(&key.alg).unwrap() {
        Algorithm::Hs256 => Key::hs256(&key.kid, &bytes).ok(),
        Algorithm::EdDsa => Key::eddsa(&key.kid, bytes.as_slice().try_into().ok()?).ok(),
        Algorithm::Ed25519 => Key::ed25519(&key.kid, bytes.as_slice().try_into().ok()?).ok(),
        Algorithm::Es256 => Key::es256(&key.kid, &bytes).ok(),
    }
}

// check 35, 37
#[test]
fn keys_to_refuse_are_refused() {
    for refused in &file().refused_keys {
        assert!(key(refused).is_none(), "{:?}", refused.kid);
    }
}

struct Memory {
    clients: HashMap<ClientId, Arc<ClientPolicy>>,
    sessions: HashMap<SessionId, SessionState>,
}

impl State for Memory {
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        self.clients.get(&id).cloned()
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        self.sessions.get(&id).copied()
    }
}

fn memory(vectors: &Vectors) -> Memory {
    let client = |client: &format::Client| {
        let mut policy = ClientPolicy::new(&*client.name);
        policy.generation = client.generation;
        policy.active = client.active;
        policy.allowlist = client.allowlist.iter().map(|entry| parse_cidr(entry).unwrap()).collect();
        policy.scopes = client.scopes.parse().unwrap();
        policy.credentials = client.credentials.clone();
        policy
    };
    let session = |session: &format::Session| SessionState::new(session.client, session.pair, session.ended);
    Memory {
        clients: vectors.clients.iter().map(|c| (c.id, Arc::new(client(c)))).collect(),
        sessions: vectors.sessions.iter().map(|s| (s.id, session(s))).collect(),
    }
}

/// Returns the scopes of a valid token.
fn judge(verifier: &Verifier, memory: &Memory, now: u64, case: &Case) -> Result<String, Denied> {
    let caller = case.caller.as_ref().map(|caller| caller.parse().unwrap());
    let verified = verifier.verify(&case.token, caller, now, memory)?;
    if let Some(needed) = &case.requires {
        verified.require(&needed.parse().unwrap())?;
    }
    Ok(verified.scopes().to_string())
}

// check 34, 36 to 48
#[test]
fn every_verdict_is_the_verifiers() {
    let vectors = file();
    let profile = Profile::new(&vectors.profile.issuer, &vectors.profile.audience).unwrap();
    let keys: KeySet = vectors.keys.iter().map(|entry| key(entry).unwrap()).collect();
    let (verifier, memory) = (Verifier::new(keys, profile), memory(&vectors));
    let mut wrong = Vec::new();
    for case in &vectors.cases {
        let judged = judge(&verifier, &memory, vectors.now, case);
        let told = judged.as_ref().map_or_else(|denied| denied.name(), |_| "ok");
        if told != case.verdict || judged.ok() != case.scopes {
            wrong.push(format!("{}: {told}, not {}", case.name, case.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each reason that a token's text or the state can give.
const REASONS: [Denied; 12] = [
    Denied::Malformed,
    Denied::UnknownKey,
    Denied::BadSignature,
    Denied::WrongIssuer,
    Denied::WrongAudience,
    Denied::NotYetValid,
    Denied::Expired,
    Denied::NotKnown,
    Denied::ClientInactive,
    Denied::Revoked,
    Denied::AddressNotAllowed,
    Denied::ScopeMissing,
];

#[test]
fn nothing_is_left_out() {
    let cases = file().cases;
    let verdicts: HashSet<&str> = cases.iter().map(|case| case.verdict.as_str()).collect();
    let expected: HashSet<&str> = REASONS.map(Denied::name).into_iter().chain(["ok"]).collect();
    assert_eq!(verdicts, expected);

    // Check 35 is about keys.
    let checks: HashSet<u8> = cases.iter().filter_map(|case| case.check).collect();
    assert!((34..=48).filter(|check| *check != 35).all(|check| checks.contains(&check)), "{checks:?}");

    for advisory in [
        "CVE-2024-24790",
        "CVE-2025-30204",
        "CVE-2025-61920",
        "CVE-2026-25537",
        "CVE-2026-27840",
        "CVE-2026-27962",
        "CVE-2026-32597",
    ] {
        assert!(cases.iter().any(|case| case.advisories.iter().any(|a| a == advisory)), "{advisory}");
    }

    let names: HashSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
}
