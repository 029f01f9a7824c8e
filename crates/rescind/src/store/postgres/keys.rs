//! What changes seldom: the pepper, signing keys, and verifiers that may follow the feed.

use tokio_postgres::Statement;

use super::{
    Postgres,
    connection::Connection,
    node::ChangedRow,
    rows::{self, Number},
    transaction::{TELL, Transaction},
};
use crate::{
    model::{KnownVerifier, UnixSeconds},
    store::{StoreError, StoredKey, guarded},
};

/// Of two that change the keys the second sees what the first has done.
const BEGIN_WITH_KEYS: &str = "BEGIN; LOCK TABLE signing_key IN SHARE ROW EXCLUSIVE MODE";

const INSERT_PEPPER: &str =
    "INSERT INTO sealed_secret (name, sealed) VALUES ('pepper', $1) ON CONFLICT DO NOTHING";
const INSERT_KEY: &str = "
    INSERT INTO signing_key (kid, algorithm, sealed, created_at, signs_from) VALUES ($1, $2, $3, $4, $5)";
const RETIRE_NEWEST: &str = "UPDATE signing_key SET retire_at = $1 WHERE retire_at IS NULL";
const DELETE_KEY: &str = "DELETE FROM signing_key WHERE id = $1";
const INSERT_VERIFIER: &str =
    "INSERT INTO verifier (name, token_hash, shares_hs256, created_at) VALUES ($1, $2, $3, $4)";
const DELETE_VERIFIER: &str = "DELETE FROM verifier WHERE id = $1";

impl Postgres {
    pub(in crate::store) async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let mut tx = self.transaction().await?;
        let keys = keys(&mut tx).await?;
        tx.done();
        Ok(keys)
    }

    pub(in crate::store) async fn set_pepper(&self, sealed: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let mut tx = self.transaction().await?;
        let [insert, pepper] = tx.prepared([INSERT_PEPPER, rows::PEPPER]).await?;
        tx.batch("BEGIN").await?;
        tx.execute(&insert, &[&sealed]).await?;
        let standing = tx.query(&pepper, &[]).await?;
        tx.commit().await?;
        Ok(rows::pepper(&standing)?.unwrap_or(sealed))
    }

    pub(in crate::store) async fn first_key(&self, key: StoredKey) -> Result<Vec<StoredKey>, StoreError> {
        let mut tx = self.transaction().await?;
        let [insert, keys, tell] = tx.prepared([INSERT_KEY, rows::KEYS, TELL]).await?;
        tx.batch(BEGIN_WITH_KEYS).await?;
        let known = tx.query(&keys, &[]).await?;
        if !known.is_empty() {
            tx.roll_back().await?;
            return rows::read(&known, rows::key);
        }
        insert_key(&tx, &insert, &key).await?;
        let keys = tx.query(&keys, &[]).await?;
        tx.commit_and_tell(&tell, ChangedRow::Keys).await?;
        rows::read(&keys, rows::key)
    }

    pub(in crate::store) async fn rotate_key(
        &self,
        key: StoredKey,
        retire_at: UnixSeconds,
    ) -> Result<Vec<StoredKey>, StoreError> {
        let mut tx = self.transaction().await?;
        let [retire, insert, keys, tell] = tx.prepared([RETIRE_NEWEST, INSERT_KEY, rows::KEYS, TELL]).await?;
        tx.batch(BEGIN_WITH_KEYS).await?;
        tx.execute(&retire, &[&Number(retire_at)]).await?;
        insert_key(&tx, &insert, &key).await?;
        let keys = tx.query(&keys, &[]).await?;
        tx.commit_and_tell(&tell, ChangedRow::Keys).await?;
        rows::read(&keys, rows::key)
    }

    pub(in crate::store) async fn retire_keys(
        &self,
        retired: impl Fn(&StoredKey) -> bool + Send + 'static,
    ) -> Result<Vec<StoredKey>, StoreError> {
        let mut tx = self.transaction().await?;
        let [keys, delete, tell] = tx.prepared([rows::KEYS, DELETE_KEY, TELL]).await?;
        tx.batch(BEGIN_WITH_KEYS).await?;
        let keys = rows::read(&tx.query(&keys, &[]).await?, rows::key)?;
        let (gone, stay): (Vec<_>, Vec<_>) = guarded(|| keys.into_iter().partition(retired))?;
        if gone.is_empty() {
            tx.roll_back().await?;
            return Ok(stay);
        }
        for key in gone {
            tx.execute(&delete, &[&Number(key.id)]).await?;
        }
        tx.commit_and_tell(&tell, ChangedRow::Keys).await?;
        Ok(stay)
    }

    pub(in crate::store) async fn create_verifier(
        &self,
        new: KnownVerifier,
    ) -> Result<Vec<KnownVerifier>, StoreError> {
        let mut tx = self.transaction().await?;
        let [insert, verifiers, tell] = tx.prepared([INSERT_VERIFIER, rows::VERIFIERS, TELL]).await?;
        tx.batch("BEGIN").await?;
        let created_at = Number(new.created_at);
        let hash = new.token_hash.0.as_slice();
        tx.execute(&insert, &[&new.name, &hash, &new.shares_hs256, &created_at]).await?;
        let verifiers = tx.query(&verifiers, &[]).await?;
        tx.commit_and_tell(&tell, ChangedRow::Verifiers).await?;
        rows::read(&verifiers, rows::verifier)
    }

    pub(in crate::store) async fn delete_verifier(&self, id: u64) -> Result<Vec<KnownVerifier>, StoreError> {
        let mut tx = self.transaction().await?;
        let [delete, verifiers, tell] = tx.prepared([DELETE_VERIFIER, rows::VERIFIERS, TELL]).await?;
        tx.batch("BEGIN").await?;
        let deleted = tx.execute(&delete, &[&Number(id)]).await?;
        let left = tx.query(&verifiers, &[]).await?;
        match deleted {
            0 => tx.roll_back().await?,
            _ => tx.commit_and_tell(&tell, ChangedRow::Verifiers).await?,
        }
        rows::read(&left, rows::verifier)
    }
}

async fn insert_key(tx: &Transaction, insert: &Statement, key: &StoredKey) -> Result<(), StoreError> {
    let (created_at, signs_from) = (Number(key.created_at), Number(key.signs_from));
    tx.execute(insert, &[&key.kid, &key.algorithm.name(), &key.sealed, &created_at, &signs_from]).await?;
    Ok(())
}

pub(super) async fn keys(db: &mut Connection) -> Result<Vec<StoredKey>, StoreError> {
    let [keys] = db.prepared([rows::KEYS]).await?;
    rows::read(&db.query(&keys, &[]).await?, rows::key)
}
