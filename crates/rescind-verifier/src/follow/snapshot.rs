//! The server's state as a follower has it, and until when the follower may use it.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use papaya::HashMap;

use super::{
    FeedError,
    wire::{Change, Client, EndedSession, Hello, Position, What, WireKey},
};
use crate::{
    CACHED_TOKENS, ClientId, ClientPolicy, Denied, KeySet, Kind, Profile, SessionId, SessionState,
    StandingToken, State, UnixSeconds, VerifiedToken, Verifier,
};

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
    /// What verifications are decided by.
    pub(super) fn confirmed(&self) -> Option<Confirmed> {
        self.current.as_ref().map(|snapshot| Confirmed {
            deadline: snapshot.deadline,
            verifier: Arc::clone(&snapshot.verifier),
            known: Arc::clone(&snapshot.known),
        })
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
    pub(super) verifier: Arc<Verifier>,
    profile: Profile,
    pub(super) known: Arc<Known>,
    /// The number of ended sessions at which those whose last token has expired are removed.
    forget_at: usize,
}

/// The clients and the ended sessions. Changes are applied while verifications read, and every one replaces older
/// knowledge by newer.
#[derive(Debug, Default)]
pub(super) struct Known {
    clients: HashMap<ClientId, Arc<ClientPolicy>>,
    ended: HashMap<SessionId, UnixSeconds>,
    /// The last token of every removed session had expired by this time.
    forgotten: AtomicU64,
}

/// A snapshot that its server has confirmed, and the moment until which it may decide.
#[derive(Debug)]
pub(super) struct Confirmed {
    deadline: Duration,
    pub(super) verifier: Arc<Verifier>,
    /// At least as new as the state that the deadline was granted for.
    known: Arc<Known>,
}

/// Seconds for which an ended session is kept after its last token has expired, so that it is still known
/// when the clock is set back.
const MARGIN: UnixSeconds = 3600;

impl Snapshot {
    /// The beginning of a snapshot, for tokens of this audience, or of the server's own. It has no deadline yet, so it
    /// decides nothing.
    pub(super) fn begin(hello: &Hello, audience: Option<&str>) -> Result<Snapshot, FeedError> {
        let audience = audience.unwrap_or(&hello.audience);
        let profile = Profile::new(&hello.issuer, audience).ok_or(FeedError::Unreadable)?;
        Ok(Snapshot {
            position: Position { epoch: hello.epoch.clone(), seq: hello.seq },
            deadline: Duration::ZERO,
            sound: true,
            verifier: Arc::new(verifier(&hello.keys, &profile)?),
            profile,
            known: Arc::default(),
            forget_at: 0,
        })
    }

    pub(super) fn add_clients(&mut self, clients: Vec<Client>) -> Result<(), FeedError> {
        clients.into_iter().try_for_each(|client| self.put(client))
    }

    pub(super) fn add_ended(&mut self, sessions: &[EndedSession]) {
        let known = self.known.ended.pin();
        for ended in sessions {
            known.insert(ended.session, ended.until);
        }
    }

    /// Applies a change. If its number is not the next one, changes were missed.
    fn apply(&mut self, change: Change, now: UnixSeconds) -> Result<(), FeedError> {
        if change.seq != self.position.seq + 1 {
            return Err(FeedError::Gap { have: self.position.seq, got: change.seq });
        }
        match change.what {
            What::Client(client) => self.put(client)?,
            What::Session(ended) => {
                let known = self.known.ended.pin();
                if known.len() >= self.forget_at {
                    self.known.forget(now.saturating_sub(MARGIN));
                    self.forget_at = 2 * known.len() + 1024;
                }
                known.insert(ended.session, ended.until);
            }
            What::Keys(keys) => self.verifier = Arc::new(verifier(&keys, &self.profile)?),
        }
        self.position.seq = change.seq;
        Ok(())
    }

    /// Takes over a client's policy, unless the one here is newer: the server sends a change as the client is
    /// now, so that the policy may already have been sent with a later change.
    fn put(&mut self, client: Client) -> Result<(), FeedError> {
        let (id, revision) = (client.client_id, client.revision);
        let known = self.known.clients.pin();
        if known.get(&id).is_none_or(|policy| policy.revision < revision) {
            known.insert(id, Arc::new(client.policy().ok_or(FeedError::Unreadable)?));
        }
        Ok(())
    }
}

fn verifier(keys: &[WireKey], profile: &Profile) -> Result<Verifier, FeedError> {
    let keys: Result<KeySet, _> = keys.iter().map(|key| key.read().ok_or(FeedError::Unreadable)).collect();
    Ok(Verifier::new(keys?, profile.clone()).with_token_cache(CACHED_TOKENS))
}

impl Known {
    /// The client's policy.
    pub(super) fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        self.clients.pin().get(&id).cloned()
    }

    /// Removes the ended sessions whose last token has expired by this time.
    fn forget(&self, until: UnixSeconds) {
        // Before the sessions are removed: whoever does not find one reads this afterwards.
        let until = until.max(self.forgotten.fetch_max(until, Ordering::AcqRel));
        self.ended.pin().retain(|_, last| *last > until);
    }
}

impl Confirmed {
    /// Whether this may decide at this moment of the boot clock.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        now < self.deadline
    }

    /// For how long, from this moment of the boot clock, this may decide.
    pub(super) fn fresh_for(&self, now: Duration) -> Duration {
        self.deadline.saturating_sub(now)
    }

    /// Decides about a token. The caller has checked that this is fresh.
    pub(super) fn verify(
        &self,
        token: &str,
        caller: Option<IpAddr>,
        now: UnixSeconds,
    ) -> Result<VerifiedToken, Denied> {
        let claims = self.verifier.authenticate(token, Kind::Access, now)?;
        let view = View { known: &self.known, client: claims.client };
        let token = StandingToken::decide(claims, &view)?;
        // So that a clock set back makes no token of a removed session valid again.
        if token.claims().expires_at <= self.known.forgotten.load(Ordering::Acquire) {
            return Err(Denied::Expired);
        }
        token.presented_by(caller)
    }
}

/// The [`State`] for one token, whose client is `client`. The feed tells only of sessions that ended early. Of
/// any other session, the token's signature proves that the server made it.
struct View<'k> {
    known: &'k Known,
    client: ClientId,
}

impl State for View<'_> {
    fn client(&self, id: ClientId) -> Option<Arc<ClientPolicy>> {
        self.known.client(id)
    }

    fn session(&self, id: SessionId) -> Option<SessionState> {
        let ended = self.known.ended.pin().contains_key(&id);
        Some(SessionState::new(self.client, u64::MAX, ended))
    }
}

#[cfg(test)]
mod tests;
