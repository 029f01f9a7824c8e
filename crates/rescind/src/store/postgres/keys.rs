//! Operations on data that seldom changes: the pepper, signing keys and verifiers.

use tokio_postgres::Statement;

use super::{
    Postgres, audit,
    changed::{ChangedRow, RECORD_CHANGE},
    connection::Connection,
    rows::{self, Number},
};
use crate::{
    model::{
        ChangeOrigin, SigningKeyRecord, UnixSeconds, VerifierRecord,
        changes::{of_keys, of_verifiers},
    },
    store::{StoreError, guarded},
};

/// Of two concurrent changes of the keys, the second one reads the result of the first.
const BEGIN_WITH_KEYS: &str = "BEGIN; LOCK TABLE signing_key IN SHARE ROW EXCLUSIVE MODE";
const BEGIN_WITH_VERIFIERS: &str = "BEGIN; LOCK TABLE verifier IN SHARE ROW EXCLUSIVE MODE";

const INSERT_PEPPER: &str =
    "INSERT INTO sealed_secret (name, sealed) VALUES ('pepper', $1) ON CONFLICT DO NOTHING";
pub(super) const INSERT_KEY: &str = "
    INSERT INTO signing_key (kid, algorithm, sealed, refresh_sealed, created_at, signs_from)
    VALUES ($1, $2, $3, $4, $5, $6)";
const RETIRE_NEWEST: &str = "UPDATE signing_key SET retire_at = $1 WHERE retire_at IS NULL";
pub(super) const DELETE_KEY: &str = "DELETE FROM signing_key WHERE id = $1";
const INSERT_VERIFIER: &str =
    "INSERT INTO verifier (name, token_hash, shares_hs256, created_at) VALUES ($1, $2, $3, $4)";
pub(super) const DELETE_VERIFIER: &str = "DELETE FROM verifier WHERE id = $1";

impl Postgres {
    pub(in crate::store) async fn keys(&self) -> Result<Vec<SigningKeyRecord>, StoreError> {
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

    pub(in crate::store) async fn first_key(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        let mut tx = self.transaction().await?;
        let [insert, keys, tell, record] =
            tx.prepared([INSERT_KEY, rows::KEYS, RECORD_CHANGE, audit::INSERT]).await?;
        tx.batch(BEGIN_WITH_KEYS).await?;
        let known = tx.query(&keys, &[]).await?;
        if !known.is_empty() {
            tx.roll_back().await?;
            return rows::read(&known, rows::key);
        }
        insert_key(&tx, &insert, &key).await?;
        let keys = rows::read(&tx.query(&keys, &[]).await?, rows::key)?;
        tx.commit_with_change([&tell, &record], ChangedRow::Keys, &of_keys(&[], &keys, &origin)).await?;
        Ok(keys)
    }

    pub(in crate::store) async fn rotate_key(
        &self,
        newest: Option<u64>,
        key: SigningKeyRecord,
        retire_at: UnixSeconds,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        let mut tx = self.transaction().await?;
        let [retire, insert, keys, tell, record] =
            tx.prepared([RETIRE_NEWEST, INSERT_KEY, rows::KEYS, RECORD_CHANGE, audit::INSERT]).await?;
        tx.batch(BEGIN_WITH_KEYS).await?;
        let before = rows::read(&tx.query(&keys, &[]).await?, rows::key)?;
        if newest.is_some() && before.last().map(|key| key.id) != newest {
            tx.roll_back().await?;
            return Ok(before);
        }
        tx.execute(&retire, &[&Number(retire_at)]).await?;
        insert_key(&tx, &insert, &key).await?;
        let after = rows::read(&tx.query(&keys, &[]).await?, rows::key)?;
        let events = of_keys(&before, &after, &origin);
        tx.commit_with_change([&tell, &record], ChangedRow::Keys, &events).await?;
        Ok(after)
    }

    pub(in crate::store) async fn retire_keys(
        &self,
        origin: ChangeOrigin,
        retired: impl Fn(&SigningKeyRecord) -> bool + Send + 'static,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        let mut tx = self.transaction().await?;
        let [keys, delete, tell, record] =
            tx.prepared([rows::KEYS, DELETE_KEY, RECORD_CHANGE, audit::INSERT]).await?;
        tx.batch(BEGIN_WITH_KEYS).await?;
        let keys = rows::read(&tx.query(&keys, &[]).await?, rows::key)?;
        let (gone, stay): (Vec<_>, Vec<_>) = guarded(|| keys.into_iter().partition(retired))?;
        if gone.is_empty() {
            tx.roll_back().await?;
            return Ok(stay);
        }
        for key in &gone {
            tx.execute(&delete, &[&Number(key.id)]).await?;
        }
        tx.commit_with_change([&tell, &record], ChangedRow::Keys, &of_keys(&gone, &[], &origin)).await?;
        Ok(stay)
    }

    pub(in crate::store) async fn create_verifier(
        &self,
        new: VerifierRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>, StoreError> {
        let mut tx = self.transaction().await?;
        let [insert, verifiers, tell, record] =
            tx.prepared([INSERT_VERIFIER, rows::VERIFIERS, RECORD_CHANGE, audit::INSERT]).await?;
        tx.batch(BEGIN_WITH_VERIFIERS).await?;
        let before = rows::read(&tx.query(&verifiers, &[]).await?, rows::verifier)?;
        let created_at = Number(new.created_at);
        let hash = new.token_hash.0.as_slice();
        tx.execute(&insert, &[&new.name, &hash, &new.shares_hs256, &created_at]).await?;
        let after = rows::read(&tx.query(&verifiers, &[]).await?, rows::verifier)?;
        let events = of_verifiers(&before, &after, &origin);
        tx.commit_with_change([&tell, &record], ChangedRow::Verifiers, &events).await?;
        Ok(after)
    }

    pub(in crate::store) async fn delete_verifier(
        &self,
        id: u64,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>, StoreError> {
        let mut tx = self.transaction().await?;
        let [delete, verifiers, tell, record] =
            tx.prepared([DELETE_VERIFIER, rows::VERIFIERS, RECORD_CHANGE, audit::INSERT]).await?;
        tx.batch(BEGIN_WITH_VERIFIERS).await?;
        let before = rows::read(&tx.query(&verifiers, &[]).await?, rows::verifier)?;
        let deleted = tx.execute(&delete, &[&Number(id)]).await?;
        let left = rows::read(&tx.query(&verifiers, &[]).await?, rows::verifier)?;
        match deleted {
            0 => tx.roll_back().await?,
            _ => {
                let events = of_verifiers(&before, &left, &origin);
                tx.commit_with_change([&tell, &record], ChangedRow::Verifiers, &events).await?;
            }
        }
        Ok(left)
    }
}

pub(super) async fn insert_key(
    db: &Connection,
    insert: &Statement,
    key: &SigningKeyRecord,
) -> Result<(), StoreError> {
    let (created_at, signs_from) = (Number(key.created_at), Number(key.signs_from));
    let SigningKeyRecord { kid, algorithm, sealed, refresh_sealed, .. } = key;
    db.execute(insert, &[kid, &algorithm.name(), sealed, refresh_sealed, &created_at, &signs_from]).await?;
    Ok(())
}

pub(super) async fn keys(db: &mut Connection) -> Result<Vec<SigningKeyRecord>, StoreError> {
    let [keys] = db.prepared([rows::KEYS]).await?;
    rows::read(&db.query(&keys, &[]).await?, rows::key)
}
