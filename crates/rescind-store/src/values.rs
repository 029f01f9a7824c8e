//! What both stores do alike: how values of the domain are written in columns, and the time of the last use.

use std::{net::IpAddr, str::FromStr};

use rescind_base::model::{ChainHash, ClientId, DenialDetails, Phase, Status};
use rescind_verifier::{Algorithm, Allowlist, parse_cidr};

use super::{Result, StoreError};

/// Reads the saved time of the last use; without one, the newest time in the rows, or 0.
pub(super) const LAST_USED: &str = "
    SELECT coalesce(
        (SELECT used_at FROM clock),
        (SELECT max(at) FROM (
            SELECT max(at) AS at FROM audit
            UNION ALL SELECT max(created_at) FROM client
            UNION ALL SELECT max(created_at) FROM signing_key
            UNION ALL SELECT issued_at FROM session WHERE id = (SELECT max(id) FROM session)) AS newest),
        0) AS used_at";
pub(super) const SAVE_USED: &str = "
    INSERT INTO clock (id, used_at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at";

/// Clients that one batch looks at.
pub(super) const BATCH: u64 = 100;
/// The most addresses that are kept of one credential's uses.
pub(super) const USES_KEPT: u64 = 200;
/// The most uses that are told of one client.
pub(super) const USES_TOLD: u64 = 10_000;

/// The most rows of the counts that one batch of a sweep deletes.
pub(super) const USAGE_SWEPT: u64 = 10_000;

/// The text of a caller's address; empty where it was not known.
pub(super) fn address_text(address: Option<IpAddr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

pub(super) fn read_address(text: &str) -> Result<Option<IpAddr>> {
    let address = (!text.is_empty()).then(|| text.parse()).transpose();
    address.map_err(|_| StoreError::Unreadable(format!("address {text:?}")))
}

pub(super) fn status_text(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
        Status::Deleted => "deleted",
    }
}

pub(super) fn read_status(text: &str) -> Result<Status> {
    match text {
        "active" => Ok(Status::Active),
        "suspended" => Ok(Status::Suspended),
        "deleted" => Ok(Status::Deleted),
        other => Err(StoreError::Unreadable(format!("client status {other:?}"))),
    }
}

pub(super) fn read_phase(number: i64) -> Result<Phase> {
    match number {
        0 => Ok(Phase::Live),
        1 => Ok(Phase::RefreshEnded),
        2 => Ok(Phase::Ended),
        other => Err(StoreError::Unreadable(format!("session phase {other}"))),
    }
}

pub(super) fn read_algorithm(name: &str) -> Result<Algorithm> {
    Algorithm::from_name(name).ok_or_else(|| StoreError::Unreadable(format!("signing algorithm {name:?}")))
}

pub(super) fn allowlist_text(allowlist: &Allowlist) -> String {
    allowlist.entries().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

pub(super) fn read_allowlist(text: &str) -> Result<Allowlist> {
    let entries: Result<Vec<_>, _> = text.split_whitespace().map(parse_cidr).collect();
    entries.map(Allowlist::from_iter).map_err(|e| StoreError::Unreadable(e.to_string()))
}

/// Reads the hash of a record. A text of another length equals no hash, which the walk over the chain finds.
pub(super) fn chain_hash(bytes: &[u8]) -> ChainHash {
    ChainHash(bytes.try_into().unwrap_or([0xff; 32]))
}

pub(super) fn parsed<T: FromStr<Err: ToString>>(text: &str) -> Result<T> {
    text.parse().map_err(|e: T::Err| StoreError::Unreadable(e.to_string()))
}

/// The time between two updates of when a management token was used last.
pub(super) const LAST_USED_EVERY: u64 = 60;
/// How long an idempotency key is remembered.
pub(super) const CREATION_KEPT: u64 = 24 * 3600;

pub(super) fn clients_text(clients: Option<&Vec<ClientId>>) -> Option<String> {
    clients.map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

pub(super) fn details_text(details: &DenialDetails) -> String {
    serde_json::to_string(details).unwrap_or_default()
}

pub(super) fn read_details(text: &str) -> Result<DenialDetails> {
    serde_json::from_str(text).map_err(|e| StoreError::Unreadable(format!("details of a denial: {e}")))
}

pub(super) fn read_clients(text: Option<&str>) -> Result<Option<Vec<ClientId>>> {
    let read = |text: &str| text.split_whitespace().map(parsed).collect::<Result<Vec<_>>>();
    text.map(read).transpose()
}
