//! Request bodies: what is accepted is what `serde_json` reads too, and no object has a name twice.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(value) = rescind::http::parse_json(body) else { return };
    let lenient: serde_json::Value = serde_json::from_slice(body).expect("we accept less");
    assert_eq!(value, lenient);
    let again = serde_json::to_vec(&value).expect("a value can be written");
    assert!(rescind::http::parse_json(&again).is_ok(), "what we write we read");
});
