//! The form of `vectors/tokens.json`, which `vectors/README.md` explains.

use rescind_verifier::Denied;
use serde::{Deserialize, Serialize};

use super::CALLER;

#[derive(Serialize, Deserialize)]
pub(crate) struct Vectors {
    pub(crate) now: u64,
    pub(crate) profile: Profile,
    pub(crate) keys: Vec<Key>,
    pub(crate) refused_keys: Vec<Key>,
    pub(crate) clients: Vec<Client>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) cases: Vec<Case>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) issuer: String,
    pub(crate) audience: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) kid: String,
    pub(crate) alg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) generation: u64,
    pub(crate) active: bool,
    pub(crate) allowlist: Vec<String>,
    pub(crate) scopes: String,
    pub(crate) credentials: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) client: u64,
    pub(crate) pair: u64,
    pub(crate) ended: bool,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) advisories: Vec<String>,
    pub(crate) token: String,
    pub(crate) caller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requires: Option<String>,
    pub(crate) verdict: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scopes: Option<String>,
}

impl Vectors {
    /// JSON with one key, client, session or case to the line, so that changes can be read.
    pub(crate) fn to_json(&self) -> String {
        let Vectors { now, profile, keys, refused_keys, clients, sessions, cases } = self;
        format!(
            "{{\n\"now\": {now},\n\"profile\": {},\n\"keys\": {},\n\"refused_keys\": {},\n\"clients\": {},\n\"sessions\": {},\n\"cases\": {}\n}}\n",
            serde_json::to_string(profile).unwrap(),
            lines(keys),
            lines(refused_keys),
            lines(clients),
            lines(sessions),
            lines(cases),
        )
    }
}

fn lines<T: Serialize>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| serde_json::to_string(item).unwrap()).collect();
    format!("[\n  {}\n]", items.join(",\n  "))
}

impl Case {
    /// A valid access token, and its scopes.
    pub(crate) fn stands(name: impl Into<String>, token: impl Into<String>, scopes: &str) -> Case {
        Case { scopes: Some(scopes.to_owned()), ..Case::new(name.into(), token.into(), "ok") }
    }

    /// An invalid access token.
    pub(crate) fn denied(name: impl Into<String>, token: impl Into<String>, denied: Denied) -> Case {
        Case::new(name.into(), token.into(), denied.name())
    }

    fn new(name: String, token: String, verdict: &str) -> Case {
        Case {
            name,
            check: None,
            advisories: Vec::new(),
            token,
            caller: Some(CALLER.to_owned()),
            requires: None,
            verdict: verdict.to_owned(),
            scopes: None,
        }
    }

    pub(crate) fn check(self, check: u8) -> Case {
        Case { check: Some(check), ..self }
    }

    pub(crate) fn advisory(mut self, advisory: &str) -> Case {
        self.advisories.push(advisory.to_owned());
        self
    }

    pub(crate) fn from(self, caller: Option<&str>) -> Case {
        Case { caller: caller.map(str::to_owned), ..self }
    }

    pub(crate) fn requires(self, scopes: &str) -> Case {
        Case { requires: Some(scopes.to_owned()), ..self }
    }
}
