//! The cost of a verification, beside the HMAC over the same bytes and a general reader:
//! `cargo bench -p rescind-verifier`.
//!
//! Everything is measured in turns over the same thousand tokens, in CPU time of the thread, and the median of the
//! turns is printed: a line `verifier ALGORITHM WHAT NANOSECONDS` for each, then the ratios.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    collections::HashMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::Signer as _;
use hmac::{Hmac, KeyInit, Mac};
use ipnet::IpNet;
use jsonwebtoken::{DecodingKey, Validation, decode};
use rescind_verifier::{
    Algorithm, Allowlist, Claims, ClientId, ClientPolicy, Key, Kind, Profile, SessionId, SessionState, State,
    Verifier, header_segment,
};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use sha2::Sha256;

const SECRET: [u8; 32] = [7; 32];
const NOW: u64 = 1_736_942_400;

/// The number of clients, each with one token: enough that nothing stays in the nearest caches.
const CLIENTS: u64 = 1000;
/// How often each is measured, and for how long at least.
const TURNS: usize = 15;
const TURN: Duration = Duration::from_millis(20);

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

/// Clients with so many networks more than the caller's.
fn memory(networks: u32) -> Memory {
    let others = (0..networks).map(|n| IpNet::new(Ipv4Addr::from(0x0b00_0000 + 2 * n).into(), 32).unwrap());
    let allowlist: Allowlist =
        ["203.0.113.0/24", "2001:db8::/32"].iter().map(|net| net.parse().unwrap()).chain(others).collect();
    let policy = |id: ClientId| {
        let mut policy = ClientPolicy::new(format!("client {id}"));
        policy.allowlist = allowlist.clone();
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

/// As long as those that the service makes.
const API_KEY: &str = "APIKEY";

fn profile() -> Profile {
    Profile::new("https://id.example", "https://api.example").unwrap()
}

fn claims(client: ClientId) -> Claims {
    Claims {
        client,
        issued_at: NOW,
        // `jsonwebtoken` reads the wall clock.
        expires_at: 4_102_444_800,
        session: client,
        credential: 3,
        generation: 0,
        pair: 1,
        scopes: "orders:read orders:write".parse().unwrap(),
        resources: Default::default(),
    }
}

fn mac() -> Hmac<Sha256> {
    Hmac::new_from_slice(&SECRET).unwrap()
}

fn p256_key() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&SECRET).unwrap()
}

fn sign(algorithm: Algorithm, text: &str) -> Vec<u8> {
    match algorithm {
        Algorithm::Hs256 => mac().chain_update(text).finalize().into_bytes().to_vec(),
        Algorithm::EdDsa | Algorithm::Ed25519 => {
            ed25519_dalek::SigningKey::from_bytes(&SECRET).sign(text.as_bytes()).to_bytes().to_vec()
        }
        Algorithm::Es256 => {
            let signature: p256::ecdsa::Signature = p256_key().sign(text.as_bytes());
            signature.normalize_s().to_bytes().to_vec()
        }
    }
}

/// Our key, and the peer's with the name that the peer has for the algorithm.
fn keys(algorithm: Algorithm) -> (Key, DecodingKey, jsonwebtoken::Algorithm) {
    match algorithm {
        Algorithm::Hs256 => (
            Key::hs256("k1", &SECRET).unwrap(),
            DecodingKey::from_secret(&SECRET),
            jsonwebtoken::Algorithm::HS256,
        ),
        // The same signatures: one of the two names is measured.
        Algorithm::EdDsa | Algorithm::Ed25519 => {
            let public = ed25519_dalek::SigningKey::from_bytes(&SECRET).verifying_key().to_bytes();
            let peer = DecodingKey::from_ed_components(&BASE64URL_NOPAD.encode(&public)).unwrap();
            (Key::eddsa("k1", &public).unwrap(), peer, jsonwebtoken::Algorithm::EdDSA)
        }
        Algorithm::Es256 => {
            let point = p256_key().verifying_key().to_sec1_point(false);
            let coordinate = |c: Option<&[u8]>| BASE64URL_NOPAD.encode(c.unwrap());
            let (x, y) = (point.x().map(|x| &x[..]), point.y().map(|y| &y[..]));
            let peer = DecodingKey::from_ec_components(&coordinate(x), &coordinate(y)).unwrap();
            (Key::es256("k1", point.as_bytes()).unwrap(), peer, jsonwebtoken::Algorithm::ES256)
        }
    }
}

fn token(algorithm: Algorithm, client: ClientId) -> String {
    let payload = claims(client).write(&profile(), Some(API_KEY));
    let payload = BASE64URL_NOPAD.encode(payload.as_bytes());
    let text = format!("{}.{payload}", header_segment(algorithm, "k1", Kind::Access));
    let signature = BASE64URL_NOPAD.encode(&sign(algorithm, &text));
    format!("{text}.{signature}")
}

/// What is measured over a token, with its name.
type Measured<'m> = (&'static str, &'m dyn Fn(&str));

/// The CPU time that `f` takes for each token, in nanoseconds.
fn turn(tokens: &[String], f: &dyn Fn(&str)) -> f64 {
    let used = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let (begin, mut rounds) = (used(), 0);
    loop {
        tokens.iter().for_each(|token| f(black_box(token)));
        rounds += 1;
        let taken = used() - begin;
        if taken >= TURN {
            return taken.as_nanos() as f64 / (rounds * tokens.len()) as f64;
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let (few, many) = (memory(0), memory(9_998));
    let caller: Option<IpAddr> = Some("203.0.113.7".parse().unwrap());
    let mut ratios = vec![];
    for algorithm in [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Es256] {
        let tokens: Vec<_> = (0..CLIENTS).map(|client| token(algorithm, client)).collect();
        let (key, peer_key, name) = keys(algorithm);
        let mut validation = Validation::new(name);
        validation.leeway = 0;
        validation.set_issuer(&[profile().issuer()]);
        validation.set_audience(&[profile().audience()]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);

        let plain = Verifier::new([key].into_iter().collect(), profile());
        // When a token comes again, this many others have taken its place: every look is the first.
        let small = plain.clone().with_token_cache(CLIENTS as usize / 20);
        let large = plain.clone().with_token_cache(8 * CLIENTS as usize);
        let mac = mac();
        let verify = |verifier: &Verifier, memory: &Memory, token: &str| {
            verifier.verify(token, caller, NOW, memory).map(drop).unwrap();
        };
        let measured: [Measured; 6] = [
            ("bare-hmac", &|token| {
                let (signed, _) = token.rsplit_once('.').unwrap();
                black_box(mac.clone().chain_update(signed).finalize());
            }),
            ("uncached", &|token| verify(&plain, &few, token)),
            ("first", &|token| verify(&small, &few, token)),
            ("repeated", &|token| verify(&large, &few, token)),
            ("networks", &|token| verify(&large, &many, token)),
            ("jsonwebtoken", &|token| drop(decode::<Peer>(token, &peer_key, &validation).unwrap())),
        ];
        let mut figures = measured.map(|_| vec![]);
        // The turn before the first warms up, and fills the cache.
        for number in 0..=TURNS {
            for ((_, f), figures) in measured.iter().zip(&mut figures) {
                let figure = turn(&tokens, f);
                if number > 0 {
                    figures.push(figure);
                }
            }
        }
        let [hmac, uncached, first, repeated, networks, peer] = figures.map(median);
        for ((what, _), ns) in measured.iter().zip([hmac, uncached, first, repeated, networks, peer]) {
            println!("verifier {} {what} {ns:.0}", algorithm.name());
        }
        ratios.push((
            algorithm,
            first / hmac,
            repeated / hmac,
            repeated / first,
            networks / repeated,
            first / peer,
        ));
    }
    println!(
        "\n        first / HMAC   repeated / HMAC   repeated / first   10,000 networks / 2   first / jsonwebtoken"
    );
    for (algorithm, first, repeated, again, networks, peer) in ratios {
        println!(
            "{:<6}  {first:>12.2}  {repeated:>16.2}  {again:>17.4}  {networks:>19.2}  {peer:>21.2}",
            algorithm.name()
        );
    }
}
