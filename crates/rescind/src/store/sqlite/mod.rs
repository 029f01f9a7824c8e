//! The embedded store: SQLite in WAL mode, flushed to the disk at every commit.

mod audit;
mod backup;
mod clock;
pub(super) mod export;
mod keys;
mod lent;
mod mark;
mod migrate;
mod rows;
mod writer;

use std::{
    error::Error,
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rusqlite::{Connection, ErrorCode, config::DbConfig, hooks::Wal};
use tracing::warn;

pub(super) use lent::lent;
pub use mark::WentBack;

use super::{Found, Known, Loaded, StoreError, Swept, ended};
use crate::{
    model::{
        ChangeOrigin, Client, ClientId, Event, Session, SessionId, SigningKeyRecord, UnixSeconds,
        changes::of_client,
    },
    random::Random,
    telemetry::metrics::Commits,
};
use mark::{Found as Before, Marker, Stamp};
use migrate::migrate;
use writer::Writer;

/// Readers kept open between reads.
const IDLE_READERS: usize = 4;
/// Rows that one batch of a sweep looks at: few, so that no login waits long for it.
const SWEEP_BATCH: u64 = 1000;
/// The log is copied into the database when it has so many pages.
const LOG_PAGES: i32 = 1000;

/// The store in one file.
#[derive(Debug)]
pub struct Sqlite {
    writer: Writer,
    marker: Arc<Mutex<Marker>>,
    readers: Arc<Readers>,
    commits: Commits,
}

#[derive(Debug)]
struct Readers {
    path: Box<Path>,
    idle: Mutex<Vec<Connection>>,
    /// Read-locked during each read.
    reading: Arc<RwLock<()>>,
}

impl Sqlite {
    pub(super) fn open(path: &Path, random: &Random) -> Result<Sqlite, StoreError> {
        let made = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path);
        let before = made.and_then(|made| {
            Ok((made.metadata()?.len(), write_log_again(path)?, Before::look(path, &made)?))
        });
        let unreachable = |e: io::Error| StoreError::Unavailable(format!("{}: {e}", path.display()).into());
        let (length, log, before) = before.map_err(unreachable)?;
        if let (0, 1..) = (length, log) {
            return Err(StoreError::Unreadable(format!(
                "{0}-wal is here, and {0} that it belongs to is not: put that back",
                path.display()
            )));
        }
        let damaged = |e: &(dyn Error + 'static)| {
            is_damaged(e).then(|| {
            StoreError::Unreadable(format!(
                "{} is no database, or is damaged: put it back as it was, or `rescind db restore` a backup",
                path.display()
            ))
        })
        };
        let mut connection = connect(path).map_err(|e| damaged(&e).unwrap_or(e))?;
        let newest = Stamp::read(&connection)?;
        migrate(&mut connection).map_err(|e| damaged(&e).unwrap_or(e))?;
        let readers = Readers { path: path.into(), idle: Mutex::default(), reading: Arc::default() };
        copy_log_while_nobody_reads(&mut connection, Arc::clone(&readers.reading))?;
        let readers = Arc::new(readers);
        let marker =
            Marker::open(path, before, newest, random).map_err(|e| StoreError::Unavailable(e.into()))?;
        let marker = Arc::new(Mutex::new(marker));
        let commits = Commits::none();
        let writer = Writer::start(connection, Arc::clone(&readers), Arc::clone(&marker), commits.clone())?;
        Ok(Sqlite { writer, marker, readers, commits })
    }

    /// Returns why the store is not the one last written here. Each opening finds that again until [`Sqlite::vouch`].
    pub fn went_back(&self) -> Option<WentBack> {
        self.marker.lock().unwrap_or_else(PoisonError::into_inner).went_back()
    }

    /// Marks the store as the one last written here. The caller has made sure that nothing lost in it does harm.
    ///
    /// # Errors
    /// Fails if the mark cannot be written.
    pub fn vouch(&self) -> Result<(), StoreError> {
        let mut marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        marker.vouch().map_err(|e| StoreError::Unavailable(e.into()))
    }

    pub(super) fn commits(&self) -> &Commits {
        &self.commits
    }

    pub(super) async fn version(&self) -> Result<u32, StoreError> {
        self.read(|db| {
            Ok(db.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))?)
        })
        .await
    }

    pub(super) async fn load(&self) -> Result<Loaded, StoreError> {
        self.read(|db| {
            Ok(Loaded {
                head: Known::default(),
                place: None,
                clients: rows::clients(db)?,
                keys: rows::keys(db)?,
                pepper: rows::pepper(db)?,
                verifiers: rows::verifiers(db)?,
                ended: rows::ended(db)?,
                lent: rows::lent(db)?,
            })
        })
        .await
    }

    pub(super) async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        self.read(rows::clients).await
    }

    pub(super) async fn keys(&self) -> Result<Vec<SigningKeyRecord>, StoreError> {
        self.read(rows::keys).await
    }

    pub(super) async fn create_client(
        &self,
        mut client: Client,
        origin: ChangeOrigin,
    ) -> Result<Client, StoreError> {
        self.writer
            .write(move |db| {
                rows::insert_client(db, &mut client)?;
                audit::insert(db, &of_client(None, &client, &origin))?;
                Ok(client)
            })
            .await
    }

    pub(super) async fn change_client<T: Send + 'static, E: Send + 'static>(
        &self,
        id: ClientId,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    ) -> Result<Option<Result<(T, Client), E>>, StoreError> {
        self.writer
            .write(move |db| {
                let Some(before) = rows::client(db, id)? else { return Ok(None) };
                let mut after = before.clone();
                let outcome = rule(&mut after);
                if outcome.is_ok() && after != before {
                    after.revision += 1;
                    rows::update_client(db, &before, &mut after)?;
                    audit::insert(db, &of_client(Some(&before), &after, &origin))?;
                }
                Ok(Some(outcome.map(|outcome| (outcome, after))))
            })
            .await
    }

    pub(super) async fn open_session<E: Send + 'static>(
        &self,
        client: ClientId,
        rule: impl FnOnce(&Client) -> Result<Session, E> + Send + 'static,
    ) -> Result<Option<Result<Session, E>>, StoreError> {
        self.writer
            .write(move |db| {
                let Some(client) = rows::client(db, client)? else { return Ok(None) };
                let mut opened = rule(&client);
                if let Ok(session) = &mut opened {
                    rows::insert_session(db, None, session)?;
                }
                Ok(Some(opened))
            })
            .await
    }

    pub(super) async fn change_session<T: Send + 'static>(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, &mut Session) -> (T, Option<Event>) + Send + 'static,
    ) -> Result<Option<(T, Session)>, StoreError> {
        self.writer
            .write(move |db| {
                let Some(client) = rows::client(db, client)? else { return Ok(None) };
                let Some(before) = rows::session(db, session)?.filter(|s| s.client == client.id) else {
                    return Ok(None);
                };
                let mut after = before.clone();
                let (outcome, event) = rule(&client, &mut after);
                if after != before {
                    rows::update_session(db, &after)?;
                    audit::insert(db, event.as_slice())?;
                }
                Ok(Some((outcome, after)))
            })
            .await
    }

    pub(super) async fn end_session(
        &self,
        client: ClientId,
        id: SessionId,
        rule: impl FnOnce(&Client, Option<Session>) -> Option<Session> + Send + 'static,
    ) -> Result<Option<Session>, StoreError> {
        self.writer
            .write(move |db| {
                let Some(client) = rows::client(db, client)? else { return Ok(None) };
                let found = rows::session(db, id)?;
                let is_foreign = found.as_ref().is_some_and(|session| session.client != client.id);
                if is_foreign {
                    return Ok(None);
                }
                let Some(mut ended) = rule(&client, found.clone()) else { return Ok(None) };
                match found {
                    Some(found) if found == ended => {}
                    Some(_) => rows::update_session(db, &ended)?,
                    None => rows::insert_session(db, Some(id), &mut ended)?,
                }
                Ok(Some(ended))
            })
            .await
    }

    pub(super) async fn find(&self, client: ClientId, session: SessionId) -> Result<Found, StoreError> {
        self.read(move |db| {
            let db = db.unchecked_transaction()?;
            Ok(Found { client: rows::client(&db, client)?, session: rows::session(&db, session)? })
        })
        .await
    }

    pub(super) async fn sweep(&self, after: SessionId, expired: UnixSeconds) -> Result<Swept, StoreError> {
        self.writer
            .write(move |db| {
                let mut last = db.prepare_cached(
                    "SELECT max(id), count(*) FROM (SELECT id FROM session WHERE id > ? ORDER BY id LIMIT ?)",
                )?;
                let (last, count): (Option<SessionId>, usize) =
                    last.query_row((after, SWEEP_BATCH), |row| Ok((row.get(0)?, row.get(1)?)))?;
                let Some(last) = last else { return Ok(Swept { deleted: 0, kept: 0, next: None }) };
                let mut delete = db.prepare_cached(
                    "DELETE FROM session WHERE id IN (
                         SELECT session.id FROM session JOIN client ON client.id = client_id
                         WHERE session.id > ?1 AND session.id <= ?2
                           AND (refresh_expires_at < ?3 OR session.generation < client.generation))",
                )?;
                let deleted = delete.execute((after, last, expired))?;
                Ok(Swept { deleted, kept: count.saturating_sub(deleted), next: Some(last) })
            })
            .await
    }

    /// Returns how many rows were inserted, changed and deleted since the start.
    #[cfg(test)]
    pub(super) async fn rows_written(&self) -> Result<u64, StoreError> {
        self.writer.write(|db| Ok(db.total_changes())).await
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(&self.readers);
        let answer = tokio::task::spawn_blocking(move || readers.ask(question)).await;
        answer.map_err(ended)?
    }
}

impl Readers {
    fn ask<T>(&self, question: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let _reading = self.reading.read().unwrap_or_else(PoisonError::into_inner);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let answer = question(&connection);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // A connection that failed is not used again.
        if answer.is_ok() && idle.len() < IDLE_READERS {
            idle.push(connection);
        }
        answer
    }
}

/// Writes and flushes the log again, so that the disk has what SQLite is about to read. Returns the log's length in
/// bytes.
///
/// After a failed flush, the system's cache may hold data that the disk does not have, and that no later flush writes
/// ("fsyncgate"). A power cut would then lose every commit behind that gap. The bytes are the same, so a power cut
/// during this does no harm.
fn write_log_again(path: &Path) -> io::Result<usize> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    match OpenOptions::new().read(true).write(true).open(log) {
        Ok(mut log) => {
            let mut bytes = vec![];
            log.read_to_end(&mut bytes)?;
            log.write_all_at(&bytes, 0)?;
            log.sync_all()?;
            Ok(bytes.len())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// Copies the log into the database whenever the log has grown long, without readers beside it.
///
/// While a reader is active, SQLite copies a part of the log, counts it as copied, and flushes the database later. If
/// that flush fails, SQLite overwrites the log all the same, and the data is lost. Without readers SQLite copies
/// everything, flushes, and only then counts the log as copied.
fn copy_log_while_nobody_reads(
    connection: &mut Connection,
    reading: Arc<RwLock<()>>,
) -> Result<(), StoreError> {
    let after_a_commit = move |log: &mut Wal, pages: i32| {
        if pages >= LOG_PAGES {
            let _nobody_reads = reading.write().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = log.checkpoint() {
                warn!(%error, "the log could not be copied into the database, and grows");
            }
        }
        Ok(())
    };
    Ok(connection.wal_hook(Some(after_a_commit))?)
}

/// Returns whether SQLite cannot read the file, now or later.
fn is_damaged(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    let code = causes.find_map(|cause| cause.downcast_ref::<rusqlite::Error>()?.sqlite_error_code());
    matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA busy_timeout = 5000;
         PRAGMA wal_autocheckpoint = 0;",
    )?;
    // The mark must be written before SQLite removes the log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
