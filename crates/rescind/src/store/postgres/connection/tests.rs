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
