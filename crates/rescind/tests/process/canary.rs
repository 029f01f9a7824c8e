//! Finds secrets, and parts of them, in a text.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// This many bytes of a secret in a text count as a leak.
const PART: usize = 12;

/// The parts of a secret, in every encoding in which a text may contain them.
pub(crate) struct Canary(Vec<String>);

impl Canary {
    pub(crate) fn new(secret: impl AsRef<[u8]>) -> Canary {
        let secret = secret.as_ref();
        assert!(secret.len() >= PART, "too short to be told from chance");
        let mut needles = Vec::new();
        for part in secret.windows(PART) {
            let bytes: Vec<String> = part.iter().map(u8::to_string).collect();
            needles.extend(str::from_utf8(part).ok().map(str::to_owned));
            needles.extend([HEXLOWER.encode(part), HEXUPPER.encode(part), bytes.join(", ")]);
            // Three bytes make four characters, so this is found wherever in a text the part stands.
            needles.extend([BASE64.encode(part), BASE64URL_NOPAD.encode(part)]);
        }
        Canary(needles)
    }

    #[track_caller]
    pub(crate) fn assert_absent(&self, text: &str) {
        let found = self.0.iter().find(|needle| text.contains(needle.as_str()));
        assert!(found.is_none(), "{found:?} of the secret is in: {text}");
    }
}
