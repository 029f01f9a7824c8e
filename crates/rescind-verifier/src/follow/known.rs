//! What a follower knows, and up to when it may be used.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    FeedError,
    wire::{Change, Client, EndedSession, Hello, Position, What, WireKey},
};
use crate::{ClientId, ClientPolicy, KeySet, Profile, SessionId, SessionState, State, UnixSeconds, Verifier};

/// What a follower has been told.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// What it decides on.
    known: Option<Known>,
    /// A snapshot of another process than that. It may be the older of the two: nothing is decided on
    /// it before its own process has confirmed it.
    next: Option<Known>,
}

impl Held {
    /// What may decide something at this moment.
    pub(super) fn fresh(&self, now: Duration) -> Option<&Known> {
        self.known.as_ref().filter(|known| now < known.deadline)
    }

    /// Until when it may.
    pub(super) fn deadline(&self) -> Duration {
        self.known.as_ref().map_or(Duration::ZERO, |known| known.deadline)
    }

    /// What was told last.
    pub(super) fn newest(&self) -> Option<&Known> {
        self.next.as_ref().or(self.known.as_ref())
    }

    /// Applies the next change.
    pub(super) fn apply(&mut self, change: Change, now: UnixSeconds) -> Result<(), FeedError> {
        let newest = self.next.as_mut().or(self.known.as_mut());
        newest.ok_or(FeedError::Unreadable)?.apply(change, now)
    }

    /// Takes a complete snapshot. What it replaces is returned: it may be large.
    pub(super) fn put(&mut self, mut complete: Known) -> Result<Option<Known>, FeedError> {
        let (have, got) = match &self.known {
            Some(known) if known.position.epoch == complete.position.epoch => {
                // It is as new or newer than what it replaces, and so good for as long.
                complete.deadline = known.deadline;
                (known.position.seq, complete.position.seq)
            }
            _ => return Ok(self.next.replace(complete)),
        };
        if have > got {
            return Err(FeedError::Gap { have, got });
        }
        self.next = None;
        Ok(self.known.replace(complete))
    }

    /// What has reached this head, the newest of its process a moment ago, may decide until
    /// `deadline`. `Ok` is what was decided on until now, if that is of another process.
    pub(super) fn extend(
        &mut self,
        head: &Position,
        deadline: Duration,
    ) -> Result<Option<Known>, NotReached> {
        let reached = |known: &Known| known.position.epoch == head.epoch && known.position.seq >= head.seq;
        let replaced = match self.next.take_if(|next| reached(next)) {
            Some(next) => self.known.replace(next),
            None => None,
        };
        let known = self.known.as_mut().filter(|known| reached(known)).ok_or(NotReached)?;
        known.deadline = known.deadline.max(deadline);
        Ok(replaced)
    }

    /// What was told last cannot be built upon: neither may the feed go on from it, nor its deadline
    /// be extended.
    pub(super) fn distrust(&mut self) {
        if let (None, Some(known)) = (self.next.take(), &mut self.known) {
            known.sound = false;
        }
    }
}

/// It was replaced in the meantime.
#[derive(Debug)]
pub(super) struct NotReached;

/// The server's state at one place of its feed.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) position: Position,
    /// On the boot clock: from then on this is too old to decide anything.
    deadline: Duration,
    /// The feed followed from here as it should. What is not sound holds until its deadline, and
    /// nothing is built upon it.
    pub(super) sound: bool,
    pub(super) verifier: Verifier,
    profile: Profile,
    clients: HashMap<ClientId, Arc<ClientPolicy>>,
    ended: HashMap<SessionId, UnixSeconds>,
    /// When there are so many, those that have run out are forgotten.
    forget_at: usize,
    /// The tokens of forgotten sessions had expired by then.
    forgotten: UnixSeconds,
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
            forgotten: 0,
        })
    }

    pub(super) fn add_clients(&mut self, clients: Vec<Client>) -> Result<(), FeedError> {
        clients.into_iter().try_for_each(|client| self.put(client))
    }

    pub(super) fn add_ended(&mut self, sessions: &[EndedSession]) {
        self.ended.extend(sessions.iter().map(|ended| (ended.session, ended.until)));
    }

    /// Applies a change. One that is not the next says that some were missed.
    fn apply(&mut self, change: Change, now: UnixSeconds) -> Result<(), FeedError> {
        if change.seq != self.position.seq + 1 {
            return Err(FeedError::Gap { have: self.position.seq, got: change.seq });
        }
        match change.what {
            What::Client(client) => self.put(client)?,
            What::Session(ended) => {
                if self.ended.len() >= self.forget_at {
                    self.forgotten = self.forgotten.max(now.saturating_sub(MARGIN));
                    self.ended.retain(|_, until| *until > self.forgotten);
                    self.forget_at = 2 * self.ended.len() + 1024;
                }
                self.ended.insert(ended.session, ended.until);
            }
            What::Keys(keys) => self.verifier = Verifier::new(read_keys(&keys)?, self.profile.clone()),
        }
        self.position.seq = change.seq;
        Ok(())
    }

    /// The time to go by: however far the clock is set back, no token is good again that a forgotten session
    /// may have had.
    pub(super) fn time(&self, now: UnixSeconds) -> UnixSeconds {
        now.max(self.forgotten)
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

    fn known(epoch: &str, seq: u64) -> Known {
        let hello = format!(r#"{{"epoch":"{epoch}","seq":{seq},"issuer":"i","audience":"a","keys":[]}}"#);
        Known::begin(&serde_json::from_str(&hello).unwrap()).unwrap()
    }

    fn at(position: &str) -> Position {
        position.parse().unwrap()
    }

    fn newest(held: &Held) -> Position {
        held.newest().unwrap().position.clone()
    }

    /// What is decided on at this second.
    fn fresh(held: &Held, second: u64) -> Option<Position> {
        held.fresh(Duration::from_secs(second)).map(|known| known.position.clone())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_snapshot_of_another_process_decides_nothing_before_that_has_confirmed_it() {
        let mut held = Held::default();
        held.put(known("e", 5)).unwrap();
        assert_eq!((newest(&held), fresh(&held, 0)), (at("e:5"), None));
        held.extend(&at("e:5"), 10 * SECOND).unwrap();
        assert_eq!((fresh(&held, 9), fresh(&held, 10)), (Some(at("e:5")), None));

        held.put(known("f", 2)).unwrap();
        let keys = What::Keys(vec![]);
        held.apply(Change { seq: 3, what: keys.clone() }, 0).unwrap();
        assert_eq!((newest(&held), fresh(&held, 9)), (at("f:3"), Some(at("e:5"))));
        held.extend(&at("f:4"), 20 * SECOND).unwrap_err();
        assert_eq!((fresh(&held, 9), fresh(&held, 10)), (Some(at("e:5")), None));
        assert_eq!(held.extend(&at("f:3"), 12 * SECOND).unwrap().unwrap().position, at("e:5"));
        assert_eq!((fresh(&held, 11), fresh(&held, 12)), (Some(at("f:3")), None));
        // An answer that comes late takes nothing back.
        held.extend(&at("f:3"), 11 * SECOND).unwrap();
        assert_eq!(fresh(&held, 11), Some(at("f:3")));
    }

    #[test]
    fn a_snapshot_of_the_same_process_is_good_for_as_long_as_what_it_replaces() {
        let mut held = Held::default();
        held.put(known("e", 5)).unwrap();
        held.extend(&at("e:5"), 10 * SECOND).unwrap();
        held.put(known("e", 7)).unwrap();
        assert_eq!((fresh(&held, 9), fresh(&held, 10)), (Some(at("e:7")), None));
        assert_eq!(held.put(known("e", 6)).unwrap_err(), FeedError::Gap { have: 7, got: 6 });
        // After a look at another one, too.
        held.put(known("f", 1)).unwrap();
        held.put(known("e", 8)).unwrap();
        assert_eq!((newest(&held), fresh(&held, 9)), (at("e:8"), Some(at("e:8"))));
    }

    #[test]
    fn what_is_distrusted_is_what_was_told_last() {
        let mut held = Held::default();
        held.put(known("e", 5)).unwrap();
        held.extend(&at("e:5"), 10 * SECOND).unwrap();
        held.put(known("f", 1)).unwrap();
        held.distrust();
        assert!(newest(&held) == at("e:5") && held.newest().unwrap().sound);
        held.distrust();
        assert!(!held.newest().unwrap().sound);
        assert_eq!(fresh(&held, 9), Some(at("e:5")), "it was good until then");
    }

    // check 94
    #[test]
    fn ended_sessions_are_forgotten_when_no_clock_can_bring_their_tokens_back() {
        let mut known = known("e", 0);
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
        assert_eq!((known.time(150), known.time(201)), (200, 201));
        assert_eq!(known.ended.len(), 20_000);
        for _ in 0..50_000 {
            end(&mut known, 400, 300 + MARGIN);
        }
        assert_eq!(known.ended.len(), 50_000);
    }
}
