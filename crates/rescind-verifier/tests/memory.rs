//! The allocations of a verification. This is a binary of its own, because its allocator counts for the process.

#![cfg(test)]

use std::{alloc::System, cell::Cell, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use rescind_verifier::{
    Algorithm, BearerError, Claims, ClientId, ClientPolicy, Denied, Key, Kind, MAX_TOKEN_LENGTH, Profile,
    SessionId, SessionState, State, Verifier, bearer_token, header_segment,
};
use sha2::Sha256;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const GIANT: usize = 256 << 10;

/// The number of allocations by `f`, and their bytes. Other threads can only add to a count, so the least of
/// ten counts is right.
fn allocations(f: impl Fn()) -> (usize, usize) {
    let once = || {
        let region = Region::new(ALLOCATOR);
        f();
        let change = region.change();
        (change.allocations + change.reallocations, change.bytes_allocated)
    };
    (0..10).map(|_| once()).min().unwrap()
}

fn allocated(f: impl Fn()) -> usize {
    allocations(f).1
}

/// A client with a session, whoever asks.
struct Known(Arc<ClientPolicy>);

impl State for Known {
    fn client(&self, _: ClientId) -> Option<Arc<ClientPolicy>> {
        Some(Arc::clone(&self.0))
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        Some(SessionState::new(id, 1, false))
    }
}

fn token(client: ClientId, scopes: &str, profile: &Profile) -> String {
    let claims = Claims {
        client,
        issued_at: 0,
        expires_at: 1,
        session: client,
        credential: 3,
        generation: 0,
        pair: 1,
        scopes: scopes.parse().unwrap(),
        resources: Default::default(),
    };
    let header = header_segment(Algorithm::Hs256, "k1", Kind::Access);
    let text =
        format!("{header}.{}", BASE64URL_NOPAD.encode(claims.write(profile, Some("rk_one")).as_bytes()));
    let tag = Hmac::<Sha256>::new_from_slice(&[1; 32]).unwrap().chain_update(&text).finalize().into_bytes();
    format!("{text}.{}", BASE64URL_NOPAD.encode(&tag))
}

#[test]
fn a_valid_token_takes_one_allocation_and_none_when_it_comes_again() {
    let key = Key::hs256("k1", &[1; 32]).unwrap();
    let profile = Profile::new("https://id.example", "https://api.example").unwrap();
    let tokens: Vec<_> = (0..100).map(|client| token(client, "orders:read orders:write", &profile)).collect();
    let plain = Verifier::new([key].into_iter().collect(), profile);
    let mut policy = ClientPolicy::new("c");
    policy.credentials = vec![3];
    policy.scopes = "orders:read orders:write reports".parse().unwrap();
    let known = Known(Arc::new(policy));
    let next = Cell::new(0);
    let verify = |verifier: &Verifier, i: usize| {
        let token =
            verifier.verify(&tokens[i % tokens.len()], Some([127, 0, 0, 1].into()), 0, &known).unwrap();
        assert_eq!(token.scopes().iter().count(), 2);
        token.require(&token.client().scopes).unwrap_err();
    };
    let verify_next = |verifier: &Verifier| verify(verifier, next.replace(next.get() + 1));

    // It is the text of the scopes.
    assert_eq!(allocations(|| verify_next(&plain)), (1, 40));

    let cached = plain.clone().with_token_cache(1000);
    verify(&cached, 0);
    assert_eq!(allocations(|| verify(&cached, 0)), (0, 0));

    // In a cache that is full, a token moves into the place of another one.
    let full = plain.with_token_cache(8);
    tokens.iter().for_each(|_| verify_next(&full));
    assert_eq!(allocations(|| verify_next(&full)), (1, 40));
}

#[test]
fn a_cache_is_bounded() {
    const TOKENS: usize = 64;
    let held = |issuer: usize, scopes: usize, lengths: std::ops::Range<usize>| {
        let key = Key::hs256("k1", &[1; 32]).unwrap();
        let profile = Profile::new(&"i".repeat(issuer), &"a".repeat(issuer)).unwrap();
        let tokens: Vec<_> =
            (1000..1200).map(|client| token(client, &"s".repeat(scopes), &profile)).collect();
        assert!(tokens.iter().all(|token| lengths.contains(&token.len())), "{}", tokens[0].len());
        let plain = Verifier::new([key].into_iter().collect(), profile);
        let once = || {
            let region = Region::new(ALLOCATOR);
            let cached = plain.clone().with_token_cache(TOKENS);
            for token in &tokens {
                cached.authenticate(token, Kind::Access, 0).unwrap();
            }
            let change = region.change();
            drop(cached);
            change.bytes_allocated.saturating_sub(change.bytes_deallocated)
        };
        (0..5).map(|_| once()).min().unwrap()
    };
    // The scopes are kept beside the text.
    for (issuer, scopes) in [(250, 44), (10, 504)] {
        let most = held(issuer, scopes, 960..1025);
        assert!((960 * TOKENS..1700 * TOKENS).contains(&most), "{most}");
    }
    // None of these is kept.
    let least = held(250, 84, 1025..1100);
    assert!(least < 100 * TOKENS, "{least}");
}

// check 43, CVE-2025-61920, CVE-2025-30204
#[test]
fn what_is_refused_takes_no_memory_however_long_it_is() {
    let key = Key::hs256("k1", &[1; 32]).unwrap();
    let profile = Profile::new("https://id.example", "https://api.example").unwrap();
    let verifier = Verifier::new([key].into_iter().collect(), profile);
    let header = header_segment(Algorithm::Hs256, "k1", Kind::Access);
    let signed =
        |length: usize| format!("{header}.{}.{}", "A".repeat(length - header.len() - 45), "A".repeat(43));

    // It does count.
    assert!(allocated(|| drop(std::hint::black_box(vec![0u8; 1000]))) >= 1000);
    for (token, denied) in [
        (".".repeat(GIANT), Denied::Malformed),
        ("A".repeat(GIANT), Denied::Malformed),
        ("e30.".repeat(GIANT / 4), Denied::Malformed),
        (signed(GIANT), Denied::Malformed),
        // The longest that is looked at, as far as its signature.
        (signed(MAX_TOKEN_LENGTH), Denied::BadSignature),
    ] {
        let verify = || assert_eq!(verifier.authenticate(&token, Kind::Access, 0), Err(denied));
        assert_eq!(allocated(verify), 0, "{} bytes", token.len());
        let line = format!("Bearer {token}");
        let read = || assert_eq!(bearer_token([line.as_bytes()]), Ok(token.as_str()));
        assert_eq!(allocated(read), 0, "{} bytes", token.len());
        let bad = format!("Bearer {token}\t");
        let read = || assert_eq!(bearer_token([bad.as_bytes()]), Err(BearerError::Malformed));
        assert_eq!(allocated(read), 0, "{} bytes", token.len());
    }
}
