//! Events of the audit log, as they are written and as they are read.

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::HEXLOWER;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ClientId, SessionId, UnixSeconds};
use crate::secret::ApiKey;

/// Defines the kinds of events and their names.
macro_rules! kinds {
    ($($kind:ident $name:literal,)*) => {
        /// The kind of an event. docs/audit.md explains each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        pub enum EventKind {
            $(#[serde(rename = $name)] $kind,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[EventKind] = &[$(EventKind::$kind,)*];

            /// Returns the name, which never changes.
            pub fn name(self) -> &'static str {
                match self {
                    $(EventKind::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    ClientCreated "client_created",
    ClientRenamed "client_renamed",
    ClientSuspended "client_suspended",
    ClientResumed "client_resumed",
    ClientLoggedOut "client_logged_out",
    ClientDeleted "client_deleted",
    AllowlistChanged "allowlist_changed",
    CertificatesChanged "certificates_changed",
    ScopesChanged "scopes_changed",
    ResourcesChanged "resources_changed",
    EnforcementChanged "enforcement_changed",
    LifetimeChanged "lifetime_changed",
    CredentialCreated "credential_created",
    CredentialExpiryChanged "credential_expiry_changed",
    CredentialNoteChanged "credential_note_changed",
    CredentialRevoked "credential_revoked",
    CredentialDeleted "credential_deleted",
    CredentialExpiring "credential_expiring",
    SecretHandedOver "secret_handed_over",
    HandedOverSecretRead "handed_over_secret_read",
    SessionRevoked "session_revoked",
    SigningKeyCreated "signing_key_created",
    SigningKeyRetired "signing_key_retired",
    VerifierCreated "verifier_created",
    VerifierRevoked "verifier_revoked",
    ManagementTokenCreated "management_token_created",
    ManagementTokenRevoked "management_token_revoked",
    ManagementTokenExpiring "management_token_expiring",
    CertificateExpiring "certificate_expiring",
    AdministratorCreated "administrator_created",
    AdministratorEnrolled "administrator_enrolled",
    AdministratorSignedIn "administrator_signed_in",
    AdministratorReset "administrator_reset",
    AdministratorChanged "administrator_changed",
    AdministratorRemoved "administrator_removed",
    MasterKeyRotated "master_key_rotated",
    PepperRotated "pepper_rotated",
    PepperRetired "pepper_retired",
    WebhookReplayed "webhook_replayed",
    StoreBackedUp "store_backed_up",
    StoreRestored "store_restored",
    HistoryLost "history_lost",
    StoreWentBack "store_went_back",
    LeakReported "leak_reported",
    RefreshTokenReused "refresh_token_reused",
    SignInRefused "sign_in_refused",
    Throttled "throttled",
    QuotaExceeded "quota_exceeded",
    AddressDenied "address_denied",
    CertificateDenied "certificate_denied",
    TokensNotCached "tokens_not_cached",
}

impl FromStr for EventKind {
    type Err = String;

    fn from_str(name: &str) -> Result<EventKind, String> {
        let known = EventKind::ALL.iter().copied().find(|kind| kind.name() == name);
        known.ok_or_else(|| {
            let names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// Who caused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A user who may open the data folder, or the holder of a management token.
    Operator,
    /// The service itself.
    Service,
    /// A caller of the public routes.
    Caller,
}

impl Actor {
    /// Returns the name, which never changes.
    pub fn name(self) -> &'static str {
        match self {
            Actor::Operator => "operator",
            Actor::Service => "service",
            Actor::Caller => "caller",
        }
    }
}

/// When, by whom and from where a change is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeOrigin {
    pub at: UnixSeconds,
    pub by: Actor,
    /// Which user or management token, if that is an operator.
    pub operator: Option<Arc<str>>,
    /// The caller's address, or the network that counts as one source.
    pub from: Option<IpNet>,
    /// The name of the node that makes the change.
    pub node: Arc<str>,
    /// The id of the request for the change.
    pub request: Option<String>,
}

/// An event to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub origin: ChangeOrigin,
    pub client: Option<ClientId>,
    /// The credential's API key.
    pub api_key: Option<ApiKey>,
    pub session: Option<SessionId>,
    /// A text for people, of bounded length.
    pub detail: Option<String>,
    /// How often the event happened.
    pub count: u64,
}

impl Event {
    /// Returns the event as the record with this id, which has no place in a chain yet.
    pub fn record(&self, id: u64) -> Record {
        let Event { kind, origin, client, api_key, session, detail, count } = self;
        Record {
            id,
            at: origin.at,
            kind: kind.name().to_owned(),
            by: origin.by.name().to_owned(),
            operator: origin.operator.as_deref().map(str::to_owned),
            client: *client,
            api_key: api_key.clone(),
            session: *session,
            address: origin.from_text(),
            node: origin.node.to_string(),
            request: origin.request.clone(),
            detail: detail.clone(),
            count: *count,
            link: None,
        }
    }
}

impl ChangeOrigin {
    /// Returns the origin of a change that no request asks for.
    pub fn new(at: UnixSeconds, by: Actor, node: &str) -> ChangeOrigin {
        ChangeOrigin { at, by, operator: None, from: None, node: node.into(), request: None }
    }

    /// Returns an event of this origin.
    pub fn event(&self, kind: EventKind) -> Event {
        Event {
            kind,
            origin: self.clone(),
            client: None,
            api_key: None,
            session: None,
            detail: None,
            count: 1,
        }
    }

    /// Returns the text of the address or network.
    pub fn from_text(&self) -> Option<String> {
        self.from.map(|net| match net.prefix_len() == net.max_prefix_len() {
            true => net.addr().to_string(),
            false => net.to_string(),
        })
    }
}

/// The hash of a row and of all rows before it in its chain.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainHash(pub [u8; 32]);

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl ChainHash {
    pub fn to_text(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<ChainHash> {
        HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(ChainHash)
    }
}

/// A row's place in the chain of its node. The first row has the number 1, and zeros as the hash before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    pub number: u64,
    pub hash: ChainHash,
}

/// An event as it was written, maybe by another version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The record's id, higher than those of all records that could be read before.
    pub id: u64,
    pub at: UnixSeconds,
    pub kind: String,
    pub by: String,
    pub operator: Option<String>,
    pub client: Option<ClientId>,
    pub api_key: Option<ApiKey>,
    pub session: Option<SessionId>,
    pub address: Option<String>,
    pub node: String,
    pub request: Option<String>,
    pub detail: Option<String>,
    pub count: u64,
    /// The record's place in the chain of its node; none in a record that is older than the chains.
    pub link: Option<Link>,
}

/// A query for records.
#[derive(Debug, Clone, Copy)]
pub struct EventFilter {
    /// With an id, the oldest records after it are wanted; without one, the newest records.
    pub after: Option<u64>,
    /// Only records before this id.
    pub before: Option<u64>,
    pub limit: u64,
    pub kind: Option<EventKind>,
    pub client: Option<ClientId>,
    pub since: UnixSeconds,
    /// The time after the last record.
    pub until: UnixSeconds,
}

impl EventFilter {
    /// The newest records.
    pub const fn newest(limit: u64) -> EventFilter {
        // A time that the stores' signed numbers can hold.
        EventFilter {
            after: None,
            before: None,
            limit,
            kind: None,
            client: None,
            since: 0,
            until: UnixSeconds::MAX >> 1,
        }
    }
}

/// A page of records, in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub records: Vec<Record>,
    /// Cursor for the next page: no wanted record with an id up to `last` remains.
    pub last: u64,
    /// There are older wanted records than those of this page.
    pub more: bool,
}

impl EventFilter {
    /// How many records are looked for.
    pub fn looked_for(&self) -> u64 {
        // An id, and so a count, is at most `i64::MAX` in the stores.
        (self.limit + u64::from(self.after.is_none())).min(u64::MAX >> 1)
    }

    /// Makes a page of the records found while `newest` was the newest of all records.
    pub fn page(&self, mut records: Vec<Record>, newest: Option<u64>) -> Page {
        records.sort_unstable_by_key(|record| record.id);
        // Of the newest, one more was looked for.
        let more = self.after.is_none() && records.len() as u64 > self.limit;
        if more {
            records.remove(0);
        }
        let after = self.after.unwrap_or(0);
        let last = match records.last() {
            Some(record) if self.after.is_some() && records.len() as u64 == self.limit => record.id,
            _ => newest.unwrap_or(0).max(after),
        };
        Page { records, last, more }
    }
}

/// Which records are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long records are kept, in seconds.
    pub keep: u64,
    /// How many records of callers are kept at most.
    pub max_rows: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_kind_and_no_other() {
        let text = include_str!("../../../../docs/audit.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let names: Vec<_> =
            rows.map(|(name, _)| name).filter(|name| name.parse::<EventKind>().is_ok()).collect();
        assert_eq!(names, EventKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    }

    #[test]
    fn a_page_goes_on_after_what_was_looked_at() {
        let record = |id| Record {
            id,
            at: 0,
            kind: String::new(),
            by: String::new(),
            operator: None,
            client: None,
            api_key: None,
            session: None,
            address: None,
            node: String::new(),
            request: None,
            detail: None,
            count: 1,
            link: None,
        };
        let wanted = |after| EventFilter { after, ..EventFilter::newest(2) };
        let last = |after, ids: &[u64], newest| {
            let page = wanted(after).page(ids.iter().copied().map(record).collect(), newest);
            assert!(page.records.is_sorted_by_key(|record| record.id));
            page.last
        };
        // After a full page more records may remain; after any other none does.
        assert_eq!(last(Some(0), &[1, 2], Some(9)), 2);
        assert_eq!(last(Some(2), &[3], Some(9)), 9);
        assert_eq!(last(Some(9), &[], Some(9)), 9);
        // All records may have been swept.
        assert_eq!(last(Some(9), &[], None), 9);
        assert_eq!(last(None, &[9, 8], Some(9)), 9);
        assert_eq!(last(None, &[], None), 0);
        // Of the newest, the page has as many as were asked for, and says that there are more.
        let newest = |ids: &[u64]| {
            let page = wanted(None).page(ids.iter().copied().map(record).collect(), ids.first().copied());
            (page.records.iter().map(|record| record.id).collect::<Vec<_>>(), page.more)
        };
        assert_eq!(newest(&[9, 8, 7]), (vec![8, 9], true));
        assert_eq!(newest(&[9, 8]), (vec![8, 9], false));
    }
}
