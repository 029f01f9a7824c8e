//! How values of the domain are written in columns, in both stores.

use std::str::FromStr;

use rescind_verifier::{Algorithm, Allowlist, parse_cidr};

use super::StoreError;
use crate::model::{Phase, Status};

pub(super) fn status_text(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
        Status::Deleted => "deleted",
    }
}

pub(super) fn read_status(text: &str) -> Result<Status, StoreError> {
    match text {
        "active" => Ok(Status::Active),
        "suspended" => Ok(Status::Suspended),
        "deleted" => Ok(Status::Deleted),
        other => Err(StoreError::Unreadable(format!("client status {other:?}"))),
    }
}

pub(super) fn read_phase(number: i64) -> Result<Phase, StoreError> {
    match number {
        0 => Ok(Phase::Live),
        1 => Ok(Phase::RefreshEnded),
        2 => Ok(Phase::Ended),
        other => Err(StoreError::Unreadable(format!("session phase {other}"))),
    }
}

pub(super) fn read_algorithm(name: &str) -> Result<Algorithm, StoreError> {
    Algorithm::from_name(name).ok_or_else(|| StoreError::Unreadable(format!("signing algorithm {name:?}")))
}

pub(super) fn allowlist_text(allowlist: &Allowlist) -> String {
    allowlist.entries().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

pub(super) fn read_allowlist(text: &str) -> Result<Allowlist, StoreError> {
    let entries: Result<Vec<_>, _> = text.split_whitespace().map(parse_cidr).collect();
    entries.map(Allowlist::from_iter).map_err(|e| StoreError::Unreadable(e.to_string()))
}

pub(super) fn parsed<T: FromStr<Err: ToString>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|e: T::Err| StoreError::Unreadable(e.to_string()))
}
