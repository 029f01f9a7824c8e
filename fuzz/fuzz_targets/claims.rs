//! A payload that is read is, byte for byte, the one that would be written.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rescind_verifier::{Claims, Profile};

static PROFILE: LazyLock<Profile> =
    LazyLock::new(|| Profile::new("https://id.example", "https://api.example").unwrap());

fuzz_target!(|data: &[u8]| {
    if let Ok(claims) = Claims::read(data, &PROFILE) {
        assert_eq!(claims.write(&PROFILE).as_bytes(), data);
        let scopes: Vec<&str> = claims.scopes.iter().collect();
        assert!(scopes.is_sorted_by(|a, b| a < b), "sorted, without repetition");
    }
});
