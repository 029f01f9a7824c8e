//! A small issuer that signs any text, and a state of one client with one session.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use rescind_verifier::{
    Claims, ClientId, ClientPolicy, Denied, Key, Kind, Profile, Refused, SessionId, SessionState, State,
    UnixSeconds, VerifiedToken, Verifier, header_segment,
};
use sha2::Sha256;

pub(crate) const NOW: UnixSeconds = 1_736_942_400;

/// The header of an access token, in clear.
pub(crate) const HEADER: &str = r#"{"alg":"HS256","typ":"at+jwt","kid":"k1"}"#;

/// The key of every verifier here, unless a test says otherwise.
pub(crate) const KEY: Signer = Signer { id: "k1", secret: [1; 32] };

/// A key that no verifier here knows, unless a test says otherwise.
pub(crate) const STRANGER: Signer = Signer { id: "k2", secret: [2; 32] };

#[derive(Clone, Copy)]
pub(crate) struct Signer {
    pub(crate) id: &'static str,
    pub(crate) secret: [u8; 32],
}

impl Signer {
    /// Its keys for tokens of either kind, as an issuer's own set has them.
    pub(crate) fn keys(&self) -> [Key; 2] {
        let key = Key::hs256(self.id, &self.secret).unwrap();
        [key.clone(), key.for_refresh_tokens()]
    }

    /// Adds the HS256 tag to any text at all.
    pub(crate) fn sign(&self, signed: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", base64url(mac.finalize().into_bytes()))
    }

    /// A token of any header and payload.
    pub(crate) fn mint(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        self.sign(&format!("{}.{}", base64url(header), base64url(payload)))
    }

    /// A token as the issuer writes it.
    pub(crate) fn issue(&self, kind: Kind, claims: &Claims, profile: &Profile) -> String {
        self.sign(&format!(
            "{}.{}",
            header_segment(rescind_verifier::Algorithm::Hs256, self.id, kind),
            base64url(claims.write(profile, client_id(kind)))
        ))
    }
}

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

pub(crate) fn profile() -> Profile {
    Profile::new("https://id.example", "https://api.example").unwrap()
}

pub(crate) fn claims() -> Claims {
    Claims {
        client: 42,
        issued_at: NOW,
        expires_at: NOW + 3600,
        session: 7,
        credential: 3,
        generation: 5,
        pair: 2,
        scopes: "orders:read orders:write".parse().unwrap(),
        resources: Default::default(),
    }
}

/// What a token of this kind has as `client_id`.
pub(crate) fn client_id(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Access => Some("rk_one"),
        Kind::Refresh => None,
    }
}

/// The payload of [`claims`], in clear.
pub(crate) fn payload() -> String {
    claims().write(&profile(), client_id(Kind::Access))
}

/// A valid access token.
pub(crate) fn token() -> String {
    KEY.issue(Kind::Access, &claims(), &profile())
}

pub(crate) fn verifier_of(signers: &[Signer]) -> Verifier {
    Verifier::new(signers.iter().flat_map(Signer::keys).collect(), profile())
}

/// Rules 1 to 6 for an access token, now.
pub(crate) fn authenticate(token: &str) -> Result<Claims, Denied> {
    verifier_of(&[KEY]).authenticate(token, Kind::Access, NOW)
}

/// `text` with one part replaced. A part that is not there would make a test that tests nothing.
pub(crate) fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in {text:?}");
    text.replacen(from, to, 1)
}

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) clients: HashMap<ClientId, Arc<ClientPolicy>>,
    pub(crate) sessions: HashMap<SessionId, SessionState>,
}

impl State for Memory {
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        self.clients.get(&id).cloned()
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        self.sessions.get(&id).copied()
    }
}

/// Everything that one decision depends on. At first the token is valid. A test changes the part that it
/// is about.
pub(crate) struct Scene {
    pub(crate) claims: Claims,
    pub(crate) kind: Kind,
    pub(crate) profile: Profile,
    pub(crate) signer: Signer,
    /// The last thing done to the token's text.
    pub(crate) spoil: fn(String) -> String,
    pub(crate) caller: Option<IpAddr>,
    /// Known under the id of `claims()`, however a test changes the claims.
    pub(crate) client: Option<ClientPolicy>,
    pub(crate) session: Option<SessionState>,
}

impl Scene {
    pub(crate) fn good() -> Scene {
        let mut billing = ClientPolicy::new("billing");
        billing.revision = 9;
        billing.generation = 5;
        billing.allowlist = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
        billing.scopes = "orders:read orders:write".parse().unwrap();
        billing.credentials = vec![3, 4];
        Scene {
            claims: claims(),
            kind: Kind::Access,
            profile: profile(),
            signer: KEY,
            spoil: |token| token,
            caller: Some("203.0.113.7".parse().unwrap()),
            client: Some(billing),
            session: Some(SessionState::new(42, 2, false)),
        }
    }

    pub(crate) fn client(&mut self) -> &mut ClientPolicy {
        self.client.as_mut().unwrap()
    }

    pub(crate) fn session(&mut self) -> &mut SessionState {
        self.session.as_mut().unwrap()
    }

    pub(crate) fn verify(&self) -> Result<VerifiedToken, Denied> {
        let (token, memory) = self.presented();
        verifier_of(&[KEY]).verify(&token, self.caller, NOW, &memory)
    }

    /// Like `verify`, with what a refused token proves.
    pub(crate) fn verify_explained(&self) -> Result<VerifiedToken, Refused> {
        let (token, memory) = self.presented();
        verifier_of(&[KEY]).stand_explained(&token, NOW, &memory)?.presented_by_explained(self.caller)
    }

    fn presented(&self) -> (String, Memory) {
        let token = (self.spoil)(self.signer.issue(self.kind, &self.claims, &self.profile));
        let mut memory = Memory::default();
        memory.clients.extend(self.client.clone().map(|client| (42, Arc::new(client))));
        memory.sessions.extend(self.session.map(|session| (7, session)));
        (token, memory)
    }

    /// The reason for which the scene is refused, after `change`.
    pub(crate) fn denied(change: impl FnOnce(&mut Scene)) -> Denied {
        let mut scene = Scene::good();
        change(&mut scene);
        scene.verify().unwrap_err()
    }
}
