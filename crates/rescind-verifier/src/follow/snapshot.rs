//! The server's state as a follower has it, and until when the follower may use it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    FeedError,
    wire::{Change, Client, EndedSession, Hello, Position, What, WireKey},
};
use crate::{ClientId, ClientPolicy, KeySet, Profile, SessionId, SessionState, State, UnixSeconds, Verifier};

/// What a follower has of the server's state.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The snapshot that decides.
    current: Option<Snapshot>,
    /// A snapshot from another server process than `current`. It may be the older of the two, so it
    /// decides nothing before its own process has confirmed that it is up to date.
    next: Option<Snapshot>,
}

impl Snapshots {
    /// The snapshot that may decide at this moment of the boot clock, if there is one.
    pub(super) fn fresh(&self, now: Duration) -> Option<&Snapshot> {
        self.current.as_ref().filter(|snapshot| now < snapshot.deadline)
    }

    /// Until when, on the boot clock, the follower may decide.
    pub(super) fn deadline(&self) -> Duration {
        self.current.as_ref().map_or(Duration::ZERO, |snapshot| snapshot.deadline)
    }

    /// The snapshot that arrived last. The feed's changes apply to this one.
    pub(super) fn newest(&self) -> Option<&Snapshot> {
        self.next.as_ref().or(self.current.as_ref())
    }

    /// Applies the next change to the newest snapshot.
    pub(super) fn apply(&mut self, change: Change, now: UnixSeconds) -> Result<(), FeedError> {
        let newest = self.next.as_mut().or(self.current.as_mut());
        newest.ok_or(FeedError::Unreadable)?.apply(change, now)
    }

    /// Adds a complete snapshot. Returns the one that it replaces, so that the caller can drop that, which may
    /// be large, without the lock.
    pub(super) fn put(&mut self, mut complete: Snapshot) -> Result<Option<Snapshot>, FeedError> {
        let (have, got) = match &self.current {
            Some(current) if current.position.epoch == complete.position.epoch => {
                // It is at least as new as the one that it replaces, so the deadline of that one holds for it.
                complete.deadline = current.deadline;
                (current.position.seq, complete.position.seq)
            }
            _ => return Ok(self.next.replace(complete)),
        };
        if have > got {
            return Err(FeedError::Gap { have, got });
        }
        self.next = None;
        Ok(self.current.replace(complete))
    }

    /// Lets the snapshot that has reached `head`, where its server process's feed was a moment ago, decide
    /// until `deadline`. Returns the snapshot of another process that decided until now, if there was one.
    pub(super) fn extend(
        &mut self,
        head: &Position,
        deadline: Duration,
    ) -> Result<Option<Snapshot>, NotReached> {
        let reached =
            |snapshot: &Snapshot| snapshot.position.epoch == head.epoch && snapshot.position.seq >= head.seq;
        let replaced = match self.next.take_if(|next| reached(next)) {
            Some(next) => self.current.replace(next),
            None => None,
        };
        let current = self.current.as_mut().filter(|current| reached(current)).ok_or(NotReached)?;
        current.deadline = current.deadline.max(deadline);
        Ok(replaced)
    }

    /// Marks the newest snapshot as unsound: a change did not follow from it as it should. The feed is not
    /// continued from it, and its deadline is not extended.
    pub(super) fn distrust(&mut self) {
        if let (None, Some(current)) = (self.next.take(), &mut self.current) {
            current.sound = false;
        }
    }
}

/// No snapshot has reached the head: another one replaced it in the meantime.
#[derive(Debug)]
pub(super) struct NotReached;

/// The server's state at one position of its feed.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) position: Position,
    /// On the boot clock: from this moment on the snapshot is too old to decide.
    deadline: Duration,
    /// Whether every change so far followed the one before it. An unsound snapshot decides until its
    /// deadline, but takes no more changes.
    pub(super) sound: bool,
    pub(super) verifier: Verifier,
    profile: Profile,
    clients: HashMap<ClientId, Arc<ClientPolicy>>,
    ended: HashMap<SessionId, UnixSeconds>,
    /// The number of ended sessions at which those whose last token has expired are removed.
    forget_at: usize,
    /// The last token of every removed session had expired by this time.
    forgotten: UnixSeconds,
}

/// Seconds for which an ended session is kept after its last token has expired, so that it is still known
/// when the clock is set back.
const MARGIN: UnixSeconds = 3600;

impl Snapshot {
    /// The beginning of a snapshot. It has no deadline yet, so it decides nothing.
    pub(super) fn begin(hello: &Hello) -> Result<Snapshot, FeedError> {
        let profile = Profile::new(&hello.issuer, &hello.audience).ok_or(FeedError::Unreadable)?;
        Ok(Snapshot {
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

    /// Applies a change. If its number is not the next one, changes were missed.
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

    /// The time to check `exp` against, in seconds since 1970. It is never earlier than `forgotten`, so that
    /// a clock set back makes no token of a removed session valid again.
    pub(super) fn time(&self, now: UnixSeconds) -> UnixSeconds {
        now.max(self.forgotten)
    }

    /// Takes over a client's policy, unless the one here is newer: the server sends a change as the client is
    /// now, so that the policy may already have been sent with a later change.
    fn put(&mut self, client: Client) -> Result<(), FeedError> {
        let (id, revision) = (client.client_id, client.revision);
        if self.clients.get(&id).is_none_or(|policy| policy.revision < revision) {
            self.clients.insert(id, Arc::new(client.policy().ok_or(FeedError::Unreadable)?));
        }
        Ok(())
    }
}

fn read_keys(keys: &[WireKey]) -> Result<KeySet, FeedError> {
    keys.iter().map(|key| key.read().ok_or(FeedError::Unreadable)).collect()
}

/// A snapshot as the [`State`] for one token, whose client is `client`. The feed tells only of sessions that
/// ended early. Of any other session, the token's signature proves that the server made it.
pub(super) struct SnapshotView<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) client: ClientId,
}

impl State for SnapshotView<'_> {
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        self.snapshot.clients.get(&id).cloned()
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        let ended = self.snapshot.ended.contains_key(&id);
        Some(SessionState::new(self.client, u64::MAX, ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(epoch: &str, seq: u64) -> Snapshot {
        let hello = format!(r#"{{"epoch":"{epoch}","seq":{seq},"issuer":"i","audience":"a","keys":[]}}"#);
        Snapshot::begin(&serde_json::from_str(&hello).unwrap()).unwrap()
    }

    fn at(position: &str) -> Position {
        position.parse().unwrap()
    }

    fn newest(snapshots: &Snapshots) -> Position {
        snapshots.newest().unwrap().position.clone()
    }

    /// The position of the snapshot that decides at this second.
    fn fresh(snapshots: &Snapshots, second: u64) -> Option<Position> {
        snapshots.fresh(Duration::from_secs(second)).map(|snapshot| snapshot.position.clone())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_snapshot_of_another_process_decides_nothing_before_that_has_confirmed_it() {
        let mut snapshots = Snapshots::default();
        snapshots.put(snapshot("e", 5)).unwrap();
        assert_eq!((newest(&snapshots), fresh(&snapshots, 0)), (at("e:5"), None));
        snapshots.extend(&at("e:5"), 10 * SECOND).unwrap();
        assert_eq!((fresh(&snapshots, 9), fresh(&snapshots, 10)), (Some(at("e:5")), None));

        snapshots.put(snapshot("f", 2)).unwrap();
        let keys = What::Keys(vec![]);
        snapshots.apply(Change { seq: 3, what: keys.clone() }, 0).unwrap();
        assert_eq!((newest(&snapshots), fresh(&snapshots, 9)), (at("f:3"), Some(at("e:5"))));
        snapshots.extend(&at("f:4"), 20 * SECOND).unwrap_err();
        assert_eq!((fresh(&snapshots, 9), fresh(&snapshots, 10)), (Some(at("e:5")), None));
        assert_eq!(snapshots.extend(&at("f:3"), 12 * SECOND).unwrap().unwrap().position, at("e:5"));
        assert_eq!((fresh(&snapshots, 11), fresh(&snapshots, 12)), (Some(at("f:3")), None));
        // A late answer does not shorten the deadline.
        snapshots.extend(&at("f:3"), 11 * SECOND).unwrap();
        assert_eq!(fresh(&snapshots, 11), Some(at("f:3")));
    }

    #[test]
    fn a_snapshot_of_the_same_process_is_good_for_as_long_as_what_it_replaces() {
        let mut snapshots = Snapshots::default();
        snapshots.put(snapshot("e", 5)).unwrap();
        snapshots.extend(&at("e:5"), 10 * SECOND).unwrap();
        snapshots.put(snapshot("e", 7)).unwrap();
        assert_eq!((fresh(&snapshots, 9), fresh(&snapshots, 10)), (Some(at("e:7")), None));
        assert_eq!(snapshots.put(snapshot("e", 6)).unwrap_err(), FeedError::Gap { have: 7, got: 6 });
        // The same holds after a snapshot of another process.
        snapshots.put(snapshot("f", 1)).unwrap();
        snapshots.put(snapshot("e", 8)).unwrap();
        assert_eq!((newest(&snapshots), fresh(&snapshots, 9)), (at("e:8"), Some(at("e:8"))));
    }

    #[test]
    fn what_is_distrusted_is_what_was_told_last() {
        let mut snapshots = Snapshots::default();
        snapshots.put(snapshot("e", 5)).unwrap();
        snapshots.extend(&at("e:5"), 10 * SECOND).unwrap();
        snapshots.put(snapshot("f", 1)).unwrap();
        snapshots.distrust();
        assert!(newest(&snapshots) == at("e:5") && snapshots.newest().unwrap().sound);
        snapshots.distrust();
        assert!(!snapshots.newest().unwrap().sound);
        assert_eq!(fresh(&snapshots, 9), Some(at("e:5")), "it was good until then");
    }

    // check 94
    #[test]
    fn ended_sessions_are_forgotten_when_no_clock_can_bring_their_tokens_back() {
        let mut snapshot = snapshot("e", 0);
        let mut seq = 0;
        let mut end = |snapshot: &mut Snapshot, until, now| {
            seq += 1;
            let ended = EndedSession { session: seq, until };
            snapshot.apply(Change { seq, what: What::Session(ended) }, now).unwrap();
        };
        end(&mut snapshot, 100, 0);
        for _ in 0..2000 {
            end(&mut snapshot, 200, 100 + MARGIN - 1);
        }
        assert!(snapshot.ended.contains_key(&1));
        for _ in 0..20_000 {
            end(&mut snapshot, 300, 200 + MARGIN);
        }
        assert!(!snapshot.ended.contains_key(&1) && !snapshot.ended.contains_key(&2001));
        assert_eq!((snapshot.time(150), snapshot.time(201)), (200, 201));
        assert_eq!(snapshot.ended.len(), 20_000);
        for _ in 0..50_000 {
            end(&mut snapshot, 400, 300 + MARGIN);
        }
        assert_eq!(snapshot.ended.len(), 50_000);
    }
}
