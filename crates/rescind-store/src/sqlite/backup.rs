//! A copy of all data but the sessions, in a file of its own.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use rescind_base::files::gently;
use rusqlite::{Connection, params};

use super::{Sqlite, connect, migrate::migrate, readers::Readers, refused_at, with_circumstances};
use crate::{StoreError, ended};

/// Tables that a backup leaves out. A restored session would be valid again, even if it was revoked after the backup. So would
/// be an administrator's sign-in, and a link that was used. The lease terms are taken from the store that the backup
/// replaces. Denials are of the last days, and may be many.
const LEFT_OUT: [&str; 5] = ["session", "lent", "denial", "sign_in", "handover"];
/// The most events that are copied at once, about a [`PART`](rescind_base::files::PART). The log of commits can be copied between two of these
/// copies, because they are no single read.
const EVENTS: u32 = 2000;

impl Sqlite {
    /// Writes the data of this moment, without the sessions, into an empty file.
    ///
    /// # Errors
    /// Fails if a file is unavailable.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let (readers, to) = (Arc::clone(&self.readers), to.to_owned());
        let no_sweep = NoSweep::new(Arc::clone(&readers));
        // Every sweep that has not seen it is committed after this.
        // If it is not, neither is any sweep.
        _ = self.writer.write_one(|_| Ok(())).await;
        let copied = move || {
            let _no_sweep = no_sweep;
            copy(&readers, &to).map_err(|error| with_circumstances(error, &to))
        };
        tokio::task::spawn_blocking(copied).await.map_err(ended)?
    }

    /// Checks that the file is not damaged.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        self.read(|db| {
            let found: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            if found == "ok" { Ok(()) } else { Err(StoreError::Unreadable(found)) }
        })
        .await
    }
}

/// While it exists, no records of the audit log are swept.
struct NoSweep(Arc<Readers>);

impl NoSweep {
    fn new(readers: Arc<Readers>) -> NoSweep {
        readers.backups.fetch_add(1, Ordering::SeqCst);
        NoSweep(readers)
    }
}

impl Drop for NoSweep {
    fn drop(&mut self) {
        self.0.backups.fetch_sub(1, Ordering::SeqCst);
    }
}

fn copy(readers: &Readers, to: &Path) -> Result<(), StoreError> {
    let _backing_up = readers.backing_up.lock().unwrap_or_else(PoisonError::into_inner);
    make_tables(to)?;
    let file = File::open(to).map_err(refused_at(to))?;
    let (db, last_event) = readers.beside_the_log(|| {
        let db = attached(&readers.path, to)?;
        let last_event = copy_all_but_the_audit_log(&db)?;
        Ok::<_, StoreError>((db, last_event))
    })?;
    let mut copied = Some(0);
    while let Some(after) = copied {
        copied = gently(|| {
            file.sync_data().map_err(refused_at(to))?;
            readers.beside_the_log(|| copy_events(&db, after, last_event))
        })?;
    }
    file.sync_all().map_err(refused_at(to))
}

/// Makes the tables in an empty file.
fn make_tables(to: &Path) -> Result<(), StoreError> {
    let mut file = Connection::open(to)?;
    migrate(&mut file)?;
    file.close().map_err(|(_, e)| e)?;
    Ok(())
}

/// Returns a connection to the store that has the file with the tables attached as `backup`. It reads the store.
fn attached(store: &Path, to: &Path) -> Result<Connection, StoreError> {
    let db = connect(store)?;
    db.execute("ATTACH DATABASE ? AS backup", [to.to_string_lossy()])?;
    // The file is worth nothing before it is complete, and then it is flushed.
    db.execute_batch("PRAGMA backup.journal_mode = OFF; PRAGMA backup.synchronous = OFF")?;
    Ok(db)
}

/// Copies the tables as they are at one moment. Returns the id of the last event of that moment.
fn copy_all_but_the_audit_log(db: &Connection) -> Result<i64, StoreError> {
    let copying = db.unchecked_transaction()?;
    for table in tables(&copying)? {
        copying.execute_batch(&format!("INSERT INTO backup.{table} SELECT * FROM main.{table}"))?;
    }
    // No id is given again, before or after a restore.
    copying.execute_batch(
        "DELETE FROM backup.sqlite_sequence;
         INSERT INTO backup.sqlite_sequence SELECT * FROM main.sqlite_sequence",
    )?;
    let last_event =
        copying.query_row("SELECT coalesce(max(id), 0) FROM main.audit", [], |row| row.get(0))?;
    copying.commit()?;
    Ok(last_event)
}

/// Copies the next events of the audit log, which are never changed. Returns the id of the last one, or `None` if there
/// was none.
fn copy_events(db: &Connection, after: i64, last: i64) -> Result<Option<i64>, StoreError> {
    let events =
        "INSERT INTO backup.audit SELECT * FROM main.audit WHERE id > ? AND id <= ? ORDER BY id LIMIT ?";
    let copied = db.prepare_cached(events)?.execute(params![after, last, EVENTS])?;
    if copied == 0 {
        return Ok(None);
    }
    Ok(db.query_row("SELECT max(id) FROM backup.audit", [], |row| row.get(0))?)
}

/// Returns the tables that are copied whole, each after those that it refers to.
fn tables(db: &Connection) -> Result<Vec<String>, StoreError> {
    let mut query = db.prepare(
        "SELECT name FROM main.sqlite_schema
         WHERE type = 'table' AND name NOT IN (?, ?, ?, ?, ?, 'audit', 'refinery_schema_history') AND name NOT LIKE 'sqlite_%'
         ORDER BY rowid",
    )?;
    let tables = query.query_map(LEFT_OUT, |row| row.get(0))?;
    Ok(tables.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use rescind_base::random::Random;

    use super::*;

    #[test]
    fn the_log_can_be_copied_between_two_parts_of_a_backup() {
        let folder = tempfile::tempdir().unwrap();
        let (path, to) = (folder.path().join("rescind.db"), folder.path().join("backup"));
        let store = Sqlite::open(&path, &Random::seeded(1)).unwrap();
        let other = connect(&path).unwrap();
        let record = |events: u32| {
            let insert = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                          INSERT INTO audit (at, kind, actor, node, count) SELECT i, 'login', 'caller', 'n', 1 FROM n";
            other.execute(insert, [events]).unwrap();
        };
        let copy_the_log = || {
            let (busy, log, copied): (bool, i64, i64) = other
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .unwrap();
            assert_eq!((busy, log, copied), (false, 0, 0));
        };

        record(2 * EVENTS + 1);
        make_tables(&to).unwrap();
        let db = attached(&path, &to).unwrap();
        let last = copy_all_but_the_audit_log(&db).unwrap();
        let mut copied = vec![];
        let mut after = 0;
        while let Some(id) = copy_events(&db, after, last).unwrap() {
            copied.push(id);
            after = id;
            record(1);
            copy_the_log();
        }
        let events = i64::from(EVENTS);
        assert_eq!(copied, [events, 2 * events, 2 * events + 1]);
        let of_backup = "SELECT count(*) FROM backup.audit";
        assert_eq!(db.query_row(of_backup, [], |row| row.get(0)), Ok(2 * events + 1));
        drop(store);
    }
}
