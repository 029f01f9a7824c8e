//! The cost of a verification, compared with the MAC that it needs and with a general reader:
//! `cargo bench -p rescind-verifier`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{collections::HashMap, hint::black_box, net::IpAddr, sync::Arc};

use criterion::{Criterion, Throughput};
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use rescind_verifier::{
    Claims, ClientId, ClientPolicy, Key, Kind, Profile, SessionId, SessionState, State, Verifier,
    header_segment,
};
use serde::Deserialize;
use sha2::Sha256;

const SECRET: [u8; 32] = [7; 32];
const NOW: u64 = 1_736_942_400;

/// Enough clients that the maps are larger than one cache line.
const CLIENTS: u64 = 1000;

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

fn memory() -> Memory {
    let policy = |id: ClientId| {
        let mut policy = ClientPolicy::new(format!("client {id}"));
        policy.allowlist =
            ["203.0.113.0/24", "2001:db8::/32"].iter().map(|net| net.parse().unwrap()).collect();
        policy.scopes = "orders:read orders:write".parse().unwrap();
        policy.credentials = vec![3];
        policy
    };
    Memory {
        clients: (0..CLIENTS).map(|id| (id, Arc::new(policy(id)))).collect(),
        sessions: (0..CLIENTS).map(|id| (id, SessionState::new(id, 1, false))).collect(),
    }
}

/// All the claims, as a program that uses `jsonwebtoken` would declare them.
#[derive(Deserialize)]
#[expect(dead_code, reason = "reading them is the work that is measured")]
struct Peer {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
    sid: String,
    cred: u64,
    r#gen: u64,
    pair: u64,
    scope: Option<String>,
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let profile = Profile::new("https://id.example", "https://api.example").unwrap();
    let claims = Claims {
        client: 42,
        issued_at: NOW,
        // `jsonwebtoken` reads the wall clock.
        expires_at: 4_102_444_800,
        session: 42,
        credential: 3,
        generation: 0,
        pair: 1,
        scopes: "orders:read orders:write".parse().unwrap(),
    };
    let mac = Hmac::<Sha256>::new_from_slice(&SECRET).unwrap();
    let payload = BASE64URL_NOPAD.encode(claims.write(&profile).as_bytes());
    let signed =
        format!("{}.{payload}", header_segment(rescind_verifier::Algorithm::Hs256, "k1", Kind::Access));
    let tag = BASE64URL_NOPAD.encode(&mac.clone().chain_update(&signed).finalize().into_bytes());
    let token = format!("{signed}.{tag}");

    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = 0;
    validation.set_issuer(&[profile.issuer()]);
    validation.set_audience(&[profile.audience()]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let decoding_key = DecodingKey::from_secret(&SECRET);

    let key = Key::hs256("k1", &SECRET).unwrap();
    let verifier = Verifier::new([key].into_iter().collect(), profile);
    let memory = memory();
    let caller: Option<IpAddr> = Some("203.0.113.7".parse().unwrap());

    // Each is asked once before it is timed: a refusal would be fast, and mean nothing.
    assert_eq!(verifier.authenticate(&token, Kind::Access, NOW), Ok(claims));
    verifier.verify(&token, caller, NOW, &memory).unwrap();
    decode::<Peer>(&token, &decoding_key, &validation).unwrap();

    let mut group = criterion.benchmark_group("token");
    group.throughput(Throughput::Bytes(token.len() as u64));
    group.bench_function("hmac-sha256 alone", |b| {
        b.iter(|| mac.clone().chain_update(black_box(&token)).finalize())
    });
    group.bench_function("authenticate", |b| {
        b.iter(|| verifier.authenticate(black_box(&token), Kind::Access, NOW))
    });
    group.bench_function("verify", |b| b.iter(|| verifier.verify(black_box(&token), caller, NOW, &memory)));
    group.bench_function("jsonwebtoken", |b| {
        b.iter(|| decode::<Peer>(black_box(&token), &decoding_key, &validation))
    });
    group.finish();
    criterion.final_summary();
}
