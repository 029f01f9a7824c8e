//! The settings of a session: those that override the role's and the database's, and those that a server must have.

use std::time::Duration;

use crate::{Result, StoreError};

const OLDEST_SERVER: u32 = 150_000;

/// Statements that override settings of the role and the database. `limit`: of statements.
///
/// Warnings must arrive, and a process that hangs in a transaction must lose its locks. No idle session is ended, which
/// may be the lease's. Compiling (`jit`) never pays for statements as short as these, and takes five times as long as a
/// logout where tables were not analyzed.
pub(super) fn overridden(messages: &str, limit: Duration) -> String {
    let limit = limit.as_millis();
    format!(
        "SET client_min_messages = {messages};
         SET default_transaction_isolation = 'read committed';
         SET statement_timeout = {limit};
         SET lock_timeout = {limit};
         SET idle_in_transaction_session_timeout = {limit};
         SET idle_session_timeout = 0;
         SET jit = off;
         SELECT set_config('transaction_timeout', '0', false)
             WHERE current_setting('transaction_timeout', true) IS NOT NULL;"
    )
}

/// Checks a server's settings: the number of its version, `fsync`, `full_page_writes`, `synchronous_commit` and
/// `session_replication_role`.
pub(super) fn suits(
    [version, fsync, pages, commit, role]: [&str; 5],
    accept_lost_commits: bool,
) -> Result<()> {
    if version.parse().is_ok_and(|version: u32| version < OLDEST_SERVER) {
        return Err(StoreError::Unsuitable(format!(
            "the server is older than PostgreSQL 15 (server_version_num {version}): upgrade it"
        )));
    }
    if !matches!(role, "origin" | "local") {
        return Err(StoreError::Unsuitable(format!(
            "session_replication_role is {role}, with which no trigger fires: set it to origin for the role and the \
             database of database.url"
        )));
    }
    let lossy = match (fsync, pages, commit) {
        _ if accept_lost_commits => None,
        ("off", _, _) => Some("fsync is off: set it to on"),
        (_, "off", _) => Some("full_page_writes is off: set it to on"),
        (_, _, "on" | "remote_apply") => None,
        _ => Some("synchronous_commit is neither on nor remote_apply: set it to one of them"),
    };
    match lossy {
        None => Ok(()),
        Some(lossy) => Err(StoreError::Unsuitable(format!(
            "{lossy}, or database.accept_lost_commits = true where it is no matter that the server may forget \
             what it has committed, such as a logout"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_or_may_lose_commits_is_refused() {
        let told = |settings, accept| suits(settings, accept).map_err(|e| e.to_string());
        for (settings, at_fault) in [
            (["140011", "on", "on", "on", "origin"], "older than PostgreSQL 15"),
            (["150000", "off", "on", "on", "origin"], "fsync is off"),
            (["150000", "on", "off", "on", "origin"], "full_page_writes is off"),
            (["150000", "on", "on", "off", "origin"], "synchronous_commit is neither"),
            (["150000", "on", "on", "local", "origin"], "synchronous_commit is neither"),
            (["150000", "on", "on", "remote_write", "origin"], "synchronous_commit is neither"),
            (["150000", "on", "on", "on", "replica"], "session_replication_role is replica"),
        ] {
            assert!(told(settings, false).unwrap_err().contains(at_fault), "{settings:?}");
        }
        assert_eq!(told(["150000", "on", "on", "on", "origin"], false), Ok(()));
        assert_eq!(told(["180000", "on", "on", "remote_apply", "origin"], false), Ok(()));
        assert_eq!(told(["150000", "off", "off", "off", "origin"], true), Ok(()));
        assert!(told(["140000", "on", "on", "on", "origin"], true).is_err());
    }
}
