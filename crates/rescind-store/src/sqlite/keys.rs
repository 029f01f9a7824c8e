//! Operations on data that seldom changes: signing keys and verifiers.

use rescind_base::model::{
    ChangeOrigin, Event, SigningKeyRecord, UnixSeconds, VerifierRecord,
    changes::{of_end, of_keys, of_verifiers},
};
use rusqlite::Connection;

use super::{Sqlite, administrators, audit, management, rows};
use crate::Result;

/// Returns all that one kind of event is derived from.
pub(super) type Read<T> = fn(&Connection) -> Result<Vec<T>>;
pub(super) type Events<T> = fn(&[T], &[T], &ChangeOrigin) -> Vec<Event>;

const KEYS: (Read<SigningKeyRecord>, Events<SigningKeyRecord>) = (rows::keys, of_keys);
pub(super) const VERIFIERS: (Read<VerifierRecord>, Events<VerifierRecord>) = (rows::verifiers, of_verifiers);

impl Sqlite {
    /// Lets `change` change the rows of a table, which it gets as they are. Returns them as they are then.
    pub(super) async fn change_table<T: Send + 'static>(
        &self,
        (read, events): (Read<T>, Events<T>),
        origin: ChangeOrigin,
        change: impl FnOnce(&Connection, &[T]) -> Result<()> + Send + 'static,
    ) -> Result<Vec<T>> {
        let job = move |db: &Connection| {
            let before = read(db)?;
            change(db, &before)?;
            let after = read(db)?;
            audit::insert(db, &events(&before, &after, &origin))?;
            Ok(after)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn first_key(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>> {
        let insert = |db: &Connection, before: &[SigningKeyRecord]| {
            if before.is_empty() { rows::insert_key(db, key) } else { Ok(()) }
        };
        self.change_table(KEYS, origin, insert).await
    }

    pub(crate) async fn rotate_key(
        &self,
        newest: Option<u64>,
        key: SigningKeyRecord,
        retire_at: UnixSeconds,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>> {
        let rotate = move |db: &Connection, before: &[SigningKeyRecord]| {
            if newest.is_some() && before.last().map(|key| key.id) != newest {
                return Ok(());
            }
            db.execute("UPDATE signing_key SET retire_at = ? WHERE retire_at IS NULL", [retire_at])?;
            rows::insert_key(db, key)
        };
        self.change_table(KEYS, origin, rotate).await
    }

    pub(crate) async fn retire_keys(
        &self,
        origin: ChangeOrigin,
        retired: impl Fn(&SigningKeyRecord) -> bool + Send + 'static,
    ) -> Result<Vec<SigningKeyRecord>> {
        let retire = move |db: &Connection, before: &[SigningKeyRecord]| {
            for key in before.iter().filter(|key| retired(key)) {
                db.execute("DELETE FROM signing_key WHERE id = ?", [key.id])?;
            }
            Ok(())
        };
        self.change_table(KEYS, origin, retire).await
    }

    pub(crate) async fn end_tokens(
        &self,
        key: SigningKeyRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<SigningKeyRecord>> {
        let job = move |db: &Connection| {
            let (keys, verifiers) = (rows::keys(db)?, rows::verifiers(db)?);
            db.execute_batch("DELETE FROM signing_key; DELETE FROM verifier")?;
            rows::insert_key(db, key)?;
            let after = rows::keys(db)?;
            audit::insert(db, &of_end(&keys, &after, &verifiers, &origin))?;
            management::delete_all(db, &origin)?;
            administrators::delete_all(db, &origin)?;
            Ok(after)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn create_verifier(
        &self,
        new: VerifierRecord,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>> {
        let insert = move |db: &Connection, _: &[VerifierRecord]| {
            db.execute(
                "INSERT INTO verifier (name, token_hash, pepper, shares_hs256, created_at) VALUES (?, ?, ?, ?, ?)",
                (new.name, new.token_hash.bytes, new.token_hash.pepper, new.shares_hs256, new.created_at),
            )?;
            Ok(())
        };
        self.change_table(VERIFIERS, origin, insert).await
    }

    pub(crate) async fn delete_verifier(&self, id: u64, origin: ChangeOrigin) -> Result<Vec<VerifierRecord>> {
        let delete = move |db: &Connection, _: &[VerifierRecord]| {
            db.execute("DELETE FROM verifier WHERE id = ?", [id])?;
            Ok(())
        };
        self.change_table(VERIFIERS, origin, delete).await
    }
}
