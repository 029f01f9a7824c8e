//! The settings that a server must have.

use crate::store::StoreError;

const OLDEST_SERVER: u32 = 150_000;

/// Checks a server's settings: the number of its version, `fsync`, `full_page_writes` and `synchronous_commit`.
pub(super) fn suits(
    [version, fsync, pages, commit]: [&str; 4],
    accept_lost_commits: bool,
) -> Result<(), StoreError> {
    if version.parse().is_ok_and(|version: u32| version < OLDEST_SERVER) {
        return Err(StoreError::Unsuitable(format!(
            "the server is older than PostgreSQL 15 (server_version_num {version}): upgrade it"
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
            (["140011", "on", "on", "on"], "older than PostgreSQL 15"),
            (["150000", "off", "on", "on"], "fsync is off"),
            (["150000", "on", "off", "on"], "full_page_writes is off"),
            (["150000", "on", "on", "off"], "synchronous_commit is neither"),
            (["150000", "on", "on", "local"], "synchronous_commit is neither"),
            (["150000", "on", "on", "remote_write"], "synchronous_commit is neither"),
        ] {
            assert!(told(settings, false).unwrap_err().contains(at_fault), "{settings:?}");
        }
        assert_eq!(told(["150000", "on", "on", "on"], false), Ok(()));
        assert_eq!(told(["180000", "on", "on", "remote_apply"], false), Ok(()));
        assert_eq!(told(["150000", "off", "off", "off"], true), Ok(()));
        assert!(told(["140000", "on", "on", "on"], true).is_err());
    }
}
