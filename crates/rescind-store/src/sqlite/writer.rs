//! The only thread that writes. It commits all waiting jobs together.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use rescind_base::{clock::Clock, telemetry::metrics::Commits};
use rusqlite::{Connection, config::DbConfig};
use tokio::sync::oneshot;
use tracing::warn;

use super::{log::Log, mark::Marker, readers::Readers};
use crate::{StoreError, guarded};

/// The most jobs that wait. Beyond them the store is unavailable at once.
const MAX_WAITING: usize = 8192;

/// The longest wait for more jobs, however slow the disk is.
const PATIENCE: Duration = Duration::from_millis(2);

/// Runs within the group's transaction, and returns the function that answers once the commit's outcome is known.
type Job = Box<dyn FnOnce(&Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The handle that sends jobs to the writer thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    unwritable: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

/// The jobs for the next commit. The writer is woken once for a commit, not for each job.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    enough: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    /// With so many jobs the writer is woken. 0: it is at work.
    wanted: usize,
    /// No more jobs will come.
    closed: bool,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        log: Log,
        readers: Arc<Readers>,
        marker: Arc<Mutex<Marker>>,
        commits: Commits,
    ) -> Result<Writer, StoreError> {
        let queue = Arc::new(Queue::default());
        let jobs = Arc::clone(&queue);
        let unwritable = Arc::<Mutex<_>>::default();
        let last = Arc::clone(&unwritable);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                // If this thread panics, callers must not wait for it.
                let _closing = Closing(&jobs);
                run(&connection, &log, &jobs, &marker, &commits, &last);
                if let Err(error) = close(&connection, &readers, &marker) {
                    warn!(error, "the log could not be copied into the database, and stays");
                }
            })
            .map_err(|e| StoreError::Unavailable(e.into()))?;
        Ok(Writer { queue, unwritable, thread: Some(thread) })
    }

    /// Returns why the last commit with changes failed. `None`: it succeeded.
    pub(super) fn unwritable(&self) -> Option<String> {
        self.unwritable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs `job` in a transaction, and returns when the commit is on the disk. An error of the job undoes only the
    /// job's own changes.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_one(|connection| in_savepoint(connection, job)).await
    }

    /// Like [`Writer::write`], for a job whose last step is its only statement that writes. If that fails, SQLite
    /// undoes it.
    pub(super) async fn write_one<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = guarded(|| {
                if connection.is_autocommit() {
                    return Err(StoreError::Unavailable("no transaction could begin".into()));
                }
                job(connection)
            });
            let result = result.flatten();
            Box::new(move |committed| {
                // The caller may have stopped waiting: the change is committed all the same.
                let _ = answer.send(result.and_then(|value| committed.map(|()| value)));
            })
        });
        self.queue.push(job)?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    /// Waits for the jobs that were sent, so that the file is closed when the store is dropped.
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the writer has stopped".into())
}

impl Queue {
    fn push(&self, job: Job) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(stopped());
        }
        if waiting.jobs.len() >= MAX_WAITING {
            return Err(StoreError::Unavailable("too many changes wait for the disk".into()));
        }
        waiting.jobs.push(job);
        if waiting.jobs.len() == waiting.wanted {
            drop(waiting);
            self.enough.notify_one();
        }
        Ok(())
    }

    /// Waits for the first job, and then for as many as are `wanted`, but no longer than `patience`. Returns all jobs,
    /// or none when no more will come.
    fn take(&self, wanted: usize, patience: Duration) -> Vec<Job> {
        let mut waiting = self.lock();
        for (wanted, patience) in [(1, Duration::MAX), (wanted, patience)] {
            waiting.wanted = wanted;
            let too_few = |waiting: &mut Waiting| waiting.jobs.len() < wanted && !waiting.closed;
            let waited = self.enough.wait_timeout_while(waiting, patience, too_few);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.wanted = 0;
        std::mem::take(&mut waiting.jobs)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.enough.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue(…)")
    }
}

/// Closes the queue and gives up its jobs when dropped.
struct Closing<'q>(&'q Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().jobs.clear();
    }
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Commits groups of jobs. Callers who were answered together come again together, so a group waits until it is as
/// large as the one before, but no longer than that one's commit took.
fn run(
    connection: &Connection,
    log: &Log,
    queue: &Queue,
    marker: &Mutex<Marker>,
    commits: &Commits,
    unwritable: &Mutex<Option<String>>,
) {
    let (mut group, mut took) = (1, Duration::ZERO);
    loop {
        let jobs = queue.take(group, took.min(PATIENCE));
        if jobs.is_empty() {
            return;
        }
        group = jobs.len();
        // The disk does not follow a test's clock.
        let begun_at = Clock::System.elapsed();
        let Committed { answers, outcome, changed } = commit(connection, jobs, marker);
        took = Clock::System.elapsed().saturating_sub(begun_at);
        if outcome.is_ok() {
            commits.took.took(took);
            commits.changes.count(answers.len() as u64);
        }
        if changed || outcome.is_err() {
            let why = outcome.as_ref().err().map(ToString::to_string);
            *unwritable.lock().unwrap_or_else(PoisonError::into_inner) = why;
        }
        for answer in answers {
            answer(outcome.as_ref().copied().map_err(|e| StoreError::Unavailable(e.to_string().into())));
        }
        log.copy_if_long(connection);
    }
}

struct Committed {
    answers: Vec<Answer>,
    outcome: Outcome,
    /// There was something to write.
    changed: bool,
}

fn commit(connection: &Connection, jobs: Vec<Job>, marker: &Mutex<Marker>) -> Committed {
    let mut marker = marker.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = run_cached(connection, "BEGIN IMMEDIATE");
    let before = connection.total_changes();
    // If the transaction could not begin, each job fails by itself.
    let answers = jobs.into_iter().map(|job| job(connection)).collect();
    let changed = connection.total_changes() != before && !connection.is_autocommit();
    let (last, next) = marker.next();
    let outcome: Outcome = begun.map_err(Into::into).and_then(|()| {
        if changed {
            marker.catch_up().map_err(|e| format!("rescind.mark, beside it: {e}"))?;
            next.write(last, connection)?;
        }
        Ok(run_cached(connection, "COMMIT")?)
    });
    if outcome.is_err() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    if changed
        && outcome.is_ok()
        && let Err(error) = marker.committed(next)
    {
        // The commit is on the disk, so it is a success: memory must apply it.
        let circumstances = marker.circumstances(&error);
        warn!(error = %format_args!("{error}{circumstances}"), "rescind.mark cannot be written: no change is taken until it can");
    }
    Committed { answers, outcome, changed }
}

fn run_cached(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

/// Leaves the database in one file, unless it has readers.
fn close(connection: &Connection, readers: &Readers, marker: &Mutex<Marker>) -> Result<(), String> {
    let mut marker = marker.lock().unwrap_or_else(PoisonError::into_inner);
    if marker.went_back().is_some() {
        return Ok(());
    }
    let _no_backup = readers.backing_up.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Runs a part of a job, and undoes all of that part if it fails.
pub(super) fn in_savepoint<T>(
    connection: &Connection,
    part: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let result = guarded(|| part(connection)).flatten();
    // A severe error has already undone the whole transaction.
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

    use rescind_base::random::Random;

    use crate::Sqlite;

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
