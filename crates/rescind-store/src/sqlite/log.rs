//! SQLite's log of commits (WAL) beside the database.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, PoisonError, RwLock, TryLockError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
};

use rusqlite::{Connection, hooks::Wal};
use tracing::warn;

use super::mark::log_of;
use crate::StoreError;

/// The log is copied into the database when it has so many pages.
const LOG_PAGES: i32 = 1000;
/// Up to so many pages, the copy is put off while somebody reads. Then changes wait for the reads to end.
const LONG_LOG_PAGES: i32 = 4 * LOG_PAGES;

/// How many bytes of the log are written again at once.
const PART: usize = 1 << 20;

/// Writes and flushes the log again, so that the disk has what SQLite is about to read. Returns the log's length in
/// bytes.
///
/// After a failed flush, the system's cache may hold data that the disk does not have, and that no later flush writes
/// ("fsyncgate"). A power cut would then lose every commit behind that gap. The bytes are the same, so a power cut
/// during this does no harm.
pub(super) fn write_again(path: &Path) -> io::Result<u64> {
    match OpenOptions::new().read(true).write(true).open(log_of(path)) {
        Ok(mut log) => {
            let (mut length, mut part) = (0, vec![0; PART]);
            loop {
                let read = log.read(&mut part)?;
                if read == 0 {
                    break;
                }
                log.write_all_at(&part[..read], length)?;
                length += read as u64;
            }
            log.sync_all()?;
            Ok(length)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// The length of the log, and the lock of those who must not read while it is copied.
pub(super) struct Log {
    pages: Arc<AtomicI32>,
    reading: Arc<RwLock<()>>,
    /// Whether a reader in another process was noticed and reported.
    is_shared: AtomicBool,
}

impl Log {
    /// Watches the length of the log that this connection writes.
    pub(super) fn watch(connection: &mut Connection, reading: Arc<RwLock<()>>) -> Result<Log, StoreError> {
        let pages = Arc::new(AtomicI32::new(0));
        let after_a_commit = {
            let pages = Arc::clone(&pages);
            move |_: &mut Wal, now: i32| {
                pages.store(now, Ordering::Relaxed);
                Ok(())
            }
        };
        connection.wal_hook(Some(after_a_commit))?;
        Ok(Log { pages, reading, is_shared: AtomicBool::new(false) })
    }

    /// Copies the log into the database if it has grown long, without readers beside it.
    ///
    /// While a reader is active, SQLite copies a part of the log, counts it as copied, and flushes the database later.
    /// If that flush fails, SQLite overwrites the log all the same, and the data is lost. Without readers SQLite copies
    /// everything, flushes, and only then counts the log as copied.
    pub(super) fn copy_if_long(&self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < LOG_PAGES {
            return;
        }
        let _nobody_reads = if pages < LONG_LOG_PAGES {
            match self.reading.try_write() {
                Ok(none) => none,
                Err(TryLockError::Poisoned(none)) => none.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            }
        } else {
            self.reading.write().unwrap_or_else(PoisonError::into_inner)
        };
        let is_all = connection.query_row("PRAGMA wal_checkpoint", [], |row| {
            Ok(row.get::<_, i64>("log")? == row.get::<_, i64>("checkpointed")?)
        });
        match is_all {
            Ok(is_all) => {
                self.pages.store(0, Ordering::Relaxed);
                if !is_all && !self.is_shared.swap(true, Ordering::Relaxed) {
                    warn!(
                        "another program reads rescind.db: its log grows meanwhile, and if the disk fails then, changes \
                         may be lost. Have it read a backup (`rescind db backup`)"
                    );
                }
            }
            Err(error) => warn!(%error, "the log could not be copied into the database, and grows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, thread, time::Duration};

    use rescind_base::random::Random;

    use super::*;
    use crate::{Sqlite, sqlite::connect};

    #[test]
    fn a_reader_in_another_process_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rescind.db");
        let mut connection = connect(&path).unwrap();
        let log = Log::watch(&mut connection, Arc::default()).unwrap();
        let grow = |connection: &Connection| {
            let insert = format!("INSERT INTO t VALUES (zeroblob({}))", 4096 * LOG_PAGES);
            connection.execute_batch(&insert).unwrap();
        };
        connection.execute_batch("CREATE TABLE t (a)").unwrap();
        grow(&connection);
        log.copy_if_long(&connection);
        assert!(!log.is_shared.load(Ordering::Relaxed));

        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        grow(&connection);
        log.copy_if_long(&connection);
        assert!(log.is_shared.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_read_holds_up_no_change_before_the_log_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rescind.db");
        let store = Sqlite::open(&path, &Random::seeded(1)).unwrap();
        let lock = Arc::clone(&store.readers.reading);
        let (reading, (done, is_done)) = (mpsc::channel(), mpsc::channel::<()>());
        let reader = thread::spawn(move || {
            let _reading = lock.read().unwrap();
            reading.0.send(()).unwrap();
            is_done.recv().unwrap();
        });
        reading.1.recv().unwrap();
        let mut seconds = 0;
        while fs::metadata(folder.path().join("rescind.db-wal")).unwrap().len()
            < 2 * 4096 * u64::from(LOG_PAGES.unsigned_abs())
        {
            seconds += 1;
            let change = store.set_lent(Duration::from_secs(seconds));
            tokio::time::timeout(Duration::from_secs(60), change)
                .await
                .expect("it waits for the read")
                .unwrap();
        }
        done.send(()).unwrap();
        reader.join().unwrap();
    }
}
