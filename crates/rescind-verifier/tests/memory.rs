//! The allocations of a verification. This is a binary of its own, because its allocator counts for the process.

#![cfg(test)]

use std::alloc::System;

use rescind_verifier::{
    Algorithm, BearerError, Denied, Key, Kind, MAX_TOKEN_LENGTH, Profile, Verifier, bearer_token,
    header_segment,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const GIANT: usize = 256 << 10;

/// The bytes allocated by `f`. Other threads can only add to a count, so the least of ten counts is
/// right.
fn allocated(f: impl Fn()) -> usize {
    let once = || {
        let region = Region::new(ALLOCATOR);
        f();
        region.change().bytes_allocated
    };
    (0..10).map(|_| once()).min().unwrap()
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
