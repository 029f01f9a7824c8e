//! `jsonwebtoken` with its strictest settings, used as documented: `kid` picks the key, the key's algorithm
//! is the only one accepted, and every claim that the library knows is required and checked.

use jsonwebtoken::{Algorithm as Alg, DecodingKey, TokenData, Validation, decode, decode_header};
use rescind_verifier::Algorithm;
use serde_json::Value;

use super::keys::KEYS;
use crate::fixture::profile;

pub(super) struct Peer(Vec<(&'static str, DecodingKey, Validation)>);

impl Peer {
    pub(super) fn new() -> Peer {
        let profile = profile();
        let keys = KEYS.iter().map(|key| {
            let bytes = key.verification_bytes();
            let (alg, decoding_key) = match key.algorithm {
                Algorithm::Hs256 => (Alg::HS256, DecodingKey::from_secret(&bytes)),
                // It does not know the name Ed25519, so no key here has it.
                Algorithm::EdDsa | Algorithm::Ed25519 => (Alg::EdDSA, DecodingKey::from_ed_der(&bytes)),
                Algorithm::Es256 => (Alg::ES256, DecodingKey::from_ec_der(&bytes)),
            };
            let mut validation = Validation::new(alg);
            validation.leeway = 0;
            validation.validate_nbf = true;
            validation.set_issuer(&[profile.issuer()]);
            validation.set_audience(&[profile.audience()]);
            validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
            (key.id, decoding_key, validation)
        });
        Peer(keys.collect())
    }

    /// The content of a token that `jsonwebtoken` accepts.
    pub(super) fn accepts(&self, token: &str) -> Option<TokenData<Value>> {
        let kid = decode_header(token).ok()?.kid?;
        let (_, key, validation) = self.0.iter().find(|(id, ..)| *id == kid)?;
        decode(token, key, validation).ok()
    }
}
