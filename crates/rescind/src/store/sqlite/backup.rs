//! A copy of all data but the sessions, in a file of its own.

use std::{fs::File, path::Path};

use rusqlite::Connection;

use super::{Sqlite, migrate::migrate};
use crate::store::StoreError;

/// Tables that a backup leaves out. A restored session would be valid again, even if it was revoked after the backup.
/// The lease terms are taken from the store that the backup replaces.
const LEFT_OUT: [&str; 2] = ["session", "lent"];

impl Sqlite {
    /// Writes the data of this moment, without the sessions, into an empty file.
    ///
    /// # Errors
    /// Fails if a file is unavailable.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let to = to.to_owned();
        self.read(move |db| {
            let mut file = Connection::open(&to)?;
            migrate(&mut file)?;
            file.close().map_err(|(_, e)| e)?;

            db.execute("ATTACH DATABASE ? AS backup", [to.to_string_lossy()])?;
            let copying = db.unchecked_transaction()?;
            for table in tables(&copying)? {
                copying.execute_batch(&format!("INSERT INTO backup.{table} SELECT * FROM main.{table}"))?;
            }
            // No id is given again, before or after a restore.
            copying.execute_batch(
                "DELETE FROM backup.sqlite_sequence;
                 INSERT INTO backup.sqlite_sequence SELECT * FROM main.sqlite_sequence",
            )?;
            copying.commit()?;
            db.execute("DETACH DATABASE backup", [])?;
            File::open(&to).and_then(|file| file.sync_all()).map_err(|e| StoreError::Unavailable(e.into()))
        })
        .await
    }

    /// Checks that the file is not damaged.
    pub(in crate::store) async fn check(&self) -> Result<(), StoreError> {
        self.read(|db| {
            let found: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            if found == "ok" { Ok(()) } else { Err(StoreError::Unreadable(found)) }
        })
        .await
    }
}

/// Returns the tables that are copied, each after those that it refers to.
fn tables(db: &Connection) -> Result<Vec<String>, StoreError> {
    let mut query = db.prepare(
        "SELECT name FROM main.sqlite_schema
         WHERE type = 'table' AND name NOT IN (?, ?, 'refinery_schema_history') AND name NOT LIKE 'sqlite_%'
         ORDER BY rowid",
    )?;
    let tables = query.query_map(LEFT_OUT, |row| row.get(0))?;
    Ok(tables.collect::<Result<_, _>>()?)
}
