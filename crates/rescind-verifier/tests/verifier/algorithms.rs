//! Keys other than HS256: the algorithm is the key's.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::Signer as _;
use p256::ecdsa::signature::Verifier as _;
use rescind_verifier::{Algorithm, Denied, Key, KeyError, KeySet, Kind, Verifier, header_segment};

use crate::fixture::{NOW, base64url, claims, profile};

const SEED: [u8; 32] = [7; 32];

fn ed25519() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&SEED)
}

fn p256() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&SEED).unwrap()
}

fn public_p256() -> Vec<u8> {
    p256().verifying_key().to_sec1_point(false).as_bytes().to_vec()
}

fn signed(algorithm: Algorithm, header: Algorithm) -> String {
    let text = format!(
        "{}.{}",
        header_segment(header, "k", Kind::Access),
        base64url(claims().write(&profile(), None))
    );
    let signature = match algorithm {
        Algorithm::EdDsa | Algorithm::Ed25519 => ed25519().sign(text.as_bytes()).to_bytes().to_vec(),
        Algorithm::Es256 => {
            let signature: p256::ecdsa::Signature = p256().sign(text.as_bytes());
            signature.normalize_s().to_bytes().to_vec()
        }
        // The classic confusion: the public key taken for an HMAC secret.
        Algorithm::Hs256 => {
            use hmac::{Hmac, KeyInit, Mac};
            let mac = Hmac::<sha2::Sha256>::new_from_slice(&public_p256()).unwrap();
            mac.chain_update(&text).finalize().into_bytes().to_vec()
        }
    };
    format!("{text}.{}", base64url(signature))
}

fn verifier(algorithm: Algorithm) -> Verifier {
    let key = match algorithm {
        Algorithm::EdDsa => Key::eddsa("k", &ed25519().verifying_key().to_bytes()),
        Algorithm::Ed25519 => Key::ed25519("k", &ed25519().verifying_key().to_bytes()),
        Algorithm::Es256 => Key::es256("k", &public_p256()),
        Algorithm::Hs256 => Key::hs256("k", &SEED),
    };
    Verifier::new(KeySet::from_iter([key.unwrap()]), profile())
}

#[test]
fn each_algorithm_verifies_its_own() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Ed25519, Algorithm::Es256] {
        let token = signed(algorithm, algorithm);
        assert_eq!(verifier(algorithm).authenticate(&token, Kind::Access, NOW), Ok(claims()));
    }
}

// check 34
#[test]
fn no_algorithm_verifies_anothers() {
    for key in Algorithm::ALL {
        for signature in Algorithm::ALL {
            for header in Algorithm::ALL {
                let verdict = verifier(key).authenticate(&signed(signature, header), Kind::Access, NOW);
                // Ed25519 has two names. The signatures are the same, but each key takes one name.
                let curve =
                    |algorithm| if algorithm == Algorithm::Ed25519 { Algorithm::EdDsa } else { algorithm };
                let own = curve(key) == curve(signature) && key == header && key != Algorithm::Hs256;
                assert_eq!(verdict.is_ok(), own, "key {key:?}, signature {signature:?}, header {header:?}");
            }
        }
    }
}

// check 42
#[test]
fn every_flipped_bit_of_a_signature_is_refused() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Ed25519, Algorithm::Es256] {
        let token = signed(algorithm, algorithm);
        let start = token.rfind('.').unwrap() + 1;
        for i in start..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[i] ^= 1 << bit;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                let verdict = verifier(algorithm).authenticate(&text, Kind::Access, NOW);
                assert!(verdict.is_err(), "{algorithm:?}, byte {i}, bit {bit}");
            }
        }
    }
}

// check 41
#[test]
fn of_the_two_es256_signatures_of_a_text_one_is_taken() {
    let token = signed(Algorithm::Es256, Algorithm::Es256);
    let (text, signature) = token.rsplit_once('.').unwrap();
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let (r, s) = p256::ecdsa::Signature::from_slice(&signature).unwrap().split_scalars();
    let twin = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
    // To the curve it is as good.
    p256().verifying_key().verify(text.as_bytes(), &twin).unwrap();
    let twin = format!("{text}.{}", base64url(twin.to_bytes()));
    let verdict = verifier(Algorithm::Es256).authenticate(&twin, Kind::Access, NOW);
    assert_eq!(verdict, Err(Denied::BadSignature));
}

#[test]
fn signatures_of_another_length_are_malformed() {
    let token = signed(Algorithm::EdDsa, Algorithm::EdDsa);
    let (text, _) = token.rsplit_once('.').unwrap();
    for length in [0, 32, 63, 65] {
        let token = format!("{text}.{}", base64url(vec![0; length]));
        let verdict = verifier(Algorithm::EdDsa).authenticate(&token, Kind::Access, NOW);
        assert_eq!(verdict, Err(Denied::Malformed), "{length}");
    }
}

#[test]
fn public_keys_are_on_their_curve() {
    assert_eq!(Key::es256("k", &[4; 65]).unwrap_err(), KeyError::NotOnCurve);
    assert_eq!(Key::eddsa("k", &[2; 32]).unwrap_err(), KeyError::NotOnCurve);
    assert_eq!(Key::ed25519("k", &[2; 32]).unwrap_err(), KeyError::NotOnCurve);
}
