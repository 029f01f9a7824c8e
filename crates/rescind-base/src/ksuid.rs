//! KSUIDs: unique ids of 27 characters, in the order of their times.

use rescind_verifier::UnixSeconds;

/// 2014-05-13T16:53:20Z: the times of KSUIDs count from here.
pub const EPOCH: UnixSeconds = 1_400_000_000;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// As many digits as one division of 32-bit words can yield.
const GROUP: usize = 5;
const OF_A_GROUP: u64 = 62_u64.pow(GROUP as u32);

/// Returns the id of this time and these random bytes.
pub fn at(now: UnixSeconds, random: &[u8; 16]) -> [u8; 27] {
    let seconds = u32::try_from(now.saturating_sub(EPOCH)).unwrap_or(u32::MAX);
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    bytes[4..].copy_from_slice(random);
    encode(&bytes)
}

/// Returns the bytes, as one big-endian number, in base 62.
pub fn encode(bytes: &[u8; 20]) -> [u8; 27] {
    let (words, _) = bytes.as_chunks();
    let mut number: [u32; 5] = std::array::from_fn(|i| u32::from_be_bytes(words[i]));
    let mut text = [0; 27];
    for group in text.rchunks_mut(GROUP) {
        // Divides the number by 62⁵, word by word.
        let mut remainder = 0;
        for word in &mut number {
            let dividend = remainder << 32 | u64::from(*word);
            *word = (dividend / OF_A_GROUP) as u32;
            remainder = dividend % OF_A_GROUP;
        }
        for digit in group.iter_mut().rev() {
            *digit = DIGITS[(remainder % 62) as usize];
            remainder /= 62;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(id: [u8; 27]) -> String {
        String::from_utf8(id.into()).unwrap()
    }

    #[test]
    fn ids_are_those_that_others_write() {
        assert_eq!(text(encode(&[0; 20])), "000000000000000000000000000");
        assert_eq!(text(encode(&[0xff; 20])), "aWgEPTl1tmebfsQzFP4bxwgy80V");
        // The example of the format's authors, made at 2017-10-10T04:00:47Z.
        let random = 0xB5A1_CD34_B5F9_9D11_54FB_6853_345C_9735_u128.to_be_bytes();
        assert_eq!(text(at(EPOCH + 107_608_047, &random)), "0ujtsYcgvSTl8PAuAdqWYSMnLOv");
    }

    #[test]
    fn times_out_of_range_are_the_first_and_the_last() {
        assert_eq!(at(EPOCH - 1, &[7; 16]), at(EPOCH, &[7; 16]));
        assert_eq!(at(u64::MAX, &[0xff; 16]), encode(&[0xff; 20]));
    }
}
