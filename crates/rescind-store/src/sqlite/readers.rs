//! Reads beside the writer.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicUsize},
};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::connect;
use crate::{StoreError, ended};

/// The most reads at the same time, each with a connection and a thread. Further ones wait for their turn.
const READERS: usize = 4;

#[derive(Debug)]
pub(super) struct Readers {
    pub(super) path: Box<Path>,
    /// One for each read that may run now.
    turns: Arc<Semaphore>,
    /// The one for reads that look at many rows, such as those of the audit log. Others never wait for several of them.
    long_turn: Arc<Semaphore>,
    pub(super) idle: Mutex<Vec<Connection>>,
    /// Read-locked during each read. The log of commits is copied only while it is free. Reads are short, and where the
    /// log is long a change waits for them.
    pub(super) reading: Arc<RwLock<()>>,
    /// How many backups are being made. Meanwhile no records of the audit log are swept.
    pub(super) backups: AtomicUsize,
    /// Locked during a backup, which the store waits for before it is closed.
    pub(super) backing_up: Mutex<()>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Readers {
        Readers {
            path: path.into(),
            turns: Arc::new(Semaphore::new(READERS)),
            long_turn: Arc::new(Semaphore::new(1)),
            idle: Mutex::default(),
            reading: Arc::default(),
            backups: AtomicUsize::new(0),
            backing_up: Mutex::default(),
        }
    }

    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Readers>,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let (readers, turn) = (Arc::clone(self), turn.map_err(|e| StoreError::Unavailable(e.into()))?);
        let answer = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            readers.ask(question)
        });
        answer.await.map_err(ended)?
    }

    /// Like [`Readers::read`], for a question that may look at many rows. They are answered one at a time.
    pub(super) async fn read_long<T: Send + 'static>(
        self: &Arc<Readers>,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.long_turn).acquire_owned().await;
        let turn = turn.map_err(|e| StoreError::Unavailable(e.into()))?;
        self.read(move |db| {
            let _turn = turn;
            question(db)
        })
        .await
    }

    fn ask<T>(&self, question: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.beside_the_log(|| {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => connect(&self.path)?,
            };
            let answer = question(&connection);
            // A connection that failed is not used again. Neither is one in a transaction: it would see old data, and
            // keep the log from being copied.
            if answer.is_ok() && connection.is_autocommit() {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            answer
        })
    }

    /// Runs a read, during which the log of commits is not copied.
    pub(super) fn beside_the_log<T>(&self, read: impl FnOnce() -> T) -> T {
        let _reading = self.reading.read().unwrap_or_else(PoisonError::into_inner);
        read()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Condvar,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use rescind_base::random::Random;
    use tokio::{
        sync::{mpsc, oneshot},
        task::JoinSet,
    };

    use super::*;
    use crate::Sqlite;

    #[tokio::test]
    async fn however_many_read_few_do_at_the_same_time() {
        let (_folder, store) = store();
        let (gate, inside, most) = (
            Arc::new((Mutex::new(false), Condvar::new())),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (entered, mut has_entered) = mpsc::unbounded_channel();
        let mut reads = JoinSet::new();
        for _ in 0..10 * READERS {
            let (store, gate, entered) = (Arc::clone(&store), Arc::clone(&gate), entered.clone());
            let (inside, most) = (Arc::clone(&inside), Arc::clone(&most));
            reads.spawn(async move {
                let read = move |_: &Connection| {
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    entered.send(()).unwrap();
                    drop(gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open).unwrap());
                    inside.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                store.read(read).await.unwrap();
            });
        }
        for _ in 0..READERS {
            has_entered.recv().await.unwrap();
        }
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        reads.join_all().await;
        assert_eq!(most.load(Ordering::SeqCst), READERS);
        assert_eq!(store.readers.idle.lock().unwrap().len(), READERS);
    }

    fn store() -> (tempfile::TempDir, Arc<Sqlite>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("rescind.db"), &Random::seeded(1)).unwrap();
        (folder, Arc::new(store))
    }

    #[tokio::test]
    async fn a_connection_in_a_transaction_is_not_used_again() {
        let (_folder, store) = store();
        store.read(|db| Ok(db.execute_batch("BEGIN")?)).await.unwrap();
        assert!(store.readers.idle.lock().unwrap().is_empty());
        store.read(|db| Ok(db.execute_batch("BEGIN; COMMIT")?)).await.unwrap();
        assert_eq!(store.readers.idle.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn however_many_read_the_audit_log_a_session_is_found() {
        let (_folder, store) = store();
        let mut opens = vec![];
        let mut reads = JoinSet::new();
        let (entered, mut has_entered) = mpsc::unbounded_channel();
        for _ in 0..2 * READERS {
            let (open, opened) = oneshot::channel::<()>();
            opens.push(open);
            let (store, entered) = (Arc::clone(&store), entered.clone());
            reads.spawn(async move {
                let read = move |_: &Connection| {
                    entered.send(()).unwrap();
                    opened.blocking_recv().unwrap();
                    Ok(())
                };
                store.readers.read_long(read).await.unwrap();
            });
        }
        has_entered.recv().await.unwrap();
        let found = tokio::time::timeout(Duration::from_secs(20), store.find(1, 1)).await;
        found.expect("it waits for the audit log").unwrap();
        // No second one has begun.
        assert!(has_entered.try_recv().is_err());
        for open in opens {
            open.send(()).unwrap();
        }
        reads.join_all().await;
    }
}
