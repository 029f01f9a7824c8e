//! The feed's format, version 1: server-sent events on `GET /feed/v1`, acknowledged by
//! `POST /feed/v1/ack`. Both with a verifier token as Bearer.
//!
//! | event | data | |
//! |---|---|---|
//! | `snapshot` | [`Hello`] | begins a snapshot of everything, in force at `seq` |
//! | `clients` | list of [`Client`] | a part of the snapshot |
//! | `sessions` | list of [`EndedSession`] | a part of the snapshot |
//! | `complete` | [`Position`] | ends the snapshot |
//! | `resumed` | [`Position`] | no snapshot: the changes after `Last-Event-ID` follow |
//! | `change` | [`Change`] | one more than the `seq` before, always |
//! | `heartbeat` | [`Position`] | nothing has changed since |
//!
//! The id of every `complete` and `change` event is `<epoch>:<seq>`. An epoch is one server process:
//! sequence numbers mean nothing across epochs. What does not follow the sequence is no change to
//! skip over but a reason for a new snapshot.
//!
//! An [`Ack`] says up to where the verifier has applied the feed, and is answered ([`Acked`]) with the
//! head's [`Position`]. Whatever the server had answered before the acknowledgement was *sent* is at
//! or before that head: so a verifier that has applied it knows a moment since which it is not behind,
//! however slow the network. What it makes of that is its [`AckMode`].

use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::{
    Algorithm, Allowlist, ClientId, ClientPolicy, CredentialId, Key, SessionId, UnixSeconds, parse_cidr,
};

/// Where the feed is.
pub const FEED_PATH: &str = "/feed/v1";
/// Where it is acknowledged.
pub const ACK_PATH: &str = "/feed/v1/ack";

/// The beginning of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The process that sends it.
    pub epoch: String,
    /// The change up to which the snapshot is complete.
    pub seq: u64,
    /// The `iss` of every token.
    pub issuer: String,
    /// The `aud` of every token.
    pub audience: String,
    /// The keys whose tokens are good.
    pub keys: Vec<WireKey>,
}

/// A place in the sequence of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The process that counts.
    pub epoch: String,
    /// The last change.
    pub seq: u64,
}

/// How far a verifier has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ack {
    /// The last change applied.
    #[serde(flatten)]
    pub applied: Position,
    /// How it follows.
    #[serde(flatten)]
    pub mode: AckMode,
}

/// How a verifier follows, as `mode`.
///
/// `follower` is a name that a process makes up at random, 1 to 64 visible ASCII characters: the
/// processes that share a token are told apart by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum AckMode {
    /// It sets its own bound, and nobody waits for it.
    Bounded,
    /// It decides only within the lease that it is answered with, and while that may run, no change
    /// is answered for before the verifier has acknowledged it.
    Exact {
        /// The process.
        follower: String,
    },
    /// It was exact, and decides nothing any more.
    Leave {
        /// The process.
        follower: String,
    },
}

/// The answer to an [`Ack`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The last change there is.
    #[serde(flatten)]
    pub head: Position,
    /// For so many milliseconds from before it asked an exact verifier may decide, once it has applied
    /// the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
}

/// A change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Its number.
    pub seq: u64,
    /// What changed.
    #[serde(flatten)]
    pub what: What,
}

/// What changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A client.
    Client(Client),
    /// A session ended before its time.
    Session(EndedSession),
    /// The keys.
    Keys(Vec<WireKey>),
}

/// A client's policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Client {
    /// The client.
    pub client_id: ClientId,
    /// Its name.
    pub name: String,
    /// The higher one is the newer.
    pub revision: u64,
    /// Tokens of an older one are revoked.
    pub generation: u64,
    /// Neither suspended nor deleted.
    pub active: bool,
    /// Networks it may call from; none: from anywhere.
    pub allow: Vec<String>,
    /// What it may do, joined by spaces.
    pub scopes: String,
    /// Its credentials that were not revoked.
    pub credentials: Vec<CredentialId>,
}

/// A session whose access tokens were revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    /// The session.
    pub session: SessionId,
    /// When its last token would have expired, and it may be forgotten.
    pub until: UnixSeconds,
}

/// A key whose tokens are good.
#[derive(Clone, Serialize, Deserialize)]
pub struct WireKey {
    /// Its id.
    pub kid: String,
    /// Its algorithm.
    pub alg: String,
    /// The public key (Ed25519: RFC 8032; P-256: an uncompressed point of SEC 1), or the secret of an
    /// HS256 key, as base64url.
    pub key: String,
}

impl std::fmt::Debug for WireKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireKey").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}

impl WireKey {
    /// A key for the wire.
    pub fn new(kid: &str, algorithm: Algorithm, key: &[u8]) -> WireKey {
        WireKey { kid: kid.to_owned(), alg: algorithm.name().to_owned(), key: BASE64URL_NOPAD.encode(key) }
    }

    /// The key. `None`: it cannot be read.
    pub fn read(&self) -> Option<Key> {
        let key = BASE64URL_NOPAD.decode(self.key.as_bytes()).ok()?;
        match Algorithm::from_name(&self.alg)? {
            Algorithm::Hs256 => Key::hs256(&self.kid, &key).ok(),
            #[cfg(feature = "asymmetric")]
            Algorithm::EdDsa => Key::eddsa(&self.kid, key.as_slice().try_into().ok()?).ok(),
            #[cfg(feature = "asymmetric")]
            Algorithm::Es256 => Key::es256(&self.kid, &key).ok(),
            #[cfg(not(feature = "asymmetric"))]
            Algorithm::EdDsa | Algorithm::Es256 => None,
        }
    }
}

impl Client {
    /// A client's policy for the wire.
    pub fn new(client_id: ClientId, policy: &ClientPolicy) -> Client {
        Client {
            client_id,
            name: policy.name.clone(),
            revision: policy.revision,
            generation: policy.generation,
            active: policy.active,
            allow: policy.allowlist.entries().iter().map(ToString::to_string).collect(),
            scopes: policy.scopes.to_string(),
            credentials: policy.credentials.clone(),
        }
    }

    /// The policy. `None`: it cannot be read.
    pub fn policy(self) -> Option<ClientPolicy> {
        let entries: Option<Vec<_>> = self.allow.iter().map(|entry| parse_cidr(entry).ok()).collect();
        Some(ClientPolicy {
            name: self.name,
            revision: self.revision,
            generation: self.generation,
            active: self.active,
            allowlist: Allowlist::from_iter(entries?),
            scopes: self.scopes.parse().ok()?,
            credentials: self.credentials,
        })
    }
}

/// An event's id.
pub fn event_id(position: &Position) -> String {
    format!("{}:{}", position.epoch, position.seq)
}

impl FromStr for Position {
    type Err = ();

    fn from_str(id: &str) -> Result<Position, ()> {
        let (epoch, seq) = id.rsplit_once(':').ok_or(())?;
        Ok(Position { epoch: epoch.to_owned(), seq: seq.parse().map_err(|_| ())? })
    }
}
