//! Why an operation of the store fails.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use thiserror::Error;

/// Why an operation of the store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store cannot be reached or written. Nothing was done, or the outcome is unknown.
    #[error("the store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store holds data that this version cannot read.
    #[error("the store holds what this version cannot read: {0}")]
    Unreadable(String),
    /// The file of the embedded store is no database, or SQLite cannot read it.
    #[error("{} is no database, or is damaged: put it back as it was, or `rescind db restore` a backup", .0.display())]
    Damaged(PathBuf),
    /// The database is set up wrongly, and only its operator can change that.
    #[error("the database cannot be used: {0}")]
    Unsuitable(String),
}

/// What an operation of the store returns.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The error for a task that panicked. The panic's text is left out: it may contain a value.
pub(super) fn ended(_: tokio::task::JoinError) -> StoreError {
    StoreError::Unavailable("a task of the store panicked".into())
}

/// Runs a rule. If the rule panics, only its own operation fails.
pub(super) fn guarded<T>(rule: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(rule))
        .map_err(|_| StoreError::Unavailable("the change was given up: a rule panicked".into()))
}
