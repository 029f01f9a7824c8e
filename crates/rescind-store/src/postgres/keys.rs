//! Operations on data that seldom changes: signing keys and verifiers.

use rescind_base::model::{
    ChangeOrigin, Event, SigningKeyRecord, UnixSeconds, VerifierRecord,
    changes::{of_keys, of_verifiers},
};
use tokio_postgres::Row;

use super::{
    Postgres, audit,
    changed::{ChangedRow, RECORD_CHANGE},
    connection::Connection,
    rows::{self, Number, hash_values},
    transaction::Transaction,
};
use crate::{Result, guarded};

const INSERT_KEY: &str = "
    INSERT INTO signing_key (kid, algorithm, sealed, refresh_sealed, rfc9068, created_at, signs_from)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const RETIRE_NEWEST: &str = "UPDATE signing_key SET retire_at = $1 WHERE retire_at IS NULL";
pub(super) const DELETE_KEY: &str = "DELETE FROM signing_key WHERE id = $1";
const INSERT_VERIFIER: &str =
    "INSERT INTO verifier (name, token_hash, pepper, shares_hs256, created_at) VALUES ($1, $2, $3, $4, $5)";
pub(super) const DELETE_VERIFIER: &str = "DELETE FROM verifier WHERE id = $1";

/// A table that is read, and changed, as a whole.
pub(super) struct Table<T: 'static> {
    /// Of two concurrent changes of the table, the second one reads the result of the first.
    pub(super) begin: &'static str,
    pub(super) select: &'static str,
    pub(super) read: fn(&Row) -> Result<T>,
    pub(super) changed: ChangedRow,
    pub(super) events: fn(&[T], &[T], &ChangeOrigin) -> Vec<Event>,
}

pub(super) const KEYS: Table<SigningKeyRecord> = Table {
    begin: "BEGIN; LOCK TABLE signing_key IN SHARE ROW EXCLUSIVE MODE",
    select: rows::KEYS,
    read: rows::key,
    changed: ChangedRow::Keys,
    events: of_keys,
};
pub(super) const VERIFIERS: Table<VerifierRecord> = Table {
    begin: "BEGIN; LOCK TABLE verifier IN SHARE ROW EXCLUSIVE MODE",
    select: rows::VERIFIERS,
    read: rows::verifier,
    changed: ChangedRow::Verifiers,
    events: of_verifiers,
};

impl<T: PartialEq> Table<T> {
    /// Returns every row.
    pub(super) async fn all(&self, db: &mut Connection) -> Result<Vec<T>> {
        rows::read(&db.fetch(self.select, &[]).await?, self.read)
    }

    /// Begins a change, and returns every row.
    pub(super) async fn begin(&self, tx: &mut Transaction) -> Result<Vec<T>> {
        tx.batch(self.begin).await?;
        self.all(tx).await
    }

    /// Commits the change of these rows, if there is one. Returns every row.
    pub(super) async fn commit(
        &self,
        mut tx: Transaction,
        before: &[T],
        origin: &ChangeOrigin,
    ) -> Result<Vec<T>> {
        let [tell, record] = tx.prepared([RECORD_CHANGE, audit::INSERT]).await?;
        let after = self.all(&mut tx).await?;
        if after == before {
            // An earlier attempt may have committed this change without a stand-by's confirmation: see `change_client`.
            // The table's lock alone is no write.
            tx.commit_as_missing().await?;
        } else {
            let events = (self.events)(before, &after, origin);
            tx.commit_with_change([&tell, &record], self.changed, &events).await?;
        }
        Ok(after)
    }
}

impl Postgres {
    pub(crate) async fn keys(&self) -> Result<Vec<SigningKeyRecord>> {
        rows::read(&self.fetch(rows::KEYS, &[]).await?, rows::key)
    }

    pub(crate) async fn first_key(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>> {
        let mut tx = self.transaction().await?;
        let before = KEYS.begin(&mut tx).await?;
        if before.is_empty() {
            insert_key(&mut tx, &key).await?;
        }
        KEYS.commit(tx, &before, &origin).await
    }

    pub(crate) async fn rotate_key(
        &self,
        newest: Option<u64>,
        key: SigningKeyRecord,
        retire_at: UnixSeconds,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>> {
        let mut tx = self.transaction().await?;
        let before = KEYS.begin(&mut tx).await?;
        if newest.is_none() || before.last().map(|key| key.id) == newest {
            tx.run(RETIRE_NEWEST, &[&Number(retire_at)]).await?;
            insert_key(&mut tx, &key).await?;
        }
        KEYS.commit(tx, &before, &origin).await
    }

    pub(crate) async fn retire_keys(
        &self,
        origin: ChangeOrigin,
        retired: impl Fn(&SigningKeyRecord) -> bool + Send + 'static,
    ) -> Result<Vec<SigningKeyRecord>> {
        let mut tx = self.transaction().await?;
        let before = KEYS.begin(&mut tx).await?;
        let gone: Vec<_> = guarded(|| before.iter().filter(|key| retired(key)).map(|key| key.id).collect())?;
        for id in gone {
            tx.run(DELETE_KEY, &[&Number(id)]).await?;
        }
        KEYS.commit(tx, &before, &origin).await
    }

    pub(crate) async fn create_verifier(
        &self,
        new: VerifierRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>> {
        let mut tx = self.transaction().await?;
        let before = VERIFIERS.begin(&mut tx).await?;
        let (hash, pepper) = hash_values(&new.token_hash);
        let created_at = Number(new.created_at);
        tx.run(INSERT_VERIFIER, &[&new.name, &hash, &pepper, &new.shares_hs256, &created_at]).await?;
        VERIFIERS.commit(tx, &before, &origin).await
    }

    pub(crate) async fn delete_verifier(&self, id: u64, origin: ChangeOrigin) -> Result<Vec<VerifierRecord>> {
        let mut tx = self.transaction().await?;
        let before = VERIFIERS.begin(&mut tx).await?;
        tx.run(DELETE_VERIFIER, &[&Number(id)]).await?;
        VERIFIERS.commit(tx, &before, &origin).await
    }
}

pub(super) async fn insert_key(db: &mut Connection, key: &SigningKeyRecord) -> Result<()> {
    let (created_at, signs_from) = (Number(key.created_at), Number(key.signs_from));
    let SigningKeyRecord { kid, algorithm, sealed, refresh_sealed, rfc9068, .. } = key;
    db.run(INSERT_KEY, &[kid, &algorithm.name(), sealed, refresh_sealed, rfc9068, &created_at, &signs_from])
        .await?;
    Ok(())
}
