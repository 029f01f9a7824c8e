//! The only thread that writes. It commits all waiting jobs together.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use rusqlite::{Connection, config::DbConfig};
use tokio::sync::oneshot;
use tracing::warn;

use super::{Readers, mark::Marker};
use crate::{
    clock::Clock,
    store::{StoreError, guarded},
    telemetry::metrics::Commits,
};

/// The most jobs in one commit, so that the first job does not wait for an endless stream.
const MAX_BATCH: usize = 256;
/// The most jobs that wait. Beyond them the store is unavailable at once.
const MAX_WAITING: usize = 8192;

/// Runs within the batch's transaction, and returns the function that answers once the commit's outcome is known.
type Job = Box<dyn FnOnce(&Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The handle that sends jobs to the writer thread.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        readers: Arc<Readers>,
        marker: Arc<Mutex<Marker>>,
        commits: Commits,
    ) -> Result<Writer, StoreError> {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                run(&connection, &waiting, &marker, &commits);
                if let Err(error) = close(&connection, &readers, &marker) {
                    warn!(error, "the log could not be copied into the database, and stays");
                }
            })
            .map_err(|e| StoreError::Unavailable(e.into()))?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs `job` in a transaction, and returns when the commit is on the disk. An error of the job undoes only the
    /// job's own changes.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = in_savepoint(connection, job);
            Box::new(move |committed| {
                // The caller may have stopped waiting: the change is committed all the same.
                let _ = answer.send(result.and_then(|value| committed.map(|()| value)));
            })
        });
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.try_send(job).map_err(|e| StoreError::Unavailable(e.to_string().into()))?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    /// Waits for the jobs that were sent, so that the file is closed when the store is dropped.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the writer has stopped".into())
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn run(connection: &Connection, waiting: &Receiver<Job>, marker: &Mutex<Marker>, commits: &Commits) {
    while let Ok(first) = waiting.recv() {
        let batch = std::iter::once(first).chain(waiting.try_iter()).take(MAX_BATCH);
        // The disk does not follow a test's clock.
        let begun_at = Clock::System.elapsed();
        let (answers, outcome) = commit(connection, batch, marker);
        if outcome.is_ok() {
            commits.took.took(Clock::System.elapsed().saturating_sub(begun_at));
            commits.changes.count(answers.len() as u64);
        }
        for answer in answers {
            answer(outcome.as_ref().copied().map_err(|e| StoreError::Unavailable(e.to_string().into())));
        }
    }
}

fn commit(
    connection: &Connection,
    batch: impl Iterator<Item = Job>,
    marker: &Mutex<Marker>,
) -> (Vec<Answer>, Outcome) {
    let mut marker = marker.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = connection.execute_batch("BEGIN IMMEDIATE");
    let before = connection.total_changes();
    // If the transaction could not begin, each job fails by itself.
    let answers = batch.map(|job| job(connection)).collect();
    let changed = connection.total_changes() != before && !connection.is_autocommit();
    let (last, next) = marker.next();
    let outcome: Outcome = begun.map_err(Into::into).and_then(|()| {
        if changed {
            marker.catch_up()?;
            next.write(last, connection)?;
        }
        Ok(connection.execute_batch("COMMIT")?)
    });
    if outcome.is_err() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    if changed
        && outcome.is_ok()
        && let Err(error) = marker.committed(next)
    {
        // The commit is on the disk, so it is a success: memory must apply it.
        warn!(%error, "rescind.mark cannot be written: no change is taken until it can");
    }
    (answers, outcome)
}

/// Leaves the database in one file, unless it has readers.
fn close(connection: &Connection, readers: &Readers, marker: &Mutex<Marker>) -> Result<(), String> {
    let mut marker = marker.lock().unwrap_or_else(PoisonError::into_inner);
    if marker.went_back().is_some() {
        return Ok(());
    }
    let _nobody_reads = readers.reading.write().unwrap_or_else(PoisonError::into_inner);
    readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let copied = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| {
        Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)? == row.get::<_, i64>(2)?))
    });
    if copied.map_err(|e| e.to_string())? != (false, true) {
        return Err("somebody reads it".into());
    }
    marker.closed().map_err(|e| e.to_string())?;
    // Now SQLite may remove the log.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map(|_| ())
        .map_err(|e| e.to_string())
}

fn in_savepoint<T>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if connection.is_autocommit() {
        return Err(StoreError::Unavailable("no transaction could begin".into()));
    }
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let result = guarded(|| job(connection)).flatten();
    if result.is_err() && !connection.is_autocommit() {
        connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    if !connection.is_autocommit() {
        connection.prepare_cached("RELEASE job")?.execute([])?;
    }
    result
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{random::Random, store::Sqlite};

    // check 97
    #[tokio::test]
    async fn a_commit_that_cannot_be_marked_is_answered_and_no_other_made_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("rescind.db"), &Random::seeded(1)).unwrap();
        let lend = async |seconds| store.set_lent(Duration::from_secs(seconds)).await;
        let lent = async || store.load().await.unwrap().lent.as_secs();
        store.marker.lock().unwrap().set_writable(false);
        assert!(lend(1).await.is_ok());
        assert!(lend(2).await.is_err());
        assert_eq!(lent().await, 1);
        store.marker.lock().unwrap().set_writable(true);
        assert!(lend(3).await.is_ok());
        assert_eq!(lent().await, 3);
    }
}
