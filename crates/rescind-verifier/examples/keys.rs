//! Checks a token by the issuer's published keys, and prints its claims.
//!
//! ```sh
//! rescind key rotate --algorithm ES256 --publish-ahead 0s     # tokens from now on can be checked so
//! curl -s http://127.0.0.1:8080/.well-known/jwks.json | cargo run -p rescind-verifier --example keys -- ISSUER AUDIENCE eyJ…
//! ```
//!
//! Published keys prove who signed a token, and when the token expires. They do not show whether the token was revoked,
//! or where its client may call from: see the example `follow`.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use rescind_verifier::{Key, KeySet, Kind, Profile, Verifier};
use serde::Deserialize;

/// A JSON Web Key Set (RFC 7517 §5).
#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

/// An Ed25519 key (RFC 8037 §2) has no `y`, a P-256 key (RFC 7518 §6.2.1) has one.
#[derive(Deserialize)]
struct Jwk {
    kid: String,
    alg: String,
    x: String,
    y: Option<String>,
}

impl Jwk {
    fn key(&self) -> Result<Key, Box<dyn std::error::Error>> {
        let x = BASE64URL_NOPAD.decode(self.x.as_bytes())?;
        Ok(match &self.y {
            None if self.alg == "EdDSA" => Key::eddsa(&self.kid, x.as_slice().try_into()?)?,
            None => Key::ed25519(&self.kid, x.as_slice().try_into()?)?,
            // An uncompressed point of SEC 1 §2.3.3.
            Some(y) => Key::es256(&self.kid, &[vec![4], x, BASE64URL_NOPAD.decode(y.as_bytes())?].concat())?,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the program brings the time, not the library")]
#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [issuer, audience, token] = arguments.as_slice() else {
        return Err("usage: keys ISSUER AUDIENCE TOKEN < jwks.json".into());
    };
    let jwks: Jwks = serde_json::from_reader(std::io::stdin())?;
    let keys: KeySet = jwks.keys.iter().map(Jwk::key).collect::<Result<_, _>>()?;
    let profile = Profile::new(issuer, audience).ok_or("issuer and audience are visible ASCII characters")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    println!("{:#?}", Verifier::new(keys, profile).authenticate(token, Kind::Access, now)?);
    Ok(())
}
