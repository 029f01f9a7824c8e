//! The embedded store: SQLite in WAL mode, flushed to the disk at every commit.

mod administrators;
mod audit;
mod backup;
mod chain;
mod clock;
mod denials;
pub(super) mod export;
mod handovers;
mod keys;
mod lent;
mod log;
mod management;
mod mark;
mod migrate;
mod operators;
mod pepper;
#[cfg(test)]
mod plans;
mod readers;
mod rows;
mod usage;
mod webhooks;
mod writer;

use std::{
    error::Error,
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, ErrorCode, config::DbConfig};

pub(super) use lent::lent;
pub use mark::WentBack;

use rescind_base::{
    files::circumstances::{circumstances, free_bytes, owner_and_space},
    model::{
        ChangeOrigin, Client, ClientId, Event, Session, SessionId, SigningKeyRecord, UnixSeconds,
        changes::of_client,
    },
    random::Random,
    telemetry::metrics::Commits,
};

use super::{Found, Known, Loaded, Result, StoreError, Swept};
use log::Log;
use mark::{Found as Before, Marker, Stamp};
use migrate::migrate;
use readers::Readers;
use writer::{Writer, in_savepoint};

/// Rows that one batch of a sweep looks at: few, so that no login waits long for it.
const SWEEP_BATCH: u64 = 1000;
/// With fewer bytes free, a disk has no room for SQLite's files.
const FULL: u64 = 64 * 1024;

/// The store in one file.
#[derive(Debug)]
pub struct Sqlite {
    writer: Writer,
    marker: Arc<Mutex<Marker>>,
    readers: Arc<Readers>,
    commits: Commits,
}

impl Sqlite {
    pub(super) fn open(path: &Path, random: &Random) -> Result<Sqlite> {
        Sqlite::open_files(path, random).map_err(|error| with_circumstances(error, path))
    }

    fn open_files(path: &Path, random: &Random) -> Result<Sqlite> {
        let lost = |beside: &Path| {
            StoreError::Unsuitable(format!(
                "{} is here, and {} that it belongs to is not: put that back, or `rescind db restore` a backup",
                beside.display(),
                path.display()
            ))
        };
        let mark = mark::mark_of(path);
        if !path.exists() && mark.exists() {
            return Err(lost(&mark));
        }
        let made = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path);
        let made = made.map_err(refused_at(path))?;
        let length = made.metadata().map_err(refused_at(path))?.len();
        let log = log::write_again(path).map_err(refused_at(&mark::log_of(path)))?;
        let before = Before::look(path, &made).map_err(refused_at(&mark))?;
        // Closed before SQLite opens it: closing it later would end SQLite's locks.
        drop(made);
        if let (0, 1..) = (length, log) {
            return Err(lost(&mark::log_of(path)));
        }
        let damaged = |error: StoreError| match is_damaged(&error) {
            true => StoreError::Damaged(path.to_owned()),
            false => error,
        };
        let mut connection = connect(path).map_err(damaged)?;
        let newest = Stamp::read(&connection)?;
        migrate(&mut connection).map_err(damaged)?;
        let readers = Arc::new(Readers::new(path));
        let log = Log::watch(&mut connection, Arc::clone(&readers.reading))?;
        let marker = Marker::open(path, before, newest, random).map_err(refused_at(&mark))?;
        let marker = Arc::new(Mutex::new(marker));
        let commits = Commits::none();
        let writer =
            Writer::start(connection, log, Arc::clone(&readers), Arc::clone(&marker), commits.clone())?;
        Ok(Sqlite { writer, marker, readers, commits })
    }

    /// Returns why the store is not the one last written here. Each opening finds that again until [`Sqlite::confirm`].
    pub fn went_back(&self) -> Option<WentBack> {
        self.marker.lock().unwrap_or_else(PoisonError::into_inner).went_back()
    }

    /// Marks the store as the one last written here. The caller has made sure that nothing lost in it does harm.
    ///
    /// # Errors
    /// Fails if the mark cannot be written.
    pub fn confirm(&self) -> Result<()> {
        let mut marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        marker.confirm().map_err(|e| StoreError::Unavailable(e.into()))
    }

    /// Returns why the last change could not be written.
    pub fn unwritable(&self) -> Option<String> {
        self.writer.unwritable().map(|why| {
            format!("{}: {why} ({})", self.readers.path.display(), owner_and_space(&self.readers.path))
        })
    }

    pub(super) fn commits(&self) -> &Commits {
        &self.commits
    }

    pub(super) async fn version(&self) -> Result<u32> {
        self.read(|db| {
            Ok(db.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))?)
        })
        .await
    }

    pub(super) async fn load(&self) -> Result<Loaded> {
        self.read(|db| {
            Ok(Loaded {
                head: Known::default(),
                place: None,
                clients: rows::clients(db)?,
                keys: rows::keys(db)?,
                secrets: rows::secrets(db)?,
                verifiers: rows::verifiers(db)?,
                ended: rows::ended(db)?,
                lent: rows::lent(db)?,
            })
        })
        .await
    }

    pub(super) async fn clients(&self) -> Result<Vec<Client>> {
        self.read(rows::clients).await
    }

    pub(super) async fn keys(&self) -> Result<Vec<SigningKeyRecord>> {
        self.read(rows::keys).await
    }

    pub(super) async fn create_client(
        &self,
        mut client: Client,
        if_absent: bool,
        origin: ChangeOrigin,
    ) -> Result<Result<Client, ClientId>> {
        let job = move |db: &Connection| {
            if if_absent && let Some(there) = rows::client_of_name(db, &client.name)? {
                return Ok(Err(there));
            }
            rows::insert_client(db, &mut client)?;
            audit::insert(db, &of_client(None, &client, &origin))?;
            Ok(Ok(client))
        };
        self.writer.write(job).await
    }

    pub(super) async fn change_client<T: Send + 'static, E: Send + 'static>(
        &self,
        id: ClientId,
        origin: ChangeOrigin,
        rule: impl FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    ) -> Result<Option<Result<(T, Client), E>>> {
        let job = move |db: &Connection| {
            let Some(before) = rows::client(db, id)? else { return Ok(None) };
            let mut after = before.clone();
            let outcome = rule(&mut after);
            if outcome.is_ok() && after != before {
                after.revision += 1;
                rows::update_client(db, &before, &mut after)?;
                audit::insert(db, &of_client(Some(&before), &after, &origin))?;
            }
            Ok(Some(outcome.map(|outcome| (outcome, after))))
        };
        self.writer.write(job).await
    }

    pub(super) async fn open_session<E: Send + 'static>(
        &self,
        client: ClientId,
        rule: impl FnOnce(&Client) -> Result<Session, E> + Send + 'static,
    ) -> Result<Option<Result<Session, E>>> {
        let job = move |db: &Connection| {
            let Some(client) = rows::client(db, client)? else { return Ok(None) };
            let mut opened = rule(&client);
            if let Ok(session) = &mut opened {
                rows::insert_session(db, None, session)?;
            }
            Ok(Some(opened))
        };
        self.writer.write_one(job).await
    }

    pub(super) async fn change_session<T: Send + 'static>(
        &self,
        client: ClientId,
        session: SessionId,
        rule: impl FnOnce(&Client, &mut Session) -> (T, Option<Event>) + Send + 'static,
    ) -> Result<Option<(T, Session)>> {
        let job = move |db: &Connection| {
            let Some(client) = rows::client(db, client)? else { return Ok(None) };
            let Some(before) = rows::session(db, session)?.filter(|s| s.client == client.id) else {
                return Ok(None);
            };
            let mut after = before.clone();
            match rule(&client, &mut after) {
                (outcome, _) if after == before => Ok(Some((outcome, after))),
                (outcome, None) => {
                    rows::update_session(db, &after)?;
                    Ok(Some((outcome, after)))
                }
                (outcome, Some(event)) => in_savepoint(db, |db| {
                    rows::update_session(db, &after)?;
                    audit::insert(db, &[event])?;
                    Ok(Some((outcome, after)))
                }),
            }
        };
        self.writer.write_one(job).await
    }

    pub(super) async fn end_session(
        &self,
        client: ClientId,
        id: SessionId,
        rule: impl FnOnce(&Client, Option<Session>) -> Option<(Session, Option<Event>)> + Send + 'static,
    ) -> Result<Option<Session>> {
        let job = move |db: &Connection| {
            let Some(client) = rows::client(db, client)? else { return Ok(None) };
            let found = rows::session(db, id)?;
            if found.as_ref().is_some_and(|session| session.client != client.id) {
                return Ok(None);
            }
            let Some((mut ended, event)) = rule(&client, found.clone()) else { return Ok(None) };
            match found {
                Some(found) if found == ended => return Ok(Some(ended)),
                Some(_) => rows::update_session(db, &ended)?,
                None => rows::insert_session(db, Some(id), &mut ended)?,
            }
            audit::insert(db, event.as_slice())?;
            Ok(Some(ended))
        };
        self.writer.write(job).await
    }

    pub(super) async fn find(&self, client: ClientId, session: SessionId) -> Result<Found> {
        self.read(move |db| {
            let db = db.unchecked_transaction()?;
            Ok(Found { client: rows::client(&db, client)?, session: rows::session(&db, session)? })
        })
        .await
    }

    pub(super) async fn session_ids(&self) -> Result<Option<(SessionId, SessionId)>> {
        self.read(|db| {
            // SQLite reads both from the ends of the table only if each is a query of its own.
            let ids = "SELECT (SELECT min(id) FROM session), (SELECT max(id) FROM session)";
            let (first, last): (Option<_>, Option<_>) =
                db.query_row(ids, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(first.zip(last))
        })
        .await
    }

    pub(super) async fn sweep(&self, after: SessionId, expired: UnixSeconds) -> Result<Swept> {
        let job = move |db: &Connection| {
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
        };
        self.writer.write_one(job).await
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.readers.read(question).await
    }

    /// Returns how many rows were inserted, changed and deleted since the start.
    #[cfg(test)]
    pub(super) async fn rows_written(&self) -> Result<u64> {
        self.writer.write(|db| Ok(db.total_changes())).await
    }
}

/// Names the file that the operating system refuses, and what its operator must know to mend that.
fn refused_at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |e| StoreError::Unavailable(format!("{}: {e}{}", path.display(), circumstances(path, &e)).into())
}

/// The same for what SQLite reports of the file, or of one beside it. Its own text names none.
fn with_circumstances(error: StoreError, path: &Path) -> StoreError {
    use ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure};
    let is_full = || free_bytes(path).is_some_and(|free| free < FULL);
    let what = match sqlite_code(&error) {
        // What does not fit into the space left is an error of the disk for SQLite, too.
        Some(code) if code == DiskFull || (code == SystemIoFailure && is_full()) => "no space is left".into(),
        Some(code @ (CannotOpen | PermissionDenied | ReadOnly | SystemIoFailure)) => {
            format!("SQLite reports {code:?} of it, or of a file beside it")
        }
        _ => return error,
    };
    StoreError::Unavailable(format!("{}: {what} ({})", path.display(), owner_and_space(path)).into())
}

fn sqlite_code(error: &(dyn Error + 'static)) -> Option<ErrorCode> {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.find_map(|cause| cause.downcast_ref::<rusqlite::Error>()?.sqlite_error_code())
}

/// Returns whether SQLite cannot read the file, now or later.
fn is_damaged(error: &(dyn Error + 'static)) -> bool {
    matches!(sqlite_code(error), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA busy_timeout = 5000;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 16777216;",
    )?;
    // The mark must be written before SQLite removes the log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Otherwise SQLite prepares some statements again whenever a number is bound, in search of a better plan.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
