//! What expires soon, and when that is told.

use super::{ChangeOrigin, ClientId, CredentialId, Event, EventKind, UnixSeconds};
use crate::{clock::rfc3339, secret::ApiKey};

const DAY: UnixSeconds = 86_400;
/// How many days before something expires that is told, the last notice first.
const NOTICES: [u64; 3] = [1, 7, 30];
/// The time before an expiry in which it is told of, in seconds.
pub const FIRST_NOTICE: UnixSeconds = 30 * DAY;

/// What expires.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Credential {
        id: CredentialId,
        client: ClientId,
        api_key: ApiKey,
    },
    ManagementToken {
        id: u64,
        name: String,
    },
    /// The certificate of the listeners.
    Certificate,
}

/// Something that expires within so many days.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiring {
    pub subject: Subject,
    pub expires_at: UnixSeconds,
    pub days: u64,
}

impl Subject {
    /// Returns the name in the store, which never changes.
    pub fn name(&self) -> &'static str {
        match self {
            Subject::Credential { .. } => "credential",
            Subject::ManagementToken { .. } => "management_token",
            Subject::Certificate => "certificate",
        }
    }

    /// Returns the number among those of its kind.
    pub fn id(&self) -> u64 {
        match self {
            Subject::Credential { id, .. } | Subject::ManagementToken { id, .. } => *id,
            Subject::Certificate => 0,
        }
    }
}

impl Expiring {
    /// Returns the notice that is due at `now`. `None`: there is time yet, it has expired, or it never had more time than
    /// the notice gives.
    pub fn due(
        subject: Subject,
        valid_from: UnixSeconds,
        expires_at: UnixSeconds,
        now: UnixSeconds,
    ) -> Option<Expiring> {
        let left = expires_at.checked_sub(now).filter(|left| *left > 0)?;
        let days = NOTICES.into_iter().find(|days| left <= days * DAY)?;
        let had_more = expires_at.saturating_sub(valid_from) > days * DAY;
        had_more.then_some(Expiring { subject, expires_at, days })
    }

    /// Returns the event of the notice.
    pub fn event(&self, origin: &ChangeOrigin) -> Event {
        let (kind, client, api_key, name) = match &self.subject {
            Subject::Credential { client, api_key, .. } => {
                (EventKind::CredentialExpiring, Some(*client), Some(api_key.clone()), None)
            }
            Subject::ManagementToken { id, name } => (
                EventKind::ManagementTokenExpiring,
                None,
                None,
                Some(format!("management token {id} ({name})")),
            ),
            Subject::Certificate => (EventKind::CertificateExpiring, None, None, None),
        };
        let when = self.when();
        let detail = Some(name.map_or(when.clone(), |name| format!("{name}: {when}")));
        Event { client, api_key, detail, ..origin.event(kind) }
    }

    /// Says when it expires.
    pub fn when(&self) -> String {
        let unit = if self.days == 1 { "day" } else { "days" };
        format!("within {} {unit}, at {}", self.days, rfc3339(self.expires_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_given_thirty_seven_and_one_days_before() {
        let due = |lifetime, left| {
            let (from, until) = (1000 * DAY, 1000 * DAY + lifetime);
            Expiring::due(Subject::Certificate, from, until, until - left).map(|expiring| expiring.days)
        };
        for (left, days) in [
            (90 * DAY, None),
            (30 * DAY + 1, None),
            (30 * DAY, Some(30)),
            (7 * DAY + 1, Some(30)),
            (7 * DAY, Some(7)),
            (DAY + 1, Some(7)),
            (DAY, Some(1)),
            (1, Some(1)),
            (0, None),
        ] {
            assert_eq!(due(90 * DAY, left), days, "{left}");
        }
        // Whoever lets something live for five days needs no notice of that.
        assert_eq!((due(5 * DAY, 5 * DAY), due(5 * DAY, DAY)), (None, Some(1)));
        assert_eq!((due(DAY, DAY), due(DAY, 5)), (None, None));
        assert_eq!(Expiring::due(Subject::Certificate, 0, 5, 6), None);
    }
}
