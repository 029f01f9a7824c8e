//! The feed's format, version 1: server-sent events on `GET /feed/v1`, acknowledged by
//! `POST /feed/v1/ack`. Both requests carry a verifier token as Bearer.
//!
//! | event | data | |
//! |---|---|---|
//! | `snapshot` | [`Hello`] | begins a snapshot of everything, in force at `seq` |
//! | `clients` | list of [`Client`] | a part of the snapshot |
//! | `sessions` | list of [`EndedSession`] | a part of the snapshot |
//! | `complete` | [`Position`] | ends the snapshot |
//! | `resumed` | [`Position`] | no snapshot: the changes after `Last-Event-ID` follow |
//! | `change` | [`Change`] | one more than the `seq` before, always |
//! | `heartbeat` | [`Position`] | nothing has changed since the last event |
//!
//! The id of every `complete` and `change` event is `<epoch>:<seq>`. An epoch is one server process:
//! sequence numbers of different epochs cannot be compared. A verifier that receives a change whose number
//! is not the next one asks for a new snapshot.
//!
//! An [`Ack`] names the last change that the verifier has applied. Its answer ([`Acked`]) names the feed's
//! head. Every change that the server had answered before the acknowledgement was *sent* is at or before that
//! head. So a verifier that has applied the head was up to date at the moment when it sent the
//! acknowledgement, however slow the network is. The verifier's [`AckMode`] determines until when it may decide.
//!
//! An [`Ack`] may also report what the verifier has counted.
//!
//! These types are closed: another version of the format will have a path and types of its own.

use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::usage::Counted;
use crate::{
    Algorithm, Allowlist, ClientId, ClientPolicy, CredentialId, Key, SessionId, UnixSeconds, parse_cidr,
};

/// The feed's path.
pub const FEED_PATH: &str = "/feed/v1";
/// The path for acknowledgements.
pub const ACK_PATH: &str = "/feed/v1/ack";

/// The beginning of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The epoch: the server process that sends the snapshot.
    pub epoch: String,
    /// The change up to which the snapshot is complete.
    pub seq: u64,
    /// The `iss` of every token.
    pub issuer: String,
    /// The `aud` of every token that names no resources.
    pub audience: String,
    /// The keys that tokens may be signed with.
    pub keys: Vec<WireKey>,
}

/// A position in the sequence of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The server process that numbers the changes.
    pub epoch: String,
    /// The number of the last change.
    pub seq: u64,
}

/// What a verifier has applied of the feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ack {
    /// The last change applied.
    #[serde(flatten)]
    pub applied: Position,
    /// How the verifier follows.
    #[serde(flatten)]
    pub mode: AckMode,
    /// What it has counted since the last acknowledgement that was answered. Servers before this member ignore it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<Counted>,
}

/// How a verifier follows, as the member `mode`.
///
/// `follower` is a random name that a process gives itself, 1 to 64 visible ASCII characters. The server
/// tells processes that share a verifier token apart by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum AckMode {
    /// The verifier sets its own bound, and the server does not wait for it.
    Bounded,
    /// The verifier decides only within the lease that the answer gives. While that lease may run, the
    /// server answers no change before the verifier has acknowledged it.
    Exact {
        /// The process's name.
        follower: String,
    },
    /// The verifier was exact, and decides nothing any more.
    Leave {
        /// The process's name.
        follower: String,
    },
}

/// The answer to an [`Ack`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The feed's last change.
    #[serde(flatten)]
    pub head: Position,
    /// The lease in milliseconds, counted from before the acknowledgement was sent. An exact verifier may
    /// decide until then, once it has applied the head. `None` for other modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
}

/// A change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// The change's number.
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
    /// A session ended before its tokens expired.
    Session(EndedSession),
    /// All the keys that tokens may be signed with.
    Keys(Vec<WireKey>),
}

/// A client's policy, as the feed carries it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Client {
    /// The client.
    pub client_id: ClientId,
    /// The client's name, for people.
    pub name: String,
    /// The number of the client's last change.
    pub revision: u64,
    /// Tokens of a lower generation are revoked.
    pub generation: u64,
    /// Whether the client is neither suspended nor deleted.
    pub active: bool,
    /// The networks that the client may call from. Empty: every address.
    pub allow: Vec<String>,
    /// The scopes that the client's tokens may have, joined by spaces.
    pub scopes: String,
    /// The client's credentials that were not revoked.
    pub credentials: Vec<CredentialId>,
}

/// A session whose access tokens were revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    /// The session.
    pub session: SessionId,
    /// When the session's last token expires. From then on a verifier may remove the session.
    pub until: UnixSeconds,
}

/// A key that tokens may be signed with.
#[derive(Clone, Serialize, Deserialize)]
pub struct WireKey {
    /// The key's id.
    pub kid: String,
    /// The name of the key's algorithm.
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
    /// The wire form of a key.
    pub fn new(kid: &str, algorithm: Algorithm, key: &[u8]) -> WireKey {
        WireKey { kid: kid.to_owned(), alg: algorithm.name().to_owned(), key: BASE64URL_NOPAD.encode(key) }
    }

    /// Reads the key. `None`: it is no key of an algorithm that this build has.
    pub fn read(&self) -> Option<Key> {
        let key = BASE64URL_NOPAD.decode(self.key.as_bytes()).ok()?;
        match Algorithm::from_name(&self.alg)? {
            Algorithm::Hs256 => Key::hs256(&self.kid, &key).ok(),
            #[cfg(feature = "asymmetric")]
            Algorithm::EdDsa => Key::eddsa(&self.kid, key.as_slice().try_into().ok()?).ok(),
            #[cfg(feature = "asymmetric")]
            Algorithm::Ed25519 => Key::ed25519(&self.kid, key.as_slice().try_into().ok()?).ok(),
            #[cfg(feature = "asymmetric")]
            Algorithm::Es256 => Key::es256(&self.kid, &key).ok(),
            #[cfg(not(feature = "asymmetric"))]
            Algorithm::EdDsa | Algorithm::Ed25519 | Algorithm::Es256 => None,
        }
    }
}

impl Client {
    /// The wire form of a client's policy.
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

    /// Reads the policy. `None`: a network or the scopes cannot be read.
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

/// The id of an event at this position.
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
