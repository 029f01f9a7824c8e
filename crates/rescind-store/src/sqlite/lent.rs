//! The longest lease term granted to verifiers.

use std::{path::Path, time::Duration};

use rescind_base::model::LONGEST_LEASE;
use rusqlite::Connection;

use super::{Sqlite, connect, rows};
use crate::Result;

impl Sqlite {
    /// Saves the longest lease term that verifiers may have.
    ///
    /// # Errors
    /// Fails if the store is unavailable.
    pub async fn set_lent(&self, term: Duration) -> Result<()> {
        let millis = u64::try_from(term.as_millis()).unwrap_or(u64::MAX);
        let update = move |db: &Connection| {
            db.execute("UPDATE lent SET term_ms = ?", [millis])?;
            Ok(())
        };
        self.writer.write(update).await
    }
}

/// Returns the longest lease term of the store in this file: 0 if the file is missing, the longest of all if damaged.
pub(crate) fn lent(path: &Path) -> Duration {
    if !path.exists() {
        return Duration::ZERO;
    }
    connect(path).and_then(|db| rows::lent(&db)).unwrap_or(LONGEST_LEASE)
}
