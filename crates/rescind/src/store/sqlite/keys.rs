//! Operations on data that seldom changes: the pepper, signing keys and verifiers.

use super::{Sqlite, audit, rows};
use crate::{
    model::{
        ChangeOrigin, SigningKeyRecord, UnixSeconds, VerifierRecord,
        changes::{of_end, of_keys, of_verifiers},
    },
    store::StoreError,
};

impl Sqlite {
    pub(in crate::store) async fn set_pepper(&self, sealed: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        self.writer
            .write(move |db| {
                db.execute(
                    "INSERT INTO sealed_secret (name, sealed) VALUES ('pepper', ?) ON CONFLICT DO NOTHING",
                    [&sealed],
                )?;
                Ok(rows::pepper(db)?.unwrap_or(sealed))
            })
            .await
    }

    pub(in crate::store) async fn first_key(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        self.writer
            .write(move |db| {
                let keys = rows::keys(db)?;
                if !keys.is_empty() {
                    return Ok(keys);
                }
                rows::insert_key(db, key)?;
                let after = rows::keys(db)?;
                audit::insert(db, &of_keys(&keys, &after, &origin))?;
                Ok(after)
            })
            .await
    }

    pub(in crate::store) async fn rotate_key(
        &self,
        newest: Option<u64>,
        key: SigningKeyRecord,
        retire_at: UnixSeconds,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        self.writer
            .write(move |db| {
                let before = rows::keys(db)?;
                if newest.is_some() && before.last().map(|key| key.id) != newest {
                    return Ok(before);
                }
                db.execute("UPDATE signing_key SET retire_at = ? WHERE retire_at IS NULL", [retire_at])?;
                rows::insert_key(db, key)?;
                let after = rows::keys(db)?;
                audit::insert(db, &of_keys(&before, &after, &origin))?;
                Ok(after)
            })
            .await
    }

    pub(in crate::store) async fn retire_keys(
        &self,
        origin: ChangeOrigin,
        retired: impl Fn(&SigningKeyRecord) -> bool + Send + 'static,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        self.writer
            .write(move |db| {
                let (gone, stay): (Vec<_>, Vec<_>) = rows::keys(db)?.into_iter().partition(retired);
                for key in &gone {
                    db.execute("DELETE FROM signing_key WHERE id = ?", [key.id])?;
                }
                audit::insert(db, &of_keys(&gone, &[], &origin))?;
                Ok(stay)
            })
            .await
    }

    pub(in crate::store) async fn end_tokens(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>, StoreError> {
        self.writer
            .write(move |db| {
                let (keys, verifiers) = (rows::keys(db)?, rows::verifiers(db)?);
                db.execute("DELETE FROM signing_key", ())?;
                db.execute("DELETE FROM verifier", ())?;
                rows::insert_key(db, key)?;
                let after = rows::keys(db)?;
                audit::insert(db, &of_end(&keys, &after, &verifiers, &origin))?;
                Ok(after)
            })
            .await
    }

    pub(in crate::store) async fn create_verifier(
        &self,
        new: VerifierRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>, StoreError> {
        self.writer
            .write(move |db| {
                let before = rows::verifiers(db)?;
                db.execute(
                    "INSERT INTO verifier (name, token_hash, shares_hs256, created_at) VALUES (?, ?, ?, ?)",
                    (new.name, new.token_hash.0, new.shares_hs256, new.created_at),
                )?;
                let after = rows::verifiers(db)?;
                audit::insert(db, &of_verifiers(&before, &after, &origin))?;
                Ok(after)
            })
            .await
    }

    pub(in crate::store) async fn delete_verifier(
        &self,
        id: u64,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>, StoreError> {
        self.writer
            .write(move |db| {
                let before = rows::verifiers(db)?;
                db.execute("DELETE FROM verifier WHERE id = ?", [id])?;
                let after = rows::verifiers(db)?;
                audit::insert(db, &of_verifiers(&before, &after, &origin))?;
                Ok(after)
            })
            .await
    }
}
