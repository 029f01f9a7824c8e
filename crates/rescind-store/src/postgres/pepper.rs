//! The peppers, and the hashes of verifiers' tokens under them.

use rescind_base::{
    model::{ChangeOrigin, EventKind, VerifierRecord},
    secret::{SealedSecrets, SecretHash},
};

use super::{
    Postgres, audit,
    changed::{ChangedRow, RECORD_CHANGE},
    keys::VERIFIERS,
    rows::{self, Number, hash_values},
    transaction::Transaction,
};
use crate::Result;

/// Of two nodes that begin at once, the second one finds what the first has put there.
const BEGIN: &str = "BEGIN; LOCK TABLE sealed_secret IN SHARE ROW EXCLUSIVE MODE";
const INSERT: &str = "INSERT INTO sealed_secret (name, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const DELETE: &str = "DELETE FROM sealed_secret WHERE name = $1";
const REHASH_VERIFIER: &str =
    "UPDATE verifier SET token_hash = $2, pepper = $3 WHERE id = $1 AND pepper < $3";

impl Postgres {
    pub(crate) async fn first_pepper(&self, new: SealedSecrets) -> Result<SealedSecrets> {
        let mut tx = self.transaction().await?;
        let there = begin(&mut tx).await?;
        if there.is_empty() {
            insert(&mut tx, &new).await?;
        }
        tx.commit().await?;
        Ok(if there.is_empty() { new } else { there })
    }

    pub(crate) async fn rotate_pepper(
        &self,
        new: SealedSecrets,
        origin: ChangeOrigin,
    ) -> Result<SealedSecrets> {
        let mut tx = self.transaction().await?;
        let before = begin(&mut tx).await?;
        insert(&mut tx, &new).await?;
        commit(tx, before, EventKind::PepperRotated, &origin).await
    }

    pub(crate) async fn retire_pepper(&self, name: String, origin: ChangeOrigin) -> Result<SealedSecrets> {
        let mut tx = self.transaction().await?;
        let before = begin(&mut tx).await?;
        tx.run(DELETE, &[&name]).await?;
        commit(tx, before, EventKind::PepperRetired, &origin).await
    }

    pub(crate) async fn rehash_verifier(
        &self,
        id: u64,
        hash: SecretHash,
        origin: ChangeOrigin,
    ) -> Result<Vec<VerifierRecord>> {
        let mut tx = self.transaction().await?;
        let before = VERIFIERS.begin(&mut tx).await?;
        let (hash, pepper) = hash_values(&hash);
        tx.run(REHASH_VERIFIER, &[&Number(id), &hash, &pepper]).await?;
        VERIFIERS.commit(tx, &before, &origin).await
    }
}

async fn begin(tx: &mut Transaction) -> Result<SealedSecrets> {
    tx.batch(BEGIN).await?;
    rows::secrets(&tx.fetch(rows::SECRETS, &[]).await?)
}

async fn insert(tx: &mut Transaction, secrets: &SealedSecrets) -> Result<()> {
    for (name, sealed) in secrets {
        tx.run(INSERT, &[name, sealed]).await?;
    }
    Ok(())
}

/// Commits the change of these secrets, if there is one. Returns every secret.
async fn commit(
    mut tx: Transaction,
    before: SealedSecrets,
    kind: EventKind,
    origin: &ChangeOrigin,
) -> Result<SealedSecrets> {
    let [tell, record] = tx.prepared([RECORD_CHANGE, audit::INSERT]).await?;
    let after = rows::secrets(&tx.fetch(rows::SECRETS, &[]).await?)?;
    if after == before {
        tx.commit_as_missing().await?;
    } else {
        tx.commit_with_change([&tell, &record], ChangedRow::Keys, &[origin.event(kind)]).await?;
    }
    Ok(after)
}
