//! What a follower knows, and up to when it may be used.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    FeedError,
    wire::{Change, Client, EndedSession, Hello, Position, What, WireKey},
};
use crate::{ClientId, ClientPolicy, KeySet, Profile, SessionId, SessionState, State, UnixSeconds, Verifier};

/// The server's state at one place of its feed.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) position: Position,
    /// On the boot clock: from then on this is too old to decide anything.
    pub(super) deadline: Duration,
    /// The feed followed from here as it should. What is not sound holds until its deadline, and
    /// nothing is built upon it.
    pub(super) sound: bool,
    pub(super) verifier: Verifier,
    profile: Profile,
    clients: HashMap<ClientId, Arc<ClientPolicy>>,
    ended: HashMap<SessionId, UnixSeconds>,
    /// When there are so many, those that have run out are forgotten.
    forget_at: usize,
}

/// For how long ended sessions are remembered after their last token has expired: a clock set back
/// within it finds them again.
const MARGIN: UnixSeconds = 3600;

impl Known {
    /// The beginning of a snapshot: nothing may be decided on it yet.
    pub(super) fn begin(hello: &Hello) -> Result<Known, FeedError> {
        let profile = Profile::new(&hello.issuer, &hello.audience).ok_or(FeedError::Unreadable)?;
        Ok(Known {
            position: Position { epoch: hello.epoch.clone(), seq: hello.seq },
            deadline: Duration::ZERO,
            sound: true,
            verifier: Verifier::new(read_keys(&hello.keys)?, profile.clone()),
            profile,
            clients: HashMap::new(),
            ended: HashMap::new(),
            forget_at: 0,
        })
    }

    pub(super) fn add_clients(&mut self, clients: Vec<Client>) -> Result<(), FeedError> {
        clients.into_iter().try_for_each(|client| self.put(client))
    }

    pub(super) fn add_ended(&mut self, sessions: &[EndedSession]) {
        self.ended.extend(sessions.iter().map(|ended| (ended.session, ended.until)));
    }

    /// Applies the next change. One that is not the next says that some were missed.
    pub(super) fn apply(&mut self, change: Change, now: UnixSeconds) -> Result<(), FeedError> {
        if change.seq != self.position.seq + 1 {
            return Err(FeedError::Gap { have: self.position.seq, got: change.seq });
        }
        match change.what {
            What::Client(client) => self.put(client)?,
            What::Session(ended) => {
                if self.ended.len() >= self.forget_at {
                    self.ended.retain(|_, until| until.saturating_add(MARGIN) > now);
                    self.forget_at = 2 * self.ended.len() + 1024;
                }
                self.ended.insert(ended.session, ended.until);
            }
            What::Keys(keys) => self.verifier = Verifier::new(read_keys(&keys)?, self.profile.clone()),
        }
        self.position.seq = change.seq;
        Ok(())
    }

    /// A change may be sent as what it has become since, so an older one can follow a newer.
    fn put(&mut self, client: Client) -> Result<(), FeedError> {
        let (id, revision) = (client.client_id, client.revision);
        if self.clients.get(&id).is_none_or(|known| known.revision < revision) {
            self.clients.insert(id, Arc::new(client.policy().ok_or(FeedError::Unreadable)?));
        }
        Ok(())
    }
}

fn read_keys(keys: &[WireKey]) -> Result<KeySet, FeedError> {
    keys.iter().map(|key| key.read().ok_or(FeedError::Unreadable)).collect()
}

/// A follower's state, as one token's session is seen in it: the feed names the sessions that ended
/// before their time, and the signature vouches for the others.
pub(super) struct Seen<'k> {
    pub(super) known: &'k Known,
    pub(super) client: ClientId,
}

impl State for Seen<'_> {
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        self.known.clients.get(&id).cloned()
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        let ended = self.known.ended.contains_key(&id);
        Some(SessionState { client: self.client, pair: u64::MAX, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_sessions_are_forgotten_when_no_clock_can_bring_their_tokens_back() {
        let hello = r#"{"epoch":"e","seq":0,"issuer":"i","audience":"a","keys":[]}"#;
        let mut known = Known::begin(&serde_json::from_str(hello).unwrap()).unwrap();
        let mut seq = 0;
        let mut end = |known: &mut Known, until, now| {
            seq += 1;
            let ended = EndedSession { session: seq, until };
            known.apply(Change { seq, what: What::Session(ended) }, now).unwrap();
        };
        end(&mut known, 100, 0);
        for _ in 0..2000 {
            end(&mut known, 200, 100 + MARGIN - 1);
        }
        assert!(known.ended.contains_key(&1));
        for _ in 0..20_000 {
            end(&mut known, 300, 200 + MARGIN);
        }
        assert!(!known.ended.contains_key(&1) && !known.ended.contains_key(&2001));
        assert_eq!(known.ended.len(), 20_000);
        for _ in 0..50_000 {
            end(&mut known, 400, 300 + MARGIN);
        }
        assert_eq!(known.ended.len(), 50_000);
    }
}
