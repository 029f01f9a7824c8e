//! The peppers, and the hashes of verifiers' tokens under them.

use rescind_base::{
    model::{ChangeOrigin, EventKind, VerifierRecord},
    secret::{SealedSecrets, SecretHash},
};
use rusqlite::Connection;

use super::{Sqlite, audit, keys::VERIFIERS, rows};
use crate::Result;

impl Sqlite {
    pub(crate) async fn first_pepper(&self, new: SealedSecrets) -> Result<SealedSecrets> {
        let job = move |db: &Connection| {
            if rows::secrets(db)?.is_empty() {
                insert(db, &new)?;
            }
            rows::secrets(db)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn rotate_pepper(
        &self,
        new: SealedSecrets,
        origin: ChangeOrigin,
    ) -> Result<SealedSecrets> {
        let job = move |db: &Connection| {
            if insert(db, &new)? > 0 {
                audit::insert(db, &[origin.event(EventKind::PepperRotated)])?;
            }
            rows::secrets(db)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn retire_pepper(&self, name: String, origin: ChangeOrigin) -> Result<SealedSecrets> {
        let job = move |db: &Connection| {
            if db.execute("DELETE FROM sealed_secret WHERE name = ?", [&name])? > 0 {
                audit::insert(db, &[origin.event(EventKind::PepperRetired)])?;
            }
            rows::secrets(db)
        };
        self.writer.write(job).await
    }

    pub(crate) async fn rehash_verifier(
        &self,
        id: u64,
        hash: SecretHash,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>> {
        let rehash = move |db: &Connection, _: &[VerifierRecord]| {
            let update = "UPDATE verifier SET token_hash = ?2, pepper = ?3 WHERE id = ?1 AND pepper < ?3";
            db.execute(update, (id, hash.bytes, hash.pepper))?;
            Ok(())
        };
        self.change_table(VERIFIERS, origin, rehash).await
    }
}

/// Inserts the secrets whose names are new, and returns how many.
fn insert(db: &Connection, secrets: &SealedSecrets) -> Result<usize> {
    let mut inserted = 0;
    for secret in secrets {
        inserted += db
            .prepare_cached("INSERT INTO sealed_secret (name, sealed) VALUES (?, ?) ON CONFLICT DO NOTHING")?
            .execute(secret)?;
    }
    Ok(inserted)
}
