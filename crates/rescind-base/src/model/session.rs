//! Sessions and the tokens that descend from them.

use rescind_verifier::{
    Claims, ClientId, CredentialId, Resources, Scopes, SessionId, SessionState, UnixSeconds,
};
use serde::{Deserialize, Serialize};

use super::Client;

/// Lifetimes in seconds, and what the reuse of a refresh token does.
#[derive(Debug, Clone, Copy)]
pub struct TokenRules {
    /// An access token's lifetime.
    pub access_ttl: u64,
    /// A refresh token's lifetime.
    pub refresh_ttl: u64,
    /// A session's longest lifetime, however often it is refreshed.
    pub session_max_age: Option<u64>,
    /// For how long the refresh token used last gets the same pair again.
    pub refresh_grace: Option<u64>,
    /// What the reuse of a refresh token does.
    pub on_reuse: OnReuse,
}

/// What the reuse of a refresh token does to its session (RFC 9700 §4.14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReuse {
    /// The session cannot be refreshed any more. Its access tokens stay valid until they expire.
    #[default]
    EndRefresh,
    /// The session's access tokens are revoked as well.
    EndSession,
}

/// The phase of a session. A phase only changes to a later one of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The session can be refreshed.
    Live,
    /// The session cannot be refreshed any more.
    RefreshEnded,
    /// The session's access tokens are revoked as well.
    Ended,
}

/// One login. The tokens of its newest pair can be written again from this row, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session's number.
    pub id: SessionId,
    /// The session's client.
    pub client: ClientId,
    /// The credential that opened the session.
    pub credential: CredentialId,
    /// The signing key of the newest pair.
    pub key: u64,
    /// The client's generation at login.
    pub generation: u64,
    /// The scopes of the session's tokens.
    pub scopes: Scopes,
    /// The resources that the session's tokens are for. Empty: the default audience alone.
    pub resources: Resources,
    /// The newest pair's number, from 1.
    pub pair: u64,
    /// The session's phase.
    pub phase: Phase,
    /// When the session was opened.
    pub started_at: UnixSeconds,
    /// When the newest pair was issued.
    pub issued_at: UnixSeconds,
    /// When the newest pair's access token expires. No earlier one expires later.
    pub access_expires_at: UnixSeconds,
    /// When the newest pair's refresh token expires.
    pub refresh_expires_at: UnixSeconds,
}

/// How a session judges a refresh token whose signature is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// The token is of the newest pair, and may be used.
    Current,
    /// The token is of the pair before, within the grace: it gets the newest pair again.
    Again,
    /// The token was used before. This is a sign of theft, even after the end of the session's refreshing.
    Reused,
    /// The session cannot be refreshed any more.
    Ended,
    /// The token's pair was never issued.
    Unknown,
}

impl Session {
    /// Returns a new session, for all of the client's resources. The store numbers it.
    pub fn open(
        client: &Client,
        credential: CredentialId,
        scopes: Scopes,
        key: u64,
        now: UnixSeconds,
        rules: &TokenRules,
    ) -> Session {
        let mut session = Session {
            id: 0,
            client: client.id,
            credential,
            key,
            generation: client.generation,
            scopes,
            resources: client.resources.clone(),
            pair: 0,
            phase: Phase::Live,
            started_at: now,
            issued_at: now,
            access_expires_at: now,
            refresh_expires_at: now,
        };
        session.advance(key, now, rules);
        session
    }

    /// Moves on to the next pair. It expires no earlier than any access token of the session, even if the rules have
    /// become stricter or the clock was set back: the session's end must be remembered until all of them have expired.
    pub fn advance(&mut self, key: u64, now: UnixSeconds, rules: &TokenRules) {
        let end = rules.session_max_age.map_or(u64::MAX, |age| self.started_at + age);
        self.key = key;
        self.pair += 1;
        self.issued_at = now;
        self.access_expires_at = end.min(now + rules.access_ttl).max(self.access_expires_at);
        self.refresh_expires_at = end.min(now + rules.refresh_ttl).max(self.access_expires_at);
    }

    /// Judges the session's refresh token number `pair`.
    pub fn present(&self, pair: u64, now: UnixSeconds, rules: &TokenRules) -> Presented {
        let in_grace = rules.refresh_grace.is_some_and(|grace| now.saturating_sub(self.issued_at) < grace);
        match self.phase {
            _ if pair > self.pair => Presented::Unknown,
            Phase::Live if pair == self.pair => Presented::Current,
            Phase::RefreshEnded | Phase::Ended if pair == self.pair => Presented::Ended,
            Phase::Live if pair + 1 == self.pair && in_grace => Presented::Again,
            Phase::Live | Phase::RefreshEnded | Phase::Ended => Presented::Reused,
        }
    }

    /// Returns the time from which no token of the session is valid.
    pub fn valid_until(&self) -> UnixSeconds {
        match self.phase {
            Phase::Live => self.refresh_expires_at,
            Phase::RefreshEnded => self.access_expires_at,
            Phase::Ended => 0,
        }
    }

    /// Returns the session, ended. The end is kept at least until `token` would expire.
    pub fn ended(self, token: &Claims) -> Session {
        let refresh_expires_at = self.refresh_expires_at.max(token.expires_at);
        Session { phase: Phase::Ended, refresh_expires_at, ..self }
    }

    /// Returns a deleted session, ended, from the claims of one of its tokens. Its other tokens expire by `until`.
    pub fn lost(token: &Claims, until: UnixSeconds) -> Session {
        Session {
            id: token.session,
            client: token.client,
            credential: token.credential,
            key: 0,
            generation: token.generation,
            scopes: token.scopes.clone(),
            resources: token.resources.clone(),
            pair: token.pair,
            phase: Phase::Ended,
            started_at: token.issued_at,
            issued_at: token.issued_at,
            access_expires_at: token.expires_at,
            refresh_expires_at: token.expires_at.max(until),
        }
    }

    /// Returns the session's data that verification needs.
    pub fn state(&self) -> SessionState {
        SessionState::new(self.client, self.pair, self.phase == Phase::Ended)
    }

    /// Returns the claims of the newest pair's access token, but for this expiry.
    pub fn claims(&self, expires_at: UnixSeconds) -> Claims {
        Claims {
            client: self.client,
            issued_at: self.issued_at,
            expires_at,
            session: self.id,
            credential: self.credential,
            generation: self.generation,
            pair: self.pair,
            scopes: self.scopes.clone(),
            resources: self.resources.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rescind_verifier::Allowlist;

    use super::*;
    use crate::model::{CertificateNames, Status};

    const RULES: TokenRules = TokenRules {
        access_ttl: 3600,
        refresh_ttl: 604_800,
        session_max_age: None,
        refresh_grace: None,
        on_reuse: OnReuse::EndRefresh,
    };

    fn session(rules: &TokenRules) -> Session {
        let client = Client {
            id: 1,
            name: "test".into(),
            suspension: crate::model::Suspension::default(),
            status: Status::Active,
            generation: 4,
            tokens_revoked_at: None,
            revision: 9,
            allowlist: Allowlist::default(),
            certificates: CertificateNames::default(),
            scopes: Scopes::default(),
            resources: Resources::default(),
            enforces_allowlist: false,
            introspect_lifetime: None,
            created_at: 0,
            credentials: vec![],
        };
        Session::open(&client, 1, Scopes::default(), 1, 1000, rules)
    }

    #[test]
    fn pairs_move_on() {
        let mut session = session(&RULES);
        assert_eq!((session.pair, session.access_expires_at, session.refresh_expires_at), (1, 4600, 605_800));
        assert_eq!(session.present(1, 1000, &RULES), Presented::Current);
        assert_eq!(session.present(2, 1000, &RULES), Presented::Unknown);
        session.advance(1, 1010, &RULES);
        assert_eq!(session.present(2, 1010, &RULES), Presented::Current);
        assert_eq!(session.present(1, 1010, &RULES), Presented::Reused);
        session.phase = Phase::RefreshEnded;
        assert_eq!(session.present(2, 1010, &RULES), Presented::Ended);
        assert_eq!(session.present(1, 1010, &RULES), Presented::Reused);
    }

    // check 11: numbers, not times, tell parent from grandparent
    #[test]
    fn grace_is_for_the_immediately_preceding_token_alone() {
        let rules = TokenRules { refresh_grace: Some(10), ..RULES };
        let mut session = session(&rules);
        session.advance(1, 1000, &rules);
        session.advance(1, 1000, &rules);
        assert_eq!(session.present(1, 1000, &rules), Presented::Reused);
        assert_eq!(session.present(2, 1009, &rules), Presented::Again);
        assert_eq!(session.present(2, 1010, &rules), Presented::Reused);
    }

    // check 13
    #[test]
    fn no_refresh_outlives_the_sessions_greatest_age() {
        let rules = TokenRules { session_max_age: Some(5000), ..RULES };
        let mut session = session(&rules);
        session.advance(1, 5000, &rules);
        assert_eq!((session.access_expires_at, session.refresh_expires_at), (6000, 6000));
    }

    #[test]
    fn a_session_is_remembered_until_its_earliest_tokens_expire_too() {
        let stricter = TokenRules { access_ttl: 60, refresh_ttl: 120, ..RULES };
        for (now, rules) in [
            (1010, stricter),
            (1010, TokenRules { session_max_age: Some(100), ..RULES }),
            (1010, TokenRules { session_max_age: Some(5), ..stricter }),
            (1, TokenRules { refresh_ttl: 3600, ..RULES }),
        ] {
            let mut session = session(&RULES);
            session.advance(1, now, &rules);
            session.advance(1, now, &rules);
            assert_eq!((session.access_expires_at, session.refresh_expires_at), (4600, 4600), "{rules:?}");
        }
        // The stricter rules hold as soon as the earlier access token has expired.
        let mut session = session(&RULES);
        session.advance(1, 4600, &stricter);
        assert_eq!((session.access_expires_at, session.refresh_expires_at), (4660, 4720));
    }
}
