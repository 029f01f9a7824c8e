//! Codes of authenticators: TOTP (RFC 6238) with SHA-1, six digits and steps of 30 seconds, which every authenticator knows.

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use rescind_base::model::UnixSeconds;
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// In seconds.
const STEP: u64 = 30;
const DIGITS: usize = 6;
/// Of the kept secret, the bytes that the authenticator has: as long as the hash (RFC 4226 §4).
const LENGTH: usize = 20;

/// Returns the number of the step whose code this is. A clock may be a step behind or ahead. The codes up to the step
/// `used` are refused, so that nobody can use one again.
pub(super) fn matched(secret: &[u8; 32], code: &str, used: u64, now: UnixSeconds) -> Option<u64> {
    let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let step = now / STEP;
    let candidates = step.saturating_sub(1)..=step + 1;
    candidates
        .filter(|&step| step > used)
        .find(|&step| digits.as_bytes().ct_eq(code_of(&secret[..LENGTH], step).as_bytes()).into())
}

/// Returns the secret as people type it into an authenticator.
pub(super) fn text(secret: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(BASE32_NOPAD.encode(&secret[..LENGTH]))
}

fn code_of(secret: &[u8], step: u64) -> String {
    let Ok(mac) = Hmac::<Sha1>::new_from_slice(secret) else { return String::new() };
    let hash = mac.chain_update(step.to_be_bytes()).finalize().into_bytes();
    // RFC 4226 §5.3: the last four bits say where the number is.
    let at = usize::from(hash[19] & 15);
    let number = u32::from_be_bytes([hash[at] & 0x7f, hash[at + 1], hash[at + 2], hash[at + 3]]);
    format!("{:0DIGITS$}", number % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"12345678901234567890";

    fn kept() -> [u8; 32] {
        std::array::from_fn(|i| SECRET.get(i).copied().unwrap_or(7))
    }

    /// RFC 6238, appendix B; its codes have eight digits.
    #[test]
    fn the_codes_are_those_of_rfc_6238() {
        for (at, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(code_of(SECRET, at / STEP), code[2..]);
            assert_eq!(matched(&kept(), &code[2..], 0, at), Some(at / STEP));
        }
        assert_eq!(*text(&kept()), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn a_code_is_good_for_one_step_more_on_each_side_and_once() {
        let code = code_of(SECRET, 100);
        let at = |step: u64, used| matched(&kept(), &code, used, step * STEP);
        assert_eq!((at(98, 0), at(99, 0), at(101, 0), at(102, 0)), (None, Some(100), Some(100), None));
        assert_eq!((at(100, 99), at(100, 100), at(100, 101)), (Some(100), None, None));
        let spaced = format!("{} {}", &code[..3], &code[3..]);
        assert_eq!(matched(&kept(), &spaced, 0, 100 * STEP), Some(100));
        assert_eq!(matched(&kept(), "", 0, 100 * STEP), None);
        assert_eq!(matched(&kept(), &code[1..], 0, 100 * STEP), None);
    }
}
