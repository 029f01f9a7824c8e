//! What operators ask about: sessions of a client, and the uses of credentials. And what ends by itself.

use std::collections::BTreeSet;

use rescind_base::{
    model::{
        ChangeOrigin, ClientId, CredentialId, CredentialUse, EventKind, SessionId, SigningKeyRecord,
        UnixSeconds,
    },
    secret::SealedSecrets,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Sqlite, audit, rows};
use crate::{
    Result, SessionPart,
    values::{BATCH, USES_KEPT, USES_TOLD, address_text, read_address},
};

impl Sqlite {
    pub(crate) async fn reseal(
        &self,
        secrets: SealedSecrets,
        keys: Vec<SigningKeyRecord>,
        authenticators: Vec<(u64, Vec<u8>)>,
        origin: ChangeOrigin,
    ) -> Result<()> {
        let job = move |db: &Connection| {
            for (name, sealed) in &secrets {
                db.execute("UPDATE sealed_secret SET sealed = ? WHERE name = ?", (sealed, name))?;
            }
            for key in &keys {
                db.execute(
                    "UPDATE signing_key SET sealed = ?, refresh_sealed = ? WHERE id = ?",
                    params![key.sealed, key.refresh_sealed, key.id],
                )?;
            }
            for (administrator, sealed) in &authenticators {
                db.execute("UPDATE administrator SET totp = ? WHERE id = ?", params![sealed, administrator])?;
            }
            audit::insert(db, &[origin.event(EventKind::MasterKeyRotated)])
        };
        self.writer.write(job).await
    }

    pub(crate) async fn sessions_of(
        &self,
        client: ClientId,
        before: SessionId,
        rows: u64,
    ) -> Result<SessionPart> {
        self.readers.read_long(move |db| rows::sessions_of(db, client, before, rows)).await
    }

    pub(crate) async fn client_of_session(&self, session: SessionId) -> Result<Option<ClientId>> {
        self.read(move |db| {
            let mut query = db.prepare_cached("SELECT client_id FROM session WHERE id = ?")?;
            Ok(query.query_row([session], |row| row.get(0)).optional()?)
        })
        .await
    }

    pub(crate) async fn client_of_credential(&self, api_key: &str) -> Result<Option<ClientId>> {
        let api_key = api_key.to_owned();
        self.read(move |db| {
            let mut query = db.prepare_cached("SELECT client_id FROM credential WHERE api_key = ?")?;
            Ok(query.query_row([api_key], |row| row.get(0)).optional()?)
        })
        .await
    }

    pub(crate) async fn suspended_until(&self, now: UnixSeconds) -> Result<Vec<ClientId>> {
        let due = "SELECT id FROM client WHERE suspended_until <= ? AND status = 'suspended' LIMIT ?";
        self.read(move |db| ids(db, due, now)).await
    }

    pub(crate) async fn with_ended_credentials(&self, before: UnixSeconds) -> Result<Vec<ClientId>> {
        let ended =
            "SELECT DISTINCT client_id FROM credential WHERE coalesce(revoked_at, expires_at) < ? LIMIT ?";
        self.read(move |db| ids(db, ended, before)).await
    }

    pub(crate) async fn add_uses(&self, uses: Vec<CredentialUse>) -> Result<()> {
        let job = move |db: &Connection| {
            let mut add = db.prepare_cached(
                "INSERT INTO credential_use (credential_id, address, at, times) VALUES (?, ?, ?, ?)
                 ON CONFLICT (credential_id, address) DO UPDATE
                 SET at = max(at, excluded.at), times = times + excluded.times",
            )?;
            for CredentialUse { credential, address, at, times } in &uses {
                add.execute(params![credential, address_text(*address), at, times])?;
            }
            let credentials: BTreeSet<_> = uses.iter().map(|used| used.credential).collect();
            credentials.into_iter().try_for_each(|credential| trim(db, credential, 0))
        };
        self.writer.write(job).await
    }

    pub(crate) async fn uses_of(&self, client: ClientId) -> Result<Vec<CredentialUse>> {
        let read = move |db: &Connection| {
            let mut query = db.prepare(
                "SELECT credential_id, address, at, times FROM credential_use
                 WHERE credential_id IN (SELECT id FROM credential WHERE client_id = ?) ORDER BY at DESC LIMIT ?",
            )?;
            let uses = query.query_and_then((client, USES_TOLD), |row| {
                Ok(CredentialUse {
                    credential: row.get(0)?,
                    address: read_address(&row.get::<_, String>(1)?)?,
                    at: row.get(2)?,
                    times: row.get(3)?,
                })
            })?;
            uses.collect()
        };
        self.readers.read_long(read).await
    }

    pub(crate) async fn last_uses(&self) -> Result<Vec<(ClientId, UnixSeconds)>> {
        let read = |db: &Connection| {
            let mut query = db.prepare(
                "SELECT client_id, max(at) FROM (
                     SELECT credential_id, at FROM credential_use
                     UNION ALL SELECT credential_id, at FROM last_verification)
                 JOIN credential ON credential.id = credential_id GROUP BY client_id",
            )?;
            let last = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(last.collect::<Result<_, _>>()?)
        };
        self.readers.read_long(read).await
    }

    pub(crate) async fn sweep_uses(
        &self,
        after: CredentialId,
        before: UnixSeconds,
    ) -> Result<Option<CredentialId>> {
        let next = "SELECT DISTINCT credential_id FROM credential_use WHERE credential_id > ?
                    ORDER BY credential_id LIMIT ?";
        let credentials = self.read(move |db| ids(db, next, after)).await?;
        let last = credentials.last().copied();
        let job = move |db: &Connection| {
            credentials.into_iter().try_for_each(|credential| trim(db, credential, before))
        };
        self.writer.write(job).await?;
        Ok(last)
    }
}

/// Deletes a credential's uses before this time, and those beyond the number that is kept; all if it is gone.
fn trim(db: &Connection, credential: CredentialId, before: UnixSeconds) -> Result<()> {
    // The newest use of a credential stays, however old it is.
    let mut delete = db.prepare_cached(
        "DELETE FROM credential_use WHERE credential_id = ?1 AND address IN (
             SELECT address FROM (
                 SELECT address, at, row_number() OVER (ORDER BY at DESC) AS place
                 FROM credential_use WHERE credential_id = ?1)
             WHERE (place > 1 AND at < ?2) OR place > ?3
                OR NOT EXISTS (SELECT 1 FROM credential WHERE id = ?1))",
    )?;
    delete.execute((credential, before, USES_KEPT))?;
    Ok(())
}

fn ids(db: &Connection, query: &str, bound: u64) -> Result<Vec<u64>> {
    let mut query = db.prepare_cached(query)?;
    let ids = query.query_map((bound, BATCH), |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use rescind_base::random::Random;

    use super::*;
    use crate::sqlite::connect;

    #[tokio::test]
    async fn the_log_can_be_copied_between_two_parts_of_a_list_of_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rescind.db");
        let store = Sqlite::open(&path, &Random::seeded(1)).unwrap();
        let other = connect(&path).unwrap();
        let login = || {
            other
                .execute_batch(
                    "INSERT INTO session (client_id, credential_id, key_id, generation, scopes, pair, phase, started_at,
                                          issued_at, access_expires_at, refresh_expires_at)
                     VALUES (1, 1, 1, 0, '', 1, 0, 0, 0, 0, 0)",
                )
                .unwrap();
        };
        (0..5).for_each(|_| login());
        let (mut ids, mut before) = (vec![], Some(6));
        while let Some(end) = before {
            let part = store.sessions_of(1, end, 2).await.unwrap();
            assert!(part.sessions.len() <= 2);
            ids.extend(part.sessions.iter().map(|session| session.id));
            before = part.next;
            login();
            let of_log = other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                Ok((row.get::<_, bool>("busy")?, row.get::<_, i64>("log")?))
            });
            assert_eq!(of_log, Ok((false, 0)));
        }
        assert_eq!(ids, [5, 4, 3, 2, 1]);
    }
}
