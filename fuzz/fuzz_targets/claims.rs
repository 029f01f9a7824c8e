//! A payload that is read is, byte for byte, the one that would be written.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rescind_verifier::{Claims, Profile};

static PROFILE: LazyLock<Profile> =
    LazyLock::new(|| Profile::new("https://id.example", "https://api.example").unwrap());

fuzz_target!(|data: &[u8]| {
    if let Ok(claims) = Claims::read(data, &PROFILE) {
        // It is not kept, so it is taken from where it stands.
        let text = str::from_utf8(data).unwrap();
        let client_id = text.split(r#","client_id":""#).nth(1).and_then(|rest| rest.split('"').next());
        assert_eq!(claims.write(&PROFILE, client_id).as_bytes(), data);
        let scopes: Vec<&str> = claims.scopes.iter().collect();
        assert!(scopes.is_sorted_by(|a, b| a < b), "sorted, without repetition");
    }
});
