//! What is remembered of leases.

use std::{path::Path, time::Duration};

use rusqlite::Connection;

use super::{Sqlite, connect, rows};
use crate::{model::LONGEST_LEASE, store::StoreError};

impl Sqlite {
    /// The longest lease that may be out is of this term.
    pub async fn set_lent(&self, term: Duration) -> Result<(), StoreError> {
        let millis = u64::try_from(term.as_millis()).unwrap_or(u64::MAX);
        let update = move |db: &Connection| {
            db.execute("UPDATE lent SET term_ms = ?", [millis])?;
            Ok(())
        };
        self.writer.write(update).await
    }
}

/// What the store in this file, which may be damaged or not be there, says of them.
pub(in crate::store) fn lent(path: &Path) -> Duration {
    if !path.exists() {
        return Duration::ZERO;
    }
    connect(path).and_then(|db| rows::lent(&db)).unwrap_or(LONGEST_LEASE)
}
